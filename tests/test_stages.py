"""Stages: made once, made again when their inputs change, never half there."""

import subprocess
import sys
from pathlib import Path

import pytest
import stages
from stages import Stages


def writer(text, calls):
    def work(folder):
        calls.append(text)
        (folder / "out.txt").write_text(text)

    return work


def test_a_finished_stage_is_kept_and_a_changed_one_is_made_again(tmp_path):
    calls = []
    for config in (1, 1, 2):
        stages = Stages(tmp_path, say=lambda _: None)
        stages.run("a", config, [], writer("a", calls))
        stages.run("b", 0, ["a"], writer("b", calls))
    assert calls == ["a", "b", "a", "b"]


def test_a_failed_stage_leaves_nothing(tmp_path):
    stages = Stages(tmp_path, say=lambda _: None)

    def fails(folder):
        (folder / "half.txt").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        stages.run("a", 0, [], fails)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_an_unfinished_folder_is_started_over_unless_resumable(tmp_path):
    seen = []

    def interrupted(folder):
        seen.append(sorted(path.name for path in folder.iterdir()))
        (folder / "checkpoint").write_text("half way")
        raise KeyboardInterrupt

    for resumable in (False, True):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                Stages(tmp_path, say=lambda _: None).run(
                    f"stage-{resumable}", 0, [], interrupted, resumable=resumable
                )
    assert seen == [["started.json"], ["started.json"]] + [
        ["started.json"],
        ["checkpoint", "started.json"],
    ]


def test_frozen_stages_take_what_is_there_and_make_nothing(tmp_path):
    calls = []
    Stages(tmp_path, say=lambda _: None).run("a", 0, [], writer("a", calls))
    frozen = Stages(tmp_path, say=lambda _: None, frozen=True)
    stage = frozen.run("a", "another config", ["no such stage"], writer("a", calls))
    assert stage.kept and (stage.folder / "out.txt").read_text() == "a" and calls == ["a"]
    with pytest.raises(FileNotFoundError, match="no finished stage"):
        frozen.run("b", 0, [], writer("b", calls))


def test_two_processes_do_not_work_in_one_folder(tmp_path):
    Stages(tmp_path)
    Stages(tmp_path)  # the same process may
    code = "import pathlib, sys; from stages import Stages; Stages(pathlib.Path(sys.argv[1]))"
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={"PYTHONPATH": str(Path(stages.__file__).parent)},
        capture_output=True,
        text=True,
    )
    assert other.returncode == 1
    assert "another run works in this folder" in other.stderr
