import copy
import gc
import pickle
import threading

import pytest
import torch

from cm3_model.kv_cache import KVCache
from cm3_model.memory_pool import MOST_SPARE, MemoryPool


def make_cache(pool, rows=3, length=8, dtype=torch.float32):
    return KVCache(
        num_layers=2, batch_size=rows, num_heads=2, length=length, head_width=4, dtype=dtype,
        pool=pool,
    )  # fmt: skip


def address(cache):
    return cache.memory.layers[0][0].data_ptr()


def test_the_next_cache_has_the_memory_of_one_that_is_gone_as_zeros():
    pool = MemoryPool()
    one = make_cache(pool)
    for part in (one.memory.places, *(part for layer in one.memory.layers for part in layer)):
        part.fill_(7)
    kept = address(one)
    other = make_cache(pool)
    assert address(other) != kept  # it is not gone yet
    del one
    gc.collect()
    next_one = make_cache(pool, rows=4)  # memory is for a power of two of rows
    assert address(next_one) == kept
    assert next_one.batch_size == 4 and other.batch_size == 3
    assert not next_one.keys.any() and not next_one.values.any() and not next_one.places.any()


@pytest.mark.parametrize(
    "changes", [{"rows": 5}, {"length": 9}, {"dtype": torch.bfloat16}], ids=str
)
def test_memory_of_another_shape_or_format_is_not_taken(changes):
    pool = MemoryPool()
    kept = make_cache(pool).memory  # of a cache that is gone
    gc.collect()
    assert make_cache(pool, **changes).memory is not kept
    assert make_cache(pool).memory is kept


def test_memory_of_inference_mode_stays_in_it():
    pool = MemoryPool()
    with torch.inference_mode():
        kept = make_cache(pool).memory
    gc.collect()
    outside = make_cache(pool)
    assert outside.memory is not kept
    outside.memory.places.zero_()
    with torch.inference_mode():
        assert make_cache(pool).memory is kept


def test_rows_that_are_copied_leave_their_memory_behind():
    pool = MemoryPool()
    cache = make_cache(pool, rows=2)
    first = cache.memory
    cache.select_rows(torch.tensor([0, 1, 0, 1]))
    second = cache.memory
    assert second is not first and second.places.shape == (4, 8)
    assert make_cache(pool, rows=2).memory is first
    cache.select_rows(torch.tensor([0, 3, 2]))  # the last one takes a place: nothing is copied
    assert cache.memory is second
    cache.join(make_cache(pool, rows=1))
    assert cache.memory is second and cache.batch_size == 4
    cache.join(make_cache(pool, rows=1))
    assert cache.memory.places.shape == (8, 8) and cache.batch_size == 5


def test_little_is_kept_that_nobody_has():
    pool = MemoryPool()
    for length in range(1, 20):
        make_cache(pool, length=length)
        gc.collect()
    assert len(pool._loans) == MOST_SPARE + 1  # and the last one's, gone by now
    in_use = [make_cache(pool, length=40) for _ in range(10)]
    assert len(pool._loans) == MOST_SPARE + 10
    assert len({address(cache) for cache in in_use}) == 10


def test_few_rows_get_smaller_memory():
    pool = MemoryPool()
    cache = make_cache(pool, rows=8)
    cache.memory.places[:, 0] = torch.arange(8)
    cache.lengths += 1
    cache.measure()
    for rows, room in ((5, 8), (4, 4), (3, 4), (1, 1)):
        cache.select_rows(torch.arange(rows))
        assert cache.memory.places.shape[0] == room
        assert cache.places[:, 0].tolist() == list(range(rows))
    assert [len(part) for part in cache.all_rows()[1:]] == [1, 1]


def test_memory_with_a_graph_of_gradients_is_not_lent_again():
    pool = MemoryPool()
    cache = make_cache(pool)
    kept = cache.memory
    key = torch.ones(4, requires_grad=True)
    kept.layers[0][0][0, 0, 0] = key
    del cache
    gc.collect()
    other = make_cache(pool)
    assert other.memory is not kept and not other.memory.layers[0][0].requires_grad


def test_a_copied_cache_has_memory_of_its_own():
    pool = MemoryPool()
    cache = make_cache(pool, rows=2)
    cache.memory.layers[0][0].fill_(3)
    cache.lengths += 4
    cache.measure()
    twin = copy.deepcopy(cache)
    twin.select_rows(torch.tensor([1, 0]))
    assert (twin.layers[0][0][:, :, :4] == 3).all()
    assert (cache.layers[0][0] == 3).all()
    assert (pickle.loads(pickle.dumps(cache)).layers[0][0] == 3).all()


def test_caches_of_many_threads_have_memory_of_their_own():
    pool, wrong = MemoryPool(), []

    def work(number):
        for _ in range(100):
            cache = make_cache(pool, rows=2)
            if cache.memory.layers[0][0].any():
                wrong.append("not zeros")
            cache.memory.layers[0][0].fill_(number)
            cache.lengths += 8
            cache.measure()
            cache.select_rows(torch.tensor([1, 0, 1]))
            if not (cache.layers[0][0] == number).all():
                wrong.append("of another")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
