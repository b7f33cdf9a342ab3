"""Figures of instructions: the truth scores best, another's output badly, nothing not at all."""

from types import SimpleNamespace

import numpy as np
import pytest

from cm3leon.data import scenes
from cm3leon.data.recolouring import SIDE
from cm3leon.data.things import find_things
from cm3leon.evaluation.instructions.pictures import (
    score_boxes,
    score_edges,
    score_edits,
    score_shapes,
    score_writing,
)
from cm3leon.evaluation.instructions.texts import score_answers, score_captions, score_choices
from cm3leon.instructions.embedded.pictures import Writing, pixels_of

SIZE = 64


def record(answer, question="colour", **texts):
    return {"texts": {"answer": answer, **texts}, "facts": {"question": question}}


def test_answers_are_told_apart_by_their_question():
    records = [record("blue"), record("red"), record("fox", "thing")]
    assert score_answers(["Blue.", "green", " fox "], records) == {"colour": 0.5, "thing": 1}


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("it is a fox, so yes", True),
        ("it is a bear, so yes.", True),  # only the word counts
        ("yes", True),
        ("it is a fox, so no", False),
        ("yesterday", False),
        ("", False),
    ],
)
def test_yes_or_no_is_the_last_word(said, right):
    for kind in ("is_thing", "is_colour"):
        found = score_answers([said], [record("it is a fox, so yes", kind)])
        assert found == {"yes_no": right}


def test_choices_are_their_last_letter_and_their_reason():
    records = [record("(B)", explanation="The fox is blue.")]
    right = "The fox is blue. So the answer is (B)"
    assert score_choices(["(B)"], [right], records) == {"answer": 1, "reasoned": 1, "reason": 1}
    wrong = "The fox is red. So the answer is (A)"
    assert score_choices(["B"], [wrong], records) == {"answer": 0, "reasoned": 0, "reason": 0}


def test_long_captions_are_scored_by_sentence():
    true = {"texts": {"caption": "There is a fox. Its colour is blue. The background is red."}}
    short = [{"texts": {"caption": "blue fox on red"}}]
    said = "There is a fox. Its colour is green. The background is red."
    found = score_captions(["blue fox on red"], short, [said], [true])
    assert found["short"] == 1 and found["long"] == pytest.approx(2 / 3)


@pytest.fixture(scope="module")
def things():
    found = {thing.name: thing for thing in find_things()}
    return found["airplane"], found["key"]


def two(things, colours=("blue", "red"), paper="yellow"):
    return scenes.two(things, colours, paper, "left of")


def test_boxes_are_found_where_the_things_are(things):
    scene = two(things)
    facts = [scene.facts(SIDE)]
    assert set(score_boxes(pixels_of(scene, SIZE)[None], facts).values()) == {1.0}
    assert set(score_boxes(np.full((1, SIZE, SIZE, 3), 255, np.uint8), facts).values()) == {0.0}
    swapped = score_boxes(pixels_of(two(things, ("red", "blue")), SIZE)[None], facts)
    assert swapped["iou30"] == 1 and swapped["coloured30"] == 0
    away = scenes.placed(things[0], "blue", "yellow", "small", "at the bottom right")
    assert score_boxes(pixels_of(away, SIZE)[None], facts)["iou30"] < 1


def test_an_edit_counts_where_its_colour_is_right_and_the_shape_kept(things):
    def picture(thing, colour, paper="yellow"):
        return pixels_of(scenes.one(thing, colour, paper), SIZE)

    source = picture(things[0], "red")
    fact = {"change": "colour", "colour": "blue", "background": "yellow", "thing": "airplane"}

    def scored(drawn, **changes):
        return score_edits(drawn[None], source[None], [fact | changes], SimpleNamespace())

    right = scored(picture(things[0], "blue"))
    assert right["colour"] == 1 and right["drift"] < 0.01 and right["kept_shape_iou"] > 0.9
    assert scored(source)["colour"] == 0
    other = scored(picture(things[1], "blue"))
    assert other["colour"] == 0 and other["kept_shape_iou"] < 0.7
    moved = scored(picture(things[0], "red", "pink"), change="background", background="pink")
    assert moved["background"] == 1 and moved["drift"] < 0.01
    kept = scored(source, change="keep", colour="red")
    assert kept["keep"] == 1 and kept["keep_drift"] == 0


def test_writing_edges_and_shapes_of_the_truth_are_right(things):
    letters = np.stack([pixels_of(Writing(one), SIZE) for one in "AB7"])
    facts = [{"text": one} for one in "AB7"]
    assert score_writing(letters, facts) == {"character": 1}
    assert score_writing(np.roll(letters, 1, 0), facts) == {"character": 0}
    assert score_writing(letters, [{"text": "AB"}] * 3) == {}
    real = np.stack([pixels_of(scenes.one(one, "blue", "yellow"), SIZE) for one in things])
    edges = score_edges(real, real)
    assert edges["agreement"] == 1 and edges["over_shuffled"] == 1 / edges["shuffled"] > 2
    assert score_shapes(real, real) == {"iou": 1}
    assert score_shapes(np.roll(real, 1, 0), real)["iou"] < 0.7
