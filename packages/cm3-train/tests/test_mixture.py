from collections import Counter

import numpy as np
import pytest
from hypothesis import given, strategies as st

from cm3_train import Mixture, balanced

SIZES = st.lists(st.integers(1, 400), min_size=1, max_size=6)


def test_small_sets_come_oftener_and_large_ones_less_within_the_bounds():
    assert balanced([100, 100], 3, 0.3) == pytest.approx([1, 1])
    # 30 + 300 + 30,000: the large set would give up more than it may
    small, middle, large = balanced([30, 300, 30_000], 3, 0.3)
    assert (small, middle) == (3, 3)
    assert large == pytest.approx((30_330 - 3 * 330) / 30_000)
    assert balanced([10, 1000], 200, 0.01) == pytest.approx([50.5, 0.505])  # even shares


@given(sizes=SIZES, up=st.floats(1, 5), down=st.floats(0.1, 1))
def test_an_epoch_is_as_long_as_the_sets_and_no_bound_is_broken(sizes, up, down):
    times = np.array(balanced(sizes, up, down))
    assert times.min() >= down
    assert times.max() <= up
    assert (times * sizes).sum() == pytest.approx(sum(sizes))
    order = np.argsort(sizes)
    assert (np.diff(times[order]) <= 1e-9).all()  # a larger set's records do not come oftener


@given(sizes=SIZES)
def test_over_the_epochs_every_record_comes_equally_often(sizes):
    mixture = Mixture(sizes)
    epochs = 10
    met = Counter(mixture.at(place, e) for e in range(epochs) for place in range(len(mixture)))
    for number, size in enumerate(sizes):
        counts = [met[number, row] for row in range(size)]
        assert sum(counts) == epochs * mixture.lengths[number]
        assert max(counts) - min(counts) <= 1


def test_an_epoch_spreads_over_a_thinned_set():
    """Sets are often in an order, such as by picture: an epoch must not take a run of it."""
    mixture = Mixture([10, 10_000])
    rows = [mixture.at(place, 1) for place in range(len(mixture))]
    rows = np.array([row for number, row in rows if number == 1])
    assert len(rows) < 10_000
    tenths = np.bincount(rows // 1000, minlength=10)
    assert tenths.min() > 0.95 * tenths.mean()


@pytest.mark.parametrize(
    ("sizes", "bounds", "wanted"),
    [
        ([], {}, "at least one set"),
        ([0], {}, "sizes\\[0\\]"),
        ([1], {"up": 0.9}, "down <= 1 <= up"),
        ([1], {"down": 0.0}, "down above 0"),
    ],
)
def test_mixtures_that_cannot_be_are_refused(sizes, bounds, wanted):
    with pytest.raises(ValueError, match=wanted):
        Mixture(sizes, **bounds)
    with pytest.raises(IndexError, match="0..1, got 2"):
        Mixture([2]).at(2, 0)
