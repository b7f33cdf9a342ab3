"""A check that losses, weights and buffers stay finite, as often as the device allows.

On a CPU every step is checked at its end. Reading from an accelerator makes it wait, so there the
results stay on the device and are read after 32 batches, and before anything is saved: a checkpoint
never holds weights or buffers that are NaN or infinite, but for a buffer's -inf: that is a mask's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from cm3_train.sharded_tensors import local

READ_EVERY = 32
"""Batches, at least, between two looks at what an accelerator found."""


class FiniteCheck(Callback):
    """Ends a run at the first loss, or weights after a step, that are NaN or infinite.

    All ranks end together, whichever of them it was. The check costs one pass over the weights a
    step.

    Args:
        last_path: The checkpoint that a resumed run will go on from; named in the message.
        losses: Whether losses are looked at; they are not where a `StepGuard` skips bad steps.
    """

    def __init__(self, last_path: Path, losses: bool = True) -> None:
        """Start with nothing seen."""
        self.last_path = last_path
        self.losses = losses
        self._seen: list[_Seen] = []

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Look at the batch's loss, and at the weights if the batch ended a step."""
        done, within = divmod(trainer.fit_loop.total_batch_idx + 1, trainer.accumulate_grad_batches)
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        loss = loss if self.losses else None
        true = torch.ones((), dtype=torch.bool, device=pl_module.device)
        good = torch.stack(
            [
                loss.isfinite().all().to(true.device) if isinstance(loss, Tensor) else true,
                true if within else _all_finite(pl_module, true),
            ]
        )
        keys = batch.get("keys") if isinstance(batch, Mapping) else None
        self._seen.append(_Seen(done + (within > 0), keys, good))
        if not within and len(self._seen) >= _read_every(pl_module.device):
            self.report(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report before the best weights may be saved."""
        self.report(trainer)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Report before the file is written."""
        self.report(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report what is left."""
        self.report(trainer)

    def report(self, trainer: L.Trainer) -> None:
        """Refuse what was not finite in a batch so far.

        Raises:
            FloatingPointError: Names the first such step, and the keys where the batch has them.
        """
        if not self._seen:
            return
        seen, self._seen = self._seen, []
        mine = ~torch.stack([one.good for one in seen])  # (batches, 2)
        bad = mine.int()
        if trainer.world_size > 1:
            bad = trainer.strategy.reduce(bad, reduce_op="max")
        if not bool(bad.any()):
            return
        first = int(bad.any(1).nonzero()[0])
        of_loss = bool(bad[first, 0])
        step = seen[first].step
        # a step is made of all its batches, a loss of one
        blamed = seen[first : first + 1] if of_loss else [one for one in seen if one.step == step]
        keys = [key for one in blamed if one.keys is not None for key in one.keys.tolist()]
        where = f" with the keys {keys}" if keys else ""
        if of_loss and not bool(mine[first, 0]):
            where = " on another process"
        left = "no checkpoint was written before"
        if self.last_path.exists():
            left = f"{self.last_path} is from before: the same command goes on from it"
        raise FloatingPointError(
            f"{'loss' if of_loss else 'weights'}: wanted finite numbers, got NaN or infinity in "
            f"step {step}{where}; {left}"
        )


class _Seen(NamedTuple):
    """What a batch showed; its tensors are where the module is."""

    step: int
    """The step that it belongs to, from 1."""
    keys: Tensor | None
    """Its samples' (B,)."""
    good: Tensor
    """Whether its loss, and the weights after it, are finite: (2,)."""


def _read_every(device: torch.device) -> int:
    return 1 if device.type == "cpu" else READ_EVERY


def _all_finite(module: L.LightningModule, true: Tensor) -> Tensor:
    """Return whether trainable weights and buffers are finite, a bool on the device.

    If there are none, that is `true`. A buffer may hold -inf, as masks do.
    """
    parts = [local(p.detach()) for p in module.parameters() if p.requires_grad]
    # the smallest or the largest is NaN or infinite if anything is: a tenth of the time of looking
    # at every number, on a CPU
    bounds = [bound for part in parts if part.numel() for bound in part.aminmax()]
    buffers = [local(b) for b in module.buffers() if b.is_floating_point() and b.itemsize > 1]
    bounds += [
        buffer.amax().clamp(min=0) for buffer in buffers if buffer.numel()
    ]  # float8 has no amax
    return torch.stack(bounds).isfinite().all() if bounds else true
