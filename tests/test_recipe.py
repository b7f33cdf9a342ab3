"""A recipe survives its own file, and says only what it changes."""

import pretrain
import pytest
from recipe import DataRecipe, DecoderRecipe, EvaluationRecipe, Recipe, fingerprint_of_part


def test_a_saved_recipe_is_the_same_recipe(tmp_path):
    command = pretrain.parser()
    # null over a value of the base recipe, a tuple, a path, a nested class
    given = ["--data.openmoji.limit=null", "--decoder.context_shares=[0.2, 0.3, 0.5]"]
    given += ["--data.folder=somewhere", "--evaluation.sampling.top_p=0.7"]
    namespace = command.parse_args(given)
    path = tmp_path / "recipe.yaml"
    pretrain.save_recipe(namespace, command, path)
    recipe = pretrain.recipe_of(namespace, command)
    assert pretrain.saved_recipe(path) == recipe
    assert recipe.decoder.context_shares == (0.2, 0.3, 0.5)
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_another_recipe_is_said_against_the_tiny_one(root):
    command = pretrain.parser()
    smoke = command.parse_args(["--config", str(root / "apps/configs/smoke.yaml")])
    recipe = pretrain.recipe_of(smoke, command)
    assert recipe.name == "smoke" and recipe.decoder.width == 32
    assert recipe.decoder.positions == "rotary"  # as in tiny.yaml


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": DataRecipe(size=65)}, "data.size: wanted a multiple of 8"),
        ({"decoder": DecoderRecipe(max_length=68)}, "decoder.max_length: wanted room for 64"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_any_work(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**values)


@pytest.mark.parametrize("name", ["plain_share", "final_plain_share"])
@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_that_is_none_is_refused_before_any_work(name, share):
    with pytest.raises(ValueError, match=f"decoder.{name}: wanted 0..1, got {share}"):
        DecoderRecipe(**{name: share})


@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan")])
def test_a_deviation_that_is_none_is_refused_before_any_work(value):
    with pytest.raises(ValueError, match="decoder.codebook_std: wanted 0 or more, got"):
        DecoderRecipe(codebook_std=value)


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
