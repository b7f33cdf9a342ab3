"""Table 5 of arXiv 2309.02591: record, ids, and text again, segment by segment."""

import numpy as np
import pytest

from cm3_texttok import PAPER_TASKS, InstructionLayout

RECORD = {
    "instruction": "make it blue",
    "text": "1991",
    "caption": "a red fox",
    "boxes": "fox at (1, 2) -> (30, 40), tree at (5, 6) -> (70, 80)",
    "question": "what is it?",
    "answer": "(B)",
    "context": "N/A",
    "options": "(A) a fox (B) a boat",
    "explanation": "It floats.",
    "source": [1, 2],
    "feature": [3, 4],
    "image": [[5, 6], [7, 8]],
}
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


@pytest.fixture(scope="module")
def layouts(tokenizer, vocabulary):
    return InstructionLayout(tokenizer, vocabulary)


def said(layout, tokenizer, ids):
    """The segments of a document as text and codes."""
    document = layout.read(ids)
    return [
        tokenizer.decode(values.tolist()) if kind == "text" else np.asarray(values).tolist()
        for kind, values in document.restore()
    ]


@pytest.mark.parametrize("name", PAPER_TASKS)
def test_every_task_of_table_5_segment_by_segment(name, layouts, layout, tokenizer):
    task = PAPER_TASKS[name]
    found = [
        said(layout, tokenizer, layouts.whole(template, RECORD, task.outputs).ids)
        for template in task.parsed
    ]
    assert found == GOLDEN[name]
