"""apps/evaluate.py on the smoke runs: every task, a kill, a comparison, wrong input."""

import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from cm3leon.evaluate_recipe import EvaluateRecipe
from cm3leon.evaluation.comparison import compare
from cm3leon.evaluation.examine import evaluate
from cm3leon.evaluation.tasks.captions import Captions
from cm3leon.evaluation.tasks.drawing import Drawing

TASKS = {
    "reconstruction": {"number": 6},
    "perplexity": {"number": 6},
    "drawing": {"number": 6, "candidates": 2},
    "captions": {"number": 4},
    "captions-of-sets": {"kind": "captions", "of": "sets", "number": 4},
    "questions": {"number": 7},
    "choices": {"number": 4},
    "edits": {"number": 4},
    "boxes": {"number": 4},
}
FIGURES = {
    "reconstruction": {"psnr_db", "ssim", "rclip_fid", "rclip_kid", "codes_used"},
    "perplexity": {"image_perplexity", "text_perplexity"},
    "drawing": {"clip_fid", "clip_kid", "clip_recall", "clip_score", "objects.correct",
                "objects.thing", "objects.colour", "objects.background"},
    "captions": {"cider_d", "rouge_l", "bleu_4"},
    "captions-of-sets": {"cider_d", "rouge_l", "bleu_4"},
    "questions": {"accuracy_official", "accuracy_always_normalised"},
    "choices": {"accuracy", "accuracy_reasoned"},
    "edits": {"clip_direction", "drift", "changed"},
    "boxes": {"iou", "found_30", "placed_30"},
}  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.apps]


def recipe(run, out, tasks=TASKS, **changes):
    return EvaluateRecipe(run=run, out=out, tasks=tasks, device="cpu", batch_size=3, **changes)


@pytest.fixture(scope="module")
def evaluated(smoke_tuned, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated") / "tuned"
    evaluate(recipe(smoke_tuned, out), print)
    return out


def test_every_task_has_its_figures_and_says_what_they_are(evaluated):
    result = json.loads((evaluated / "result.json").read_text())
    assert not result["left_out"]
    for name, wanted in FIGURES.items():
        found = result["tasks"][name]
        assert wanted <= found["figures"].keys(), name
        assert all(np.isfinite(value) for value in found["figures"].values())
        assert found["how"].keys() == found["figures"].keys()
        for figure, (low, high) in found["intervals"].items():
            assert (
                low <= found["figures"][figure] + 1e-9 and found["figures"][figure] - 1e-9 <= high
            )
    parts = [n for n in result["tasks"]["questions"]["figures"] if n.startswith("accuracy_off")]
    assert any(name.startswith("accuracy_official.question.") for name in parts)
    assert any("FID" in line for line in result["tasks"]["drawing"]["without"])
    assert any("LPIPS" in line for line in result["tasks"]["reconstruction"]["without"])
    assert len(list((evaluated / "drawing" / "drawn").glob("*.png"))) == 6
    with Image.open(evaluated / "pictures.png") as picture:
        assert min(picture.size) > 300
    assert "| questions | accuracy_official |" in (evaluated / "table.md").read_text()


def test_a_stopped_evaluation_goes_on_and_writes_the_same_bytes(
    evaluated, smoke_tuned, tmp_path, monkeypatch
):
    make, made = Drawing.make, []

    def interrupted(self, examined, records, first):
        made.append(first)
        if made == [0, 3]:
            raise KeyboardInterrupt
        return make(self, examined, records, first)

    monkeypatch.setattr(Drawing, "make", interrupted)
    again = recipe(smoke_tuned, tmp_path / "tuned")
    with pytest.raises(KeyboardInterrupt):
        evaluate(again, print)
    assert not (tmp_path / "tuned/result.json").exists()
    evaluate(again, print)
    assert made == [0, 3, 3]  # the first chunk was kept
    for name in ("result.json", "table.md", "pictures.png"):
        assert (tmp_path / "tuned" / name).read_bytes() == (evaluated / name).read_bytes()


def test_other_settings_make_their_task_anew_and_no_other(
    evaluated, smoke_tuned, tmp_path, monkeypatch
):
    out = tmp_path / "tuned"
    shutil.copytree(evaluated, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("chunk-*.npz")}
    evaluate(recipe(smoke_tuned, out, TASKS | {"captions": {"number": 5}}), print)
    changed = {
        p.parent.name for p in out.rglob("chunk-*.npz") if before.get(p) != p.stat().st_mtime_ns
    }
    assert changed == {"captions"}


def test_results_are_compared_where_they_asked_the_same(
    evaluated, smoke_run, smoke_tuned, tmp_path
):
    same = compare(evaluated, evaluated, tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text() == same
    rows = [line for line in same.splitlines() if "| drawing | clip_score" in line]
    assert "| +0 | +0 to +0 |" in rows[0]
    one = {"drawing": {"number": 6, "guidance_scale": 3.0}, "captions": {"number": 3}}
    evaluate(recipe(smoke_run, tmp_path / "base", one), print)
    table = compare(evaluated, tmp_path / "base")
    assert "| captions | not compared: other records (4 and 3)" in table
    assert "| drawing | clip_fid |" in table
    with pytest.raises(FileNotFoundError, match="wanted a result of apps/evaluate.py"):
        compare(evaluated, tmp_path / "none")


def test_what_a_run_cannot_do_is_left_out_by_name(smoke_run, tmp_path, app_here):
    config = tmp_path / "tasks.yaml"
    config.write_text(yaml.safe_dump({"tasks": {"questions": {}, "perplexity": {"number": 4}}}))
    out, line = tmp_path / "out", ["--config", str(config), "--run", str(smoke_run)]
    done = app_here("evaluate.py", *line, "--out", str(out), "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "questions: left out: questions: wanted a run that apps/sft.py has tuned" in done.stdout
    assert json.loads((out / "result.json").read_text())["left_out"].keys() == {"questions"}
    config.write_text(yaml.safe_dump({"tasks": {"questions": {}}}))
    done = app_here("evaluate.py", *line, "--out", str(out), "--device", "cpu")
    assert done.returncode == 1 and "tasks: none could be done" in done.stderr


def test_a_folder_of_captioned_pictures_takes_the_place_of_the_runs_own(smoke_run, tmp_path):
    folder, lines = tmp_path / "pictures", []
    folder.mkdir()
    for number, colour in enumerate(("red", "blue", "green", "grey") * 3):
        Image.new("RGB", (40 + number, 30), colour).save(folder / f"{number}.png")
        for text in (f"{colour} thing {number}", f"a thing in {colour} {number}"):
            lines.append(json.dumps({"file_name": f"{number}.png", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    asked = {"folder": folder, "number": 5}
    tasks = {name: asked for name in ("drawing", "reconstruction", "captions")}
    found = evaluate(recipe(smoke_run, tmp_path / "out", tasks), print)["tasks"]
    assert {one["records"] for one in found.values()} == {5}
    assert {"clip_fid", "clip_score"} <= found["drawing"]["figures"].keys()
    assert not any(name.startswith("objects") for name in found["drawing"]["figures"])
    with pytest.raises(ValueError, match="metadata.jsonl: no such file"):
        evaluate(
            recipe(smoke_run, tmp_path / "o", {"captions": {"folder": tmp_path / "no"}}), print
        )


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ({"..": {"kind": "captions"}}, "tasks: wanted names of letters"),
        ({"a/b": {"kind": "captions"}}, "tasks: wanted names of letters"),
        ({"captions": {"number": 0}}, "tasks.captions: number: wanted at least 1"),
        ({"singing": {}}, "tasks.singing: wanted a kind of drawing, "),
        ({"drawing": {"numbr": 3}}, "tasks.drawing: .*numbr"),
        ({"drawing": {"number": 0}}, "tasks.drawing: number, candidates: wanted at least 1"),
        ({"drawing": {"number": "many"}}, "tasks.drawing: "),
        ({"mine": {"kind": "no.such.Task"}}, "tasks.mine: class_path: wanted package.Class"),
    ],
)
def test_wrong_tasks_are_named_before_any_work(smoke_run, tmp_path, tasks, words):
    with pytest.raises(ValueError, match=words):
        evaluate(recipe(smoke_run, tmp_path / "out", tasks), print)
    assert not (tmp_path / "out").exists()


def test_a_damaged_chunk_is_named(smoke_run, tmp_path):
    out, tasks = tmp_path / "out", {"captions": {"number": 4}}
    evaluate(recipe(smoke_run, out, tasks), print)
    chunk = out / "captions" / "chunk-000003.npz"
    chunk.write_bytes(chunk.read_bytes()[:50])
    with pytest.raises(ValueError, match="chunk-000003.npz: wanted"):
        evaluate(recipe(smoke_run, out, tasks), print)


def test_a_picture_that_is_gone_is_made_again(smoke_run, tmp_path):
    out, tasks = tmp_path / "out", {"reconstruction": {"number": 4}}
    evaluate(recipe(smoke_run, out, tasks), print)
    before = (out / "result.json").read_bytes()
    (out / "reconstruction/rebuilt/000001.png").write_bytes(b"")
    (out / "reconstruction/rebuilt/000003.png").unlink()
    evaluate(recipe(smoke_run, out, tasks), print)
    assert (out / "result.json").read_bytes() == before


def test_no_run_is_told_and_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="none/decoder: no finished stage"):
        evaluate(EvaluateRecipe(run=tmp_path / "none", tasks=TASKS), print)
    assert not list(tmp_path.iterdir())


def test_other_files_are_never_removed(smoke_run, tmp_path):
    mine = tmp_path / "captions" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("kept")
    with pytest.raises(ValueError, match="captions: wanted the folder of a task, or none"):
        evaluate(recipe(smoke_run, tmp_path, {"captions": {"number": 2}}), print)
    assert mine.read_text() == "kept"


def test_texts_of_other_scripts_are_kept_as_they_are(tmp_path, smoke_run, monkeypatch):
    said = ["狐 🦊", "", "a\nb ünï", "x" * 200]
    monkeypatch.setattr(
        Captions,
        "make",
        lambda self, e, records, first: {"said": np.array(said[: len(records)], object)},
    )
    result = evaluate(
        EvaluateRecipe(
            run=smoke_run, out=tmp_path, tasks={"captions": {"number": 4}}, device="cpu"
        ),
        print,
    )
    assert result["tasks"]["captions"]["figures"]["exact"] == 0
    with np.load(tmp_path / "captions" / "chunk-000000.npz", allow_pickle=False) as chunk:
        assert chunk["said"].tolist() == said
