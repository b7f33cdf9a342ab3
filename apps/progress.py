"""Progress bars with time left."""

from __future__ import annotations

from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def bar(description: str, unit: str = "picture"):
    """A progress bar with time left; gives a callable of (done, total)."""
    with tqdm(desc=description, unit=unit, leave=False, dynamic_ncols=True) as line:

        def progress(done: int, total: int) -> None:
            line.total = total
            line.update(done - line.n)

        yield progress
