"""What is refused: with the right code, and words that name the field, the value and the limit."""

import time
import unittest

import grpc
import numpy as np
import tritonclient.grpc as kserve
from support import NATIVE, SLOW, Answers, Server, files, outputs, picture, pixels, png, server
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

GOOD = {**NATIVE, "lift_passes": 0}
INVALID = "StatusCode.INVALID_ARGUMENT"


def tensor(name, datatype, shape, raw):
    """An input that the client itself would not make."""
    made = kserve.InferInput(name, shape, datatype)
    made._raw_content = raw
    return [made]


class Errors(unittest.TestCase):
    def setUp(self):
        self.client = server().client()
        self.addCleanup(self.client.close)

    def refused(self, code, *words, inputs=None, model="tiny", version="", wanted=None, parameters=None, **options):
        inputs = files(png(picture(32, 32))) if inputs is None else inputs
        with self.assertRaises(InferenceServerException) as caught:
            self.client.infer(model, inputs, model_version=version, outputs=wanted, parameters=parameters or GOOD, **options)
        self.assertEqual(caught.exception.status(), code, caught.exception.message())
        for word in words:
            self.assertIn(word, caught.exception.message())

    def test_inputs_that_do_not_fit_are_named(self):
        small = np.zeros([1, 4, 4, 3], np.uint8)
        self.refused(INVALID, "inputs[0].name", '"pic"', inputs=tensor("pic", "BYTES", [1], b"\1\0\0\0x"))
        floats = tensor("pixels", "FP32", [1, 4, 4, 3], b"\0" * 192)
        self.refused(INVALID, "inputs[0].datatype", "FP32", "normalises", inputs=floats)
        self.refused(INVALID, "inputs[0].datatype", "pixels", inputs=tensor("image", "UINT8", [1, 4, 4, 3], b"\0" * 48))
        self.refused(INVALID, "inputs[0].shape", "[n, height, width, 3]", inputs=tensor("pixels", "UINT8", [4, 4, 3], b"\0" * 48))
        self.refused(INVALID, "inputs[0].shape[0]", "17", "1 to 16", inputs=files(*[b"x"] * 17))
        short = tensor("pixels", "UINT8", [1, 4, 4, 3], b"\0" * 47)
        self.refused(INVALID, "raw_input_contents[0]", "has 47 bytes", "needs 48", inputs=short)
        self.refused(INVALID, "raw_input_contents[0]", "element 0", "9", inputs=tensor("image", "BYTES", [1], b"\x09\0\0\0x"))
        self.refused(INVALID, "inputs[1].name", inputs=pixels(small) + files(b"x"))
        self.refused(INVALID, "inputs", "required", inputs=[])

    def test_one_bad_image_is_named_and_fails_its_request_only(self):
        good = png(picture(32, 32))
        answers = Answers()
        self.client.async_infer("tiny", files(good), answers, parameters=GOOD)
        self.refused(INVALID, "raw_input_contents[0]: image 1 is no JPEG", inputs=files(good, b"no image", good))
        self.refused(INVALID, "raw_input_contents[0]: image 2 cannot be decoded as PNG", inputs=files(good, good, good[:60]))
        self.client.async_infer("tiny", files(good), answers, parameters=GOOD)
        self.assertEqual([answers.next()[1] for _ in range(2)], [None, None])

    def test_images_that_make_tensors_of_different_shapes_are_refused_before_they_are_run(self):
        before = self.client.get_inference_statistics("tiny").model_stats[0].execution_count
        unequal = files(png(picture(32, 32)), png(picture(32, 48)))
        self.refused(INVALID, "raw_input_contents[0]: image 1", "32 x 48", "32 x 32", inputs=unequal)
        # Inputs of one size, masks at the size of each photo.
        resized = {"height": 32, "width": 32}
        self.client.infer("tiny", unequal, parameters=resized)
        self.refused(INVALID, "image 1", "32 x 48", inputs=unequal, wanted=outputs("labels"), parameters=resized)
        after = self.client.get_inference_statistics("tiny").model_stats[0].execution_count
        self.assertLessEqual(after - before, 2)

    def test_outputs_and_parameters_that_are_not_there_are_named(self):
        self.refused(INVALID, "outputs[1].name", '"mask"', "features, cls_token", wanted=outputs("features", "mask"))
        self.refused(INVALID, "outputs[1].name", "twice", wanted=outputs("features", "features"))
        self.refused(INVALID, "outputs[0].name", "labels", model="registers", wanted=outputs("labels"))
        self.refused(INVALID, "outputs[0].parameters.classification", wanted=[kserve.InferRequestedOutput("features", class_count=3)])
        region = kserve.InferRequestedOutput("features")
        region.set_shared_memory("region", 1024)
        self.refused(INVALID, "outputs[0].parameters.shared_memory", wanted=[region])
        for parameters, field, word in [
            ({"fasset": "key"}, "parameters.fasset", "known are facet"),
            ({"facet": "keys"}, "parameters.facet", "norm_token"),
            ({"layer": 12}, "parameters.layer", "0, 1"),
            ({"lift_passes": 5}, "parameters.lift_passes", "4"),
            ({"dtype": "BF16"}, "parameters.dtype", "FP16"),
            ({"height": 33, "width": 32}, "parameters.height", "16"),
            ({"height": 32}, "parameters.resize", "width"),
            ({"short_side": 1 << 31}, "parameters.short_side", "max_input_pixels"),
            ({"min_score": 1.5}, "parameters.min_score", "[0, 1]"),
        ]:
            self.refused(INVALID, field, word, parameters=parameters)
        self.refused(INVALID, "parameters.sequence_", "state", sequence_id=3)
        self.refused(INVALID, "parameters.priority", "1, the most urgent, to 3", priority=4)
        self.refused(INVALID, "id", "300", "256", request_id="x" * 300)

    def test_models_that_are_not_there_are_not_found(self):
        self.refused("StatusCode.NOT_FOUND", "model_name", '"nobody"', "registers, tiny", model="nobody")
        self.refused("StatusCode.NOT_FOUND", "model_version", "9", version="9")
        self.refused(INVALID, "model_version", "newest", version="newest")
        for call in (self.client.get_model_metadata, self.client.get_model_config, self.client.get_inference_statistics):
            with self.assertRaises(InferenceServerException) as caught:
                call("nobody")
            self.assertEqual(caught.exception.status(), "StatusCode.NOT_FOUND")

    def test_details_say_which_field(self):
        stub = self.client._client_stub
        for request, detail in [
            (service_pb2.ModelInferRequest(model_name="tiny"), b"google.rpc.BadRequest"),
            (service_pb2.ModelInferRequest(model_name="nobody"), b"google.rpc.ResourceInfo"),
        ]:
            with self.assertRaises(grpc.RpcError) as caught:
                stub.ModelInfer(request)
            trailers = dict(caught.exception.trailing_metadata())
            self.assertIn(detail, trailers["grpc-status-details-bin"])

    def test_deadlines_of_the_call_and_of_the_request_are_obeyed(self):
        inputs = files(png(picture(64, 64)))
        # The run takes far longer than this; what cannot be done in time may also be refused at once, with a time to come back.
        codes = ("StatusCode.DEADLINE_EXCEEDED", "StatusCode.RESOURCE_EXHAUSTED")
        for options in ({"client_timeout": 0.05}, {"timeout": 50_000}):
            began = time.monotonic()
            with self.assertRaises(InferenceServerException) as caught:
                self.client.infer("tiny", inputs, parameters=SLOW, **options)
            self.assertIn(caught.exception.status(), codes)
            # A busy machine needs some room.
            self.assertLess(time.monotonic() - began, 5)
        generous = {"timeout": 30_000_000, "client_timeout": 30, "priority": 1}
        self.client.infer("tiny", inputs, parameters=GOOD, **generous)

    def test_a_full_server_says_when_to_come_back(self):
        full = Server("limits.max_in_flight=1", "models.verify=false")
        self.addCleanup(full.stop)
        with full.client() as client:
            answers = Answers()
            for _ in range(4):
                client.async_infer("tiny", files(png(picture(64, 64))), answers, parameters=SLOW)
            errors = [error for _result, error in (answers.next() for _ in range(4)) if error]
            self.assertTrue(errors)
            for error in errors:
                self.assertEqual(error.status(), "StatusCode.RESOURCE_EXHAUSTED")
                self.assertIn("limits.max_in_flight", error.message())

    def test_messages_over_the_limit_are_refused(self):
        small = Server("grpc.max_message_bytes=100000", "models.verify=false")
        self.addCleanup(small.stop)
        image = pixels(np.zeros([1, 256, 256, 3], np.uint8))
        with small.client() as client:
            # Zeros compress to next to nothing: the limit is one of what they become.
            for algorithm in (None, "gzip", "deflate"):
                with self.assertRaises(InferenceServerException) as caught:
                    client.infer("tiny", image, compression_algorithm=algorithm)
                self.assertEqual(caught.exception.status(), "StatusCode.RESOURCE_EXHAUSTED")
            client.infer("tiny", pixels(np.zeros([1, 32, 32, 3], np.uint8)), parameters=GOOD)


if __name__ == "__main__":
    unittest.main()
