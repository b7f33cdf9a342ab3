"""Following instructions: pictures and texts that a tuned model makes of records (paper 4).

A task is data (`cm3_texttok.Task`): what is asked for, and so how, depends on it alone. A picture
at the end of the instruction is drawn under guidance; a text before a picture is read behind
`<infill>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from cm3_decoding import Row, SamplingConfig, Stream
from cm3_texttok import InstructionLayout, Task, Template
from cm3leon.drawing.continuation import Continuation, picture_so_far
from cm3leon.drawing.prompts import fitting, pairs_of, text_to_end
from cm3leon.parts import Parts

TEXT_LENGTH = 120
"""Most tokens of an answer."""
SHORT = 64
"""Tokens of an answer for which documents before it leave room; training leaves as much as the
answer needs."""


def drawing_records(
    parts: Parts,
    task: Task,
    records: Sequence[Mapping[str, Any]],
    *,
    sampling: SamplingConfig,
    seeds: np.ndarray,
) -> Continuation[np.ndarray]:
    """Return what draws the pictures that records ask for, as codes (N, C, h * w), int64.

    Guidance is by the texts that are given: a guide or a source picture stays in both streams. With
    `image_guidance_scale` it is by pictures apart (paper 4.1).

    Args:
        parts: A tuned run's.
        task: One that asks for a picture.
        records: N, each with texts and codes of pictures by field; the first template that one
            fills is used.
        sampling: How to draw.
        seeds: (N, C) one for each candidate.

    Raises:
        ValueError: A record fills no template.
    """
    tokenizers, (count, candidates) = parts.tokenizers, seeds.shape
    layout = InstructionLayout(tokenizers.text, tokenizers.vocabulary)
    apart = sampling.image_guidance_scale is not None
    rows: list[Row] = []
    for record, own_seeds in zip(records, seeds, strict=True):
        whole, pictures, bare = prompts_of(layout, task, record)
        prompts: dict[Stream, torch.Tensor] = {
            "conditional": whole,
            "image_conditional": pictures,
            "unconditional": bare if apart else pictures,
        }
        rows += [
            Row(prompts=prompts, segments=[tokenizers.picture], config=sampling, seed=int(seed))
            for seed in own_seeds
        ]

    def finish(ids: Sequence[torch.Tensor]) -> np.ndarray:
        codes = tokenizers.vocabulary.ids_to_codes(torch.stack(list(ids)).numpy())
        return codes.reshape(count, candidates, -1)

    return Continuation(rows=rows, finish=finish, codes_so_far=partial(picture_so_far, parts))


def answering_records(
    parts: Parts,
    task: Task,
    records: Sequence[Mapping[str, Any]],
    *,
    contexts: Sequence[Sequence[int]] | None = None,
    template: int = 0,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    most: int = TEXT_LENGTH,
) -> Continuation[list[str]]:
    """Return what writes the texts that records ask for.

    Args:
        parts: A tuned run's.
        task: One that asks for texts.
        records: N, each with texts and codes of pictures by field.
        contexts: Keys of the documents before each, the best last; None: none.
        template: Which of the task's templates to ask by.
        sampling: How to draw; None takes the likeliest token each time.
        seed: Of all draws.
        most: Tokens of an answer, as far as they fit behind the prompt.
    """
    tokenizers = parts.tokenizers
    layout = InstructionLayout(tokenizers.text, tokenizers.vocabulary)
    chosen = task.parsed[template]
    rows = []
    for record, keys in zip(records, contexts or [()] * len(records), strict=True):
        bare = layout.prompt(chosen, record, task.outputs)
        pairs = pairs_of(parts, fitting(parts, keys, len(bare), min(most, SHORT)))
        whole = layout.prompt(chosen, record, task.outputs, context=pairs)
        room = parts.model.config.max_length - len(whole)
        rows.append(
            Row(
                prompts={"conditional": torch.from_numpy(whole)},
                segments=[text_to_end(tokenizers, max(1, min(most, room)))],
                config=sampling or SamplingConfig(sampler="greedy"),
                seed=seed,
            )
        )

    def finish(ids: Sequence[torch.Tensor]) -> list[str]:
        return [tokenizers.text.decode(row.tolist()).strip() for row in ids]

    return Continuation(rows=rows, finish=finish)


def prompts_of(
    layout: InstructionLayout, task: Task, record: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the prompts of three streams: all that is given, its pictures alone, nothing of it.

    Raises:
        ValueError: The record fills no template.
    """
    template = fitting_template(task, record)
    return (
        torch.from_numpy(layout.prompt(template, record, task.outputs)),
        torch.from_numpy(
            layout.prompt(template, record, task.outputs, masked=_given(template, task, "text"))
        ),
        torch.from_numpy(
            layout.prompt(
                template, record, task.outputs, masked=_given(template, task, "text", "picture")
            )
        ),
    )


def fitting_template(task: Task, record: Mapping[str, Any]) -> Template:
    """Return the first template whose given fields a record has.

    Raises:
        ValueError: There is none.
    """
    for template in task.parsed:
        wanted = _given(template, task, "text", "picture")
        if all(len(record.get(name, ())) for name in wanted):
            return template
    raise ValueError(
        f"{task.name}: wanted {sorted({*task.texts, *task.pictures} - set(task.outputs))}, "
        f"got {sorted(record)}"
    )


def _given(template: Template, task: Task, *kinds: str) -> set[str]:
    return {
        piece.value
        for piece in template.pieces
        if piece.kind in kinds and piece.value not in task.outputs
    }
