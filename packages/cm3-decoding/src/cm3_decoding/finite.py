"""Whether a model's logits are numbers, asked as often as the device can bear.

Takes the logits of every step, raises `FloatingPointError` if some were NaN or infinite. A CPU is
asked in every step. To ask an accelerator makes it wait, so there the answers are kept on the
device and read every 32 steps and at the end; the error names the first bad step all the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class FiniteCheck:
    """Watches the logits (N, V) of up to `steps` steps."""

    def __init__(self, steps: int, num_rows: int, device: torch.device | str, every: int = 32):
        """Watch; `every` is how many steps of an accelerator pass between two questions."""
        self._good = torch.ones(steps, num_rows, dtype=torch.bool, device=device)
        self._every = 1 if torch.device(device).type == "cpu" else every
        self._asks = self._every == 1

    def see(self, logits: Tensor, step: int) -> None:
        """Take the logits (N, V), or of the first rows, of a step counted from 0."""
        # One pass instead of four: a sum is finite unless a number is not, or the sum overflows.
        if self._asks and math.isfinite(float(logits.sum())):
            return
        self._good[step, : len(logits)] = logits.isfinite().all(-1)
        if (step + 1) % self._every == 0:
            self.report()

    def report(self) -> None:
        """Raise `FloatingPointError` if logits of an earlier step were not finite."""
        if bool(self._good.all()):
            return
        step = int((~self._good).any(1).nonzero()[0])
        rows = (~self._good[step]).nonzero()[:, 0].tolist()
        raise FloatingPointError(
            f"model: wanted finite logits, got NaN or infinity in step {step}, stream rows {rows}"
        )
