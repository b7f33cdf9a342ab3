"""The embedded data set: captions, concepts, and a split that does not leak."""

import json

import numpy as np
import pytest

from cm3_imagetok import load_image, square
from cm3leon.data import openmoji, pairs
from cm3leon.data_recipe import OpenMojiRecipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openmoji")
    openmoji.write_openmoji(folder, OpenMojiRecipe(limit=500, test_share=0.2), 32)
    return folder


@pytest.mark.parametrize(
    ("code", "concept"),
    [
        ("1F469-1F3FD-200D-1F692", "1F9D1-1F692"),  # woman firefighter: medium skin tone
        ("1F468-200D-1F692", "1F9D1-1F692"),  # man firefighter
        ("1F98A", "1F98A"),  # fox
        ("1F6B6-1F3FB-200D-2642-FE0F-200D-27A1-FE0F", "1F6B6"),  # man walking facing right
        ("1F468-200D-1F469-200D-1F467", "family"),
        ("1F478-1F3FF", "1FAC5"),  # princess -> person with crown
        ("1F469-200D-2764-FE0F-200D-1F468", "heart"),
        ("1F1E9-1F1EA", "1F1E9-1F1EA"),  # flag of Germany
    ],
)
def test_concepts_drop_tone_gender_and_direction(code, concept):
    assert openmoji.concept_of(code) == concept


def test_captions_name_tone_and_category():
    captions = openmoji.captions_and_categories()
    assert captions["1F98A"] == ("fox, animals & nature", "animals & nature")
    assert captions["1F469-1F3FD-200D-1F692"][0] == (
        "woman firefighter: medium skin tone, people & body"
    )
    assert captions["1F1E9-1F1EA"][0] == "flag of Germany, flags"
    assert not any("_" in text or "skin tone skin" in text for text, _ in captions.values())


def test_near_duplicates_are_found_by_brute_force_too():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    pictures[3] = np.clip(pictures[1].astype(int) + 3, 0, 255)
    pictures[5] = pictures[2][:, ::-1]
    pictures[4] = np.rot90(pictures[0])
    found = {tuple(pair) for pair in openmoji.near_duplicates(pictures, 0.05).tolist()}

    def turns(a):
        return [np.rot90(side, quarters) for side in (a, a[:, ::-1]) for quarters in range(4)]

    def distance(a, b):
        return np.sqrt(((a.astype(float) - b.astype(float)) ** 2).mean()) / 255

    wanted = {
        (i, j)
        for i in range(6)
        for j in range(i + 1, 6)
        if min(distance(pictures[i], turn) for turn in turns(pictures[j])) < 0.05
    }
    assert found == wanted == {(0, 4), (1, 3), (2, 5)}


def test_groups_join_transitively():
    pictures = np.zeros((4, 2, 2, 3), np.uint8)
    pictures[2:] = 255
    groups = openmoji.group_pictures(["a", "b", "b", "c"], pictures, 0.01)
    assert len(set(groups)) == 1  # a ~ b by pixels, b = b by name, b ~ c by pixels


def test_no_held_out_concept_has_a_duplicate_twin_or_variant_in_training(folder):
    found = pairs.read_pairs(folder)
    pixels = np.stack([np.asarray(square(load_image(folder / f), 32)) for f in found.files])
    held_out = set(found.rows("test", "validation").tolist())
    train = set(found.rows("train").tolist())
    assert held_out and train
    for i, j in openmoji.near_duplicates(pixels, 0.08).tolist():
        assert not ({i, j} & held_out and {i, j} & train), (found.files[i], found.files[j])
    names = [openmoji.concept_of(file.split("/")[1].removesuffix(".png")) for file in found.files]
    assert not {names[i] for i in held_out} & {names[i] for i in train}


def test_variants_have_siblings_in_training(folder):
    found = pairs.read_pairs(folder)
    train = {found.groups[i] for i in found.rows("train")}
    variants = found.rows("variants")
    assert len(variants)
    assert all(found.groups[i] in train for i in variants)
    assert all("skin tone" in found.captions[i] for i in variants)
    pixels = np.stack([np.asarray(square(load_image(folder / f), 32)) for f in found.files])
    train = set(found.rows("train").tolist())
    for pair in openmoji.near_duplicates(pixels, openmoji.COPY).tolist():
        assert not (set(pair) & set(variants.tolist()) and set(pair) & train)


def test_the_folder_is_an_imagefolder_with_credit(folder):
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert all((folder / row["file_name"]).is_file() and row["text"] for row in rows)
    assert "CC BY-SA 4.0" in (folder / "CREDIT.txt").read_text()
