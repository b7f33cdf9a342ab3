"""A check that what ids are chosen by is finite, as often as the device allows.

On a CPU every step is checked at once. Reading from an accelerator makes it wait, so there the
results stay on the device and are read every 32 steps and at the end; the error still names the
first bad step.
"""

from __future__ import annotations

import torch
from torch import Tensor


class FiniteCheck:
    """A check of the largest score of B rows in each of up to `steps` steps."""

    def __init__(self, steps: int, num_rows: int, device: torch.device | str, every: int = 32):
        """Start the check; an accelerator is read every `every` steps."""
        self._good = torch.ones(steps, num_rows, dtype=torch.bool, device=device)
        self._every = 1 if torch.device(device).type == "cpu" else every

    def see(self, scores: Tensor, step: int) -> None:
        """Check the scores (B, V) of a step counted from 0.

        A row's largest is finite unless one is NaN or infinity, or all are -inf.
        """
        self._good[step] = scores.amax(-1).isfinite()
        if self._every == 1:
            if not bool(self._good[step].all()):
                self.report()
        elif (step + 1) % self._every == 0:
            self.report()

    def report(self) -> None:
        """Refuse scores that were not finite in a step so far.

        Raises:
            FloatingPointError: Some were NaN or infinite; names the first such step.
        """
        if bool(self._good.all()):
            return
        step = int((~self._good).any(1).nonzero()[0])
        rows = (~self._good[step]).nonzero()[:, 0].tolist()
        raise FloatingPointError(
            f"model: wanted finite logits, also after guidance, got NaN or infinity (or -infinity "
            f"for every allowed id) in step {step}, rows {rows}"
        )
