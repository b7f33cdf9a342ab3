"""Whether the right things are in a picture: GenEval's rule, on detections written by hand."""

import json

import numpy as np
import pytest
import torch

from cm3leon.data.palette import PAPERS, rgb
from cm3leon.evaluation.judge import Judge, new_network
from cm3leon.evaluation.objects.check import Detected, Seen, check
from cm3leon.evaluation.objects.measured import (
    MeasuredDetector,
    cut_out,
    kept_detector,
    things_in,
)
from cm3leon.evaluation.objects.prompts import (
    Prompt,
    Wanted,
    prompt_of_facts,
    read_prompts,
    relations,
)

LEFT, RIGHT = (0, 20, 20, 40), (40, 20, 60, 40)


def seen(*things, background=None):
    return Seen(things=tuple(things), background=background)


def thing(name, box=LEFT, colour=None, score=1.0):
    return Detected(name=name, box=box, colour=colour, score=score)


def asked(*include, exclude=(), background=None, tag=""):
    return Prompt(text="", tag=tag, include=include, exclude=exclude, background=background)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ((40, 0, 50, 10), {"left of"}),
        ((-40, 0, -30, 10), {"right of"}),
        ((0, 40, 10, 50), {"above"}),
        ((0, -40, 10, -30), {"below"}),
        ((60, 50, 70, 60), {"left of", "above"}),
        ((40, 10, 50, 20), {"left of"}),  # ten down of forty to the side
        ((1, 1, 11, 11), set()),
        ((0, 0, 10, 10), set()),
    ],
)
def test_how_one_box_stands_to_another(other, words):
    assert relations((0, 0, 10, 10), other) == words


@pytest.mark.parametrize("count", [1, 2, 3])
def test_things_are_counted_exactly_where_more_are_excluded(count):
    prompt = asked(Wanted(name="fox", count=2), exclude=(Wanted(name="fox", count=3),))
    found = check(prompt, seen(*[thing("fox")] * count))
    assert found["correct"] == found["count"] == (count == 2)


def test_counting_wants_surer_detections_than_naming():
    sure, unsure = thing("fox", score=0.95), thing("fox", score=0.5)
    assert check(asked(Wanted(name="fox")), seen(unsure))["correct"]
    two = Wanted(name="fox", count=2)
    assert check(asked(two, tag="two"), seen(sure, unsure))["correct"]
    assert not check(asked(two, tag="counting"), seen(sure, unsure))["correct"]


def test_colour_must_be_the_things_own():
    prompt = asked(Wanted(name="fox", colour="blue"), Wanted(name="hat", colour="red"))
    right = seen(thing("fox", colour="blue"), thing("hat", colour="red"))
    swapped = seen(thing("fox", colour="red"), thing("hat", colour="blue"))
    assert check(prompt, right)["correct"]
    found = check(prompt, swapped)
    assert found["thing"] and not found["colour"] and not found["correct"]


def test_the_surest_detections_count():
    prompt = asked(Wanted(name="fox", colour="red"))
    blue, red = thing("fox", colour="blue", score=0.9), thing("fox", colour="red", score=0.5)
    assert not check(prompt, seen(red, blue))["correct"]
    assert check(prompt, seen(blue, thing("fox", colour="red", score=0.95)))["correct"]


def test_position_is_that_of_the_named_things():
    prompt = asked(Wanted(name="hat"), Wanted(name="fox", position=("left of", 0)))
    assert check(prompt, seen(thing("fox", LEFT), thing("hat", RIGHT)))["correct"]
    assert not check(prompt, seen(thing("fox", RIGHT), thing("hat", LEFT)))["position"]
    assert not check(prompt, seen(thing("fox", LEFT)))["position"]
    red = asked(Wanted(name="hat", colour="red"), Wanted(name="fox", position=("left of", 0)))
    found = check(red, seen(thing("fox", LEFT), thing("hat", RIGHT, colour="blue")))
    assert not found["position"]  # the hat that is asked for is not there


def test_a_background_counts_where_the_detector_says_one():
    prompt = asked(Wanted(name="fox"), background="yellow")
    assert "background" not in check(prompt, seen(thing("fox")))
    assert not check(prompt, seen(thing("fox"), background="blue"))["correct"]


def test_facts_of_a_composition_become_a_prompt():
    def fact(name, box):
        return {"name": name, "colour": "red", "box": list(box)}

    two = {"kind": "two", "things": [fact("fox", LEFT), fact("hat", RIGHT)], "background": "blue"}
    prompt = prompt_of_facts("a red fox left of a red hat on blue", two)
    assert prompt is not None and prompt.background == "blue"
    assert [one.name for one in prompt.include] == ["hat", "fox"]
    assert prompt.include[1].position == ("left of", 0)
    many = {"kind": "count", "things": [fact("fox", LEFT)] * 3, "background": "blue"}
    prompt = prompt_of_facts("three red foxes on blue", many)
    assert prompt is not None and [one.count for one in prompt.include] == [3]
    assert [one.count for one in prompt.exclude] == [4]
    assert prompt_of_facts("A", {"kind": "letter", "things": [], "background": "white"}) is None


def test_genevals_file_is_read_and_a_broken_line_named(tmp_path):
    path = tmp_path / "evaluation_metadata.jsonl"
    line = {
        "tag": "color_attr",
        "include": [
            {"class": "fox", "count": 1, "color": "blue"},
            {"class": "hat", "count": 1, "position": ["above", 0]},
        ],
        "prompt": "a photo of a hat above a blue fox",
    }
    path.write_text(json.dumps(line) + "\n\n" + json.dumps(line | {"exclude": [{"class": "x"}]}))
    one, other = read_prompts(path)
    assert one.include[0].colour == "blue" and one.include[1].position == ("above", 0)
    assert other.exclude == (Wanted(name="x"),)
    for wrong in (
        {"prompt": "x"},
        line | {"include": [{"class": "hat", "position": ["beside", 0]}]},
        line | {"include": [{"class": "hat", "position": ["above", 0]}]},
        line | {"include": [{"class": "hat", "count": 0}]},
        line | {"prompt": 3},
    ):
        path.write_text(json.dumps(line) + "\n" + json.dumps(wrong))
        with pytest.raises(ValueError, match="evaluation_metadata.jsonl, line 2: wanted a p"):
            read_prompts(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="wanted prompts, one a line, got none"):
        read_prompts(path)


def picture(*boxes):
    found = np.full((64, 64, 3), rgb(PAPERS["yellow"]), np.uint8)
    for x0, y0, x1, y1 in boxes:
        found[y0:y1, x0:x1] = (20, 60, 200)
    return found


def test_parts_that_touch_are_a_thing_and_small_ones_belong_to_the_next():
    assert things_in(picture()) == []
    assert things_in(picture((5, 5, 25, 25), (40, 30, 60, 60))) == [
        (5, 5, 25, 25),
        (40, 30, 60, 60),
    ]
    near = things_in(picture((5, 5, 25, 25), (27, 5, 31, 9), (40, 30, 60, 60)))
    assert near == [(5, 5, 31, 25), (40, 30, 60, 60)]


def test_a_thing_is_cut_out_to_one_size_in_the_middle():
    found = cut_out(picture((0, 0, 10, 20)), (0, 0, 10, 20), "yellow")
    paper = (found == rgb(PAPERS["yellow"])).all(-1)
    rows, columns = np.flatnonzero(~paper.all(1)), np.flatnonzero(~paper.all(0))
    assert found.shape == (64, 64, 3)
    assert len(rows) == pytest.approx(0.85 * 64, abs=1) and len(columns) == len(rows) // 2
    assert rows[0] + rows[-1] == pytest.approx(63, abs=1)


def test_a_detector_is_trained_once_and_again_for_another_run(tmp_path):
    path, trained = tmp_path / "detector.safetensors", []

    def train():
        trained.append(torch.manual_seed(len(trained)))
        judge = Judge(network=new_network(3).eval(), names=["fox", "hat", "owl"])
        return MeasuredDetector(judge)

    first = kept_detector(path, "run 0", train)
    again = kept_detector(path, "run 0", train)
    assert len(trained) == 1 and again.description == first.description
    pixels = picture((5, 5, 25, 25), (40, 30, 60, 60))[None]
    assert again(pixels) == first(pixels)
    assert kept_detector(path, "run 1", train).description != first.description
    path.write_bytes(path.read_bytes()[:100])
    kept_detector(path, "run 1", train)
    assert len(trained) == 3
