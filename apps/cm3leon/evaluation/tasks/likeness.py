"""How like two sets of pictures are: FID, KID, precision and recall, density and coverage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cm3_retrieval.interface import Encoder
from cm3leon.evaluation.measures.features import ClipFeatures, Features, InceptionFeatures
from cm3leon.evaluation.measures.frechet import fid, kid
from cm3leon.evaluation.measures.manifold import manifold

BATCH = 64
MOST_IN_A_SUBSET = 1000
NEIGHBOURS = 5
HOW = {
    "fid": "Frechet distance of the features of both sets of pictures (arXiv 1706.08500). With "
    "Inception-v3's it is FID; else the figure's name says whose features they are.",
    "kid": "Squared maximum mean discrepancy of the same features with a cubic kernel (arXiv "
    "1801.01401), the mean of 100 subsets; times 1000.",
    "precision": f"Share of the pictures in the ball of a real one's {NEIGHBOURS} nearest (arXiv "
    "1904.06991).",
    "recall": "Share of real pictures in the ball of a picture's nearest.",
    "density": "In how many balls of real pictures one lies, over their number (arXiv 2002.09797).",
    "coverage": "Share of real pictures with one in their ball.",
}


class Pictures(Protocol):
    """Pictures (N, H, W, 3) uint8: an array, or what reads those of a slice from a disk."""

    def __len__(self) -> int:
        """Return N."""
        ...

    def __getitem__(self, place: Any, /) -> Any:
        """Return those of a slice."""
        ...


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """Figures of two sets of pictures by some features."""

    figures: dict[str, float]
    how: dict[str, str]
    tools: dict[str, Any]
    without: list[str]


def likeness(
    pictures: Pictures,
    real: Pictures,
    encoder: Encoder | None,
    inception: Path | None,
    seed: int,
) -> Likeness:
    """Compare pictures with real ones.

    Args:
        pictures: N.
        real: M.
        encoder: Its features are used, under its name, where there is no Inception; None: no CLIP.
        inception: File of Inception-v3's weights; None: not at hand.
        seed: Of the subsets.
    """
    without = []
    features: Features | None = None if encoder is None else ClipFeatures(encoder)
    if inception is None:
        without.append(
            "FID: wanted torch-fidelity's weights-inception-2015-12-05-6726825d.pth as the task's "
            "`inception`, got none; the figures of CLIP's features are no FID"
        )
    else:
        try:
            features = InceptionFeatures(inception)
        except ValueError as error:
            without.append(f"FID: {error}")
    if features is None or min(len(pictures), len(real)) < 2:
        without.append("distances of sets: wanted features, and at least 2 pictures on either side")
        return Likeness(figures={}, how={}, tools={}, without=without)
    one, other = features_of(features, pictures), features_of(features, real)
    prefix = "" if features.name == "inception" else f"{features.name}_"
    distance = fid(one, other)
    # subsets of nearly all pictures would be the same again and again
    size = max(2, min(MOST_IN_A_SUBSET, len(one) // 4, len(other) // 4))
    found = {
        "fid": distance.distance,
        "kid": 1000 * kid(one, other, subset_size=size, seed=seed).mean,
    }
    if min(len(one), len(other)) > NEIGHBOURS:
        balls = manifold(other, one, neighbours=NEIGHBOURS)
        found |= {name: getattr(balls, name) for name in list(HOW)[2:]}
    if distance.rank_deficient:
        without.append(
            f"{prefix}fid: of {distance.pictures[0]} and {distance.pictures[1]} pictures, fewer "
            f"than the {one.shape[1]} features; compare it with the same numbers alone"
        )
    return Likeness(
        figures={prefix + name: float(value) for name, value in found.items()},
        how={prefix + name: HOW[name] for name in found},
        tools={"features": features.description, "kid_subset": size},
        without=without,
    )


def features_of(features: Features, pictures: Pictures) -> np.ndarray:
    """Return features (N, D) of pictures that are read some at a time."""
    starts = range(0, len(pictures), BATCH)
    return np.concatenate([features(np.asarray(pictures[at : at + BATCH])) for at in starts])
