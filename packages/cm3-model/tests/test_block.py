import pytest
import torch

from cm3_model import DecoderConfig
from cm3_model.attention import rotary_angles
from cm3_model.block import MLP, Block, HeadNorm, Norm, head_norm
from cm3_model.config import CHAMELEON_PARTS

SHAPE = {"vocab_size": 9, "max_length": 4, "num_layers": 1, "width": 12, "num_heads": 3}


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def with_random_weights(module):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(generator=generator)
    return module


def test_the_papers_norm_learns_nothing():
    norm, x = Norm(DecoderConfig(**SHAPE)), drawn(2, 4, 12)
    assert not list(norm.parameters())
    wanted = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), wanted)


def test_rms_norm_is_its_formula():
    norm = with_random_weights(Norm(DecoderConfig(**SHAPE, norm="rms", norm_eps=1e-3)))
    x = drawn(2, 4, 12)
    wanted = x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), wanted)


def test_each_head_has_its_own_scale_and_shift():
    config = DecoderConfig(**SHAPE, qk_norm=True, qk_norm_affine=True)
    queries, keys = (with_random_weights(HeadNorm(config, heads)) for heads in (3, 1))
    x = drawn(2, 4, 5, 4)
    got = head_norm(x, queries, keys)
    for head in range(4):
        part, at = (queries, head) if head < 3 else (keys, 0)
        normed = torch.nn.functional.layer_norm(x[:, head], (4,))
        torch.testing.assert_close(got[:, head], normed * part.weight[at] + part.bias[at])


def test_swiglu_gates_the_second_half():
    mlp = with_random_weights(MLP(DecoderConfig(**SHAPE, activation="swiglu", mlp_width=5)))
    x = drawn(2, 12)
    gate, up = mlp.up.weight.split(5)
    wanted = (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ mlp.down.weight.T
    torch.testing.assert_close(mlp(x), wanted)


def test_a_block_that_writes_nothing_is_the_identity():
    for parts in ({}, CHAMELEON_PARTS | {"positions": "learned"}, {"norm_placement": "after"}):
        block = with_random_weights(Block(DecoderConfig(**SHAPE | parts), 0))
        with torch.no_grad():
            block.attention.out.weight.zero_()
            block.mlp.down.weight.zero_()
        x = drawn(2, 4, 12)
        torch.testing.assert_close(block(x, None, None), x)


@pytest.mark.parametrize("affine", [False, True])
def test_under_autocast_normed_heads_have_the_format_of_values(affine):
    """Else attention would get queries and keys in float32 beside values in bfloat16."""
    config = DecoderConfig(
        vocab_size=9, max_length=8, num_layers=1, width=24, num_heads=3, qk_norm=True,
        qk_norm_affine=affine, positions="rotary",
    )  # fmt: skip
    block = Block(config, 0).train()
    with torch.no_grad():
        for weight in block.parameters():
            weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 8, 24, generator=torch.Generator().manual_seed(1))
    rotation = rotary_angles(torch.arange(8), 8)
    norms = [block.attention.query_norm, block.attention.key_norm]
    heads = torch.ones(2, 6, 8, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert head_norm(heads, *norms).dtype == torch.bfloat16
        got = block(x, rotation, None, None)
    got.sum().backward()
    with torch.no_grad():
        wanted = block(x, rotation, None, None)
    assert (got.float() - wanted).abs().max() < 0.05 * wanted.abs().max()
