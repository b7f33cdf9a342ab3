"""Captioned pictures from strangers: what is refused, what is skipped, how groups are held out."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cm3leon.data.pairs import DataError, fingerprint_of_folder, key_of, read_pairs
from cm3leon.data.pixels import open_pictures, write_pictures


def write(folder, rows, pictures=True):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if pictures:
        for row in rows:
            Image.new("RGB", (9, 7), "red").save(folder / row["file_name"])


def rows_of(count):
    return [{"file_name": f"{i}.png", "text": f"picture {i}"} for i in range(count)]


def test_groups_are_never_torn_apart(tmp_path):
    rows = [row | {"group": str(i // 3)} for i, row in enumerate(rows_of(60))]
    write(tmp_path, rows)
    found = read_pairs(tmp_path, validation_share=0.2, test_share=0.2)
    for group in set(found.groups):
        assert len({found.split[i] for i in range(60) if found.groups[i] == group}) == 1
    assert {*found.split} == {"train", "validation", "test"}


def test_keys_stay_when_pictures_are_added(tmp_path):
    write(tmp_path / "a", rows_of(10))
    write(tmp_path / "b", rows_of(12))
    few, more = read_pairs(tmp_path / "a"), read_pairs(tmp_path / "b")
    np.testing.assert_array_equal(few.keys, more.keys[:10])
    assert len(set(more.keys.tolist())) == 12 and more.keys.min() >= 0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "at least one captioned picture"),
        ("{", "metadata.jsonl:1: wanted JSON"),
        ("[1]", "metadata.jsonl:1: wanted an object"),
        ("[" * 200_000, "metadata.jsonl:1: wanted JSON"),
        ('{"text": "a"}', "metadata.jsonl:1: wanted the field 'file_name'"),
        ('{"file_name": "0.png"}', "metadata.jsonl:1: wanted a string as 'text'"),
        ('{"file_name": "0.png", "text": null}', "metadata.jsonl:1: wanted a string as 'text'"),
        ('{"file_name": "0.png", "text": []}', "metadata.jsonl:1: wanted a string as 'text'"),
        ('{"file_name": "0.png", "text": 3}', "metadata.jsonl:1: 'text': wanted a string"),
        (
            '{"file_name": "0.png", "text": "half \\ud83d"}',
            "metadata.jsonl:1: 'text': wanted Unicode",
        ),
        (
            '{"file_name": "0.png", "text": "a", "group": "\\ud83d"}',
            "metadata.jsonl:1: 'group': wanted Unicode",
        ),
        (
            '{"file_name": "0.png", "text": "a", "category": 3}',
            "metadata.jsonl:1: wanted a string as 'category'",
        ),
        (
            '{"file_name": "0.png", "text": "a", "split": "dev"}',
            "metadata.jsonl:1: wanted split in",
        ),
        (
            '{"file_name": "0.png", "text": "a", "boxes": [[0, 0, 0, 1]]}',
            "metadata.jsonl:1: wanted 'boxes'",
        ),
        ('{"file_name": "0.png", "text": "a", "facts": []}', "metadata.jsonl:1: wanted 'facts'"),
        (
            '{"file_name": "0.png", "text": "a", "facts": {"kind": "one", "background": "white", '
            '"things": [{"name": "fox", "colour": "red", "natural": true, "box": [0, 0, 1]}]}}',
            "metadata.jsonl:1: wanted 'facts'",
        ),
        ('{"file_name": "../0.png", "text": "a"}', "inside the folder"),
        ('{"file_name": "gone.png", "text": "a"}', "gone.png"),
    ],
)
def test_wrong_metadata_names_file_line_and_cause(tmp_path, lines, message):
    (tmp_path / "metadata.jsonl").write_text(lines)
    with pytest.raises(DataError, match="metadata.jsonl") as caught:
        read_pairs(tmp_path)
    assert message in str(caught.value)


def test_null_is_as_good_as_absent(tmp_path):
    write(tmp_path, rows_of(9))
    plain = read_pairs(tmp_path)
    for nothing in (None, float("nan")):
        columns = dict.fromkeys(("split", "group", "category", "boxes", "facts"), nothing)
        write(tmp_path, [row | columns for row in rows_of(9)])
        found = read_pairs(tmp_path)
        assert (found.groups, found.categories, found.boxes, found.facts) == (
            plain.groups, plain.categories, plain.boxes, plain.facts
        )  # fmt: skip
        np.testing.assert_array_equal(found.split, plain.split)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_of_encodings(tmp_path, encoding):
    write(tmp_path, rows_of(9))
    path = tmp_path / "metadata.jsonl"
    path.write_bytes(
        path.read_text().replace("picture 3", "caf\u00e9\u2028\u0085 au lait").encode(encoding)
    )
    assert read_pairs(tmp_path).captions[3] == "caf\u00e9\u2028\u0085 au lait"


def several(count):
    """Five captions a picture, as in COCO, under names that mean one file."""
    for i in range(count):
        yield {"file_name": f"{i}.png", "text": [f"{i} a", f"{i} b"]}
        yield {"file_name": f"./{i}.png", "text": f"{i} c"}
        yield {"file_name": f".\\{i}.png", "text": f"{i} d"}
        yield {"file_name": f"{i}.png", "text": [f"{i} a", f"{i} e"]}


def test_captions_of_one_picture_stand_on_one_side(tmp_path):
    write(tmp_path, several(20), pictures=False)
    for i in range(20):
        Image.new("RGB", (9, 7), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "link.png").symlink_to("3.png")
    os.link(tmp_path / "3.png", tmp_path / "hard.png")
    with open(tmp_path / "metadata.jsonl", "a") as file:
        for name in ("link.png", "hard.png"):
            file.write(json.dumps({"file_name": name, "text": f"{name}, another name of 3"}) + "\n")
    found = read_pairs(tmp_path, validation_share=0.2, test_share=0.2)
    assert len(found) == 102 and len({*found.keys.tolist()}) == 102
    assert found.captions[:5] == ["0 a", "0 b", "0 c", "0 d", "0 e"]
    for file in {*found.files}:
        names = {file, *(("link.png", "hard.png") if file == "3.png" else ())}
        rows = [i for i in range(102) if found.files[i] in names]
        assert len({found.split[i] for i in rows}) == len({found.groups[i] for i in rows}) == 1
    # the first caption's key is the file's, so that captions can be added
    assert found.keys[5] == key_of("1.png")

    done = []
    write_pictures(tmp_path, found, 8, tmp_path, lambda *at: done.append(at))
    assert done[-1] == (22, 22)
    pictures = open_pictures(tmp_path, found, tmp_path)
    assert pictures.decoded.shape == (22, 8, 8, 3)
    assert (pictures.pixels(np.arange(5, 10))[..., 0] == 1).all()
    assert len(pictures.places_of("train")) == len({found.files[i] for i in found.rows("train")})
    (tmp_path / "1.png").write_bytes(b"no picture")
    write_pictures(tmp_path, found, 8, tmp_path, lambda *_: None)
    left = open_pictures(tmp_path, found, tmp_path)
    assert len(left.pairs) == 97 and len(left.skipped) == 1 and "1.png" not in left.pairs.files


def test_captions_that_pictures_share_hold_them_together(tmp_path):
    rows = [row | {"text": [f"{i}", f"{i + 1}"]} for i, row in enumerate(rows_of(4))]
    write(
        tmp_path, [*rows, *(row | {"file_name": f"x{row['file_name']}"} for row in rows_of(8)[5:])]
    )
    found = read_pairs(tmp_path)
    assert len({found.groups[i] for i in range(8)}) == 1 and len({*found.groups}) == 4


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file_name": "gone.png"}, "wanted the picture 'more/gone.png', got no such file"),
        ({"split": None}, "wanted a split in every line or in none"),
        ({"split": "dev"}, "wanted split in"),
        ({"file_name": "0.png", "split": "test"}, "wanted 'more/0.png' in one split"),
        ({"group": "a"}, "wanted group 'a' on one side"),
    ],
)
def test_the_place_of_a_wrong_row_is_named_in_every_kind_of_metadata(tmp_path, kind, change, words):
    groups, parts = ["a", "a", "b", "c"], ["train", "train", "validation", "test"]
    split = [
        row | {"group": group, "split": part}
        for row, group, part in zip(rows_of(4), groups, parts, strict=True)
    ]
    write(tmp_path / "more", split)
    (tmp_path / "more/metadata.jsonl").unlink()
    split[3] |= change
    path = tmp_path / f"more/metadata.{kind}"
    table = pa.Table.from_pylist(split)
    if kind == "jsonl":
        write(tmp_path / "more", split, pictures=False)
    elif kind == "csv":
        pa_csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    with pytest.raises(DataError) as caught:
        read_pairs(tmp_path)
    assert str(caught.value).startswith(f"{path}:{5 if kind == 'csv' else 4}: {words}")


def test_a_picture_in_two_splits_is_refused(tmp_path):
    parts = ["train", "validation", "test", "train"]
    rows = [r | {"split": p} for r, p in zip(rows_of(4), parts, strict=True)]
    write(tmp_path, [*rows, {"file_name": "./0.png", "text": "other", "split": "test"}])
    with pytest.raises(DataError, match=r"wanted '0\.png' in one split, got train and test"):
        read_pairs(tmp_path)


def test_many_rows_take_no_quadratic_time(tmp_path):
    """20,000 rows took 7 s when each was searched for among those before it."""
    rows = [{"file_name": "0.png", "text": f"picture {i}"} for i in range(20_000)]
    write(tmp_path, rows[:1])
    others = [{"file_name": name, "text": name} for name in ("1.png", "2.png")]
    write(tmp_path, [*rows, *others], pictures=False)
    for row in others:
        (tmp_path / row["file_name"]).touch()
    assert len(read_pairs(tmp_path)) == 20_002


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_other_kinds_of_metadata_say_the_same(tmp_path, kind):
    write(tmp_path / "train", rows_of(9))
    wanted = read_pairs(tmp_path)
    assert wanted.files[0] == "train/0.png"
    (tmp_path / "train/metadata.jsonl").unlink()
    table = pa.Table.from_pylist(rows_of(9))
    if kind == "csv":
        pa_csv.write_csv(table, tmp_path / "train/metadata.csv")
    else:
        pq.write_table(table, tmp_path / "train/metadata.parquet")
    found = read_pairs(tmp_path)
    assert (found.files, found.captions) == (wanted.files, wanted.captions)
    np.testing.assert_array_equal(found.split, wanted.split)


def test_the_fingerprint_is_of_the_metadata_and_the_pictures_that_they_name(tmp_path):
    write(tmp_path, rows_of(4))
    before = fingerprint_of_folder(tmp_path)
    # what else happens in a folder, runs in it and names that are no UTF-8 among it
    write(tmp_path / "runs/tiny/data", rows_of(3))
    (tmp_path / "runs/tiny/data/stage.json").write_text("{}")
    for name in (b".DS_Store", b"notes.txt", b"other.png", b"old\xff.tmp"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    assert fingerprint_of_folder(tmp_path) == before
    assert len(read_pairs(tmp_path)) == 4
    os.utime(tmp_path / "2.png", ns=(0, 0))
    turned = fingerprint_of_folder(tmp_path)
    (tmp_path / "2.png").write_bytes(b"longer than before")
    os.utime(tmp_path / "2.png", ns=(0, 0))
    larger = fingerprint_of_folder(tmp_path)
    write(tmp_path, rows_of(3), pictures=False)
    assert len({before, turned, larger, fingerprint_of_folder(tmp_path)}) == 4


def test_a_group_on_both_sides_of_a_given_split_is_refused(tmp_path):
    for held_out in ("validation", "test", "things", "shown"):
        groups = {"train": "g", held_out: "g"}
        write(
            tmp_path,
            [
                row | {"split": part, "group": groups.get(part, part)}
                for part, row in zip(
                    ("train", "validation", "test", "things", "shown"), rows_of(5), strict=True
                )
            ],
        )
        with pytest.raises(DataError, match=f"group 'g' on one side, got train and {held_out}"):
            read_pairs(tmp_path)


def test_facts_are_kept_where_there_are_some(tmp_path):
    thing = {"name": "fox", "colour": "orange", "natural": True, "box": [1, 1, 5, 6]}
    facts = {"kind": "one", "background": "white", "things": [thing]}
    parts = ["train", "validation", "test", "things", "shown"]
    shown = [None, None, None, facts, None]
    rows = [
        row | {"split": part, "facts": fact}
        for row, part, fact in zip(rows_of(5), parts, shown, strict=True)
    ]
    del rows[0]["facts"]
    write(tmp_path, rows)
    found = read_pairs(tmp_path)
    assert found.facts == shown
    assert found.take(np.array([3, 0])).facts == [facts, None]
    assert found.rows("things", "shown").tolist() == [3, 4]


def test_an_empty_folder_says_what_was_wanted(tmp_path):
    with pytest.raises(DataError, match="file_name and text"):
        read_pairs(tmp_path)


def test_broken_pictures_are_counted_and_named(tmp_path):
    write(tmp_path, rows_of(5))
    (tmp_path / "2.png").write_bytes(b"no picture")
    found = read_pairs(tmp_path)
    done = []
    write_pictures(tmp_path, found, 8, tmp_path, lambda *at: done.append(at))
    assert done[-1] == (5, 5)
    pixels = np.load(tmp_path / "pixels.npy")
    assert pixels.shape == (5, 8, 8, 3)
    assert (pixels[2] == 255).all() and (pixels[1] == [255, 0, 0]).all()


@pytest.mark.parametrize("lost", ["train", "validation", "test"])
def test_what_is_left_of_the_pictures_fits_their_pairs(tmp_path, lost):
    parts = ["train", "train", "validation", "validation", "test", "test"]
    rows = [row | {"split": part} for row, part in zip(rows_of(6), parts, strict=True)]
    write(tmp_path, rows)
    Image.new("RGB", (9, 7), "blue").save(tmp_path / "3.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    pairs = read_pairs(tmp_path)
    write_pictures(tmp_path, pairs, 8, tmp_path, lambda *_: None)
    pictures = open_pictures(tmp_path, pairs, tmp_path)
    assert len(pictures.skipped) == 1 and "2.png" in pictures.skipped[0]
    assert pictures.pairs.files == ["0.png", "1.png", "3.png", "4.png", "5.png"]
    assert (pictures.pixels(np.array([2])) == [0, 0, 255]).all()
    assert pictures.places_of("validation").tolist() == [3]
    for name, part in zip(pairs.files, parts, strict=True):
        if part == lost:
            (tmp_path / name).write_bytes(b"no picture")
    write_pictures(tmp_path, pairs, 8, tmp_path, lambda *_: None)
    with pytest.raises(DataError, match=f"no readable picture is left in {lost}"):
        open_pictures(tmp_path, pairs, tmp_path)
