import fcntl
import os
import subprocess
import sys
import threading

import pytest

from cm3_retrieval.folder_lock import LOCK_NAME, locked

COUNTING = """
import sys, time
from pathlib import Path
from cm3_retrieval.folder_lock import locked
folder = Path(sys.argv[1])
for turn in range(200):
    with locked(folder):
        count = int((folder / "count").read_text())
        (folder / "count").write_text(str(count + 1))
"""


def test_no_step_of_three_processes_is_lost(tmp_path):
    (tmp_path / "count").write_text("0")
    jobs = [subprocess.Popen([sys.executable, "-c", COUNTING, str(tmp_path)]) for _ in range(3)]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "600"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]  # no lock is left


def test_a_thread_may_take_it_again_and_another_waits(tmp_path):
    order: list[str] = []

    def other() -> None:
        with locked(tmp_path):
            order.append("other")

    with locked(tmp_path), locked(tmp_path / "." / ""):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "other"] and not list(tmp_path.iterdir())


def test_an_error_ends_the_lock(tmp_path):
    with pytest.raises(RuntimeError, match="inside"), locked(tmp_path):
        raise RuntimeError("inside")
    with locked(tmp_path):
        pass


def test_what_a_killed_writer_left_does_not_keep_others_out(tmp_path):
    code = "import os, sys; from cm3_retrieval.folder_lock import locked\n"
    code += "with locked(sys.argv[1]) as file: file.write('note'); file.flush(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    assert (tmp_path / LOCK_NAME).is_file()
    with locked(tmp_path) as file:
        file.seek(0)
        assert file.read() == "note"
        file.truncate(0)
    assert not list(tmp_path.iterdir())


def test_without_locks_in_the_file_system_the_writer_goes_on(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path):
        assert (tmp_path / LOCK_NAME).is_file()
