"""Drawing in the midst of a training leaves the training as it is."""

import random

import numpy as np
import pytest
import torch

from cm3_train import (
    AtomicCheckpointIO,
    CM3Module,
    OptimConfig,
    Sample,
    SampleOrder,
    Samples,
    Shown,
    TokenLoader,
    ValidationLoader,
    fit,
)

KEYS = np.arange(7)


class Killed(Exception):
    pass


@pytest.fixture
def run(tiny, tmp_path):
    def start(folder, callbacks=(), kill_at=None, steps=8):
        torch.manual_seed(3)  # dropout draws from it

        class Module(CM3Module):
            def training_step(self, batch, batch_idx):
                if batch_idx == kill_at:
                    raise Killed
                return super().training_step(batch, batch_idx)

        def build(key, epoch):
            rng = np.random.default_rng((key, epoch))
            return Sample(rng.integers(8, tiny.vocab_size, 12), 1)

        config = OptimConfig(lr=0.01, total_steps=steps, ema_decay=0.5)
        module = Module(tiny.Model(dropout=0.3), config, tiny.image_range)
        fit(
            module,
            TokenLoader(build, SampleOrder(KEYS, 0, 2), pad_id=tiny.pad_id),
            ValidationLoader(build, KEYS[:2], 2, pad_id=tiny.pad_id),
            run_dir=tmp_path / folder,
            max_steps=steps,
            val_every=2,
            checkpoint_every=2,
            accelerator="cpu",
            callbacks=callbacks,
        )
        return module

    return start


def state(folder):
    held = AtomicCheckpointIO().load_checkpoint(folder / "last.ckpt")
    return held["state_dict"]


def test_training_is_the_same_with_and_without_and_after_a_kill(run, tmp_path):
    steps = []

    def draw(model, step):
        torch.manual_seed(99)
        np.random.seed(1)
        random.seed(1)
        assert not model.training and not torch.is_grad_enabled()
        steps.append(step)
        value = int(torch.randint(256, ()))
        return Shown(np.full((4, 5, 3), value, np.uint8), "one\n\ntwo")

    python, numpys = random.getstate(), np.random.get_state()[1].copy()
    run("plain")
    module = run("drawn", [Samples(draw, 2)])
    assert steps == [4, 8]
    assert random.getstate() == python
    assert np.array_equal(np.random.get_state()[1], numpys)
    steps.clear()
    with pytest.raises(Killed):
        run("killed", [Samples(draw, 2)], kill_at=5)
    run("killed", [Samples(draw, 2)])
    assert steps == [4, 8]
    wanted = state(tmp_path / "plain")
    for folder in ("drawn", "killed"):
        found = state(tmp_path / folder)
        assert all(torch.equal(wanted[key], found[key]) for key in wanted)
    assert module.model.training
    events = list((tmp_path / "drawn" / "tensorboard").glob("events*"))
    assert any(b"samples" in path.read_bytes() for path in events)


def test_the_averaged_weights_draw_and_the_last_step_always_does(run):
    drawn = []

    def draw(model, step):
        drawn.append((step, [p.clone() for p in model.parameters()]))
        return Shown(np.zeros((1, 1, 3), np.uint8), "")

    module = run("a", [Samples(draw, 5)])
    ((step, weights),) = drawn
    assert step == 8
    kept = list(module.averaged.module.parameters())
    assert all(torch.equal(*pair) for pair in zip(weights, kept, strict=True))
    assert module.kept_model is module.averaged.module


def test_it_draws_at_some_validation():
    with pytest.raises(ValueError, match="every: wanted at least 1, got 0"):
        Samples(lambda model, step: Shown(np.zeros((1, 1, 3), np.uint8), ""), 0)
