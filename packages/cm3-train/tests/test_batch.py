from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from cm3_train import (
    BatchLoader,
    GroupOrder,
    SampleOrder,
    TokenLoader,
    ValidationLoader,
    collate,
    group_repeats,
)


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
    [({"keys": []}, "keys"), ({"batch_size": 0}, "batch_size"), ({"rank": 1}, "rank")],
)
def test_bad_orders(changes, message):
    with pytest.raises(ValueError, match=message):
        SampleOrder(**{"keys": [1], "seed": 0, "batch_size": 1, **changes})


def loader(seed=0, count=7):
    order = SampleOrder(np.arange(count), seed, 3)
    return BatchLoader(lambda keys, epochs: (keys.tolist(), epochs.tolist()), order)


def test_a_loader_goes_on_where_its_state_says():
    whole = list(islice(loader(), 10))
    first = loader()
    begun = list(islice(first, 4))
    second = loader()
    second.load_state_dict(first.state_dict())
    assert begun + list(islice(second, 6)) == whole
    assert first.state_dict()["consumed"] == 12


def test_state_of_other_data_is_refused():
    for other in (loader(seed=1), loader(count=8)):
        with pytest.raises(ValueError, match="other data"):
            other.load_state_dict(loader().state_dict())


def test_collate_by_hand():
    batch = collate([np.array([5, 6, 7, 8]), np.array([9, 4])], pad_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, 0, 0]]
    assert batch["labels"].tolist() == [[6, 7, 8], [4, -100, -100]]
    scored = collate([np.array([5, 6, 7, 8]), np.array([9, 4])], pad_id=0, score_from=[2, 0])
    assert scored["labels"].tolist() == [[-100, 7, 8], [4, -100, -100]]
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
    with pytest.raises(ValueError, match="sequences"):
        collate([np.array([5])], pad_id=0)


def test_token_loader_asks_the_builder_in_order():
    asked = []

    def builder(key, epoch):
        asked.append((key, epoch))
        return np.array([key + 1, 90, epoch + 1])

    order = SampleOrder(np.arange(5), 0, 4)
    batches = list(islice(TokenLoader(builder, order, pad_id=0), 3))
    assert asked == [pair for batch in pairs_of(order, 3) for pair in batch]
    assert batches[2]["labels"][:, 1].tolist() == [2, 2, 3, 3]  # positions 8..11 of epochs of 5


def test_validation_is_the_same_every_time_and_may_count_the_query_only():
    def builder(key, epoch):
        assert epoch == 0
        return np.array([1, 8, 2, 20, 2, 8, 2, 20 + key, 1])  # one retrieved pair, one query

    loader = ValidationLoader(builder, np.arange(5), 2, pad_id=0, query_break_id=2)
    one, two = list(loader), list(loader)
    assert len(one) == len(loader) == 3
    assert all(torch.equal(a["labels"], b["labels"]) for a, b in zip(one, two, strict=True))
    assert one[1]["labels"][0].tolist() == [-100] * 4 + [8, 2, 22, 1]
    everything = ValidationLoader(builder, np.arange(5), 2, pad_id=0)
    assert next(iter(everything))["labels"][0].tolist() == [8, 2, 20, 2, 8, 2, 20, 1]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=20),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 3),
)
def test_a_group_comes_as_often_as_its_power_says(groups, power, seed):
    groups, keys = np.array(groups), np.arange(len(groups)) * 7
    names, counts = np.unique(groups, return_counts=True)
    repeats = group_repeats(counts, power)
    order = GroupOrder(keys, groups, power, seed, 1)
    length = int(repeats.sum())
    seen = [order.batch(step) for step in range(4 * length)]
    for epoch in range(4):
        here = [int(key[0]) for key, _ in seen[epoch * length : (epoch + 1) * length]]
        assert len(set(here)) == len(here)
        assert [int((groups[np.array(here) // 7] == name).sum()) for name in names] == list(repeats)


def test_members_of_a_group_take_turns():
    order = GroupOrder(np.arange(6), np.array([0, 0, 0, 1, 1, 2]), 0.0, 3, 3)
    keys = np.concatenate([order.batch(3 * epoch)[0] for epoch in range(6)])
    assert np.bincount(keys).tolist() == [2, 2, 2, 3, 3, 6]


def test_power_one_shows_every_key_once():
    order = GroupOrder(np.arange(6), np.array([0, 0, 0, 1, 1, 2]), 1.0, 3, 6)
    assert sorted(order.batch(0)[0]) == sorted(order.batch(6)[0]) == list(range(6))


def test_bad_groups_and_other_groups():
    keys = np.arange(4)
    with pytest.raises(ValueError, match="groups: wanted one for each"):
        GroupOrder(keys, np.zeros(3), 0.5, 0, 1)
    with pytest.raises(ValueError, match="power: wanted 0..1, got 2"):
        GroupOrder(keys, np.zeros(4), 2, 0, 1)
    with pytest.raises(ValueError, match="keys: wanted at least one"):
        GroupOrder(keys[:0], np.zeros(0), 0.5, 0, 1)
    same = [GroupOrder(keys, np.array(g), 0.5, 0, 1).fingerprint() for g in ([0, 0, 1, 1],) * 2]
    other = GroupOrder(keys, np.array([0, 1, 1, 1]), 0.5, 0, 1).fingerprint()
    assert same[0] == same[1] != other
