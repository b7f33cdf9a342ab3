"""Pictures that the study draws, and what is measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cm3_decoding import SamplingConfig
from cm3_train import progress_bar
from cm3leon.drawing.draw import Drawings, draw
from cm3leon.evaluation.combinations import match
from cm3leon.evaluation.measures.features import ClipFeatures
from cm3leon.evaluation.measures.frechet import fid
from cm3leon.evaluation.subject import Subject
from study.subjects import Study

BATCH = 128


def drawn(
    study: Study,
    subject: Subject,
    seed: int,
    *,
    rows: np.ndarray | None = None,
    documents: int | None = None,
    candidates: int = 1,
    samplers: Sequence[SamplingConfig] | None = None,
    what: str = "drawing",
    **changes: float | None,
) -> Drawings:
    """Draw for held-out captions.

    Args:
        study: Its rows are drawn for where none are given.
        subject: A decoder.
        seed: Of the study; other seeds draw other pictures.
        rows: Pairs.
        documents: Before each caption; None: as the run does.
        candidates: For each caption.
        samplers: Candidates take these in turn; None: the run's own, changed by `changes`.
        what: Stands before the progress.
        changes: Fields of `SamplingConfig`.
    """
    rows = study.rows if rows is None else rows
    pairs = subject.pictures.pairs
    count = subject.recipe.retrieve if documents is None else documents
    contexts = [
        subject.neighbours.for_caption(int(pairs.keys[row]), count) if count else [] for row in rows
    ]
    own = [replace(one, **changes) for one in subject.parts.habits.samplers]  # pyright: ignore
    with progress_bar(what) as progress:
        return draw(
            subject.parts,
            [pairs.captions[row] for row in rows],
            contexts=contexts,
            samplers=own if samplers is None else samplers,
            seeds=1_000_000 * (seed + 1)
            + np.arange(len(rows) * candidates).reshape(len(rows), candidates),
            progress=progress,
            batch_size=BATCH,
        )


@dataclass(frozen=True)
class Reference:
    """Real pictures of the study's captions, through nothing."""

    features: np.ndarray

    @classmethod
    def of(cls, study: Study) -> Reference:
        """Return the CLIP features of the real pictures."""
        pixels = study.base.pictures.pixels(study.rows)
        return cls(ClipFeatures(study.base.parts.encoder)(pixels))

    def distance(self, vectors: np.ndarray) -> float:
        """Return the Frechet distance of CLIP vectors (N, D) of drawn pictures, times 1000."""
        return 1000 * fid(vectors.astype(np.float64), self.features).distance


def right_things(study: Study, subject: Subject, pixels: np.ndarray) -> dict[str, float]:
    """Return how pictures (N, H, W, 3) of the study's rows match their captions."""
    return match(subject, study.judge, study.rows, pixels)
