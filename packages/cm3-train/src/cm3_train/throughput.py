"""Tokens a second, the share of the device's arithmetic that they use (MFU), and memory.

MFU as in PaLM (arXiv 2204.02311, appendix B): what the model needs a token, however often
activation checkpointing computes it, over what the device could do.
"""

from __future__ import annotations

import re
import time
from collections import deque
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from cm3_train.process_memory import peak_bytes

WINDOW = 20
"""Steps whose mean is shown."""

PEAK_TFLOPS = {
    "B200": 2250.0, "GH200": 989.0, "H200": 989.0, "H100 PCIe": 756.0, "H100 NVL": 835.0,
    "H100": 989.0, "A100": 312.0, "A800": 312.0, "H800": 989.0, "H20": 148.0, "L40S": 362.0,
    "L40": 181.0, "L4": 121.0, "A40": 150.0, "A30": 165.0, "A10G": 70.0, "A10": 125.0,
    "RTX 6000 Ada": 364.0, "RTX A6000": 155.0, "RTX 5090": 210.0, "RTX 4090": 165.0,
    "RTX 3090": 71.0, "MI300X": 1307.0, "MI250X": 191.5,
}  # fmt: skip
"""Dense bfloat16 with float32 sums, in 10^12 operations a second, by a part of the device's name;
from the makers' data sheets (of the MI250X one die, which is a device). The first that is found as
a word counts."""


def peak_operations(device_name: str) -> float | None:
    """Return the operations a second of a device in bfloat16, None where they are not known."""
    found = (peak for name, peak in PEAK_TFLOPS.items() if re.search(rf"\b{name}\b", device_name))
    peak = next(found, None)
    return None if peak is None else peak * 1e12


def peak_memory(device: torch.device) -> int:
    """Return the most bytes so far: of tensors on a CUDA device, of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_bytes()


class Throughput(Callback):
    """Shows in the bar, and logs, what the last steps reached; keeps no state.

    Counts every position of `input_ids`, padding too, which is computed as well. Waiting for data
    counts, validation and saving do not.

    Args:
        operations_a_token: Forward and backward, as `cm3_model.operations_a_token` counts them;
            None leaves MFU out. So does a device of unknown speed, and a precision that is not
            bfloat16.
        peak: Operations a second of one device; None looks its name up.
    """

    def __init__(self, operations_a_token: float | None = None, peak: float | None = None) -> None:
        """Keep the arguments."""
        self.operations_a_token = operations_a_token
        self.peak = peak
        self._steps: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._since: float | None = None
        self._tokens = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look the device up."""
        device = pl_module.device
        if self.peak is None and device.type == "cuda":
            self.peak = peak_operations(torch.cuda.get_device_name(device))
        if not str(trainer.precision).startswith("bf16"):
            self.peak = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock where it stands."""
        if self._since is None:
            self._since = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the batch; at a step's end, log."""
        self._tokens += batch["input_ids"].numel()
        if (trainer.fit_loop.total_batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        now = time.perf_counter()
        if self._since is not None:
            self._steps.append((now - self._since, self._tokens))
        self._since, self._tokens = now, 0
        seconds, tokens = map(sum, zip(*self._steps, strict=True))
        place = getattr(trainer.strategy, "distributed_sampler_kwargs", None)
        speed = tokens * (place["num_replicas"] if place else 1) / max(seconds, 1e-9)
        pl_module.log("train/tokens_per_second", speed, prog_bar=True)
        if self.operations_a_token is not None and self.peak is not None:
            share = speed * self.operations_a_token / (self.peak * trainer.world_size)
            pl_module.log("train/mfu", share, prog_bar=True)
        memory = peak_memory(pl_module.device) / 2**30
        pl_module.log("train/peak_memory_gib", memory, prog_bar=True)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._since = None

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Stop the clock."""
        self._since = None
