"""Table 5 of arXiv 2309.02591: record, ids, and text again, segment by segment."""

import pytest

from cm3_texttok import PAPER_TASKS

FEATURES = {
    "canny": "canny edge features", "hed": "hed features", "openpose": "openpose features",
    "depth": "depth features", "normals": "3D norm features",
    "segmentation": "a segmentation map", "scribble": "children's scribbles",
}  # fmt: skip
IMAGE = [5, 6, 7, 8]
CAPTIONS = ["a red fox", "Describe the given picture. a red fox"]
AT_LENGTH = [
    "Describe the given picture in very detail. a red fox",
    "Generate a long caption for the given image. a red fox",
]
QUESTIONS = [
    "Question: what is it? Answer: (B).",
    "Question: what is it?\n(B)",
    "Question: what is it? The answer is (B).",
]
SCIENCE = "Question: what is it?\nContext: N/A\nOptions: (A) a fox (B) a boat\nAnswer: "

GOLDEN = {
    "edit": [["Edit first image following the instruction", [1, 2], "make it blue", IMAGE]],
    "write": [['draw "1991"', IMAGE]],
    "boxes": [
        [
            "Generate high quality image of a red fox with segmentations fox at (1, 2) -> "
            "(30, 40), tree at (5, 6) -> (70, 80)",
            IMAGE,
        ]
    ],
    **{
        name: [[f"Make high quality image from {words}", [3, 4], "a red fox", IMAGE]]
        for name, words in FEATURES.items()
    },
    "coco_caption": [[text, IMAGE] for text in CAPTIONS],
    "flickr30k": [[text, IMAGE] for text in CAPTIONS],
    "image_paragraph": [
        [text, IMAGE]
        for text in (
            *AT_LENGTH, "Describe all the objects in the given image in very detail. a red fox"
        )
    ],
    "localized_narratives": [
        [text, IMAGE]
        for text in (
            *AT_LENGTH,
            "Generate a long narration of what is happening in the given image. a red fox",
        )
    ],
    **{name: [[text, IMAGE] for text in QUESTIONS] for name in ("vqa2", "vizwiz", "okvqa")},
    "science_qa": [
        [SCIENCE + "(B).", IMAGE],
        [SCIENCE + "Let's think step-by-step: It floats. So the answer is (B).", IMAGE],
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", PAPER_TASKS)
def test_every_task_of_table_5_segment_by_segment(name, layouts, said, filled):
    task = PAPER_TASKS[name]
    found = [said(layouts.whole(template, filled, task.outputs).ids) for template in task.parsed]
    assert found == GOLDEN[name]
