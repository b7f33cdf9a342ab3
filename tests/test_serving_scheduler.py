"""Many jobs, one model, one thread: each gets what it would get alone."""

import queue
import random
import threading
import time

import pytest
import torch

from cm3_decoding import CodeBlock, Row, SamplingConfig, TextUntil, generate_rows
from cm3_model import Decoder, DecoderConfig
from cm3leon.serving.asked import Stopped
from cm3leon.serving.scheduler import Drawn, Failed, Finished, Place, Scheduler, Started


@pytest.fixture(scope="module")
def model():
    config = DecoderConfig(vocab_size=96, width=32, num_layers=2, num_heads=4, max_length=64)
    decoder = Decoder(config, torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():  # a paper's start is the identity: it would say the same everywhere
        for number, weight in enumerate(decoder.parameters()):
            weight += torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) / 4
    return decoder


@pytest.fixture
def scheduler(model):
    made = Scheduler(model, "cpu", 8)
    yield made
    made.close()


class Told(queue.Queue):
    """The reports of a job."""

    def last(self):
        """Wait for the last one."""
        while True:
            one = self.get(timeout=60)
            if isinstance(one, Finished | Failed):
                return one


def row(number, length=12):
    kinds = [
        SamplingConfig(guidance_scale=2.0),
        SamplingConfig(sampler="cd-k"),
        SamplingConfig(sampler="greedy"),
    ]
    code = CodeBlock(start=32, stop=96, length=length)
    text = TextUntil(start=0, stop=32, stop_ids=(1, 2, 3, 4), max_new_tokens=length)
    return Row(
        prompts={
            "conditional": torch.arange(5, 9 + number % 7),
            "unconditional": torch.tensor([5, 3]),
        },
        segments=[text if number % 4 == 3 else code],
        config=kinds[number % 3],
        seed=number,
    )


@pytest.mark.parametrize("seed", range(3))
def test_jobs_that_come_at_any_time_draw_what_they_draw_alone(model, scheduler, seed):
    chance = random.Random(seed)
    jobs = [
        [row(chance.randrange(99), chance.randint(1, 20)) for _ in range(chance.randint(1, 5))]
        for _ in range(24)
    ]
    told = [Told() for _ in jobs]

    def user(own):
        for number in own:
            scheduler.submit(jobs[number], told[number].put)
            if number % 2:
                time.sleep(0.01)

    users = [threading.Thread(target=user, args=(range(first, 24, 3),)) for first in range(3)]
    for one in users:
        one.start()
    for own, one in zip(jobs, told, strict=True):
        last = one.last()
        assert isinstance(last, Finished)
        wanted = [generate_rows(model, [each])[0] for each in own]
        assert all(map(torch.equal, last.ids, wanted))
    for one in users:
        one.join()
    assert scheduler.rows == 0


def test_reports_come_in_order_and_show_the_first_ids(model, scheduler):
    told = Told()
    rows = [row(number) for number in (0, 1, 2)]
    scheduler.submit(rows, told.put, every=4)
    reports = []
    while not reports or not isinstance(reports[-1], Finished):
        reports.append(told.get(timeout=60))
    kinds = [type(report) for report in reports]
    assert kinds == [Place, Started, *[Drawn] * (len(kinds) - 3), Finished]
    whole = reports[-1].ids
    assert [len(ids) for ids in whole] == [12] * 3
    shortest = [min(map(len, report.ids)) for report in reports[2:-1]]
    # a pass may draw several ids; each report has another four of every row, or more
    assert shortest and shortest[0] >= 4
    assert [length // 4 for length in shortest] == sorted({length // 4 for length in shortest})
    for report in reports[2:]:
        for ids, all_of in zip(report.ids, whole, strict=True):
            assert torch.equal(ids, all_of[: len(ids)])


def test_those_who_wait_are_told_their_place_and_come_in_turn(scheduler):
    blocker, order = Told(), []
    scheduler.submit([row(n, 40) for n in range(0, 24, 3)], blocker.put)  # takes all of the room
    while not isinstance(blocker.get(timeout=60), Started):
        pass
    told = [Told() for _ in range(3)]
    # the second wants more room than one row that has left; the third must not pass it
    for number, size in enumerate((1, 6, 1)):

        def report(one, number=number):
            order.append((number, type(one), getattr(one, "ahead", None)))
            told[number].put(one)

        scheduler.submit([row(0)] * size, report)
    for one in told:
        assert isinstance(one.last(), Finished)
    started = [number for number, kind, _ in order if kind is Started]
    assert started == [0, 1, 2]
    places = [place for number, kind, place in order if number == 2 and kind is Place]
    assert places == sorted(places, reverse=True) and places[0] <= 2


def test_a_cancelled_job_makes_room_and_is_heard_of_no_more(scheduler):
    told, other = Told(), Told()
    job = scheduler.submit([row(n, 48) for n in range(0, 24, 3)], told.put, every=1)
    while not isinstance(told.get(timeout=60), Drawn):
        pass
    waiting = scheduler.submit([row(0)], told.put)
    scheduler.submit([row(1)], other.put)
    scheduler.cancel(job)
    scheduler.cancel(waiting)
    assert isinstance(other.last(), Finished)
    assert scheduler.rows == 0
    rest = [told.get_nowait() for _ in range(told.qsize())]
    assert not any(isinstance(one, Finished | Failed | Started) for one in rest)


def test_a_job_that_does_not_fit_fails_alone(scheduler):
    told = [Told() for _ in range(3)]
    blocker = Told()
    scheduler.submit([row(n, 30) for n in range(0, 24, 3)], blocker.put)
    for number, one in enumerate(told):  # they are read together, once the first is done
        scheduler.submit([row(0, 70 if number == 1 else 12)], one.put)
    assert isinstance(told[0].last(), Finished) and isinstance(told[2].last(), Finished)
    failed = told[1].last()
    assert isinstance(failed, Failed) and isinstance(failed.error, ValueError)
    assert "do not fit the model" in str(failed.error)
    assert scheduler.alive


def test_a_model_that_fails_fails_its_jobs_and_goes_on(model, monkeypatch, caplog):
    scheduler, told, after = Scheduler(model, "cpu", 4), Told(), Told()
    step = model.decode_several
    broken = threading.Event()

    def fails(*given):
        if broken.is_set():
            raise RuntimeError("no memory left")
        return step(*given)

    monkeypatch.setattr(model, "decode_several", fails)
    broken.set()
    scheduler.submit([row(0)], told.put)
    failed = told.last()
    assert isinstance(failed, Failed) and "no memory left" in str(failed.error)
    broken.clear()
    scheduler.submit([row(0)], after.put)
    assert isinstance(after.last(), Finished)
    assert "drawing failed" in caplog.text
    scheduler.close()


@pytest.mark.parametrize("method", ["prefill", "decode_several"])
@pytest.mark.parametrize(("words", "count"), [("no memory left", 3), ("CUDA error: asserted", 1)])
def test_a_model_that_fails_again_and_again_is_broken(model, monkeypatch, method, words, count):
    scheduler = Scheduler(model, "cpu", 4)

    def fails(*given):
        raise RuntimeError(words)

    def finished():
        told = Told()
        scheduler.submit([row(0)], told.put)
        return isinstance(told.last(), Finished)

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(model, method, fails)
            for _ in range(count):
                assert not scheduler.broken
                assert not finished()
            assert scheduler.broken and scheduler.alive
        assert finished() and not scheduler.broken
    scheduler.close()


def test_closing_ends_every_job_and_takes_no_more(model):
    scheduler, running, waiting = Scheduler(model, "cpu", 8), Told(), Told()
    scheduler.submit([row(n, 48) for n in range(0, 24, 3)], running.put, every=1)
    while not isinstance(running.get(timeout=60), Drawn):
        pass
    scheduler.submit([row(0)], waiting.put)
    scheduler.close()
    for one in (running, waiting):
        failed = one.last()
        assert isinstance(failed, Failed) and isinstance(failed.error, Stopped)
    assert not scheduler.alive
    with pytest.raises(Stopped):
        scheduler.submit([row(0)], waiting.put)


@pytest.mark.parametrize("count", [0, 9])
def test_a_job_that_never_has_room_is_refused(scheduler, count):
    with pytest.raises(ValueError, match=f"^candidates: wanted 1 to 8, got {count}"):
        scheduler.submit([row(0)] * count, print)
