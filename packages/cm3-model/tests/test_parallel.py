import subprocess
import sys

import pytest
import torch

from cm3_model import Decoder, DecoderConfig
from cm3_model.parallel import parallelize

CASES = [
    ("data", "gelu", "split"),
    ("data", "swiglu", "whole"),
    ("tensor", "gelu", "split"),
    ("tensor", "swiglu", "whole"),
]

SETUP = """
import os
import sys
import torch
from cm3_model import Decoder, DecoderConfig

def make(activation):
    config = DecoderConfig(
        vocab_size=40, max_length=16, num_layers=2, width=16, num_heads=2, activation=activation
    )
    model = Decoder(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3, generator=generator)
    return model

def step(model, ids, split):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        logits = model.head(model.hidden(ids)) if split else model(ids)
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

ids = torch.randint(40, (4, 16), generator=torch.Generator().manual_seed(2))
"""

WORKER = (
    SETUP
    + f"CASES = {CASES!r}\n"
    + """
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from cm3_model.parallel import parallelize

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group(
    "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
)
for kind, activation, split in CASES:
    shape = (2, 1) if kind == "data" else (1, 2)
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("data_parallel", "tensor_parallel"))
    model = parallelize(make(activation), mesh)
    sharded = [w for w in model.parameters() if isinstance(w, DTensor)]
    assert sharded
    assert sum(w.to_local().numel() for w in sharded) == sum(w.numel() for w in sharded) // 2
    mine = ids[2 * rank : 2 * rank + 2] if kind == "data" else ids
    step(model, mine, split == "split")
    whole = {
        n: w.full_tensor() if isinstance(w, DTensor) else w for n, w in model.state_dict().items()
    }
    if rank == 0:
        torch.save(whole, f"{folder}/{kind}-{activation}-{split}")
dist.barrier()
dist.destroy_process_group()
# gloo's threads may still run and would abort an ordinary exit, now and then
os._exit(0)
"""
)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [worker.communicate(timeout=120)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)
    scope: dict = {}
    exec(SETUP, scope)
    for kind, activation, split in CASES:
        alone = scope["make"](activation)
        scope["step"](alone, scope["ids"], False)
        found = torch.load(tmp_path / f"{kind}-{activation}-{split}", weights_only=True)
        for name, weight in alone.state_dict().items():
            torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-5)


def test_a_mesh_of_other_dimensions_is_refused():
    class Mesh:
        mesh_dim_names = ("rows",)

    model = Decoder(DecoderConfig(vocab_size=9, max_length=4, num_layers=1, width=8, num_heads=2))
    with pytest.raises(ValueError, match="device_mesh: wanted dimensions 'data_parallel'"):
        parallelize(model, Mesh())
