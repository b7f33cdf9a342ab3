"""A command of `apps/generate.py`: draw, describe, redraw or teach; say what was done, save it."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image, fromarray

from cm3_imagetok import load_image
from cm3_train import progress_bar
from cm3leon.drawing import describe, draw, redraw, sampling, teach
from cm3leon.drawing.prompts import pairs_of
from cm3leon.parts import Parts
from cm3leon.sheets import in_rows, save as write_picture, write_sheet


def open_picture(
    path: Path | None, rectangle: tuple[int, int, int, int] | None = None
) -> Image | None:
    """Open the picture of a command that has one, before anything slow is done.

    Raises:
        ValueError: The rectangle, if there is one, is not inside the picture.
    """
    if path is None:
        return None
    picture = load_image(path)
    if rectangle is not None:
        redraw.check_rectangle(rectangle, picture.size)
    return picture


def taught(
    parts: Parts, run: Path, picture: Image | None, name: str | None, *, keep: bool
) -> Parts:
    """Return parts that know what the run was taught before, and a picture's thing.

    Args:
        parts: The run's parts.
        run: Its folder.
        picture: Of a new thing, or None.
        name: What the thing is called.
        keep: Remember it in the run's folder.
    """
    parts = teach.recall(parts, run)
    if picture is None or name is None:
        return parts
    parts = teach.learn(parts, picture, name)
    if keep:
        print(f"kept {teach.keep(run, picture, name, parts.tokenizers.size)}")
    return parts


def draw_prompt(
    parts: Parts,
    prompt: str,
    *,
    candidates: int,
    retrieved: int | None,
    seed: int,
    sampler: str | None,
    changes: Mapping[str, Any],
    out: Path | None,
    best: Path | None = None,
) -> None:
    """Draw candidates for a prompt; arguments as of `drawing.sampling` and `drawing.draw`."""
    with progress_bar("drawing") as progress:
        drawn = draw.draw(
            parts,
            [prompt],
            retrieved=retrieved,
            samplers=sampling.samplers_of(parts.habits, sampler, changes, candidates),
            seeds=seed + np.arange(candidates)[None],
            progress=progress,
        )
    (context,) = drawn.contexts
    say_context(parts, context)
    best_first = np.argsort(-drawn.scores[0], kind="stable")
    codes = [codes for _, codes in pairs_of(parts, context)]
    pictures = [parts.tokenizers.decode(row[None])[0] for row in codes]
    pictures += list(drawn.pixels[0, best_first])
    scores = titles_of(parts, drawn.scores[0, best_first].tolist())
    save(out, prompt, pictures, [*["retrieved"] * len(context), *scores])
    save_best(best, drawn.pixels[0, best_first[0]])


def describe_picture(
    parts: Parts,
    picture: Image,
    *,
    candidates: int,
    retrieved: int | None,
    seed: int,
    sampler: str | None,
    changes: Mapping[str, Any],
) -> str:
    """Print captions of a picture, and return the best; arguments as of `describing`."""
    describing = describe.describing(
        parts,
        picture,
        candidates=candidates,
        sampling=sampling.plain_sampler_of(parts.habits, sampler, changes),
        retrieved=retrieved,
        seed=seed,
    )
    with progress_bar("describing") as progress:
        found = describing.carry_out(parts, progress=progress)
    say_context(parts, found.context)
    for caption, score in zip(found.captions, found.scores, strict=True):
        judged = "" if parts.retrieval is None else f"{score:6.2f}  "
        print(f"{judged}{''.join(c if c.isprintable() else ' ' for c in caption)}")
    return found.captions[0]


def redraw_picture(
    parts: Parts,
    picture: Image,
    rectangle: tuple[int, int, int, int],
    caption: str,
    *,
    candidates: int,
    retrieved: int | None,
    seed: int,
    sampler: str | None,
    changes: Mapping[str, Any],
    out: Path | None,
    best: Path | None = None,
) -> None:
    """Redraw a rectangle of a picture; arguments as of `redrawing`."""
    redrawing = redraw.redrawing(
        parts,
        picture,
        redraw.masked_codes(parts.tokenizers, rectangle, picture.size),
        caption,
        candidates=candidates,
        sampling=sampling.plain_sampler_of(parts.habits, sampler, changes),
        retrieved=retrieved,
        seed=seed,
    )
    with progress_bar("redrawing") as progress:
        redrawn = redrawing.carry_out(parts, progress=progress)
    say_context(parts, redrawn.context)
    hidden = np.where(redrawn.masked[..., None], np.uint8(128), redrawn.original)
    scores = titles_of(parts, redrawn.scores)
    save(
        out,
        caption,
        [redrawn.original, hidden, *redrawn.pixels],
        ["picture", "masked", *scores],
    )
    save_best(best, redrawn.pixels[0])


def titles_of(parts: Parts, scores: Sequence[float]) -> list[str]:
    """Return what stands below candidates: CLIP's scores, or their numbers where there is none."""
    if parts.retrieval is None:
        return [f"{number}" for number in range(1, len(scores) + 1)]
    return [f"CLIP {score:.2f}" for score in scores]


def say_context(parts: Parts, context: Sequence[int]) -> None:
    """Print what was retrieved."""
    for key in context:
        print(f"retrieved: {parts.memory.documents.caption(key)}")


def save(
    out: Path | None, name: str, pictures: Sequence[np.ndarray], titles: Sequence[str]
) -> None:
    """Write the sheet, by default under a name made from the caption that no file has yet."""
    slug = re.sub(r"\W+", "-", name.lower()).strip("-")[:40] or "picture"
    names = itertools.chain([f"{slug}.png"], (f"{slug}-{n}.png" for n in itertools.count(2)))
    path = out or next(path for path in map(Path, names) if not os.path.lexists(path))
    write_sheet(path, *in_rows(name, pictures, titles))
    print(f"wrote {path}")


def save_best(path: Path | None, pixels: np.ndarray) -> None:
    """Write the first candidate (H, W, 3) alone, if a file was named for it."""
    if path is not None:
        write_picture(fromarray(pixels), path)
        print(f"wrote {path}")
