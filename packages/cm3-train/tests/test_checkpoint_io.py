import resource
import zipfile

import pytest
import torch

from cm3_train import AtomicCheckpointIO


@pytest.fixture
def checkpoint():
    return {"state_dict": {"w": torch.arange(1000.0)}, "epoch": 3, "name": "a"}


def test_round_trip_and_plain_torch(tmp_path, checkpoint):
    path = tmp_path / "folder" / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    for loaded in (
        AtomicCheckpointIO().load_checkpoint(path),
        torch.load(path, weights_only=True),
    ):
        assert torch.equal(loaded["state_dict"]["w"], checkpoint["state_dict"]["w"])
        assert loaded["epoch"] == 3
    assert zipfile.ZipFile(path).testzip() is None
    assert [p.name for p in path.parent.iterdir()] == ["a.ckpt"]


def test_every_flipped_byte_is_found(tmp_path, checkpoint):
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    good = path.read_bytes()
    for at in [*range(0, len(good), 97), len(good) - 1, len(good) - 65]:
        bad = bytearray(good)
        bad[at] ^= 4
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="a.ckpt: damaged"):
            AtomicCheckpointIO().load_checkpoint(path)


@pytest.mark.parametrize("length", [0, 10, 64, 2000])
def test_a_cut_file_is_found(tmp_path, checkpoint, length):
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="a.ckpt: damaged or cut short"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_never_unpickles_code(tmp_path):
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint({"code": pytest.raises}, path)
    with pytest.raises(Exception, match="(?i)weights.only"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)


def test_full_disk_keeps_the_old_file(tmp_path, checkpoint):
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, limits[1]))
    try:
        with pytest.raises(OSError, match="could not write .*a.ckpt"):
            AtomicCheckpointIO().save_checkpoint({"w": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert AtomicCheckpointIO().load_checkpoint(path)["epoch"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def test_missing_and_removed(tmp_path, checkpoint):
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    AtomicCheckpointIO().remove_checkpoint(path)
    with pytest.raises(FileNotFoundError, match="a.ckpt"):
        AtomicCheckpointIO().load_checkpoint(path)
    with pytest.raises(TypeError, match="storage_options"):
        AtomicCheckpointIO().save_checkpoint(checkpoint, path, storage_options={})
