"""Sheets of pictures: rows with a caption on the left and a title over each picture, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cm3_train.artifact import atomic_file

CELL = 128
"""Smallest side of a picture on a sheet, in pixels; smaller ones are enlarged by whole steps."""
GAP = 10
TEXT = 15
"""Height of the letters, in pixels."""


Rows = Sequence[tuple[str, Sequence[np.ndarray | None]]]
"""Caption and pictures (H, W, 3) uint8 of each row; None leaves a gap."""


def write_sheet(path: Path, rows: Rows, titles: Sequence[Sequence[str]]) -> None:
    """Write rows of pictures to a picture file; arguments as of `sheet`."""
    save(sheet(rows, titles), path)


def write_blocks(path: Path, blocks: Sequence[tuple[str, Rows, Sequence[str]]]) -> None:
    """Write blocks side by side: (heading, rows, titles over the first row)."""
    sheets = [(heading, sheet(rows, [titles])) for heading, rows, titles in blocks if rows]
    font, top = ImageFont.load_default(TEXT + 5), TEXT + 3 * GAP
    width = sum(part.width + 2 * GAP for _, part in sheets)
    whole = Image.new("RGB", (width, top + max(part.height for _, part in sheets)), "white")
    pen, left = ImageDraw.Draw(whole), 0
    for heading, part in sheets:
        pen.text((left + GAP, GAP), heading, fill="black", font=font)
        whole.paste(part, (left, top))
        left += part.width + 2 * GAP
    save(whole, path)


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture, whole or not at all, in the format that the name says."""
    kind = Image.registered_extensions().get(path.suffix.lower(), "PNG")
    with atomic_file(path) as file:
        picture.save(file, kind)


def sheet(rows: Rows, titles: Sequence[Sequence[str]]) -> Image.Image:
    """Draw rows of pictures.

    Args:
        rows: Caption and pictures (H, W, 3) uint8 of one size; None leaves a gap.
        titles: Over the pictures: one line for the first row, or one for every row.
    """
    shown = [picture for _, pictures in rows for picture in pictures if picture is not None]
    sides = shown[0].shape[:2] if shown else (CELL, CELL)
    step = max(1, -(-CELL // max(sides)))
    height, width = (step * side for side in sides)
    font = ImageFont.load_default(TEXT)
    columns = max(len(pictures) for _, pictures in rows)
    captions = [_wrapped(caption, font, 240) for caption, _ in rows]
    left = max([int(font.getlength(line)) for lines in captions for line in lines], default=0)
    left += GAP if left else 0
    tops, bottom = [], GAP
    for place in range(len(rows)):
        bottom += TEXT + GAP if place < len(titles) else 0
        tops.append(bottom)
        bottom += height + GAP
    drawn = Image.new("RGB", (GAP + left + columns * (width + GAP), bottom), "white")
    pen = ImageDraw.Draw(drawn)
    for place, (lines, (_, pictures)) in enumerate(zip(captions, rows, strict=True)):
        middle = tops[place] + height // 2 - len(lines) * (TEXT + 3) // 2
        for line_number, line in enumerate(lines):
            at = (left - font.getlength(line), middle + line_number * (TEXT + 3))
            pen.text(at, line, fill="black", font=font)
        names = titles[place] if place < len(titles) else [""] * len(pictures)
        for column, (picture, title) in enumerate(zip(pictures, names, strict=True)):
            x = GAP + left + column * (width + GAP)
            pen.text((x, tops[place] - TEXT - 5), title, fill="black", font=font)
            if picture is not None:
                cell = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
                drawn.paste(cell, (x, tops[place]))
    return drawn


def in_rows(
    name: str, pictures: Sequence[np.ndarray], titles: Sequence[str], columns: int = 8
) -> tuple[list[tuple[str, list[np.ndarray | None]]], list[list[str]]]:
    """Break a line of pictures into rows; gives the arguments of `write_sheet`."""
    lines = -(-len(pictures) // columns)
    columns = -(-len(pictures) // lines)  # lines of nearly equal length
    missing = -len(pictures) % columns
    cells: list[np.ndarray | None] = [*pictures, *[None] * missing]
    labels = [*titles, *[""] * missing]
    starts = range(0, len(cells), columns)
    rows = [(name if at == 0 else "", cells[at : at + columns]) for at in starts]
    return rows, [labels[at : at + columns] for at in starts]


def _wrapped(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    """Break a text into at most four lines of about `width` pixels."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1:] = [longer]
    return lines[:4]
