"""A recipe survives its own file, and says only what it changes."""

from dataclasses import replace
from pathlib import Path

import pytest

from cm3_model import PRESETS
from cm3leon.recipe import (
    DataRecipe,
    DecoderRecipe,
    EvaluationRecipe,
    OpenMojiRecipe,
    Recipe,
    seeded,
)
from cm3leon.recipe_file import (
    fingerprint_of_part,
    part_of,
    read_command,
    read_recipe,
    save_recipe,
)

CONFIGS = Path(__file__).parents[1] / "apps" / "configs"


def test_a_saved_recipe_is_the_same_recipe(tmp_path):
    # null over a value of the base recipe, a tuple, a path, a nested class
    given = ["--data.openmoji.limit=null", "--decoder.context_shares=[0.2, 0.3, 0.5]"]
    given += ["--data.folder=somewhere", "--evaluation.sampling.top_p=0.7"]
    given += [f"--runs={tmp_path.parent}", f"--name={tmp_path.name}"]
    recipe = read_command(None, CONFIGS / "tiny.yaml", given)
    save_recipe(recipe, tmp_path)
    assert read_recipe(tmp_path) == recipe
    assert recipe.decoder.context_shares == (0.2, 0.3, 0.5)
    assert recipe.decoder.config(9, (3, 9)).image_ids == (3, 9)  # of tiny.yaml
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_recipe_by_name_does_not_stand_on_the_default_one():
    recipe = read_command(None, CONFIGS / "tiny.yaml", ["--config", str(CONFIGS / "smoke.yaml")])
    assert recipe.name == "smoke" and recipe.evaluation.candidates == 3
    assert recipe.evaluation.guidance_scales == (1.0, 2.0)
    assert recipe.retrieval.clip.weight_decay == Recipe().retrieval.clip.weight_decay


def test_minutes_scale_the_default_recipe():
    whole = read_command(None, CONFIGS / "tiny.yaml", [])
    assert read_command(None, CONFIGS / "tiny.yaml", ["--minutes", "15"]) == whole
    longer = read_command(None, CONFIGS / "tiny.yaml", ["--minutes=60", "--seed=3"])
    shorter = read_command(None, CONFIGS / "tiny.yaml", ["--minutes=5"])
    for part in ("imagetok", "decoder"):
        counts = [getattr(r, part).optim.total_steps for r in (shorter, whole, longer)]
        assert counts[0] == pytest.approx(counts[1] / 3, rel=0.05)
        assert counts[2] == pytest.approx(counts[1] * 4, rel=0.05)
    assert longer.retrieval.clip.steps == 4 * whole.retrieval.clip.steps
    assert shorter.evaluation.samples == pytest.approx(whole.evaluation.samples / 3, abs=1)
    assert longer.evaluation == whole.evaluation
    assert (shorter.name, longer.name, longer.seed) == ("tiny-5", "tiny-60", 3)


@pytest.mark.parametrize("given", [["--minutes=0"], ["--minutes=5", "--config", "smoke"]])
def test_minutes_are_for_the_default_recipe(given, capsys):
    given = [str(CONFIGS / "smoke.yaml") if a == "smoke" else a for a in given]
    with pytest.raises(SystemExit):
        read_command(None, CONFIGS / "tiny.yaml", given)
    assert "--minutes: wanted" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_whole(path):
    assert read_command(None, CONFIGS / "tiny.yaml", ["--config", str(path)]).name == path.stem


def test_a_damaged_recipe_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run"):
        read_recipe(tmp_path)
    (tmp_path / "recipe.yaml").write_text("decoder: {colour: red}")
    with pytest.raises(ValueError, match=r"recipe.yaml: .*colour"):
        read_recipe(tmp_path)


def test_a_part_is_named_by_its_class():
    spec = {"class_path": "fractions.Fraction", "init_args": {"numerator": 3}}
    assert part_of(spec) == 3
    for path in ("", "fractions", "fractions.Nothing", "no.such.Module"):
        with pytest.raises(ValueError, match="class_path: wanted package.Class"):
            part_of({"class_path": path})
    with pytest.raises(ValueError, match="numerator_"):
        part_of({"class_path": "fractions.Fraction", "init_args": {"numerator_": 3}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": DataRecipe(size=65)}, "data.size: wanted a multiple of 8"),
        ({"decoder": DecoderRecipe(max_length=1028)}, "decoder.max_length: wanted room for 1024"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_any_work(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**values)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_an_impossible_share_is_refused_before_any_work(share):
    with pytest.raises(ValueError, match=f"decoder.plain_share: wanted 0..1, got {share}"):
        DecoderRecipe(plain_share=share)


def test_a_paper_sized_decoder_is_a_recipe_away():
    given = ["--decoder.model=cm3leon-760m", "--decoder.max_length=2048"]
    config = read_command(None, CONFIGS / "tiny.yaml", given).decoder.config(1000, (488, 1000))
    paper = PRESETS["cm3leon-760m"]
    assert config == replace(paper, vocab_size=1000, max_length=2048)
    assert Recipe().decoder.config(64512, (56320, 64512)) == PRESETS["cm3leon-350m"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("cm3leon-1b", "decoder.model: wanted one of .*cm3leon-350m.*, got 'cm3leon-1b'"),
        ({"depth": 3}, "decoder.model: wanted some of .*num_layers.*, got 'depth'"),
        ({"vocab_size": 3}, "decoder.model: wanted some of .*, got 'vocab_size'"),
        ({"width": 32}, "decoder.model: .*num_layers"),
        ({"num_layers": 1, "width": 30, "num_heads": 4}, "decoder.model: width: wanted a multiple"),
    ],
)
def test_a_decoder_that_cannot_be_is_refused_before_any_work(model, message):
    with pytest.raises(ValueError, match=message):
        DecoderRecipe(model=model)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"candidates": 0}, "evaluation.candidates: wanted at least 1, got 0"),
        ({"samplers": ()}, "evaluation.samplers: wanted some of .*, got \\(\\)"),
        ({"samplers": ("beam",)}, "evaluation.samplers: wanted some of .*beam"),
    ],
)
def test_drawing_that_cannot_be_is_refused_before_any_work(values, message):
    with pytest.raises(ValueError, match=message):
        EvaluationRecipe(**values)


def test_a_named_part_is_known_by_its_files(tmp_path):
    (tmp_path / "weights").write_bytes(b"one")
    spec = {"class_path": "package.Class", "init_args": {"folder": str(tmp_path), "size": 3}}
    before = fingerprint_of_part(spec)
    assert fingerprint_of_part(spec) == before
    (tmp_path / "weights").write_bytes(b"other")
    assert fingerprint_of_part(spec) != before


def test_a_seed_that_is_not_set_follows_the_runs():
    assert seeded(OpenMojiRecipe(), 5).seed == 5
    assert seeded(OpenMojiRecipe(seed=0), 5).seed == 0
