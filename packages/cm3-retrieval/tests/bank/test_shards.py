import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from cm3_retrieval import IndexConfig, MemoryBank, encode_documents
from cm3_retrieval.bank.shards import (
    Documents,
    add_shard,
    build_from_shards,
    embed_shard,
    merge_shards,
    train_on_shards,
)

DIM, SIZES = 16, (700, 0, 900, 400)
COUNT = sum(SIZES)
KEYS = np.random.default_rng(8).permutation(10_000)[:COUNT]
ENDS = np.cumsum(SIZES)


def encode_texts(texts):
    """One word, one direction."""
    seeds = [list(text.encode()) for text in texts]
    vectors = np.stack([np.random.default_rng(seed).standard_normal(DIM) for seed in seeds])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


ENCODER = SimpleNamespace(
    dim=DIM, encoder_id="words", encode_texts=encode_texts, encode_images=encode_texts
)


def texts_of(keys) -> list[str]:
    return [f"document {key}" for key in keys]


def read(shard: int) -> Documents:
    keys = KEYS[ENDS[shard] - SIZES[shard] : ENDS[shard]]
    return Documents(keys=keys, texts=texts_of(keys), metadata={"caption": texts_of(keys)})


def in_one_piece(config) -> MemoryBank:
    vectors = encode_documents(ENCODER, texts_of(KEYS))
    return MemoryBank.build(KEYS, vectors, {"caption": texts_of(KEYS)}, "words", config)


@pytest.mark.parametrize(
    "config",
    [
        None,
        IndexConfig(factory="IVF8,PQ4x4fs", nprobe=4, train_rows=1500),
        IndexConfig(factory="IVF8,PQ4", nprobe=4, rescore=0),
        IndexConfig(factory="IVF8,PQ4x4fs", nprobe=4, rescore=0, train_rows=1500),
        IndexConfig(factory="SQ8"),
    ],
)
def test_the_bank_is_the_one_built_in_one_piece(tmp_path, config):
    build_from_shards(tmp_path / "work", 4, read, ENCODER, tmp_path / "bank", config)
    bank, whole = MemoryBank.load(tmp_path / "bank", "words"), in_one_piece(config)
    np.testing.assert_array_equal(bank.keys, KEYS)
    assert bank.config == whole.config and bank.metadata.equals(whole.metadata)
    np.testing.assert_array_equal(bank.vectors_of(KEYS), whole.vectors_of(KEYS))
    queries = encode_texts([f"query {row}" for row in range(100)])
    for ours, theirs in zip(bank.search(queries, 10), whole.search(queries, 10), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    bank.delete(KEYS[:10])
    bank.append(KEYS[:10], queries[:10], {"caption": ["again"] * 10}, "words")
    assert len(bank) == COUNT


def test_what_is_done_is_not_done_again(tmp_path):
    config = IndexConfig(factory="IVF8,PQ4x4fs")
    calls: list[int] = []

    def counted(shard):
        calls.append(shard)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(shard)

    with pytest.raises(KeyboardInterrupt):
        build_from_shards(tmp_path / "work", 4, counted, ENCODER, tmp_path / "bank", config)
    assert calls == [0, 1, 2] and not (tmp_path / "bank").exists()
    seen: list[tuple[int, int]] = []
    build_from_shards(
        tmp_path / "work", 4, counted, ENCODER, tmp_path / "bank", config,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert calls == [0, 1, 2, 2, 3] and seen == [(step, 8) for step in range(1, 9)]
    before = written(tmp_path / "work")
    build_from_shards(tmp_path / "work", 4, counted, ENCODER, tmp_path / "bank", config)
    assert calls == [0, 1, 2, 2, 3] and written(tmp_path / "work") == before


def written(folder) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_later_steps_follow_what_they_were_made_of(tmp_path):
    """Another index, or a shard embedded anew, and all that came of it is made anew."""
    work = tmp_path / "work"
    build_from_shards(work, 4, read, ENCODER, tmp_path / "bank", IndexConfig(factory="IVF8,SQ8"))
    shutil.rmtree(work / "embedded" / "000003")

    def changed(shard):
        documents = read(shard)
        return Documents(keys=documents.keys, texts=documents.metadata["caption"][::-1])

    def plain(shard):
        documents = read(shard)
        return Documents(keys=documents.keys, texts=documents.texts)

    with pytest.raises(ValueError, match="metadata: wanted columns .* in shard 3 as in shard 0"):
        build_from_shards(work, 4, changed, ENCODER, tmp_path / "two")
    shutil.rmtree(work)
    for config in (IndexConfig(factory="IVF8,SQ8"), IndexConfig(factory="IVF4,SQ8"), None):
        build_from_shards(work, 4, plain, ENCODER, tmp_path / "two", config)
        bank = MemoryBank.load(tmp_path / "two")
        assert bank.config.factory == ("Flat" if config is None else config.factory)
        assert (bank.search(bank.vectors_of(KEYS[::50]), 1)[1][:, 0] == KEYS[::50]).all()


def test_wrong_input(tmp_path):
    work, bank = tmp_path / "work", tmp_path / "bank"
    with pytest.raises(ValueError, match="index: wanted one that can be merged, .* got 'HNSW8'"):
        build_from_shards(work, 4, read, ENCODER, bank, IndexConfig(factory="HNSW8"))
    with pytest.raises(ValueError, match="shards: wanted at least 1, got 0"):
        build_from_shards(work, 0, read, ENCODER, bank)
    with pytest.raises(
        ValueError, match="keys: wanted each key once, got .* twice, in shard 0 and in shard 1"
    ):
        build_from_shards(work, 2, lambda shard: read(0), ENCODER, bank)
    other = SimpleNamespace(**{**vars(ENCODER), "encoder_id": "other"})
    with pytest.raises(ValueError, match="work: .* is of another job, of encoder 'words'"):
        embed_shard(work, 0, read, other)
    one = Documents(keys=KEYS[:1], texts=read(0).texts, metadata={"caption": ["a"]})
    with pytest.raises(ValueError, match="shard 5: keys: wanted 700, one of texts, got 1"):
        embed_shard(work, 5, lambda shard: one, ENCODER)
    with pytest.raises(FileNotFoundError, match="000002: no manifest.json"):
        train_on_shards(work, 4)
    embed_shard(tmp_path / "mixed", 0, read, ENCODER)
    embed_shard(tmp_path / "mixed", 1, lambda shard: read(2), other)
    with pytest.raises(ValueError, match="shard 1 is of encoder 'other', shard 0 of 'words'"):
        train_on_shards(tmp_path / "mixed", 2)
    assert not bank.exists()


def test_a_shard_that_was_not_added_and_a_flipped_byte(tmp_path):
    work = tmp_path / "work"
    for shard in range(2):
        embed_shard(work, shard, read, ENCODER)
    train_on_shards(work, 2, IndexConfig(factory="IVF4,SQ8"))
    add_shard(work, 0)
    with pytest.raises(ValueError, match="work: wanted shard 1 added"):
        merge_shards(work, 2, tmp_path / "bank")
    add_shard(work, 1)
    path = next((work / "added" / "000000").glob("index-*.faiss"))
    changed = bytearray(path.read_bytes())
    changed[-5] ^= 4
    path.write_bytes(changed)
    with pytest.raises(ValueError, match=path.name):
        merge_shards(work, 2, tmp_path / "bank")


def one_column(values) -> dict:
    return {"keys": KEYS[: len(values)], "texts": texts_of(values), "metadata": {"n": values}}


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1, 2], ["3", "4"], "wanted int64 in 'n' of shard 7 as in shard 2, got string"),
        ([1.5, 2], [True], "wanted double in 'n' of shard 7 as in shard 2, got bool"),
        (["a"], [b"a"], "wanted string in 'n' of shard 7 as in shard 2, got binary"),
        ([[1]], [1], "wanted list<item: int64> in 'n' of shard 7 as in shard 2, got int64"),
        ([1], [1, "a"], "'n': Could not convert 'a'"),
    ],
)
def test_columns_of_another_type_are_refused_before_the_encoder_works(
    tmp_path, first, second, message
):
    embed_shard(tmp_path, 2, lambda shard: Documents(**one_column(first)), ENCODER)
    silent = SimpleNamespace(**{**vars(ENCODER), "encode_texts": None})  # a call would be an error
    with pytest.raises(ValueError, match=f"shard 7: metadata: {re.escape(message)}"):
        embed_shard(tmp_path, 7, lambda shard: Documents(**one_column(second)), silent)


def test_columns_that_fit_are_joined(tmp_path):
    """None at first, then whole numbers, then others: a column of numbers."""
    columns = [[None, None], [3, None], [2.5, 4.0]]

    def shard_of(shard: int) -> Documents:
        keys = 2 * shard + np.arange(2)
        return Documents(keys=keys, texts=texts_of(keys), metadata={"n": columns[shard]})

    build_from_shards(tmp_path / "work", 3, shard_of, ENCODER, tmp_path / "bank")
    bank = MemoryBank.load(tmp_path / "bank")
    assert [row["n"] for row in bank.metadata_of(bank.keys)] == [None, None, 3, None, 2.5, 4]


def test_shards_embedded_side_by_side_are_compared_before_they_are_indexed(tmp_path):
    """Where each worker began before another was done, none could see the other's columns."""
    for shard, values in enumerate([[None], [1], ["a"]]):
        keys = np.array([shard])
        documents = Documents(keys=keys, texts=["a"], metadata={"n": values})
        embed_shard(tmp_path / str(shard), shard, lambda _, documents=documents: documents, ENCODER)
        folder = f"embedded/{shard:06}"
        shutil.copytree(tmp_path / str(shard) / folder, tmp_path / "work" / folder)
    with pytest.raises(ValueError, match="wanted int64 in 'n' of shard 2 as in shard 1, got str"):
        train_on_shards(tmp_path / "work", 3)


def test_vectors_made_before_are_taken_as_they_are(tmp_path):
    def with_vectors(shard: int) -> Documents:
        documents = read(shard)
        vectors = encode_documents(ENCODER, documents.texts)
        return replace(documents, texts=None, vectors=vectors)

    silent = SimpleNamespace(dim=DIM, encoder_id="words")
    build_from_shards(tmp_path / "work", len(SIZES), with_vectors, silent, tmp_path / "bank")
    build_from_shards(tmp_path / "other", len(SIZES), read, ENCODER, tmp_path / "encoded")
    banks = [MemoryBank.load(tmp_path / name) for name in ("bank", "encoded")]
    assert banks[0].content_hash() == banks[1].content_hash()
