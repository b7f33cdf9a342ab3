"""The embedded compositions: honest splits, facts that the pixels bear out, each thing once."""

from collections import Counter
from itertools import combinations as pairs_of

import numpy as np
import pytest

from cm3_imagetok import load_image
from cm3leon.data import compositions, pairs
from cm3leon.data.names import name_of, plural, with_article
from cm3leon.data.palette import PAPERS, colour_of_paper, colour_of_thing, rgb
from cm3leon.data.recolouring import coverage, png_of, recoloured
from cm3leon.data.things import find_things, shapes
from cm3leon.data_recipe import CompositionsRecipe

RECIPE = CompositionsRecipe(things=40, placed=60, two=60, count=60, letters=1, seed=3)
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


@pytest.fixture(scope="module")
def things():
    return find_things()


def combinations(found, *splits, kinds=("one", "placed", "two", "count", "letter")):
    """Return (name, colour) of everything that pictures of these splits show."""
    return {
        (thing["name"], thing["colour"])
        for row in found.rows(*splits)
        for thing in found.facts[row]["things"]
        if found.facts[row]["kind"] in kinds
    }


def of_kind(found, *kinds):
    return [row for row, facts in enumerate(found.facts) if facts["kind"] in kinds]


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


def test_every_kind_is_there_in_training_and_in_the_figures(found):
    for split in ("train", "test"):
        kinds = Counter(found.facts[row]["kind"] for row in found.rows(split))
        assert set(kinds) == {"one", "placed", "two", "count", "letter"}
    whole = Counter(facts["kind"] for facts in found.facts)
    assert whole["placed"] == whole["two"] == 60 and 36 * 9 <= whole["letter"] <= 36 * 10


def test_captions_are_all_different_and_say_what_the_facts_say(found):
    assert len(set(found.captions)) == len(found)
    for caption, facts in zip(found.captions, found.facts, strict=True):
        said = [
            thing["name"] if thing["natural"] else f"{thing['colour']} {thing['name']}"
            for thing in facts["things"]
        ]
        if facts["kind"] == "count":
            number = {2: "two", 3: "three", 4: "four"}[len(said)]
            colour = "" if facts["things"][0]["natural"] else f"{facts['things'][0]['colour']} "
            words = f"{number} {colour}{plural(facts['things'][0]['name'])}"
        elif facts["kind"] == "two":
            words = caption.split(" on ")[0]
            assert words.index(said[0]) < words.rindex(said[1])
        elif facts["kind"] == "placed":
            words = caption.split(" on ")[0]
            assert f" {said[0]} " in f" {words} "
        else:
            words = said[0]
        paper = facts["background"]
        assert caption == (words if paper == "white" else f"{words} on {paper}")
        assert all(thing["colour"] != paper for thing in facts["things"])


def test_boxes_bear_out_where_things_are_said_to_be(found):
    for row in of_kind(found, "two", "placed"):
        caption, things = found.captions[row], found.facts[row]["things"]
        x0, y0, x1, y1 = things[0]["box"]
        assert 0 <= min(x0, y0) and max(x1, y1) <= SIZE
        if len(things) == 2:
            other = things[1]["box"]
            assert (" left of " in caption) == (x1 <= other[0] and "above" not in caption)
            assert (" above " in caption) == (y1 <= other[1])
            assert (" right of " in caption) == (x0 >= other[2])
            assert (" below " in caption) == (y0 >= other[3])
        else:
            x, y, side = (x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, y1 - y0)
            assert (side < 0.4 * SIZE) == caption.startswith("small ")
            assert (side > 0.85 * SIZE) == caption.startswith("large ")
            place = set(caption.split(" on ")[0].partition(things[0]["name"])[2].split())
            assert ("left" in place) == (x < SIZE / 2 - 4) and ("right" in place) == (
                x > SIZE / 2 + 4
            )
            assert ("top" in place) == (y < SIZE / 2 - 4) and ("bottom" in place) == (
                y > SIZE / 2 + 4
            )


def test_counted_things_do_not_overlap(found):
    for row in of_kind(found, "count", "two"):
        for a, b in pairs_of([thing["box"] for thing in found.facts[row]["things"]], 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


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
    assert found.boxes == [[thing["box"] for thing in facts["things"]] for facts in found.facts]
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
    assert "CC BY-SA 4.0" in (folder / "CREDIT.txt").read_text()


def test_another_seed_holds_out_other_things_and_colours(found, tmp_path):
    config = CompositionsRecipe(things=40, placed=0, two=0, count=0, letters=0, seed=4)
    compositions.write_compositions(tmp_path, config, 16)
    other = pairs.read_pairs(tmp_path)
    assert {facts["kind"] for facts in other.facts} == {"one"}
    assert combinations(other, "test") != combinations(found, "test", kinds=("one",))
    assert names(other, "things") != names(found, "things")


def test_recipes_that_would_leave_a_split_empty_are_refused(tmp_path):
    with pytest.raises(ValueError, match="colours: wanted at least 4"):
        CompositionsRecipe(colours=("red", "blue", "green"))
    with pytest.raises(ValueError, match="things: wanted at least 4"):
        CompositionsRecipe(things=3)
    unknown = CompositionsRecipe(colours=("red", "blue", "green", "mauve"))
    with pytest.raises(ValueError, match="got .'mauve'"):
        compositions.write_compositions(tmp_path, unknown, 16)


def test_things_are_many_and_no_twins(things):
    assert len(things) >= 430  # 400 known ones after 6 % are never seen
    assert len({thing.name for thing in things}) == len(things)
    flat = shapes(things).reshape(len(things), -1).astype(np.float32) / 255
    squares = (flat**2).sum(1)
    distance = squares[:, None] + squares - 2 * flat @ flat.T
    np.fill_diagonal(distance, np.inf)
    assert np.sqrt(distance.min() / flat.shape[1]) > 0.1


@pytest.mark.parametrize(
    ("unicode_name", "name"),
    [
        ("fox", "fox"),
        ("front-facing baby chick", "baby chick"),
        ("red apple", "apple"),
        ("spade suit", "spade"),
        ("man\N{RIGHT SINGLE QUOTATION MARK}s shoe", "man's shoe"),
        ("automobile", "car"),
        ("cloud with rain", None),
        ("eight o\N{RIGHT SINGLE QUOTATION MARK}clock", None),
        ("eight-thirty", None),
        ("waning gibbous moon", None),
        ("2nd place medal", None),
    ],
)
def test_names_are_what_people_say(unicode_name, name):
    assert name_of(unicode_name) == name


def test_plurals_and_articles():
    assert [plural(name) for name in ("fox", "computer mouse", "strawberry", "socks", "bread")] == [
        "foxes", "computer mice", "strawberries", None, None,
    ]  # fmt: skip
    assert with_article("apple", "apple") == "an apple"
    assert with_article("apple", "red apple") == "a red apple"
    assert with_article("egg", "orange egg") == "an orange egg"
    assert with_article("socks", "red socks") == "red socks"


def test_the_colour_that_covers_most_is_measured_and_swapped():
    square = '<path fill="#EA5A47" d="M8 8h40v40h-40z"/><path fill="#D22F27" d="M8 48h40v8h-40z"/>'
    svg = f'{square}<path fill="#92d3f5" d="M50 8h10v48h-10z"/><path d="M8 60h40v4h-40z"/>'
    found = coverage(svg)
    assert (found.colour, found.fills[0], found.box) == ("red", "ea5a47", (8, 8, 60, 64))
    assert found.share == pytest.approx(1920 / 2400, abs=0.01)
    assert found.painted == pytest.approx(2400 / 72**2, abs=0.01)
    assert not found.corners
    after = recoloured(svg, found.fills, ("6cc04a", "3f8f2f"))
    wanted = svg.replace("#EA5A47", "#6cc04a").replace("#D22F27", "#3f8f2f")
    assert png_of(after, 72) == png_of(wanted, 72) != png_of(svg, 72)


def test_many_small_parts_do_not_outweigh_a_large_one():
    dots = "".join(f'<path fill="#fff" d="M{x} 10h1v1h-1z"/>' for x in range(10, 40, 2))
    assert coverage(f'<path fill="#B1CC33" d="M8 8h40v40h-40z"/>{dots}').colour == "green"
