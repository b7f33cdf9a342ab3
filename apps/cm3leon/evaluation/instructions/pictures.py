"""Figures of pictures that instructions ask for: edits, boxes, writing, guides.

A score takes what was drawn and the facts of the records, and gives figures. The same scores of the
real pictures through the tokenizer are the ceiling, those of pictures of other records chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from cm3leon.data.palette import colour_of_paper, colour_of_thing
from cm3leon.data.recolouring import SIDE
from cm3leon.evaluation.instructions.shapes import around, box_iou, iou, parts_of, thing_mask
from cm3leon.evaluation.judge import Judge
from cm3leon.instructions.embedded.drawings import CHARACTERS
from cm3leon.instructions.embedded.pictures import Writing, pixels_of
from cm3leon.instructions.features import open_feature

KEPT = 0.7
"""IoU with the source from which a shape counts as kept."""
FOUND = 0.3
"""IoU from which a box counts as found."""
Facts = Sequence[Mapping[str, Any]]

HOW = {
    "edit.colour": "Edits of the colour: share in which the thing's measured main colour is the "
    f"one asked for, and the thing's shape overlaps the source's by an IoU of {KEPT} or more.",
    "edit.background": "Edits of the background: the same of the background's measured colour.",
    "edit.thing": "Edits of the thing: share in which the judge names the new thing first.",
    "edit.keep": "Instructions to change nothing: share that keep colour, background and shape.",
    "edit.kept_shape_iou": "Edits of colour and background: mean IoU of the thing's shape with the "
    "source's.",
    "edit.drift": "Edits of the colour: mean absolute difference from the source outside of the "
    "thing; of the background: inside of it; in 0..1.",
    "edit.keep_drift": "Instructions to change nothing: mean absolute difference from the source.",
    "boxes.iou30": "Share of the things for which the parts of the picture that are nearer to the "
    f"thing's box than to another's have, together, that box, by an IoU of {FOUND} or more.",
    "boxes.iou50": "The same by an IoU of 0.5.",
    "boxes.coloured30": "As iou30, of the parts of the picture in the colour asked for.",
    "write.character": "Single characters: share read back, by the nearest of the 36 in shape.",
    "canny.agreement": "Mean F1, pixel by pixel, of the edges of the drawn picture and those of "
    "the real one through the tokenizer.",
    "canny.shuffled": "The same with the real pictures of other records.",
    "canny.over_shuffled": "The one over the other.",
    "scribble.iou": "Mean IoU of the drawn thing's shape and the real picture's.",
    "segmentation.iou": "The same with a map of shapes as the guide.",
}


def score_edits(
    pixels: np.ndarray, sources: np.ndarray, facts: Facts, judge: Judge
) -> dict[str, float]:
    """Score edits.

    Args:
        pixels: (N, H, W, 3) uint8, what was drawn.
        sources: (N, H, W, 3) the pictures that were to be edited.
        facts: N, as `embedded.edits` makes them.
        judge: Names things.
    """
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    changes = [fact["change"] for fact in facts]
    things = [place for place, change in enumerate(changes) if change == "thing"]
    for picture, source, fact, change in zip(pixels, sources, facts, changes, strict=True):
        if change == "thing":
            continue
        before, after = thing_mask(source), thing_mask(picture)
        overlap, paper = iou(before, after), colour_of_paper(picture)
        colour = colour_of_thing(picture, (0, 0, *picture.shape[1::-1]), paper)
        right = {
            "colour": colour == fact["colour"],
            "background": paper == fact["background"],
            "keep": colour == fact["colour"] and paper == fact["background"],
        }[change]
        note(change, right and overlap >= KEPT)
        difference = np.abs(picture.astype(np.float64) - source).mean(-1) / 255
        if change == "keep":
            note("keep_drift", float(difference.mean()))
            continue
        note("kept_shape_iou", overlap)
        asked_not = ~_grown(before) if change == "colour" else _shrunk(before)
        if asked_not.any():
            note("drift", float(difference[asked_not].mean()))
    if things:
        ranks = judge.rank(pixels[things], [facts[place]["thing"] for place in things])
        found["thing"] = (ranks == 0).tolist()
    return {name: float(np.mean(values)) for name, values in found.items()}


def score_boxes(pixels: np.ndarray, facts: Facts) -> dict[str, float]:
    """Score scenes with things at boxes; arguments as of `score_edits`."""
    hits: dict[str, list[bool]] = {"iou30": [], "iou50": [], "coloured30": []}
    for picture, fact in zip(pixels, facts, strict=True):
        parts = parts_of(thing_mask(picture))
        paper = colour_of_paper(picture)
        colours = [colour_of_thing(picture, part, paper) for part in parts]
        boxes = np.array([thing["box"] for thing in fact["things"]]) * picture.shape[1] / SIDE
        nearest = [
            int(np.square(_middle(boxes) - _middle(part)).sum(-1).argmin()) for part in parts
        ]
        for number, thing in enumerate(fact["things"]):
            wanted = tuple(boxes[number].tolist())
            mine = [part for part, one in zip(parts, nearest, strict=True) if one == number]
            found = box_iou(around(mine), wanted) if mine else 0.0
            hits["iou30"].append(found >= FOUND)
            hits["iou50"].append(found >= 0.5)
            mine = [
                part for part, one in zip(parts, colours, strict=True) if one == thing["colour"]
            ]
            found = box_iou(around(mine), wanted) if mine else 0.0
            hits["coloured30"].append(found >= FOUND)
    return {name: float(np.mean(values)) for name, values in hits.items()}


def score_writing(pixels: np.ndarray, facts: Facts) -> dict[str, float]:
    """Score writing; arguments as of `score_edits`. Only single characters are read."""
    single = [place for place, fact in enumerate(facts) if len(fact["text"]) == 1]
    if not single:
        return {}
    read = read_characters(pixels[single])
    right = [found == facts[place]["text"] for found, place in zip(read, single, strict=True)]
    return {"character": float(np.mean(right))}


def score_edges(pixels: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Score how the edges of drawn pictures (N, H, W, 3) agree with the real ones' and others'."""
    edges, wanted = _edges(pixels), _edges(real)
    own = np.mean([f1(a, b) for a, b in zip(edges, wanted, strict=True)])
    # the other way round than `true_outputs` takes pictures of others, which would be the same ones
    others = np.roll(wanted, -1, 0)
    other = np.mean([f1(a, b) for a, b in zip(edges, others, strict=True)])
    return {
        "agreement": float(own),
        "shuffled": float(other),
        "over_shuffled": float(own / max(other, 1e-9)),
    }


def score_shapes(pixels: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Score how the shapes of drawn things overlap those of the real pictures (N, H, W, 3)."""
    pairs = zip(pixels, real, strict=True)
    return {"iou": float(np.mean([iou(thing_mask(a), thing_mask(b)) for a, b in pairs]))}


def f1(edges: np.ndarray, wanted: np.ndarray) -> float:
    """Return the F1 score of edges (H, W) against others, pixel by pixel."""
    both = float((edges & wanted).sum())
    return 2 * both / max(float(edges.sum() + wanted.sum()), 1e-9)


def read_characters(pixels: np.ndarray) -> list[str]:
    """Return the character that each picture (N, H, W, 3) of one shows.

    The nearest of the 36, each cut out and brought to one size, by the mean square difference.
    """
    side = pixels.shape[1]
    known = np.stack([_ink(pixels_of(Writing(one), side)) for one in CHARACTERS])
    found = []
    for picture in pixels:
        distance = ((known - _ink(picture)) ** 2).mean((1, 2))
        found.append(CHARACTERS[int(distance.argmin())])
    return found


def _edges(pixels: np.ndarray) -> np.ndarray:
    canny = open_feature("canny")
    return np.stack([canny(picture)[..., 0] < 128 for picture in pixels])


def _ink(picture: np.ndarray) -> np.ndarray:
    """Return the dark part of a picture, cut out, with its proportions, at 32 x 32."""
    dark = 1 - picture.astype(np.float64).mean(-1) / 255
    rows, columns = np.flatnonzero((dark > 0.5).any(1)), np.flatnonzero((dark > 0.5).any(0))
    if not len(rows):
        return np.zeros((32, 32))
    part = dark[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    longer = max(part.shape)
    square = np.zeros((longer, longer))
    top, left = (longer - part.shape[0]) // 2, (longer - part.shape[1]) // 2
    square[top : top + part.shape[0], left : left + part.shape[1]] = part
    return np.asarray(ndimage.zoom(square, 32 / longer, order=1, grid_mode=True, mode="nearest"))


def _middle(boxes: np.ndarray | tuple[float, ...]) -> np.ndarray:
    """Return the middles (..., 2) of boxes (..., 4)."""
    found = np.asarray(boxes)
    return (found[..., :2] + found[..., 2:]) / 2


def _grown(mask: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.binary_dilation(mask, np.ones((3, 3))))


def _shrunk(mask: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.binary_erosion(mask, np.ones((3, 3))))
