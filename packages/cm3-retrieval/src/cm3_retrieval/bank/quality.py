"""Quality of a memory bank: recall against exact search, duplicates, spread of the scores.

Takes a bank, and queries of texts and pictures; gives figures and the picture of a histogram.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from cm3_retrieval.artifact import atomic_file
from cm3_retrieval.bank.memory_bank import MemoryBank
from cm3_retrieval.index.checks import checked_count, checked_lengths, checked_vectors
from cm3_retrieval.index.exact import build_index, search
from cm3_retrieval.index.tuning import shared_keys
from cm3_retrieval.own_file import MARK


def measure_bank(
    bank: MemoryBank,
    *,
    k: int = 10,
    queries: int = 1000,
    duplicate: float = 0.99,
    seed: int = 0,
    vectors: np.ndarray | None = None,
    asked: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, float], np.ndarray]:
    """Compare the bank's neighbours with those of exact search among the documents' own vectors.

    Args:
        bank: A bank of at least two documents.
        k: Neighbours compared, without the document itself; at most what the bank has.
        queries: Number of documents drawn, at most all.
        duplicate: A nearest neighbour with a larger inner product counts as a duplicate.
        seed: Seed of the draw.
        vectors: (N, dim) floats, the documents' vectors in the order of `bank.keys`. Needed where
            the bank has only what its index made of them (`bank.keeps_vectors`): compared with
            that, any index looks good.
        asked: Kind, such as `text` or `image`, -> (Q, dim) floats, queries as users ask them. A
            document is an easy query, since it lies among the others.

    Returns:
        `queries`, `k`, `recall` (share of the true k found), `duplicates` (share of the drawn
        documents that have one), `nearest_mean`, and `recall_KIND` for each kind that was asked;
        and the (queries,) scores of the true nearest.

    Raises:
        ValueError: The bank has fewer than two documents or does not keep their vectors, or an
            argument is invalid.
    """
    if len(bank) < 2:
        raise ValueError(f"bank: wanted at least 2 documents, got {len(bank)}")
    k = min(checked_count("k", k, 1), len(bank) - 1)
    queries = checked_count("queries", queries, 1)
    asked = {
        kind: checked_vectors(f"asked[{kind!r}]", given, bank.dim)
        for kind, given in (asked or {}).items()
    }
    keys = bank.keys
    vectors = _own_vectors(bank, vectors)
    rows = np.random.default_rng(seed).permutation(len(keys))[:queries]
    drawn = keys[rows]
    exact = build_index(vectors, keys)
    true_scores, true = search(exact, vectors[rows], k + 1)
    found = bank.search(vectors[rows], k + 1)[1]
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
    for kind, given in asked.items():
        if len(given):
            same = shared_keys(bank.search(given, k)[1], search(exact, given, k)[1])
            figures[f"recall_{kind}"] = float(same.mean())
    return figures, nearest


def _own_vectors(bank: MemoryBank, vectors: np.ndarray | None) -> np.ndarray:
    """Return the documents' vectors, the given ones or the bank's."""
    if vectors is None:
        if not bank.keeps_vectors:
            raise ValueError(
                f"vectors: wanted the documents' own, ({len(bank)}, {bank.dim}), for the bank has "
                f"only what its index {bank.config.factory!r} made of them; got None"
            )
        return bank.vectors_of(bank.keys)
    vectors = checked_vectors("vectors", vectors, bank.dim)
    if len(vectors) != len(bank):
        raise ValueError(f"vectors: wanted {len(bank)}, one a document, got {len(vectors)}")
    checked_lengths("vectors", vectors)
    return vectors


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
    image, notes = score_histogram(scores), PngInfo()
    notes.add_text("Comment", MARK)
    with atomic_file(path) as file:
        image.save(file, "PNG", pnginfo=notes)
