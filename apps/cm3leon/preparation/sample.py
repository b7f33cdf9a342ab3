"""A plain imagefolder of some pairs of any source, to train tokenizers and a CLIP on."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from cm3_imagetok import load_image
from cm3_retrieval.text_file import texts_of
from cm3_train.artifact import atomic_file
from cm3leon.data.pairs import rows_of
from cm3leon.preparation.job import Preparation
from cm3leon.preparation.source import Record, Source, licence_of, open_source, origin_of
from cm3leon.preparation.squares import boxes_of
from cm3leon.stages import lock_folder

SHARDS = 64
"""Most shards that pairs are taken from, if they hold enough."""
METADATA = "metadata.jsonl"
ENDINGS = {b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp", b"II*": "tif"}
"""What a picture's file begins with -> its ending; for people, since the content decides."""


def write_sample(options: Preparation, count: int, seed: int) -> int:
    """Write up to `count` pictures with their columns as an imagefolder; gives their number.

    They are the first usable ones of shards drawn at random.

    Raises:
        FileExistsError: The folder has metadata already.
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"sample: wanted at least 1, got {count}")
    folder = options.folder
    lock_folder(folder)
    if (folder / METADATA).exists():
        raise FileExistsError(f"{folder / METADATA}: is there already; wanted another folder")
    shutil.rmtree(folder / ".work", ignore_errors=True)  # of a killed call, maybe of other pairs
    source = open_source(options.source, folder / ".work")
    lines = []
    for fields, content in _drawn(source, options, count, seed):
        ending = next((e for start, e in ENDINGS.items() if content.startswith(start)), "jpg")
        name = f"{len(lines):06}.{ending}"
        with atomic_file(folder / "pictures" / name) as file:
            file.write(content)
        lines.append({"file_name": f"pictures/{name}", **fields})
    shutil.rmtree(folder / ".work", ignore_errors=True)
    with atomic_file(folder / METADATA) as file:
        for line in lines:
            file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
    return len(lines)


def _drawn(
    source: Source, options: Preparation, count: int, seed: int
) -> Iterator[tuple[dict[str, Any], bytes]]:
    shards = source.shards()
    order = np.random.default_rng(seed).permutation(len(shards))
    each, left = -(-count // min(len(shards), SHARDS)), count
    for number in order.tolist():
        room = min(each, left)
        for record in source.read(shards[number]):
            if not room:
                break
            if not isinstance(record, Record):
                continue
            try:
                if not options.lets_in(licence_of(record.row.fields)):
                    continue
                content = record.read()
                load_image(content)
                fields = _fields(record)
            except (OSError, ValueError, EOFError, tarfile.TarError):
                continue  # apps/prepare.py says what is wrong with it
            yield fields, content
            room, left = room - 1, left - 1
        if not left:
            return


def _fields(record: Record) -> dict[str, Any]:
    """Return what `read_pairs` and a later preparation read."""
    fields = record.row.fields
    rows = rows_of(replace(record.row, fields={**fields, "boxes": boxes_of(fields)}))
    kept = {name: rows[0][name] for name in ("group", "category", "boxes") if rows[0].get(name)}
    texts = [row["text"] for row in rows]
    origin = {"source": origin_of(record.row), "licence": licence_of(fields)}
    texts_of(list(origin.values()), "source")  # a tar's own name may be odd
    return {"text": texts[0] if len(texts) == 1 else texts, **kept, **origin}
