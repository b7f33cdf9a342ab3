"""Annotation files from strangers: JSON of a wanted form, and its records one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from cm3_retrieval.picture_file import shown
from cm3leon.data.raw_files import Unusable
from cm3leon.instructions.example import Example, Unneeded
from cm3leon.instructions.sets import Split

Kind = TypeVar("Kind")
NAMES = {str: "a text", int: "a whole number", float: "a number", list: "a list",
         dict: "an object"}  # fmt: skip
SHOWN = 80
"""Letters of a wrong value in an error."""


class NotNeeded(Exception):
    """Raised within `attempt` for a record that is of no use; see `Unneeded`."""


def read_json(path: Path, kind: type[Kind]) -> Kind:
    """Return what a JSON file holds; the whole file is in memory.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is no JSON, or its outermost value is of another kind; names the file.
    """
    try:
        found = json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError(f"{shown(path)}: wanted JSON, got brackets in too many") from None
    except ValueError as error:
        raise ValueError(f"{shown(path)}: wanted JSON, got: {error}") from None
    return of_kind(found, kind, shown(path))


def entries(path: Path, content: dict[str, Any], name: str) -> list[Any]:
    """Return a list that must stand in a JSON file's object.

    Raises:
        ValueError: It is missing or no list; names the file.
    """
    return of_kind(content.get(name), list, f"{shown(path)}: {name}")


def of_kind(value: object, kind: type[Kind], name: str) -> Kind:
    """Return a value that must be of a kind; whole numbers are numbers, booleans are not.

    Raises:
        ValueError: It is not; says `name`.
    """
    kinds = (int, float) if kind is float else (kind,)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ValueError(f"{name}: wanted {NAMES[kind]}, got {short(value)}")
    return value  # pyright: ignore[reportReturnType]


def field(record: object, name: str, kind: type[Kind]) -> Kind:
    """Return a field of a record.

    Raises:
        ValueError: The record is no object, or the field is missing or of another kind.
    """
    return of_kind(of_kind(record, dict, "record").get(name), kind, name)


def line_of(record: object, name: str) -> str:
    """Return a text field with single blanks and no line ends; errors as of `field`.

    Raises:
        ValueError: It is blank, too.
    """
    text = one_line(field(record, name, str))
    if not text:
        raise ValueError(f"{name}: wanted a text, got an empty one")
    return text


def one_line(text: str) -> str:
    """Return a text with each run of white space as one blank, and none at its ends."""
    return " ".join(text.split())


def attempt(
    path: Path, key: object, make: Callable[..., Example], *given: Any
) -> Example | Unusable | Unneeded:
    """Return an example, or what is to be noted of a record that gives none.

    Args:
        path: The annotation file.
        key: What its maker calls the record, such as its id.
        make: Gives the example. Raises ValueError where the record cannot be used, `NotNeeded`
            where it is of no use.
        given: Its arguments.
    """
    try:
        return make(*given)
    except NotNeeded as error:
        return Unneeded(reason=str(error))
    except ValueError as error:
        return Unusable(file=path.name, key=short(key), reason=str(error))


def by_id(path: Path, records: list[Any]) -> tuple[dict[int, dict[str, Any]], list[Unusable]]:
    """Return records by their whole-number `id`, and those that have none or a repeated one."""
    found: dict[int, dict[str, Any]] = {}
    bad = []
    for place, record in enumerate(records, 1):
        try:
            number = field(record, "id", int)
            if number in found:
                raise ValueError(f"id: wanted each once, got {number} again")
            found[number] = record
        except ValueError as error:
            bad.append(Unusable(file=path.name, key=f"record {place}", reason=str(error)))
    return found, bad


def split_of(name: str) -> Split:
    """Return the split that a publisher's name tells of, such as `captions_val2017.json`.

    Raises:
        ValueError: It tells of none.
    """
    words: tuple[tuple[str, Split], ...] = (
        ("train", "train"), ("val", "validation"), ("test", "test"),
    )  # fmt: skip
    for word, split in words:
        if word in name.lower():
            return split
    raise ValueError(f"{name}: wanted train, val or test in the name, got neither")


def matching(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files of a folder and of its direct subfolders that match one of some patterns."""
    for pattern in patterns:
        for path in (*sorted(folder.glob(pattern)), *sorted(folder.glob(f"*/{pattern}"))):
            if path.is_file() and not any(
                part[0] == "." or part == "__MACOSX" for part in path.relative_to(folder).parts
            ):
                yield path


def short(value: object) -> str:
    """Return a value for an error, cut if it is long."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
