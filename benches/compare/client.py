"""Sends the comparison's load over gRPC or HTTP: what `densevit load` cannot, which speaks no HTTP and never leaves a call.

    client.py grpc|http HOST:PORT --photo FILE --sizes 224x224,336x224 --seconds 20 --timeout 20 --output FILE
              [--concurrency 8 | --rate 14] [--leave-share 0.3 --leave-after 0.3]

With `--concurrency` every caller asks again as soon as it was answered; with `--rate` requests are due at even distances, and latency counts from
when one was due. Of ten calls in a row `--leave-share` are broken off after `--leave-after` seconds: their status is LEFT. The result
has the shape of `densevit load`. Answers are read to the last byte and not looked into.
"""

import argparse
import asyncio
import itertools
import json
import sys
import time
from pathlib import Path

from http_form import CONTENT_TYPE, http_form

ROOT = Path(__file__).parents[2]


class GrpcCalls:
    """Calls of `Extract` on two connections."""

    def __init__(self, address: str, photo: bytes, sizes: list) -> None:
        import grpc

        sys.path.insert(0, str(ROOT / "proto"))
        pb = grpc.protos("densevit/v1/dense_vision.proto")

        def message(height: int, width: int) -> bytes:
            exact = pb.Preprocess(exact=pb.Size(height=height, width=width))
            options = pb.FeatureOptions(dtype=pb.DTYPE_F16)
            return pb.ExtractRequest(image=pb.Image(encoded=photo), preprocess=exact, features=options).SerializeToString()

        self._messages = [message(*size) for size in sizes]
        self._error = grpc.RpcError
        # Channels of equal options share a connection unless told not to.
        options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(address, options) for _ in range(2)]
        self._calls = [channel.unary_unary("/densevit.v1.DenseVision/Extract") for channel in channels]

    async def send(self, n: int, timeout: float) -> str:
        """Sends the n-th request and returns the name of the status. Cancelling this coroutine cancels the call."""
        try:
            await self._calls[n % len(self._calls)](self._messages[n % len(self._messages)], timeout=timeout)
        except self._error as error:
            return error.code().name
        return "OK"


class HttpCalls:
    """Posts of a form, on connections that are kept."""

    def __init__(self, address: str, photo: bytes, sizes: list) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._requests = [self._request(photo, *size) for size in sizes]
        self._idle: list = []

    def _request(self, photo: bytes, height: int, width: int) -> bytes:
        body = http_form(photo, height, width)
        head = f"POST /predict HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: {CONTENT_TYPE}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def send(self, n: int, timeout: float) -> str:
        """As above. HTTP knows no deadlines: a call that takes too long is broken off."""
        try:
            async with asyncio.timeout(timeout):
                return await self._post(self._requests[n % len(self._requests)])
        except TimeoutError:
            return "DEADLINE_EXCEEDED"
        except (OSError, asyncio.IncompleteReadError):
            return "UNAVAILABLE"

    async def _post(self, request: bytes) -> str:
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, int(self._port), limit=1 << 20)
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n")[0]))
        except BaseException:  # a cancelled coroutine too: the connection is of no more use
            writer.close()
            raise
        self._idle.append((reader, writer))
        status = head.split(" ")[1]
        return "OK" if status == "200" else f"HTTP {status}"


async def drive(calls, args) -> dict:
    began, samples = time.monotonic(), []

    async def one(n: int, due: float) -> None:
        leaves = args.leave_share > 0 and n % 10 * args.leave_share % 1 < args.leave_share - 1e-9
        try:
            async with asyncio.timeout(args.leave_after if leaves else None):
                status = await calls.send(n, args.timeout)
        except TimeoutError:
            status = "LEFT"
        samples.append({"latency": int((time.monotonic() - due) * 1e9), "status": status})

    numbers = itertools.count()

    async def caller() -> None:
        while time.monotonic() - began < args.seconds:
            await one(next(numbers), time.monotonic())

    async with asyncio.TaskGroup() as tasks:
        if args.rate:
            for n in range(round(args.rate * args.seconds)):
                due = began + n / args.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                tasks.create_task(one(n, due))
        else:
            for _ in range(args.concurrency):
                tasks.create_task(caller())
    return {"total": int((time.monotonic() - began) * 1e9), "details": samples}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("protocol", choices=["grpc", "http"])
    parser.add_argument("address")
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--sizes", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--leave-share", type=float, default=0)
    parser.add_argument("--leave-after", type=float, default=0)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    sizes = [tuple(map(int, size.split("x"))) for size in args.sizes.split(",")]

    async def run() -> dict:
        kind = GrpcCalls if args.protocol == "grpc" else HttpCalls
        return await drive(kind(args.address, args.photo.read_bytes(), sizes), args)

    args.output.write_text(json.dumps(asyncio.run(run())))


main()
