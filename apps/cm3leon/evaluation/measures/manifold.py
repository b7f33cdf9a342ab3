"""Precision, recall, density and coverage: fidelity and variety of drawn pictures apart.

Precision and recall by Kynkaanniemi et al. (arXiv 1904.06991), density and coverage by Naeem et al.
(arXiv 2002.09797). Around each picture lies a ball that reaches to its k-th nearest neighbour in
its own set. As in the authors' package prdc, a point on the rim is outside.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cm3leon.evaluation.measures.inputs import checked_pair

_CELLS = 1 << 22
"""Distances held at once: 32 MB."""


class Manifold(NamedTuple):
    """What the balls of two sets say; compare it only with the same k and numbers of pictures."""

    precision: float
    """Share of made pictures in the ball of some real one."""
    recall: float
    """Share of real pictures in the ball of some made one."""
    density: float
    """In how many balls of real pictures a made one lies, over k, in the mean; may be above 1."""
    coverage: float
    """Share of real pictures with a made one in their ball."""
    neighbours: int
    """k."""


def manifold(real: np.ndarray, made: np.ndarray, *, neighbours: int = 5) -> Manifold:
    """Compare features of real (N, D) and made (M, D) pictures.

    Distances are computed in parts, so memory grows with N + M only.

    Args:
        real: Features.
        made: Features.
        neighbours: k; the papers on precision and recall take 3, those on density and coverage 5.

    Raises:
        ValueError: A set has no more than k rows, NaN or infinity, or the widths differ.
    """
    if neighbours < 1:
        raise ValueError(f"neighbours: wanted at least 1, got {neighbours}")
    real, made = checked_pair(("real", "made"), real, made, least=neighbours + 1)
    middle = real.mean(0)  # distances of centred vectors lose fewer digits
    real, made = real - middle, made - middle
    real_reach, made_reach = _reach(real, neighbours), _reach(made, neighbours)
    inside = near = 0
    recalled = np.zeros(len(real), bool)
    nearest = np.full(len(real), np.inf)
    for rows in _parts(len(made), len(real)):
        apart = _squared_distances(made[rows], real)  # (m, N)
        balls = apart < real_reach
        inside += int(balls.sum())
        near += int(balls.any(1).sum())
        recalled |= (apart < made_reach[rows, None]).any(0)
        nearest = np.minimum(nearest, apart.min(0))
    return Manifold(
        precision=near / len(made),
        recall=float(recalled.mean()),
        density=inside / (neighbours * len(made)),
        coverage=float((nearest < real_reach).mean()),
        neighbours=neighbours,
    )


def _reach(points: np.ndarray, neighbours: int) -> np.ndarray:
    """Return the squared distance (N,) of each point to its k-th nearest other."""
    found = np.empty(len(points))
    for rows in _parts(len(points), len(points)):
        apart = _squared_distances(points[rows], points)
        apart[np.arange(len(apart)), np.arange(len(points))[rows]] = np.inf
        found[rows] = np.partition(apart, neighbours - 1, 1)[:, neighbours - 1]
    return found


def _squared_distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1)
    return np.maximum(squares - 2 * (one @ other.T), 0)


def _parts(count: int, width: int) -> list[slice]:
    step = max(1, _CELLS // width)
    return [slice(start, start + step) for start in range(0, count, step)]
