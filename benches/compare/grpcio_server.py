"""A plain Python server of `Extract`: grpcio, a pool of threads, a batching thread, ONNX Runtime.

    grpcio_server.py MODEL CUT [--listen 127.0.0.1:0] [--max-batch 8] [--max-delay-ms 0] [--drop-late]

It answers what the comparison asks: an encoded image, an exact size, the default activation after one LiFT pass, in f16. Threads of the
pool decode and encode, which need no lock of the interpreter, while the batching thread runs the model. A call that ends early, by its
deadline or because the caller left, is taken out of the queue; with `--drop-late` also one whose deadline its run would miss. Calls
beyond the pool are refused.
"""

import argparse
import math
import signal
import sys
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
from batcher import Batcher
from dense import PATCH, BadImage, DenseModel, decode, n_cores

sys.path.insert(0, str(Path(__file__).parents[2] / "proto"))
pb, rpc = grpc.protos_and_services("densevit/v1/dense_vision.proto")

# Calls at a time; what `densevit` calls limits.max_in_flight.
MAX_CALLS = 256
MAX_MESSAGE_BYTES = 64 << 20


class DenseVision(rpc.DenseVisionServicer):
    def __init__(self, model: DenseModel, batcher: Batcher) -> None:
        self._batcher = batcher
        manifest = model.manifest
        tap = manifest["backbone"]["default"]
        self._model = {"model": manifest["name"], "version": str(manifest["version"])}
        self._tap = {"facet": pb.Facet.Value(f"FACET_{tap['facet'].upper()}"), "layer": tap["layer"], "lift_passes": 1}

    def Extract(self, request, context):  # noqa: N802 - the name is the protocol's
        size = request.preprocess.exact
        if request.features.dtype != pb.DTYPE_F16 or request.image.WhichOneof("source") != "encoded":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "only encoded images and DTYPE_F16")
        try:
            image = decode(request.image.encoded, size.height, size.width)
        except BadImage as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        future = self._batcher.submit(image, context.time_remaining() or math.inf)
        if not context.add_callback(future.cancel):  # the call is over already
            future.cancel()
        try:
            features = future.result().astype(np.float16)
        except CancelledError:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the answer would be late, or nobody waits for it")
        rows, cols, channels = features.shape
        header = pb.FeatureHeader(
            **self._model, **self._tap, dtype=pb.DTYPE_F16, layout=pb.LAYOUT_HWC, rows=rows, cols=cols, channels=channels,
            grid_rows=rows, grid_cols=cols, input=size, stride=PATCH / 2, data_bytes=features.nbytes,
        )  # fmt: skip
        return pb.ExtractResponse(header=header, data=features.tobytes())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("cut", type=Path)
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--max-delay-ms", type=float, default=0)
    parser.add_argument("--drop-late", action="store_true")
    args = parser.parse_args()

    model = DenseModel(args.model, args.cut, n_cores())
    model.run([np.full((224, 224, 3), 127, np.uint8)])  # warm before the first call
    service = DenseVision(model, Batcher(model.run, args.max_batch, args.max_delay_ms / 1e3, args.drop_late))
    limits = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]
    server = grpc.server(ThreadPoolExecutor(MAX_CALLS), options=limits, maximum_concurrent_rpcs=MAX_CALLS)
    rpc.add_DenseVisionServicer_to_server(service, server)
    host, _, _ = args.listen.rpartition(":")
    port = server.add_insecure_port(args.listen)
    server.start()
    print(f"listening on {host}:{port}", flush=True)

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    server.stop(grace=1).wait()


main()
