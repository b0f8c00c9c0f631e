"""Makes tests/fixtures/segvit/{segvit_s1,segvit_s2,segvit_s3,shrunk,linear,query_downsample}*.safetensors: segmentation heads with small
random weights, written down once more in PyTorch from their description, at odd and non-square grids, and a backbone that halves its grid.

`NAME.safetensors` holds weights (some with the card that a trainer writes), `NAME_io.safetensors` maps of the taps `[B, C, h, w]` in the
order of reading, and what the head makes of them. `query_downsample.safetensors` holds activations of the tiny ViT
`backbones/dinov2_s14_reg4.safetensors` with queries halved in one of its blocks, for the image of its own golden file, and the scores of
the shrunk head on it. Run from the repository's root with the packages of requirements.txt:
    python tests/reference/make_segvit.py
"""

import hashlib
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

OUT = Path("tests/fixtures/segvit")
BACKBONES = Path("tests/fixtures/backbones")
C, D, HEADS, K, UPSCALE = 64, 16, 2, 5, 4


# --- Heads ---------------------------------------------------------------------------------------------------------------------


class CrossAttention(nn.Module):
    """Returns the update of the queries, and the mean over heads of the scaled scores before the softmax."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.proj = (nn.Linear(D, D) for _ in range(4))

    def forward(self, queries, cells):
        split = lambda x: x.unflatten(-1, (HEADS, D // HEADS)).transpose(1, 2)
        q, k, v = split(self.q(queries)), split(self.k(cells)), split(self.v(cells))
        scores = q @ k.transpose(-1, -2) / math.sqrt(D // HEADS)
        update = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.proj(update), scores.sum(1) / HEADS


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(D, HEADS, batch_first=True)
        self.multihead_attn = CrossAttention()
        self.linear1, self.linear2 = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(D) for _ in range(3))

    def forward(self, queries, cells):
        queries = self.norm1(queries + self.self_attn(queries, queries, queries, need_weights=False)[0])
        update, mask = self.multihead_attn(queries, cells)
        queries = self.norm2(queries + update)
        return self.norm3(queries + self.linear2(F.relu(self.linear1(queries)))), mask


class Stage(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(3))

    def forward(self, queries, cells):
        for layer in self.layers:
            queries, mask = layer(queries, cells)
        return queries, mask


def projected(module, number, tap):
    """Cells of a tap in the decoder's width, `[B, hw, D]`."""
    cells = getattr(module, f"input_proj_{number}")(tap.flatten(2).transpose(1, 2))
    return getattr(module, f"proj_norm_{number}")(cells)


def add_stages(module, n_stages):
    for number in range(1, n_stages + 1):
        module.add_module(f"input_proj_{number}", nn.Linear(C, D))
        module.add_module(f"proj_norm_{number}", nn.LayerNorm(D))
        module.add_module(f"decoder_{number}", Stage())


def scores(class_logits, mask_logits):
    masks = F.interpolate(mask_logits, scale_factor=UPSCALE, mode="bilinear", align_corners=False)
    return torch.einsum("bqc,bqhw->bhwc", class_logits.softmax(-1)[..., :-1], masks.sigmoid())


class Segvit(nn.Module):
    def __init__(self, n_stages):
        super().__init__()
        self.n_stages = n_stages
        add_stages(self, n_stages)
        self.q = nn.Embedding(K, D)
        self.class_embed = nn.Linear(D, K + 1)

    def forward(self, taps):
        queries = self.q.weight[None].repeat(len(taps[0]), 1, 1)
        total = 0
        for number, tap in enumerate(taps, 1):
            queries, mask = getattr(self, f"decoder_{number}")(queries, projected(self, number, tap))
            mask = mask.unflatten(-1, tap.shape[-2:])
            total = total + F.interpolate(mask, taps[-1].shape[-2:], mode="bilinear", align_corners=False)
        logits = self.class_embed(queries)
        return {"class_logits": logits, "mask_logits": total, "probabilities": scores(logits, total)}


class Gather(nn.Module):
    def __init__(self, rows, cols):
        super().__init__()
        add_stages(self, 2)
        self.query = nn.Parameter(torch.empty(D, rows, cols))

    def forward(self, taps):
        resized = F.interpolate(self.query[None], taps[0].shape[-2:], mode="bilinear", align_corners=False)
        queries = resized.flatten(2).transpose(1, 2).repeat(len(taps[0]), 1, 1)
        for number, tap in enumerate(taps, 1):
            queries, _ = getattr(self, f"decoder_{number}")(queries, projected(self, number, tap))
        return queries


class Shrunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.qu = Gather(4, 6)
        self.decoder_1 = Stage()
        self.q = nn.Embedding(K, D)
        self.class_embed = nn.Linear(D, K + 1)

    def forward(self, taps):
        queries, mask = self.decoder_1(self.q.weight[None].repeat(len(taps[0]), 1, 1), self.qu(taps))
        logits, mask = self.class_embed(queries), mask.unflatten(-1, taps[0].shape[-2:])
        return {"class_logits": logits, "mask_logits": mask, "probabilities": scores(logits, mask)}


class LinearHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(C)
        self.linear = nn.Linear(C, K)

    def forward(self, taps):
        logits = self.linear(self.norm(taps[0]).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        logits = F.interpolate(logits, scale_factor=UPSCALE, mode="bilinear", align_corners=False)
        return {"probabilities": logits.softmax(1).permute(0, 2, 3, 1)}


def randomise(module):
    """Every number away from its default, at a size that shows when it is left out."""
    for name, parameter in module.named_parameters():
        noise = torch.randn_like(parameter)
        if parameter.ndim == 2 and not name.startswith("q."):
            # Twice the usual, so that masks and classes are far from even.
            noise *= 2 / math.sqrt(parameter.shape[1])
        elif parameter.ndim == 1:
            noise = 0.2 * noise + (1 if "norm" in name and name.endswith("weight") else 0)
        parameter.data = noise
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.3 * torch.randn_like(buffer))
        if name.endswith("running_var"):
            buffer.copy_(torch.rand_like(buffer) + 0.5)


def card(form, input, taps, backbone, **more):
    classes = [{"name": name, "color": [40 * idx, 255 - 40 * idx, 128]} for idx, name in enumerate(["sky", "road", "car", "tree", "sign"])]
    digest = hashlib.sha256((BACKBONES / backbone).read_bytes()).hexdigest()
    text = json.dumps({
        "form": form, "input": input, "taps": [{"facet": facet, "layer": layer} for facet, layer in taps], "classes": classes, "size": [42, 70],
        "upscale": UPSCALE, "backbone_source_sha256": digest, "license": "Apache-2.0", **more})
    return {"densevit.segment": text}


def write_head(name, head, grids, metadata=None):
    randomise(head)
    head.eval()
    taps = [torch.randn(2, C, *grid) for grid in grids]
    with torch.no_grad():
        made = head(taps)
    save(OUT / f"{name}.safetensors", {key: value for key, value in head.state_dict().items() if value.is_floating_point()}, metadata)
    save(OUT / f"{name}_io.safetensors", {f"tap_{number}": tap for number, tap in enumerate(taps, 1)} | made)
    print(name, sum(parameter.numel() for parameter in head.parameters()), {key: list(value.shape) for key, value in made.items()})


def save(path, tensors, metadata=None):
    save_file({key: tensor.detach().contiguous() for key, tensor in tensors.items()}, path, metadata)
    path.chmod(0o644)


# --- A backbone that halves its grid -------------------------------------------------------------------------------------------


def activations(w, image, patch, halves_at):
    """Activations of a model with official names, registers and antialiased positions; one head of 64 channels."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((image.float() / 255 - mean) / std).permute(2, 0, 1)[None]
    map = F.conv2d(pixels, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=patch)
    rows, cols = map.shape[-2:]
    side = math.isqrt(w["pos_embed"].shape[1] - 1)
    table = w["pos_embed"][:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    table = F.interpolate(table, (rows, cols), mode="bicubic", antialias=True)
    patches = (map + table).flatten(2).transpose(1, 2)
    registers = w["register_tokens"]
    x = torch.cat([w["cls_token"] + w["pos_embed"][:, :1], registers, patches], 1)
    n_prefix = 1 + registers.shape[1]
    taps = {}
    for i in range(2):
        b = f"blocks.{i}."
        norm = lambda x, name: F.layer_norm(x, (C,), w[name + ".weight"], w[name + ".bias"], 1e-6)
        linear = lambda x, name: F.linear(x, w[b + name + ".weight"], w[b + name + ".bias"])
        q, k, v = linear(norm(x, b + "norm1"), "attn.qkv").chunk(3, -1)
        taps[f"key.{i}"], taps[f"value.{i}"] = (t[:, n_prefix:].unflatten(1, (rows, cols)) for t in (k, v))
        if i == halves_at:
            cell = torch.arange(rows * cols).view(rows, cols)[::2, ::2]
            kept = torch.cat([torch.arange(n_prefix), n_prefix + cell.flatten()])
            q, x, (rows, cols) = q[:, kept], x[:, kept], cell.shape
        taps[f"query.{i}"] = q[:, n_prefix:].unflatten(1, (rows, cols))
        attended = F.scaled_dot_product_attention(q, k, v)
        x = x + linear(attended, "attn.proj") * w[b + "ls1.gamma"]
        x = x + linear(F.gelu(linear(norm(x, b + "norm2"), "mlp.fc1")), "mlp.fc2") * w[b + "ls2.gamma"]
        taps[f"token.{i}"], taps[f"norm_token.{i}"] = (t[:, n_prefix:].unflatten(1, (rows, cols)) for t in (x, norm(x, "norm")))
        taps[f"cls.token.{i}"], taps[f"registers.token.{i}"] = x[0, 0], x[0, 1:n_prefix]
    return taps


def query_downsample(head):
    weights = load_file(BACKBONES / "dinov2_s14_reg4.safetensors")
    golden = load_file(BACKBONES / "dinov2_s14_reg4.golden.safetensors")
    image = golden["other.image"]
    plain = activations(weights, image, 14, None)
    error = max((plain[tap].squeeze(0) - golden[f"other.{tap}"]).abs().max().item() for tap in plain)
    print("own forward against the golden of the plain model:", error)
    made = {}
    for block in (0, 1):
        for tap, value in activations(weights, image, 14, block).items():
            made[f"block_{block}.{tap}"] = value.squeeze(0)
    maps = [made["block_1.token.0"], made["block_1.token.1"]]
    with torch.no_grad():
        made["scores"] = head([map.permute(2, 0, 1)[None] for map in maps])["probabilities"][0]
    save(OUT / "query_downsample.safetensors", made)
    print("query_downsample", {key: list(value.shape) for key, value in made.items() if "token" in key or key == "scores"})


def main():
    torch.manual_seed(0)
    write_head("segvit_s1", Segvit(1), [(3, 5)])
    write_head("segvit_s2", Segvit(2), [(5, 4), (5, 4)])
    # The deep taps of a backbone that halves its grid, then one from before.
    write_head("segvit_s3", Segvit(3), [(2, 3), (2, 3), (3, 5)])
    lifted = card("linear", "lift", [("key", 1)], "dino_s16.safetensors", scores={"miou": 0.5})
    write_head("linear", LinearHead(), [(3, 5)], lifted)
    halved = card("shrunk", "backbone", [("token", 0), ("token", 1)], "dinov2_s14_reg4.safetensors", heads=HEADS)
    shrunk = Shrunk()
    write_head("shrunk", shrunk, [(3, 5), (2, 3)], halved)
    query_downsample(shrunk)


main()
