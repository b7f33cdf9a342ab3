"""Edits by a tuned run: what was asked for has changed, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cm3leon.evaluation.measures.clip_scores import clip_directions, clip_similarities
from cm3leon.evaluation.tasks.following import Asked, asked_of, drawn_for, said_data
from cm3leon.evaluation.tasks.interface import Examined, Outputs, Scores
from cm3leon.evaluation.tasks.likeness import BATCH

HOW = {
    "clip_direction": "Mean cosine of the change in the run's CLIP vectors of pictures and of "
    "captions (arXiv 2108.00946), of records that have captions before and after.",
    "clip_kept": "Mean cosine of the run's CLIP vectors of source and edited picture: 1 where "
    "nothing changed.",
    "changed": "Mean absolute difference from the source, 0..1, over all pixels.",
    "changed_true": "The same of the true edited pictures, through the image tokenizer.",
    "error": "Mean absolute difference from the true edited picture, 0..1.",
    "drift": "Mean absolute difference from the source, 0..1, of pixels that the true edited "
    "picture leaves as they are: within 0.1 of the source.",
}
SAME = 0.1
"""Difference up to which a pixel of the true picture counts as not asked to change."""


@dataclass(frozen=True, kw_only=True)
class Edits:
    """Edits the pictures of a set of instructions."""

    number: int = 200
    """Most edits of a set."""
    edit_text: float | None = None
    """Guidance by the instruction; null: as the run was tuned to."""
    edit_image: float | None = None
    """Guidance by the source picture."""

    def records(self, examined: Examined) -> list[Asked]:
        """Return the edits."""
        examined.judge("edits")
        return asked_of(examined, "edits", ("edit",), self.number)

    def data(self, examined: Examined, records: Sequence[Asked]) -> str:
        """Return keys and instructions."""
        return said_data(records)

    def make(self, examined: Examined, records: Sequence[Asked], first: int) -> Outputs:
        """Edit."""
        scales = {"guidance_scale": self.edit_text, "image_guidance_scale": self.edit_image}
        return {"edited": drawn_for(examined, records, first, **scales)}

    def score(
        self, examined: Examined, records: Sequence[Asked], outputs: dict[str, Any]
    ) -> Scores:
        """Compare with sources and true pictures."""
        encoder = examined.judge("edits")
        parts = []
        for start in range(0, len(records), BATCH):
            edited = outputs["edited"][start : start + BATCH]
            parts.append(self._compared(examined, records[start : start + BATCH], edited))
        values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        before, after = values.pop("before"), values.pop("after")
        values["clip_kept"] = clip_similarities(before, after)
        texts = [captions_of(one) for one in records]
        if any(texts):
            having = [place for place, one in enumerate(texts) if one]
            some = [one for one in texts if one]
            direction = np.full(len(records), np.nan)
            direction[having] = clip_directions(
                before[having],
                after[having],
                *(encoder.encode_texts(list(side)) for side in zip(*some, strict=True)),
            )
            values["clip_direction"] = direction
        sources, true = _given(examined, records[:8])
        rows = [
            (one.record.texts["instruction"], list(pictures))
            for one, *pictures in zip(
                records[:8], sources, outputs["edited"][:8], true, strict=True
            )
        ]
        return Scores(
            figures={name: float(np.nanmean(found)) for name, found in values.items()},
            how=HOW,
            values=values,
            tools={"clip": encoder.encoder_id},
            sheet=(rows, ["source", "edited", "true"]),
        )

    def _compared(
        self, examined: Examined, records: Sequence[Asked], edited: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return figures and CLIP vectors of some edits (n, H, W, 3)."""
        sources, true = _given(examined, records)
        changed, asked = _apart(edited, sources), _apart(true, sources)
        encoder = examined.judge("edits")
        drift = [
            float(one[same].mean()) if same.any() else np.nan
            for one, same in zip(changed, asked <= SAME, strict=True)
        ]
        return {
            "before": encoder.encode_images(list(sources)),
            "after": encoder.encode_images(list(edited)),
            "changed": changed.mean((1, 2)),
            "changed_true": asked.mean((1, 2)),
            "error": _apart(edited, true).mean((1, 2)),
            "drift": np.array(drift),
        }


def captions_of(asked: Asked) -> tuple[str, str] | None:
    """Return the captions before and after an edit, None where they are not known."""
    facts = asked.record.facts
    if "input" in facts and "output" in facts:
        return facts["input"], facts["output"]
    if "before" in facts and "thing" in facts:
        before = {**facts, **facts["before"]}
        return _said(before), _said(facts)
    return None


def _said(facts: Mapping[str, Any]) -> str:
    return f"{facts['colour']} {facts['thing']} on {facts['background']}"


def _given(examined: Examined, records: Sequence[Asked]) -> tuple[np.ndarray, np.ndarray]:
    """Return source and true pictures (n, H, W, 3) of records, through the tokenizer."""
    decode = examined.parts.tokenizers.decode
    return (
        decode(np.stack([one.record.codes["source"] for one in records])),
        decode(np.stack([one.record.codes["image"] for one in records])),
    )


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the mean difference (N, H, W) of pictures (N, H, W, 3), 0..1."""
    return np.abs(one.astype(np.float32) - other.astype(np.float32)).mean(-1) / 255
