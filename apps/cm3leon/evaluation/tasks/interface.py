"""What a task of an evaluation is.

records --make, a chunk at a time--> outputs on disk --score--> figures, values by record, a sheet

Only `make` asks the model, and it depends on the subject, the records and their places alone: a
chunk that was made is kept, so that an evaluation goes on where it was killed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cm3_retrieval.interface import Encoder
from cm3leon.evaluation.objects.check import Detector
from cm3leon.evaluation.subject import Subject
from cm3leon.instructions.sets import InstructionSet
from cm3leon.parts import Parts
from cm3leon.sheets import Rows
from cm3leon.tuned import Tuned

Outputs = dict[str, np.ndarray]
"""Arrays of N rows by name; texts are of dtype object."""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """The model that is evaluated, and what there is to ask it."""

    run: Path
    parts: Parts
    tuned: Tuned | None
    """What instructions it follows; None of a run that was not tuned."""
    pairs: Subject | None
    """Captioned pictures; None where the run has none."""
    sets: Sequence[InstructionSet]
    """Sets of instructions."""
    seed: int
    batch_size: int
    folder: Path
    """Of the evaluation."""
    made_by: str
    """Fingerprint of the run."""

    def captioned(self, task: str) -> Subject:
        """Return the captioned pictures.

        Raises:
            Missing: There are none.
        """
        if self.pairs is None:
            raise Missing(f"{task}: wanted captioned pictures, got a run that has none")
        return self.pairs

    def judge(self, task: str) -> Encoder:
        """Return the CLIP by which figures are computed.

        Raises:
            Missing: There is none.
        """
        if self.parts.retrieval is None:
            raise Missing(f"{task}: wanted a run with a CLIP, got one of published weights")
        return self.parts.encoder

    @property
    def encoder(self) -> Encoder | None:
        """The CLIP, None of published weights."""
        return None if self.parts.retrieval is None else self.parts.encoder

    @cached_property
    def measured(self) -> Detector:
        """The detector of embedded compositions, trained when it is first asked for, and kept.

        Raises:
            Missing: There are no captioned pictures.
        """
        from cm3leon.evaluation.objects.measured import kept_detector, train_detector

        pictures = self.captioned("objects").pictures
        return kept_detector(
            self.folder / "detector.safetensors",
            f"{self.made_by} {self.seed}",
            lambda: train_detector(pictures, self.parts.tokenizers, self.seed),
        )

    def following(self, task: str) -> Tuned:
        """Return what the model was tuned on.

        Raises:
            Missing: It was not tuned.
        """
        if self.tuned is None:
            raise Missing(f"{task}: wanted a run that apps/sft.py has tuned, got {self.run}")
        return self.tuned

    def sets_of(self, task: str, *names: str) -> list[InstructionSet]:
        """Return the sets of some tasks of instructions.

        Raises:
            Missing: There is none.
        """
        found = [one for one in self.sets if one.task.name in names]
        if not found:
            raise Missing(
                f"{task}: wanted a set of instructions of {' or '.join(names)} in `sets`, "
                f"got {sorted({one.task.name for one in self.sets}) or 'none'}"
            )
        return found


class Missing(ValueError):
    """What a task needs is not at hand; the other tasks go on."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What came out of a task."""

    figures: Mapping[str, float]
    how: Mapping[str, str]
    """What each figure is, by its name."""
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    """(N,) of each record, of those figures that are means over records; NaN where not asked."""
    tools: Mapping[str, Any] = field(default_factory=dict)
    """Tool, version and weights behind figures: two results of different ones are not compared."""
    without: Sequence[str] = ()
    """Figures that could not be computed: a line each, saying which file is wanted and where."""
    sheet: tuple[Rows, Sequence[str]] | None = None
    """Rows of pictures to look at, and titles over them."""


class EvaluationTask(Protocol):
    """One thing to ask a model for.

    A task is its settings. Its settings and the name of its class are part of the fingerprint of
    what it makes.
    """

    def records(self, examined: Examined) -> Sequence[Any]:
        """Return what is asked for, in a fixed order.

        Raises:
            Missing: The run has nothing to ask for, or cannot answer.
        """
        ...

    def data(self, examined: Examined, records: Sequence[Any]) -> str:
        """Return a text that tells these data from others: it is hashed."""
        ...

    def make(self, examined: Examined, records: Sequence[Any], first: int) -> Outputs:
        """Let the model make outputs of some records; `first` is the place of the first of them."""
        ...

    def score(self, examined: Examined, records: Sequence[Any], outputs: Outputs) -> Scores:
        """Score the outputs of all records."""
        ...
