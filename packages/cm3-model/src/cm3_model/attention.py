"""How queries attend to keys: masks, rotary positions and the softmax.

Takes queries, keys and values by head, gives the mixed values. Masks of packed documents are
FlexAttention's (arXiv 2412.05496) on a CUDA device, where they are never laid out in memory, and
plain tensors for PyTorch's `scaled_dot_product_attention` elsewhere. Rotary positions are
RoFormer's (arXiv 2104.09864).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from cm3_model.shared_prefixes import Rows

if TYPE_CHECKING:  # a second to import, and of use on a CUDA device alone
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Side of FlexAttention's blocks: one with nothing to see is skipped, a full one needs no mask."""

Visible: TypeAlias = "Tensor | BlockMask | None"
"""Mask (B, 1, T, S), true or 0 where a query may look; or FlexAttention's; None is causal."""


def document_starts(documents: Tensor) -> Tensor:
    """Return where each id's document starts (B, T), from numbers (B, T) equal within it.

    Numbers 7 7 7 2 2 7 are three documents, which start at 0 0 0 3 3 5.
    """
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    positions = torch.arange(documents.shape[1], device=documents.device)
    return (positions * starts).cummax(1).values


def document_mask(first: Tensor) -> Tensor | BlockMask:
    """Make a mask that is causal within documents that start at `first` (B, T), closed across."""
    rows, length = first.shape
    if not has_flex(first.device):
        positions = torch.arange(length, device=first.device)
        same = first[:, :, None] == first[:, None]
        return (same & (positions[:, None] >= positions))[:, None]  # (B, 1, T, T)

    from torch.nn.attention.flex_attention import BlockMask

    def may_look(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (first[row, query] == first[row, key])

    # `create_block_mask` finds the blocks by laying out (T, T), unless it is compiled. Here they
    # follow from the starts, which never fall along a row.
    starts = torch.arange(0, length, BLOCK, device=first.device)  # (N,) of N blocks
    ends = starts + BLOCK - 1
    earlier = starts[:, None] > starts  # (N, N), queries by keys
    furthest = first[:, starts, None]  # (B, N, 1) the earliest key that a block's queries see
    nearest = first[:, ends.clamp(max=length - 1), None]  # its last query sees no earlier one
    some = (starts[:, None] >= starts) & (ends >= furthest)  # (B, N, N)
    full = earlier & (starts >= nearest) & (ends < length)[:, None]
    return BlockMask.from_kv_blocks(
        *_listed(some & ~full),
        *_listed(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=may_look,
        seq_lengths=(length, length),
    )


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the number of true blocks (B, 1, N) and their places first (B, 1, N, N)."""
    places = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[:, None], places.int()[:, None]


def has_flex(device: torch.device) -> bool:
    """Tell whether FlexAttention can train on a device; on a CPU it has no backward."""
    return device.type == "cuda"


@functools.cache
def _compiled_flex() -> Callable[..., object]:
    """Compile FlexAttention once; uncompiled it is slow."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a mask into what is added to the scores; once, not in every layer."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, float("-inf"))


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Visible,
    prefixes: Sequence[tuple[Rows, Tensor, Tensor]] = (),
) -> Tensor:
    """Attend by softmax, (B, H, T, W); causal if no mask of `visible` slots is given.

    With `prefixes` there must be a tensor as mask. They are rows with keys and values (H, P, W)
    that all queries of these see before their own. Queries take the format of the keys.

    Training in bfloat16 on a CPU without a mask, on up to 512 positions and with keys for every
    head, rounds the scores to bfloat16: 1.3 to 4 times faster than PyTorch's kernel, forward and
    backward. Its error is 1.7 times as large where scores have a standard deviation of 1, and 7 to
    9 times where it is 12 (0.9 to 1.3 % of values of size 1, where PyTorch's is 0.13 %).
    """
    if key.dtype != query.dtype:
        return attend(query.to(key.dtype), key, value, visible, prefixes).to(query.dtype)
    if prefixes:
        assert isinstance(visible, Tensor)
        with torch.autocast(query.device.type, enabled=False):  # all parts are in one format
            return _attend_in_parts(query, key, value, visible, prefixes)
    grouped = key.shape[1] != query.shape[1]
    if visible is not None and not isinstance(visible, Tensor):
        mixed = _compiled_flex()(query, key, value, block_mask=visible, enable_gqa=grouped)
        assert isinstance(mixed, Tensor)  # no auxiliary output was asked for
        return mixed
    # The bf16 backward of PyTorch's CPU kernel is slower than two matrix products and a softmax, as
    # long as the (T, T) scores are small. Scores in float32 would cost most of what that gains.
    length = query.shape[-2]
    small = query.device.type == "cpu" and query.dtype == torch.bfloat16 and length <= 512
    if visible is None and small and not grouped and torch.is_grad_enabled():
        later = query.new_full((length, length), float("-inf")).triu(1)
        scores = torch.baddbmm(
            later,
            (query * query.shape[-1] ** -0.5).flatten(0, 1),
            key.flatten(0, 1).mT,
        )  # (B * H, T, T)
        return (scores.softmax(-1) @ value.flatten(0, 1)).view_as(query)
    if grouped and length == 1 and isinstance(visible, Tensor):
        # heads that share keys are queries that share them: 1.6 to 1.9 times faster on a CPU
        folded = query.view(*key.shape[:2], -1, query.shape[-1])
        mixed = F.scaled_dot_product_attention(folded, key, value, attn_mask=visible)
        return mixed.view_as(query)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=visible, is_causal=visible is None, enable_gqa=grouped
    )


def _attend_in_parts(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor,
    prefixes: Sequence[tuple[Rows, Tensor, Tensor]],
) -> Tensor:
    """Attend with a few queries (B, H, T, W) to prefixes and to what is a row's own."""
    heads, count = key.shape[:2], query.shape[2]  # each for G heads of T queries
    folded = (query * query.shape[-1] ** -0.5).reshape(
        *heads, -1, query.shape[-1]
    )  # (B, H, G * T, W)
    own = torch.bmm(folded.flatten(0, 1), key.flatten(0, 1).mT).unflatten(0, heads)
    own = (own.unflatten(2, (-1, count)) + visible[:, :, None]).flatten(2, 3)
    longest = max((keys.shape[1] for _, keys, _ in prefixes), default=0)
    scores = own
    if prefixes:
        scores = own.new_full((*own.shape[:3], longest + own.shape[3]), float("-inf"))
        scores[..., longest:] = own
    for rows, keys, _ in prefixes:
        # to a prefix, the queries of all its rows are one matrix for each head
        together = folded[rows].transpose(0, 1)  # (H, rows, G * T, W)
        found = torch.bmm(together.flatten(1, 2), keys.mT)  # (H, rows * G * T, P)
        scores[rows, :, :, : keys.shape[1]] = found.view(*together.shape[:3], -1).transpose(0, 1)
    shares = scores.softmax(-1)
    mixed = torch.bmm(shares[..., longest:].flatten(0, 1), value.flatten(0, 1)).unflatten(0, heads)
    for rows, keys, values in prefixes:
        together = shares[rows, :, :, : keys.shape[1]].transpose(0, 1)  # (H, rows, G * T, P)
        found = torch.bmm(together.flatten(1, 2), values)  # (H, rows * G * T, W)
        mixed[rows] += found.view(*together.shape[:3], -1).transpose(0, 1)
    return mixed.view_as(query)


def picture_places(codes: Tensor, first: Tensor) -> Tensor:
    """Return the place (B, T) of each token in its picture: 1, 2, ... for codes, 0 for the others.

    A picture is an unbroken run of codes. So behind a mask inside a picture the count starts again.

    Args:
        codes: Which tokens are image codes, (B, T).
        first: Where each token's document starts, (B, T) or (B, 1); -n if it started with a run of
            n codes that are read already.
    """
    ends = torch.arange(1, codes.shape[1] + 1, device=codes.device)
    return ends - torch.where(codes, first, ends).cummax(1).values


def rotary_angles(
    positions: Tensor, head_width: int, theta: float = 10_000.0, places: Tensor | None = None
) -> Tensor:
    """Return cosine and sine of the angle by which each pair of channels turns.

    Args:
        positions: Positions (T,) or (B, T).
        head_width: W, even.
        theta: Slowest turn is about one in `2 * pi * theta` positions.
        places: Places (B, T) in a picture, by which every other pair turns instead, the fastest
            pair first.

    Returns:
        (T, W/2, 2) or (B, 1, T, W/2, 2), which broadcast over heads.
    """
    pair = torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32)
    speeds = theta ** (-pair / head_width)  # (W/2,)
    angles = positions[..., None] * speeds  # (..., T, W/2)
    if places is not None:
        angles = angles.expand(*places.shape, -1).clone()
        angles[..., ::2] = places[..., None] * speeds[::2]
    if torch.compiler.is_compiling():  # which has no complex numbers
        turns = torch.stack([angles.cos(), angles.sin()], -1)
    else:
        turns = torch.view_as_real(torch.polar(torch.ones_like(angles), angles))
    return turns if turns.ndim == 3 else turns[:, None]


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn neighbouring channels (0, 1), (2, 3), ... of `x` (B, H, T, W) by `rotation`."""
    pairs = x.float().unflatten(-1, (-1, 2))  # (B, H, T, W/2, 2)
    if torch.compiler.is_compiling():
        (left, right), (cos, sin) = pairs.unbind(-1), rotation.unbind(-1)
        turned = torch.stack([left * cos - right * sin, left * sin + right * cos], -1)
    else:
        turned = torch.view_as_complex(pairs) * torch.view_as_complex(rotation)
        turned = torch.view_as_real(turned)
    return turned.flatten(-2).type_as(x)
