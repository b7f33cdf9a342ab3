"""A recipe survives its own file, and says only what it changes."""

import pretrain


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
