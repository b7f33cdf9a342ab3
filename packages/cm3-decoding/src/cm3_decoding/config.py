"""The settings of a draw: sampler, temperature, guidance, contrast (paper 3.1 and 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

from cm3_decoding.whole_numbers import whole

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
    """Joint probability of the likeliest ids, from which "top-p" draws; 1 keeps all. "cd-k" uses it
    outside its interval, where it draws from the conditional stream as "top-p" does."""
    top_k: int = 0
    """Most ids that "top-p" draws from; 0 keeps all. Used by "cd-k" as `top_p` is."""
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
        """Refuse values of another type or out of range."""
        if self.sampler not in get_args(Sampler):
            raise ValueError(f"sampler: wanted one of {get_args(Sampler)}, got {self.sampler!r}")
        for name, at_least in (("top_k", 0), ("cd_k", 1)):
            object.__setattr__(self, name, whole(name, getattr(self, name), at_least))
        interval = self.guidance_interval
        if not isinstance(interval, Sequence) or len(interval) != 2:
            raise ValueError(f"guidance_interval: wanted two numbers, got {interval!r}")
        first = whole("guidance_interval", interval[0], 0)
        end = None if interval[1] is None else whole("guidance_interval", interval[1], first)
        object.__setattr__(self, "guidance_interval", (first, end))
        scale, infinity = self.image_guidance_scale, float("inf")
        for name, wanted, value, good in (
            ("temperature", "a number above 0", self.temperature, lambda x: 0 < x < infinity),
            ("top_p", "a number above 0 and at most 1", self.top_p, lambda x: 0 < x <= 1),
            ("guidance_scale", "0 or more", self.guidance_scale, lambda x: 0 <= x < infinity),
            ("image_guidance_scale", "0 or more, or None", scale, lambda x: 0 <= x < infinity),
            ("cd_alpha", "a number above 0 and at most 1", self.cd_alpha, lambda x: 0 < x <= 1),
        ):
            if name == "image_guidance_scale" and value is None:
                continue
            if not isinstance(value, Real) or not good(value):
                raise ValueError(f"{name}: wanted {wanted}, got {value!r}")

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
