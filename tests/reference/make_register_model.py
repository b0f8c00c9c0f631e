"""Makes tests/fixtures/register_model.safetensors: what timm computes with the committed backbone with registers
(models/vit-ti16-selfpatch-reg4) on a part of a photo whose grid is not the one of the position table.

Run from the repository's root with the packages of requirements.txt:
    python tests/reference/make_register_model.py
"""

from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer

MODEL = Path("models/vit-ti16-selfpatch-reg4/backbone.safetensors")
PHOTO = Path("tests/fixtures/dinov2_vits14/astronaut_224x224.png")
OUT = Path("tests/fixtures/register_model.safetensors")
# Left, top, right, bottom: 6 rows and 10 columns of patches.
PART = (32, 16, 192, 112)
WIDTH, REGISTERS, LAST = 192, 4, 11
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def main() -> None:
    weights = {name: tensor.float() for name, tensor in load_file(MODEL).items()}
    weights["reg_token"] = weights.pop("register_tokens")
    model = VisionTransformer(
        img_size=96, patch_size=16, embed_dim=WIDTH, depth=12, num_heads=3, num_classes=0, global_pool="", class_token=False,
        reg_tokens=REGISTERS, no_embed_class=True, dynamic_img_size=True, final_norm=False)
    model.load_state_dict(weights)
    model.eval()
    taps = {}
    model.blocks[LAST].register_forward_hook(lambda _module, _inputs, output: taps.update(token=output[0]))
    model.blocks[LAST].attn.qkv.register_forward_hook(lambda _module, _inputs, output: taps.update(key=output[0].chunk(3, -1)[1]))
    pixels = torch.frombuffer(bytearray(Image.open(PHOTO).convert("RGB").crop(PART).tobytes()), dtype=torch.uint8)
    pixels = pixels.view(PART[3] - PART[1], PART[2] - PART[0], 3).permute(2, 0, 1).float() / 255
    with torch.no_grad():
        model((pixels - MEAN).div(STD)[None])
    golden = {name: tokens[REGISTERS:].contiguous() for name, tokens in taps.items()}
    golden["registers"] = taps["token"][:REGISTERS].contiguous()
    save_file(golden, OUT)
    print({name: tuple(tensor.shape) for name, tensor in golden.items()})


if __name__ == "__main__":
    main()
