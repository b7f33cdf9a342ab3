import numpy as np
import pytest
import torch

from cm3_train import add_input_noise, collate

CODES = (100, 164)


def batch(rows=200, text=10, codes=60):
    rng = np.random.default_rng(0)
    return collate(
        [
            np.concatenate([rng.integers(0, 100, text), rng.integers(*CODES, codes)])
            for _ in range(rows)
        ],
        pad_id=0,
    )


def test_only_codes_change_and_labels_never():
    clean = batch()
    before = clean["input_ids"].clone()
    noisy = add_input_noise(clean, CODES, 1.0, np.random.default_rng(1))
    assert torch.equal(clean["input_ids"], before)
    assert torch.equal(noisy["labels"], clean["labels"])
    text = before < CODES[0]
    assert torch.equal(noisy["input_ids"][text], before[text])
    assert ((noisy["input_ids"][~text] >= CODES[0]) & (noisy["input_ids"][~text] < CODES[1])).all()


@pytest.mark.parametrize("largest", [0.0, 0.4, 1.0])
def test_each_row_has_its_share(largest):
    clean = batch()
    noisy = add_input_noise(clean, CODES, largest, np.random.default_rng(2))
    changed = (noisy["input_ids"] != clean["input_ids"]).sum(1) / 59  # of the codes among inputs
    kept = 63 / 64  # an id may be replaced by itself
    assert float(changed.mean()) == pytest.approx(largest / 2 * kept, abs=0.03)
    assert float(changed.max()) <= largest + 0.2
    if largest:  # the rows differ by more than 59 coins of one share would let them
        assert float(changed.std()) > 0.8 * largest / 12**0.5


def test_the_same_generator_draws_the_same_and_wrong_shares_are_named():
    clean = batch(rows=3)
    one, two = (add_input_noise(clean, CODES, 0.5, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(one["input_ids"], two["input_ids"])
    with pytest.raises(ValueError, match="largest_share: wanted 0..1, got 1.5"):
        add_input_noise(clean, CODES, 1.5, np.random.default_rng(3))
