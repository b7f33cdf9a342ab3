"""The sequences that the decoder trains on, batches of them, and what the objective makes of them.

key -> retrieved documents and the pair -> `<eos> T <break> I <break> T <break> I <eos>` -> CM3
(paper 2.1 and 2.2) -> a batch of padded rows, or long rows that hold several.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cm3_retrieval import training_context
from cm3_texttok import Vocabulary
from cm3_train import BatchLoader, PackedLoader, Sample, SampleOrder, SequenceBuilder, query_start
from cm3_train.loader import build_batch
from cm3leon.data.memory import Neighbours
from cm3leon.data.tokens import Retrieve, sequence_builder
from cm3leon.decoder_recipe import DecoderRecipe
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.parts import Documents

OBJECTIVE_FILE = "objective.json"
COUNTED = 1000
"""Sequences that the objective's figures are counted in."""


@dataclass(frozen=True)
class TrainingSequences:
    """Callable `(key, epoch) -> Sample` with a drawn number of retrieved documents."""

    builders: list[SequenceBuilder]
    """With 0, 1, 2, ... retrieved documents."""
    shares: np.ndarray
    """(len(builders),) how often each is taken."""
    seed: int

    def __call__(self, key: int, epoch: int) -> Sample:
        """Return the sequence of a pair, with a number of documents that key and epoch draw."""
        return self.drawn(epoch, key & 0xFFFF_FFFF_FFFF_FFFF)(key, epoch)

    def drawn(self, *of: int) -> SequenceBuilder:
        """Return the builder that a generator seeded by the run and `of` draws."""
        rng = np.random.default_rng((self.seed, 7, *of))
        return self.builders[int(rng.choice(len(self.shares), p=self.shares))]


def training_sequences(
    recipe: DecoderRecipe,
    tokenizers: Tokenizers,
    documents: Documents,
    neighbours: Neighbours,
    seed: int,
) -> TrainingSequences:
    """Return what builds training sequences; arguments as of `train_decoder`."""

    def builder(count: int) -> SequenceBuilder:
        def retrieve(key: int, epoch: int) -> list[int]:
            return training_context(neighbours.training, key, n=count, seed=seed, epoch=epoch)

        found: Retrieve | None = retrieve if count else None
        return sequence_builder(
            tokenizers,
            documents,
            found,
            recipe.cm3,
            max_length=recipe.max_length,
            seed=seed,
            plain_share=recipe.plain_share,
        )

    shares = np.array(recipe.context_shares) / sum(recipe.context_shares)
    return TrainingSequences([builder(count) for count in range(len(shares))], shares, seed)


def training_batches(
    recipe: DecoderRecipe,
    sequences: TrainingSequences,
    keys: np.ndarray,
    seed: int,
    *,
    pad_id: int,
    rank: int = 0,
    ranks: int = 1,
    workers: int = 0,
) -> BatchLoader | PackedLoader:
    """Return endless batches of the training sequences of `keys`.

    A padded batch has one number of retrieved documents, drawn by `context_shares` from a generator
    of its place in the run: so no row is padded to the length of another row's documents, and all
    ranks draw the same. In packed rows each sequence has a number of its own.

    Args:
        recipe: Sizes of batches and rows.
        sequences: What builds a sequence.
        keys: (N,) of the training pairs.
        seed: Of the order.
        pad_id: Fills the rows up.
        rank: This process, of `ranks` that have batches of their own.
        ranks: How many there are.
        workers: Processes that build batches ahead.
    """
    accumulate = recipe.accumulate(ranks)
    shared = recipe.batch_size // ranks if recipe.tokens_per_step is None else recipe.batch_size

    def make_batch(keys: np.ndarray, epochs: np.ndarray, position: int) -> dict[str, Tensor]:
        return build_batch(sequences.drawn(position), keys, epochs, pad_id)

    order = SampleOrder(keys, seed, shared, ranks, rank)
    if recipe.packed_length is not None:
        return PackedLoader(
            sequences,
            order,
            recipe.packed_length,
            pad_id=pad_id,
            accumulate=accumulate,
            workers=workers,
        )
    return BatchLoader(make_batch, order, workers=workers)


def objective_figures(
    sequences: TrainingSequences, keys: np.ndarray, words: Vocabulary
) -> dict[str, float]:
    """Count what the objective does in the first epoch's sequences of up to `COUNTED` keys.

    Guidance's stream without the text, and captioning, are prompts whose whole caption is a mask:
    `whole_caption_share` says how often training shows one.
    """
    some = keys[:: max(1, len(keys) // COUNTED)][:COUNTED].tolist()
    cut, whole, spans, pairs, length = 0, 0, 0, 0, 0
    for key in some:
        ids = sequences(key, 0).ids
        infills = np.flatnonzero(ids == words.infill_id)
        body = ids[: infills[0]] if len(infills) else ids
        start = query_start(body, words.break_id)
        masks = np.isin(body, words.mask_ids)
        cut += len(infills)
        spans += int(masks.sum())
        whole += bool(masks[start] and body[start + 1] == words.break_id)
        pairs += (int((body == words.break_id).sum()) + 1) // 2
        length += len(ids)
    count = len(some)
    return {
        "cut_share": cut / count,
        "whole_caption_share": whole / count,
        "spans_a_cut_document": spans / max(1, cut),
        "retrieved_documents": pairs / count - 1,
        "ids": length / count,
        "sequences": count,
    }
