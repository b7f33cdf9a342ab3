"""A folder of twelve captioned pictures, as a reader of the tutorials brings it."""

import json
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "triangle")


def write_pictures(folder: Path) -> None:
    """Draw every shape in every colour, and write metadata.jsonl."""
    folder.mkdir(parents=True)
    rows = []
    for colour in COLOURS:
        for shape in SHAPES:
            picture = Image.new("RGB", (48, 40), "white")
            draw = ImageDraw.Draw(picture)
            if shape == "circle":
                draw.ellipse((10, 6, 38, 34), fill=colour)
            elif shape == "square":
                draw.rectangle((10, 6, 38, 34), fill=colour)
            else:
                draw.polygon([(24, 6), (10, 34), (38, 34)], fill=colour)
            name = f"{len(rows):04}.png"
            picture.save(folder / name)
            rows.append({"file_name": name, "text": f"a {colour} {shape} on white"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
