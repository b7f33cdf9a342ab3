"""Opens what an evaluation is of: any finished run, and the sets that its recipe names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cm3leon import parts
from cm3leon.base_run import base_fingerprint
from cm3leon.device import device_of
from cm3leon.evaluate_recipe import EvaluateRecipe
from cm3leon.evaluation.subject import open_subject
from cm3leon.evaluation.tasks.interface import Examined
from cm3leon.instructions.sets import SPLITS, TASK_FILE, InstructionSet
from cm3leon.tuned import open_tuned


def open_examined(recipe: EvaluateRecipe) -> Examined:
    """Open a run with its pictures, its sets, and what it was tuned on.

    Raises:
        FileNotFoundError: There is no run, or a set is missing.
        ValueError: The run or a set is damaged, or of another version.
    """
    run, device = recipe.run, device_of(recipe.device)
    said = parts.recipe_of(run)
    tuned = None if said.base is None else open_tuned(run)
    if not said.retrieval.bank:  # published weights, which come without pairs
        subject, opened = None, parts.parts_of(said, device)
    else:
        subject = open_subject(said.base or run, recipe.device)
        if said.base is not None:
            subject = replace(
                subject, parts=replace(subject.parts, model=parts.open_decoder(said, device))
            )
        opened = subject.parts
    if recipe.set_split not in SPLITS:
        raise ValueError(f"set_split: wanted one of {SPLITS}, got {recipe.set_split!r}")
    vocabulary = opened.tokenizers.vocabulary.sha256
    return Examined(
        run=run,
        parts=opened,
        tuned=tuned,
        pairs=subject,
        sets=[
            InstructionSet(folder, recipe.set_split, vocabulary)  # pyright: ignore
            for folder in recipe.sets or embedded_sets(run)
        ],
        seed=recipe.seed,
        batch_size=recipe.batch_size,
        folder=recipe.folder,
        made_by=base_fingerprint(run),
    )


def embedded_sets(run: Path) -> list[Path]:
    """Return the sets that a tuned run has made for itself."""
    return sorted(path.parent for path in (run / "instructions").glob(f"*/{TASK_FILE}"))
