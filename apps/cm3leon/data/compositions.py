"""The embedded set: things in their own and in other colours on coloured paper, alone and composed.

The folder is an ordinary Hugging Face imagefolder: PNG files and `metadata.jsonl` with `file_name`,
`text`, `split`, `group`, `category` and `boxes`. Its column `facts` says what a picture shows:

    {"kind": "one", "background": "yellow",
     "things": [{"name": "fox", "colour": "blue", "natural": false, "box": [x0, y0, x1, y1]}]}

`kind` is "one", "placed" (small or large, somewhere), "two", "count" or "letter". `group` is the
combination of thing and colour, "fox blue", whatever the paper; "apple red + cat grey" where there
are two. Pictures: OpenMoji, CC BY-SA 4.0, https://openmoji.org.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cm3leon.data import openmoji
from cm3leon.data.plan import plan
from cm3leon.data.scenes import Scene
from cm3leon.data_recipe import CompositionsRecipe

CREDIT = f"{openmoji.CREDIT} Recoloured and composed. Letters: DejaVu Sans Bold."


def write_compositions(
    folder: Path,
    config: CompositionsRecipe,
    size: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the folder: `pictures/*.png`, `metadata.jsonl` and `CREDIT.txt`.

    Args:
        folder: Where to; made if missing.
        config: How many of each kind, and what is held out.
        size: Side of the pictures in pixels.
        progress: Called with (done, total).
    """
    planned = plan(config)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rows = []
    for place, (scene, split) in enumerate(planned):  # threads gain nothing: resvg keeps the GIL
        name = f"pictures/{place:05d}-{_slug(scene)}.png"
        (folder / name).write_bytes(scene.png(size))
        rows.append(_row(name, scene, split, size))
        if progress:
            progress(place + 1, len(planned))
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    (folder / "CREDIT.txt").write_text(CREDIT + "\n", encoding="utf-8")


def _row(file_name: str, scene: Scene, split: str, size: int) -> dict[str, Any]:
    facts = scene.facts(size)
    return {
        "file_name": file_name,
        "text": scene.caption,
        "split": split,
        "group": scene.group,
        "category": scene.things[0].thing.category,
        "boxes": [thing["box"] for thing in facts["things"]],
        "facts": facts,
    }


def _slug(scene: Scene) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in scene.caption.lower())
