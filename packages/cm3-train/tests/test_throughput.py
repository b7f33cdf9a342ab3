"""Speed is tokens by the clock, without what is no training."""

from types import SimpleNamespace

import pytest
import torch

from cm3_train import Throughput, peak_operations, throughput as module_of


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(value=0.0)
    monkeypatch.setattr(module_of.time, "perf_counter", lambda: now.value)
    return now


class Run:
    """A trainer's and a module's side of the callback."""

    def __init__(self, callback, accumulate=1, replicas=None, precision="bf16-mixed"):
        self.callback, self.logged = callback, {}
        strategy = SimpleNamespace()
        if replicas is not None:
            strategy.distributed_sampler_kwargs = {"num_replicas": replicas, "rank": 0}
        self.trainer = SimpleNamespace(
            fit_loop=SimpleNamespace(total_batch_idx=-1), accumulate_grad_batches=accumulate,
            strategy=strategy, world_size=2 * (replicas or 1), precision=precision,
        )  # fmt: skip
        self.device = torch.device("cpu")
        callback.on_train_start(self.trainer, self)

    def log(self, name, value, prog_bar):
        self.logged[name] = value

    def batch(self, clock, tokens, seconds, waiting=0.0):
        clock.value += waiting
        self.trainer.fit_loop.total_batch_idx += 1
        batch = {"input_ids": torch.zeros(1, tokens)}
        self.callback.on_train_batch_start(self.trainer, self, batch, 0)
        clock.value += seconds
        self.callback.on_train_batch_end(self.trainer, self, None, batch, 0)


def test_tokens_of_the_last_steps_by_their_seconds(clock):
    run = Run(Throughput())
    run.batch(clock, 100, 2.0, waiting=50.0)  # before the first step
    assert run.logged["train/tokens_per_second"] == pytest.approx(50)
    run.batch(clock, 300, 1.0, waiting=1.0)  # waiting for data counts
    assert run.logged["train/tokens_per_second"] == pytest.approx(400 / 4)
    for _ in range(module_of.WINDOW):
        run.batch(clock, 10, 1.0)
    assert run.logged["train/tokens_per_second"] == pytest.approx(10)
    assert "train/mfu" not in run.logged
    assert run.logged["train/peak_memory_gib"] > 0.01


def test_validation_and_saving_do_not_count(clock):
    run = Run(Throughput())
    run.batch(clock, 100, 2.0)
    run.callback.on_validation_start(run.trainer, run)
    run.batch(clock, 100, 2.0, waiting=1000.0)
    run.callback.on_save_checkpoint(run.trainer, run, {})
    run.batch(clock, 100, 2.0, waiting=1000.0)
    assert run.logged["train/tokens_per_second"] == pytest.approx(50)
    assert run.callback.state_dict() == {}


def test_a_step_of_several_batches_on_several_processes(clock):
    run = Run(Throughput(1e9, peak=1e12), accumulate=2, replicas=4)
    run.batch(clock, 100, 1.0)
    assert run.logged == {}
    run.batch(clock, 60, 1.0)
    assert run.logged["train/tokens_per_second"] == pytest.approx(4 * 160 / 2)
    # eight processes: two share each batch
    assert run.logged["train/mfu"] == pytest.approx(4 * 80 * 1e9 / (8 * 1e12))


def test_other_precisions_have_no_share_of_bfloat16(clock):
    run = Run(Throughput(1e9, peak=1e12), precision="32-true")
    run.batch(clock, 100, 1.0)
    assert "train/mfu" not in run.logged


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA RTX A6000", 155e12),
        ("AMD EPYC", None),
    ],
)
def test_peaks_by_name(name, peak):
    assert peak_operations(name) == peak
