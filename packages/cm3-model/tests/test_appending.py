import pytest
import torch

from cm3_model.appending import Append, AppendOne


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_one_token_goes_behind_its_row_and_nowhere_else(dtype, gradients):
    generator = torch.Generator().manual_seed(0)
    layers = [
        tuple(torch.randn(3, 2, 9, 4, generator=generator).to(dtype) for _ in range(2))
        for _ in range(2)
    ]
    before = [tuple(part.clone() for part in layer) for layer in layers]
    new = torch.randn(2, 2, 3, 2, 1, 4, generator=generator)  # layers, key and value, (B, H, 1, W)
    with torch.set_grad_enabled(gradients):
        places = torch.zeros(3, 9, dtype=torch.long)
        append = AppendOne(layers, places, torch.tensor([2, 6, 0]), 7)
        for layer in range(2):
            found = append.write(layer, *new[layer])
            for part in range(2):
                wanted = before[layer][part]
                for row, slot in enumerate((2, 6, 0)):
                    wanted[row, :, slot] = new[layer, part, row, :, 0].to(dtype)
                assert torch.equal(layers[layer][part], wanted)
                assert torch.equal(found[part].to(dtype), wanted[:, :, :7])


@torch.no_grad()
@pytest.mark.parametrize("shares", [False, True])
def test_new_tokens_of_rows_of_unequal_length_follow_their_own(paper_decoder, ids, shares):
    cache = paper_decoder.make_cache(2, 12)
    paper_decoder.prefill(ids[:2, :5], torch.tensor([2, 4]), cache)
    if shares:
        cache._share([0, 1, 0], [2, 4])
        cache.lengths = torch.tensor([2, 4, 2])
        cache.measure()
    rows = cache.batch_size
    new = Append(cache, torch.tensor([3, 1, 2][:rows]), 3)
    assert new.positions[:2].tolist() == [[2, 3, 4], [4, 5, 6]]
    assert new.rows[:4].tolist() == [0, 0, 0, 1]
    assert new.slots[:4].tolist() == ([0, 1, 2, 0] if shares else [2, 3, 4, 4])
    assert new.end == 5
    before = cache.keys[0]
    key, value = torch.randn(2, rows, 3, 3, 8, generator=torch.Generator().manual_seed(0))
    keys, values = new.write(0, key, value)
    assert keys.shape == (rows, 3, 5, 8)
    for row, (start, count) in enumerate([(2, 3), (4, 1), (2, 2)][:rows]):
        assert torch.equal(keys[row, :, :start], before[row, :, :start])
        assert torch.equal(keys[row, :, start : start + count], key[row, :, :count])
        assert torch.equal(values[row, :, start : start + count], value[row, :, :count])
    assert cache.lengths.tolist() == [2, 4, 2][:rows]  # until it is committed
    new.commit()
    assert cache.lengths.tolist() == [5, 5, 4][:rows]
