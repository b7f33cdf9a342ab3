import numpy as np
import pyarrow as pa
import pytest

from cm3_retrieval.bank.columns import joined, joined_tables, metadata_table, rows_of_table

KEYS = np.arange(2)


def appended(old, new) -> list:
    """What a column of `old` holds of `new`."""
    table = metadata_table(KEYS, {"a": old})
    return metadata_table(KEYS, {"a": new}, table.schema).column("a").to_pylist()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([1, 2], [2.75, 1]),
        ([1, 2], np.array([2.75, 1])),
        ([1, 2], [np.nan, 1]),
        ([1, 2], [True, False]),
        ([1, 2], np.array([True, False])),
        ([1, 2], ["3", "4"]),
        ([1, 2], [2**63, 1]),
        (["a", "b"], [3, 4]),
        (["a", "b"], [b"a", b"b"]),
        (["a", "b"], ["half \ud83d", "b"]),
        ([True, False], [1, 0]),
        ([True, False], ["true", "false"]),
        ([0.5, 1.5], [2**53 + 1, 1]),
        ([0.5, 1.5], ["0.5", "1"]),
        ([[1], [2]], [[2.75], [1]]),
        ([[1], [2]], [["3"], ["4"]]),
        ([{"b": 1}, {"b": 2}], [{"b": 2.75}, {"b": 1}]),
        ([{"b": 1}, {"b": 2}], [{"c": 3}, {"c": 4}]),
        ([1, 2], pa.array([2.75, 1.0])),
        ([1, 2], pa.chunked_array([["3"], ["4"]])),
        (["a", "b"], "ab"),
    ],
)
def test_a_value_that_the_column_cannot_hold_is_refused_by_name(old, new):
    with pytest.raises(ValueError, match="metadata: 'a': "):
        appended(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([1, 2], [3, None]),
        ([1, 2], [3.0, 4.0]),
        ([1, 2], np.array([3, 4], np.int8)),
        ([0.5, 1.5], [3, 4]),
        ([0.5, 1.5], [None, float("inf")]),
        (["a", "b"], [None, None]),
        (["a", "b"], pa.array(["c", "d"], pa.large_string())),
        ([None, None], ["c", "d"]),
        ([None, None], [2.75, None]),
        ([None, None], [[1], [2]]),
        ([None, None], [None, None]),
        ([[1], [2]], [[3], []]),
        ([{"b": 1}, None], [{"b": 2}, None]),
    ],
)
def test_a_value_that_fits_comes_back(old, new):
    wanted = new.tolist() if isinstance(new, np.ndarray) else new
    assert appended(old, new) == (wanted.to_pylist() if isinstance(new, pa.Array) else wanted)


def test_joined_tables_keep_every_value():
    parts = [[None, None], [1, 2], [0.5, None], [None, None]]
    tables = [metadata_table(KEYS, {"a": values}) for values in parts]
    joined = joined_tables(tables, ["one", "two", "three", "four"])
    assert joined.column("a").to_pylist() == sum(parts, [])
    with pytest.raises(ValueError, match="wanted double in 'a' of five as in three, got string"):
        joined_tables(
            [*tables, metadata_table(KEYS, {"a": ["x", "y"]})],
            ["one", "two", "three", "four", "five"],
        )
    exact = metadata_table(KEYS, {"a": [2**53 + 1, 1]})
    with pytest.raises(ValueError, match="'a, two': wanted double"):
        joined_tables([tables[2], exact], ["one", "two"])


def test_rows_of_many_chunks_come_in_the_order_asked_for():
    sizes = [3, 0, 1, 7, 2]
    parts = [
        pa.table(
            {
                "key": np.arange(size) + 10 * part,
                "a": pa.array([f"{part}-{row}" for row in range(size)], pa.string()),
            }
        )
        for part, size in enumerate(sizes)
    ]
    table = pa.concat_tables(parts)
    rows = np.random.default_rng(0).integers(0, table.num_rows, 50)
    assert rows_of_table(table, rows) == table.take(rows).to_pylist()
    assert rows_of_table(table, rows[:0]) == []
    assert rows_of_table(table.slice(0, 0), rows[:0]) == []


def test_a_table_that_grows_row_by_row_has_few_chunks():
    base = pa.table({"a": np.arange(5000)})
    table = base
    for row in range(1000):
        table = joined(table, pa.table({"a": [5000 + row]}))
    assert table.column("a").to_pylist() == list(range(6000))
    assert table.column("a").num_chunks < 14
    first = table.column("a").chunk(0)
    assert first.buffers()[1].address == base.column("a").chunk(0).buffers()[1].address  # no copy
