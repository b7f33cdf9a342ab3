"""Lightning's `ModelParallelStrategy` trains a decoder that `cm3_model.parallel` shards."""

import json
import os
import sys

import pytest
import torch
import warm

SETUP = """
import torch
from cm3_model import Decoder, DecoderConfig

def make():
    config = DecoderConfig(
        vocab_size=40, max_length=16, num_layers=2, width=16, num_heads=2, init_std=0.1
    )
    return Decoder(config, torch.Generator().manual_seed(0))

def loss_of(model, ids):
    logits = model.head(model.hidden(ids))
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

# One row again and again, so that it does not matter who gets which.
ids = torch.randint(40, (1, 16), generator=torch.Generator().manual_seed(2)).repeat(16, 1)
STEPS, RATE = 4, 1e-2
"""

WORKER = (
    SETUP
    + """
import json
import sys
import lightning as L
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from cm3_model.parallel import parallelize

class Training(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = make()
        self.losses = []

    def configure_model(self):
        if not any(isinstance(weight, DTensor) for weight in self.model.parameters()):
            parallelize(self.model, self.device_mesh)

    def training_step(self, batch, index):
        loss = loss_of(self.model, batch)
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=RATE)

data, tensor, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
trainer = L.Trainer(
    accelerator="cpu", devices=2, max_steps=STEPS, logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    strategy=ModelParallelStrategy(
        data_parallel_size=data, tensor_parallel_size=tensor, process_group_backend="gloo"
    ),
)
training = Training()
trainer.fit(training, DataLoader(ids, batch_size=2))
trainer.save_checkpoint(f"{folder}/saved.ckpt")
sharded = sum(isinstance(weight, DTensor) for weight in training.model.parameters())
with open(f"{folder}/{trainer.global_rank}.json", "w") as file:
    json.dump({"losses": training.losses, "sharded": sharded}, file)
"""
)


@pytest.mark.slow
@pytest.mark.parametrize(("data", "tensor", "sharded"), [(2, 1, 10), (1, 2, 8)])
def test_two_processes_of_lightning_learn_what_one_learns(tmp_path, data, tensor, sharded):
    script = tmp_path / "worker.py"  # Lightning starts the second process by running it again
    script.write_text(WORKER)
    worker = warm.run(
        [sys.executable, str(script), str(data), str(tensor), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert worker.returncode == 0, worker.stderr
    scope: dict = {}
    exec(SETUP, scope)
    model, losses = scope["make"](), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=scope["RATE"])
    for _ in range(scope["STEPS"]):
        loss = scope["loss_of"](model, scope["ids"][:2])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["losses"] == pytest.approx(losses, abs=1e-4)
        assert found["sharded"] == sharded
    assert sorted(tmp_path.glob("saved.ckpt/*.distcp"))  # each process wrote its part
