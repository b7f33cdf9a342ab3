"""Progress bars with time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def bar(description: str, unit: str = "picture") -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar; gives a callable of (done, total)."""
    interval = 0.1 if sys.stderr.isatty() else 30  # a log file needs few lines
    with tqdm(
        desc=description, unit=unit, leave=False, dynamic_ncols=True, mininterval=interval
    ) as line:

        def progress(done: int, total: int) -> None:
            line.total = total
            line.update(done - line.n)

        yield progress
