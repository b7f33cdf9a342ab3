"""Readers of published boxes, on records in the true form."""

import pytest
from instruction_files import (
    CATEGORIES,
    HEAD,
    IMAGES,
    SAID,
    coco,
    pictures,
    read,
    seen,
    thing,
    write,
)


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
