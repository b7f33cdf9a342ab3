"""Readers of published files, on records in the true form."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cm3_texttok import PAPER_TASKS, Task
from cm3leon.data.raw_files import Unusable
from cm3leon.instructions.example import Example, Unneeded, split_by_hash
from cm3leon.instructions.readers.forms import FORMS, open_reader
from cm3leon.instructions.task_file import read_task_file


def write(path: Path, content: Any) -> Path:
    """Write a file: bytes and texts as they are, all else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    path.write_bytes(content)
    return path


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        write(folder / name, f"picture {name}")


def read(task: str | Task, folder: Path, images: Path | None = None):
    """Examples, unusable and unneeded records of a folder."""
    task = PAPER_TASKS[task] if isinstance(task, str) else task
    found = list(open_reader(task, folder, images).read())
    return tuple(
        [one for one in found if isinstance(one, kind)] for kind in (Example, Unusable, Unneeded)
    )


def seen(example: Example) -> dict[str, str]:
    return {name: picture().decode() for name, picture in example.pictures.items()}


OTHER_SCRIPTS = "犬がボールを蹴る — कुत्ता, كلب, 🐕"
IMAGES = [
    {"id": 9, "width": 60, "height": 40, "file_name": "000000000009.jpg", "license": 3},
    {"id": 25, "width": 60, "height": 40, "file_name": "000000000025.jpg", "license": 1},
    {"id": 30, "width": 60, "height": 40, "file_name": "000000000030.jpg", "license": 1},
]
HEAD = {"info": {"year": 2017}, "licenses": [{"id": 3, "name": "CC BY 2.0", "url": "http://x"}]}


def coco(folder: Path, annotations: list, subset="val2017", images=IMAGES, **more) -> Path:
    head = {**HEAD, "images": images, "annotations": annotations, **more}
    return write(folder / "annotations" / f"captions_{subset}.json", head)


SAID = [
    {"id": 1, "image_id": 9, "caption": "A dog\nruns. "},
    {"id": 2, "image_id": 25, "caption": OTHER_SCRIPTS},
    {"id": 3, "image_id": 9, "caption": "It runs."},
]


def test_coco_captions(tmp_path):
    pictures(tmp_path / "train2017", "000000000009.jpg", "000000000025.jpg")
    coco(tmp_path, SAID, "train2017")
    found, bad, _ = read("coco_caption", tmp_path)
    assert [one.texts["caption"] for one in found] == ["A dog runs.", "It runs.", OTHER_SCRIPTS]
    assert [one.split for one in found] == ["train"] * 3 and not bad
    assert len({one.name for one in found}) == 3
    assert seen(found[0]) == {"image": "picture 000000000009.jpg"}
    assert [one.licence for one in found] == ["CC BY 2.0", "CC BY 2.0", ""]
    assert read("canny", tmp_path)[0] == found  # a task of features takes the same pictures
    coco(tmp_path, SAID, "val2017")
    held_out = [one for one in read("coco_caption", tmp_path)[0] if one.split == "validation"]
    assert [one.facts for one in held_out] == [
        {"image_id": 9, "captions": ["A dog runs.", "It runs."]},
        {"image_id": 25, "captions": [OTHER_SCRIPTS]},
    ]


@pytest.mark.parametrize("task", ["coco_caption", "boxes"])
def test_a_licence_that_is_no_number_is_none(tmp_path, task):
    pictures(tmp_path / "val2017", "000000000009.jpg")
    odd = {**IMAGES[0], "license": [3]}
    licences = [{"id": {}, "name": "odd"}, {"id": 3, "name": "CC0"}]
    if task == "boxes":
        write(tmp_path / "instances_val2017.json",
              {"images": [odd], "annotations": [thing(9, 18, 1, 2, 3, 4)],
               "categories": CATEGORIES, "licenses": licences},
        )  # fmt: skip
    else:
        coco(tmp_path, SAID[:1], images=[odd], licenses=licences)
    found, bad, _ = read(task, tmp_path)
    assert [one.licence for one in found] == [""] and not bad


def test_coco_captions_without_use_are_noted_one_by_one(tmp_path):
    pictures(tmp_path / "val2017", "000000000009.jpg")
    wrong = [
        {"id": 4, "image_id": 9, "caption": " \n"},
        {"id": 5, "image_id": 9, "caption": None},
        {"id": 6, "image_id": 77, "caption": "a"},
        {"id": 7, "caption": "a"},
        "no object",
        {"id": 8, "image_id": 30, "caption": "its picture leads outside"},
    ]
    outside = {**IMAGES[2], "file_name": "../../000000000009.jpg"}
    coco(tmp_path, [*SAID, *wrong], images=[*IMAGES[:2], outside, {"id": 9}, {"file_name": "a"}])
    found, bad, _ = read("coco_caption", tmp_path)
    assert [one.facts["image_id"] for one in found] == [9]
    reasons = [line.reason for line in bad]
    for words in (
        "id: wanted each once, got 9 again", "id: wanted a whole number, got None",
        "caption: wanted a text, got an empty one", "caption: wanted a text, got None",
        "image_id: wanted one of the file's images, got 77",
        "image_id: wanted a whole number, got None", "record: wanted an object, got no object",
        "wanted the picture 000000000025.jpg, got no such file", "wanted a path inside",
    ):  # fmt: skip
        assert any(words in reason for reason in reasons), words
    assert {line.file for line in bad} == {"captions_val2017.json"}


def test_karpathys_splits(tmp_path):
    def image(name, split, *said):
        sentences = [{"raw": raw, "tokens": [], "imgid": 0, "sentid": n} for n, raw in said]
        return {"filename": name, "imgid": 0, "split": split, "sentids": [], "sentences": sentences}

    pictures(tmp_path / "flickr30k-images", "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    listed = [
        image("1.jpg", "train", (0, "A boy ."), (1, "A ball ."), (9, " ")),
        image("2.jpg", "val", (2, "A girl ."), (3, "She .")),
        image("3.jpg", "test", (4, "A dog .")),
        image("4.jpg", "restval", (5, "A cat .")),
        image("5.jpg", "train", (6, "no picture")),
        image("1.jpg", "dev", (7, "no such split")),
    ]
    for task, name in (("flickr30k", "flickr30k"), ("coco_caption", "coco")):
        place = tmp_path / f"dataset_{name}.json"
        write(place, {"dataset": name, "images": listed})
        found, bad, _ = read(task, tmp_path)
        assert [one.split for one in found] == ["train", "train", "validation", "test", "train"]
        assert found[2].facts == {"image_id": "2.jpg", "captions": ["A girl .", "She ."]}
        assert [line.key for line in bad] == ["1.jpg#2", "image 5", "image 6"]
        assert "got 'dev'" in bad[2].reason


def test_flickr30k_tokens(tmp_path):
    names = [f"{n}.jpg" for n in range(100, 160)]
    pictures(tmp_path / "images", *names)
    lines = [f"{name}#{n}\tA boy {n} kicks  {OTHER_SCRIPTS} ." for name in names for n in range(5)]
    wrong = ["1.jpg A boy .", "2.jpg#0\t", "3.jpg#0\tno picture", ""]
    write(tmp_path / "results_20130124.token", "\n".join([*lines, *wrong]))
    found, bad, _ = read("flickr30k", tmp_path)
    assert [line.key for line in bad] == ["line 301", "line 302", "3.jpg"]
    assert found[0].texts["caption"] == f"A boy 0 kicks {OTHER_SCRIPTS} ."
    for name in names:  # all captions of a picture are in one split, once a picture when held out
        own = [one for one in found if one.facts["image_id"] == name]
        split = split_by_hash(name)
        assert {one.split for one in own} == {split}
        assert len(own) == (5 if split == "train" else 1)
    assert {one.split for one in found} == {"train", "validation", "test"}


CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog", "supercategory": "animal"}]


def thing(image: int, category: int, *box: float, **more) -> dict:
    return {"id": 0, "image_id": image, "category_id": category, "bbox": list(box), "iscrowd": 0,
            "area": 1.0, "segmentation": [[1, 2, 3, 4, 5, 6]], **more}  # fmt: skip


def test_coco_boxes(tmp_path):
    pictures(tmp_path / "val2017", *(image["file_name"] for image in IMAGES))
    coco(tmp_path, SAID[:1])
    things = [
        thing(9, 18, 10.5, 2, 20, 30),
        thing(9, 1, 0, 0, 60, 40, iscrowd=1, segmentation={"counts": [1], "size": [40, 60]}),
        thing(9, 1, 5, 5, 0, 8),
        thing(25, 1, 1, 1, 2, 2),
        thing(25, 1, 1, 1, 2, 2, isfake=1),
    ]
    place = tmp_path / "annotations/instances_val2017.json"
    head = {**HEAD, "images": IMAGES, "categories": CATEGORIES}
    write(place, {**head, "annotations": things})
    found, bad, unneeded = read("boxes", tmp_path)
    assert found[0].boxes == (("dog", (10.5, 2, 30.5, 32)),)
    assert found[0].texts == {"caption": "A dog runs."} and found[1].texts == {}
    assert found[1].boxes == (("person", (1, 1, 3, 3)),)
    assert not bad and [one.reason for one in unneeded] == ["no box in the picture"]

    wrong = [
        thing(9, 5, 1, 1, 2, 2),
        thing(25, 1, 1, 1, float("nan"), 2),
        thing(30, 1, 10**400, 0.5, 1, 1),
    ]
    write(place, {**head, "annotations": [*wrong, thing(4, 1, 1, 1, 2, 2)]})
    found, bad, _ = read("boxes", tmp_path)
    assert not found and [line.key for line in bad] == [
        "annotation 4", "image 9", "image 25", "image 30",
    ]  # fmt: skip
    assert "category_id: wanted one of" in bad[1].reason
    assert all("wanted four numbers of pixels" in line.reason for line in bad[2:])


def test_objects365(tmp_path):
    """Its pictures are found by their last name, wherever they were moved; `isfake` is dropped."""
    pictures(tmp_path / "train/patch16", "objects365_v2_00900001.jpg")
    image = {"id": 900001, "file_name": "images/v2/patch8/objects365_v2_00900001.jpg",
             "height": 512, "width": 683, "license": 5, "url": "http://a/b"}  # fmt: skip
    things = [thing(900001, 18, 1, 2, 3, 4, isfake=0, isreflected=0),
              thing(900001, 1, 1, 2, 3, 4, isfake=1)]  # fmt: skip
    write(tmp_path / "zhiyuan_objv2_train.json",
          {"images": [image], "annotations": things, "categories": CATEGORIES, "licenses": []},
    )  # fmt: skip
    (found,), bad, _ = read("boxes", tmp_path)
    assert found.boxes == (("dog", (1, 2, 4, 6)),) and found.split == "train" and not bad
    assert seen(found) == {"image": "picture objects365_v2_00900001.jpg"}


OPEN_IMAGES = ("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,"
               "IsGroupOf,IsDepiction,IsInside")  # fmt: skip


@pytest.mark.parametrize("header", ["", "LabelName,DisplayName\n"])
def test_open_images(tmp_path, header):
    pictures(tmp_path / "validation", "0001eeaf4aed83f9.jpg", "00075905539074f2.jpg")
    write(tmp_path / "class-descriptions-boxable.csv", f'{header}/m/0cmf2,"Airplane, toy"\n')
    rows = [
        "0001eeaf4aed83f9,xclick,/m/0cmf2,1,0.02,0.96,0.15,0.8,0,0,0,0,0",
        "0001eeaf4aed83f9,xclick,/m/0cmf2,1,0.1,0.2,0.3,0.4,0,0,1,0,0",
        "0001eeaf4aed83f9,xclick,/m/0cmf2,1,0.1,0.2,0.3,0.4,0,0,0,1,0",
        "00075905539074f2,xclick,/m/0cmf2,1,0.1,0.2,0.3,0.4,0,0,1,0,0",
        "0007cebe1b2ba653,xclick,/m/0cmf2,1,0.1,0.2,0.3,0.4,0,0,0,0,0",
        "0007d6cf88afaa4a,xclick,/m/none,1,0.1,0.2,0.3,0.4,0,0,0,0,0",
        "0008e425fb49a2bf,xclick,/m/0cmf2,1,0.1,much,0.3,0.4,0,0,0,0,0",
        "0009bad4d8539bb4,xclick,/m/0cmf2,1,0.1,nan,0.3,0.4,0,0,0,0,0",
        "a,b",
    ]
    write(tmp_path / "validation-annotations-bbox.csv", "\n".join([OPEN_IMAGES, *rows]))
    (found,), bad, unneeded = read("boxes", tmp_path)
    assert found.boxes == (("Airplane, toy", (0.02, 0.15, 0.96, 0.8)),) and found.boxes_are_shares
    assert found.split == "validation" and len(unneeded) == 1
    reasons = " ".join(line.reason for line in bad)
    assert len(bad) == 5
    for words in ("0007cebe1b2ba653.jpg, got no", "named classes, got '/m/none'", "much", "nan",
                  "wanted 13 cells, got 2"):  # fmt: skip
        assert words in reasons
    write(tmp_path / "validation-annotations-bbox.csv", "ImageID,XMin\na,0.1")
    with pytest.raises(ValueError, match=r"annotations-bbox\.csv: wanted the columns \['IsDepict"):
        read("boxes", tmp_path)
    (tmp_path / "class-descriptions-boxable.csv").unlink()
    with pytest.raises(ValueError, match=r"wanted \*class-descriptions\*\.csv beside"):
        read("boxes", tmp_path)


def ten(*answers: str, **more) -> list[dict]:
    return [{"answer_id": n + 1, "answer": a, "answer_confidence": "yes", **more}
            for n, a in enumerate(answers)]  # fmt: skip


def asked(number: int, question: Any = "What is it?") -> dict:
    return {"image_id": 42, "question": question, "question_id": number}


def test_vqa2(tmp_path):
    pictures(tmp_path / "val2014", "COCO_val2014_000000000042.jpg")
    pictures(tmp_path / "test2015", "COCO_test2015_000000000042.jpg")
    questions = [asked(42000), asked(42001, OTHER_SCRIPTS), asked(42002, "  "), asked(42003),
                 asked(42004, 5), {**asked(42005), "image_id": 43}]  # fmt: skip
    answers = [
        {"question_id": number, "image_id": 42, "question_type": "what is", "answer_type": "other",
         "multiple_choice_answer": "ball", "answers": ten(*["ball"] * 6, *["a ball"] * 4)}
        for number in (42000, 42001, 42002, 42004, 42005)
    ]  # fmt: skip
    write(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    beside = write(tmp_path / "v2_mscoco_val2014_annotations.json", {"annotations": answers})
    for subset in ("test2015", "test-dev2015"):
        write(tmp_path / f"v2_OpenEnded_mscoco_{subset}_questions.json",
              {"questions": [asked(42900 + len(subset))]})  # fmt: skip
    found, bad, _ = read("vqa2", tmp_path)
    assert [(one.name, one.split) for one in found] == [
        ("42912", "test"), ("42000", "validation"), ("42001", "validation"),
    ]  # fmt: skip
    assert found[0].texts == {"question": "What is it?"}
    assert seen(found[0]) == {"image": "picture COCO_test2015_000000000042.jpg"}
    assert found[1].texts["answer"] == "ball" and found[2].texts["question"] == OTHER_SCRIPTS
    assert found[1].facts == {
        "question_id": 42000, "image_id": 42, "answers": ["ball"] * 6 + ["a ball"] * 4,
        "question_type": "what is", "answer_type": "other",
    }  # fmt: skip
    assert [(line.key, line.reason.partition(", got no such")[0]) for line in bad] == [
        ("question 42002", "question: wanted a text, got an empty one"),
        ("question 42003", "wanted its answers in the annotations, got none"),
        ("question 42004", "question: wanted a text, got 5"),
        ("question 42005", "wanted the picture COCO_val2014_000000000043.jpg"),
    ]
    beside.unlink()
    with pytest.raises(ValueError, match="v2_mscoco_val2014_annotations.json beside it, got none"):
        read("vqa2", tmp_path)


def test_okvqa_learns_what_was_said_and_scores_on_stems(tmp_path):
    pictures(tmp_path / "train2014", "COCO_train2014_000000000042.jpg")
    given = ten("surf", "surf", "swim", "", raw_answer="?")
    for answer, raw in zip(given, ("surfing", "surfing", "swimming", " "), strict=True):
        answer["raw_answer"] = raw
    write(tmp_path / "OpenEnded_mscoco_train2014_questions.json", {"questions": [asked(420)]})
    write(tmp_path / "mscoco_train2014_annotations.json", {"annotations": [
        {"question_id": 420, "image_id": 42, "question_type": "four", "answer_type": "other",
         "answers": given}]})  # fmt: skip
    (found,), bad, _ = read("okvqa", tmp_path)
    assert found.texts["answer"] == "surfing" and not bad
    assert found.facts["answers"] == ["surf", "surf", "swim", ""]


def test_vizwiz(tmp_path):
    names = [f"VizWiz_train_{n:08}.jpg" for n in range(4)]
    pictures(tmp_path / "train", *names)
    pictures(tmp_path / "test", "VizWiz_test_00000007.jpg")

    def row(name, *answers, question="What?"):
        return {"image": name, "question": question, "answers": ten(*answers),
                "answer_type": "unanswerable", "answerable": 0}  # fmt: skip

    rows = [
        row(names[0], "unanswerable", "unanswerable", "can", ""),
        row(names[1], "", "", OTHER_SCRIPTS),
        row(names[2], "", " "),
        row(names[3], "a", question=""),
        row("http://a.org/0.jpg", "a"),
    ]
    write(tmp_path / "Annotations/train.json", rows)
    write(tmp_path / "Annotations/test.json",
          [{"image": "VizWiz_test_00000007.jpg", "question": "Who?"}])  # fmt: skip
    found, bad, unneeded = read("vizwiz", tmp_path)
    assert [one.texts.get("answer") for one in found] == ["unanswerable", OTHER_SCRIPTS, None]
    assert found[0].facts["answers"] == ["unanswerable", "unanswerable", "can", ""]
    assert [one.facts["question_id"] for one in found] == [0, 1, 7]
    assert [one.reason for one in unneeded] == ["no answer but empty ones"]
    assert [line.key for line in bad] == [names[3], "http://a.org/0.jpg"]
    assert "wanted a path inside" in bad[1].reason


def problem(**more) -> dict:
    return {"question": "Which is\nlarger?", "choices": ["a cat ", "an  elephant"], "answer": 1,
            "hint": "", "image": "image.png", "lecture": "Long.", "solution": "It weighs more.",
            "split": "train", "grade": "grade2", "subject": "natural science", **more}  # fmt: skip


def test_science_qa(tmp_path):
    pictures(tmp_path / "images/train/1", "image.png")
    pictures(tmp_path / "test/5", "image.png")
    problems = {
        "1": problem(), "2": problem(image=None), "3": problem(), "4": problem(answer=2),
        "5": problem(split="test", hint="See.", solution=""), "6": problem(split="../.."),
    }  # fmt: skip
    write(tmp_path / "problems.json", problems)
    found, bad, unneeded = read("science_qa", tmp_path)
    assert found[0].texts == {
        "question": "Which is larger?", "context": "N/A", "options": "(A) a cat (B) an elephant",
        "answer": "(B)", "explanation": "It weighs more.",
    }  # fmt: skip
    assert found[0].facts == {"question_id": "1", "answer": 1, "choices": ["a cat", "an elephant"],
                              "grade": "grade2", "subject": "natural science"}  # fmt: skip
    assert (found[1].split, found[1].texts["context"], found[1].texts["explanation"]) == (
        "test", "See.", "",
    )  # fmt: skip
    assert [one.reason for one in unneeded] == ["no picture"]
    assert [line.key for line in bad] == ["problem 3", "problem 4", "problem 6"]
    assert "wanted one of 2 choices, got 2" in bad[1].reason


def test_localized_narratives(tmp_path):
    pictures(tmp_path, "train2017/000000000139.jpg", "ade/ADE_val_00000001.jpg")

    def line(data, image, caption="In this image there is a dog."):
        return json.dumps(
            {"dataset_id": data, "image_id": image, "annotator_id": 93, "caption": caption,
             "timed_caption": [{"utterance": "In", "start_time": 0.0, "end_time": 0.4}],
             "traces": [[{"x": 1.02, "y": -0.1, "t": 0.01}]], "voice_recording": "a.ogg"}
        )  # fmt: skip

    lines = [line("mscoco_train2017", "139"), line("mscoco_train2017", "139", OTHER_SCRIPTS), "",
             line("ADE20k_validation", "ADE_val_00000001"), "{broken",
             line("mscoco_train2017", "139", "half \ud83d"), line("none", "139"),
             line("open_images_test", "../../x")]  # fmt: skip
    write(tmp_path / "coco_train_localized_narratives-00000-of-00004.jsonl", "\n".join(lines))
    found, bad, _ = read("localized_narratives", tmp_path)
    assert [one.split for one in found] == ["train", "train", "validation", "train"]
    assert found[1].texts["caption"] == OTHER_SCRIPTS and len({one.name for one in found}) == 4
    assert [line.key for line in bad] == ["line 5", "line 7", "line 8"]
    assert "wanted JSON" in bad[0].reason and "wanted a path inside" in bad[2].reason


def test_image_paragraph(tmp_path):
    pictures(tmp_path, "VG_100K/1.jpg", "VG_100K_2/2.jpg", "VG_100K/4.jpg")
    said = [{"url": f"https://a.org/VG_100K/{n}.jpg", "image_id": n, "paragraph": text}
            for n, text in enumerate(("A man.\n\n He  runs. ", "b", "c", "d", ""), 1)]  # fmt: skip
    write(tmp_path / "paragraphs_v1.json", said)
    for name, ids in (("train", [1]), ("val", [2]), ("test", [3])):
        write(tmp_path / f"{name}_split.json", ids)
    found, bad, unneeded = read("image_paragraph", tmp_path)
    assert [(one.name, one.split) for one in found] == [("1", "train"), ("2", "validation")]
    assert found[0].texts["caption"] == "A man. He runs."
    assert [one.reason for one in unneeded] == ["in no split"] and len(bad) == 2
    write(tmp_path / "val_split.json", ["2"])
    with pytest.raises(ValueError, match=r"val_split\.json: wanted a whole number, got 2"):
        read("image_paragraph", tmp_path)


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
