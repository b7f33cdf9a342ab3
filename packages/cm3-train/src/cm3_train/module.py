"""The LightningModule that trains a causal language model on text and image ids (paper 2.2).

Takes any `TrainableModel` and an `OptimConfig`; logs the loss and, apart, the bits of image codes
and of text tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from cm3_train.averaging import averaged_model
from cm3_train.collate import IGNORE
from cm3_train.config import OptimConfig
from cm3_train.eight_bits import require_torchao
from cm3_train.frozen_weights import FrozenWeights
from cm3_train.interface import TrainableModel
from cm3_train.lora import adapters_of, merged_weights
from cm3_train.loss import Head, split_losses, token_losses
from cm3_train.optim import build_optimizer, build_schedule
from cm3_train.sharded_tensors import clip_gradients, local
from cm3_train.step_guard import StepGuard


class CM3Module(L.LightningModule):
    """Next-token training of `model`; validation and export use the averaged weights, if kept.

    Every token of an optimizer step weighs the same, or what the batch's `weights` say, whatever
    rank and whichever of the accumulated batches it is in: gradients of sums are added up, then
    divided by the number of tokens, or by the sum of their weights.

    Weights that are frozen when it is made, such as those beside adapters, stand in no checkpoint;
    their hash does, and a run goes on with the same ones only.

    Args:
        model: An `nn.Module` that is a `TrainableModel`.
        optim: Optimizer, schedule, clipping and weight averaging.
        image_range: Image ids are `start <= id < stop`.
        shard: Splits a model in place over a mesh of processes, such as
            `cm3_model.parallel.parallelize`; for Lightning's `ModelParallelStrategy`.
    """

    asks_step_guard = True
    """Gradients of bad steps are dropped where `fit` says so."""

    def __init__(
        self,
        model: nn.Module,
        optim: OptimConfig,
        image_range: tuple[int, int],
        *,
        shard: Callable[[Any, DeviceMesh], object] | None = None,
    ) -> None:
        """Check the model, and copy it if averaged weights are kept."""
        super().__init__()
        if optim.name == "adamw8bit":
            require_torchao()  # before a checkpoint of its states is read
        if not isinstance(model, TrainableModel):
            raise TypeError(
                f"model: wanted methods hidden and head, got {type(model).__name__} without"
            )
        self.model = model
        self.optim = optim
        self.image_range = image_range
        self.averaged = averaged_model(model, optim.ema_decay) if optim.ema_decay else None
        self._frozen = FrozenWeights(model)
        self._shard = shard
        self._sums: Tensor | None = None
        self._validation_sums: Tensor | None = None

    def configure_model(self) -> None:
        """Split the model, and its averaged copy, where Lightning has a mesh for it."""
        if self._shard is None or self.device_mesh is None:
            return
        shard, self._shard = self._shard, None  # Lightning may call this twice
        if self._frozen:
            raise ValueError(
                "strategy: wanted one that leaves a model with frozen weights whole, such as ddp, "
                "got one that splits it"
            )
        shard(self.model, self.device_mesh)
        if self.averaged is not None:
            shard(self.averaged.module, self.device_mesh)

    @property
    def run_settings(self) -> dict[str, Any]:
        """What `fit` must find unchanged when it resumes: the configs of optimizer and adapters."""
        lora = adapters_of(cast(nn.Module, self.model))
        return self.optim.in_effect() | ({} if lora is None else {"lora": asdict(lora)})

    @property
    def kept_model(self) -> nn.Module:
        """The model to validate, draw with and export: the averaged one, if there is one."""
        return cast(nn.Module, self.model) if self.averaged is None else self.averaged.module

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the summed loss of the batch's tokens."""
        if "padding" in batch:
            self.log("train/padding", batch["padding"])
        total, sums = self._losses(self.model, batch)
        self._sums = sums if self._sums is None else self._sums + sums
        return total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the tokens' weights of all ranks, and log the step's means."""
        assert self._sums is not None  # set by every training step
        sums, self._sums = self._reduced(self._sums), None
        # a strategy takes the mean over ranks, Lightning over accumulated batches
        parts = self.trainer.world_size * self.trainer.accumulate_grad_batches
        scale = parts / (float(sums[0, 0]) or 1.0)
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        torch._foreach_mul_([local(grad) for grad in gradients if grad is not None], scale)
        for name, value in _means(sums).items():  # nan where the step has no token of the kind
            self.log(f"train/{name}", value, prog_bar=name != "bits_per_text_token")
        self.log("train/lr", optimizer.param_groups[0]["lr"])

    def on_validation_epoch_start(self) -> None:
        """Start to count."""
        self._validation_sums = torch.zeros(3, 2, device=self.device)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add up the losses of the validation set."""
        model = cast(TrainableModel, self.kept_model)
        self._validation_sums = self._validation_sums + self._losses(model, batch)[1]

    def on_validation_epoch_end(self) -> None:
        """Log means over all tokens of the validation set, of all ranks."""
        assert self._validation_sums is not None  # set at the start
        for name, value in _means(self._reduced(self._validation_sums)).items():
            if not math.isnan(value):
                self.log(f"val/{name}", value, prog_bar=name != "bits_per_text_token")

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
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if self.trainer.scaler is not None or (limit and gradient_clip_algorithm == "value"):
            if limit:
                self.clip_gradients(optimizer, limit, gradient_clip_algorithm or "norm")
            return
        guards = [
            one
            for one in cast(list[Callback], self.trainer.callbacks)
            if isinstance(one, StepGuard)
        ]
        guard = next((one for one in guards if one.at_work), None)
        if not limit and guard is None:
            return
        # Lightning's own refuses fused optimizers in any mixed precision, bf16 too
        norm = clip_gradients(parameters, limit or math.inf)
        self.log("train/gradient_norm", norm)
        if guard is not None and guard.drops(self.trainer, norm):
            for parameter in parameters:
                parameter.grad = None  # an optimizer passes over those, state and decay included

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
            self.averaged.update_parameters(cast(nn.Module, self.model))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen weights out, and write down their hash."""
        self._frozen.leave_out(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put in the frozen weights that are here, if their hash is that of the checkpoint."""
        self._frozen.put_back(self, checkpoint)

    def export_state(self) -> dict[str, Tensor]:
        """Return the weights to keep, under the model's own names: averaged ones, if kept.

        Averaged weights are in float32 at least, whatever the model's own type. Adapters are
        merged, and the names are those of the model before it had any.
        """
        if adapters_of(self.kept_model) is not None:
            return merged_weights(self.kept_model)
        state = self.kept_model.state_dict()
        return {name: value.detach().clone() for name, value in state.items()}

    def _losses(self, model: TrainableModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the weighted loss, and counts and sums in nats (3, 2): of all, of codes, of text.

        Those of all are weighted, as the loss is; codes and text count alike.
        """
        packed = (batch["documents"],) if "documents" in batch else ()
        hidden = model.hidden(batch["input_ids"], *packed)  # (B, T, D)
        labels, weights = batch["labels"], batch.get("weights")
        losses = token_losses(hidden, labels, _head_of(model), weights=weights)
        counted = losses.nats.new_tensor(len(losses.nats))
        if weights is not None:
            counted = weights[labels != IGNORE].sum()
        rows = [torch.stack([counted, losses.total.detach()])]
        for kind in split_losses(losses.nats, losses.labels, self.image_range):
            rows.append(torch.stack([kind.new_tensor(len(kind)), kind.sum()]))
        return losses.total, torch.stack(rows)

    def _reduced(self, sums: Tensor) -> Tensor:
        """Return the sums over all ranks, on the CPU."""
        return self.trainer.strategy.reduce(sums, reduce_op="sum").double().cpu()


def _head_of(model: TrainableModel) -> Head:
    """Return the head as a matrix where the model shows one that is whole, else its method."""
    weight = getattr(model, "head_weight", None)
    return weight if isinstance(weight, Tensor) and not isinstance(weight, DTensor) else model.head


def _means(sums: Tensor) -> dict[str, float]:
    """Return the figures of counts and sums (3, 2)."""
    loss, code, text = (sums[:, 1] / sums[:, 0]).tolist()
    return {
        "loss": loss,
        "bits_per_code": code / math.log(2),
        "bits_per_text_token": text / math.log(2),
    }
