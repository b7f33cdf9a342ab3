import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from cm3_train import SampleOrder
from cm3_train.order import shuffled


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


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_a_shuffled_order_takes_each_place_once(count, seed, epoch):
    found = shuffled(np.arange(count), count, seed, epoch)
    assert sorted(found.tolist()) == list(range(count))
    some = np.array([count - 1, 0, count // 2])  # place by place as all at once
    assert shuffled(some, count, seed, epoch).tolist() == found[some].tolist()


def test_orders_are_as_mixed_as_those_of_numpy():
    """Over many seeds: any place goes anywhere, neighbours part, and all orders of four occur."""
    count, seeds = 500, 200
    ours = np.stack([shuffled(np.arange(count), count, seed, 0) for seed in range(seeds)])
    numpys = np.stack([np.random.default_rng(seed).permutation(count) for seed in range(seeds)])

    def figures(orders):
        boxes, _, _ = np.histogram2d(
            np.tile(np.arange(count), seeds), orders.ravel(), bins=10, range=[[0, count]] * 2
        )
        neighbours = (np.diff(orders) == 1).mean() * count  # 1 on average
        serial = [np.corrcoef(order[:-1], order[1:])[0, 1] for order in orders]
        return boxes.std(), neighbours, np.std(serial)

    for found, wanted, tolerance in zip(
        figures(ours), figures(numpys), (12, 0.2, 0.006), strict=True
    ):
        assert abs(found - wanted) < tolerance
    fours = {tuple(shuffled(np.arange(4), 4, seed, 0)) for seed in range(2000)}
    assert len(fours) == 24


def test_three_hundred_million_places_cost_no_memory():
    count = 300_000_000
    found = shuffled(np.arange(count - 1000, count), count, 0, 5)
    assert len(set(found.tolist())) == 1000
    assert 0 <= found.min() < found.max() < count


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
