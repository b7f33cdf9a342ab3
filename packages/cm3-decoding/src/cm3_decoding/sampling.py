"""The choice of one id per row from the logits of its streams.

Knows nothing of models or caches. Paper: CM3Leon (arXiv 2309.02591), section 3.1, and 4.1 for the
third stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from cm3_decoding.contrastive import cd_k
from cm3_decoding.guidance import classifier_free_guidance, image_text_guidance
from cm3_decoding.processors import apply_temperature, restrict, top_k_filter, top_p_filter

Sampler = Literal["top-p", "cd-k", "greedy"]
Stream = Literal["conditional", "image_conditional", "unconditional"]


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Settings for the choice of an id from the logits of a row's streams."""

    sampler: Sampler = "top-p"
    """Kind of choice; "top-p" and "greedy" use guided logits, "cd-k" a contrast of two streams."""
    temperature: float = 1.0
    """Divisor of logits or scores before a draw; unused by "greedy"."""
    top_p: float = 1.0
    """Joint probability of the likeliest ids, from which "top-p" draws; 1 keeps all."""
    top_k: int = 0
    """Most ids that "top-p" draws from; 0 keeps all."""
    guidance_scale: float = 1.0
    """Scale of classifier-free guidance; 1 switches it off. Unused by "cd-k", itself a contrast."""
    image_guidance_scale: float | None = None
    """Scale of the source picture, apart from the text's `guidance_scale`: a third stream (paper
    4.1: 1.5 and 7.5). None: two streams. Unused by "cd-k"."""
    guidance_interval: tuple[int, int | None] = (0, None)
    """New ids of a row that are guided or contrasted, from the first number to before the second
    (None: to the end); other ids are drawn from the conditional stream alone. After the interval
    the other streams are not computed, if the model's cache can drop rows."""
    cd_alpha: float = 0.3
    """Share of the k-th largest probability from which "cd-k" finds an id plausible."""
    cd_k: int = 8
    """The k of "cd-k". The paper names none; 1 is plain contrastive decoding."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.sampler not in get_args(Sampler):
            raise ValueError(f"sampler: wanted one of {get_args(Sampler)}, got {self.sampler!r}")
        image_scale = 1.0 if self.image_guidance_scale is None else self.image_guidance_scale
        first, end = self.guidance_interval
        for name, wanted, good in (
            ("temperature", "a number above 0", 0 < self.temperature < float("inf")),
            ("top_p", "a number above 0 and at most 1", 0 < self.top_p <= 1),
            ("top_k", "0 or more", self.top_k >= 0),
            ("guidance_scale", "0 or more", 0 <= self.guidance_scale < float("inf")),
            ("image_guidance_scale", "0 or more, or None", 0 <= image_scale < float("inf")),
            (
                "guidance_interval",
                "0 <= first <= end",
                first >= 0 and (end is None or end >= first),
            ),
            ("cd_alpha", "a number above 0 and at most 1", 0 < self.cd_alpha <= 1),
            ("cd_k", "at least 1", self.cd_k >= 1),
        ):
            if not good:
                raise ValueError(f"{name}: wanted {wanted}, got {getattr(self, name)}")

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams that the choice reads, the conditional one first."""
        if self.sampler == "cd-k":
            return ("conditional", "unconditional")
        if self.image_guidance_scale is None:
            plain = self.guidance_scale == 1
            return ("conditional",) if plain else ("conditional", "unconditional")
        # uncond + image_scale * (image - uncond) + text_scale * (cond - image)
        names: list[Stream] = ["conditional"]
        if self.image_guidance_scale != self.guidance_scale:
            names.append("image_conditional")
        if self.image_guidance_scale != 1:
            names.append("unconditional")
        return tuple(names)


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
