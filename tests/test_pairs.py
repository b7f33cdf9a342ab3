"""Captioned pictures from strangers: what is refused, what is skipped, how groups are held out."""

import json

import numpy as np
import pytest
from PIL import Image

from cm3leon.data.pairs import DataError, read_pairs
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
        ("{", "line 1: wanted a JSON object"),
        ("[1]", "line 1: wanted a JSON object"),
        ('{"file_name": "0.png"}', "line 1: wanted a string as 'text'"),
        ('{"file_name": "0.png", "text": 3}', "line 1: wanted a string as 'text'"),
        ('{"file_name": "0.png", "text": "a", "split": "dev"}', "line 1: wanted split in"),
        ('{"file_name": "0.png", "text": "a", "boxes": [[0, 0, 0, 1]]}', "line 1: wanted 'boxes'"),
        ('{"file_name": "0.png", "text": "a", "facts": []}', "line 1: wanted 'facts'"),
        (
            '{"file_name": "0.png", "text": "a", "facts": {"kind": "one", "background": "white", '
            '"things": [{"name": "fox", "colour": "red", "natural": true, "box": [0, 0, 1]}]}}',
            "line 1: wanted 'facts'",
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
