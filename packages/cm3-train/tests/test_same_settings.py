"""A run is resumed with the settings it began with, or not at all."""

import json
import re

import lightning as L
import numpy as np
import pytest
import torch

from cm3_train import AtomicCheckpointIO, BatchLoader, CM3Module, OptimConfig, SampleOrder, fit

STEPS = 4
BEGAN = {
    "lr": 0.01,
    "muon_lr": 0.02,
    "warmup_steps": 1,
    "schedule": "linear",
    "total_steps": STEPS,
    "ema_decay": 0.5,
}


def run(module, folder, max_steps=STEPS):
    def make_batch(keys, epochs, position):
        ids = torch.from_numpy(np.random.default_rng(keys[0]).integers(8, 36, (2, 9)))
        return {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}

    return fit(
        module,
        BatchLoader(make_batch, SampleOrder(np.arange(5), 0, 2)),
        None,
        run_dir=folder,
        max_steps=max_steps,
        val_every=99,
        checkpoint_every=2,
        accelerator="cpu",
    )


def module_of(tiny, **changes):
    return CM3Module(tiny.Model(), OptimConfig(**{**BEGAN, **changes}), tiny.image_range)


CHANGES = {
    "name": "muon",
    "lr": 0.02,
    "betas": (0.9, 0.99),
    "weight_decay": 0.0,
    "warmup_steps": 2,
    "schedule": "cosine",
    "final_lr_share": 0.0,
    "grad_clip": 0.0,
    "ema_decay": 0.0,  # whose weights would be missing
}


def test_every_setting_that_was_changed_is_named_with_both_values(tiny, tmp_path):
    path = run(module_of(tiny), tmp_path)
    before = path.read_bytes()
    for name, value in CHANGES.items():
        was = getattr(OptimConfig(**BEGAN), name)
        old, new = json.loads(json.dumps([was, value]))
        with pytest.raises(ValueError) as caught:
            run(module_of(tiny, **{name: value}), tmp_path)
        assert f"{name} {old} (now {new})" in str(caught.value)
        assert f"{tmp_path}: wanted the settings that this run began with" in str(caught.value)
        others = [o for o in CHANGES if re.search(rf"\b{o} .*? \(now", str(caught.value))]
        assert others == [name]
    assert path.read_bytes() == before
    run(module_of(tiny, muon_lr=0.5), tmp_path)  # which AdamW does not use


def test_muons_rate_counts_where_muon_is_used(tiny, tmp_path):
    run(module_of(tiny, name="muon"), tmp_path)
    with pytest.raises(ValueError, match=r"muon_lr 0.02 \(now 0.5\); put"):
        run(module_of(tiny, name="muon", muon_lr=0.5), tmp_path)
    with pytest.raises(ValueError, match=r"name muon \(now adamw\), muon_lr 0.02 \(now unset\)"):
        run(module_of(tiny), tmp_path)


def test_steps_and_schedule_end_together_or_there_is_no_end(tiny, tmp_path):
    for steps in (STEPS - 1, STEPS + 1):
        with pytest.raises(ValueError, match=f"max_steps: wanted total_steps = 4.*got {steps}"):
            run(module_of(tiny), tmp_path / "a", max_steps=steps)
    with pytest.raises(ValueError, match=r"total_steps 4 \(now 6\)"):
        run(module_of(tiny), tmp_path / "b")
        run(module_of(tiny, total_steps=6), tmp_path / "b", max_steps=6)
    for steps in (3, 6):  # a constant rate ends nowhere: the run may go on for longer
        run(module_of(tiny, schedule="constant"), tmp_path / "c", max_steps=steps)


class Plain(L.LightningModule):
    """Declares nothing."""

    def __init__(self, optimizer, schedule=None):
        super().__init__()
        self.w = torch.nn.Linear(9, 1)
        self.make_optimizer, self.make_schedule = optimizer, schedule

    def training_step(self, batch, batch_idx):
        return self.w(batch["input_ids"].float().repeat(1, 2)[:, :9] / 36).square().mean()

    def configure_optimizers(self):
        optimizer = self.make_optimizer(self.parameters())
        return (
            optimizer
            if self.make_schedule is None
            else {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": self.make_schedule(optimizer), "interval": "step"},
            }
        )


def sgd(lr=0.1, **options):
    return lambda parameters: torch.optim.SGD(parameters, lr, **options)


def ramp(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 4)


def test_of_other_modules_the_optimizer_counts(tmp_path):
    run(Plain(sgd()), tmp_path / "a")
    run(Plain(sgd()), tmp_path / "a")
    run(Plain(sgd(), ramp), tmp_path / "b")
    run(Plain(sgd(), ramp), tmp_path / "b")
    for folder, schedule in (("a", None), ("b", ramp)):
        for optimizer, message in (
            (sgd(0.2), r"optimizer 0, group 0, lr 0.1 \(now 0.2\); put"),
            (sgd(momentum=0.5), r"momentum 0 \(now 0.5\); put"),
            (torch.optim.AdamW, r"optimizer 0 SGD \(now AdamW\)"),
        ):
            with pytest.raises(ValueError, match=message):
                run(Plain(optimizer, schedule), tmp_path / folder)


def test_a_run_that_has_no_checkpoint_yet_takes_new_settings(tmp_path):
    class Dies(Plain):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run(Dies(sgd()), tmp_path)
    run(Plain(sgd(0.2)), tmp_path)
    with pytest.raises(ValueError, match=r"lr 0.2 \(now 0.1\)"):
        run(Plain(sgd()), tmp_path)


def test_a_checkpoint_alone_holds_the_settings(tiny, tmp_path):
    run(module_of(tiny), tmp_path)
    run(Plain(sgd(), ramp), tmp_path / "plain")
    settings = [(folder / "settings.json") for folder in (tmp_path, tmp_path / "plain")]
    written = [path.read_bytes() for path in settings]
    for _ in range(2):  # of the run that began, then of one that went on
        for name, value in CHANGES.items():
            settings[0].unlink(missing_ok=True)
            with pytest.raises(ValueError, match=rf"this run began with, .*\b{name} .*? \(now"):
                run(module_of(tiny, **{name: value}), tmp_path)
        settings[1].unlink()
        with pytest.raises(ValueError, match=r"lr 0.1 \(now 0.2\); put"):
            run(Plain(sgd(0.2), ramp), tmp_path / "plain")
        run(module_of(tiny), tmp_path)
        run(Plain(sgd(), ramp), tmp_path / "plain")
        assert [path.read_bytes() for path in settings] == written


def test_the_settings_of_another_run_beside_a_checkpoint_do_not_count(tmp_path):
    for folder, lr in (("a", 0.1), ("b", 0.2)):
        run(Plain(sgd(lr)), tmp_path / folder)
    (tmp_path / "a/last.ckpt").replace(tmp_path / "b/last.ckpt")
    with pytest.raises(ValueError, match=r"lr 0.1 \(now 0.2\); put"):
        run(Plain(sgd(0.2)), tmp_path / "b")


@pytest.mark.parametrize("schedule", [None, ramp])
def test_a_run_of_an_earlier_version_goes_on_with_its_optimizers_values(tmp_path, schedule):
    path, written = run(Plain(sgd(), schedule), tmp_path), tmp_path / "settings.json"
    before, checkpoint = written.read_bytes(), AtomicCheckpointIO().load_checkpoint(path)
    del checkpoint["callbacks"]["SameSettings"]
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    written.unlink()
    for optimizer, message in (
        (sgd(0.2), r"lr 0.1 \(now 0.2\); put"),
        (sgd(momentum=0.5), r"momentum 0 \(now 0.5\); put"),
    ):
        with pytest.raises(ValueError, match=message):
            run(Plain(optimizer, schedule), tmp_path)
        assert not written.exists()
    run(Plain(sgd(), schedule), tmp_path)
    assert written.read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_settings_that_cannot_be_read_are_named(tmp_path, text):
    run(Plain(sgd()), tmp_path)
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=r"settings\.json: wanted JSON"):
        run(Plain(sgd()), tmp_path)
