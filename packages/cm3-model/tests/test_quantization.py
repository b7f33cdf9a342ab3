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
