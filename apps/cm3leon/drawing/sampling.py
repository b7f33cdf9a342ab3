"""How candidates are drawn where a caller says otherwise than the run's habits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cm3_decoding import SamplingConfig
from cm3leon.parts import Habits


def samplers_of(
    habits: Habits, sampler: str | None = None, changes: Mapping[str, Any] | None = None
) -> tuple[SamplingConfig, ...]:
    """Return the configurations that candidates take in turn.

    Args:
        habits: The run's.
        sampler: "top-p", "cd-k", "mixed" (half of each, paper 3.1), or None: the run's own.
        changes: Fields of `SamplingConfig` to set, such as `guidance_scale`; None values are
            skipped.

    Raises:
        ValueError: A value is out of range; names it.
    """
    given = {name: value for name, value in (changes or {}).items() if value is not None}
    config = replace(habits.samplers[0], **given)
    kinds = tuple(own.sampler for own in habits.samplers)
    if sampler is not None:
        kinds = ("top-p", "cd-k") if sampler == "mixed" else (sampler,)
    return tuple(replace(config, sampler=kind) for kind in kinds)
