"""The neighbour table, built from a memory bank, an encoder and documents.

Takes documents, in the bank or not; gives the neighbours of each by image and by text. Paper 2.1
(arXiv 2309.02591): two documents by image and two by text.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cm3_retrieval.bank.documents import document_vectors
from cm3_retrieval.bank.memory_bank import MemoryBank
from cm3_retrieval.digest import digest_of
from cm3_retrieval.index.checks import checked_integers, checked_keys, checked_vectors
from cm3_retrieval.interface import Encoder, same_encoder
from cm3_retrieval.neighbours.calibration import calibrated
from cm3_retrieval.neighbours.draws import DROPOUT_STREAM, generator
from cm3_retrieval.neighbours.pools import first_pools, take
from cm3_retrieval.neighbours.strategy import RetrievalConfig, drop_query_tokens, query_words
from cm3_retrieval.neighbours.table import KINDS, NeighbourTable
from cm3_retrieval.sealed_folder import MANIFEST_NAME

_BATCH = 256
"""Documents encoded and searched at once, or as many as the encoder takes in a batch."""

_PART = 16 * _BATCH
"""Documents in one part of a resumable job."""


def build_neighbour_table(
    bank: MemoryBank,
    encoder: Encoder,
    keys: np.ndarray,
    captions: Sequence[str | None],
    images: Callable[[int], Any] | np.ndarray,
    config: RetrievalConfig,
    seed: int,
    groups: Sequence[int] | Callable[[int], Iterable[int]] | None = None,
    progress: Callable[[int, int], None] | None = None,
    parts: Path | str | None = None,
    *,
    text_vectors: np.ndarray | None = None,
    threads: int = 1,
) -> NeighbourTable:
    """Find neighbours for N documents, in the bank or not.

    Neither a document itself nor a near copy under another key (`config.max_likeness`) is its
    neighbour. A row depends
    only on its own document, the bank, the config and the seed, not on the order of documents.

    Args:
        bank: The bank that neighbours come from. The bool column `has_both` of its metadata says
            which documents have text and image; without the column all count as having both.
        encoder: The encoder that made the bank.
        keys: (N,) integers of at least 0, all different.
        captions: N texts, of which a query drops the share `config.query_dropout` of the words. A
            document whose text is None has no neighbours by text.
        images: Key -> picture, called once per key; or (N, dim) image vectors made before.
        config: The strategy; `max_likeness` is found on the bank where it is None, and stands in
            the table's facts.
        seed: Decides, together with the key, which words are dropped.
        groups: N integers; documents of one group are never each other's neighbours. Or key -> the
            keys of its group, where `keys` are a part of a larger set. None makes each document a
            group of its own.
        progress: Called with (documents done, N).
        parts: Folder that receives a part every 4096 documents; after a kill, the same call
            continues from there. Not needed once the table is saved. None keeps no parts; wanted
            where `groups` is a callable.
        text_vectors: (N, dim) vectors of the captions made before. A caption is then encoded again
            only where a query drops a word of it.
        threads: FAISS's threads.

    Raises:
        ValueError: An argument is invalid, or `parts` holds parts of another job.
    """
    keys = checked_keys("keys", keys)
    if not same_encoder(bank.encoder_id, encoder.encoder_id):
        raise ValueError(
            f"encoder: wanted the bank's, {bank.encoder_id!r}, got {encoder.encoder_id!r}"
        )
    group_of = groups if callable(groups) else None
    if callable(groups):
        groups = None
        if parts is not None:
            raise ValueError("parts: wanted None where groups is a callable, got a folder")
    for name, values in (
        ("captions", captions),
        ("groups", groups),
        ("text_vectors", text_vectors),
    ):
        if values is not None and len(values) != len(keys):
            raise ValueError(f"{name}: wanted {len(keys)}, one a key, got {len(values)}")
    if text_vectors is not None:
        text_vectors = checked_vectors("text_vectors", text_vectors, bank.dim)
    image_vectors = None
    if not callable(images):
        image_vectors = checked_vectors("images", images, bank.dim)
        if len(image_vectors) != len(keys):
            raise ValueError(f"images: wanted {len(keys)}, one a key, got {len(image_vectors)}")
    groups = None if groups is None else checked_integers("groups", groups).tolist()
    config = calibrated(bank, config, threads=threads)
    if group_of is None:
        members = _members_of_groups(keys, groups)

        def group_of(key: int) -> Iterable[int]:
            return members.get(key, ())

    in_bank = np.isin(keys, bank.keys)
    found = {kind: np.full((len(keys), config.num_candidates), -1, np.int64) for kind in KINDS}
    scores = {kind: np.zeros((len(keys), config.num_candidates), np.float32) for kind in KINDS}

    def fill(rows: range) -> None:
        if image_vectors is None:
            pictures = encoder.encode_images([images(int(keys[row])) for row in rows])  # pyright: ignore
        else:
            pictures = image_vectors[rows.start : rows.stop]
        texts = [captions[row] for row in rows]
        if text_vectors is None:
            whole = _encoded(encoder, texts)
        else:
            whole = text_vectors[rows.start : rows.stop]
        own = document_vectors(whole, pictures)
        stored = own.copy()  # the bank may hold one part of it only, or compressed
        inside = in_bank[rows.start : rows.stop]
        stored[inside] = bank.vectors_of(keys[rows.start : rows.stop][inside])
        dropped = [
            None if text is None else _with_dropout(text, seed, int(keys[row]), config)
            for row, text in zip(rows, texts, strict=True)
        ]
        if text_vectors is None:
            asked = _encoded(encoder, dropped)
        else:
            asked = whole.copy()
            changed = [i for i, (text, left) in enumerate(zip(texts, dropped, strict=True))
                       if text is not None and left != text.strip()]  # fmt: skip
            if changed:
                asked[changed] = _encoded(encoder, [dropped[i] for i in changed])
        queries = {"image": pictures, "text": asked}
        for kind in KINDS:
            pools = first_pools(bank, queries[kind], config, threads=threads)
            for place, row in enumerate(rows):
                if not queries[kind][place].any():  # the document has no such part
                    continue
                key = int(keys[row])
                taken, relevance = take(
                    bank,
                    queries[kind][place],
                    pools[place],
                    {key, *group_of(key)},
                    config.num_candidates,
                    config,
                    documents=np.stack([own[place], stored[place]]),
                    threads=threads,
                )
                found[kind][row, : len(taken)] = taken
                scores[kind][row, : len(taken)] = relevance

    job, bank_hash = None, bank.content_hash()
    if parts is not None:
        job = digest_of(
            bank_hash, encoder.encoder_id, keys, list(captions),
            groups, image_vectors, asdict(config), seed,
        )  # fmt: skip
    step = max(_BATCH, getattr(encoder, "batch_size", 0))
    for start in range(0, len(keys), _PART):
        part = range(start, min(start + _PART, len(keys)))
        folder = None if parts is None else Path(parts) / f"part-{start:012}"
        if folder is None or not _read_part(folder, job, part, found, scores):
            for first in range(part.start, part.stop, step):
                fill(range(first, min(first + step, part.stop)))
                if progress is not None:
                    progress(min(first + step, part.stop), len(keys))
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
    facts = {
        "config": asdict(config),
        "seed": seed,
        "encoder_id": encoder.encoder_id,
        "bank": bank_hash,
    }
    return NeighbourTable(keys, found, scores, facts)


def _encoded(encoder: Encoder, texts: Sequence[str | None]) -> np.ndarray:
    """Encode texts to (N, dim) float32, with a row of zeros where there is no text."""
    vectors = np.zeros((len(texts), encoder.dim), np.float32)
    places = [place for place, text in enumerate(texts) if text is not None]
    if places:
        vectors[places] = encoder.encode_texts([text for text in texts if text is not None])
    return vectors


def _with_dropout(text: str, seed: int, key: int, config: RetrievalConfig) -> str:
    rng = generator(seed, DROPOUT_STREAM, 0, key)
    return "".join(drop_query_tokens(query_words(text), rng, config.query_dropout)).strip()


def _read_part(
    folder: Path,
    job: str | None,
    rows: range,
    found: dict[str, np.ndarray],
    scores: dict[str, np.ndarray],
) -> bool:
    """Copy a finished part into `found` and `scores`; tell whether there is one."""
    if not (folder / MANIFEST_NAME).is_file():
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


def _members_of_groups(keys: np.ndarray, groups: Sequence[int] | None) -> dict[int, list[int]]:
    if groups is None:
        return {}
    by_group: dict[int, list[int]] = {}
    for key, group in zip(keys.tolist(), groups, strict=True):
        by_group.setdefault(group, []).append(key)
    return {key: members for members in by_group.values() for key in members}
