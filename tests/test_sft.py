"""apps/sft.py on the smoke run: it ends, is kept, survives a kill, and refuses wrong input."""

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import warm
from PIL import Image

from cm3_model import load_decoder
from cm3_train import InstructionConfig, LoraConfig, Mixture, OptimConfig
from cm3leon import tuning
from cm3leon.evaluation.subject import open_subject
from cm3leon.instructions.sets import InstructionSet
from cm3leon.parts import open_parts
from cm3leon.recipe_file import read_tuning
from cm3leon.training.tuning import Instructions, instruction_builder
from cm3leon.tuned import open_tuned

SMOKE = ["--config", "apps/configs/sft-smoke.yaml", "--device", "cpu"]


def command(root, base, runs, *arguments):
    app = [sys.executable, str(root / "apps/sft.py"), *SMOKE]
    return [*app, "--base", str(base), "--runs", str(runs), *arguments]


def sft(root, base, runs, *arguments):
    line = command(root, base, runs, *arguments)
    return warm.run(line, cwd=root)


@pytest.fixture
def generate(app_here):
    """`generate(run, *arguments)`: runs the app on a run, on the CPU."""
    options = ["--device", "cpu"]
    return lambda run, *arguments: app_here("generate.py", "--run", str(run), *options, *arguments)


def digest(run: Path) -> str:
    return hashlib.sha256((run / "decoder/model/model.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def tuned(smoke_tuned) -> Path:
    """A finished tuning that nobody disturbed."""
    return smoke_tuned


@pytest.mark.slow
@pytest.mark.apps
def test_a_tuning_leaves_a_run_a_report_and_a_sheet(tuned, smoke_run):
    with Image.open(tuned / "samples.png") as picture:
        assert min(picture.size) > 300
    report = json.loads((tuned / "report.json").read_text())
    wanted = {
        "edit": ("colour", "background", "keep", "kept_shape_iou", "drift", "keep_drift"),
        "boxes": ("iou30",), "write": ("character",), "canny": ("over_shuffled",),
        "scribble": ("iou",), "segmentation": ("iou",), "choice": ("answer", "reason"),
        "ask": ("thing", "colour", "background", "number", "beside", "yes_no"),
        "caption": ("short", "long"),
    }  # fmt: skip
    for part, names in wanted.items():
        for name in names:
            for other in ("", ".untuned", ".chance", ".ceiling"):
                assert np.isfinite(report[part][f"{name}{other}"])
            assert f"{part}.{name}" in report["how"]
    assert report["ask"]["colour.ceiling"] == report["choice"]["answer.ceiling"] == 1
    assert report["edit"]["keep_drift.ceiling"] == 0
    objective = report["objective"]
    assert 0 < objective["no_input_share"] < objective["no_text_share"] < 0.4
    assert 0.1 < objective["outputs_cut_share"] < objective["documents_share"] + 0.2 < 0.8
    assert 0 < objective["replayed_share"] < 0.4
    # the tuned run opens as any other; all but its decoder is the base's
    parts = open_parts(tuned, "cpu")
    base = open_parts(smoke_run, "cpu")
    assert parts.tokenizers.vocabulary == base.tokenizers.vocabulary
    assert set(open_tuned(tuned).tasks) == set(read_tuning(tuned).embedded.numbers)


@pytest.mark.slow
def test_a_second_tuning_keeps_what_is_done(root, tuned, smoke_run):
    before = digest(tuned)
    again = sft(root, smoke_run, tuned.parent)
    assert again.returncode == 0, again.stderr
    assert "decoder: done before, kept" in again.stdout
    assert digest(tuned) == before


@pytest.mark.slow
def test_killed_it_ends_bit_for_bit_as_unbroken(root, tuned, smoke_run, tmp_path):
    run = tmp_path / "smoke-sft"
    shutil.copytree(tuned, run, ignore=shutil.ignore_patterns("decoder", "report", "report.json"))
    process = warm.Popen(
        command(root, smoke_run, tmp_path), cwd=root
    )  # fmt: skip
    while not (run / "decoder" / "last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "decoder" / "stage.json").exists()
    done = sft(root, smoke_run, tmp_path, "--evaluation.untuned", "false")
    assert done.returncode == 0, done.stderr
    assert "decoder: goes on" in done.stdout
    assert digest(run) == digest(tuned)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--edit FILE --instruction|make it blue", "wrote"),
        ("--structure canny FILE --prompt|red fox", "wrote"),
        ("--boxes|fox 10,10,120,120; red apple 130,90,250,250", "wrote"),
        ("--write K", "wrote"),
        ("--ask FILE|what is it?", ""),
        ("--caption FILE --long", ""),
    ],
)
def test_generate_follows_instructions(generate, tuned, smoke_run, tmp_path, arguments, said):
    file = str(next((smoke_run / "data" / "pictures").glob("*.png")))
    words, _, last = arguments.partition("|")
    options = [file if word == "FILE" else word for word in words.split()]
    options += [last] if last else []
    drawn = [] if "--ask" in options or "--long" in options else ["--candidates", "2"]
    drawn += ["--out", str(tmp_path / "a.png"), "--best", str(tmp_path / "b.png")] if drawn else []
    done = generate(tuned, *options, *drawn)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert (tmp_path / "a.png").is_file() == (tmp_path / "b.png").is_file() == bool(drawn)
    if drawn:
        with Image.open(tmp_path / "b.png") as one, Image.open(file) as picture:
            assert one.size == picture.size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base", "runs/nothing"], "runs/nothing: no run"),
        (["--sets", "[sets/nothing]"], "sets/nothing"),
        (["--objective.cut_output", "2"], "cut_output: wanted 0..1"),
        (["--embedded.edit", "-1"], "embedded.edit: wanted at least 0"),
        (["--replay", "1"], "replay: wanted 0 to below 1"),
        (["--name", "smoke"], "wanted another folder than the base"),
    ],
)
def test_wrong_input_is_told_in_one_line(app_here, smoke_run, tmp_path, arguments, message):
    runs = smoke_run.parent if "--name" in arguments else tmp_path
    options = [*SMOKE, "--base", str(smoke_run), "--runs", str(runs)]
    done = app_here("sft.py", *options, *arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_untuned_run_is_asked_in_vain(generate, smoke_run):
    done = generate(smoke_run, "--write", "K")
    assert done.returncode == 1
    assert "wanted a run that apps/sft.py has tuned" in done.stderr


@pytest.mark.slow
def test_a_tuned_run_whose_base_was_made_anew_says_so(tuned, smoke_run, tmp_path):
    base, run = tmp_path / "smoke", tmp_path / "smoke-sft"
    shutil.copytree(smoke_run, base)
    shutil.copytree(tuned, run)
    path = run / "decoder" / "recipe.yaml"
    path.write_text(path.read_text().replace(str(smoke_run), str(base)))
    open_parts(run, "cpu")
    stage = base / "decoder" / "stage.json"
    stage.write_text(stage.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    with pytest.raises(ValueError, match="tuned from another"):
        open_parts(run, "cpu")


@pytest.mark.slow
def test_records_become_sequences_with_documents_before_words(tuned, smoke_run):
    parts = open_subject(smoke_run, "cpu").parts
    words = parts.tokenizers.vocabulary
    sets = [InstructionSet(tuned / "instructions" / name, "train") for name in ("edit", "vqa2")]
    layout = tuning.InstructionLayout(parts.tokenizers.text, words)
    mixture = Mixture([len(one) for one in sets])
    documents = parts.memory.documents
    train = Instructions(sets, layout, mixture, documents, 1.0, 320)
    build = instruction_builder(train, InstructionConfig(), parts.tokenizers, 320, 0)
    behind = 0
    for place in range(len(train)):
        number, row = mixture.at(place, 0)
        record = sets[number].record(int(sets[number].keys[row]))
        one = train.lay_out(place, 0, np.random.default_rng(0))
        assert len(build(place, 0).ids) <= 320
        behind += one.start > 1
        assert (one.start > 1) == bool(record.near) == (number == 1)
        if record.near:
            document = parts.tokenizers.layout.opening(
                [(documents.text_ids(record.near[-1]), documents.codes(record.near[-1]))]
            )
            assert one.ids[: one.start].tolist() == document.tolist()
    assert behind


@pytest.mark.slow
def test_adapters_alone_can_be_tuned_on_given_sets_and_are_merged(tuned, smoke_run, tmp_path):
    recipe = replace(
        read_tuning(tuned), runs=tmp_path, base=smoke_run, lora=LoraConfig(rank=2),
        optim=OptimConfig(lr=0.01, total_steps=3), replay=0.0,
        sets=(tuned / "instructions" / "edit", tuned / "instructions" / "vqa2"),
    )  # fmt: skip
    shutil.copytree(tuned, recipe.folder, ignore=shutil.ignore_patterns("decoder", "report"))
    assert tuning.make_tuned(tuning.begin(recipe)) == list(recipe.sets)
    assert set(open_tuned(recipe.folder).tasks) == {"edit", "vqa2"}
    after = load_decoder(recipe.folder / "decoder/model").state_dict()
    before = load_decoder(smoke_run / "decoder/model").state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert all(name.endswith(".weight") and ".blocks." in f".{name}" for name in changed)
