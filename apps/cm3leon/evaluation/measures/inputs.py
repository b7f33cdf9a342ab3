"""What the measures take, checked: texts, references, vectors, pictures.

Each error names the thing, what was wanted and what came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def checked_texts(name: str, values: Any) -> list[str]:
    """Return texts as a list.

    Raises:
        ValueError: There is none, one is no text, or a text came for the list.
    """
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        raise ValueError(f"{name}: wanted a list of texts, got {_kind(values)}")
    if not len(values):
        raise ValueError(f"{name}: wanted at least one text, got none")
    for place, value in enumerate(values):
        if not isinstance(value, str):
            raise ValueError(f"{name}[{place}]: wanted text, got {_kind(value)}")
    return list(values)


def checked_references(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Return N captions, and N lists of at least one reference each.

    Raises:
        ValueError: As of `checked_texts`, or the numbers differ.
    """
    said = checked_texts("captions", captions)
    wanted = [checked_texts(f"references[{i}]", texts) for i, texts in enumerate(references)]
    checked_count("references", wanted, len(said))
    return said, wanted


def checked_count(name: str, values: Any, count: int) -> None:
    """Refuse another number of values than one for each of the `count` others."""
    if len(values) != count:
        raise ValueError(f"{name}: wanted {count}, one for each, got {len(values)}")


def checked_vectors(name: str, values: Any, least: int = 1) -> np.ndarray:
    """Return vectors (N, D) as float64.

    Raises:
        ValueError: Another shape, fewer than `least` rows, no column, or NaN or infinity.
    """
    found = np.asarray(values)
    if found.ndim != 2 or not found.shape[1] or found.dtype.kind not in "fiu":
        raise ValueError(f"{name}: wanted numbers (N, D), got {found.dtype} {found.shape}")
    if len(found) < least:
        raise ValueError(f"{name}: wanted at least {least} rows, got {len(found)}")
    found = np.ascontiguousarray(found, np.float64)
    bad = np.flatnonzero(~np.isfinite(found).all(1))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}]: wanted finite numbers, got NaN or infinity")
    return found


def checked_pair(names: tuple[str, str], one: Any, other: Any, least: int = 1) -> list[np.ndarray]:
    """Return two sets of vectors, (N, D) and (M, D), as float64; errors as `checked_vectors`."""
    found = [checked_vectors(name, v, least) for name, v in zip(names, (one, other), strict=True)]
    if found[0].shape[1] != found[1].shape[1]:
        raise ValueError(
            f"{names[1]}: wanted the {found[0].shape[1]} columns of {names[0]}, "
            f"got {found[1].shape[1]}"
        )
    return found


def checked_pixels(name: str, values: Any) -> np.ndarray:
    """Return pixels (N, H, W, 3) uint8; other shapes and dtypes, and no picture, are refused."""
    found = np.asarray(values)
    if found.ndim != 4 or found.shape[-1] != 3 or found.dtype != np.uint8 or not found.size:
        raise ValueError(
            f"{name}: wanted pictures (N, H, W, 3) uint8, got {found.dtype} {found.shape}"
        )
    return found


def _kind(value: Any) -> str:
    return "a text" if isinstance(value, str) else "None" if value is None else type(value).__name__
