import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cm3_retrieval.metadata_file import metadata_files, read_metadata

ROWS = [
    {"file_name": "0.png", "text": "NA"},
    {"file_name": "sub/1.png", "text": 'two\nlines, "quoted"'},
    {"file_name": "2.png", "text": "12"},
]


def write(folder, rows, kind="jsonl", encoding="utf-8"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"metadata.{kind}"
    if kind == "jsonl":
        path.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode(encoding))
    elif kind == "csv":
        cells = [list(rows[0]), *(list(row.values()) for row in rows)]
        quoted = (",".join(f'"{c.replace(chr(34), 2 * chr(34))}"' for c in row) for row in cells)
        path.write_bytes("\r\n".join(quoted).encode(encoding))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def found(folder):
    return [(row.file_name, row.captions) for row in read_metadata(folder)]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_every_kind_says_the_same(tmp_path, kind):
    write(tmp_path, ROWS, kind)
    assert found(tmp_path) == [(row["file_name"], [row["text"]]) for row in ROWS]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_of_encodings(tmp_path, kind, encoding):
    write(tmp_path, [{"file_name": "0.png", "text": "caf\u00e9"}], kind, encoding)
    assert found(tmp_path) == [("0.png", ["caf\u00e9"])]


def test_paths_are_relative_to_the_metadata(tmp_path):
    write(tmp_path, [{"file_name": "0.png", "text": "a"}])
    write(tmp_path / "train", [{"file_name": "0.png", "text": "b"}])
    write(tmp_path / "test/more", [{"file_name": "x/0.png", "text": "c"}])
    assert found(tmp_path) == [
        ("0.png", ["a"]), ("test/more/x/0.png", ["c"]), ("train/0.png", ["b"])
    ]  # fmt: skip


def test_one_path_has_one_name(tmp_path):
    names = ["0.png", "./0.png", ".//0.png", "sub\\1.png", "./sub/./1.png", ".\\sub\\1.png"]
    write(tmp_path, [{"file_name": name} for name in names])
    assert [row.file_name for row in read_metadata(tmp_path)] == ["0.png"] * 3 + ["sub/1.png"] * 3
    (tmp_path / "sub\\1.png").touch()  # on this system the name of a file
    assert [row.file_name for row in read_metadata(tmp_path)][3] == "sub\\1.png"


@pytest.mark.parametrize(
    ("fields", "captions"),
    [
        ({}, []),
        ({"text": None}, []),
        ({"text": float("nan")}, []),
        ({"text": ""}, []),
        ({"text": " \n"}, []),
        ({"text": []}, []),
        ({"text": " a "}, ["a"]),
        ({"text": ["a", None, "", "b"]}, ["a", "b"]),
        ({"caption": "a"}, ["a"]),
        ({"text": None, "caption": "a"}, ["a"]),
        ({"text": "a", "caption": "b"}, ["a"]),
        ({"text": "a\u2028\u0085b"}, ["a\u2028\u0085b"]),
    ],
)
def test_a_picture_has_no_caption_one_or_several(tmp_path, fields, captions):
    path = tmp_path / "metadata.jsonl"
    path.write_text(json.dumps({"file_name": "0.png", **fields}, ensure_ascii=False), "utf-8")
    assert found(tmp_path) == [("0.png", captions)]


def test_a_column_of_pictures_may_have_a_name(tmp_path):
    write(tmp_path, [{"image_file_name": "0.png", "text": "a"}], "csv")
    assert found(tmp_path) == [("0.png", ["a"])]


def test_of_several_columns_of_pictures_the_wanted_one_counts(tmp_path):
    write(tmp_path, [{"a_file_name": "0.png", "b_file_name": "1.png"}, {"c_file_name": "2.png"}])
    rows = read_metadata(tmp_path, columns=("b_file_name", "a_file_name"))
    assert [row.file_name for row in rows] == ["1.png", "2.png"]


@pytest.mark.parametrize(
    "name", ["/0.png", "../0.png", "a/../../0.png", "a\\..\\0.png", "C:\\0.png", "\\0.png",
             "http://a.org/0.png", "file:///0.png"],
)  # fmt: skip
def test_paths_out_of_the_folder_are_refused(tmp_path, name):
    write(tmp_path, [{"file_name": "0.png"}, {"file_name": name}])
    with pytest.raises(ValueError, match=r"metadata\.jsonl:2: 'file_name': wanted a path inside"):
        list(read_metadata(tmp_path))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("not json", "wanted JSON"),
        ("[1]", "wanted an object, got list"),
        ("[" * 200_000, "wanted JSON, got brackets in too many brackets"),
        ('{"text": "no name"}', r"wanted the field 'file_name', got \['text'\]"),
        ('{"a_file_name": "0.png", "b_file_name": "1.png"}', "wanted the field 'file_name'"),
        ('{"file_name": null}', "'file_name': wanted a path, got None"),
        ('{"file_name": 3}', "'file_name': wanted a path, got 3"),
        (r'{"file_name": "caf\udce9.png"}', "'file_name': .*half a surrogate pair"),
        ('{"file_name": "0.png", "text": 3}', "'text': wanted a string, got int"),
        (r'{"file_name": "0.png", "text": "half \ud83d"}', "'text': .*half a surrogate pair"),
        (r'{"file_name": "0.png", "caption": ["\udc00"]}', "'caption': .*half a surrogate pair"),
    ],
)
def test_wrong_lines_are_named(tmp_path, line, words):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png"}\n' + line)
    with pytest.raises(ValueError, match=rf"metadata\.jsonl:2: {words}"):
        found(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("metadata.csv", b"file_name,text\n0.png,a\n1.png\n", "metadata.csv:3: wanted 2 cells"),
        ("metadata.csv", b"file_name,text\n0.png,a,b\n", "metadata.csv:2: wanted 2 cells"),
        ("metadata.csv", b"name,text\n0.png,a\n", "metadata.csv:2: wanted the field 'file_name'"),
        ("metadata.csv", b'file_name,text\n0.png,"a"b\n', "metadata.csv:2: wanted CSV"),
        ("metadata.csv", b"file_name\ncaf\xe9.png\n", "metadata.csv:2: wanted UTF-8"),
        ("metadata.jsonl", b'{"file_name": "caf\xe9.png"}', "metadata.jsonl:1: wanted UTF-8"),
        ("metadata.parquet", b"PAR1" * 10, "metadata.parquet: wanted a Parquet file"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        found(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", "file_name,text\n0.png"),
        ("metadata.csv", 'file_name\n"a"b'),
        ("metadata.csv", "file_name\n../0.png"),
        ("metadata.jsonl", '\n{"file_name": "0.png", "text": 3}'),
    ],
)
def test_errors_send_no_control_character_of_a_folder_to_the_terminal(tmp_path, name, content):
    folder = tmp_path / "\x1b[31m\nred"
    folder.mkdir()
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match="wanted") as caught:
        found(folder)
    assert rf"/\x1b[31m\nred/{name}:2: " in str(caught.value)


def test_a_folder_has_metadata_of_one_kind(tmp_path):
    write(tmp_path, ROWS)
    write(tmp_path / "sub", ROWS)
    (tmp_path / "my-metadata.csv").touch()
    assert len(metadata_files(tmp_path)) == 2
    write(tmp_path / "sub", ROWS, "csv")
    with pytest.raises(ValueError, match=r"sub/metadata\.csv: wanted metadata of one kind"):
        metadata_files(tmp_path)


def test_subfolders_with_a_mark_do_not_count(tmp_path):
    for folder in (tmp_path, tmp_path / "sub", tmp_path / "runs/tiny/data"):
        write(folder, ROWS[:1])
    for folder in (tmp_path, tmp_path / "runs/tiny/data"):
        (folder / "stage.json").touch()
    assert len(metadata_files(tmp_path)) == 3
    rows = [row.file_name for row in read_metadata(tmp_path, unless="stage.json")]
    assert rows == ["0.png", "sub/0.png"]
    assert len(list(read_metadata(tmp_path / "runs/tiny/data", unless="stage.json"))) == 1


def test_names_that_are_no_utf8_disturb_nothing(tmp_path):
    write(tmp_path, ROWS)
    (tmp_path / os.fsdecode(b"old\xff.tmp")).touch()
    assert len(found(tmp_path)) == 3


def test_lines_that_cannot_be_used_are_told_and_the_others_read(tmp_path):
    lines = ['{"file_name": "0.png"}', "no json", '{"file_name": "../1.png"}', '{"text": "a"}']
    (tmp_path / "metadata.jsonl").write_text("\n".join([*lines, '{"file_name": "4.png"}']))
    told = []
    rows = list(read_metadata(tmp_path, refused=lambda *place: told.append(place)))
    assert [row.file_name for row in rows] == ["0.png", "4.png"]
    assert [(path.name, number) for path, number, _ in told] == [
        ("metadata.jsonl", number) for number in (2, 3, 4)
    ]
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.csv").write_text("file_name,text\n0.png,a\n1.png\n2.png,c\n")
    rows = list(read_metadata(tmp_path, refused=lambda *place: told.append(place)))
    assert [row.captions for row in rows] == [["a"], ["c"]]
    assert told[-1][1] == 3 and "wanted 2 cells" in str(told[-1][2])
