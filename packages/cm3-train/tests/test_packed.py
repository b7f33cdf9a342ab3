from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from cm3_train import IGNORE, PackedLoader, Sample, SampleOrder, TokenLoader, collate_packed
from cm3_train.packed import AHEAD

LENGTH = 40


def builder(key, epoch):
    """A sample whose ids say whose it is, of 2 to 24 ids."""
    size = 2 + np.random.default_rng((key, epoch)).integers(23)
    return Sample(np.full(size, 1000 * (epoch + 1) + key), 1 + key % 3)


def loader(
    rows=3, ranks=1, rank=0, accumulate=1, count=11, length=LENGTH, seed=0, build=builder, workers=0
):
    order = SampleOrder(np.arange(count), seed, rows, ranks, rank)
    return PackedLoader(build, order, length, pad_id=0, accumulate=accumulate, workers=workers)


def documents_of(batch):
    """The samples' inputs of every row, without what fills it up."""
    rows = []
    for ids, numbers in zip(batch["input_ids"], batch["documents"], strict=True):
        parts = [ids[numbers == number].tolist() for number in range(int(numbers.max()) + 1)]
        rows.append([part for part in parts if part and part[0] != 0])
    return rows


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.lists(st.integers(2, 12), max_size=4), min_size=1, max_size=3))
def test_every_sample_stands_whole_and_predicts_its_own_ids(sizes):
    rows = [[Sample(np.arange(n) + 100 * i, i) for i, n in enumerate(row, 1)] for row in sizes]
    length = max(1, *(sum(n - 1 for n in row) for row in sizes)) + 2
    batch = collate_packed(rows, length, pad_id=7)
    filled = 0
    for row, samples in enumerate(rows):
        at = 0
        for number, (ids, first, _) in enumerate(samples):
            here = slice(at, at + len(ids) - 1)
            assert batch["input_ids"][row, here].tolist() == ids[:-1].tolist()
            assert set(batch["documents"][row, here].tolist()) == {number}
            labels = ids[1:].copy()
            labels[: first - 1] = IGNORE
            assert batch["labels"][row, here].tolist() == labels.tolist()
            at = here.stop
        filled += at
        assert (batch["input_ids"][row, at:] == 7).all()
        assert (batch["labels"][row, at:] == IGNORE).all()
        assert (batch["documents"][row, at:] == len(samples)).all()
    assert float(batch["padding"]) == pytest.approx(1 - filled / (len(rows) * length))


def test_a_stream_takes_each_of_its_samples_once_and_soon():
    order, batches = SampleOrder(np.arange(11), 0, 1), list(islice(loader(), 30))
    for row in range(3):
        taken, key_of = [], {}
        for number in range(200):
            keys, epochs = order.at(np.array([3 * number + row]))
            ids = tuple(builder(int(keys[0]), int(epochs[0])).ids[:-1].tolist())
            key_of.setdefault(ids, []).append(number)  # ids tell key and epoch
        for batch in batches:
            parts = [key_of[tuple(part)][0] for part in documents_of(batch)[row]]
            assert parts == sorted(parts)  # of what waits, the earlier first
            taken.append(parts)
        flat = [number for parts in taken for number in parts]
        assert len(flat) == len(set(flat))
        for at, parts in enumerate(taken):  # what was passed over opens the next row
            before = {number for earlier in taken[:at] for number in earlier}
            assert parts[0] == min(set(range(200)) - before)
            assert max(parts) < len(before) + len(parts) + AHEAD + 1
    firsts = [part[0] % 1000 for row in documents_of(batches[0]) for part in row]
    assert batches[0]["keys"].tolist() == firsts


@pytest.mark.parametrize(
    ("rows", "ranks", "accumulate"), [(4, 1, 1), (2, 2, 1), (2, 1, 2), (1, 2, 2)]
)
def test_the_rows_of_a_step_do_not_depend_on_who_shares_it(rows, ranks, accumulate):
    whole = [sorted(documents_of(batch)) for batch in islice(loader(4), 6)]
    loaders = [iter(loader(rows, ranks, rank, accumulate)) for rank in range(ranks)]
    for wanted in whole:
        found = [documents_of(next(each)) for each in loaders for _ in range(accumulate)]
        assert sorted(row for batch in found for row in batch) == wanted


@pytest.mark.parametrize("begun", range(5))
def test_it_goes_on_where_its_state_says(begun):
    whole = list(islice(loader(accumulate=2), 10))
    first, second = loader(accumulate=2), loader(accumulate=2)
    assert len(list(islice(first, begun))) == begun
    second.load_state_dict(first.state_dict())
    for wanted, batch in zip(whole[begun:], second, strict=False):
        assert all(torch.equal(batch[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(("workers", "then"), [(0, 2), (2, 0), (1, 2)])
def test_workers_make_the_same_batches_and_take_over_from_each_other(workers, then):
    whole = list(islice(loader(accumulate=2), 12))
    first = loader(accumulate=2, workers=workers)
    begun = list(islice(first, 7))
    second = loader(accumulate=2, workers=then)
    second.load_state_dict(first.state_dict())
    for wanted, batch in zip(whole, [*begun, *islice(second, 5)], strict=True):
        assert all(torch.equal(batch[name], wanted[name]) for name in wanted)


def test_a_state_of_other_data_or_rows_is_refused():
    state = loader().state_dict()
    for other in (loader(seed=1), loader(count=8)):
        with pytest.raises(ValueError, match="other data"):
            other.load_state_dict(state)
    for other in (loader(rows=2), loader(length=50), loader(accumulate=2)):
        with pytest.raises(ValueError, match=r"wanted a step of \d rows of \d+ positions, got one"):
            other.load_state_dict(state)
    plain = TokenLoader(builder, SampleOrder(np.arange(11), 0, 3), pad_id=0)
    with pytest.raises(ValueError, match="loader state"):
        loader().load_state_dict(plain.state_dict())


def test_a_sample_longer_than_a_row_is_named():
    with pytest.raises(ValueError, match=r"key \d: wanted at most length \+ 1 = 11 ids, got"):
        list(islice(loader(length=10), 20))
    with pytest.raises(ValueError, match="length: wanted at least 1, got 0"):
        loader(length=0)
    with pytest.raises(ValueError, match="pad_id: wanted"):
        PackedLoader(builder, SampleOrder(np.arange(3), 0, 1), 10, pad_id=1.5)


def test_ids_of_any_integers_are_taken():
    batch = collate_packed([[Sample(np.array([5, 6, 7], np.uint16), 2)]], 4, pad_id=0)
    assert batch["labels"].tolist() == [[-100, 7, -100, -100]]
    with pytest.raises(ValueError, match="samples: ids of row 0: wanted a flat list of ints"):
        collate_packed([[Sample(np.array([5.0, 6.0]))]], 4, pad_id=0)


def test_nothing_is_built_twice():
    built = []

    def counted(key, epoch):
        built.append((key, epoch))
        return builder(key, epoch)

    list(islice(loader(build=counted), 20))
    assert len(built) == len(set(built))


@pytest.mark.slow
def test_long_rows_waste_little_of_pairs_with_1024_codes():
    """Pairs of 1,024 codes with up to two retrieved ones before, in rows of 4,096 and 32,768."""

    def pairs(key, epoch):
        rng = np.random.default_rng((key, epoch))
        return Sample(np.ones(1 + sum(1026 + rng.integers(8, 60, 1 + rng.integers(3))), np.int64))

    shares = {
        length: np.mean(
            [
                float(batch["padding"])
                for batch in islice(loader(2, length=length, build=pairs, count=500), 60)
            ]
        )
        for length in (4096, 32768)
    }
    print(shares)
    assert shares[32768] < 0.03 < shares[4096]
