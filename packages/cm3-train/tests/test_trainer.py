"""Whole runs: killed ones end bit for bit as unbroken ones."""

import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from cm3_train import (
    AtomicCheckpointIO,
    BatchLoader,
    CM3Config,
    CM3Module,
    OptimConfig,
    SampleOrder,
    SequenceBuilder,
    TokenLoader,
    TokenShards,
    TrainingInterrupted,
    ValidationLoader,
    fit,
    load_weights,
    read_history,
    write_shards,
)

STEPS = 12


class Killed(Exception):
    pass


@pytest.fixture
def run(tiny, tmp_path):
    data = tmp_path / "data"
    write_shards(tiny.rows(), data, codes_per_image=tiny.num_codes, vocabulary_sha256="v")
    shards = TokenShards(data)

    def start(folder, kill_at=None, act=None, max_steps=STEPS, seen=None, every=3, **optim):
        torch.manual_seed(7)  # dropout draws from torch's generator
        config = OptimConfig(
            **{
                "lr": 0.01,
                "total_steps": max(1, max_steps),
                "warmup_steps": 2 if max_steps > 2 else 0,
                "ema_decay": 0.9,
                **optim,
            }
        )

        def builder(cm3, **options):
            return SequenceBuilder(
                shards,
                tiny.lay_out,
                lambda key, epoch: [100],
                cm3,
                max_length=80,
                seed=0,
                grid=tiny.grid,
                **tiny.ids,
                **options,
            )

        class Module(CM3Module):
            def training_step(self, batch, batch_idx):
                if seen is not None:
                    seen.append(batch["input_ids"].tolist())
                if batch_idx == kill_at:
                    act() if act else self.die()
                return super().training_step(batch, batch_idx)

            def die(self):
                raise Killed

        module = Module(tiny.Model(dropout=0.2), config, tiny.image_range)
        train = TokenLoader(
            builder(CM3Config(region_probability=0.2)),
            SampleOrder(shards.keys, 0, 3),
            pad_id=tiny.pad_id,
        )
        val = ValidationLoader(builder(None, query_only=True), shards.keys[:4], 3, pad_id=0)
        best = fit(
            module,
            train,
            val,
            run_dir=tmp_path / folder,
            max_steps=max_steps,
            val_every=4,
            checkpoint_every=every,
            log_every=1,
            accelerator="cpu",
        )
        return module, best

    return start


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def batches():
    return torch.utils.data.DataLoader(list(torch.arange(3.0)), batch_size=None)


def load(path):
    return AtomicCheckpointIO().load_checkpoint(path)


# Validations come every 4 steps: saves every 3 fall between them, every 4 on them.
@pytest.mark.parametrize(("name", "every"), [("adamw", 3), ("adamw", 4), ("muon", 3)])
def test_killed_runs_end_as_the_unbroken_one(run, name, every):
    seen = []
    module, best = run("unbroken", seen=seen, name=name, every=every)
    folder = best.parent
    for kills in ([2], [3, 8], [4], [7, 11]):  # before a save, at saves, at validations
        other = f"killed-{kills}"
        pieces = []
        for at in kills:
            with pytest.raises(Killed):
                run(other, kill_at=at, seen=pieces, name=name, every=every)
        resumed, other_best = run(other, seen=pieces, name=name, every=every)
        assert same(module.state_dict(), resumed.state_dict())
        for file in ("last.ckpt", "best.ckpt"):
            mine, theirs = load(folder / file), load(other_best.parent / file)
            assert same(mine["state_dict"], theirs["state_dict"])
            for part in ("optimizer_states", "lr_schedulers", "callbacks", "global_step"):
                assert same(mine.get(part), theirs.get(part)), part
        assert pieces[-1] == seen[-1]
        figures, others = read_history(folder), read_history(other_best.parent)
        assert sorted(figures) == sorted(others)
        for at in figures:
            assert figures[at] == pytest.approx(others[at], abs=0, nan_ok=True), at


def test_resumed_batches_are_those_of_the_unbroken_run(run):
    seen, first, second = [], [], []
    run("unbroken", seen=seen)
    with pytest.raises(Killed):
        run("killed", kill_at=8, seen=first)
    run("killed", seen=second)
    assert first == seen[:9]
    assert second == seen[6:]  # the last save before batch 8 was after six


def test_a_broken_checkpoint_costs_the_steps_since_the_one_before(run, capsys):
    seen, pieces = [], []
    module, best = run("unbroken", seen=seen)
    with pytest.raises(Killed):
        run("broken", kill_at=10, seen=pieces)
    folder = best.parent.parent / "broken"
    names = ["best.ckpt", "csv", "last-1.ckpt", "last.ckpt", "settings.json", "tensorboard"]
    assert sorted(path.name for path in folder.iterdir()) == names
    last = folder / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-10])
    capsys.readouterr()
    resumed, _ = run("broken", seen=pieces)
    said = capsys.readouterr().err
    assert "last.ckpt: damaged" in said and "goes on from last-1.ckpt instead" in said
    assert pieces == seen[:11] + seen[6:]  # saves were after 3, 6 and 9
    assert same(module.state_dict(), resumed.state_dict())
    kept = [load(folder / name)["state_dict"] for name in ("last.ckpt", "last-1.ckpt")]
    assert same(kept[0], load(best.parent / "last.ckpt")["state_dict"])
    assert not same(*kept)


def test_a_finished_run_does_nothing_more(run):
    seen = []
    module, best = run("a")
    again, same_best = run("a", seen=seen)
    assert seen == [] and best == same_best
    assert same(module.state_dict(), again.state_dict())


def test_best_is_the_best_validation_and_holds_the_averaged_weights(run, tiny):
    module, best = run("a", lr=0.05, ema_decay=0.5)
    history = read_history(best.parent)
    losses = {step: row["val/loss"] for step, row in history.items() if "val/loss" in row}
    assert sorted(losses) == [3, 7, 11]
    state = load(best.parent / "last.ckpt")["callbacks"]
    kept = next(v for k, v in state.items() if "RunCheckpoints" in k)
    assert kept["best_score"] == pytest.approx(min(losses.values()))
    assert kept["best_step"] == 1 + min(losses, key=losses.__getitem__)
    load_weights(module, best)
    exported = module.export_state()
    assert exported.keys() == tiny.Model().state_dict().keys()
    assert torch.equal(
        exported["qkv.weight"], load(best)["state_dict"]["averaged.module.qkv.weight"]
    )
    assert "optimizer_states" not in load(best)


def test_figures_are_means_over_tokens(run, tiny):
    module, best = run("a", ema_decay=0.0, max_steps=4)
    row = read_history(best.parent)[3]
    assert {"train/loss", "train/bits_per_code", "train/lr", "val/bits_per_text_token"} <= set(row)
    assert 0 < row["val/bits_per_code"] < 10


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_ends_non_zero(run, signum, status, capsys):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    module, best = run("unbroken")
    for at in (1, 3, 11):  # in the middle, where a validation is due, in the last step
        folder = f"stopped-{at}"
        with pytest.raises(TrainingInterrupted) as stop:
            run(folder, kill_at=at, act=lambda: os.kill(os.getpid(), signum))
        assert stop.value.code == status
        assert f"after step {at + 1} of {STEPS}" in capsys.readouterr().err
        resumed, other_best = run(folder)
        assert same(module.state_dict(), resumed.state_dict())
        assert read_history(best.parent) == read_history(other_best.parent)
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_a_full_disk_ends_the_run_and_loses_nothing(run, tmp_path):
    module, _ = run("unbroken")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = 8192  # less than a checkpoint, more than the logs

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))

    try:
        with pytest.raises(OSError, match=r"could not write .*next\.ckpt: File too large"):
            run("full", kill_at=4, act=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "unbroken" / "last.ckpt").stat().st_size > room
    assert load(tmp_path / "full" / "last.ckpt")["global_step"] == 3
    assert not list((tmp_path / "full").glob(".*.tmp"))
    assert same(module.state_dict(), run("full")[0].state_dict())


def test_checkpoints_are_not_staged_elsewhere(run, monkeypatch, tmp_path):
    """A move from TMPDIR on another file system would be no rename, but a copy that may be cut."""
    elsewhere = tempfile.mkdtemp(dir="/dev/shm")
    monkeypatch.setattr(tempfile, "tempdir", elsewhere)
    monkeypatch.setenv("TMPDIR", elsewhere)
    made = []
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (made.append((a, b)), real(a, b)))
    try:
        run("a")
        assert os.listdir(elsewhere) == []
    finally:
        shutil.rmtree(elsewhere)
    assert any(str(target).endswith("last.ckpt") for _, target in made)
    assert all(Path(source).parent == Path(target).parent for source, target in made)


def test_runs_outside_the_main_thread(run):
    results = []
    thread = threading.Thread(target=lambda: results.append(run("a", max_steps=2)))
    thread.start()
    thread.join()
    assert results[0][1].exists()


def test_other_modules_without_validation(tmp_path):
    class Two(L.LightningModule):
        """Manual optimisation with two optimizers, as a GAN has."""

        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.a, self.b = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
            self.seen = []

        def training_step(self, batch, batch_idx):
            self.seen.append(batch[:, 0].tolist())
            for part, optimizer in zip((self.a, self.b), self.optimizers(), strict=True):
                loss = part(batch).square().mean()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            self.log("train/loss", loss)

        def configure_optimizers(self):
            return [torch.optim.SGD(m.parameters(), 0.1) for m in (self.a, self.b)]

    def go(folder, steps):
        torch.manual_seed(0)
        module = Two()
        loader = BatchLoader(
            lambda keys, epochs, position: torch.from_numpy(np.stack([keys, epochs], 1)).float(),
            SampleOrder(np.arange(5), 0, 2),
        )
        path = fit(
            module,
            loader,
            None,
            run_dir=tmp_path / folder,
            max_steps=steps,
            val_every=100,
            checkpoint_every=100,
            accelerator="cpu",
        )
        return module, path

    whole, path = go("a", 9)
    assert path.name == "last.ckpt" and len(whole.seen) == 9
    begun, _ = go("b", 4)
    rest, _ = go("b", 9)
    assert begun.seen + rest.seen == whole.seen
    assert same(whole.state_dict(), rest.state_dict())


def test_finite_loaders_are_gone_through_again(tmp_path):
    class Count(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(()))
            self.seen = []

        def training_step(self, batch, batch_idx):
            self.seen.append(batch.item())
            return self.w * batch

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    module = Count()
    options = {"val_every": 9, "checkpoint_every": 9, "accelerator": "cpu"}
    fit(module, batches(), None, run_dir=tmp_path, max_steps=7, **options)
    assert module.seen == [0, 1, 2, 0, 1, 2, 0]


def test_wrong_input(run, tmp_path, tiny):
    with pytest.raises(ValueError, match="max_steps: wanted at least 1"):
        run("a", max_steps=0)
    run("b", max_steps=3)
    path = tmp_path / "b" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="wanted a whole checkpoint .*last.ckpt: damaged"):
        run("b", max_steps=3)


def test_unknown_monitor(tmp_path):
    class Plain(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch, batch_idx):
            return self.w * batch

        def validation_step(self, batch, batch_idx):
            self.log("val/psnr", batch)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    options = {"val_every": 2, "checkpoint_every": 9, "accelerator": "cpu", "max_steps": 3}
    with pytest.raises(ValueError, match="monitor: wanted one of .*val/psnr.*'val/loss'"):
        fit(Plain(), batches(), batches(), run_dir=tmp_path / "a", **options)
    best = fit(
        Plain(),
        batches(),
        batches(),
        run_dir=tmp_path / "b",
        monitor="val/psnr",
        mode="max",
        **options,
    )
    assert best.name == "best.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize("between_renames", [False, True])
def test_sigkill(tmp_path, monkeypatch, between_renames):
    """The same by a real SIGKILL, on a process of its own: in a step, and while names change."""
    script = Path(tmp_path / "run.py")
    script.write_text(
        """
import os, signal, sys
import lightning as L, numpy as np, torch
from cm3_train import BatchLoader, SampleOrder, fit

if sys.argv[3] == "True":  # the second save moves `last.ckpt` on, then `next.ckpt`
    replace = os.replace
    def dies(source, target):
        replace(source, target)
        if os.path.basename(target) == "last-1.ckpt":
            os.kill(os.getpid(), signal.SIGKILL)
    os.replace = dies

class Plain(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Linear(2, 1)
    def training_step(self, batch, batch_idx):
        if batch_idx == int(sys.argv[2]) and sys.argv[3] == "False":
            os.kill(os.getpid(), signal.SIGKILL)
        return (self.w(batch) - torch.randn(len(batch), 1)).square().mean()
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.1)

torch.manual_seed(0)
loader = BatchLoader(
    lambda keys, epochs, position: torch.from_numpy(np.stack([keys, epochs], 1)).float(),
    SampleOrder(np.arange(5), 0, 2),
)
fit(Plain(), loader, None, run_dir=sys.argv[1], max_steps=10, val_every=99, checkpoint_every=3,
    accelerator="cpu")
"""
    )

    def go(folder):
        monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path / folder), "-1", "no"])
        runpy.run_path(str(script))

    go("unbroken")
    command = [sys.executable, str(script), str(tmp_path / "killed"), "7", str(between_renames)]
    killed = subprocess.run(command, capture_output=True, timeout=240)
    assert killed.returncode == -signal.SIGKILL
    left = sorted(path.name for path in (tmp_path / "killed").glob("*.ckpt"))
    assert left == ["last-1.ckpt", "next.ckpt" if between_renames else "last.ckpt"]
    go("killed")
    mine, theirs = load(tmp_path / "unbroken/last.ckpt"), load(tmp_path / "killed/last.ckpt")
    assert same(mine["state_dict"], theirs["state_dict"])
    assert same(mine["optimizer_states"], theirs["optimizer_states"])
