"""The embedded compositions: honest splits, facts that the pixels bear out, each thing once."""

from collections import Counter

import numpy as np
import pytest

from cm3_imagetok import load_image
from cm3leon.data import compositions, pairs
from cm3leon.data.palette import PAPERS, colour_of_paper, colour_of_thing, rgb
from cm3leon.recipe import CompositionsRecipe

RECIPE = CompositionsRecipe(things=40, seed=3)
SIZE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compositions")
    compositions.write_compositions(folder, RECIPE, SIZE)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return pairs.read_pairs(folder)


@pytest.fixture(scope="module")
def pixels(folder, found):
    return np.stack([np.asarray(load_image(folder / file)) for file in found.files])


def combinations(found, *splits):
    """Return (name, colour) of everything that pictures of these splits show."""
    return {
        (thing["name"], thing["colour"])
        for row in found.rows(*splits)
        for thing in found.facts[row]["things"]
    }


def names(found, *splits):
    return {name for name, _ in combinations(found, *splits)}


def test_held_out_combinations_are_nowhere_in_training_but_their_parts_are(found):
    train = combinations(found, "train")
    for split in ("validation", "test"):
        held_out = combinations(found, split)
        assert held_out and not held_out & train
        assert {name for name, _ in held_out} <= {name for name, _ in train}
        assert {colour for _, colour in held_out} <= {colour for _, colour in train}
    assert not combinations(found, "validation") & combinations(found, "test")


def test_every_known_thing_has_a_combination_for_the_figures(found):
    assert names(found, "test") == names(found, "train")


def test_unseen_things_are_nowhere_in_training_and_shown_in_other_colours(found):
    asked, shown = combinations(found, "things"), combinations(found, "shown")
    assert asked and {name for name, _ in asked} == {name for name, _ in shown}
    assert not asked & shown
    assert not names(found, "things") & names(found, "train", "validation", "test")


def test_natural_looks_of_known_things_are_all_in_training(found):
    for row in found.rows("validation", "test", "things"):
        assert not any(thing["natural"] for thing in found.facts[row]["things"])


def test_captions_say_what_the_facts_say(found):
    for caption, facts in zip(found.captions, found.facts, strict=True):
        for thing in facts["things"]:
            said = thing["name"] if thing["natural"] else f"{thing['colour']} {thing['name']}"
            assert said in caption
            assert thing["colour"] != facts["background"]
        on = "" if facts["background"] == "white" else f" on {facts['background']}"
        assert caption.endswith(on) and (on or not any(f" on {p}" in caption for p in PAPERS))


def test_groups_are_things_and_colours(found):
    for group, facts in zip(found.groups, found.facts, strict=True):
        things = {f"{thing['name']} {thing['colour']}" for thing in facts["things"]}
        assert group == " + ".join(sorted(things))


def test_pixels_have_the_colours_of_the_facts(found, pixels):
    right = [
        colour_of_thing(picture, thing["box"], facts["background"]) == thing["colour"]
        for picture, facts in zip(pixels, found.facts, strict=True)
        for thing in facts["things"]
    ]
    assert np.mean(right) >= 0.95
    for picture, facts in zip(pixels, found.facts, strict=True):
        assert colour_of_paper(picture) == facts["background"]


def test_boxes_are_tight(found, pixels):
    for picture, facts in zip(pixels, found.facts, strict=True):
        paper = np.array(rgb(PAPERS[facts["background"]]))
        drawn = np.abs(picture.astype(int) - paper).sum(-1) > 40
        rows, columns = (np.flatnonzero(drawn.any(axis)) for axis in (1, 0))
        union = np.array([thing["box"] for thing in facts["things"]])
        lowest, highest = union[:, :2].min(0), union[:, 2:].max(0)
        assert np.abs(lowest - [columns[0], rows[0]]).max() <= 1.5
        assert np.abs(highest - [columns[-1] + 1, rows[-1] + 1]).max() <= 1.5


def test_each_thing_and_each_combination_is_in_balance(found):
    seen = Counter(
        thing["name"]
        for row in found.rows("train", "test", "validation")
        if (facts := found.facts[row])["kind"] == "one"
        for thing in facts["things"]
    )
    assert len(seen) >= 37 and min(seen.values()) >= 9 and max(seen.values()) <= 11


def test_the_folder_is_a_function_of_the_recipe(folder, tmp_path):
    compositions.write_compositions(tmp_path, RECIPE, SIZE)
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    assert files == sorted(f.relative_to(tmp_path) for f in tmp_path.rglob("*") if f.is_file())
    assert all((folder / f).read_bytes() == (tmp_path / f).read_bytes() for f in files)
    other = tmp_path / "other"
    compositions.write_compositions(other, CompositionsRecipe(things=40, seed=4), SIZE)
    assert (other / "metadata.jsonl").read_text() != (folder / "metadata.jsonl").read_text()
    assert "CC BY-SA 4.0" in (folder / "CREDIT.txt").read_text()
