import json

import pytest

from cm3_retrieval.clip.picture_folder import picture_files


def test_captions_come_from_text_files_beside_the_pictures(picture_folder, captions):
    files = picture_files(picture_folder)
    assert [file.caption for file in files] == [*captions, None]
    assert all(file.path.is_absolute() and file.path.is_file() for file in files)
    assert [file.path.name for file in files] == sorted(file.path.name for file in files)


def test_captions_listed_in_metadata_go_first(picture_folder, captions):
    rows = [
        {"file_name": "more/plain.png", "text": "plain"},
        {"file_name": "03.png", "caption": "listed"},
        {"file_name": "04.png", "text": ""},
    ]
    listed = "\n\n".join(json.dumps(row) for row in rows)
    (picture_folder / "metadata.jsonl").write_text(listed, encoding="utf-8")
    found = {file.path.name: file.caption for file in picture_files(picture_folder)}
    assert found["plain.png"] == "plain" and found["03.png"] == "listed"
    assert found["04.png"] is None and found["05.png"] == captions[5]


def test_other_files_are_no_pictures(picture_folder):
    (picture_folder / "notes.md").write_text("x")
    (picture_folder / "folder.png").mkdir()
    assert len(picture_files(picture_folder)) == 13


def test_wrong_folders(tmp_path, picture_folder):
    with pytest.raises(FileNotFoundError, match="none: wanted a folder of pictures"):
        picture_files(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: wanted pictures .*, found none"):
        picture_files(tmp_path / "empty")
    for line in ("not json", "[1]", '{"text": "no name"}'):
        (picture_folder / "metadata.jsonl").write_text('{"file_name": "a.png"}\n' + line)
        with pytest.raises(ValueError, match=r"metadata.jsonl, line 2: wanted"):
            picture_files(picture_folder)
