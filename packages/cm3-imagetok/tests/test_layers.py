import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from cm3_imagetok.layers import Downsample, Encoder, ResBlock, SelfAttention, Upsample


def test_residual_branches_start_as_nothing(tiny):
    x = torch.randn(2, 8, 6, 6)
    for layer in (ResBlock(8, 8, tiny), SelfAttention(8, tiny)):
        torch.testing.assert_close(layer(x.clone()), x)


def test_attention_is_a_softmax_over_all_places(tiny):
    torch.manual_seed(0)
    layer = SelfAttention(8, tiny)
    torch.nn.init.normal_(layer.proj_out.weight)
    x = torch.randn(1, 8, 3, 5)
    normed = F.group_norm(x, 4, layer.norm.weight, layer.norm.bias, eps=1e-6)
    q, k, v = (part(normed).flatten(2)[0].T for part in (layer.q, layer.k, layer.v))  # (15, 8)
    mixed = torch.stack([v.T.mv((k.mv(one) / math.sqrt(8)).softmax(0)) for one in q])
    wanted = x + layer.proj_out(mixed.T.reshape(1, 8, 3, 5))
    torch.testing.assert_close(layer(x), wanted)


def test_down_pads_right_and_below_and_up_repeats():
    down, up = Downsample(1), Upsample(1)
    for layer in (down, up):
        torch.nn.init.zeros_(layer.conv.bias)
        torch.nn.init.zeros_(layer.conv.weight)
    down.conv.weight.data[0, 0, 0, 0] = 1  # takes the top left pixel of each window
    up.conv.weight.data[0, 0, 1, 1] = 1
    x = torch.arange(16.0).view(1, 1, 4, 4)
    half = x[..., ::2, ::2]
    assert torch.equal(down(x), half)
    assert torch.equal(up(half), half.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_autocast_leaves_the_norms_in_float32(tiny):
    norm = ResBlock(8, 8, tiny).norm1
    x = torch.randn(2, 8, 6, 6, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        normed = norm(x)
    assert normed.dtype == torch.float32
    assert torch.equal(normed, norm(x.float()))


@pytest.mark.parametrize("local", [True, False])
def test_a_local_encoder_sees_its_own_patch_and_the_edge_of_the_next(tiny, local):
    torch.manual_seed(0)
    config = replace(tiny, mid_attention=False, local_encoder=local)
    encoder = Encoder(config).eval()
    for weight in encoder.parameters():  # the residual branches start at zero
        torch.nn.init.normal_(weight, 0.0, 0.3)
    images = torch.rand(1, 3, 16, 16)
    changed = images.clone()
    changed[..., 8:12, 4:8] += 1  # the patch in row 2, column 1 of a grid of 4 x 4
    moved = (encoder(images) - encoder(changed)).abs().amax(1)[0] > 1e-6
    wanted = torch.zeros(4, 4, dtype=torch.bool)
    wanted[1:3, 0:2] = True  # halving the side looks right and below
    assert torch.equal(moved, wanted) == local


def test_a_local_encoder_has_no_attention(tiny):
    for change in ({"mid_attention": True}, {"attention_resolutions": (8,)}):
        with pytest.raises(ValueError, match="local_encoder: wanted no attention"):
            replace(tiny, **{"mid_attention": False, "local_encoder": True, **change})
