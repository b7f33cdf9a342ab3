import json
import sys

import pytest
from hypothesis import given, strategies as st

from cm3_texttok import TextTokenizer, read_texts

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

TEXTS = ["a red apple", "two\nlines", "caf\u00e9 \U0001f98a", "  spaces  "]


def write_jsonl(path, texts, field="text"):
    path.write_text("".join(json.dumps({"id": 1, field: text}) + "\n" for text in texts))
    return path


def write_parquet(path, texts, field="text", **settings):
    pq.write_table(pa.table({"id": list(range(len(texts))), field: texts}), path, **settings)
    return path


def test_every_format_gives_its_texts_in_order(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone line\r\n\n   \nan\u00f6ther".encode())
    paths = [
        tmp_path / "a.txt",
        write_jsonl(tmp_path / "b.jsonl", TEXTS),
        write_parquet(tmp_path / "c.parquet", TEXTS),
    ]
    assert list(read_texts(paths)) == ["one line", "an\u00f6ther", *TEXTS, *TEXTS]


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_any_text_comes_back_from_json_and_parquet(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    paths = [write_jsonl(folder / "b.jsonl", texts)]
    paths += [write_parquet(folder / "c.parquet", texts)] if texts else []
    assert list(read_texts(paths)) == texts * len(paths)


def test_named_field_and_column(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", ["x"], "caption")
    write_parquet(tmp_path / "a.parquet", ["y"], "caption")
    paths = [tmp_path / "a.jsonl", tmp_path / "a.parquet"]
    assert list(read_texts(paths, field="caption")) == ["x", "y"]


def test_reading_is_lazy(tmp_path):
    """A broken end does not hinder the start, so no file is read as a whole."""
    path = write_jsonl(tmp_path / "a.jsonl", ["x", "y"])
    path.write_text(path.read_text() + "{")
    texts = read_texts([path])
    assert [next(texts), next(texts)] == ["x", "y"]
    with pytest.raises(ValueError, match=r"a\.jsonl:3: wanted JSON, got: "):
        next(texts)


def test_rows_are_counted_across_batches(tmp_path):
    texts = [str(n) for n in range(200_000)]
    assert list(read_texts([write_parquet(tmp_path / "a.parquet", texts)])) == texts
    assert list(read_texts([write_parquet(tmp_path / "b.parquet", [*texts, None])])) == texts


def test_null_is_no_text_and_a_list_is_several(tmp_path):
    cells = [["red", "blue"], None, ["fox"], [None]]
    paths = [write_jsonl(tmp_path / "a.jsonl", [*cells, float("nan")])]
    paths += [write_parquet(tmp_path / "a.parquet", cells)]
    assert list(read_texts(paths)) == ["red", "blue", "fox"] * 2


def test_half_a_surrogate_pair_is_named_by_file_and_line(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ["x"] * 1500 + ["half \ud83d"])
    with pytest.raises(ValueError, match=r"a\.jsonl:1501: field 'text': .*half a surrogate pair"):
        TextTokenizer.train(read_texts([path]), vocab_size=290)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"ok\nab\xff", "a.txt:2: wanted UTF-8, got the byte 0xFF at column 3"),
        ("a.jsonl", b'{"text": "x"}\n\n{"text"', "a.jsonl:3: wanted JSON"),
        ("a.jsonl", b"[1]", "a.jsonl:1: wanted an object, got list"),
        ("a.jsonl", b'{"b": 1, "a": 2}', r"a.jsonl:1: wanted the field 'text', got \['a', 'b'\]"),
        ("a.jsonl", b'{"text": 3}', "a.jsonl:1: field 'text': wanted a string, got int"),
        ("a.jsonl", b"[" * 200_000, "a.jsonl:1: wanted JSON, got brackets in too many brackets"),
        ("a.parquet", b"", "a.parquet: wanted a Parquet file"),
        ("a.parquet", b"PAR1" * 10, "a.parquet: wanted a Parquet file"),
        ("a.csv", b"x", "a.csv: wanted a file that ends in one of .txt, .jsonl, .parquet"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        list(read_texts([tmp_path / name]))


def test_other_columns_are_named(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", ["x"], "caption")
    with pytest.raises(ValueError, match=r"wanted the column 'text', got \['id', 'caption'\]"):
        list(read_texts([path]))
    with pytest.raises(ValueError, match="column 'id': wanted strings, got int64"):
        list(read_texts([path], field="id"))


def test_paths_are_looked_at_before_the_first_text(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"b\.txt: wanted a file, got none"):
        read_texts([tmp_path / "a.txt", tmp_path / "b.txt"])
    with pytest.raises(TypeError, match="paths: wanted paths in a list"):
        read_texts(str(tmp_path / "a.txt"))


def test_missing_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", ["x"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'cm3-texttok\[parquet\]'"):
        list(read_texts([path]))


def test_training_from_files_equals_training_from_texts(tmp_path):
    texts = ["red apple", "green apple", "red fox"] * 10
    (tmp_path / "a.txt").write_text("\n".join(texts))
    wanted = TextTokenizer.train(texts, vocab_size=290).model_bytes
    for path in (
        tmp_path / "a.txt",
        write_jsonl(tmp_path / "a.jsonl", texts),
        write_parquet(tmp_path / "a.parquet", texts),
    ):
        assert TextTokenizer.train(read_texts([path]), vocab_size=290).model_bytes == wanted
