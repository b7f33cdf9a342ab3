"""Readers of raw pairs, on records in the true form of those who write them."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cm3leon.preparation import image_folder
from cm3leon.preparation.source import Record, Unusable, open_source


def jpeg(seed: int = 0, size: tuple[int, int] = (12, 9)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg")
    return file.getvalue()


def write_tar(path, members) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def described(number: int, **more) -> bytes:
    """The JSON that img2dataset puts beside a picture."""
    facts = {
        "caption": f"caption {number}", "url": f"https://a.org/{number}.jpg", "key": f"{number:09}",
        "status": "success", "error_message": None, "width": 12, "height": 9,
        "original_width": 48, "original_height": 36, "exif": "{}", "sha256": "0" * 64,
    }  # fmt: skip
    return json.dumps({**facts, **more}).encode()


def read(folder, work):
    """All records as (name, captions, bytes), and all that cannot be used."""
    source, good, bad = open_source(folder, work), [], []
    for shard in source.shards():
        for found in source.read(shard):
            if isinstance(found, Record):
                good.append((found.row.file_name, found.row.captions, found.read()))
            else:
                bad.append(found)
    return good, bad


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "raw"
    place.mkdir()
    return place


def test_members_of_a_tar_may_stand_in_any_order(folder, tmp_path):
    pictures = [jpeg(number) for number in range(3)]
    members = [
        ("000000002.json", described(2)),
        ("000000000.jpg", pictures[0]),
        ("000000001.txt", b"12"),  # a caption of digits stays text
        ("000000002.jpg", pictures[2]),
        ("000000000.txt", b"NA"),
        ("000000001.jpg", pictures[1]),
        ("000000001.json", described(1)),
        ("000000000.json", described(0)),
    ]
    write_tar(folder / "00000.tar", members)
    pq.write_table(pa.table({"key": ["000000003"], "status": ["failed_to_download"]}),
                   folder / "00000.parquet")  # fmt: skip
    (folder / "00000_stats.json").write_text(json.dumps({"count": 4, "successes": 3}))
    assert [shard.rows for shard in open_source(folder, tmp_path).shards()] == [3]
    good, bad = read(folder, tmp_path)
    assert bad == []
    assert good == [
        ("00000.tar/000000002", ["caption 2"], pictures[2]),  # no .txt: the JSON's caption
        ("00000.tar/000000000", ["NA"], pictures[0]),
        ("00000.tar/000000001", ["12"], pictures[1]),
    ]


def test_a_picture_without_a_caption_keeps_none(folder, tmp_path):
    write_tar(folder / "0.tar", [("0.jpg", jpeg()), ("0.txt", b" \n"), ("1.png", jpeg(1))])
    assert [captions for _, captions, _ in read(folder, tmp_path)[0]] == [[], []]


@pytest.mark.parametrize("name", ["../0.jpg", "/etc/0.jpg", "a/../../0.jpg", "C:\\0.jpg"])
def test_names_that_lead_out_of_a_tar_are_refused(folder, tmp_path, name):
    write_tar(folder / "0.tar", [(name, jpeg()), ("1.jpg", jpeg(1))])
    good, bad = read(folder, tmp_path)
    assert [name for name, _, _ in good] == ["0.tar/1"]
    assert [(b.file, b.key) for b in bad] == [("0.tar", name)] and "inside" in bad[0].reason


def test_a_name_that_is_no_utf8_is_refused(folder, tmp_path):
    write_tar(
        folder / "0.tar", [("caf\udce9.jpg", jpeg()), ("caf\udce9.txt", b"a"), ("1.jpg", b"")]
    )
    good, bad = read(folder, tmp_path)
    assert [name for name, _, _ in good] == ["0.tar/1"]
    assert [b.key for b in bad] == ["caf\udce9.jpg", "caf\udce9.txt"]
    assert all("wanted Unicode" in b.reason for b in bad)


def test_a_link_in_a_tar_is_not_followed(folder, tmp_path):
    with tarfile.open(folder / "0.tar", "w") as archive:
        info = tarfile.TarInfo("0.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    good, bad = read(folder, tmp_path)
    assert good == [] and "link" in bad[0].reason


def test_texts_without_a_picture_and_a_broken_description(folder, tmp_path):
    write_tar(folder / "0.tar", [("0.txt", b"a"), ("1.jpg", jpeg()), ("1.json", b"{")])
    good, bad = read(folder, tmp_path)
    assert good == []
    assert [b.key for b in bad] == ["0", "1"]
    assert "texts alone" in bad[0].reason and "wanted JSON" in bad[1].reason


def test_a_tar_that_is_cut_off_gives_what_is_whole(folder, tmp_path):
    members = [(f"{n}.{e}", c) for n in range(4) for e, c in (("txt", b"a"), ("jpg", jpeg(n)))]
    write_tar(folder / "whole.tar", members)
    content = (folder / "whole.tar").read_bytes()
    (folder / "whole.tar").unlink()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        last = archive.getmember("3.jpg")
    places = {
        "in a picture": (last.offset_data + 10, 3, "1"),
        "in a header": (last.offset + 100, 3, "2"),
        "between two members": (last.offset, 3, "3"),
    }
    for cut, whole, name in places.values():
        place = tmp_path / f"cut {name}"
        place.mkdir()
        (place / "0.tar").write_bytes(content[:cut])
        good, bad = read(place, tmp_path)
        assert len(good) == whole
        assert any("cut off" in b.reason and b.key in ("", "3.jpg") for b in bad)


def test_a_tar_that_img2dataset_has_not_finished_is_left_out(folder, tmp_path):
    for name in ("00000", "00002"):  # numbers may have gaps
        write_tar(folder / f"{name}.tar", [("0.jpg", jpeg()), ("0.txt", b"a")])
    (folder / "00000_stats.json").write_text("{}")
    good, bad = read(folder, tmp_path)
    assert [name for name, _, _ in good] == ["00000.tar/0"]
    assert [b.file for b in bad] == ["00002.tar"] and "00002_stats.json" in bad[0].reason


def test_parquet_of_img2dataset_leaves_failed_rows_out(folder, tmp_path):
    pictures = [jpeg(0), None, jpeg(2), None]
    table = {
        "caption": ["NA", "gone", "12", "no picture"],
        "url": [f"https://a.org/{n}.jpg" for n in range(4)],
        "key": [f"{n:09}" for n in range(4)],
        "status": ["success", "failed_to_download", "success", "success"],
        "exif": ["{}", None, "{}", "{}"],
        "jpg": pa.array(pictures, pa.binary()),
    }
    pq.write_table(pa.table(table), folder / "00000.parquet", row_group_size=2)
    source = open_source(folder, tmp_path)
    assert [(shard.part, shard.rows) for shard in source.shards()] == [(0, 2), (1, 2)]
    good, bad = read(folder, tmp_path)
    assert good == [
        ("00000.parquet/1", ["NA"], pictures[0]),
        ("00000.parquet/3", ["12"], pictures[2]),
    ]
    assert bad == [Unusable(file="00000.parquet", key="row 4",
                            reason="wanted the bytes of a picture, got none")]  # fmt: skip


def test_parquet_of_hugging_face_has_structs(folder, tmp_path):
    rows = [{"image": {"bytes": jpeg(0), "path": None}, "text": ["a", "b"], "mask": b"no"}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    assert read(folder, tmp_path)[0] == [("a.parquet/1", ["a", "b"], jpeg(0))]


def test_of_parquet_only_the_caption_that_is_no_utf8_is_lost(folder, tmp_path):
    captions = pa.array([b"caf\xe9" if n == 70 else b"a" for n in range(200)]).view(pa.string())
    table = pa.table({"image": [b"p"] * 200, "text": captions})
    pq.write_table(table, folder / "a.parquet", row_group_size=150)
    good, bad = read(folder, tmp_path)
    assert [name for name, _, _ in good] == [f"a.parquet/{n}" for n in range(1, 201) if n != 71]
    assert [b.key for b in bad] == ["row 71"] and "utf-8" in bad[0].reason


@pytest.mark.parametrize("page", [0, 2])
def test_of_a_damaged_page_all_rows_that_cannot_be_read_are_counted(folder, tmp_path, page):
    rows, path = 400, folder / "a.parquet"
    pictures = [b"%03d!" % n * 25 for n in range(rows)]
    pq.write_table(
        pa.table({"image": pictures, "text": ["a"] * rows}), path, row_group_size=rows // 2,
        compression="none", use_dictionary=False, data_page_size=4000, write_batch_size=20,
    )  # fmt: skip
    content = path.read_bytes()
    place = content.index(pictures[page * 40]) - 60  # the page's header and more
    path.write_bytes(content[:place] + b"\xff" * 60 + content[place + 60 :])
    good, bad = read(folder, tmp_path)
    assert len(good) + len(bad) == rows and len(good) >= rows // 2
    assert len({b.key for b in bad}) == len(bad) > 100
    assert all(b.key.startswith("row group 0, row ") for b in bad)


def test_parquet_without_pictures_is_refused(folder, tmp_path):
    pq.write_table(pa.table({"caption": ["a"]}), folder / "a.parquet")
    with pytest.raises(ValueError, match="a.parquet: wanted a column of pictures' bytes"):
        open_source(folder, tmp_path).shards()
    (folder / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="a.parquet: wanted a Parquet file"):
        open_source(folder, tmp_path).shards()


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_an_imagefolder_is_cut_into_ranges(folder, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(image_folder.ImageFolder.__init__, "__defaults__", (3,))
    rows = [{"file_name": f"{n}.jpg", "text": "NA" if n else "12"} for n in range(7)]
    for place in (folder, folder / "sub"):
        place.mkdir(exist_ok=True)
        for row in rows:
            (place / row["file_name"]).write_bytes(jpeg(int(row["file_name"][0])))
        if kind == "jsonl":
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (place / "metadata.jsonl").write_text(text)
        elif kind == "csv":
            text = "".join(f"{row['file_name']},{row['text']}\n" for row in rows)
            (place / "metadata.csv").write_text("file_name,text\n" + text)
        else:
            pq.write_table(pa.Table.from_pylist(rows), place / "metadata.parquet")
    shards = open_source(folder, tmp_path).shards()
    assert [shard.rows for shard in shards] == [3, 3, 3, 3, 2]
    good, bad = read(folder, tmp_path)
    assert bad == []
    names = [f"{n}.jpg" for n in range(7)]
    assert [name for name, _, _ in good] == [*names, *(f"sub/{name}" for name in names)]
    assert [captions[0] for _, captions, _ in good] == ["12", *["NA"] * 6] * 2
    assert open_source(folder, tmp_path).shards() == shards  # noted, not read again


def test_lines_that_cannot_be_used_are_told_in_their_place(folder, tmp_path):
    (folder / "0.jpg").write_bytes(jpeg())
    lines = ['{"file_name": "0.jpg", "text": ["a", "b"]}', "no json", '{"file_name": "../1.jpg"}',
             '{"file_name": "missing.jpg", "text": "c"}']  # fmt: skip
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    source = open_source(folder, tmp_path)
    (shard,) = source.shards()
    found = list(source.read(shard))
    assert [getattr(f, "key", "") for f in found] == ["", "line 2", "line 3", ""]
    assert isinstance(found[0], Record) and found[0].row.captions == ["a", "b"]
    assert isinstance(found[3], Record)
    with pytest.raises(FileNotFoundError):
        found[3].read()


def test_a_folder_of_nothing_is_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"wanted metadata.jsonl, .*, \*.tar or \*.parquet"):
        open_source(folder, tmp_path)
    with pytest.raises(FileNotFoundError, match="wanted a folder of raw pairs, got none"):
        open_source(folder / "no", tmp_path)
