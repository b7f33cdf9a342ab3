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
    """Choose one id per row.

    Args:
        logits: Logits (B, V) of each of `config.streams`.
        allowed: Mask (B, V); None allows all.
        noise: Exponential numbers (B, V), which decide the draw; "greedy" needs none.
        config: The settings.
        step: Number of new ids so far, for `guidance_interval`.

    Returns:
        Ids (B,).
    """
    cond = logits["conditional"]
    first, end = config.guidance_interval
    acts = step >= first and (end is None or step < end)
    if config.sampler == "cd-k" and acts:
        k = min(config.cd_k, cond.shape[-1])
        uncond = logits["unconditional"]
        assert noise is not None, "noise: wanted numbers for a draw, got none"
        scores = cd_k(restrict(cond, allowed), restrict(uncond, allowed), config.cd_alpha, k)
        return sample(apply_temperature(scores, config.temperature), noise)
    guided = restrict(_guided(logits, config) if acts else cond, allowed)
    if config.sampler == "greedy":
        return guided.argmax(-1)
    assert noise is not None, "noise: wanted numbers for a draw, got none"
    guided = apply_temperature(guided, config.temperature)
    if config.sampler == "top-p" and config.top_k > 0:
        guided = top_k_filter(guided, config.top_k)
    if config.sampler == "top-p" and config.top_p < 1:
        guided = top_p_filter(guided, config.top_p)
    return sample(guided, noise)


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
