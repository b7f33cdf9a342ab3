import copy

import pytest
import torch

from cm3_model import (
    CheckpointError,
    export_chameleon,
    load_decoder,
    pack_weights,
    quantize_int8,
    save_decoder,
)
from cm3_model.config import CHAMELEON_PARTS
from cm3_model.contract import check_language_model
from cm3_model.quantization import Int8Linear


def test_no_weight_moves_by_more_than_half_a_step(decoder):
    for name, linear in decoder.requires_grad_(False).blocks.named_modules():
        if not isinstance(linear, torch.nn.Linear):
            continue
        rounded = Int8Linear(linear)
        back = rounded.weight * rounded.scale[:, None]
        off = (back - linear.weight).abs() / rounded.scale[:, None]
        assert float(off.max()) <= 0.5 + 1e-3, name


@torch.no_grad()
def test_logits_are_those_of_the_rounded_weights(decoder, ids):
    rounded = copy.deepcopy(decoder)
    for linear in rounded.blocks.modules():
        if isinstance(linear, torch.nn.Linear):
            kept = Int8Linear(linear)
            linear.weight.copy_(kept.weight * kept.scale[:, None])
    before = decoder(ids)
    quantized = quantize_int8(decoder)
    torch.testing.assert_close(quantized(ids), rounded(ids), rtol=1e-3, atol=1e-3)
    assert not torch.equal(quantized(ids), before)
    check_language_model(quantized, tolerance=1e-3)


def test_the_blocks_take_a_quarter_of_the_memory(decoder):
    def size():
        matrices = [*decoder.blocks.parameters(), *decoder.blocks.buffers()]
        return sum(matrix.nbytes for matrix in matrices if matrix.numel() > 100)

    before = size()
    assert size() == before
    quantize_int8(decoder)
    assert size() < 0.3 * before


def test_a_row_of_zeros_stays_zero():
    linear = torch.nn.Linear(4, 2, bias=False)
    linear.weight.data[0] = 0
    out = Int8Linear(linear)(torch.ones(1, 4))
    assert out[0, 0] == 0
    assert bool(out.isfinite().all())


@pytest.mark.parametrize("parts", [{}, {"tie_embeddings": False}, CHAMELEON_PARTS], ids=str)
def test_int8_weights_are_not_saved_and_nothing_earlier_is_lost(make, ids, tmp_path, parts):
    model = make(**parts)
    save_decoder(model, tmp_path)
    wanted = model(ids)
    quantize_int8(model)
    for save in (save_decoder, export_chameleon):
        with pytest.raises(CheckpointError, match="weight, got torch.int8; save before quantize"):
            save(model, tmp_path)
    assert torch.equal(load_decoder(tmp_path)(ids), wanted)


@torch.no_grad()
def test_copies_and_packed_decoders_are_rounded_alike(make, ids):
    wanted = quantize_int8(make())
    packed = quantize_int8(pack_weights(make(), 2))
    assert sum(isinstance(module, Int8Linear) for module in packed.modules()) == 8
    for model in (copy.deepcopy(wanted), packed):
        torch.testing.assert_close(model(ids), wanted(ids))
    model = copy.deepcopy(wanted)
    other = make(init_std=0.02)
    for weight in other.parameters():
        weight.data.mul_(-0.5)
    model.load_state_dict(quantize_int8(other).state_dict())
    torch.testing.assert_close(model(ids), other(ids))


def close_to_plain(linear, x, dtype, autocast):
    quantized = Int8Linear(linear)
    plain = torch.nn.Linear(*linear.weight.shape[::-1], bias=False).requires_grad_(False)
    plain.weight.copy_(quantized.weight * quantized.scale[:, None])
    wanted = plain(x)
    if autocast:
        with torch.autocast("cpu", dtype):
            found = quantized(x)
    else:
        found = quantized.to(dtype)(x.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, rtol=2e-2, atol=2e-2 * wanted.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("outlier", [1.0, 600.0, 3e4])
def test_large_activations_do_not_overflow(dtype, autocast, outlier):
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(64, 32, bias=False)
    linear.weight.normal_(0, 0.02, generator=generator)
    x = torch.randn(3, 64, generator=generator)
    x[0, 5] = outlier
    close_to_plain(linear, x, dtype, autocast)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [1e-3, 1e-5, 3e-6])
def test_small_rows_keep_their_scale(dtype, size):
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(64, 32, bias=False)
    linear.weight.normal_(0, size, generator=generator)
    x = torch.randn(3, 64, generator=generator)
    close_to_plain(linear, x * 100, dtype, False)
    layer = Int8Linear(linear.to(dtype)).to(dtype).to(torch.float32)
    assert layer.scale.dtype == torch.float32
    torch.testing.assert_close(layer.scale * 127, linear.weight.float().abs().amax(1))
