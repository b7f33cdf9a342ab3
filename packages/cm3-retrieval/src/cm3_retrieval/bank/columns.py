"""Columns of metadata beside a bank's keys.

Takes columns of Python values, NumPy or Arrow; gives an Arrow table. A value either goes into a
column as it is or is refused: Arrow alone would store 2.75 in a column of integers as 2.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

_KINDS = (
    ("boolean", pa.types.is_boolean),
    ("integer", pa.types.is_integer),
    ("number", pa.types.is_floating),
    ("text", lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind)),
    ("bytes", lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind)),
)

_LOSSLESS = {("integer", "number"), ("number", "integer")}
"""Kinds that may hold one value; Arrow's safe cast refuses 2.75 for an integer."""

_LARGEST_COPIED = 65_536
"""Rows of the largest chunk that `joined` makes of smaller ones."""

_ARROW_ERRORS = (
    pa.ArrowInvalid,
    pa.ArrowTypeError,
    pa.ArrowNotImplementedError,
    OverflowError,
    UnicodeEncodeError,
)


def metadata_table(
    keys: np.ndarray, metadata: Mapping[str, Sequence[Any]], schema: pa.Schema | None = None
) -> pa.Table:
    """Return a table of column `key` and the metadata.

    Args:
        keys: (N,) int64.
        metadata: Column name -> N values.
        schema: The types and the order of the columns. One that was all None so far takes the type
            of the new values. None lets the values decide.

    Raises:
        ValueError: A column has another length, or values of another type; names the column.
    """
    columns: dict[str, Any] = {"key": pa.array(keys)}
    for name, values in metadata.items():
        if name == "key":
            raise ValueError("metadata: wanted another column name than 'key', it is taken")
        if isinstance(values, str | bytes):
            raise ValueError(f"metadata: {name!r}: wanted {len(keys)} values, got one string")
        if len(values) != len(keys):
            raise ValueError(f"metadata: wanted {len(keys)} of {name!r}, got {len(values)}")
        column = _column(name, values)
        columns[name] = column if schema is None else fitted(name, column, schema.field(name).type)
    table = pa.table(columns)
    return table if schema is None else table.select(schema.names)


def fitted(name: str, column: Any, wanted: pa.DataType) -> Any:
    """Return an Arrow array as type `wanted`, without changing a value.

    Raises:
        ValueError: The values are of another type; names the column.
    """
    if column.type == wanted or pa.types.is_null(wanted):
        return column
    try:
        if not _may_become(column.type, wanted):
            raise pa.ArrowInvalid(f"got {column.type}")
        return column.cast(wanted, safe=True)
    except _ARROW_ERRORS as error:
        raise ValueError(f"metadata: {name!r}: wanted {wanted}, {error}") from error


def rows_of_table(table: pa.Table, rows: np.ndarray) -> list[dict[str, Any]]:
    """Return one dict per row, column name -> value.

    Each chunk gives its own rows. Arrow's `take` would put all chunks of a column together first,
    which takes as long as the table is large, and fails beyond 2 GB of text.
    """
    batches = table.to_batches()
    ends = np.cumsum([batch.num_rows for batch in batches])
    found: list[dict[str, Any]] = [{} for _ in rows]
    owners = np.searchsorted(ends, rows, side="right")
    for owner in np.unique(owners):
        places = np.flatnonzero(owners == owner)
        first = ends[owner] - batches[owner].num_rows
        taken = batches[owner].take(pa.array(rows[places] - first)).to_pylist()
        for place, row in zip(places, taken, strict=True):
            found[place] = row
    return found


def joined(table: pa.Table, more: pa.Table) -> pa.Table:
    """Put `more` after a table of the same schema; small chunks at the end become one.

    A chunk is copied only when as many rows have come after it, so a table that grows row by row
    has few chunks, and its rows are copied a few times in all.
    """
    together = pa.concat_tables([table, more])
    sizes = [batch.num_rows for batch in together.to_batches()]
    tail = 0
    while sizes and (sizes[-1] <= tail or not tail) and tail + sizes[-1] <= _LARGEST_COPIED:
        tail += sizes.pop()
    if tail <= more.num_rows:
        return together
    start = together.num_rows - tail
    return pa.concat_tables([together.slice(0, start), together.slice(start).combine_chunks()])


def joined_tables(tables: Sequence[pa.Table], names: Sequence[str]) -> pa.Table:
    """Put tables of the same columns one after another.

    Columns that are all None in one table take the type that they have in another; integers in one
    and other numbers in another become numbers.

    Args:
        tables: At least one.
        names: What to call each table in an error, such as `shard 3`.

    Raises:
        ValueError: Columns differ, in name or type; names the two tables.
    """
    first = tables[0].schema
    types = dict(zip(first.names, first.types, strict=True))
    since = dict.fromkeys(types, names[0])  # which table gave the column its type
    for table, name in zip(tables, names, strict=True):
        if table.column_names != first.names:
            raise ValueError(
                f"metadata: wanted columns {first.names} in {name} as in {names[0]}, "
                f"got {table.column_names}"
            )
        for field in table.schema:
            old = types[field.name]
            if pa.types.is_null(old) or _kind(old) == "integer" and _kind(field.type) == "number":
                types[field.name], since[field.name] = field.type, name
            elif not pa.types.is_null(field.type) and not _may_become(field.type, old):
                raise ValueError(
                    f"metadata: wanted {old} in {field.name!r} of {name} as in "
                    f"{since[field.name]}, got {field.type}"
                )
    return pa.concat_tables(
        [
            pa.table(
                {
                    column: fitted(f"{column}, {name}", table.column(column), kind)
                    for column, kind in types.items()
                }
            )
            for table, name in zip(tables, names, strict=True)
        ]
    )


def _column(name: str, values: Any) -> Any:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    try:
        return pa.array(values)
    except _ARROW_ERRORS as error:
        raise ValueError(f"metadata: {name!r}: {error}") from error


def _kind(kind: pa.DataType) -> str:
    return next((name for name, is_it in _KINDS if is_it(kind)), str(kind))


def _may_become(given: Any, wanted: Any) -> bool:
    """Tell whether a value of one type can be one of the other."""
    if pa.types.is_null(given):
        return True
    if pa.types.is_struct(given) and pa.types.is_struct(wanted):
        names = [field.name for field in wanted]
        return [field.name for field in given] == names and all(
            _may_become(given.field(name).type, wanted.field(name).type) for name in names
        )
    if pa.types.is_list(given) and pa.types.is_list(wanted):
        return _may_become(given.value_type, wanted.value_type)
    kinds = _kind(given), _kind(wanted)
    return kinds[0] == kinds[1] or kinds in _LOSSLESS
