import numpy as np

from cm3_retrieval.caption_groups import groups_of


def test_what_shares_a_picture_or_a_caption_is_one_group():
    captions = ["a", "b", "b", "c", "d", "e"]
    files = ["1", "1", "2", "2", "3", "4"]
    assert groups_of(captions, files) == [0, 0, 0, 0, 1, 2]
    # the same strings on both sides are not the same thing
    assert groups_of(["x", "y"], ["y", "x"]) == [0, 1]
    assert groups_of([], []) == []


def test_groups_are_the_components_of_a_graph():
    """Beside repeated relabelling, which is slow and plain."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        captions, files = rng.integers(0, 12, (2, 14))
        label = np.arange(14)
        for _ in range(14):
            for side in (captions, files):
                for value in np.unique(side):
                    label[side == value] = label[side == value].min()
        found = np.array(groups_of([f"c{c}" for c in captions], [f"f{f}" for f in files]))
        assert (np.equal.outer(found, found) == np.equal.outer(label, label)).all()


def test_many_captions_take_no_quadratic_time():
    count = 100_000
    assert len(set(groups_of([str(i) for i in range(count)], ["one"] * count))) == 1
    chain = groups_of(
        [str(i // 2) for i in range(count)], [str((i + 1) // 2) for i in range(count)]
    )
    assert len(set(chain)) == 1
