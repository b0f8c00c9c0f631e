"""The interface itself: every name, number and type that we have is the one that `tritonclient` was generated from."""

import pathlib
import tempfile
import unittest

import grpc
from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from support import ROOT, server
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException


def compiled():
    """Our files as descriptors; they are not loaded, because their names are those of the client's."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "set.bin"
        arguments = ["protoc", f"-I{ROOT / 'proto'}", f"--descriptor_set_out={out}", "--include_imports"]
        assert protoc.main([*arguments, "inference/grpc_service.proto"]) == 0
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def official():
    files = []
    for module in (service_pb2, model_config_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        files.append(file)
    return files


def fields(files):
    """Path of each field, enum value and RPC -> everything that matters on the wire."""
    table = {}

    def message(path, proto):
        for field in proto.field:
            oneof = proto.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
            table[f"{path}.{field.name}"] = (field.number, field.type, field.type_name, field.label, oneof)
        table[f"{path} is a map's entry"] = proto.options.map_entry
        for nested in proto.nested_type:
            message(f"{path}.{nested.name}", nested)
        for enum in proto.enum_type:
            values(f"{path}.{enum.name}", enum)

    def values(path, enum):
        for value in enum.value:
            table[f"{path}.{value.name}"] = value.number

    for file in files:
        for proto in file.message_type:
            message(f"{file.package}.{proto.name}", proto)
        for enum in file.enum_type:
            values(f"{file.package}.{enum.name}", enum)
        for service in file.service:
            for method in service.method:
                streams = (method.client_streaming, method.server_streaming)
                table[f"{file.package}.{service.name}/{method.name}"] = (method.input_type, method.output_type, streams)
    return table


class Interface(unittest.TestCase):
    def test_every_field_of_ours_is_the_official_one(self):
        ours, theirs = fields(compiled().file), fields(official())
        self.assertGreater(len(ours), 250)
        for path, wire in ours.items():
            self.assertIn(path, theirs)
            self.assertEqual(wire, theirs[path], path)

    def test_every_rpc_and_every_field_of_the_service_is_there(self):
        ours, theirs = fields(compiled().file), fields(official()[:1])
        self.assertEqual(set(theirs) - set(ours), set())

    def test_the_server_is_alive_and_ready_and_says_what_it_is(self):
        with server().client() as client:
            self.assertTrue(client.is_server_live())
            self.assertTrue(client.is_server_ready())
            self.assertTrue(client.is_model_ready("tiny"))
            self.assertTrue(client.is_model_ready("tiny", "1"))
            self.assertFalse(client.is_model_ready("tiny", "2"))
            self.assertFalse(client.is_model_ready("nobody"))
            metadata = client.get_server_metadata()
            self.assertEqual(metadata.name, "densevit")
            self.assertIn("statistics", metadata.extensions)
            self.assertNotIn("system_shared_memory", metadata.extensions)

    def test_what_is_not_offered_says_so(self):
        with server().client() as client:
            calls = [
                client.get_system_shared_memory_status,
                lambda: client.register_system_shared_memory("region", "/region", 1024),
                client.unregister_system_shared_memory,
                client.get_cuda_shared_memory_status,
                lambda: client.register_cuda_shared_memory("region", b"AA==", 0, 1024),
                client.unregister_cuda_shared_memory,
                client.get_trace_settings,
                client.get_log_settings,
            ]
            for call in calls:
                with self.assertRaises(InferenceServerException) as caught:
                    call()
                self.assertEqual(caught.exception.status(), "StatusCode.UNIMPLEMENTED")
                self.assertGreater(len(caught.exception.message()), 20)

    def test_health_knows_the_service_and_the_models(self):
        channel = grpc.insecure_channel(server().address)
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        serving = b"\x08\x01"
        for name in ("", "inference.GRPCInferenceService", "models/tiny"):
            request = b"\x0a" + bytes([len(name)]) + name.encode() if name else b""
            self.assertEqual(check(request), serving, name)


if __name__ == "__main__":
    unittest.main()
