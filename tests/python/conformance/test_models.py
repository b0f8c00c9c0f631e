"""What models say of themselves, what they have done, and how they come and go."""

import pathlib
import re
import shutil
import tempfile
import threading
import time
import unittest
import urllib.request

import numpy as np
from support import MODELS, NATIVE, SLOW, Server, eventually, files, outputs, picture, png, server
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

GOOD = {**NATIVE, "lift_passes": 0}


def shapes(tensors):
    return {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in tensors}


class Description(unittest.TestCase):
    def setUp(self):
        self.client = server().client()
        self.addCleanup(self.client.close)

    def test_metadata_names_inputs_and_outputs_with_their_shapes(self):
        metadata = self.client.get_model_metadata("tiny")
        self.assertEqual((metadata.name, list(metadata.versions), metadata.platform), ("tiny", ["1"], "onnxruntime_onnx"))
        self.assertEqual(shapes(metadata.inputs), {"image": ("BYTES", [-1, 1]), "pixels": ("UINT8", [-1, -1, -1, 3])})
        expected = {
            "features": ("FP32", [-1, -1, -1, 64]),
            "cls_token": ("FP32", [-1, 64]),
            "grid_to_image": ("FP64", [-1, 4]),
            "labels": ("UINT8", [-1, -1, -1]),
            "scores": ("FP16", [-1, -1, -1, 7]),
            "raster_to_image": ("FP64", [-1, 4]),
        }
        self.assertEqual(shapes(metadata.outputs), expected)
        registers = shapes(self.client.get_model_metadata("registers").outputs)
        self.assertEqual(registers["register_tokens"], ("FP32", [-1, 4, 64]))
        self.assertNotIn("labels", registers)

    def test_every_output_that_is_named_can_be_asked_for_and_has_the_named_shape(self):
        for model in ("tiny", "registers"):
            described = self.client.get_model_metadata(model).outputs
            wanted = outputs(*(output.name for output in described))
            result = self.client.infer(model, files(png(picture(56, 56)), png(picture(56, 56, 9))), outputs=wanted, parameters=NATIVE)
            for output in described:
                answered = result.get_output(output.name)
                self.assertEqual(answered.datatype, output.datatype)
                self.assertEqual(len(answered.shape), len(output.shape), output.name)
                for size, declared in zip(answered.shape, output.shape, strict=True):
                    self.assertTrue(declared in (-1, size), output.name)

    def test_the_configuration_says_the_same_without_the_axis_of_images(self):
        for model in ("tiny", "registers"):
            metadata, config = self.client.get_model_metadata(model), self.client.get_model_config(model).config
            types = {model_config_pb2.TYPE_STRING: "BYTES"}
            for described, tensors in ((metadata.inputs, config.input), (metadata.outputs, config.output)):
                for one, other in zip(described, tensors, strict=True):
                    name = model_config_pb2.DataType.Name(other.data_type).removeprefix("TYPE_")
                    self.assertEqual((one.name, one.datatype), (other.name, types.get(other.data_type, name)))
                    self.assertEqual(list(one.shape), [-1, *other.dims])
        config = self.client.get_model_config("tiny").config
        self.assertEqual((config.max_batch_size, config.backend), (16, "onnxruntime"))
        self.assertTrue(all(tensor.optional for tensor in config.input))
        self.assertEqual(config.WhichOneof("scheduling_choice"), "dynamic_batching")
        batching = config.dynamic_batching
        self.assertEqual((batching.priority_levels, batching.default_priority_level), (3, 2))
        self.assertTrue(batching.default_queue_policy.allow_timeout_override)
        self.assertEqual((config.instance_group[0].count, config.instance_group[0].kind), (1, 2))
        self.assertFalse(config.model_transaction_policy.decoupled or config.response_cache.enable)
        self.assertEqual(config.parameters["layers"].string_value, "0,1")
        self.assertEqual(len(config.parameters["classes"].string_value.split(",")), 7)


class Statistics(unittest.TestCase):
    """On a server of its own, where nobody else asks."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server("models.verify=false")

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def test_they_count_requests_images_and_runs_and_agree_with_the_metrics(self):
        with self.server.client() as client:
            self.assertEqual({one.name for one in client.get_inference_statistics().model_stats}, {"tiny", "registers"})
            self.assertEqual(client.get_inference_statistics("tiny").model_stats[0].last_inference, 0)
            began = time.time()
            image = png(picture(32, 32))
            for _ in range(3):
                client.infer("tiny", files(image), parameters=GOOD)
            client.infer("tiny", files(image, image), parameters=GOOD)
            with self.assertRaises(InferenceServerException):
                client.infer("tiny", files(b"no image"), parameters=GOOD)
            (one,) = client.get_inference_statistics("tiny", "1").model_stats
            took_ns = (time.time() - began) * 1e9
            stats = one.inference_stats
            self.assertEqual((one.inference_count, stats.success.count, stats.fail.count), (5, 4, 1))
            for part in (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output):
                self.assertEqual(part.count, 4)
            parts_ns = stats.queue.ns + stats.compute_input.ns + stats.compute_infer.ns + stats.compute_output.ns
            self.assertTrue(0 < stats.compute_infer.ns < parts_ns <= stats.success.ns <= took_ns)
            self.assertEqual(sum(run.compute_infer.count for run in one.batch_stats), one.execution_count)
            self.assertEqual(sum(run.batch_size * run.compute_infer.count for run in one.batch_stats), 5)
            self.assertLess(abs(one.last_inference / 1000 - time.time()), 60)
            metrics = urllib.request.urlopen(f"http://{self.server.admin()}/metrics").read().decode()
            runs = re.search(r'densevit_batch_size_images_count\{model="tiny"\} (\d+)', metrics)
            images = re.search(r'densevit_batch_size_images_sum\{model="tiny"\} (\d+)', metrics)
            self.assertEqual((int(runs[1]), int(images[1])), (one.execution_count, 5))
            answered = re.search(r'densevit_request_duration_seconds_count\{rpc="ModelInfer",outcome="ok"\} (\d+)', metrics)
            self.assertEqual(int(answered[1]), stats.success.count)


class Repository(unittest.TestCase):
    """On a server of its own, whose callers may load and unload."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.models = pathlib.Path(folder.name)
        shutil.copytree(MODELS / "tiny", self.models / "tiny")
        self.server = Server("models.control=true", models=self.models)
        self.addCleanup(self.server.stop)
        self.client = self.server.client()
        self.addCleanup(self.client.close)

    def index(self):
        models = self.client.get_model_repository_index().models
        return {(one.name, one.version): (one.state, one.reason) for one in models}

    def features(self, version=""):
        inputs = files(png(picture(32, 32)))
        return self.client.infer("tiny", inputs, model_version=version, parameters=GOOD).as_numpy("features")

    def new_version(self, version):
        """A copy of the model that calls itself by another version."""
        shutil.copytree(self.models / "tiny/1", self.models / f"tiny/{version}")
        manifest = self.models / f"tiny/{version}/model.toml"
        manifest.write_text(manifest.read_text().replace("version = 1", f"version = {version}", 1))

    def test_callers_may_not_touch_models_unless_the_operator_lets_them(self):
        with server().client() as client:
            for call in (client.load_model, client.unload_model):
                with self.assertRaises(InferenceServerException) as caught:
                    call("tiny")
                self.assertEqual(caught.exception.status(), "StatusCode.FAILED_PRECONDITION")
                self.assertIn("models.control", caught.exception.message())
            index = {one.name: one.state for one in client.get_model_repository_index().models}
            self.assertEqual(index, {"tiny": "READY", "registers": "READY"})

    def test_a_new_version_is_loaded_while_the_old_one_answers(self):
        expected = self.features()
        self.new_version(2)
        self.assertEqual(self.index(), {("tiny", "1"): ("READY", ""), ("tiny", "2"): ("UNAVAILABLE", "not loaded")})
        failures, stop = [], threading.Event()

        def ask():
            with self.server.client() as client:
                while not stop.is_set():
                    try:
                        client.infer("tiny", files(png(picture(32, 32))), parameters=GOOD)
                    except InferenceServerException as error:
                        failures.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        self.client.load_model("tiny")
        stop.set()
        asking.join()
        self.assertEqual(failures, [])
        self.assertEqual(list(self.client.get_model_metadata("tiny").versions), ["1", "2"])
        np.testing.assert_array_equal(self.features("2"), expected)
        self.assertEqual(self.client.infer("tiny", files(png(picture(32, 32))), parameters=GOOD).get_response().model_version, "2")
        self.assertEqual(set(self.index().values()), {("READY", "")})

    def test_a_broken_model_leaves_the_old_one_serving_and_says_why(self):
        expected = self.features()
        self.new_version(2)
        (self.models / "tiny/2/backbone.onnx").write_bytes(b"broken")
        with self.assertRaises(InferenceServerException) as caught:
            self.client.load_model("tiny")
        self.assertEqual(caught.exception.status(), "StatusCode.FAILED_PRECONDITION")
        self.assertIn("tiny/2 does not load", caught.exception.message())
        np.testing.assert_array_equal(self.features(), expected)
        state, reason = self.index()["tiny", "2"]
        self.assertEqual(state, "UNAVAILABLE")
        self.assertIn("SHA-256", reason)
        (self.models / "tiny/2/model.toml").write_text("no manifest")
        self.assertIn("is no manifest", self.index()["tiny", "2"][1])
        shutil.rmtree(self.models / "tiny/2")
        self.client.load_model("tiny")
        self.assertEqual(self.index(), {("tiny", "1"): ("READY", "")})

    def test_an_unloaded_model_is_gone_for_new_requests_and_finishes_those_that_began(self):
        answered = []
        self.client.async_infer("tiny", files(png(picture(64, 64))), lambda result, error: answered.append(error), parameters=SLOW)
        self.assertTrue(eventually(self.in_flight))
        # The call is there; its message is read within microseconds, the run takes hundreds of milliseconds.
        time.sleep(0.05)
        self.client.unload_model("tiny")
        self.assertFalse(self.client.is_model_ready("tiny"))
        with self.assertRaises(InferenceServerException) as caught:
            self.features()
        self.assertEqual(caught.exception.status(), "StatusCode.NOT_FOUND")
        self.assertEqual(self.index()["tiny", "1"][0], "UNAVAILABLE")
        self.assertEqual(list(self.client.get_model_repository_index().models)[0].state, "UNAVAILABLE")
        with self.assertRaises(InferenceServerException) as caught:
            self.client.unload_model("tiny")
        self.assertEqual(caught.exception.status(), "StatusCode.NOT_FOUND")
        self.client.load_model("tiny")
        self.assertEqual(self.features().shape, (1, 2, 2, 64))
        self.assertTrue(eventually(lambda: answered))
        self.assertEqual(answered, [None])

    def test_executors_end_with_the_model_that_they_belong_to(self):
        # A thread names itself once it runs.
        self.assertTrue(eventually(lambda: self.executors() == 1))
        (self.models / "tiny/1/model.toml").write_text((self.models / "tiny/1/model.toml").read_text() + "\n")
        self.client.load_model("tiny")
        self.assertTrue(eventually(lambda: self.executors() == 1), "one of the old model and one of the new, then one")
        self.client.unload_model("tiny")
        self.assertTrue(eventually(lambda: self.executors() == 0))

    def executors(self):
        """Threads of the server that run models."""
        threads = pathlib.Path(f"/proc/{self.server.process.pid}/task").glob("*/comm")
        return sum(thread.read_text().startswith("batch-worker") for thread in threads)

    def in_flight(self):
        metrics = urllib.request.urlopen(f"http://{self.server.admin()}/metrics").read().decode()
        calls = re.search(r"^densevit_calls_in_flight (\d+)", metrics, re.MULTILINE)
        return calls is not None and int(calls[1]) > 0

    def test_what_is_not_in_the_repository_is_not_found_and_settings_are_refused(self):
        for call, code in [
            (lambda: self.client.load_model("nobody"), "StatusCode.NOT_FOUND"),
            (lambda: self.client.load_model("../tiny"), "StatusCode.NOT_FOUND"),
            (lambda: self.client.load_model("tiny", config='{"max_batch_size": 4}'), "StatusCode.INVALID_ARGUMENT"),
        ]:
            with self.assertRaises(InferenceServerException) as caught:
                call()
            self.assertEqual(caught.exception.status(), code)


if __name__ == "__main__":
    unittest.main()
