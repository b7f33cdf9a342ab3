"""A run that answers many at once: what its commands answer alone, for each, and nothing more."""

import asyncio
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cm3leon import generate
from cm3leon.drawing import describe, draw, follow, records, redraw, teach
from cm3leon.parts import open_parts
from cm3leon.serving.asked import (
    Ask,
    Boxes,
    Broken,
    Describe,
    Documents,
    Draw,
    Edit,
    Full,
    Infill,
    Late,
    Pictures,
    Progress,
    Rows,
    Stopped,
    Structure,
    Texts,
    Vary,
    Waiting,
    Write,
)
from cm3leon.serving.limits import Limits
from cm3leon.serving.service import open_service
from cm3leon.tuned import open_tuned

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def parts(smoke_run):
    return open_parts(smoke_run, "cpu")


@pytest.fixture
def picture(parts):
    key = int(parts.memory.bank.keys[0])
    return Image.fromarray(parts.tokenizers.decode(parts.memory.documents.codes(key)[None])[0])


def served(run, use, **limits):
    """Open a run and let `use(service, session)` ask it."""
    dtype = limits.pop("dtype", None)

    async def main():
        service = open_service(run, "cpu", Limits(**{"rows": 16} | limits), dtype=dtype)
        try:
            return await use(service, service.sessions.of(None))
        finally:
            await service.close()

    return asyncio.run(main())


async def events_of(service, asked, session, **options):
    return [event async for event in service.answer(asked, session, **options)]


async def last_of(service, asked, session):
    return (await events_of(service, asked, session))[-1]


def test_requests_at_the_same_time_draw_what_they_draw_alone(smoke_run, parts, picture):
    """Different kinds, seeds and settings, all in one batch."""
    painted = np.zeros((picture.height, picture.width), bool)
    painted[4:20, 8:30] = True
    asked = [
        Draw(prompt="red apple on white", seed=5, candidates=3),
        Draw(prompt="blue fox", seed=7, candidates=1, changes={"guidance_scale": 3.0}),
        Draw(prompt="a hat", seed=1, candidates=4, sampler="mixed", retrieve=0),
        Describe(picture=picture, candidates=3, seed=2),
        Infill(picture=picture, mask=painted, prompt="a hat", candidates=2, seed=9),
    ]

    async def use(service, session):
        return await asyncio.gather(*(last_of(service, one, session) for one in asked))

    first, second, third, texts, infilled = served(smoke_run, use)
    habits = parts.habits.samplers
    guided = tuple(replace(one, guidance_scale=3.0) for one in habits)
    mixed = tuple(replace(habits[0], sampler=kind) for kind in ("top-p", "cd-k"))
    for found, prompt, seeds, options in (
        (first, "red apple on white", (5, 6, 7), {}),
        (second, "blue fox", (7,), {"samplers": guided}),
        (third, "a hat", (1, 2, 3, 4), {"samplers": mixed, "retrieved": 0}),
    ):
        wanted = draw.draw(parts, [prompt], seeds=np.array([seeds]), **options)
        order = np.argsort(-wanted.scores[0], kind="stable")
        np.testing.assert_array_equal(found.pixels, wanted.pixels[0, order])
        assert found.seeds == tuple(seeds[place] for place in order)
        np.testing.assert_allclose(found.scores, wanted.scores[0, order], atol=1e-5)
    wanted = describe.describing(parts, picture, candidates=3, seed=2).carry_out(parts)
    assert list(texts.texts) == wanted.captions
    masked = redraw.painted_codes(parts.tokenizers, painted)
    redrawing = redraw.redrawing(parts, picture, masked, "a hat", candidates=2, seed=9)
    wanted = redrawing.carry_out(parts)
    np.testing.assert_array_equal(infilled.pixels, wanted.pixels)
    assert set(infilled.shown) == {"picture", "masked"}


def test_a_picture_appears_row_by_row(smoke_run, parts):
    async def use(service, session):
        events = await events_of(service, Draw(prompt="red apple", candidates=2), session)
        whole = await events_of(service, Draw(prompt="red apple"), session, partial=False)
        return events, whole

    events, whole = served(smoke_run, use)
    assert isinstance(events[0], Documents) and events[0].documents
    scores = [document.score for document in events[0].documents]
    assert all(-1.001 <= score <= 1.001 for score in scores)
    rows = [event for event in events if isinstance(event, Rows)]
    assert rows and [one.rows for one in rows] == sorted({one.rows for one in rows})
    (height, _), size = parts.tokenizers.grid, parts.tokenizers.size
    for one in rows:
        assert one.pixels.shape == (2, size * one.rows // height, size, 3)
    assert isinstance(events[-1], Pictures)
    steps = [event for event in events if isinstance(event, Progress)]
    assert all(one.steps == parts.tokenizers.num_codes_per_image for one in steps)
    assert not any(isinstance(event, Rows) for event in whole)
    # codes that are drawn do not change: what was shown first is much like the end
    first, last = rows[-1].pixels, np.sort(events[-1].pixels, axis=0)
    shown = np.sort(first, axis=0)
    assert np.abs(shown - last[:, : shown.shape[1]].astype(float)).mean() < 32


def test_documents_are_shown_chosen_and_refused(smoke_run, parts):
    async def use(service, session):
        found = await service.documents("red apple", 3, session)
        keys = tuple(document.key for document in found)
        chosen = await events_of(service, Draw(prompt="red apple", documents=keys[1:]), session)
        without = await events_of(service, Draw(prompt="red apple", documents=()), session)
        with pytest.raises(ValueError, match="^documents: wanted keys of this run's memory"):
            await last_of(service, Draw(prompt="red apple", documents=(12345,)), session)
        return found, chosen, without

    found, chosen, without = served(smoke_run, use)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    told = [one.key for one in chosen[0].documents]
    assert told == [one.key for one in found][1:][: len(told)]
    assert not any(isinstance(event, Documents) for event in without)
    wanted = draw.draw(parts, ["red apple"], contexts=[[]], seeds=np.arange(4)[None])
    order = np.argsort(-wanted.scores[0], kind="stable")
    np.testing.assert_array_equal(without[-1].pixels, wanted.pixels[0, order])


def test_what_is_taught_stays_in_its_session(smoke_run, parts, picture):
    async def use(service, session):
        other = service.sessions.of(None)
        lesson = await service.teach(picture, "zorp", session)
        again = service.sessions.of(session.token)
        drawn = await events_of(service, Draw(prompt="blue zorp", candidates=2), again)
        foreign = await events_of(service, Draw(prompt="blue zorp", candidates=2), other)
        assert (await service.taught(again))[0].key == lesson.key
        assert not await service.taught(other)
        with pytest.raises(ValueError, match="^documents: "):
            await last_of(service, Draw(prompt="a", documents=(lesson.key,)), other)
        with pytest.raises(ValueError, match="^picture: wanted at most 1 of a session"):
            await service.teach(picture, "zorp two", session)
        assert await service.forget(lesson.key, again)
        assert not await service.forget(lesson.key, again)
        assert not await service.taught(again)
        after = await events_of(service, Draw(prompt="blue zorp", candidates=2), again)
        return lesson, drawn, foreign, after

    lesson, drawn, foreign, after = served(smoke_run, use, taught=1)
    assert drawn[0].documents[0].key == lesson.key and drawn[0].documents[0].taught
    taught = teach.learn(parts, picture, "zorp")
    wanted = draw.draw(taught, ["blue zorp"], seeds=np.array([[0, 1]]))
    order = np.argsort(-wanted.scores[0], kind="stable")
    np.testing.assert_array_equal(drawn[-1].pixels, wanted.pixels[0, order])
    for events in (foreign, after):
        assert not any(
            document.taught
            for event in events
            if isinstance(event, Documents)
            for document in event.documents
        )


@pytest.fixture
def taught_run(smoke_run, parts, picture, tmp_path):
    """A run that was taught a thing, which it keeps."""
    run = tmp_path / "smoke"
    shutil.copytree(smoke_run, run)
    teach.keep(run, picture, "zorp", parts.tokenizers.size)
    return run


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_decoder_may_be_in_a_shorter_format(smoke_run, dtype):
    async def use(service, session):
        assert session.parts.model.token_embedding.weight.dtype == getattr(torch, dtype)
        drawn = await last_of(service, Draw(prompt="a", candidates=2), session)
        assert isinstance(drawn, Pictures) and drawn.pixels.shape[0] == 2
        described = Describe(picture=Image.fromarray(drawn.pixels[0]), candidates=2)
        assert isinstance(await last_of(service, described, session), Texts)

    served(smoke_run, use, dtype=dtype)


def test_a_kept_thing_is_drawn_as_the_command_draws_it(taught_run, monkeypatch):
    sheets = []
    monkeypatch.setattr(
        generate, "save", lambda out, name, pictures, titles: sheets.append(pictures)
    )
    known = generate.taught(open_parts(taught_run, "cpu"), taught_run, None, None, keep=False)
    options = {"retrieved": None, "sampler": None, "changes": {}, "out": None}
    generate.draw_prompt(known, "blue zorp", candidates=2, seed=3, **options)
    generate.draw_prompt(
        known,
        "blue zorp",
        candidates=2,
        seed=3,
        **{**options, "changes": {"image_guidance_scale": 1.0}},
    )

    async def use(service, session):
        return await last_of(service, Draw(prompt="blue zorp", candidates=2, seed=3), session)

    drawn = served(taught_run, use)
    np.testing.assert_array_equal(drawn.pixels, sheets[0][-2:])
    # its shape counts more than where somebody says otherwise
    assert not np.array_equal(drawn.pixels, sheets[1][-2:])


def test_what_is_known_already_is_taught_once(taught_run, picture):
    """By the session, or by the run, of which no session forgets anything."""

    async def use(service, session):
        own = await service.teach(picture, "zorp", session)
        assert (own.caption, own.taught) == ("zorp", True)
        assert not await service.taught(session)
        assert not await service.forget(own.key, session)
        assert (await service.teach(picture, "zorp", session)).key == own.key
        first = await service.teach(picture, "flip", session)
        second = await service.teach(picture.rotate(180), "flip", session)
        again = await service.teach(picture, "flip", session)
        assert again.key == first.key
        keys = [one.key for one in await service.taught(session)]
        assert keys == [first.key, second.key]  # the latest first
        # none of them waits for what others look up
        held = threading.Event()
        holding = asyncio.ensure_future(service.by_hand(held.wait, time.monotonic() + 60))
        assert len(await asyncio.wait_for(service.taught(session), 20)) == 2
        held.set()
        await holding
        drawn = await events_of(service, Draw(prompt="red flip", candidates=1), session)
        assert drawn[0].documents[0].key == first.key
        known = session.parts
        with pytest.raises(ValueError, match="^picture: wanted at most 2 of a session"):
            await service.teach(picture.rotate(90), "flip", session)
        assert session.parts is known
        assert await service.forget(first.key, session)
        assert [one.key for one in await service.taught(session)] == [second.key]

    served(taught_run, use, taught=2)


def test_a_picture_is_varied_by_its_own_caption(smoke_run, picture):
    async def use(service, session):
        events = await events_of(service, Vary(picture=picture, candidates=2), session)
        named = await events_of(service, Vary(picture=picture, prompt="a fox"), session)
        assert not await service.taught(session)
        return events, named

    events, named = served(smoke_run, use)
    for one in (events, named):
        (documents,) = [event for event in one if isinstance(event, Documents)]
        assert documents.documents[0].taught
        assert isinstance(one[-1], Pictures)
    assert len(events[-1].pixels) == 2


def test_a_picture_that_nothing_is_said_of_is_varied(smoke_run, picture, monkeypatch):
    monkeypatch.setattr(describe, "read_captions", lambda tokenizers, ids: [" "] * len(ids))

    async def use(service, session):
        return await events_of(service, Vary(picture=picture, candidates=1), session)

    (documents,) = [one for one in served(smoke_run, use) if isinstance(one, Documents)]
    assert documents.documents[0].caption == "picture"


def test_a_tuned_run_follows_as_its_command_does(smoke_tuned, picture):
    parts, tuned = open_parts(smoke_tuned, "cpu"), open_tuned(smoke_tuned)
    boxes = (("fox", (10, 10, 120, 120)), ("apple", (130, 90, 250, 250)))

    async def use(service, session):
        asked = [
            Edit(picture=picture, instruction="make it blue", candidates=2, seed=3),
            Ask(picture=picture, question="what colour is it?"),
            Boxes(boxes=boxes, candidates=1),
            Write(text="K", candidates=1),
            Structure(picture=picture, feature="canny", prompt="red apple", candidates=1),
        ]
        for feature in ("hed", "edit"):
            for given in (True, False):
                asked_of = Structure(picture=picture, feature=feature, is_feature=given, prompt="a")
                words = rf"^feature: wanted one of \['canny', .*\], got '{feature}'"
                with pytest.raises(ValueError, match=words):
                    await last_of(service, asked_of, session)
        for changes, words in (
            ({"guidance_scale": 9.0}, "^guidance_scale: does nothing with cd-k"),
            ({"image_guidance_scale": 9.0}, "^image_guidance_scale: does nothing with cd-k"),
        ):
            edit = Edit(picture=picture, instruction="a", sampler="cd-k", changes=changes)
            with pytest.raises(ValueError, match=words):
                await last_of(service, edit, session)
        tasks = service.tuned.tasks
        lacking = {name: task for name, task in tasks.items() if name != "edit"}
        service.tuned = replace(service.tuned, tasks=lacking)
        with pytest.raises(ValueError, match="^run: wanted a run that was tuned on edit, got"):
            await last_of(service, Edit(picture=picture, instruction="a"), session)
        service.tuned = replace(service.tuned, tasks=tasks)
        other = Structure(picture=picture, feature="segmentation", prompt="a")
        with pytest.raises(ValueError, match="^is_feature: wanted the segmentation picture itself"):
            await last_of(service, other, session)
        assert "edit" in service.about()["can"]
        return await asyncio.gather(*(last_of(service, one, session) for one in asked))

    edited, said, *drawn = served(smoke_tuned, use)
    pixels = np.asarray(picture)
    wanted = records.edit_of(parts, pixels, "make it blue")
    drawing = follow.drawing_records(
        parts,
        tuned.task("edit"),
        [wanted.fields],
        sampling=tuned.recipe.guidance.sampling("edit"),
        seeds=np.array([[3, 4]]),
    )
    codes = drawing.carry_out(parts)
    np.testing.assert_array_equal(edited.pixels, parts.tokenizers.decode(codes[0]))
    np.testing.assert_array_equal(edited.shown["source"], pixels)
    assert isinstance(said, Texts) and len(said.texts) == 1
    assert all(isinstance(one, Pictures) and len(one.pixels) == 1 for one in drawn)
    assert "canny" in drawn[-1].shown


def test_an_untuned_run_says_so(smoke_run, picture):
    async def use(service, session):
        with pytest.raises(ValueError, match="^run: wanted one that was tuned on instructions"):
            await last_of(service, Edit(picture=picture, instruction="a"), session)
        assert "edit" not in service.about()["can"]

    served(smoke_run, use)


def test_who_finds_no_room_is_told_when_to_come_again(smoke_run):
    async def use(service, session):
        running = [
            asyncio.ensure_future(last_of(service, Draw(prompt="a", candidates=4), session))
            for _ in range(12)
        ]
        refused, most = 0, 0
        while not all(one.done() for one in running):
            await asyncio.sleep(0)
            most = max(most, service.counts()["waiting"])
        for one in running:
            if isinstance(one.exception(), Full):
                assert one.exception().retry_after >= 1
                refused += 1
            else:
                assert isinstance(one.result(), Pictures)
        assert refused and most <= 3
        assert service.counts() == {"waiting": 0, "rows": 0, "sessions": 0}

    served(smoke_run, use, rows=4, candidates=4, waiting=3)


def test_who_wants_a_caption_first_waits_again_and_counts(smoke_run, picture):
    async def use(service, session):
        asked, running, most = Vary(picture=picture, candidates=4), [], 0
        while len(running) < 10 or not all(one.done() for one in running):
            if len(running) < 10 and service.counts()["waiting"] < 3:
                running.append(asyncio.ensure_future(last_of(service, asked, session)))
            await asyncio.sleep(0)
            most = max(most, len(service.scheduler._waiting))
            assert service.counts()["waiting"] <= 3
        found = [one.exception() or one.result() for one in running]
        assert all(isinstance(one, Full | Pictures) for one in found)
        assert any(isinstance(one, Pictures) for one in found)
        assert 1 <= most <= 3

    served(smoke_run, use, rows=4, candidates=4, waiting=3)


def test_who_leaves_is_drawn_no_further(smoke_run):
    async def use(service, session):
        events = service.answer(Draw(prompt="a fox", candidates=4), session)
        async for event in events:
            if isinstance(event, Progress):
                break
        await events.aclose()
        task = asyncio.ensure_future(last_of(service, Draw(prompt="a", candidates=16), session))
        while not service.counts()["rows"]:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert isinstance(await last_of(service, Draw(prompt="a"), session), Pictures)
        assert service.counts()["waiting"] == service.counts()["rows"] == 0

    served(smoke_run, use)


def test_time_is_limited(smoke_run):
    async def use(service, session):
        with pytest.raises(Late, match="within 0.05 s"):
            await last_of(service, Draw(prompt="a fox", candidates=16), session)
        assert service.counts()["waiting"] == 0

    served(smoke_run, use, seconds=0.05)


def test_a_model_that_fails_is_no_service_that_ends(smoke_run, monkeypatch):
    def fails(*given):
        raise RuntimeError("CUDA error: device-side assert triggered")

    async def use(service, session):
        assert service.alive
        monkeypatch.setattr(session.parts.model, "decode_several", fails)
        with pytest.raises(Broken, match="the model failed"):
            await last_of(service, Draw(prompt="a", candidates=1), session)
        assert not service.alive
        monkeypatch.undo()
        assert isinstance(await last_of(service, Draw(prompt="a"), session), Pictures)
        assert service.alive

    served(smoke_run, use)


def test_a_service_that_ends_says_so_to_all(smoke_run):
    async def use(service, session):
        running = [
            asyncio.ensure_future(last_of(service, Draw(prompt="a", candidates=16), session))
            for _ in range(4)
        ]
        while not service.counts()["rows"]:
            await asyncio.sleep(0)
        await service.close()
        found = await asyncio.gather(*running, return_exceptions=True)
        assert all(isinstance(one, Stopped | Pictures) for one in found)
        assert any(isinstance(one, Stopped) for one in found)
        assert not service.alive
        with pytest.raises(Stopped):
            await last_of(service, Draw(prompt="a"), session)

    served(smoke_run, use)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Draw(prompt="a " * 400), "^prompt: a prompt of .* do not fit the model"),
        (Draw(prompt="a", sampler="top-p", changes={"cd_k": 3}), "^cd_k: does nothing with top-p"),
        (Draw(prompt="a", changes={"top_p": 7.0}), "^top_p: wanted"),
        (Draw(prompt="a", sampler="dice"), "^sampler: wanted one of"),
        (Draw(prompt="a", candidates=17), "^candidates: wanted 1 to 16, got 17"),
    ],
)
def test_what_cannot_be_done_is_named(smoke_run, asked, words):
    async def use(service, session):
        with pytest.raises(ValueError, match=words):
            await last_of(service, asked, session)
        assert service.counts()["waiting"] == 0

    served(smoke_run, use)


def test_those_who_wait_see_their_place(smoke_run):
    async def use(service, session):
        asked = [Draw(prompt="a", candidates=4, seed=seed) for seed in range(4)]
        return await asyncio.gather(*(events_of(service, one, session) for one in asked))

    told = served(smoke_run, use, rows=4, candidates=4)
    places = [[one.place for one in events if isinstance(one, Waiting)] for events in told]
    assert all(own == sorted(own, reverse=True) for own in places)
    assert max(map(max, filter(None, places))) >= 1


def test_what_the_run_is_said_to_do(smoke_run, parts):
    async def use(service, session):
        return service.about()

    about = served(smoke_run, use)
    assert about["name"] == "smoke" and about["size"] == parts.tokenizers.size
    assert set(about["can"]) == {"draw", "describe", "infill", "teach", "vary"}
    assert about["examples"] and all(isinstance(text, str) for text in about["examples"])
    assert about["defaults"]["retrieve"] == parts.habits.retrieve
