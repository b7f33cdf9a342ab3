"""Captions that are too long for a sequence: left out before anything is trained on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cm3_texttok.interface import Tokenizer
from cm3_train.artifact import write_json
from cm3leon.data.pairs import SPLITS, DataError
from cm3leon.data.pixels import Pictures
from cm3leon.stages import read_object

NAME = "captions.json"


def write_long_captions(
    pictures: Pictures, tokenizer: Tokenizer, most: int, views: int, folder: Path
) -> None:
    """Write which captions are too long into `captions.json`.

    Args:
        pictures: All pairs.
        tokenizer: Of captions.
        most: Most ids of a caption.
        views: Views of a picture, whose captions say which they are.
        folder: Takes the file.
    """
    pairs = pictures.pairs
    longest = [f"{caption} #{views - 1}" if views > 1 else caption for caption in pairs.captions]
    lengths = [len(ids) for ids in tokenizer.encode_batch(longest)]
    long = {
        str(pairs.keys[row]): f"{pairs.files[row]}: wanted a caption of at most {most} ids, "
        f"got {length}"
        for row, length in enumerate(lengths)
        if length > most
    }
    write_json(folder / NAME, {"left_out": long})


def without_long_captions(pictures: Pictures, folder: Path) -> tuple[Pictures, list[str]]:
    """Return the other pairs, and a message for each that is left out.

    Raises:
        DataError: No pair is left in one of the splits.
    """
    long = read_object(folder / NAME, "left_out")["left_out"]
    pairs = pictures.pairs
    good = np.flatnonzero(~np.isin(pairs.keys, [int(key) for key in long]))
    left = replace(pictures, pairs=pairs.take(good), places=pictures.places[good])
    for split in SPLITS:
        if len(pairs.rows(split)) and not len(left.pairs.rows(split)):
            first = next(iter(long.values()))
            raise DataError(f"no caption short enough is left in {split}, the first: {first}")
    return left, list(long.values())
