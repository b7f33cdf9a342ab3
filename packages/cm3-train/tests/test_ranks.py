"""Two processes (gloo) train on what one trains on: with whole models, and with split ones."""

import json
import os
import socket
import sys

import pytest
import torch
import warm

from cm3_train import (
    AtomicCheckpointIO,
    CM3Module,
    OptimConfig,
    load_weights,
    read_history,
)

WORKER = """
import json, os, signal, sys
import numpy as np, torch
from torch import nn
from cm3_train import *
from cm3_train.loader import build_batch

folder = sys.argv[1]
devices, accumulate, batch_size, stop_at, packed, bad_at = map(int, [*sys.argv[2:], -1][:6])
RANK = int(os.environ.get("LOCAL_RANK", 0))
seen = []

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(40, 8)
    def hidden(self, ids, documents=None):
        x = self.embedding(ids)
        return torch.tanh(x.cumsum(1))
    def head(self, hidden):
        return hidden @ self.embedding.weight.T

def builder(count):
    def build(key, epoch):  # rows of very different length
        rng = np.random.default_rng((key, epoch, count))
        return Sample(rng.integers(0, 40, 3 + 5 * (key % 4) + count), 1 + key % 3)
    return build

def make_batch(keys, epochs, position):
    count = int(np.random.default_rng(position).integers(3))
    seen.append([position, count, keys.tolist(), epochs.tolist()])
    stop_if_asked()
    return build_batch(builder(count), keys, epochs, 0)

def stop_if_asked():
    if len(seen) == stop_at and RANK == devices - 1:
        os.kill(os.getpid(), signal.SIGTERM)

class Packed(PackedLoader):
    def __iter__(self):
        for batch in super().__iter__():
            seen.append(batch["input_ids"].tolist())
            stop_if_asked()
            yield batch

class Module(CM3Module):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * float("nan") if bad_at == batch_idx and RANK == 1 else loss

def batches(rank, ranks):
    order = SampleOrder(keys, 0, batch_size, ranks, rank)
    if packed:
        return Packed(builder(1), order, 30, pad_id=0, accumulate=accumulate)
    return BatchLoader(make_batch, order)

keys = np.arange(11)
path = fit(
    Module(Model(), OptimConfig(lr=0.05, total_steps=6, ema_decay=0.5), (20, 40)),
    batches,
    lambda rank, ranks: ValidationLoader(
        builder(0), keys[:5], 2, pad_id=0, world_size=ranks, rank=rank
    ),
    run_dir=folder, max_steps=6, val_every=3, checkpoint_every=2, log_every=1, accelerator="cpu",
    devices=devices, strategy="ddp" if devices > 1 else "auto", accumulate=accumulate,
    bad_steps="stop" if bad_at < 0 else "skip",
)
with open(f"{folder}/seen-{RANK}.json", "w") as file:
    json.dump(seen, file)
"""


def start(folder, devices, *arguments, script=WORKER):
    """Run a script in as many processes as it has devices; gives the processes, ended."""
    folder.mkdir(exist_ok=True)
    path = folder / "worker.py"
    path.write_text(script)
    command = [sys.executable, str(path), *map(str, (folder, devices, *arguments))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if devices > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
        environment |= {"WORLD_SIZE": str(devices)}
    workers = [
        warm.Popen(command, env=environment | ({"LOCAL_RANK": str(rank)} if devices > 1 else {}))
        for rank in range(devices)
    ]
    for worker in workers:
        _, worker.errors = worker.communicate(timeout=600)
    return workers


WHOLE_MODEL = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(40, 8)
        self.gain = nn.Parameter(torch.ones(8))
        self.up, self.down = nn.Linear(8, 20), nn.Linear(20, 8, bias=False)
    def hidden(self, ids):
        x = self.embedding(ids).cumsum(1) * self.gain
        return x + self.down(torch.tanh(self.up(x)))
    def head(self, hidden):
        return hidden @ self.embedding.weight.T
"""

SPLIT_WORKER = (
    WHOLE_MODEL
    + """
import os, sys
import numpy as np
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel, RowwiseParallel, parallelize_module,
)
from cm3_train import *
from cm3_train.loader import build_batch

folder, devices, tensor, name, kill_at, averaged = sys.argv[1:]
devices, tensor, kill_at = int(devices), int(tensor), int(kill_at)
data = devices // tensor

class Module(CM3Module):
    def configure_model(self):
        if devices == 1 or isinstance(self.model.down.weight, DTensor):
            return
        copy = [] if self.averaged is None else [self.averaged.module]
        for model in [self.model, *copy]:
            if tensor > 1:
                plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
                parallelize_module(model, self.device_mesh["tensor_parallel"], plan)
            if data > 1:
                fully_shard(model, mesh=self.device_mesh["data_parallel"])
                for method in ("hidden", "head"):
                    register_fsdp_forward_method(model, method)
    def training_step(self, batch, batch_idx):
        if batch_idx == kill_at:
            os._exit(7)
        return super().training_step(batch, batch_idx)

def build(key, epoch):
    rng = np.random.default_rng((key, epoch))
    return Sample(rng.integers(0, 40, 3 + 5 * (key % 4)), 1 + key % 3)

optim = OptimConfig(
    name=name, lr=0.02, muon_lr=0.02, grad_clip=0.3, total_steps=6, ema_decay=float(averaged)
)
keys = np.arange(11)
fit(
    Module(Model(), optim, (20, 40)),
    lambda rank, ranks: TokenLoader(build, SampleOrder(keys, 0, 4 // ranks, ranks, rank), pad_id=0),
    lambda rank, ranks: ValidationLoader(
        build, keys[:5], 2, pad_id=0, world_size=ranks, rank=rank
    ),
    run_dir=folder, max_steps=6, val_every=3, checkpoint_every=2, log_every=1, accelerator="cpu",
    devices=devices,
    strategy="auto" if devices == 1 else ModelParallelStrategy(
        data_parallel_size=data, tensor_parallel_size=tensor, process_group_backend="gloo"
    ),
)
sys.stderr.flush()
os._exit(0)  # gloo's threads may still run and would abort an ordinary exit, now and then
"""
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_split_models_learn_what_whole_ones_do_and_go_on_after_a_kill(tmp_path, name):
    (alone,) = start(tmp_path / "one", 1, 1, name, -1, 0.5, script=SPLIT_WORKER)
    assert alone.returncode == 0, alone.errors
    wanted = read_history(tmp_path / "one")
    for tensor in (1, 2):  # FSDP2, tensor parallel
        folder = tmp_path / f"tensor-{tensor}"
        killed = start(folder, 2, tensor, name, 4, 0.5, script=SPLIT_WORKER)
        assert 7 in [worker.returncode for worker in killed], killed[0].errors
        assert (folder / "last.ckpt" / "manifest.json").exists()
        if name == "adamw":  # a broken part of one process: both go on from the one before
            part = next((folder / "last.ckpt").glob("__1_*"))
            part.write_bytes(part.read_bytes()[:-1] + b"x")
        workers = start(folder, 2, tensor, name, -1, 0.5, script=SPLIT_WORKER)
        for worker in workers:
            assert worker.returncode == 0, worker.errors
        said = "goes on from last-1.ckpt instead" in workers[0].errors
        assert said == (name == "adamw")
        whole = [AtomicCheckpointIO().load_checkpoint(tmp_path / "one" / "best.ckpt")]
        scope: dict = {}
        exec(WHOLE_MODEL, scope)
        module = CM3Module(scope["Model"](), OptimConfig(ema_decay=0.5), (20, 40))
        load_weights(module, folder / "best.ckpt")  # its parts put together, in one process
        for key, value in module.state_dict().items():
            torch.testing.assert_close(value, whole[0]["state_dict"][key], rtol=1e-3, atol=1e-4)
        found = read_history(folder)
        assert sorted(found) == sorted(wanted) == list(range(6))
        for step, figures in wanted.items():  # of the averaged weights, too
            assert found[step] == pytest.approx(figures, rel=1e-3, nan_ok=True), (tensor, step)
    assert {"train/loss", "val/loss"} <= set(wanted[5])


def trained(folder):
    state = AtomicCheckpointIO().load_checkpoint(folder / "last.ckpt")["state_dict"]
    with open(folder / "csv/version_0/metrics.csv") as file:
        figures = file.read().splitlines()
    return state, figures


@pytest.mark.slow
def test_two_processes_see_and_learn_what_one_does(tmp_path):
    for name, shape in {"one": (1, 1, 4), "two": (2, 1, 2), "parts": (1, 2, 2)}.items():
        for worker in start(tmp_path / name, *shape, -1, 0):
            assert worker.returncode == 0, worker.errors
    one = json.loads((tmp_path / "one/seen-0.json").read_text())
    ranks = [json.loads((tmp_path / f"two/seen-{rank}.json").read_text()) for rank in range(2)]
    steps = 6
    assert len({count for _, count, _, _ in one}) > 1  # batches differ in their documents
    for step in range(steps):
        position, count, keys, epochs = one[step]
        assert [ranks[rank][step][:2] for rank in range(2)] == [[position, count]] * 2
        for part, whole in ((2, keys), (3, epochs)):
            mixed = [ranks[n % 2][step][part][n // 2] for n in range(4)]
            assert mixed == whole
    weights, figures = trained(tmp_path / "one")
    theirs, their_figures = trained(tmp_path / "two")
    for name, value in weights.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-4, atol=1e-5)
    assert figures[0] == their_figures[0] and len(figures) == len(their_figures)
    for mine, other in zip(figures[1:], their_figures[1:], strict=True):
        numbers = [[float(x or "nan") for x in row.split(",")] for row in (mine, other)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-3, nan_ok=True)
    # accumulated batches have documents of their own; their tokens weigh the same too
    parts, _ = trained(tmp_path / "parts")
    assert parts.keys() == weights.keys()


@pytest.mark.slow
def test_a_signal_to_one_process_saves_and_stops_all(tmp_path):
    whole = tmp_path / "whole"
    for worker in start(whole, 2, 1, 2, -1, 0):
        assert worker.returncode == 0, worker.errors
    stopped = tmp_path / "stopped"
    assert [worker.returncode for worker in start(stopped, 2, 1, 2, 3, 0)] == [143, 143]
    for worker in start(stopped, 2, 1, 2, -1, 0):
        assert worker.returncode == 0, worker.errors
    for name, value in trained(whole)[0].items():
        assert torch.equal(trained(stopped)[0][name], value), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shapes", "packed"), [(((1, 1, 4), (2, 1, 2)), 0), (((2, 1, 2), (1, 2, 2)), 1)]
)
def test_a_run_goes_on_with_another_number_of_processes(tmp_path, shapes, packed):
    """Accumulated batches take the place of ranks, too: the same samples in the same order."""
    whole, changed = tmp_path / "whole", tmp_path / "changed"
    for worker in start(whole, *shapes[0], -1, packed):
        assert worker.returncode == 0, worker.errors
    stopped = start(changed, *shapes[0], 3, packed)
    assert {worker.returncode for worker in stopped} == {143}, stopped[0].errors
    for worker in start(changed, *shapes[1], -1, packed):
        assert worker.returncode == 0, worker.errors

    def rows_of(folder, ranks):
        """The samples of each step, in any order within it."""
        of_rank = [json.loads((folder / f"seen-{rank}.json").read_text()) for rank in range(ranks)]
        parts = len(of_rank[0]) // (3 if folder == changed else 6)
        rows = []
        for step in range(len(of_rank[0]) // parts):
            batches = [b for one in of_rank for b in one[step * parts : (step + 1) * parts]]
            found = [batch if packed else batch[2] for batch in batches]
            rows.append(sorted(row for batch in found for row in batch))
        return rows

    # a worker that was stopped leaves no list: what follows is compared
    assert rows_of(whole, shapes[0][0])[3:] == rows_of(changed, shapes[1][0])
    theirs = trained(changed)[0]
    for name, value in trained(whole)[0].items():
        # a batch that is accumulated draws the number of its documents by itself
        if packed or shapes[0][1] == shapes[1][1]:
            torch.testing.assert_close(theirs[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_bad_step_of_one_process_is_skipped_in_all(tmp_path):
    workers = start(tmp_path / "two", 2, 1, 2, -1, 0, 2)
    for worker in workers:
        assert worker.returncode == 0, worker.errors
    (line,) = (tmp_path / "two" / "skipped.jsonl").read_text().splitlines()
    row = json.loads(line)
    ranks = [json.loads((tmp_path / f"two/seen-{rank}.json").read_text()) for rank in range(2)]
    assert row["step"] == 3
    assert row["keys"] == sorted({key for rank in ranks for key in rank[2][2]})  # of both
    assert "the step is skipped" in workers[0].errors
    assert "is skipped" not in workers[1].errors
    state, figures = trained(tmp_path / "two")
    assert len(figures) == 9 and all(bool(value.isfinite().all()) for value in state.values())
