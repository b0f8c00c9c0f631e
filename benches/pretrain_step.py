"""One step of pre-training (DINO, and SelfPatch on it): this project's trainer against PyTorch's eager mode, interleaved, on the same
device, with the same networks, crops, batch and threads.

The PyTorch side is written as such code usually is: modules, `torch.optim.AdamW`, a loop for the teacher's average. Its aggregation head runs
on the gathered neighbours of every patch, as published; ours computes keys and values once a patch and gathers those. Of DINO alone
(`--no-selfpatch`) both sides do the same work.

Needs Python with torch 2.11 (the release whose libtorch the trainer links) and `cargo build --release -p train`.

    python benches/pretrain_step.py [--rounds 6] [--no-selfpatch] [--device cuda]
"""

import argparse
import copy
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F
from torch import nn

# The preset `cpu` of `train pretrain`.
WIDTH, DEPTH, HEADS, PATCH = 192, 12, 3, 16
GLOBAL, LOCAL, N_LOCAL = 96, 48, 4
PROTOTYPES, PATCH_PROTOTYPES, HIDDEN, BOTTLENECK = 1024, 512, 512, 128


class Mlp(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))


class Attention(nn.Module):
    """Of all tokens to all, or of the first alone."""

    def __init__(self):
        super().__init__()
        self.q, self.kv, self.proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x, of_first=False):
        heads = lambda t: t.unflatten(-1, (HEADS, -1)).transpose(1, 2)
        k, v = self.kv(x).chunk(2, -1)
        q = self.q(x[:, :1] if of_first else x)
        return self.proj(F.scaled_dot_product_attention(heads(q), heads(k), heads(v)).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, of_first=False):
        super().__init__()
        self.norm1, self.attention, self.norm2, self.mlp = nn.LayerNorm(WIDTH, 1e-6), Attention(), nn.LayerNorm(WIDTH, 1e-6), Mlp()
        self.of_first = of_first

    def forward(self, x):
        x = (x[:, :1] if self.of_first else x) + self.attention(self.norm1(x), self.of_first)
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    def __init__(self, has_cls):
        super().__init__()
        self.side = GLOBAL // PATCH
        self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.cls = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02) if has_cls else None
        self.position = nn.Parameter(torch.randn(1, WIDTH, self.side, self.side) * 0.02)
        self.blocks = nn.Sequential(*[Block() for _ in range(DEPTH)])
        self.norm = nn.LayerNorm(WIDTH, 1e-6) if has_cls else nn.Identity()

    def forward(self, pixels):
        x = self.embed(pixels)
        position = self.position
        if x.shape[-1] != self.side:
            position = F.interpolate(position, scale_factor=(x.shape[-1] + 0.1) / self.side, mode="bicubic")
        x = (x + position).flatten(2).transpose(1, 2)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        return self.norm(self.blocks(x))


class Projection(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, BOTTLENECK))
        self.prototypes = nn.Parameter(torch.randn(n, BOTTLENECK))

    def forward(self, x):
        return F.linear(F.normalize(self.mlp(x), dim=-1), F.normalize(self.prototypes, dim=-1))


def around(side):
    cells = torch.arange(side * side).view(side, side)
    shifts = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0)]
    return torch.stack([cells.roll(shift, (0, 1)).flatten() for shift in shifts], 1)


class Aggregation(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02)
        self.blocks, self.norm = nn.ModuleList([Block(True), Block(True)]), nn.LayerNorm(WIDTH, 1e-6)

    def looked(self, x):
        query = self.query.expand(len(x), -1, -1)
        for block in self.blocks:
            query = block(torch.cat([query, x], 1))
        return query

    def forward(self, x, of_neighbours):
        image, patches = self.looked(x), x
        if of_neighbours:
            n = x.shape[1]
            indices = around(int(n**0.5)).to(x.device)
            near = x[:, indices]
            likeness = F.cosine_similarity(near, x.unsqueeze(2), dim=-1)
            chosen = likeness.topk(4, -1).indices
            near = near.gather(2, chosen.unsqueeze(-1).expand(-1, -1, -1, WIDTH))
            patches = self.looked(near.flatten(0, 1)).view(len(x), n, WIDTH)
        return self.norm(torch.cat([image, patches], 1))


class Network(nn.Module):
    def __init__(self, selfpatch):
        super().__init__()
        self.vit, self.image = Vit(not selfpatch), Projection(PROTOTYPES)
        self.aggregation, self.patch = (Aggregation(), Projection(PATCH_PROTOTYPES)) if selfpatch else (None, None)

    def forward(self, pixels, of_neighbours=False):
        x = self.vit(pixels)
        if self.aggregation is None:
            return self.image(x[:, 0]), None
        x = self.aggregation(x, of_neighbours)
        return self.image(x[:, 0]), self.patch(x[:, 1:])


class Step:
    def __init__(self, flags):
        torch.manual_seed(0)
        self.selfpatch, self.n = flags.selfpatch, flags.batch
        self.student = Network(self.selfpatch).to(flags.device)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        spared = lambda name, p: p.ndim == 1 or name.endswith("bias")
        named = list(self.student.named_parameters())
        groups = [{"params": [p for name, p in named if spared(name, p) == is_spared], "weight_decay": 0.0 if is_spared else 0.04}
                  for is_spared in (False, True)]
        self.adam = torch.optim.AdamW(groups, 1e-4)
        crops = lambda n, side: torch.randn(n * self.n, 3, side, side, device=flags.device)
        self.crops = [crops(2, GLOBAL), crops(N_LOCAL, LOCAL)]
        self.centres = [torch.zeros(n, device=flags.device) for n in (PROTOTYPES, PATCH_PROTOTYPES)]

    def __call__(self):
        said = [self.student(crops) for crops in self.crops]
        with torch.no_grad():
            taught = [self.teacher(crops, True) for crops in (self.crops if self.selfpatch else self.crops[:1])]
        by_crop = lambda x: x.view(-1, self.n, x.shape[-1])
        student = F.log_softmax(by_crop(torch.cat([image for image, _ in said])) / 0.1, -1)
        teacher = F.softmax((by_crop(taught[0][0]) - self.centres[0]) / 0.04, -1)
        pairs = [(a, v) for a in range(2) for v in range(len(student)) if a != v]
        loss = sum(-(teacher[a] * student[v]).sum(-1).mean() for a, v in pairs) / len(pairs)
        if self.selfpatch:
            for (_, of_teacher), (_, of_student), n_crops in zip(taught, said, (2, N_LOCAL)):
                p = F.softmax((of_teacher - self.centres[1]) / 0.04, -1)
                loss = loss - 0.1 * (p * F.log_softmax(of_student / 0.1, -1)).sum(-1).mean() * n_crops / (2 + N_LOCAL)
        for centre, part in zip(self.centres, zip(*taught)):
            if part[0] is not None:
                centre.mul_(0.9).add_(torch.cat([x.flatten(0, -2) for x in part]).mean(0), alpha=0.1)
        self.adam.zero_grad()
        loss.backward()
        for p in self.student.parameters():
            if p.grad is not None:
                norm = p.grad.norm()
                if norm > 3:
                    p.grad.mul_(3 / norm)
        self.adam.step()
        with torch.no_grad():
            for own, other in zip(self.teacher.parameters(), self.student.parameters()):
                own.mul_(0.99).add_(other, alpha=0.01)
        return loss.item()


def pytorch(flags):
    step, seconds = Step(flags), []
    for _ in range(flags.steps + 2):
        began = time.perf_counter()
        step()
        if flags.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return seconds[2:]


def ours(flags):
    command = [flags.train, "bench", "pretrain", "--steps", flags.steps, "--threads", flags.threads]
    command += ["--device", flags.device, "--batch", flags.batch] + ([] if flags.selfpatch else ["--no-selfpatch"])
    lines = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
    return [float(line) for line in lines.split()]


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--rounds", type=int, default=6)
    flags.add_argument("--steps", type=int, default=5)
    flags.add_argument("--batch", type=int, default=32)
    flags.add_argument("--threads", type=int, default=2)
    flags.add_argument("--no-selfpatch", dest="selfpatch", action="store_false", help="DINO alone")
    flags.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    flags.add_argument("--train", default="target/release/train", help="the trainer")
    flags = flags.parse_args()
    torch.set_num_threads(flags.threads)
    what = "DINO + SelfPatch" if flags.selfpatch else "DINO"
    print(f"torch {torch.__version__}, {what}, preset cpu, batch {flags.batch}, {flags.device}, {flags.threads} threads; seconds a step")
    ratios = []
    for idx in range(flags.rounds):
        theirs, mine = statistics.median(pytorch(flags)), statistics.median(ours(flags))
        ratios.append(mine / theirs)
        print(f"  round {idx}: PyTorch {theirs:.4f}, train {mine:.4f}, ratio {mine / theirs:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f} (target: at most 1.1)")


if __name__ == "__main__":
    main()
