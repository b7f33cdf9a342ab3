"""Drawing by captions: like real pictures as a set, like the caption, and with the right things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cm3_decoding import SamplingConfig
from cm3_decoding.config import Sampler
from cm3leon.drawing.draw import draw
from cm3leon.evaluation.objects.check import ASPECTS, Detector, check
from cm3leon.evaluation.objects.prompts import Prompt, prompt_of_facts, read_prompts
from cm3leon.evaluation.subject import Subject
from cm3leon.evaluation.tasks.captioned import Captioned, RealPictures, captioned, said_data
from cm3leon.evaluation.tasks.interface import Examined, Missing, Outputs, Scores
from cm3leon.evaluation.tasks.likeness import BATCH, Pictures, likeness

HOW = {
    "clip_score": "Mean of 100 times the cosine of the run's CLIP vectors of picture and caption, "
    "0 at least. The same CLIP has chosen among candidates.",
    "objects.correct": "Share of pictures with everything that the prompt asks for (GenEval's "
    "rule, arXiv 2310.11513, with the detector that `tools` names).",
    **{f"objects.{name}": f"The same, the {name} alone, of prompts that ask for it."
       for name in ASPECTS},
}  # fmt: skip
OF_KIND = "objects.correct."
CHANGED = ("guidance_scale", "image_guidance_scale", "temperature", "top_p", "cd_k", "cd_alpha")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A prompt."""

    text: str
    picture: Captioned | None
    """Whose caption it is; None of a prompt of a file."""
    shows: Prompt | None
    """What is to be seen, where that is known."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Draws for captions of held-out pairs, or for prompts of a file of GenEval's form."""

    split: str = "test"
    """Whose captions."""
    number: int = 200
    """Most captions."""
    folder: Path | None = None
    """Pictures with a `metadata.jsonl` in place of the run's own: all of it, whatever the split."""
    kinds: tuple[str, ...] = ()
    """Of embedded compositions: only captions of these kinds, such as `two`; none: all."""
    prompts: Path | None = None
    """GenEval's `evaluation_metadata.jsonl`, or a file like it, in place of captions."""
    detector: Path | None = None
    """Folder of a detection model as transformers saves it, for the things of `prompts`."""
    candidates: int = 1
    """Drawn for each caption; the best by CLIP counts."""
    retrieve: int | None = None
    """Documents before a caption; null: as the run does."""
    samplers: tuple[Sampler, ...] = ()
    """Candidates take these in turn; none: the run's own."""
    guidance_scale: float | None = None
    """These and the next: as of `cm3_decoding.SamplingConfig`; null: the run's own."""
    image_guidance_scale: float | None = None
    temperature: float | None = None
    top_p: float | None = None
    cd_k: int | None = None
    cd_alpha: float | None = None
    inception: Path | None = None
    """torch-fidelity's weights of Inception-v3, for FID; null: features of the run's CLIP."""

    def __post_init__(self) -> None:
        """Refuse what draws nothing."""
        if self.number < 1 or self.candidates < 1:
            raise ValueError(
                f"number, candidates: wanted at least 1, got {self.number} and {self.candidates}"
            )

    def records(self, examined: Examined) -> list[Asked]:
        """Return the prompts."""
        examined.judge("drawing")
        if self.prompts is not None:
            found = read_prompts(self.prompts)
            return [Asked(text=one.text, picture=None, shows=one) for one in found[: self.number]]
        found = captioned(examined, "drawing", self.split, self.number, self.folder, self.kinds)
        return [
            Asked(
                text=one.text,
                picture=one,
                shows=prompt_of_facts(one.text, one.facts) if one.facts else None,
            )
            for one in found
        ]

    def data(self, examined: Examined, records: Sequence[Asked]) -> str:
        """Return the prompts, what they ask for, and their pictures."""
        pictures = [one.picture for one in records if one.picture]
        return repr([(one.text, one.shows) for one in records]) + said_data(pictures)

    def make(self, examined: Examined, records: Sequence[Asked], first: int) -> Outputs:
        """Draw, and keep the best candidate of each."""
        contexts = None
        rows = [one.picture.row if one.picture else None for one in records]
        if examined.pairs is not None and None not in rows:
            contexts = [self._context(examined.pairs, row) for row in rows if row is not None]
        drawn = draw(
            examined.parts,
            [one.text for one in records],
            contexts=contexts,
            retrieved=self.retrieve,
            samplers=self._samplers(examined),
            seeds=examined.seed
            + (first + np.arange(len(records)))[:, None] * self.candidates
            + np.arange(self.candidates),
            batch_size=examined.batch_size,
        )
        return {
            "drawn": drawn.best[0],
            "clip_score": 100 * np.maximum(drawn.scores.max(1), 0).astype(np.float64),
        }

    def _context(self, subject: Subject, row: int) -> list[int]:
        if self.retrieve is None:
            return subject.context(row)
        key = int(subject.pictures.pairs.keys[row])
        return subject.neighbours.for_caption(key, self.retrieve)

    def _samplers(self, examined: Examined) -> list[SamplingConfig]:
        changes = {name: getattr(self, name) for name in CHANGED if getattr(self, name) is not None}
        found = [replace(one, **changes) for one in examined.parts.habits.samplers]
        return [replace(found[0], sampler=name) for name in self.samplers] or found

    def score(
        self, examined: Examined, records: Sequence[Asked], outputs: dict[str, Any]
    ) -> Scores:
        """Compare the drawn pictures with the real ones and with what the prompts ask for."""
        drawn = outputs["drawn"]
        values = {"clip_score": outputs["clip_score"]}
        figures: dict[str, float] = {}
        how, tools = dict(HOW), dict[str, Any](clip=examined.parts.encoder.encoder_id)
        without: list[str] = []
        pictures = [one.picture for one in records if one.picture]
        if pictures:
            real = RealPictures(examined, pictures)
            alike = likeness(drawn, real, examined.parts.encoder, self.inception, examined.seed)
            figures, without = dict(alike.figures), alike.without
            how |= alike.how
            tools |= alike.tools
        if any(one.shows for one in records):
            try:
                detector = self._detector(examined)
            except Missing as error:
                without.append(str(error))
            else:
                tools["detector"] = detector.description
                values |= objects(detector, records, drawn)
        figures |= {name: float(np.nanmean(found)) for name, found in values.items()}
        return Scores(
            figures=figures, how=how, values=values, tools=tools, without=without,
            sheet=self._sheet(examined, records, drawn),
        )  # fmt: skip

    def _detector(self, examined: Examined) -> Detector:
        if self.prompts is None:
            return examined.measured
        if self.detector is None:
            raise Missing(
                "objects: wanted a detection model's folder, as transformers saves it, as the "
                "task's `detector`, got none"
            )
        from cm3leon.evaluation.objects.learned import open_detector

        return open_detector(self.detector, examined.parts.encoder, examined.parts.device)

    def _sheet(self, examined: Examined, records: Sequence[Asked], drawn: Pictures) -> Any:
        rows: list[Any] = []
        for place, one in enumerate(records[:8]):
            cells = [drawn[place]]
            if one.picture is not None:
                cells.append(RealPictures(examined, [one.picture])[:][0])
            rows.append((one.text, cells))
        return rows, ["drawn", "real"][: len(rows[0][1])]


def objects(detector: Detector, records: Sequence[Asked], drawn: Pictures) -> dict[str, np.ndarray]:
    """Return which aspects of each record are right, (N,) by figure; NaN where not asked for."""
    found = {
        name: np.full(len(records), np.nan)
        for name in ("objects.correct", *(f"objects.{aspect}" for aspect in ASPECTS))
    }
    for start in range(0, len(records), BATCH):
        part = range(start, min(len(records), start + BATCH))
        for place, seen in zip(part, detector(np.asarray(drawn[start : part.stop])), strict=True):
            asked = records[place].shows
            if asked is not None:
                for name, right in check(asked, seen).items():
                    found[f"objects.{name}"][place] = right
    tags = [one.shows.tag if one.shows else None for one in records]
    for tag in sorted({tag for tag in tags if tag}):
        mine = np.array([one == tag for one in tags])
        found[OF_KIND + tag] = np.where(mine, found["objects.correct"], np.nan)
    return {name: values for name, values in found.items() if not np.isnan(values).all()}
