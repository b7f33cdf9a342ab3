import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from cm3_train import OptimConfig, build_optimizer, build_schedule, lr_share


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


@pytest.mark.parametrize("power", [1.0, 0.5, 2.0])
def test_polynomial_decay_is_torchs_after_the_warm_up_and_with_power_1_linear(power):
    config = OptimConfig(
        schedule="polynomial", power=power, warmup_steps=5, total_steps=45, final_lr_share=0.0
    )
    weight = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    peer = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=40, power=power)
    share = lr_share(config)
    for step in range(5, 60):
        assert share(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9), step
        optimizer.step()
        peer.step()
    if power == 1:
        linear = lr_share(replace(config, schedule="linear"))
        assert [share(s) for s in range(60)] == [linear(s) for s in range(60)]
    else:
        assert config.in_effect()["power"] == power
        # fairseq's: (peak - end) * left ** power + end
        ends = lr_share(replace(config, final_lr_share=0.1))
        assert ends(25) == pytest.approx(0.9 * 0.5**power + 0.1)
    with pytest.raises(ValueError, match="power: wanted above 0"):
        OptimConfig(power=0.0)


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


def test_muon_has_the_hidden_matrices_and_adamw_the_rest(tiny):
    optimizer = build_optimizer(tiny.Model(), OptimConfig(name="muon", lr=0.1, muon_lr=0.2))
    kinds = [(g["kind"], g["blocks"], g["lr"], len(g["params"])) for g in optimizer.param_groups]
    assert kinds == [("adamw", 1, 0.1, 1), ("adamw", 1, 0.1, 1), ("muon", 1, 0.2, 1)] + [
        ("muon", 3, 0.2, 1)
    ]


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("start", ["judg.", "Judge", "weight", "body.weights", "frozen."])
def test_a_rate_of_no_parameter_is_an_error(name, start):
    model = nn.ModuleDict({part: nn.Linear(8, 8) for part in ("body", "judge", "frozen")})
    model["frozen"].requires_grad_(False)
    with pytest.raises(ValueError, match=rf"rates: wanted .*in \['body'\].*'{start}'"):
        build_optimizer(model, OptimConfig(name=name), {"judge.": 1e-3, start: 1e-3})


def test_a_rate_whose_parameters_an_earlier_one_took_is_an_error():
    model = nn.ModuleDict({"body": nn.Linear(8, 8), "judge": nn.Linear(8, 8)})
    with pytest.raises(ValueError, match=r"an earlier start took.*'judge.weight'"):
        build_optimizer(model, OptimConfig(), {"judge.": 1e-3, "judge.weight": 1e-4})
