import pytest
import torch

from cm3_decoding import CodeBlock, SamplingConfig, best_of, candidate_pool, generate, rerank

CODES = CodeBlock(start=10, stop=30, length=4)
TOP_P = SamplingConfig(guidance_scale=2.0, top_p=0.9)
CD_K = SamplingConfig(sampler="cd-k")


def by_sum(candidates):
    return torch.tensor([float(ids.sum()) for ids in candidates])


def pool(model, prompts, unconditional, **changes):
    settings = {"constraint": CODES, "configs": [TOP_P, CD_K], "seeds": range(7), "scorer": by_sum}
    return candidate_pool(model, prompts[0], unconditional=unconditional[0], **(settings | changes))


def test_rerank_orders_best_first_and_keeps_ties_in_order():
    assert rerank(torch.tensor([0.2, 0.9, 0.2, 0.5])).tolist() == [1, 3, 0, 2]
    with pytest.raises(ValueError, match="scores: wanted one number per candidate"):
        rerank(torch.tensor([0.1, float("nan")]))


def test_best_of_keeps_n():
    words = ["a", "abc", "ab"]
    assert best_of(words, lambda them: torch.tensor([len(word) for word in them]), 2) == [
        "abc",
        "ab",
    ]
    with pytest.raises(ValueError, match="n: wanted a number from 1 to 3, got 4"):
        best_of(words, lambda them: torch.zeros(3), 4)
    with pytest.raises(ValueError, match=r"scorer: wanted 3 scores, got shape \(2,\)"):
        best_of(words, lambda them: torch.zeros(2))


def test_the_pool_is_a_mixture_ordered_by_score(model, prompts, unconditional):
    candidates, scores = pool(model, prompts, unconditional)
    assert torch.equal(scores, by_sum(candidates))
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    wanted = [
        generate(
            model,
            prompts[:1],
            unconditional=unconditional[:1],
            constraint=CODES,
            seeds=[seed],
            config=(TOP_P, CD_K)[seed % 2],
        )[0].tolist()
        for seed in range(7)
    ]
    assert sorted(ids.tolist() for ids in candidates) == sorted(wanted)


def test_the_batch_size_changes_nothing_but_progress(model, prompts, unconditional):
    calls = []
    small = pool(model, prompts, unconditional, batch_size=2, progress=lambda *s: calls.append(s))
    large = pool(model, prompts, unconditional)
    assert all(map(torch.equal, small[0], large[0]))
    # of 7 candidates with 4 ids each two at a time, top-p and CD-K together
    assert calls[-1] == (28, 28) and calls == sorted(calls)


@pytest.mark.parametrize(
    ("change", "name"),
    [({"configs": []}, "configs"), ({"seeds": []}, "seeds"), ({"batch_size": 0}, "batch_size")],
)
def test_an_empty_pool_is_refused(model, prompts, unconditional, change, name):
    with pytest.raises(ValueError, match=f"{name}.*wanted"):
        pool(model, prompts, unconditional, **change)
