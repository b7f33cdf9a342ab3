"""The CM3 objective: chosen spans move to the document's end behind `<infill>` (paper 2.2).

Takes and gives ids; plain next-token loss over the result is the whole objective. With spans
s0, s1, ... cut out, `<eos> body <eos>` becomes

    <eos> body-with-masks <infill> s0 <mask:1> s1 <mask:2> s2 ... <eos>

where the masks in the body are `<mask>`, `<mask:1>`, ... in order. With one span this is the
paper's form, "Image of <mask>: [image] <infill> a chameleon".

Where spans fall is CM3's choice (arXiv 2201.07520, section 3): their number is Poisson, at least
one and at most the number of mask ids; their ends are uniform over the document, no two overlap.
Ours differs in three points. A span never crosses a `<break>` (CM3Leon 2.2): one that would is cut
short at it. With `whole_text_probability` the caption goes as a whole, which makes the prompts of
captioning and of the unconditional stream of guidance training examples. With `region_probability`
a rectangle of the picture goes, one span a row, which does the same for redrawing a region.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cm3_train.integers import integers


@dataclass(frozen=True, kw_only=True)
class CM3Config:
    """How often and how a document is transformed."""

    mask_probability: float = 0.9
    """Chance that a document is transformed at all."""
    mean_spans: float = 1.0
    """Mean of the Poisson number of random spans, before it is clipped to 1..number of masks."""
    num_spans: int | None = None
    """A fixed number of random spans instead, as far as there are masks and tokens for them."""
    whole_text_probability: float = 0.1
    """Given a transformed document: chance that the query's whole caption is the one span."""
    region_probability: float = 0.0
    """Given a transformed document: chance that a rectangle of the query picture is cut out."""
    score_masks: bool = True
    """Whether predicting the mask of a cut span counts. CM3 leaves it out (its section 2): where
    spans are cut is chance, nothing to learn. CM3Leon says that every token weighs the same, so it
    counts by default. Masks behind `<infill>` count in any case: they end a span."""
    retrieved_weight: float = 1.0
    """What a token of a retrieved document counts; RA-CM3 0.1 (arXiv 2211.12561, section 3.3),
    CM3Leon 1 (its section 2.2)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("mask_probability", "whole_text_probability", "region_probability"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: wanted 0..1, got {value}")
        if self.whole_text_probability + self.region_probability > 1:
            raise ValueError(
                "whole_text_probability + region_probability: wanted at most 1, got "
                f"{self.whole_text_probability} + {self.region_probability}"
            )
        if self.mean_spans <= 0:
            raise ValueError(f"mean_spans: wanted above 0, got {self.mean_spans}")
        if self.num_spans is not None and self.num_spans < 1:
            raise ValueError(f"num_spans: wanted at least 1 or None, got {self.num_spans}")
        if not 0 <= self.retrieved_weight < math.inf:
            raise ValueError(f"retrieved_weight: wanted at least 0, got {self.retrieved_weight}")


def cm3_transform(
    ids: np.ndarray,
    *,
    config: CM3Config,
    rng: np.random.Generator,
    eos_id: int,
    break_id: int,
    infill_id: int,
    mask_ids: Sequence[int],
    scope_start: int = 0,
    grid: tuple[int, int] | None = None,
) -> np.ndarray:
    """Move random spans of a document to its end.

    Args:
        ids: Document `<eos> T <break> I ... <eos>`, (L,).
        config: How often and how.
        rng: The only source of randomness.
        eos_id: First and last id of the document.
        break_id: Stands between modalities; no span holds it.
        infill_id: Stands before the moved spans.
        mask_ids: Stand in for the spans; their number caps the spans, none leaves `ids` as it is.
        scope_start: Spans lie at or behind this position. What lies there is the query pair: its
            first part is the caption, its last part the picture.
        grid: (height, width) of the picture in codes; needed when regions are cut.

    Returns:
        int64 (L + 2 * spans,), or (L,) when the document stays as it is.

    Raises:
        ValueError: The document is not of that form, or the grid does not fit.
    """
    ids = integers(ids, "ids")
    starts, ends = _parts(ids, eos_id, break_id, (infill_id, *mask_ids), scope_start)
    if config.region_probability and grid is None:
        raise ValueError("grid: wanted (height, width) since region_probability > 0, got None")
    if not mask_ids or rng.random() >= config.mask_probability:
        return ids
    kind = rng.random()
    if kind < config.whole_text_probability:
        begins, stops = starts[:1], ends[:1]
    elif grid and kind < config.whole_text_probability + config.region_probability:
        begins, stops = _region(rng, grid, int(starts[-1]), int(ends[-1]), len(mask_ids))
    else:
        count = config.num_spans or max(1, int(rng.poisson(config.mean_spans)))
        count = min(count, len(mask_ids))
        begins, stops = _random_spans(rng, starts, ends, count)
    return move_spans(ids, begins, stops, infill_id, mask_ids) if len(begins) else ids


def move_spans(
    ids: np.ndarray,
    begins: np.ndarray,
    stops: np.ndarray,
    infill_id: int,
    mask_ids: Sequence[int],
) -> np.ndarray:
    """Move spans of a document to its end, behind `<infill>`.

    Args:
        ids: Document from `<eos>` to `<eos>`, (L,).
        begins: (S,) where the spans begin, in order; none overlaps another.
        stops: (S,) where they stop.
        infill_id: Stands before the moved spans.
        mask_ids: Stand in for the spans, at least S.

    Returns:
        int64 (L + 2 * S,).
    """
    body: list[np.ndarray] = []
    moved: list[np.ndarray] = []
    masks = integers(mask_ids, "mask_ids")
    at = 0
    for span, (begin, stop) in enumerate(zip(begins.tolist(), stops.tolist(), strict=True)):
        mask = masks[span : span + 1]
        body += [ids[at:begin], mask]
        moved += [mask, ids[begin:stop]]
        at = stop
    moved[0] = np.array([infill_id])  # the first span follows <infill> itself
    return np.concatenate([*body, ids[at:-1], *moved, ids[-1:]])


def undo_cm3(ids: np.ndarray, *, infill_id: int, mask_ids: Sequence[int]) -> np.ndarray:
    """Put the moved spans back: the inverse of `cm3_transform`.

    Raises:
        ValueError: Masks in the body and behind `<infill>` do not match.
    """
    ids = integers(ids, "ids")
    infills = np.flatnonzero(ids == infill_id)
    if len(infills) == 0:
        return ids
    if len(infills) > 1:
        raise ValueError(f"infill_id: wanted it once, got it at positions {infills.tolist()}")
    body, moved = ids[: infills[0]], ids[infills[0] + 1 : -1]
    holes = np.flatnonzero(np.isin(body, mask_ids))
    cuts = np.flatnonzero(np.isin(moved, mask_ids))
    wanted = np.asarray(mask_ids[: len(holes)])
    if not np.array_equal(body[holes], wanted) or not np.array_equal(moved[cuts], wanted[1:]):
        raise ValueError(
            f"mask_ids: wanted {wanted.tolist()} in the body and, but for the first, behind "
            f"<infill>, got {body[holes].tolist()} and {moved[cuts].tolist()}"
        )
    kept = np.split(body, holes)  # every part but the first begins with its mask
    spans = np.split(moved, cuts)  # likewise
    pieces = [kept[0], spans[0], kept[1][1:]]
    for part, span in zip(kept[2:], spans[1:], strict=True):
        pieces += [span[1:], part[1:]]
    return np.concatenate([*pieces, ids[-1:]])


def query_start(ids: np.ndarray, break_id: int) -> int:
    """Return where the last pair of `<eos> T <break> I <break> T <break> I <eos>` begins.

    That is behind the last but one `<break>`, or behind the first `<eos>` if there is one pair.
    """
    breaks = np.flatnonzero(np.asarray(ids) == break_id)
    return int(breaks[-2]) + 1 if len(breaks) > 1 else 1


def _parts(
    ids: np.ndarray, eos_id: int, break_id: int, forbidden: Sequence[int], scope_start: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the begins and ends of the runs between `<break>`s in scope."""
    if len(ids) < 2 or ids[0] != eos_id or ids[-1] != eos_id:
        raise ValueError("ids: wanted a document that begins and ends with <eos>")
    if not 0 <= scope_start < len(ids):
        raise ValueError(f"scope_start: wanted 0..{len(ids) - 1}, got {scope_start}")
    first = max(1, scope_start)
    body = ids[first:-1]
    structural = np.isin(body, (eos_id, *forbidden))
    if structural.any():
        at = first + int(structural.argmax())
        raise ValueError(f"ids: wanted a plain document, got the id {ids[at]} at position {at}")
    breaks = np.flatnonzero(body == break_id) + first
    return np.append(first, breaks + 1), np.append(breaks, len(ids) - 1)


def _random_spans(
    rng: np.random.Generator, starts: np.ndarray, ends: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw 2 * count distinct cut points over the tokens that may move, and pair neighbours.

    Parts [1, 4) and [5, 9) hold 3 + 4 tokens, numbered 0..6. Cut points (2, 5) mean the tokens
    2..4; token 2 lies in the first part, which ends at number 3, so the span is cut short to
    (2, 3), that is the document's positions [3, 4).
    """
    lengths = ends - starts
    upto = np.cumsum(lengths)
    total = int(upto[-1])
    count = min(count, (total + 1) // 2)
    cuts = np.sort(rng.choice(total + 1, 2 * count, replace=False, shuffle=False))
    begins, stops = cuts[0::2], cuts[1::2]
    part = np.searchsorted(upto, begins, side="right")
    shift = (starts + lengths - upto)[part]
    return begins + shift, np.minimum(stops, upto[part]) + shift


def _region(
    rng: np.random.Generator, grid: tuple[int, int], start: int, end: int, max_spans: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a rectangle; its rows are the spans, or one span where it is as wide as the picture."""
    height, width = grid
    if height * width != end - start:
        raise ValueError(f"grid: wanted height * width = {end - start} codes, got {grid}")
    rows = int(rng.integers(1, min(height, max_spans) + 1))
    columns = int(rng.integers(1, width + 1))
    top = int(rng.integers(0, height - rows + 1))
    left = int(rng.integers(0, width - columns + 1))
    begins = start + (top + np.arange(rows)) * width + left
    if columns == width:
        return begins[:1], begins[-1:] + width
    return begins, begins + columns
