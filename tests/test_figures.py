"""The report's figures against straightforward references."""

from types import SimpleNamespace

import numpy as np

from cm3leon.evaluation.bits import position_unigram_bits
from cm3leon.evaluation.combinations import one_a_thing_first
from cm3leon.evaluation.samples import among_nearest, match_by_chance


def test_match_by_chance_is_the_mean_over_all_dealings():
    rng = np.random.default_rng(0)
    wanted, found = rng.choice(list("abc"), 9), rng.choice(list("abd"), 9)
    brute = np.mean([[w == f for f in found] for w in wanted])
    assert np.isclose(match_by_chance(wanted, found), brute)


def test_among_nearest_is_a_rank():
    rng = np.random.default_rng(0)
    similarity, places = rng.normal(size=(5, 30)), rng.choice(30, 5, replace=False)
    found = among_nearest(similarity, places, 4)
    for i in range(5):
        best = set(np.argsort(-similarity[i])[:4].tolist())
        assert [int(p) in best for p in places] == found[i].tolist()


def test_position_unigram_bits_of_a_certain_code_are_few():
    train = np.tile(np.arange(4), (5000, 1))
    assert position_unigram_bits(train, train[:10], 8) < 0.1
    rng = np.random.default_rng(0)
    uniform = rng.integers(0, 8, (5000, 4))
    assert abs(position_unigram_bits(uniform, uniform[:500], 8) - 3) < 0.05


def test_sheets_of_things_show_each_once_before_any_twice():
    things = "fox fox owl fox hut owl fox".split()
    facts = [{"kind": "one", "things": [{"name": thing}]} for thing in things]
    pictures = SimpleNamespace(pairs=SimpleNamespace(facts=facts))
    orders = set()
    for seed in range(20):
        rows = one_a_thing_first(pictures, range(7), np.random.default_rng(seed))
        assert sorted(rows) == list(range(7))
        named = [things[row] for row in rows]
        assert set(named[:3]) == {"fox", "owl", "hut"} and set(named[3:5]) == {"fox", "owl"}
        orders.add(tuple(rows))
    assert len(orders) > 10
