import pytest
import torch

from cm3_model.appending import Append, AppendEvenly


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_new_tokens_go_behind_their_row_and_nowhere_else(dtype, gradients, count):
    generator = torch.Generator().manual_seed(0)
    layers = [
        tuple(torch.randn(3, 2, 9, 4, generator=generator).to(dtype) for _ in range(2))
        for _ in range(2)
    ]
    before = [tuple(part.clone() for part in layer) for layer in layers]
    # layers, key and value, (B, H, T, W)
    new = torch.randn(2, 2, 3, 2, count, 4, generator=generator)
    with torch.set_grad_enabled(gradients):
        places = torch.zeros(3, 9, dtype=torch.long)
        append = AppendEvenly(layers, places, torch.tensor([2, 6, 0]), count, 6 + count)
        for layer in range(2):
            found = append.write(layer, *new[layer])
            for part in range(2):
                wanted = before[layer][part]
                for row, slot in enumerate((2, 6, 0)):
                    wanted[row, :, slot : slot + count] = new[layer, part, row].to(dtype)
                assert torch.equal(layers[layer][part], wanted)
                assert torch.equal(found[part].to(dtype), wanted[:, :, : 6 + count])


@pytest.mark.parametrize("codes", [[1], [0], [1, 1, 1], [1, 0, 1], [0, 1, 1], [0, 0, 0]])
def test_places_in_pictures_go_on(codes):
    before = torch.zeros(3, 9, dtype=torch.long)
    before[1, :6] = torch.tensor([0, 0, 1, 2, 3, 4])
    before[2, :2] = torch.tensor([1, 0])
    layers = [(torch.zeros(3, 1, 9, 2), torch.zeros(3, 1, 9, 2))]
    new = AppendEvenly(layers, before, torch.tensor([0, 6, 2]), len(codes), 6 + len(codes))
    found = new.place(torch.tensor(codes).bool().expand(3, -1))
    for row, (length, place) in enumerate([(0, 0), (6, 4), (2, 0)]):
        wanted = []
        for code in codes:
            place = (place + 1) * code
            wanted.append(place)
        assert found[row].tolist() == wanted
        assert before[row, length : length + len(codes)].tolist() == wanted


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
