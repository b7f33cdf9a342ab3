"""The report of a tuning on the embedded instructions: figures beside each other, and a sheet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cm3_train.artifact import write_json
from cm3leon.data.compositions import CREDIT
from cm3leon.evaluation.instructions.figures import (
    HOW,
    OTHERS,
    Asked,
    Outputs,
    asked_for,
    beside,
    outputs_of,
    score,
    true_outputs,
)
from cm3leon.evaluation.judge import train_judge
from cm3leon.evaluation.subject import Subject
from cm3leon.instructions.sets import InstructionSet
from cm3leon.parts import Parts
from cm3leon.sheets import Rows, write_blocks
from cm3leon.stages import read_object
from cm3leon.training.sequences import OBJECTIVE_FILE
from cm3leon.tuning_recipe import TuningRecipe

SHEET = "samples.png"
OBJECTIVE = {
    "objective.replayed_share": "Share of 1,000 training sequences that are the pretraining's.",
    "objective.documents_share": "Share of them that are instructions behind a document.",
    "objective.outputs_cut_share": "Share of them whose output is cut out and learnt behind "
    "<infill>, as it is asked for.",
    "objective.no_text_share": "Of the instructions that end in a picture, share without their "
    "texts: a stream of guidance.",
    "objective.no_input_share": "The same without texts and pictures: the other stream.",
    "objective.ids": "Mean length of a sequence.",
}
BLOCKS = {
    "edit": ("edits", ("source",)),
    "boxes": ("things at boxes", ()),
    "write": ("writing", ()),
    "canny": ("from Canny edges", ("feature",)),
    "scribble": ("from scribbles", ("feature",)),
    "segmentation": ("from shapes", ("feature",)),
    "vqa2": ("questions", ()),
    "science_qa": ("choices", ()),
    "image_paragraph": ("long captions", ()),
}
"""Heading of each task's block, and the pictures that are given."""


def write_report(
    base: Subject,
    tuned: Parts,
    sets: Sequence[InstructionSet],
    tuning: TuningRecipe,
    folder: Path,
    say: Callable[[str], None],
) -> None:
    """Compute every figure, and draw the sheet.

    Args:
        base: The run that the tuning started from, whose pictures the judge learns from.
        tuned: The tuned run's parts.
        sets: The test splits of the embedded sets.
        tuning: How much to draw, and how.
        folder: Takes `figures.json` and `samples.png`.
        say: Takes one line for the user.
    """
    recipe, tokenizers = tuning.evaluation, tuned.tokenizers
    asked = asked_for(sets, tokenizers, recipe.samples)
    judge = train_judge(base.pictures, tokenizers, tuning.seed)
    others = {"ceiling": true_outputs(asked), "chance": true_outputs(asked, 1)}
    say("evaluate: the tuned run")
    mine = outputs_of(tuned, asked, tuning.guidance.sampling, recipe.batch_size)
    if recipe.untuned:
        say("evaluate: the run that it started from")
        others["untuned"] = outputs_of(
            base.parts, asked, tuning.guidance.sampling, recipe.batch_size
        )
    figures: dict[str, Any] = dict(
        beside(
            score(asked, mine, judge),
            {name: score(asked, outputs, judge) for name, outputs in others.items()},
        )
    )
    figures["objective"] = read_object(tuning.folder / "decoder" / OBJECTIVE_FILE)
    samplers = base.parts.habits.samplers
    figures["samples"] = {"guidance_scale": samplers[0].guidance_scale}
    figures["how"] = {
        **{f"*.{other}": text for other, text in OTHERS.items()},
        **{name: text for name, text in HOW.items() if name.partition(".")[0] in figures},
        **OBJECTIVE,
    }
    figures["credit"] = CREDIT
    write_json(folder / "figures.json", figures)
    write_blocks(folder / SHEET, blocks(asked, mine, recipe.pictures))


def blocks(
    asked: Mapping[str, Asked], made: Outputs, number: int
) -> list[tuple[str, Rows, Sequence[str]]]:
    """Return the sheet: what was given, what the tuned run made of it, and the real output."""
    found = []
    for name, (heading, given) in BLOCKS.items():
        if name not in asked:
            continue
        one = asked[name]
        places = np.linspace(0, len(one.records) - 1, number).round().astype(int).tolist()
        some = Asked(
            task=one.task,
            records=[one.records[place] for place in places],
            tokenizers=one.tokenizers,
        )
        shown = [some.decoded(field) for field in given]
        if name in made.pictures:
            shown += [made.pictures[name][places], some.decoded("image")]
            titles = [*given, "drawn", "real"]
            lines = [" / ".join(record.texts.values()) for record in some.records]
        else:
            shown += [some.decoded("image")]
            titles = ["picture"]
            lines = [
                f"{record.texts.get('question', '')} {made.texts[name][place]}".strip()
                for record, place in zip(some.records, places, strict=True)
            ]
        rows = [
            (line, list(cells)) for line, cells in zip(lines, zip(*shown, strict=True), strict=True)
        ]
        found.append((heading, rows, titles))
    return found
