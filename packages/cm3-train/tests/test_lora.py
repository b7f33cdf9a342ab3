import builtins
import copy

import pytest
import torch
from torch import nn

from cm3_train import (
    AtomicCheckpointIO,
    CM3Module,
    LoraConfig,
    OptimConfig,
    adapters_of,
    add_adapters,
    build_optimizer,
    fit,
    load_weights,
    merge_adapters,
    merged_weights,
    next_token_loss,
)

CONFIG = LoraConfig(rank=4, alpha=8.0, targets=("qkv", "mix"))


def adapted(tiny, config=CONFIG, seed=1):
    model = tiny.Model()
    add_adapters(model, config, torch.Generator().manual_seed(seed))
    return model


def stir(model):
    """Give the second matrices, which start as 0, something to add."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.3, generator=generator)
    return model


@pytest.fixture
def ids(tiny):
    return torch.randint(8, tiny.vocab_size, (4, 12), generator=torch.Generator().manual_seed(0))


def logits_of(model, ids):
    with torch.no_grad():
        return model.head(model.hidden(ids))


def test_an_adapter_starts_as_nothing_and_alone_is_trained(tiny, ids):
    model = adapted(tiny)
    assert torch.equal(logits_of(model, ids), logits_of(tiny.Model(), ids))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {
        f"{layer}.lora_{part}.default.weight" for layer in ("qkv", "mix") for part in "AB"
    }
    assert adapters_of(model) == CONFIG and adapters_of(tiny.Model()) is None


def test_the_generator_decides_the_start(tiny):
    one, same, other = adapted(tiny), adapted(tiny), adapted(tiny, seed=2)
    assert torch.equal(one.qkv.lora_A.default.weight, same.qkv.lora_A.default.weight)
    assert not torch.equal(one.qkv.lora_A.default.weight, other.qkv.lora_A.default.weight)
    bound = (3 / (16 * 3)) ** 0.5  # Kaiming's for a = sqrt(5): 1 / sqrt(inputs)
    assert one.qkv.lora_A.default.weight.abs().max() <= bound


def test_what_is_added_is_the_product_by_alpha_over_rank(tiny, ids):
    model = stir(adapted(tiny))
    plain = tiny.Model()
    with torch.no_grad():
        for name in ("qkv", "mix"):
            layer = model.get_submodule(name)
            product = layer.lora_B.default.weight @ layer.lora_A.default.weight
            plain.get_submodule(name).weight += 8.0 / 4 * product
    torch.testing.assert_close(logits_of(model, ids), logits_of(plain, ids), rtol=0, atol=1e-5)
    merge_adapters(model)
    torch.testing.assert_close(logits_of(model, ids), logits_of(plain, ids), rtol=0, atol=1e-6)
    assert model.state_dict().keys() == tiny.Model().state_dict().keys()
    assert type(model.qkv) is nn.Linear and adapters_of(model) is None


def test_merged_weights_leave_the_model_as_it_is(tiny, ids):
    model = stir(adapted(tiny))
    before = logits_of(model, ids)
    weights = merged_weights(model)
    for value in weights.values():
        value.zero_()
    assert torch.equal(logits_of(model, ids), before)
    weights, merged = merged_weights(model), copy.deepcopy(model)
    merge_adapters(merged)
    assert all(torch.equal(weights[name], value) for name, value in merged.state_dict().items())


def test_a_base_in_bfloat16_is_rounded_once_and_merged_in_float32(tiny, ids):
    model = adapted(tiny, LoraConfig(rank=4, targets=("qkv", "mix"), bfloat16_base=True))
    kinds = {name: p.dtype for name, p in model.named_parameters()}
    assert {kind for name, kind in kinds.items() if "lora" in name} == {torch.float32}
    assert {kind for name, kind in kinds.items() if "lora" not in name} == {torch.bfloat16}
    stir(model)
    weights = merged_weights(model)
    layer = model.qkv
    wanted = tiny.Model().qkv.weight.bfloat16().float() + layer.get_delta_weight("default")
    torch.testing.assert_close(weights["qkv.weight"], wanted, rtol=0, atol=0)
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert next_token_loss(model.hidden(ids[:, :-1]), ids[:, 1:], model.head).isfinite()


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_adapters_learn_and_nothing_else_moves(tiny, ids, name):
    model = adapted(tiny)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    optimizer = build_optimizer(model, OptimConfig(name=name, lr=0.02, weight_decay=0.0))
    losses = []
    with torch.compiler.set_stance("force_eager"):
        for _ in range(60):
            loss = next_token_loss(model.hidden(ids[:, :-1]), ids[:, 1:], model.head)
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    for name, weight in model.named_parameters():
        assert weight.requires_grad or torch.equal(weight, frozen[name])


def test_muon_is_not_for_factors_of_a_product(tiny):
    with pytest.raises(ValueError, match="optim.name: wanted adamw or adamw8bit for adapters"):
        build_optimizer(adapted(tiny), OptimConfig(name="muon"))


@pytest.mark.parametrize("target", ["token_embedding", "kv", "qkv.weight"])
def test_a_target_that_is_no_linear_layer_is_named(tiny, target):
    with pytest.raises(ValueError, match=rf"targets: wanted .*\['mix', 'qkv'\], got '{target}'"):
        add_adapters(tiny.Model(), LoraConfig(targets=("qkv", target)))


def test_adapters_are_added_and_merged_once(tiny):
    model = adapted(tiny)
    with pytest.raises(ValueError, match="model: wanted one without adapters"):
        add_adapters(model, CONFIG)
    merge_adapters(model)
    for function in (merge_adapters, merged_weights):
        with pytest.raises(ValueError, match="model: wanted adapters in it, got none"):
            function(model)
    add_adapters(model, CONFIG)  # a merged model is a plain one


def test_without_peft_the_error_says_what_to_install(tiny, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "peft":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    model = tiny.Model()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "cm3-train\[lora\]"'):
        add_adapters(model, CONFIG)
    assert all(p.requires_grad for p in model.parameters())


def batches(tiny, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(3):
        ids = torch.randint(8, tiny.vocab_size, (4, 13), generator=generator)
        yield {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}


class Batches:
    """A loader that is no list, and has the state of a loader."""

    def __init__(self, tiny):
        self.batches, self.at = list(batches(tiny)), 0

    def __iter__(self):
        while self.at < 100:
            self.at += 1
            yield self.batches[(self.at - 1) % 3]

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Killed(Exception):
    pass


def run(tiny, folder, kill_at=None, base=None, lora=CONFIG, **optim):
    model = tiny.Model() if base is None else base
    add_adapters(model, lora, torch.Generator().manual_seed(1))

    class Module(CM3Module):
        def training_step(self, batch, batch_idx):
            if batch_idx == kill_at:
                raise Killed
            return super().training_step(batch, batch_idx)

    config = OptimConfig(**{"lr": 0.01, "total_steps": 8, "ema_decay": 0.9, **optim})
    module = Module(model, config, tiny.image_range)
    best = fit(
        module,
        Batches(tiny),
        Batches(tiny),
        run_dir=folder,
        max_steps=8,
        val_every=4,
        checkpoint_every=2,
        log_every=1,
        accelerator="cpu",
    )
    return module, best


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_a_killed_run_ends_as_the_unbroken_one(tiny, tmp_path, name):
    big = LoraConfig(rank=256, targets=("qkv", "mix"))  # enough numbers for states of 8 bits
    with torch.compiler.set_stance("force_eager"):
        module, _ = run(tiny, tmp_path / "unbroken", lora=big, name=name)
        with pytest.raises(Killed):
            run(tiny, tmp_path / "killed", kill_at=5, lora=big, name=name)
        resumed, _ = run(tiny, tmp_path / "killed", lora=big, name=name)
    assert module.model.qkv.lora_B.default.weight.abs().sum() > 0
    wanted, got = module.state_dict(), resumed.state_dict()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted | got)


def test_a_checkpoint_holds_adapters_and_the_hash_of_the_rest(tiny, tmp_path):
    module, _ = run(tiny, tmp_path)
    saved = AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")
    names = [name for name in saved["state_dict"] if name != "averaged.n_averaged"]
    assert len(names) == 8 and all(".lora_" in name for name in names)  # model's and averaged ones
    assert len(saved["frozen_weights_sha256"]) == 64
    model = tiny.Model()
    add_adapters(model, CONFIG)
    other = CM3Module(model, module.optim, tiny.image_range)
    load_weights(other, tmp_path / "last.ckpt")
    wanted, got = module.export_state(), other.export_state()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted | got)


def test_a_run_does_not_go_on_with_another_base_or_rank(tiny, tmp_path):
    with pytest.raises(Killed):
        run(tiny, tmp_path, kill_at=5)
    other = tiny.Model()
    with torch.no_grad():
        other.gain[0] += 1e-3
    with pytest.raises(ValueError, match="frozen weights: wanted those that the run began with"):
        run(tiny, tmp_path, base=other)
    with pytest.raises(ValueError, match=r"lora .*'rank': 4.* \(now .*'rank': 2"):
        run(tiny, tmp_path, lora=LoraConfig(rank=2, alpha=8.0, targets=("qkv", "mix")))


def test_the_averaged_model_shares_what_is_frozen_and_is_exported_merged(tiny, ids):
    model = adapted(tiny)
    module = CM3Module(model, OptimConfig(ema_decay=0.5), tiny.image_range)
    kept = module.kept_model
    for (name, mine), other in zip(kept.named_parameters(), model.parameters(), strict=True):
        assert (mine is other) == (".lora_" not in name)
    module.averaged.update_parameters(model)
    stir(model)
    module.averaged.update_parameters(model)
    half = 1 - 2 / 11  # the second update's share of the new weights
    added = kept.mix.lora_B.default.weight
    torch.testing.assert_close(added, half * model.mix.lora_B.default.weight)
    plain = tiny.Model()
    plain.load_state_dict(module.export_state())
    torch.testing.assert_close(logits_of(plain, ids), logits_of(kept, ids), rtol=0, atol=1e-5)


def test_a_model_that_is_split_is_refused(tiny):
    module = CM3Module(adapted(tiny), OptimConfig(), tiny.image_range, shard=lambda *_: None)
    module._device_mesh = object()  # as Lightning sets it
    with pytest.raises(ValueError, match="strategy: wanted one that leaves a model with frozen"):
        module.configure_model()
