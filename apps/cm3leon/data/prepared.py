"""A folder that apps/prepare.py made, as a run reads it.

It has the layout of a run's folder up to the token shards, so `cm3leon.parts` opens its parts.
Beside them it holds the keys of each split, and pictures enough for the report: a run needs no
other pixels, and no list of its pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cm3_retrieval import NeighbourTable
from cm3leon.data.memory import Neighbours
from cm3leon.data.pairs import SPLITS, Pairs
from cm3leon.data.pixels import Pictures
from cm3leon.prepared_folder import fingerprint_of_prepared
from cm3leon.recipe import Recipe
from cm3leon.recipe_file import read_recipe
from cm3leon.stages import read_object


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A prepared folder."""

    fingerprint: str
    """Of its contents."""
    keys: dict[str, np.ndarray]
    """Split -> keys of its pairs, int64, memory-mapped."""
    pictures: Pictures
    """Some of each split, with their pixels."""
    neighbours: Neighbours
    """Of all pairs; the image vectors are those of `pictures`."""


def settled(recipe: Recipe) -> tuple[Recipe, bool]:
    """Return a run's recipe with what its prepared folder decides, and whether to trust that.

    The size, the tokenizers, the encoder, the strategy and the views are the folder's. Classes that
    its recipe names are trusted where the run's own recipe names the same.

    Raises:
        ValueError: The folder's captions may be too long for the run.
    """
    folder = recipe.data.prepared
    if folder is None:
        return recipe, True
    fingerprint_of_prepared(folder)
    made = read_recipe(folder)
    if recipe.decoder.max_length < made.decoder.max_length:
        raise ValueError(
            f"decoder.max_length: wanted at least {made.decoder.max_length}, for which {folder} "
            f"was prepared, got {recipe.decoder.max_length}"
        )
    named = [
        (r.texttok.tokenizer, r.imagetok.tokenizer, r.retrieval.encoder) for r in (recipe, made)
    ]
    whole = replace(
        recipe,
        data=replace(recipe.data, size=made.data.size, prepared=folder.resolve()),
        texttok=made.texttok,
        imagetok=made.imagetok,
        retrieval=made.retrieval,
        decoder=replace(recipe.decoder, views=made.decoder.views),
    )
    return whole, all(mine == its for mine, its in zip(*named, strict=True) if its is not None)


def open_prepared(folder: Path) -> Prepared:
    """Open what training and the report read; errors as of `fingerprint_of_prepared`."""
    fingerprint = fingerprint_of_prepared(folder)
    place = folder / "pictures"
    rows = read_object(place / "pictures.json", "pairs")["pairs"]
    pairs = _pairs(rows)
    pictures = Pictures(
        pairs=pairs,
        decoded=np.load(place / "pixels.npy", mmap_mode="r"),
        places=np.arange(len(pairs)),
        boxes=pairs.boxes,
        skipped=[],
    )
    neighbours = Neighbours(
        training=NeighbourTable.load(folder / "retrieval" / "neighbours-training"),
        inference=NeighbourTable.load(folder / "retrieval" / "neighbours-inference"),
        image_vectors=np.load(place / "image_vectors.npy"),
    )
    keys = {
        name: np.load(path, mmap_mode="r")
        for name in SPLITS
        if (path := folder / "splits" / f"{name}.npy").is_file()
    }
    return Prepared(fingerprint=fingerprint, keys=keys, pictures=pictures, neighbours=neighbours)


def _pairs(rows: list[dict[str, Any]]) -> Pairs:
    return Pairs(
        np.array([row["key"] for row in rows], np.int64),
        [row["file_name"] for row in rows],
        [row["caption"] for row in rows],
        np.array([row["split"] for row in rows], dtype=object),
        [row["group"] for row in rows],
        [row["category"] for row in rows],
        [row["boxes"] for row in rows],
        [row["facts"] for row in rows],
    )
