"""What a finding is: curves of each seed, their mean and interval, a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from study.subjects import Study

Curves = Mapping[str, Mapping[str, Mapping[str, float]]]
"""figure -> series -> x -> value."""
VERDICTS = ("holds here", "does not hold here", "too small to tell")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A difference that the paper's finding is about."""

    text: str
    """What should be greater than 0: "text guidance 3 over 1"."""
    values: Sequence[float]
    """Of each seed."""

    @property
    def interval(self) -> tuple[float, float, float]:
        """Mean, and the 95 % interval of Student's t over the seeds; infinite of one seed."""
        mean = float(np.mean(self.values))
        if len(self.values) < 2:
            return mean, -np.inf, np.inf
        error = float(np.std(self.values, ddof=1)) / len(self.values) ** 0.5
        half = float(stats.t.ppf(0.975, len(self.values) - 1)) * error
        return mean, mean - half, mean + half

    @property
    def verdict(self) -> str:
        """Which of `VERDICTS`: whether the interval is above 0, below it, or has it inside."""
        _, low, high = self.interval
        return VERDICTS[0] if low > 0 else VERDICTS[1] if high < 0 else VERDICTS[2]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding of the paper."""

    number: int
    title: str
    paper: str
    """What the paper says, and where."""
    here: str
    """What is measured here in its place."""
    axes: Mapping[str, str]
    """Figure -> what stands on the axes: "x | y"."""
    measure: Callable[[Study, int], Curves]
    """Measures one seed."""
    claims: Callable[[Sequence[Curves]], list[Claim]]
    """Makes claims of all seeds' curves."""
    tuned: bool = False
    """Whether it is about a tuned run."""


def verdict_of(claims: Sequence[Claim]) -> str:
    """Return the plain verdict of several claims: all must hold; one that fails decides."""
    if not claims:
        return VERDICTS[2]
    verdicts = [claim.verdict for claim in claims]
    for one in (VERDICTS[1], VERDICTS[2]):
        if one in verdicts:
            return one
    return VERDICTS[0]


def differences(
    seeds: Sequence[Curves],
    figure: str,
    one: tuple[str, str],
    other: tuple[str, str],
    sign: int = 1,
) -> list[float]:
    """Return how much greater a point (series, x) is than another, of each seed; less: sign -1."""
    return [
        sign * (curves[figure][one[0]][one[1]] - curves[figure][other[0]][other[1]])
        for curves in seeds
    ]
