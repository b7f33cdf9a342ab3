"""What the run makes of facts: unseen combinations drawn, new things taught, pictures described.

For sets whose pictures carry facts (`Pairs.facts`), of which those of one thing alone are used. A
judge that neither drew nor chose them names the thing; colour and background are measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from cm3_decoding import generate
from cm3_train import progress_bar
from cm3leon.data.palette import PAINTS
from cm3leon.data.pixels import Pictures
from cm3leon.drawing.describe import CAPTION_LENGTH, read_captions
from cm3leon.drawing.draw import TAUGHT_SCALE
from cm3leon.drawing.prompts import fitting, pairs_of, retrieve, text_to_end
from cm3leon.drawing.sampling import unguided
from cm3leon.evaluation.bits import bits_per_code
from cm3leon.evaluation.judge import Judge, alone, colours_of, thing_of
from cm3leon.evaluation.samples import Drawn, draw_for
from cm3leon.evaluation.subject import Subject

_WHAT = {
    "thing_top1": "share whose thing the judge names first among all things",
    "thing_top5": "share whose thing is among the judge's first five",
    "colour": "share whose measured main colour is the caption's",
    "background": "share whose measured background is the caption's",
}
_WHOSE = {
    "combinations": "Pictures drawn for test captions of one thing alone, in a colour that "
    "training never showed it in, with the documents that the strategy finds, the best of "
    "`evaluation.candidates` by CLIP",
    "one_candidate": "The first candidate of each of these captions",
    "no_document": "One candidate for some of these captions, drawn without a document",
    "shuffled": "The pictures of `combinations`, each held against another one's caption",
    "ceiling": "The real pictures of these captions, through the tokenizer",
    "real": "The real pictures of these captions",
}
HOW = {
    f"{part}.{name}": f"{whose}: {what}."
    for part, whose in _WHOSE.items()
    for name, what in _WHAT.items()
} | {
    "retrieval.same_thing": "Share of the test captions of one thing whose nearest document, as "
    "the strategy takes it, shows the same thing.",
    "retrieval.same_thing_in_training": "The same for training captions, words dropped, by text or "
    "by picture.",
    "teach.thing_top5": "Captions of things that training never saw, drawn with one picture of the "
    "thing in another colour before the prompt, one candidate, `image_guidance_scale` 2: as above.",
    "teach.thing_top1": "The same, named first.",
    "teach.untaught_thing_top5": "The same without that picture.",
    "teach.bits": "Bits per code of the real pictures of these captions, with that picture before.",
    "teach.untaught_bits": "The same without it.",
    "teach.bits_over_untaught": "The one over the other.",
    "caption.thing": "Test pictures of one thing, described greedily with the document that the "
    "picture finds: share whose description names the thing.",
    "caption.colour": "The same: share whose first colour word is the thing's.",
}


def match(subject: Subject, judge: Judge, rows: np.ndarray, pixels: np.ndarray) -> dict[str, float]:
    """Compute how pixels (N, H, W, 3) match the facts of pairs (N,)."""
    facts = [subject.pictures.pairs.facts[row] for row in rows]
    ranks = judge.rank(pixels, [thing_of(subject.pictures, row) for row in rows])
    colours, papers = colours_of(pixels)
    wanted = [(fact["things"][0]["colour"], fact["background"]) for fact in facts if fact]
    return {
        "thing_top1": float((ranks == 0).mean()),
        "thing_top5": float((ranks < 5).mean()),
        "colour": float(np.mean([a == b for a, (b, _) in zip(colours, wanted, strict=True)])),
        "background": float(np.mean([a == b for a, (_, b) in zip(papers, wanted, strict=True)])),
    }


def combination_figures(
    subject: Subject, judge: Judge, scale: float
) -> tuple[dict[str, Any], Drawn]:
    """Draw every unseen combination and hold it against its caption; gives report sections."""
    recipe, pictures = subject.recipe, subject.pictures
    rng = np.random.default_rng(subject.seed)
    rows = rng.permutation(alone(pictures, "test"))[: recipe.samples]
    drawings = draw_for(subject, rows, scale, 20_000, "unseen combinations", recipe.candidates)
    best, real = drawings.best[0], pictures.pixels(rows)
    some = rows[: recipe.control_samples]
    bare = draw_for(subject, some, scale, 20_000, "no document", contexts=[[] for _ in some])
    sections = {
        "combinations": match(subject, judge, rows, best),
        "one_candidate": match(subject, judge, rows, drawings.pixels[:, 0]),
        "no_document": match(subject, judge, some, bare.pixels[:, 0]),
        "shuffled": match(subject, judge, np.roll(rows, 1), best),
        "ceiling": match(subject, judge, rows, subject.parts.tokenizers.through(real)),
        "real": match(subject, judge, rows, real),
    }
    sections["combinations"] |= {"pictures": len(rows), "candidates": recipe.candidates}
    sections["retrieval"] = retrieval_figures(subject, rows)
    return sections, Drawn(rows, best)


def retrieval_figures(subject: Subject, rows: np.ndarray) -> dict[str, float]:
    """Compute how often the nearest document shows the same thing."""
    pictures, neighbours = subject.pictures, subject.neighbours
    facts_of = dict(zip(pictures.pairs.keys.tolist(), pictures.pairs.facts, strict=True))

    def same(row: int, keys: np.ndarray) -> bool:
        facts = facts_of.get(int(keys[0])) if len(keys) else None  # of prepared pairs, some
        names = [thing["name"] for thing in facts["things"]] if facts else []
        return thing_of(pictures, row) in names

    def share(rows: np.ndarray, table: Any, *kinds: str) -> float:
        found = [table.candidates(int(pictures.pairs.keys[row])) for row in rows]
        return float(
            np.mean([same(r, f[kind]) for r, f in zip(rows, found, strict=True) for kind in kinds])
        )

    train = alone(pictures, "train")
    return {
        "same_thing": share(rows, neighbours.inference, "text"),
        "same_thing_in_training": share(train, neighbours.training, "text", "image"),
    }


def teach_figures(
    subject: Subject, judge: Judge, scale: float
) -> tuple[dict[str, Any], Drawn | None, dict[int, int]]:
    """Draw things never seen, with and without one picture of each in another colour.

    Returns:
        The figures, what was drawn with a picture, and the key of the picture shown for each row.
    """
    pictures, keys = subject.pictures, subject.pictures.pairs.keys
    rows = alone(pictures, "things")
    rng = np.random.default_rng(subject.seed)
    shown_rows = alone(pictures, "shown")
    of_thing: dict[str, list[int]] = {}
    for row in shown_rows:
        of_thing.setdefault(thing_of(pictures, row), []).append(int(keys[row]))
    rows = one_a_thing_first(pictures, [r for r in rows if thing_of(pictures, r) in of_thing], rng)
    if not len(rows):
        return {}, None, {}
    shown = {int(row): int(rng.choice(of_thing[thing_of(pictures, row)])) for row in rows}

    def drawn(contexts: list[list[int]], what: str) -> np.ndarray:
        return draw_for(
            subject, rows, scale, 40_000, what, contexts=contexts, document_scale=TAUGHT_SCALE
        ).pixels[:, 0]

    taught = drawn([[shown[int(row)]] for row in rows], "taught things")
    with_one = match(subject, judge, rows, taught)
    without = match(subject, judge, rows, drawn([[] for _ in rows], "untaught things"))
    bits = bits_per_code(subject.parts, pictures.pairs, rows, lambda row: [shown[int(row)]])
    untaught_bits = bits_per_code(subject.parts, pictures.pairs, rows, None)
    figures = {
        **with_one,
        **{f"untaught_{name}": value for name, value in without.items()},
        "bits": bits,
        "untaught_bits": untaught_bits,
        "bits_over_untaught": bits / untaught_bits,
        "pictures": len(rows),
    }
    return figures, Drawn(rows, taught), shown


def one_a_thing_first(
    pictures: Pictures, rows: Sequence[int], rng: np.random.Generator
) -> np.ndarray:
    """Mix rows (N,), the first of every thing before the second of any."""
    mixed = rng.permutation(np.array(rows, np.int64))
    met: Counter[str] = Counter()
    times = []
    for row in mixed:
        met[thing_of(pictures, row)] += 1
        times.append(met[thing_of(pictures, row)])
    return mixed[np.argsort(times, kind="stable")]


def caption_figures(subject: Subject) -> dict[str, float]:
    """Describe held-out pictures, and look for their thing and colour in what is said."""
    parts, pictures = subject.parts, subject.pictures
    tokenizers, layout = parts.tokenizers, parts.tokenizers.layout
    rows = np.random.default_rng(subject.seed).permutation(alone(pictures, "test"))
    rows = rows[: subject.recipe.control_samples]
    prompts = []
    for row in rows:
        codes = parts.memory.documents.codes(int(pictures.pairs.keys[row]))
        found = retrieve(
            parts, "image", subject.neighbours.image_vectors[row], subject.recipe.retrieve
        )
        kept = fitting(parts, found, len(layout.caption_prompt(codes)), 16)
        prompts.append(torch.from_numpy(layout.caption_prompt(codes, pairs_of(parts, kept))))
    greedy = replace(unguided(subject.recipe.sampling), top_k=1)
    said: list[str] = []
    with progress_bar("describing") as progress:
        for start in range(0, len(prompts), subject.recipe.batch_size):
            part = prompts[start : start + subject.recipe.batch_size]
            ids = generate(
                parts.model,
                part,
                constraint=text_to_end(tokenizers, CAPTION_LENGTH),
                config=greedy,
                seeds=range(len(part)),
                device=parts.device,
            )
            said += read_captions(tokenizers, ids)
            progress(len(said), len(prompts))
    colours = [next((w for w in text.split() if w in PAINTS), None) for text in said]
    facts = [pictures.pairs.facts[row] for row in rows]
    things = [(f["things"][0]["name"], f["things"][0]["colour"]) for f in facts if f]
    return {
        "thing": float(
            np.mean([_names(text, name) for text, (name, _) in zip(said, things, strict=True)])
        ),
        "colour": float(
            np.mean([found == colour for found, (_, colour) in zip(colours, things, strict=True)])
        ),
        "pictures": len(rows),
    }


def _names(text: str, name: str) -> bool:
    """Tell whether a description is of a thing: all that stands between colour and paper."""
    thing = text.partition(" on ")[0].split()
    return (thing[1:] if thing[:1] and thing[0] in PAINTS else thing) == name.split()
