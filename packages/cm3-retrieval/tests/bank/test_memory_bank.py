import faiss
import numpy as np
import pyarrow as pa
import pytest

from cm3_retrieval import IndexConfig, MemoryBank

KEYS = np.array([70, 2, 5, 2**50])


@pytest.fixture
def bank(unit_vectors):
    metadata = {"caption": ["a", "b", "c", "d"], "weight": [1.5, None, 2.5, 3.5]}
    return MemoryBank.build(KEYS, unit_vectors(4, 8), metadata, "enc:1")


def test_rows_follow_the_keys_asked_for(bank, unit_vectors):
    assert len(bank) == 4 and bank.dim == 8
    np.testing.assert_array_equal(bank.keys, KEYS)
    np.testing.assert_array_equal(bank.vectors_of([5, 70, 5]), unit_vectors(4, 8)[[2, 0, 2]])
    assert bank.metadata_of([2**50, 2]) == [
        {"key": 2**50, "caption": "d", "weight": 3.5},
        {"key": 2, "caption": "b", "weight": None},
    ]
    assert bank.metadata_of([]) == [] and bank.vectors_of([]).shape == (0, 8)
    for key in (3, 2**62, -1):
        with pytest.raises(KeyError, match=f"key {key} is not in the bank of 4"):
            bank.vectors_of([2, key])
        with pytest.raises(KeyError, match=f"key {key} is not in the bank of 4"):
            bank.metadata_of([key])


def test_each_vector_finds_its_own_key(bank):
    scores, keys = bank.search(bank.vectors_of(KEYS), 4)
    np.testing.assert_array_equal(keys[:, 0], KEYS)
    np.testing.assert_allclose(scores[:, 0], 1, atol=1e-6)


def test_saved_and_loaded_it_answers_alike(bank, tmp_path, unit_vectors):
    bank.save(tmp_path)
    loaded = MemoryBank.load(tmp_path, "enc:1")
    queries = unit_vectors(30, 8, seed=3)
    for ours, theirs in zip(bank.search(queries, 3), loaded.search(queries, 3), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.metadata_of(KEYS) == bank.metadata_of(KEYS)
    assert loaded.encoder_id == "enc:1"


def test_plain_faiss_and_arrow_read_the_files(bank, tmp_path, unit_vectors):
    bank.save(tmp_path)
    index = faiss.read_index(str(next(tmp_path.glob("index-*.faiss"))))
    np.testing.assert_array_equal(index.reconstruct(5), unit_vectors(4, 8)[2])
    table = pa.ipc.open_file(str(next(tmp_path.glob("metadata-*.arrow")))).read_all()
    assert table.schema.field("key").type == pa.int64()
    assert table.column("caption").to_pylist() == ["a", "b", "c", "d"]


def test_a_flipped_byte_is_caught(bank, tmp_path):
    bank.save(tmp_path)
    rng = np.random.default_rng(0)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for place in rng.integers(0, len(whole), 70):
            changed = bytearray(whole)
            changed[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            with pytest.raises((ValueError, FileNotFoundError), match=str(tmp_path)):
                MemoryBank.load(tmp_path)
        path.write_bytes(whole)
    MemoryBank.load(tmp_path)


def test_a_bank_of_another_encoder_is_refused(bank, tmp_path):
    bank.save(tmp_path)
    with pytest.raises(ValueError, match="wanted a bank of encoder 'enc:2', got one of 'enc:1'"):
        MemoryBank.load(tmp_path, "enc:2")


def test_wrong_input(unit_vectors):
    vectors, keys = unit_vectors(3, 4), np.arange(3)
    with pytest.raises(ValueError, match="vectors: wanted rows of length 1, got 2.0000 in 1"):
        MemoryBank.build(keys, vectors * np.array([[1], [2], [1]]), {}, "e")
    with pytest.raises(ValueError, match="metadata: wanted 3 of 'caption', got 2"):
        MemoryBank.build(keys, vectors, {"caption": ["a", "b"]}, "e")
    with pytest.raises(ValueError, match="'key', it is taken"):
        MemoryBank.build(keys, vectors, {"key": [1, 2, 3]}, "e")
    with pytest.raises(ValueError, match="NaN or infinity in row 0"):
        MemoryBank.build(keys, vectors * np.nan, {}, "e")


def test_an_empty_bank_can_be_saved(tmp_path):
    MemoryBank.build(np.empty(0, np.int64), np.empty((0, 4)), {"caption": []}, "e").save(tmp_path)
    bank = MemoryBank.load(tmp_path)
    assert len(bank) == 0 and bank.metadata_of([]) == []
    with pytest.raises(ValueError, match="empty index"):
        bank.search(np.ones((1, 4)), 1)
    with pytest.raises(KeyError, match="bank of 0"):
        bank.vectors_of([1])


def test_has_both(unit_vectors):
    vectors, keys = unit_vectors(3, 4), np.array([4, 9, 1])
    assert MemoryBank.build(keys, vectors, {}, "e").has_both([1, 4]).all()
    bank = MemoryBank.build(keys, vectors, {"has_both": [True, False, True]}, "e")
    np.testing.assert_array_equal(bank.has_both([9, 1]), [False, True])


@pytest.mark.parametrize(
    "keys",
    [
        np.array([True, True, False, False]),
        [True, False],
        [70, True],
        [1.9],
        np.array([70.0]),
        ["2"],
        [None],
        [2**64],
        np.array([2**63], np.uint64),
    ],
)
def test_what_only_looks_like_keys_is_refused(bank, keys):
    """A mask would be keys 0 and 1, 1.9 key 1, '3' key 3."""
    for use in (bank.delete, bank.vectors_of, bank.metadata_of, bank.has_both):
        with pytest.raises(ValueError, match="keys: wanted "):
            use(keys)
    columns = {"caption": ["x"] * len(keys), "weight": [1.0] * len(keys)}
    with pytest.raises(ValueError, match="keys: wanted "):
        bank.append(keys, np.eye(8)[: len(keys)], columns, "enc:1")
    assert len(bank) == 4


def test_a_mask_selects_keys_by_hand(bank):
    bank.delete(bank.keys[np.array([True, False, True, False])])
    assert bank.keys.tolist() == [2, 2**50]
    bank.delete([])
    bank.delete(np.array([2], np.uint8))
    assert bank.keys.tolist() == [2**50]


@pytest.mark.parametrize("kind", ["Flat", "IVF2,SQ8", "HNSW8", "PQ4x4fs"])
@pytest.mark.parametrize("number", [1e300, 3e38, -1e20, 1e16, np.inf, np.nan])
def test_numbers_whose_products_leave_float32_are_refused(unit_vectors, kind, number):
    vectors = unit_vectors(300, 8)
    bank = MemoryBank.build(np.arange(300), vectors, {}, "e", IndexConfig(factory=kind))
    queries = np.full((3, 8), 0.1)
    queries[1, 4] = number
    with pytest.raises(ValueError, match="queries: wanted .* in row 1"):
        bank.search(queries, 2)
    queries[1, 4] = 1e15
    scores, keys = bank.search(queries, 2)
    assert np.isfinite(scores).all() and (keys >= 0).all()


@pytest.mark.parametrize("k", [2.5, True, "2", None, 2.0])
def test_k_is_an_integer(bank, k):
    with pytest.raises(ValueError, match="k: wanted an integer, 1 to 4, .* got"):
        bank.search(np.ones((1, 8)), k)


def test_appended_columns_keep_their_values(unit_vectors):
    vectors = unit_vectors(6, 8)
    columns = {"size": [1, 2], "note": [None, None]}
    bank = MemoryBank.build(np.arange(2), vectors[:2], columns, "e")
    for size, note in ([2.75], ["x"]), ([True], ["x"]), (["3"], ["x"]):
        with pytest.raises(ValueError, match="metadata: 'size': wanted int64"):
            bank.append(np.array([9]), vectors[2:3], {"size": size, "note": note}, "e")
    assert len(bank) == 2
    bank.append(np.array([9]), vectors[2:3], {"size": [3.0], "note": ["x"]}, "e")
    with pytest.raises(ValueError, match="metadata: 'note': wanted string, got int64"):
        bank.append(np.array([8]), vectors[3:4], {"size": [4], "note": [7]}, "e")
    assert [(row["size"], row["note"]) for row in bank.metadata_of([0, 1, 9])] == [
        (1, None), (2, None), (3, "x"),
    ]  # fmt: skip


def test_a_deleted_key_is_not_given_again(unit_vectors, tmp_path):
    vectors = unit_vectors(6, 8)
    bank = MemoryBank.build(np.array([3, 9, 4]), vectors[:3], {}, "e")
    assert bank.next_key == 10
    bank.append(np.array([20]), vectors[3:4], {}, "e")
    bank.delete([20, 9])
    assert bank.next_key == 21
    bank.save(tmp_path)
    loaded = MemoryBank.load(tmp_path)
    assert loaded.next_key == loaded.reindexed().next_key == 21
    loaded.delete(loaded.keys)
    loaded.save(tmp_path)
    assert MemoryBank.load(tmp_path).next_key == 21
    assert MemoryBank.build(np.empty(0, np.int64), np.empty((0, 8)), {}, "e").next_key == 0


@pytest.mark.parametrize("kind", ["Flat", "IVF2,SQ8"])
def test_the_content_hash_is_that_of_the_state(unit_vectors, tmp_path, kind):
    vectors, keys = unit_vectors(300, 8), np.arange(300)

    def make(vectors=vectors, keys=keys, both=True, nprobe=2) -> MemoryBank:
        columns = {"has_both": [both] * len(keys)}
        return MemoryBank.build(
            keys, vectors, columns, "e", IndexConfig(factory=kind, nprobe=nprobe)
        )

    bank = make()
    bank.save(tmp_path)
    assert bank.content_hash() == make().content_hash()
    for mmap in (False, True):
        assert MemoryBank.load(tmp_path, mmap=mmap).content_hash() == bank.content_hash()
    changed = vectors.copy()
    changed[[5, 7]] = changed[[7, 5]]  # a single row in the middle, as a sample would miss it
    others = [make(changed), make(keys=keys[::-1]), make(both=False), make(vectors[:-1], keys[:-1])]
    assert len({other.content_hash() for other in (bank, *others)}) == 5


def test_a_bank_of_the_same_weights_elsewhere(unit_vectors, tmp_path):
    here, there = (f"local-dir:/{place}/clip:{16 * '0'}" for place in ("here", "there"))
    MemoryBank.build(KEYS, unit_vectors(4, 8), {}, here).save(tmp_path)
    bank = MemoryBank.load(tmp_path, there)
    bank.append(np.array([1]), unit_vectors(1, 8, seed=5), {}, there)
    with pytest.raises(ValueError, match="wanted a bank of encoder"):
        MemoryBank.load(tmp_path, f"local-dir:/here/clip:{16 * '1'}")


@pytest.mark.parametrize("kind", ["Flat", "IVF4,SQ8", "HNSW8"])
def test_documents_added_one_by_one_are_all_there(unit_vectors, kind):
    vectors, keys = unit_vectors(500, 8), np.random.default_rng(3).permutation(10_000)[:500]
    columns = {"has_both": [bool(key % 2) for key in keys], "caption": [str(key) for key in keys]}

    def part(rows: slice) -> tuple:
        return keys[rows], vectors[rows], {name: values[rows] for name, values in columns.items()}

    bank = MemoryBank.build(*part(slice(0, 300)), "e", IndexConfig(factory=kind, nprobe=4))
    for row in range(300, 500):
        bank.append(*part(slice(row, row + 1)), "e")
        assert bank.has_both(keys[row : row + 1])[0] == bool(keys[row] % 2)
    np.testing.assert_array_equal(bank.keys, keys)
    np.testing.assert_allclose(bank.vectors_of(keys), vectors, atol=1e-6)
    np.testing.assert_array_equal(bank.has_both(keys), columns["has_both"])
    assert [row["caption"] for row in bank.metadata_of(keys)] == columns["caption"]
    bank.delete(keys[::2])
    np.testing.assert_array_equal(bank.has_both(keys[1::2]), columns["has_both"][1::2])
    assert (bank.search(vectors[1::2], 1)[1][:, 0] == keys[1::2]).mean() > 0.95


def test_the_hash_follows_every_change(unit_vectors):
    vectors = unit_vectors(6, 4)
    bank = MemoryBank.build(np.arange(5), vectors[:5], {}, "e")
    seen = [bank.content_hash()]
    assert bank.content_hash() == seen[0]
    bank.append(np.array([9]), vectors[5:], {}, "e")
    seen.append(bank.content_hash())
    bank.delete([9])
    assert bank.content_hash() == seen[0] != seen[1]
