"""Following instructions: pictures and texts that a tuned model makes of records (paper 4).

A task is data (`cm3_texttok.Task`): what is asked for, and so how, depends on it alone. A picture
at the end of the instruction is drawn under guidance; a text before a picture is read behind
`<infill>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cm3_decoding import SamplingConfig, generate
from cm3_texttok import InstructionLayout, Task, Template
from cm3leon.drawing.draw import Progress
from cm3leon.drawing.prompts import fitting, pairs_of, text_to_end
from cm3leon.parts import Parts

TEXT_LENGTH = 120
"""Most tokens of an answer."""
SHORT = 64
"""Tokens of an answer for which documents before it leave room; training leaves as much as the
answer needs."""


def draw_records(
    parts: Parts,
    task: Task,
    records: Sequence[Mapping[str, Any]],
    *,
    sampling: SamplingConfig,
    seeds: np.ndarray,
    progress: Progress | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """Draw the pictures that records ask for.

    Guidance is by the texts that are given: a guide or a source picture stays in both streams. With
    `image_guidance_scale` it is by pictures apart (paper 4.1).

    Args:
        parts: A tuned run's.
        task: One that asks for a picture.
        records: N, each with texts and codes of pictures by field; the first template that one
            fills is used.
        sampling: How to draw.
        seeds: (N, C) one for each candidate.
        progress: Called with (steps done, steps in all).
        batch_size: Pictures drawn at once.

    Returns:
        Codes (N, C, h * w), int64.

    Raises:
        ValueError: A record fills no template.
    """
    layout = InstructionLayout(parts.tokenizers.text, parts.tokenizers.vocabulary)
    streams = [prompts_of(layout, task, record) for record in records]
    count, candidates = seeds.shape
    places = [(row, candidate) for row in range(count) for candidate in range(candidates)]
    batches = [places[at : at + batch_size] for at in range(0, len(places), batch_size)]
    codes = np.empty((count, candidates, parts.tokenizers.num_codes_per_image), np.int64)
    apart = sampling.image_guidance_scale is not None
    for done, batch in enumerate(batches):

        def report(step: int, steps: int, done: int = done) -> None:
            if progress is not None:
                progress(done * steps + step, len(batches) * steps)

        rows = [streams[row] for row, _ in batch]
        ids = generate(
            parts.model,
            [whole for whole, _, _ in rows],
            unconditional=[bare if apart else pictures for _, pictures, bare in rows],
            image_conditional=[pictures for _, pictures, _ in rows],
            constraint=parts.tokenizers.picture,
            config=sampling,
            seeds=[int(seeds[place]) for place in batch],
            progress=report,
            device=parts.device,
        )
        found = parts.tokenizers.vocabulary.ids_to_codes(torch.stack(ids).numpy())
        for place, row in zip(batch, found, strict=True):
            codes[place] = row
    return codes


def answer_records(
    parts: Parts,
    task: Task,
    records: Sequence[Mapping[str, Any]],
    *,
    contexts: Sequence[Sequence[int]] | None = None,
    template: int = 0,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    batch_size: int = 32,
    most: int = TEXT_LENGTH,
) -> list[str]:
    """Return the texts that records ask for.

    Args:
        parts: A tuned run's.
        task: One that asks for texts.
        records: N, each with texts and codes of pictures by field.
        contexts: Keys of the documents before each, the best last; None: none.
        template: Which of the task's templates to ask by.
        sampling: How to draw; None takes the likeliest token each time.
        seed: Of all draws.
        progress: Called with (records done, records in all).
        batch_size: Records answered at once.
        most: Tokens of an answer, as far as they fit behind the prompt.
    """
    tokenizers = parts.tokenizers
    layout = InstructionLayout(tokenizers.text, tokenizers.vocabulary)
    chosen = task.parsed[template]
    prompts = []
    for record, keys in zip(records, contexts or [()] * len(records), strict=True):
        bare = layout.prompt(chosen, record, task.outputs)
        pairs = pairs_of(parts, fitting(parts, keys, len(bare), min(most, SHORT)))
        whole = layout.prompt(chosen, record, task.outputs, context=pairs)
        prompts.append(torch.from_numpy(whole))
    said: list[str] = []
    for start in range(0, len(prompts), batch_size):
        part = prompts[start : start + batch_size]
        room = parts.model.config.max_length - max(map(len, part))
        ids = generate(
            parts.model,
            part,
            constraint=text_to_end(tokenizers, max(1, min(most, room))),
            config=sampling or SamplingConfig(sampler="greedy"),
            seeds=[seed] * len(part),
            device=parts.device,
        )
        said += [tokenizers.text.decode(row.tolist()).strip() for row in ids]
        if progress is not None:
            progress(len(said), len(prompts))
    return said


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
