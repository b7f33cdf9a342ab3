"""The embedded sets: planned, each picture drawn and encoded once, and written one set a task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from cm3_texttok import PAPER_TASKS
from cm3_train import write_shards
from cm3leon.data.plan import held_out
from cm3leon.data.scenes import Scene
from cm3leon.data_recipe import CompositionsRecipe
from cm3leon.instructions.embedded import answers, drawings, edits
from cm3leon.instructions.embedded.pictures import Drawing, pixels_of
from cm3leon.instructions.embedded.planned import Painted, Planned, Pool
from cm3leon.instructions.retrieving import Retriever
from cm3leon.instructions.sets import SPLITS, codes_per_row, row_of, write_task
from cm3leon.joined_tokenizers import BATCH, Tokenizers
from cm3leon.tuning_recipe import EmbeddedRecipe

Progress = Callable[[int, int], None]
"""Called with (pictures encoded, pictures in all)."""


def _edits(pool: Pool, number: int) -> Iterator[Planned]:
    if pool.split == "train":
        yield from edits.edits(pool, number)
        return
    for kind in edits.SHARES:
        yield from edits.edits(pool, number, only=kind)


def _questions(pool: Pool, number: int) -> Iterator[Planned]:
    kinds = 1 if pool.split == "train" else len(answers.ASKED)
    yield from answers.questions(pool, number * kinds)


def _guided(feature: str) -> Callable[[Pool, int], Iterator[Planned]]:
    return lambda pool, number: drawings.guided(pool, number, feature)


def makers(recipe: EmbeddedRecipe) -> dict[str, Callable[[Pool, int], Iterator[Planned]]]:
    """Return what plans the records of each task."""
    return {
        "edit": _edits,
        "boxes": lambda pool, number: drawings.grounded(pool, number, recipe.grid),
        "write": drawings.writing,
        **{feature: _guided(feature) for feature in drawings.GUIDES},
        "coco_caption": answers.short_captions,
        "image_paragraph": answers.long_captions,
        "vqa2": _questions,
        "science_qa": answers.choices,
    }


def plan_records(
    compositions: CompositionsRecipe, recipe: EmbeddedRecipe, seed: int
) -> dict[str, list[Planned]]:
    """Plan the records of every task, those of all splits.

    A record of validation or test asks for a combination of thing and colour that is held out
    there; so the pretraining never showed it either.

    Args:
        compositions: Things and colours, and what is held out, as of the pretrained run.
        recipe: How many.
        seed: Draws them.
    """
    things, combinations, _ = held_out(compositions)
    by_name = {thing.name: thing for thing in things}
    of_split: dict[str, list[Painted]] = defaultdict(list)
    for (name, colour), split in combinations.items():
        of_split[split].append((by_name[name], colour))
    found: dict[str, list[Planned]] = {}
    making = makers(recipe)
    for number, (task, count) in enumerate(recipe.numbers.items()):
        if not count:
            continue
        found[task] = []
        for place, split in enumerate(SPLITS):
            pool = Pool(
                split=split,
                new=of_split[split],
                known=of_split["train"],
                rng=np.random.default_rng((seed, 11, number, place)),
            )
            wanted = count if split == "train" else recipe.held_out
            found[task] += making[task](pool, wanted)
    return found


BY_PICTURE = ("coco_caption", "image_paragraph", "vqa2", "science_qa")
"""Tasks before which the documents stand that the picture finds: those that ask for words."""


def write_embedded(
    folder: Path,
    tokenizers: Tokenizers,
    retriever: Retriever,
    compositions: CompositionsRecipe,
    recipe: EmbeddedRecipe,
    seed: int,
    progress: Progress,
) -> None:
    """Write a set for each task: `folder / task`.

    Args:
        folder: Takes the sets.
        tokenizers: The image tokenizer is used.
        retriever: Finds documents for the tasks of `BY_PICTURE`.
        compositions: As of `plan_records`.
        recipe: As of `plan_records`.
        seed: As of `plan_records`.
        progress: Called with (pictures encoded, pictures in all).
    """
    planned = plan_records(compositions, recipe, seed)
    records = [record for found in planned.values() for record in found]
    shown = dict.fromkeys(picture for record in records for picture in record.pictures.values())
    codes = encoded(list(shown), tokenizers, progress)
    near = documents_for(planned, retriever, tokenizers.size)
    for name, found in planned.items():
        task = PAPER_TASKS[name]
        for split in SPLITS:
            write_shards(
                (
                    row_of(
                        key,
                        task,
                        record.texts,
                        {field: codes[picture] for field, picture in record.pictures.items()},
                        facts=record.facts,
                        near=near.get((name, key), ()),
                        source="embedded",
                    )
                    for key, record in enumerate(found)
                    if record.split == split
                ),
                folder / name / split,
                codes_per_image=codes_per_row(task, tokenizers),
                vocabulary_sha256=tokenizers.vocabulary.sha256,
            )
        write_task(folder / name, task)


def documents_for(
    planned: Mapping[str, Sequence[Planned]], retriever: Retriever, size: int
) -> dict[tuple[str, int], tuple[int, ...]]:
    """Return the documents of records of `BY_PICTURE`, by task and place."""
    places = [
        ((name, place), record.pictures["image"])
        for name in BY_PICTURE
        for place, record in enumerate(planned.get(name, ()))
    ]
    scenes = list(dict.fromkeys(picture for _, picture in places if isinstance(picture, Scene)))
    if not scenes:
        return {}
    pixels = np.stack([pixels_of(scene, size) for scene in scenes])
    keys = retriever.near(pixels, [scene.group for scene in scenes])
    found = dict(zip(scenes, keys, strict=True))
    return {place: found[scene] for place, scene in places if isinstance(scene, Scene)}


def encoded(
    pictures: Sequence[Drawing], tokenizers: Tokenizers, progress: Progress
) -> dict[Drawing, np.ndarray]:
    """Draw and encode pictures; gives the codes (h * w,) of each."""
    found: dict[Drawing, np.ndarray] = {}
    for start in range(0, len(pictures), BATCH):
        part = pictures[start : start + BATCH]
        pixels = np.stack([pixels_of(picture, tokenizers.size) for picture in part])
        found |= zip(part, tokenizers.encode(pixels).astype(np.uint16), strict=True)
        progress(len(found), len(pictures))
    return found
