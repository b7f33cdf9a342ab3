import json
import os
import resource

import numpy as np
import pyarrow as pa
import pytest

from cm3_train import TokenShards, seal_shards, shard_files, write_shard, write_shards


def rows(count=10, views=1, codes=6):
    rng = np.random.default_rng(0)
    for view in range(views):
        for n in range(count):
            yield {
                "key": (n * 37) % 101,
                "view": view,
                "text_ids": list(range(n)),
                "codes": rng.integers(0, 9000, codes).tolist(),
                "caption": f"picture {n} é",
                "source": "made",
                "licence": "CC0" if n % 2 else "",
            }


def write(folder, given=None, **changes):
    options = {"codes_per_image": 6, "vocabulary_sha256": "abc", "rows_per_shard": 4, **changes}
    return write_shards(rows() if given is None else given, folder, **options)


def files_of(folder):
    return sorted(folder.glob("shard-*.arrow"))


def test_round_trip_over_shards_and_views(tmp_path):
    given = list(rows(views=3))
    write(tmp_path, given)
    shards = TokenShards(tmp_path, "abc")
    assert shards.keys.dtype == np.int64
    assert shards.keys.tolist() == [row["key"] for row in given[:10]]  # file order
    assert len(shards) == 10
    for row in given:
        assert shards.num_views(row["key"]) == 3
        assert shards.codes(row["key"], row["view"]).tolist() == row["codes"]
        assert shards.text_ids(row["key"]).tolist() == row["text_ids"]
        assert shards.caption(row["key"]) == row["caption"]
        assert shards.source(row["key"]) == "made"
        assert shards.licence(row["key"]) == row["licence"]
    assert shards.codes(0).dtype == shards.text_ids(0).dtype == np.uint16


def test_columns_are_mapped_not_copied(tmp_path):
    write(tmp_path)
    before = pa.total_allocated_bytes()
    shards = TokenShards(tmp_path)
    assert not shards.codes(0).flags.owndata
    assert pa.total_allocated_bytes() - before < 1000


def test_any_reader_of_arrow_reads_the_files(tmp_path):
    write(tmp_path)
    table = pa.ipc.open_file(files_of(tmp_path)[0]).read_all()
    assert table.schema.field("key").type == pa.int64()
    assert table.schema.field("view").type == pa.uint16()
    assert table.schema.field("text_ids").type == pa.list_(pa.uint16())
    assert table.schema.field("codes").type == pa.list_(pa.uint16(), 6)


def test_fewer_shards_replace_more(tmp_path):
    write(tmp_path, rows_per_shard=2)
    assert len(files_of(tmp_path)) == 5
    write(tmp_path, rows_per_shard=10)
    (file,) = files_of(tmp_path)
    entry = json.loads((tmp_path / "manifest.json").read_text())["files"][0]
    assert entry["name"] == file.name == f"shard-00000-{entry['sha256'][:12]}.arrow"
    assert len(list(tmp_path.iterdir())) == 3  # the shard, the index, the manifest


@pytest.mark.parametrize("good", [0, 3, 4, 9])  # before a file, in one, after one, in the last
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_call_that_fails_leaves_the_earlier_set(tmp_path, good, error):
    def broken():
        yield from rows(good, codes=6)
        raise error("the reader failed")

    given = list(rows(views=2))
    write(tmp_path, given)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(error):
        write(tmp_path, broken())
    with pytest.raises(ValueError, match="codes: wanted 6"):  # a row that does not fit
        write(tmp_path, [*given[:good], {**given[good], "codes": [1]}])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert TokenShards(tmp_path).codes(given[-1]["key"], 1).tolist() == given[-1]["codes"]


def test_a_killed_call_leaves_the_earlier_set_and_the_next_one_clears_up(tmp_path, monkeypatch):
    write(tmp_path)
    old = set(files_of(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(shard_files, "write_json", lambda *_: os._exit(9))
        child = os.fork()
        if child == 0:
            write(tmp_path, list(rows(7)), rows_per_shard=7)
        assert os.waitpid(child, 0)[1] == 9 << 8
    assert len(files_of(tmp_path)) == len(old) + 1
    assert len(TokenShards(tmp_path)) == 10  # the earlier set
    write(tmp_path, list(rows(3)))
    assert len(files_of(tmp_path)) == 1 and len(TokenShards(tmp_path)) == 3


def test_refuses_damage_and_strangers(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match="vocabulary xyz"):
        TokenShards(tmp_path, "xyz")
    manifest = (tmp_path / "manifest.json").read_text()
    for text in ("", "[" * 100_000):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json: wanted JSON"):
            TokenShards(tmp_path)
    (tmp_path / "manifest.json").write_text(manifest)
    shard = files_of(tmp_path)[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=rf"shard-00001-.*: damaged: wanted {len(whole)} bytes"):
        TokenShards(tmp_path)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="shard-00001"):
        TokenShards(tmp_path)


def read_all(folder):
    shards = TokenShards(folder)
    return [
        (shards.text_ids(key, view).tolist(), shards.codes(key, view).tolist())
        for key in (row["key"] for row in rows())
        for view in range(shards.num_views(key))
    ]


def test_a_flipped_bit_is_found_when_it_is_read_or_hurts_nothing(tmp_path):
    """Every fifth byte of a small set: what is read is what was written, or an error."""
    write(tmp_path, list(rows(views=2))[:13], rows_per_shard=7)
    wanted = read_all(tmp_path)
    refused = 0
    for path in sorted(tmp_path.glob("*.arrow")):
        whole = path.read_bytes()
        for place in range(0, len(whole), 5):
            path.write_bytes(bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]))
            try:
                assert read_all(tmp_path) == wanted, (path.name, place)
            except (ValueError, KeyError, IndexError):
                refused += 1
            with pytest.raises(ValueError, match=f"{path.name}: damaged"):
                TokenShards(tmp_path).check_files()
        path.write_bytes(whole)
    assert refused > 100
    TokenShards(tmp_path).check_files()


def test_damage_to_codes_and_ids_names_file_and_key(tmp_path):
    write(tmp_path)
    for column in ("codes", "text_ids"):
        for path in files_of(tmp_path):
            table = pa.ipc.open_file(path).read_all()
            flat = table.column(column).combine_chunks().flatten().to_numpy()
            where = path.read_bytes().find(flat.tobytes())
            with open(path, "r+b") as file:
                file.seek(where + 2)
                byte = file.read(1)[0]
                file.seek(where + 2)
                file.write(bytes([byte ^ 1]))
        with pytest.raises(
            ValueError, match=rf"shard-00001-.*: damaged: wanted the {column} of key"
        ):
            getattr(TokenShards(tmp_path), column)(rows_at(4)["key"])


def rows_at(place):
    return list(rows())[place]


def test_opening_reads_the_manifest_alone(tmp_path):
    """Shards are opened when they are read, and no file stays open: 1,000 of them are as one."""
    write(tmp_path, rows_per_shard=1)
    opened = len(os.listdir("/proc/self/fd"))
    for path in files_of(tmp_path)[1:]:
        path.write_bytes(b"x" * path.stat().st_size)
    shards = TokenShards(tmp_path)
    assert shards.codes(rows_at(0)["key"]).tolist() == rows_at(0)["codes"]
    assert len(os.listdir("/proc/self/fd")) == opened
    with pytest.raises(ValueError, match="shard-00001-.*: damaged: wanted an Arrow file"):
        shards.codes(rows_at(1)["key"])


def test_files_that_processes_wrote_apart_make_the_same_set(tmp_path):
    given = list(rows())
    write(tmp_path / "one", given, rows_per_shard=4)
    parts = [given[:4], given[4:8], given[8:]]
    numbers = [2, 0, 1]  # in any order
    entries = {n: write_shard(parts[n], tmp_path / "apart", n, 6) for n in numbers}
    (tmp_path / "apart" / "shard-00009-stale.arrow").write_bytes(b"")
    options = {"codes_per_image": 6, "vocabulary_sha256": "abc"}
    seal_shards(tmp_path / "apart", [entries[n] for n in range(3)], **options)
    one, apart = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "apart")
    )
    assert one == apart


def test_an_earlier_layout_is_refused(tmp_path):
    path = write(tmp_path)
    manifest = json.loads(path.read_text())
    del manifest["layout"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="wanted shards of layout 2, got 1; write them again"):
        TokenShards(tmp_path)


@pytest.mark.parametrize(("field", "value"), [("interface_version", "2.0"), ("component", "other")])
def test_refuses_another_version_or_component(tmp_path, field, value):
    path = write(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(ValueError, match=f"{value}"):
        TokenShards(tmp_path)


def test_unfinished_folder(tmp_path):
    def broken():
        yield from rows(8)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write(tmp_path, broken())
    with pytest.raises(FileNotFoundError, match="never finished"):
        TokenShards(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": [1, 2]}, "row 0: codes: wanted 6, got 2"),
        ({"codes": [70000] * 6}, r"row 0: codes: wanted 0\.\.65535"),
        ({"text_ids": [-1]}, "row 0: text_ids"),
        ({"text_ids": [0.5]}, "row 0: text_ids: wanted a flat list of ints"),
        ({"colour": 1}, "colour"),
        ({"key": 1.7}, "row 0: key: wanted an integer, got 1.7"),
        ({"key": 2.0}, "row 0: key: wanted an integer, got 2.0"),
        ({"key": "3"}, "row 0: key: wanted an integer"),
        ({"key": True}, "row 0: key: wanted an integer"),
        ({"key": None}, "row 0: key: wanted an integer"),
        ({"key": np.float32(4)}, "row 0: key: wanted an integer"),
        ({"key": 2**63}, "row 0: key: wanted -9223372036854775808"),
        ({"view": 0.5}, "row 0: view: wanted an integer, got 0.5"),
        ({"view": 65536}, r"row 0: view: wanted 0\.\.65535, got 65536"),
        ({"view": -1}, r"row 0: view: wanted 0\.\.65535"),
        ({"caption": 7}, "row 0: caption: wanted a str, got 7"),
        ({"source": None}, "row 0: source: wanted a str, got None"),
    ],
)
def test_bad_rows_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path, [{**next(rows()), **change}])
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize("key", [np.int64(5), np.uint8(5), 5])
def test_whole_keys_of_any_kind_are_taken(tmp_path, key):
    write(tmp_path, [{**next(rows()), "key": key, "view": np.int32(0)}])
    assert TokenShards(tmp_path).keys.tolist() == [5]


def test_views_must_count_from_zero(tmp_path):
    row = next(rows())
    with pytest.raises(ValueError, match="views 0, 1, 2"):
        write(tmp_path, [row, row])
    with pytest.raises(ValueError, match="missing"):
        write(tmp_path, [{"key": 1}])
    with pytest.raises(ValueError, match="at least one"):
        write(tmp_path, [])


def test_unknown_key_and_view(tmp_path):
    write(tmp_path)
    shards = TokenShards(tmp_path)
    with pytest.raises(KeyError, match="12345"):
        shards.codes(12345)
    with pytest.raises(IndexError, match="view of key 0"):
        shards.codes(0, 1)


def test_full_disk_leaves_nothing_half_written(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match="shard-00000"):
            write(tmp_path, rows(2000), rows_per_shard=2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
