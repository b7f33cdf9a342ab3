"""Rows that share what they begin with decode as rows that have it each for themselves."""

import pytest
import torch

from cm3_model import shared_prefixes
from cm3_model.shared_prefixes import SharedPrefixes, pays


@pytest.fixture(autouse=True)
def shares_at_once(monkeypatch):
    monkeypatch.setattr(shared_prefixes, "WORTH", 1)


def read(decoder, texts, length):
    longest = max(map(len, texts))
    padded = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    cache = decoder.make_cache(len(texts), length)
    decoder.prefill(padded, torch.tensor([len(text) for text in texts]), cache)
    return cache


def check_step(decoder, cache, texts, new):
    """Decode an id of each row, and compare with all of its ids read at once."""
    got = decoder.decode_one_token(new, cache)
    for row, text in enumerate(texts):
        text.append(int(new[row]))
        wanted = decoder(torch.tensor([text]))[0, -1]
        torch.testing.assert_close(got[row], wanted, rtol=1e-4, atol=1e-4)
    assert cache.lengths.tolist() == [len(text) for text in texts]
    assert cache.longest == max(map(len, texts))


@torch.no_grad()
def test_copies_of_rows_share_them(decoder, ids):
    texts = [ids[0, :7].tolist(), ids[1, :4].tolist(), ids[2, :5].tolist()]
    cache = read(decoder, texts, 12)
    rows = [2, 0, 0, 2, 0]
    cache.select_rows(torch.tensor(rows))
    assert len(cache.shared.prefixes) == 2
    assert cache.layers[0][0].shape[2] == 12 - 5  # room behind the shorter prefix
    texts = [list(texts[row]) for row in rows]
    for step in range(5):  # 7 and 5 are 12
        check_step(decoder, cache, texts, ids[step % 3, : len(rows)])
    with pytest.raises(ValueError, match="wanted room for 13"):
        decoder.decode_one_token(ids[0, : len(rows)], cache)


@torch.no_grad()
def test_several_ids_at_once_see_a_prefix(decoder, ids):
    texts = [ids[0, :7].tolist(), ids[1, :4].tolist()]
    cache = read(decoder, texts, 12)
    cache.select_rows(torch.tensor([0, 1, 0]))
    new = ids[:, 7:11]
    got = decoder.decode_several(new, cache, 3, 37)
    cache.forget(torch.tensor([2, 0, 4]))
    assert cache.lengths.tolist() == [9, 8, 7]
    assert cache.shared
    kept = []
    for row, (of_prompt, right) in enumerate([(0, 2), (1, 4), (0, 0)]):
        text = [*texts[of_prompt], *new[row].tolist()]
        wanted = decoder(torch.tensor([text]))[0, -4:, 3:]
        torch.testing.assert_close(got[row], wanted, rtol=1e-4, atol=1e-4)
        kept.append(text[: len(texts[of_prompt]) + right])
    check_step(decoder, cache, kept, ids[0, :3])


@torch.no_grad()
def test_more_ids_can_be_read_behind_a_prefix(decoder, ids):
    texts = [ids[0, :6].tolist(), ids[1, :3].tolist()]
    cache = read(decoder, texts, 14)
    cache.select_rows(torch.tensor([0, 1, 0]))
    texts = [[*texts[row], *ids[2, 3 * n : 3 * n + size].tolist()]
             for n, (row, size) in enumerate(((0, 3), (1, 1), (0, 2)))]  # fmt: skip
    new = torch.stack([ids[2, 0:3], ids[2, 3:6], ids[2, 6:9]])
    got = decoder.prefill(new, torch.tensor([3, 1, 2]), cache)
    for row, text in enumerate(texts):
        wanted = decoder(torch.tensor([text]))[0, -1]
        torch.testing.assert_close(got[row], wanted, rtol=1e-4, atol=1e-4)
    # and rows that have something of their own can be repeated: what they share stays
    cache.select_rows(torch.tensor([2, 0, 0, 1]))
    texts = [list(texts[row]) for row in (2, 0, 0, 1)]
    assert len(cache.shared.prefixes) == 2
    for step in range(3):
        check_step(decoder, cache, texts, ids[step, :4])


@torch.no_grad()
@pytest.mark.parametrize("first, second", [(True, True), (True, False), (False, True)])
def test_rows_with_and_without_prefixes_join_and_leave(decoder, ids, first, second):
    def rows_of(texts, copies, length):
        cache = read(decoder, texts, length)
        if copies:
            cache.select_rows(torch.tensor([0, 0, 1]))
        return cache, [list(texts[row]) for row in ([0, 0, 1] if copies else [0, 1])]

    cache, texts = rows_of([ids[0, :5].tolist(), ids[1, :6].tolist()], first, 16)
    check_step(decoder, cache, texts, ids[0, : len(texts)])
    other, others = rows_of([ids[2, :9].tolist(), ids[2, 3:5].tolist()], second, 20)
    check_step(decoder, other, others, ids[1, : len(others)])
    cache.join(other)
    assert cache.capacity == 20
    texts += others
    for step in range(2):
        check_step(decoder, cache, texts, ids[step, : len(texts)])
    keys = cache.keys
    kept = [0, len(texts) - 1, 2]  # the last one takes the place of row 1
    cache.select_rows(torch.tensor(kept))
    assert torch.equal(cache.keys, keys[:, kept])
    texts = [texts[row] for row in kept]
    for step in range(4):
        check_step(decoder, cache, texts, ids[step % 3, 5:8])


@torch.no_grad()
def test_rows_can_be_shortened_into_their_prefix(decoder, ids):
    texts = [ids[0, :6].tolist()]
    cache = read(decoder, texts, 12)
    cache.select_rows(torch.tensor([0, 0]))
    texts = [list(texts[0]), list(texts[0])]
    check_step(decoder, cache, texts, ids[1, :2])
    cache.rewind(torch.tensor([7, 6]))
    assert cache.shared
    texts[1].pop()
    check_step(decoder, cache, texts, ids[2, :2])
    cache.rewind(torch.tensor([4, 7]))
    assert not cache.shared
    texts[0] = texts[0][:4]
    for step in range(4):
        check_step(decoder, cache, texts, ids[step % 3, 2:4])


@torch.no_grad()
def test_a_reset_cache_has_all_of_its_room(decoder, ids):
    cache = read(decoder, [ids[0, :6].tolist()], 8)
    cache.select_rows(torch.tensor([0, 0]))
    cache.reset()
    texts = ids[:2, :7].tolist()
    decoder.prefill(ids[:2, :7], torch.tensor([7, 7]), cache)
    check_step(decoder, cache, texts, ids[2, :2])


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_formats(decoder, ids, dtype):
    exact = decoder(torch.cat([ids[:1, :9], ids[1:2, 4:7]], 1))[0, -1].softmax(-1)
    model = decoder.to(dtype)
    cache = read(model, [ids[0, :9].tolist()], 12)
    cache.select_rows(torch.tensor([0, 0]))
    for place in (4, 5, 6):
        got = model.decode_one_token(ids[1, place].repeat(2), cache)
    assert got.dtype == dtype
    at_once = model(torch.cat([ids[:1, :9], ids[1:2, 4:7]], 1))[0, -1]
    error = (got.float().softmax(-1) - exact).abs().max()
    assert error < 1e-6 + 1.5 * (at_once.float().softmax(-1) - exact).abs().max() + (
        0.02 if dtype != torch.float64 else 0
    )


@torch.no_grad()
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_rows_of_a_prefix_need_not_be_neighbours_under_autocast(decoder, ids, weights):
    model = decoder.to(weights)
    logits = []
    for shares in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            cache = model.make_cache(2, 12)
            cache.shares_prefixes = shares
            model.prefill(ids[:2, :9], torch.tensor([9, 7]), cache)
            cache.select_rows(torch.tensor([0, 1, 0]))
            assert bool(cache.shared) == shares
            logits.append(model.decode_one_token(ids[:, 9], cache).float().softmax(-1))
    torch.testing.assert_close(*logits, rtol=0.05, atol=0.05)


@torch.no_grad()
def test_memory_is_that_of_prefixes_and_of_what_rows_add(decoder, ids):
    cache = read(decoder, [ids[0, :10].tolist()], 14)
    one = cache.nbytes // 14  # a token
    cache.select_rows(torch.zeros(8, dtype=torch.long))
    assert cache.nbytes == one * (10 + 8 * 4)
    cache.select_rows(torch.tensor([0]))
    assert cache.keys.shape[1:4:2] == (1, 14)


def test_few_tokens_are_copied_instead(monkeypatch):
    monkeypatch.setattr(shared_prefixes, "WORTH", 100)
    assert pays([0, 0, 1], [100, 5])
    assert not pays([0, 0, 1], [99, 500])
    assert not pays([0, 1], [500, 500])


def test_a_prefix_that_no_row_has_is_let_go():
    prefix = [(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))]
    other = [(torch.zeros(2, 5, 4), torch.zeros(2, 5, 4))]
    shared = SharedPrefixes([prefix, other], [0, 1, 0, None], torch.device("cpu"))
    assert shared.lengths.tolist() == [3, 5, 3, 0]
    left = shared.select([1, 3])
    assert left.lengths.tolist() == [5, 0]
    assert len(left.prefixes) == 1
    assert not shared.select([3])
