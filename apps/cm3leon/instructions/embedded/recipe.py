"""How many embedded instructions there are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EmbeddedRecipe:
    """Records of each task of the embedded instructions in training; 0 leaves the task out."""

    edit: int = 6000
    """Another colour, background or thing, or no change."""
    boxes: int = 6000
    """One to three things at drawn boxes."""
    write: int = 1500
    """Letters, digits and short words."""
    canny: int = 1500
    """Pictures after their Canny edges."""
    scribble: int = 500
    """Pictures after scribbles."""
    segmentation: int = 500
    """Pictures after maps of their things' shapes."""
    coco_caption: int = 500
    """Short captions."""
    image_paragraph: int = 500
    """Long captions."""
    vqa2: int = 4000
    """Questions: what, which colour, what behind, how many, what beside, is it."""
    science_qa: int = 1000
    """Choices of three with a reason."""
    held_out: int = 140
    """Records of each task in validation and in test; of edits and questions, of each kind."""

    def __post_init__(self) -> None:
        """Refuse numbers below 0, and no record at all."""
        for name, number in vars(self).items():
            if number < (1 if name == "held_out" else 0):
                raise ValueError(f"embedded.{name}: wanted at least 0, got {number}")
        if not any(self.numbers.values()):
            raise ValueError("embedded: wanted records of at least one task, got none")

    @property
    def numbers(self) -> dict[str, int]:
        """Records in training by task."""
        return {name: number for name, number in vars(self).items() if name != "held_out"}
