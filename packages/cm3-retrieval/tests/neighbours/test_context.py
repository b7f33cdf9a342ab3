import numpy as np
import pytest

from cm3_retrieval import RetrievalConfig, inference_context, training_context


def test_training_context_draws_from_the_union(world, bank):
    table = world.make_table(bank, RetrievalConfig(max_relevance=1.0, num_candidates=3))
    drawn_sets = set()
    for key in world.keys.tolist():
        union = set(np.concatenate(list(table.candidates(key).values())).tolist())
        for epoch in range(3):
            drawn = training_context(table, key, n=3, seed=1, epoch=epoch)
            assert drawn == training_context(table, key, n=3, seed=1, epoch=epoch)
            assert len(set(drawn)) == len(drawn) == min(3, len(union))
            assert set(drawn) <= union - {key}
            drawn_sets.add((key, tuple(drawn)))
        assert set(training_context(table, key, n=99, seed=1, epoch=0)) == union
    assert len(drawn_sets) > 2.5 * world.count  # epochs differ
    with pytest.raises(KeyError, match="key 4444 is not in the neighbour table of 60"):
        training_context(table, 4444, n=1, seed=0, epoch=0)


def test_without_neighbours_there_is_no_context(world):
    empty = world.make_table(world.make_bank([]), rows=[0])
    assert training_context(empty, int(world.keys[0]), n=3, seed=0, epoch=0) == []


def test_inference_takes_turns(world, bank):
    queries = {
        "text": world.encoder.encode_texts([world.captions[3]])[0],
        "image": world.encoder.encode_images([8])[0],
    }
    by_image = bank.search(queries["image"][None], world.count)[1][0].tolist()
    by_text = bank.search(queries["text"][None], world.count)[1][0].tolist()
    expected: list[int] = []
    while len(expected) < 6:
        ranking = by_text if len(expected) % 2 else by_image
        expected.append(next(key for key in ranking if key not in expected))
    assert inference_context(bank, queries, world.open, 6) == expected
    assert inference_context(bank, queries, world.open) == expected[:2]  # num_context
    assert inference_context(bank, {"text": queries["text"]}, world.open, 3) == by_text[:3]
    left = inference_context(bank, queries, world.open, 4, exclude=expected[:2])
    assert not set(left) & set(expected[:2])


def test_inference_is_diverse_and_bounded(world, bank):
    queries = {
        "text": world.encoder.encode_texts([world.captions[3]])[0],
        "image": world.encoder.encode_images([3])[0],
    }
    config = RetrievalConfig(max_relevance=0.7, duplicate_threshold=0.5)
    picks = inference_context(bank, queries, config, 50)
    vectors = bank.vectors_of(picks)
    similar = vectors.dot(vectors.T)
    assert 2 < len(picks) < 50
    assert similar[~np.eye(len(picks), dtype=bool)].max() <= 0.5
    assert inference_context(bank, queries, config, 0) == []
    assert inference_context(world.make_bank([]), queries, config, 2) == []
    assert inference_context(bank, {}, config, 2) == []


def test_wrong_queries(world, bank):
    with pytest.raises(ValueError, match=r"wanted kinds out of \('image', 'text'\), got \['sound"):
        inference_context(bank, {"sound": np.ones(world.dim)}, world.open, 1)
    with pytest.raises(ValueError, match=r"query_vectors\['text'\]: wanted finite"):
        inference_context(bank, {"text": np.full(world.dim, np.nan)}, world.open, 1)


@pytest.mark.parametrize("exclude", [[1.9], [True, False], ["3"], np.array([True])])
def test_excluded_keys_are_integers(world, bank, exclude):
    query = {"text": world.encoder.encode_texts(["w1"])[0]}
    with pytest.raises(ValueError, match="exclude: wanted N integers"):
        inference_context(bank, query, world.open, exclude=exclude)
    with pytest.raises(ValueError, match="n: wanted an integer"):
        inference_context(bank, query, world.open, n=1.5)


@pytest.mark.parametrize("key", [1.0, True, "3", None])
def test_the_tables_keys_are_integers(world, bank, key):
    table = world.make_table(bank, rows=range(3))
    with pytest.raises(ValueError, match="key: wanted an integer"):
        table.candidates(key)
    with pytest.raises(ValueError, match="groups: wanted N integers"):
        world.make_table(bank, rows=range(2), groups=[key, key])
