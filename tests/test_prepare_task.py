"""apps/prepare.py --task as its users run it, and what becomes of odd records on the way."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cm3_imagetok import load_image, square
from cm3_texttok import PAPER_TASKS, Task
from cm3leon.data.pairs import DataError, key_of
from cm3leon.instructions.sets import SPLITS, InstructionSet
from cm3leon.job import start
from cm3leon.preparation import example_encoding, examples, task_driver
from cm3leon.preparation.command import read_options
from cm3leon.preparation.job import TaskPreparation
from cm3leon.preparation.task_driver import prepare_task
from cm3leon.preparation.worker import open_tokenizers
from cm3leon.recipe_file import read_command, read_recipe, save_recipe
from cm3leon.tokenizer_stages import make_tokenizers

SIZE = 32
"""Side of the pictures of the smoke recipe."""
COUNT = 40


def png(seed: int, size=(60, 40)) -> bytes:
    small = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.NEAREST).save(file, "png")
    return file.getvalue()


def write(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    path.write_bytes(content)


@pytest.fixture(scope="module")
def parted(root, tmp_path_factory) -> Path:
    """A run that has made its tokenizers."""
    base = tmp_path_factory.mktemp("parted")
    rows = []
    for n in range(12):
        split = ("train", "validation", "test")[max(0, n - 9)]
        write(base / f"data/{n}.png", png(n))
        rows.append({"file_name": f"{n}.png", "text": f"a dog and a cat {n}", "split": split})
    write(base / "data/metadata.jsonl", "\n".join(map(json.dumps, rows)))
    recipe = read_command(
        None, root / "apps/configs/smoke.yaml",
        ["--config", str(root / "apps/configs/smoke.yaml"), "--device", "cpu",
         "--data.folder", str(base / "data"), "--runs", str(base), "--decoder.max_length", "400",
         "--texttok.vocab_size", "300"],
    )  # fmt: skip
    job = start(recipe)
    save_recipe(job.recipe, recipe.folder)
    make_tokenizers(job)
    return recipe.folder


class Inline:
    """An engine that works in this process."""

    def __init__(self, job):
        self.worker = job.worker_class()(job)

    def run(self, task, shards, finished):
        for number, shard in shards.items():
            self.worker.run(task, number, shard)
            finished(number)


def prepare_here(parted, task, source, folder, *, length=400, **options):
    """Prepare a task in this process, few examples a range; gives the report."""
    task = PAPER_TASKS[task] if isinstance(task, str) else task
    recipe = read_recipe(parted)
    recipe = replace(recipe, decoder=replace(recipe.decoder, max_length=length))
    given = {"max_bad": 1.0, "parts": parted, **options}
    options = TaskPreparation(task=task, source=source, folder=folder, **given)

    @contextmanager
    def working(job):
        yield Inline(job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_driver, "working", working)
        patch.setattr(task_driver, "lock_folder", lambda folder: None)  # would stay open
        patch.setattr(examples, "ROWS", 8)
        return prepare_task(recipe, options, lambda line: None)


def records(folder: Path) -> dict[str, list]:
    """All records by split."""
    found = {}
    for split in SPLITS:
        if (folder / split).is_dir():
            one = InstructionSet(folder, split)
            found[split] = [one.record(key) for key in one.keys.tolist()]
    return found


SIZES = ((60, 40), (40, 60), (50, 50), (90, 33))


def boxes_of_picture(n: int) -> list[list[float]]:
    """Three boxes (x, y, width, height) of a picture, some of which the crop cuts or drops."""
    width, height = SIZES[n % 4]
    rng = np.random.default_rng(n)
    found = [[0, 0, 3, 3]]  # in a corner: cropped away, but from the square
    for _ in range(2):
        x, y = rng.uniform(0, width - 12), rng.uniform(0, height - 12)
        found.append([round(x, 2), round(y, 2), 11.5, 10.25])
    return found


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    """COCO's boxes and captions; a picture is missing, one is broken, and one has no box."""
    folder = tmp_path_factory.mktemp("coco")
    for subset, numbers in (("train2017", range(COUNT)), ("val2017", range(COUNT, COUNT + 6))):
        images, things, said = [], [], []
        for n in numbers:
            name, size = f"{n:012}.jpg", SIZES[n % 4]
            images.append({"id": n, "file_name": name, "width": size[0], "height": size[1]})
            if n != 11:
                write(folder / subset / name, png(n, size)[: 99 if n == 21 else None])
            if n % 2:
                said.append({"id": n, "image_id": n, "caption": f"two dogs, no {n}"})
            if n != 31:
                things += [
                    {"id": n * 10 + k, "image_id": n, "category_id": 1 + k % 2, "bbox": box,
                     "iscrowd": 0, "area": 1}
                    for k, box in enumerate(boxes_of_picture(n))
                ]  # fmt: skip
        head = {"images": images, "licenses": []}
        names = [{"id": 1, "name": "dog"}, {"id": 2, "name": "traffic light"}]
        write(folder / f"annotations/instances_{subset}.json",
              {**head, "annotations": things, "categories": names})  # fmt: skip
        write(folder / f"annotations/captions_{subset}.json", {**head, "annotations": said})
    return folder


SCRIPT = """
import os, runpy, signal, sys, time
from pathlib import Path
from cm3leon.preparation import example_encoding, examples

examples.ROWS = 8
seal = example_encoding.write_folder

def dying(folder, *rest):
    '''Seal a range, but at two of them die before, and at one take the driver along.'''
    flag = Path(os.environ["FLAGS"]) / folder.name
    if folder.name in ("000001", "000003") and not flag.exists():
        flag.touch()
        while folder.name == "000003" and not flag.with_name("000001").exists():
            time.sleep(0.01)
        if folder.name == "000003":
            os.kill(os.getppid(), signal.SIGKILL)
        os._exit(9)
    seal(folder, *rest)

example_encoding.write_folder = dying  # in each worker, which imports this file, too
if __name__ == "__main__":
    sys.exit(runpy.run_path(sys.argv[1])["main"](sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def unbroken(coco, parted, tmp_path_factory) -> Path:
    """A set that this process has made undisturbed."""
    folder = tmp_path_factory.mktemp("unbroken") / "set"
    prepare_here(parted, "boxes", coco, folder)
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def words_of(n: int, box: list[float]) -> str | None:
    """Where a box is in the centre square, in 256ths; None: outside. By another way than ours."""
    width, height = SIZES[n % 4]
    side = min(width, height)
    edges = []
    for begin, length, whole in ((box[0], box[2], width), (box[1], box[3], height)):
        shares = ((at - (whole - side) / 2) / side for at in (begin, begin + length))
        low, high = (int(min(max(share, 0), 1) * 256 + 0.5) for share in shares)
        edges.append((min(low, 255), min(high, 255)))
    (x0, x1), (y0, y1) = edges
    return f"({x0}, {y0}) -> ({x1}, {y1})" if x0 < x1 and y0 < y1 else None


def test_boxes_survive_the_crop(unbroken):
    found = records(unbroken)
    pictures = [n for n in range(COUNT + 6) if n not in (11, 21, 31)]
    labels, left = ["dog", "traffic light", "dog"], {}
    for n in pictures:
        places = [words_of(n, box) for box in boxes_of_picture(n)]
        left[n] = [(a, b) for a, b in zip(labels, places, strict=True) if b]
    made = {one.facts["image_id"]: one for own in found.values() for one in own}
    assert set(made) == {n for n in pictures if left[n]}
    assert {one.facts["image_id"] for one in found["validation"]} <= set(range(COUNT, COUNT + 6))
    for n, one in made.items():
        assert one.texts["boxes"] == ", ".join(f"{label} at {place}" for label, place in left[n])
        things = ", ".join(dict.fromkeys(label for label, _ in left[n]))
        assert one.texts["caption"] == (f"two dogs, no {n}" if n % 2 else things)
    report = json.loads((unbroken / "report.json").read_text())
    given, kept = 3 * len(pictures), sum(map(len, left.values()))
    assert report["boxes"] == {"given": given, "kept": kept, "cropped_away": given - kept}
    assert given - kept > 20
    assert report["records"] == COUNT + 6 and report["quarantined"] == 2
    empty = "no box is left in the fitted picture"
    assert report["skipped"] == {"no box in the picture": 1, empty: len(pictures) - len(made)}
    assert report["skipped"][empty] > 0
    assert sum(report["text_ids"].values()) == sum(report["splits"].values()) == len(made)
    bad = [json.loads(line) for line in (unbroken / "quarantine.jsonl").read_text().splitlines()]
    assert "000000000011.jpg, got no such" in bad[0]["reason"] and bad[1]["key"] == "train/21"
    with Image.open(unbroken / "report.png") as sheet:
        assert min(sheet.size) > 100
    assert not (unbroken / "work").exists()


def test_codes_are_those_of_the_fitted_pictures(unbroken, coco, parted):
    tokenizers = open_tokenizers(read_recipe(parted), trust=False)
    made = InstructionSet(unbroken, "train", tokenizers.vocabulary.sha256)
    for n in (2, 5):
        picture = load_image(coco / f"train2017/{n:012}.jpg")
        codes = tokenizers.encode(np.asarray(square(picture, SIZE))[None])[0]
        record = made.record(key_of(f"train/{n}"))
        assert np.array_equal(record.codes["image"], codes)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_boxes_in_shares_of_the_sides_are_said_like_those_in_pixels(parted, tmp_path, fit):
    """Open Images has shares, an imagefolder pixels."""
    size, box = (80, 40), (30, 10, 16, 20)
    write(tmp_path / "open/a.jpg", png(0, size))
    write(tmp_path / "open/class-descriptions-boxable.csv", "/m/1,dog\n")
    x, y, width, height = box
    shares = (x / size[0], (x + width) / size[0], y / size[1], (y + height) / size[1])
    write(tmp_path / "open/train-annotations-bbox.csv",
          "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf,IsDepiction\n"
          f"a,/m/1,{','.join(map(str, shares))},0,0\n")  # fmt: skip
    write(tmp_path / "own/a.png", png(0, size))
    rows = [
        {"file_name": "a.png", "split": "train", "text": name,
         "objects": {"bbox": [box], "categories": [name]}}
        for name in ("dog", "\udce9")
    ]  # fmt: skip
    write(tmp_path / "own/metadata.jsonl", "\n".join(map(json.dumps, rows)))
    made = []
    for name in ("open", "own"):
        report = prepare_here(parted, "boxes", tmp_path / name, tmp_path / f"{name}-set", fit=fit)
        assert report["quarantined"] == (name == "own")
        made += [one.texts for one in records(tmp_path / f"{name}-set")["train"]]
    place = {"crop": "(64, 64) -> (166, 192)", "pad": "(96, 96) -> (147, 160)",
             "stretch": "(96, 64) -> (147, 192)"}[fit]  # fmt: skip
    assert made == [{"caption": "dog", "boxes": f"dog at {place}"}] * 2


@pytest.mark.slow
def test_killed_worker_and_driver_end_in_the_same_bytes(root, coco, parted, unbroken, tmp_path):
    """In processes of their own, as users run it; whoever works makes the same."""
    script, flags, made = tmp_path / "script.py", tmp_path / "flags", tmp_path / "set"
    write(script, SCRIPT)
    flags.mkdir()

    def run(workers: int):
        command = [sys.executable, script, root / "apps/prepare.py", "--task", "boxes", "--from",
                   coco, "--folder", made, "--parts", parted, "--workers", workers, "--max-bad",
                   "20%"]  # fmt: skip
        return subprocess.run(
            list(map(str, command)), cwd=root, capture_output=True, text=True,
            env={**os.environ, "FLAGS": str(flags)},
        )  # fmt: skip

    assert run(2).returncode == -signal.SIGKILL
    assert {flag.name for flag in flags.iterdir()} == {"000001", "000003"}
    assert any(made.glob("work/encoded/*/manifest.json"))
    with pytest.raises(FileNotFoundError, match="wanted a set of instructions"):
        InstructionSet(made, "train")
    time.sleep(1)  # the other worker sees that its driver is gone
    last = run(1)
    assert last.returncode == 0, last.stderr
    assert '"records": 46' in last.stdout
    assert digests(made) == digests(unbroken)


def test_a_finished_set_is_kept_and_another_job_refused(unbroken, coco, parted):
    before = digests(unbroken)
    assert prepare_here(parted, "boxes", coco, unbroken)["records"] == COUNT + 6
    for other in ({"fit": "pad"}, {"length": 399}, {"licences": ("CC0",)}):
        with pytest.raises(ValueError, match="made from another task, settings, parts or files"):
            prepare_here(parted, "boxes", coco, unbroken, **other)
    assert digests(unbroken) == before


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
