"""The plan's memory against what real steps allocate, and the table of apps/plan.py."""

import json
import subprocess
import sys

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from cm3_model import PRESETS, Decoder, DecoderConfig
from cm3_train import OptimConfig, build_optimizer, token_losses
from cm3_train.plan import Layout, memory_of_a_step
from cm3leon.plan import shape_of

SIZES = {"small": (128, 4), "middle": (256, 6)}
ROWS, LENGTH, WORDS, CHUNK = 2, 768, 2048, 256


@pytest.mark.slow
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("mode", ["none", "selective", "full"])
@pytest.mark.parametrize("size", SIZES)
def test_memory_is_that_of_a_real_step_within_a_twentieth(size, mode, bfloat16):
    """Counted by PyTorch, tensor by tensor, in a step whose gradients are accumulated."""
    width, layers = SIZES[size]
    config = DecoderConfig(
        vocab_size=WORDS, max_length=LENGTH, num_layers=layers, width=width, num_heads=4,
        activation="relu",
    )  # fmt: skip
    model = Decoder(config, torch.Generator().manual_seed(0)).train()
    model.activation_checkpointing = mode
    optimizer = build_optimizer(model, OptimConfig())
    ids = torch.randint(WORDS, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(1))

    def add_gradients():
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            hidden = model.hidden(ids[:, :-1])
            losses = token_losses(hidden, ids[:, 1:], model.head_weight, chunk_size=CHUNK)
        losses.total.backward()

    add_gradients()
    optimizer.step()
    tracker = MemTracker()
    tracker.track_external(model, optimizer)
    with tracker:
        add_gradients()
        optimizer.step()
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    real = next(value for kind, value in peak.items() if "Total" in str(kind))
    layout = Layout(tokens=ROWS * LENGTH, checkpointing=mode, bfloat16=bfloat16, chunk_size=CHUNK)
    assert memory_of_a_step(shape_of(config), layout).total == pytest.approx(real, rel=0.05)


@pytest.mark.parametrize("name", ["350m", "760m"])
def test_memory_is_what_an_h100_was_measured_to_need(root, name):
    """`benchmarks/train_step.py`: four sequences of 4,096, compiled blocks, pieces of 4,096."""
    measured = json.loads((root / "benchmarks/results/train-step-h100.json").read_text())
    layout = Layout(tokens=4 * 4096, chunk_size=4096)
    planned = memory_of_a_step(shape_of(PRESETS[f"cm3leon-{name}"]), layout).total
    assert planned == pytest.approx(measured[f"peak_bytes_{name}"], rel=0.06)


def test_the_table_names_every_recipe_and_number_of_gpus(root, tmp_path):
    done = subprocess.run(
        [sys.executable, str(root / "apps/plan.py"), "--recipes", "350m", "7b", "--gpus", "8",
         "256", "3", "--out", str(tmp_path / "plan.json")],
        capture_output=True, text=True, cwd=root,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = done.stdout
    assert table.count("350m") == 3 and table.count("7b") == 3
    assert table.count("does not divide") == 2  # three GPUs
    rows = json.loads((tmp_path / "plan.json").read_text())["rows"]
    assert {(row["recipe"], row["gpus"]) for row in rows} == {
        ("350m", 8), ("350m", 256), ("7b", 8), ("7b", 256),
    }  # fmt: skip
    big = {row["gpus"]: row for row in rows if row["recipe"] == "7b"}
    assert big[256]["memory_gib"] < big[8]["memory_gib"]
    assert big[256]["days"] == pytest.approx(big[8]["days"] / 32)
    assert big[256]["dollars"] == pytest.approx(big[8]["dollars"])
