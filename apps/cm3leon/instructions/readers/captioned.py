"""Pictures with several captions each: one example a caption in training, one a picture otherwise.

Scoring compares one answer with all captions of a picture, so a held-out picture stands once, and
its captions are facts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cm3leon.instructions.example import Example, Picture
from cm3leon.instructions.sets import Split


def captioned(
    name: str,
    captions: Sequence[tuple[object, str]],
    picture: Picture,
    *,
    split: Split,
    source: str,
    licence: str = "",
    facts: dict[str, Any],
) -> Iterator[Example]:
    """Yield the examples of one picture.

    Args:
        name: Of the picture, unique in the set.
        captions: (what tells it from the others, caption); none gives no example.
        picture: The field `image`.
        split: As of `Example`, and so the rest.
        source: See `split`.
        licence: See `split`.
        facts: What identifies the picture.
    """
    texts = [caption for _, caption in captions]
    once = captions if split == "train" else captions[:1]
    for own, caption in once:
        yield Example(
            name=f"{name}#{own}",
            texts={"caption": caption},
            pictures={"image": picture},
            facts=facts if split == "train" else {**facts, "captions": texts},
            split=split,
            source=source,
            licence=licence,
        )
