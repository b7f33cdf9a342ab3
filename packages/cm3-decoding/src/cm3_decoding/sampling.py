"""The choice of one id per row from the logits of its streams.

Knows nothing of models or caches. Paper: CM3Leon (arXiv 2309.02591), section 3.1, and 4.1 for the
third stream.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from cm3_decoding.config import SamplingConfig, Stream
from cm3_decoding.contrastive import cd_k
from cm3_decoding.guidance import classifier_free_guidance, image_text_guidance
from cm3_decoding.processors import apply_temperature, restrict, top_k_filter, top_p_filter


def choose(
    logits: Mapping[Stream, Tensor],
    allowed: Tensor | None,
    noise: Tensor | None,
    config: SamplingConfig,
    step: int = 0,
) -> Tensor:
    """Choose one id per row: `combine`, then `draw`; arguments and result are theirs."""
    return draw(combine(logits, allowed, config, step), noise, config, step)


def combine(
    logits: Mapping[Stream, Tensor],
    allowed: Tensor | None,
    config: SamplingConfig,
    step: int = 0,
) -> Tensor:
    """Combine the streams into what an id is chosen by.

    Args:
        logits: Logits (B, V) of each of `config.streams`.
        allowed: Mask (B, V); None allows all.
        config: The settings.
        step: Number of new ids so far, for `guidance_interval`.

    Returns:
        Guided logits or contrast scores (B, V), -inf for ids that are not allowed.
    """
    cond = logits["conditional"]
    if config.sampler == "cd-k" and acts(config, step):
        k = min(config.cd_k, cond.shape[-1])
        uncond = logits["unconditional"]
        return cd_k(restrict(cond, allowed), restrict(uncond, allowed), config.cd_alpha, k)
    return restrict(_guided(logits, config) if acts(config, step) else cond, allowed)


def draw(scores: Tensor, noise: Tensor | None, config: SamplingConfig, step: int = 0) -> Tensor:
    """Choose one id per row, (B,), by the scores (B, V) of `combine`.

    Args:
        scores: At least one of a row is finite, none is NaN or infinity.
        noise: Exponential numbers (B, V), which decide the draw; "greedy" needs none. For scores
            (B, 1, V) there may be numbers (B, T, V), which decide T draws.
        config: The settings.
        step: Number of new ids so far, for `guidance_interval`.
    """
    if config.sampler == "greedy":
        return scores.argmax(-1)
    assert noise is not None, "noise: wanted numbers for a draw, got none"
    scores = apply_temperature(scores, config.temperature)
    if config.sampler == "top-p" or not acts(config, step):
        if config.top_k > 0:
            scores = top_k_filter(scores, config.top_k)
        if config.top_p < 1:
            scores = top_p_filter(scores, config.top_p)
    return sample(scores, noise)


def acts(config: SamplingConfig, step: int) -> bool:
    """Tell whether guidance or contrast acts in a step, counted from 0."""
    first, end = config.guidance_interval
    return step >= first and (end is None or step < end)


def _guided(logits: Mapping[Stream, Tensor], config: SamplingConfig) -> Tensor:
    """Combine the logits of the streams by the config's scales; (B, V)."""
    cond = logits["conditional"]
    if config.image_guidance_scale is None:
        return classifier_free_guidance(
            cond, logits.get("unconditional", cond), config.guidance_scale
        )
    return image_text_guidance(
        cond,
        logits.get("image_conditional", cond),
        logits.get("unconditional", cond),
        text_scale=config.guidance_scale,
        image_scale=config.image_guidance_scale,
    )


def sample(logits: Tensor, noise: Tensor) -> Tensor:
    """Draw an id per row: the first to arrive, if id i arrives with the rate of its probability.

    The least of exponential numbers over rates falls on each with the probability of its share.
    This is the Gumbel-max draw, without its logarithms. An id that wins does so by a margin, so
    the rounding of logits, which differs between batches, matters only where two ids arrive
    nearly at once. Where cumulative sums are inverted, every boundary between ids is such a place.

    Args:
        logits: Logits (B, V).
        noise: Exponential numbers (B, V), above 0.

    Returns:
        Ids (B,).
    """
    return (logits.softmax(-1) / noise).argmax(-1)
