"""Makes tests/fixtures/pth: files of `torch.save`, and the same tensors in safetensors.

`kinds`: every element type, views and shared storages, beside plain values. `vit` and `lift`: a tiny DINO and a LiFT head, in the
wrappings of training checkpoints; their safetensors are the bare state dicts. The others must be refused. Run from the
repository's root with the packages of requirements.txt:
    python tests/reference/make_pth.py
"""

import argparse
import os
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

OUT = Path("tests/fixtures/pth")
WIDTH, DEPTH, PATCH, GRID = 8, 1, 4, 3


def save_bare(tensors: dict, name: str) -> None:
    save_file({key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}, OUT / f"{name}.safetensors")
    (OUT / f"{name}.safetensors").chmod(0o644)


def kinds() -> None:
    table = torch.randn(4, 6)
    tensors = OrderedDict(
        f64=torch.randn(3, dtype=torch.float64),
        f32=table,
        f16=torch.randn(2, 3).half(),
        bf16=torch.randn(5).bfloat16(),
        transposed=table.t(),  # the storage of f32
        columns=table[1:, 1::2],  # an offset, a step
        permuted=torch.randn(2, 3, 4).permute(2, 0, 1),
        channels_last=torch.randn(1, 3, 2, 2).contiguous(memory_format=torch.channels_last),
        expanded=torch.randn(1, 3).expand(4, 3),  # stride 0
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        parameter=nn.Parameter(torch.randn(2)),
        bf16_view=torch.randn(4, 4).bfloat16()[:, 2],
    )
    integers = {f"count.{kind}": torch.ones((), dtype=kind) for kind in
                (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)}
    state_dict = OrderedDict(tensors | {name.replace("torch.", ""): tensor for name, tensor in integers.items()})
    state_dict._metadata = OrderedDict({"": {"version": 1}})  # an attribute, as modules give it
    plain = {"epoch": 3, "lr": 5e-4, "seed": 2**70, "note": "näive", "best": None, "on": True, "betas": (0.9, 0.999),
             "groups": [{"params": [0, 1, 2]}, {}], "big": -(2**31) - 1, 7: "an integer key"}
    torch.save({"state_dict": state_dict, "nested": [{"inner": torch.full((2,), 7.0)}], **plain}, OUT / "kinds.pth")
    named = {f"state_dict.{name}": tensor for name, tensor in tensors.items()}
    save_bare(named | {"nested.0.inner": torch.full((2,), 7.0)}, "kinds")


def vit() -> dict:
    """The names of DINO's state dict."""
    w = {"cls_token": torch.randn(1, 1, WIDTH), "pos_embed": torch.randn(1, 1 + GRID * GRID, WIDTH),
         "patch_embed.proj.weight": 0.1 * torch.randn(WIDTH, 3, PATCH, PATCH), "patch_embed.proj.bias": torch.randn(WIDTH)}
    layers = {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH), "mlp.fc1": (2 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 2 * WIDTH)}
    norms = ["norm"]
    for i in range(DEPTH):
        norms += [f"blocks.{i}.norm1", f"blocks.{i}.norm2"]
        for name, shape in layers.items():
            w[f"blocks.{i}.{name}.weight"], w[f"blocks.{i}.{name}.bias"] = torch.randn(shape), torch.randn(shape[0])
    for name in norms:
        w[f"{name}.weight"], w[f"{name}.bias"] = 1 + 0.2 * torch.randn(WIDTH), torch.randn(WIDTH)
    return w


def lift() -> dict:
    """The names of the LiFT authors' state dict."""
    up, mid = (WIDTH + 32) // 2, WIDTH // 2
    head = nn.ModuleDict({
        "image_convs_1": nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.BatchNorm2d(32)),
        "image_convs_2": nn.Sequential(nn.Conv2d(32, 32, 3), nn.BatchNorm2d(32)),
        "up1": nn.ModuleDict({
            "up": nn.ConvTranspose2d(WIDTH + 32, up, 2, stride=2),
            "conv_1": nn.ModuleDict({"double_conv": nn.Sequential(
                nn.Conv2d(up + 32, mid, 3, bias=False), nn.BatchNorm2d(mid), nn.ReLU(),
                nn.Conv2d(mid, mid, 3, bias=False), nn.BatchNorm2d(mid))}),
        }),
        "outc": nn.Conv2d(mid, WIDTH, 1),
    })
    for norm in (module for module in head.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return head.half().state_dict()


class Command:
    """Pickles as a call of `os.system`."""

    def __reduce__(self):
        return os.system, ("touch the-command-was-run",)


def main() -> None:
    torch.manual_seed(0)
    OUT.mkdir(parents=True, exist_ok=True)
    kinds()

    teacher, student = vit(), vit()
    save_bare(teacher, "vit")
    landmarks = ("cls_token", "pos_embed", "blocks.0.norm1.weight")  # all that it takes to be mistaken for the teacher
    torch.save({"student": {f"module.backbone.{name}": student[name] for name in landmarks},
                "teacher": {f"backbone.{name}": tensor for name, tensor in teacher.items()} | {"head.last": torch.zeros(1)},
                "epoch": 100}, OUT / "vit.pth")
    head = lift()
    save_bare(head, "lift")
    torch.save({"epoch": 5, "state_dict": OrderedDict((f"module.{name}", tensor) for name, tensor in head.items())}, OUT / "lift.pth")

    small = {"weight": torch.zeros(2)}
    torch.save({"model": small, "args": argparse.Namespace(arch="vit_small")}, OUT / "namespace.pth")
    torch.save({"model": small, "extra": Command()}, OUT / "command.pth")
    torch.save(nn.Linear(2, 2), OUT / "module.pth")
    torch.save(small, OUT / "protocol4.pth", pickle_protocol=4)
    torch.save(small, OUT / "legacy.pth", _use_new_zipfile_serialization=False)


main()
