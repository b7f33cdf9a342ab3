"""A memory bank built from shards: embed each, train the index once, add each, merge.

Takes a function that reads shard 0, 1, ... and an encoder; gives a bank's folder. Each step reads
files in a work folder and leaves a sealed folder there, so a step may run in any process that sees
the work folder (`cm3_retrieval.bank.ray_shards`), and a finished step is not repeated. Paper 2.1
(arXiv 2309.02591) keeps a whole training set in its memory bank.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cm3_retrieval.bank.columns import joined_tables, metadata_table
from cm3_retrieval.bank.documents import encode_documents
from cm3_retrieval.bank.files import read_table, write_bank, write_index, write_table
from cm3_retrieval.digest import digest_of
from cm3_retrieval.index.approximate import (
    ApproximateIndex,
    add_rows,
    train_index,
    training_rows,
)
from cm3_retrieval.index.checks import checked_documents, checked_keys
from cm3_retrieval.index.config import AUTO, IndexConfig
from cm3_retrieval.index.exact import ExactIndex, build_index
from cm3_retrieval.index.merging import as_trained, merge_indexes, shard_index
from cm3_retrieval.index.plan import plan_index
from cm3_retrieval.index.reading import read_index
from cm3_retrieval.index.threads import FaissThreads
from cm3_retrieval.interface import (
    BANK_COMPONENT,
    SHARD_COMPONENT,
    Encoder,
    same_encoder,
)
from cm3_retrieval.sealed_folder import MANIFEST_NAME, check_target, read_folder, write_folder


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The documents of one shard, as many as fit in memory."""

    keys: np.ndarray
    """(N,) integers of at least 0, all different across all shards."""

    texts: Sequence[str | None] | None = None
    """N texts, None where a document has none."""

    images: Sequence[Any] | np.ndarray | None = None
    """N pictures, None where a document has none."""

    vectors: np.ndarray | None = None
    """(N, dim) vectors of the whole documents, as `document_vectors` gives them, where they were
    made before; then texts and images are not read."""

    metadata: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Column name -> N values; the same columns in every shard."""


ReadShard = Callable[[int], Documents]
"""Number of a shard -> its documents, the same ones in each call."""


def build_from_shards(
    work: Path | str,
    shards: int,
    read: ReadShard,
    encoder: Encoder,
    folder: Path | str,
    index: IndexConfig | None = None,
    *,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Build a bank in this process; after a kill, the same call continues where it stopped.

    The search width is the default of the bank's size. `MemoryBank.tune` chooses it on queries.

    Args:
        work: Folder for the finished steps of this one job; not needed once the bank is saved.
        shards: Number of shards.
        read: Reads one shard.
        encoder: Encodes texts and pictures.
        folder: Where to write the bank, for `MemoryBank.load`.
        index: The index to build. None chooses by the number of documents. HNSW cannot be merged.
        threads: FAISS's threads.
        progress: Called with (steps done, steps).

    Raises:
        ValueError: An argument is invalid, a key occurs twice, `work` belongs to another job, or
            `folder` holds the `manifest.json` of something else.
    """
    check_mergeable(index)
    check_target(folder, MANIFEST_NAME, BANK_COMPONENT)
    report = progress or (lambda done, total: None)
    for shard in range(shards):
        embed_shard(work, shard, read, encoder)
        report(shard + 1, 2 * shards)
    train_on_shards(work, shards, index, threads=threads)
    for shard in range(shards):
        add_shard(work, shard, threads=threads)
        report(shards + shard + 1, 2 * shards)
    merge_shards(work, shards, folder)


def check_mergeable(config: IndexConfig | None) -> None:
    """Refuse, with a ValueError, an index that has to be built in one piece."""
    if config is not None and config.factory != AUTO and config.factory.startswith("HNSW"):
        raise ValueError(
            f"index: wanted one that can be merged, such as IVF, got {config.factory!r}; "
            f"MemoryBank.build makes it in one piece"
        )


def embed_shard(work: Path | str, shard: int, read: ReadShard, encoder: Encoder) -> None:
    """Encode one shard, unless it is already encoded.

    Raises:
        ValueError: The documents are invalid, or another encoder has encoded the shard.
    """
    folder = Path(work) / "embedded" / f"{shard:06}"
    if (folder / MANIFEST_NAME).is_file():
        done = read_folder(folder, MANIFEST_NAME, SHARD_COMPONENT)[0]["encoder_id"]
        if not same_encoder(done, encoder.encoder_id):
            raise ValueError(
                f"work: {folder} is of another job, of encoder {done!r}; "
                f"wanted one of {encoder.encoder_id!r}, or an empty folder"
            )
        return
    documents = read(shard)
    try:  # all that can be refused without the encoder, before it works for hours
        keys = checked_keys("keys", documents.keys)
        table = metadata_table(keys, documents.metadata)
        others = (path for path in sorted(folder.parent.glob("*")) if path != folder)
        first = next((path for path in others if (path / MANIFEST_NAME).is_file()), None)
        if first is not None:
            own = read_folder(first, MANIFEST_NAME, SHARD_COMPONENT)[1]["metadata.arrow"]
            joined_tables(
                [read_table(own).slice(0, 0), table.slice(0, 0)], [_name(first), f"shard {shard}"]
            )
        for name in ("texts", "images", "vectors"):
            values = getattr(documents, name)
            if values is not None and len(values) != len(keys):
                raise ValueError(f"keys: wanted {len(values)}, one of {name}, got {len(keys)}")
        vectors = documents.vectors
        if vectors is None:
            vectors = encode_documents(encoder, documents.texts, documents.images)
        keys, vectors = checked_documents(keys, vectors)
    except ValueError as error:
        raise ValueError(f"shard {shard}: {error}") from error
    contents = {
        "vectors.npy": lambda file: np.save(file, vectors, allow_pickle=False),
        "metadata.arrow": lambda file: write_table(table, file),
    }
    facts = {"encoder_id": encoder.encoder_id, "count": len(keys), "dim": vectors.shape[1]}
    write_folder(folder, MANIFEST_NAME, SHARD_COMPONENT, contents, facts)


def train_on_shards(
    work: Path | str, shards: int, index: IndexConfig | None = None, *, threads: int = 1
) -> None:
    """Choose the index for all embedded shards, and train it on a sample across them.

    `MemoryBank.build` draws the same sample from the same documents.
    """
    parts = _embedded(work, shards)
    _joined(parts)  # refuses early what could not be merged
    count, dim = sum(len(part.vectors) for part in parts), parts[0].vectors.shape[1]
    plan = plan_index(count, dim, index)
    job = digest_of([part.digest for part in parts], asdict(plan))
    folder = Path(work) / "trained"
    if _finished(folder, job):
        return
    contents = {}
    if plan.factory != "Flat":
        sample = _rows(parts, training_rows(count, plan))
        trained = train_index(sample, plan, threads=threads)
        shard_index(trained)  # refuses early an index that cannot be merged
        contents["index.faiss"] = lambda file: write_index(trained, file)
    write_folder(
        folder, MANIFEST_NAME, SHARD_COMPONENT, contents, {"job": job, "index": asdict(plan)}
    )


def add_shard(work: Path | str, shard: int, *, threads: int = 1) -> None:
    """Add one shard's vectors to its own copy of the trained index, unless that is done."""
    manifest, paths = read_folder(Path(work) / "trained", MANIFEST_NAME, SHARD_COMPONENT)
    if manifest["index"]["factory"] == "Flat":
        return
    part = _read_embedded(work, shard)
    folder, job = Path(work) / "added" / f"{shard:06}", digest_of(manifest["job"], part.digest)
    if _finished(folder, job):
        return
    trained = read_index(paths["index.faiss"])
    index = shard_index(trained)
    with FaissThreads(threads):
        add_rows(index, part.vectors)
    contents = {"index.faiss": lambda file: write_index(index, file)}
    write_folder(folder, MANIFEST_NAME, SHARD_COMPONENT, contents, {"job": job})


def merge_shards(work: Path | str, shards: int, folder: Path | str) -> None:
    """Write the bank of all shards, in their order.

    Full vectors go from file to file; only the index is held in memory.

    Raises:
        ValueError: A key occurs in two shards, columns differ, or a shard was not added.
    """
    work = Path(work)
    manifest, trained = read_folder(work / "trained", MANIFEST_NAME, SHARD_COMPONENT)
    plan = IndexConfig(**manifest["index"])
    parts = _embedded(work, shards)
    table, keys = _joined(parts)
    if plan.factory == "Flat":
        index = build_index(parts[0].vectors, keys[: len(parts[0].vectors)])
        for part in parts[1:]:  # added one by one, so that the vectors are held once
            start = index.ntotal
            own = keys[start : start + len(part.vectors)]
            index.add_with_ids(np.ascontiguousarray(part.vectors), own)  # pyright: ignore
        write_bank(folder, ExactIndex(index), table, parts[0].encoder_id)
        return

    def added() -> Any:
        for shard, part in enumerate(parts):
            own = work / "added" / f"{shard:06}"
            if not _finished(own, digest_of(manifest["job"], part.digest)):
                raise ValueError(f"work: wanted shard {shard} added, {own} does not hold it")
            paths = read_folder(own, MANIFEST_NAME, SHARD_COMPONENT)[1]
            yield read_index(paths["index.faiss"])

    index = as_trained(merge_indexes(added()), read_index(trained["index.faiss"]))
    scratch = work / "vectors.npy"
    vectors = None
    if plan.rescore:
        shape = (len(keys), parts[0].vectors.shape[1])
        vectors = np.lib.format.open_memmap(scratch, "w+", np.float32, shape)
        np.concatenate([part.vectors for part in parts], out=vectors)
    write_bank(folder, ApproximateIndex(index, keys, vectors, plan), table, parts[0].encoder_id)
    scratch.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class _Embedded:
    vectors: np.ndarray  # (N, dim) float32, in its file
    table: pa.Table
    encoder_id: str
    digest: str  # of the vectors


def _name(folder: Path) -> str:
    return f"shard {int(folder.name)}"


def _read_embedded(work: Path | str, shard: int) -> _Embedded:
    folder = Path(work) / "embedded" / f"{shard:06}"
    manifest, paths = read_folder(folder, MANIFEST_NAME, SHARD_COMPONENT)
    return _Embedded(
        vectors=np.load(paths["vectors.npy"], mmap_mode="r"),
        table=read_table(paths["metadata.arrow"]),
        encoder_id=manifest["encoder_id"],
        digest=manifest["files"]["vectors.npy"]["sha256"],
    )


def _embedded(work: Path | str, shards: int) -> list[_Embedded]:
    if shards < 1:
        raise ValueError(f"shards: wanted at least 1, got {shards}")
    parts = [_read_embedded(work, shard) for shard in range(shards)]
    for shard, part in enumerate(parts):
        if not same_encoder(part.encoder_id, parts[0].encoder_id):
            raise ValueError(
                f"work: shard {shard} is of encoder {part.encoder_id!r}, "
                f"shard 0 of {parts[0].encoder_id!r}; wanted one encoder"
            )
    return parts


def _joined(parts: list[_Embedded]) -> tuple[pa.Table, np.ndarray]:
    """Return the metadata and keys of all shards.

    Raises:
        ValueError: Columns differ, or a key occurs in two shards; names the shards.
    """
    table = joined_tables(
        [part.table for part in parts], [f"shard {shard}" for shard in range(len(parts))]
    )
    keys = table.column("key").to_numpy()
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(np.diff(keys[order]) == 0)
    if len(twice):
        ends = np.cumsum([len(part.vectors) for part in parts])
        one, other = np.searchsorted(ends, order[twice[0] : twice[0] + 2], side="right").tolist()
        raise ValueError(
            f"keys: wanted each key once, got {int(keys[order[twice[0]]])} twice, in shard {one} "
            f"and in shard {other}"
        )
    return table, keys


def _rows(parts: list[_Embedded], rows: np.ndarray) -> np.ndarray:
    """Return ascending `rows` of all shards' vectors, numbered as in one array.

    Example: shards of 3 and 4 rows begin at 0 and 3; rows [1, 4, 6] are row 1 of the first, and
    rows 1 and 3 of the second.
    """
    lengths = [len(part.vectors) for part in parts]
    ends = np.cumsum(lengths)
    pieces = np.split(rows, np.searchsorted(rows, ends[:-1]))
    taken = zip(parts, pieces, ends - lengths, strict=True)
    return np.concatenate([part.vectors[piece - start] for part, piece, start in taken])


def _finished(folder: Path, job: str) -> bool:
    """Tell whether a step left its result in `folder`, made from the same input."""
    if not (folder / MANIFEST_NAME).is_file():
        return False
    return read_folder(folder, MANIFEST_NAME, SHARD_COMPONENT)[0]["job"] == job
