"""Processes that train together keep one codebook."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from cm3_imagetok import EMAQuantizer
from cm3_imagetok.ranks import num_ranks, sum_over_ranks

WORKER = """
import json, os, sys
import torch
from torch import distributed
from cm3_imagetok import EMAQuantizer, GumbelQuantizer, NearestQuantizer, revive_dead_codes

rank, port, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
distributed.init_process_group(
    "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
)
found = {}
for kind, make in {
    "ema": lambda: EMAQuantizer(8, 2, decay=0.5),
    "nearest": lambda: NearestQuantizer(8, 2),
    "normalised": lambda: NearestQuantizer(8, 2, normalise=True),
    "gumbel": lambda: GumbelQuantizer(8, 2),
}.items():
    torch.manual_seed(0)
    quantizer = make().train()
    z = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    mine = z[:4] if rank == 0 else z[4:]  # of different length
    if kind == "ema":
        for _ in range(5):
            quantizer(mine)
        found["averaged"] = quantizer.codebook.tolist()
    generator = torch.Generator().manual_seed(2)
    # 1 is dead on one rank alone and in use on both together, 6 dead on both
    usage = torch.tensor([1.0, 2.0 * rank, 1, 1, 1, 1, 0, 1])
    moved = revive_dead_codes(quantizer, mine, usage, 0.5, generator)
    found[kind] = [moved, quantizer.codebook.tolist()]
with open(f"{out}/{rank}.json", "w") as file:
    json.dump(found, file)
distributed.barrier()
distributed.destroy_process_group()
# gloo's threads may still run and would abort an ordinary exit, now and then
os._exit(0)
"""


def test_one_process_adds_nothing():
    x = torch.arange(3.0)
    assert num_ranks() == 1 and sum_over_ranks(x) is x and x.tolist() == [0, 1, 2]


@pytest.mark.slow
def test_two_ranks_keep_the_codebook_of_one(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    jobs = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "worker.py"), str(rank), str(port), str(tmp_path)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [job.wait() for job in jobs] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second

    torch.manual_seed(0)
    alone = EMAQuantizer(8, 2, decay=0.5).train()
    z = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    for _ in range(5):
        alone(z)
    torch.testing.assert_close(torch.tensor(first["averaged"]), alone.codebook)
    for kind in ("ema", "nearest", "normalised", "gumbel"):
        assert first[kind][0] == 1
