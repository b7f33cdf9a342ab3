"""Readers of published captions, on records in the true form."""

import json

import pytest
from instruction_files import (
    CATEGORIES,
    IMAGES,
    OTHER_SCRIPTS,
    SAID,
    coco,
    pictures,
    read,
    seen,
    thing,
    write,
)

from cm3leon.instructions.example import split_by_hash


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
