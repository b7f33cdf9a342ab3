import lightning as L
import numpy as np
import pytest
import torch

from cm3_train import fit


def batches():
    return torch.utils.data.DataLoader(list(torch.arange(3.0)), batch_size=None)


class Plain(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return self.w * batch

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("empty", [[], np.empty((0, 2))])
def test_a_loader_without_a_batch_is_refused(tmp_path, empty):
    def no_batches():
        return torch.utils.data.DataLoader(empty, batch_size=None)

    options = {"val_every": 2, "checkpoint_every": 9, "accelerator": "cpu", "max_steps": 3}
    for train, validation, name in (
        (batches(), no_batches(), "val_loader"),
        (batches(), lambda rank, ranks: no_batches(), "val_loader"),
        (no_batches(), batches(), "train_loader"),
        (lambda rank, ranks: no_batches(), None, "train_loader"),
        (filter(None, empty), batches(), "train_loader"),  # of no length
    ):
        with pytest.raises(ValueError, match=f"{name}: wanted at least one batch, got none"):
            fit(Plain(), train, validation, run_dir=tmp_path, **options)


def test_epochs_of_a_finite_loader_are_whole_steps(tmp_path):
    """At an epoch's end Lightning takes a step with what there is, which no count would know."""
    options = {"val_every": 9, "checkpoint_every": 1, "accelerator": "cpu", "run_dir": tmp_path}
    with pytest.raises(ValueError, match="of batches that accumulate = 2 divides, got 3"):
        fit(Plain(), batches(), None, max_steps=3, accumulate=2, **options)
    fit(Plain(), batches(), None, max_steps=4, **options)
    with pytest.raises(ValueError, match="accumulate: wanted what the run began with"):
        fit(Plain(), batches(), None, max_steps=6, accumulate=3, **options)
