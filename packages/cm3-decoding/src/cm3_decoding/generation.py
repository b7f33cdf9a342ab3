"""From prompts to new ids: guidance, sampling and constraints around any `LanguageModel`.

Paper: CM3Leon (arXiv 2309.02591), section 3.1, and 4.1 for guidance by picture and text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cm3_decoding.config import SamplingConfig, Stream
from cm3_decoding.constraints import Constraint, max_new_tokens
from cm3_decoding.finite import FiniteCheck
from cm3_decoding.interface import LanguageModel
from cm3_decoding.noise import Noise, check_seeds
from cm3_decoding.sampling import combine, draw
from cm3_decoding.segments import ConstraintSegment, segments_per_row
from cm3_decoding.streams import Streams


@dataclass(frozen=True, kw_only=True)
class Step:
    """The state after one step, for a `stream` callback."""

    step: int
    """Number of this step, from 1."""
    steps: int
    """Most steps; rows may stop earlier."""
    ids: Tensor
    """(B,) ids just chosen, on the model's device."""
    active: Tensor
    """(B,) booleans: the id belongs to the row's output; finished rows get a filler."""


def generate(
    model: LanguageModel,
    prompts: Sequence[Tensor],
    *,
    constraint: ConstraintSegment
    | Sequence[ConstraintSegment]
    | Sequence[Sequence[ConstraintSegment]],
    seeds: Iterable[int],
    unconditional: Sequence[Tensor] | None = None,
    image_conditional: Sequence[Tensor] | None = None,
    config: SamplingConfig = SamplingConfig(),  # noqa: B008, frozen
    progress: Callable[[int, int], None] | None = None,
    stream: Callable[[Step], bool | None] | None = None,
    device: torch.device | str = "cpu",
) -> list[Tensor]:
    """Continue every prompt as its segments say.

    A row has random numbers of its own, so it draws in any batch what it draws alone, except where
    the rounding of the model's logits, which depends on the batch, exceeds the margin between the
    two best ids: about never in float32, now and then in bfloat16. All streams of all rows form one
    batch with one cache, which is kept from text to picture and back. Equal streams of a row are
    read once, as are equal prompts of several rows if the cache can repeat rows.

    Args:
        model: Any `LanguageModel` in eval mode, on `device`.
        prompts: B tensors of ids (length,), one per row.
        constraint: The segments of every row, or one list (or one segment) for all.
        seeds: One seed per row, whole numbers from -2^63 to 2^64 - 1.
        unconditional: B prompts without the text, for guidance and "cd-k"; with
            `config.image_guidance_scale`, without the source picture too. A negative prompt goes
            here as well: the prompt with unwanted content in place of the caption. The new ids
            follow all streams. Ignored if `config` does not need it.
        image_conditional: B prompts with the source picture and without the text, for
            `config.image_guidance_scale`. Ignored if `config` does not need it.
        config: The sampling settings.
        progress: Called with (steps done, most steps) after each step; an exception that it raises
            ends the run.
        stream: Called with a `Step` after each step. If it returns False, the run ends and returns
            the ids drawn so far.
        device: The model's device.

    Returns:
        B tensors of new ids (length,), on the CPU.

    Raises:
        ValueError: The inputs do not fit each other, or prompt and new ids exceed the context.
        FloatingPointError: What ids are chosen by is not finite: logits of allowed ids, or what
            guidance makes of them.
    """
    rows = segments_per_row(constraint, len(prompts))
    seeds = check_seeds(seeds, len(prompts))
    given: dict[Stream, Sequence[Tensor] | None] = {
        "conditional": prompts,
        "image_conditional": image_conditional,
        "unconditional": unconditional,
    }
    needed: dict[Stream, Sequence[Tensor]] = {
        name: _checked(name, given[name], len(prompts), config) for name in config.streams
    }
    steps = max(map(max_new_tokens, rows), default=0)
    if steps == 0:
        return [torch.empty(0, dtype=torch.long) for _ in rows]

    streams = Streams(needed).to(device)
    cache = _make_cache(model, streams, steps)
    chosen = torch.zeros(len(rows), steps, dtype=torch.long, device=device)
    new_lengths = torch.zeros(len(rows), dtype=torch.long, device=device)
    finite = FiniteCheck(steps, len(rows), device)
    with torch.inference_mode():
        logits = _read_prompts(model, streams, cache)  # (N, V)
        state = Constraint(rows, logits.shape[-1], device)
        start, stop = state.span
        noise = Noise(seeds, steps, start, stop, device)
        draws = config.sampler != "greedy"
        active = ~state.finished()
        for step in range(steps):
            if step == config.guidance_interval[1] and hasattr(cache, "select_rows"):
                cache.select_rows(streams.keep_conditional())  # the others are no longer read
            if step > 0:
                logits = model.decode_one_token(streams.feed(chosen[:, step - 1]), cache)
            logits = logits[:, start:stop].float()
            allowed = None if state.free else state.allowed()[:, start:stop]
            scores = combine(streams.split(logits), allowed, config, step)
            finite.see(scores, step)
            chosen[:, step] = start + draw(scores, noise.at(step) if draws else None, config, step)
            new_lengths += active
            state.advance(chosen[:, step])
            if progress is not None:
                progress(step + 1, steps)
            if stream is not None:
                event = Step(step=step + 1, steps=steps, ids=chosen[:, step].clone(), active=active)
                if stream(event) is False:
                    break
            active = ~state.finished()
            if state.ends_early and not bool(active.any()):
                break
    finite.report()
    ids = chosen.cpu()
    return [row[:length].clone() for row, length in zip(ids, new_lengths.tolist(), strict=True)]


def _checked(
    name: Stream, prompts: Sequence[Tensor] | None, count: int, config: SamplingConfig
) -> Sequence[Tensor]:
    if prompts is None or len(prompts) != count:
        found = "none" if prompts is None else len(prompts)
        image = config.image_guidance_scale
        scales = f"guidance_scale {config.guidance_scale}"
        scales += "" if image is None else f" and image_guidance_scale {image}"
        raise ValueError(
            f"{name}: {config.sampler} at {scales} wants one prompt without text per prompt "
            f"({count}), got {found}"
        )
    return prompts


def _make_cache(model: LanguageModel, streams: Streams, steps: int) -> Any:
    """Make a cache with a row per distinct prompt, or per batch row if it cannot repeat rows."""
    longest = int(streams.lengths.max())
    length = longest + steps - 1  # the last new id is never read again
    try:
        cache = model.make_cache(len(streams.distinct), length)
        if len(streams.distinct) < len(streams.lengths) and not hasattr(cache, "select_rows"):
            cache = model.make_cache(len(streams.lengths), length)
    except ValueError as error:
        raise ValueError(
            f"prompts: a prompt of {longest} and {steps} new ids do not fit the model: {error}"
        ) from error
    return cache


def _read_prompts(model: LanguageModel, streams: Streams, cache: Any) -> Tensor:
    """Read the prompts into the cache of `_make_cache` and return the logits (N, V) after them."""
    ids, lengths = streams.input_ids, streams.lengths
    if len(streams.distinct) == len(lengths) or not hasattr(cache, "select_rows"):
        return model.prefill(ids, lengths, cache)
    logits = model.prefill(ids[streams.distinct], lengths[streams.distinct], cache)
    cache.select_rows(streams.copies)
    return logits[streams.copies]
