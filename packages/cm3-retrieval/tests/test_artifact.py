import errno
import hashlib
import os
import stat

import pytest

from cm3_retrieval.artifact import atomic_file, check_stamp, sha256_of_file, stamp, write_json

OWN = stamp("cm3-a/part", "1.2")


def write(path, content):
    with atomic_file(path) as file:
        file.write(content)


@pytest.mark.parametrize("version", ["1.2", "1.0", "1.99"])
def test_own_stamp_of_any_minor_version_is_accepted(version):
    artifact = {**OWN, "interface_version": version, "size": 3}
    assert check_stamp(artifact, "cm3-a/part", "1.2", "a.json") == artifact


@pytest.mark.parametrize(
    ("artifact", "words"),
    [
        ({**OWN, "component": "cm3-b/part"}, "wanted component 'cm3-a/part', got 'cm3-b/part'"),
        ({}, "wanted component 'cm3-a/part', got None"),
        ([OWN], "wanted component 'cm3-a/part', got list"),
        ({**OWN, "interface_version": "2.0"}, "wanted interface version 1.x of cm3-a/part, got 2"),
        ({**OWN, "interface_version": "10.0"}, "got 10.0"),
        ({"component": "cm3-a/part"}, "got None"),
    ],
)
def test_other_stamps_are_refused(artifact, words):
    with pytest.raises(ValueError, match=f"^a.json: .*{words}"):
        check_stamp(artifact, "cm3-a/part", "1.2", "a.json")
    with pytest.raises(LookupError, match=words):
        check_stamp(artifact, "cm3-a/part", "1.2", "a.json", LookupError)


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.bin"
    with atomic_file(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    write(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["a.bin"]


def test_the_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "a.bin", b"one")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o640


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, call):
    path = tmp_path / "a.bin"
    write(path, b"one")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=r"could not write .*a\.bin: No space left") as caught:
        write(path, b"two")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_an_error_of_the_writer_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.bin"
    write(path, b"one")
    with pytest.raises(KeyError), atomic_file(path) as file:
        file.write(b"two")
        raise KeyError
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_the_content_may_name_the_file(tmp_path):
    def by_hash(file):
        file.seek(0)
        return f"{hashlib.sha256(file.read()).hexdigest()}.bin"

    with atomic_file(tmp_path / "a.bin", name=by_hash) as file:
        file.write(b"one")
    (path,) = tmp_path.iterdir()
    assert path.name == f"{sha256_of_file(path)}.bin"
    assert path.read_bytes() == b"one"


def test_json_is_indented_utf8_with_a_last_line_end(tmp_path):
    write_json(tmp_path / "a.json", {"name": "caf\u00e9", "ids": [1]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == '{\n  "name": "caf\u00e9",\n  "ids": [\n    1\n  ]\n}\n'
