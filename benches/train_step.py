"""One training step of a LiFT head: this project's trainer against PyTorch, interleaved, on the same device, batch and threads.

Needs Python with torch 2.11 (the release whose libtorch the trainer links) and `cargo build --release -p train`.

    python benches/train_step.py [--rounds 6] [--device cuda] [--products bf16]
"""

import argparse
import statistics
import subprocess
import time

import torch
from torch import nn
from torch.nn import functional

CHANNELS, PATCH, SIZE, BATCH, GUIDANCE = 384, 16, 448, 8, 32


def conv_bn(n_in, n_out, stride, bias):
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride, 1, bias=bias), nn.BatchNorm2d(n_out), nn.ReLU())


class Official(nn.Module):
    """LiFT as published, patch 16."""

    def __init__(self):
        super().__init__()
        up, mid = (CHANNELS + GUIDANCE) // 2, CHANNELS // 2
        self.fine = nn.Sequential(conv_bn(3, GUIDANCE, 2, True), conv_bn(GUIDANCE, GUIDANCE, 2, True), nn.MaxPool2d(2))
        self.coarse = conv_bn(GUIDANCE, GUIDANCE, 2, True)
        self.up = nn.ConvTranspose2d(CHANNELS + GUIDANCE, up, 2, 2)
        self.trunk = nn.Sequential(conv_bn(up + GUIDANCE, mid, 1, False), conv_bn(mid, mid, 1, False))
        self.out = nn.Conv2d(mid, CHANNELS, 1)

    def forward(self, image, features):
        fine = self.fine(image)
        up = self.up(torch.cat([features, self.coarse(fine)], 1))
        return self.out(self.trunk(torch.cat([up, fine], 1)))


def pytorch(n_steps, device, products):
    torch.manual_seed(0)
    head, grid = Official().to(device).train(), SIZE // PATCH
    adam = torch.optim.Adam(head.parameters(), 1e-3)
    half, quarter = (torch.randn(BATCH, 3, side, side, device=device) for side in (SIZE // 2, SIZE // 4))
    maps = [torch.randn(BATCH, CHANNELS, side, side, device=device) for side in (grid, grid // 2, grid // 4)]

    def distance(a, b):
        return 1 - functional.cosine_similarity(a, b, 1).mean()

    seconds = []
    for _ in range(n_steps + 2):
        began = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=products == "bf16"):
            loss = distance(head(half, maps[1]), maps[0]) + distance(head(quarter, maps[2]), maps[1])
        adam.zero_grad()
        loss.backward()
        adam.step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return seconds[2:]


def ours(flags):
    command = [flags.train, "bench", "step", "--steps", flags.steps, "--threads", flags.threads]
    command += ["--device", flags.device, "--products", flags.products]
    command += ["--channels", CHANNELS, "--patch", PATCH, "--size", SIZE, "--batch", BATCH]
    lines = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
    return [float(line) for line in lines.split()]


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--rounds", type=int, default=6)
    flags.add_argument("--steps", type=int, default=5)
    flags.add_argument("--threads", type=int, default=2)
    flags.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    flags.add_argument("--products", choices=["fp32", "bf16"], default="fp32")
    flags.add_argument("--train", default="target/release/train", help="the trainer")
    flags = flags.parse_args()
    torch.set_num_threads(flags.threads)
    what = f"{flags.device}, {flags.products}, {flags.threads} threads"
    print(f"torch {torch.__version__}, official form, batch {BATCH}, {SIZE} px, {what}; seconds a step")
    ratios = []
    for idx in range(flags.rounds):
        theirs, mine = statistics.median(pytorch(flags.steps, flags.device, flags.products)), statistics.median(ours(flags))
        ratios.append(mine / theirs)
        print(f"  round {idx}: PyTorch {theirs:.4f}, train {mine:.4f}, ratio {mine / theirs:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f} (target: at most 1.1)")


if __name__ == "__main__":
    main()
