"""A real server with tiny models, the official client, and the numbers that both doors must give."""

import atexit
import itertools
import json
import os
import pathlib
import queue
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib

import grpc
import numpy as np
import tritonclient.grpc as kserve

ROOT = pathlib.Path(__file__).resolve().parents[3]
MODELS = pathlib.Path(os.environ["DENSEVIT_MODELS"])

sys.path.insert(0, str(ROOT / "proto"))
pb, rpc = grpc.protos_and_services("densevit/v1/dense_vision.proto")


class Server:
    """`densevit serve` on a free port, until the tests end."""

    def __init__(self, *settings, models=MODELS):
        command = [ROOT / "target/release/densevit", "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        command += ["--models", models, "--default-model", "tiny"]
        command += [argument for setting in settings for argument in ("--set", setting)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        atexit.register(self.stop)
        self.log = []
        threading.Thread(target=self._read_log, daemon=True).start()
        for line in self.process.stdout:
            if line.startswith("listening on "):
                self.address = line.split()[-1]
                return
        raise RuntimeError("the server did not start:\n" + "".join(self.log))

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line)

    def admin(self):
        """Address of metrics and probes."""
        marker = "metrics and probes on http://"
        return next(line.split(marker)[1].split()[0] for line in self.log if marker in line)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=30)
        self.process.stdout.close()

    def client(self, **options):
        return kserve.InferenceServerClient(self.address, **options)

    def dense_vision(self):
        """A client of the service of our own."""
        return rpc.DenseVisionStub(grpc.insecure_channel(self.address, [("grpc.max_receive_message_length", -1)]))


_shared = []


def server():
    """The server that all tests share."""
    if not _shared:
        _shared.append(Server())
    return _shared[0]


def golden():
    """An image, and what PyTorch makes of it with the weights of `tiny`: tests/fixtures/backbones."""
    data = (ROOT / "tests/fixtures/backbones/dino_s16.golden.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    types = {"F32": np.float32, "U8": np.uint8}
    arrays = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            arrays[name] = np.frombuffer(data[begin:end], types[entry["dtype"]]).reshape(entry["shape"])
    return arrays


# Both are sums in single precision in different orders, over two blocks: relative to the largest value.
GOLDEN_TOLERANCE = 1e-4


def picture(height, width, phase=0):
    """A smooth picture: every pixel tells where it is."""
    rows, cols = np.mgrid[0:height, 0:width]
    channels = [cols * 255 // max(width, 1), rows * 255 // max(height, 1), (rows + cols + phase) % 256]
    return np.stack(channels, axis=-1).astype(np.uint8)


def png(pixels):
    """An image file, written with what the standard library has."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _channels = pixels.shape
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def files(*contents, shape=None):
    """The input `image`."""
    array = np.array(contents, dtype=np.object_).reshape(shape or [len(contents), 1])
    tensor = kserve.InferInput("image", list(array.shape), "BYTES")
    tensor.set_data_from_numpy(array)
    return [tensor]


def pixels(array):
    """The input `pixels`."""
    tensor = kserve.InferInput("pixels", list(array.shape), "UINT8")
    tensor.set_data_from_numpy(array)
    return [tensor]


def outputs(*names):
    return [kserve.InferRequestedOutput(name) for name in names]


# Sizes as they are, so that both doors see the same input.
NATIVE = {"resize": "native"}
# The tiny model takes its time: 4,096 tokens.
SLOW = {"height": 1024, "width": 1024, "lift_passes": 0}


def own_features(encoded, model="", **options):
    """What our own service says: header and map."""
    request = pb.ExtractRequest(image=pb.Image(encoded=encoded), model=pb.ModelRef(name=model))
    request.preprocess.native = True
    for name, value in options.items():
        setattr(request.features, name, value)
    answer = server().dense_vision().Extract(request)
    header = answer.header
    dtype = np.float16 if header.dtype == pb.DTYPE_F16 else np.float32
    return header, np.frombuffer(answer.data, dtype).reshape(header.rows, header.cols, header.channels)


def own_masks(encoded, **options):
    """What our own service says: header and data."""
    request = pb.SegmentRequest(image=pb.Image(encoded=encoded))
    request.preprocess.native = True
    for name, value in options.items():
        setattr(request.masks, name, value)
    answer = server().dense_vision().Segment(request)
    return answer.header, answer.data


class Answers:
    """Collects what a callback hears."""

    def __init__(self):
        self._heard = queue.Queue()

    def __call__(self, result, error):
        self._heard.put((result, error))

    def next(self, timeout=30):
        return self._heard.get(timeout=timeout)


def eventually(holds, within_s=10):
    """Waits until `holds()` is true."""
    end = time.monotonic() + within_s
    for pause in itertools.chain([0.001, 0.01], itertools.repeat(0.05)):
        if holds():
            return True
        if time.monotonic() > end:
            return False
        time.sleep(pause)
