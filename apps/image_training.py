"""Training of a `cm3_imagetok.VQGAN` on pixels, through Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from recipe import ImageRecipe
from torch import Tensor

from cm3_imagetok import (
    VQGAN,
    psnr,
    reconstruction_loss,
    revive_dead_codes,
    save_vqgan,
    to_tensor,
)
from cm3_imagetok.causal import CausalPredictor
from cm3_train import (
    BatchLoader,
    SampleOrder,
    build_optimizer,
    build_schedule,
    fit,
    load_weights,
)


def train_image_tokenizer(
    recipe: ImageRecipe,
    pixels: np.ndarray,
    train: np.ndarray,
    held_out: np.ndarray,
    folder: Path,
    *,
    seed: int,
    precision: str,
    checkpoint_every: int,
) -> None:
    """Train, and save the best model by held-out PSNR as ``folder / "vqgan"``.

    Args:
        recipe: Shape, loss, augmentation, optimizer.
        pixels: All pictures (N, H, W, 3) uint8; may be memory-mapped.
        train: Rows of ``pixels`` that are trained on.
        held_out: Rows that choose the best checkpoint.
        folder: Keeps checkpoints and logs; a training that was stopped there goes on.
        seed: Of the weights and of all that is drawn.
        precision: Lightning's name of it.
        checkpoint_every: Steps between two checkpoints.
    """
    order = SampleOrder(train, seed, recipe.batch_size)
    loader = BatchLoader(lambda keys, epochs: torch.from_numpy(pixels[np.asarray(keys)]), order)
    module = ImageTokenizerModule(recipe, seed)
    best = fit(
        module,
        loader,
        PixelBatches(pixels, held_out, 64),
        run_dir=folder,
        max_steps=recipe.optim.total_steps,
        val_every=recipe.val_every,
        checkpoint_every=checkpoint_every,
        precision=precision,
        grad_clip=recipe.optim.grad_clip or None,
        monitor="val/psnr",
        mode="max",
        description="image tokenizer",
    )
    load_weights(module, best)
    save_vqgan(module.model, folder / "vqgan")


class ImageTokenizerModule(L.LightningModule):
    """Reconstruction training with a codebook that is kept in use.

    Args:
        recipe: Shape, loss, augmentation, optimizer.
        seed: Of the weights and of all that is drawn.
    """

    usage: Tensor

    def __init__(self, recipe: ImageRecipe, seed: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.seed = seed
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = VQGAN(recipe.model).to(memory_format=torch.channels_last)
            self.predictor = None
            if recipe.causal_weight:
                model = recipe.model
                self.predictor = CausalPredictor(model.embed_dim, model.grid_size**2)
        self.register_buffer("usage", torch.ones(recipe.model.num_codes))

    def training_step(self, pixels: Tensor, batch_idx: int) -> Tensor:
        """Loss of a batch of pixels (B, H, W, 3) uint8."""
        generator = self._generator()
        images = augment(to_tensor(pixels), self.recipe.max_shift, generator)
        z = self.model.latent(images.contiguous(memory_format=torch.channels_last))
        quantized = self.model.quantize(z)
        reconstruction = self.model.render(quantized.grid).float()
        loss = reconstruction_loss(
            reconstruction, images, self.recipe.l1_weight, self.recipe.l2_weight
        )
        self._look_after_codebook(z.detach(), quantized.codes, generator)
        self.log("train/reconstruction", loss.detach(), prog_bar=True)
        self.log("train/quantizer", quantized.loss.detach())
        loss = loss + quantized.loss
        if self.predictor is not None:
            unexplained = self.predictor(quantized.grid)
            self.log("train/unexplained", unexplained.detach())
            # first something to predict, then a wish to be predictable
            ramp = min(1.0, self.global_step / self.recipe.causal_warmup)
            loss = loss + ramp * self.recipe.causal_weight * unexplained
        return loss

    def validation_step(self, pixels: Tensor, batch_idx: int) -> None:
        """PSNR of held-out pixels (B, H, W, 3) uint8."""
        images = to_tensor(pixels)
        reconstruction = self.model.decode(self.model.encode(images))
        self.log("val/psnr", psnr(reconstruction, images).mean(), prog_bar=True, on_epoch=True)

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule of the recipe."""
        optimizer = build_optimizer(self, self.recipe.optim)
        schedule = build_schedule(optimizer, self.recipe.optim)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _generator(self) -> torch.Generator:
        """The step's own randomness, so that a resumed run draws what an unbroken one draws."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + self.global_step)

    @torch.no_grad()
    def _look_after_codebook(self, z: Tensor, codes: Tensor, generator: torch.Generator) -> None:
        recipe, even = self.recipe, codes.numel() / self.model.num_codes
        counts = torch.bincount(codes.flatten(), minlength=self.model.num_codes).float()
        self.usage.lerp_(counts / even, 0.02)  # 1 is even use
        late = self.global_step >= recipe.revive_until * recipe.optim.total_steps
        if self.global_step % recipe.revive_every == 0 and not late:
            revive_dead_codes(self.model.quantize, z, self.usage, recipe.revive_share, generator)
            self.usage[self.usage < recipe.revive_share] = 1.0  # time to settle


def augment(images: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Move the pictures (B, 3, H, W) of a batch together, white coming in, and mirror half."""
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
        """Number of batches."""
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self):
        """Yield the batches."""
        for start in range(0, len(self.rows), self.batch_size):
            yield torch.from_numpy(self.pixels[self.rows[start : start + self.batch_size]])
