"""How candidates are drawn where a caller says otherwise than the run's habits.

Imports nothing heavy, for the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    check_used(made, given)
    return made


def plain_sampler_of(
    habits: Habits, sampler: str | None = None, changes: Mapping[str, Any] | None = None
) -> SamplingConfig:
    """Return how captions and redrawn parts are drawn; arguments and errors as of `samplers_of`."""
    if sampler not in (None, "top-p", "greedy"):
        wanted = "top-p or greedy for captions and redrawn parts"
        raise ValueError(f"sampler: wanted {wanted}, got {sampler}")
    for name in ("guidance_scale", "image_guidance_scale"):
        if (changes or {}).get(name) is not None:
            raise ValueError(f"{name}: does nothing with captions and redrawn parts")
    plain = replace(habits, samplers=(unguided(habits.samplers[0]),))
    return samplers_of(plain, sampler, changes)[0]


def unguided(sampling: SamplingConfig) -> SamplingConfig:
    """Return plain sampling: captions and regions have no unconditional stream for CD-K."""
    sampler = "greedy" if sampling.sampler == "greedy" else "top-p"
    return replace(sampling, sampler=sampler, guidance_scale=1.0, image_guidance_scale=None)


def check_used(made: Sequence[SamplingConfig], names: Iterable[str]) -> None:
    """Refuse settings that change nothing.

    Args:
        made: Configurations that they are fields of.
        names: The fields.

    Raises:
        ValueError: None of the configurations uses one of them; names it.
    """
    for name in names:
        if not any(_uses(one, name) for one in made):
            kinds = ", ".join(one.sampler for one in made)
            wanted = "another sampler, or another run's"
            raise ValueError(f"{name}: does nothing with {kinds}; wanted {wanted}")


def _uses(config: SamplingConfig, name: str) -> bool:
    # CD-K draws by top-p outside its interval
    everywhere = config.sampler == "cd-k" and config.guidance_interval == (0, None)
    return name not in UNUSED[config.sampler] and not (everywhere and name in ("top_p", "top_k"))
