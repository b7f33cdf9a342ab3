"""Re-ranking: candidates drawn by a mixture of samplers, ordered by a scorer.

The scorer is any callable (CLIP in the paper), so nothing here knows what an id means. Paper:
CM3Leon (arXiv 2309.02591), section 3.1.2, where half top-p and half CD-K keeps improving with the
number of candidates, while either alone does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from cm3_decoding.batch import Row
from cm3_decoding.config import SamplingConfig, Stream
from cm3_decoding.generation import generate_rows
from cm3_decoding.interface import LanguageModel
from cm3_decoding.noise import check_seeds
from cm3_decoding.segments import ConstraintSegment, segments_per_row
from cm3_decoding.whole_numbers import whole

Candidate = TypeVar("Candidate")


def rerank(scores: Tensor) -> Tensor:
    """Return the order (N,) of candidates by scores (N,), best first; ties keep their order."""
    if scores.ndim != 1 or bool(scores.isnan().any()):
        raise ValueError(f"scores: wanted one number per candidate, got {scores}")
    return scores.argsort(descending=True, stable=True)


def best_of(
    candidates: Sequence[Candidate],
    scorer: Callable[[Sequence[Candidate]], Tensor],
    n: int = 1,
) -> list[Candidate]:
    """Return the `n` candidates with the highest scores, best first.

    Args:
        candidates: Anything that the scorer accepts.
        scorer: Returns one score (N,) per candidate; higher is better.
        n: Number of candidates to keep.
    """
    if not 1 <= whole("n", n) <= len(candidates):
        raise ValueError(f"n: wanted a number from 1 to {len(candidates)}, got {n}")
    return [candidates[i] for i in rerank(_score(candidates, scorer))[:n].tolist()]


def candidate_pool(
    model: LanguageModel,
    prompt: Tensor,
    *,
    constraint: ConstraintSegment | Sequence[ConstraintSegment],
    configs: SamplingConfig | Sequence[SamplingConfig],
    seeds: Iterable[int],
    scorer: Callable[[Sequence[Tensor]], Tensor],
    unconditional: Tensor | None = None,
    image_conditional: Tensor | None = None,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
    device: torch.device | str = "cpu",
    lookahead: int = 1,
) -> tuple[list[Tensor], Tensor]:
    """Draw one candidate per seed and order them.

    Args:
        model: Any `LanguageModel`.
        prompt: The prompt's ids (length,).
        constraint: The segments of each candidate.
        configs: Settings, one or several; candidate i uses `configs[i % len(configs)]`, so two make
            halves.
        seeds: One seed per candidate.
        scorer: Returns one score (N,) per candidate's new ids; higher is better.
        unconditional: The prompt without text (length,), if a config needs it.
        image_conditional: The prompt with its source picture, without text, if a config needs it.
        batch_size: Candidates drawn at once; it affects them no more than `generate` says.
        progress: As of `generate_rows`.
        device: The model's device.
        lookahead: As of `generate`.

    Returns:
        The candidates' new ids, best first, and their scores (N,).
    """
    if isinstance(configs, SamplingConfig):
        configs = [configs]
    seeds = check_seeds(seeds)
    if not configs or not seeds:
        raise ValueError(f"configs, seeds: wanted some of both, got {len(configs)}, {len(seeds)}")
    (segments,) = segments_per_row(constraint, 1)
    given: dict[Stream, Tensor | None] = {
        "conditional": prompt,
        "image_conditional": image_conditional,
        "unconditional": unconditional,
    }
    prompts: dict[Stream, Tensor] = {name: part for name, part in given.items() if part is not None}
    rows = [
        Row(prompts=prompts, segments=segments, config=configs[place % len(configs)], seed=seed)
        for place, seed in enumerate(seeds)
    ]
    candidates = generate_rows(
        model,
        rows,
        batch_size=batch_size,
        progress=progress,
        device=device,
        lookahead=lookahead,
    )
    scores = _score(candidates, scorer)
    order = rerank(scores)
    return [candidates[i] for i in order.tolist()], scores[order]


def _score(
    candidates: Sequence[Candidate], scorer: Callable[[Sequence[Candidate]], Tensor]
) -> Tensor:
    scores = torch.as_tensor(scorer(candidates))
    if scores.shape != (len(candidates),):
        raise ValueError(
            f"scorer: wanted {len(candidates)} scores, got shape {tuple(scores.shape)}"
        )
    return scores
