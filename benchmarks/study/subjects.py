"""The runs that the study compares: one base, and decoders that differ from its own in one thing.

All use the base's tokenizers, encoder, memory bank and pairs. A decoder is trained once for each
seed and kept; a training that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cm3_model import load_decoder
from cm3leon import parts
from cm3leon.base_run import base_fingerprint
from cm3leon.decoder_recipe import DecoderRecipe
from cm3leon.device import precision_on
from cm3leon.evaluation.judge import Judge, alone, train_judge
from cm3leon.evaluation.subject import Subject, open_subject
from cm3leon.parts import Parts
from cm3leon.training.decoder import train_decoder

SIZES = {
    "small": {"num_layers": 2, "width": 64, "num_heads": 2},
    "middle": {"num_layers": 3, "width": 128, "num_heads": 2},
}


def _sized(shape: Mapping[str, int]) -> Callable[[DecoderRecipe], DecoderRecipe]:
    def change(recipe: DecoderRecipe) -> DecoderRecipe:
        assert isinstance(recipe.model, dict)  # the shape of the default recipe
        return replace(recipe, model=recipe.model | shape)

    return change


VARIANTS: dict[str, Callable[[DecoderRecipe], DecoderRecipe]] = {
    "large": lambda recipe: recipe,
    **{name: _sized(shape) for name, shape in SIZES.items()},
    "without documents": lambda recipe: replace(recipe, context_shares=(1.0,)),
    "next token": lambda recipe: replace(recipe, cm3=replace(recipe.cm3, mask_probability=0.0)),
}
"""What each decoder changes in the base's recipe."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What findings are measured on.

    Args:
        run: A finished default run.
        work: Keeps decoders and what was measured.
        steps: Training steps of each decoder.
        prompts: Held-out captions that each figure draws for.
    """

    run: Path
    work: Path
    steps: int
    prompts: int
    tuned: Path
    """Folder of tuned runs of the base: `tuned / "sft-0"` of seed 0."""

    @cached_property
    def base(self) -> Subject:
        """The base and its data."""
        return open_subject(self.run, "cpu")

    @cached_property
    def rows(self) -> np.ndarray:
        """Held-out pairs of one thing alone, in a colour that training never showed it in."""
        rows = np.random.default_rng(0).permutation(alone(self.base.pictures, "test"))
        return rows[: self.prompts]

    @cached_property
    def judge(self) -> Judge:
        """Names things."""
        return train_judge(self.base.pictures, self.base.parts.tokenizers, 0)

    def subject(self, variant: str, seed: int) -> Subject:
        """Return a decoder with the base's parts, trained now if it is not there yet."""
        return replace(self.base, parts=self.parts(variant, seed))

    def parts(self, variant: str, seed: int) -> Parts:
        """Return a decoder's parts."""
        base = self.base.parts
        folder = self._folder(variant, seed)
        if not (folder / "model").is_dir():
            self._train(variant, seed, folder)
        return replace(base, model=load_decoder(folder / "model", base.device))

    def log_folder(self, variant: str, seed: int) -> Path:
        """Return the folder of a decoder's training."""
        self.parts(variant, seed)
        return self._folder(variant, seed)

    def kept(self, name: str) -> Path:
        """Return where something that was made of this very base is kept."""
        return self.work / base_fingerprint(self.run)[:12] / name

    def _folder(self, variant: str, seed: int) -> Path:
        return self.kept(f"{variant.replace(' ', '-')}-{self.steps}-{seed}")

    def _train(self, variant: str, seed: int, folder: Path) -> None:
        recipe, subject = parts.recipe_of(self.run), self.base
        pairs = subject.pictures.pairs
        decoder = VARIANTS[variant](recipe.decoder)
        optim = replace(
            decoder.optim,
            total_steps=self.steps,
            warmup_steps=min(decoder.optim.warmup_steps, max(1, self.steps // 4)),
        )
        train_decoder(
            replace(decoder, optim=optim, val_every=max(1, self.steps // 6)),
            subject.parts.tokenizers,
            subject.parts.memory.documents,
            pairs.keys[pairs.rows("train")],
            pairs.keys[pairs.rows("validation")],
            subject.neighbours,
            folder,
            retrieve=0 if variant == "without documents" else recipe.evaluation.retrieve,
            seed=seed,
            device=subject.parts.device,
            precision=precision_on(subject.parts.device, recipe.precision),
            checkpoint_every=recipe.checkpoint_every,
        )


def said(values: Mapping[Any, float]) -> dict[str, float]:
    """Return a series with its x as text, as JSON has it."""
    return {f"{x:g}" if isinstance(x, float) else str(x): float(y) for x, y in values.items()}
