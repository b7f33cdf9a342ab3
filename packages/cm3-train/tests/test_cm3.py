import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from cm3_train import CM3Config, cm3_transform, query_start, undo_cm3

EOS, BREAK, INFILL, MASKS = 1, 2, 4, (3, 5, 6, 7)
IDS = {"eos_id": EOS, "break_id": BREAK, "infill_id": INFILL, "mask_ids": MASKS}


def transform(ids, config, seed=0, **changes):
    rng = np.random.default_rng(seed)
    return cm3_transform(np.array(ids), config=config, rng=rng, **{**IDS, **changes})


def document(texts, codes=6):
    ids = [EOS]
    for n in texts:
        ids += [*range(10, 10 + n), BREAK, *range(50, 50 + codes), BREAK]
    return np.array([*ids[:-1], EOS])


configs = st.builds(
    CM3Config,
    mask_probability=st.sampled_from([0.5, 1.0]),
    mean_spans=st.floats(0.1, 6),
    whole_text_probability=st.sampled_from([0.0, 0.3]),
    region_probability=st.sampled_from([0.0, 0.5]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), configs, st.integers(0, 2**32))
def test_undo_gives_the_document_back(texts, config, seed):
    ids = document(texts)
    scope = query_start(ids, BREAK)
    out = transform(ids, config, seed, scope_start=scope, grid=(2, 3))
    assert np.array_equal(undo_cm3(out, infill_id=INFILL, mask_ids=MASKS), ids)
    assert np.array_equal(out[:scope], ids[:scope])  # the context stays whole


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 6), configs, st.integers(0, 2**32))
def test_form(text, config, seed):
    ids = document([text])
    out = transform(ids, config, seed, grid=(2, 3)).tolist()
    assert out[0] == out[-1] == EOS and out.count(EOS) == 2
    if INFILL not in out:
        assert out == ids.tolist()
        return
    body, tail = out[: out.index(INFILL)], out[out.index(INFILL) + 1 :]
    assert BREAK not in tail and body.count(BREAK) == 1
    spans = sum(mask in body for mask in MASKS)
    assert [i for i in body if i in MASKS] == list(MASKS[:spans])
    assert [i for i in tail if i in MASKS] == list(MASKS[1:spans])
    assert len(out) == len(ids) + 2 * spans


def test_the_papers_example():
    config = CM3Config(mask_probability=1, whole_text_probability=1)
    out = transform([EOS, 10, 11, BREAK, 50, 51, EOS], config)
    assert out.tolist() == [EOS, 3, BREAK, 50, 51, INFILL, 10, 11, EOS]


def test_undo_by_hand():
    masked = [EOS, 10, 3, 12, BREAK, 5, 52, INFILL, 11, 5, 50, 51, EOS]
    plain = [EOS, 10, 11, 12, BREAK, 50, 51, 52, EOS]
    assert undo_cm3(np.array(masked), infill_id=INFILL, mask_ids=MASKS).tolist() == plain


def test_region_is_a_rectangle_of_the_query_picture():
    config = CM3Config(mask_probability=1, whole_text_probability=0, region_probability=1)
    ids = document([2, 3], codes=12)
    start = query_start(ids, BREAK) + 3 + 1
    shapes = set()
    for seed in range(300):
        out = transform(ids, config, seed, scope_start=query_start(ids, BREAK), grid=(4, 3))
        body = out[: out.tolist().index(INFILL)]
        kept = set(body[start:].tolist())
        hole = np.array([code not in kept for code in range(50, 62)]).reshape(4, 3)
        rows, columns = hole.any(1), hole.any(0)
        assert np.array_equal(hole, np.outer(rows, columns)) and hole.any()
        shapes.add((rows.sum(), columns.sum()))
    assert shapes == {(r, c) for r in range(1, 5) for c in range(1, 4)}


def test_random_spans_reach_every_token_and_both_parts():
    config = CM3Config(mask_probability=1, whole_text_probability=0, mean_spans=2)
    ids = document([4])
    moved, counts = set(), set()
    for seed in range(500):
        out = transform(ids, config, seed).tolist()
        tail = out[out.index(INFILL) + 1 : -1]
        moved |= set(tail)
        counts.add(1 + sum(i in MASKS for i in tail))
    assert moved >= {*range(10, 14), *range(50, 56)}
    assert counts == {1, 2, 3, 4}


def test_probabilities():
    config = CM3Config(mask_probability=0.7, whole_text_probability=0.4)
    ids = document([4])
    outs = [transform(ids, config, seed).tolist() for seed in range(2000)]
    masked = [out for out in outs if INFILL in out]
    whole = [out for out in masked if out[:3] == [EOS, 3, BREAK]]
    assert abs(len(masked) / len(outs) - 0.7) < 0.04
    assert 0.36 < len(whole) / len(masked) < 0.5  # random spans hit the whole caption, too


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_fixed_number_of_spans(number):
    config = CM3Config(mask_probability=1, whole_text_probability=0, num_spans=number)
    ids = document([4])
    for seed in range(200):
        out = transform(ids, config, seed).tolist()
        assert 1 + sum(i in MASKS for i in out[out.index(INFILL) + 1 :]) == number


def test_the_number_of_spans_is_poisson_clamped_to_one():
    """CM3's section 2: Poisson(1), at least 1: two spans in e^-1 / 2 of the cases, and so on."""
    config = CM3Config(mask_probability=1, whole_text_probability=0)
    ids = document([64])
    counts = Counter(
        1 + sum(i in MASKS for i in out[out.index(INFILL) + 1 :])
        for out in (transform(ids, config, seed).tolist() for seed in range(3000))
    )
    for number, chance in ((1, 2 / math.e), (2, 1 / (2 * math.e)), (3, 1 / (6 * math.e))):
        assert abs(counts[number] / 3000 - chance) < 0.025


def test_generator_alone_decides():
    config = CM3Config(mask_probability=1)
    assert np.array_equal(transform(document([5]), config, 3), transform(document([5]), config, 3))


def test_no_masks_leaves_the_document():
    ids = document([3])
    assert np.array_equal(transform(ids, CM3Config(mask_probability=1), mask_ids=()), ids)


@pytest.mark.parametrize(
    ("ids", "changes", "message"),
    [
        ([10, 11], {}, "begins and ends with <eos>"),
        ([EOS, 10, INFILL, 11, EOS], {}, "the id 4 at position 2"),
        ([EOS, 10, EOS, 11, EOS], {}, "the id 1 at position 2"),
        ([EOS, 10, BREAK, 50, EOS], {"scope_start": 9}, "scope_start"),
        ([EOS, 10, BREAK, 50, EOS], {"grid": (2, 2)}, r"height \* width = 1"),
        ([EOS, 10, BREAK, 50, EOS], {}, "grid: wanted"),
    ],
)
def test_bad_documents(ids, changes, message):
    config = CM3Config(mask_probability=1, whole_text_probability=0, region_probability=1)
    with pytest.raises(ValueError, match=message):
        transform(ids, config, **changes)


def test_undo_refuses_masks_that_do_not_match():
    with pytest.raises(ValueError, match="mask_ids"):
        undo_cm3(np.array([EOS, 5, BREAK, 50, INFILL, 10, EOS]), infill_id=INFILL, mask_ids=MASKS)
    with pytest.raises(ValueError, match="once"):
        undo_cm3(np.array([EOS, INFILL, INFILL, EOS]), infill_id=INFILL, mask_ids=MASKS)


@pytest.mark.parametrize(
    "values",
    [
        {"mask_probability": 1.1},
        {"mean_spans": 0},
        {"whole_text_probability": 0.6, "region_probability": 0.6},
    ],
)
def test_config_names_the_parameter(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        CM3Config(**values)
