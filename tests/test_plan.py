"""The plan's memory against what real steps allocate, and the table of apps/plan.py."""

import json
import subprocess
import sys
from unittest.mock import Mock

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from cm3_model import PRESETS, Decoder, DecoderConfig
from cm3_model.config import CHAMELEON_PARTS
from cm3_train import LoraConfig, OptimConfig, add_adapters, build_optimizer, token_losses
from cm3_train.plan import TARGETS, Layout, memory_of_a_step
from cm3leon.plan import EIGHT_BITS, shape_of

SIZES = {"small": (128, 4), "middle": (256, 6)}
ROWS, LENGTH, WORDS, CHUNK = 2, 768, 2048, 256


class Tracker(MemTracker):
    """PyTorch's, told that frozen weights will have no gradients: it hooks them in vain."""

    def _track_module_params_and_buffers(self, module, install_grad_hooks=True):
        for weight in module.parameters():
            if not weight.requires_grad:
                self._param_to_grad_hook_handles[weight] = (Mock(), Mock())
        return super()._track_module_params_and_buffers(module, install_grad_hooks)


def bytes_of_a_real_step(config, mode, bfloat16, lora=None, optimizer="adamw"):
    """Counted by PyTorch, tensor by tensor, in a step whose gradients are accumulated."""
    model = Decoder(config, torch.Generator().manual_seed(0)).train()
    if lora is not None:
        add_adapters(model, lora)
    model.activation_checkpointing = mode
    optimizer = build_optimizer(model, OptimConfig(name=optimizer))
    ids = torch.randint(WORDS, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(1))

    def add_gradients():
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            hidden = model.hidden(ids[:, :-1])
            losses = token_losses(hidden, ids[:, 1:], model.head_weight, chunk_size=CHUNK)
        losses.total.backward()

    add_gradients()
    optimizer.step()
    tracker = Tracker()
    tracker.track_external(model, optimizer)
    with tracker:
        add_gradients()
        optimizer.step()
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    return next(value for kind, value in peak.items() if "Total" in str(kind))


@pytest.mark.slow
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("mode", ["none", "selective", "full"])
@pytest.mark.parametrize("size", SIZES)
def test_memory_is_that_of_a_real_step_within_a_twentieth(size, mode, bfloat16):
    width, layers = SIZES[size]
    config = DecoderConfig(
        vocab_size=WORDS, max_length=LENGTH, num_layers=layers, width=width, num_heads=4,
        activation="relu",
    )  # fmt: skip
    real = bytes_of_a_real_step(config, mode, bfloat16)
    layout = Layout(tokens=ROWS * LENGTH, checkpointing=mode, bfloat16=bfloat16, chunk_size=CHUNK)
    assert memory_of_a_step(shape_of(config), layout).total == pytest.approx(real, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["none", "selective", "full"])
@pytest.mark.parametrize(
    ("size", "tuned"),
    [
        ("small", "whole"),
        ("small", "adapters"),
        ("small", "adapters of attention"),
        ("small", "adapters beside bfloat16"),
        ("middle", "adapters beside bfloat16"),
    ],
)
def test_memory_of_a_chameleon_is_that_of_a_real_step_within_6_percent(size, mode, tuned):
    width, layers = SIZES[size]
    config = DecoderConfig(
        vocab_size=WORDS, max_length=LENGTH, num_layers=layers, width=width, num_heads=4,
        mlp_width=int(2.75 * width), **CHAMELEON_PARTS,
    )  # fmt: skip
    targets, base = ("qkv", "out") if "attention" in tuned else TARGETS, "bfloat16" in tuned
    lora = LoraConfig(rank=8, targets=targets, bfloat16_base=base)
    layout = Layout(
        tokens=ROWS * LENGTH, checkpointing=mode, chunk_size=CHUNK, targets=targets,
        adapter_rank=None if tuned == "whole" else 8, bfloat16_base=base,
    )  # fmt: skip
    real = bytes_of_a_real_step(config, mode, True, None if tuned == "whole" else lora)
    assert memory_of_a_step(shape_of(config), layout).total == pytest.approx(real, rel=0.06)


def test_adapters_are_counted_as_they_are():
    for changes in ({}, {"num_kv_heads": 2}, {"activation": "relu", "mlp_width": None}):
        config = DecoderConfig(
            **{"vocab_size": 60, "max_length": 24, "num_layers": 2, "width": 32, "num_heads": 4,
               "mlp_width": 40, **CHAMELEON_PARTS, **changes}
        )  # fmt: skip
        for targets in (TARGETS, ("qkv",), ("out", "down")):
            model = Decoder(config)
            add_adapters(model, LoraConfig(rank=3, targets=targets))
            real = sum(p.numel() for p in model.parameters() if p.requires_grad)
            assert shape_of(config).adapter_parameters(3, targets) == real


def test_moments_of_8_bits_take_the_bytes_that_are_planned():
    config = DecoderConfig(
        vocab_size=512, max_length=64, num_layers=1, width=256, num_heads=4, activation="relu"
    )
    model = Decoder(config)
    optimizer = build_optimizer(model, OptimConfig(name="adamw8bit"))
    model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
    with torch.compiler.set_stance("force_eager"):
        optimizer.step()
    moments = [state[n] for state in optimizer.state.values() for n in ("exp_avg", "exp_avg_sq")]
    real = sum(moment.codes.nbytes + moment.scale.nbytes for moment in moments)
    shape = shape_of(config)
    planned = memory_of_a_step(shape, Layout(tokens=4, optimizer_bytes=EIGHT_BITS)).optimizer
    assert planned == real and shape.num_parameters * 2 < real < shape.num_parameters * 2.1


def test_adapters_of_a_7b_fit_on_one_card_of_24_gigabytes():
    layout = Layout(tokens=4096, checkpointing="full", adapter_rank=16, bfloat16_base=True)
    needed = memory_of_a_step(shape_of(PRESETS["chameleon-7b"]), layout)
    assert 13e9 < needed.weights < 14.5e9 and needed.total < 20e9
    whole = memory_of_a_step(shape_of(PRESETS["chameleon-7b"]), Layout(tokens=4096))
    assert whole.total > 110e9


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


def test_the_table_of_adapters_is_of_less_memory_and_time(root, tmp_path):
    found = []
    for extra in ([], ["--optimizer", "adamw8bit"], ["--lora", "16"]):
        command = [
            sys.executable, str(root / "apps/plan.py"), "--recipes", "7b", "--gpus", "1",
            "--model", "chameleon-7b", "--out", str(tmp_path / "plan.json"), *extra,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, cwd=root)
        assert done.returncode == 0, done.stderr
        found += json.loads((tmp_path / "plan.json").read_text())["rows"]
    whole, eight, adapters = found
    assert whole["memory_gib"] > eight["memory_gib"] + 30 > adapters["memory_gib"] + 60
    assert adapters["days"] < 0.8 * whole["days"] == pytest.approx(0.8 * eight["days"])
