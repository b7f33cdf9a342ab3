"""The recipe of an evaluation: which run, which tasks, over which data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class EvaluateRecipe:
    """One evaluation of one run."""

    run: Path = Path("runs/tiny")
    """A finished run: pretrained, tuned, or made of published weights."""
    out: Path | None = None
    """Takes outputs and results; null: `evaluation` in the run's folder."""
    seed: int = 0
    """Of everything that is drawn."""
    device: str = "auto"
    """As of a pretraining's recipe."""
    batch_size: int = 64
    """Records asked for at once, and kept at once when the evaluation is killed."""
    sets: tuple[Path, ...] = ()
    """Sets of instructions, as `apps/prepare.py --task` makes them; none: a tuned run's own."""
    set_split: str = "test"
    """The part of the sets that is asked for."""
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of each task by a name of yours; `kind` says which task it is, where the name does
    not: one of `cm3leon.evaluation.tasks.KINDS`, or a class of yours."""

    def __post_init__(self) -> None:
        """Refuse an evaluation of nothing."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size: wanted at least 1, got {self.batch_size}")
        if not self.tasks:
            raise ValueError("tasks: wanted at least one, got none")

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.run / "evaluation" if self.out is None else self.out
