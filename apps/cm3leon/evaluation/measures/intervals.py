"""Bootstrap: how far a figure would move with other examples (Efron, doi:10.1214/aos/1176344552).

The intervals are percentiles, by scipy's `bootstrap`. Resamples are drawn in parts, so memory is
bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap

from cm3leon.evaluation.measures.inputs import checked_count

_CELLS = 1 << 20
"""Values drawn at once: 8 MB."""


class Interval(NamedTuple):
    """A figure, and the interval that holds `level` of the resampled ones."""

    value: float
    low: float
    high: float


def bootstrap_mean(
    values: np.ndarray, *, seed: int, resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """Return the mean of values (N,) and its interval.

    Args:
        values: One for each example.
        seed: Of the resamples.
        resamples: How many sets of N are drawn, with replacement.
        level: Share of them that the interval holds.

    Raises:
        ValueError: Fewer than 2 values, another shape, NaN or infinity, or wrong settings.
    """
    return _interval(_checked("values", values), np.mean, True, seed, resamples, level)


def bootstrap_difference(
    first: np.ndarray,
    second: np.ndarray,
    *,
    seed: int,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Interval:
    """Return the mean of `first - second` (N,), of the same examples, and its interval.

    Both are resampled together. An interval without 0 speaks for a difference. Other arguments and
    errors as of `bootstrap_mean`.
    """
    one, other = _checked("first", first), _checked("second", second)
    checked_count("second", other, len(one))
    return _interval(one - other, np.mean, True, seed, resamples, level)


def bootstrap_statistic(
    statistic: Callable[[np.ndarray], float],
    count: int,
    *,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Return a figure of a whole set, such as CIDEr or BLEU, and its interval.

    Args:
        statistic: Takes the rows (`count`,) of a resample, in which some recur, and gives a number:
            `lambda rows: scorer.scores(rows).mean()`.
        count: Examples.
        seed: Of the resamples.
        resamples: How many.
        level: Share of them that the interval holds.

    Raises:
        ValueError: Fewer than 2 examples, wrong settings, or a statistic that is not finite.
    """
    if count < 2:
        raise ValueError(f"count: wanted at least 2 examples, got {count}")

    def checked(rows: np.ndarray) -> float:
        found = float(statistic(rows))
        if not np.isfinite(found):
            raise ValueError(f"statistic: wanted a finite number, got {found}")
        return found

    return _interval(np.arange(count), checked, False, seed, resamples, level)


def _interval(
    values: np.ndarray,
    statistic: Callable[..., float],
    vectorised: bool,
    seed: int,
    resamples: int,
    level: float,
) -> Interval:
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"resamples, level: wanted at least 1 and within 0..1, got {resamples}, {level}"
        )
    low, high = bootstrap(
        (values,),
        statistic,
        n_resamples=resamples,
        batch=max(1, _CELLS // len(values)),
        vectorized=vectorised,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(statistic(values)), float(low), float(high))


def _checked(name: str, values: np.ndarray) -> np.ndarray:
    found = np.asarray(values)
    if found.ndim != 1 or found.dtype.kind not in "fiub":
        raise ValueError(f"{name}: wanted numbers (N,), got {found.dtype} {found.shape}")
    if len(found) < 2:
        raise ValueError(f"{name}: wanted at least 2, got {len(found)}")
    found = found.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(found))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}]: wanted a finite number, got {found[bad[0]]}")
    return found
