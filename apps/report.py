"""A run's report: ``report.json``, pictures of samples, loss curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from pipeline import Run

from cm3_train import read_history

matplotlib.use("Agg")


def sheet(
    path: Path,
    rows: Sequence[tuple[str, Sequence[np.ndarray | None]]],
    titles: Sequence[Sequence[str]],
) -> None:
    """Save rows of pictures with a caption on the left.

    Args:
        path: The PNG to write.
        rows: Caption and pictures (H, W, 3) uint8; None leaves a gap.
        titles: Over the pictures: one line for the first row, or one for every row.
    """
    columns = len(titles[0])
    figure, axes = plt.subplots(
        len(rows),
        columns + 1,
        figsize=(1.25 * columns + 3, 1.3 * len(rows) + 0.4),
        squeeze=False,
        width_ratios=[2.2, *[1] * columns],
    )
    for (caption, pictures), line in zip(rows, axes, strict=True):
        line[0].text(1, 0.5, _wrapped(caption, 30), ha="right", va="center", fontsize=9)
        for axis, picture in zip(line[1:], pictures, strict=True):
            if picture is not None:
                axis.imshow(picture, interpolation="nearest")
        for axis in line:
            axis.axis("off")
    for line, names in zip(axes, titles, strict=False):
        for axis, title in zip(line[1:], names, strict=True):
            axis.set_title(title, fontsize=9)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def sample_sheet(run: Run, rows: np.ndarray, drawn: np.ndarray, path: Path, retrieved: int) -> None:
    """Caption, retrieved pictures, the real picture, and drawn ones, for the first prompts.

    ``rows`` may name a pair more than once; its drawings stand side by side.
    """
    lines, drawings = [], min(2, int(np.unique(rows, return_counts=True)[1].max()))
    for row in list(dict.fromkeys(rows.tolist()))[: run.recipe.evaluation.pictures]:
        keys = run.true_documents(int(run.pairs.keys[row]))[:retrieved]
        context: list[np.ndarray | None] = [_pixels_of_key(run, key) for key in keys]
        context += [None] * (retrieved - len(keys))
        mine: list[np.ndarray | None] = list(drawn[rows == row][:drawings])
        mine += [None] * (drawings - len(mine))
        real = run.pixels_of(np.array([row]))[0]
        lines.append((run.pairs.captions[row], [*context, *mine, real]))
    shown = [f"drawn {i + 1}" for i in range(drawings)]
    sheet(path, lines, [[*["retrieved"] * retrieved, *shown, "real"]])


def loss_curves(run: Run, path: Path) -> None:
    """PSNR of the image tokenizer and bits per code of the decoder over their steps."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    for axis, stage, names, label in (
        (axes[0], "imagetok", {"val/psnr": "held-out"}, "PSNR, dB"),
        (
            axes[1],
            "decoder",
            {"train/bits_per_code": "training", "val/bits_per_code": "held-out"},
            "bits per image code",
        ),
    ):
        folder = run.recipe.folder / stage
        history = read_history(folder) if folder.is_dir() else {}
        for name, legend in names.items():
            points = [(step, row[name]) for step, row in history.items() if name in row]
            if points:
                axis.plot(*zip(*points, strict=True), label=legend)
        axis.set(title=stage, xlabel="step", ylabel=label)
        if axis.lines:
            axis.legend()
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def table(report: dict[str, Any]) -> str:
    """The report's numbers, one a line."""
    lines = []
    for part, figures in report.items():
        if isinstance(figures, dict) and part != "how":
            lines += [f"  {part}.{name}: {_short(value)}" for name, value in figures.items()]
    return "\n".join(lines)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _pixels_of_key(run: Run, key: int) -> np.ndarray:
    row = int(np.flatnonzero(run.pairs.keys == key)[0])
    return run.pixels_of(np.array([row]))[0]


def _wrapped(text: str, width: int) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) >= width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line][:4])
