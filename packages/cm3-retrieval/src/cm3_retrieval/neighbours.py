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

from cm3_retrieval.documents import document_vectors
from cm3_retrieval.index import checked_keys, checked_vectors
from cm3_retrieval.interface import Encoder
from cm3_retrieval.memory_bank import MemoryBank
from cm3_retrieval.neighbour_table import KINDS, NeighbourTable
from cm3_retrieval.storage import digest_of
from cm3_retrieval.strategy import RetrievalConfig, drop_query_tokens, select

_COPY = 1 - 1e-5
"""Two documents whose vectors agree beyond float32's rounding are copies."""

_BATCH = 256
"""Documents encoded and searched at once."""

_PART = 16 * _BATCH
"""Documents in one part of a job that can be resumed."""

# Two uses of one (seed, key) must not share random numbers.
_DROPOUT_STREAM, _CONTEXT_STREAM = 1, 2


def build_neighbour_table(
    bank: MemoryBank,
    encoder: Encoder,
    keys: np.ndarray,
    captions: Sequence[str | None],
    images: Callable[[int], Any] | np.ndarray,
    config: RetrievalConfig,
    seed: int,
    groups: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    parts: Path | str | None = None,
) -> NeighbourTable:
    """Find neighbours for N documents, which may stand in the bank or not.

    A document is never its own neighbour, nor is an exact copy of it under another key. A row
    follows from its own document, the bank, the config and the seed alone, not from the order.

    Args:
        bank: Where neighbours come from. A bool column `has_both` in its metadata, if there is
            one, says which documents have text and image; without it all count as having both.
        encoder: The one that made the bank.
        keys: (N,) integers of at least 0, all different.
        captions: N texts; for the query `config.query_dropout` of their words are dropped. None:
            the document has no text, and no neighbours by text.
        images: Key -> picture, called once a key; or (N, dim) image vectors made before.
        config: The strategy.
        seed: Decides which words are dropped, together with the key.
        groups: N integers; documents of one group are never each other's neighbours. None: each
            is a group of its own.
        progress: Called with (documents done, N).
        parts: Folder for what is done, every 4096 documents; the same call after a kill goes on
            from there. It may be removed once the table is saved. None keeps nothing.

    Raises:
        ValueError: Something does not fit, or `parts` holds parts of another job.
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
    in_bank = np.isin(keys, bank.keys)
    found = {kind: np.full((len(keys), config.num_candidates), -1, np.int64) for kind in KINDS}
    scores = {kind: np.zeros((len(keys), config.num_candidates), np.float32) for kind in KINDS}

    def fill(rows: range) -> None:
        if image_vectors is None:
            pictures = encoder.encode_images([images(int(keys[row])) for row in rows])  # pyright: ignore
        else:
            pictures = image_vectors[rows.start : rows.stop]
        texts = [captions[row] for row in rows]
        own = document_vectors(_encoded(encoder, texts), pictures)
        stored = own.copy()  # the bank may hold it otherwise, by one part or shortened
        inside = in_bank[rows.start : rows.stop]
        stored[inside] = bank.vectors_of(keys[rows.start : rows.stop][inside])
        dropped = [
            None if text is None else _with_dropout(text, seed, int(keys[row]), config)
            for row, text in zip(rows, texts, strict=True)
        ]
        queries = {"image": pictures, "text": _encoded(encoder, dropped)}
        for kind in KINDS:
            pools = _first_pools(bank, queries[kind], config)
            for place, row in enumerate(rows):
                if not queries[kind][place].any():  # the document has no such part
                    continue
                key = int(keys[row])
                taken, relevance = _take(
                    bank,
                    queries[kind][place],
                    pools[place],
                    {key, *members.get(key, ())},
                    config.num_candidates,
                    config,
                    documents=np.stack([own[place], stored[place]]),
                )
                found[kind][row, : len(taken)] = taken
                scores[kind][row, : len(taken)] = relevance

    job = None
    if parts is not None:
        job = digest_of(
            bank.keys, bank.vectors_of(bank.keys[:: max(1, len(bank) // 64)]), asdict(bank.config),
            encoder.encoder_id, keys, list(captions),
            None if groups is None else [int(group) for group in groups],
            image_vectors, asdict(config), seed,
        )  # fmt: skip
    for start in range(0, len(keys), _PART):
        part = range(start, min(start + _PART, len(keys)))
        folder = None if parts is None else Path(parts) / f"part-{start:012}"
        if folder is None or not _read_part(folder, job, part, found, scores):
            for first in range(part.start, part.stop, _BATCH):
                fill(range(first, min(first + _BATCH, part.stop)))
                if progress is not None:
                    progress(min(first + _BATCH, part.stop), len(keys))
            if folder is not None:
                of_part = slice(part.start, part.stop)
                NeighbourTable(
                    keys[of_part],
                    {kind: array[of_part] for kind, array in found.items()},
                    {kind: array[of_part] for kind, array in scores.items()},
                    {"job": job},
                ).save(folder)
        elif progress is not None:
            progress(part.stop, len(keys))
    facts = {"config": asdict(config), "seed": seed, "encoder_id": encoder.encoder_id}
    return NeighbourTable(keys, found, scores, facts)


def _encoded(encoder: Encoder, texts: Sequence[str | None]) -> np.ndarray:
    """(N, dim) float32, a row of zeros where there is no text."""
    vectors = np.zeros((len(texts), encoder.dim), np.float32)
    places = [place for place, text in enumerate(texts) if text is not None]
    if places:
        vectors[places] = encoder.encode_texts([text for text in texts if text is not None])
    return vectors


def _with_dropout(text: str, seed: int, key: int, config: RetrievalConfig) -> str:
    rng = _generator(seed, _DROPOUT_STREAM, 0, key)
    return " ".join(drop_query_tokens(text.split(), rng, config.query_dropout))


def _read_part(
    folder: Path,
    job: str | None,
    rows: range,
    found: dict[str, np.ndarray],
    scores: dict[str, np.ndarray],
) -> bool:
    """Copy a finished part into `found` and `scores`, if there is one."""
    if not (folder / "manifest.json").is_file():
        return False
    part = NeighbourTable.load(folder)
    if part.facts.get("job") != job or len(part) != len(rows):
        raise ValueError(
            f"parts: {folder} is of another job (other documents, bank, encoder, config or seed); "
            f"wanted an empty folder, or one of this job"
        )
    for kind in KINDS:
        found[kind][rows.start : rows.stop] = part.candidate_keys[kind]
        scores[kind][rows.start : rows.stop] = part.candidate_scores[kind]
    return True


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
    documents: np.ndarray | None = None,
    repeats: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Apply the strategy to a pool of keys, and to a wider one while too few pass.

    `documents` (D, dim) are vectors of the document itself, whose copies are excluded; `repeats`
    (R, dim) are vectors of documents taken before.
    """
    while True:
        vectors = bank.vectors_of(pool)
        barred = np.zeros(len(pool), bool)
        if documents is not None:
            barred |= (vectors.dot(documents.T) > _COPY).any(axis=1)
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
