import json
import os
import resource

import numpy as np
import pyarrow as pa
import pytest

from cm3_train import TokenShards, seal_shards, shard_files, write_shard


def test_any_reader_of_arrow_reads_the_files(made, tmp_path):
    made.write(tmp_path)
    table = pa.ipc.open_file(made.files(tmp_path)[0]).read_all()
    assert table.schema.field("key").type == pa.int64()
    assert table.schema.field("view").type == pa.uint16()
    assert table.schema.field("text_ids").type == pa.list_(pa.uint16())
    assert table.schema.field("codes").type == pa.list_(pa.uint16(), 6)


def test_fewer_shards_replace_more(made, tmp_path):
    made.write(tmp_path, rows_per_shard=2)
    assert len(made.files(tmp_path)) == 5
    made.write(tmp_path, rows_per_shard=10)
    (file,) = made.files(tmp_path)
    entry = json.loads((tmp_path / "manifest.json").read_text())["files"][0]
    assert entry["name"] == file.name == f"shard-00000-{entry['sha256'][:12]}.arrow"
    assert len(list(tmp_path.iterdir())) == 3  # the shard, the index, the manifest


@pytest.mark.parametrize("good", [0, 3, 4, 9])  # before a file, in one, after one, in the last
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_call_that_fails_leaves_the_earlier_set(made, tmp_path, good, error):
    def broken():
        yield from made.rows(good, codes=6)
        raise error("the reader failed")

    given = list(made.rows(views=2))
    made.write(tmp_path, given)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(error):
        made.write(tmp_path, broken())
    with pytest.raises(ValueError, match="codes: wanted 6"):  # a row that does not fit
        made.write(tmp_path, [*given[:good], {**given[good], "codes": [1]}])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert TokenShards(tmp_path).codes(given[-1]["key"], 1).tolist() == given[-1]["codes"]


def test_a_killed_call_leaves_the_earlier_set_and_the_next_one_clears_up(
    made, tmp_path, monkeypatch
):
    made.write(tmp_path)
    old = set(made.files(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(shard_files, "write_json", lambda *_: os._exit(9))
        child = os.fork()
        if child == 0:
            made.write(tmp_path, list(made.rows(7)), rows_per_shard=7)
        assert os.waitpid(child, 0)[1] == 9 << 8
    assert len(made.files(tmp_path)) == len(old) + 1
    assert len(TokenShards(tmp_path)) == 10  # the earlier set
    made.write(tmp_path, list(made.rows(3)))
    assert len(made.files(tmp_path)) == 1 and len(TokenShards(tmp_path)) == 3


def test_files_that_processes_wrote_apart_make_the_same_set(made, tmp_path):
    given = list(made.rows())
    made.write(tmp_path / "one", given, rows_per_shard=4)
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


def test_unfinished_folder(made, tmp_path):
    def broken():
        yield from made.rows(8)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        made.write(tmp_path, broken())
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
def test_bad_rows_are_named(made, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        made.write(tmp_path, [{**next(made.rows()), **change}])
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize("key", [np.int64(5), np.uint8(5), 5])
def test_whole_keys_of_any_kind_are_taken(made, tmp_path, key):
    made.write(tmp_path, [{**next(made.rows()), "key": key, "view": np.int32(0)}])
    assert TokenShards(tmp_path).keys.tolist() == [5]


def test_views_must_count_from_zero(made, tmp_path):
    row = next(made.rows())
    with pytest.raises(ValueError, match="views 0, 1, 2"):
        made.write(tmp_path, [row, row])
    with pytest.raises(ValueError, match="missing"):
        made.write(tmp_path, [{"key": 1}])
    with pytest.raises(ValueError, match="at least one"):
        made.write(tmp_path, [])


def test_full_disk_leaves_nothing_half_written(made, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match="shard-00000"):
            made.write(tmp_path, made.rows(2000), rows_per_shard=2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
