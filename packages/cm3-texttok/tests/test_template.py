import pytest
from hypothesis import given, strategies as st

from cm3_texttok import PAPER_TASKS, Task, Template
from cm3_texttok.template import Piece

LINE = "Question: {question} Answer: {answer}. <break> [image]"


def test_a_template_is_read_piece_by_piece():
    template = Template.parse(LINE)
    assert template.segments == (
        (
            Piece("literal", "Question: "),
            Piece("text", "question"),
            Piece("literal", " Answer: "),
            Piece("text", "answer"),
            Piece("literal", "."),
        ),
        (Piece("picture", "image"),),
    )
    assert template.texts == ("question", "answer")
    assert template.pictures == ("image",)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("{a} and {a} <break> [image]", "each field once"),
        ("a [image]", "a picture alone"),
        ("[one] [two]", None),
        ("{a} <break> <break> [image]", "something between breaks"),
        ("", "something between breaks"),
    ],
)
def test_templates_that_make_no_sense_are_refused(line, wanted):
    with pytest.raises(ValueError, match=wanted):
        Template.parse(line)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"templates": ()}, "at least one template"),
        ({"name": "Two words"}, "small letters"),
        ({"outputs": ("caption",)}, "one of \\('caption',\\)"),
        ({"templates": (LINE, "{image} <break> [answer]")}, "a text or a picture"),
        ({"outputs": ("answer", "image")}, "in one segment"),
    ],
)
def test_tasks_that_make_no_sense_are_refused(changes, wanted):
    with pytest.raises(ValueError, match=wanted):
        Task(**{"name": "ask", "templates": (LINE,), "outputs": ("answer",), **changes})


def test_a_record_takes_the_templates_that_it_fills():
    task = PAPER_TASKS["science_qa"]
    record = {name: "x" for name in ("question", "context", "options", "answer")}
    record["image"] = [0]
    short, long = task.parsed
    assert task.fitting(record) == (short,)
    assert task.fitting({**record, "explanation": ""}) == (short,)
    assert task.fitting({**record, "explanation": "y"}) == (short, long)
    assert task.fitting({**record, "question": ""}) == ()


def test_the_paper_has_these_tasks_and_so_many_templates():
    """Table 5 of arXiv 2309.02591, row by row."""
    assert {name: len(task.templates) for name, task in PAPER_TASKS.items()} == {
        "edit": 1, "write": 1, "boxes": 1, "canny": 1, "hed": 1, "openpose": 1, "depth": 1,
        "normals": 1, "segmentation": 1, "scribble": 1, "coco_caption": 2, "flickr30k": 2,
        "image_paragraph": 3, "localized_narratives": 3, "vqa2": 3, "vizwiz": 3, "okvqa": 3,
        "science_qa": 2,
    }  # fmt: skip


WORDS = st.text("ab .:", min_size=1, max_size=8)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4))
def test_what_a_template_says_is_said(segments):
    line = " <break> ".join(f"{before}{{f{n * 'x'}}}{after}" for n, (before, after) in
                            enumerate(segments))  # fmt: skip
    template = Template.parse(line)
    for (before, after), segment in zip(segments, template.segments, strict=True):
        said = "".join("|" if piece.is_field else piece.value for piece in segment)
        assert said == f"{before}|{after}".strip(" ")
