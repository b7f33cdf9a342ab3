"""The LightningModule that trains a causal language model on text and image ids (paper 2.2).

Takes any `TrainableModel` and an `OptimConfig`; logs the loss and, apart, the bits of image codes
and of text tokens.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn

from cm3_train.averaging import average_weights
from cm3_train.config import OptimConfig
from cm3_train.interface import TrainableModel
from cm3_train.loss import split_losses, token_losses
from cm3_train.optim import build_optimizer, build_schedule


class CM3Module(L.LightningModule):
    """Next-token training of `model`; validation and export use the averaged weights, if kept.

    Args:
        model: an `nn.Module` that is a `TrainableModel`.
        optim: optimizer, schedule, clipping and weight averaging.
        image_range: image ids are `start <= id < stop`.
    """

    def __init__(self, model: nn.Module, optim: OptimConfig, image_range: tuple[int, int]) -> None:
        """Check the model, and copy it if averaged weights are kept."""
        super().__init__()
        if not isinstance(model, TrainableModel):
            raise TypeError(
                f"model: wanted methods hidden and head, got {type(model).__name__} without"
            )
        self.model = model
        self.optim = optim
        self.image_range = image_range
        self.averaged: nn.Module | None = None
        if optim.ema_decay:
            self.averaged = copy.deepcopy(cast(nn.Module, model)).requires_grad_(False)
            self.register_buffer("num_averaged", torch.zeros((), dtype=torch.long))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the mean loss of the batch's tokens."""
        loss, by_kind = self._losses(self.model, batch)
        self.log("train/loss", loss.mean(), prog_bar=True)
        for name, part in by_kind.items():  # nan where the batch has no token of the kind
            self.log(f"train/{name}", part.mean() / math.log(2), prog_bar="code" in name)
        return loss.mean()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the first group's rate of the step that is about to be taken."""
        self.log("train/lr", optimizer.param_groups[0]["lr"])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log means over all tokens of the validation set, not over batches."""
        model = self.model if self.averaged is None else cast(TrainableModel, self.averaged)
        loss, by_kind = self._losses(model, batch)
        parts = {"loss": loss, **{name: part / math.log(2) for name, part in by_kind.items()}}
        for name, part in parts.items():
            if len(part):
                self.log(
                    f"val/{name}",
                    part.mean(),
                    batch_size=len(part),
                    on_step=False,
                    on_epoch=True,
                    prog_bar=name != "bits_per_text_token",
                )

    def configure_optimizers(self) -> Any:
        """Build both from the config; the schedule moves every step."""
        optimizer = build_optimizer(cast(nn.Module, self.model), self.optim)
        schedule = build_schedule(optimizer, self.optim)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip at the trainer's value if it has one, else at the config's."""
        limit = gradient_clip_val or self.optim.grad_clip
        if limit:
            self.clip_gradients(optimizer, limit, gradient_clip_algorithm or "norm")

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step, then move the averaged weights: here, so that a checkpoint always has both."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.averaged is not None:
            self.num_averaged += 1
            model = cast(nn.Module, self.model)
            average_weights(self.averaged, model, int(self.num_averaged), self.optim.ema_decay)

    def export_state(self) -> dict[str, Tensor]:
        """Return the weights to keep, under the model's own names: averaged ones, if kept."""
        model = cast(nn.Module, self.model) if self.averaged is None else self.averaged
        return {name: value.detach().clone() for name, value in model.state_dict().items()}

    def _losses(
        self, model: TrainableModel, batch: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the losses in nats, (N,), and detached those of codes and of text tokens."""
        hidden = model.hidden(batch["input_ids"])  # (B, T, D)
        losses, labels = token_losses(hidden, batch["labels"], model.head)  # (N,)
        codes, text = split_losses(losses.detach(), labels, self.image_range)
        return losses, {"bits_per_code": codes, "bits_per_text_token": text}
