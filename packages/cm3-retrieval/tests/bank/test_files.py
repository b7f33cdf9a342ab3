import json
import os
import subprocess
import sys

import numpy as np
import pytest

from cm3_retrieval import IndexConfig, MemoryBank
from cm3_retrieval.bank.files import read_bank, write_bank

FACTORIES = ["Flat", "IVF4,PQ4x4fs", "IVF4,SQ8", "HNSW8"]


def make_bank(unit_vectors, factory: str, count: int = 300) -> MemoryBank:
    keys = np.random.default_rng(2).permutation(10_000)[:count]
    captions = {"caption": [f"document {key}" for key in keys]}
    config = IndexConfig(factory=factory, nprobe=4)
    return MemoryBank.build(keys, unit_vectors(count, 16), captions, "enc:1", config)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("factory", FACTORIES)
def test_every_kind_of_index_comes_back(unit_vectors, tmp_path, factory, mmap):
    bank = make_bank(unit_vectors, factory)
    bank.save(tmp_path)
    loaded = MemoryBank.load(tmp_path, "enc:1", mmap=mmap)
    queries = unit_vectors(20, 16, seed=3)
    for ours, theirs in zip(bank.search(queries, 9), loaded.search(queries, 9), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.config == bank.config and loaded.metadata.equals(bank.metadata)
    np.testing.assert_array_equal(loaded.vectors_of(bank.keys), bank.vectors_of(bank.keys))


def test_a_mapped_bank_is_not_changed(unit_vectors, tmp_path):
    bank = make_bank(unit_vectors, "IVF4,SQ8")
    bank.save(tmp_path)
    mapped = MemoryBank.load(tmp_path, mmap=True)
    with pytest.raises(ValueError, match="mmap: wanted a bank loaded with mmap=False for delete"):
        mapped.delete(bank.keys[:1])
    with pytest.raises(ValueError, match="mmap=False for append"):
        mapped.append(np.array([1]), unit_vectors(1, 16), {"caption": ["x"]}, "enc:1")
    mapped.save(tmp_path / "copy")
    assert len(MemoryBank.load(tmp_path / "copy")) == 300


@pytest.mark.parametrize("factory", FACTORIES)
def test_200_of_200_flipped_bytes_are_caught_and_the_file_named(unit_vectors, tmp_path, factory):
    """One bit anywhere in index, metadata, vectors or manifest."""
    make_bank(unit_vectors, factory).save(tmp_path)
    files = sorted(tmp_path.iterdir())
    rng = np.random.default_rng(0)
    caught = 0
    for turn in range(200):
        path = files[turn % len(files)]
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with pytest.raises((ValueError, FileNotFoundError), match=path.name):
            MemoryBank.load(tmp_path, mmap=bool(turn % 2))
        caught += 1
        path.write_bytes(whole)
    assert caught == 200
    MemoryBank.load(tmp_path)


def test_files_of_two_banks_are_refused(unit_vectors, tmp_path):
    """Every hash is right, and still the parts are not of one bank."""
    one, other = make_bank(unit_vectors, "IVF4,SQ8"), make_bank(unit_vectors, "IVF4,SQ8", 200)
    write_bank(tmp_path, one._index, other.metadata, "enc:1")
    with pytest.raises(ValueError, match="index, metadata and manifest are not of one bank"):
        read_bank(tmp_path, None, mmap=False)


def test_an_index_that_answers_otherwise_is_refused(unit_vectors, tmp_path, monkeypatch):
    bank = make_bank(unit_vectors, "IVF4,SQ8")
    monkeypatch.setattr(
        "cm3_retrieval.bank.files.make_canaries",
        lambda index: [{"key": int(index.keys[0]), "keys": [1], "scores": [0.123]}],
    )
    bank.save(tmp_path)
    with pytest.raises(ValueError, match=r"index-.*faiss: the search for the document under key"):
        MemoryBank.load(tmp_path)


KILLED_SAVES = """
import os, random, signal, sys, time
import numpy as np
from cm3_retrieval import IndexConfig, MemoryBank

def make(state):
    vectors = np.random.default_rng(state).standard_normal((20_000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    config = IndexConfig(factory="IVF4,SQ8", nprobe=4, train_rows=2000)
    return MemoryBank.build(np.arange(20_000), vectors, {"state": [state] * 20_000}, "e", config)

folder, states = sys.argv[1], [make(0), make(1)]
states[0].save(folder)
start = time.perf_counter()
states[1].save(folder)
seconds, now = time.perf_counter() - start, 1
random.seed(0)
kept = {"old": 0, "new": 0, "finished": 0}
for turn in range(20):
    child = os.fork()
    if not child:
        states[1 - now].save(folder)
        os._exit(0)
    time.sleep(1.5 * seconds * random.random())
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1] == 0:
        kept["finished"] += 1
    bank = MemoryBank.load(folder)  # all hashes, counts, keys and canaries
    seen = set(bank.metadata.column("state").to_pylist())
    assert seen in ({0}, {1}) and len(bank) == 20_000, seen
    state = seen.pop()
    assert np.array_equal(bank.vectors_of([0, 19_999]), states[state].vectors_of([0, 19_999]))
    kept["old" if state == now else "new"] += 1
    now = state
states[now].save(folder)  # what a killed save left behind is gone
assert not [name for name in os.listdir(folder) if name.endswith(".tmp")], os.listdir(folder)
import json
print(json.dumps(kept))
"""


@pytest.mark.slow
def test_killed_at_20_random_moments_the_old_bank_or_the_new_one_is_there(tmp_path):
    """SIGKILL of a process that saves; most kills must have fallen into the save itself."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED_SAVES, str(tmp_path / "bank")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    kept = json.loads(done.stdout)
    assert kept["old"] + kept["new"] == 20
    assert kept["finished"] < 15 and kept["old"] > 0


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize(
    "factory", ["IVF16,PQ8x4fs", "IVF16_HNSW8,PQ8x4fs", "PCA8,IVF16,PQ4x4fs", "IVF16,RQ4x4fs"]
)
def test_a_fast_scan_bank_without_full_vectors_comes_back(unit_vectors, tmp_path, factory, mmap):
    """Reading, eval's reconstruction, deleting and saving anew: each of them killed the process."""
    config = IndexConfig(factory=factory, rescore=0, nprobe=16)
    keys = np.arange(3000) * 7
    bank = MemoryBank.build(keys, unit_vectors(3000, 16), {}, "enc:1", config)
    bank.save(tmp_path)
    loaded = MemoryBank.load(tmp_path, mmap=mmap)
    np.testing.assert_array_equal(loaded.vectors_of(keys), bank.vectors_of(keys))
    for ours, theirs in zip(
        bank.search(unit_vectors(9, 16, seed=3), 9),
        loaded.search(unit_vectors(9, 16, seed=3), 9),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    if not mmap:
        loaded.delete(keys[:1000])
        loaded.append(keys[:500], unit_vectors(500, 16), {}, "enc:1")
    loaded.save(tmp_path / "again")
    again = MemoryBank.load(tmp_path / "again")
    assert len(again) == (3000 if mmap else 2500)
    assert not again.keeps_vectors
    with pytest.raises(ValueError, match="bank: wanted one that keeps .* with rescore=0"):
        again.reindexed(IndexConfig(factory="Flat"))


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("name", [b"caf\xe9", b"\xff", "größe".encode()])
@pytest.mark.parametrize("factory", ["Flat", "IVF4,SQ8"])
def test_a_folder_may_have_any_name(unit_vectors, tmp_path, factory, name, mmap):
    bank = make_bank(unit_vectors, factory)
    folder = tmp_path / os.fsdecode(name)
    bank.save(folder)
    loaded = MemoryBank.load(folder, "enc:1", mmap=mmap)
    np.testing.assert_array_equal(
        loaded.search(bank.vectors_of(bank.keys[:5]), 3)[1][:, 0], bank.keys[:5]
    )
    assert loaded.metadata.equals(bank.metadata)


WRITER = """
import sys
import numpy as np
from cm3_retrieval import MemoryBank

folder, first, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
refused = 0
for key in range(first, first + 25):
    while True:
        document = np.array([key]), np.eye(16, dtype=np.float32)[:1], {"caption": [str(key)]}
        if how == "changing":
            with MemoryBank.changing(folder):
                bank = MemoryBank.load(folder)
                bank.append(*document, "enc:1")
                bank.save(folder)
            break
        bank = MemoryBank.load(folder)
        bank.append(*document, "enc:1")
        try:
            bank.save(folder)
            break
        except ValueError as error:
            assert "another writer has saved since" in str(error)
            refused += 1
print(refused)
"""


@pytest.mark.parametrize("how", ["changing", "again"])
def test_two_writers_lose_nothing_and_a_reader_beside_them_never_fails(unit_vectors, tmp_path, how):
    make_bank(unit_vectors, "IVF4,SQ8").save(tmp_path)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(first), how],
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in (20_000, 30_000)
    ]
    counts = [len(MemoryBank.load(tmp_path))]
    while any(writer.poll() is None for writer in writers):
        counts.append(len(MemoryBank.load(tmp_path, mmap=bool(len(counts) % 2))))
    assert counts == sorted(counts) and len(counts) > 5
    refused = [int(writer.communicate()[0]) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert how == "again" or refused == [0, 0]
    bank = MemoryBank.load(tmp_path)
    added = [*range(20_000, 20_025), *range(30_000, 30_025)]
    assert sorted(bank.keys[300:].tolist()) == added
    assert [row["caption"] for row in bank.metadata_of(added)] == [str(key) for key in added]
    assert len(list(tmp_path.iterdir())) == 4


def test_a_bank_that_was_not_loaded_replaces_what_is_there(unit_vectors, tmp_path):
    one, other = make_bank(unit_vectors, "Flat"), make_bank(unit_vectors, "Flat", 200)
    one.save(tmp_path)
    loaded = MemoryBank.load(tmp_path)
    other.save(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path}: wanted the .* got one that another writer"):
        loaded.save(tmp_path)
    loaded.save(tmp_path / "elsewhere")
    assert len(MemoryBank.load(tmp_path)) == 200
    assert len(MemoryBank.load(tmp_path / "elsewhere")) == 300
    other.delete(other.keys[:1])
    other.save(tmp_path)  # its own earlier state
    assert len(MemoryBank.load(tmp_path)) == 199
