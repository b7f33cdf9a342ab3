"""What becomes of records, odd ones too, when apps/prepare.py --task encodes them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from instruction_files import png, write
from prepared_here import SIZE, prepare_here, records

from cm3_imagetok import load_image, square
from cm3_texttok import Task
from cm3leon.data.pairs import DataError
from cm3leon.preparation import example_encoding
from cm3leon.preparation.command import read_options
from cm3leon.preparation.job import TaskPreparation
from cm3leon.preparation.worker import open_tokenizers
from cm3leon.recipe_file import read_recipe


def test_edits_as_parquet_and_in_folders_are_the_same_records(parted, tmp_path):
    rows, listed = [], []
    for n in range(21):
        before, after, name = png(n), png(1000 + n), f"{n:04}"
        prompt = {"input": f"cat {n}", "edit": f"make it {n} dogs", "output": f"dog {n}"}
        write(tmp_path / f"folders/{name}/7_0.jpg", before)
        write(tmp_path / f"folders/{name}/7_1.jpg", after)
        write(tmp_path / f"folders/{name}/prompt.json", prompt)
        listed.append([name, [7]])
        rows.append({"original_prompt": prompt["input"], "edit_prompt": prompt["edit"],
                     "edited_prompt": prompt["output"],
                     "original_image": {"bytes": before, "path": None},
                     "edited_image": {"bytes": after, "path": "1.jpg"}})  # fmt: skip
    rows[4]["edited_image"] = {"bytes": None, "path": None}
    write(tmp_path / "folders/seeds.json", listed)
    (tmp_path / "parquet").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "parquet/0.parquet", row_group_size=9)

    def made(form: str) -> dict:
        report = prepare_here(parted, "edit", tmp_path / form, tmp_path / f"{form}-set")
        assert report["records"] == 21 and report["quarantined"] == (form == "parquet")
        found = [one for own in records(tmp_path / f"{form}-set").values() for one in own]
        return {
            one.texts["instruction"]: (
                one.facts, one.codes["source"].tolist(), one.codes["image"].tolist(),
            )
            for one in found
        }  # fmt: skip

    folders, parquet = made("folders"), made("parquet")
    del folders["make it 4 dogs"]
    assert folders == parquet


def test_feature_pictures_are_made_of_the_fitted_pixels(parted, tmp_path, monkeypatch):
    write(tmp_path / "data/0.png", png(0))
    rows = [{"file_name": "0.png", "text": text, "split": "train"} for text in ("a", "b")]
    write(tmp_path / "data/metadata.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(RuntimeError, match="--feature-weights: wanted a folder.*; got none"):
        prepare_here(parted, "depth", tmp_path / "data", tmp_path / "none")
    opened = []

    def open_feature(name, weights, device):
        opened.append((name, weights, device))
        return lambda pixels: 255 - pixels

    monkeypatch.setattr(example_encoding, "open_feature", open_feature)
    weights = tmp_path / "weights"
    write(weights / "config.json", {})
    given = {"source": tmp_path / "data", "folder": tmp_path / "set", "feature_weights": weights}
    report = prepare_here(parted, "depth", **given)
    assert report["splits"] == {"train": 2} and opened == [("depth", weights, "cpu")]
    write(weights / "config.json", {"other": 1})
    with pytest.raises(ValueError, match="made from another task, settings, parts or files"):
        prepare_here(parted, "depth", **given)
    pixels = np.asarray(square(load_image(tmp_path / "data/0.png"), SIZE))
    codes = open_tokenizers(read_recipe(parted), trust=False).encode(
        np.stack([255 - pixels, pixels])
    )
    for one in records(tmp_path / "set")["train"]:
        assert np.array_equal([one.codes["feature"], one.codes["image"]], codes)


def vizwiz(folder: Path) -> Path:
    """Records of which each but three has something odd."""
    names = [f"VizWiz_{split}_{n:08}.jpg" for split in ("train", "test") for n in range(8)]
    for n, name in enumerate(names[:-1]):
        write(folder / name, png(n))

    def row(n, question, *answers):
        return {"image": names[n], "question": question,
                "answers": [{"answer": answer} for answer in answers]}  # fmt: skip

    write(folder / "train.json", [
        row(0, "What is this?", "犬", "犬", "dog"),
        row(1, "What is this?", "unanswerable"),
        row(2, "", "dog"),
        row(3, "What is this?", "", " "),
        row(4, "half \ud83d", "dog"),
        row(5, "long " * 400, "dog"),
        row(6, "What is this?", "dog", "\udc00"),
        row(0, "What is this again?", "dog"),
    ])  # fmt: skip
    write(folder / "test.json", [{"image": names[8], "question": "Who?"},
                                 {"image": names[15], "question": "Who?"}])  # fmt: skip
    return folder


def test_odd_records_are_counted_by_their_reasons(parted, tmp_path):
    report = prepare_here(parted, "vizwiz", vizwiz(tmp_path / "data"), tmp_path / "set")
    found = records(tmp_path / "set")
    assert sorted(one.texts["answer"] for one in found["train"]) == ["unanswerable", "犬"]
    (unanswered,) = found["test"]  # the test's answers are not published
    assert unanswered.texts == {"question": "Who?"}
    assert report["skipped"] == {"no answer but empty ones": 1}
    assert (report["records"], report["quarantined"]) == (10, 6)
    assert report["quarantined_too_long"] == 1
    for words in ("question: wanted a text, got an empty one", "question: wanted Unicode",
                  "facts, source or licence: wanted Unicode", "sequence of at most 400 ids",
                  "got this one again",
                  "VizWiz_test_00000007.jpg, got no such file"):  # fmt: skip
        assert [words in reason for reason in report["quarantine_reasons"]].count(True) == 1, words


def test_a_rotten_set_is_stopped_and_other_licences_are_left_out(parted, tmp_path):
    with pytest.raises(DataError, match=r"max-bad: wanted at most 5.00% unusable records, got"):
        prepare_here(parted, "vizwiz", vizwiz(tmp_path / "data"), tmp_path / "a", max_bad=0.05)
    assert (tmp_path / "a/quarantine.jsonl").read_text().count("\n") >= 1
    rows = [{"file_name": "0.png", "text": str(n), "split": "test", "licence": licence}
            for n, licence in enumerate(("CC0", "cc0", "no", ""))]  # fmt: skip
    write(tmp_path / "b/0.png", png(0))
    write(tmp_path / "b/metadata.jsonl", "\n".join(map(json.dumps, rows)))
    report = prepare_here(parted, "write", tmp_path / "b", tmp_path / "c", licences=("cc0",))
    assert report["splits"] == {"test": 2} and report["licences"] == {"CC0": 1, "cc0": 1}
    assert report["left_out_by_licence"] == {"no": 1, "": 1}


def test_a_task_of_ones_own_with_two_pictures(parted, tmp_path):
    task = Task(
        name="compare", templates=("[left] <break> {answer} <break> [right]",), outputs=("answer",)
    )
    for n in range(3):
        write(tmp_path / f"data/{n}.png", png(n))
    rows = [{"left_file_name": "0.png", "right_file_name": f"{n}.png", "answer": str(n),
             "split": "validation", "grade": n} for n in (1, 2)]  # fmt: skip
    rows += [{**rows[0], "answer": " "}, {"left_file_name": "0.png", "answer": "x"}]
    write(tmp_path / "data/metadata.jsonl", "\n".join(map(json.dumps, rows)))
    report = prepare_here(parted, task, tmp_path / "data", tmp_path / "set")
    assert report["splits"] == {"validation": 2} and report["quarantined"] == 2
    assert any(
        "compare: wanted all fields, got no answer" in r for r in report["quarantine_reasons"]
    )
    found = records(tmp_path / "set")["validation"]
    assert np.array_equal(found[0].codes["left"], found[1].codes["left"])
    assert {one.texts["answer"]: one.facts for one in found} == {
        "1": {"grade": 1}, "2": {"grade": 2},
    }  # fmt: skip
    assert not np.array_equal(found[0].codes["right"], found[1].codes["right"])


def test_options_of_a_task(tmp_path, capsys, root):
    smoke = ["--config", str(root / "apps/configs/smoke.yaml"), "--folder", "b"]
    _, options, sample = read_options(
        "", [*smoke, "--task", "vqa2", "--from", "a", "--images", "c", "--fit", "pad"]
    )
    assert isinstance(options, TaskPreparation) and sample is None
    assert (options.task.name, options.source, options.images) == ("vqa2", Path("a"), Path("c"))
    assert options.fit == "pad" and options.max_bad == 0.01
    own = tmp_path / "own.yaml"
    write(own, "{name: own, templates: ['{a} <break> [image]'], outputs: [a]}")
    _, options, _ = read_options("", [*smoke, "--task-file", str(own), "--from", "a"])
    assert isinstance(options, TaskPreparation) and options.task.name == "own"
    for more, words in (
        (["--task", "vqa3", "--from", "a"], "--task: wanted one of edit, write, boxes"),
        (["--task", "vqa2"], "--from: wanted a folder, got none"),
        (["--task", "vqa2", "--from", "a", "--source", "a"], "--source: wanted only without"),
        (["--task", "vqa2", "--from", "a", "--near-bits", "3"], "--near-bits: wanted only without"),
        (["--task", "vqa2", "--from", "a", "--near-bits", "0"], "--near-bits: wanted only without"),
        (["--source", "a", "--feature-weights", "a"], "--feature-weights: wanted only with --task"),
        (["--source", "a", "--images", "a"], "--images: wanted only with --task"),
        (["--task", "vqa2", "--task-file", str(own), "--from", "a"], "without --task, got both"),
        (["--task-file", str(tmp_path / "none.yaml"), "--from", "a"], "none.yaml"),
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            read_options("", [*smoke, *more])
        assert words in capsys.readouterr().err


def test_parts_that_are_missing_are_named(parted, tmp_path):
    write(tmp_path / "data/train.json", [])
    with pytest.raises(DataError, match="data: wanted at least one record, got none"):
        prepare_here(parted, "vizwiz", tmp_path / "data", tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="parts: wanted a run to take texttok from"):
        prepare_here(parted, "vizwiz", tmp_path / "data", tmp_path / "b", parts=None)
    with pytest.raises(FileNotFoundError, match="no finished stage"):
        prepare_here(parted, "vizwiz", tmp_path / "data", tmp_path / "c", parts=tmp_path)
