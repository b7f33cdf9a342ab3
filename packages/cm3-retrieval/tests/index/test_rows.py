import numpy as np
import pytest

from cm3_retrieval.index.rows import GrowingRows, KeyRows


def test_rows_grow_without_a_copy_each_time():
    first = np.arange(12.0).reshape(6, 2)
    growing, whole, rooms = GrowingRows(first), first, set()
    assert np.shares_memory(growing.rows, first)
    for step in range(400):
        more = np.full((1 + step % 3, 2), float(step))
        growing.append(more)
        whole = np.concatenate([whole, more])
        rooms.add(growing.rows.__array_interface__["data"][0])
    np.testing.assert_array_equal(growing.rows, whole)
    np.testing.assert_array_equal(first, np.arange(12.0).reshape(6, 2))
    assert len(rooms) < 50


@pytest.mark.parametrize("start", [0, 1, 5000])
def test_the_way_back_from_a_key(start):
    keys = np.random.default_rng(0).permutation(100_000)
    rows = KeyRows(keys[:start])
    end = start
    for size in (1, 1, 700, 600, 3, 5000, 1):
        rows.append(keys[end : end + size])
        end += size
        asked = np.random.default_rng(end).integers(-5, 100_000, 500)
        where = {int(key): row for row, key in enumerate(keys[:end])}
        found = rows.rows_of(asked)
        assert found.tolist() == [where.get(key, -1) for key in asked.tolist()]
    np.testing.assert_array_equal(rows.rows_of(keys[:end]), np.arange(end))
    assert not len(rows.rows_of(np.empty(0, np.int64)))
