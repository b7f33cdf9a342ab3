"""Readers of edits and of imagefolders; which files are read, and what is told of broken ones."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from instruction_files import (
    IMAGES,
    SAID,
    coco,
    pictures,
    read,
    seen,
    write,
)

from cm3_texttok import PAPER_TASKS
from cm3leon.instructions.readers.forms import FORMS
from cm3leon.instructions.task_file import read_task_file


def edits(folder: Path, count: int = 20) -> None:
    """InstructPix2Pix's folders."""
    listed = []
    for n in range(count):
        place = folder / f"{n:07}"
        seeds = [7 * n + 1, 7 * n + 2]
        for seed in seeds:
            pictures(place, f"{seed}_0.jpg", f"{seed}_1.jpg")
        key = "input" if n % 2 else "caption"
        prompt = {key: f"a cat {n}", "edit": f"make it a dog {n}", "output": f"a dog {n}"}
        write(place / "prompt.json", prompt)
        write(place / "metadata.jsonl", '{"seed": 1, "clip_sim_dir": 0.3}\n')
        listed.append([place.name, seeds])
    write(folder / "seeds.json", listed)


def test_edits_in_folders_and_as_parquet_are_the_same(tmp_path):
    edits(tmp_path / "folders")
    found, bad, _ = read("edit", tmp_path / "folders")
    assert not bad and [one.split for one in found] == (
        ["train"] * 36 + ["validation"] * 2 + ["test"] * 2
    )
    assert found[2].facts == {"input": "a cat 1", "output": "a dog 1"}

    rows = [
        {"original_prompt": one.facts["input"], "edit_prompt": one.texts["instruction"],
         "edited_prompt": one.facts["output"],
         "original_image": {"bytes": one.pictures["source"](), "path": None},
         "edited_image": {"bytes": one.pictures["image"](), "path": "a.jpg"}}
        for one in found
    ]  # fmt: skip
    (tmp_path / "parquet/data").mkdir(parents=True)
    for part in range(2):
        pq.write_table(pa.Table.from_pylist(rows[part * 20 : part * 20 + 20]),
                       tmp_path / f"parquet/data/train-0000{part}-of-00002.parquet",
                       row_group_size=7)  # fmt: skip
    others, bad, _ = read("edit", tmp_path / "parquet")
    assert not bad
    for one, other in zip(found, others, strict=True):
        assert (one.texts, one.facts, seen(one)) == (other.texts, other.facts, seen(other))
    assert [seen(one) for one in reversed(others)] == [seen(one) for one in reversed(found)]


def test_broken_edits(tmp_path):
    edits(tmp_path / "a", 4)
    (tmp_path / "a/0000000/1_1.jpg").unlink()
    write(tmp_path / "a/0000001/prompt.json", "{")
    write(tmp_path / "a/0000002/prompt.json", {"input": "a", "edit": "", "output": "b"})
    listed = json.loads((tmp_path / "a/seeds.json").read_text())
    listed += [["../out", [1]], ["none", [1]], ["empty", []], ["0000003", ["1"]], "no pair"]
    write(tmp_path / "a/seeds.json", listed)
    found, bad, _ = read("edit", tmp_path / "a")
    assert [one.name for one in found] == ["0000000/2", "0000003/22", "0000003/23"]
    assert [line.key for line in bad] == [
        "0000000/1", "entry 2", "0000002/15", "0000002/16", "entry 5", "entry 6", "entry 8",
        "entry 9",
    ]  # fmt: skip
    (tmp_path / "b").mkdir()
    write(tmp_path / "b/0.parquet", "no Parquet")
    with pytest.raises(ValueError, match=r"0\.parquet: wanted a Parquet file"):
        read("edit", tmp_path / "b")
    pq.write_table(pa.table({"edit_prompt": ["a"]}), tmp_path / "b/0.parquet")
    with pytest.raises(ValueError, match=r"0\.parquet: wanted the columns \['edited_image'"):
        read("edit", tmp_path / "b")
    row = dict.fromkeys(("original_prompt", "edit_prompt", "edited_prompt"), "a")
    empty = dict.fromkeys(("original_image", "edited_image"), {"bytes": None, "path": "a.jpg"})
    pq.write_table(pa.Table.from_pylist([{**row, **empty}]), tmp_path / "b/0.parquet")
    (found,), _, _ = read("edit", tmp_path / "b")
    with pytest.raises(ValueError, match="original_image: wanted the bytes of a picture"):
        found.pictures["source"]()


OWN = """
name: compare
templates:
- '[left] <break> [right] <break> {question} <break> {answer}'
outputs: [answer]
"""


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_task_of_ones_own_in_an_imagefolder(tmp_path, kind):
    task = read_task_file(write(tmp_path / "task.yaml", OWN))
    assert (task.name, task.outputs) == ("compare", ("answer",))
    folder = tmp_path / "data"
    pictures(folder / "sub", "1.png", "2.png")
    rows = [{"left_file_name": "1.png", "right_file_name": f"{n}.png", "question": f"{n}?",
             "answer": "NA", "split": "test", "hard": "yes"} for n in (2, 3)]  # fmt: skip
    place = folder / f"sub/metadata.{kind}"
    if kind == "jsonl":
        write(place, "\n".join(map(json.dumps, rows)))
    elif kind == "csv":
        with open(place, "w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), place)
    (found,), (bad,), _ = read(task, folder)
    assert found.texts == {"question": "2?", "answer": "NA"} and found.facts == {"hard": "yes"}
    assert seen(found) == {"left": "picture 1.png", "right": "picture 2.png"}
    assert found.split == "test" and "wanted the picture sub/3.png" in bad.reason


def test_edits_may_be_an_imagefolder_in_parquet(tmp_path):
    pictures(tmp_path, "1.png", "2.png")
    row = {"source_file_name": "1.png", "image_file_name": "2.png", "instruction": "turn it"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "metadata.parquet")
    (found,), bad, _ = read("edit", tmp_path)
    assert found.texts == {"instruction": "turn it"} and not bad
    assert seen(found) == {"source": "picture 1.png", "image": "picture 2.png"}


def test_what_is_written_captioned_or_boxed_in_an_imagefolder(tmp_path):
    pictures(tmp_path, "1.png")
    objects = {"bbox": [[1, 2, 3, 4], [0, 0, 0, 1]], "categories": ["dog", "cat"]}
    rows = [{"file_name": "1.png", "text": "Café", "objects": objects, "license": "CC0"}]
    write(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    (found,), bad, _ = read("write", tmp_path)
    assert found.texts == {"text": "Café"} and found.licence == "CC0" and not bad
    assert read("depth", tmp_path)[0][0].texts == {"caption": "Café"}
    (found,), _, _ = read("boxes", tmp_path)
    assert found.boxes == (("dog", (1, 2, 4, 6)),)
    wrong = [{"text": 5}, {"split": "dev"}, {"file_name": "../1.png"},
             {"objects": {"bbox": [[1, 2, 3, 4]], "categories": []}}, {"objects": 3}]  # fmt: skip
    lines = [json.dumps({**rows[0], **row}) for row in wrong]
    write(tmp_path / "metadata.jsonl", "\n".join([*lines, "{"]))
    found, bad, _ = read("write", tmp_path)
    assert not found and [line.key for line in bad] == [f"line {n}" for n in range(1, 7)]


@pytest.mark.parametrize("task", [name for name in PAPER_TASKS if name in FORMS])
def test_a_broken_annotation_file_is_named(tmp_path, task):
    """All that are read whole; those read line by line have a test of their own."""
    for form in FORMS[task]:
        name = form.files[0].replace("*", "train")
        if name.endswith(".json"):
            for content, words in (("{", "wanted JSON"), ("3", "wanted (an object|a list)"),
                                   ("[" * 100_000, "wanted JSON")):  # fmt: skip
                folder = tmp_path / name / words[:12] / str(len(content))
                write(folder / name, content)
                if task in ("vqa2", "okvqa"):
                    beside = name.replace("OpenEnded_", "").replace("questions", "annotations")
                    write(folder / beside, {"annotations": []})
                if task == "image_paragraph":
                    for split in ("train", "val", "test"):
                        write(folder / f"{split}_split.json", [])
                with pytest.raises(ValueError, match=rf"{name}: {words}"):
                    read(task, folder)


def test_a_folder_of_no_form_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="wanted for vqa2 v2_OpenEnded.* metadata.jsonl"):
        read("vqa2", tmp_path)
    with pytest.raises(FileNotFoundError, match="none: wanted a folder"):
        read("vqa2", tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="images: wanted a folder"):
        read("vqa2", tmp_path, tmp_path / "images")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name: [", "got no YAML"), ("- a", r"got \['a'\]"), ("name: a", "got {'name': 'a'}"),
        ("{name: a, templates: '{a}'}", "lists of texts"),
        ("{name: a, templates: ['{a}'], more: 1}", "wanted the keys"),
        ("{name: A, templates: ['{a} [image]']}", "task.yaml: task: wanted a name of small"),
        ("!!python/object:os.system {}", "got no YAML"), ("[" * 5000, "got no YAML"),
    ],
)  # fmt: skip
def test_a_file_without_a_task_is_named(tmp_path, content, words):
    with pytest.raises(ValueError, match=words):
        read_task_file(write(tmp_path / "task.yaml", content))


def test_pictures_may_lie_elsewhere_and_nothing_is_followed_out_of_their_folder(tmp_path):
    pictures(tmp_path / "pictures/deep", "000000000009.jpg")
    pictures(tmp_path, "secret.jpg")
    names = ("/secret.jpg", "..\\secret.jpg", "file:///secret.jpg", "C:\\secret.jpg")
    for name in names:
        image = {**IMAGES[1], "file_name": name}
        coco(tmp_path / "coco", SAID, images=[IMAGES[0], image])
        found, bad, _ = read("coco_caption", tmp_path / "coco", tmp_path / "pictures")
        assert [one.facts["image_id"] for one in found] == [9]
        assert ["wanted a path inside" in line.reason for line in bad] == [True]
