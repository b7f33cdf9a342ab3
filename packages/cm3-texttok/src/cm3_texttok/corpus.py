"""Texts from files, one at a time, for `TextTokenizer.train` and the command line.

A text is a line of a `.txt` file, a field of an object in a `.jsonl` file, or a cell of a column in
a `.parquet` file (the extra `parquet` brings pyarrow). A field or cell may also hold a list of
texts, or null and so none. Only the current text is in memory, or one
row batch of a Parquet file.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from cm3_texttok.text_file import place_of, read_lines, read_objects, texts_of

SUFFIXES = (".txt", ".jsonl", ".parquet")


def read_texts(paths: Iterable[str | Path], *, field: str = "text") -> Iterator[str]:
    """Yield the texts of the files, in the order of `paths` and of each file.

    Args:
        paths: Files that end in `.txt`, `.jsonl` or `.parquet`. Blank lines are skipped.
        field: The key of a `.jsonl` object, or the column of a `.parquet` file, that holds the
            text.

    Raises:
        FileNotFoundError: There is no such file; raised before the first text.
        ValueError: A file has another suffix or none, is not UTF-8, JSON or Parquet, or lacks the
            field, or a text holds half a surrogate pair; the message names the line or row.
        TypeError: `paths` is a single path.
        ImportError: A file is Parquet and pyarrow is not installed.
    """
    if isinstance(paths, (str, Path)):
        raise TypeError(f"paths: wanted paths in a list, got one: {paths}")
    files = [Path(path) for path in paths]
    for path in files:
        if path.suffix not in SUFFIXES:
            raise ValueError(f"{path}: wanted a file that ends in one of {', '.join(SUFFIXES)}")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: wanted a file, got none")
    return _texts(files, field)


def _texts(files: list[Path], field: str) -> Iterator[str]:
    for path in files:
        if path.suffix == ".parquet":
            yield from _column(path, field)
        elif path.suffix == ".jsonl":
            for number, row in read_objects(path):
                place = place_of(path, number)
                if field not in row:
                    raise ValueError(f"{place}: wanted the field {field!r}, got {sorted(row)}")
                yield from texts_of(row[field], f"{place}: field {field!r}")
        else:
            yield from (line for _, line in read_lines(path) if line and not line.isspace())


def _column(path: Path, field: str) -> Iterator[str]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        message = f"{path}: reading Parquet needs pyarrow: pip install 'cm3-texttok[parquet]'"
        raise ImportError(message) from error
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if field not in schema.names:
                raise ValueError(f"{path}: wanted the column {field!r}, got {schema.names}")
            kind = schema.field(field).type
            plain = kind.value_type if pa.types.is_list(kind) else kind
            if plain not in (pa.string(), pa.large_string(), pa.string_view()):
                raise ValueError(f"{path}: column {field!r}: wanted strings, got {kind}")
            batches = file.iter_batches(columns=[field])
            cells = (cell for batch in batches for cell in batch.column(0).to_pylist())
            for row, cell in enumerate(cells):
                yield from texts_of(cell, f"{path}: row {row}")
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: wanted a Parquet file of UTF-8, got: {error}") from None
