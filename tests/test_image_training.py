"""Training of the image tokenizer: each loss reaches what it should, and regions move along."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from cm3_imagetok import PRESETS, VQGAN, load_vqgan, reconstruction_loss
from cm3_imagetok.config import QUANTIZERS
from cm3_train import AtomicCheckpointIO, OptimConfig, hidden_matrices
from cm3leon.data.pairs import Pairs
from cm3leon.data.pixels import Pictures, cropped
from cm3leon.recipe import ImageRecipe
from cm3leon.stages import Stages
from cm3leon.training import image_tokenizer as image_training
from cm3leon.training.image_batches import augment

SHAPE = replace(
    PRESETS["tiny-64"],
    image_size=32,
    channels=16,
    norm_groups=8,
    z_channels=16,
    embed_dim=8,
    num_codes=32,
)
RECIPE = ImageRecipe(
    model=SHAPE,
    optim=OptimConfig(name="muon", lr=1e-3, total_steps=4, ema_decay=0.5),
    batch_size=4,
    val_every=2,
    gan_weight=0.5,
    gan_start=1,
    gan_channels=8,
    gan_layers=2,
    region_weight=4.0,
    causal_weight=0.01,
)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)


def module_at(step, recipe=RECIPE):
    class AtStep(image_training.ImageTokenizerModule):
        global_step = step

        def log(self, *args, **kwargs):
            pass

    return AtStep(recipe, seed=0)


def gradients(module, loss):
    module.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def test_each_player_learns_from_its_own_loss_alone(pixels):
    module = module_at(1)
    module.model.eval()  # the codebook stays as it is
    images = torch.rand(4, 3, 32, 32) * 2 - 1

    def both():
        made, quantized = module.model(images)
        base = (made - images).abs().mean()
        return base, made, quantized

    base, made, _ = both()
    together = gradients(module, base + module._adversarial_loss(images, made, base))
    base, made, _ = both()
    step, last = 1, module.model.decoder.conv_out.weight
    alone = gradients(module, base + module.adversarial.generator(made, base, last, step))
    assert not any(name.startswith("adversarial") for name in alone)
    _, made, _ = both()
    judge = gradients(module, module.adversarial.discriminator_loss(images, made, step))
    assert judge and all(name.startswith("adversarial") for name in judge)
    for name, gradient in together.items():
        wanted = judge[name] if name.startswith("adversarial") else alone[name]
        torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-6)


def test_before_its_start_the_discriminator_is_not_trained(pixels):
    batch = {"pixels": torch.from_numpy(pixels[:4])}
    module = module_at(0)
    module.training_step(batch, 0).backward()
    assert all(p.grad is None for p in module.adversarial.parameters())
    assert module.model.decoder.conv_out.weight.grad.abs().sum() > 0


def test_weights_of_regions_move_with_the_picture():
    generator = torch.Generator().manual_seed(0)
    images = torch.full((8, 3, 16, 16), 1.0)
    weights = torch.ones(8, 1, 16, 16)
    images[:, :, 6:9, 5:7], weights[:, :, 6:9, 5:7] = -1.0, 4.0
    moved = augment(torch.cat([images, weights], 1), 4, generator)
    assert torch.equal(moved[:, :1] < 0, moved[:, 3:] == 4)
    assert not torch.equal(moved[:, 3:], weights)


def test_a_box_is_cropped_and_scaled_as_its_picture():
    assert cropped([60, 0, 100, 40], 140, 100, 50) == [20, 0, 40, 20]
    assert cropped([0, 60, 10, 70], 100, 140, 100) == [0, 40, 10, 50]


@pytest.fixture
def pictures(pixels):
    boxes = [[[4.0, 4.0, 20.0, 20.0]] if i % 2 else [] for i in range(12)]
    names = [str(i) for i in range(12)]
    split = np.array(["train"] * 8 + ["validation"] * 4, dtype=object)
    pairs = Pairs(np.arange(50, 62), names, names, split, names, names, boxes, [None] * 12)
    return Pictures(pairs=pairs, decoded=pixels, places=np.arange(12), boxes=boxes, skipped=[])


def train(pictures, folder, recipe=RECIPE):
    image_training.train_image_tokenizer(
        recipe,
        pictures,
        folder,
        seed=0,
        device=torch.device("cpu"),
        precision="32-true",
        checkpoint_every=2,
    )
    return AtomicCheckpointIO().load_checkpoint(folder / "last.ckpt")["state_dict"]


def test_everything_at_once_trains_and_the_averaged_model_is_kept(pictures, tmp_path):
    state = train(pictures, tmp_path)
    kept = load_vqgan(tmp_path / "vqgan").state_dict()
    for name, value in kept.items():
        assert torch.equal(value, state[f"averaged.module.{name}"])
    assert any(not torch.equal(kept[name], state[f"model.{name}"]) for name in kept)


@pytest.mark.parametrize("gan_weight", [0.0, 0.5])
def test_a_stage_whose_loss_is_nan_is_not_finished_and_goes_on_once_it_is_mended(
    pictures, tmp_path, monkeypatch, gan_weight
):
    recipe, calls = replace(RECIPE, gan_weight=gan_weight), []

    def broken(*args):
        calls.append(1)
        return reconstruction_loss(*args) * (float("nan") if len(calls) == 3 else 1)

    def run():
        stages = Stages(tmp_path)
        work = partial(train, pictures, recipe=recipe)
        return stages.run("imagetok", recipe, [], work, resumable=True)

    with monkeypatch.context() as patch:
        patch.setattr(image_training, "reconstruction_loss", broken)
        with pytest.raises(FloatingPointError, match=r"loss: .* in step 3 with the keys \[5\d, "):
            run()
    left = {path.name for path in (tmp_path / "imagetok").iterdir()}
    assert "last.ckpt" in left and not {"stage.json", "vqgan"} & left
    assert run().resumed
    train(pictures, tmp_path / "unbroken", recipe)
    mended, unbroken = (load_vqgan(tmp_path / name / "vqgan") for name in ("imagetok", "unbroken"))
    for name, value in unbroken.state_dict().items():
        assert torch.equal(mended.state_dict()[name], value), name


def test_changed_rates_are_refused_at_a_resume(pictures, tmp_path):
    train(pictures, tmp_path)
    for change, message in (
        ({"gan_lr": 0.5}, r"gan_lr .* \(now 0.5\)"),
        ({"optim": replace(RECIPE.optim, muon_lr=0.5)}, r"muon_lr 0.02 \(now 0.5\)"),
    ):
        with pytest.raises(ValueError, match=message):
            train(pictures, tmp_path, replace(RECIPE, **change))


def test_the_recipe_says_what_it_leaves_out():
    lines = image_training.left_out(RECIPE, has_boxes=False)
    assert any("perceptual loss is off" in line for line in lines)
    assert any("region_weight does nothing" in line for line in lines)
    assert not any("adversarial" in line for line in lines)


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_training_goes_on_past_a_revival(pictures, tmp_path, monkeypatch, quantizer):
    moved, revive = [], image_training.revive_dead_codes
    monkeypatch.setattr(
        image_training, "revive_dead_codes", lambda *args: moved.append(revive(*args))
    )
    monkeypatch.setattr(image_training, "REVIVE_EVERY", 1)
    shape = replace(SHAPE, quantizer=quantizer)
    state = train(pictures, tmp_path, replace(RECIPE, model=shape, revive_share=10.0))
    assert moved == [32, 32, 32]  # all codes, in each of the first 70 % of four steps
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())
    load_vqgan(tmp_path / "vqgan")


def test_codes_are_revived_after_the_step_and_gumbels_temperature_falls(pixels):
    batch = {"pixels": torch.from_numpy(pixels[:4])}
    shape = replace(SHAPE, quantizer="gumbel")
    recipe = replace(RECIPE, model=shape, revive_share=10.0, optim=OptimConfig(total_steps=40))
    temperatures = []
    for step in (0, 20, 40):
        module = module_at(step, recipe)
        before = module.model.quantize.proj.weight.detach().clone()
        module.training_step(batch, 0).backward()
        temperatures.append(module.model.quantize.temperature)
        assert torch.equal(module.model.quantize.proj.weight, before)
        module._revive()
        late = step >= image_training.REVIVE_UNTIL * 40
        assert torch.equal(module.model.quantize.proj.weight, before) == late
    assert temperatures == pytest.approx([1, (1 + 1 / 16) / 2, 1 / 16])


def test_muon_trains_the_matrices_around_the_quantizer():
    """By AdamW they cost the default run 0.5 dB, and its decoder 0.4 bits a code."""
    named = set(hidden_matrices(VQGAN(SHAPE)))
    assert {"quant_conv.weight", "post_quant_conv.weight"} < named
    assert "encoder.conv_in.weight" not in named and "decoder.conv_out.weight" not in named
