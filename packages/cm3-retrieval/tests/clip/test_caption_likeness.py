import math

import numpy as np

from cm3_retrieval.clip.caption_likeness import CaptionLikeness

CAPTIONS = [
    "blue fox on yellow",
    "red fox on green",
    "Fox, red!",
    "blue car on yellow",
    "blue car",
    "a walrus",
    "on",
    "?",
    "blue fox on yellow",
]


def brute_force(captions):
    """Cosines of dictionaries, a pair at a time."""
    bags = [{word.strip(",!").lower() for word in caption.split()} for caption in captions]
    different = {frozenset(bag) for bag in bags}
    idf = {
        word: math.log((1 + len(different)) / sum(word in bag for bag in different))
        for bag in bags
        for word in bag
    }

    def product(a, b):
        return sum(idf[word] ** 2 for word in a & b)

    return np.array(
        [[product(a, b) / math.sqrt(product(a, a) * product(b, b)) for b in bags] for a in bags]
    )


def test_cosines_are_those_of_a_pair_at_a_time():
    likeness, rows = CaptionLikeness(CAPTIONS), np.arange(len(CAPTIONS))
    wanted = brute_force(CAPTIONS)
    np.testing.assert_allclose(likeness.cosines(rows, rows), wanted, atol=1e-6)
    some, others = np.array([3, 0]), np.array([5, 1, 1])
    np.testing.assert_allclose(
        likeness.cosines(some, others), wanted[np.ix_(some, others)], atol=1e-6
    )
    # the same rare word counts for more than the same common ones
    assert wanted[0, 1] > wanted[5, 6] == 0


def test_partners_share_the_rarest_word_that_others_have():
    likeness, rng = CaptionLikeness(CAPTIONS), np.random.default_rng(0)
    rows = np.arange(len(CAPTIONS))
    seen = [set() for _ in rows]
    for _ in range(60):
        for row, partner in zip(rows, likeness.partners(rows, rng), strict=True):
            seen[row].add(int(partner))
    assert seen[3] == seen[4] == {3, 4}  # car
    assert seen[0] == seen[8] and {0, 8} <= seen[0]
    assert seen[5] == {5} and seen[7] == {7}  # nobody else's words


def test_one_caption():
    likeness = CaptionLikeness(["fox"])
    row = np.array([0])
    assert likeness.partners(row, np.random.default_rng(0)).tolist() == [0]
    np.testing.assert_allclose(likeness.cosines(row, row), [[1.0]])
