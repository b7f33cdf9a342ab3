import numpy as np
import pytest
import torch

from cm3_train import Sample, collate, collate_packed


def test_collate_by_hand():
    samples = [Sample(np.array([5, 6, 7, 8])), Sample(np.array([9, 4]))]
    batch = collate(samples, pad_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, 0, 0]]
    assert batch["labels"].tolist() == [[6, 7, 8], [4, -100, -100]]
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64


def test_ids_before_the_scored_part_are_read_but_not_predicted():
    ids = np.array([5, 6, 7, 8])
    batch = collate([Sample(ids, 2), Sample(np.array([9, 4]), 0), Sample(ids, 9)], pad_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, 0, 0], [5, 6, 7]]
    assert batch["labels"].tolist() == [[-100, 7, 8], [4, -100, -100], [-100, -100, -100]]


def test_weights_stand_beside_the_labels_they_are_of():
    ids = np.array([5, 6, 7, 8])
    weighed = Sample(ids, 1, np.array([9, 0.5, 0, 2]))
    batch = collate([weighed, Sample(np.array([9, 4, 3]))], pad_id=0)
    assert batch["labels"].tolist() == [[6, -100, 8], [4, 3, -100]]
    assert batch["weights"].tolist() == [[0.5, 0, 2], [1, 1, 1]]
    assert batch["weights"].dtype == torch.float32
    packed = collate_packed([[Sample(np.array([9, 4, 3])), weighed]], 6, pad_id=0)
    assert packed["labels"].tolist() == [[4, 3, 6, -100, 8, -100]]
    assert packed["weights"].tolist() == [[1, 1, 0.5, 0, 2, 1]]
    assert "weights" not in collate([Sample(ids)], 0) | collate_packed([[Sample(ids)]], 6, 0)


def test_nothing_to_predict_is_an_error():
    with pytest.raises(ValueError, match="samples: wanted at least two ids"):
        collate([Sample(np.array([5]))], pad_id=0)


@pytest.mark.parametrize("ids", [[1.5, 2.0], np.array([1.0, 2.0]), [[1, 2]], ["a", "b"]])
def test_ids_that_are_no_flat_integers_are_named(ids):
    with pytest.raises(ValueError, match="samples: ids of row 1: wanted a flat list of ints"):
        collate([Sample(np.array([1, 2])), Sample(ids)], pad_id=0)
