"""ModelStreamInfer: many requests in flight on one call."""

import asyncio
import unittest

import tritonclient.grpc.aio as kserve_aio
from support import NATIVE, SLOW, Answers, files, outputs, picture, png, server

GOOD = {**NATIVE, "lift_passes": 0}


class Stream(unittest.TestCase):
    def setUp(self):
        self.client = server().client()
        self.addCleanup(self.client.close)
        self.answers = Answers()

    def send(self, size, request_id, **parameters):
        inputs = files(png(picture(size, size)))
        self.client.async_stream_infer("tiny", inputs, request_id=request_id, parameters={**GOOD, **parameters})

    def test_answers_come_in_the_order_of_the_requests(self):
        self.client.start_stream(self.answers)
        inputs = files(png(picture(64, 64)))
        self.client.async_stream_infer("tiny", inputs, request_id="slow", parameters=SLOW)
        for idx in range(20):
            self.send(32, str(idx))
        heard = [self.answers.next() for _ in range(21)]
        self.assertEqual([error for _result, error in heard], [None] * 21)
        self.assertEqual([result.get_response().id for result, _error in heard], ["slow", *map(str, range(20))])
        self.assertTrue(all(result.get_response().parameters["triton_final_response"].bool_param for result, _ in heard))
        self.client.stop_stream()

    def test_a_request_that_fails_is_answered_and_the_call_goes_on(self):
        self.client.start_stream(self.answers)
        self.send(32, "first")
        self.client.async_stream_infer("tiny", files(b"no image"), request_id="bad")
        self.send(32, "last")
        (first, none), (nothing, error), (last, also_none) = (self.answers.next() for _ in range(3))
        self.assertEqual((none, nothing, also_none), (None, None, None))
        self.assertEqual((first.get_response().id, last.get_response().id), ("first", "last"))
        self.assertIn("raw_input_contents[0]: is no JPEG", error.message())
        self.client.stop_stream()

    def test_a_caller_who_wants_statuses_gets_one_and_the_call_ends(self):
        self.client.start_stream(self.answers, headers={"triton_grpc_error": "true"})
        self.send(32, "first")
        self.client.async_stream_infer("tiny", files(b"no image"))
        result, error = self.answers.next()
        self.assertIsNone(error)
        self.assertEqual(result.get_response().id, "first")
        _none, error = self.answers.next()
        self.assertEqual(error.status(), "StatusCode.INVALID_ARGUMENT")
        self.client.stop_stream()

    def test_outputs_are_named_as_in_single_calls(self):
        self.client.start_stream(self.answers)
        inputs = files(png(picture(32, 48)), png(picture(32, 48, 9)))
        self.client.async_stream_infer("tiny", inputs, outputs=outputs("labels", "cls_token"), parameters=GOOD)
        result, error = self.answers.next()
        self.assertIsNone(error)
        self.assertEqual((result.as_numpy("labels").shape, result.as_numpy("cls_token").shape), ((2, 32, 48), (2, 64)))
        self.client.stop_stream()

    def test_the_asyncio_client_streams(self):
        async def ask():
            async def requests():
                for idx in range(5):
                    inputs = files(png(picture(32, 32)))
                    yield {"model_name": "tiny", "inputs": inputs, "request_id": str(idx), "parameters": GOOD}

            async with kserve_aio.InferenceServerClient(server().address) as client:
                return [answer async for answer in client.stream_infer(requests())]

        heard = asyncio.run(ask())
        self.assertEqual([(result.get_response().id, error) for result, error in heard], [(str(idx), None) for idx in range(5)])

    def test_a_client_that_leaves_takes_its_requests_along(self):
        leaving = server().client()
        leaving.start_stream(self.answers)
        inputs = files(png(picture(64, 64)))
        before = self.runs()
        for _ in range(12):
            leaving.async_stream_infer("tiny", inputs, parameters=SLOW)
        self.assertIsNone(self.answers.next()[1], "the first one is answered, so the others are there too")
        leaving.stop_stream(cancel_requests=True)
        leaving.close()
        # A request that waits behind whatever is left of them.
        self.client.infer("tiny", inputs, parameters=SLOW)
        self.assertLess(self.runs() - before, 8)

    def runs(self):
        return self.client.get_inference_statistics("tiny").model_stats[0].execution_count


if __name__ == "__main__":
    unittest.main()
