"""apps/prepare.py --task as its users run it: boxes in the crop, kills, what is kept."""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import warm
from instruction_files import png, write
from PIL import Image
from prepared_here import SIZE, prepare_here, records

from cm3_imagetok import load_image, square
from cm3leon.data.pairs import key_of
from cm3leon.instructions.sets import InstructionSet
from cm3leon.preparation.worker import open_tokenizers
from cm3leon.recipe_file import read_recipe

COUNT = 40

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
        return warm.run(
            list(map(str, command)), cwd=root,
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
