"""The first pass over a shard: raw pairs to ids, codes and vectors, in a sealed folder.

What must be known of all pairs, such as copies and splits, is decided afterwards (`decisions`).
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import torch

from cm3_imagetok import load_image
from cm3_retrieval.interface import Encoder
from cm3_retrieval.metadata_file import Row
from cm3_retrieval.sealed_folder import MANIFEST_NAME, write_folder
from cm3_retrieval.text_file import texts_of
from cm3_train.process_memory import peak_bytes
from cm3leon.data.pairs import SPLITS, key_of, rows_of
from cm3leon.data.raw_files import Unusable
from cm3leon.data.tokens import MAX_SHIFT, other_views
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.preparation.copies import picture_hash
from cm3leon.preparation.job import Job
from cm3leon.preparation.source import (
    Record,
    Shard,
    Source,
    licence_of,
    origin_of,
)
from cm3leon.preparation.squares import boxes_of, fitted, moved

COMPONENT = "cm3leon/prepared-shard"
BATCH = 64
"""Pictures that go through the models at once, and that are in memory as pixels."""
NO_SPLIT = 255
"""Stands for a split that is not given."""


@dataclass(frozen=True)
class Picture:
    """One picture that could be read, fitted, with its captions."""

    listed: Row
    row: dict[str, Any]
    """Its columns, checked, as of `rows_of`."""
    captions: list[str]
    pixels: np.ndarray
    """(size, size, 3) uint8."""
    content: int
    """Hash of the file's bytes."""
    phash: int
    width: int
    height: int
    boxes: list[list[float]]
    """In pixels of the fitted picture."""
    licence: str
    source: str


class ShardEncoder:
    """What makes a sealed folder of a shard; the models are opened once.

    Args:
        job: What to do.
        source: Where the shards come from.
        tokenizers: Of captions and pictures.
        encoder: Of pictures and captions.
    """

    def __init__(self, job: Job, source: Source, tokenizers: Tokenizers, encoder: Encoder) -> None:
        self.job, self.source, self.tokenizers, self.encoder = job, source, tokenizers, encoder
        recipe = job.recipe
        self.views = recipe.decoder.views
        generator = torch.Generator().manual_seed(recipe.seed)
        self.changes = other_views(self.views - 1, MAX_SHIFT, generator)
        self.most_ids = most_ids(job, tokenizers)
        self.model_seconds = 0.0

    def encode(self, shard: Shard, folder: Path) -> None:
        """Write the folder of a shard: `pairs.arrow`, `quarantine.jsonl`, and counts as facts."""
        began, self.model_seconds = time.perf_counter(), 0.0
        counts: Counter[str] = Counter()
        licences: Counter[str] = Counter()
        bad: list[Unusable] = []
        facts: dict[str, Any] = {"job": self.job.fingerprint, "shard": shard.name}

        def pairs(file: BinaryIO) -> None:
            schema = schema_of(self.encoder.dim)
            with pa.ipc.new_file(pa.PythonFile(file, mode="w"), schema) as writer:
                for batch in self._batches(shard, counts, licences, bad):
                    rows = self._rows(batch, counts, bad)
                    if rows:
                        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
                        counts["rows"] += len(rows)
            # the quarantine is written, and the facts are read, after this file
            counts["bad"] = len(bad)
            facts["counts"], facts["left_out_by_licence"] = dict(counts), dict(licences)
            facts["seconds"] = time.perf_counter() - began
            facts["model_seconds"] = self.model_seconds
            facts["peak_bytes"] = peak_bytes()

        def quarantine(file: BinaryIO) -> None:
            for line in bad:
                file.write((json.dumps(vars(line)) + "\n").encode())

        contents = {"pairs.arrow": pairs, "quarantine.jsonl": quarantine}
        write_folder(folder, MANIFEST_NAME, COMPONENT, contents, facts)

    def _batches(
        self,
        shard: Shard,
        counts: Counter[str],
        licences: Counter[str],
        bad: list[Unusable],
    ) -> Iterator[list[Picture]]:
        batch: list[Picture] = []
        for found in self.source.read(shard):
            counts["records"] += 1
            if isinstance(found, Unusable):
                bad.append(found)
                continue
            try:
                licence = licence_of(found.row.fields)
                if not self.job.options.lets_in(licence):
                    licences[licence] += 1
                    continue
                batch.append(self._picture(found, counts))
            except (OSError, ValueError, EOFError, tarfile.TarError) as error:
                bad.append(self._unusable(found.row, str(error)))
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def _picture(self, record: Record, counts: Counter[str]) -> Picture:
        fields = record.row.fields
        texts_of(record.row.file_name, "file_name")  # a tar's own name may be odd
        listed = replace(record.row, fields={**fields, "boxes": boxes_of(fields)})
        rows = rows_of(listed)
        content = record.read()
        picture = load_image(content)
        size, fit = self.job.recipe.data.size, self.job.options.fit
        given = rows[0].get("boxes") or []
        kept = [moved(box, *picture.size, size, fit) for box in given]
        counts["boxes"] += len(given)
        counts["boxes_cropped_away"] += kept.count(None)
        square = fitted(picture, size, fit)
        return Picture(
            listed=listed,
            row=rows[0],
            captions=list(dict.fromkeys(row["text"] for row in rows)),
            pixels=np.asarray(square),
            content=hash_of(content),
            phash=picture_hash(square),
            width=picture.width,
            height=picture.height,
            boxes=[box for box in kept if box is not None],
            licence=licence_of(fields),
            source=origin_of(record.row),
        )

    def _unusable(self, listed: Row, reason: str) -> Unusable:
        file = listed.file.relative_to(self.job.options.source).as_posix()
        return Unusable(file=file, key=listed.file_name, reason=reason)

    def _rows(
        self, batch: list[Picture], counts: Counter[str], bad: list[Unusable]
    ) -> list[dict[str, Any]]:
        """Encode a batch; gives a row for each caption that is not too long."""
        views = [self.views if p.row.get("split", "train") == "train" else 1 for p in batch]
        captions = [caption for picture in batch for caption in picture.captions]
        began = time.perf_counter()
        codes = self._codes(np.stack([picture.pixels for picture in batch]), views)
        images = self.encoder.encode_images([picture.pixels for picture in batch])
        vectors = self.encoder.encode_texts(captions)
        said = [
            self.tokenizers.text.encode_batch([f"{c} #{view}" if view else c for c in captions])
            for view in range(self.views)
        ]
        self.model_seconds += time.perf_counter() - began
        rows, number = [], 0
        for place, picture in enumerate(batch):
            for caption in picture.captions:
                ids = [said[view][number] for view in range(self.views)]
                longest = len(ids[-1])
                number += 1
                if longest > self.most_ids:
                    reason = f"wanted a caption of at most {self.most_ids} ids, got {longest}"
                    bad.append(self._unusable(picture.listed, reason))
                    counts["captions_too_long"] += 1
                    continue
                rows.append(
                    {
                        **_columns(picture, caption),
                        "text_ids": ids[: views[place]],
                        "codes": codes[place],
                        "image_vector": images[place],
                        "text_vector": vectors[number - 1],
                    }
                )
        return rows

    def _codes(self, pixels: np.ndarray, views: Sequence[int]) -> list[np.ndarray]:
        """Return for each picture the codes of its views, one after another, uint16."""
        codes = [[row] for row in self.tokenizers.encode(pixels)]
        for view, change in enumerate(self.changes, 1):
            places = [place for place, count in enumerate(views) if count > view]
            if places:
                found = self.tokenizers.encode(change(pixels[places]))
                for place, row in zip(places, found, strict=True):
                    codes[place].append(row)
        return [np.concatenate(rows).astype(np.uint16) for rows in codes]


def most_ids(job: Job, tokenizers: Tokenizers) -> int:
    """Return the most ids of a caption that fits into a sequence beside its picture's codes."""
    return job.recipe.decoder.max_length - tokenizers.num_codes_per_image - 3  # two <eos>, <break>


def _columns(picture: Picture, caption: str) -> dict[str, Any]:
    row, name = picture.row, picture.row["file_name"]
    split = row.get("split")
    facts = row.get("facts")
    return {
        "key": key_of(f"{name}\n{caption}"),
        "name": key_of(name),
        "content": picture.content,
        "group": key_of(row.get("group") or caption),
        "phash": picture.phash,
        "split": SPLITS.index(split) if split else NO_SPLIT,
        "file_name": name,
        "caption": caption,
        "source": picture.source,
        "licence": picture.licence,
        "group_name": row.get("group") or "",
        "category": row.get("category") or "",
        "facts": None if facts is None else json.dumps(facts),
        "boxes": picture.boxes,
        "width": picture.width,
        "height": picture.height,
    }


def schema_of(dim: int) -> pa.Schema:
    """Return the columns of `pairs.arrow`."""
    whole, vector = pa.int64(), pa.list_(pa.float32(), dim)
    texts = ("file_name", "caption", "source", "licence", "group_name", "category", "facts")
    return pa.schema(
        [
            *[(name, whole) for name in ("key", "name", "content", "group")],
            ("phash", pa.uint64()),
            ("split", pa.uint8()),
            *[(name, pa.string()) for name in texts],
            ("boxes", pa.list_(pa.list_(pa.float32(), 4))),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("text_ids", pa.list_(pa.list_(pa.uint16()))),
            ("codes", pa.list_(pa.uint16())),
            ("image_vector", vector),
            ("text_vector", vector),
        ]
    )


def hash_of(content: bytes) -> int:
    """Return a 63-bit hash of a file's bytes."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest()) >> 1
