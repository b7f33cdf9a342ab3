"""FID and KID: how far apart two sets of pictures' features are.

FID is the Frechet distance of two normal distributions (Heusel et al., arXiv 1706.08500), KID the
mean of unbiased squared MMDs with a cubic kernel (Binkowski et al., arXiv 1801.01401). Both equal
torch-fidelity's. Features come from `features`; compare only results of the same extractor, of as
many pictures: FID of few pictures is too large.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from cm3_imagetok import frechet_distance
from cm3leon.evaluation.measures.inputs import checked_pair


class Fid(NamedTuple):
    """A Frechet distance and what it is of."""

    distance: float
    pictures: tuple[int, int]
    """In the first and in the second set."""
    rank_deficient: bool
    """A set has no more pictures than features have columns, so its covariance lacks rank. The
    distance exists, but is far above that of more pictures: compare it only with the same numbers.
    """


class Kid(NamedTuple):
    """Mean and standard deviation of squared MMDs of subsets; the mean may be just below 0."""

    mean: float
    std: float
    subsets: int
    subset_size: int


def fid(first: np.ndarray, second: np.ndarray) -> Fid:
    """Return the Frechet distance of features (N, D) and (M, D).

    Raises:
        ValueError: A set has fewer than 2 rows, NaN or infinity, or the widths differ.
    """
    one, other = checked_pair(("first", "second"), first, second, least=2)
    distance = frechet_distance(torch.from_numpy(one), torch.from_numpy(other))
    counts = len(one), len(other)
    return Fid(distance, counts, rank_deficient=min(counts) <= one.shape[1])


def kid(
    first: np.ndarray,
    second: np.ndarray,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> Kid:
    """Return the kernel distance of features (N, D) and (M, D).

    Args:
        first: Features.
        second: Features.
        subsets: How many are drawn.
        subset_size: Rows of each set in a subset; both sets need as many.
        seed: Of the subsets; this one is torch-fidelity's.

    Raises:
        ValueError: A set has fewer rows than a subset, NaN or infinity, or the widths differ.
    """
    if subsets < 1 or subset_size < 2:
        raise ValueError(
            f"subsets, subset_size: wanted at least 1 of at least 2, got {subsets}, {subset_size}"
        )
    one, other = checked_pair(("first", "second"), first, second)
    for name, rows in (("first", len(one)), ("second", len(other))):
        if rows < subset_size:
            raise ValueError(
                f"{name}: wanted at least {subset_size} rows (subset_size), got {rows}"
            )
    rng = np.random.RandomState(seed)  # torch-fidelity's generator, for the same subsets
    found = [
        _squared_mmd(
            one[rng.choice(len(one), subset_size, replace=False)],
            other[rng.choice(len(other), subset_size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return Kid(float(np.mean(found)), float(np.std(found)), subsets, subset_size)


def _squared_mmd(one: np.ndarray, other: np.ndarray) -> float:
    """Return the unbiased estimate for two sets (m, D)."""
    m, within = len(one), 0.0
    for rows in (one, other):
        kernel = _cubic(rows, rows)
        within += kernel.sum() - kernel.trace()
    return within / (m * (m - 1)) - 2 * _cubic(one, other).mean()


def _cubic(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one @ other.T / one.shape[1] + 1) ** 3
