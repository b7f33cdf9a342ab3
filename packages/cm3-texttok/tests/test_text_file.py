"""Text files of strangers. The same file stands beside each copy of `text_file.py`."""

import json
import os

import pytest
from hypothesis import given, strategies as st

from cm3_texttok.text_file import (
    parse_object,
    place_of,
    read_lines,
    read_objects,
    read_text,
    texts_of,
)

TEXT = "red apple\n\u00e4\u2028\u0085\x0b\x0c\x1c\n\n\U0001f98a fox"
LINES = ["red apple", "\u00e4\u2028\u0085\x0b\x0c\x1c", "", "\U0001f98a fox"]
WIDE = ["utf-16", "utf-32"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", *WIDE])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_lines_end_at_line_feeds_in_every_encoding(tmp_path, encoding, end, last):
    path = tmp_path / "a.txt"
    path.write_bytes((TEXT + last).replace("\n", end).encode(encoding))
    assert list(read_lines(path)) == list(enumerate(LINES, 1))
    assert read_text(path) == TEXT


@pytest.mark.parametrize("mark", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_both_byte_orders(tmp_path, mark):
    path = tmp_path / "a.txt"
    path.write_bytes(("\ufeff" + TEXT).encode(mark))
    assert read_text(path) == TEXT


@given(
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff")),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", *WIDE]),
)
def test_any_text_comes_back(text, encoding, tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "a.txt"
    path.write_bytes(text.encode(encoding))
    assert read_text(path) == text.removesuffix("\n")


def test_errors_send_no_control_character_of_a_name_to_the_terminal(tmp_path):
    path = tmp_path / os.fsdecode(b"b\xff\x1b[31m\nred.jsonl")
    for content in (b"{}\nx", b"{}\n\xff", "{}\n".encode("utf-16") + b"x", b"\0"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="wanted") as caught:
            list(read_objects(path))
        line = 1 if content == b"\0" else 2
        assert rf"/b\xff\x1b[31m\nred.jsonl:{line}: " in str(caught.value)
    assert place_of("stdin", 3) == "stdin:3"


def test_empty_files_have_no_lines(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", *WIDE):
        (tmp_path / "a.txt").write_bytes("".encode(encoding))
        assert list(read_lines(tmp_path / "a.txt")) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"ok\nab\xff", r"a\.txt:2: wanted UTF-8, got the byte 0xFF at column 3"),
        ("ok\ncaf\u00e9".encode("latin-1"), r"a\.txt:2: wanted UTF-8, got the byte 0xE9 at col"),
        (b"\x93quoted\x94", r"a\.txt:1: wanted UTF-8, got the byte 0x93"),
        ("half \ud83d".encode("utf-8", "surrogatepass"), r"a\.txt:1: wanted UTF-8, got the"),
        ("no mark".encode("utf-16-le"), r"a\.txt:1: wanted text, .* got a zero byte"),
        ("no mark".encode("utf-16-be"), r"a\.txt:1: wanted text, .* got a zero byte"),
        ("a\nhalf \ud83d\n".encode("utf-16", "surrogatepass"), r"a\.txt:2: wanted UTF-16, got"),
        ("a\nodd".encode("utf-16")[:-1], r"a\.txt:2: wanted UTF-16, got .*truncated"),
    ],
)
def test_other_encodings_name_file_and_line(tmp_path, content, words):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        list(read_lines(tmp_path / "a.txt"))


def test_reading_is_lazy(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n\xff")
    lines = read_lines(tmp_path / "a.txt")
    assert [next(lines), next(lines)] == [(1, "one"), (2, "two")]


def test_objects_come_with_their_lines(tmp_path):
    path, row = tmp_path / "a.jsonl", {"text": "a\u2028b", "more": [1]}
    path.write_text("\ufeff" + json.dumps(row) + "\n  \n" + json.dumps({}), encoding="utf-8")
    assert list(read_objects(path)) == [(1, row), (3, {})]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "wanted JSON, got: Expecting"),
        ("[1]", "wanted an object, got list"),
        ("[" * 200_000, "wanted JSON, got brackets in too many brackets"),
        ('{"a": ' * 200_000, "wanted JSON, got brackets in too many brackets"),
        ("1" * 5000, "wanted JSON, got: Exceeds the limit"),
        ("NaN", "wanted an object, got float"),
    ],
)
def test_what_is_no_object_names_file_and_line(tmp_path, line, words):
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n" + line)
    with pytest.raises(ValueError, match=rf"a\.jsonl:2: {words}"):
        list(read_objects(path))
    with pytest.raises(ValueError, match=f"here: {words}"):
        parse_object(line.encode(), "here")


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("red", ["red"]), ("", [""]), (None, []), (float("nan"), []), ([], []),
        (["red", None, "blue"], ["red", "blue"]), ("\U0001f98a", ["\U0001f98a"]), ("NA", ["NA"]),
    ],
)  # fmt: skip
def test_a_field_has_none_one_or_several_texts(value, texts):
    assert texts_of(value, "here") == texts


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3, "wanted a string, got int"),
        (True, "wanted a string, got bool"),
        (0.5, "wanted a string, got float"),
        ({"a": 1}, "wanted a string, got dict"),
        (["a", 3], "wanted a string, got int"),
        ("half \ud83d", r"got half a surrogate pair, '\\ud83d', at character 6"),
        (["a", "\udc00 half"], r"got half a surrogate pair, '\\udc00', at character 1"),
    ],
)
def test_what_is_no_text_is_named(value, words):
    with pytest.raises(ValueError, match=f"a.jsonl:7: .*{words}"):
        texts_of(value, "a.jsonl:7")
