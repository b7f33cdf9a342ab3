import os
import signal
from itertools import islice

import numpy as np
import pytest
import torch

from cm3_train import BatchLoader, Sample, SampleOrder, TokenLoader, ValidationLoader


def loader(seed=0, count=7, workers=0):
    order = SampleOrder(np.arange(count), seed, 3)
    return BatchLoader(
        lambda keys, epochs, position: (keys.tolist(), epochs.tolist(), position),
        order,
        workers=workers,
    )


def test_a_loader_goes_on_where_its_state_says():
    whole = list(islice(loader(), 10))
    first = loader()
    begun = list(islice(first, 4))
    second = loader()
    second.load_state_dict(first.state_dict())
    assert begun + list(islice(second, 6)) == whole
    assert first.state_dict()["consumed"] == 12


@pytest.mark.parametrize(("workers", "then"), [(1, 2), (2, 0), (0, 1)])
def test_workers_make_the_same_batches_and_take_over_from_each_other(workers, then):
    whole = list(islice(loader(), 10))
    state = torch.get_rng_state()
    first = loader(workers=workers)
    begun = list(islice(first, 4))
    second = loader(workers=then)
    second.load_state_dict(first.state_dict())
    assert begun + list(islice(second, 6)) == whole
    assert torch.equal(torch.get_rng_state(), state)  # the run's own draws stay as they were


def test_an_error_in_a_worker_is_raised_with_its_name():
    def builder(key, epoch):
        raise ValueError(f"key {key}: a broken row")

    broken = TokenLoader(builder, SampleOrder([5], 0, 1), pad_id=0, workers=1)
    with pytest.raises(ValueError, match="key 5: a broken row"):
        next(iter(broken))


# torch raises from a signal handler; inside a finalizer Python only reports that error, and the
# loader's own look at its workers raises next
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_killed_worker_ends_the_run_at_once():
    def builder(key, epoch):
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return Sample(np.array([1, 2]))

    loader = TokenLoader(builder, SampleOrder([5], 0, 1), pad_id=0, workers=1)
    with pytest.raises(RuntimeError, match=r"worker .* (killed by signal: Killed|exited)"):
        list(islice(loader, 9))


def test_state_of_other_data_is_refused():
    for other in (loader(seed=1), loader(count=8)):
        with pytest.raises(ValueError, match="other data"):
            other.load_state_dict(loader().state_dict())


def test_token_loader_asks_the_builder_in_order():
    asked = []

    def builder(key, epoch):
        asked.append((key, epoch))
        return Sample(np.array([key + 1, 90, epoch + 1]))

    order = SampleOrder(np.arange(5), 0, 4)
    batches = list(islice(TokenLoader(builder, order, pad_id=0), 3))
    wanted = [zip(*map(np.ndarray.tolist, order.batch(4 * step)), strict=True) for step in range(3)]
    assert asked == [pair for batch in wanted for pair in batch]
    assert batches[2]["labels"][:, 1].tolist() == [2, 2, 3, 3]  # positions 8..11 of epochs of 5


def test_validation_is_the_same_every_time_and_ranks_share_it():
    def builder(key, epoch):
        assert epoch == 0
        return Sample(np.array([1, 8, 2, 20, 2, 8, 2, 20 + key, 1]), 5)

    loader = ValidationLoader(builder, np.arange(5), 2, pad_id=0)
    one, two = list(loader), list(loader)
    assert len(one) == len(loader) == 3
    assert all(torch.equal(a["labels"], b["labels"]) for a, b in zip(one, two, strict=True))
    assert one[1]["labels"][0].tolist() == [-100] * 4 + [8, 2, 22, 1]
    ranks = [
        ValidationLoader(builder, np.arange(5), 2, pad_id=0, world_size=3, rank=rank)
        for rank in range(3)
    ]
    assert [len(loader) for loader in ranks] == [1, 1, 1]
    rows = [row.tolist() for loader in ranks for batch in loader for row in batch["labels"]]
    assert sorted(rows) == sorted(row.tolist() for batch in one for row in batch["labels"])


def test_what_a_batch_has_in_common_is_the_same_on_every_rank():
    def of(rank, world_size, batch_size):
        order = SampleOrder(np.arange(7), 0, batch_size, world_size, rank)
        return list(islice(BatchLoader(lambda keys, epochs, position: position, order), 5))

    assert of(0, 2, 3) == of(1, 2, 3) == of(0, 1, 6) == [0, 6, 12, 18, 24]


@pytest.mark.parametrize(("keys", "ranks"), [([], 1), (np.empty(0), 1), ([4], 2), ([4, 5, 6], 4)])
def test_a_validation_set_that_leaves_a_rank_without_a_batch_is_refused(keys, ranks):
    for rank in range(ranks):  # all ranks, so that none waits for another
        with pytest.raises(ValueError, match=f"keys: wanted at least {ranks}, one a rank"):
            ValidationLoader(
                lambda key, epoch: None, keys, 2, pad_id=0, world_size=ranks, rank=rank
            )


@pytest.mark.parametrize("keys", [[1.7, 2.2], np.arange(3.0), [True, False], [[1, 2]], ["a"]])
def test_keys_that_are_no_flat_integers_are_refused(keys):
    with pytest.raises(ValueError, match="keys: wanted a flat list of ints"):
        ValidationLoader(lambda key, epoch: None, keys, 2, pad_id=0)
    with pytest.raises(ValueError, match="keys: wanted a flat list of ints"):
        SampleOrder(keys, 0, 1)


def test_batches_name_their_keys():
    def builder(key, epoch):
        return Sample(np.array([key, 1]))

    loader = TokenLoader(builder, SampleOrder(np.arange(5), 0, 3), pad_id=0)
    validation = ValidationLoader(builder, np.arange(5), 3, pad_id=0)
    for batch in [*islice(loader, 3), *validation]:
        assert batch["keys"].tolist() == batch["input_ids"][:, 0].tolist()


@pytest.mark.parametrize("value", [1.5, 2.0, "a", None, True])
def test_numbers_that_are_no_integers_are_named(value):
    with pytest.raises(ValueError, match="^pad_id: wanted an integer, got"):
        TokenLoader(lambda key, epoch: None, SampleOrder([1], 0, 1), pad_id=value)
    for name in ("pad_id", "batch_size"):
        options = {"pad_id": 0, "batch_size": 2, name: value}
        with pytest.raises(ValueError, match=f"^{name}: wanted an integer, got"):
            ValidationLoader(lambda key, epoch: None, [1], **options)
