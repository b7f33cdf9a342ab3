import json
import os

import pytest

from cm3_retrieval.clip.picture_folder import picture_files


def write(folder, *rows):
    lines = "\n\n".join(json.dumps(row) for row in rows)
    (folder / "metadata.jsonl").write_text(lines, encoding="utf-8")


def test_captions_come_from_text_files_beside_the_pictures(picture_folder, captions):
    files = picture_files(picture_folder).files
    assert [file.caption for file in files] == [*captions, None]
    assert all(file.path.is_absolute() and file.path.is_file() for file in files)
    assert [file.path.name for file in files] == sorted(file.path.name for file in files)


def test_only_pictures_that_metadata_list_count(picture_folder, captions):
    write(
        picture_folder,
        {"file_name": "more/plain.png", "text": "plain"},
        {"file_name": "./03.png", "caption": "listed"},
        {"file_name": "04.png", "text": None},
        {"file_name": "gone.png", "text": "gone"},
    )
    found = picture_files(picture_folder)
    assert {file.path.name: file.caption for file in found.files} == {
        "plain.png": "plain", "03.png": "listed", "04.png": captions[4]
    }  # fmt: skip
    assert found.lost == [f"{picture_folder.resolve()}/metadata.jsonl:7: gone.png"]
    assert found.unlisted == 10


def test_a_picture_has_several_captions_and_is_one_document(picture_folder):
    write(
        picture_folder,
        {"file_name": "03.png", "text": "a fox"},
        {"file_name": "./03.png", "text": ["a red fox", "a fox"]},
        {"file_name": "04.png", "text": "a cat"},
    )
    found = picture_files(picture_folder).files
    assert [file.captions for file in found] == [("a fox", "a red fox"), ("a cat",)]
    assert found[0].caption == "a fox\na red fox"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_files_of_every_editor(picture_folder, encoding):
    (picture_folder / "03.txt").write_bytes("red caf\u00e9\r\n".encode(encoding))
    assert picture_files(picture_folder).files[3].caption == "red caf\u00e9"


def test_a_text_file_in_another_encoding_is_named(picture_folder):
    (picture_folder / "03.txt").write_bytes("red caf\u00e9".encode("latin-1"))
    with pytest.raises(ValueError, match=r"03\.txt:1: wanted UTF-8, got the byte 0xE9"):
        picture_files(picture_folder)


def test_other_files_are_no_pictures(picture_folder):
    (picture_folder / "notes.md").write_text("x")
    (picture_folder / "folder.png").mkdir()
    assert len(picture_files(picture_folder).files) == 13


def test_a_name_that_is_no_utf8_is_left_out_and_named(picture_folder):
    for name in (b"caf\xe9.png", b"old\xff.tmp"):
        (picture_folder / os.fsdecode(name)).write_bytes((picture_folder / "03.png").read_bytes())
    found = picture_files(picture_folder)
    assert len(found.files) == 13
    assert found.unnamed == [rf"{picture_folder.resolve()}/caf\xe9.png"]
    folder = picture_folder.rename(picture_folder.parent / os.fsdecode(b"f\xff"))
    with pytest.raises(ValueError, match=r"f\\xff: wanted a folder whose path is UTF-8"):
        picture_files(folder)


def test_wrong_folders(tmp_path, picture_folder):
    with pytest.raises(FileNotFoundError, match="none: wanted a folder of pictures"):
        picture_files(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: wanted pictures .*, found none"):
        picture_files(tmp_path / "empty")
    write(picture_folder, {"file_name": "gone.png", "text": "gone"})
    with pytest.raises(ValueError, match="found none; 1 are listed and not there.*:1: gone.png"):
        picture_files(picture_folder)
