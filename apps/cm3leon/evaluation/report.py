"""The report of a run: `report.json`, sheets of drawn pictures, loss curves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cm3_train.artifact import write_json
from cm3leon.evaluation import bits, samples, tokenizer
from cm3leon.evaluation.curves import write_curves
from cm3leon.evaluation.samples import Drawn
from cm3leon.evaluation.subject import Subject
from cm3leon.sheets import write_sheet
from cm3leon.stages import Stage

HOW = tokenizer.HOW | bits.HOW | samples.HOW
PICTURES = ("samples.png", "samples_train.png", "curves.png")


def write_report(
    subject: Subject, run: Path, folder: Path, credit: str, say: Callable[[str], None]
) -> None:
    """Compute every figure and draw every picture of the report.

    Args:
        subject: The run that is judged.
        run: Its folder, with the logs of its trainings.
        folder: Takes `figures.json` and the pictures.
        credit: Where the pictures come from.
        say: Takes one line for the user.
    """
    say("evaluate: image tokenizer")
    figures: dict[str, Any] = {
        "imagetok": tokenizer.image_tokenizer_figures(
            subject.parts.tokenizers, subject.pictures, subject.recipe.inception
        )
    }
    say("evaluate: bits per code")
    figures["decoder"] = bits.decoder_figures(subject)
    say("evaluate: samples")
    scale, figures["sweep"] = samples.guidance_sweep(subject)
    figures["samples"], test, train = samples.sample_figures(subject, scale)
    pairs = subject.pictures.pairs
    figures["split"] = {
        f"{name}_pictures": len(pairs.rows(name))
        for name in ("train", "validation", "test", "variants")
    } | {"skipped_pictures": len(subject.pictures.skipped)}
    figures["how"] = how(figures)
    figures["credit"] = credit
    write_json(folder / "figures.json", figures)
    sample_sheet(subject, test, folder / "samples.png")
    sample_sheet(subject, train, folder / "samples_train.png")
    write_curves(run, folder / "curves.png")


def how(figures: dict[str, Any]) -> dict[str, str]:
    """Return how each figure that there is is computed; not every run has every figure."""

    def has(part: str, figure: str) -> bool:
        return part in figures and (not figure or figure in figures[part])

    return {name: text for name, text in HOW.items() if has(*name.partition(".")[::2])}


def sample_sheet(subject: Subject, drawn: Drawn, path: Path) -> None:
    """Write caption, retrieved pictures, drawn ones and the real one of the first prompts.

    A pair that was drawn for more than once has its drawings side by side.
    """
    pictures, retrieved = subject.pictures, subject.recipe.retrieve
    row_of = {int(key): row for row, key in enumerate(pictures.pairs.keys)}
    width = min(2, int(np.unique(drawn.rows, return_counts=True)[1].max()))
    lines = []
    for row in list(dict.fromkeys(drawn.rows.tolist()))[: subject.recipe.pictures]:
        context = pictures.pixels(np.array([row_of[k] for k in subject.context(row)], np.int64))
        mine = drawn.pixels[drawn.rows == row][:width]
        real = pictures.pixels(np.array([row]))
        cells = [*padded(context, retrieved), *padded(mine, width), *real]
        lines.append((pictures.pairs.captions[row], cells))
    shown = [f"drawn {i + 1}" for i in range(width)]
    write_sheet(path, lines, [[*["retrieved"] * retrieved, *shown, "real"]])


def padded(pictures: np.ndarray, count: int) -> list[np.ndarray | None]:
    """Return `count` pictures, with None where there are fewer."""
    return [*pictures, *[None] * (count - len(pictures))]


def finish(
    folder: Path, stages: dict[str, Stage], wall_seconds: float, machine: dict[str, Any]
) -> dict[str, Any]:
    """Put the report where people look, and return it.

    Args:
        folder: The run's.
        stages: All stages by name, the report among them.
        wall_seconds: What this start of the program took; kept stages are added.
        machine: Facts that the figures depend on.
    """
    made = stages["report"].folder
    kept = sum(stage.seconds for stage in stages.values() if stage.kept)
    report = {
        "wall_seconds": wall_seconds + kept,
        "stages": {name: stage.seconds for name, stage in stages.items()},
        "resumed_stages": [name for name, stage in stages.items() if stage.resumed],
        **json.loads((made / "figures.json").read_text("utf-8")),
        "machine": {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "threads": torch.get_num_threads(),
            **machine,
        },
    }
    write_json(folder / "report.json", report)
    for name in PICTURES:
        shutil.copyfile(made / name, folder / name)
    return report


def table(report: dict[str, Any]) -> str:
    """Return the report's numbers, one a line."""
    return "\n".join(
        f"  {part}.{name}: {value:.4g}" if isinstance(value, float) else f"  {part}.{name}: {value}"
        for part, figures in report.items()
        if isinstance(figures, dict) and part != "how"
        for name, value in figures.items()
    )
