"""How candidates are drawn where a caller says otherwise than the run's habits.

Imports nothing heavy, for the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cm3_decoding import SamplingConfig

if TYPE_CHECKING:
    from cm3leon.parts import Habits

UNUSED = {
    "top-p": ("cd_alpha", "cd_k"),
    "greedy": ("temperature", "top_p", "top_k", "cd_alpha", "cd_k"),
    "cd-k": ("guidance_scale", "image_guidance_scale"),
}
"""Fields of `SamplingConfig` that change nothing, for each sampler."""


def samplers_of(
    habits: Habits,
    sampler: str | None = None,
    changes: Mapping[str, Any] | None = None,
    candidates: int | None = None,
) -> tuple[SamplingConfig, ...]:
    """Return the configurations that candidates take in turn.

    Args:
        habits: The run's.
        sampler: "top-p", "cd-k", "greedy", "mixed" (half of each of the first two, paper 3.1), or
            None: the run's own.
        changes: Fields of `SamplingConfig` to set, such as `guidance_scale`; None values are
            skipped.
        candidates: How many are drawn: as many of the samplers have a turn. None: all.

    Raises:
        ValueError: A value is out of range, or no sampler uses it; names it.
    """
    given = {name: value for name, value in (changes or {}).items() if value is not None}
    config = replace(habits.samplers[0], **given)
    kinds = tuple(own.sampler for own in habits.samplers)
    if sampler is not None:
        kinds = ("top-p", "cd-k") if sampler == "mixed" else (sampler,)
    kinds = kinds[:candidates]
    made = tuple(replace(config, sampler=kind) for kind in kinds)
    for name in given:
        if not any(_uses(one, name) for one in made):
            wanted = "another sampler, or another run's"
            raise ValueError(f"{name}: does nothing with {', '.join(kinds)}; wanted {wanted}")
    return made


def _uses(config: SamplingConfig, name: str) -> bool:
    # CD-K draws by top-p outside its interval
    everywhere = config.sampler == "cd-k" and config.guidance_interval == (0, None)
    return name not in UNUSED[config.sampler] and not (everywhere and name in ("top_p", "top_k"))
