"""Tasks of instruction tuning as data: templates of text and pictures, and what is asked for.

A template is one line,

    Edit the first image <break> [source] <break> {instruction} <break> [image]

where `{name}` is a text of the record, `[name]` a picture, and `<break>` a change of modality. All
else is said as it stands. A record's texts are put in as they are: no brace, bracket or `<break>`
in them means anything. `paper_tasks.py` has the templates of arXiv 2309.02591, table 5.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

Kind = Literal["literal", "text", "picture"]

_MARKS = re.compile(r"\{([a-z_]+)\}|\[([a-z_]+)\]|<break>")


@dataclass(frozen=True)
class Piece:
    """A part of a segment: what the template says, or a field of the record."""

    kind: Kind
    value: str
    """The words of a literal, the name of a field."""

    @property
    def is_field(self) -> bool:
        """Whether a record fills it."""
        return self.kind != "literal"


@dataclass(frozen=True)
class Template:
    """One way to put a task."""

    segments: tuple[tuple[Piece, ...], ...]
    """Between the breaks: one picture, or words and texts. The blank before a text belongs to the
    text (see `parse`)."""

    @classmethod
    def parse(cls, line: str) -> "Template":
        """Read a template.

        Raises:
            ValueError: A field occurs twice, a picture shares its segment with words, or a segment
                is empty.
        """
        segments: list[list[Piece]] = [[]]
        place = 0
        for mark in _MARKS.finditer(line):
            _add_literal(segments[-1], line[place : mark.start()])
            place = mark.end()
            text, picture = mark.groups()
            if text:
                segments[-1].append(Piece("text", text))
            elif picture:
                segments[-1].append(Piece("picture", picture))
            else:
                segments.append([])
        _add_literal(segments[-1], line[place:])
        template = cls(tuple(tuple(_stripped(segment)) for segment in segments))
        template._check(line)
        return template

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """The pieces of all segments, in order."""
        return tuple(piece for segment in self.segments for piece in segment)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Names of its texts, in order."""
        return tuple(piece.value for piece in self.pieces if piece.kind == "text")

    @cached_property
    def pictures(self) -> tuple[str, ...]:
        """Names of its pictures, in order."""
        return tuple(piece.value for piece in self.pieces if piece.kind == "picture")

    def _check(self, line: str) -> None:
        fields = [piece.value for piece in self.pieces if piece.is_field]
        if twice := {name for name in fields if fields.count(name) > 1}:
            raise ValueError(f"template {line!r}: wanted each field once, got twice {twice}")
        for segment in self.segments:
            if not segment:
                raise ValueError(f"template {line!r}: wanted something between breaks, got nothing")
            if len(segment) > 1 and any(piece.kind == "picture" for piece in segment):
                raise ValueError(
                    f"template {line!r}: wanted a picture alone between breaks, got words beside it"
                )


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is asked of the model, in one or more ways; a record of it fills any of them."""

    name: str
    templates: tuple[str, ...]
    """As of `Template.parse`. A record takes those of which it has every field."""
    outputs: tuple[str, ...] = ("image",)
    """The fields that are asked for: one picture, or texts that stand side by side. What the
    template says between them is asked for too."""

    def __post_init__(self) -> None:
        """Check every template."""
        object.__setattr__(self, "templates", tuple(self.templates))
        object.__setattr__(self, "outputs", tuple(self.outputs))
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            wanted = "a name of small letters, digits and _"
            raise ValueError(f"task: wanted {wanted}, got {self.name!r}")
        if not self.templates:
            raise ValueError(f"task {self.name}: wanted at least one template, got none")
        kinds: dict[str, str] = {}
        for line, template in zip(self.templates, self.parsed, strict=True):
            for piece in template.pieces:
                if piece.is_field and kinds.setdefault(piece.value, piece.kind) != piece.kind:
                    raise ValueError(
                        f"task {self.name}: wanted {piece.value} a text or a picture, got both"
                    )
            if not (found := asked(template, self.outputs)):
                raise ValueError(
                    f"task {self.name}: wanted one of {self.outputs} in the template {line!r}, "
                    "got none"
                )
            places = [n for n, segment in enumerate(template.segments) if set(found) & set(segment)]
            if len(places) > 1:
                raise ValueError(
                    f"task {self.name}: wanted the outputs in one segment of the template "
                    f"{line!r}, got them in {len(places)}"
                )

    @cached_property
    def parsed(self) -> tuple[Template, ...]:
        """The templates, read."""
        return tuple(map(Template.parse, self.templates))

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Names of the texts of all templates, each once."""
        return tuple(dict.fromkeys(name for one in self.parsed for name in one.texts))

    @cached_property
    def pictures(self) -> tuple[str, ...]:
        """Names of the pictures of all templates, each once."""
        return tuple(dict.fromkeys(name for one in self.parsed for name in one.pictures))

    def fitting(self, record: Mapping[str, Any]) -> tuple[Template, ...]:
        """Return the templates of which a record has every field; an empty text is none."""

        def has(name: str) -> bool:
            value = record.get(name)
            return value is not None and len(value) > 0

        return tuple(one for one in self.parsed if all(map(has, (*one.texts, *one.pictures))))


def asked(template: Template, outputs: tuple[str, ...]) -> list[Piece]:
    """Return the pieces of the outputs that a template has."""
    return [piece for piece in template.pieces if piece.is_field and piece.value in outputs]


def _add_literal(segment: list[Piece], words: str) -> None:
    if words:
        segment.append(Piece("literal", words))


def _stripped(segment: list[Piece]) -> list[Piece]:
    """Drop the blanks at a segment's ends, and those beside a picture."""
    kept = list(segment)
    while kept and kept[0].kind == "literal":
        kept[0] = Piece("literal", kept[0].value.lstrip(" "))
        if kept[0].value:
            break
        kept.pop(0)
    while kept and kept[-1].kind == "literal":
        kept[-1] = Piece("literal", kept[-1].value.rstrip(" "))
        if kept[-1].value:
            break
        kept.pop()
    return kept
