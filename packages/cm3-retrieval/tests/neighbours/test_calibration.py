"""Simulated encoders: published CLIPs with their gap between texts and pictures, and one without.

What is simulated are the cosines alone, as they are reported of published weights: 0.3 between a
text and its picture, 0.996 between a document and its re-saved twin.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from cm3_retrieval import (
    MemoryBank,
    RetrievalConfig,
    build_neighbour_table,
    calibrated,
    document_vectors,
)

THINGS, COLOURS, DIM = 40, 6, 64
COUNT = THINGS * COLOURS


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def world(gap: float, seed: int = 0) -> SimpleNamespace:
    """Things in six colours; texts and pictures share what they show and lie `gap` apart."""
    rng = np.random.default_rng(seed)
    things, colours = rng.standard_normal((THINGS, DIM)), rng.standard_normal((COLOURS, DIM))
    thing, colour = np.divmod(np.arange(COUNT), COLOURS)
    shown = things[thing] + 0.5 * colours[colour]
    sides = rng.standard_normal((2, DIM)) * gap
    own = [0.35 * rng.standard_normal((COUNT, DIM)) for _ in range(3)]
    return SimpleNamespace(
        thing=thing,
        texts=unit(shown + sides[0] + own[0]),
        pictures=unit(shown + sides[1] + own[1]),
        saved_again=unit(shown + sides[1] + own[1] + (0.5 + 0.16 * gap) * own[2]),  # as JPEG
    )


def table_of(made: SimpleNamespace, bank: MemoryBank, config: RetrievalConfig):
    encoder = SimpleNamespace(
        dim=DIM,
        encoder_id="e",
        encode_texts=lambda texts: made.texts[[int(text) for text in texts]],
        encode_images=None,
    )
    return build_neighbour_table(
        bank,
        encoder,
        np.arange(COUNT),
        [str(row) for row in range(COUNT)],
        made.pictures,
        config,
        0,
    )


@pytest.mark.parametrize("gap", [0.0, 1.0, 1.6])
def test_a_twin_is_no_neighbour_and_the_same_thing_in_another_colour_is(gap):
    made = world(gap)
    documents = document_vectors(made.texts, made.pictures)
    twins = document_vectors(made.texts, made.saved_again)
    likeness = np.einsum("nd,nd->n", documents, twins)
    assert likeness.mean() == pytest.approx(0.996, abs=0.0015)
    keys = np.concatenate([np.arange(COUNT), 1000 + np.arange(COUNT)])
    bank = MemoryBank.build(keys, np.concatenate([documents, twins]), {}, "e")
    # The paper's cap would do without the gap, so let every document be relevant enough.
    config = RetrievalConfig(max_relevance=1.0, duplicate_threshold=1.0, query_dropout=0.0)
    table = table_of(made, bank, config)
    unfiltered = table_of(made, bank, RetrievalConfig(**{**vars(config), "max_likeness": 1.0}))
    same_thing = was_twin = 0
    for key in range(COUNT):
        for kind, found in table.candidates(key).items():
            assert len(found) == 2 and key + 1000 not in found
            same_thing += (made.thing[found % 1000] == made.thing[key]).mean()
            was_twin += key + 1000 in unfiltered.candidates(key)[kind]
    assert was_twin > 1.6 * COUNT  # of both kinds: without the cap nearly all had their twin
    assert same_thing > 1.9 * COUNT
    assert 0.9 < table.facts["config"]["max_likeness"] < likeness.min()


def test_the_papers_cap_alone_does_not_act_beside_a_gap():
    """Text and picture 0.3 apart: a document scores 0.81 for its own picture, below 0.9."""
    made = world(1.6)
    documents = document_vectors(made.texts, made.pictures)
    matched = np.einsum("nd,nd->n", made.texts, made.pictures).mean()
    own = np.einsum("nd,nd->n", documents, made.pictures).mean()
    assert 0.2 < matched < 0.4 and own == pytest.approx(((1 + matched) / 2) ** 0.5, abs=0.01)


def test_the_threshold_follows_the_encoder_and_stays_where_it_is_given():
    banks = []
    for gap in (0.0, 3.0):
        made = world(gap)
        vectors = document_vectors(made.texts, made.pictures)
        banks.append(MemoryBank.build(np.arange(COUNT), vectors, {}, "e"))
    near, far = (calibrated(bank, RetrievalConfig()).max_likeness for bank in banks)
    assert near is not None and far is not None and near < far < 1
    given = RetrievalConfig(max_likeness=0.95)
    assert calibrated(banks[0], given) is given
    order = np.random.default_rng(1).permutation(COUNT)
    shuffled = MemoryBank.build(order, banks[0].vectors_of(order), {}, "e")
    assert calibrated(shuffled, RetrievalConfig()) == calibrated(banks[0], RetrievalConfig())


def test_nine_copies_of_each_document_do_not_move_it(unit_vectors):
    vectors = unit_vectors(60, 16)
    once = MemoryBank.build(np.arange(60), vectors, {}, "e")
    often = MemoryBank.build(np.arange(540), np.repeat(vectors, 9, axis=0), {}, "e")
    one, other = (calibrated(bank, RetrievalConfig()).max_likeness for bank in (once, often))
    assert one is not None and other is not None and 0.9 < one < other < 0.99


def test_small_banks(unit_vectors):
    for count in (0, 1, 2, 5):
        bank = MemoryBank.build(np.arange(count), unit_vectors(count, 16), {}, "e")
        found = calibrated(bank, RetrievalConfig()).max_likeness
        assert found is not None and 0.8 < found <= 1


def test_wrong_thresholds():
    with pytest.raises(ValueError, match="max_likeness: wanted -1 to 1, got 1.5"):
        RetrievalConfig(max_likeness=1.5)
