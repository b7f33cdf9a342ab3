import pytest
import torch


@pytest.fixture
def filled(paper_decoder, ids):
    cache = paper_decoder.make_cache(3, 12)
    with torch.no_grad():
        paper_decoder.prefill(ids[:, :8], torch.tensor([3, 8, 5]), cache)
    return cache


@torch.no_grad()
def test_after_reset_a_cache_is_as_new(paper_decoder, ids, filled):
    filled.reset()
    lengths = torch.tensor([2, 4, 1])
    wanted = paper_decoder.prefill(ids[:, 8:12], lengths, paper_decoder.make_cache(3, 12))
    assert torch.equal(paper_decoder.prefill(ids[:, 8:12], lengths, filled), wanted)


@torch.no_grad()
def test_rewind_forgets_what_lay_behind(paper_decoder, ids, filled):
    filled.rewind(torch.tensor([1, 6, 0]))
    assert (filled.lengths.tolist(), filled.longest) == ([1, 6, 0], 6)
    got = paper_decoder.decode_one_token(ids[:, 10], filled)
    for row, length in enumerate((1, 6, 0)):
        prompt = torch.cat([ids[row, :length], ids[row, 10:11]])
        torch.testing.assert_close(
            got[row], paper_decoder(prompt[None])[0, -1], rtol=1e-4, atol=1e-4
        )


def test_rewind_cannot_go_forward(filled):
    for lengths in ([4, 8, 5], [-1, 0, 0], [1, 1]):
        with pytest.raises(ValueError, match="lengths: wanted one per row"):
            filled.rewind(torch.tensor(lengths))


@torch.no_grad()
def test_rows_can_be_repeated_reordered_and_dropped(paper_decoder, ids, filled):
    filled.select_rows(torch.tensor([2, 0, 0, 2]))
    got = paper_decoder.decode_one_token(ids[0, :4], filled)
    for row, (old, length) in enumerate(((2, 5), (0, 3), (0, 3), (2, 5))):
        prompt = torch.cat([ids[old, :length], ids[0, row : row + 1]])
        torch.testing.assert_close(
            got[row], paper_decoder(prompt[None])[0, -1], rtol=1e-4, atol=1e-4
        )


def test_a_full_row_refuses_another_token(paper_decoder, ids, filled):
    with torch.no_grad():
        for _ in range(4):
            paper_decoder.decode_one_token(ids[:, 0], filled)
    with pytest.raises(ValueError, match="cache: wanted room for 13 tokens .* got 12"):
        paper_decoder.decode_one_token(ids[:, 0], filled)


def test_a_pass_that_fails_leaves_the_rows_as_they_were(paper_decoder, ids, filled):
    with pytest.raises(IndexError):
        paper_decoder.decode_one_token(torch.tensor([1, 2, 99]), filled)
    assert filled.lengths.tolist() == [3, 8, 5]


def test_only_what_counts_is_written(paper_decoder, filled):
    for row, length in enumerate((3, 8, 5)):
        assert filled.keys[:, row, :, length:].count_nonzero() == 0
        assert filled.keys[:, row, :, :length].count_nonzero() > 0


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_steps_in_a_short_format_are_near_those_of_all_ids_at_once(decoder, ids, dtype):
    wanted = decoder(ids).softmax(-1)
    half, rows, lengths = decoder.to(dtype), torch.arange(3), torch.tensor([4, 9, 7])
    cache = half.make_cache(3, 24)
    half.prefill(ids[:, :9], lengths, cache)
    while lengths.max() < 24:
        step = half.decode_one_token(ids[rows, lengths], cache).float().softmax(-1)
        at_once = half(ids)[rows, lengths].float().softmax(-1)
        ours, theirs = (step - wanted[rows, lengths]), (at_once - wanted[rows, lengths])
        assert ours.abs().max() < 0.05 + 1.5 * theirs.abs().max()
        lengths = lengths + 1


@torch.no_grad()
def test_rows_come_and_go(paper_decoder, ids):
    """Rows that leave, rows of other caches that take their places, and memory that grows."""
    texts = [ids[row % 3, : 2 + row].tolist() for row in range(6)]

    def cache_of(rows, length):
        cache = paper_decoder.make_cache(len(rows), length)
        longest = max(len(texts[row]) for row in rows)
        padded = torch.tensor([texts[row] + [0] * (longest - len(texts[row])) for row in rows])
        paper_decoder.prefill(padded, torch.tensor([len(texts[row]) for row in rows]), cache)
        return cache

    def check(cache, rows):
        assert cache.batch_size == len(rows)
        assert cache.lengths.tolist() == [len(texts[row]) for row in rows]
        assert cache.longest == max(len(texts[row]) for row in rows)
        got = paper_decoder.decode_one_token(ids[0, : len(rows)], cache)
        for place, row in enumerate(rows):
            texts[row].append(int(ids[0, place]))
            wanted = paper_decoder(torch.tensor(texts[row])[None])[0, -1]
            torch.testing.assert_close(got[place], wanted, rtol=1e-4, atol=1e-4)

    cache = cache_of([0, 1, 2, 3], 10)
    check(cache, [0, 1, 2, 3])
    memory = cache.layers[0][0].data_ptr()
    cache.select_rows(torch.tensor([0, 3, 2]))  # row 1 leaves, the last one takes its place
    check(cache, [0, 3, 2])
    cache.join(cache_of([4], 9))
    check(cache, [0, 3, 2, 4])
    assert cache.layers[0][0].data_ptr() == memory  # nothing was laid out anew
    cache.join(cache_of([5], 12))
    assert cache.capacity == 12
    check(cache, [0, 3, 2, 4, 5])
    cache.select_rows(torch.tensor([4, 1]))
    check(cache, [5, 3])
