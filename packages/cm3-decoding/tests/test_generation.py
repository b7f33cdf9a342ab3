import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from cm3_decoding import (
    CodeBlock,
    Forced,
    Interleaved,
    SamplingConfig,
    TextUntil,
    generate,
)

CODES = CodeBlock(start=10, stop=30, length=8)
GUIDED = SamplingConfig(guidance_scale=2.0)
CONFIGS = [
    SamplingConfig(),
    SamplingConfig(guidance_scale=3.0, top_p=0.8, top_k=7, temperature=0.9),
    SamplingConfig(sampler="cd-k", temperature=1.5),
    SamplingConfig(sampler="greedy", guidance_scale=2.0),
]


def draw(model, prompts, unconditional=None, seeds=(1, 2, 3), **changes):
    return generate(
        model,
        prompts,
        unconditional=unconditional,
        **({"constraint": CODES, "seeds": seeds} | changes),
    )


def same(left, right):
    return len(left) == len(right) and all(map(torch.equal, left, right))


def uncached_greedy(model, prompt, unconditional, scale, steps):
    """The paper's equation in NumPy, with everything read again for every id."""
    new = []
    for _ in range(steps):
        cond, uncond = (
            model.logits(torch.cat([stream, torch.tensor(new, dtype=torch.long)])).double().numpy()
            for stream in (prompt, unconditional)
        )
        guided = uncond + scale * (cond - uncond)
        new.append(10 + int(np.argmax(guided[10:30])))
    return torch.tensor(new)


def test_greedy_with_guidance_equals_a_loop_without_cache(model, prompts, unconditional):
    config = SamplingConfig(sampler="greedy", guidance_scale=2.5)
    wanted = [
        uncached_greedy(model, *streams, 2.5, 8)
        for streams in zip(prompts, unconditional, strict=True)
    ]
    assert same(draw(model, prompts, unconditional, config=config), wanted)


def test_top_1_equals_greedy(model, prompts, unconditional):
    greedy = draw(
        model, prompts, unconditional, config=dataclasses.replace(GUIDED, sampler="greedy")
    )
    assert same(
        draw(model, prompts, unconditional, config=dataclasses.replace(GUIDED, top_k=1)), greedy
    )
    assert same(
        draw(model, prompts, unconditional, config=dataclasses.replace(GUIDED, top_p=1e-9)), greedy
    )


def test_guidance_1_equals_plain_and_reads_one_stream(model, prompts, unconditional):
    plain = draw(model, prompts)
    model.rows_read.clear()
    assert same(
        draw(model, prompts, unconditional, config=SamplingConfig(guidance_scale=1.0)), plain
    )
    assert model.rows_read == [3] * 8
    model.rows_read.clear()
    assert not same(draw(model, prompts, unconditional, config=GUIDED), plain)
    assert model.rows_read == [6] * 8


def test_equal_streams_of_a_row_are_read_once(model, prompts, unconditional):
    greedy = dataclasses.replace(GUIDED, sampler="greedy")
    wanted = draw(model, prompts, unconditional, config=greedy)
    wanted[1] = draw(model, prompts, config=SamplingConfig(sampler="greedy"))[1]
    model.rows_read.clear()
    mixed = [unconditional[0], prompts[1], unconditional[2]]
    assert same(draw(model, prompts, mixed, config=greedy), wanted)
    assert model.rows_read == [5] * 8


def test_a_negative_prompt_takes_the_unconditional_streams_place(model, prompts, unconditional):
    greedy = SamplingConfig(sampler="greedy", guidance_scale=2.5)
    negative = [torch.tensor([8, 8]), torch.tensor([7]), torch.tensor([2, 9, 9])]
    wanted = [
        uncached_greedy(model, prompt, other, 2.5, 8)
        for prompt, other in zip(prompts, negative, strict=True)
    ]
    assert same(draw(model, prompts, negative, config=greedy), wanted)
    assert not same(draw(model, prompts, unconditional, config=greedy), wanted)


IMAGES = [torch.tensor([3, 1]), torch.tensor([9, 9]), torch.tensor([6, 5])]


def test_picture_and_text_guide_with_scales_of_their_own(model, prompts, unconditional):
    config = SamplingConfig(sampler="greedy", guidance_scale=7.5, image_guidance_scale=1.5)
    got = draw(model, prompts, unconditional, image_conditional=IMAGES, config=config)
    assert model.rows_read == [9] * 8
    for row, streams in enumerate(zip(prompts, IMAGES, unconditional, strict=True)):
        new = []
        for _ in range(8):
            cond, image, uncond = (
                model.logits(torch.cat([stream, torch.tensor(new, dtype=torch.long)])).double()
                for stream in streams
            )
            guided = uncond + 1.5 * (image - uncond) + 7.5 * (cond - image)
            new.append(10 + int(guided[10:30].argmax()))
        assert got[row].tolist() == new


@pytest.mark.parametrize(
    ("text", "image", "streams"), [(1.0, 1.0, 1), (2.0, 1.0, 2), (2.0, 2.0, 2), (1.0, 2.0, 3)]
)
def test_streams_without_a_say_are_not_read(model, prompts, unconditional, text, image, streams):
    config = SamplingConfig(sampler="greedy", guidance_scale=text, image_guidance_scale=image)
    assert len(config.streams) == streams
    draw(model, prompts, unconditional, image_conditional=IMAGES, config=config)
    assert model.rows_read == [3 * streams] * 8


@pytest.mark.parametrize(
    "config", [dataclasses.replace(GUIDED, sampler="greedy"), SamplingConfig(sampler="cd-k")]
)
def test_guidance_keeps_to_its_interval(model, prompts, unconditional, config):
    def within(*interval):
        inside = dataclasses.replace(config, guidance_interval=interval)
        return draw(model, prompts, unconditional, config=inside)

    guided, plain = within(0, None), within(0, 0)
    kind = "greedy" if config.sampler == "greedy" else "top-p"
    assert same(plain, draw(model, prompts, config=SamplingConfig(sampler=kind)))
    assert not same(guided, plain)
    for row, ids in enumerate(within(3, 8)):
        assert torch.equal(ids[:3], plain[row][:3])
    for row, ids in enumerate(within(0, 3)):
        assert torch.equal(ids[:3], guided[row][:3])


class RowsCanGo(dict):
    def select_rows(self, rows):
        self["sum"], self["used"] = self["sum"][rows], self["used"][rows]


@pytest.mark.parametrize(("end", "reads"), [(0, [6] + [3] * 7), (3, [6] * 3 + [3] * 5)])
@pytest.mark.parametrize("kind", ["greedy", "cd-k"])
def test_streams_without_a_say_behind_the_interval_are_dropped(
    model, prompts, unconditional, monkeypatch, kind, end, reads
):
    config = SamplingConfig(sampler=kind, guidance_scale=2.0, guidance_interval=(0, end))
    kept = draw(model, prompts, unconditional, config=config)
    assert model.rows_read == [6] * 8
    make_cache = model.make_cache
    monkeypatch.setattr(model, "make_cache", lambda *size: RowsCanGo(make_cache(*size)))
    model.rows_read.clear()
    assert same(draw(model, prompts, unconditional, config=config), kept)
    assert model.rows_read == reads


@pytest.mark.parametrize("config", CONFIGS)
def test_a_prompt_of_several_rows_is_read_once(model, prompts, unconditional, monkeypatch, config):
    rows, others = [prompts[i] for i in (0, 1, 0, 0)], [unconditional[0]] * 4
    wanted = draw(model, rows, others, seeds=range(4), config=config)
    make_cache = model.make_cache
    monkeypatch.setattr(model, "make_cache", lambda *size: RowsCanGo(make_cache(*size)))
    model.rows_read.clear()
    assert same(draw(model, rows, others, seeds=range(4), config=config), wanted)
    count = len(config.streams)
    assert model.rows_read == [2 + (count - 1)] + [4 * count] * 7


def test_equal_streams_make_guidance_a_no_op(model, prompts):
    # Only up to rounding, which could tip a draw; greedy is safe.
    greedy = SamplingConfig(sampler="greedy")
    guided = dataclasses.replace(greedy, guidance_scale=3.0)
    assert same(draw(model, prompts, prompts, config=guided), draw(model, prompts, config=greedy))


@pytest.mark.parametrize("config", CONFIGS)
def test_a_row_draws_in_a_batch_what_it_draws_alone(model, prompts, unconditional, config):
    segments = [
        [CODES],
        [TextUntil(start=0, stop=10, stop_ids=(4,), max_new_tokens=5), CODES],
        [
            CodeBlock(start=10, stop=30, length=2),
            Forced(ids=(7,)),
            CodeBlock(start=3, stop=9, length=3),
        ],
    ]
    batch = draw(model, prompts, unconditional, constraint=segments, config=config)
    for row in range(3):
        alone = draw(
            model,
            prompts[row : row + 1],
            unconditional[row : row + 1],
            seeds=[row + 1],
            constraint=segments[row],
            config=config,
        )
        assert torch.equal(alone[0], batch[row])


@pytest.mark.parametrize(
    "config",
    [
        SamplingConfig(),
        SamplingConfig(guidance_scale=3.0, top_p=0.9),
        SamplingConfig(sampler="cd-k"),
    ],
)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 0.0), (torch.bfloat16, 0.04)])
def test_a_real_decoders_row_draws_in_a_batch_what_it_draws_alone(
    real_decoder, dtype, most, config
):
    """In bfloat16 the logits themselves differ: then few draws do, instead of one in ten."""
    model = real_decoder(dtype)
    prompts = [torch.arange(1 + row, 6 + 2 * row) for row in range(8)]
    others = [torch.tensor([60, row]) for row in range(8)]
    settings = {"constraint": CodeBlock(start=64, stop=8256, length=12), "config": config}
    batch = draw(model, prompts, others, seeds=range(8), **settings)
    same, different = 0, 0
    for row in range(8):
        (alone,) = draw(model, [prompts[row]], [others[row]], seeds=[row], **settings)
        before = int((alone == batch[row]).long().cumprod(0).sum())  # then all else differs, too
        same, different = same + before, different + (before < 12)
    assert different <= most * (same + different), (different, same)


def test_the_seed_decides(model, prompts):
    assert same(draw(model, prompts), draw(model, prompts))
    one, two, again = draw(model, prompts[:1] * 3, seeds=(5, 6, 5))
    assert torch.equal(one, again)
    assert not torch.equal(one, two)


def test_the_global_generator_is_neither_read_nor_moved(model, prompts):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = draw(model, prompts)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(1)
    assert same(draw(model, prompts), first)


@pytest.mark.parametrize("config", CONFIGS)
def test_segments_are_kept(model, prompts, unconditional, config):
    text = TextUntil(start=0, stop=10, stop_ids=(4,), max_new_tokens=6, forbidden=(0, 1))
    picture = [CodeBlock(start=10, stop=30, length=3), Forced(ids=(2, 1))]
    rows = draw(model, prompts, unconditional, constraint=[*picture, text], config=config)
    for ids in (row.tolist() for row in rows):
        assert all(10 <= code < 30 for code in ids[:3])
        assert ids[3:5] == [2, 1]
        caption = ids[5:]
        assert set(caption) <= set(range(2, 10))
        assert len(caption) == 6 or caption.index(4) == len(caption) - 1


def test_draws_follow_the_models_distribution(model):
    prompt = torch.tensor([3, 1, 4])
    one = CodeBlock(start=10, stop=30, length=1)
    rows = generate(model, [prompt] * 4000, constraint=one, seeds=range(4000))
    counts = Counter(int(row) for row in rows)
    logits = model.logits(prompt)[10:30].double()
    for code, probability in enumerate(logits.softmax(0).tolist(), start=10):
        deviation = (4000 * probability * (1 - probability)) ** 0.5
        assert abs(counts[code] - 4000 * probability) <= 5 * deviation + 1, code


def test_cd_k_draws_from_the_papers_scores(model, prompts, unconditional):
    config = SamplingConfig(sampler="cd-k", cd_alpha=0.3, cd_k=3)
    one = CodeBlock(start=10, stop=30, length=1)
    rows = generate(
        model,
        prompts[:1] * 500,
        unconditional=unconditional[:1] * 500,
        constraint=one,
        config=config,
        seeds=range(500),
    )
    expert, amateur = (
        model.logits(stream)[10:30].double().softmax(0).numpy()
        for stream in (prompts[0], unconditional[0])
    )
    plausible = expert >= 0.3 * np.sort(expert)[-3]
    assert {int(row) - 10 for row in rows} <= set(np.flatnonzero(plausible).tolist())
    ratio = np.where(plausible, expert / amateur, 0)
    wanted = 500 * ratio / ratio.sum()
    counts = np.bincount([int(row) - 10 for row in rows], minlength=20)
    assert (np.abs(counts - wanted) <= 5 * np.sqrt(wanted) + 1).all()


def test_progress_counts_steps_and_can_stop_the_run(model, prompts):
    calls = []
    draw(model, prompts, progress=lambda *step: calls.append(step))
    assert calls == [(step, 8) for step in range(1, 9)]

    def stop(step, steps):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(model, prompts, progress=stop)


def test_a_stream_sees_every_id_and_can_cancel(model, prompts):
    segments = [[CODES], [CodeBlock(start=10, stop=30, length=2)], [CODES]]
    steps = []
    whole = draw(model, prompts, constraint=segments, stream=steps.append)
    assert [step.step for step in steps] == list(range(1, 9))
    for row in range(3):
        assert [int(s.ids[row]) for s in steps if s.active[row]] == whole[row].tolist()
    cut = draw(model, prompts, constraint=segments, stream=lambda step: step.step < 5)
    assert [len(row) for row in cut] == [5, 2, 5]
    assert all(torch.equal(row, all_of[: len(row)]) for row, all_of in zip(cut, whole, strict=True))


@pytest.mark.parametrize("lookahead", [1, 4])
def test_a_stream_sees_ids_of_a_look_ahead_in_their_order(looking, prompts, lookahead):
    looking.by_sum, looking.by_last = looking.by_sum / 9, looking.by_last / 9  # many right guesses
    text = TextUntil(start=1, stop=10, stop_ids=(4, 5, 6), max_new_tokens=8)
    segments = [[CODES], [CodeBlock(start=10, stop=30, length=2)], [text]]
    steps, calls = [], []
    settings = {"constraint": segments, "lookahead": lookahead}
    whole = draw(
        looking, prompts, stream=steps.append, progress=lambda *c: calls.append(c), **settings
    )
    assert [step.step for step in steps] == list(range(1, 9))
    for row in range(3):
        assert [int(s.ids[row]) for s in steps if s.active[row]] == whole[row].tolist()
    assert calls[-1] == (8, 8) and calls == sorted(calls)
    assert (len(calls) < 8) == (lookahead > 1)
    cut = draw(looking, prompts, stream=lambda step: step.step < 3, **settings)
    assert all(torch.equal(row, all_of[: len(row)]) for row, all_of in zip(cut, whole, strict=True))
    assert 3 <= len(cut[0]) < 8


def test_interleaved_rows_keep_one_cache(model, prompts, unconditional):
    segment = Interleaved(
        text=TextUntil(start=1, stop=10, stop_ids=(4,), max_new_tokens=4),
        picture=CodeBlock(start=10, stop=30, length=3),
        open_id=0,
        max_pictures=2,
    )
    settings = {"constraint": segment, "config": GUIDED}
    batch = draw(model, prompts * 4, unconditional * 4, seeds=range(12, 24), **settings)
    assert len(model.rows_read) == max(map(len, batch))  # nothing was read twice
    pictures = 0
    for row, ids in enumerate(batch):
        streams = [prompts[row % 3]], [unconditional[row % 3]]
        alone = draw(model, *streams, seeds=[12 + row], **settings)
        assert torch.equal(alone[0], ids)
        ids, at = ids.tolist(), 0
        while 0 in ids[at:]:
            at = ids.index(0, at) + 1
            assert all(10 <= code < 30 for code in ids[at : at + 3])
            pictures += 1
            assert at + 3 == len(ids) or ids[at + 3] < 10
    assert pictures > 0


def test_a_text_gap_and_an_image_gap_are_filled_in_one_run(model, prompts):
    gap = TextUntil(start=5, stop=10, stop_ids=(4,), max_new_tokens=3)
    region = CodeBlock(start=10, stop=30, length=2)
    filled = draw(
        model, prompts, constraint=[gap, Forced(ids=(1,)), region, Forced(ids=(2,)), region]
    )
    for ids in (row.tolist() for row in filled):
        end = ids.index(1)
        assert end == 3 or ids[end - 1] == 4
        assert set(ids[:end]) <= {4, 5, 6, 7, 8, 9}
        assert all(10 <= code < 30 for code in ids[end + 1 : end + 3] + ids[end + 4 :])
        assert ids[end + 3] == 2
        assert len(ids) == end + 6


def test_decoding_ends_when_every_row_has_stopped(model, prompts):
    # Every id is a stop id.
    text = TextUntil(start=0, stop=30, stop_ids=tuple(range(30)), max_new_tokens=20)
    rows = draw(model, prompts, constraint=text)
    assert [len(row) for row in rows] == [1, 1, 1]
    assert model.rows_read == [3]


def test_the_whole_context_can_be_used(model, prompts):
    # 5 ids of the prompt and 35 new ones are read, the 36th is not.
    rows = draw(model, prompts, constraint=CodeBlock(start=0, stop=30, length=36))
    assert [len(row) for row in rows] == [36] * 3
    with pytest.raises(ValueError, match="prompts: a prompt of 5 and 37 new ids do not fit"):
        draw(model, prompts, constraint=CodeBlock(start=0, stop=30, length=37))


def test_new_ids_can_be_used_in_training(model, prompts):
    embedding = torch.nn.Embedding(30, 4)
    embedding(draw(model, prompts)[0]).sum().backward()
    assert embedding.weight.grad is not None


def test_no_rows_give_no_rows(model):
    assert draw(model, [], seeds=()) == []


def test_logits_that_are_not_finite_are_reported(model, prompts):
    model.by_last[17] = float("nan")
    codes = CodeBlock(start=18, stop=30, length=8)
    forced = [codes, Forced(ids=(17,)), codes]
    with pytest.raises(FloatingPointError, match=r"in step 9, rows \[0, 1, 2\]"):
        draw(model, prompts, constraint=forced)


@pytest.mark.parametrize(
    "config",
    [
        SamplingConfig(guidance_scale=1e38),
        SamplingConfig(guidance_scale=1e38, sampler="greedy"),
        SamplingConfig(guidance_scale=1e38, image_guidance_scale=2.0, top_k=3),
        SamplingConfig(guidance_scale=3e38, top_p=0.5, temperature=0.7),
    ],
)
def test_guidance_that_overflows_is_reported(model, prompts, unconditional, config):
    model.by_last *= 100
    with pytest.raises(FloatingPointError, match="after guidance, got NaN or infinity .* step 0"):
        draw(model, prompts, unconditional, image_conditional=IMAGES, config=config)


def test_logits_near_the_largest_number_are_drawn_from(model, prompts):
    greedy = draw(model, prompts, config=SamplingConfig(sampler="greedy"))
    model.by_last *= 1e37
    model.by_sum *= 1e37
    assert same(draw(model, prompts), greedy)


@pytest.mark.parametrize("temperature", [1e-6, 1e-38, 1e-300])
@pytest.mark.parametrize("sampler", ["top-p", "cd-k"])
def test_a_temperature_towards_0_is_greedy(model, prompts, unconditional, temperature, sampler):
    cold = SamplingConfig(sampler=sampler, temperature=temperature, guidance_scale=2.0, top_p=0.9)
    if sampler == "top-p":
        wanted = SamplingConfig(sampler="greedy", guidance_scale=2.0)
    else:
        wanted = dataclasses.replace(cold, temperature=1e-5)
    assert same(
        draw(model, prompts, unconditional, config=cold),
        draw(model, prompts, unconditional, config=wanted),
    )


@pytest.mark.parametrize("value", [float("-inf"), float("nan"), float("inf")])
@pytest.mark.parametrize("config", CONFIGS)
def test_logits_of_ids_that_no_segment_allows_may_be_anything(
    model, prompts, unconditional, value, config
):
    wanted = draw(model, prompts, unconditional, config=config)
    model.by_last[:, [0, 5, 9]] = value  # the codes start at 10
    assert same(draw(model, prompts, unconditional, config=config), wanted)
    # Nor those inside the span of ids that are allowed in other steps or rows.
    split = [CodeBlock(start=0, stop=3, length=2), CodeBlock(start=20, stop=30, length=2)]
    model.by_last[:, [0, 5, 9]] = 0.0
    wanted = draw(model, prompts, unconditional, constraint=split, config=config)
    model.by_last[:, 3:20] = value
    assert same(draw(model, prompts, unconditional, constraint=split, config=config), wanted)


def test_an_allowed_id_of_minus_infinity_is_not_drawn(model, prompts):
    model.by_last[:, 12:30] = float("-inf")
    rows = draw(model, prompts)
    assert {int(code) for row in rows for code in row} == {10, 11}
    model.by_last[:, 10:30] = float("-inf")
    with pytest.raises(FloatingPointError, match="for every allowed id"):
        draw(model, prompts)


def test_cd_k_outside_its_interval_draws_as_top_p_does(model, prompts, unconditional):
    for change in ({"top_p": 0.4}, {"top_k": 2}, {"top_k": 9, "top_p": 0.7, "temperature": 0.8}):
        plain = SamplingConfig(**change)
        config = SamplingConfig(sampler="cd-k", guidance_interval=(3, 3), **change)
        wanted = draw(model, prompts, config=plain)
        assert same(draw(model, prompts, unconditional, config=config), wanted)
        assert not same(draw(model, prompts), wanted)


@pytest.mark.parametrize(
    "seeds",
    [
        (1, 2, 3),
        np.array([1, 2, 3]),
        np.array([1, 2, 3], dtype=np.uint64),
        torch.tensor([1, 2, 3]),
        [np.int64(1), torch.tensor(2), 3],
        range(1, 4),
        iter([1, 2, 3]),
    ],
)
def test_seeds_may_be_whole_numbers_of_any_kind(model, prompts, seeds):
    assert same(draw(model, prompts, seeds=seeds), draw(model, prompts, seeds=[1, 2, 3]))


def test_all_64_bits_of_a_seed_count(model, prompts):
    seeds = [0, 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -(2**63) + 1]
    rows = draw(model, prompts[:1] * len(seeds), seeds=seeds)
    assert len({tuple(row.tolist()) for row in rows}) == len(seeds)


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ([1, 2, 2**64], "wanted numbers from -2.63 to 2.64 - 1, got 18446744073709551616"),
        ([1, 2, -(2**63) - 1], "wanted numbers from"),
        ([1, 2, 3.0], "wanted a whole number, got 3.0"),
        ([1, 2, None], "wanted a whole number, got None"),
        (["1", "2", "3"], "wanted a whole number, got '1'"),
        (torch.tensor([1.0, 2, 3]), "wanted a whole number"),
        (torch.ones(3, 1).long(), "wanted a sequence of whole numbers"),
        (7, "wanted a sequence of whole numbers, got 7"),
        (None, "wanted a sequence of whole numbers, got None"),
    ],
)
def test_other_seeds_are_named(model, prompts, seeds, words):
    with pytest.raises(ValueError, match=f"^seeds: {words}"):
        draw(model, prompts, seeds=seeds)


def test_prompts_may_be_lists_and_arrays(model, prompts):
    given = [prompts[0].tolist(), prompts[1].numpy(), prompts[2].to(torch.int32)]
    assert same(draw(model, given), draw(model, prompts))
    for bad in ("ab", None, [1, None], [1.5], [True], [[1]], 7):
        with pytest.raises(ValueError, match="^prompts: wanted .* in row 1, got"):
            draw(model, [prompts[0], bad, prompts[2]])


def test_bad_input_is_named(model, prompts, unconditional):
    with pytest.raises(ValueError, match=r"seeds: wanted one per prompt \(3\), got 2"):
        draw(model, prompts, seeds=(1, 2))
    with pytest.raises(ValueError, match="unconditional: .* got none"):
        draw(model, prompts, config=GUIDED)
    with pytest.raises(ValueError, match="unconditional: .* got 2"):
        draw(model, prompts, unconditional[:2], config=GUIDED)
    three = SamplingConfig(guidance_scale=7.5, image_guidance_scale=1.5)
    with pytest.raises(ValueError, match="image_conditional: .* 7.5 and .* 1.5 wants .* got none"):
        draw(model, prompts, unconditional, config=three)
    for bad in (torch.tensor([], dtype=torch.long), torch.tensor([[1]]), torch.tensor([1.0])):
        with pytest.raises(ValueError, match="prompts: wanted at least one id .* in row 1"):
            draw(model, [prompts[0], bad, prompts[2]])
    with pytest.raises(ValueError, match="below the model's 30 logits, got 30"):
        draw(model, prompts, constraint=CodeBlock(start=10, stop=31, length=2))
