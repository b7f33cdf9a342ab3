import numpy as np
import pytest
from hypothesis import given, strategies as st

from cm3_texttok import Ragged
from cm3_texttok.ragged import id_dtype

ROWS = st.lists(st.lists(st.integers(0, 65535), max_size=5), max_size=6)


def ragged(rows):
    return Ragged.from_rows(rows, np.dtype(np.uint16))


@given(rows=ROWS)
def test_rows_come_back(rows):
    batch = ragged(rows)
    assert batch.values.dtype == np.uint16
    assert batch.offsets.dtype == np.int64
    assert batch.tolist() == [row.tolist() for row in batch] == rows
    assert batch.lengths.tolist() == [len(row) for row in rows]
    assert batch.values.tolist() == [i for row in rows for i in row]


@given(rows=ROWS, start=st.integers(-8, 8), stop=st.integers(-8, 8), step=st.integers(-3, 3))
def test_indexing_is_that_of_a_list(rows, start, stop, step):
    batch = ragged(rows)
    chosen = slice(start, stop, step or None)
    assert batch[chosen].tolist() == rows[chosen]
    assert batch[chosen].values.dtype == np.uint16
    if -len(rows) <= start < len(rows):
        assert batch[start].tolist() == rows[start]
    else:
        with pytest.raises(IndexError, match=f"wanted a row of {len(rows)}, got {start}"):
            batch[start]


@given(rows=ROWS, data=st.data())
def test_empty_rows_are_filled(rows, data):
    filled = {n: data.draw(st.lists(st.integers(0, 9))) for n, row in enumerate(rows) if not row}
    wanted = [filled.get(n, row) for n, row in enumerate(rows)]
    assert ragged(rows).with_rows(filled).tolist() == wanted


def test_rows_and_slices_are_views():
    batch = ragged([[1, 2], [3], [4, 5]])
    assert np.shares_memory(batch[1], batch.values)
    assert np.shares_memory(batch[1:].values, batch.values)


def test_equality():
    batch = ragged([[1, 2], [3]])
    assert batch == ragged([[1, 2], [3]])
    assert batch != ragged([[1], [2, 3]])
    assert batch != ragged([[1, 2], [4]])
    assert batch != [[1, 2], [3]]
    with pytest.raises(TypeError, match="unhashable"):
        hash(batch)


@pytest.mark.parametrize(
    ("values", "offsets", "words"),
    [
        ([1, 2], [0, 1], r"offsets: wanted a rising row from 0 to 2, got \[0 1\]"),
        ([1, 2], [1, 2], "offsets: wanted"),
        ([1, 2], [0, 2, 1, 2], "offsets: wanted"),
        ([1, 2], [], r"wanted \(total,\) and \(N \+ 1,\), got the shapes \(2,\) and \(0,\)"),
        ([[1, 2]], [0, 2], r"got the shapes \(1, 2\)"),
    ],
)
def test_bad_parts_are_named(values, offsets, words):
    with pytest.raises(ValueError, match=words):
        Ragged(np.array(values), np.array(offsets, np.int64))


def test_dtype_is_the_narrowest():
    assert id_dtype(65536) == np.uint16
    assert id_dtype(65537) == np.uint32
