"""How well the model foretells held-out pairs: perplexity of codes and of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cm3_train import token_losses
from cm3leon.evaluation.bits import held_out_batches
from cm3leon.evaluation.tasks.interface import Examined, Missing, Outputs, Scores

HOW = {
    "image_perplexity": "Exponential of the mean negative log-probability of an image code, given "
    "documents, caption and the earlier codes.",
    "text_perplexity": "The same of a token of the caption, given documents and earlier tokens. "
    "Depends on the text tokenizer: compare it between runs with one tokenizer alone.",
    "image_bits_per_code": "The first as bits; mean over pairs.",
    "text_bits_per_token": "The second as bits; mean over pairs.",
}
KINDS = {"image_bits_per_code": "image_perplexity", "text_bits_per_token": "text_perplexity"}


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """Reads held-out pairs as plain documents."""

    split: str = "test"
    number: int = 1000
    """Most pairs."""
    retrieve: int | None = None
    """Documents before a pair; null: as the run does."""

    def records(self, examined: Examined) -> list[int]:
        """Return rows of pairs."""
        pairs = examined.captioned("perplexity").pictures.pairs
        rows = pairs.rows(self.split)
        if not len(rows):
            raise Missing(f"perplexity: wanted pairs of split {self.split}, got none")
        return np.random.default_rng(examined.seed).permutation(rows)[: self.number].tolist()

    def data(self, examined: Examined, records: Sequence[int]) -> str:
        """Return keys and captions."""
        pairs = examined.captioned("perplexity").pictures.pairs
        return repr([(int(pairs.keys[row]), pairs.captions[row]) for row in records])

    def make(self, examined: Examined, records: Sequence[int], first: int) -> Outputs:
        """Return the mean bits (N,) of each pair's codes and of its text."""
        subject, parts = examined.captioned("perplexity"), examined.parts
        pairs, words = subject.pictures.pairs, parts.tokenizers.vocabulary

        def context(row: int) -> Sequence[int]:
            if self.retrieve is None:
                return subject.context(row)
            return subject.neighbours.for_caption(int(pairs.keys[row]), self.retrieve)

        rows = np.array(records)
        (batch,) = held_out_batches(parts, pairs, rows, context, len(records))
        with torch.inference_mode():
            ids, labels = (batch[name].to(parts.device) for name in ("input_ids", "labels"))
            losses = token_losses(parts.model.hidden(ids), labels, parts.model.head_weight)
        row = (labels != -100).nonzero()[:, 0].cpu().numpy()
        is_code = (losses.labels >= words.image.offset) & (losses.labels < words.image.stop)
        bits, code = losses.nats.double().cpu().numpy() / np.log(2), is_code.cpu().numpy()
        return {
            name: _means(bits[mine], row[mine], len(records))
            for name, mine in zip(KINDS, (code, ~code), strict=True)
        }

    def score(self, examined: Examined, records: Sequence[int], outputs: dict[str, Any]) -> Scores:
        """Average over pairs."""
        values = {name: outputs[name] for name in KINDS}
        figures = {name: float(np.nanmean(found)) for name, found in values.items()}
        return Scores(
            figures=figures | {KINDS[name]: 2**value for name, value in figures.items()},
            how=HOW,
            values=values,
            tools={"vocabulary": examined.parts.tokenizers.vocabulary.sha256},
        )


def _means(values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Return the mean of values (M,) of each row (M,), (count,); NaN of a row without any."""
    number = np.bincount(rows, minlength=count)
    with np.errstate(invalid="ignore"):
        return np.bincount(rows, values, minlength=count) / number
