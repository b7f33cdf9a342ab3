"""Batches of pixels for the training of the image tokenizer: read, weighed, moved, mirrored."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cm3_imagetok import region_weights
from cm3_train.loader import MakeBatch
from cm3leon.data.pixels import Pictures
from cm3leon.recipe import ImageRecipe


def batch_maker(recipe: ImageRecipe, pictures: Pictures) -> MakeBatch:
    """Return what makes a batch: places among the decoded pictures, and epochs, to tensors.

    A picture's `keys` is that of its first pair.
    """
    places, keys = pictures.places.tolist(), pictures.pairs.keys.tolist()
    key_of = dict(zip(reversed(places), reversed(keys), strict=True))

    def make_batch(places: np.ndarray, epochs: np.ndarray, position: int) -> dict[str, Tensor]:
        batch = {
            "pixels": torch.from_numpy(pictures.decoded[places]),
            "keys": torch.tensor([key_of[place] for place in places.tolist()]),
        }
        if recipe.region_weight != 1:
            _, height, width, _ = pictures.decoded.shape
            batch["weights"] = region_weights(
                [pictures.boxes[int(place)] for place in places],
                height,
                width,
                recipe.region_weight,
            )
        return batch

    return make_batch


def augment(images: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Move pictures (B, C, H, W) of a batch together, white (1) coming in, and mirror half."""
    height, width = images.shape[2:]
    dy, dx = torch.randint(0, 2 * max_shift + 1, (2,), generator=generator).tolist()
    padded = F.pad(images, (max_shift,) * 4, value=1.0)
    moved = padded[:, :, dy : dy + height, dx : dx + width]
    flip = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return torch.where(flip[:, None, None, None], moved.flip(-1), moved)


class PixelBatches:
    """Validation batches of pixels (N, H, W, 3), in order.

    Args:
        pixels: All pictures, uint8; may be memory-mapped.
        rows: Which ones.
        batch_size: Pictures a batch.
    """

    def __init__(self, pixels: np.ndarray, rows: np.ndarray, batch_size: int) -> None:
        self.pixels, self.rows, self.batch_size = pixels, rows, batch_size

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the batches."""
        for start in range(0, len(self.rows), self.batch_size):
            yield torch.from_numpy(self.pixels[self.rows[start : start + self.batch_size]])
