import numpy as np
import pytest

from cm3_texttok import PAPER_TASKS, Task


@pytest.mark.parametrize("name", PAPER_TASKS)
def test_output_and_inputs_lie_where_they_are_said_to(name, layouts, tokenizer, vocabulary, filled):
    task = PAPER_TASKS[name]
    for template in task.parsed:
        one = layouts.whole(template, filled, task.outputs)

        def text(span, ids=one.ids):
            return tokenizer.decode(ids[slice(*span)].tolist())

        assert one.ids[one.output[0] - 1] != vocabulary.pad_id
        for field, span in one.fields.items():
            if isinstance(filled[field], str):
                assert text(span).removeprefix(" ") == filled[field]
            else:
                codes = vocabulary.ids_to_codes(one.ids[slice(*span)])
                assert codes.tolist() == np.ravel(filled[field]).tolist()
        if task.outputs == ("image",):
            assert one.output_is_last
            assert one.output == one.fields["image"]
        else:
            assert not one.output_is_last
        given = {one.fields[name] for name in one.fields if name not in task.outputs}
        assert given == {*one.text_inputs, *one.picture_inputs}


def test_an_explanation_and_its_answer_are_asked_for_together(layouts, tokenizer, filled):
    task = PAPER_TASKS["science_qa"]
    one = layouts.whole(task.parsed[1], filled, task.outputs)
    output = tokenizer.decode(one.ids[slice(*one.output)].tolist())
    assert output == " It floats. So the answer is (B)"


@pytest.mark.parametrize("name", PAPER_TASKS)
def test_a_prompt_and_its_output_are_the_whole(name, layouts, layout, filled):
    """The prompt is the whole one's beginning, with the output cut out if it is in the middle."""
    task = PAPER_TASKS[name]
    for template in task.parsed:
        one = layouts.whole(template, filled, task.outputs)
        given = {field: value for field, value in filled.items() if field not in task.outputs}
        prompt = layouts.prompt(template, given, task.outputs).tolist()
        if one.output_is_last:
            assert prompt == one.ids[: one.output[0]].tolist()
        else:
            cut = np.zeros(len(one.ids), bool)
            cut[slice(*one.output)] = True
            masked = layout.masked(one.ids, cut).tolist()
            assert prompt == masked[: len(prompt)]
            assert masked[len(prompt) : -1] == one.ids[slice(*one.output)].tolist()


def test_streams_of_guidance_mask_what_they_do_not_see(
    layouts, layout, tokenizer, vocabulary, filled
):
    task = PAPER_TASKS["edit"]
    (template,) = task.parsed
    opening = "Edit first image following the instruction"
    no_text = layouts.prompt(template, filled, task.outputs, masked={"instruction"})
    document = layout.read(no_text)
    assert tokenizer.decode(document.segments[0][1].tolist()) == opening
    assert document.segments[1][1].tolist() == [1, 2]
    assert document.segments[2][1].tolist() == [-1]
    none = layout.read(
        layouts.prompt(template, filled, task.outputs, masked={"source", "instruction"})
    )
    assert [values.tolist() for _, values in none.segments[1:3]] == [[-1], [-2]]
    assert vocabulary.mask_ids[1] in layout.write(none)


def test_texts_stay_texts(layouts, said, filled):
    """Marks of a template, and names of structural tokens, in a user's text mean nothing."""
    task = PAPER_TASKS["edit"]
    odd = "{image} [source] <break> <eos> <mask> {instruction}"
    record = {**filled, "instruction": odd}
    ids = layouts.whole(task.parsed[0], record, task.outputs).ids
    assert said(ids)[2] == odd


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
def test_bad_values_are_named(layouts, changes, error, wanted, filled):
    task = PAPER_TASKS["edit"]
    with pytest.raises(error, match=wanted):
        layouts.whole(task.parsed[0], {**filled, **changes}, task.outputs)
    with pytest.raises(KeyError, match="source"):
        layouts.whole(task.parsed[0], {"instruction": "a", "image": [1]}, task.outputs)


def test_masks_that_cannot_be_are_refused(layouts, filled):
    edit, ask = PAPER_TASKS["edit"], PAPER_TASKS["vqa2"]
    with pytest.raises(ValueError, match="masked: wanted some of"):
        layouts.prompt(edit.parsed[0], filled, edit.outputs, masked={"image"})
    with pytest.raises(ValueError, match="no field before the output"):
        layouts.prompt(ask.parsed[0], filled, ask.outputs, masked={"question"})
    many = Task(name="many", templates=("{a} x {b} x {c} x {d} x {e} <break> [image]",))
    record = dict.fromkeys("abcde", "x")
    with pytest.raises(ValueError, match="at most 4 masks, got 5"):
        layouts.prompt(many.parsed[0], record, many.outputs, masked=set("abcde"))


def test_masked_texts_that_touch_share_a_mask(layouts, vocabulary):
    task = Task(name="joined", templates=("{a}{b} <break> [image]",))
    ids = layouts.prompt(task.parsed[0], {}, task.outputs, masked={"a", "b"})
    assert ids.tolist() == [vocabulary.eos_id, vocabulary.mask_ids[0], vocabulary.break_id]


@pytest.mark.parametrize("name", ["edit", "vqa2"])
def test_retrieved_documents_stand_before_an_instruction(
    name, layouts, layout, tokenizer, said, filled
):
    task = PAPER_TASKS[name]
    context = [(tokenizer.encode("red fox"), [1, 2, 3, 4])]
    alone = layouts.whole(task.parsed[0], filled, task.outputs)
    one = layouts.whole(task.parsed[0], filled, task.outputs, context)
    segments = said(one.ids)
    assert segments == ["red fox", [1, 2, 3, 4], *said(alone.ids)]
    assert one.ids[one.start :].tolist() == alone.ids[1:].tolist()
    moved = one.start - 1
    assert one.output == (alone.output[0] + moved, alone.output[1] + moved)
    prompt = layouts.prompt(task.parsed[0], filled, task.outputs, context=context)
    bare = layouts.prompt(task.parsed[0], filled, task.outputs)
    assert prompt.tolist() == [*layout.opening(context).tolist(), *bare[1:].tolist()]
