"""The figures of a report, and how each is computed (`HOW`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from drawing import draw
from inception import inception_features
from memory import encode_pictures
from pipeline import Run
from progress import bar

from cm3_imagetok import codebook_use, frechet_distance, psnr, to_pixels, to_tensor
from cm3_retrieval.interface import Encoder
from cm3_train import ValidationLoader
from cm3_train.loss import split_losses, token_losses

HOW = {
    "imagetok.heldout_psnr_db": "Mean over the test pictures of 10 log10(255^2 / mean squared "
    "error), the picture against itself through the tokenizer.",
    "imagetok.codes_used_share": "Share of the codebook that occurs in the codes of the test, "
    "validation and variant pictures (none of them seen in training).",
    "imagetok.code_perplexity_share": "2 to the entropy of those codes' frequencies, over the size "
    "of the codebook.",
    "imagetok.rfid": "Frechet distance of the Inception-v3 features of those pictures (test, "
    "validation, variants) and of the same through the tokenizer. Few pictures make it large: "
    "compare it with runs on the same ones.",
    "decoder.heldout_bits_per_code": "Mean negative log2-probability of the codes of the test "
    "pictures, given the caption, the earlier codes and the documents that the strategy retrieves "
    "for the caption (as many as `evaluation.retrieve`).",
    "decoder.heldout_one_a_concept_bits_per_code": "The same on one picture a concept: half of the "
    "test pictures are genders and skin tones of few concepts.",
    "decoder.heldout_bits_per_code_over_unigram": "Held-out bits over unigram bits.",
    "decoder.true_neighbours_bits_per_code": "The same with the documents that the strategy finds, "
    "one at least.",
    "decoder.random_neighbours_bits_per_code": "The same with as many documents drawn at random "
    "from the training split.",
    "decoder.no_neighbours_bits_per_code": "The same with no document.",
    "decoder.variants_bits_per_code": "The same as heldout, on held-out skin tones of concepts "
    "that are in training.",
    "decoder.train_bits_per_code": "The same as heldout, on as many training pictures.",
    "decoder.unigram_bits_per_code": "Entropy of the frequencies of the test pictures' own codes: "
    "no code that ignores everything else can be shorter.",
    "decoder.position_unigram_bits_per_code": "Bits of the test codes under each position's "
    "frequencies in training, smoothed by 50 counts of the overall frequencies.",
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


def how(report: dict[str, Any]) -> dict[str, str]:
    """How each figure that the report has is computed; not every run has every figure."""

    def has(part: str, figure: str) -> bool:
        return part in report and (not figure or figure in report[part])

    return {name: text for name, text in HOW.items() if has(*name.partition(".")[::2])}


def image_tokenizer_figures(run: Run) -> dict[str, Any]:
    """Quality and codebook use on pictures that training has not seen."""
    tokenizer = run.image_tokenizer
    weights = run.recipe.imagetok.inception
    features = None if weights is None else inception_features(weights)
    decibels, codes, real, rebuilt = [], [], [], []
    test = set(run.pairs.rows("test").tolist())
    rows = run.pairs.rows("test", "validation", "variants")
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        pixels = run.pixels_of(part)
        images = to_tensor(pixels)
        found = tokenizer.encode(images)
        seen = tokenizer.decode(found)
        quality = psnr(seen, images)
        decibels += [float(q) for q, row in zip(quality, part, strict=True) if int(row) in test]
        codes.append(found)
        if features is not None:
            real.append(features(pixels))
            rebuilt.append(features(to_pixels(seen)))
    use = codebook_use(torch.cat(codes), tokenizer.num_codes)
    figures: dict[str, Any] = {
        "heldout_psnr_db": float(np.mean(decibels)),
        "codes_per_picture": run.grid[0] * run.grid[1],
        "num_codes": tokenizer.num_codes,
        "codes_used_share": use.used_share,
        "code_perplexity_share": use.perplexity_share,
    }
    if features is not None:
        figures["rfid"] = frechet_distance(torch.cat(real), torch.cat(rebuilt))
    return figures


def bits_per_code(
    run: Run, rows: np.ndarray, retrieve: Callable[[int, int], Sequence[int]] | None
) -> float:
    """Mean bits of the codes of pairs, given caption and retrieved documents."""
    words, block = run.vocabulary, run.vocabulary.image
    loader = ValidationLoader(
        run.sequences(retrieve, None),
        run.pairs.keys[rows],
        32,
        pad_id=words.pad_id,
        query_break_id=words.break_id,
    )
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in loader:
            hidden = run.model.hidden(batch["input_ids"])
            losses, labels = token_losses(hidden, batch["labels"], run.model.head)
            codes, _ = split_losses(losses, labels, (block.offset, block.stop))
            total, count = total + float(codes.double().sum()), count + len(codes)
    return total / count / math.log(2)


def decoder_figures(run: Run) -> dict[str, Any]:
    """Bits per code with true, random and no neighbours, beside baselines without a model."""
    test, train = run.pairs.rows("test"), run.pairs.rows("train")
    rng = np.random.default_rng(run.recipe.seed)
    count = max(1, run.recipe.evaluation.retrieve)
    training_keys = run.pairs.keys[train]

    def true(key: int, epoch: int) -> list[int]:
        return [int(k) for k in run.neighbours.candidates(key)["text"]][:count]

    def random(key: int, epoch: int) -> list[int]:
        return rng.choice(training_keys, len(true(key, epoch)), replace=False).tolist()

    test_codes = np.stack([run.shards.codes(int(k)) for k in run.pairs.keys[test]])
    train_codes = np.stack([run.shards.codes(int(k)) for k in training_keys])
    unigram = codebook_use(
        torch.from_numpy(test_codes.astype(np.int64)), run.image_tokenizer.num_codes
    )
    with_true = bits_per_code(run, test, true)
    with_none = bits_per_code(run, test, None)
    heldout = with_true if run.recipe.evaluation.retrieve else with_none
    some = np.sort(rng.choice(train, min(len(train), len(test)), replace=False))
    figures = {
        "heldout_bits_per_code": heldout,
        "heldout_one_a_concept_bits_per_code": bits_per_code(
            run,
            one_a_concept(run, "test"),
            run.true_documents if run.recipe.evaluation.retrieve else None,
        ),
        "unigram_bits_per_code": unigram.entropy_bits,
        "heldout_bits_per_code_over_unigram": heldout / unigram.entropy_bits,
        "position_unigram_bits_per_code": position_unigram_bits(
            train_codes, test_codes, run.image_tokenizer.num_codes
        ),
        "true_neighbours_bits_per_code": with_true,
        "random_neighbours_bits_per_code": bits_per_code(run, test, random),
        "no_neighbours_bits_per_code": with_none,
        "train_bits_per_code": bits_per_code(run, some, run.true_documents),
        "parameters": sum(p.numel() for p in run.model.parameters()),
    }
    variants = run.pairs.rows("variants")
    if len(variants):
        figures["variants_bits_per_code"] = bits_per_code(run, variants, run.true_documents)
    return figures


def position_unigram_bits(train: np.ndarray, test: np.ndarray, num_codes: int) -> float:
    """Bits a code of test codes (M, n) under the frequencies at each position of train (N, n)."""
    overall = np.bincount(train.ravel(), minlength=num_codes) + 1.0
    overall /= overall.sum()
    bits = []
    for position in range(train.shape[1]):
        counts = np.bincount(train[:, position], minlength=num_codes) + 50.0 * overall
        bits.append(-np.log2(counts[test[:, position]] / counts.sum()))
    return float(np.mean(bits))


def one_a_concept(run: Run, *splits: str) -> np.ndarray:
    """The first row of each group in the given splits, in an order that mixes the categories."""
    rows = run.pairs.rows(*splits)
    _, first = np.unique(run.group_numbers[rows], return_index=True)
    rng = np.random.default_rng(run.recipe.seed)
    return rows[rng.permutation(first)]


def vectors_of(encoder: Encoder, pixels: np.ndarray) -> np.ndarray:
    """CLIP image vectors (..., dim) of pixels (..., H, W, 3)."""
    flat = pixels.reshape(-1, *pixels.shape[-3:])
    vectors = encode_pictures(encoder, lambda rows: flat[rows], len(flat), lambda *_: None)
    return vectors.reshape(*pixels.shape[:-3], -1)


@dataclass(frozen=True)
class Drawings:
    """Candidates of N prompts, C each, and how CLIP likes them."""

    pixels: np.ndarray
    """(N, C, H, W, 3) uint8."""
    vectors: np.ndarray
    """(N, C, dim) CLIP image vectors."""
    scores: np.ndarray
    """(N, C) cosines with the caption's CLIP text vector."""

    @property
    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, H, W, 3) and vectors (N, dim) of each prompt's best candidate."""
        place = np.arange(len(self.scores)), self.scores.argmax(1)
        return self.pixels[place], self.vectors[place]


def draw_for(
    run: Run, rows: np.ndarray, scale: float, seed: int, what: str, candidates: int = 1
) -> Drawings:
    """Draw for the caption of each pair, with the documents that its caption finds."""
    recipe = run.recipe.evaluation
    captions = [run.pairs.captions[row] for row in rows]
    contexts = [run.true_documents(int(run.pairs.keys[row])) for row in rows]
    turns = len(recipe.samplers)
    places = [range(first, candidates, turns) for first in range(min(turns, candidates))]
    parts: list[np.ndarray] = []
    for sampler, members in zip(recipe.samplers, places, strict=False):
        with bar(f"{what}, {sampler}", unit="step") as progress:
            drawn = draw(
                run,
                [caption for caption in captions for _ in members],
                [context for context in contexts for _ in members],
                replace(recipe.sampling, guidance_scale=scale, sampler=sampler),
                [seed + row * candidates + c for row in range(len(rows)) for c in members],
                progress,
                recipe.batch_size,
            )
        parts.append(drawn.reshape(len(rows), len(members), *drawn.shape[1:]))
    order = np.argsort([c for members in places for c in members])
    pixels = np.concatenate(parts, 1)[:, order]
    vectors = vectors_of(run.encoder, pixels)
    scores = np.einsum("ncd,nd->nc", vectors, run.encoder.encode_texts(captions))
    return Drawings(pixels, vectors, scores)


def guidance_sweep(run: Run) -> tuple[float, list[dict[str, float]]]:
    """The best guidance scale on validation prompts, and the whole sweep."""
    recipe = run.recipe.evaluation
    concepts = one_a_concept(run, "validation")
    rows = np.resize(concepts, recipe.sweep_samples)
    truth = run.image_vectors[rows]
    sweep = []
    for scale in recipe.guidance_scales:
        _, drawn = draw_for(run, rows, scale, 10_000, f"guidance {scale}").best
        cosines = drawn.dot(truth.T)  # (N, N)
        same = rows[:, None] == rows[None]
        others = cosines[~same].mean() if (~same).any() else 0.0
        gain = np.diag(cosines).mean() - others
        sweep.append({"guidance_scale": scale, "similarity_gain": float(gain)})
    best = max(sweep, key=lambda entry: entry["similarity_gain"])
    return best["guidance_scale"], sweep


def sample_figures(run: Run, scale: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Whether drawn pictures match their prompts; also rows and pixels of what was drawn."""
    count, candidates = run.recipe.evaluation.samples, run.recipe.evaluation.candidates
    gallery = one_a_concept(run, "train", "validation", "test")
    gallery_vectors = run.image_vectors[gallery]
    figures: dict[str, Any] = {
        "guidance_scale": scale,
        "candidates": candidates,
        "gallery": len(gallery),
    }

    test = np.resize(one_a_concept(run, "test"), count)
    drawn = draw_for(run, test, scale, 20_000, "held-out prompts", candidates)
    test_pixels, vectors = drawn.best
    categories = np.array(run.pairs.categories, dtype=object)
    if any(categories):
        wanted = categories[test]

        def found(vectors: np.ndarray) -> np.ndarray:
            return categories[gallery[vectors.dot(gallery_vectors.T).argmax(1)]]

        real = vectors_of(run.encoder, run.through_tokenizer(run.pixels_of(test)))
        nearest = found(vectors)
        match, chance = share(nearest, wanted), match_by_chance(wanted, nearest)
        figures |= {
            "category_match": match,
            "category_match_one_candidate": share(found(drawn.vectors[:, 0]), wanted),
            "category_match_shuffled": chance,
            "category_match_over_shuffled": match / chance if chance else None,
            "category_match_ceiling": share(found(real), wanted),
            "category_match_retrieved": retrieved_match(run, test, wanted, categories),
        }

    known = np.flatnonzero(run.pairs.split[gallery] == "train")
    rng = np.random.default_rng(run.recipe.seed)
    places = rng.choice(known, min(count, len(known)), replace=False)
    train = gallery[places]

    def near(vectors: np.ndarray) -> np.ndarray:
        return among_nearest(vectors.dot(gallery_vectors.T), places, 10)

    drawn = draw_for(run, train, scale, 30_000, "training prompts", candidates)
    train_pixels, vectors = drawn.best
    hits = near(vectors)
    real = vectors_of(run.encoder, run.through_tokenizer(run.pixels_of(train)))
    figures |= {
        "train_top10": float(np.diag(hits).mean()),
        "train_top10_one_candidate": float(np.diag(near(drawn.vectors[:, 0])).mean()),
        "train_top10_shuffled": float(hits[~np.eye(len(hits), dtype=bool)].mean()),
        "train_top10_ceiling": float(np.diag(near(real)).mean()),
    }
    pictures = {
        "test": test,
        "test_pixels": test_pixels,
        "train": train,
        "train_pixels": train_pixels,
    }
    return figures, pictures


def share(found: np.ndarray, wanted: np.ndarray) -> float:
    """Share of equal labels."""
    return float((found == wanted).mean())


def retrieved_match(
    run: Run, rows: np.ndarray, wanted: np.ndarray, categories: np.ndarray
) -> float | None:
    """Share of the pairs whose best retrieved document is of the wanted category."""
    row_of = {int(key): row for row, key in enumerate(run.pairs.keys)}
    found = [run.true_documents(int(run.pairs.keys[row]))[-1:] for row in rows]
    if not all(found):
        return None
    return float(
        np.mean([categories[row_of[key]] == w for (key,), w in zip(found, wanted, strict=True)])
    )


def match_by_chance(wanted: np.ndarray, found: np.ndarray) -> float:
    """Share of equal labels expected when ``wanted`` (N,) is dealt to ``found`` (N,) at random."""
    return float(sum((wanted == label).mean() * (found == label).mean() for label in set(wanted)))


def among_nearest(similarity: np.ndarray, places: np.ndarray, k: int) -> np.ndarray:
    """(N, N) bool: is gallery place ``places[j]`` among the k most similar to picture i?

    Args:
        similarity: (N, G) of N pictures to G pictures of the gallery.
        places: (N,) columns of ``similarity``.
        k: How many count as near.
    """
    kth = np.partition(similarity, -min(k, similarity.shape[1]), axis=1)[
        :, -min(k, similarity.shape[1])
    ]
    return similarity[:, places] >= kth[:, None]
