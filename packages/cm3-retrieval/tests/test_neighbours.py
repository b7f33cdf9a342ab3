import json
from types import SimpleNamespace

import numpy as np
import pytest

from cm3_retrieval import (
    IndexConfig,
    MemoryBank,
    RetrievalConfig,
    document_vectors,
    drop_query_tokens,
)
from cm3_retrieval.neighbours import (
    KINDS,
    NeighbourTable,
    _generator,
    build_neighbour_table,
    inference_context,
    training_context,
)

COUNT, DIM = 60, 6
KEYS = np.random.default_rng(9).permutation(1000)[:COUNT]
CAPTIONS = [f"w{row} w{row % 7} common words here w{row % 3} more" for row in range(COUNT)]
OPEN = RetrievalConfig(max_relevance=1.0, duplicate_threshold=1.0)


def word_vector(word: str) -> np.ndarray:
    return np.random.default_rng(list(word.encode())).standard_normal(DIM)


def unit(rows: list[np.ndarray]) -> np.ndarray:
    array = np.array(rows).reshape(-1, DIM)
    return (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)


def encode_texts(texts):
    return unit([sum(map(word_vector, text.split())) for text in texts])


def encode_images(images):  # here a picture is its row number
    return unit([word_vector(f"picture {row}") for row in images])


ENCODER = SimpleNamespace(
    dim=DIM, encoder_id="bag", encode_texts=encode_texts, encode_images=encode_images
)
ROW_OF = {int(key): row for row, key in enumerate(KEYS)}


def make_bank(rows=range(COUNT), **columns) -> MemoryBank:
    rows = list(rows)
    vectors = document_vectors(encode_texts([CAPTIONS[r] for r in rows]), encode_images(rows))
    return MemoryBank.build(KEYS[rows], vectors, columns, "bag")


@pytest.fixture(scope="module")
def bank():
    return make_bank()


def make_table(bank, config=OPEN, seed=5, rows=range(COUNT), **knobs) -> NeighbourTable:
    rows = list(rows)
    return build_neighbour_table(
        bank, ENCODER, KEYS[rows], [CAPTIONS[r] for r in rows], ROW_OF.__getitem__, config, seed,
        **knobs,
    )  # fmt: skip


def test_the_table_is_what_the_rules_say(bank):
    """Brute force: the order of the whole bank by the query's own score, without the document."""
    config = RetrievalConfig(max_relevance=0.8, duplicate_threshold=0.85, num_candidates=4)
    table = make_table(bank, config)
    vectors = bank.vectors_of(KEYS)
    for row in range(COUNT):
        rng = _generator(5, 1, 0, int(KEYS[row]))
        text = " ".join(drop_query_tokens(CAPTIONS[row].split(), rng, 0.2))
        for kind, query in (("image", encode_images([row])[0]), ("text", encode_texts([text])[0])):
            scores = vectors.dot(query)
            taken: list[int] = []
            for other in sorted(range(COUNT), key=lambda i: (-scores[i], KEYS[i])):
                near = any(vectors[other].dot(vectors[t]) > 0.85 for t in taken)
                if other != row and scores[other] <= 0.8 and not near and len(taken) < 4:
                    taken.append(other)
            assert table.candidates(int(KEYS[row]))[kind].tolist() == KEYS[taken].tolist()
            np.testing.assert_allclose(
                table.candidate_scores[kind][row, : len(taken)], scores[taken], atol=1e-6
            )


def test_rows_do_not_depend_on_order_or_company(bank):
    whole = make_table(bank)
    some = make_table(bank, rows=[40, 3, 17])
    for row in (40, 3, 17):
        key = int(KEYS[row])
        for kind in KINDS:
            np.testing.assert_array_equal(whole.candidates(key)[kind], some.candidates(key)[kind])
    assert any(
        (make_table(bank, seed=6).candidate_keys["text"] != whole.candidate_keys["text"]).ravel()
    )


def test_neither_itself_nor_a_copy_nor_its_group(bank):
    copied = np.concatenate([KEYS, 5000 + KEYS])  # every document a second time
    vectors = np.tile(bank.vectors_of(KEYS), (2, 1))
    doubled = MemoryBank.build(copied, vectors, {}, "bag")
    groups = [row % 10 for row in range(COUNT)]
    table = make_table(doubled, RetrievalConfig(num_candidates=8), groups=groups)
    for row, key in enumerate(KEYS):
        for found in table.candidates(int(key)).values():
            assert len(found)
            assert not {int(key), int(key) + 5000} & set(found.tolist())
            assert all(groups[ROW_OF[k]] != row % 10 for k in found.tolist() if k < 5000)


@pytest.mark.parametrize(
    "index", [IndexConfig(factory="Flat"), IndexConfig(factory="IVF2,SQ8", nprobe=2, rescore=0)]
)
def test_documents_of_one_part_and_their_copies(index):
    """The bank holds pictures alone; one of them stands there twice."""
    vectors = encode_images([*range(COUNT), 7])
    keys = np.append(KEYS, 5007)
    bank = MemoryBank.build(keys, vectors, {}, "bag", index)
    captions = [None if row % 2 else caption for row, caption in enumerate(CAPTIONS)]
    table = build_neighbour_table(bank, ENCODER, KEYS, captions, ROW_OF.__getitem__, OPEN, 5)
    for row, key in enumerate(KEYS.tolist()):
        found = table.candidates(key)
        assert len(found["image"]) == 2 and len(found["text"]) == (0 if row % 2 else 2)
        assert key not in found["image"] and key not in found["text"]
    both = table.candidates(int(KEYS[7]))
    assert 5007 not in both["image"] and 5007 not in both["text"]


def test_a_killed_job_goes_on(bank, tmp_path, monkeypatch):
    monkeypatch.setattr("cm3_retrieval.neighbours._PART", 16)
    monkeypatch.setattr("cm3_retrieval.neighbours._BATCH", 8)
    whole, parts, read = make_table(bank), tmp_path / "parts", []

    def picture(key):
        read.append(key)
        if len(read) == 40:
            raise KeyboardInterrupt
        return ROW_OF[key]

    job = (bank, ENCODER, KEYS, CAPTIONS, picture, OPEN, 5)
    with pytest.raises(KeyboardInterrupt):
        build_neighbour_table(*job, parts=parts)
    del read[:]
    table = build_neighbour_table(
        *job[:4], lambda key: read.append(key) or ROW_OF[key], *job[5:], parts=parts
    )
    assert read == KEYS[32:].tolist()  # two parts of 16 were done
    for kind in KINDS:
        np.testing.assert_array_equal(table.candidate_keys[kind], whole.candidate_keys[kind])
        np.testing.assert_array_equal(table.candidate_scores[kind], whole.candidate_scores[kind])
    with pytest.raises(ValueError, match="parts: .* is of another job"):
        build_neighbour_table(*job[:-1], 6, parts=parts)


def test_documents_outside_the_bank_have_neighbours_inside():
    table = make_table(make_bank(range(40)), rows=range(40, 60))
    inside = set(KEYS[:40].tolist())
    for key in KEYS[40:]:
        for found in table.candidates(int(key)).values():
            assert len(found) == 2 and set(found.tolist()) <= inside


def test_a_narrow_pool_is_widened():
    """All but the farthest documents are excluded, so the first pool holds none that passes."""
    bank = make_bank()
    narrow = RetrievalConfig(max_relevance=0.0, duplicate_threshold=1.0, pool_size=4)
    wide = RetrievalConfig(max_relevance=0.0, duplicate_threshold=1.0, pool_size=COUNT)
    a, b = make_table(bank, narrow), make_table(bank, wide)
    for kind in KINDS:
        assert (b.candidate_keys[kind] >= 0).any()
        np.testing.assert_array_equal(a.candidate_keys[kind], b.candidate_keys[kind])


def test_documents_with_both_parts_come_first():
    both = np.arange(COUNT) % 4 == 0
    table = make_table(make_bank(has_both=both.tolist()), rows=range(5))
    for key in KEYS[:5]:
        for found in table.candidates(int(key)).values():
            assert all(both[ROW_OF[k]] for k in found.tolist())


def test_too_few_documents_leave_padding():
    table = make_table(make_bank([0, 1]), rows=[0, 1, 2])
    assert [len(table.candidates(int(KEYS[row]))["text"]) for row in range(3)] == [1, 1, 2]
    empty = make_table(make_bank([]), rows=[0])
    assert not len(empty.candidates(int(KEYS[0]))["image"])
    assert training_context(empty, int(KEYS[0]), n=3, seed=0, epoch=0) == []


def test_image_vectors_made_before_give_the_same_table(bank):
    given = build_neighbour_table(
        bank, ENCODER, KEYS, CAPTIONS, encode_images(range(COUNT)), OPEN, 5
    )
    for kind in KINDS:
        np.testing.assert_array_equal(
            given.candidate_keys[kind], make_table(bank).candidate_keys[kind]
        )


def test_saved_and_loaded(bank, tmp_path):
    table = make_table(bank, RetrievalConfig())
    table.save(tmp_path)
    loaded = NeighbourTable.load(tmp_path)
    np.testing.assert_array_equal(loaded.keys, table.keys)
    for kind in KINDS:
        np.testing.assert_array_equal(loaded.candidate_keys[kind], table.candidate_keys[kind])
        np.testing.assert_array_equal(loaded.candidate_scores[kind], table.candidate_scores[kind])
    assert loaded.facts == table.facts and loaded.facts["config"]["max_relevance"] == 0.9
    again = tmp_path / "again"
    loaded.save(again)
    assert sorted(p.name for p in again.iterdir()) == sorted(
        p.name for p in tmp_path.iterdir() if p.is_file()
    )
    data = next(tmp_path.glob("neighbours-*.arrow"))
    changed = bytearray(data.read_bytes())
    changed[len(changed) // 2] ^= 1
    data.write_bytes(changed)
    with pytest.raises(ValueError, match="neighbours-"):
        NeighbourTable.load(tmp_path)
    manifest = json.loads((again / "manifest.json").read_text())
    assert manifest["component"] == "cm3-retrieval/neighbour-table" and manifest["count"] == COUNT


def test_training_context_draws_from_the_union(bank):
    table = make_table(bank, RetrievalConfig(max_relevance=1.0, num_candidates=3))
    drawn_sets = set()
    for key in KEYS.tolist():
        union = set(np.concatenate(list(table.candidates(key).values())).tolist())
        for epoch in range(3):
            drawn = training_context(table, key, n=3, seed=1, epoch=epoch)
            assert drawn == training_context(table, key, n=3, seed=1, epoch=epoch)
            assert len(set(drawn)) == len(drawn) == min(3, len(union))
            assert set(drawn) <= union - {key}
            drawn_sets.add((key, tuple(drawn)))
        assert set(training_context(table, key, n=99, seed=1, epoch=0)) == union
    assert len(drawn_sets) > 2.5 * COUNT  # epochs differ
    with pytest.raises(KeyError, match="key 4444 is not in the neighbour table of 60"):
        training_context(table, 4444, n=1, seed=0, epoch=0)


def test_inference_takes_turns(bank):
    queries = {"text": encode_texts([CAPTIONS[3]])[0], "image": encode_images([8])[0]}
    by_image = bank.search(queries["image"][None], COUNT)[1][0].tolist()
    by_text = bank.search(queries["text"][None], COUNT)[1][0].tolist()
    expected: list[int] = []
    while len(expected) < 6:
        ranking = by_text if len(expected) % 2 else by_image
        expected.append(next(key for key in ranking if key not in expected))
    assert inference_context(bank, queries, OPEN, 6) == expected
    assert inference_context(bank, queries, OPEN) == expected[:2]  # num_context
    assert inference_context(bank, {"text": queries["text"]}, OPEN, 3) == by_text[:3]
    left = inference_context(bank, queries, OPEN, 4, exclude=expected[:2])
    assert not set(left) & set(expected[:2])


def test_inference_is_diverse_and_bounded(bank):
    queries = {"text": encode_texts([CAPTIONS[3]])[0], "image": encode_images([3])[0]}
    config = RetrievalConfig(max_relevance=0.7, duplicate_threshold=0.5)
    picks = inference_context(bank, queries, config, 50)
    vectors = bank.vectors_of(picks)
    similar = vectors.dot(vectors.T)
    assert 2 < len(picks) < 50
    assert similar[~np.eye(len(picks), dtype=bool)].max() <= 0.5
    assert inference_context(bank, queries, config, 0) == []
    assert inference_context(make_bank([]), queries, config, 2) == []
    assert inference_context(bank, {}, config, 2) == []


def test_wrong_input(bank):
    with pytest.raises(ValueError, match="captions: wanted 60, one a key, got 1"):
        build_neighbour_table(bank, ENCODER, KEYS, ["one"], encode_images, OPEN, 0)
    with pytest.raises(ValueError, match="groups: wanted 60, one a key, got 2"):
        make_table(bank, groups=[1, 2])
    with pytest.raises(ValueError, match=r"images: wanted shape \(N, 6\)"):
        build_neighbour_table(bank, ENCODER, KEYS, CAPTIONS, np.ones((60, 5)), OPEN, 0)
    other = SimpleNamespace(**{**vars(ENCODER), "encoder_id": "other"})
    with pytest.raises(ValueError, match="encoder: wanted the bank's, 'bag', got 'other'"):
        build_neighbour_table(bank, other, KEYS, CAPTIONS, encode_images, OPEN, 0)
    with pytest.raises(ValueError, match=r"wanted kinds out of \('image', 'text'\), got \['sound"):
        inference_context(bank, {"sound": np.ones(DIM)}, OPEN, 1)
    with pytest.raises(ValueError, match=r"query_vectors\['text'\]: wanted finite"):
        inference_context(bank, {"text": np.full(DIM, np.nan)}, OPEN, 1)


def test_progress_reaches_the_end(bank):
    seen: list[tuple[int, int]] = []
    make_table(bank, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (COUNT, COUNT)
