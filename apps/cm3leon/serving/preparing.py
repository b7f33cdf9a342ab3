"""What is asked for, made ready for the scheduler: prompts, documents, and what becomes of the ids.

Everything here runs outside of the event loop, and touches the decoder's weights never.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cm3_decoding import SamplingConfig
from cm3_imagetok import square
from cm3leon.drawing import describe, draw, follow, records, redraw, sampling, teach
from cm3leon.drawing.continuation import Continuation
from cm3leon.drawing.prompts import retrieve_for_picture, scores_of
from cm3leon.instructions.features import WEIGHTLESS, open_feature
from cm3leon.parts import Parts
from cm3leon.serving.asked import (
    Ask,
    Asked,
    Boxes,
    Choices,
    Describe,
    Document,
    Draw,
    Edit,
    Infill,
    Pictures,
    Structure,
    Texts,
    Vary,
    Write,
)
from cm3leon.serving.documents import documents_of, found_for
from cm3leon.tuned import Tuned

CANDIDATES = 4
"""Pictures or texts where nobody says how many."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request that only lacks its new ids."""

    continuation: Continuation[Any]
    last_event: Callable[[Any], Pictures | Texts]
    """Makes the last event of the continuation's result."""
    documents: tuple[Document, ...] = ()
    """What stands before the prompt, the best first."""


def prepare(asked: Asked, parts: Parts, tuned: Tuned | None) -> Prepared:
    """Make a request ready.

    Args:
        asked: The request; a `Vary` must have its prompt.
        parts: The session's.
        tuned: What the run was tuned on, if it was.

    Raises:
        ValueError: It cannot be done; the message starts with the parameter's name.
    """
    match asked:
        case Draw():
            return _draw(asked, parts)
        case Describe():
            return _describe(asked, parts)
        case Infill():
            return _infill(asked, parts)
        case Vary():
            return _vary(asked, parts)
        case Ask():
            return _ask(asked, parts, _tuned(tuned))
        case _:
            return _follow(asked, parts, _tuned(tuned))


def _draw(asked: Draw, parts: Parts) -> Prepared:
    if asked.documents is None:
        keys, vector = found_for(parts, asked.prompt, asked.retrieve)
    else:
        keys = list(reversed(asked.documents))
        if keys and parts.retrieval is None:
            raise ValueError("documents: wanted none, as this run has no memory bank")
        vector = None
        if keys:
            vector = parts.encoder.encode_texts([asked.prompt])[0]
            try:
                scores_of(parts, keys, vector)
            except KeyError:
                wanted = "documents: wanted keys of this run's memory, got others"
                raise ValueError(wanted) from None
    return _drawing(asked, parts, asked.prompt, keys, vector)


def _vary(asked: Vary, parts: Parts) -> Prepared:
    assert asked.prompt is not None
    taught = teach.learn(parts, asked.picture, asked.prompt)
    key = taught.memory.taught[-1].key
    vector = parts.encoder.encode_texts([asked.prompt])[0]
    return _drawing(asked, taught, asked.prompt, [key], vector)


def _drawing(
    asked: Choices, parts: Parts, prompt: str, keys: Sequence[int], vector: np.ndarray | None
) -> Prepared:
    """Draw a prompt behind documents, the best last."""
    count = asked.candidates or CANDIDATES
    continuation = draw.drawing(
        parts,
        [prompt],
        contexts=[keys],
        samplers=sampling.samplers_of(parts.habits, asked.sampler, asked.changes, count),
        seeds=asked.seed + np.arange(count)[None],
    )

    def last_event(drawn: draw.Drawings) -> Pictures:
        order = describe.best_first(drawn.scores[0])
        return Pictures(
            pixels=drawn.pixels[0, order],
            seeds=tuple(asked.seed + int(place) for place in order),
            scores=_judged(parts, drawn.scores[0, order].tolist()),
        )

    documents = documents_of(parts, continuation.contexts[0], vector)
    return Prepared(continuation=continuation, last_event=last_event, documents=documents)


def _describe(asked: Describe, parts: Parts) -> Prepared:
    continuation = describe.describing(
        parts,
        asked.picture,
        candidates=asked.candidates or CANDIDATES,
        sampling=sampling.plain_sampler_of(parts.habits, asked.sampler, asked.changes),
        retrieved=asked.retrieve,
        seed=asked.seed,
    )

    def last_event(found: describe.Descriptions) -> Texts:
        return Texts(texts=tuple(found.captions), scores=_judged(parts, found.scores))

    keys = continuation.contexts[0]
    vector = parts.encoder.encode_images([_pixels(parts, asked)])[0] if keys else None
    documents = documents_of(parts, keys, vector)
    return Prepared(continuation=continuation, last_event=last_event, documents=documents)


def _infill(asked: Infill, parts: Parts) -> Prepared:
    continuation = redraw.redrawing(
        parts,
        asked.picture,
        redraw.painted_codes(parts.tokenizers, asked.mask),
        asked.prompt,
        candidates=asked.candidates or CANDIDATES,
        sampling=sampling.plain_sampler_of(parts.habits, asked.sampler, asked.changes),
        retrieved=asked.retrieve,
        seed=asked.seed,
    )

    def last_event(found: redraw.Redrawings) -> Pictures:
        hidden = np.where(found.masked[..., None], np.uint8(128), found.original)
        return Pictures(
            pixels=found.pixels,
            seeds=found.seeds,
            scores=_judged(parts, found.scores),
            shown={"picture": found.original, "masked": hidden},
        )

    keys = continuation.contexts[0]
    vector = parts.encoder.encode_texts([asked.prompt])[0] if keys else None
    documents = documents_of(parts, keys, vector)
    return Prepared(continuation=continuation, last_event=last_event, documents=documents)


def _ask(asked: Ask, parts: Parts, tuned: Tuned) -> Prepared:
    task, pixels = tuned.answering("ask"), _pixels(parts, asked)
    count = tuned.documents_before(task, asked.retrieve)
    keys = retrieve_for_picture(parts, pixels, count)[-1:]
    record = {"image": records.codes_of(parts, pixels), "question": asked.question}
    continuation = follow.answering_records(parts, task, [record], contexts=[keys])
    vector = parts.encoder.encode_images([pixels])[0] if keys else None
    return Prepared(
        continuation=continuation,
        last_event=lambda said: Texts(texts=tuple(said), scores=None),
        documents=documents_of(parts, keys, vector),
    )


def _follow(asked: Edit | Boxes | Write | Structure, parts: Parts, tuned: Tuned) -> Prepared:
    wanted = _wanted(asked, parts, tuned)
    task = tuned.task(wanted.task)
    config = _sampling(asked, tuned, wanted.task)
    count = asked.candidates or CANDIDATES
    seeds = asked.seed + np.arange(count)
    continuation = follow.drawing_records(
        parts, task, [wanted.fields], sampling=config, seeds=seeds[None]
    )

    def last_event(codes: np.ndarray) -> Pictures:
        return Pictures(
            pixels=parts.tokenizers.decode(codes[0]),
            seeds=tuple(seeds.tolist()),
            scores=None,
            shown=dict(wanted.shown),
        )

    return Prepared(continuation=continuation, last_event=last_event)


def _wanted(asked: Edit | Boxes | Write | Structure, parts: Parts, tuned: Tuned) -> records.Wanted:
    match asked:
        case Edit():
            return records.edit_of(parts, _pixels(parts, asked), asked.instruction)
        case Write():
            return records.writing_of(asked.text)
        case Boxes():
            return records.boxes_of(asked.boxes, asked.prompt, tuned.grid)
        case Structure():
            if asked.feature not in tuned.features:
                wanted = f"feature: wanted one of {tuned.features}"
                raise ValueError(f"{wanted}, got {asked.feature[:40]!r}")
            extract = None
            if not asked.is_feature:
                if asked.feature not in WEIGHTLESS:
                    raise ValueError(
                        f"is_feature: wanted the {asked.feature} picture itself, as this service "
                        "has no extractor for it, got another picture"
                    )
                extract = open_feature(asked.feature)
            pixels = _pixels(parts, asked)
            return records.structure_of(parts, asked.feature, pixels, asked.prompt, extract)


def _sampling(asked: Choices, tuned: Tuned, task: str) -> SamplingConfig:
    if asked.sampler == "mixed":
        raise ValueError("sampler: wanted one of top-p, cd-k, greedy for an instruction, got mixed")
    changes = {**asked.changes, "sampler": asked.sampler}
    return tuned.sampling(task, changes)


def _pixels(parts: Parts, asked: Describe | Edit | Ask | Structure) -> np.ndarray:
    return np.asarray(square(asked.picture, parts.tokenizers.size))


def _judged(parts: Parts, scores: Sequence[float]) -> tuple[float, ...] | None:
    return None if parts.retrieval is None else tuple(scores)


def _tuned(tuned: Tuned | None) -> Tuned:
    if tuned is None:
        raise ValueError("run: wanted one that was tuned on instructions, got an untuned one")
    return tuned
