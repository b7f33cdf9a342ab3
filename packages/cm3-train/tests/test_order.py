import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from cm3_train import SampleOrder


def pairs_of(order, steps):
    out = []
    for step in range(steps):
        keys, epochs = order.batch(step * order.global_batch_size)
        out.append(list(zip(keys.tolist(), epochs.tolist(), strict=True)))
    return out


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 7), st.integers(0, 5))
def test_every_epoch_holds_every_key_once(count, batch_size, seed):
    order = SampleOrder(np.arange(count) * 3, seed, batch_size)
    seen = [pair for batch in pairs_of(order, 4 * count) for pair in batch]
    for epoch in range(3):
        here = seen[epoch * count : (epoch + 1) * count]
        assert sorted(here) == [(3 * n, epoch) for n in range(count)]


def test_ranks_share_the_batches_of_one():
    alone = SampleOrder(np.arange(10), 0, 6)
    ranks = [SampleOrder(np.arange(10), 0, 2, world_size=3, rank=rank) for rank in range(3)]
    for step in range(9):
        keys, _ = alone.batch(6 * step)
        shared = [order.batch(6 * step)[0] for order in ranks]
        assert sorted(keys) == sorted(np.concatenate(shared))


def test_seed_and_epoch_change_the_order():
    order = SampleOrder(np.arange(50), 0, 50)
    first, second = order.batch(0)[0], order.batch(50)[0]
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, SampleOrder(np.arange(50), 1, 50).batch(0)[0])
    assert np.array_equal(first, order.batch(0)[0])  # also after looking elsewhere


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": []}, "keys"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"seed": 1.5}, "seed"),
        ({"seed": -1}, "seed"),
        ({"world_size": 2.0}, "world_size"),
        ({"rank": 1}, "rank"),
        ({"rank": 0.0}, "rank"),
    ],
)
def test_bad_orders(changes, message):
    with pytest.raises(ValueError, match=f"^{message}: wanted"):
        SampleOrder(**{"keys": [1], "seed": 0, "batch_size": 1, **changes})
