"""Makes tests/fixtures/lift/{residual,guided,corrected}_c64_p14*.safetensors: the forms of the LiFT head that are this project's own, written
down once more in PyTorch from their definition (src/graph/lift.rs), with random weights for 64 channels and patch 14.

Run from the repository's root with the packages of requirements.txt: python tests/reference/make_lift_forms.py
"""

from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

OUT = Path("tests/fixtures/lift")
C, PATCH, WINDOW, FLOOR = 64, 14, 5, 1e-3


class DoubleConv(nn.Module):
    def __init__(self, n_in, n_mid):
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(n_in, n_mid, 3, padding=1, bias=False), nn.BatchNorm2d(n_mid), nn.ReLU(),
            nn.Conv2d(n_mid, n_mid, 3, padding=1, bias=False), nn.BatchNorm2d(n_mid), nn.ReLU())


class Up(nn.Module):
    def __init__(self, n_in, n_up, n_mid):
        super().__init__()
        self.up = nn.ConvTranspose2d(n_in, n_up, 2, stride=2)
        self.conv_1 = DoubleConv(n_up + 32, n_mid)


class Head(nn.Module):
    def __init__(self, form, n_up, n_mid):
        super().__init__()
        self.form = form
        conv = lambda n_in: [nn.Conv2d(n_in, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
        self.features = nn.BatchNorm2d(C)
        self.image_convs_1 = nn.Sequential(*conv(3), *conv(32))
        self.image_convs_2 = nn.Sequential(*conv(32))
        self.up1 = Up(C + 32, n_up, n_mid)
        self.outc = nn.Conv2d(n_mid, C if form == "residual" else WINDOW * WINDOW, 1)
        if form == "corrected":
            self.correction = nn.Conv2d(n_mid, C, 1)

    def forward(self, image, features):
        rows, cols = features.shape[-2:]
        image = F.interpolate(image, (16 * rows, 16 * cols), mode="bilinear", align_corners=False)
        fine = F.max_pool2d(self.image_convs_1(image), 2)
        coarse = self.image_convs_2(fine)
        up = self.up1.up(torch.cat([self.features(features), coarse], 1))
        last = self.up1.conv_1.double_conv(torch.cat([up, fine], 1))
        raw = self.outc(last)
        if self.form == "residual":
            return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False) + raw
        return combine(raw, features) + (self.correction(last) if self.form == "corrected" else 0)


def prior():
    """Bilinear weights [2, 2, K * K], read off the upsampling of one-hot maps."""
    side = 2 * WINDOW
    weights = torch.zeros(2, 2, WINDOW * WINDOW)
    for tap in range(WINDOW * WINDOW):
        one_hot = torch.zeros(1, 1, side, side)
        row, col = divmod(tap, WINDOW)
        one_hot[0, 0, WINDOW + row - WINDOW // 2, WINDOW + col - WINDOW // 2] = 1
        fine = F.interpolate(one_hot, scale_factor=2, mode="bilinear", align_corners=False)[0, 0]
        weights[:, :, tap] = fine[2 * WINDOW:2 * WINDOW + 2, 2 * WINDOW:2 * WINDOW + 2]
    return weights


def combine(logits, features):
    batch, _, rows, cols = features.shape
    weights = torch.log(prior() + FLOOR)
    shares = torch.empty_like(logits)
    for y in range(2):
        for x in range(2):
            shares[:, :, y::2, x::2] = torch.softmax(logits[:, :, y::2, x::2] + weights[y, x].view(1, -1, 1, 1), 1)
    padded = F.pad(features, [WINDOW // 2] * 4, mode="replicate")
    windows = F.unfold(padded, WINDOW).view(batch, C, WINDOW * WINDOW, rows, cols)
    windows = windows.repeat_interleave(2, 3).repeat_interleave(2, 4)
    return (windows * shares[:, None]).sum(2)


def randomise(module):
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1:
            parameter.data = torch.randn_like(parameter) * 0.2 + (1 if name.endswith("weight") else 0)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn_like(buffer) * 0.3)
        if name.endswith("running_var"):
            buffer.copy_(torch.rand_like(buffer) + 0.5)


def main():
    torch.manual_seed(0)
    for form, n_up, n_mid in (("residual", 24, 24), ("guided", 16, 16), ("corrected", 16, 16)):
        head = Head(form, n_up, n_mid).eval()
        randomise(head)
        # Logits of a few units, so that other cells than the bilinear ones take a visible share.
        head.outc.weight.data *= 4
        image, features = torch.randn(2, 3, 3 * PATCH, 5 * PATCH), torch.randn(2, C, 3, 5)
        with torch.no_grad():
            once = head(image, features)
            twice = head(F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False), once)
        state = {f"{form}.{name}": tensor.contiguous() for name, tensor in head.state_dict().items()}
        save_file(state, OUT / f"{form}_c64_p14.safetensors")
        save_file({"image": image, "features": features, "lift_1": once.contiguous(), "lift_2": twice.contiguous()}, OUT / f"{form}_c64_p14_io.safetensors")
        print(form, sum(p.numel() for p in head.parameters()), once.shape)


main()
