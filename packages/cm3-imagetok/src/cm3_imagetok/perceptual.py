"""Perceptual distance of pictures: LPIPS on VGG16 (Zhang et al., arXiv 1801.03924).

The weights are not in this package. They come from two local files that torchvision and the lpips
package publish: `vgg16-397923af.pth` and `lpips/weights/v0.1/vgg.pth`.
"""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cm3_imagetok.checkpoint import CheckpointError, load_tensors

# channels of VGG16's convolutions; a pooling after each group, features taken before it
_GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class PerceptualLoss(nn.Module):
    """LPIPS: squared differences of VGG16's unit-length features, weighted by learned weights.

    Its weights are random until loaded by `from_files`. The parameters get no gradient. Names are
    torchvision's (`features.{i}`) and the lpips package's (`lin{i}.model.1`).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers, self.taken, channels = [], [], 3
        for group in _GROUPS:
            for width in group:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.taken.append(len(layers) - 1)
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])
        for i, group in enumerate(_GROUPS):
            # index 0 of the lpips package's pair is a dropout without weights
            pair = nn.ModuleDict({"1": nn.Conv2d(group[-1], 1, 1, bias=False)})
            setattr(self, f"lin{i}", nn.ModuleDict({"model": pair}))
        # from [-1, 1] to the scale that VGG16 was trained at
        self.register_buffer(
            "shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), False
        )
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), False)
        self.requires_grad_(False).eval()

    @classmethod
    def from_files(
        cls, vgg16: str | os.PathLike[str], linear: str | os.PathLike[str]
    ) -> PerceptualLoss:
        """Load both files of weights (torch's or safetensors).

        Args:
            vgg16: Torchvision's VGG16; its classifier is not used.
            linear: The lpips package's layer weights for VGG.

        Raises:
            CheckpointError: A file or weight is missing, a file is damaged, or a weight has another
                shape.
        """
        loss = cls()
        wanted = loss.state_dict()
        for path, heads in ((vgg16, ("features.",)), (linear, ("lin",))):
            tensors = load_tensors(path)
            for name, tensor in wanted.items():
                if not name.startswith(heads):
                    continue
                found = tensors.get(name)
                if found is None or found.shape != tensor.shape:
                    got = "none" if found is None else tuple(found.shape)
                    raise CheckpointError(
                        f"{path}: {name}: wanted shape {tuple(tensor.shape)}, got {got}"
                    )
                tensor.copy_(found)
        return loss

    def forward(self, reconstruction: Tensor, images: Tensor) -> Tensor:
        """Return the distance of each pair, two (B, 3, H, W) in [-1, 1] -> (B,); 0 for a copy.

        Sides must have at least 16 pixels. The gradient reaches `reconstruction` alone.
        """
        with torch.no_grad():
            wanted = self._units(images)
        distance = reconstruction.new_zeros(len(images))
        for i, (a, b) in enumerate(zip(self._units(reconstruction), wanted, strict=True)):
            weighted = self.get_submodule(f"lin{i}.model.1")((a - b).square())  # (B, 1, h, w)
            distance = distance + weighted.mean((1, 2, 3))
        return distance

    def _units(self, images: Tensor) -> list[Tensor]:
        x, units = (images - self.shift) / self.scale, []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taken:
                units.append(F.normalize(x, dim=1, eps=1e-10))
        return units
