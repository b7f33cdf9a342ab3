import errno
import json
import os
import resource
import signal
import subprocess
import sys

import pytest

from cm3_retrieval.sealed_folder import check_target, open_folder, read_folder, write_folder


def save(folder, payload: bytes = b"payload") -> None:
    write_folder(folder, "m.json", "part", {"a.bin": lambda f: f.write(payload)}, {"count": 1})


def test_round_trip(tmp_path):
    save(tmp_path)
    manifest, paths = read_folder(tmp_path, "m.json", "part")
    assert manifest["count"] == 1
    assert paths["a.bin"].read_bytes() == b"payload"


def test_any_flipped_byte_is_caught_and_the_file_named(tmp_path):
    save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for place in range(len(whole)):
            for bit in (0, 5):
                changed = bytearray(whole)
                changed[place] ^= 1 << bit
                path.write_bytes(changed)
                with pytest.raises((ValueError, FileNotFoundError), match=str(tmp_path)):
                    read_folder(tmp_path, "m.json", "part")
        path.write_bytes(whole)
    read_folder(tmp_path, "m.json", "part")


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe", b"{}", b"null"])
def test_a_manifest_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(ValueError, match="m.json"):
        read_folder(tmp_path, "m.json", "part")


def test_other_component_version_or_missing_file(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no m.json"):
        read_folder(tmp_path, "m.json", "part")
    save(tmp_path)
    with pytest.raises(ValueError, match="wanted component 'other', got 'part'"):
        read_folder(tmp_path, "m.json", "other")
    next(tmp_path.glob("a-*.bin")).unlink()
    with pytest.raises(FileNotFoundError, match="missing"):
        read_folder(tmp_path, "m.json", "part")
    monkeypatch.setattr("cm3_retrieval.sealed_folder.INTERFACE_VERSION", "2.0")
    with pytest.raises(ValueError, match=r"wanted interface version 2.x of part, got 1.0"):
        read_folder(tmp_path, "m.json", "part")


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path):
    save(tmp_path, b"old")
    for name in ("a.bin", "m.json"):
        (tmp_path / f".{name}.0123abcd.tmp").write_bytes(b"a save was killed here")
    save(tmp_path, b"new")
    assert len(list(tmp_path.iterdir())) == 2
    assert read_folder(tmp_path, "m.json", "part")[1]["a.bin"].read_bytes() == b"new"


@pytest.mark.parametrize("failing_call", range(4))
def test_stopped_at_any_rename_or_sync_the_old_state_loads(tmp_path, monkeypatch, failing_call):
    save(tmp_path, b"old")
    calls = 0

    def stop(*_):
        nonlocal calls
        calls += 1
        if calls > failing_call:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, b"new")
    monkeypatch.undo()
    # In turn: content file, (rename), folder, manifest, (rename), folder. Only a stop after the
    # manifest's rename leaves the new state.
    expected = b"new" if failing_call == 3 else b"old"
    assert read_folder(tmp_path, "m.json", "part")[1]["a.bin"].read_bytes() == expected
    assert not list(tmp_path.glob("*.tmp"))


def test_a_full_disk_gives_one_error_and_no_temporary(tmp_path):
    save(tmp_path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(OSError, match=f"could not write {tmp_path}/a.bin") as caught:
            save(tmp_path, bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    assert len(list(tmp_path.iterdir())) == 2
    assert read_folder(tmp_path, "m.json", "part")[1]["a.bin"].read_bytes() == b"old"


def test_only_what_the_manifest_named_is_deleted(tmp_path):
    """A file whose name looks like ours stays, as does one that a strange manifest names."""
    strangers = [tmp_path / f"a-{16 * digit}.bin" for digit in "0f"]
    outside = tmp_path.parent / f"a-{16 * '1'}.bin"
    for stranger in (*strangers, outside):
        stranger.write_bytes(b"not ours")
    save(tmp_path, b"old")
    save(tmp_path, b"new")
    manifest = {
        "component": "part",
        "files": {"a.bin": {"name": f"../{outside.name}"}, "b": 3, "c": {"name": None}},
    }
    (tmp_path / "m.json").write_text(json.dumps(manifest))
    save(tmp_path, b"newer")
    assert all(stranger.read_bytes() == b"not ours" for stranger in (*strangers, outside))
    assert len(list(tmp_path.iterdir())) == 2 + 2 + 1  # "new" was in no manifest that could be read
    outside.unlink()


@pytest.mark.parametrize("content", ["", "{}", "[]", "mine", '{"component": "another part"}'])
def test_a_manifest_of_something_else_is_never_replaced(tmp_path, content):
    (tmp_path / "m.json").write_text(content)
    for write in (lambda: check_target(tmp_path, "m.json", "part"), lambda: save(tmp_path)):
        with pytest.raises(ValueError, match=r"/m\.json: wanted no such file, or .* got .*another"):
            write()
    assert [path.read_text() for path in tmp_path.iterdir()] == [content]


@pytest.mark.parametrize("when", ["content", "manifest"])
def test_the_next_save_removes_what_a_killed_one_left(tmp_path, when):
    save(tmp_path, b"old")
    other = ("other.json", "part", {"b.bin": lambda f: f.write(b"b")}, {})
    write_folder(tmp_path, *other)
    code = f"""
import os, sys
from cm3_retrieval import sealed_folder
replace = os.replace
def kill(source, target):
    if {when!r} == "manifest":
        replace(source, target)
    if str(target).endswith("m.json"):
        os._exit(9)
    replace(source, target) if {when!r} == "content" else None
os.replace = kill
contents = {{"a.bin": lambda file: file.write(b"new")}}
sealed_folder.write_folder(sys.argv[1], "m.json", "part", contents, {{}})
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    paths = read_folder(tmp_path, "m.json", "part")[1]
    assert paths["a.bin"].read_bytes() == (b"old" if when == "content" else b"new")
    assert len(list(tmp_path.glob("a-*.bin"))) == 2
    write_folder(tmp_path, *other)  # a save under another manifest leaves them alone
    read_folder(tmp_path, "m.json", "part")
    save(tmp_path, b"newest")
    assert len(list(tmp_path.iterdir())) == 4
    read_folder(tmp_path, "other.json", "part")


def test_a_save_may_name_what_it_replaces(tmp_path):
    first = write_folder(tmp_path, "m.json", "part", {}, {"count": 1})
    second = write_folder(tmp_path, "m.json", "part", {}, {"count": 2}, replaces=first)
    with pytest.raises(ValueError, match="wanted the part that was loaded from there, got one"):
        write_folder(tmp_path, "m.json", "part", {}, {"count": 3}, replaces=first)
    assert read_folder(tmp_path, "m.json", "part")[0]["manifest_sha256"] == second
    (tmp_path / "m.json").unlink()
    write_folder(tmp_path, "m.json", "part", {}, {"count": 3}, replaces=first)


@pytest.mark.parametrize("error", [ValueError, RuntimeError, FileNotFoundError])
def test_a_reader_reads_again_when_a_writer_replaced_the_files(tmp_path, error):
    save(tmp_path, b"0")
    seen: list[bytes] = []

    def read(_, paths):
        if len(seen) < 3:
            save(tmp_path, str(len(seen) + 1).encode())  # between the checks and the opening
        seen.append(paths["a.bin"].read_bytes() if paths["a.bin"].exists() else b"gone")
        if seen[-1] == b"gone":
            raise error("gone")
        return seen[-1]

    assert open_folder(tmp_path, "m.json", "part", read) == b"3"
    assert seen == [b"gone"] * 3 + [b"3"]


def test_a_folder_that_nobody_changed_is_read_once(tmp_path):
    save(tmp_path)
    calls: list[int] = []

    def read(*_):
        calls.append(1)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        open_folder(tmp_path, "m.json", "part", read)
    assert len(calls) == 1
