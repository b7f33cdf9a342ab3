import random

import pytest
import torch

from cm3_decoding import (
    Batch,
    CodeBlock,
    Forced,
    Row,
    SamplingConfig,
    TextUntil,
    batch as batch_module,
    generate,
    generate_rows,
    streams,
)

CODES = CodeBlock(start=10, stop=30, length=8)
TEXT = TextUntil(start=0, stop=10, stop_ids=(4, 5), max_new_tokens=9, stop_sequences=((6, 7),))
SEGMENTS = [
    (CODES,),
    (TEXT,),
    (CodeBlock(start=10, stop=30, length=2), Forced(ids=(7, 3)), TEXT),
    (CodeBlock(start=12, stop=20, length=1),),
    (Forced(ids=(2,)), CODES),
]
CONFIGS = [
    SamplingConfig(),
    SamplingConfig(guidance_scale=3.0, top_p=0.8, top_k=7, temperature=0.9),
    SamplingConfig(sampler="cd-k", temperature=1.5),
    SamplingConfig(sampler="greedy", guidance_scale=2.0),
    SamplingConfig(guidance_scale=2.0, guidance_interval=(1, 4)),
    SamplingConfig(sampler="cd-k", guidance_interval=(0, 0), top_p=0.5),
    SamplingConfig(guidance_scale=2.0, image_guidance_scale=1.5),
]


def some_row(number, prompts, unconditional):
    """One of many rows that differ in everything."""
    at = number % 3
    return Row(
        prompts={
            "conditional": prompts[at],
            "image_conditional": torch.tensor([at + 1, 8]),
            "unconditional": unconditional[at],
        },
        segments=SEGMENTS[number % len(SEGMENTS)],
        config=CONFIGS[number % len(CONFIGS)],
        seed=number,
    )


def alone(model, row):
    return generate(
        model,
        [row.prompts["conditional"]],
        image_conditional=[row.prompts["image_conditional"]],
        unconditional=[row.prompts["unconditional"]],
        constraint=row.segments,
        config=row.config,
        seeds=[row.seed],
    )[0]


@pytest.fixture
def rows(prompts, unconditional):
    return [some_row(number, prompts, unconditional) for number in range(35)]


@pytest.mark.parametrize("batch_size", [1, 4, 35])
@pytest.mark.parametrize("cache", ["joins", "stays"])
def test_rows_of_any_settings_draw_together_what_they_draw_alone(
    model, rows, batch_size, cache, request
):
    wanted = [alone(model, row) for row in rows]
    if cache == "joins":
        request.getfixturevalue("joining")
    model.rows_read.clear()
    found = generate_rows(model, rows, batch_size=batch_size)
    assert all(map(torch.equal, found, wanted))
    assert max(model.rows_read) <= 3 * batch_size


def test_what_prompts_have_in_common_is_read_once(model, request, monkeypatch):
    document = [3, 8, 1, 5, 9, 2, 6]
    both = [
        Row(
            prompts={
                "conditional": torch.tensor([*before, text]),
                "image_conditional": torch.tensor([1]),  # not read: no scale asks for it
                "unconditional": torch.tensor([*before, 0, 1]),
            },
            segments=[CODES],
            config=CONFIGS[1],
            seed=seed,
        )
        for seed, (before, text) in enumerate([(document, 7), (document, 4), ([2], 7)] * 2)
    ]
    wanted = [alone(model, row) for row in both]
    request.getfixturevalue("joining")
    make_cache, made, read = model.make_cache, [], []

    def counted_cache(rows, length):
        made.append(rows)
        return make_cache(rows, length)

    monkeypatch.setattr(model, "make_cache", counted_cache)
    # it reads on behind what rows have in common
    cache_of = type(make_cache(1, 1))
    monkeypatch.setattr(cache_of, "shares_prefixes", True, raising=False)
    monkeypatch.setattr(streams, "STEM_WORTH", 10)
    prefill = model.prefill

    def counted(input_ids, lengths, cache):
        read.append(lengths.tolist())
        return prefill(input_ids, lengths, cache)

    monkeypatch.setattr(model, "prefill", counted)
    found = generate_rows(model, both)
    assert all(map(torch.equal, found, wanted))
    assert made == [3]  # no memory is laid out for what is not read
    stems, rests = read
    assert sorted(stems) == [1, 2, 7]  # the document, and two short prompts by themselves
    assert sorted(rests) == [1, 1, 1, 1, 2]


def test_a_model_is_asked_for_the_ids_that_may_come_alone(joining, rows, monkeypatch):
    wanted = [alone(joining, row) for row in rows]
    decode, spans = joining.decode_one_token, set()

    def decode_span(input_ids, cache, start, stop):
        spans.add((start, stop))
        return decode(input_ids, cache)[:, start:stop]

    monkeypatch.setattr(joining, "decode_span", decode_span, raising=False)
    monkeypatch.setattr(joining, "decode_one_token", None)
    found = generate_rows(joining, rows, batch_size=1)
    assert all(map(torch.equal, found, wanted))
    assert len(spans) > 1


def test_a_row_that_waits_takes_a_finished_ones_place(joining, prompts):
    long = CodeBlock(start=10, stop=30, length=12)
    short = CodeBlock(start=10, stop=30, length=3)
    rows = [
        Row(prompts={"conditional": prompts[number % 3]}, segments=[segment], seed=number)
        for number, segment in enumerate([long] + [short] * 4)
    ]
    generate_rows(joining, rows, batch_size=2)
    # the first two are read together, each new one by itself beside the long one
    assert joining.rows_read == [2, 2, 2] + [1, 2, 2] * 3 + [1] * 3


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("kind", ["joining", "looking"])
def test_rows_that_come_and_go_draw_what_they_draw_alone(rows, seed, kind, request):
    chance = random.Random(seed)
    joining = request.getfixturevalue(kind)
    wanted = {number: alone(joining, row) for number, row in enumerate(rows)}
    waiting, batch, found, dropped = list(range(len(rows))), None, {}, set()
    while waiting or batch:
        coming = [waiting.pop() for _ in range(min(chance.randint(0, 6), len(waiting)))]
        if batch and len(batch) > 2 and chance.random() < 0.3:
            gone = chance.choice(batch.names)
            (so_far,) = batch.peek([gone]).values()
            assert torch.equal(so_far, wanted[gone][: len(so_far)])
            batch.drop([gone, "nobody"])
            dropped.add(gone)
        if batch:
            batch.step()
            found |= batch.collect()
        if coming:
            ahead = chance.randint(1, 5) if kind == "looking" else 1
            new = Batch(joining, {number: rows[number] for number in coming}, lookahead=ahead)
            found |= new.collect()
            if batch and new:
                batch.join(new)
            else:
                batch = new if new else batch
        if batch:
            names, last, going = batch.at(0)
            assert len(names) == len(last) == len(going) and set(batch.names) <= set(names)
            for name, one, there in zip(names, last, going, strict=True):
                assert there == bool(len(wanted[name])) and (not there or one == wanted[name][0])
    assert set(found) | dropped == set(wanted) and not set(found) & dropped
    assert all(torch.equal(ids, wanted[number]) for number, ids in found.items())


@pytest.mark.parametrize("batch_size", [1, 4, 35])
@pytest.mark.parametrize("lookahead", [2, 3, 9])
def test_a_look_ahead_changes_no_id(looking, rows, batch_size, lookahead):
    wanted = [alone(looking, row) for row in rows]
    looking.passes.clear()
    found = generate_rows(looking, rows, batch_size=batch_size, lookahead=lookahead)
    assert all(map(torch.equal, found, wanted))
    if batch_size == 1:  # rows whose guidance acts for a while are read id by id, with the others
        assert max(looking.passes) >= {2: 2, 3: 2, 9: 4}[lookahead]


@pytest.mark.parametrize("sampler", ["top-p", "cd-k", "greedy"])
def test_a_look_ahead_saves_passes_where_ids_follow_from_few_before(looking, sampler):
    """A table whose ids hardly depend on what came before: nearly all guesses are right."""
    looking.by_sum, looking.by_last = looking.by_sum / 1e4, looking.by_last / 1e4
    looking.by_last += torch.randn(30, generator=torch.Generator().manual_seed(5))
    row = Row(
        prompts={"conditional": torch.tensor([3]), "unconditional": torch.tensor([4])},
        segments=[CodeBlock(start=10, stop=30, length=33)],
        config=SamplingConfig(sampler=sampler, guidance_scale=2.0, cd_alpha=0.1),
        seed=4,
    )
    wanted = alone(looking, Row(**vars(row) | {"prompts": {**row.prompts,
                   "image_conditional": torch.tensor([1])}}))  # fmt: skip
    looking.passes.clear()
    calls = []
    (found,) = generate_rows(looking, [row], lookahead=5, progress=lambda *call: calls.append(call))
    assert torch.equal(found, wanted)
    assert len(looking.passes) <= 10  # 7 if all are right
    assert calls[-1] == (33, 33) and calls == sorted(calls)


def test_ids_that_can_only_follow_are_read_at_once(looking, prompts, unconditional):
    forced = Forced(ids=(7, 3, 9, 1, 4, 8))
    two = CodeBlock(start=10, stop=30, length=2)
    rows = [
        Row(
            prompts={"conditional": prompt, "unconditional": other},
            segments=[forced, two, forced, two],
            config=SamplingConfig(guidance_scale=2.0),
            seed=number,
        )
        for number, (prompt, other) in enumerate(zip(prompts, unconditional, strict=True))
    ]
    hidden = TableOf(looking)
    wanted = generate_rows(hidden, rows)
    looking.passes.clear()
    found = generate_rows(looking, rows)
    assert all(map(torch.equal, found, wanted))
    # powers of two; the first id stands behind the prompt
    assert looking.passes == [4, 2, 1, 4, 2, 1, 1]


class TableOf:
    """A model that hides what it offers besides the three methods."""

    def __init__(self, model):
        self.make_cache, self.prefill = model.make_cache, model.prefill
        self.decode_one_token = model.decode_one_token


@pytest.mark.parametrize("lookahead", [1, 8])
def test_no_more_ids_are_read_at_once_than_pay(looking, prompts, lookahead, monkeypatch):
    monkeypatch.setattr(batch_module, "MOST_READ", {"cpu": 12})
    forced = Forced(ids=tuple(range(10, 28)))
    rows = [Row(prompts={"conditional": prompt}, segments=[forced, CODES]) for prompt in prompts]
    wanted = generate_rows(TableOf(looking), rows)
    looking.passes.clear()
    assert all(map(torch.equal, generate_rows(looking, rows, lookahead=lookahead), wanted))
    assert max(looking.passes) == 4


def test_a_finished_row_that_stays_keeps_its_ids(looking, monkeypatch):
    """As on an accelerator, where rows are let go late: their fillers are nobody's."""
    monkeypatch.setattr(Batch, "_let_go", lambda batch, **given: None)
    text = TextUntil(start=0, stop=10, stop_ids=tuple(range(9)), max_new_tokens=9)
    rows = {
        "text": Row(prompts={"conditional": torch.tensor([1])}, segments=[text], seed=1),
        "codes": Row(prompts={"conditional": torch.arange(9)}, segments=[CODES], seed=2),
    }
    wanted = dict(zip(rows, generate_rows(looking, list(rows.values())), strict=True))
    batch = Batch(looking, rows, lookahead=2)
    while batch:
        batch.step()
    assert len(wanted["text"]) < 9
    assert all(torch.equal(ids, wanted[name]) for name, ids in batch.peek(rows).items())
    for name, ids in wanted.items():
        for place in range(9):
            names, found, there = batch.at(place)
            row = names.index(name)
            assert bool(there[row]) == (place < len(ids))
            assert not there[row] or found[row] == ids[place]


def test_what_stands_behind_a_rows_end_need_not_be_finite(looking, prompts):
    stop = torch.full((30,), -50.0)
    stop[4] = 50.0  # so likely that it is guessed
    looking.by_sum, looking.by_last = looking.by_sum * 0, stop.repeat(30, 1)
    looking.by_last[4] = float("nan")
    text = TextUntil(start=0, stop=10, stop_ids=(4,), max_new_tokens=8)
    rows = [Row(prompts={"conditional": prompt}, segments=[text]) for prompt in prompts[1:]]
    codes = Row(prompts={"conditional": torch.tensor([1])}, segments=[CODES])
    found = generate_rows(looking, [*rows, codes], lookahead=4)
    assert [ids.tolist() for ids in found[:2]] == [[4], [4]]


def test_a_model_that_cannot_look_ahead_is_named(looking, prompts):
    row = Row(prompts={"conditional": prompts[0]}, segments=[CODES])
    with pytest.raises(ValueError, match="^lookahead: wanted 1 or a model with `decode_several`"):
        Batch(TableOf(looking), {0: row}, lookahead=2)
    with pytest.raises(ValueError, match="^lookahead: "):
        Batch(looking, {0: row}, lookahead=0)


def test_a_prompt_that_comes_later_may_be_longer(joining, prompts):
    short = Row(prompts={"conditional": prompts[1]}, segments=[CODES], seed=1)
    long = Row(prompts={"conditional": torch.arange(1, 20)}, segments=[CODES], seed=2)
    batch = Batch(joining, {"short": short})
    batch.step()
    batch.join(Batch(joining, {"long": long}))
    found = {}
    while batch:
        batch.step()
        found |= batch.collect()
    for name, row in {"short": short, "long": long}.items():
        (wanted,) = generate_rows(joining, [row])
        assert torch.equal(found[name], wanted)


def test_progress_counts_ids_of_all_rows(joining, prompts):
    rows = [Row(prompts={"conditional": prompt}, segments=[CODES]) for prompt in prompts]
    calls = []
    generate_rows(joining, rows, batch_size=2, progress=lambda *call: calls.append(call))
    assert calls[-1] == (24, 24)
    assert calls == sorted(calls) and len(calls) == 14


def test_no_rows_and_rows_without_ids_give_none(joining, prompts):
    assert generate_rows(joining, []) == []
    empty = Row(prompts={"conditional": prompts[0]}, segments=[])
    full = Row(prompts={"conditional": prompts[0]}, segments=[CODES])
    assert [len(ids) for ids in generate_rows(joining, [empty, full])] == [0, 8]


def test_what_does_not_fit_is_named(model, joining, prompts):
    row = Row(prompts={"conditional": prompts[0]}, segments=[CODES])
    with pytest.raises(ValueError, match="^unconditional: cd-k wants such a prompt in row 0"):
        Batch(joining, {0: Row(**vars(row) | {"config": SamplingConfig(sampler="cd-k")})})
    with pytest.raises(ValueError, match="^rows: wanted other names .* got {0}"):
        Batch(joining, {0: row}).join(Batch(joining, {0: row}))
    with pytest.raises(ValueError, match="^batch_size: "):
        generate_rows(joining, [row], batch_size=0)
    long = Row(prompts={"conditional": prompts[0]}, segments=[CODES] * 5)
    with pytest.raises(ValueError, match="^prompts: a prompt of 5 and 40 new ids do not fit"):
        Batch(joining, {0: long})


def test_a_cache_that_cannot_take_rows_in_says_so(model, prompts):
    row = Row(prompts={"conditional": prompts[0]}, segments=[CODES])
    batch = Batch(model, {0: row})
    assert not batch.takes_rows
    with pytest.raises(ValueError, match="^model: wanted a cache with a method `join`"):
        batch.join(Batch(model, {1: row}))


def test_logits_that_are_not_finite_are_reported(joining, prompts):
    joining.by_last[17] = float("nan")
    forced = [CODES, Forced(ids=(17,)), CodeBlock(start=18, stop=30, length=8)]
    rows = [Row(prompts={"conditional": prompts[0]}, segments=forced, seed=3)]
    with pytest.raises(FloatingPointError, match=r"rows \[0\]"):
        generate_rows(joining, rows)
