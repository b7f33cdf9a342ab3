"""Loss curves of a run's trainings."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from cm3_train import read_history

PANELS = (
    ("imagetok", {"val/psnr": "held-out"}, "PSNR, dB"),
    (
        "decoder",
        {"train/bits_per_code": "training", "val/bits_per_code": "held-out"},
        "bits per image code",
    ),
)


def write_curves(folder: Path, path: Path) -> None:
    """Draw PSNR of the image tokenizer and bits per code of the decoder over their steps.

    Args:
        folder: The run's.
        path: The PNG to write.
    """
    figure = Figure(figsize=(11, 4))
    for place, (stage, names, label) in enumerate(PANELS, start=1):
        axis = figure.add_subplot(1, len(PANELS), place)
        history = read_history(folder / stage) if (folder / stage).is_dir() else {}
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
