import pytest

from cm3_train.atomic import atomic_file, file_sha256


def test_appears_whole(tmp_path):
    path = tmp_path / "folder" / "a.bin"
    with atomic_file(path) as file:
        file.write(b"abc")
        assert not path.exists()
    assert path.read_bytes() == b"abc"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]
    # the published test vector of SHA-256
    assert file_sha256(path).startswith("ba7816bf8f01cfea")


def test_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_file(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
