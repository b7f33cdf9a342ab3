"""The joint id space: text ids, the structural ids among them, and blocks of code ids.

Takes sizes and structural ids, gives the map between codes and ids. There is one block for images,
and one for every further codebook (a second image codebook, audio), each anywhere. The paper's
sizes are 56,320 text ids and 8,192 codes, together 64,512 (arXiv 2309.02591, sections 2.1 and B.1).
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


@dataclass(frozen=True, kw_only=True)
class IdBlock:
    """A run of ids that stands for the codes of one codebook: `id = offset + code`."""

    name: str
    """What the codes are, for error messages."""
    offset: int
    """Id of code 0."""
    size: int
    """Number of codes."""

    @property
    def stop(self) -> int:
        """Id behind that of the last code."""
        return self.offset + self.size

    def contains(self, ids: ArrayLike) -> np.ndarray:
        """Boolean array of the shape of `ids`: which of them lie in this block."""
        array = integer_array(ids, "ids")
        return (array >= self.offset) & (array < self.stop)

    def codes_to_ids(self, codes: ArrayLike, name: str = "codes") -> np.ndarray:
        """Ids (int64) of `codes`, of the same shape; `name` is what the error calls them.

        Raises:
            ValueError: A code lies outside `[0, size)`; the error says at which position.
        """
        array = integer_array(codes, name)
        valid = (array >= 0) & (array < self.size)
        require(valid, array, name, f"an {self.name} code in [0, {self.size})")
        return array + self.offset

    def ids_to_codes(self, ids: ArrayLike) -> np.ndarray:
        """Codes (int64) of `ids`, of the same shape.

        Raises:
            ValueError: An id lies outside the block; the error says at which position.
        """
        array = integer_array(ids, "ids")
        wanted = f"an {self.name} id in [{self.offset}, {self.stop})"
        require(self.contains(array), array, "ids", wanted)
        return array - self.offset


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Which joint id is what. Frozen; `sha256` names it in the manifests of what is built on it."""

    text_size: int
    """Number of ids of the tokenizer, structural ids included."""
    num_codes: int
    """Size of the image tokenizer's codebook."""
    image_offset: int | None = None
    """Id of image code 0; None puts it at `text_size`. A block inside the text ids is fine when
    the tokenizer leaves it free (Chameleon has it at 4)."""
    pad_id: int
    """Fills a batch; never part of a document."""
    eos_id: int
    """Opens and closes a document."""
    break_id: int
    """Stands at every change of modality."""
    infill_id: int
    """Stands before the spans that were cut out."""
    mask_ids: tuple[int, ...]
    """Stand where the first, second, ... span was cut out."""
    other_blocks: tuple[IdBlock, ...] = ()
    """The ids of further codebooks, each with a name of its own; see `with_block`."""

    def __post_init__(self) -> None:
        """Fills in `image_offset` and checks that nothing overlaps."""
        if self.image_offset is None:
            object.__setattr__(self, "image_offset", self.text_size)
        object.__setattr__(self, "mask_ids", tuple(self.mask_ids))
        for name, least in (("text_size", 1), ("num_codes", 1), ("image_offset", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: wanted at least {least}, got {getattr(self, name)}")
        if not self.mask_ids:
            raise ValueError("mask_ids: wanted at least one id, got none")
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
        cls, tokenizer: Tokenizer, num_codes: int, *, image_offset: int | None = None
    ) -> "Vocabulary":
        """The tokenizer's ids and `num_codes` image ids, behind them or from `image_offset` on."""
        return cls(
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
        """This vocabulary and one more block of `size` codes, behind everything or at `offset`.

        Raises:
            ValueError: The name is taken, or the block overlaps another or a structural id.
        """
        block = IdBlock(name=name, offset=self.size if offset is None else offset, size=size)
        return dataclasses.replace(self, other_blocks=(*self.other_blocks, block))

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Vocabulary":
        """The vocabulary that `to_json` has described.

        Raises:
            ValueError: Another component or major version wrote it, or an entry is missing or
                unknown.
        """
        fields = check_stamp(saved, VOCABULARY_COMPONENT, INTERFACE_VERSION, "vocabulary")
        for name in _STAMP:
            del fields[name]
        wanted = {field.name for field in dataclasses.fields(cls)} - {"other_blocks"}
        if set(fields) - {"other_blocks"} != wanted:
            raise ValueError(
                f"vocabulary: wanted the entries {sorted(wanted)}, got {sorted(fields)}"
            )
        blocks = tuple(IdBlock(**block) for block in fields.pop("other_blocks", ()))
        return cls(**fields, other_blocks=blocks)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON values, for a manifest."""
        return {**_STAMP, **self._fields()}

    @property
    def sha256(self) -> str:
        """Hex digest over the canonical JSON of the fields (not of the interface version)."""
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
        """The block of that name.

        Raises:
            ValueError: There is none.
        """
        for block in self.blocks:
            if block.name == name:
                return block
        raise ValueError(f"name: wanted one of {[b.name for b in self.blocks]}, got {name!r}")

    def codes_to_ids(self, codes: ArrayLike) -> np.ndarray:
        """Joint ids (int64) of image codes, of the same shape; see `IdBlock.codes_to_ids`."""
        return self.image.codes_to_ids(codes)

    def ids_to_codes(self, ids: ArrayLike) -> np.ndarray:
        """Image codes (int64) of joint ids, of the same shape; see `IdBlock.ids_to_codes`."""
        return self.image.ids_to_codes(ids)

    def is_image(self, ids: ArrayLike) -> np.ndarray:
        """Boolean array of the shape of `ids`: which of them are image ids."""
        return self.image.contains(ids)

    def is_text(self, ids: ArrayLike) -> np.ndarray:
        """Boolean array of the shape of `ids`: which of them are text, not structure."""
        array = integer_array(ids, "ids")
        inside = (array >= 0) & (array < self.text_size)
        return inside & self._text_table[np.where(inside, array, 0)]

    @functools.cached_property
    def _text_table(self) -> np.ndarray:
        """For every id of the tokenizer: is it text, neither structure nor code? (text_size,)."""
        ids = np.arange(self.text_size)
        table = ~np.any([block.contains(ids) for block in self.blocks], axis=0)
        table[list(self._structural.values())] = False
        return table

    @property
    def _structural(self) -> dict[str, int]:
        names = {name: getattr(self, name) for name in ("pad_id", "eos_id", "break_id")}
        masks = {f"mask_ids[{n}]": value for n, value in enumerate(self.mask_ids)}
        return {**names, "infill_id": self.infill_id, **masks}

    def _fields(self) -> dict[str, Any]:
        fields = {**dataclasses.asdict(self), "mask_ids": list(self.mask_ids)}
        blocks = list(fields.pop("other_blocks"))
        return {**fields, "other_blocks": blocks} if blocks else fields
