"""The recipe's part on pictures: a folder of one's own, or one of the embedded sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class OpenMojiRecipe:
    """An embedded set: OpenMoji's pictures, split by concept."""

    limit: int | None = None
    """Keep about this many pictures, whole concepts only (None: all)."""
    test_share: float = 0.08
    """Share of the concepts that only the final figures see."""
    validation_share: float = 0.05
    """Share of the concepts that choices while training see (best checkpoint, guidance scale)."""
    variants_share: float = 0.04
    """Share of the skin-toned pictures of training concepts that is held out."""
    largest_held_out: int = 30
    """Concepts of more pictures than this (families, couples) stay in training."""
    near_duplicate: float = 0.08
    """Root mean square difference at 32 x 32 pixels, in [0, 1], below which two pictures are one
    concept."""
    seed: int | None = None
    """Draws the held-out concepts; null follows the run's `seed`."""


@dataclass(frozen=True, kw_only=True)
class CompositionsRecipe:
    """An embedded set: OpenMoji's things, recoloured and composed, split by combination."""

    things: int | None = None
    """Keep this many things (None: all, some 460)."""
    colours: tuple[str, ...] = (
        "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "grey",
    )  # fmt: skip
    """What things are recoloured with; names of `cm3leon.data.palette.PAINTS`."""
    natural: int = 2
    """Pictures of each thing alone in its own colour."""
    recoloured: int = 1
    """Pictures of each thing alone in each other colour."""
    placed: int = 400
    """Pictures of one thing, small or large, in some place."""
    two: int = 400
    """Pictures of two things side by side or one above the other."""
    count: int = 300
    """Pictures of one thing two, three or four times."""
    letters: int = 1
    """Pictures of each letter and digit in each colour."""
    things_share: float = 0.06
    """Share of the things that training never sees."""
    validation_share: float = 0.25
    """Share of the things that have one colour held out for choices while training; every thing
    has one held out for the figures."""
    rich_test_share: float = 0.1
    """Share of the pictures of several things or places that show combinations held out for the
    figures."""
    rich_validation_share: float = 0.05
    """The same for choices while training."""
    seed: int | None = None
    """Draws things, colours and papers; null follows the run's `seed`."""

    def __post_init__(self) -> None:
        """Refuse what would leave a split empty."""
        if len(set(self.colours)) < 4:
            raise ValueError(
                f"compositions.colours: wanted at least 4, so that a thing has some in training "
                f"and one in each held-out split, got {self.colours}"
            )
        if self.things is not None and self.things < 4:
            raise ValueError(f"compositions.things: wanted at least 4, got {self.things}")


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Where the captioned pictures come from."""

    folder: Path | None = None
    """A folder with metadata.jsonl (file_name, text); null draws an embedded set."""
    prepared: Path | None = None
    """A folder that apps/prepare.py made; then only the decoder is trained, and size, tokenizers,
    encoder, strategy and views are that folder's."""
    embedded: Literal["compositions", "openmoji"] = "compositions"
    """Which set is drawn when `folder` is null."""
    size: int = 256
    """Side in pixels that pictures are resized and cropped to."""
    validation_share: float = 0.05
    """Share of the groups held out for choices while training, if the metadata has no split."""
    test_share: float = 0.05
    """Share of the groups held out for the figures, if the metadata has no split."""
    compositions: CompositionsRecipe = field(default_factory=CompositionsRecipe)
    """The embedded set "compositions"."""
    openmoji: OpenMojiRecipe = field(default_factory=OpenMojiRecipe)
    """The embedded set "openmoji"."""

    @property
    def shares(self) -> dict[str, float]:
        """Shares of the groups held out, as `read_pairs` takes them."""
        return {"validation_share": self.validation_share, "test_share": self.test_share}
