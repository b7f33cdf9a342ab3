import json
from types import SimpleNamespace

import numpy as np
import pytest

from cm3_retrieval import (
    IndexConfig,
    MemoryBank,
    NeighbourTable,
    RetrievalConfig,
    build_neighbour_table,
    drop_query_tokens,
)
from cm3_retrieval.neighbours.draws import DROPOUT_STREAM, generator
from cm3_retrieval.neighbours.table import KINDS


def test_the_table_is_what_the_rules_say(world, bank):
    """Brute force: the order of the whole bank by the query's own score, without the document."""
    config = RetrievalConfig(max_relevance=0.8, duplicate_threshold=0.85, num_candidates=4)
    table = world.make_table(bank, config)
    vectors = bank.vectors_of(world.keys)
    for row in range(world.count):
        rng = generator(5, DROPOUT_STREAM, 0, int(world.keys[row]))
        text = " ".join(drop_query_tokens(world.captions[row].split(), rng, 0.2))
        for kind, query in (
            ("image", world.encoder.encode_images([row])[0]),
            ("text", world.encoder.encode_texts([text])[0]),
        ):
            scores = vectors.dot(query)
            taken: list[int] = []
            for other in sorted(range(world.count), key=lambda i: (-scores[i], world.keys[i])):
                near = any(vectors[other].dot(vectors[t]) > 0.85 for t in taken)
                if other != row and scores[other] <= 0.8 and not near and len(taken) < 4:
                    taken.append(other)
            assert (
                table.candidates(int(world.keys[row]))[kind].tolist() == world.keys[taken].tolist()
            )
            np.testing.assert_allclose(
                table.candidate_scores[kind][row, : len(taken)], scores[taken], atol=1e-6
            )


def test_rows_do_not_depend_on_order_or_company(world, bank):
    whole = world.make_table(bank)
    some = world.make_table(bank, rows=[40, 3, 17])
    for row in (40, 3, 17):
        key = int(world.keys[row])
        for kind in KINDS:
            np.testing.assert_array_equal(whole.candidates(key)[kind], some.candidates(key)[kind])
    assert any(
        (
            world.make_table(bank, seed=6).candidate_keys["text"] != whole.candidate_keys["text"]
        ).ravel()
    )


def test_neither_itself_nor_a_copy_nor_its_group(world, bank):
    copied = np.concatenate([world.keys, 5000 + world.keys])  # every document a second time
    vectors = np.tile(bank.vectors_of(world.keys), (2, 1))
    doubled = MemoryBank.build(copied, vectors, {}, "bag")
    groups = [row % 10 for row in range(world.count)]
    table = world.make_table(doubled, RetrievalConfig(num_candidates=8), groups=groups)
    for row, key in enumerate(world.keys):
        for found in table.candidates(int(key)).values():
            assert len(found)
            assert not {int(key), int(key) + 5000} & set(found.tolist())
            assert all(groups[world.row_of[k]] != row % 10 for k in found.tolist() if k < 5000)


def test_a_part_of_a_larger_set_has_the_rows_of_the_whole(world, bank):
    """Built part by part, with the groups asked by key and the captions encoded before."""
    groups = [row % 10 for row in range(world.count)]
    whole = world.make_table(bank, groups=groups)
    vectors = world.encoder.encode_texts(world.captions)
    encoded = []

    def encode_texts(texts):
        encoded.extend(texts)
        return world.encoder.encode_texts(texts)

    encoder = SimpleNamespace(**{**vars(world.encoder), "encode_texts": encode_texts})
    for rows in (range(25), range(25, world.count)):
        part = build_neighbour_table(
            bank, encoder, world.keys[rows], [world.captions[r] for r in rows],
            world.row_of.__getitem__, world.open, 5, text_vectors=vectors[rows],
            groups=lambda key: world.keys[world.row_of[key] % 10 :: 10].tolist(),
        )  # fmt: skip
        for kind in KINDS:
            np.testing.assert_array_equal(
                part.candidate_keys[kind], whole.candidate_keys[kind][rows]
            )
    # a query that has lost no word is not encoded again
    assert encoded and not set(encoded) & set(world.captions)
    with pytest.raises(ValueError, match="parts: wanted None"):
        world.make_table(bank, groups=lambda key: [], parts="parts")
    with pytest.raises(ValueError, match="text_vectors: wanted 60, one a key, got 3"):
        world.make_table(bank, text_vectors=vectors[:3])


@pytest.mark.parametrize(
    "index", [IndexConfig(factory="Flat"), IndexConfig(factory="IVF2,SQ8", nprobe=2, rescore=0)]
)
def test_documents_of_one_part_and_their_copies(world, index):
    """The bank holds pictures alone; one of them stands there twice."""
    vectors = world.encoder.encode_images([*range(world.count), 7])
    keys = np.append(world.keys, 5007)
    bank = MemoryBank.build(keys, vectors, {}, "bag", index)
    captions = [None if row % 2 else caption for row, caption in enumerate(world.captions)]
    table = build_neighbour_table(
        bank, world.encoder, world.keys, captions, world.row_of.__getitem__, world.open, 5
    )
    for row, key in enumerate(world.keys.tolist()):
        found = table.candidates(key)
        assert len(found["image"]) == 2 and len(found["text"]) == (0 if row % 2 else 2)
        assert key not in found["image"] and key not in found["text"]
    both = table.candidates(int(world.keys[7]))
    assert 5007 not in both["image"] and 5007 not in both["text"]


def test_a_killed_job_goes_on(world, bank, tmp_path, monkeypatch):
    monkeypatch.setattr("cm3_retrieval.neighbours.building._PART", 16)
    monkeypatch.setattr("cm3_retrieval.neighbours.building._BATCH", 8)
    whole, parts, read = world.make_table(bank), tmp_path / "parts", []

    def picture(key):
        read.append(key)
        if len(read) == 40:
            raise KeyboardInterrupt
        return world.row_of[key]

    job = (bank, world.encoder, world.keys, world.captions, picture, world.open, 5)
    with pytest.raises(KeyboardInterrupt):
        build_neighbour_table(*job, parts=parts)
    del read[:]
    table = build_neighbour_table(
        *job[:4], lambda key: read.append(key) or world.row_of[key], *job[5:], parts=parts
    )
    assert read == world.keys[32:].tolist()  # two parts of 16 were done
    for kind in KINDS:
        np.testing.assert_array_equal(table.candidate_keys[kind], whole.candidate_keys[kind])
        np.testing.assert_array_equal(table.candidate_scores[kind], whole.candidate_scores[kind])
    with pytest.raises(ValueError, match="parts: .* is of another job"):
        build_neighbour_table(*job[:-1], 6, parts=parts)


@pytest.mark.parametrize("change", ["vector", "delete", "has_both"])
def test_parts_of_another_state_of_the_bank_are_refused(world, tmp_path, monkeypatch, change):
    """One document changed that a sample of the bank may miss: its row, and others', are stale."""
    monkeypatch.setattr("cm3_retrieval.neighbours.building._PART", 16)
    bank = world.make_bank(has_both=[True] * world.count)
    table = world.make_table(bank, parts=tmp_path)
    again = world.make_table(bank, parts=tmp_path)
    np.testing.assert_array_equal(again.candidate_keys["text"], table.candidate_keys["text"])
    columns = {"has_both": [True] * world.count}
    vectors, keys = bank.vectors_of(bank.keys), bank.keys
    if change == "vector":
        vectors[13] = -vectors[13]
    elif change == "delete":
        vectors, keys, columns = vectors[:-1], keys[:-1], {"has_both": [True] * (world.count - 1)}
    else:
        columns["has_both"][13] = False
    changed = MemoryBank.build(keys, vectors, columns, "bag")
    with pytest.raises(ValueError, match="parts: .* is of another job"):
        world.make_table(changed, parts=tmp_path)
    assert table.facts["bank"] == bank.content_hash() != changed.content_hash()


def test_a_batch_is_as_large_as_the_encoder_takes(world, bank, monkeypatch):
    monkeypatch.setattr("cm3_retrieval.neighbours.building._BATCH", 8)
    sizes: list[int] = []

    def encode_images(images):
        sizes.append(len(images))
        return world.encoder.encode_images(images)

    for batch_size, wanted in ((4, [8] * 7 + [4]), (32, [32, 28])):
        other = {**vars(world.encoder), "encode_images": encode_images, "batch_size": batch_size}
        build_neighbour_table(
            bank, SimpleNamespace(**other), world.keys, world.captions, world.row_of.__getitem__,
            world.open, 5,
        )  # fmt: skip
        assert sizes == wanted
        sizes.clear()


def test_documents_outside_the_bank_have_neighbours_inside(world):
    table = world.make_table(world.make_bank(range(40)), rows=range(40, 60))
    inside = set(world.keys[:40].tolist())
    for key in world.keys[40:]:
        for found in table.candidates(int(key)).values():
            assert len(found) == 2 and set(found.tolist()) <= inside


def test_documents_with_both_parts_come_first(world):
    both = np.arange(world.count) % 4 == 0
    table = world.make_table(world.make_bank(has_both=both.tolist()), rows=range(5))
    for key in world.keys[:5]:
        for found in table.candidates(int(key)).values():
            assert all(both[world.row_of[k]] for k in found.tolist())


def test_too_few_documents_leave_padding(world):
    table = world.make_table(world.make_bank([0, 1]), rows=[0, 1, 2])
    assert [len(table.candidates(int(world.keys[row]))["text"]) for row in range(3)] == [1, 1, 2]
    empty = world.make_table(world.make_bank([]), rows=[0])
    assert not len(empty.candidates(int(world.keys[0]))["image"])


def test_image_vectors_made_before_give_the_same_table(world, bank):
    given = build_neighbour_table(
        bank,
        world.encoder,
        world.keys,
        world.captions,
        world.encoder.encode_images(range(world.count)),
        world.open,
        5,
    )
    for kind in KINDS:
        np.testing.assert_array_equal(
            given.candidate_keys[kind], world.make_table(bank).candidate_keys[kind]
        )


def test_wrong_input(world, bank):
    with pytest.raises(ValueError, match="captions: wanted 60, one a key, got 1"):
        build_neighbour_table(
            bank, world.encoder, world.keys, ["one"], world.encoder.encode_images, world.open, 0
        )
    with pytest.raises(ValueError, match="groups: wanted 60, one a key, got 2"):
        world.make_table(bank, groups=[1, 2])
    with pytest.raises(ValueError, match=r"images: wanted shape \(N, 6\)"):
        build_neighbour_table(
            bank, world.encoder, world.keys, world.captions, np.ones((60, 5)), world.open, 0
        )
    other = SimpleNamespace(**{**vars(world.encoder), "encoder_id": "other"})
    with pytest.raises(ValueError, match="encoder: wanted the bank's, 'bag', got 'other'"):
        build_neighbour_table(
            bank, other, world.keys, world.captions, world.encoder.encode_images, world.open, 0
        )


def test_progress_reaches_the_end(world, bank):
    seen: list[tuple[int, int]] = []
    world.make_table(bank, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (world.count, world.count)


def test_saved_and_loaded(world, bank, tmp_path):
    table = world.make_table(bank, RetrievalConfig())
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
    assert (
        manifest["component"] == "cm3-retrieval/neighbour-table"
        and manifest["count"] == world.count
    )
