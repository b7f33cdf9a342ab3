"""The embedded instructions: exact truth, and held out by combination."""

from collections import Counter

import numpy as np
import pytest

from cm3_texttok import PAPER_TASKS
from cm3leon.data.palette import colour_of_paper, colour_of_thing
from cm3leon.data.plan import held_out
from cm3leon.data.scenes import Scene
from cm3leon.data.things import find_things
from cm3leon.data_recipe import CompositionsRecipe
from cm3leon.evaluation.instructions.pictures import (
    read_characters,
    score_edges,
    score_writing,
)
from cm3leon.evaluation.instructions.shapes import iou, thing_mask
from cm3leon.instructions.embedded.drawings import CHARACTERS
from cm3leon.instructions.embedded.edits import edits
from cm3leon.instructions.embedded.pictures import Guide, Writing, pixels_of
from cm3leon.instructions.embedded.planned import Pool
from cm3leon.instructions.embedded.writing import plan_records
from cm3leon.instructions.locations import read_boxes
from cm3leon.tuning_recipe import EmbeddedRecipe

COMPOSITIONS = CompositionsRecipe(things=60, seed=3)
RECIPE = EmbeddedRecipe(
    edit=200, boxes=60, write=80, canny=10, scribble=10, segmentation=10, coco_caption=40,
    image_paragraph=40, vqa2=140, science_qa=40, held_out=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def planned():
    return plan_records(COMPOSITIONS, RECIPE, 0)


def scenes_of(record):
    for picture in record.pictures.values():
        if isinstance(picture, Scene):
            yield picture
        elif isinstance(picture, Guide):
            yield picture.scene


def test_every_record_fills_a_template_of_its_task(planned):
    assert set(planned) <= set(PAPER_TASKS)
    for name, records in planned.items():
        task = PAPER_TASKS[name]
        for record in records:
            fields = {**record.texts, **dict.fromkeys(record.pictures, [0])}
            assert task.fitting(fields) == task.parsed
        counts = Counter(record.split for record in records)
        assert counts["train"] == RECIPE.numbers[name]
        assert counts["validation"] == counts["test"] >= RECIPE.held_out


def test_what_is_asked_for_is_held_out_by_combination(planned):
    _, combinations, _ = held_out(COMPOSITIONS)
    for name, records in planned.items():
        for record in records:
            shown = [(one.thing.name, one.colour) for s in scenes_of(record) for one in s.things]
            splits = {combinations[pair] for pair in shown}
            if record.split == "train":
                assert splits <= {"train"}
            else:
                assert splits <= {"train", record.split}
                image = record.pictures["image"]
                if isinstance(image, Scene):
                    asked = {combinations[one.thing.name, one.colour] for one in image.things}
                    assert asked == {record.split}, name


def test_the_same_seed_plans_the_same(planned):
    again = plan_records(COMPOSITIONS, RECIPE, 0)
    assert again == planned
    assert plan_records(COMPOSITIONS, RECIPE, 1) != planned


def test_edits_show_what_they_say(planned):
    """Colour and background measured on the pictures; the rest of the picture is the same."""
    changes, kept, coloured = Counter(), [], []
    for record in planned["edit"][:120]:
        facts = record.facts
        source, image = (pixels_of(record.pictures[name], 64) for name in ("source", "image"))
        assert colour_of_paper(image) == facts["background"]
        assert colour_of_paper(source) == facts["before"]["background"]
        change = facts["change"]
        changes[change] += 1
        if change == "keep":
            assert np.array_equal(source, image)
        elif change in ("colour", "background"):
            kept.append(iou(thing_mask(source), thing_mask(image)))
            measured = colour_of_thing(image, (0, 0, 64, 64), facts["background"])
            coloured.append(measured == facts["colour"])
        else:
            assert facts["thing"] != facts["before"]["thing"]
            assert facts["thing"] in record.texts["instruction"]
    assert set(changes) == {"colour", "background", "thing", "keep"}
    assert np.mean(kept) > 0.95  # a small thing's smoothed edge counts to one or the other
    assert np.mean(coloured) > 0.95


def test_things_stand_in_their_boxes(planned):
    for record in planned["boxes"][:40]:
        image = record.pictures["image"]
        assert isinstance(image, Scene)
        drawn = thing_mask(pixels_of(image, 128))
        boxes = read_boxes(record.texts["boxes"])
        assert [name for name, _ in boxes] == [
            one.thing.name if one.natural else f"{one.colour} {one.thing.name}"
            for one in image.things
        ]
        inside = np.zeros_like(drawn)
        for _, (x0, y0, x1, y1) in boxes:  # said in steps of 16, so up to 8 off
            left, top, right, bottom = (
                round(at / 2) for at in (x0 - 11, y0 - 11, x1 + 12, y1 + 12)
            )
            inside[max(0, top) : bottom, max(0, left) : right] = True
        assert (drawn & ~inside).mean() < 0.01


def test_characters_are_read_back():
    pixels = np.stack([pixels_of(Writing(one), 64) for one in CHARACTERS])
    assert "".join(read_characters(pixels)) == CHARACTERS


def test_answers_are_true(planned):
    kinds = Counter()
    for record in planned["vqa2"]:
        facts, answer = record.facts, record.texts["answer"]
        first = facts["things"][0]
        kinds[facts["question"]] += 1
        truth = {
            "thing": first["name"],
            "colour": first["colour"],
            "background": facts["background"],
            "number": {1: "one", 2: "two", 3: "three", 4: "four"}[len(facts["things"])],
            "beside": first["name"],
        }.get(facts["question"])
        if truth is not None:
            assert answer == truth
        else:
            said = record.texts["question"].removeprefix("is it ").removesuffix("?")
            named = first["name"] if facts["question"] == "is_thing" else first["colour"]
            seen, _, word = answer.removeprefix("it is ").partition(", so ")
            assert named in seen and word in ("yes", "no")
            assert (word == "yes") == (said == seen)
    assert len(kinds) == 7


def test_choices_have_one_right_option(planned):
    for record in planned["science_qa"]:
        options = dict(
            part.split(") ", 1) for part in record.texts["options"].split("(") if part.strip()
        )
        right = options[record.texts["answer"].strip("()")].strip()
        first = record.facts["things"][0]
        assert right in (first["name"], first["colour"])
        assert right in record.texts["explanation"]
        assert len(set(options.values())) == len(options)


def test_recipes_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"embedded\.edit: wanted at least 0, got -1"):
        EmbeddedRecipe(edit=-1)
    with pytest.raises(ValueError, match="at least one task"):
        EmbeddedRecipe(**dict.fromkeys(RECIPE.numbers, 0))


def test_words_alone_have_no_figure_of_characters():
    pixels = np.full((2, 32, 32, 3), 255, np.uint8)
    assert score_writing(pixels, [{"text": "AB"}, {"text": "ZOO"}]) == {}
    assert score_writing(pixels, [{"text": "AB"}, {"text": "Z"}]).keys() == {"character"}


@pytest.mark.parametrize("things", [4, 6])
def test_too_few_things_are_told_and_not_drawn_for_ever(things):
    with pytest.raises(ValueError, match="compositions: wanted .* in validation, got too few"):
        plan_records(CompositionsRecipe(things=things), EmbeddedRecipe(held_out=20), 0)


def test_edits_that_nothing_can_be_changed_from_are_told():
    thing = find_things()[0]
    only = [(thing, "red")]
    pool = Pool(split="test", new=only, known=only, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="wanted an edit of the colour in test"):
        list(edits(pool, 1, only="colour"))
    with pytest.raises(ValueError, match="wanted 2 things in different colours in test"):
        pool.several(2)
    with pytest.raises(ValueError, match="wanted one combination of thing and colour in test"):
        Pool(split="test", new=[], known=only, rng=pool.rng).one()


def test_edges_of_other_records_are_no_better_by_chance():
    pixels = np.full((4, 64, 64, 3), 255, np.uint8)
    for place, picture in enumerate(pixels):  # squares in four corners
        y, x = 8 + 32 * (place // 2), 8 + 32 * (place % 2)
        picture[y : y + 16, x : x + 16] = 0
    assert score_edges(pixels, pixels)["agreement"] == 1
    chance = score_edges(np.roll(pixels, 1, 0), pixels)
    assert chance["agreement"] < 0.2 and chance["shuffled"] < 0.2
