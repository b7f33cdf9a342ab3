import numpy as np
import pytest

from cm3_train import CM3Config, SequenceBuilder, TokenShards, query_start, undo_cm3, write_shards


@pytest.fixture
def shards(tiny, tmp_path):
    write_shards(
        tiny.rows(10, views=2), tmp_path, codes_per_image=tiny.num_codes, vocabulary_sha256="v"
    )
    return TokenShards(tmp_path)


def build(tiny, shards, **changes):
    options = {
        "layout": tiny.lay_out,
        "retrieve": lambda key, epoch: [100, 107, 114],
        "cm3": CM3Config(mask_probability=1, region_probability=0.3),
        "max_length": 200,
        "seed": 0,
        "grid": tiny.grid,
        **tiny.ids,
        **changes,
    }
    return SequenceBuilder(shards, **options)


def test_plain_pair_is_the_layout_of_a_view(tiny, shards):
    builder = build(tiny, shards, retrieve=None, cm3=None)
    for key in shards.keys:
        wanted = [
            tiny.lay_out([(shards.text_ids(key, v), shards.codes(key, v))]).tolist() for v in (0, 1)
        ]
        drawn = [builder(key, epoch).ids.tolist() for epoch in range(20)]
        assert all(ids in wanted for ids in drawn)
        assert all(ids in drawn for ids in wanted)  # every view comes


def test_retrieved_pairs_stand_first_and_whole(tiny, shards):
    builder = build(tiny, shards)
    ids = builder(135, 3).ids
    plain = undo_cm3(ids, infill_id=tiny.infill_id, mask_ids=tiny.mask_ids)
    assert len(plain) < len(ids)
    assert (plain == tiny.break_id).sum() == 7  # four pairs
    start = query_start(plain, tiny.break_id)
    assert np.array_equal(ids[:start], plain[:start])
    text = shards.text_ids(135)
    assert np.array_equal(plain[start : start + len(text)], text)


def test_every_token_counts_or_the_query_alone(tiny, shards):
    for cm3 in (None, CM3Config(mask_probability=1)):
        assert build(tiny, shards, cm3=cm3)(135, 3).scored_from == 1
        ids, scored_from, _ = build(tiny, shards, cm3=cm3, query_only=True)(135, 3)
        text = shards.text_ids(135)
        assert ids[scored_from - 1] == tiny.break_id
        assert scored_from == len(
            tiny.lay_out([(shards.text_ids(k), shards.codes(k)) for k in (100, 107, 114)])
        )
        if cm3 is None:
            assert np.array_equal(ids[scored_from : scored_from + len(text)], text)
    assert build(tiny, shards, retrieve=None, query_only=True)(135, 3).scored_from == 1


def test_function_of_seed_epoch_and_key_alone(tiny, shards):
    one, two = build(tiny, shards), build(tiny, shards)
    for key in (100, 135):
        two(key, 9)  # earlier calls leave no trace
        assert np.array_equal(one(key, 1).ids, two(key, 1).ids)
    assert len({tuple(one(135, epoch).ids) for epoch in range(10)}) > 5
    assert not np.array_equal(one(135, 1).ids, build(tiny, shards, seed=1)(135, 1).ids)
    assert len(build(tiny, shards, retrieve=None)(np.int64(135), 0).ids) > 0


def test_retrieved_pairs_give_way_first(tiny, shards):
    for max_length in range(20, 120, 7):
        builder = build(tiny, shards, max_length=max_length)
        for epoch in range(10):
            assert len(builder(100, epoch).ids) <= max_length
    pair = len(build(tiny, shards, retrieve=None, cm3=None)(100, 0).ids)
    tight = build(tiny, shards, max_length=pair)
    assert len(tight(100, 0).ids) == pair  # no room for a mask: the plain pair
    with pytest.raises(ValueError, match=f"key 100: wanted at most max_length = {pair - 1}"):
        build(tiny, shards, max_length=pair - 1)(100, 0)


def test_a_sequence_has_one_view_and_plain_ones_as_often_as_asked(tiny):
    class Views:
        """Text and codes that say whose they are: ids 8 + view, codes all equal to the view."""

        def num_views(self, key):
            return 1 if key == 9 else 4

        def text_ids(self, key, view=0):
            return np.array([8 + view])

        def codes(self, key, view=0):
            return np.full(tiny.num_codes, view)

    builder = build(
        tiny, Views(), cm3=None, retrieve=lambda key, epoch: [2, 9], max_length=500, plain_share=0.7
    )
    views = []
    for epoch in range(300):
        texts = [int(i) - 8 for i in builder(1, epoch).ids if 8 <= i < 12]
        assert len(texts) == 3 and texts[0] == texts[2]  # the query and what has its view
        assert texts[1] == 0  # key 9 has only the plain one
        views.append(texts[2])
    assert set(views) == {0, 1, 2, 3}
    assert 0.6 < np.mean(np.array(views) == 0) < 0.8


def test_negative_keys_have_their_own_generator(tiny, shards):
    class Negative:
        def num_views(self, key):
            return 1

        def text_ids(self, key, view=0):
            return np.arange(8, 14)

        def codes(self, key, view=0):
            return np.arange(tiny.num_codes)

    builder = build(tiny, Negative(), retrieve=None)
    assert len({tuple(builder(key, 0).ids) for key in (-1, -2, -3, 1, 2, 3)}) > 3


def test_retrieved_documents_may_count_less(tiny, shards):
    """RA-CM3's weight falls on the ids before the query pair, on those alone."""
    for epoch in range(20):
        usual = build(tiny, shards)(135, epoch)
        sample = build(
            tiny,
            shards,
            cm3=CM3Config(mask_probability=1, region_probability=0.3, retrieved_weight=0.1),
        )(135, epoch)
        assert usual.weights is None
        assert np.array_equal(sample.ids, usual.ids)  # nothing else is drawn
        plain = undo_cm3(sample.ids, infill_id=tiny.infill_id, mask_ids=tiny.mask_ids)
        start = query_start(plain, tiny.break_id)
        assert start > 1
        assert np.allclose(sample.weights[:start], 0.1) and (sample.weights[start:] == 1).all()
    alone = build(tiny, shards, retrieve=None, cm3=CM3Config(retrieved_weight=0.1))(135, 0)
    assert alone.weights is None


def test_masks_of_cut_spans_may_be_left_out(tiny, shards):
    cm3 = CM3Config(mask_probability=0.8, region_probability=0.5, score_masks=False)
    cut = 0
    for epoch in range(40):
        sample = build(tiny, shards, cm3=cm3)(135, epoch)
        ids, masks = sample.ids, np.isin(sample.ids, tiny.mask_ids)
        behind = np.cumsum(ids == tiny.infill_id) > 0
        assert np.array_equal(sample.weights == 0, masks & ~behind)
        cut += int((masks & behind).sum())
    assert cut > 10  # there were masks behind <infill>, which count
