"""Bits per image code of the decoder, beside baselines without a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from cm3_imagetok import codebook_use
from cm3_train import ValidationLoader, split_losses, token_losses
from cm3leon.data.pairs import Pairs
from cm3leon.data.tokens import sequence_builder
from cm3leon.evaluation.subject import Subject
from cm3leon.parts import Parts

HOW = {
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
}


def bits_per_code(
    parts: Parts,
    pairs: Pairs,
    rows: np.ndarray,
    context: Callable[[int], Sequence[int]] | None,
    batch_size: int = 32,
) -> float:
    """Compute the mean bits of the codes of pairs, given caption and retrieved documents.

    Args:
        parts: The run's parts.
        pairs: Where `rows` are rows of.
        rows: (N,) pairs whose codes count.
        context: Row -> keys of the documents before it, the best last; None: no documents.
        batch_size: Sequences at once.
    """
    block = parts.tokenizers.vocabulary.image
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in held_out_batches(parts, pairs, rows, context, batch_size):
            ids, labels = (batch[name].to(parts.device) for name in ("input_ids", "labels"))
            losses = token_losses(parts.model.hidden(ids), labels, parts.model.head_weight)
            codes, _ = split_losses(losses.nats, losses.labels, (block.offset, block.stop))
            total, count = total + float(codes.double().sum()), count + len(codes)
    return total / count / math.log(2)


def held_out_batches(
    parts: Parts,
    pairs: Pairs,
    rows: np.ndarray,
    context: Callable[[int], Sequence[int]] | None,
    batch_size: int,
) -> ValidationLoader:
    """Return pairs as plain documents whose own part counts; arguments as of `bits_per_code`."""
    row_of = {int(pairs.keys[row]): int(row) for row in rows}
    builder = sequence_builder(
        parts.tokenizers,
        parts.memory.documents,
        None if context is None else lambda key, epoch: context(row_of[key]),
        None,
        max_length=parts.model.config.max_length,
        seed=0,
        plain_share=1.0,
        query_only=True,
    )
    pad_id = parts.tokenizers.vocabulary.pad_id
    return ValidationLoader(builder, pairs.keys[rows], batch_size, pad_id=pad_id)


def decoder_figures(subject: Subject) -> dict[str, float]:
    """Compute bits per code with true, random and no neighbours, beside the baselines."""
    parts, pairs = subject.parts, subject.pictures.pairs
    num_codes = parts.tokenizers.image.num_codes
    test, train = pairs.rows("test"), pairs.rows("train")
    rng = np.random.default_rng(subject.seed)
    count = max(1, subject.recipe.retrieve)

    def true(row: int) -> list[int]:
        return subject.neighbours.for_caption(int(pairs.keys[row]), count)

    def random(row: int) -> list[int]:
        return rng.choice(pairs.keys[train], len(true(row)), replace=False).tolist()

    def codes_of(rows: np.ndarray) -> np.ndarray:
        return np.stack([parts.memory.documents.codes(int(key)) for key in pairs.keys[rows]])

    test_codes, train_codes = codes_of(test), codes_of(train)
    unigram = codebook_use(torch.from_numpy(test_codes.astype(np.int64)), num_codes)
    with_true = bits_per_code(parts, pairs, test, true)
    with_none = bits_per_code(parts, pairs, test, None)
    heldout = with_true if subject.recipe.retrieve else with_none
    some = np.sort(rng.choice(train, min(len(train), len(test)), replace=False))
    concepts = subject.one_a_concept("test")
    figures = {
        "heldout_bits_per_code": heldout,
        "heldout_one_a_concept_bits_per_code": bits_per_code(
            parts, pairs, concepts, subject.context
        ),
        "unigram_bits_per_code": unigram.entropy_bits,
        "position_unigram_bits_per_code": position_unigram_bits(train_codes, test_codes, num_codes),
        "true_neighbours_bits_per_code": with_true,
        "random_neighbours_bits_per_code": bits_per_code(parts, pairs, test, random),
        "no_neighbours_bits_per_code": with_none,
        "train_bits_per_code": bits_per_code(parts, pairs, some, subject.context),
        "parameters": sum(p.numel() for p in parts.model.parameters()),
    }
    if unigram.entropy_bits:  # else all test pictures are one code
        figures["heldout_bits_per_code_over_unigram"] = heldout / unigram.entropy_bits
    variants = pairs.rows("variants")
    if len(variants):
        figures["variants_bits_per_code"] = bits_per_code(parts, pairs, variants, subject.context)
    return figures


def position_unigram_bits(train: np.ndarray, test: np.ndarray, num_codes: int) -> float:
    """Compute bits a code of test (M, n) under the frequencies at each position of train (N, n)."""
    overall = np.bincount(train.ravel(), minlength=num_codes) + 1.0
    overall /= overall.sum()
    bits = []
    for position in range(train.shape[1]):
        counts = np.bincount(train[:, position], minlength=num_codes) + 50.0 * overall
        bits.append(-np.log2(counts[test[:, position]] / counts.sum()))
    return float(np.mean(bits))
