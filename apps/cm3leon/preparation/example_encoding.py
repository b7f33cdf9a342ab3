"""A range of a task's examples to token shards, one file for each split, and a sealed folder."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cm3_imagetok import load_image
from cm3_retrieval.sealed_folder import MANIFEST_NAME, write_folder
from cm3_retrieval.text_file import texts_of
from cm3_texttok import InstructionLayout
from cm3_train.shard_files import write_shard
from cm3leon.data.pairs import key_of
from cm3leon.data.raw_files import Unusable
from cm3leon.instructions.example import Example, Found, Picture, Unneeded
from cm3leon.instructions.features import Extractor, open_feature
from cm3leon.instructions.locations import SIDE, place_of, said_boxes
from cm3leon.instructions.sets import codes_per_row, row_of
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.preparation.decisions import encoded
from cm3leon.preparation.encoding import COMPONENT
from cm3leon.preparation.examples import ExampleRanges, chunks
from cm3leon.preparation.finishing import binned
from cm3leon.preparation.job import TaskJob
from cm3leon.preparation.source import Shard
from cm3leon.preparation.squares import fitted, moved
from cm3leon.preparation.worker import open_tokenizers, settle_torch

Place = tuple[int, int, int, int]
"""(x0, y0, x1, y1), 0 to 255."""
BATCH = 64
"""Examples whose pictures are in memory as pixels."""
MOST_REASONS = 100
"""Of each range, that the report counts by name."""


class TaskWorker:
    """One process's tokenizers and its work on ranges, of which each leaves a sealed folder."""

    def __init__(self, job: TaskJob) -> None:
        self.job = job

    @cached_property
    def encoder(self) -> ExampleEncoder:
        """What does the work; the tokenizers are opened once."""
        settle_torch()
        ranges = ExampleRanges(self.job.options.source, self.job.work)
        return ExampleEncoder(
            self.job, ranges, open_tokenizers(self.job.recipe, trust=self.job.trust)
        )

    def run(self, task: str, number: int, shard: Shard) -> None:
        """Encode a range; there is no other task."""
        self.encoder.encode(number, shard, encoded(self.job.work, number))


@dataclass(frozen=True)
class Fitted:
    """An example whose pictures were read."""

    example: Example
    texts: Mapping[str, str]
    pixels: Mapping[str, np.ndarray]
    """(size, size, 3) uint8 of each of the task's pictures; one object where the file is one."""


@dataclass
class Tally:
    """What the report tells of a range."""

    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    text_ids: list[int] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "counts": dict(self.counts),
            "reasons": dict(self.reasons.most_common(MOST_REASONS)),
            "skipped": dict(self.skipped.most_common(MOST_REASONS)),
            "licences": dict(self.licences.most_common(1000)),
            "left_out_by_licence": dict(self.left_out.most_common(1000)),
            "text_ids": binned(np.array(self.text_ids), (0, *(4 << n for n in range(11)))),
        }


class ExampleEncoder:
    """What makes token shards of a range.

    Args:
        job: What to do.
        ranges: The examples.
        tokenizers: Of words and pictures.
    """

    def __init__(self, job: TaskJob, ranges: ExampleRanges, tokenizers: Tokenizers) -> None:
        self.job, self.ranges, self.tokenizers = job, ranges, tokenizers
        self.task = job.options.task
        self.layout = InstructionLayout(tokenizers.text, tokenizers.vocabulary)
        self._square = lru_cache(maxsize=BATCH)(self._read)  # captions of a picture stand together
        self._feature = lru_cache(maxsize=BATCH)(self._extract)

    @cached_property
    def extractor(self) -> Extractor:
        """What makes the field `feature` of examples that bring none.

        Raises:
            RuntimeError: There is none of the task's name, or its weights are missing.
        """
        try:
            weights, device = self.job.options.feature_weights, str(self.tokenizers.device)
            return open_feature(self.task.name, weights, device)
        except ValueError as error:  # every example would say it again
            raise RuntimeError(str(error)) from None

    def encode(self, number: int, shard: Shard, folder: Path) -> None:
        """Write the token shards of a range into the set, then the range's sealed folder.

        Args:
            number: Of the range; its files have it in their names.
            shard: The range.
            folder: Takes `quarantine.jsonl`; facts are the files written and what was counted.
        """
        began = time.perf_counter()
        tally, bad = Tally(), list[Unusable]()
        rows: dict[str, list[dict[str, Any]]] = {}
        for batch in chunks(self.ranges.read(shard), BATCH):
            examples = [one for found in batch if (one := self._fit(found, tally, bad))]
            for split, row in self._rows(examples, tally, bad):
                rows.setdefault(split, []).append(row)
        length = codes_per_row(self.task, self.tokenizers)
        tokens = {
            split: write_shard(own, self._split_folder(split), number, length)
            for split, own in sorted(rows.items())
        }
        tally.counts["bad"] = len(bad)
        tally.reasons.update(line.reason for line in bad)

        def quarantine(file: BinaryIO) -> None:
            file.writelines((json.dumps(vars(line)) + "\n").encode() for line in bad)

        facts = {
            "job": self.job.fingerprint, "shard": shard.name, "tokens": tokens,
            "seconds": time.perf_counter() - began, **tally.facts(),
        }  # fmt: skip
        write_folder(folder, MANIFEST_NAME, COMPONENT, {"quarantine.jsonl": quarantine}, facts)

    def _split_folder(self, split: str) -> Path:
        folder = self.job.options.folder / split
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _fit(self, found: Found, tally: Tally, bad: list[Unusable]) -> Fitted | None:
        """Return an example with its pictures, or note why not."""
        tally.counts["records"] += 1
        if isinstance(found, Unneeded):
            tally.skipped[found.reason] += 1
        elif isinstance(found, Unusable):
            bad.append(found)
        elif not self.job.options.lets_in(found.licence):
            tally.left_out[found.licence] += 1
        else:
            try:
                return self._fitted(found, tally)
            except (OSError, ValueError, EOFError) as error:
                bad.append(_unusable(found, str(error)))
        return None

    def _fitted(self, example: Example, tally: Tally) -> Fitted | None:
        for name, text in example.texts.items():
            texts_of(text, name)
        others = [example.boxes, example.facts, example.source, example.licence]
        texts_of(json.dumps(others, ensure_ascii=False), "boxes, facts, source or licence")
        squares = {
            name: self._square(example.pictures[name])
            for name in self.task.pictures
            if name in example.pictures
        }
        pixels = {name: square for name, (_, square) in squares.items()}
        if "feature" in self.task.pictures and "feature" not in pixels and "image" in pixels:
            pixels["feature"] = self._feature(example.pictures["image"])
        texts = dict(example.texts)
        if example.boxes and "boxes" in self.task.texts and "image" in squares:
            located = self._located(example, *squares["image"][0], tally)
            if not located:
                tally.skipped["no box is left in the fitted picture"] += 1
                return None
            texts["boxes"] = said_boxes(located, SIDE)
            texts.setdefault("caption", ", ".join(dict.fromkeys(label for label, _ in located)))
        self._check(example, {**texts, **pixels})
        return Fitted(example, texts, pixels)

    def _located(
        self, example: Example, width: int, height: int, tally: Tally
    ) -> list[tuple[str, Place]]:
        """Return (label, place) of the boxes that are left in the fitted picture."""
        size, located = self.job.recipe.data.size, []
        scale = (width, height) * 2 if example.boxes_are_shares else (1, 1, 1, 1)
        for label, box in example.boxes:
            pixels = [value * side for value, side in zip(box, scale, strict=True)]
            kept = moved(pixels, width, height, size, self.job.options.fit)
            if kept is not None:
                x0, y0, x1, y1 = place = place_of(kept, size)
                if x0 < x1 and y0 < y1:
                    located.append((label, place))
        tally.counts["boxes"] += len(example.boxes)
        tally.counts["boxes_kept"] += len(located)
        return located

    def _check(self, example: Example, fields: Mapping[str, Any]) -> None:
        """Refuse an example that fills no template; in the test it needs no output.

        Raises:
            ValueError: Names what is missing.
        """
        whole = self._with_outputs(example, fields)
        missing = [n for n in self.task.pictures if n not in whole]
        if missing or not self.task.fitting(whole):
            missing += [name for name in self.task.texts if not whole.get(name)]
            raise ValueError(f"{self.task.name}: wanted all fields, got no {', '.join(missing)}")

    def _with_outputs(self, example: Example, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields, and in the test a word for each text that is asked for."""
        asked = self.task.outputs if example.split == "test" else ()
        given = {name: value for name, value in fields.items() if len(value)}
        return {**{name: "x" for name in asked if name in self.task.texts}, **given}

    def _read(self, picture: Picture) -> tuple[tuple[int, int], np.ndarray]:
        """Return a picture's width and height, and its fitted pixels."""
        image = load_image(picture())
        square = fitted(image, self.job.recipe.data.size, self.job.options.fit)
        return image.size, np.asarray(square)

    def _extract(self, picture: Picture) -> np.ndarray:
        _, pixels = self._square(picture)
        feature = self.extractor(pixels)
        if feature.shape != pixels.shape or feature.dtype != np.uint8:
            raise ValueError(
                f"feature: wanted uint8 {pixels.shape}, got {feature.dtype} {feature.shape}"
            )
        return feature

    def _rows(
        self, batch: Sequence[Fitted], tally: Tally, bad: list[Unusable]
    ) -> list[tuple[str, dict[str, Any]]]:
        """Return (split, row) of the examples that fit into a sequence."""
        pixels = {id(square): square for one in batch for square in one.pixels.values()}
        if not pixels:
            return []
        codes = self.tokenizers.encode(np.stack(list(pixels.values())))
        code_of = dict(zip(pixels, codes, strict=True))
        most, rows = self.job.recipe.decoder.max_length, []
        for one in batch:
            example = one.example
            own = {name: code_of[id(square)] for name, square in one.pixels.items()}
            try:
                text_ids, longest = self._lengths(example, {**one.texts, **own})
            except ValueError as error:  # the tokenizer takes a text for more than a text
                bad.append(_unusable(example, str(error)))
                continue
            if longest > most:
                reason = f"wanted a sequence of at most {most} ids, got more"
                bad.append(_unusable(example, reason))
                tally.counts["too_long"] += 1
                continue
            tally.text_ids.append(text_ids)
            tally.licences[example.licence] += 1
            row = row_of(
                key_of(example.name), self.task, one.texts, own, facts=example.facts,
                source=example.source, licence=example.licence,
            )  # fmt: skip
            rows.append((example.split, row))
        return rows

    def _lengths(self, example: Example, fields: Mapping[str, Any]) -> tuple[int, int]:
        """Return the ids beside the pictures, and those of the longest training sequence."""
        fields = self._with_outputs(example, fields)
        all_ids, longest = 0, 0
        for template in self.task.fitting(fields):
            one = self.layout.whole(template, fields, self.task.outputs)
            all_ids = max(all_ids, len(one.ids))
            cut = 0 if one.output_is_last else 2  # a mask, and <infill>
            longest = max(longest, len(one.ids) + cut)
        return all_ids - sum(len(fields[name]) for name in self.task.pictures), longest


def _unusable(example: Example, reason: str) -> Unusable:
    return Unusable(file=example.source, key=example.name, reason=reason)
