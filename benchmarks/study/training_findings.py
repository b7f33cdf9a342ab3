"""Findings on training: sizes, the objective, instruction tuning and its guidance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from cm3_train import progress_bar, read_history
from cm3leon.drawing.redraw import masked_codes, redrawing
from cm3leon.drawing.sampling import unguided
from cm3leon.evaluation.bits import bits_per_code
from cm3leon.evaluation.combinations import caption_figures
from cm3leon.evaluation.instructions.figures import asked_for, drawn as drawn_for
from cm3leon.evaluation.instructions.pictures import score_edits
from cm3leon.evaluation.subject import Subject
from cm3leon.instructions.sets import InstructionSet
from cm3leon.parts import open_decoder, recipe_of
from cm3leon.recipe_file import read_tuning
from cm3leon.stages import read_object
from study.drawn import Reference, drawn, right_things
from study.findings import Claim, Curves, Finding, differences
from study.subjects import SIZES, Study, said

TEXT_SCALES = (1.0, 2.0, 4.0, 7.5)
IMAGE_SCALES = (1.0, 1.5, 2.0)
TUNED = {
    "edit.colour": "edits of the colour", "edit.background": "edits of the background",
    "boxes.iou30": "things at boxes", "write.character": "characters",
    "segmentation.iou": "shapes of a map", "ask.colour": "what colour", "ask.thing": "what is it",
    "ask.yes_no": "is it", "ask.number": "how many", "caption.long": "long captions",
}  # fmt: skip


def sizes(study: Study, seed: int) -> Curves:
    """Return the validation perplexity of three sizes over their steps."""
    found = {}
    for size in (*SIZES, "large"):
        history = read_history(study.log_folder(size, seed))
        found[size] = said(
            {step + 1: math.exp(row["val/loss"]) for step, row in history.items()
             if "val/loss" in row}
        )  # fmt: skip
    return {"perplexity": found}


def size_claims(seeds: Sequence[Curves]) -> list[Claim]:
    """Each larger size ends at a lower perplexity."""
    names = (*SIZES, "large")

    def last(curves: Curves, size: str) -> float:
        return list(curves["perplexity"][size].values())[-1]

    return [
        Claim(
            text=f"perplexity of {one} less that of {other}",
            values=[last(curves, one) - last(curves, other) for curves in seeds],
        )
        for one, other in zip(names, names[1:], strict=False)
    ]


def objective(study: Study, seed: int) -> Curves:
    """Compare CM3 with plain next-token prediction in drawing, captioning, infilling."""
    reference = Reference.of(study)
    found: dict[str, dict[str, dict[str, float]]] = {"share": {}, "distance": {}, "bits": {}}
    for name, variant in (("CM3", "large"), ("next token", "next token")):
        subject = study.subject(variant, seed)
        made = drawn(study, subject, seed, what=name)
        captions = caption_figures(subject)
        found["share"][name] = {
            "drawn: right thing": right_things(study, subject, made.pixels[:, 0])["thing_top1"],
            "captioned: right colour": captions["colour"],
            "captioned: right thing": captions["thing"],
            "infilled: same codes": infilled(study, subject),
        }
        found["distance"][name] = {"drawn": reference.distance(made.vectors[:, 0])}
        bits = bits_per_code(subject.parts, subject.pictures.pairs, study.rows, subject.context)
        found["bits"][name] = {"held-out pairs": bits}
    return found


def infilled(study: Study, subject: Subject) -> float:
    """Return the share of pixels' codes in the middle that are redrawn as they were."""
    tokenizers = subject.parts.tokenizers
    rows, side = study.rows[: max(1, len(study.rows) // 4)], tokenizers.size
    greedy = replace(unguided(subject.recipe.sampling), top_k=1)
    hits = []
    middle = (side // 4, side // 4, 3 * side // 4, 3 * side // 4)
    masked = masked_codes(tokenizers, middle, (side, side))
    with progress_bar("infilling") as progress:
        for done, row in enumerate(rows):
            pixels = subject.pictures.pixels(np.array([row]))[0]
            redrawn = redrawing(
                subject.parts,
                Image.fromarray(pixels),
                masked,
                subject.pictures.pairs.captions[row],
                candidates=1,
                sampling=greedy,
            )
            found = redrawn.carry_out(subject.parts)
            real = tokenizers.through(pixels[None])[0]
            apart = np.abs(found.pixels[0].astype(float) - real).mean(-1)[found.masked]
            hits.append(float((apart < 8).mean()))  # of 255: the code, or one that looks like it
            progress(done + 1, len(rows))
    return float(np.mean(hits))


def objective_claims(seeds: Sequence[Curves]) -> list[Claim]:
    """CM3 captions and infills, which next-token prediction cannot."""
    return [
        Claim(
            text=f"{figure}: CM3 less next token",
            values=differences(seeds, "share", ("CM3", figure), ("next token", figure)),
        )
        for figure in ("captioned: right colour", "captioned: right thing", "infilled: same codes")
    ]


def tuned_run(study: Study, seed: int) -> Path:
    """Return the tuned run of a seed.

    Raises:
        FileNotFoundError: It is not there; says how to make it.
    """
    run = study.tuned / f"sft-{seed}"
    if not (run / "report.json").is_file():
        raise FileNotFoundError(
            f"{run}: wanted a tuned run; make it: python apps/sft.py --base {study.run} --runs "
            f"{study.tuned} --name sft-{seed} --seed {seed}"
        )
    if recipe_of(run).base != study.run.resolve():
        raise FileNotFoundError(f"{run}: wanted a run tuned from {study.run}, got one of another")
    return run


def edit_scales(study: Study, seed: int) -> Curves:
    """Edit the colour by each pair of scales of text and picture."""
    run = tuned_run(study, seed)
    base = study.base.parts
    parts = replace(base, model=open_decoder(recipe_of(run), base.device))
    guidance = read_tuning(run).guidance
    one = InstructionSet(run / "instructions" / "edit", "test", base.tokenizers.vocabulary.sha256)
    asked = asked_for([one], base.tokenizers, max(1, study.prompts // 4))["edit"]
    asked = replace(asked, records=[r for r in asked.records if r.facts["change"] == "colour"])
    source = asked.decoded("source")
    right: dict[str, dict[float, float]] = {}
    drift: dict[str, dict[float, float]] = {}
    for picture in IMAGE_SCALES:
        name = f"picture {picture:g}"
        right[name], drift[name] = {}, {}
        for text in TEXT_SCALES:
            scales = replace(guidance, edit_text=text, edit_image=picture)
            pixels = drawn_for(parts, asked, scales.sampling, 128)
            found = score_edits(pixels, source, asked.facts, study.judge)
            right[name][text] = found["colour"]
            drift[name][text] = found.get("drift", 0.0)  # none where things fill their pictures
    return {
        "right": {name: said(values) for name, values in right.items()},
        "drift": {name: said(values) for name, values in drift.items()},
    }


def edit_claims(seeds: Sequence[Curves]) -> list[Claim]:
    """Guidance by text makes the edit, guidance by the picture keeps the rest."""
    return [
        Claim(
            text="right edits at text 7.5 less those at 1, picture 1.5",
            values=differences(seeds, "right", ("picture 1.5", "7.5"), ("picture 1.5", "1")),
        ),
        Claim(
            text="drift at picture 1 less that at 2, text 7.5",
            values=differences(seeds, "drift", ("picture 2", "7.5"), ("picture 1", "7.5"), -1),
        ),
    ]


def tuning(study: Study, seed: int) -> Curves:
    """Return the figures of a tuned run's report, tuned and untuned."""
    report = read_object(tuned_run(study, seed) / "report.json")
    found: dict[str, dict[str, float]] = {"tuned": {}, "untuned": {}, "ceiling": {}}
    for figure, label in TUNED.items():
        part, name = figure.split(".")
        for whose, suffix in (("tuned", ""), ("untuned", ".untuned"), ("ceiling", ".ceiling")):
            if name + suffix in report.get(part, {}):
                found[whose][label] = report[part][name + suffix]
    return {"share": found}


def tuning_claims(seeds: Sequence[Curves]) -> list[Claim]:
    """Tuning makes the base follow each kind of instruction."""
    return [
        Claim(
            text=f"{label}: tuned less untuned",
            values=differences(seeds, "share", ("tuned", label), ("untuned", label)),
        )
        for label in seeds[0]["share"]["untuned"]
    ]


FINDINGS = [
    Finding(
        number=4,
        title="Size",
        paper="Larger models end at a lower validation perplexity (figure 3).",
        here="Three sizes on equal sequences, unseen combinations.",
        axes={"perplexity": "step | validation perplexity"},
        measure=sizes,
        claims=size_claims,
    ),
    Finding(
        number=5,
        title="Guidance of edits, text and picture apart",
        paper="Edits are guided by the picture by 1.5 and by the text by 7.5 (section 4.1).",
        here="Colour edits of unseen combinations by the tuned default run.",
        axes={
            "right": "text guidance | right colour, shape kept",
            "drift": "text guidance | change outside of the thing, 0..1",
        },
        measure=edit_scales,
        claims=edit_claims,
        tuned=True,
    ),
    Finding(
        number=6,
        title="Instruction tuning",
        paper="Tuned, the model follows instructions over a wide range of tasks (table 2).",
        here="The default run tuned on the embedded instructions, against itself untuned.",
        axes={"share": " | share right"},
        measure=tuning,
        claims=tuning_claims,
        tuned=True,
    ),
    Finding(
        number=7,
        title="The CM3 objective",
        paper="One objective for drawing, captioning and infilling (section 2.2).",
        here="CM3 against plain next-token prediction on equal sequences.",
        axes={
            "share": " | share right",
            "distance": " | Frechet distance of CLIP features, x 1000",
            "bits": " | bits per code",
        },
        measure=objective,
        claims=objective_claims,
    ),
]
