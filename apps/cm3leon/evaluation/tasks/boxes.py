"""Things at boxes by a tuned run: what a detector finds there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cm3leon.data.palette import PAINTS
from cm3leon.evaluation.instructions.shapes import box_iou
from cm3leon.evaluation.objects.check import Detector
from cm3leon.evaluation.tasks.following import Asked, asked_of, drawn_for, said_data
from cm3leon.evaluation.tasks.interface import Examined, Missing, Outputs, Scores
from cm3leon.evaluation.tasks.likeness import BATCH
from cm3leon.instructions.locations import SIDE, read_boxes

HOW = {
    "iou": "Mean over the things asked for of the best intersection over union of their box with "
    "that of a thing that the detector names so; 0 where it names none. Places were said in steps "
    "of the set.",
    "found_30": "Share of the things with an IoU of 0.3 or more.",
    "found_50": "Share of the things with an IoU of 0.5 or more.",
    "placed_30": "Share with an IoU of 0.3 or more, whatever the detector names what is there.",
}


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Draws the scenes of a set of instructions with boxes."""

    number: int = 200
    """Most scenes of a set."""
    detector: Path | None = None
    """Folder of a detection model as transformers saves it; null: measured, of embedded scenes."""
    guidance_scale: float | None = None
    """Null: as the run was tuned to."""

    def records(self, examined: Examined) -> list[Asked]:
        """Return the scenes."""
        found = asked_of(examined, "boxes", ("boxes",), self.number)
        self._detector(examined, found)  # before anything is drawn
        return found

    def data(self, examined: Examined, records: Sequence[Asked]) -> str:
        """Return keys and boxes."""
        return said_data(records)

    def make(self, examined: Examined, records: Sequence[Asked], first: int) -> Outputs:
        """Draw."""
        return {"drawn": drawn_for(examined, records, first, guidance_scale=self.guidance_scale)}

    def score(
        self, examined: Examined, records: Sequence[Asked], outputs: dict[str, Any]
    ) -> Scores:
        """Detect, and compare boxes."""
        detector, drawn = self._detector(examined, records), outputs["drawn"]
        values = {name: np.full(len(records), np.nan) for name in HOW}
        for start in range(0, len(records), BATCH):
            pixels = np.asarray(drawn[start : start + BATCH])
            for place, seen in enumerate(detector(pixels), start):
                scale = pixels.shape[2] / SIDE
                asked = read_boxes(records[place].record.texts["boxes"])
                overlaps = []
                for name, box in asked:
                    wanted = tuple(scale * at for at in box)
                    names = names_of(name)
                    mine = [
                        (box_iou(thing.box, wanted), thing.name in names) for thing in seen.things
                    ]
                    overlaps.append((
                        max((iou for iou, named in mine if named), default=0.0),
                        max((iou for iou, _ in mine), default=0.0),
                    ))  # fmt: skip
                named, placed = np.array(overlaps).T
                values["iou"][place] = named.mean()
                values["found_30"][place] = (named >= 0.3).mean()
                values["found_50"][place] = (named >= 0.5).mean()
                values["placed_30"][place] = (placed >= 0.3).mean()
        real = examined.parts.tokenizers.decode(
            np.stack([one.record.codes["image"] for one in records[:8]])
        )
        rows = [
            (records[place].record.texts["boxes"], [drawn[place], picture])
            for place, picture in enumerate(real)
        ]
        return Scores(
            figures={name: float(np.nanmean(found)) for name, found in values.items()},
            how=HOW,
            values=values,
            tools={"detector": detector.description},
            sheet=(rows, ["drawn", "real"]),
        )

    def _detector(self, examined: Examined, records: Sequence[Asked]) -> Detector:
        if self.detector is not None:
            from cm3leon.evaluation.objects.learned import open_detector

            return open_detector(self.detector, None, examined.parts.device)
        if not all("things" in one.record.facts for one in records):
            raise Missing("boxes: wanted a `detector` for real pictures, got none")
        return examined.measured


def names_of(said: str) -> set[str]:
    """Return what a thing may be called: "blue fox" is a fox, "teddy bear" no bear."""
    colour, _, name = said.partition(" ")
    return {said, name} if colour in PAINTS and name else {said}
