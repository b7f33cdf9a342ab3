"""The joint id space: text ids, the structural ids among them, and blocks of code ids.

There is one block for images and one for every further codebook (a second image codebook, audio),
at any offset. The paper has 56,320 text ids and 8,192 codes, together 64,512 (arXiv 2309.02591,
sections 2.1 and B.1).
"""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cm3_texttok.arrays import integer_array, require
from cm3_texttok.artifact import check_stamp, stamp
from cm3_texttok.interface import INTERFACE_VERSION, VOCABULARY_COMPONENT, Tokenizer

_STAMP = stamp(VOCABULARY_COMPONENT, INTERFACE_VERSION)
_OPTIONAL = {"other_blocks", "silent_ranges", "text_sha256", "codes_sha256"}
"""Fields that are left out of the JSON where they say nothing."""


@dataclass(frozen=True, kw_only=True)
class IdBlock:
    """The range of ids of one codebook's codes: `id = offset + code`."""

    name: str
    """Kind of the codes, also in error messages."""
    offset: int
    """Id of code 0."""
    size: int
    """Number of codes."""

    @property
    def stop(self) -> int:
        """One more than the id of the last code."""
        return self.offset + self.size

    def contains(self, ids: ArrayLike) -> np.ndarray:
        """Return which of the `ids` lie in this block, as booleans of the same shape."""
        array = integer_array(ids, "ids")
        return (array >= self.offset) & (array < self.stop)

    def codes_to_ids(self, codes: ArrayLike, name: str = "codes") -> np.ndarray:
        """Return the ids (int64) of `codes`, of the same shape; errors call the codes `name`.

        Raises:
            ValueError: A code lies outside `[0, size)`; the message names its position.
        """
        array = integer_array(codes, name)
        valid = (array >= 0) & (array < self.size)
        require(valid, array, name, f"an {self.name} code in [0, {self.size})")
        return array + self.offset

    def ids_to_codes(self, ids: ArrayLike) -> np.ndarray:
        """Return the codes (int64) of `ids`, of the same shape.

        Raises:
            ValueError: An id lies outside the block; the message names its position.
        """
        array = integer_array(ids, "ids")
        wanted = f"an {self.name} id in [{self.offset}, {self.stop})"
        require(self.contains(array), array, "ids", wanted)
        return array - self.offset


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The meaning of every joint id; `sha256` identifies it in the manifests of tokenized data."""

    text_size: int
    """Number of the tokenizer's ids, structural ones included."""
    num_codes: int
    """Size of the image tokenizer's codebook."""
    image_offset: int | None = None
    """Id of image code 0; None puts it at `text_size`. The block may lie inside the text ids if the
    tokenizer leaves it free (Chameleon's starts at 4)."""
    pad_id: int
    """The id that fills a batch; never part of a document."""
    eos_id: int
    """The id that opens and closes a document."""
    break_id: int
    """The id at every change of modality."""
    infill_id: int
    """The id before the spans that were cut out."""
    mask_ids: tuple[int, ...]
    """The ids in place of the first, second, ... span that was cut out."""
    other_blocks: tuple[IdBlock, ...] = ()
    """The ids of further codebooks, each with its own name; see `with_block`."""
    silent_ranges: tuple[tuple[int, int], ...] = ()
    """Ranges [start, stop) of text ids that no text has; structural and image ids may be among
    them."""
    text_sha256: str | None = None
    """What tells the text tokenizer from others of its size; None if it does not say."""
    codes_sha256: str | None = None
    """What tells the image codebook from others of its size; None if it is not said."""

    def __post_init__(self) -> None:
        """Fill in `image_offset` and check that nothing overlaps."""
        if self.image_offset is None:
            object.__setattr__(self, "image_offset", self.text_size)
        object.__setattr__(self, "mask_ids", tuple(self.mask_ids))
        silent = tuple((int(start), int(stop)) for start, stop in self.silent_ranges)
        object.__setattr__(self, "silent_ranges", silent)
        for name, least in (("text_size", 1), ("num_codes", 1), ("image_offset", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: wanted at least {least}, got {getattr(self, name)}")
        if not self.mask_ids:
            raise ValueError("mask_ids: wanted at least one id, got none")
        for start, stop in silent:
            if not 0 <= start < stop <= self.text_size:
                wanted = f"ranges inside [0, {self.text_size})"
                raise ValueError(f"silent_ranges: wanted {wanted}, got [{start}, {stop})")
        self._check_blocks()
        structural = self._structural
        if len(set(structural.values())) < len(structural):
            raise ValueError(f"structural ids: wanted distinct ids, got {structural}")
        for name, value in structural.items():
            if not 0 <= value < self.text_size or any(b.contains(value) for b in self.blocks):
                wanted = f"a text id in [0, {self.text_size}) outside the blocks of codes"
                raise ValueError(f"{name}: wanted {wanted}, got {value}")

    def _check_blocks(self) -> None:
        names = ["text", *(block.name for block in self.blocks)]
        if len(set(names)) < len(names):
            raise ValueError(f"other_blocks: wanted names of their own, got {names[2:]}")
        for block in self.other_blocks:
            if block.offset < 0 or block.size < 1:
                raise ValueError(f"other_blocks: wanted an offset and a size, got {block}")
        ordered = sorted(self.blocks, key=lambda block: block.offset)
        for first, second in itertools.pairwise(ordered):
            if second.offset < first.stop:
                raise ValueError(f"other_blocks: wanted no overlap, got {first} and {second}")

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: Tokenizer,
        num_codes: int,
        *,
        image_offset: int | None = None,
        codes_sha256: str | None = None,
    ) -> "Vocabulary":
        """Join the tokenizer's ids and `num_codes` image ids, after them or from `image_offset`.

        Args:
            tokenizer: Its `sha256`, `silent_ranges` and `image_offset` are taken, if it has them.
            num_codes: Size of the image tokenizer's codebook.
            image_offset: Id of image code 0, instead of the tokenizer's.
            codes_sha256: What tells the codebook from others of its size.
        """
        if image_offset is None:
            image_offset = getattr(tokenizer, "image_offset", None)
        return cls(
            silent_ranges=getattr(tokenizer, "silent_ranges", ()),
            text_sha256=getattr(tokenizer, "sha256", None),
            codes_sha256=codes_sha256,
            text_size=tokenizer.vocab_size,
            num_codes=num_codes,
            image_offset=image_offset,
            pad_id=tokenizer.pad_id,
            eos_id=tokenizer.eos_id,
            break_id=tokenizer.break_id,
            infill_id=tokenizer.infill_id,
            mask_ids=tokenizer.mask_ids,
        )

    def with_block(self, name: str, size: int, offset: int | None = None) -> "Vocabulary":
        """Return this vocabulary with one more block of `size` codes, at the end or at `offset`.

        Raises:
            ValueError: The name is taken, or the block overlaps another or a structural id.
        """
        block = IdBlock(name=name, offset=self.size if offset is None else offset, size=size)
        return dataclasses.replace(self, other_blocks=(*self.other_blocks, block))

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Vocabulary":
        """Return the vocabulary that `to_json` described.

        Raises:
            ValueError: Another component or major version wrote it, or an entry is missing or
                unknown.
        """
        fields = check_stamp(saved, VOCABULARY_COMPONENT, INTERFACE_VERSION, "vocabulary")
        for name in _STAMP:
            del fields[name]
        wanted = {field.name for field in dataclasses.fields(cls)} - _OPTIONAL
        if set(fields) - _OPTIONAL != wanted:
            raise ValueError(
                f"vocabulary: wanted the entries {sorted(wanted)}, got {sorted(fields)}"
            )
        blocks = tuple(IdBlock(**block) for block in fields.pop("other_blocks", ()))
        return cls(**fields, other_blocks=blocks)

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary of JSON values, for a manifest."""
        return {**_STAMP, **self._fields()}

    @property
    def sha256(self) -> str:
        """Hex digest of the canonical JSON of the fields, without the interface version."""
        canonical = json.dumps(self._fields(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Number of joint ids: the rows of a model's embedding."""
        return max(self.text_size, *(block.stop for block in self.blocks))

    @property
    def image(self) -> IdBlock:
        """The block of image ids."""
        assert self.image_offset is not None  # filled in by __post_init__
        return IdBlock(name="image", offset=self.image_offset, size=self.num_codes)

    @property
    def blocks(self) -> tuple[IdBlock, ...]:
        """Every block of codes, the image block first."""
        return (self.image, *self.other_blocks)

    def block(self, name: str) -> IdBlock:
        """Return the block of that name.

        Raises:
            ValueError: There is no such block.
        """
        for block in self.blocks:
            if block.name == name:
                return block
        raise ValueError(f"name: wanted one of {[b.name for b in self.blocks]}, got {name!r}")

    def codes_to_ids(self, codes: ArrayLike) -> np.ndarray:
        """Return the joint ids (int64) of image codes; see `IdBlock.codes_to_ids`."""
        return self.image.codes_to_ids(codes)

    def ids_to_codes(self, ids: ArrayLike) -> np.ndarray:
        """Return the image codes (int64) of joint ids; see `IdBlock.ids_to_codes`."""
        return self.image.ids_to_codes(ids)

    def is_image(self, ids: ArrayLike) -> np.ndarray:
        """Return which of the `ids` are image ids, as booleans of the same shape."""
        return self.image.contains(ids)

    def is_text(self, ids: ArrayLike) -> np.ndarray:
        """Return which of the `ids` are text, not structure, as booleans of the same shape."""
        array = integer_array(ids, "ids")
        inside = (array >= 0) & (array < self.text_size)
        return inside & self._text_table[np.where(inside, array, 0)]

    @functools.cached_property
    def _text_table(self) -> np.ndarray:
        """(text_size,) booleans: the id is text, neither structure nor a code."""
        ids = np.arange(self.text_size)
        table = ~np.any([block.contains(ids) for block in self.blocks], axis=0)
        for start, stop in self.silent_ranges:
            table[start:stop] = False
        table[list(self._structural.values())] = False
        return table

    @property
    def _structural(self) -> dict[str, int]:
        names = {name: getattr(self, name) for name in ("pad_id", "eos_id", "break_id")}
        masks = {f"mask_ids[{n}]": value for n, value in enumerate(self.mask_ids)}
        return {**names, "infill_id": self.infill_id, **masks}

    def _fields(self) -> dict[str, Any]:
        fields = {**dataclasses.asdict(self), "mask_ids": list(self.mask_ids)}
        fields["other_blocks"] = list(fields["other_blocks"])
        fields["silent_ranges"] = [list(bounds) for bounds in fields["silent_ranges"]]
        return {name: value for name, value in fields.items() if name not in _OPTIONAL or value}
