"""Files of instructions as their publishers write them, small, and what is read of them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cm3_texttok import PAPER_TASKS, Task
from cm3leon.data.raw_files import Unusable
from cm3leon.instructions.example import Example, Unneeded
from cm3leon.instructions.readers.forms import open_reader


def write(path: Path, content: Any) -> Path:
    """Write a file: bytes and texts as they are, all else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    path.write_bytes(content)
    return path


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        write(folder / name, f"picture {name}")


def read(task: str | Task, folder: Path, images: Path | None = None):
    """Examples, unusable and unneeded records of a folder."""
    task = PAPER_TASKS[task] if isinstance(task, str) else task
    found = list(open_reader(task, folder, images).read())
    return tuple(
        [one for one in found if isinstance(one, kind)] for kind in (Example, Unusable, Unneeded)
    )


def seen(example: Example) -> dict[str, str]:
    return {name: picture().decode() for name, picture in example.pictures.items()}


OTHER_SCRIPTS = "犬がボールを蹴る — कुत्ता, كلب, 🐕"

IMAGES = [
    {"id": 9, "width": 60, "height": 40, "file_name": "000000000009.jpg", "license": 3},
    {"id": 25, "width": 60, "height": 40, "file_name": "000000000025.jpg", "license": 1},
    {"id": 30, "width": 60, "height": 40, "file_name": "000000000030.jpg", "license": 1},
]

HEAD = {"info": {"year": 2017}, "licenses": [{"id": 3, "name": "CC BY 2.0", "url": "http://x"}]}


def coco(folder: Path, annotations: list, subset="val2017", images=IMAGES, **more) -> Path:
    head = {**HEAD, "images": images, "annotations": annotations, **more}
    return write(folder / "annotations" / f"captions_{subset}.json", head)


SAID = [
    {"id": 1, "image_id": 9, "caption": "A dog\nruns. "},
    {"id": 2, "image_id": 25, "caption": OTHER_SCRIPTS},
    {"id": 3, "image_id": 9, "caption": "It runs."},
]

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog", "supercategory": "animal"}]


def thing(image: int, category: int, *box: float, **more) -> dict:
    return {"id": 0, "image_id": image, "category_id": category, "bbox": list(box), "iscrowd": 0,
            "area": 1.0, "segmentation": [[1, 2, 3, 4, 5, 6]], **more}  # fmt: skip


def png(seed: int, size=(60, 40)) -> bytes:
    small = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.NEAREST).save(file, "png")
    return file.getvalue()
