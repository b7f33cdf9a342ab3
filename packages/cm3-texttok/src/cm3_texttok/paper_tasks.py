"""The tasks of the paper's supervised fine-tuning: arXiv 2309.02591, table 5, in its words.

Where table and text differ, the table counts (section 4.1 has "Edit the image following the text
instruction"). Its quotation marks and apostrophes are plain ones here. A location is
`(x0, y0) -> (x1, y1)`, in pixels of 0 to 255 (figure 15). The answer of ScienceQA is its option's
letter, "(B)", as in figure 7.
"""

from cm3_texttok.template import Task

_FEATURE = "Make high quality image from {} <break> [feature] <break> {{caption}} <break> [image]"
_FEATURES = {
    "canny": "canny edge features",
    "hed": "hed features",
    "openpose": "openpose features",
    "depth": "depth features",
    "normals": "3D norm features",
    "segmentation": "a segmentation map",
    "scribble": "children's scribbles",
}
_AT_LENGTH = (
    "Describe the given picture in very detail. {caption} <break> [image]",
    "Generate a long caption for the given image. {caption} <break> [image]",
)
_CAPTION = ("{caption} <break> [image]", "Describe the given picture. {caption} <break> [image]")
_QUESTION = (
    "Question: {question} Answer: {answer}. <break> [image]",
    "Question: {question}\n{answer} <break> [image]",
    "Question: {question} The answer is {answer}. <break> [image]",
)
_SCIENCE = "Question: {question}\nContext: {context}\nOptions: {options}\nAnswer: "

_ALL = (
    Task(
        name="edit",
        templates=(
            "Edit first image following the instruction <break> [source] <break> {instruction} "
            "<break> [image]",
        ),
    ),
    Task(name="write", templates=('draw "{text}" <break> [image]',)),
    Task(
        name="boxes",
        templates=(
            "Generate high quality image of {caption} with segmentations {boxes} <break> [image]",
        ),
    ),
    *(Task(name=name, templates=(_FEATURE.format(words),)) for name, words in _FEATURES.items()),
    Task(name="coco_caption", templates=_CAPTION, outputs=("caption",)),
    Task(name="flickr30k", templates=_CAPTION, outputs=("caption",)),
    Task(
        name="image_paragraph",
        templates=(
            *_AT_LENGTH,
            "Describe all the objects in the given image in very detail. {caption} <break> [image]",
        ),
        outputs=("caption",),
    ),
    Task(
        name="localized_narratives",
        templates=(
            *_AT_LENGTH,
            "Generate a long narration of what is happening in the given image. {caption} "
            "<break> [image]",
        ),
        outputs=("caption",),
    ),
    *(
        Task(name=name, templates=_QUESTION, outputs=("answer",))
        for name in ("vqa2", "vizwiz", "okvqa")
    ),
    Task(
        name="science_qa",
        templates=(
            _SCIENCE + "{answer}. <break> [image]",
            _SCIENCE + "Let's think step-by-step: {explanation} So the answer is {answer}. "
            "<break> [image]",
        ),
        outputs=("explanation", "answer"),
    ),
)

PAPER_TASKS = {task.name: task for task in _ALL}
"""By name; in the order of the table."""
