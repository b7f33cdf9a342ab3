"""Which reader reads what: by the task, the form that its folder shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cm3_retrieval.metadata_file import NAMES, metadata_files
from cm3_retrieval.picture_file import shown
from cm3_texttok import Task
from cm3leon.instructions.example import Examples
from cm3leon.instructions.readers.annotations import matching
from cm3leon.instructions.readers.coco import read_captions, read_karpathy
from cm3leon.instructions.readers.coco_boxes import read_boxes
from cm3leon.instructions.readers.flickr30k import read_tokens
from cm3leon.instructions.readers.image_folder import read_image_folder
from cm3leon.instructions.readers.image_paragraph import read_paragraphs
from cm3leon.instructions.readers.instruct_pix2pix import read_folders, read_parquet
from cm3leon.instructions.readers.localized_narratives import read_narratives
from cm3leon.instructions.readers.open_images import read_open_images
from cm3leon.instructions.readers.picture_folder import PictureFolder
from cm3leon.instructions.readers.questions import read_questions
from cm3leon.instructions.readers.science_qa import read_science_qa
from cm3leon.instructions.readers.vizwiz import read_vizwiz

Read = Callable[[Sequence[Path], PictureFolder], Examples]


@dataclass(frozen=True)
class Form:
    """A published form."""

    files: tuple[str, ...]
    """Patterns of the annotation files; they lie in the folder or in one right below it."""
    read: Read


COCO = Form(("captions_*.json",), read_captions)
FORMS: dict[str, tuple[Form, ...]] = {
    "edit": (Form(("seeds.json",), read_folders), Form(("*.parquet",), read_parquet)),
    "boxes": (
        Form(("instances_*.json", "zhiyuan_objv2_*.json"), read_boxes),
        Form(("*annotations-bbox.csv",), read_open_images),
    ),
    **dict.fromkeys(
        ("canny", "hed", "openpose", "depth", "normals", "segmentation", "scribble"), (COCO,)
    ),
    "coco_caption": (Form(("dataset_coco.json",), read_karpathy), COCO),
    "flickr30k": (
        Form(("dataset_flickr30k.json",), read_karpathy),
        Form(("results_*.token",), read_tokens),
    ),
    "image_paragraph": (Form(("paragraphs_v1.json",), read_paragraphs),),
    "localized_narratives": (Form(("*localized_narratives*.jsonl",), read_narratives),),
    "vqa2": (Form(("v2_OpenEnded_mscoco_*_questions.json",), read_questions),),
    "okvqa": (Form(("OpenEnded_mscoco_*_questions.json",), read_questions),),
    "vizwiz": (Form(("train.json", "val.json", "test.json"), read_vizwiz),),
    "science_qa": (Form(("problems.json",), read_science_qa),),
}
"""By the task's name, the form that counts first. Any task may also be an imagefolder."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A folder whose form is known."""

    files: tuple[Path, ...]
    """Its annotation files."""
    read: Callable[[], Examples]
    """Gives its examples, the same in each call."""


def open_reader(task: Task, folder: Path, images: Path | None = None) -> Reader:
    """Return the reader of a folder.

    Args:
        task: What its records are for.
        folder: The annotation files.
        images: The pictures lie somewhere below it; None: below `folder`. The pictures of an
            imagefolder, of ScienceQA and of InstructPix2Pix have exact places of their own.

    Raises:
        FileNotFoundError: The folder is missing, or shows no form of the task.
        ValueError: It has metadata of several kinds.
    """
    for place in (folder, images or folder):
        if not place.is_dir():
            raise FileNotFoundError(f"{shown(place)}: wanted a folder, got none")
    pictures, forms = PictureFolder(images or folder), FORMS.get(task.name, ())
    for form in forms:
        found = matching(folder, form.files)
        if files := tuple(path for path in found if path.name not in NAMES):
            return Reader(files=files, read=partial(form.read, files, pictures))
    if files := tuple(metadata_files(folder)):
        return Reader(files=files, read=partial(read_image_folder, task, folder))
    wanted = ", ".join((*(name for form in forms for name in form.files), *NAMES))
    raise FileNotFoundError(f"{shown(folder)}: wanted for {task.name} {wanted}, got none of them")
