import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from cm3_retrieval.contact_sheet import text_table, write_contact_sheet


def test_the_table_has_a_line_for_each_document():
    documents = [
        {"key": 7, "caption": "two\nlines", "path": "/a/b.png"},
        {"key": 2**60, "caption": None},
    ]
    head, first, second = text_table(documents, [0.98765, -0.5]).splitlines()
    assert head.split() == ["score", "key", "document"]
    assert first.split() == ["1", "0.9877", "7", "two", "lines", "/a/b.png"]
    assert second.split() == ["2", "-0.5000", str(2**60)]
    assert text_table([], []).splitlines() == [head]


def test_the_page_shows_each_picture_with_its_score(picture_folder, pictures, tmp_path):
    documents = [
        {"key": row, "caption": f"caption {row}", "path": str(picture_folder / f"{row:02}.png")}
        for row in range(3)
    ]
    page = tmp_path / "found.html"
    write_contact_sheet(page, "a title", documents, [0.5, 0.25, 0.125])
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"base64,([A-Za-z0-9+/=]+)'", text)
    for data, picture in zip(shown, pictures, strict=False):
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        np.testing.assert_array_equal(np.asarray(image), picture)  # 64 pixels: not scaled
    assert len(shown) == 3 and re.findall(r"<b>(\S+)</b>", text) == ["0.5000", "0.2500", "0.1250"]
    assert "src='/" not in text and "http" not in text  # needs no other file


def test_what_a_user_typed_stays_text(tmp_path):
    evil = "<script>alert('1')</script>\ud800"
    page = tmp_path / "found.html"
    write_contact_sheet(page, evil, [{"key": 1, "caption": evil, "path": f"/{evil}.png"}], [1.0])
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)
    parser.feed(page.read_text(encoding="utf-8"))
    assert "script" not in tags and "h1" in tags
    assert "cannot be shown" in page.read_text(encoding="utf-8")


def test_large_pictures_are_scaled_and_files_replaced_whole(tmp_path):
    picture = tmp_path / "large.png"
    Image.new("RGB", (1000, 500), "red").save(picture)
    page = tmp_path / "found.html"
    for title in ("old", "new"):
        write_contact_sheet(page, title, [{"key": 1, "path": str(picture)}], [1.0])
    text = page.read_text(encoding="utf-8")
    (data,) = re.findall(r"base64,([A-Za-z0-9+/=]+)'", text)
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (224, 112)
    assert "old" not in text and sorted(p.name for p in tmp_path.iterdir()) == [
        "found.html", "large.png",
    ]  # fmt: skip
