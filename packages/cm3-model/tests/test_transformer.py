import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cm3_model import Decoder, DecoderConfig


def numpy_logits(model, ids):
    """The decoder once more, in NumPy float64: one row, one head, one query at a time."""
    config = model.config
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}

    def standard(x, eps=config.norm_eps):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)

    def norm(x, name):
        if config.norm == "layer":
            return standard(x)
        mean_square = (x**2).mean(-1, keepdims=True)
        return x / np.sqrt(mean_square + config.norm_eps) * weights[name + ".weight"]

    def head_norm(x, name, head):
        x = standard(x, config.qk_norm_eps)
        if not config.qk_norm_affine:
            return x
        return x * weights[name + ".weight"][head] + weights[name + ".bias"][head]

    def gelu(x):
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    places, run = [], 0  # how many codes end here
    for one in ids:
        run = run + 1 if config.image_ids and one in range(*config.image_ids) else 0
        places.append(run)

    def turn(x):  # (T, W): channels (0, 1), (2, 3), ... by position / 10000^(pair / W)
        out = np.empty_like(x)
        for t in range(x.shape[0]):
            for c in range(0, x.shape[1], 2):
                by_place = config.positions == "rotary-places" and c % 4 == 0
                angle = (places[t] if by_place else t) / config.rotary_theta ** (c / x.shape[1])
                cos, sin = math.cos(angle), math.sin(angle)
                out[t, c] = x[t, c] * cos - x[t, c + 1] * sin
                out[t, c + 1] = x[t, c] * sin + x[t, c + 1] * cos
        return out

    x = weights["token_embedding.weight"][ids]
    if config.positions == "learned":
        x = x + weights["position_embedding.weight"][: len(ids)]
    size = config.width // config.num_heads
    groups = config.num_heads // config.kv_heads
    first = config.norm_placement == "before"
    for layer in range(config.num_layers):
        block = f"blocks.{layer}."
        inner = norm(x, block + "attention_norm") if first else x
        sizes = np.cumsum([config.num_heads * size, config.kv_heads * size])
        query, key, value = np.split(inner.dot(weights[block + "attention.qkv.weight"].T), sizes, 1)
        mixed = np.zeros_like(x)
        for head in range(config.num_heads):
            part = slice(head * size, (head + 1) * size)
            shared = slice(head // groups * size, (head // groups + 1) * size)
            q, k, v = query[:, part], key[:, shared], value[:, shared]
            if config.qk_norm:
                q = head_norm(q, block + "attention.query_norm", head)
                k = head_norm(k, block + "attention.key_norm", head // groups)
            if config.positions != "learned":
                q, k = turn(q), turn(k)
            for t in range(len(ids)):
                scores = np.exp(k[: t + 1].dot(q[t]) / math.sqrt(size))
                mixed[t, part] = scores.dot(v[: t + 1]) / scores.sum()
        added = mixed.dot(weights[block + "attention.out.weight"].T)
        x = x + (added if first else norm(added, block + "attention_norm"))
        inner = norm(x, block + "mlp_norm") if first else x
        inner = inner.dot(weights[block + "mlp.up.weight"].T)
        if config.activation == "swiglu":
            gate, up = np.split(inner, 2, -1)
            inner = gate / (1 + np.exp(-gate)) * up
        else:
            inner = gelu(inner) if config.activation == "gelu" else np.maximum(inner, 0)
        added = inner.dot(weights[block + "mlp.down.weight"].T)
        x = x + (added if first else norm(added, block + "mlp_norm"))
    output = "token_embedding.weight" if config.tie_embeddings else "output.weight"
    return norm(x, "norm").dot(weights[output].T)


@torch.no_grad()
def test_logits_equal_numpy(decoder, ids):
    wanted = np.stack([numpy_logits(decoder, row) for row in ids.numpy()])
    np.testing.assert_allclose(decoder(ids).numpy(), wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_later_ids_do_not_matter(decoder, ids):
    changed = ids.clone()
    changed[:, 10:] = (changed[:, 10:] + 1) % 37
    before, after = decoder(ids), decoder(changed)
    torch.testing.assert_close(before[:, :10], after[:, :10])
    assert not torch.allclose(before[:, 10:], after[:, 10:])


@torch.no_grad()
def test_cached_logits_equal_uncached(decoder, ids):
    wanted = decoder(ids)
    rows, lengths = torch.arange(3), torch.tensor([4, 9, 7])
    cache = decoder.make_cache(3, 24)
    got = decoder.prefill(ids[:, :9], lengths, cache)
    torch.testing.assert_close(got, wanted[rows, lengths - 1], rtol=1e-4, atol=1e-4)
    while lengths.max() < 24:
        got = decoder.decode_one_token(ids[rows, lengths], cache)
        torch.testing.assert_close(got, wanted[rows, lengths], rtol=1e-4, atol=1e-4)
        lengths = lengths + 1


@torch.no_grad()
def test_a_second_prefill_appends(decoder, ids):
    wanted = decoder(ids)
    rows, lengths = torch.arange(3), torch.tensor([4, 19, 7])
    cache = decoder.make_cache(3, 20)
    decoder.prefill(ids[:, :19], lengths, cache)
    more = torch.tensor([3, 1, 2])  # row 1 fills its last slot, its padding lies outside
    columns = (lengths[:, None] + torch.arange(3)).clamp(max=23)
    got = decoder.prefill(ids[rows[:, None], columns], more, cache)
    torch.testing.assert_close(got, wanted[rows, lengths + more - 1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("span", [(0, 37), (5, 30)])
def test_ids_that_turn_out_wrong_are_forgotten(decoder, ids, span):
    lengths = torch.tensor([4, 6, 2])
    cache = decoder.make_cache(3, 12)
    decoder.prefill(ids[:, :6], lengths, cache)
    rows, wrong = torch.arange(3)[:, None], torch.tensor([1, 3, 0])
    new = ids[rows, lengths[:, None] + torch.arange(4)]
    guessed = torch.where(torch.arange(4) >= 4 - wrong[:, None], (new + 1) % 37, new)
    got = decoder.decode_several(guessed, cache, *span)
    cache.forget(wrong)
    again = decoder.decode_several(new[rows, (4 - wrong[:, None]) % 4], cache, *span)
    assert cache.lengths.tolist() == [8, 8, 7]
    for row, (length, number) in enumerate(zip(lengths.tolist(), wrong.tolist(), strict=True)):
        right = 4 - number
        text = [*ids[row, :length].tolist(), *new[row, :right].tolist()]
        wanted = decoder(torch.tensor([text]))[0, length:, slice(*span)]
        torch.testing.assert_close(got[row, :right], wanted, rtol=1e-4, atol=1e-4)
        text.append(int(new[row, right % 4]))
        wanted = decoder(torch.tensor([text]))[0, -1, slice(*span)]
        torch.testing.assert_close(again[row, 0], wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="wanted room for 13"):
        decoder.decode_several(ids[:, :5], cache, *span)


@torch.no_grad()
def test_a_row_does_not_see_the_others_nor_its_padding(paper_decoder, ids):
    lengths = torch.tensor([4, 9, 7])
    padded = ids[:, :9].clone()
    padded[0, 4:] = 36
    cache = paper_decoder.make_cache(3, 12)
    together = paper_decoder.prefill(padded, lengths, cache)
    together = torch.stack([together, paper_decoder.decode_one_token(ids[:, 0], cache)])
    for row in range(3):
        cache = paper_decoder.make_cache(1, 12)
        prompt = ids[row : row + 1, : lengths[row]]
        alone = paper_decoder.prefill(prompt, lengths[row : row + 1], cache)
        alone = torch.stack([alone, paper_decoder.decode_one_token(ids[row : row + 1, 0], cache)])
        torch.testing.assert_close(together[:, row], alone[:, 0], rtol=1e-4, atol=1e-4)


def test_start_values_have_the_papers_statistics():
    config = DecoderConfig(
        vocab_size=3000, max_length=400, num_layers=2, width=64, num_heads=4, tie_embeddings=False
    )
    model = Decoder(config, torch.Generator().manual_seed(0))
    # Cutting a normal at 3 standard deviations leaves sqrt(1 - 6 phi(3) / (2 Phi(3) - 1)) of one.
    cut = math.sqrt(1 - 6 * math.exp(-4.5) / math.sqrt(2 * math.pi) / math.erf(3 / math.sqrt(2)))
    for name, weight in model.state_dict().items():
        std = 0.0002 if "position" in name else 0.006
        if name.endswith(("out.weight", "down.weight")):
            assert weight.count_nonzero() == 0, name
            continue
        assert weight.abs().max() <= 3 * std, name
        assert weight.mean().abs() < 5 * std / math.sqrt(weight.numel()), name
        assert float(weight.std()) / (cut * std) == pytest.approx(1, abs=0.02), name


def test_a_generator_decides_the_start_values():
    config = DecoderConfig(vocab_size=9, max_length=4, num_layers=1, width=8, num_heads=2)
    one, two, other = (Decoder(config, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(one.token_embedding.weight, two.token_embedding.weight)
    assert not torch.equal(one.token_embedding.weight, other.token_embedding.weight)


def test_every_parameter_is_a_matrix_and_learns(ids):
    config = DecoderConfig(
        vocab_size=37, max_length=24, num_layers=2, width=24, num_heads=3, init_std=0.1
    )
    model = Decoder(config, torch.Generator().manual_seed(0))
    assert all(weight.ndim == 2 for weight in model.parameters())
    assert not list(model.buffers())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for _ in range(2):  # the first step moves the zero projections, the second what is behind them
        loss = torch.nn.functional.cross_entropy(
            model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, weight in model.named_parameters():
        assert not torch.equal(weight, start[name]), name


@torch.no_grad()
def test_head_takes_chosen_positions(decoder, ids):
    chosen = decoder.hidden(ids)[:, 3:5]
    torch.testing.assert_close(decoder.head(chosen), decoder(ids)[:, 3:5])


@torch.no_grad()
def test_bfloat16_is_near_float32(paper_decoder, ids):
    wanted = paper_decoder(ids).softmax(-1)
    half = paper_decoder.bfloat16()
    cache = half.make_cache(3, 24)
    got = half.prefill(ids, torch.tensor([24, 10, 3]), cache)
    assert (got.dtype, cache.keys.dtype) == (torch.bfloat16, torch.float32)
    assert (got.float().softmax(-1) - wanted[torch.arange(3), [23, 9, 2]]).abs().max() < 0.1


@torch.no_grad()
def test_decoding_works_under_autocast(paper_decoder, ids):
    cache = paper_decoder.make_cache(3, 24)
    with torch.autocast("cpu", torch.bfloat16):
        paper_decoder.prefill(ids[:, :5], torch.tensor([5, 2, 3]), cache)
        got = paper_decoder.decode_one_token(ids[:, 5], cache)
    wanted = paper_decoder(ids[:1, :6])[0, -1]
    assert (got[0].float().softmax(-1) - wanted.softmax(-1)).abs().max() < 0.1


def test_bad_input_is_named(paper_decoder, ids):
    def prefill(input_ids=ids, lengths=(24, 3, 2), room=24, rows=3):
        paper_decoder.prefill(
            input_ids, torch.tensor(lengths), paper_decoder.make_cache(rows, room)
        )

    wrong = ids.clone()
    wrong[1, 3] = 37
    with pytest.raises(ValueError, match="input_ids: wanted ids from 0 to 36, got 37"):
        paper_decoder(wrong)
    with pytest.raises(ValueError, match="input_ids: wanted ids from 0 to 36, got 37"):
        prefill(wrong)
    with pytest.raises(ValueError, match="got -1"):
        paper_decoder(ids - ids.min() - 1)
    with pytest.raises(ValueError, match="max_length = 24 tokens, got 48"):
        paper_decoder(torch.cat([ids, ids], 1))
    with pytest.raises(ValueError, match=r"wanted \(B, T\) ids, got \(24,\)"):
        paper_decoder(ids[0])
    with pytest.raises(ValueError, match="length: wanted at most max_length = 24, got 25"):
        prefill(room=25)
    with pytest.raises(ValueError, match="cache: wanted room for 24 tokens .* got 20"):
        prefill(room=20)
    with pytest.raises(ValueError, match="input_ids: wanted 2 rows, got 3"):
        prefill(rows=2)
    for lengths in ((0, 1, 1), (25, 1, 1), (1, 1)):
        with pytest.raises(ValueError, match="lengths: wanted 3 numbers from 1 to 24"):
            prefill(lengths=lengths)


@torch.no_grad()
def test_packed_documents_read_as_if_alone(decoder, ids):
    documents = torch.tensor([[0] * 5 + [1] * 12 + [0] * 7] * 3)
    packed = decoder(ids, documents)
    for start, end in ((0, 5), (5, 17), (17, 24)):
        torch.testing.assert_close(
            packed[:, start:end], decoder(ids[:, start:end]), rtol=1e-4, atol=1e-4
        )
    with pytest.raises(ValueError, match="documents: wanted one number per id"):
        decoder(ids, documents[:1])


@pytest.mark.parametrize("mode", ["full", "selective"])
def test_checkpointing_changes_no_gradient(decoder, ids, mode):
    def gradients():
        decoder.zero_grad()
        decoder(ids).square().mean().backward()
        return [weight.grad.clone() for weight in decoder.parameters() if weight.grad is not None]

    decoder.train()
    wanted = gradients()
    decoder.activation_checkpointing = mode
    assert decoder.activation_checkpointing == mode
    assert all(map(torch.equal, gradients(), wanted))
    with pytest.raises(ValueError, match="activation_checkpointing: wanted one of .* got True"):
        decoder.activation_checkpointing = True


def test_checkpointing_trades_memory_for_products():
    """Counted: what autograd saves, and the operations of products in backward."""
    config = DecoderConfig(
        vocab_size=50, max_length=64, num_layers=4, width=32, num_heads=4, activation="relu"
    )
    model = Decoder(config, torch.Generator().manual_seed(0)).train()
    ids = torch.randint(50, (2, 64), generator=torch.Generator().manual_seed(1))
    kept, operations = {}, {}
    for mode in ("none", "selective", "full"):
        model.activation_checkpointing = mode
        saved: dict[int, int] = {}

        def keep(tensor, saved=saved):
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(ids).float().square().mean()
        for weight in model.parameters():
            saved.pop(weight.untyped_storage().data_ptr(), None)
        kept[mode] = sum(saved.values())
        with FlopCounterMode(display=False) as counter:
            loss.backward()
        operations[mode] = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    # float32: 4 bytes for each of a layer's tokens and channels
    unit = 4 * config.num_layers * config.width * ids.numel()
    # the normed input and the widened states are left out, then all but the block's input
    assert kept["none"] - kept["selective"] == pytest.approx(5 * unit, rel=0.05)
    assert kept["selective"] - kept["full"] == pytest.approx(6 * unit, rel=0.05)
    product = 2 * config.num_layers * config.width**2 * ids.numel()
    # no backward needs the result of mlp.down, so it is never computed again
    assert operations["selective"] - operations["none"] == 4 * product
    assert operations["full"] - operations["none"] == (3 + 1 + 4) * product


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own
@pytest.mark.parametrize("mode", ["none", "full", "selective"])
def test_compiled_blocks_have_the_same_gradients(mode):
    config = DecoderConfig(vocab_size=50, max_length=32, num_layers=3, width=32, num_heads=4)
    model = Decoder(config, torch.Generator().manual_seed(0)).train()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(2))
    ids = torch.randint(50, (2, 32), generator=torch.Generator().manual_seed(1))

    def gradients():
        model.zero_grad()
        model(ids).square().mean().backward()
        return [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]

    wanted = gradients()
    model.activation_checkpointing = mode
    names = list(model.state_dict())
    model.compile_blocks()
    assert list(model.state_dict()) == names
    torch._dynamo.utils.counters.clear()
    for mine, other in zip(gradients(), wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # of all three blocks


def test_norms_start_as_1_and_0():
    config = DecoderConfig(
        vocab_size=9, max_length=4, num_layers=1, width=8, num_heads=2, norm="rms",
        qk_norm=True, qk_norm_affine=True,
    )  # fmt: skip
    model = Decoder(config, torch.Generator().manual_seed(0))
    for name, weight in model.named_parameters():
        if name.endswith("norm.weight"):
            assert bool((weight == 1).all()), name
        if name.endswith("norm.bias"):
            assert bool((weight == 0).all()), name
