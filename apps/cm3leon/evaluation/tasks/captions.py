"""Captions of held-out pictures, held against what people said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from cm3_decoding import SamplingConfig, generate
from cm3leon.drawing.describe import CAPTION_LENGTH, read_captions
from cm3leon.drawing.prompts import fitting, pairs_of, retrieve, text_to_end
from cm3leon.evaluation.measures.cider import CiderD
from cm3leon.evaluation.measures.overlap import bleu, rouge_l
from cm3leon.evaluation.tasks.captioned import RealPictures, captioned, said_data
from cm3leon.evaluation.tasks.following import answered, asked_of, said_data as said_of_records
from cm3leon.evaluation.tasks.interface import Examined, Outputs, Scores

HOW = {
    "cider_d": "CIDEr-D (arXiv 1411.5726) as pycocoevalcap computes it, 0..10, on words split as "
    "cm3leon.evaluation.measures.caption_words says; papers print it times 100. It depends on how "
    "many pictures there are.",
    **{
        f"bleu_{n}": f"BLEU-{n} (doi:10.3115/1073083.1073135) of all captions together, 0..1."
        for n in (1, 2, 3, 4)
    },
    "rouge_l": "Mean ROUGE-L as pycocoevalcap computes it, 0..1.",
    "exact": "Share of captions that are word for word a reference.",
}


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Describes pictures by the likeliest tokens: held-out pairs', or a set of instructions'."""

    of: Literal["pairs", "sets"] = "pairs"
    """Pairs of the run, read back as in pretraining; or sets of instructions that ask for it."""
    task: str = "coco_caption"
    """The task of the sets."""
    split: str = "test"
    """Of the pairs."""
    folder: Path | None = None
    """Pictures with a `metadata.jsonl` in place of the run's own."""
    number: int = 200
    """Most pictures."""

    def records(self, examined: Examined) -> list[Any]:
        """Return pictures, or records of sets, with all captions of each."""
        if self.of == "sets":
            return asked_of(examined, "captions", (self.task,), self.number, one_a_picture=True)
        examined.judge("captions")  # finds documents
        return captioned(examined, "captions", self.split, self.number, self.folder)

    def data(self, examined: Examined, records: Sequence[Any]) -> str:
        """Return pictures and references."""
        if self.of == "sets":
            return said_of_records(records)
        return said_data(records)

    def make(self, examined: Examined, records: Sequence[Any], first: int) -> Outputs:
        """Describe."""
        if self.of == "sets":
            return {"said": np.array(answered(examined, records), object)}
        parts = examined.parts
        tokenizers, layout = parts.tokenizers, parts.tokenizers.layout
        pixels = RealPictures(examined, records)[:]
        vectors = parts.encoder.encode_images(list(pixels))
        prompts = []
        for codes, vector in zip(tokenizers.encode(pixels), vectors, strict=True):
            found = retrieve(parts, "image", vector, None)
            kept = fitting(parts, found, len(layout.caption_prompt(codes)), CAPTION_LENGTH)
            context = pairs_of(parts, kept)
            prompts.append(torch.from_numpy(layout.caption_prompt(codes, context)))
        ids = generate(
            parts.model,
            prompts,
            constraint=text_to_end(tokenizers, CAPTION_LENGTH),
            config=SamplingConfig(sampler="greedy"),
            seeds=[examined.seed] * len(prompts),
            device=parts.device,
        )
        return {"said": np.array(read_captions(tokenizers, ids), object)}

    def score(self, examined: Examined, records: Sequence[Any], outputs: dict[str, Any]) -> Scores:
        """Compare with the references."""
        said, wanted = outputs["said"].tolist(), [list(one.references) for one in records]
        values = {
            "cider_d": CiderD(said, wanted).scores(),
            "rouge_l": rouge_l(said, wanted),
            "exact": np.array([one in some for one, some in zip(said, wanted, strict=True)], float),
        }
        figures = {name: float(found.mean()) for name, found in values.items()}
        figures |= {f"bleu_{n}": float(x) for n, x in enumerate(bleu(said, wanted), 1)}
        return Scores(
            figures=figures,
            how=HOW,
            values=values,
            tools={"words": "cm3leon.evaluation.measures.caption_words"},
            sheet=self._sheet(examined, records, said),
        )

    def _sheet(self, examined: Examined, records: Sequence[Any], said: Sequence[str]) -> Any:
        some = range(min(8, len(records)))
        if self.of == "sets":
            pictures = examined.parts.tokenizers.decode(
                np.stack([records[place].record.codes["image"] for place in some])
            )
        else:
            pictures = RealPictures(examined, records)[: len(some)]
        return [(said[place], [pictures[place]]) for place in some], ["picture"]
