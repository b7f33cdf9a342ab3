"""Named extractors of features for FID, KID and the like, which say exactly what they are.

Figures of other features are other figures, so results keep the extractor's `description` and
`same_features` refuses to compare those that differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cm3leon.evaluation.measures.inputs import checked_pixels
from cm3leon.evaluation.measures.provenance import sha256_of_weights, tool_version, weight_file

INCEPTION = "torch-fidelity's weights-inception-2015-12-05-6726825d.pth"


class Features(Protocol):
    """Turns pictures into vectors."""

    @property
    def name(self) -> str:
        """What the figures are called after: FID of "inception" is FID."""
        ...

    @property
    def description(self) -> dict[str, Any]:
        """JSON for the result: name, tool, version, weights' name and sha256, dimension."""
        ...

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return features (N, D) float64 of pixels (N, H, W, 3) uint8."""
        ...


class PictureEncoder(Protocol):
    """What `clip` needs of an encoder."""

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def encoder_id(self) -> str:
        """Name and hash of all that decides the vectors."""
        ...

    def encode_images(self, images: Sequence[Any]) -> np.ndarray:
        """Return vectors (N, dim) of pictures."""
        ...


class InceptionFeatures:
    """The 2048 pooled features of Inception-v3 that FID is defined on, by torch-fidelity."""

    name = "inception"

    def __init__(self, weights: Path) -> None:
        """Load the network.

        Args:
            weights: torch-fidelity's `weights-inception-2015-12-05-6726825d.pth`, a local file, or
                the folder that has it.

        Raises:
            ValueError: The file is missing (says which is wanted and where), damaged, or holds
                other weights.
        """
        path = weight_file("inception", weights, INCEPTION)
        from cm3leon.evaluation.inception import inception_features  # torch-fidelity loads slowly

        self._features = inception_features(path)
        self.description: dict[str, Any] = {
            "name": self.name,
            "tool": "torch-fidelity",
            "version": tool_version("torch-fidelity"),
            "weights": path.name,
            "sha256": sha256_of_weights(path),
            "dimension": 2048,
        }

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return features (N, 2048) float64 of pixels (N, H, W, 3) uint8."""
        return self._features(checked_pixels("pixels", pixels)).double().numpy()


class ClipFeatures:
    """The picture vectors of a CLIP, of length 1. Its figures are not FID: their name says so."""

    name = "clip"

    def __init__(self, encoder: PictureEncoder) -> None:
        """Take an encoder; its id names the CLIP and ends in a hash of weights and transform."""
        self._encoder = encoder
        weights, _, digest = encoder.encoder_id.rpartition(":")
        package = type(encoder).__module__.partition(".")[0].replace("_", "-")
        self.description: dict[str, Any] = {
            "name": self.name,
            "tool": package,
            "version": tool_version(package),
            "weights": weights,
            "sha256": digest,
            "dimension": encoder.dim,
        }

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return features (N, D) float64 of pixels (N, H, W, 3) uint8."""
        return self._encoder.encode_images(list(checked_pixels("pixels", pixels))).astype(
            np.float64
        )


def same_features(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Refuse to compare results of different features.

    Args:
        a: The `description` of one result.
        b: That of the other. Another name of a file with the same SHA-256 is no difference.

    Raises:
        ValueError: They differ; names both and what differs.
    """
    keys = {*a, *b}
    if a.get("sha256") and a.get("sha256") == b.get("sha256"):
        keys.discard("weights")
    apart = sorted(key for key in keys if a.get(key) != b.get(key))
    if apart:
        raise ValueError(
            f"features: wanted the same for both results, got {_said(a, apart)} and "
            f"{_said(b, apart)}"
        )


def _said(description: Mapping[str, Any], keys: list[str]) -> str:
    what = ", ".join(f"{key} {description.get(key)}" for key in keys if key != "name")
    return f"{description.get('name')!r}" + (f" ({what})" if what else "")
