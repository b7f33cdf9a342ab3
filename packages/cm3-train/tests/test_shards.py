import json
import os

import numpy as np
import pyarrow as pa
import pytest

from cm3_train import TokenShards


def test_round_trip_over_shards_and_views(made, tmp_path):
    given = list(made.rows(views=3))
    made.write(tmp_path, given)
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


def test_columns_are_mapped_not_copied(made, tmp_path):
    made.write(tmp_path)
    before = pa.total_allocated_bytes()
    shards = TokenShards(tmp_path)
    assert not shards.codes(0).flags.owndata
    assert pa.total_allocated_bytes() - before < 1000


def test_refuses_damage_and_strangers(made, tmp_path):
    made.write(tmp_path)
    with pytest.raises(ValueError, match="vocabulary xyz"):
        TokenShards(tmp_path, "xyz")
    manifest = (tmp_path / "manifest.json").read_text()
    for text in ("", "[" * 100_000):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json: wanted JSON"):
            TokenShards(tmp_path)
    (tmp_path / "manifest.json").write_text(manifest)
    shard = made.files(tmp_path)[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=rf"shard-00001-.*: damaged: wanted {len(whole)} bytes"):
        TokenShards(tmp_path)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="shard-00001"):
        TokenShards(tmp_path)


def read_all(made, folder):
    shards = TokenShards(folder)
    return [
        (
            shards.text_ids(key, view).tolist(),
            shards.codes(key, view).tolist(),
            shards.caption(key, view),
        )
        for key in (row["key"] for row in made.rows())
        for view in range(shards.num_views(key))
    ]


def test_a_flipped_bit_is_found_when_it_is_read_or_hurts_nothing(made, tmp_path):
    """Every 13th byte of a small set: what is read is what was written, or an error."""
    made.write(tmp_path, list(made.rows(views=2))[:13], rows_per_shard=7)
    wanted = read_all(made, tmp_path)
    refused = 0
    for path in sorted(tmp_path.glob("*.arrow")):
        whole = path.read_bytes()
        for place in range(0, len(whole), 13):
            path.write_bytes(bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]))
            try:
                assert read_all(made, tmp_path) == wanted, (path.name, place)
            except (ValueError, KeyError, IndexError):
                refused += 1
            with pytest.raises(ValueError, match=f"{path.name}: damaged"):
                TokenShards(tmp_path).check_files()
        path.write_bytes(whole)
    assert refused > 40
    TokenShards(tmp_path).check_files()


def test_damage_to_codes_and_ids_names_file_and_key(made, tmp_path):
    made.write(tmp_path)
    for column in ("codes", "text_ids"):
        for path in made.files(tmp_path):
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
            getattr(TokenShards(tmp_path), column)(list(made.rows())[4]["key"])


def test_opening_reads_the_manifest_alone(made, tmp_path):
    """Shards are opened when they are read, and no file stays open: 1,000 of them are as one."""
    made.write(tmp_path, rows_per_shard=1)
    opened = len(os.listdir("/proc/self/fd"))
    for path in made.files(tmp_path)[1:]:
        path.write_bytes(b"x" * path.stat().st_size)
    shards = TokenShards(tmp_path)
    assert shards.codes(list(made.rows())[0]["key"]).tolist() == list(made.rows())[0]["codes"]
    assert len(os.listdir("/proc/self/fd")) == opened
    with pytest.raises(ValueError, match="shard-00001-.*: damaged: wanted an Arrow file"):
        shards.codes(list(made.rows())[1]["key"])


def test_an_earlier_layout_is_refused(made, tmp_path):
    path = made.write(tmp_path)
    manifest = json.loads(path.read_text())
    del manifest["layout"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="wanted shards of layout 2, got 1; write them again"):
        TokenShards(tmp_path)


@pytest.mark.parametrize(("field", "value"), [("interface_version", "2.0"), ("component", "other")])
def test_refuses_another_version_or_component(made, tmp_path, field, value):
    path = made.write(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(ValueError, match=f"{value}"):
        TokenShards(tmp_path)


def test_unknown_key_and_view(made, tmp_path):
    made.write(tmp_path)
    shards = TokenShards(tmp_path)
    with pytest.raises(KeyError, match="12345"):
        shards.codes(12345)
    with pytest.raises(IndexError, match="view of key 0"):
        shards.codes(0, 1)


@pytest.mark.parametrize("name", ["../shard.arrow", "/etc/passwd", 7])
def test_a_manifest_names_files_beside_it(made, tmp_path, name):
    path = made.write(tmp_path)
    manifest = json.loads(path.read_text())
    manifest["files"][0]["name"] = name
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="wanted the names of files beside it, got"):
        TokenShards(tmp_path)
