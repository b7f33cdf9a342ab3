"""What is done about a step whose gradient is not finite or far larger than usual.

By the policy "stop" the run ends before such a step changes anything; by "skip" the gradient is
dropped in every process alike, while schedule and loader go on. The module hands over the norm,
which it has from clipping: `CM3Module` does.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from cm3_train.artifact import atomic_file
from cm3_train.ranks import of_all_ranks

BadSteps = Literal["stop", "skip"]
HISTORY = 100
"""Steps whose norms make the median that a spike is told by."""
LEAST_HISTORY = 20
"""Steps before any is called a spike."""


class StepGuard(Callback):
    """Judges the norm of each step's gradient; its memory is part of a checkpoint.

    Args:
        policy: "stop" or "skip".
        spike_factor: A norm above this many times the median of the last 100 is a spike; None looks
            for NaN and infinity alone.
        most_skips: Skipped steps in a row that end the run.
        path: A file of JSON lines: step, norm, median and keys of each skipped step.
    """

    def __init__(
        self, policy: BadSteps, spike_factor: float | None, most_skips: int, path: Path
    ) -> None:
        """Check the arguments."""
        if policy not in ("stop", "skip"):
            raise ValueError(f"bad_steps: wanted stop or skip, got {policy!r}")
        if spike_factor is not None and not 1 < spike_factor < math.inf:
            raise ValueError(f"spike_factor: wanted a number above 1, got {spike_factor}")
        if most_skips < 1:
            raise ValueError(f"most_skips: wanted at least 1, got {most_skips}")
        self.policy = policy
        self.spike_factor = spike_factor
        self.most_skips = most_skips
        self.path = path
        self.norms: list[float] = []
        self.in_a_row = 0
        self._keys: list[int] = []

    @property
    def at_work(self) -> bool:
        """Whether there is anything to judge; without a spike factor, "stop" is `FiniteCheck`'s."""
        return self.policy == "skip" or self.spike_factor is not None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a module or a precision by which nobody would ever ask."""
        if self.at_work and trainer.precision == "16-mixed":
            raise ValueError(
                "bad_steps, spike_factor: wanted another precision than 16-mixed, whose scaler "
                "skips steps by itself"
            )
        if self.at_work and not getattr(pl_module, "asks_step_guard", False):
            raise ValueError(
                "bad_steps, spike_factor: wanted a CM3Module, or another with `asks_step_guard` "
                f"that calls `drops`, got {type(pl_module).__name__}"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget skipped steps that a resumed run does again; a line may be cut short by a kill."""
        if not trainer.is_global_zero or not self.path.is_file():
            return
        done = (trainer.fit_loop.total_batch_idx + 1) // trainer.accumulate_grad_batches
        kept = [line for line in self.path.read_bytes().splitlines() if _step_of(line) <= done]
        with atomic_file(self.path) as file:
            file.writelines(line + b"\n" for line in kept)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the keys of the step's batches."""
        if trainer.fit_loop.total_batch_idx % trainer.accumulate_grad_batches == 0:
            self._keys = []
        keys = batch.get("keys") if isinstance(batch, Mapping) else None
        if keys is not None and self.at_work:
            self._keys += keys.flatten().tolist()

    def drops(self, trainer: L.Trainer, norm: Tensor) -> bool:
        """Tell whether a step with a gradient of this norm, a scalar, is to be left out.

        Call it once a step in every process, with the same norm.

        Raises:
            FloatingPointError: The policy is "stop" and the step is bad, or too many were skipped
                in a row; names step, norm, median and keys.
        """
        value = float(norm)
        median = statistics.median(self.norms) if self.norms else math.nan
        known = self.spike_factor is not None and len(self.norms) >= LEAST_HISTORY
        spike = known and value > (self.spike_factor or math.inf) * median
        if math.isfinite(value) and not spike:
            self.norms = [*self.norms[1 - HISTORY :], value]
            self.in_a_row = 0
            return False
        step = (trainer.fit_loop.total_batch_idx + 1) // trainer.accumulate_grad_batches
        wanted = f"at most {self.spike_factor} times the median {median:.4g}" if spike else "finite"
        keys = sorted({key for one in of_all_ranks(self._keys) for key in one})
        said = (
            f"gradient norm: wanted {wanted}, got {value:.4g} in step {step} with the keys {keys}"
        )
        if self.policy == "stop":
            raise FloatingPointError(f"{said}; the step was not taken")
        self.in_a_row += 1
        if trainer.is_global_zero:
            print(f"{said}; the step is skipped", file=sys.stderr)
            row = {"step": step, "norm": str(value), "median": str(median), "keys": keys}
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
        if self.in_a_row >= self.most_skips:
            raise FloatingPointError(f"{said}; {self.in_a_row} steps in a row were skipped")
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the norms that were seen, and the skips in a row."""
        return {"norms": self.norms, "in_a_row": self.in_a_row} if self.at_work else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.norms = list(state_dict.get("norms", []))
        self.in_a_row = state_dict.get("in_a_row", 0)


def _step_of(line: bytes) -> float:
    """Return the step of a line, infinity where it is none."""
    try:
        return json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return math.inf
