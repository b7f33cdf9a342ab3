"""Bad steps stop a run or are skipped; a skipped step leaves weights and optimizer as they were."""

import json
import statistics
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cm3_train import (
    AtomicCheckpointIO,
    CM3Module,
    OptimConfig,
    Sample,
    SampleOrder,
    TokenLoader,
    fit,
    step_guard,
)
from cm3_train.step_guard import StepGuard

NAN = float("nan")
KEYS = np.arange(50, 57)


class Killed(Exception):
    pass


@pytest.fixture
def run(tiny, tmp_path):
    def start(folder, bad=(), factor=NAN, kill_at=None, steps=8, **options):
        class Module(CM3Module):
            def training_step(self, batch, batch_idx):
                if batch_idx == kill_at:
                    raise Killed
                loss = super().training_step(batch, batch_idx)
                return loss * factor if batch_idx in bad else loss

            def optimizer_step(self, *arguments):
                super().optimizer_step(*arguments)
                states = self.optimizers().state.values()  # pyright: ignore
                after.append([p.detach().clone() for p in self.model.parameters()])
                counts.append({float(one["step"]) for one in states if "step" in one})

        after, counts = [], []

        def build(key, epoch):
            rng = np.random.default_rng((key, epoch))
            return Sample(rng.integers(8, tiny.vocab_size, 12), 1)

        name = options.pop("name", "adamw")
        config = OptimConfig(name=name, lr=0.01, total_steps=steps, weight_decay=0.3)
        fit(
            Module(tiny.Model(), config, tiny.image_range),
            TokenLoader(build, SampleOrder(KEYS, 0, 2), pad_id=tiny.pad_id),
            None,
            run_dir=tmp_path / folder,
            max_steps=steps,
            val_every=99,
            checkpoint_every=2,
            accelerator="cpu",
            **options,
        )
        return after, counts

    return start


def rows(folder):
    return [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]


def state(folder):
    held = AtomicCheckpointIO().load_checkpoint(folder / "last.ckpt")
    return held["state_dict"], held["optimizer_states"], held["lr_schedulers"]


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("factor", [NAN, float("inf")])
def test_a_skipped_step_changes_nothing_but_the_schedule(run, tmp_path, capsys, name, factor):
    after, counts = run("a", bad=[0, 3], factor=factor, bad_steps="skip", name=name)
    for before, now in zip(after[2], after[3], strict=True):
        assert torch.equal(before, now)
    assert not any(torch.equal(*pair) for pair in zip(after[3], after[4], strict=True))
    assert counts[-1] == {6.0}
    keys = [sorted({*SampleOrder(KEYS, 0, 2).batch(2 * step)[0].tolist()}) for step in (0, 3)]
    assert [(row["step"], row["keys"]) for row in rows(tmp_path / "a")] == [
        (1, keys[0]),
        (4, keys[1]),
    ]
    said = capsys.readouterr().err
    assert f"in step 4 with the keys {keys[1]}; the step is skipped" in said
    assert state(tmp_path / "a")[2][0]["last_epoch"] == 8  # the schedule went on


def test_nothing_bad_is_nothing_changed(run, tmp_path):
    run("plain")
    run("guarded", bad_steps="skip", spike_factor=50.0)
    mine, theirs = state(tmp_path / "plain"), state(tmp_path / "guarded")
    assert all(torch.equal(mine[0][key], theirs[0][key]) for key in mine[0])
    assert not (tmp_path / "guarded" / "skipped.jsonl").exists()


def test_too_many_in_a_row_end_the_run(run, tmp_path):
    with pytest.raises(FloatingPointError, match=r"in step 5 .*; 3 steps in a row were skipped"):
        run("a", bad=[0, 2, 3, 4], bad_steps="skip", most_skips=3)
    assert [row["step"] for row in rows(tmp_path / "a")] == [1, 3, 4, 5]


def test_the_skips_of_a_step_of_several_batches_name_all_its_keys(run, tmp_path):
    run("a", bad=[3], bad_steps="skip", accumulate=2)
    keys = SampleOrder(KEYS, 0, 4).batch(4)[0].tolist()
    assert [(row["step"], row["keys"]) for row in rows(tmp_path / "a")] == [(2, sorted({*keys}))]


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_spike_is_judged_after_a_kill_as_before(run, tmp_path, monkeypatch, policy):
    monkeypatch.setattr(step_guard, "LEAST_HISTORY", 3)
    options = {"bad": [6], "factor": 1e4, "bad_steps": policy, "spike_factor": 20.0}
    if policy == "stop":
        with pytest.raises(FloatingPointError, match="at most 20.0 times .* in step 7 with"):
            run("a", **options)
        assert state(tmp_path / "a")[2][0]["last_epoch"] == 6
        return
    run("whole", **options)
    with pytest.raises(Killed):
        run("killed", kill_at=5, **options)
    run("killed", **options)
    assert [row["step"] for row in rows(tmp_path / "whole")] == [7]
    assert rows(tmp_path / "whole") == rows(tmp_path / "killed")
    mine, theirs = state(tmp_path / "whole"), state(tmp_path / "killed")
    assert all(torch.equal(mine[0][key], theirs[0][key]) for key in mine[0])


def test_the_median_is_that_of_the_last_hundred_good_ones(tmp_path):
    guard = StepGuard("skip", 4.0, 99, tmp_path / "skipped.jsonl")
    fit_loop = SimpleNamespace(total_batch_idx=0)
    trainer = SimpleNamespace(fit_loop=fit_loop, accumulate_grad_batches=1, is_global_zero=False)
    norms = np.exp(np.random.default_rng(0).normal(0, 1, 300))
    kept: list[float] = []
    for norm in norms.tolist():
        spike = len(kept) >= 20 and norm > 4 * statistics.median(kept[-100:])
        assert guard.drops(trainer, torch.tensor(norm, dtype=torch.float64)) == spike
        kept += [] if spike else [norm]
    assert len(kept) < 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bad_steps": "ignore"}, "bad_steps: wanted stop or skip, got 'ignore'"),
        ({"spike_factor": 1.0}, "spike_factor: wanted a number above 1"),
        ({"most_skips": 0}, "most_skips: wanted at least 1"),
    ],
)
def test_wrong_policies_are_refused(run, options, message):
    with pytest.raises(ValueError, match=message):
        run("a", **options)


def test_a_module_that_never_asks_is_refused(tmp_path):
    import lightning as L

    trainer = SimpleNamespace(precision="bf16-mixed")
    with pytest.raises(ValueError, match="wanted a CM3Module.*got LightningModule"):
        guard = StepGuard("skip", None, 3, tmp_path / "skipped.jsonl")
        guard.setup(trainer, L.LightningModule(), "fit")  # type: ignore[arg-type]
    trainer.precision = "16-mixed"
    with pytest.raises(ValueError, match="wanted another precision than 16-mixed"):
        guard.setup(trainer, CM3Module.__new__(CM3Module), "fit")  # type: ignore[arg-type]


@pytest.mark.parametrize(("batches", "left"), [(6, [1, 3]), (4, [1]), (0, [])])
def test_steps_that_are_done_again_are_told_once(tmp_path, batches, left):
    """What was skipped after the checkpoint that a run goes on from is forgotten."""
    path = tmp_path / "skipped.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 3, 5)) + '{"step')
    guard = StepGuard("skip", None, 3, path)
    trainer = SimpleNamespace(
        is_global_zero=True,
        fit_loop=SimpleNamespace(total_batch_idx=batches - 1),
        accumulate_grad_batches=2,
    )
    guard.on_train_start(trainer, None)  # pyright: ignore
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == left
