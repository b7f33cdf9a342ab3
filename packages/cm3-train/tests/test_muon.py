import numpy as np
import pytest
import torch
from torch import nn

from cm3_train import MuonAdamW, OptimConfig, build_optimizer, muon, orthogonalise


def give_gradients(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


def step(model, optimizer, seeds):
    for seed in seeds:
        give_gradients(model, seed)
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def test_muon_moves_a_convolution_as_its_matrix():
    convolution, matrix = nn.Conv2d(4, 6, 3, bias=False), nn.Linear(36, 6, bias=False)
    with torch.no_grad():
        matrix.weight.copy_(convolution.weight.view(6, 36))
    gradient = torch.randn(6, 36, generator=torch.Generator().manual_seed(0))
    for module in (convolution, matrix):
        module.weight.grad = gradient.view(module.weight.shape).clone()
        build_optimizer(module, OptimConfig(name="muon", muon_lr=0.1)).step()
    assert torch.equal(convolution.weight.view(6, 36), matrix.weight)


@pytest.mark.parametrize("shape", [(16, 16), (8, 24), (24, 8)])
def test_orthogonalise_keeps_the_singular_vectors(shape):
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    out = orthogonalise(x)
    for before, after in zip(x.double().numpy(), out.double().numpy(), strict=True):
        u, _, vt = np.linalg.svd(before, full_matrices=False)
        inner = u.T @ after @ vt.T
        assert np.abs(inner - np.diag(np.diag(inner))).max() < 0.15  # bfloat16
        assert 0.3 < np.linalg.svd(after)[1].min() and np.linalg.svd(after)[1].max() < 1.4
    assert out.dtype == x.dtype


@pytest.mark.parametrize("shape", [(16, 16), (8, 24), (24, 8), (12, 108)])
def test_orthogonalise_against_the_iteration_on_the_matrix_itself(shape, monkeypatch):
    monkeypatch.setattr(muon, "_iteration_dtype", lambda device, long: torch.float32)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, *shape))
    x[:, 1:] *= 1e-2  # small singular values too
    out = orthogonalise(torch.from_numpy(x).float())
    for start, end in zip(x, out.double().numpy(), strict=True):
        wanted = start / np.linalg.norm(start)
        for _ in range(5):  # Jordan et al. 2024
            gram = wanted @ wanted.T
            wanted = 3.4445 * wanted + (-4.7750 * gram + 2.0315 * gram @ gram) @ wanted
        np.testing.assert_allclose(end, wanted, atol=1e-4)


def test_muon_against_torchs_own():
    def linear():
        torch.manual_seed(0)
        return nn.Linear(12, 20, bias=False)

    ours, peer = linear(), linear()
    groups = [{"params": list(ours.parameters()), "kind": "muon", "blocks": 1}]
    mine = MuonAdamW(groups, lr=0.02, weight_decay=0.1)
    theirs = torch.optim.Muon(
        peer.parameters(), lr=0.02, weight_decay=0.1, adjust_lr_fn="original", eps=1e-7
    )
    for a, b in zip(step(ours, mine, range(4)), step(peer, theirs, range(4)), strict=True):
        assert torch.allclose(a, b, atol=2e-3)  # both round to bfloat16, in another order
        assert (a - linear().weight).abs().mean() > 0.01


def test_fused_matrix_is_three(tiny):
    model = tiny.Model()
    apart = [nn.Parameter(block.clone()) for block in model.qkv.weight.detach().chunk(3)]
    optimizer = build_optimizer(model, OptimConfig(name="muon", weight_decay=0.0))
    give_gradients(model)
    for p, grad in zip(apart, model.qkv.weight.grad.chunk(3), strict=True):
        p.grad = grad.clone()
    optimizer.step()
    MuonAdamW([{"params": apart, "kind": "muon"}], lr=0.02).step()
    assert torch.allclose(model.qkv.weight, torch.cat(apart), atol=1e-6)
