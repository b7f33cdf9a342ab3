import errno
import json
import os
import stat

import pytest

from cm3_retrieval.artifact import atomic_file, check_stamp, sha256_of_file, stamp, write_json

OURS = stamp("cm3-x/part", "1.2")


def umask():
    value = os.umask(0o022)
    os.umask(value)
    return value


def test_the_own_stamp_and_other_minor_versions_are_accepted():
    assert check_stamp({**OURS, "more": 1}, "cm3-x/part", "1.0", "a.json") == {**OURS, "more": 1}
    check_stamp(OURS, "cm3-x/part", "1.9", "a.json")


@pytest.mark.parametrize(
    ("artifact", "words"),
    [
        ([OURS], "a.json: wanted component 'cm3-x/part', got list"),
        ({}, "a.json: wanted component 'cm3-x/part', got None"),
        (OURS | {"component": "cm3-y/part"}, "wanted component 'cm3-x/part', got 'cm3-y/part'"),
        (OURS | {"interface_version": "2.0"}, "wanted interface version 1.x of .*, got 2.0"),
        (OURS | {"interface_version": "10.0"}, "got 10.0"),
        ({"component": "cm3-x/part"}, "got None"),
    ],
)
def test_another_artifact_is_refused(artifact, words):
    with pytest.raises(LookupError, match=words):
        check_stamp(artifact, "cm3-x/part", "1.0", "a.json", LookupError)


def test_a_file_appears_whole_in_a_new_folder(tmp_path):
    path = tmp_path / "new" / "a.json"
    for content in ({"one": "\N{SNOWMAN}"}, {"two": 2}):
        write_json(path, content)
        assert json.loads(path.read_text(encoding="utf-8")) == content
    assert os.listdir(path.parent) == ["a.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, call):
    path = tmp_path / "a.json"
    write_json(path, {"one": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=f"could not write {path}: No space left on device") as caught:
        write_json(path, {"two": 2})
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert json.loads(path.read_text()) == {"one": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_writer_may_put_another_file_in_the_place_of_the_temporary_one(tmp_path):
    with atomic_file(tmp_path / "a", name=lambda file: file.read().decode()) as file:
        (tmp_path / "other").write_bytes(b"theirs")
        (tmp_path / "other").chmod(0o600)
        os.replace(tmp_path / "other", file.name)
    assert os.listdir(tmp_path) == ["theirs"]
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
    assert stat.S_IMODE((tmp_path / "theirs").stat().st_mode) == 0o666 & ~umask()


def test_an_error_of_the_writer_leaves_what_was_there(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    with pytest.raises(KeyError), atomic_file(path) as file:
        file.write(b"two")
        raise KeyError
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["a"]


def test_the_content_may_give_the_name(tmp_path):
    def name(file):
        file.seek(0)
        return f"shard-{file.read().decode()}"

    with atomic_file(tmp_path / "shard", name=name) as file:
        file.write(b"17")
    assert os.listdir(tmp_path) == ["shard-17"]


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of_file(tmp_path / "a").startswith("ba7816bf8f01cfea")
