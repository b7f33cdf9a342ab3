"""The settings of a draw: sampler, temperature, guidance, contrast (paper 3.1 and 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

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
