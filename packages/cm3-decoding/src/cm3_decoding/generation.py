"""From prompts to new ids: guidance, sampling and constraints around any `LanguageModel`.

Paper: CM3Leon (arXiv 2309.02591), section 3.1, and 4.1 for guidance by picture and text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cm3_decoding.batch import Batch, Row
from cm3_decoding.config import SamplingConfig, Stream
from cm3_decoding.constraints import max_new_tokens
from cm3_decoding.interface import LanguageModel
from cm3_decoding.noise import check_seeds
from cm3_decoding.segments import ConstraintSegment, segments_per_row
from cm3_decoding.whole_numbers import whole


@dataclass(frozen=True, kw_only=True)
class Step:
    """The state when every row that goes on has one more id, for a `stream` callback."""

    step: int
    """Number of ids that these rows have by now, from 1."""
    steps: int
    """Most steps; rows may stop earlier."""
    ids: Tensor
    """(B,) the last of them, on the model's device."""
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
    lookahead: int = 1,
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
        progress: Called with (ids that every row that goes on has, most ids of a row) after each
            pass of the model; an exception that it raises ends the run.
        stream: Called with a `Step` for each of these ids. If it returns False, the run ends and
            returns the ids drawn so far.
        device: The model's device.
        lookahead: Most ids of a row that a pass of the model reads, of which all but one are
            guesses, see `cm3_decoding.batch`. More than 1 changes no id, and pays where a pass of
            several ids takes little longer than one of one. The model must be a `ReadsAhead`.

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
    wanted = {
        number: Row(
            prompts={name: part[number] for name, part in needed.items()},
            segments=segments,
            config=config,
            seed=seed,
        )
        for number, (segments, seed) in enumerate(zip(rows, seeds, strict=True))
    }
    batch = Batch(model, wanted, device, lookahead=lookahead)
    found: dict[int, Tensor] = {}
    said = 0
    while True:
        found |= batch.collect()
        most = max(map(len, found.values()), default=0)
        # where rows are asked now and then whether they have finished, fillers may have counted
        done = max(said, min(batch.counts.values(), default=most))
        if progress is not None:
            progress(done, steps)
        if stream is not None:
            for place in range(said, done):
                if stream(_event(batch, found, place, steps, len(rows))) is False:
                    found |= batch.peek(batch.names)
                    return [found[number] for number in range(len(rows))]
        said = done
        if not batch:
            return [found[number] for number in range(len(rows))]
        batch.step()


def generate_rows(
    model: LanguageModel,
    rows: Sequence[Row],
    *,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
    device: torch.device | str = "cpu",
    lookahead: int = 1,
) -> list[Tensor]:
    """Continue rows of any settings, `batch_size` at a time.

    A row that waits takes the place of one that has finished, if the model's cache has `join`;
    otherwise all of a batch are finished first. What a row draws depends on neither; see
    `generate`.

    Args:
        model: Any `LanguageModel` in eval mode, on `device`.
        rows: B prompts with their settings.
        batch_size: Rows drawn at once.
        progress: Called with (ids drawn, most ids of all rows) after each step; a row that has
            stopped counts as if it had drawn all of its ids.
        device: The model's device.
        lookahead: As of `generate`.

    Returns:
        B tensors of new ids (length,), on the CPU.

    Raises:
        ValueError: As of `generate`.
        FloatingPointError: As of `generate`.
    """
    batch_size = whole("batch_size", batch_size, 1)
    limits = [max_new_tokens(row.segments) for row in rows]
    found: dict[int, Tensor] = {
        number: torch.empty(0, dtype=torch.long) for number, most in enumerate(limits) if not most
    }
    waiting = deque(number for number, most in enumerate(limits) if most)
    batch: Batch[int] | None = None
    while waiting or batch:
        room = batch_size - (len(batch) if batch else 0)
        if waiting and room and (not batch or batch.takes_rows):
            next_ones = [waiting.popleft() for _ in range(min(room, len(waiting)))]
            coming = {number: rows[number] for number in next_ones}
            new = Batch(model, coming, device, lookahead=lookahead)
            found |= new.collect()
            if batch and new:
                batch.join(new)
            elif new:
                batch = new
        if batch:
            batch.step()
            found |= batch.collect()
        if progress is not None:
            drawn = sum(limits[number] for number in found)
            progress(drawn + (batch.drawn if batch else 0), sum(limits))
    return [found[number] for number in range(len(rows))]


def _event(
    batch: Batch[int], found: Mapping[int, Tensor], place: int, steps: int, count: int
) -> Step:
    """Return the state of `count` rows at a place of their output; finished ones have a filler."""
    names, own, going = batch.at(place)
    places = torch.tensor(names, dtype=torch.long, device=own.device)
    ids, active = own.new_zeros(count), going.new_zeros(count)
    ids[places], active[places] = own, going
    for number, all_of_them in found.items():
        if number not in names and place < len(all_of_them):
            ids[number], active[number] = all_of_them[place], True
    return Step(step=place + 1, steps=steps, ids=ids, active=active)


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
