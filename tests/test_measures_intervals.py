"""Bootstrap: against NumPy, the normal approximation, and on corpus figures."""

import numpy as np
import pytest

from cm3leon.evaluation.measures import intervals as module
from cm3leon.evaluation.measures.cider import CiderD
from cm3leon.evaluation.measures.intervals import (
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_statistic,
)

VALUES = np.random.default_rng(0).exponential(size=400)


def test_the_interval_is_numpys_percentiles():
    rng = np.random.default_rng(7)
    means = [VALUES[rng.integers(0, 400, 400)].mean() for _ in range(3000)]
    found = bootstrap_mean(VALUES, seed=1, resamples=3000)
    assert found.value == VALUES.mean()
    error = VALUES.std() / 20
    np.testing.assert_allclose(found[1:], np.percentile(means, [2.5, 97.5]), atol=0.15 * error)
    np.testing.assert_allclose(found[1:], VALUES.mean() + np.array([-1.96, 1.96]) * error, rtol=0.1)


def test_the_seed_decides_and_a_higher_level_is_wider(monkeypatch):
    found = bootstrap_mean(VALUES, seed=1, resamples=500)
    assert found == bootstrap_mean(VALUES, seed=1, resamples=500)
    assert found != bootstrap_mean(VALUES, seed=2, resamples=500)
    wider = bootstrap_mean(VALUES, seed=1, resamples=500, level=0.99)
    assert wider.low < found.low < found.value < found.high < wider.high
    monkeypatch.setattr(module, "_CELLS", 1000)  # two resamples at a time
    np.testing.assert_allclose(bootstrap_mean(VALUES, seed=1, resamples=500), found)


def test_95_of_100_intervals_hold_the_true_mean():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        found = bootstrap_mean(rng.normal(3, 1, 80), seed=seed, resamples=400)
        hits += found.low <= 3 <= found.high
    assert 0.9 <= hits / 200 <= 0.99


def test_a_paired_difference_sees_what_two_intervals_do_not():
    noise = np.random.default_rng(1).normal(size=400)
    better = VALUES + 0.05 + 0.1 * noise
    one, other = (bootstrap_mean(v, seed=0, resamples=500) for v in (better, VALUES))
    assert one.low < other.high
    found = bootstrap_difference(better, VALUES, seed=0, resamples=500)
    assert found.low > 0 and found.value == pytest.approx((better - VALUES).mean())
    np.testing.assert_allclose(bootstrap_difference(VALUES, VALUES, seed=0), 0)


def test_a_statistic_of_rows_equals_the_mean_and_may_be_of_a_corpus():
    def mean(rows):
        return float(VALUES[rows].mean())

    found = bootstrap_statistic(mean, 400, seed=5, resamples=2000)
    np.testing.assert_allclose(found, bootstrap_mean(VALUES, seed=6, resamples=2000), rtol=0.02)
    references = [[f"a {name} runs", f"the {name} is here"] for name in "pqrstuvwxy"]
    scorer = CiderD([f"a {name} is here" for name in "pqrstuvwxy"], references)
    found = bootstrap_statistic(lambda rows: scorer.scores(rows).mean(), 10, seed=0, resamples=200)
    assert found.low <= found.value == pytest.approx(scorer.scores().mean())
    assert found.low < found.high


def test_shares_of_hits_are_values_too():
    assert bootstrap_mean(np.array([True, False] * 50), seed=0).value == 0.5


def test_odd_inputs_are_named():
    bad = VALUES.copy()
    bad[3] = np.nan
    for values, message in (
        (bad, r"values\[3\]: wanted a finite number, got nan"),
        (VALUES[:1], "values: wanted at least 2, got 1"),
        (VALUES[:, None], r"values: wanted numbers \(N,\), got float64 \(400, 1\)"),
        (["a", "b"], r"values: wanted numbers \(N,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            bootstrap_mean(values, seed=0)
    with pytest.raises(ValueError, match="second: wanted 400, one for each, got 399"):
        bootstrap_difference(VALUES, VALUES[1:], seed=0)
    with pytest.raises(ValueError, match="resamples, level: wanted .* got 10, 95"):
        bootstrap_mean(VALUES, seed=0, resamples=10, level=95)
    with pytest.raises(ValueError, match="count: wanted at least 2 examples, got 1"):
        bootstrap_statistic(len, 1, seed=0)
    with pytest.raises(ValueError, match="statistic: wanted a finite number, got nan"):
        bootstrap_statistic(lambda rows: float("nan"), 5, seed=0)
