"""Training of a `cm3_imagetok.VQGAN` on pixels, through Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from cm3_imagetok import (
    VQGAN,
    AdversarialLoss,
    CausalPredictor,
    GumbelQuantizer,
    PatchDiscriminator,
    PerceptualLoss,
    codebook_use,
    gumbel_temperature,
    psnr,
    reconstruction_loss,
    revive_dead_codes,
    save_vqgan,
    ssim,
    to_tensor,
)
from cm3_train import (
    BatchLoader,
    SampleOrder,
    averaged_model,
    build_optimizer,
    build_schedule,
    fit,
    load_weights,
)
from cm3leon.data.pixels import Pictures
from cm3leon.processes import fit_options
from cm3leon.recipe import ImageRecipe
from cm3leon.trainer_recipe import TrainerRecipe
from cm3leon.training.image_batches import PixelBatches, augment, batch_maker

CAUSAL_WARMUP = 300
"""Steps until the causal predictor's loss has its full weight."""
REVIVE_EVERY = 20
"""Steps between two looks for dead codes."""
REVIVE_UNTIL = 0.7
"""Share of the steps after which no code is moved any more."""


def left_out(recipe: ImageRecipe, has_boxes: bool) -> list[str]:
    """Return what the recipe does not train on, a line each."""
    lines = []
    if recipe.vgg16 is None or recipe.lpips is None:
        lines.append("perceptual loss is off: vgg16 and lpips name no files of weights")
    if not recipe.gan_weight:
        lines.append("adversarial loss is off: gan_weight is 0")
    if recipe.region_weight != 1 and not has_boxes:
        lines.append("region_weight does nothing: no picture has boxes")
    return lines


def train_image_tokenizer(
    recipe: ImageRecipe,
    pictures: Pictures,
    folder: Path,
    *,
    seed: int,
    device: torch.device,
    precision: str,
    checkpoint_every: int,
    trainer: TrainerRecipe | None = None,
) -> None:
    """Train, and save the best model by held-out PSNR as `folder / "vqgan"`.

    With a discriminator it is the last model: sharper pictures have a lower PSNR.

    Args:
        recipe: Shape, losses, augmentation, optimizer.
        pictures: All pairs; the training split is trained on, the validation split chooses.
        folder: Keeps checkpoints and logs; a training that was stopped there goes on.
        seed: Of the weights and of all that is drawn.
        device: Where to train.
        precision: Lightning's name of it.
        checkpoint_every: Steps between two checkpoints.
        trainer: How many checkpoints stay; one process trains, whatever it says.
    """
    module = ImageTokenizerModule(recipe, seed)
    order = SampleOrder(pictures.places_of("train"), seed, recipe.batch_size)
    best = fit(
        module,
        BatchLoader(batch_maker(recipe, pictures), order),
        PixelBatches(pictures.decoded, pictures.places_of("validation"), 64),
        run_dir=folder,
        max_steps=recipe.optim.total_steps,
        val_every=recipe.val_every,
        checkpoint_every=checkpoint_every,
        precision=precision,
        monitor="val/psnr",
        mode="max",
        description="image tokenizer",
        **fit_options(device, trainer or TrainerRecipe(), together=False),
    )
    load_weights(module, folder / "last.ckpt" if recipe.gan_weight else best)
    save_vqgan(module.best_model, folder / "vqgan")


class ImageTokenizerModule(L.LightningModule):
    """Training of a VQGAN with a codebook that is kept in use.

    Pixel loss, and where the recipe has them: perceptual loss, patch discriminator, weights of
    regions, a regulariser that makes codes predictable, averaged weights.

    Args:
        recipe: Shape, losses, augmentation, optimizer.
        seed: Of the weights and of all that is drawn.
    """

    usage: Tensor

    def __init__(self, recipe: ImageRecipe, seed: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.seed = seed
        self.perceptual: PerceptualLoss | None = None
        self.adversarial: AdversarialLoss | None = None
        self.predictor: CausalPredictor | None = None
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = VQGAN(recipe.model).to(memory_format=torch.channels_last)
            if recipe.causal_weight:
                model = recipe.model
                self.predictor = CausalPredictor(model.embed_dim, model.grid_size**2)
            if recipe.gan_weight:
                judge = PatchDiscriminator(recipe.gan_channels, recipe.gan_layers)
                self.adversarial = AdversarialLoss(judge, recipe.gan_weight, recipe.gan_start)
        if recipe.vgg16 is not None and recipe.lpips is not None:
            self.perceptual = PerceptualLoss.from_files(recipe.vgg16, recipe.lpips)
        decay = recipe.optim.ema_decay
        self.averaged = averaged_model(self.model, decay) if decay else None
        self.register_buffer("usage", torch.ones(recipe.model.num_codes))
        self._seen: tuple[Tensor, torch.Generator] | None = None  # grid of a step that revives

    @property
    def best_model(self) -> VQGAN:
        """The model to keep: the averaged one, if there is one."""
        return self.model if self.averaged is None else cast(VQGAN, self.averaged.module)

    @property
    def run_settings(self) -> dict[str, Any]:
        """What `fit` must find unchanged when it resumes: how the weights move."""
        mine = self.recipe.optim.in_effect()
        return mine if self.adversarial is None else {**mine, "gan_lr": self.recipe.gan_lr}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of `pixels` (B, H, W, 3) uint8, perhaps with `weights` (B, 1, H, W)."""
        recipe, generator = self.recipe, self._generator()
        images, weights = to_tensor(batch["pixels"]), batch.get("weights")
        if weights is not None:  # moved and mirrored with the picture; outside of it they are 1
            both = augment(torch.cat([images, weights], 1), recipe.max_shift, generator)
            images, weights = both[:, :3], both[:, 3:]
        else:
            images = augment(images, recipe.max_shift, generator)
        z = self.model.latent(images.contiguous(memory_format=torch.channels_last))
        if isinstance(self.model.quantize, GumbelQuantizer):
            total = recipe.optim.total_steps
            self.model.quantize.temperature = gumbel_temperature(self.global_step, total)
        quantized = self.model.quantize(z)
        reconstruction = self.model.render(quantized.grid).float()
        loss = reconstruction_loss(
            reconstruction,
            images,
            recipe.l1_weight,
            recipe.l2_weight,
            weights,
            recipe.chroma_weight,
        )
        self.log("train/reconstruction", loss.detach(), prog_bar=True)
        if self.perceptual is not None:
            distance = self.perceptual(reconstruction, images).mean()
            self.log("train/perceptual", distance.detach())
            loss = loss + recipe.perceptual_weight * distance
        loss = loss + self._adversarial_loss(images, reconstruction, loss)
        self._watch_codebook(z.detach(), quantized.codes, generator)
        self.log("train/quantizer", quantized.loss.detach())
        loss = loss + quantized.loss
        if self.predictor is not None:
            unexplained = self.predictor(quantized.grid)
            self.log("train/unexplained", unexplained.detach())
            # first something to predict, then a wish to be predictable
            ramp = min(1.0, self.global_step / CAUSAL_WARMUP)
            loss = loss + ramp * recipe.causal_weight * unexplained
        return loss

    def _adversarial_loss(
        self, images: Tensor, reconstruction: Tensor, base_loss: Tensor
    ) -> Tensor | float:
        """Both players' losses: each reaches its own parameters alone, so one step serves both."""
        if self.adversarial is None:
            return 0.0
        assert self.model.decoder is not None  # what is trained has both halves
        last_layer, step = self.model.decoder.conv_out.weight, self.global_step
        mine = self.adversarial.generator(reconstruction, base_loss, last_layer, step)
        other = self.adversarial.discriminator_loss(images, reconstruction, step)
        self.log("train/generator", mine.detach())
        self.log("train/discriminator", other.detach(), prog_bar=True)
        return mine + other

    def validation_step(self, pixels: Tensor, batch_idx: int) -> None:
        """Quality of held-out pixels (B, H, W, 3) uint8, and how the codebook is used."""
        images = to_tensor(pixels)
        codes = self.best_model.encode(images)
        reconstruction = self.best_model.decode(codes)
        use = codebook_use(codes, self.model.num_codes)
        self.log("val/psnr", psnr(reconstruction, images).mean(), prog_bar=True, on_epoch=True)
        self.log("val/ssim", ssim(reconstruction, images).mean(), on_epoch=True)
        self.log("val/code_perplexity_share", use.perplexity_share, on_epoch=True)
        if batch_idx == 0:
            rows = torch.stack([images[:8], reconstruction[:8]], 1).flatten(0, 1)
            for logger in self.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_images(
                        "val/reconstructions", (rows + 1) / 2, self.global_step
                    )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then revive dead codes and move the averaged weights."""
        super().optimizer_step(*args, **kwargs)
        self._revive()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the VQGAN's gradients; the discriminator's are its own."""
        if self.recipe.optim.grad_clip:
            mine = [p for n, p in self.named_parameters() if not n.startswith("adversarial.")]
            torch.nn.utils.clip_grad_norm_(mine, self.recipe.optim.grad_clip)

    def configure_optimizers(self) -> Any:
        """Build the optimizer and schedule of the recipe."""
        rates = {"adversarial.": self.recipe.gan_lr} if self.adversarial is not None else None
        optimizer = build_optimizer(self, self.recipe.optim, rates)
        schedule = build_schedule(optimizer, self.recipe.optim)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _generator(self) -> torch.Generator:
        """Return the step's own randomness: a resumed run draws what an unbroken one draws."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + self.global_step)

    @torch.no_grad()
    def _watch_codebook(self, z: Tensor, codes: Tensor, generator: torch.Generator) -> None:
        """Count which codes are used, and keep the grid of a step that revives."""
        even = codes.numel() / self.model.num_codes
        counts = torch.bincount(codes.flatten(), minlength=self.model.num_codes).float()
        self.usage.lerp_(counts / even, 0.02)  # 1 is even use
        late = self.global_step >= REVIVE_UNTIL * self.recipe.optim.total_steps
        due = self.global_step % REVIVE_EVERY == 0 and not late
        self._seen = (z, generator) if due else None

    @torch.no_grad()
    def _revive(self) -> None:
        """Move dead codes once the step is done, which would move the new vectors at once."""
        if self._seen is None:
            return
        (z, generator), self._seen = self._seen, None
        share = self.recipe.revive_share
        revive_dead_codes(self.model.quantize, z, self.usage, share, generator)
        self.usage[self.usage < share] = 1.0  # time to settle
