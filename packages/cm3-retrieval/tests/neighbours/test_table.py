import numpy as np
import pytest

from cm3_retrieval import NeighbourTable


def make_table() -> NeighbourTable:
    candidates = {
        "image": np.array([[5, 9], [7, -1], [-1, -1]]),
        "text": np.array([[9, 7], [-1, -1], [5, 7]]),
    }
    scores = {
        kind: np.where(keys >= 0, 0.5, 0).astype(np.float32) for kind, keys in candidates.items()
    }
    return NeighbourTable(np.array([7, 5, 2**40]), candidates, scores, {"seed": 3})


def test_candidates_come_without_padding():
    table = make_table()
    assert len(table) == 3
    found = {kind: keys.tolist() for kind, keys in table.candidates(5).items()}
    assert found == {"image": [7], "text": []}
    with pytest.raises(KeyError, match="key 6 is not in the neighbour table of 3 documents"):
        table.candidates(6)


def test_saved_loaded_and_saved_again(tmp_path):
    table = make_table()
    table.save(tmp_path / "one")
    loaded = NeighbourTable.load(tmp_path / "one")
    np.testing.assert_array_equal(loaded.keys, table.keys)
    for kind in ("image", "text"):
        np.testing.assert_array_equal(loaded.candidate_keys[kind], table.candidate_keys[kind])
        np.testing.assert_array_equal(loaded.candidate_scores[kind], table.candidate_scores[kind])
        assert loaded.candidate_keys[kind].dtype == np.int64
        assert loaded.candidate_scores[kind].dtype == np.float32
    assert loaded.facts == {"seed": 3}
    loaded.save(tmp_path / "two")
    one, two = (
        sorted((p.name, p.read_bytes()) for p in (tmp_path / n).iterdir()) for n in ("one", "two")
    )
    assert one == two


def test_an_empty_table(tmp_path):
    none = np.empty((0, 2), np.int64)
    NeighbourTable(
        np.empty(0, np.int64), {"image": none, "text": none},
        {"image": none.astype(np.float32), "text": none.astype(np.float32)}, {},
    ).save(tmp_path)  # fmt: skip
    loaded = NeighbourTable.load(tmp_path)
    assert len(loaded) == 0 and loaded.candidate_keys["image"].shape == (0, 2)


def test_flipped_bytes_are_caught_and_the_file_named(tmp_path):
    make_table().save(tmp_path)
    rng = np.random.default_rng(0)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for place in rng.integers(0, len(whole), 60):
            changed = bytearray(whole)
            changed[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            with pytest.raises(ValueError, match=path.name):
                NeighbourTable.load(tmp_path)
        path.write_bytes(whole)
    NeighbourTable.load(tmp_path)
