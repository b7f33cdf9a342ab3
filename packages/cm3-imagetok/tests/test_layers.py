import math

import torch
import torch.nn.functional as F

from cm3_imagetok.layers import Downsample, ResBlock, SelfAttention, Upsample


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
