"""From a memory bank to the documents that stand before a pair, in training and at inference.

Takes a bank, an encoder and documents; gives the neighbour table, and keys drawn from it. Paper
2.1 (arXiv 2309.02591): two documents by image and two by text; three of them, at random, for each
training pair. Every draw follows from (seed, epoch, key), never from the order of the calls.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cm3_retrieval.encoder import document_vectors
from cm3_retrieval.index import checked_keys, checked_vectors
from cm3_retrieval.interface import TABLE_COMPONENT, Encoder
from cm3_retrieval.memory_bank import MemoryBank
from cm3_retrieval.storage import read_folder, write_folder
from cm3_retrieval.strategy import RetrievalConfig, drop_query_tokens, select

KINDS = ("image", "text")
"""The two kinds of query, in the order in which they take turns."""

_COPY = 1 - 1e-5
"""Two documents whose vectors agree beyond float32's rounding are copies."""

_BATCH = 256
"""Documents encoded and searched at once."""

# Two uses of one (seed, key) must not share random numbers.
_DROPOUT_STREAM, _CONTEXT_STREAM = 1, 2


class NeighbourTable:
    """Per document and kind of query, the documents that the strategy took."""

    def __init__(
        self,
        keys: np.ndarray,
        candidates: Mapping[str, np.ndarray],
        scores: Mapping[str, np.ndarray],
        facts: Mapping[str, Any],
    ) -> None:
        """Wrap finished arrays; `build_neighbour_table` and `load` are the ways in.

        Args:
            keys: (N,) int64.
            candidates: Kind -> (N, C) int64, best first, padded with -1.
            scores: Kind -> (N, C) float32, padded with 0.
            facts: How the table was made: config, seed, encoder_id. JSON values.
        """
        self.keys = keys
        self.candidate_keys = dict(candidates)
        self.candidate_scores = dict(scores)
        self.facts = dict(facts)
        self._row_of = {int(key): row for row, key in enumerate(keys)}

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.keys)

    def candidates(self, key: int) -> dict[str, np.ndarray]:
        """Return kind -> candidate keys of one document, best first, no padding.

        Raises:
            KeyError: The table has no such document.
        """
        if key not in self._row_of:
            raise KeyError(f"key {key} is not in the neighbour table of {len(self)} documents")
        rows = {kind: self.candidate_keys[kind][self._row_of[key]] for kind in KINDS}
        return {kind: row[row >= 0] for kind, row in rows.items()}

    def save(self, path: Path | str) -> None:
        """Write the table into the folder `path`; killed, it holds the old table or the new."""
        columns: dict[str, Any] = {"key": pa.array(self.keys)}
        for kind in KINDS:
            width = self.candidate_keys[kind].shape[1]
            for name, array in (
                (f"{kind}_keys", self.candidate_keys[kind]),
                (f"{kind}_scores", self.candidate_scores[kind]),
            ):
                flat = pa.array(array.reshape(-1))
                columns[name] = pa.FixedSizeListArray.from_arrays(flat, width)
        table = pa.table(columns)

        def write(file: Any) -> None:
            with pa.ipc.new_file(pa.PythonFile(file, mode="w"), table.schema) as writer:
                writer.write_table(table)

        facts = {**self.facts, "count": len(self)}
        write_folder(path, "manifest.json", TABLE_COMPONENT, {"neighbours.arrow": write}, facts)

    @classmethod
    def load(cls, path: Path | str) -> "NeighbourTable":
        """Read a table and check component, version and SHA-256s.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: Changed bytes or another major version.
        """
        manifest, paths = read_folder(path, "manifest.json", TABLE_COMPONENT)
        with pa.memory_map(str(paths["neighbours.arrow"])) as source:
            table = pa.ipc.open_file(source).read_all().combine_chunks()

        def rows(name: str) -> np.ndarray:
            column = table.column(name)
            flat = pa.chunked_array(
                [chunk.values for chunk in column.chunks], column.type.value_type
            )
            return flat.to_numpy().reshape(-1, column.type.list_size).copy()  # (N, C)

        fixed = ("component", "interface_version", "files", "manifest_sha256", "count")
        return cls(
            table.column("key").to_numpy().copy(),
            {kind: rows(f"{kind}_keys") for kind in KINDS},
            {kind: rows(f"{kind}_scores") for kind in KINDS},
            {name: value for name, value in manifest.items() if name not in fixed},
        )


def build_neighbour_table(
    bank: MemoryBank,
    encoder: Encoder,
    keys: np.ndarray,
    captions: Sequence[str],
    images: Callable[[int], Any] | np.ndarray,
    config: RetrievalConfig,
    seed: int,
    groups: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NeighbourTable:
    """Find neighbours for N documents, which may stand in the bank or not.

    A document is never its own neighbour, nor is an exact copy of it under another key.

    Args:
        bank: Where neighbours come from. A bool column `has_both` in its metadata, if there is
            one, says which documents have text and image; without it all count as having both.
        encoder: The one that made the bank.
        keys: (N,) integers of at least 0, all different.
        captions: N texts. For the query `config.query_dropout` of their words are dropped.
        images: Key -> picture, called once a key; or (N, dim) image vectors made before.
        config: The strategy.
        seed: Decides which words are dropped, together with the key.
        groups: N integers; documents of one group are never each other's neighbours. None: each
            is a group of its own.
        progress: Called with (documents done, N).
    """
    keys = checked_keys("keys", keys)
    if bank.encoder_id != encoder.encoder_id:
        raise ValueError(
            f"encoder: wanted the bank's, {bank.encoder_id!r}, got {encoder.encoder_id!r}"
        )
    for name, values in (("captions", captions), ("groups", groups)):
        if values is not None and len(values) != len(keys):
            raise ValueError(f"{name}: wanted {len(keys)}, one a key, got {len(values)}")
    image_vectors = None
    if not callable(images):
        image_vectors = checked_vectors("images", images, bank.dim)
        if len(image_vectors) != len(keys):
            raise ValueError(f"images: wanted {len(keys)}, one a key, got {len(image_vectors)}")
    members = _members_of_groups(keys, groups)
    found = {kind: np.full((len(keys), config.num_candidates), -1, np.int64) for kind in KINDS}
    scores = {kind: np.zeros((len(keys), config.num_candidates), np.float32) for kind in KINDS}
    for start in range(0, len(keys), _BATCH):
        rows = range(start, min(start + _BATCH, len(keys)))
        if image_vectors is None:
            pictures = encoder.encode_images([images(int(keys[row])) for row in rows])  # pyright: ignore
        else:
            pictures = image_vectors[rows.start : rows.stop]
        own = document_vectors(encoder.encode_texts([captions[row] for row in rows]), pictures)
        words = [
            drop_query_tokens(
                captions[row].split(),
                _generator(seed, _DROPOUT_STREAM, 0, int(keys[row])),
                config.query_dropout,
            )
            for row in rows
        ]
        queries = {"image": pictures, "text": encoder.encode_texts([" ".join(w) for w in words])}
        for kind in KINDS:
            pools = _first_pools(bank, queries[kind], config)
            for place, row in enumerate(rows):
                taken, relevance = _take(
                    bank,
                    queries[kind][place],
                    pools[place],
                    {int(keys[row]), *members.get(int(keys[row]), ())},
                    config.num_candidates,
                    config,
                    document=own[place],
                )
                found[kind][row, : len(taken)] = taken
                scores[kind][row, : len(taken)] = relevance
        if progress is not None:
            progress(rows.stop, len(keys))
    facts = {"config": asdict(config), "seed": seed, "encoder_id": encoder.encoder_id}
    return NeighbourTable(keys, found, scores, facts)


def training_context(
    table: NeighbourTable, key: int, *, n: int, seed: int, epoch: int
) -> list[int]:
    """Draw n neighbours at random from the union of both kinds; fewer when fewer exist.

    The draw follows from (seed, epoch, key) alone.

    Args:
        table: The neighbour table.
        key: The document that they will stand before.
        n: The paper draws 3.
        seed: Of the run.
        epoch: From 0.
    """
    union = np.unique(np.concatenate(list(table.candidates(key).values())))
    union = union[union != key]
    rng = _generator(seed, _CONTEXT_STREAM, epoch, key)
    return [int(neighbour) for neighbour in rng.permutation(union)[:n]]


def inference_context(
    bank: MemoryBank,
    query_vectors: Mapping[str, np.ndarray],
    config: RetrievalConfig,
    n: int | None = None,
    exclude: Iterable[int] = (),
) -> list[int]:
    """Pick documents for a new prompt; the kinds of query take turns.

    Args:
        bank: Where they come from.
        query_vectors: `image` and/or `text` -> (dim,) vector of length 1.
        config: The strategy.
        n: Most to pick; None takes `config.num_context`.
        exclude: Keys never picked.

    Returns:
        Keys, best first, at most n; no two of them closer than `duplicate_threshold`.
    """
    unknown = set(query_vectors) - set(KINDS)
    if unknown:
        raise ValueError(f"query_vectors: wanted kinds out of {KINDS}, got {sorted(unknown)}")
    n = config.num_context if n is None else n
    kinds = [kind for kind in KINDS if kind in query_vectors]
    queries = {
        kind: checked_vectors(f"query_vectors[{kind!r}]", query_vectors[kind][None], bank.dim)
        for kind in kinds
    }
    pools = {kind: _first_pools(bank, queries[kind], config)[0] for kind in kinds}
    excluded, picks, spent = set(exclude), [], set()
    while len(picks) < n and len(spent) < len(kinds):
        kind = kinds.pop(0)  # the next in turn goes to the back
        kinds.append(kind)
        near = bank.vectors_of(picks) if picks else np.empty((0, bank.dim), np.float32)
        taken, _ = _take(
            bank, queries[kind][0], pools[kind], excluded | set(picks), 1, config, repeats=near
        )
        picks.extend(int(key) for key in taken)
        spent = spent - {kind} if len(taken) else spent | {kind}
    return picks


def _take(
    bank: MemoryBank,
    query: np.ndarray,
    pool: np.ndarray,
    exclude: set[int],
    n: int,
    config: RetrievalConfig,
    *,
    document: np.ndarray | None = None,
    repeats: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Apply the strategy to a pool of keys, and to a wider one while too few pass.

    `document` is the vector of the document itself, whose copies are excluded; `repeats` (R, dim)
    are vectors of documents taken before.
    """
    while True:
        vectors = bank.vectors_of(pool)
        barred = np.zeros(len(pool), bool)
        if document is not None:
            barred |= vectors.dot(document) > _COPY
        if repeats is not None and len(repeats):
            barred |= (vectors.dot(repeats.T) > config.duplicate_threshold).any(axis=1)
        scores = np.einsum("pd,d->p", vectors, query)
        has_both = bank.has_both(pool)
        places = select(
            query, vectors, scores, pool, exclude | set(pool[barred].tolist()), has_both, n, config
        )
        # Ever wider pools cost more than they bring: stop at 16 times the first.
        if len(places) >= n or len(pool) >= min(len(bank), 16 * config.pool_size):
            return pool[places], scores[places]
        width = min(4 * len(pool), len(bank))
        pool = bank.search(query[None], width)[1][0]


def _first_pools(bank: MemoryBank, queries: np.ndarray, config: RetrievalConfig) -> np.ndarray:
    if len(bank) == 0:
        return np.empty((len(queries), 0), np.int64)
    return bank.search(queries, min(config.pool_size, len(bank)))[1]  # (Q, pool)


def _members_of_groups(keys: np.ndarray, groups: Sequence[int] | None) -> dict[int, list[int]]:
    if groups is None:
        return {}
    by_group: dict[int, list[int]] = {}
    for key, group in zip(keys.tolist(), groups, strict=True):
        by_group.setdefault(int(group), []).append(key)
    return {key: members for members in by_group.values() for key in members}


def _generator(seed: int, stream: int, epoch: int, key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, epoch, key)))
