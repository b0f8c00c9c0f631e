"""The same model behind LitServe: HTTP, a form with the image and its size in, the map in f16 as the body out.

    litserve_server.py MODEL CUT --port 8000 [--max-batch 1] [--max-delay-ms 0] [--timeout 30]

LitServe keeps HTTP in one process and the model in another. What is decoded is decoded in the latter, one image after the other. With
`--max-batch 1`, the default here, LitServe's plain loop runs; its batching loop looks for requests without rest while there are none
(`--max-delay-ms 0`) or every millisecond, and batches gain nothing on a CPU.
"""

import argparse
from pathlib import Path

import litserve as ls
import numpy as np
from dense import BadImage, DenseModel, decode, n_cores
from fastapi import HTTPException, Response


class DenseApi(ls.LitAPI):
    def __init__(self, model: Path, cut: Path, **batching) -> None:
        super().__init__(**batching)
        self._paths = (model, cut)

    def setup(self, device: str) -> None:
        self._model = DenseModel(*self._paths, n_cores())
        self._model.run([np.full((224, 224, 3), 127, np.uint8)])

    def decode_request(self, request) -> np.ndarray:
        try:
            return decode(request["image"].file.read(), int(request["height"]), int(request["width"]))
        except BadImage as error:
            raise HTTPException(400, str(error)) from error

    def batch(self, inputs: list) -> list:
        return inputs  # of different sizes: `predict` groups them

    def unbatch(self, output: list) -> list:
        return output

    def predict(self, images):
        if isinstance(images, np.ndarray):
            return self._model.run([images])[0]
        outputs = [None] * len(images)
        for shape in {image.shape for image in images}:
            members = [idx for idx, image in enumerate(images) if image.shape == shape]
            for idx, features in zip(members, self._model.run([images[idx] for idx in members]), strict=True):
                outputs[idx] = features
        return outputs

    def encode_response(self, output: np.ndarray) -> Response:
        shape = ",".join(map(str, output.shape))
        return Response(output.astype(np.float16).tobytes(), media_type="application/octet-stream", headers={"x-shape": shape})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("cut", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-batch", type=int, default=1)
    parser.add_argument("--max-delay-ms", type=float, default=0)
    parser.add_argument("--timeout", type=float, default=30)
    args = parser.parse_args()
    api = DenseApi(args.model, args.cut, max_batch_size=args.max_batch, batch_timeout=args.max_delay_ms / 1e3)
    server = ls.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, timeout=args.timeout, fast_queue=True)
    server.run(host="127.0.0.1", port=args.port, num_api_servers=1, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
