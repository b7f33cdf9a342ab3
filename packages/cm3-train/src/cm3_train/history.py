"""The figures that a run logged, read back from its CSV files."""

from __future__ import annotations

import csv
from pathlib import Path


def read_history(run_dir: str | Path) -> dict[int, dict[str, float]]:
    """Return the logged figures of a run by step, over all its resumptions; the latest count.

    Steps count from 0: the row of step 9 was logged in the tenth batch. A last row that a kill cut
    short is left out.

    Raises:
        ValueError: A whole row has no step, or a figure that is no number; names file and line.
    """
    history: dict[int, dict[str, float]] = {}
    folders = sorted(Path(run_dir).glob("csv/version_*"), key=lambda p: int(p.name.split("_")[1]))
    for folder in folders:
        path = folder / "metrics.csv"
        if not path.exists():
            continue
        with open(path, newline="") as file:
            lines = [line for line in file if line.endswith("\n")]
        rows = csv.DictReader(lines)
        for row in rows:
            try:
                step = int(row["step"])
                figures = {k: float(v) for k, v in row.items() if k not in ("step", "epoch") and v}
            except (KeyError, TypeError, ValueError):
                raise ValueError(
                    f"{path}:{rows.line_num}: wanted a step and figures, got {row}"
                ) from None
            history.setdefault(step, {}).update(figures)
    return dict(sorted(history.items()))
