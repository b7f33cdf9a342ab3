"""The report of a run: `report.json`, sheets of drawn pictures, loss curves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cm3_train.artifact import write_json
from cm3leon.data.pairs import SPLITS
from cm3leon.evaluation import bits, combinations, samples, tokenizer
from cm3leon.evaluation.curves import write_curves
from cm3leon.evaluation.judge import alone, train_judge
from cm3leon.evaluation.samples import Drawn
from cm3leon.evaluation.subject import Subject
from cm3leon.sheets import Rows, write_blocks
from cm3leon.stages import Stage, read_object
from cm3leon.training.sequences import OBJECTIVE_FILE

HOW = tokenizer.HOW | bits.HOW | samples.HOW | combinations.HOW
HOW |= {
    "objective.cut_share": "Share of 1,000 training sequences that CM3 has cut spans out of.",
    "objective.whole_caption_share": "Share of them whose caption is one mask: what "
    "captioning, and guidance's stream without the text, ask of the model.",
    "objective.spans_a_cut_document": "Spans of those that were cut, a region's rows among them.",
}
PICTURES = ("samples.png", "curves.png")
Block = tuple[str, Rows, Sequence[str]]
"""As `write_blocks` takes them."""


def write_report(
    subject: Subject, run: Path, folder: Path, credit: str, say: Callable[[str], None]
) -> None:
    """Compute every figure and draw every picture of the report.

    Args:
        subject: The run that is judged.
        run: Its folder, with the logs of its trainings.
        folder: Takes `figures.json` and the pictures.
        credit: Where the pictures come from.
        say: Takes one line for the user.
    """
    pairs = subject.pictures.pairs
    say("evaluate: image tokenizer")
    figures: dict[str, Any] = {
        "imagetok": tokenizer.image_tokenizer_figures(
            subject.parts.tokenizers, subject.pictures, subject.recipe.inception
        )
    }
    say("evaluate: bits per code")
    figures["decoder"] = bits.decoder_figures(subject)
    figures["objective"] = read_object(run / "decoder" / OBJECTIVE_FILE)
    say("evaluate: samples")
    scale, figures["sweep"] = samples.guidance_sweep(subject)
    if len(alone(subject.pictures, "test")):
        more, blocks = figures_of_facts(subject, scale)
    else:
        more, test, train = samples.sample_figures(subject, scale)
        more = {"samples": more}
        blocks = [
            block(subject, "captions of held-out pictures", test),
            block(subject, "captions of training pictures", train),
        ]
    figures |= more
    figures["split"] = {
        f"{name}_pictures": len(pairs.rows(name)) for name in SPLITS if len(pairs.rows(name))
    } | {"skipped_pictures": len(subject.pictures.skipped)}
    figures["how"] = how(figures)
    figures["credit"] = credit
    write_json(folder / "figures.json", figures)
    write_blocks(folder / "samples.png", blocks)
    write_curves(run, folder / "curves.png")


def how(figures: dict[str, Any]) -> dict[str, str]:
    """Return how each figure that there is is computed; not every run has every figure."""

    def has(part: str, figure: str) -> bool:
        return part in figures and (not figure or figure in figures[part])

    return {name: text for name, text in HOW.items() if has(*name.partition(".")[::2])}


def figures_of_facts(subject: Subject, scale: float) -> tuple[dict[str, Any], list[Block]]:
    """Compute the figures of a set with facts, and the blocks of its sheet."""
    judge = train_judge(subject.pictures, subject.parts.tokenizers, subject.seed)
    figures, unseen = combinations.combination_figures(subject, judge, scale)
    blocks = [block(subject, "combinations never seen", unseen)]
    teach, taught, shown = combinations.teach_figures(subject, judge, scale)
    if taught is not None:
        figures["teach"] = teach
        contexts = {row: [key] for row, key in shown.items()}
        blocks.append(block(subject, "things taught by one picture", taught, contexts, "shown"))
    figures["caption"] = combinations.caption_figures(subject)
    rng = np.random.default_rng(subject.seed)
    train = rng.permutation(subject.pictures.pairs.rows("train"))[: subject.recipe.pictures]
    drawn = samples.draw_for(
        subject, train, scale, 30_000, "training captions", subject.recipe.candidates
    )
    blocks.append(block(subject, "captions of training pictures", Drawn(train, drawn.best[0])))
    return {"samples": {"guidance_scale": scale}} | figures, blocks


def block(
    subject: Subject,
    heading: str,
    drawn: Drawn,
    contexts: Mapping[int, list[int]] | None = None,
    title: str = "retrieved",
) -> Block:
    """Return caption, documents, drawn pictures and the real one of the first prompts.

    Args:
        subject: The run that is judged.
        heading: Stands over the block.
        drawn: What was drawn. A pair that was drawn for more than once has its drawings side by
            side.
        contexts: Row -> keys of the documents shown; None: those that its caption finds.
        title: Over the documents.
    """
    pictures, room = subject.pictures, subject.recipe.retrieve if contexts is None else 1
    row_of = {int(key): row for row, key in enumerate(pictures.pairs.keys)}
    width = min(2, int(np.unique(drawn.rows, return_counts=True)[1].max()))
    lines = []
    for row in list(dict.fromkeys(drawn.rows.tolist()))[: subject.recipe.pictures]:
        keys = subject.context(row) if contexts is None else contexts[row]
        context = documents_shown(subject, row_of, keys)
        mine = drawn.pixels[drawn.rows == row][:width]
        real = pictures.pixels(np.array([row]))
        cells = [*padded(context, room), *padded(list(mine), width), *real]
        lines.append((pictures.pairs.captions[row], cells))
    names = ["drawn"] if width == 1 else [f"drawn {i + 1}" for i in range(width)]
    return heading, lines, [*[title] * room, *names, "real"]


def documents_shown(subject: Subject, row_of: dict[int, int], keys: list[int]) -> list[np.ndarray]:
    """Return a picture (H, W, 3) of each document: its pixels, or what its codes decode to.

    Of prepared pairs only some have their pixels.
    """
    tokenizers, documents = subject.parts.tokenizers, subject.parts.memory.documents
    return [
        subject.pictures.pixels(np.array([row_of[key]]))[0]
        if key in row_of
        else tokenizers.decode(documents.codes(key)[None])[0]
        for key in keys
    ]


def padded(pictures: Sequence[np.ndarray], count: int) -> list[np.ndarray | None]:
    """Return `count` pictures, with None where there are fewer."""
    return [*pictures, *[None] * (count - len(pictures))]


def finish(
    folder: Path,
    stages: dict[str, Stage],
    wall_seconds: float,
    machine: dict[str, Any],
    pictures: Sequence[str] = PICTURES,
) -> dict[str, Any]:
    """Put the report where people look, and return it.

    Args:
        folder: The run's.
        stages: All stages by name, the report among them.
        wall_seconds: What this start of the program took; kept stages are added.
        machine: Facts that the figures depend on.
        pictures: Files that the report stage has drawn.
    """
    made = stages["report"].folder
    kept = sum(stage.seconds for stage in stages.values() if stage.kept)
    report = {
        "wall_seconds": wall_seconds + kept,
        "stages": {name: stage.seconds for name, stage in stages.items()},
        "resumed_stages": [name for name, stage in stages.items() if stage.resumed],
        **json.loads((made / "figures.json").read_text("utf-8")),
        "machine": {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "threads": torch.get_num_threads(),
            **machine,
        },
    }
    write_json(folder / "report.json", report)
    for name in pictures:
        shutil.copyfile(made / name, folder / name)
    return report


def table(report: dict[str, Any]) -> str:
    """Return the report's numbers, one a line."""
    return "\n".join(
        f"  {part}.{name}: {value:.4g}" if isinstance(value, float) else f"  {part}.{name}: {value}"
        for part, figures in report.items()
        if isinstance(figures, dict) and part != "how"
        for name, value in figures.items()
    )
