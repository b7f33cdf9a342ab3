"""Plans in plain numbers; tests/test_plan.py holds their memory against real steps."""

from dataclasses import replace

import pytest

from cm3_train.plan import (
    Assumptions,
    Layout,
    Shape,
    cost_of,
    memory_of_a_step,
    operations_again,
    operations_saved,
)

SHAPE = Shape(
    num_layers=24, width=1024, mlp_width=4096, num_heads=16, vocab_size=64512, activation="relu",
    num_parameters=24 * 12 * 1024**2 + (64512 + 4096) * 1024, block_parameters=24 * 12 * 1024**2,
)  # fmt: skip


def test_static_memory_of_each_strategy():
    """Sixteen bytes a weight for AdamW, four more for an average, four more for DDP's buckets."""
    count = SHAPE.num_parameters
    alone = memory_of_a_step(SHAPE, Layout(tokens=4096, bfloat16=False, averaged=True))
    assert [alone.weights, alone.gradients, alone.optimizer, alone.averaged] == [
        4 * count, 4 * count, 8 * count, 4 * count,
    ]  # fmt: skip
    assert alone.total == sum(vars(alone).values())
    ddp = memory_of_a_step(SHAPE, Layout(tokens=4096, strategy="ddp", gpus=8))
    assert ddp.gradients == 8 * count
    split = memory_of_a_step(SHAPE, Layout(tokens=4096, strategy="fsdp2", gpus=8))
    assert split.optimizer == count and split.gradients == count / 2
    more = memory_of_a_step(SHAPE, Layout(tokens=4096, strategy="fsdp2", gpus=16))
    both = replace(Layout(tokens=4096, strategy="fsdp2", gpus=16), tensor_parallel=2)
    assert more.optimizer < split.optimizer
    assert memory_of_a_step(SHAPE, both).activations < more.activations


def test_checkpointing_trades_memory_for_operations():
    modes = ("none", "selective", "full")
    layouts = [Layout(tokens=8192, checkpointing=mode) for mode in modes]
    kept = [memory_of_a_step(SHAPE, layout).activations for layout in layouts]
    assert kept == sorted(kept, reverse=True)
    assert [operations_again(SHAPE, mode) for mode in modes] == [
        0, 2 * 24 * 4 * 1024**2, 2 * 24 * 8 * 1024**2,
    ]  # fmt: skip
    gated = replace(SHAPE, activation="swiglu", block_parameters=24 * 16 * 1024**2)
    assert operations_again(gated, "full") == 2 * 24 * 12 * 1024**2  # all but the last product


def test_adapters_alone_have_gradients_and_states():
    adapters = SHAPE.adapter_parameters(8, ("qkv", "down"))
    assert adapters == 24 * 8 * (4 * 1024 + 5 * 1024)
    layout = Layout(tokens=4096, adapter_rank=8, targets=("qkv", "down"), averaged=True)
    found = memory_of_a_step(SHAPE, replace(layout, bfloat16_base=True))
    assert [found.gradients, found.optimizer, found.averaged] == [
        4 * adapters, 8 * adapters, 4 * adapters,
    ]  # fmt: skip
    assert found.weights == 2 * SHAPE.num_parameters + (4 + 2) * adapters
    ddp = memory_of_a_step(SHAPE, replace(layout, strategy="ddp", gpus=8))
    assert ddp.gradients == 8 * adapters
    more = memory_of_a_step(SHAPE, Layout(tokens=4096, adapter_rank=8))
    assert found.activations < more.activations < memory_of_a_step(SHAPE, Layout(tokens=4096)).total
    with pytest.raises(ValueError, match="strategy: wanted alone or ddp for adapters, got fsdp2"):
        replace(layout, strategy="fsdp2")
    with pytest.raises(ValueError, match="bfloat16_base: wanted adapters beside it, got none"):
        Layout(tokens=1, bfloat16_base=True)


def test_frozen_weights_need_no_gradients():
    products = SHAPE.block_parameters + 64512 * 1024
    adapters = SHAPE.adapter_parameters(8, ("qkv", "out", "up", "down"))
    layout = Layout(tokens=4096, adapter_rank=8)
    assert operations_saved(SHAPE, layout) == 2 * products - 6 * adapters
    assert operations_saved(SHAPE, Layout(tokens=4096)) == 0
    all_of_them = 6 * products
    fast, slow = (cost_of(SHAPE, one, all_of_them, 1e9) for one in (layout, Layout(tokens=4096)))
    assert fast.tokens_a_second == pytest.approx(slow.tokens_a_second * 1.5, rel=0.05)


def test_time_and_price():
    assumed = Assumptions(peak=1e15, mfu=0.5, scaling=0.8, dollars_an_hour=2.0)
    one = cost_of(SHAPE, Layout(tokens=1), 1e9, 8.64e12, assumed)
    assert one.tokens_a_second == pytest.approx(5e5)
    assert one.days == pytest.approx(200) and one.dollars == pytest.approx(200 * 24 * 2)
    many = cost_of(SHAPE, Layout(tokens=1, strategy="ddp", gpus=10), 1e9, 8.64e12, assumed)
    assert many.tokens_a_second == pytest.approx(4e6) and many.days == pytest.approx(25)
    assert many.disk_bytes_a_second == pytest.approx(8e6)
    assert many.loader_bytes_a_second == pytest.approx(4e5 * 24)
    full = Layout(tokens=1, checkpointing="full")
    assert cost_of(SHAPE, full, 2e9, 1e12, assumed).tokens_a_second < 2.5e5
