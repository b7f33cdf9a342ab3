import copy

import numpy as np
import pytest
import torch
from torch import nn

from cm3_train import (
    MuonAdamW,
    OptimConfig,
    build_optimizer,
    build_schedule,
    hidden_matrices,
    lr_share,
    optim,
    orthogonalise,
)


def give_gradients(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


def step(model, optimizer, seeds):
    for seed in seeds:
        give_gradients(model, seed)
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def test_adamw_is_torchs_with_decay_on_matrices_only(tiny):
    model, peer = tiny.Model(), tiny.Model()
    config = OptimConfig(lr=0.01, weight_decay=0.3)
    matrices = [p for p in peer.parameters() if p.ndim > 1]
    vectors = [p for p in peer.parameters() if p.ndim == 1]
    reference = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0}],
        lr=0.01,
        betas=config.betas,
    )
    ours = step(model, build_optimizer(model, config), range(5))
    for a, b in zip(ours, step(peer, reference, range(5)), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_muon_takes_hidden_matrices_and_no_others(tiny):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.token_embedding = nn.Embedding(9, 4)
            self.positions = nn.Parameter(torch.zeros(8, 4))
            self.blocks = nn.ModuleList([nn.Linear(4, 12, bias=True)])
            self.head_mix = nn.Linear(4, 4, bias=False)
            self.lm_head = nn.Linear(4, 9, bias=False)
            self.output = nn.Linear(4, 9, bias=False)
            self.conv_in = nn.Conv2d(3, 4, 3)
            self.conv1 = nn.Conv2d(4, 4, 3)

    assert hidden_matrices(Model()) == ["blocks.0.weight", "head_mix.weight", "conv1.weight"]
    assert hidden_matrices(tiny.Model()) == ["qkv.weight", "mix.weight"]
    optimizer = build_optimizer(tiny.Model(), OptimConfig(name="muon", lr=0.1, muon_lr=0.2))
    kinds = [(g["kind"], g["blocks"], g["lr"], len(g["params"])) for g in optimizer.param_groups]
    assert kinds == [("adamw", 1, 0.1, 1), ("adamw", 1, 0.1, 1), ("muon", 1, 0.2, 1)] + [
        ("muon", 3, 0.2, 1)
    ]


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
    monkeypatch.setattr(optim, "_iteration_dtype", lambda device, long: torch.float32)
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


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_goes_round_exactly(tiny, name, tmp_path):
    config = OptimConfig(name=name, lr=0.01)
    model = tiny.Model()
    optimizer = build_optimizer(model, config)
    step(model, optimizer, range(3))
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    other = copy.deepcopy(model)
    resumed = build_optimizer(other, config)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    rest = step(model, optimizer, range(3, 6))
    for a, b in zip(rest, step(other, resumed, range(3, 6)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_both_learn(tiny, name):
    model = tiny.Model()
    optimizer = build_optimizer(model, OptimConfig(name=name, lr=0.02, weight_decay=0.0))
    ids = torch.randint(8, tiny.vocab_size, (4, 12), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(60):
        logits = model.head(model.hidden(ids[:, :-1]))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_schedules():
    def shares(**values):
        share = lr_share(OptimConfig(warmup_steps=10, total_steps=110, **values))
        return [share(s) for s in range(120)]

    cosine = shares(final_lr_share=0.2)
    assert cosine[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert cosine[10] == 1 and cosine[60] == pytest.approx(0.6) and cosine[110:] == [0.2] * 10
    assert all(a >= b for a, b in zip(cosine[10:], cosine[11:], strict=False))
    assert shares(schedule="linear", final_lr_share=0.0)[85] == pytest.approx(0.25)
    assert shares(schedule="constant")[10:] == [1.0] * 110


def test_schedule_moves_every_group(tiny):
    config = OptimConfig(name="muon", lr=0.1, muon_lr=0.2, warmup_steps=4, total_steps=10)
    optimizer = build_optimizer(tiny.Model(), config)
    build_schedule(optimizer, config)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.025] * 2 + [0.05] * 2)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_part_can_have_its_own_rate(name):
    model = nn.ModuleDict({"body": nn.Linear(8, 8), "judge": nn.Linear(8, 8)})
    config = OptimConfig(name=name, lr=1e-2, weight_decay=0.5)
    optimizer = build_optimizer(model, config, {"judge.": 3e-4})
    rates = {
        id(p): (group["lr"], group["weight_decay"], group.get("kind"))
        for group in optimizer.param_groups
        for p in group["params"]
    }
    for parameter in model["judge"].parameters():
        assert rates[id(parameter)][:2] == (3e-4, 0.0)
        assert rates[id(parameter)][2] != "muon"
    assert len(rates) == 4
    assert rates[id(model["body"].weight)][0] == (config.muon_lr if name == "muon" else 1e-2)
