import errno
import os
import stat

import pytest

from cm3_texttok.artifact import check_header, header, write_file


def test_own_header_and_other_minor_versions_are_accepted():
    check_header(header(), "file")
    check_header({**header(), "interface_version": "1.9"}, "file")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"component": "cm3-model"}, "a.json: wanted component 'cm3-texttok', got 'cm3-model'"),
        ({"component": None}, "got None"),
        ({"interface_version": "2.0"}, "a.json: wanted interface_version 1.x, got '2.0'"),
        ({"interface_version": "10.0"}, "got '10.0'"),
        ({"interface_version": 1.0}, "got 1.0"),
    ],
)
def test_other_writers_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        check_header({**header(), **change}, "a.json")


def test_write_replaces_the_file(tmp_path):
    path = tmp_path / "a.json"
    write_file(path, b"one")
    write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failed_write_leaves_what_was_there(tmp_path, monkeypatch, call):
    path = tmp_path / "a.json"
    write_file(path, b"one")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="could not write: No space left on device") as caught:
        write_file(path, b"two")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["a.json"]


def test_missing_folder_is_named(tmp_path):
    path = tmp_path / "missing" / "a.json"
    with pytest.raises(OSError, match="could not write") as caught:
        write_file(path, b"one")
    assert caught.value.filename == str(path)
