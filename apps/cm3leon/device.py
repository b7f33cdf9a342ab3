"""Where a run computes and in which precision; each part is moved there once."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def device_of(name: str = "auto") -> torch.device:
    """Return the device of a name.

    Args:
        name: "cpu", "cuda", "cuda:N", "mps", or "auto": a GPU where there is one.

    Raises:
        ValueError: The name means nothing, or this machine has no such device.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ValueError(f"device: wanted auto, cpu, cuda, cuda:N or mps, got {name!r}")
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and torch.backends.mps.is_available():
            name = "mps"
    device = torch.device(name)
    found = torch.cuda.device_count() if device.type == "cuda" else 1
    if device.type == "cuda" and (device.index or 0) >= found:
        raise ValueError(f"device: wanted one of this machine's {found} GPUs, got {name!r}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device: this machine has no mps")
    return device


def precision_on(device: torch.device, name: str) -> str:
    """Return Lightning's name of a precision; "auto" is bf16 where the hardware computes in it."""
    import torch

    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if fast else "32-true"


def make_deterministic() -> None:
    """Ask torch for the same bits in every run, on a GPU too."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.use_deterministic_algorithms(True)
    # filling fresh memory costs 5 % and only helps to find faults
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore
