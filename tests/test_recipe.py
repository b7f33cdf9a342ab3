"""A recipe survives its own file, and says only what it changes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cm3_imagetok import PRESETS as PRESETS_OF_TOKENIZERS, VQGAN
from cm3_model import PRESETS, Decoder, num_parameters
from cm3leon.recipe import (
    DataRecipe,
    DecoderRecipe,
    EvaluationRecipe,
    OpenMojiRecipe,
    Recipe,
    seeded,
)
from cm3leon.recipe_file import (
    TUNING_FILE,
    read_command,
    read_recipe,
    read_tuning,
    read_tuning_command,
    save_recipe,
)
from cm3leon.trainer_recipe import TrainerRecipe
from cm3leon.tuning import tuned_recipe
from cm3leon.tuning_recipe import TuningRecipe

CONFIGS = Path(__file__).parents[1] / "apps" / "configs"
OTHERS = ("sft-", "evaluate")
RECIPES = sorted(path for path in CONFIGS.glob("*.yaml") if not path.stem.startswith(OTHERS))


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


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_whole(path):
    assert read_command(None, CONFIGS / "tiny.yaml", ["--config", str(path)]).name == path.stem


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_builds(path):
    recipe = read_command(None, CONFIGS / "tiny.yaml", ["--config", str(path)])
    words, codes = recipe.texttok.vocab_size, recipe.imagetok.model.num_codes
    config = recipe.decoder.config(words + codes, (words, words + codes))
    with torch.device("meta"):
        decoder, tokenizer = Decoder(config), VQGAN(recipe.imagetok.model)
    assert sum(weight.numel() for weight in decoder.parameters()) == num_parameters(config)
    assert tokenizer.num_codes == codes


@pytest.mark.parametrize(
    ("name", "layers", "width", "rate", "gpus", "tokens"),
    [
        ("350m", 24, 1024, 6e-4, 256, 1.4e12),
        ("760m", 24, 1536, 5e-4, 256, 1.9e12),
        ("7b", 32, 4096, 1.2e-4, 512, 2.4e12),
    ],
)
def test_the_papers_recipes_have_its_figures(name, layers, width, rate, gpus, tokens):
    """Table 3 of B.2."""
    recipe = read_command(None, CONFIGS / "tiny.yaml", ["--config", str(CONFIGS / f"{name}.yaml")])
    decoder, optim = recipe.decoder, recipe.decoder.optim
    config = decoder.config(56320 + 8192, (56320, 64512))
    assert (config.num_layers, config.width, config.max_length) == (layers, width, 4096)
    assert (optim.lr, optim.warmup_steps) == (rate, 1500)
    assert decoder.tokens_per_step == 2048 * 4096
    assert optim.total_steps * decoder.tokens_per_step == pytest.approx(tokens, rel=1e-5)
    assert recipe.trainer.processes == gpus and decoder.accumulate(gpus) == 1
    assert decoder.accumulate(8) == gpus // 8
    assert recipe.imagetok.model == PRESETS_OF_TOKENIZERS["cm3leon-256"]
    assert (recipe.data.size, recipe.texttok.vocab_size) == (256, 56320)


@pytest.mark.parametrize(("name", "gpus"), [("sft-760m", 64), ("sft-7b", 128)])
def test_the_papers_tuning_has_its_figures(name, gpus):
    """arXiv 2309.02591, table 4 and E.1."""
    recipe = read_tuning_command(None, CONFIGS / f"{name}.yaml", [])
    assert recipe.trainer.processes == gpus
    assert recipe.tokens_per_step == 2**21
    assert recipe.optim.lr == 5e-5
    assert recipe.optim.warmup_steps == 150
    assert recipe.optim.total_steps * recipe.tokens_per_step == pytest.approx(30e9, rel=1e-4)
    assert (recipe.up, recipe.down) == (3.0, 0.3)
    assert recipe.guidance.sampling("edit").guidance_scale == 7.5
    assert recipe.guidance.sampling("edit").image_guidance_scale == 1.5
    assert recipe.guidance.sampling("canny").guidance_scale == 3.0
    base = read_command(None, CONFIGS / f"{name.removeprefix('sft-')}.yaml", [])
    tuned = tuned_recipe(recipe, base)
    assert tuned.decoder.accumulate(gpus) == 1
    assert tuned.decoder.max_length == 4096


@pytest.mark.parametrize("name", ["sft-tiny", "sft-smoke", "sft-anole"])
def test_every_tuning_recipe_is_whole(name, tmp_path):
    recipe = read_tuning_command(None, CONFIGS / f"{name}.yaml", ["--runs", str(tmp_path)])
    save_recipe(recipe, recipe.folder, TUNING_FILE)
    assert read_tuning(recipe.folder) == recipe


def test_a_finished_decoder_is_opened_by_the_settings_that_made_it(tmp_path):
    """A run that was stopped before it began a new decoder has new settings and an old decoder."""
    folder, old, new = tmp_path / "a", Recipe(seed=1), Recipe(seed=2)
    save_recipe(new, folder)
    save_recipe(TuningRecipe(seed=2), folder, TUNING_FILE)
    assert (read_recipe(folder).seed, read_tuning(folder).seed) == (2, 2)
    save_recipe(old, folder / "decoder")
    save_recipe(TuningRecipe(seed=1), folder / "decoder", TUNING_FILE)
    assert (read_recipe(folder).seed, read_tuning(folder).seed) == (1, 1)
    assert read_recipe(folder).folder == read_tuning(folder).folder == folder


def test_a_batch_in_tokens_must_divide():
    recipe = DecoderRecipe(batch_size=4, max_length=100, tokens_per_step=4800)
    assert [recipe.accumulate(ranks) for ranks in (1, 2, 3)] == [12, 6, 4]
    with pytest.raises(ValueError, match="multiple of 2000 = batch_size 4 x 100 .* x 5 processes"):
        recipe.accumulate(5)
    assert replace(recipe, packed_length=400).accumulate(3) == 1
    assert replace(recipe, tokens_per_step=None).accumulate(2) == 1
    with pytest.raises(ValueError, match="decoder.batch_size: wanted a multiple of 3 processes"):
        replace(recipe, tokens_per_step=None).accumulate(3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"devices": 0}, "trainer.devices: wanted at least 1"),
        ({"devices": 4, "tensor_parallel": 3, "strategy": "fsdp2"}, "a divisor of 4 processes"),
        ({"devices": 4, "tensor_parallel": 2}, "wanted strategy fsdp2 with it"),
        ({"spike_factor": 1.0}, "trainer.spike_factor: wanted a number above 1"),
    ],
)
def test_processes_that_cannot_be_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        TrainerRecipe(**values)
    good = TrainerRecipe(devices=4, num_nodes=2, strategy="fsdp2", tensor_parallel=2)
    assert (good.processes, good.ranks) == (8, 4)


def test_a_damaged_recipe_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run"):
        read_recipe(tmp_path)
    (tmp_path / "recipe.yaml").write_text("decoder: {colour: red}")
    with pytest.raises(ValueError, match=r"recipe.yaml: .*colour"):
        read_recipe(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, "{a: " * 100_000, "- " * 100_000, "decoder: &a [*a]", "a: &a [*a, *a]", "",
        "- 1", "3", "config: other.yaml", "config: {class_path: os.mkdir}", "\xff", "data: [",
        "data: {class_path: os.mkdir, init_args: {path: made}}", "seed: [1]",
        "imagetok: {model: {class_path: os.mkdir, init_args: {path: made}}}",
        "evaluation: {sampling: {class_path: os.mkdir, init_args: {path: made}}}",
        "seed: !!python/object/apply:os.mkdir [made]", "seed: -1", "data: {size: 65}",
        "data: 3", "data: null", "evaluation: []", "decoder: {optim: adamw}",
    ],
)  # fmt: skip
def test_a_strangers_recipe_is_read_or_refused_by_name_and_nothing_is_called(
    tmp_path, monkeypatch, text
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"recipe\.yaml: "):
        read_recipe(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize("text", ["data: 3", "decoder: {optim: adamw}", "retrieval:"])
def test_one_value_in_place_of_settings_is_refused(tmp_path, capsys, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SystemExit):
        read_command(None, CONFIGS / "tiny.yaml", ["--config", str(tmp_path / "mine.yaml")])
    said = capsys.readouterr().err
    assert text.partition(":")[0] in said and said.count("\n") < 8


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--precision=bf17", "precision: wanted one of"),
        ("--decoder.context_shares=[-1,2]", "decoder.context_shares: wanted shares"),
        ("--decoder.packed_length=300", "decoder.packed_length: wanted at least max_length - 1"),
        ("--decoder.context_shares=[]", "decoder.context_shares: wanted shares"),
        ("--decoder.context_shares=[0,0]", "decoder.context_shares: wanted shares"),
        ("--evaluation.guidance_scales=[]", "evaluation.guidance_scales: wanted some"),
        ("--evaluation.guidance_scales=[-1]", "evaluation.guidance_scales: wanted some"),
        ("--evaluation.samples=0", "evaluation.samples: wanted at least 1, got 0"),
        ("--evaluation.sweep_samples=0", "evaluation.sweep_samples: wanted at least 1"),
        ("--evaluation.pictures=0", "evaluation.pictures: wanted at least 1"),
        ("--imagetok.l2_weight=-1", "imagetok.l2_weight: wanted at least 0, got -1"),
        ("--imagetok.revive_share=-1", "imagetok.revive_share: wanted at least 0, got -1"),
        ("--imagetok.gan_lr=.inf", "imagetok.gan_lr: wanted at least 0, got inf"),
        ("--seed=-1", "seed: wanted at least 0, got -1"),
        ("--seed=4294967296", "seed: wanted at most 4294967295, got 4294967296"),
        ("--checkpoint_every=0", "checkpoint_every: wanted at least 1, got 0"),
        ("--data.size=-64", "data.size: wanted at least 1, got -64"),
        ("--data.openmoji.limit=-5", "data.openmoji.limit: wanted at least 0, got -5"),
        ("--data.compositions.two=-1", "data.compositions.two: wanted at least 0, got -1"),
        ("--texttok.num_masks=-1", "texttok.num_masks: wanted at least 1, got -1"),
        ("--imagetok.batch_size=0", "imagetok.batch_size: wanted at least 1, got 0"),
        ("--imagetok.max_shift=-4", "imagetok.max_shift: wanted at least 0, got -4"),
        ("--imagetok.gan_start=-1", "imagetok.gan_start: wanted at least 0, got -1"),
        ("--decoder.views=0", "decoder.views: wanted at least 1, got 0"),
        ("--decoder.val_every=0", "decoder.val_every: wanted at least 1, got 0"),
        ("--evaluation.samples=-3", "evaluation.samples: wanted at least 1, got -3"),
        ("--evaluation.retrieve=-1", "evaluation.retrieve: wanted at least 0, got -1"),
    ],
)
def test_a_whole_number_that_cannot_be_is_refused_before_any_work(given, message):
    with pytest.raises(ValueError, match=message):
        read_command(None, CONFIGS / "tiny.yaml", [given])


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


def test_a_seed_that_is_not_set_follows_the_runs():
    assert seeded(OpenMojiRecipe(), 5).seed == 5
    assert seeded(OpenMojiRecipe(seed=0), 5).seed == 0
