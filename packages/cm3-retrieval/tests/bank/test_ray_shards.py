import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from cm3_retrieval import IndexConfig, MemoryBank
from cm3_retrieval.bank.shards import Documents, build_from_shards

# Under `uv run` Ray would start each worker by another `uv run`, which puts an editable install in
# the place of the wheel under test.
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"

ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")

from cm3_retrieval.bank.ray_shards import build_with_ray  # noqa: E402

SHARDS, ROWS, DIM = 6, 200, 16
CONFIG = IndexConfig(factory="IVF8,PQ4x4fs", nprobe=4)


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine, two workers at a time."""
    # Ray's sockets lie in its folder, and a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(
        prefix="ray-", dir="/tmp", ignore_cleanup_errors=True
    ) as short:
        yield from ray_in(short)


def ray_in(folder: str):
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=folder,
    )
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ray.shutdown()


class WordEncoder:
    """A direction for each text."""

    dim = DIM
    encoder_id = "words"

    def encode_texts(self, texts):
        rows = [np.random.default_rng(list(text.encode())).standard_normal(DIM) for text in texts]
        rows = np.stack(rows)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    encode_images = encode_texts


class Shards:
    """Reads a shard, notes that in a file, and kills its own process in the middle of some."""

    def __init__(self, notes: Path, deaths: dict[int, int]) -> None:
        self.notes, self.deaths = notes, deaths

    def __call__(self, shard: int) -> Documents:
        note = self.notes / f"{shard}-{os.getpid()}-{len(list(self.notes.iterdir()))}"
        note.touch()
        before = len(list(self.notes.glob(f"{shard}-*")))
        if before <= self.deaths.get(shard, 0):
            os.kill(os.getpid(), 9)
        keys = shard * ROWS + np.arange(ROWS)
        texts = [f"document {key}" for key in keys]
        return Documents(keys=keys, texts=texts, metadata={"caption": texts})


def times_read(notes: Path) -> list[int]:
    return [len(list(notes.glob(f"{shard}-*"))) for shard in range(SHARDS)]


def folders(tmp_path, *names) -> list[Path]:
    made = [tmp_path / name for name in names]
    for folder in made:
        folder.mkdir()
    return made


@pytest.mark.slow
def test_two_workers_one_killed_in_the_middle(cluster, tmp_path):
    notes, own_notes = folders(tmp_path, "notes", "own-notes")
    seen: list[tuple[int, int]] = []
    build_with_ray(
        tmp_path / "work", SHARDS, Shards(notes, {3: 1}), WordEncoder, tmp_path / "bank", CONFIG,
        workers=2, progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert times_read(notes) == [1, 1, 1, 2, 1, 1]  # only what the dead worker held
    readers = {note.name.split("-")[1] for note in notes.iterdir()}
    assert len(readers) >= 2 and str(os.getpid()) not in readers
    assert seen[-1] == (2 * SHARDS, 2 * SHARDS) and len(seen) == 2 * SHARDS
    build_from_shards(
        tmp_path / "own", SHARDS, Shards(own_notes, {}), WordEncoder(), tmp_path / "whole", CONFIG
    )
    bank, whole = (MemoryBank.load(tmp_path / name, "words") for name in ("bank", "whole"))
    assert bank.keys.tolist() == list(range(SHARDS * ROWS))  # none lost, none twice
    assert bank.metadata.equals(whole.metadata)
    queries = WordEncoder().encode_texts([f"query {row}" for row in range(200)])
    for ours, theirs in zip(bank.search(queries, 10), whole.search(queries, 10), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_a_shard_that_kills_every_worker_ends_the_job_and_the_rest_stays(cluster, tmp_path):
    (notes,) = folders(tmp_path, "notes")
    job = (tmp_path / "work", SHARDS)
    with pytest.raises(RuntimeError, match="shard 5: its worker died 2 times"):
        build_with_ray(
            *job, Shards(notes, {5: 99}), WordEncoder, tmp_path / "bank", CONFIG, attempts=2
        )
    assert times_read(notes)[:5] == [1, 1, 1, 1, 1] and not (tmp_path / "bank").exists()
    build_with_ray(*job, Shards(notes, {}), WordEncoder, tmp_path / "bank", CONFIG)
    assert times_read(notes) == [1, 1, 1, 1, 1, 3]
    assert len(MemoryBank.load(tmp_path / "bank")) == SHARDS * ROWS


@pytest.mark.slow
def test_an_error_in_a_worker_is_the_callers(cluster, tmp_path):
    def wrong(shard: int) -> Documents:
        return Documents(keys=np.arange(3), texts=["a"])

    with pytest.raises(ValueError, match="shard 0: keys: wanted 1, one of texts, got 3"):
        build_with_ray(tmp_path / "work", 1, wrong, WordEncoder, tmp_path / "bank")


def test_wrong_input(tmp_path):
    job = (tmp_path / "work", 1, Shards(tmp_path, {}), WordEncoder, tmp_path / "bank")
    with pytest.raises(ValueError, match="workers: wanted at least 1, got 0"):
        build_with_ray(*job, workers=0)
    with pytest.raises(ValueError, match="index: wanted one that can be merged"):
        build_with_ray(*job, IndexConfig(factory="HNSW8"))
