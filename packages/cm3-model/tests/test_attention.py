import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.utils._python_dispatch import TorchDispatchMode

from cm3_model import attention
from cm3_model.attention import (
    attend,
    document_mask,
    document_starts,
    picture_places,
    rotary_angles,
    rotate,
)


def heads(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(shape, generator=generator, dtype=dtype)
    few = (shape[0], 1, *shape[2:])  # keys and values shared by all heads
    key, value = (torch.randn(few, generator=generator, dtype=dtype) for _ in range(2))
    return query, key, value


def test_starts_of_the_docstring():
    documents = torch.tensor([[7, 7, 7, 2, 2, 7]])
    assert document_starts(documents).tolist() == [[0, 0, 0, 3, 3, 5]]


def random_documents(rows, length):
    generator = torch.Generator().manual_seed(3)
    return (torch.rand(rows, length, generator=generator) < 0.05).cumsum(1)


def test_the_mask_equals_a_loop():
    documents = random_documents(2, 40)
    mask = document_mask(document_starts(documents))
    for row in range(2):
        for query in range(40):
            for key in range(40):
                alike = documents[row, key : query + 1].unique().numel() == 1
                assert bool(mask[row, 0, query, key]) == (key <= query and alike)


@pytest.mark.parametrize("length", [1, 127, 128, 129, 256, 300, 700])
@pytest.mark.parametrize("share", [0.0, 0.003, 0.05, 1.0])  # of places where a document starts
def test_blocks_are_those_that_torch_finds_in_the_whole_mask(length, share, monkeypatch):
    monkeypatch.setattr(attention, "has_flex", lambda device: True)
    generator = torch.Generator().manual_seed(length)
    documents = (torch.rand(3, length, generator=generator) < share).cumsum(1)
    first = document_starts(documents)
    mask = document_mask(first)
    wanted = create_block_mask(mask.mask_mod, 3, None, length, length, device="cpu")
    assert mask.shape == wanted.shape and mask.BLOCK_SIZE == wanted.BLOCK_SIZE
    for kind in ("kv", "full_kv", "q", "full_q"):
        numbers = getattr(mask, f"{kind}_num_blocks"), getattr(wanted, f"{kind}_num_blocks")
        assert torch.equal(*numbers) and numbers[0].dtype == torch.int32
        places = getattr(mask, f"{kind}_indices"), getattr(wanted, f"{kind}_indices")
        counted = torch.arange(places[0].shape[-1]) < numbers[0][..., None]
        assert torch.equal(places[0][counted], places[1][counted])


def test_a_long_mask_lays_out_no_square(monkeypatch):
    monkeypatch.setattr(attention, "has_flex", lambda device: True)
    largest = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            made = [part for part in torch.utils._pytree.tree_leaves(out)]
            sizes = [part.numel() for part in made if isinstance(part, torch.Tensor)]
            largest[0] = max([largest[0], *sizes])
            return out

    length, rows = 16_384, 2
    first = document_starts(random_documents(rows, length))
    with Watch():
        document_mask(first)
    assert 0 < largest[0] <= 2 * rows * max(length, (length // attention.BLOCK) ** 2)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()
def test_flex_attention_equals_sdpa(monkeypatch):
    """On a CPU, without compilation; what runs on a CUDA device is this, compiled."""
    first = document_starts(random_documents(2, 200))
    parts = heads(2, 3, 200, 16)
    wanted = attend(*parts, document_mask(first))
    monkeypatch.setattr(attention, "has_flex", lambda device: True)
    monkeypatch.setattr(attention, "_compiled_flex", lambda: flex_attention)
    mask = document_mask(first)
    assert isinstance(mask, BlockMask)
    torch.testing.assert_close(attend(*parts, mask), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()
def test_a_decoder_with_flex_attention_has_the_same_logits(decoder, ids, monkeypatch):
    documents = torch.tensor([[0] * 5 + [1] * 12 + [0] * 7] * 3)
    wanted = decoder(ids, documents)
    monkeypatch.setattr(attention, "has_flex", lambda device: True)
    monkeypatch.setattr(attention, "_compiled_flex", lambda: flex_attention)
    torch.testing.assert_close(decoder(ids, documents), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_compiled_flex_attention_equals_sdpa(monkeypatch):
    first = document_starts(random_documents(2, 128))
    parts = heads(2, 2, 128, 16)
    wanted = attend(*parts, document_mask(first))
    monkeypatch.setattr(attention, "has_flex", lambda device: True)
    torch.testing.assert_close(attend(*parts, document_mask(first)), wanted, rtol=1e-4, atol=1e-5)


def test_places_count_the_codes_of_each_run_and_document():
    codes = torch.tensor([[1, 1, 0, 1, 1, 1, 0, 1], [0, 1, 1, 1, 1, 1, 1, 1]]).bool()
    first = torch.tensor([[0, 0, 0, 0, 0, 5, 5, 5], [0, 0, 0, 3, 3, 3, 6, 6]])
    places = [[1, 2, 0, 1, 2, 1, 0, 1], [0, 1, 2, 1, 2, 3, 1, 2]]
    assert picture_places(codes, first).tolist() == places
    read = torch.tensor([[-3], [-9]])  # so many codes went before
    assert picture_places(codes, read).tolist() == [[4, 5, 0, 1, 2, 3, 0, 1], [0, *range(1, 8)]]


def test_a_compiled_turn_is_the_same_turn(monkeypatch):
    x, positions = heads(2, 3, 9, 8)[0], torch.arange(18).view(2, 9) * 100
    wanted = rotate(x, rotary_angles(positions, 8))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(rotate(x, rotary_angles(positions, 8)), wanted)


def test_short_bf16_training_attends_as_sdpa_does():
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, 3, 17, 8, generator=generator) for _ in range(3)]
    ours = [part.bfloat16().requires_grad_() for part in parts]
    theirs = [part.bfloat16().float().requires_grad_() for part in parts]
    wanted = torch.nn.functional.scaled_dot_product_attention(*theirs, is_causal=True)
    found = attend(*ours, None)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, atol=0.02, rtol=0.02)
    weights = torch.randn(wanted.shape, generator=generator)
    (wanted * weights).sum().backward()
    (found * weights.bfloat16()).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad.float(), b.grad, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("sharpness", [1.0, 12.0])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_queries_of_a_float32_cache_are_as_exact_as_sdpa(dtype, groups, sharpness):
    generator = torch.Generator().manual_seed(0)
    query = (torch.randn(3, 6, 1, 16, generator=generator) * sharpness).to(dtype)
    slots = torch.randn(2, 3, 6 // groups, 50, 16, generator=generator).to(dtype)
    key, value = slots[:, :, :, :40]  # a cache with more slots than are seen
    hidden = torch.arange(40) >= torch.tensor([40, 25, 1])[:, None]
    visible = torch.zeros(3, 1, 1, 40, dtype=dtype).masked_fill(hidden[:, None, None], -torch.inf)
    parts = (part.double() for part in (query, key, value))
    sdpa = torch.nn.functional.scaled_dot_product_attention
    wanted = sdpa(*parts, attn_mask=visible.double(), enable_gqa=True)
    theirs = sdpa(query, key, value, attn_mask=visible, enable_gqa=True)
    found = attend(query, key.float(), value.float(), visible.float())
    assert (found.dtype, found.shape) == (dtype, query.shape)

    def error(mixed):
        return float((mixed.double() - wanted).square().mean().sqrt())

    assert error(found) < 1.5 * error(theirs)
    torch.testing.assert_close(found[2], value[2, :, :1].repeat_interleave(groups, 0))
