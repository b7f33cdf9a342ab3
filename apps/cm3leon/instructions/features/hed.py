"""Soft edges by holistically-nested edge detection (HED, arXiv 1504.06375).

Takes the weights that ControlNet's authors trained and published as `ControlNetHED.pth`; gives an
extractor, whose edges are black on white as all lines here (see `edges`). The network is VGG-16's
convolutions, each of its five stages with a side output.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYERS = (2, 2, 3, 3, 3)
"""Convolutions of each stage."""


class HED(nn.Module):
    """Pictures (B, 3, H, W) in 0..255 to edges (B, 1, H, W) in 0..1.

    Args:
        widths: Channels of each stage; the published ones are 64, 128, 256, 512, 512.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        """Build with the published names."""
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1))
        for number, (width, layers) in enumerate(zip(widths, LAYERS, strict=True), start=1):
            before = 3 if number == 1 else widths[number - 2]
            self.add_module(f"block{number}", _Stage(before, width, layers))

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the mean of the side outputs, as probabilities."""
        x, sides = pictures - self.norm, []
        for number in range(1, len(LAYERS) + 1):
            if number > 1:
                x = F.max_pool2d(x, 2)
            x, side = self.get_submodule(f"block{number}")(x)
            sides.append(F.interpolate(side, pictures.shape[2:], mode="bilinear"))
        return torch.stack(sides).mean(0).sigmoid()


class _Stage(nn.Module):
    def __init__(self, before: int, width: int, layers: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(width if place else before, width, 3, padding=1) for place in range(layers)
        )
        self.projection = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for conv in self.convs:
            x = F.relu(conv(x))
        return x, self.projection(x)


def open_hed(weights: Path, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return the extractor of a file of weights; errors as `open_feature` tells them."""
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError):  # whose message tells how to run such a file's code
        raise ValueError("wanted tensors alone, got a broken file or other things in it") from None
    if not isinstance(state, dict) or not all(isinstance(one, Tensor) for one in state.values()):
        raise ValueError("wanted tensors by name, got other things")
    widths = tuple(
        len(state[f"block{number}.projection.weight"][0]) for number in range(1, len(LAYERS) + 1)
    )
    model = HED(widths)
    model.load_state_dict(state)
    model.to(device).eval().requires_grad_(False)

    def hed(pixels: np.ndarray) -> np.ndarray:
        picture = torch.from_numpy(pixels.copy()).to(device).permute(2, 0, 1)[None].float()
        edges = (model(picture)[0, 0] * 255).byte().cpu().numpy()  # (H, W)
        return np.repeat(255 - edges[:, :, None], 3, axis=2)

    return hed
