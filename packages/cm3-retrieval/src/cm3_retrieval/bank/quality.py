"""Quality of a memory bank: recall against exact search, duplicates, spread of the scores.

Takes a bank; gives figures and the picture of a histogram.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cm3_retrieval.artifact import atomic_file
from cm3_retrieval.bank.memory_bank import MemoryBank
from cm3_retrieval.index.exact import build_index, search


def measure_bank(
    bank: MemoryBank, *, k: int = 10, queries: int = 1000, duplicate: float = 0.99, seed: int = 0
) -> tuple[dict[str, float], np.ndarray]:
    """Compare the bank's neighbours of random documents with those of exact search.

    Args:
        bank: A bank of at least two documents.
        k: Neighbours compared, without the document itself; at most what the bank has.
        queries: Number of documents drawn, at most all.
        duplicate: A nearest neighbour with a larger inner product counts as a duplicate.
        seed: Seed of the draw.

    Returns:
        `queries`, `k`, `recall` (share of the true k found), `duplicates` (share of the drawn
        documents that have one), `nearest_mean`; and the (queries,) scores of the true nearest.

    Raises:
        ValueError: The bank has fewer than two documents.
    """
    if len(bank) < 2:
        raise ValueError(f"bank: wanted at least 2 documents, got {len(bank)}")
    k = min(k, len(bank) - 1)
    keys = bank.keys
    drawn = np.random.default_rng(seed).permutation(keys)[:queries]
    asked = bank.vectors_of(drawn)
    exact = build_index(bank.vectors_of(keys), keys)
    true_scores, true = search(exact, asked, k + 1)
    found = bank.search(asked, k + 1)[1]
    hits, nearest = 0, np.empty(len(drawn), np.float32)
    for row, key in enumerate(drawn):
        others = true[row] != key
        nearest[row] = true_scores[row][others][0]
        wanted = set(true[row][others][:k].tolist())
        hits += len(wanted & set(found[row][found[row] != key][:k].tolist()))
    figures = {
        "queries": len(drawn),
        "k": k,
        "recall": hits / (k * len(drawn)),
        "duplicates": float((nearest > duplicate).mean()),
        "nearest_mean": float(nearest.mean()),
    }
    return figures, nearest


def score_histogram(scores: np.ndarray, bins: int = 40) -> Image.Image:
    """Draw a histogram of the scores, from the smallest to the largest."""
    counts, edges = np.histogram(scores, bins=bins)
    width, height, margin = 640, 320, 40
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    step = (width - 2 * margin) / bins
    floor = height - margin
    for place, count in enumerate(counts):
        top = floor - (height - 2 * margin) * count / max(counts.max(), 1)
        left = margin + place * step
        draw.rectangle((left, top, left + step - 1, floor), fill="#4477aa")
    draw.line((margin, floor, width - margin, floor), fill="black")
    draw.text((margin, floor + 8), f"{edges[0]:.3f}", fill="black")
    draw.text((width - margin - 30, floor + 8), f"{edges[-1]:.3f}", fill="black")
    draw.text((margin, 10), f"score of the nearest other document, {len(scores)}", fill="black")
    return image


def save_histogram(scores: np.ndarray, path: Path | str) -> None:
    """Write `score_histogram` as a PNG, whole or not at all."""
    image = score_histogram(scores)
    with atomic_file(path) as file:
        image.save(file, "PNG")
