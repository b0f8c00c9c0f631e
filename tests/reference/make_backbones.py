"""Makes tests/fixtures/backbones: tiny random-weight ViTs under the names of every source that `densevit import` reads, and what
PyTorch, timm and transformers compute with them.

`NAME.safetensors` (or the folder NAME) holds weights, `NAME.golden.safetensors` images and activations of both blocks at two
sizes: the native one and one that needs interpolation. Run from the repository's root with the packages of requirements.txt:
    python tests/reference/make_backbones.py
"""

import json
import math
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel, ViTConfig, ViTModel

OUT = Path("tests/fixtures/backbones")
WIDTH, DEPTH = 64, 2
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def randomise(module: torch.nn.Module) -> None:
    """Every parameter away from its default, at a size that shows when it is left out."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn_like(parameter)
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif "gamma" in name or "lambda" in name:
                parameter.copy_(0.5 + 0.2 * noise)
            elif parameter.ndim == 2 and "weight" in name:
                parameter.copy_(noise / math.sqrt(parameter.shape[1]))
            elif parameter.ndim == 4:
                parameter.copy_(noise * 0.1)
            else:
                parameter.copy_(0.3 * noise)


def image(height: int, width: int) -> torch.Tensor:
    """Smooth random colours, u8 [1, H, W, 3]."""
    coarse = torch.rand(1, 3, 6, 6)
    return (F.interpolate(coarse, (height, width), mode="bicubic") * 255).clamp(0, 255).round().byte().permute(0, 2, 3, 1).contiguous()


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


# --- A plain ViT under the official names, with the original position interpolation --------------------------------------------


def position(table: torch.Tensor, height: int, width: int, patch: int, antialias: bool) -> torch.Tensor:
    """[1, 1 + M*M, D] for another grid: DINO's and DINOv2's `interpolate_pos_encoding`."""
    rows, cols = height // patch, width // patch
    cls, grid = table[:, :1], table[:, 1:]
    side = math.isqrt(grid.shape[1])
    if rows * cols == side * side and height == width:
        return table
    grid = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if antialias:
        grid = F.interpolate(grid, size=(rows, cols), mode="bicubic", antialias=True)
    else:
        grid = F.interpolate(grid, scale_factor=((rows + 0.1) / side, (cols + 0.1) / side), mode="bicubic")
    assert grid.shape[-2:] == (rows, cols)
    return torch.cat([cls, grid.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def forward(w: dict, pixels: torch.Tensor, patch: int, antialias: bool) -> dict:
    """Activations of a model with official names; heads of 64 channels."""
    height, width = pixels.shape[1:3]
    x = F.conv2d(normalise(pixels), w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=patch).flatten(2).transpose(1, 2)
    registers = w.get("register_tokens", torch.zeros(1, 0, WIDTH))
    if "cls_token" in w:
        x = torch.cat([w["cls_token"], x], 1) + position(w["pos_embed"], height, width, patch, antialias)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], 1)
    else:
        # SelfPatch: patches only. The row of the CLS token, which the function wants, is dropped again.
        table = torch.cat([torch.zeros(1, 1, WIDTH), w["pos_embed"]], 1)
        x = torch.cat([registers, x + position(table, height, width, patch, antialias)[:, 1:]], 1)
    taps = {}
    for i in range(DEPTH):
        b = f"blocks.{i}."
        norm = lambda x, name: F.layer_norm(x, (WIDTH,), w[name + ".weight"], w[name + ".bias"], 1e-6)
        linear = lambda x, name: F.linear(x, w[b + name + ".weight"], w[b + name + ".bias"])
        q, k, v = linear(norm(x, b + "norm1"), "attn.qkv").chunk(3, -1)
        taps[f"query.{i}"], taps[f"key.{i}"], taps[f"value.{i}"] = q, k, v
        heads = lambda t: t.unflatten(-1, (WIDTH // 64, 64)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(heads(q), heads(k), heads(v)).transpose(1, 2).flatten(2)
        x = x + linear(attended, "attn.proj") * w.get(b + "ls1.gamma", torch.ones(()))
        y = norm(x, b + "norm2")
        if b + "mlp.w12.weight" in w:
            gate, up = linear(y, "mlp.w12").chunk(2, -1)
            y = linear(F.silu(gate) * up, "mlp.w3")
        else:
            y = linear(F.gelu(linear(y, "mlp.fc1")), "mlp.fc2")
        x = x + y * w.get(b + "ls2.gamma", torch.ones(()))
        taps[f"token.{i}"] = x
        if "norm.weight" in w:
            taps[f"norm_token.{i}"] = norm(x, "norm")
    return taps


def official(patch: int, side: int, scale: bool, registers: int = 0, mask: bool = False, swiglu: bool = False) -> dict:
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=side * patch, patch_size=patch, embed_dim=WIDTH, depth=DEPTH, num_heads=1, num_classes=0, init_values=1.0 if scale else None
    )
    randomise(model)
    w = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if registers:
        w["register_tokens"] = torch.randn(1, registers, WIDTH)
    if mask:
        w["mask_token"] = torch.randn(1, WIDTH)
    if swiglu:
        hidden = 176  # 8 * ceil(2 * 4 * 64 / 3 / 8)
        for i in range(DEPTH):
            for part in ("fc1", "fc2"):
                w.pop(f"blocks.{i}.mlp.{part}.weight"), w.pop(f"blocks.{i}.mlp.{part}.bias")
            w[f"blocks.{i}.mlp.w12.weight"] = torch.randn(2 * hidden, WIDTH) / 8
            w[f"blocks.{i}.mlp.w12.bias"] = 0.3 * torch.randn(2 * hidden)
            w[f"blocks.{i}.mlp.w3.weight"] = torch.randn(WIDTH, hidden) / math.sqrt(hidden)
            w[f"blocks.{i}.mlp.w3.bias"] = 0.3 * torch.randn(WIDTH)
    return w


# --- Models of the libraries, through hooks ------------------------------------------------------------------------------------


def hooked(model: torch.nn.Module, modules: dict, run) -> dict:
    """Outputs of the named sub-modules during `run()`."""
    taps, handles = {}, []
    for name, module in modules.items():
        def keep(_module, _inputs, output, name=name):
            taps[name] = output[0] if isinstance(output, tuple) else output
        handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return taps


def timm_forward(model, pixels: torch.Tensor) -> dict:
    modules = {}
    for i, block in enumerate(model.blocks):
        modules[f"qkv.{i}"], modules[f"token.{i}"] = block.attn.qkv, block
    taps = hooked(model, modules, lambda: model.forward_features(normalise(pixels)))
    for i in range(DEPTH):
        taps[f"query.{i}"], taps[f"key.{i}"], taps[f"value.{i}"] = taps.pop(f"qkv.{i}").chunk(3, -1)
        taps[f"norm_token.{i}"] = model.norm(taps[f"token.{i}"])
    return taps


def hf_forward(model, pixels: torch.Tensor, **options) -> dict:
    modules = {}
    layers = [module for name, module in model.named_modules() if name.endswith(tuple(f"layer.{i}" for i in range(DEPTH))) or name.endswith(tuple(f"layers.{i}" for i in range(DEPTH)))]
    assert len(layers) == DEPTH, [name for name, _ in model.named_modules()]
    for i, layer in enumerate(layers):
        for name, module in layer.named_modules():
            part = name.rsplit(".", 1)[-1]
            if part in ("query", "key", "value", "q_proj", "k_proj", "v_proj"):
                modules[{"q": "query", "k": "key", "v": "value"}[part[0]] + f".{i}"] = module
        modules[f"token.{i}"] = layer
    taps = hooked(model, modules, lambda: model(normalise(pixels), **options))
    for i in range(DEPTH):
        taps[f"norm_token.{i}"] = model.layernorm(taps[f"token.{i}"])
    return taps


def hf_config(swiglu: bool = False, **options) -> dict:
    return dict(hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=1, intermediate_size=4 * WIDTH, image_size=8 * 14,
                patch_size=14, **({"use_swiglu_ffn": True} if swiglu else {}), **options)


# --- Writing -------------------------------------------------------------------------------------------------------------------


def write_golden(name: str, patch: int, registers: int, run, sizes: dict, n_cls: int = 1) -> None:
    golden = {}
    for size, (rows, cols) in sizes.items():
        pixels = image(rows * patch, cols * patch)
        golden[f"{size}.image"] = pixels[0]
        with torch.no_grad():
            taps = run(pixels)
        for tap, tokens in taps.items():
            golden[f"{size}.{tap}"] = tokens[0, n_cls + registers:].reshape(rows, cols, WIDTH).contiguous()
            if tap.startswith("token"):
                if n_cls:
                    golden[f"{size}.cls.{tap}"] = tokens[0, 0].contiguous()
                if registers:
                    golden[f"{size}.registers.{tap}"] = tokens[0, n_cls:n_cls + registers].contiguous()
    save_file({key: tensor.detach() for key, tensor in golden.items()}, OUT / f"{name}.golden.safetensors")


def write(name: str, weights: dict, patch: int, side: int, registers: int, run, other=(3, 5)) -> None:
    weights = {key: tensor.detach().contiguous().clone() for key, tensor in weights.items()}
    save_file(weights, OUT / f"{name}.safetensors")
    write_golden(name, patch, registers, run, {"native": (side, side), "other": other})


def main() -> None:
    torch.manual_seed(0)
    OUT.mkdir(parents=True, exist_ok=True)
    cases = {
        "dino_s16": (16, 14, dict(scale=False), False, 0),
        "dino_s8": (8, 12, dict(scale=False), False, 0),
        "dinov2_s14": (14, 8, dict(scale=True, mask=True), False, 0),
        "dinov2_s14_reg4": (14, 8, dict(scale=True, mask=True, registers=4), True, 4),
        "dinov2_swiglu": (14, 8, dict(scale=True, mask=True, swiglu=True), False, 0),
    }
    for name, (patch, side, options, antialias, registers) in cases.items():
        w = official(patch, side, **options)
        write(name, w, patch, side, registers, lambda pixels: forward(w, pixels, patch, antialias))

    # Plain timm names are the official ones: its own forward must agree with the one above at the native size.
    plain = timm.models.vision_transformer.VisionTransformer(
        img_size=112, patch_size=14, embed_dim=WIDTH, depth=DEPTH, num_heads=1, num_classes=0, init_values=1.0, dynamic_img_size=True)
    randomise(plain)
    plain.eval()
    pixels = image(112, 112)
    own, theirs = forward(plain.state_dict(), pixels, 14, True), timm_forward(plain, pixels)
    print("own forward against timm:", max((own[tap] - theirs[tap]).abs().max().item() for tap in theirs))
    write("timm_s14", plain.state_dict(), 14, 8, 0, lambda pixels: timm_forward(plain, pixels))

    folded = timm.models.vision_transformer.VisionTransformer(
        img_size=112, patch_size=14, embed_dim=WIDTH, depth=DEPTH, num_heads=1, num_classes=0, init_values=1.0, dynamic_img_size=True,
        reg_tokens=4, no_embed_class=True)
    randomise(folded)
    folded.eval()
    write("timm_s14_reg4", folded.state_dict(), 14, 8, 4, lambda pixels: timm_forward(folded, pixels))

    hf = {
        "hf_vit": (ViTModel(ViTConfig(**hf_config()), add_pooling_layer=True), 0, dict(interpolate_pos_encoding=True)),
        "hf_dinov2": (Dinov2Model(Dinov2Config(**hf_config(mlp_ratio=4))), 0, {}),
        "hf_dinov2_swiglu": (Dinov2Model(Dinov2Config(**hf_config(swiglu=True, mlp_ratio=4))), 0, {}),
        "hf_dinov2_reg4": (Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**hf_config(mlp_ratio=4, num_register_tokens=4))), 4, {}),
    }
    for name, (model, registers, options) in hf.items():
        randomise(model)
        model.eval()
        folder = OUT / name
        model.save_pretrained(folder, max_shard_size="200KB" if name == "hf_dinov2" else "1GB")
        config = json.loads((folder / "config.json").read_text())
        keep = ("layer_norm_eps", "num_attention_heads", "model_type")
        (folder / "config.json").write_text(json.dumps({key: config[key] for key in keep}, indent=1) + "\n")
        write_golden(name, 14, registers, lambda pixels: hf_forward(model, pixels, **options), {"native": (8, 8), "other": (3, 5)})
        print(name, sorted(path.name for path in folder.iterdir()))

    patches_only()


def patches_only() -> None:
    """SelfPatch: neither CLS token nor final norm, as released, and with registers."""
    torch.manual_seed(1)
    for name, registers in (("selfpatch_s16", 0), ("selfpatch_s16_reg4", 4)):
        w = {"pos_embed": 0.3 * torch.randn(1, 36, WIDTH)}
        w["patch_embed.proj.weight"], w["patch_embed.proj.bias"] = 0.1 * torch.randn(WIDTH, 3, 16, 16), 0.3 * torch.randn(WIDTH)
        for i in range(DEPTH):
            for layer, rows, cols in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4)):
                w[f"blocks.{i}.{layer}.weight"] = torch.randn(rows * WIDTH, cols * WIDTH) / math.sqrt(cols * WIDTH)
                w[f"blocks.{i}.{layer}.bias"] = 0.3 * torch.randn(rows * WIDTH)
            for layer in ("norm1", "norm2"):
                w[f"blocks.{i}.{layer}.weight"] = 1 + 0.2 * torch.randn(WIDTH)
                w[f"blocks.{i}.{layer}.bias"] = 0.3 * torch.randn(WIDTH)
        if registers:
            w["register_tokens"] = torch.randn(1, registers, WIDTH)
        save_file(w, OUT / f"{name}.safetensors")
        write_golden(name, 16, registers, lambda pixels: forward(w, pixels, 16, registers > 0), {"native": (6, 6), "other": (3, 5)}, 0)


main()
