"""Flickr30k's captions as published: `results_20130124.token`.

A line is `1001.jpg#0`, a tab and `A boy kicks a ball .`, in UTF-8; the captions of a picture stand
together. No split is named; pictures are held out by a hash of their names. Karpathy's
`dataset_flickr30k.json`, whose splits the literature uses, is read by `coco.read_karpathy`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from cm3_retrieval.text_file import read_lines
from cm3leon.data.raw_files import Unusable
from cm3leon.instructions.example import Examples, split_by_hash
from cm3leon.instructions.readers.annotations import one_line
from cm3leon.instructions.readers.captioned import captioned
from cm3leon.instructions.readers.picture_folder import PictureFolder

_LINE = re.compile(r"([^\t]+)#(\d+)\t(.*\S.*)")


def read_tokens(files: Sequence[Path], pictures: PictureFolder) -> Examples:
    """Yield the captions of all pictures."""
    for path in files:
        bad: list[Unusable] = []
        for name, captions in groupby(_lines(path, bad), lambda line: line[0]):
            said = [(number, caption) for _, number, caption in captions]
            try:
                picture = pictures.named(name)
            except ValueError as error:
                bad.append(Unusable(file=path.name, key=name, reason=str(error)))
                continue
            yield from captioned(
                name,
                said,
                picture,
                split=split_by_hash(name),
                source=f"{path.name}: {name}",
                facts={"image_id": name},
            )
        yield from bad


def _lines(path: Path, bad: list[Unusable]) -> Iterator[tuple[str, int, str]]:
    """Yield (picture, number, caption)."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            reason = f"wanted PICTURE#NUMBER, a tab and a caption, got {line[:80]!r}"
            bad.append(Unusable(file=path.name, key=f"line {number}", reason=reason))
        else:
            yield found[1], int(found[2]), one_line(found[3])
