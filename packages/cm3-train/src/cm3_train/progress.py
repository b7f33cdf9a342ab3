"""A progress bar with time left, for work in a loop and for Lightning's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tqdm import tqdm

Progress = Callable[..., None]
"""Called with (done, total), and by a training with its figures."""


@contextmanager
def progress_bar(
    description: str, unit: str = "step", *, done: int = 0, leave: bool = False
) -> Iterator[Progress]:
    """Show one line: what runs, how far, time left; gives a callable of (done, total).

    The callable takes `figures`, a mapping from names to numbers, as a third argument.

    Args:
        description: Stands at the line's start.
        unit: What is counted.
        done: Where the count starts: time left is told from what is done here.
        leave: Whether the line stays at the end.
    """
    interval = 0.1 if sys.stderr.isatty() else 30  # a log file needs few lines
    with tqdm(
        desc=description,
        unit=unit,
        initial=done,
        leave=leave,
        dynamic_ncols=True,
        mininterval=interval,
    ) as line:

        def progress(done: int, total: int, figures: Mapping[str, float] | None = None) -> None:
            line.total = total
            if figures:
                shown = {name: f"{value:.3g}" for name, value in figures.items()}
                line.set_postfix(shown, refresh=False)
            line.update(done - line.n)

        yield progress
