"""From prompts to new ids: guidance, sampling and constraints around any `LanguageModel`.

Takes 1-D prompts of any lengths, gives the new ids of each. Paper: 3.1 of CM3Leon
(arXiv 2309.02591).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from cm3_decoding.constraints import Constraint, Segment, max_new_tokens, segments_per_row
from cm3_decoding.contrastive import cd_k
from cm3_decoding.guidance import classifier_free_guidance
from cm3_decoding.interface import LanguageModel
from cm3_decoding.processors import apply_temperature, restrict, top_k_filter, top_p_filter

Sampler = Literal["top-p", "cd-k", "greedy"]


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How an id is chosen from the logits of the conditional and the unconditional stream."""

    sampler: Sampler = "top-p"
    """"top-p" and "greedy" work on guided logits, "cd-k" on the contrast of the two streams."""
    temperature: float = 1.0
    """Divides logits or scores before a draw; not used by "greedy"."""
    top_p: float = 1.0
    """"top-p" draws from the fewest ids that reach this probability; 1 keeps all."""
    top_k: int = 0
    """"top-p" draws from at most this many ids; 0 keeps all."""
    guidance_scale: float = 1.0
    """Classifier-free guidance; 1 switches it off. Not used by "cd-k", which contrasts itself."""
    cd_alpha: float = 0.3
    """"cd-k": an id is plausible from this share of the k-th largest probability on."""
    cd_k: int = 8
    """"cd-k": the k. The paper names none; 1 is plain contrastive decoding."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.sampler not in get_args(Sampler):
            raise ValueError(f"sampler: wanted one of {get_args(Sampler)}, got {self.sampler!r}")
        for name, wanted, good in (
            ("temperature", "a number above 0", 0 < self.temperature < float("inf")),
            ("top_p", "a number above 0 and at most 1", 0 < self.top_p <= 1),
            ("top_k", "0 or more", self.top_k >= 0),
            ("guidance_scale", "0 or more", 0 <= self.guidance_scale < float("inf")),
            ("cd_alpha", "a number above 0 and at most 1", 0 < self.cd_alpha <= 1),
            ("cd_k", "at least 1", self.cd_k >= 1),
        ):
            if not good:
                raise ValueError(f"{name}: wanted {wanted}, got {getattr(self, name)}")

    @property
    def needs_unconditional(self) -> bool:
        """Whether the stream without the prompt has to be computed."""
        return self.sampler == "cd-k" or self.guidance_scale != 1


def generate(
    model: LanguageModel,
    prompts: Sequence[Tensor],
    *,
    constraint: Segment | Sequence[Segment] | Sequence[Sequence[Segment]],
    seeds: Sequence[int],
    unconditional: Sequence[Tensor] | None = None,
    config: SamplingConfig = SamplingConfig(),  # noqa: B008, frozen
    progress: Callable[[int, int], None] | None = None,
    device: torch.device | str = "cpu",
) -> list[Tensor]:
    """Continue every prompt as its segments ask for.

    A row draws from random numbers of its own, so it gets the same ids in any batch (as far as
    the model's logits do not depend on the batch).

    Args:
        model: Anything with the three methods; in eval mode, on `device`.
        prompts: B tensors of ids (length,), one per row.
        constraint: The segments of every row, or one list (or one segment) for all.
        seeds: One per row.
        unconditional: B prompts without the text, for guidance and "cd-k". The new ids follow
            both streams. Not read when `config` needs no second stream.
        config: How ids are chosen.
        progress: Called with (steps done, steps at most) after each step; an exception that it
            raises ends the run.
        device: Where the model is.

    Returns:
        B tensors of new ids (length,), on the CPU.

    Raises:
        ValueError: if inputs do not fit each other, or prompt and new ids exceed the context.
        FloatingPointError: if the model's logits are not finite.
    """
    rows = segments_per_row(constraint, len(prompts))
    if len(seeds) != len(prompts):
        raise ValueError(f"seeds: wanted one per prompt ({len(prompts)}), got {len(seeds)}")
    streams = list(prompts)
    if config.needs_unconditional:
        if unconditional is None or len(unconditional) != len(prompts):
            found = "none" if unconditional is None else len(unconditional)
            raise ValueError(
                f"unconditional: {config.sampler} at guidance_scale {config.guidance_scale} wants "
                f"one prompt without text per prompt ({len(prompts)}), got {found}"
            )
        streams += unconditional
    limits = [max_new_tokens(segments) for segments in rows]
    steps = max(limits, default=0)
    if steps == 0:
        return [torch.empty(0, dtype=torch.long) for _ in rows]

    input_ids, lengths = _pad(streams)
    longest = int(lengths.max())
    try:
        # The last new id is never read again.
        cache = model.make_cache(len(streams), longest + steps - 1)
    except ValueError as error:
        raise ValueError(
            f"prompts: a prompt of {longest} and {steps} new ids do not fit the model: {error}"
        ) from error
    uniforms = _uniforms(seeds, limits, steps).to(device)  # (B, steps)
    chosen = torch.zeros(len(rows), steps, dtype=torch.long, device=device)
    new_lengths = torch.zeros(len(rows), dtype=torch.long, device=device)
    with torch.inference_mode():
        logits = model.prefill(input_ids.to(device), lengths.to(device), cache)  # (streams, V)
        state = Constraint(rows, logits.shape[-1], device)
        for step in range(steps):
            if step > 0:
                # The same id goes to both streams of a row.
                fed = chosen[:, step - 1].repeat(len(streams) // len(rows))
                logits = model.decode_one_token(fed, cache)
            _check_finite(logits, step)
            chosen[:, step] = choose(logits.float(), state.allowed(), uniforms[:, step], config)
            new_lengths += ~state.finished()
            state.advance(chosen[:, step])
            if progress is not None:
                progress(step + 1, steps)
            if bool(state.finished().all()):
                break
    ids = chosen.cpu()
    return [row[:length].clone() for row, length in zip(ids, new_lengths.tolist(), strict=True)]


def choose(logits: Tensor, allowed: Tensor, uniforms: Tensor, config: SamplingConfig) -> Tensor:
    """Choose one id per row.

    Args:
        logits: (B, V), or (2B, V) with the unconditional rows last if `config` needs them.
        allowed: (B, V) mask.
        uniforms: (B,) numbers in [0, 1), which decide the draw.
        config: How to choose.

    Returns:
        Ids (B,).
    """
    if config.needs_unconditional:
        cond, uncond = logits.chunk(2)  # 2 x (B, V)
    else:
        cond = uncond = logits
    if config.sampler == "cd-k":
        k = min(config.cd_k, logits.shape[-1])
        scores = cd_k(restrict(cond, allowed), restrict(uncond, allowed), config.cd_alpha, k)
        return sample(apply_temperature(scores, config.temperature), uniforms)
    guided = restrict(classifier_free_guidance(cond, uncond, config.guidance_scale), allowed)
    if config.sampler == "greedy":
        return guided.argmax(-1)
    guided = apply_temperature(guided, config.temperature)
    if config.top_k > 0:
        guided = top_k_filter(guided, config.top_k)
    if config.top_p < 1:
        guided = top_p_filter(guided, config.top_p)
    return sample(guided, uniforms)


def sample(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Draw an id per row by inverting the cumulative distribution.

    Probabilities 0.2, 0, 0.8 sum up to 0.2, 0.2, 1. The first sum above 0.1 is that of id 0, the
    first above 0.2 that of id 2; id 1 cannot be hit.

    Args:
        logits: (B, V).
        uniforms: (B,) in [0, 1).

    Returns:
        Ids (B,).
    """
    probabilities = logits.double().softmax(-1)
    sums = probabilities.cumsum(-1)
    # Scaled by the last sum, which rounding keeps from being 1.
    target = uniforms[:, None].double() * sums[:, -1:]
    ids = torch.searchsorted(sums, target, right=True)  # (B, 1)
    ids = ids.clamp(max=logits.shape[-1] - 1)
    # An accelerator sums in parallel, where rounding may lift a sum without a probability.
    impossible = probabilities.gather(-1, ids) == 0
    return torch.where(impossible, probabilities.argmax(-1, keepdim=True), ids)[:, 0]


def _pad(prompts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(rows, longest) ids, right-padded with 0, and lengths (rows,)."""
    for row, prompt in enumerate(prompts):
        if prompt.ndim != 1 or len(prompt) == 0 or prompt.is_floating_point():
            raise ValueError(
                f"prompts: wanted at least one id (length,) in row {row}, "
                f"got {prompt.dtype} {tuple(prompt.shape)}"
            )
    padded = torch.nn.utils.rnn.pad_sequence(
        [prompt.long().cpu() for prompt in prompts], batch_first=True
    )
    return padded, torch.tensor([len(prompt) for prompt in prompts])


def _uniforms(seeds: Sequence[int], limits: Sequence[int], steps: int) -> Tensor:
    """(B, steps) random numbers; row i depends on `seeds[i]` and `limits[i]` only."""
    uniforms = torch.zeros(len(seeds), steps)
    for row, (seed, limit) in enumerate(zip(seeds, limits, strict=True)):
        uniforms[row, :limit] = torch.rand(limit, generator=torch.Generator().manual_seed(seed))
    return uniforms


def _check_finite(logits: Tensor, step: int) -> None:
    good = logits.isfinite().all(-1)
    if not bool(good.all()):
        rows = (~good).nonzero()[:, 0].tolist()
        raise FloatingPointError(
            f"model: wanted finite logits, got NaN or infinity in step {step}, stream rows {rows}"
        )
