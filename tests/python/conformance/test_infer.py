"""ModelInfer: what goes in, what comes out, and that both doors and PyTorch say the same."""

import asyncio
import time
import unittest

import numpy as np
import tritonclient.grpc as kserve
import tritonclient.grpc.aio as kserve_aio
from support import (
    GOLDEN_TOLERANCE, NATIVE, SLOW, Answers, files, golden, outputs, own_features, own_masks, pb, picture, pixels, png, server,
)
from tritonclient.grpc import service_pb2

PLAIN = {**NATIVE, "lift_passes": 0}


class Infer(unittest.TestCase):
    def setUp(self):
        self.client = server().client()
        self.addCleanup(self.client.close)

    def infer(self, inputs, model="tiny", wanted=None, **parameters):
        return self.client.infer(model, inputs, outputs=wanted, parameters=parameters)

    def test_pixels_give_the_features_that_pytorch_gives(self):
        arrays = golden()
        for facet in ("key", "query", "value", "token", "norm_token"):
            result = self.infer(pixels(arrays["other.image"][None]), **PLAIN, facet=facet, layer=1)
            features, expected = result.as_numpy("features"), arrays[f"other.{facet}.1"][None]
            self.assertEqual((features.dtype, features.shape), (np.float32, expected.shape))
            self.assertLessEqual(np.abs(features - expected).max(), GOLDEN_TOLERANCE * np.abs(expected).max(), facet)

    def test_files_give_the_bytes_that_our_own_service_gives(self):
        encoded = png(picture(64, 96))
        header, expected = own_features(encoded, facet=pb.FACET_KEY, layer=0, lift_passes=0, l2_normalize=True)
        wanted = outputs("features", "grid_to_image")
        result = self.infer(files(encoded), wanted=wanted, **PLAIN, facet="key", layer=0, l2_normalize=True)
        np.testing.assert_array_equal(result.as_numpy("features")[0], expected)
        affine = header.grid_to_image
        np.testing.assert_array_equal(result.as_numpy("grid_to_image"), [[affine.x0, affine.dx, affine.y0, affine.dy]])
        response = result.get_response()
        self.assertEqual((response.model_name, response.model_version), ("tiny", "1"))
        self.assertEqual(response.parameters["digest"].string_param, header.digest)
        self.assertEqual((response.parameters["facet"].string_param, response.parameters["layer"].int64_param), ("key", 0))

    def test_features_come_alone_and_lifted_where_the_model_has_a_head(self):
        result = self.infer(files(png(picture(64, 96))), **NATIVE)
        self.assertEqual([output.name for output in result.get_response().outputs], ["features"])
        self.assertEqual(result.as_numpy("features").shape, (1, 8, 12, 64))
        self.assertEqual(result.get_response().parameters["lift_passes"].int64_param, 1)

    def test_half_precision_is_the_rounded_single_precision(self):
        encoded = png(picture(48, 48))
        single = self.infer(files(encoded), **PLAIN).as_numpy("features")
        half = self.infer(files(encoded), **PLAIN, dtype="FP16")
        self.assertEqual(half.get_output("features").datatype, "FP16")
        np.testing.assert_array_equal(half.as_numpy("features"), single.astype(np.float16))

    def test_tokens_come_with_or_without_the_map(self):
        encoded = png(picture(28, 42))
        header, _map = own_features(encoded, model="registers", cls_token=True, register_tokens=True, lift_passes=0)
        for names in (["cls_token", "register_tokens"], ["register_tokens", "features", "cls_token"]):
            result = self.infer(files(encoded), model="registers", wanted=outputs(*names), **NATIVE)
            self.assertEqual([output.name for output in result.get_response().outputs], names)
            np.testing.assert_array_equal(result.as_numpy("cls_token"), np.frombuffer(header.cls_token, np.float32)[None])
            registers = np.frombuffer(header.register_tokens, np.float32).reshape(1, 4, 64)
            np.testing.assert_array_equal(result.as_numpy("register_tokens"), registers)

    def test_masks_are_those_of_our_own_service(self):
        encoded = png(picture(50, 70))
        header, labels = own_masks(encoded, format=pb.MASK_FORMAT_LABELS)
        _header, scores = own_masks(encoded, format=pb.MASK_FORMAT_SCORES)
        wanted = outputs("scores", "labels", "raster_to_image")
        result = self.infer(files(encoded), wanted=wanted, **NATIVE)
        self.assertEqual((result.get_output("labels").datatype, result.get_output("scores").datatype), ("UINT8", "FP16"))
        np.testing.assert_array_equal(result.as_numpy("labels"), np.frombuffer(labels, np.uint8).reshape(1, 50, 70))
        np.testing.assert_array_equal(result.as_numpy("scores"), np.frombuffer(scores, np.float16).reshape(1, 50, 70, 7))
        affine = header.raster_to_image
        np.testing.assert_array_equal(result.as_numpy("raster_to_image"), [[affine.x0, affine.dx, affine.y0, affine.dy]])
        cells = self.infer(files(encoded), wanted=outputs("labels"), **NATIVE, mask_size="scores")
        _header, own = own_masks(encoded, size=pb.MASK_SIZE_SCORES)
        self.assertEqual(cells.as_numpy("labels").tobytes(), own)
        best = np.frombuffer(scores, np.float16).reshape(-1, 7).max(axis=1)
        sure = self.infer(files(encoded), wanted=outputs("labels"), **NATIVE, min_score=float(np.median(best)))
        void = (sure.as_numpy("labels") == 255).mean()
        self.assertTrue(0.2 < void < 0.8, "about half of the pixels get no class")

    def test_masks_and_features_come_of_one_run(self):
        encoded = png(picture(48, 64))
        before = self.runs()
        result = self.infer(files(encoded), wanted=outputs("labels", "features"), **PLAIN)
        self.assertEqual(self.runs(), before + 1)
        self.assertEqual((result.as_numpy("labels").shape, result.as_numpy("features").shape), ((1, 48, 64), (1, 3, 4, 64)))

    def runs(self):
        return self.client.get_inference_statistics("tiny").model_stats[0].execution_count

    def test_images_of_one_request_are_answered_as_if_they_were_alone(self):
        images = [picture(48, 64, phase) for phase in (0, 60, 120)]
        encoded = [png(image) for image in images]
        alone = np.concatenate([self.infer(files(one), **PLAIN).as_numpy("features") for one in encoded])
        # A batch sums in another order than a single image.
        tolerance = {"rtol": 0, "atol": 1e-5 * np.abs(alone).max()}
        for shape in ([3], [3, 1]):
            together = self.infer(files(*encoded, shape=shape), **PLAIN).as_numpy("features")
            np.testing.assert_allclose(together, alone, **tolerance)
        np.testing.assert_allclose(self.infer(pixels(np.stack(images)), **PLAIN).as_numpy("features"), alone, **tolerance)
        names = outputs("labels", "cls_token", "grid_to_image")
        masks = self.infer(files(*encoded), wanted=names, **PLAIN)
        shapes = [masks.as_numpy(name).shape for name in ("labels", "cls_token", "grid_to_image")]
        self.assertEqual(shapes, [(3, 48, 64), (3, 64), (3, 4)])

    def test_typed_contents_are_the_same_as_raw_ones(self):
        image = picture(32, 48)
        expected = self.infer(pixels(image[None]), **PLAIN).as_numpy("features")
        for name, datatype, shape, contents in [
            ("image", "BYTES", [1], {"bytes_contents": [png(image)]}),
            ("pixels", "UINT8", [1, 32, 48, 3], {"uint_contents": image.reshape(-1).tolist()}),
        ]:
            request = service_pb2.ModelInferRequest(model_name="tiny")
            request.parameters["resize"].string_param = "native"
            request.parameters["lift_passes"].uint64_param = 0
            tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
            tensor.contents.CopyFrom(service_pb2.InferTensorContents(**contents))
            answer = self.client._client_stub.ModelInfer(request)
            np.testing.assert_array_equal(kserve.InferResult(answer).as_numpy("features"), expected)

    def test_ids_come_back_and_sizes_are_obeyed(self):
        inputs = files(png(picture(100, 200)))
        result = self.client.infer("", inputs, request_id="request 7", parameters={"short_side": 32, "lift_passes": 0})
        self.assertEqual(result.get_response().id, "request 7")
        self.assertEqual(result.as_numpy("features").shape, (1, 2, 4, 64))
        for size in ({"height": 48, "width": 16}, {"height": 48, "width": 16, "resize": "letterbox"}):
            self.assertEqual(self.infer(inputs, **size, lift_passes=0).as_numpy("features").shape, (1, 3, 1, 64))

    def test_compressed_requests_are_understood(self):
        image = pixels(picture(64, 64)[None])
        expected = self.infer(image, **PLAIN).as_numpy("features")
        for algorithm in ("gzip", "deflate"):
            result = self.client.infer("tiny", image, parameters=PLAIN, compression_algorithm=algorithm)
            np.testing.assert_array_equal(result.as_numpy("features"), expected)

    def test_callbacks_and_keepalive_work(self):
        keepalive = kserve.KeepAliveOptions(keepalive_time_ms=10_000, keepalive_timeout_ms=5_000)
        with server().client(keepalive_options=keepalive) as client:
            answers, inputs = Answers(), files(png(picture(32, 32)))
            for _ in range(8):
                client.async_infer("tiny", inputs, answers, parameters=PLAIN)
            shapes = set()
            for _ in range(8):
                result, error = answers.next()
                self.assertIsNone(error)
                shapes.add(result.as_numpy("features").shape)
            self.assertEqual(shapes, {(1, 2, 2, 64)})

    def test_the_asyncio_client_works(self):
        async def ask():
            async with kserve_aio.InferenceServerClient(server().address) as client:
                self.assertTrue(await client.is_model_ready("tiny"))
                inputs = files(png(picture(32, 32)))
                results = await asyncio.gather(*(client.infer("tiny", inputs, parameters=PLAIN) for _ in range(4)))
                return [result.as_numpy("features") for result in results]

        first, *others = asyncio.run(ask())
        for other in others:
            np.testing.assert_allclose(other, first, rtol=0, atol=1e-5 * np.abs(first).max())

    def test_requests_of_many_clients_share_runs_through_both_doors(self):
        encoded = png(picture(96, 96))
        clients = [server().client() for _ in range(3)]
        answers, before = Answers(), self.client.get_inference_statistics("tiny").model_stats[0]
        # While the one executor is busy with other sizes, one after the other, six images of one size gather.
        for width in (1024, 1008):
            self.client.async_infer("tiny", files(png(picture(64, 64))), answers, parameters=SLOW | {"width": width})
        time.sleep(0.05)
        for client in clients:
            client.async_infer("tiny", files(encoded), answers, parameters=PLAIN)
        own = pb.ExtractRequest(image=pb.Image(encoded=encoded))
        own.preprocess.native, own.features.lift_passes = True, 0
        stub = server().dense_vision()
        own_answers = [stub.Extract.future(own) for _ in range(3)]
        self.assertEqual([answers.next()[1] for _ in range(5)], [None] * 5)
        sizes = {answer.result().header.timing.batch_size for answer in own_answers}
        [client.close() for client in clients]
        after = self.client.get_inference_statistics("tiny").model_stats[0]
        self.assertEqual(after.inference_count - before.inference_count, 8)
        self.assertLess(after.execution_count - before.execution_count, 8)
        self.assertGreater(max(sizes), 3, "more than the three of one door")


if __name__ == "__main__":
    unittest.main()
