"""Vectors for the benchmark of the memory bank, as embedded documents lie."""

from __future__ import annotations

import numpy as np

CLUSTERS, THEMES, INNER = 2000, 50, 64


def clustered(count: int, dim: int, seed: int) -> np.ndarray:
    """Draw (count, dim) float32 unit rows in clusters whose sizes follow a power law."""
    world = np.random.default_rng(7)
    mean = world.standard_normal(dim)
    themes = world.standard_normal((THEMES, dim))
    centres = themes[world.integers(THEMES, size=CLUSTERS)]
    centres = mean + centres + 0.9 * world.standard_normal((CLUSTERS, dim))
    basis = 0.6 * world.standard_normal((INNER, dim)) / np.sqrt(1 + np.arange(INNER))[:, None]
    share = 1 / np.arange(1, CLUSTERS + 1) ** 0.7
    rng = np.random.default_rng(seed)
    vectors = np.empty((count, dim), np.float32)
    for start in range(0, count, 16384):
        rows = min(16384, count - start)
        block = centres[rng.choice(CLUSTERS, rows, p=share / share.sum())].astype(np.float32)
        block += rng.standard_normal((rows, INNER), dtype=np.float32) @ basis.astype(np.float32)
        block += 0.5 * rng.standard_normal((rows, dim), dtype=np.float32)
        vectors[start : start + rows] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return vectors


def gapped(count: int, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw documents, and their texts and pictures as queries: of low rank, with a modality gap.

    Returns:
        Three arrays (count, dim) float32 of unit rows. Text and picture of one document have a
        cosine near 0.3, as CLIP's have, and a document is the average of its two parts.
    """
    world = np.random.default_rng(11)
    basis = (world.standard_normal((INNER, dim)) / np.sqrt(1 + np.arange(INNER))[:, None]).astype(
        np.float32
    )
    sides = 2.4 * world.standard_normal((2, dim)).astype(np.float32)
    rng = np.random.default_rng(seed)
    shown = rng.standard_normal((count, INNER), dtype=np.float32)
    parts = []
    for side in sides:
        part = (shown + 0.7 * rng.standard_normal((count, INNER), dtype=np.float32)) @ basis
        part += side + 0.3 * rng.standard_normal((count, dim), dtype=np.float32)
        parts.append(part / np.linalg.norm(part, axis=1, keepdims=True))
    documents = parts[0] + parts[1]
    return documents / np.linalg.norm(documents, axis=1, keepdims=True), *parts
