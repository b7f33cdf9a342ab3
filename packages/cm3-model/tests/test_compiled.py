import copy
import io
import pickle

import pytest
import torch

from cm3_model import compile_decoding, load_decoder, pack_weights, quantize_int8, save_decoder
from cm3_model.config import CHAMELEON_PARTS

LENGTH = 40


def steps(model, ids, count):
    """Logits (count, B, V) of a ragged prefill and what follows."""
    cache = model.make_cache(3, LENGTH)
    rows, lengths = torch.arange(3), torch.tensor([4, 9, 7])
    logits = [model.prefill(ids[:, :9], lengths, cache)]
    for step in range(count - 1):
        logits.append(model.decode_one_token(ids[rows, lengths + step], cache))
    return torch.stack(logits)


@pytest.fixture
def counted():
    """Fresh counters of what is compiled."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters
    torch.compiler.reset()


@pytest.fixture
def ids():
    return torch.randint(37, (3, LENGTH), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("parts", [{}, CHAMELEON_PARTS, {"num_kv_heads": 1}], ids=str)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@torch.no_grad()
def test_one_graph_gives_the_eager_steps_logits(make, ids, counted, parts, backend):
    wanted = steps(make(**parts), ids, 20)
    model = compile_decoding(make(**parts), backend=backend)
    got = steps(model, ids, 20)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    steps(model, ids, 20)  # another cache of the same shape
    assert counted["stats"]["unique_graphs"] == 1
    assert not counted["graph_break"]


@torch.no_grad()
def test_int8_weights_compile_too(make, ids, counted):
    wanted = steps(quantize_int8(make()), ids, 5)
    model = compile_decoding(quantize_int8(make()), backend="aot_eager")
    torch.testing.assert_close(steps(model, ids, 5), wanted, rtol=1e-4, atol=1e-4)
    assert counted["stats"]["unique_graphs"] == 1


@torch.no_grad()
def test_a_copy_runs_its_own_weights(make, ids, counted):
    """Copied, loaded into, quantized, packed: the compiled step is that of the model it is on."""
    model = compile_decoding(make(), backend="aot_eager")
    wanted = steps(make(), ids, 5)
    torch.testing.assert_close(steps(model, ids, 5), wanted, rtol=1e-4, atol=1e-4)
    other = copy.deepcopy(model)
    weights = {name: value * -0.5 for name, value in model.state_dict().items()}
    other.load_state_dict(weights)
    eager = make()
    eager.load_state_dict(weights)
    for change in (lambda model: model, lambda model: pack_weights(model, 3), quantize_int8):
        theirs = steps(change(eager), ids, 5)
        torch.testing.assert_close(steps(change(other), ids, 5), theirs, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(steps(model, ids, 5), wanted, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(theirs, wanted, atol=0.1)
    assert not counted["graph_break"]


@torch.no_grad()
def test_a_decoder_with_a_compiled_step_is_saved(make, ids, counted, tmp_path):
    save_decoder(compile_decoding(make(), backend="eager"), tmp_path)
    assert torch.equal(load_decoder(tmp_path)(ids), make()(ids))


@torch.no_grad()
def test_a_pickled_decoder_leaves_its_compiled_step_out(make, ids, counted):
    model = compile_decoding(make(), backend="eager")
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ):
        assert other.compiled_step is None
        assert torch.equal(steps(other, ids, 3), steps(make(), ids, 3))
    for twin in (model, copy.copy(model), copy.deepcopy(model)):
        assert twin.compiled_step is not None


def test_caches_of_a_compiled_step_have_few_lengths(make):
    model = compile_decoding(make(), backend="eager")
    lengths = [1, 256, 257, 500, 512]
    assert [model.make_cache(1, n).capacity for n in lengths] == [256, 256, 512, 512, 512]
    assert make().make_cache(1, 40).capacity == 40


@torch.no_grad()
def test_any_number_of_batch_sizes_and_lengths(make, counted):
    model, eager = compile_decoding(make(max_length=4096), backend="eager"), make(max_length=4096)
    shapes = [(rows, 30) for rows in range(1, 11)] + [(1, size) for size in range(256, 4097, 384)]
    for rows, length in shapes:
        ids = torch.arange(rows * 4).view(rows, 4) % 37
        found, wanted = (one.make_cache(rows, length) for one in (model, eager))
        for one, cache in ((model, found), (eager, wanted)):
            one.prefill(ids[:, :3], torch.full((rows,), 3), cache)
        torch.testing.assert_close(
            model.decode_one_token(ids[:, 3], found),
            eager.decode_one_token(ids[:, 3], wanted),
            rtol=1e-4,
            atol=1e-4,
        )
    # five powers of two of rows, and 11 lengths, of which 256 is the one of all these rows
    assert counted["stats"]["unique_graphs"] == 5 + 10
    assert torch._dynamo.config.recompile_limit < 4096  # elsewhere it is as it was


@torch.no_grad()
def test_rows_that_come_and_go_take_no_other_graph_and_memory(make, counted):
    model, eager = compile_decoding(make(), backend="eager"), make()
    ids = torch.randint(37, (9, 30), generator=torch.Generator().manual_seed(3))
    addresses = []
    for _ in range(3):
        both = [one.make_cache(2, 30) for one in (model, eager)]
        for one, cache in zip((model, eager), both, strict=True):
            one.prefill(ids[:2, :5], torch.tensor([5, 3]), cache)
            cache.select_rows(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))
        for rows in (8, 7, 5):
            if rows < 8:
                for cache in both:
                    cache.select_rows(torch.arange(rows))
            steps = [
                one.decode_one_token(ids[:rows, 20 + rows], cache)
                for one, cache in zip((model, eager), both, strict=True)
            ]
            torch.testing.assert_close(*steps, rtol=1e-4, atol=1e-4)
            several = [
                one.decode_several(ids[:rows, 10:13], cache, 3, 30)
                for one, cache in zip((model, eager), both, strict=True)
            ]
            torch.testing.assert_close(*several, rtol=1e-4, atol=1e-4)
        addresses.append(both[0].memory.layers[0][0].data_ptr())
        del both
    assert len(set(addresses)) == 1
    assert counted["stats"]["unique_graphs"] == 2  # of one id a row, and of three


@pytest.mark.slow
@torch.no_grad()
def test_inductor_gives_the_eager_steps_logits(make, ids, counted):
    wanted = steps(make(**CHAMELEON_PARTS), ids, 10)
    model = compile_decoding(make(**CHAMELEON_PARTS))
    torch.testing.assert_close(steps(model, ids, 10), wanted, rtol=1e-4, atol=1e-4)
    assert counted["stats"]["unique_graphs"] == 1
    assert not counted["graph_break"]
