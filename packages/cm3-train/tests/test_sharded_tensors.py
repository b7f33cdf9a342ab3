"""Mixtures of plain and split tensors, on a mesh of one process; `test_ranks` has two."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from cm3_train.sharded_tensors import by_mesh, clip_gradients, local, part_of, whole


@pytest.fixture
def mesh():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def parameters(*shapes):
    generator = torch.Generator().manual_seed(0)
    made = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    for parameter in made:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return made


def split(parameter, mesh):
    new = torch.nn.Parameter(distribute_tensor(parameter.detach().clone(), mesh, [Shard(0)]))
    new.grad = distribute_tensor(parameter.grad.clone(), mesh, [Shard(0)])
    return new


@pytest.mark.parametrize("limit", [0.5, 1e3])
@pytest.mark.parametrize("places", [(), (0,), (1, 2), (0, 1, 2)])
def test_any_mixture_is_clipped_as_torch_clips_the_plain_ones(mesh, limit, places):
    plain = parameters((4, 3), (5,), (2, 2, 2))
    mixed = [
        split(p, mesh) if n in places else p
        for n, p in enumerate(parameters((4, 3), (5,), (2, 2, 2)))
    ]
    assert len(by_mesh(mixed)) == len({n in places for n in range(3)})
    norm = clip_gradients(mixed, limit)
    wanted = torch.nn.utils.clip_grad_norm_(plain, limit)
    torch.testing.assert_close(norm, wanted)
    for mine, other in zip(mixed, plain, strict=True):
        torch.testing.assert_close(local(mine.grad), other.grad)


def test_a_part_shares_memory_and_whole_is_its_inverse(mesh):
    (parameter,) = parameters((4, 3))
    tensor = split(parameter, mesh)
    with torch.no_grad():
        local(tensor).fill_(7)
        assert isinstance(tensor, DTensor) and (tensor.full_tensor() == 7).all()
        for like in (parameter, tensor):
            part = torch.arange(12.0).view(4, 3)
            assert torch.equal(part_of(whole(part, like), like), part)
    assert local(parameter) is parameter
