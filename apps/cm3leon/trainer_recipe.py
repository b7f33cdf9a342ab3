"""How a training runs, whatever it trains: on which processes, what it keeps, where it logs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class TrainerRecipe:
    """Processes, checkpoints, bad steps and logs. A run may go on with others than it began with.

    Processes are those of the decoder's training; the first one makes the other stages alone.
    """

    devices: int = 1
    """Processes of a node, each with a device of its own. torchrun and SLURM start as many."""
    num_nodes: int = 1
    """Nodes, which share the run's folder."""
    strategy: Literal["auto", "ddp", "fsdp2"] = "auto"
    """"ddp": each process holds the whole model. "fsdp2": each holds a part of every weight, with
    its gradient and its optimizer's state. "auto": "ddp" where there are several."""
    tensor_parallel: int = 1
    """Processes that share each matrix product of a block, and so a batch; with "fsdp2"."""
    workers: int = 0
    """Processes beside each of the decoder's that build its batches ahead; 0 builds them in it."""
    keep_last: int = 2
    """Checkpoints that stay, beside the best; where the newest is broken the one before counts."""
    bad_steps: Literal["stop", "skip"] = "stop"
    """What to do at a step of the decoder whose gradient is NaN, infinite or a spike."""
    spike_factor: float | None = None
    """A gradient's norm above this many times the median of the last 100 is a spike; null: none."""
    loggers: tuple[dict[str, Any], ...] = ()
    """Lightning's loggers beside CSV and TensorBoard: {class_path: ..., init_args: {...}} each."""

    def __post_init__(self) -> None:
        """Refuse what no process could follow."""
        for name in ("devices", "num_nodes", "tensor_parallel", "keep_last"):
            if getattr(self, name) < 1:
                raise ValueError(f"trainer.{name}: wanted at least 1, got {getattr(self, name)}")
        if self.workers < 0:
            raise ValueError(f"trainer.workers: wanted at least 0, got {self.workers}")
        if self.devices * self.num_nodes % self.tensor_parallel:
            raise ValueError(
                f"trainer.tensor_parallel: wanted a divisor of {self.devices * self.num_nodes} "
                f"processes, got {self.tensor_parallel}"
            )
        if self.tensor_parallel > 1 and self.strategy != "fsdp2":
            raise ValueError(
                f"trainer.tensor_parallel: wanted strategy fsdp2 with it, got {self.strategy!r}"
            )
        if self.spike_factor is not None and not 1 < self.spike_factor < math.inf:
            raise ValueError(
                f"trainer.spike_factor: wanted a number above 1, got {self.spike_factor}"
            )

    @property
    def processes(self) -> int:
        """All processes."""
        return self.devices * self.num_nodes

    @property
    def ranks(self) -> int:
        """Processes that have batches of their own."""
        return self.processes // self.tensor_parallel
