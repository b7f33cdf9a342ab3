import numpy as np
import pytest
from hypothesis import given, strategies as st

from cm3_retrieval.neighbours.strategy import (
    RetrievalConfig,
    drop_query_tokens,
    query_words,
    select,
)


def reference(query, vectors, scores, keys, exclude, has_both, n, config):
    """The rules read aloud, one candidate at a time."""
    order = sorted(range(len(keys)), key=lambda i: (not has_both[i], -scores[i], keys[i]))
    taken = []
    for i in order:
        if len(taken) == n:
            break
        if keys[i] in exclude or float(np.dot(vectors[i], query)) > config.max_relevance:
            continue
        if any(float(np.dot(vectors[i], vectors[j])) > config.duplicate_threshold for j in taken):
            continue
        taken.append(i)
    return taken


def test_agrees_with_the_reference_on_1000_random_cases():
    rng = np.random.default_rng(0)
    lengths = set()
    for _ in range(1000):
        count, dim = int(rng.integers(0, 40)), int(rng.integers(2, 6))
        vectors = rng.standard_normal((count, dim))
        copies = rng.integers(0, max(count, 1), count // 3)  # near and exact duplicates
        noise = rng.choice([0, 0.1], (len(copies), 1)) * rng.standard_normal((len(copies), dim))
        vectors[: len(copies)] = vectors[copies] + noise
        query = rng.standard_normal(dim)
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        query = (query / np.linalg.norm(query)).astype(np.float32)
        scores = vectors.dot(query)
        if rng.random() < 0.3:
            scores = scores.round(1)  # ties
        keys = rng.permutation(100)[:count]
        exclude = set(rng.integers(0, 100, 10).tolist())
        has_both = rng.random(count) < rng.choice([0, 0.5, 1])
        config = RetrievalConfig(
            max_relevance=float(rng.uniform(-0.2, 0.99)),
            duplicate_threshold=float(rng.uniform(-0.2, 0.99)),
        )
        case = (query, vectors, scores, keys, exclude, has_both, int(rng.integers(0, 8)), config)
        taken = select(*case)
        assert taken.tolist() == reference(*case)
        lengths.add(len(taken))
    assert lengths == set(range(8))


def test_paper_criteria_one_by_one():
    query = np.array([1.0, 0, 0])
    angle = np.deg2rad([10, 40, 42, 70, 99])
    vectors = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    keys, everything = np.arange(5), np.ones(5, bool)

    def take(has_both=everything, exclude=(), n=5, **knobs):
        config = RetrievalConfig(**knobs)
        return select(
            query, vectors, vectors.dot(query), keys, exclude, has_both, n, config
        ).tolist()

    open_knobs = {"max_relevance": 1.0, "duplicate_threshold": 1.0}
    assert take(**open_knobs) == [0, 1, 2, 3, 4]
    assert take(max_relevance=0.9, duplicate_threshold=1.0) == [1, 2, 3, 4]  # cos 10 = 0.98
    assert take(max_relevance=1.0, duplicate_threshold=0.99) == [0, 1, 3, 4]  # cos 2 = 0.999
    assert take() == [1, 3, 4]  # both at 0.9
    assert take(has_both=keys == 4, **open_knobs) == [4, 0, 1, 2, 3]
    assert take(exclude=[1], **open_knobs) == [0, 2, 3, 4]
    assert take(n=0) == []


@given(st.lists(st.integers(), max_size=30), st.integers(0, 2**32), st.floats(0, 0.99))
def test_dropout_keeps_order_and_at_least_one(tokens, seed, share):
    left = drop_query_tokens(tokens, np.random.default_rng(seed), share)
    rest = iter(tokens)
    assert all(token in rest for token in left)  # a subsequence
    assert bool(left) == bool(tokens)
    assert left == drop_query_tokens(tokens, np.random.default_rng(seed), share)


def test_dropout_drops_the_share():
    rng = np.random.default_rng(0)
    left = sum(len(drop_query_tokens(range(50), rng, 0.2)) for _ in range(400))
    assert 0.79 < left / 20_000 < 0.81
    assert drop_query_tokens("as it is".split(), rng, 0.0) == ["as", "it", "is"]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"max_relevance": 1.1}, "max_relevance: wanted -1 to 1, got 1.1"),
        ({"duplicate_threshold": float("nan")}, "duplicate_threshold: wanted"),
        ({"query_dropout": 1.0}, "query_dropout: wanted 0 <= share < 1, got 1.0"),
        ({"num_candidates": 0}, "num_candidates: wanted at least 1, got 0"),
        ({"num_context": -1}, "num_context: wanted at least 0, got -1"),
        ({"pool_size": 0}, "pool_size"),
    ],
)
def test_wrong_knobs(knobs, message):
    with pytest.raises(ValueError, match=message):
        RetrievalConfig(**knobs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a red  apple\n", ["a", " red", " apple"]),
        ("红苹果", ["红", "苹", "果"]),
        ("赤いりんご", ["赤", "い", "り", "ん", "ご"]),
        ("ガラス", ["ガ", "ラ", "ス"]),
        ("แอปเปิล", ["แ", "อ", "ป", "เ", "ปิ", "ล"]),  # a vowel sign stays with its consonant
        ("red 红苹果", ["red", " 红", "苹", "果"]),
        ("iPhone手机壳, new", ["iPhone", "手", "机", "壳", ",", " new"]),
        ("빨간 사과", ["빨간", " 사과"]),
        ("🍎 été", ["🍎", " été"]),
        ("", []),
        ("  ", []),
    ],
)
def test_words_of_every_script(text, words):
    assert query_words(text) == words
    assert "".join(words) == " ".join(text.split())


@pytest.mark.parametrize("text", ["红色的大苹果在桌子上", "テーブルの上のりんご", "แอปเปิลแดงบนโต๊ะ"])
def test_dropout_reaches_scripts_without_spaces(text):
    words, rng = query_words(text), np.random.default_rng(0)
    kept = [len(drop_query_tokens(words, rng, 0.2)) / len(words) for _ in range(2000)]
    assert np.mean(kept) == pytest.approx(0.8, abs=0.02)
