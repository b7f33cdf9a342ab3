"""The second pass over a shard, once all is decided.

It gives the shard's token files, its rows of the neighbour tables, and the pixels of those pictures
that a report will look at.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from cm3_imagetok import load_image
from cm3_retrieval import (
    MemoryBank,
    NeighbourTable,
    RetrievalConfig,
    build_neighbour_table,
    document_vectors,
)
from cm3_retrieval.bank.shards import Documents
from cm3_retrieval.interface import Encoder
from cm3_retrieval.neighbours.table import KINDS
from cm3_retrieval.sealed_folder import MANIFEST_NAME, read_folder, write_folder
from cm3_train.process_memory import peak_bytes
from cm3_train.shard_files import write_shard
from cm3leon.data.pairs import SPLITS
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.preparation.decisions import TRAIN, Decisions, Members, pairs_of
from cm3leon.preparation.encoding import COMPONENT, hash_of
from cm3leon.preparation.job import Job
from cm3leon.preparation.source import Record, Shard, Source
from cm3leon.preparation.squares import fitted

ROWS = 16384
"""Most rows of one file of token shards."""
FILES_A_SHARD = 1000
"""Numbers that each shard has for its files."""
PLACES = ("file_name", "group_name", "category", "facts", "boxes")
"""What `pairs` keeps of a pair beside its tokens."""


class ShardFinisher:
    """What finishes a shard; the bank is mapped once.

    Args:
        job: What to do.
        source: For the pixels.
        tokenizers: The size of a picture's codes.
        encoder: Of queries that have lost words.
        rules: The strategy, its `max_likeness` found on the bank.
    """

    def __init__(
        self,
        job: Job,
        source: Source,
        tokenizers: Tokenizers,
        encoder: Encoder,
        rules: RetrievalConfig,
    ) -> None:
        self.job, self.source, self.tokenizers = job, source, tokenizers
        self.encoder, self.rules = encoder, rules

    @cached_property
    def bank(self) -> MemoryBank:
        """The bank of all shards."""
        folder = self.job.options.folder / "retrieval" / "bank"
        return MemoryBank.load(folder, self.encoder.encoder_id, mmap=True)

    def finish(self, number: int, shard: Shard, wanted: np.ndarray, folder: Path) -> None:
        """Write the sealed folder of a shard.

        Args:
            number: Of the shard.
            shard: For its pixels.
            wanted: (P,) keys of the pairs whose pixels are kept.
            folder: Takes `training.arrow`, `inference.arrow` and `pixels.npy`; facts are the
                files of its tokens and pairs, and counts for the report.
        """
        decisions = Decisions.open(self.job.work / "decisions").of_shard(number)
        table = pairs_of(self.job.work, number)
        rows = np.flatnonzero(decisions.kept)
        table = table.take(pa.array(rows)).combine_chunks()
        split = decisions.split[rows]
        facts: dict[str, Any] = {
            "job": self.job.fingerprint,
            "shard": shard.name,
            "tokens": self._write_tokens(number, table, split),
            "report": counts_of(table, split),
            "rows": len(rows),
        }
        contents: dict[str, Any] = {"pairs.arrow": lambda file: _write(_pairs(table, split), file)}
        for name, rules in (
            ("training", self.rules),
            ("inference", replace(self.rules, query_dropout=0.0)),
        ):
            found = self._neighbours(table, decisions, rules)
            facts.setdefault("tables", {})[name] = found.facts
            contents[f"{name}.npz"] = lambda file, found=found: _save_table(found, file)
        pixels = self._pixels(shard, table, wanted)
        facts["peak_bytes"] = peak_bytes()
        contents["pixels.npy"] = lambda file: np.save(file, pixels)
        write_folder(folder, MANIFEST_NAME, COMPONENT, contents, facts)

    def _write_tokens(self, number: int, table: pa.Table, split: np.ndarray) -> list[Any]:
        """Write the shard's files of tokens; gives their entries in the manifest."""
        place = self.job.options.folder / "shards" / "tokens"
        place.mkdir(parents=True, exist_ok=True)
        files, length = [], self.tokenizers.num_codes_per_image
        for start in range(0, table.num_rows, ROWS):
            part = slice(start, min(start + ROWS, table.num_rows))
            rows = list(_token_rows(table.slice(start, ROWS), split[part], length))
            own = number * FILES_A_SHARD + start // ROWS
            files.append(write_shard(rows, place, own, length))
        return files

    def _neighbours(
        self, table: pa.Table, decisions: Decisions, rules: RetrievalConfig
    ) -> NeighbourTable:
        return build_neighbour_table(
            self.bank,
            self.encoder,
            table.column("key").to_numpy(),
            table.column("caption").to_pylist(),
            vectors_of(table, "image_vector"),
            rules,
            self.job.recipe.seed,
            groups=Members(self.job.work / "decisions", decisions),
            text_vectors=vectors_of(table, "text_vector"),
        )

    def _pixels(self, shard: Shard, table: pa.Table, wanted: np.ndarray) -> np.ndarray:
        """Return the pixels (P, size, size, 3) of the wanted pairs, read once more.

        Raises:
            ValueError: A picture is missing, or not the one that was encoded; names it.
        """
        size, fit = self.job.recipe.data.size, self.job.options.fit
        pixels = np.full((len(wanted), size, size, 3), 255, np.uint8)
        if not len(wanted):
            return pixels
        columns = (table.column(n).to_pylist() for n in ("key", "file_name", "content"))
        pairs = {key: pair for key, *pair in zip(*columns, strict=True)}
        places: dict[str, list[int]] = {}
        for place, key in enumerate(wanted.tolist()):
            places.setdefault(pairs[key][0], []).append(place)
        contents = {name: content for name, content in pairs.values() if name in places}
        wanted_one = "wanted the picture that was encoded before"
        for record in self.source.read(shard):
            if isinstance(record, Record) and (name := record.row.file_name) in places:
                try:
                    found = record.read()
                except (OSError, ValueError, EOFError, tarfile.TarError) as error:
                    raise ValueError(f"{name}: {wanted_one}, got: {error}") from error
                if hash_of(found) != contents[name]:
                    raise ValueError(f"{name}: {wanted_one}, got other bytes")
                pixels[places.pop(name)] = np.asarray(fitted(load_image(found), size, fit))
                if not places:
                    return pixels
        raise ValueError(f"{next(iter(places))}: {wanted_one}, got no such picture")


def _token_rows(table: pa.Table, split: np.ndarray, length: int) -> Iterator[dict[str, Any]]:
    """Yield rows as `write_shard` takes them: every pair, those of training in all their views."""
    columns = {name: table.column(name).to_pylist() for name in ("caption", "source", "licence")}
    keys = table.column("key").to_pylist()
    for place, key in enumerate(keys):
        ids = table.column("text_ids")[place].values
        codes = table.column("codes")[place].values.to_numpy().reshape(-1, length)
        for view in range(len(ids) if split[place] == TRAIN else 1):
            caption = columns["caption"][place]
            yield {
                "key": key,
                "view": view,
                "text_ids": ids[view].values.to_numpy(),
                "codes": codes[view],
                "caption": f"{caption} #{view}" if view else caption,
                "source": columns["source"][place],
                "licence": columns["licence"][place],
            }


def _pairs(table: pa.Table, split: np.ndarray) -> pa.Table:
    """Return what is kept of the pairs beside their tokens."""
    return table.select(["key", *PLACES]).append_column("split", pa.array(split))


def _write(table: pa.Table, file: BinaryIO) -> None:
    with pa.ipc.new_file(pa.PythonFile(file, mode="w"), table.schema) as writer:
        writer.write_table(table.combine_chunks())


def _save_table(table: NeighbourTable, file: BinaryIO) -> None:
    arrays = {f"{kind}_keys": table.candidate_keys[kind] for kind in KINDS}
    arrays |= {f"{kind}_scores": table.candidate_scores[kind] for kind in KINDS}
    np.savez(file, allow_pickle=False, keys=table.keys, **arrays)


def joined_tables(folders: list[Path], name: str) -> NeighbourTable:
    """Return the neighbour table of all shards; arrays of some 60 bytes a pair."""
    parts, facts = [], {}
    for folder in folders:
        manifest, paths = read_folder(folder, MANIFEST_NAME, COMPONENT)
        facts = manifest["tables"][name]
        with np.load(paths[f"{name}.npz"], allow_pickle=False) as arrays:
            parts.append(dict(arrays))
    whole = {column: np.concatenate([part[column] for part in parts]) for column in parts[0]}
    keys = {kind: whole[f"{kind}_keys"] for kind in KINDS}
    scores = {kind: whole[f"{kind}_scores"] for kind in KINDS}
    return NeighbourTable(whole["keys"], keys, scores, facts)


def vectors_of(table: pa.Table, name: str) -> np.ndarray:
    """Return a column of vectors (N, dim) float32."""
    column = table.column(name)
    flat = [chunk.flatten().to_numpy() for chunk in column.chunks]
    return np.concatenate([np.empty(0, np.float32), *flat]).reshape(-1, column.type.list_size)


def documents_of(job: Job, number: int) -> Documents:
    """Return the bank's documents of a shard: its training pairs."""
    decisions = Decisions.open(job.work / "decisions").of_shard(number)
    rows = np.flatnonzero(decisions.kept & (decisions.split == TRAIN))
    table = pairs_of(job.work, number).take(pa.array(rows))
    texts, images = vectors_of(table, "text_vector"), vectors_of(table, "image_vector")
    return Documents(
        keys=table.column("key").to_numpy(),
        vectors=document_vectors(texts, images) if len(rows) else texts,
        metadata={
            name: table.column(name).to_pylist()
            for name in ("caption", "file_name", "source", "licence")
        },
    )


def counts_of(table: pa.Table, split: np.ndarray) -> dict[str, dict[str, int]]:
    """Count what the report tells of the kept pairs of a shard; counts of shards can be added."""
    ids = [len(row[0]) for row in table.column("text_ids")]
    width, height = (table.column(name).to_numpy() for name in ("width", "height"))
    licences = Counter(table.column("licence").to_pylist())
    return {
        "splits": {SPLITS[place]: int((split == place).sum()) for place in np.unique(split)},
        "caption_ids": binned(np.array(ids), (0, 4, 8, 16, 32, 64, 128, 256, 512, 1024)),
        "aspect_ratios": binned(width / np.maximum(height, 1), (0, 0.25, 0.5, 0.8, 1.25, 2, 4)),
        "licences": dict(licences.most_common(1000)),
        "boxes": {"kept": sum(len(boxes) for boxes in table.column("boxes").to_pylist())},
    }  # fmt: skip


def binned(values: np.ndarray, edges: tuple[float, ...]) -> dict[str, int]:
    """Count values from each edge on, up to the next."""
    places = np.searchsorted(edges, values, side="right") - 1
    names = [f"{a:g} to {b:g}" for a, b in zip(edges[:-1], edges[1:], strict=True)]
    counts = np.bincount(places, minlength=len(edges)) if len(values) else [0] * len(edges)
    return {
        n: int(c) for n, c in zip([*names, f"{edges[-1]:g} and more"], counts, strict=True) if c
    }
