"""Stages: made once, made again when their inputs change, never half there."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest

from cm3leon import VERSION
from cm3leon.parts import habits_of
from cm3leon.recipe import EvaluationRecipe
from cm3leon.stages import Stages, check_finished, fingerprint_of, read_object


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


def test_settings_come_and_go_with_what_was_made_by_them(tmp_path):
    def run(config, text, work):
        stages, settings = Stages(tmp_path, say=lambda _: None), {"recipe.yaml": text}
        stages.run("a", config, [], work, resumable=True, settings=settings)

    def killed(folder):
        raise KeyboardInterrupt

    path = tmp_path / "a" / "recipe.yaml"
    run(1, b"1", lambda folder: None)
    assert path.read_bytes() == b"1"
    run(1, b"another report", lambda folder: None)  # what was made is kept
    assert path.read_bytes() == b"another report"
    with pytest.raises(KeyboardInterrupt):
        run(2, b"2", killed)
    assert not path.exists() and not (tmp_path / "a" / "stage.json").exists()


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


def test_a_finished_run_is_known_by_its_chain_of_stages(tmp_path):
    calls = []
    stages = Stages(tmp_path, say=lambda _: None)
    stages.given("part", "published weights")
    stages.run("a", 0, ["part"], writer("a", calls))
    stages.run("b", 0, ["a"], writer("b", calls))
    check_finished(tmp_path, "b")
    with pytest.raises(FileNotFoundError, match="c: no finished stage"):
        check_finished(tmp_path, "c")
    Stages(tmp_path, say=lambda _: None).run("a", 1, [], writer("a", calls))
    with pytest.raises(ValueError, match="b: made from another a than the run now holds"):
        check_finished(tmp_path, "b")


def test_a_given_part_counts_as_an_input(tmp_path):
    calls = []
    for weights in ("one", "one", "other"):
        stages = Stages(tmp_path, say=lambda _: None)
        stages.given("part", weights)
        stages.run("a", 0, ["part"], writer("a", calls))
    assert calls == ["a", "a"]


def test_another_version_is_named(tmp_path):
    Stages(tmp_path, say=lambda _: None).run("a", 0, [], writer("a", []))
    facts = json.loads((tmp_path / "a" / "stage.json").read_text())
    for version, named in (("9.9", "9.9"), (None, "0.1")):
        changed = facts | {"version": version}
        if version is None:
            del changed["version"]
        (tmp_path / "a" / "stage.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=f"made by cm3leon {named}, this is "):
            check_finished(tmp_path, "a")


def test_a_knob_at_its_default_is_no_part_of_the_fingerprint():
    @dataclass(frozen=True)
    class Old:
        steps: int
        size: int = 3

    @dataclass(frozen=True)
    class New(Old):
        colours: tuple[int, ...] = (1, 2)

    assert fingerprint_of(Old(5)) == fingerprint_of(New(5)) == fingerprint_of(New(5, 3, (1, 2)))
    assert fingerprint_of(New(5)) != fingerprint_of(New(5, colours=(1, 3)))
    assert fingerprint_of(Old(5)) != fingerprint_of(Old(6))
    with pytest.raises(TypeError, match="wanted plain values"):
        fingerprint_of([object()])


def test_a_forked_worker_does_not_hold_the_folder(tmp_path):
    """It may outlive a killed run for a moment; the same command must go on at once."""
    code = """import os, pathlib, sys, time
from cm3leon.stages import Stages
Stages(pathlib.Path(sys.argv[1]))
os.fork()
os.write(1, b"begun\\n")
time.sleep(60)"""
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert run.stdout is not None
    try:
        assert [run.stdout.readline() for _ in range(2)] == [b"begun\n"] * 2
        with pytest.raises(BlockingIOError, match="another run works"):
            Stages(tmp_path)
        run.kill()
        run.wait()
        Stages(tmp_path)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.stdout.close()


def test_two_processes_do_not_work_in_one_folder(tmp_path):
    Stages(tmp_path)
    Stages(tmp_path)  # the same process may
    code = """import pathlib, sys
from cm3leon.stages import Stages
Stages(pathlib.Path(sys.argv[1]))"""
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert other.returncode == 1
    assert "another run works in this folder" in other.stderr


@pytest.mark.parametrize(
    "text",
    ["", "[", "[" * 100_000, '{"a":' * 100_000, "[1]", "3", "{}", '{"fingerprint": "x"}', "\xff"],
)
def test_a_damaged_stage_is_no_finished_one(tmp_path, text):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "stage.json").write_bytes(text.encode("latin-1"))
    with pytest.raises((FileNotFoundError, ValueError), match="part: no finished stage|made by"):
        check_finished(tmp_path, "part")


@pytest.mark.parametrize("inputs", [None, [], "data"])
def test_a_stage_without_inputs_is_named(tmp_path, inputs):
    (tmp_path / "part").mkdir()
    facts = {"fingerprint": "x", "version": VERSION, "inputs": inputs}
    (tmp_path / "part" / "stage.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="stage.json: wanted a finished stage, got no inputs"):
        check_finished(tmp_path, "part")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "wanted JSON, got brackets in too many brackets"),
        ("", "wanted JSON"),
        ("[]", "wanted an object, got list"),
        ("{}", "wanted 'left_out', got"),
        ("\xff\xff", "wanted JSON"),
    ],
)
def test_a_damaged_file_of_a_stage_is_named(tmp_path, text, message):
    path = tmp_path / "captions.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=f"captions.json: {message}"):
        read_object(path, "left_out")


@pytest.mark.parametrize("text", ["{}", '{"samples": 3}', '{"samples": {}}', "[" * 100_000])
def test_a_damaged_report_is_named(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ValueError, match="report.json: wanted"):
        habits_of(EvaluationRecipe(), tmp_path)
