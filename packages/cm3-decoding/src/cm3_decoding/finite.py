"""A check that a model's logits are finite, as often as the device allows.

On a CPU every step is checked at once. Reading from an accelerator makes it wait, so there the
results stay on the device and are read every 32 steps and at the end; the error still names the
first bad step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class FiniteCheck:
    """A check of the logits (N, V) of up to `steps` steps."""

    def __init__(self, steps: int, num_rows: int, device: torch.device | str, every: int = 32):
        """Start the check; an accelerator is read every `every` steps."""
        self._good = torch.ones(steps, num_rows, dtype=torch.bool, device=device)
        self._every = 1 if torch.device(device).type == "cpu" else every
        self._asks = self._every == 1

    def see(self, logits: Tensor, step: int) -> None:
        """Check the logits (N, V), or those of the first rows, of a step counted from 0."""
        # One pass instead of four: a sum is finite unless a number is not, or the sum overflows.
        if self._asks and math.isfinite(float(logits.sum())):
            return
        self._good[step, : len(logits)] = logits.isfinite().all(-1)
        if (step + 1) % self._every == 0:
            self.report()

    def report(self) -> None:
        """Refuse logits that were not finite in a step so far.

        Raises:
            FloatingPointError: Some logits were NaN or infinite; names the first such step.
        """
        if bool(self._good.all()):
            return
        step = int((~self._good).any(1).nonzero()[0])
        rows = (~self._good[step]).nonzero()[:, 0].tolist()
        raise FloatingPointError(
            f"model: wanted finite logits, got NaN or infinity in step {step}, stream rows {rows}"
        )
