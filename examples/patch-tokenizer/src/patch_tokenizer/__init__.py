"""An image tokenizer without a network: each patch becomes the nearest patch of a codebook."""

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class PatchTokenizer(nn.Module):
    """A codebook of patches (codes, 3, side, side); keeps cm3_imagetok's `ImageTokenizer`."""

    def __init__(self, codebook: str | None = None) -> None:
        """Read a codebook, or take plain colours: 512 of them, on patches of 4 x 4 pixels."""
        super().__init__()
        colours = torch.cartesian_prod(*[torch.linspace(-1, 1, 8)] * 3)
        plain = colours[:, :, None, None].expand(-1, -1, 4, 4)
        self.patches = plain.clone() if codebook is None else load_file(codebook)["patches"]
        self.num_codes, self.downsampling = len(self.patches), self.patches.shape[-1]

    def encode(self, images: Tensor) -> Tensor:
        """Return the codes (B, h, w) of pictures (B, 3, H, W) in [-1, 1]."""
        side = self.downsampling
        found = nearest(cut(images, side), self.patches.flatten(1).to(images))
        return found.view(len(images), images.shape[2] // side, images.shape[3] // side)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the pictures (B, 3, H, W) of codes (B, h, w)."""
        rows = self.patches.to(codes.device)[codes].permute(0, 3, 1, 4, 2, 5)
        return rows.flatten(4, 5).flatten(2, 3).clamp(-1, 1)  # of (B, 3, h, side, w, side)


def learn_patches(images: Tensor, codes: int, side: int = 4, seed: int = 0) -> Tensor:
    """Return the codebook (codes, 3, side, side) of pictures (B, 3, H, W), by k-means."""
    patches = cut(images, side).unique(dim=0)
    draw = torch.Generator().manual_seed(seed)
    centres = patches[torch.randperm(len(patches), generator=draw)[:codes]]
    for _ in range(20):
        found = nearest(patches, centres)
        sums = torch.zeros_like(centres).index_add_(0, found, patches)
        count = torch.bincount(found, minlength=len(centres))[:, None]
        centres = torch.where(count > 0, sums / count.clamp(min=1), centres)
    return centres.view(-1, 3, side, side)


def cut(images: Tensor, side: int) -> Tensor:
    """Cut pictures (B, 3, H, W) into patches (B * h * w, 3 * side * side), row by row."""
    return nn.functional.unfold(images, side, stride=side).transpose(1, 2).flatten(0, 1)


def nearest(patches: Tensor, codebook: Tensor) -> Tensor:
    """Return the number of the codebook's row that is nearest to each patch."""
    return (codebook.square().sum(1) - 2 * patches @ codebook.T).argmin(1)
