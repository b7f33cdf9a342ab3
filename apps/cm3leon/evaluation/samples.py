"""Whether drawn pictures match their prompts, and which guidance scale draws best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cm3_train import progress_bar
from cm3leon.drawing.draw import Drawings, draw
from cm3leon.evaluation.subject import Subject

HOW = {
    "samples.candidates": "How many pictures are drawn for a caption (`evaluation.samplers` in "
    "turn); the one whose CLIP vector is nearest to the caption's counts. The same CLIP then finds "
    "the nearest real pictures.",
    "samples.category_match": "Pictures drawn for test captions (each concept in turn); share "
    "whose nearest real picture (cosine of CLIP image vectors; gallery: one picture a concept, all "
    "splits) is of the prompt's category.",
    "samples.category_match_one_candidate": "The same for the first candidate of each caption.",
    "samples.category_match_shuffled": "The same, expected when prompts are dealt to the pictures "
    "at random.",
    "samples.category_match_over_shuffled": "The one over the other.",
    "samples.category_match_ceiling": "The same for the real test pictures through the tokenizer, "
    "which stand in the gallery themselves.",
    "samples.category_match_retrieved": "What copying would reach: share whose best retrieved "
    "document is of the prompt's category. Captions name the category.",
    "samples.train_top10": "Memorisation: pictures drawn for training captions; share whose true "
    "picture is among the 10 nearest of the same gallery.",
    "samples.train_top10_one_candidate": "The same for the first candidate of each caption.",
    "samples.train_top10_shuffled": "The same, expected when captions are dealt at random.",
    "samples.train_top10_ceiling": "The same for the true pictures through the tokenizer.",
    "sweep": "For each guidance scale, pictures drawn for validation captions: mean cosine of CLIP "
    "image vectors between the drawn and the true picture, less the mean over all other pairings "
    "(similarity_gain). The scale with the largest gain is the run's default.",
}


@dataclass(frozen=True)
class Drawn:
    """Best drawings of some pairs' captions."""

    rows: np.ndarray
    """(N,) the pairs; one may occur more than once."""
    pixels: np.ndarray
    """(N, H, W, 3) uint8."""


def draw_for(
    subject: Subject,
    rows: np.ndarray,
    scale: float,
    seed: int,
    what: str,
    candidates: int = 1,
    *,
    contexts: Sequence[Sequence[int]] | None = None,
    document_scale: float | None = None,
) -> Drawings:
    """Draw for the caption of each pair, by default with the documents that its caption finds.

    `document_scale` is the `image_guidance_scale` of the documents.
    """
    recipe = subject.recipe
    scales = {"guidance_scale": scale, "image_guidance_scale": document_scale}
    sampling = replace(recipe.sampling, **scales)
    with progress_bar(what, unit="step") as progress:
        return draw(
            subject.parts,
            [subject.pictures.pairs.captions[row] for row in rows],
            contexts=[subject.context(row) for row in rows] if contexts is None else contexts,
            samplers=[replace(sampling, sampler=sampler) for sampler in recipe.samplers],
            seeds=seed + np.arange(len(rows) * candidates).reshape(len(rows), candidates),
            progress=progress,
            batch_size=recipe.batch_size,
        )


def guidance_sweep(subject: Subject) -> tuple[float, list[dict[str, float]]]:
    """Return the best guidance scale on validation prompts, and the whole sweep."""
    rows = np.resize(subject.one_a_concept("validation"), subject.recipe.sweep_samples)
    truth = subject.neighbours.image_vectors[rows]
    sweep = []
    for scale in subject.recipe.guidance_scales:
        _, drawn = draw_for(subject, rows, scale, 10_000, f"guidance {scale}").best
        cosines = drawn.dot(truth.T)  # (N, N)
        same = rows[:, None] == rows[None]
        others = cosines[~same].mean() if (~same).any() else 0.0
        gain = np.diag(cosines).mean() - others
        sweep.append({"guidance_scale": scale, "similarity_gain": float(gain)})
    best = max(sweep, key=lambda entry: entry["similarity_gain"])
    return best["guidance_scale"], sweep


def sample_figures(subject: Subject, scale: float) -> tuple[dict[str, Any], Drawn, Drawn]:
    """Compute whether drawn pictures match their prompts.

    Returns:
        The figures, and what was drawn for held-out and for training captions.
    """
    gallery = subject.one_a_concept("train", "validation", "test")
    figures: dict[str, Any] = {
        "guidance_scale": scale,
        "candidates": subject.recipe.candidates,
        "gallery": len(gallery),
    }
    matches, test = category_figures(subject, scale, gallery)
    known, train = memory_figures(subject, scale, gallery)
    return figures | matches | known, test, train


def category_figures(
    subject: Subject, scale: float, gallery: np.ndarray
) -> tuple[dict[str, Any], Drawn]:
    """Draw for held-out captions; is the nearest real picture of the prompt's category?"""
    pairs, count = subject.pictures.pairs, subject.recipe.samples
    test = np.resize(subject.one_a_concept("test"), count)
    drawings = draw_for(subject, test, scale, 20_000, "held-out prompts", subject.recipe.candidates)
    pixels, vectors = drawings.best
    categories = np.array(pairs.categories, dtype=object)
    if not any(categories):
        return {}, Drawn(test, pixels)
    wanted, gallery_vectors = categories[test], subject.neighbours.image_vectors[gallery]

    def found(vectors: np.ndarray) -> np.ndarray:
        return categories[gallery[vectors.dot(gallery_vectors.T).argmax(1)]]

    nearest = found(vectors)
    match, chance = share(nearest, wanted), match_by_chance(wanted, nearest)
    figures = {
        "category_match": match,
        "category_match_one_candidate": share(found(drawings.vectors[:, 0]), wanted),
        "category_match_shuffled": chance,
        "category_match_over_shuffled": match / chance if chance else None,
        "category_match_ceiling": share(found(through(subject, test)), wanted),
        "category_match_retrieved": retrieved_match(subject, test, wanted, categories),
    }
    return figures, Drawn(test, pixels)


def memory_figures(
    subject: Subject, scale: float, gallery: np.ndarray
) -> tuple[dict[str, Any], Drawn]:
    """Draw for training captions; is the true picture among the nearest?"""
    gallery_vectors = subject.neighbours.image_vectors[gallery]
    known = np.flatnonzero(subject.pictures.pairs.split[gallery] == "train")
    rng = np.random.default_rng(subject.seed)
    places = rng.choice(known, min(subject.recipe.samples, len(known)), replace=False)
    train = gallery[places]

    def near(vectors: np.ndarray) -> np.ndarray:
        return among_nearest(vectors.dot(gallery_vectors.T), places, 10)

    drawings = draw_for(
        subject, train, scale, 30_000, "training prompts", subject.recipe.candidates
    )
    pixels, vectors = drawings.best
    hits = near(vectors)
    figures = {
        "train_top10": float(np.diag(hits).mean()),
        "train_top10_one_candidate": float(np.diag(near(drawings.vectors[:, 0])).mean()),
        "train_top10_shuffled": float(hits[~np.eye(len(hits), dtype=bool)].mean()),
        "train_top10_ceiling": float(np.diag(near(through(subject, train))).mean()),
    }
    return figures, Drawn(train, pixels)


def through(subject: Subject, rows: np.ndarray) -> np.ndarray:
    """Return CLIP vectors (N, dim) of real pictures that went through the image tokenizer."""
    pixels = subject.parts.tokenizers.through(subject.pictures.pixels(rows))
    return subject.parts.encoder.encode_images(list(pixels))


def share(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the share of equal labels."""
    return float((found == wanted).mean())


def retrieved_match(
    subject: Subject, rows: np.ndarray, wanted: np.ndarray, categories: np.ndarray
) -> float | None:
    """Return the share of pairs whose best retrieved document is of the wanted category."""
    row_of = {int(key): row for row, key in enumerate(subject.pictures.pairs.keys)}
    found = [subject.context(row)[-1:] for row in rows]
    if not all(found) or not all(key in row_of for (key,) in found):  # not all are at hand
        return None
    return float(
        np.mean([categories[row_of[key]] == w for (key,), w in zip(found, wanted, strict=True)])
    )


def match_by_chance(wanted: np.ndarray, found: np.ndarray) -> float:
    """Return the share of equal labels when `wanted` (N,) is dealt to `found` (N,) at random."""
    return float(sum((wanted == label).mean() * (found == label).mean() for label in set(wanted)))


def among_nearest(similarity: np.ndarray, places: np.ndarray, k: int) -> np.ndarray:
    """Return (N, N) bool: is gallery place `places[j]` among the k most similar to picture i?

    Args:
        similarity: (N, G) of N pictures to G pictures of the gallery.
        places: (N,) columns of `similarity`.
        k: How many count as near.
    """
    kth = np.partition(similarity, -min(k, similarity.shape[1]), axis=1)[
        :, -min(k, similarity.shape[1])
    ]
    return similarity[:, places] >= kth[:, None]
