"""The commands of `apps/generate.py` that follow instructions: say what was done, save it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cm3_imagetok import load_image, square
from cm3_train import progress_bar
from cm3leon.drawing.follow import answering_records, drawing_records
from cm3leon.drawing.prompts import retrieve_for_picture
from cm3leon.drawing.records import (
    Wanted,
    boxes_of,
    codes_of,
    edit_of,
    structure_of,
    writing_of,
)
from cm3leon.generate import save, save_best, say_context
from cm3leon.instructions.features import open_feature
from cm3leon.instructions.locations import SIDE
from cm3leon.parts import Parts
from cm3leon.tuned import ANSWERED, Tuned


def opened(parts: Parts, path: Path) -> np.ndarray:
    """Return a picture file as pixels (H, W, 3) at the run's size, its centre square."""
    return np.asarray(square(load_image(path), parts.tokenizers.size))


def follow(
    parts: Parts,
    tuned: Tuned,
    command: str,
    given: Mapping[str, Any],
    *,
    candidates: int,
    seed: int,
    changes: Mapping[str, Any],
    out: Path | None,
    best: Path | None,
) -> None:
    """Follow one instruction of the command line.

    Args:
        parts: The run's parts.
        tuned: What it was tuned on.
        command: Of `instruction_options`.
        given: The command line's options.
        candidates: Pictures to draw.
        seed: Of the first.
        changes: Fields of `SamplingConfig` that differ from the run's own; None values are skipped.
        out: File to write; None finds a name.
        best: File for the first candidate alone; None writes none.

    Raises:
        ValueError: The run was not tuned on such a task, or has not learnt a stream of guidance.
    """
    if command in ANSWERED:
        answer(parts, tuned, command, given)
        return
    asked = wanted(parts, command, given, tuned.grid)
    task = tuned.task(asked.task)
    sampling, seeds = tuned.sampling(asked.task, changes), seed + np.arange(candidates)[None]
    drawing = drawing_records(parts, task, [asked.fields], sampling=sampling, seeds=seeds)
    with progress_bar("drawing") as progress:
        codes = drawing.carry_out(parts, progress=progress)
    pixels = parts.tokenizers.decode(codes[0])
    titles = [f"seed {seed + place}" for place in range(candidates)]
    save(out, asked.title, [*asked.shown.values(), *pixels], [*asked.shown, *titles])
    save_best(best, pixels[0])


def wanted(parts: Parts, command: str, given: Mapping[str, Any], grid: int) -> Wanted:
    """Return the record that a command asks for.

    Args:
        parts: The run's parts.
        command: Of `instruction_options`.
        given: The command line's options.
        grid: What the places of boxes are rounded to multiples of.
    """
    if command == "edit":
        return edit_of(parts, opened(parts, given["edit"]), given["instruction"])
    if command == "write":
        return writing_of(given["write"])
    if command == "boxes":
        return boxes_of(parsed_boxes(given["boxes"]), given["prompt"], grid)
    feature, path = given["structure"]
    extract = None if given["feature_file"] else open_feature(feature, given["feature_weights"])
    return structure_of(parts, feature, opened(parts, Path(path)), given["prompt"], extract)


def answer(parts: Parts, tuned: Tuned, command: str, given: Mapping[str, Any]) -> None:
    """Print the answer to a question, or a long caption."""
    task = tuned.answering(command)
    path, question = given["ask"] if command == "ask" else (given["caption"], "")
    pixels = opened(parts, Path(path))
    record: dict[str, Any] = {"image": codes_of(parts, pixels)}
    if question:
        record["question"] = question
    count = tuned.documents_before(task, given["retrieve"])
    found = retrieve_for_picture(parts, pixels, count)
    say_context(parts, found[-1:])
    answering = answering_records(parts, task, [record], contexts=[found[-1:]])
    (said,) = answering.carry_out(parts)
    print("".join(c if c.isprintable() else " " for c in said))


def parsed_boxes(text: str) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Return the names and boxes of `"fox 10,10,40,40; red apple 60,60,90,90"`.

    Raises:
        ValueError: A part is not of that form, or a box is outside of 0..255 or empty.
    """
    found = []
    for part in filter(None, map(str.strip, text.split(";"))):
        match = re.fullmatch(r"(.+?)\s+(\d+),(\d+),(\d+),(\d+)", part)
        x0, y0, x1, y1 = map(int, match.groups()[1:]) if match else (0, 0, 0, 0)
        if match is None or not (x0 < x1 < SIDE and y0 < y1 < SIDE):
            raise ValueError(
                f"--boxes: wanted `name x0,y0,x1,y1; ...`, x0 < x1 and y0 < y1 in 0..{SIDE - 1}, "
                f"got {part!r}"
            )
        found.append((match[1], (x0, y0, x1, y1)))
    if not found:
        raise ValueError(f"--boxes: wanted at least one, got {text!r}")
    return found
