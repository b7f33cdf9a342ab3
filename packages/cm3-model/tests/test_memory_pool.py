import gc

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
    assert len(pool._lent) == MOST_SPARE + 1  # and the last one's, gone by now
    in_use = [make_cache(pool, length=40) for _ in range(10)]
    assert len(pool._lent) == MOST_SPARE + 10
    assert len({address(cache) for cache in in_use}) == 10
