"""A check that what ids are chosen by is finite, as often as the device allows.

On a CPU every step is checked at once. Reading from an accelerator makes it wait, so there the
results stay on the device and are read every 32 steps and at the end; the error still names the
first bad step.
"""

from __future__ import annotations

import torch
from torch import Tensor


class FiniteCheck:
    """A check of the largest score of each row, step by step."""

    def __init__(self, device: torch.device | str, every: int = 32) -> None:
        """Start the check; an accelerator is read every `every` steps."""
        self._unread: list[tuple[int, Tensor]] = []
        self._every = 1 if torch.device(device).type == "cpu" else every

    def see(self, largest: Tensor, step: int) -> None:
        """Check the largest score (B,) of each row in a step, a pass of the model counted from 0.

        A row's largest is finite unless one is NaN or infinity, or all are -inf.
        """
        self._unread.append((step, largest.isfinite()))
        if len(self._unread) >= self._every:
            self.report()

    def report(self) -> None:
        """Refuse scores that were not finite in a step so far.

        Raises:
            FloatingPointError: Some were NaN or infinite; names the first such step.
        """
        unread, self._unread = self._unread, []
        if not unread or bool(torch.cat([good for _, good in unread]).all()):
            return
        step, good = next((step, good) for step, good in unread if not bool(good.all()))
        rows = (~good).nonzero()[:, 0].tolist()
        raise FloatingPointError(
            f"model: wanted finite logits, also after guidance, got NaN or infinity (or -infinity "
            f"for every allowed id) in step {step}, rows {rows}"
        )
