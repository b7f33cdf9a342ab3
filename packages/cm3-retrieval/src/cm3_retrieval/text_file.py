"""Text files from strangers: lines, JSON objects one a line, and the texts in them.

UTF-8, or UTF-16 and UTF-32 with a byte order mark; lines end at a line feed alone. An error names
the place, `file:line`. The same file stands in each package that reads texts, since no package
imports another; a test of the repository keeps the copies equal.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

# those of UTF-32 first: the mark of UTF-16 begins that of UTF-32
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(path: Path | str) -> str:
    """Return a whole file, without its byte order mark; errors as of `read_lines`."""
    return "\n".join(line for _, line in read_lines(path))


def read_lines(path: Path | str) -> Iterator[tuple[int, str]]:
    r"""Yield the lines of a file, blank ones too, without `\n` or `\r\n`, numbered from 1.

    Only the current line is in memory.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is in another encoding; names the line.
    """
    with open(path, "rb") as file:
        yield from decoded(file, path)


def decoded(lines: Iterable[bytes], name: object) -> Iterator[tuple[int, str]]:
    """Yield the lines of an open binary file as `read_lines` does; errors call it `name`."""
    lines = iter(lines)
    first = next(lines, b"")
    mark = next((mark for mark in _MARKS if first.startswith(mark)), None)
    if mark is not None:
        yield from _wide(chain([first], lines), _MARKS[mark], name)
        return
    if b"\0" in first[:4]:
        raise ValueError(
            f"{place_of(name, 1)}: wanted text, or UTF-16 with a byte order mark, got a zero byte"
        )
    first = first.removeprefix(codecs.BOM_UTF8)
    for number, line in enumerate(chain([first] if first else [], lines), 1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            got = f"the byte 0x{line[error.start]:02X} at column {error.start + 1}"
            raise ValueError(f"{place_of(name, number)}: wanted UTF-8, got {got}") from None
        yield number, text.removesuffix("\n").removesuffix("\r")


def _wide(pieces: Iterable[bytes], encoding: str, name: object) -> Iterator[tuple[int, str]]:
    """Yield the lines of UTF-16 or UTF-32, in which a line feed's byte ends no line."""
    decoder = codecs.getincrementaldecoder(encoding)()
    rest, number = "", 0
    for piece in chain(pieces, [b""]):
        try:
            *whole, rest = (rest + decoder.decode(piece, final=not piece)).split("\n")
        except UnicodeDecodeError as error:
            got = f"bytes that are none ({error.reason})"
            place = place_of(name, number + 1)
            raise ValueError(f"{place}: wanted {encoding}, got {got}") from None
        for line in [*whole, rest] if not piece and rest else whole:
            number += 1
            yield number, line.removesuffix("\r")


def place_of(name: object, number: int) -> str:
    r"""Return `name:number`, with control characters and bytes that are no UTF-8 as `\xe9`."""
    text = str(name).encode(errors="surrogateescape").decode(errors="backslashreplace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"{text}:{number}"


def read_objects(path: Path | str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the JSON objects of a file with one a line, numbered as lines; skip blank ones.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is in another encoding, or a line is no JSON object; names the line.
    """
    for number, line in read_lines(path):
        if line and not line.isspace():
            yield number, parse_object(line, place_of(path, number))


def parse_object(text: str | bytes, place: object) -> dict[str, Any]:
    """Return a JSON object; `place` names it in errors.

    Raises:
        ValueError: It is no JSON, or no object.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError(f"{place}: wanted JSON, got brackets in too many brackets") from None
    except ValueError as error:
        raise ValueError(f"{place}: wanted JSON, got: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{place}: wanted an object, got {type(found).__name__}")
    return found


def texts_of(value: object, place: object) -> list[str]:
    """Return the texts of a field: none for null, NaN and [], one for a string, those of a list.

    Raises:
        ValueError: The value is another one, or a text holds half a surrogate pair.
    """
    if value is None or isinstance(value, float) and math.isnan(value):
        return []
    if isinstance(value, list):
        return [text for part in value for text in texts_of(part, place)]
    if not isinstance(value, str):
        raise ValueError(f"{place}: wanted a string, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{place}: wanted Unicode, got half a surrogate pair, "
            f"{value[error.start]!a}, at character {error.start + 1}"
        ) from None
    return [value]
