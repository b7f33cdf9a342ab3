import numpy as np
import pytest

from cm3_texttok import PAPER_TASKS, InstructionLayout, Task

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


@pytest.mark.parametrize("name", PAPER_TASKS)
def test_output_and_inputs_lie_where_they_are_said_to(name, layouts, tokenizer, vocabulary):
    task = PAPER_TASKS[name]
    for template in task.parsed:
        one = layouts.whole(template, RECORD, task.outputs)

        def text(span, ids=one.ids):
            return tokenizer.decode(ids[slice(*span)].tolist())

        assert one.ids[one.output[0] - 1] != vocabulary.pad_id
        for field, span in one.fields.items():
            if isinstance(RECORD[field], str):
                assert text(span).removeprefix(" ") == RECORD[field]
            else:
                codes = vocabulary.ids_to_codes(one.ids[slice(*span)])
                assert codes.tolist() == np.ravel(RECORD[field]).tolist()
        if task.outputs == ("image",):
            assert one.output_is_last
            assert one.output == one.fields["image"]
        else:
            assert not one.output_is_last
        given = {one.fields[name] for name in one.fields if name not in task.outputs}
        assert given == {*one.text_inputs, *one.picture_inputs}


def test_an_explanation_and_its_answer_are_asked_for_together(layouts, tokenizer):
    task = PAPER_TASKS["science_qa"]
    one = layouts.whole(task.parsed[1], RECORD, task.outputs)
    output = tokenizer.decode(one.ids[slice(*one.output)].tolist())
    assert output == " It floats. So the answer is (B)"


@pytest.mark.parametrize("name", PAPER_TASKS)
def test_a_prompt_and_its_output_are_the_whole(name, layouts, layout, tokenizer):
    """The prompt is the whole one's beginning, with the output cut out if it is in the middle."""
    task = PAPER_TASKS[name]
    for template in task.parsed:
        one = layouts.whole(template, RECORD, task.outputs)
        given = {field: value for field, value in RECORD.items() if field not in task.outputs}
        prompt = layouts.prompt(template, given, task.outputs).tolist()
        if one.output_is_last:
            assert prompt == one.ids[: one.output[0]].tolist()
        else:
            cut = np.zeros(len(one.ids), bool)
            cut[slice(*one.output)] = True
            masked = layout.masked(one.ids, cut).tolist()
            assert prompt == masked[: len(prompt)]
            assert masked[len(prompt) : -1] == one.ids[slice(*one.output)].tolist()


def test_streams_of_guidance_mask_what_they_do_not_see(layouts, layout, tokenizer, vocabulary):
    task = PAPER_TASKS["edit"]
    (template,) = task.parsed
    opening = "Edit first image following the instruction"
    no_text = layouts.prompt(template, RECORD, task.outputs, masked={"instruction"})
    document = layout.read(no_text)
    assert tokenizer.decode(document.segments[0][1].tolist()) == opening
    assert document.segments[1][1].tolist() == [1, 2]
    assert document.segments[2][1].tolist() == [-1]
    none = layout.read(
        layouts.prompt(template, RECORD, task.outputs, masked={"source", "instruction"})
    )
    assert [values.tolist() for _, values in none.segments[1:3]] == [[-1], [-2]]
    assert vocabulary.mask_ids[1] in layout.write(none)


def test_texts_stay_texts(layouts, layout, tokenizer):
    """Marks of a template, and names of structural tokens, in a user's text mean nothing."""
    task = PAPER_TASKS["edit"]
    odd = "{image} [source] <break> <eos> <mask> {instruction}"
    record = {**RECORD, "instruction": odd}
    ids = layouts.whole(task.parsed[0], record, task.outputs).ids
    assert said(layout, tokenizer, ids)[2] == odd


@pytest.mark.parametrize(
    ("changes", "error", "wanted"),
    [
        ({"instruction": 3}, TypeError, "instruction: wanted a str, got int"),
        ({"instruction": "\ud800"}, ValueError, "lone surrogate"),
        ({"source": []}, ValueError, "source: wanted the codes of an image, got none"),
        ({"source": [99]}, ValueError, "source: at position 0"),
        ({"source": None}, TypeError, "source"),
    ],
)
def test_bad_values_are_named(layouts, changes, error, wanted):
    task = PAPER_TASKS["edit"]
    with pytest.raises(error, match=wanted):
        layouts.whole(task.parsed[0], {**RECORD, **changes}, task.outputs)
    with pytest.raises(KeyError, match="source"):
        layouts.whole(task.parsed[0], {"instruction": "a", "image": [1]}, task.outputs)


def test_masks_that_cannot_be_are_refused(layouts):
    edit, ask = PAPER_TASKS["edit"], PAPER_TASKS["vqa2"]
    with pytest.raises(ValueError, match="masked: wanted some of"):
        layouts.prompt(edit.parsed[0], RECORD, edit.outputs, masked={"image"})
    with pytest.raises(ValueError, match="no field before the output"):
        layouts.prompt(ask.parsed[0], RECORD, ask.outputs, masked={"question"})
    many = Task(name="many", templates=("{a} x {b} x {c} x {d} x {e} <break> [image]",))
    record = dict.fromkeys("abcde", "x")
    with pytest.raises(ValueError, match="at most 4 masks, got 5"):
        layouts.prompt(many.parsed[0], record, many.outputs, masked=set("abcde"))


def test_masked_texts_that_touch_share_a_mask(layouts, tokenizer, vocabulary):
    task = Task(name="joined", templates=("{a}{b} <break> [image]",))
    ids = layouts.prompt(task.parsed[0], {}, task.outputs, masked={"a", "b"})
    assert ids.tolist() == [vocabulary.eos_id, vocabulary.mask_ids[0], vocabulary.break_id]


@pytest.mark.parametrize("name", ["edit", "vqa2"])
def test_retrieved_documents_stand_before_an_instruction(name, layouts, layout, tokenizer):
    task = PAPER_TASKS[name]
    context = [(tokenizer.encode("red fox"), [1, 2, 3, 4])]
    alone = layouts.whole(task.parsed[0], RECORD, task.outputs)
    one = layouts.whole(task.parsed[0], RECORD, task.outputs, context)
    assert said(layout, tokenizer, one.ids) == ["red fox", [1, 2, 3, 4], *GOLDEN[name][0]]
    assert one.ids[one.start :].tolist() == alone.ids[1:].tolist()
    moved = one.start - 1
    assert one.output == (alone.output[0] + moved, alone.output[1] + moved)
    prompt = layouts.prompt(task.parsed[0], RECORD, task.outputs, context=context)
    bare = layouts.prompt(task.parsed[0], RECORD, task.outputs)
    assert prompt.tolist() == [*layout.opening(context).tolist(), *bare[1:].tolist()]
