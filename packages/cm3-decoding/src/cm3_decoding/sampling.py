"""The choice of one id per row from the logits of its streams.

Knows nothing of models or caches. Paper: CM3Leon (arXiv 2309.02591), section 3.1, and 4.1 for the
third stream.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cm3_decoding.config import SamplingConfig, Stream
from cm3_decoding.contrastive import cd_k
from cm3_decoding.guidance import classifier_free_guidance, image_text_guidance
from cm3_decoding.processors import apply_temperature, restrict, top_k_filter, top_p_filter


def choose(
    logits: Mapping[Stream, Tensor],
    allowed: Tensor | None,
    uniforms: Tensor,
    config: SamplingConfig,
    step: int = 0,
) -> Tensor:
    """Choose one id per row.

    Args:
        logits: Logits (B, V) of each of `config.streams`.
        allowed: Mask (B, V); None allows all.
        uniforms: Numbers (B,) in [0, 1), which decide the draw.
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
        scores = cd_k(restrict(cond, allowed), restrict(uncond, allowed), config.cd_alpha, k)
        return sample(apply_temperature(scores, config.temperature), uniforms)
    guided = restrict(_guided(logits, config) if acts else cond, allowed)
    if config.sampler == "greedy":
        return guided.argmax(-1)
    guided = apply_temperature(guided, config.temperature)
    if config.sampler == "top-p" and config.top_k > 0:
        guided = top_k_filter(guided, config.top_k)
    if config.sampler == "top-p" and config.top_p < 1:
        guided = top_p_filter(guided, config.top_p)
    return sample(guided, uniforms)


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


def sample(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Draw an id per row by inverting the cumulative distribution.

    Probabilities 0.2, 0, 0.8 have the sums 0.2, 0.2, 1. The first sum above 0.1 is that of id 0,
    the first above 0.2 that of id 2; id 1 cannot be hit.

    Args:
        logits: Logits (B, V).
        uniforms: Numbers (B,) in [0, 1).

    Returns:
        Ids (B,).
    """
    probabilities = logits.double().softmax(-1)
    sums = probabilities.cumsum(-1)
    # Scaled by the last sum, which rounding may keep from being 1.
    target = uniforms[:, None].double() * sums[:, -1:]
    ids = torch.searchsorted(sums, target, right=True)  # (B, 1)
    ids = ids.clamp(max=logits.shape[-1] - 1)
    if logits.device.type == "cpu":
        return ids[:, 0]
    # An accelerator sums in parallel: rounding may raise a sum where the probability is 0.
    impossible = probabilities.gather(-1, ids) == 0
    return torch.where(impossible, probabilities.argmax(-1, keepdim=True), ids)[:, 0]
