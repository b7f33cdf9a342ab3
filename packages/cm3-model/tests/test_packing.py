import copy
import pickle

import pytest
import torch

from cm3_model import pack_weights
from cm3_model.packing import PackedLinear, can_pack, fastest

packable = pytest.mark.skipif(not can_pack(torch.float32), reason="this PyTorch has no oneDNN")


@pytest.mark.parametrize("rows", [1, 4, 16])
@pytest.mark.parametrize("way", ["plain", "reversed", pytest.param("packed", marks=packable)])
def test_a_layer_is_right_for_any_number_of_rows(rows, way):
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(48, 80, bias=False)
    packed = PackedLinear(linear, 4, way)
    x = torch.randn(rows, 1, 48, generator=generator)
    assert packed(x).shape == (rows, 1, 80)
    assert packed(x).is_contiguous()
    torch.testing.assert_close(packed(x), linear(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("way", ["plain", "reversed", pytest.param("packed", marks=packable)])
def test_some_outputs_alone_follow_the_weights(way):
    generator = torch.Generator().manual_seed(0)
    packed = PackedLinear(torch.nn.Linear(48, 80, bias=False), 4, way)
    x = torch.randn(4, 48, generator=generator)

    def check(layer, start, stop):
        wanted = (x @ layer.weight.T)[:, start:stop]
        torch.testing.assert_close(layer.span(x, start, stop), wanted, rtol=1e-5, atol=1e-5)

    check(packed, 8, 72)
    check(packed, 0, 16)
    packed.weight.mul_(2)
    check(packed, 0, 16)
    packed.load_state_dict({"weight": torch.randn(80, 48, generator=generator)})
    check(packed, 0, 16)
    packed.weight = torch.nn.Parameter(torch.randn(80, 48, generator=generator))
    check(packed, 0, 16)
    assert list(packed.state_dict()) == ["weight"]
    for other in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        check(other, 0, 16)
    check(packed.double().float(), 0, 16)


@packable
@torch.no_grad()
def test_a_few_spans_are_kept_ready_and_let_go_with_their_weights():
    packed = PackedLinear(torch.nn.Linear(48, 80, bias=False), 4)
    x = torch.randn(4, 48, generator=torch.Generator().manual_seed(0))
    for start in (0, 5, 0, 5, 10, 15, 20, 25, 30):
        wanted = packed(x)[:, start : start + 40]
        torch.testing.assert_close(packed.span(x, start, start + 40), wanted)
        torch.testing.assert_close(packed.span(x, 0, 79), packed(x)[:, :79])  # nearly all
    assert list(packed._spans) == [(0, 40), (5, 45), (10, 50), (15, 55)]
    packed.to(torch.bfloat16)
    assert not packed._spans


@torch.no_grad()
def test_weights_loaded_in_inference_mode_are_those_of_a_span():
    with torch.inference_mode():
        packed = PackedLinear(torch.nn.Linear(48, 80, bias=False), 4)
        x, other = torch.ones(4, 48), torch.randn(80, 48)
        packed.span(x, 0, 16)
        packed.load_state_dict({"weight": other})
        torch.testing.assert_close(packed.span(x, 0, 16), (x @ other.T)[:, :16])


class Doubled(torch.nn.Module):
    """What adapters do: a layer with the weight of the one below it, and more."""

    def __init__(self, linear):
        super().__init__()
        self.weight = linear.weight

    def forward(self, x):
        return 2 * torch.nn.functional.linear(x, self.weight)


@torch.no_grad()
def test_a_span_goes_through_whatever_stands_for_the_output(make, ids):
    model = make(tie_embeddings=False)
    model.output = Doubled(model.output)
    found = []
    for span in (None, (5, 30)):
        cache = model.make_cache(3, 12)
        model.prefill(ids[:, :9], torch.tensor([4, 9, 7]), cache)
        step = (ids[:, 9], cache)
        found.append(model.decode_span(*step, *span) if span else model.decode_one_token(*step))
    torch.testing.assert_close(found[1], found[0][:, 5:30], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("way", ["plain", "reversed", pytest.param("packed", marks=packable)])
def test_a_tied_head_follows_the_embedding(make, ids, way, monkeypatch):
    monkeypatch.setattr("cm3_model.packing.WAYS", {"cpu": (way,)})

    def logits(model, span=(5, 30)):
        cache = model.make_cache(3, 12)
        model.prefill(ids[:, :9], torch.tensor([4, 9, 7]), cache)
        return model.decode_span(ids[:, 9], cache, *span)

    plain, packed = make(), pack_weights(make(), 3)
    names = list(plain.state_dict())
    assert packed.packed_head[0].way == way and list(packed.state_dict()) == names
    torch.testing.assert_close(logits(packed), logits(plain), rtol=1e-4, atol=1e-4)
    twin = copy.deepcopy(packed)
    assert twin.packed_head[0].weight is twin.token_embedding.weight
    weights = {name: value * -0.5 for name, value in plain.state_dict().items()}
    plain.load_state_dict(weights)
    twin.load_state_dict(weights)
    torch.testing.assert_close(logits(twin), logits(plain), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(packed), logits(make()), rtol=1e-4, atol=1e-4)
    for span in ((0, 20), (1, 20), (2, 20), (3, 20), (4, 20), (5, 37)):  # more than are kept
        torch.testing.assert_close(logits(twin, span), logits(plain, span), rtol=1e-4, atol=1e-4)
    for other in (twin.double().float(), pickle.loads(pickle.dumps(twin))):
        torch.testing.assert_close(logits(other), logits(plain), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("rows", [None, 3])
def test_a_step_gives_the_logits_of_a_span(decoder, ids, rows):
    if rows:
        pack_weights(decoder, rows)
    logits = []
    for span in (None, (5, 30), (30, 31), (0, 37)):
        cache = decoder.make_cache(3, 12)
        decoder.prefill(ids[:, :9], torch.tensor([4, 9, 7]), cache)
        if span is None:
            logits.append(decoder.decode_one_token(ids[:, 9], cache))
            continue
        found = decoder.decode_span(ids[:, 9], cache, *span)
        torch.testing.assert_close(found, logits[0][:, slice(*span)], rtol=1e-4, atol=1e-4)
        assert cache.lengths.tolist() == [5, 10, 8]


@torch.no_grad()
def test_packing_changes_neither_logits_nor_what_is_saved(decoder, ids):
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    lengths, cache = torch.tensor([4, 9, 7]), decoder.make_cache(3, 12)
    decoder.prefill(ids[:, :9], lengths, cache)
    wanted = decoder.decode_one_token(ids[:, 9], cache)
    pack_weights(decoder, 3)
    wanted_layers = 8 if decoder.config.tie_embeddings else 9
    assert sum(isinstance(module, PackedLinear) for module in decoder.modules()) == wanted_layers
    cache = decoder.make_cache(3, 12)
    decoder.prefill(ids[:, :9], lengths, cache)
    got = decoder.decode_one_token(ids[:, 9], cache)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    after = decoder.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_what_cannot_be_packed_is_refused(paper_decoder):
    with pytest.raises(ValueError, match="rows: wanted at least 1, got 0"):
        pack_weights(paper_decoder, 0)
    with pytest.raises(
        ValueError,
        match="model: wanted float32 or bfloat16 on a CPU, or 16 bits on a CUDA device, got ",
    ):
        pack_weights(paper_decoder.double(), 2)


def test_the_fastest_way_is_taken_if_it_is_worth_it(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("cm3_model.packing.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("cm3_model.packing.can_pack", lambda dtype: False)
    costs = {"plain": 1.0, "reversed": 0.9}
    forward = PackedLinear.forward

    def costly(layer, x):
        clock[0] += costs[layer.way]
        return forward(layer, x)

    monkeypatch.setattr(PackedLinear, "forward", costly)
    linears = [torch.nn.Linear(8, 8, bias=False) for _ in range(3)]
    assert [layer.way for layer in fastest(linears, 2)] == ["plain"] * 3
    costs["reversed"] = 0.5
    chosen = fastest(linears, 2)
    assert [layer.way for layer in chosen] == ["reversed"] * 3
    for layer, linear in zip(chosen, linears, strict=True):
        assert layer.weight is linear.weight


def test_a_pytorch_without_onednn_takes_another_way(paper_decoder, monkeypatch):
    monkeypatch.setattr("cm3_model.packing.can_pack", lambda dtype: False)
    pack_weights(paper_decoder, 2)
    layers = [m for m in paper_decoder.modules() if isinstance(m, PackedLinear)]
    assert layers and all(layer.way in ("plain", "reversed") for layer in layers)


def test_packing_again_takes_the_new_number_of_rows(paper_decoder):
    pack_weights(pack_weights(paper_decoder, 2), 5)
    layers = [m for m in paper_decoder.modules() if isinstance(m, PackedLinear)]
    assert [layer.rows for layer in layers] == [5] * 8


WAYS = ["plain", "reversed", pytest.param("packed", marks=packable)]


@pytest.mark.parametrize("way", WAYS)
def test_changed_weights_are_the_ones_that_count(way):
    """Loaded, assigned, copied, pickled, moved to another format and back: for any rows."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.nn.Linear(48, 80, bias=False) for _ in range(2))
    x = {rows: torch.randn(rows, 1, 48, generator=generator) for rows in (1, 4, 16)}

    def check(layer, linear, tolerance=1e-5):
        for value in x.values():
            value = value.to(linear.weight.dtype)
            torch.testing.assert_close(layer(value), linear(value), rtol=tolerance, atol=tolerance)

    layer = PackedLinear(copy.deepcopy(first), 4, way)
    layer.load_state_dict(second.state_dict())
    check(layer, second)
    layer.load_state_dict(first.state_dict(), assign=True)
    check(layer, first)
    other = copy.deepcopy(layer)
    other.load_state_dict(second.state_dict())
    check(other, second)
    check(layer, first)
    check(pickle.loads(pickle.dumps(layer)), first)
    for dtype in (torch.bfloat16, torch.float64, torch.float32):
        layer.to(dtype)
        check(layer, copy.deepcopy(first).to(torch.bfloat16).to(dtype), 1e-2)


def assign_in_place(layer, value):
    layer.weight.copy_(value)


def assign_data(layer, value):
    layer.weight.data = value.clone()


def assign_parameter(layer, value):
    del layer.weight  # whose memory the new one may get
    layer.weight = torch.nn.Parameter(value.clone())


@pytest.mark.parametrize("rows", [1, 4, 16])
@pytest.mark.parametrize("change", [assign_in_place, assign_data, assign_parameter])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("way", WAYS)
def test_weights_changed_by_hand_are_the_ones_that_count(way, mode, change, rows):
    generator = torch.Generator().manual_seed(0)
    layer = PackedLinear(torch.nn.Linear(48, 80, bias=False), 4, way)
    x = torch.randn(rows, 1, 48, generator=generator)
    for _ in range(3):
        value = torch.randn(80, 48, generator=generator)
        with mode():
            change(layer, value)
            torch.testing.assert_close(layer(x), x @ value.T, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), x @ value.T, rtol=1e-4, atol=1e-4)


@packable
@torch.no_grad()
def test_weights_that_stay_are_packed_once(monkeypatch):
    layer, packed = PackedLinear(torch.nn.Linear(48, 80, bias=False), 4), []
    monkeypatch.setattr(PackedLinear, "_pack", packed.append)
    for rows in (1, 4, 4):
        layer(torch.ones(rows, 1, 48))
    assert not packed


@torch.no_grad()
def test_a_packed_decoder_is_loaded_copied_and_converted(paper_decoder, make, ids):
    weights = {name: value * -0.5 for name, value in paper_decoder.state_dict().items()}
    packed = pack_weights(paper_decoder, 3)
    twin = copy.deepcopy(packed)
    before = twin(ids[:, :1])
    packed.load_state_dict(weights)
    plain = make(max_length=24)
    plain.load_state_dict(weights)
    for length in (1, 5):
        torch.testing.assert_close(packed(ids[:, :length]), plain(ids[:, :length]))
    torch.testing.assert_close(twin(ids[:, :1]), before)
    half = copy.deepcopy(packed).to(torch.bfloat16)
    torch.testing.assert_close(half(ids), plain.to(torch.bfloat16)(ids), rtol=0.05, atol=0.05)
