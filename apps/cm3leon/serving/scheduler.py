"""The one thread that owns a model: it draws for all who wait, in one batch (continuous batching).

A job is the rows of one request. Its rows enter the running batch together, as soon as there is
room for them, first come, first served; rows that are finished or cancelled leave it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cm3_decoding import Batch, LanguageModel, Row
from cm3leon.drawing.continuation import lookahead_of
from cm3leon.serving.asked import Stopped

BROKEN = 3
"""Failures in a row, without a job that was finished, after which a model passes for broken."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A report: jobs that wait before this one."""

    ahead: int


@dataclass(frozen=True, kw_only=True)
class Started:
    """A report: the job is being drawn."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A report: the new ids so far, (length,) of each row."""

    ids: list[Tensor]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The last report: all new ids of each row."""

    ids: list[Tensor]


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The last report of a job that could not be drawn."""

    error: Exception


Report = Place | Started | Drawn | Finished | Failed


@dataclass(eq=False, kw_only=True)
class Job:
    """Rows of one request."""

    rows: Sequence[Row]
    report: Callable[[Report], None]
    """Called in the scheduler's thread; must neither wait nor fail."""
    every: int | None
    """New ids after which to report `Drawn`; None: never."""
    found: dict[int, Tensor] = field(default_factory=dict)
    said: int = 0
    cancelled: bool = False


class Scheduler:
    """A model and those who wait for it."""

    def __init__(self, model: LanguageModel, device: torch.device | str, rows: int) -> None:
        """Start the thread.

        Args:
            model: In eval mode, on `device`; only this thread calls it from now on.
            device: The model's device.
            rows: Most rows that are drawn at the same time.
        """
        self._model, self._device, self._most = model, device, rows
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._changed = threading.Condition()
        self._closing, self._failures = False, 0
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it draws."""
        return self._thread.is_alive() and not self._closing

    @property
    def broken(self) -> bool:
        """Whether the model fails whatever is drawn; a job that is finished shows it does not."""
        return self._failures >= BROKEN

    @property
    def rows(self) -> int:
        """Number of rows that are being drawn."""
        running = [job for job in list(self._running) if not job.cancelled]
        return sum(len(job.rows) - len(job.found) for job in running)

    def submit(
        self, rows: Sequence[Row], report: Callable[[Report], None], every: int | None = None
    ) -> Job:
        """Let rows be drawn; fields as of `Job`.

        Raises:
            ValueError: There are none, or more than are ever drawn at the same time.
            Stopped: It does not draw any more.
        """
        if not 1 <= len(rows) <= self._most:
            raise ValueError(f"candidates: wanted 1 to {self._most}, got {len(rows)}")
        job = Job(rows=rows, report=report, every=every)
        with self._changed:
            if not self.alive:
                raise Stopped("the service ends")
            self._waiting.append(job)
            job.report(Place(ahead=len(self._waiting) - 1))
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Draw a job no further; nothing is reported any more, soon."""
        with self._changed:
            job.cancelled = True
            self._changed.notify()

    def close(self) -> None:
        """End the thread; jobs that are not finished fail."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        batch: Batch[tuple[Job, int]] | None = None
        try:
            while True:
                with self._changed:
                    while not (self._closing or self._waiting or batch):
                        self._changed.wait()
                    if self._closing:
                        break
                    coming = self._next_jobs()
                try:
                    batch = self._work(batch, coming)
                except Exception as error:  # whatever it is, nobody must wait for ever
                    self._count_failure("drawing", error)
                    self._fail(self._running, error)
                    batch, self._running = None, []
        finally:
            with self._changed:
                self._closing = True
                left = [*self._running, *self._waiting]
                self._running, self._waiting = [], deque()
            self._fail(left, Stopped("the service ends"))

    def _next_jobs(self) -> list[Job]:
        """Take from the queue who has room now; the first one is never passed by others."""
        before = len(self._waiting)
        self._waiting = deque(job for job in self._waiting if not job.cancelled)
        self._running = [job for job in self._running if not job.cancelled]
        room = self._most - self.rows
        coming: list[Job] = []
        while self._waiting and len(self._waiting[0].rows) <= room:
            coming.append(self._waiting.popleft())
            room -= len(coming[-1].rows)
        if len(self._waiting) != before:
            for ahead, job in enumerate(self._waiting):
                job.report(Place(ahead=ahead))
        return coming

    def _work(
        self, batch: Batch[tuple[Job, int]] | None, coming: Sequence[Job]
    ) -> Batch[tuple[Job, int]] | None:
        """Draw the next ids of each row, and the first ones of jobs that come."""
        if batch:
            batch.drop(name for name in batch.names if name[0].cancelled)
        for new in self._begin(coming):
            self._take(new)
            if batch and new:
                batch.join(new)
            elif new:
                batch = new
        if not batch:
            return None
        batch.step()
        self._take(batch)
        self._say(batch)
        return batch

    def _begin(self, coming: Sequence[Job]) -> list[Batch[tuple[Job, int]]]:
        """Read the prompts of jobs, all at once; those that cannot be read fail alone."""
        if not coming:
            return []
        rows = {(job, place): row for job in coming for place, row in enumerate(job.rows)}
        for job in coming:
            job.report(Started())
        try:
            batch = Batch(self._model, rows, self._device, lookahead=lookahead_of(self._model))
        except Exception as error:
            if len(coming) > 1:
                return [batch for job in coming for batch in self._begin([job])]
            if not isinstance(error, ValueError):
                self._count_failure("reading a prompt", error)
            self._fail(coming, error)
            return []
        self._running += coming
        return [batch]

    def _take(self, batch: Batch[tuple[Job, int]]) -> None:
        """Give jobs the ids of rows that have finished."""
        for (job, place), ids in batch.collect().items():
            job.found[place] = ids
            if len(job.found) == len(job.rows):
                self._running.remove(job)
                self._failures = 0
                job.report(Finished(ids=[job.found[row] for row in range(len(job.rows))]))

    def _say(self, batch: Batch[tuple[Job, int]]) -> None:
        """Report ids so far to those jobs that have enough new ones."""
        counts = batch.counts
        for job in self._running:
            names = [(job, place) for place in range(len(job.rows))]
            going = [name for name in names if name in counts]
            drawn = min((counts[name] for name in going), default=job.said)
            due = job.every is not None and drawn // job.every > job.said // job.every
            if due and not job.cancelled:
                job.said = drawn
                so_far = {place: ids for (_, place), ids in batch.peek(names).items()} | job.found
                job.report(Drawn(ids=[so_far[place] for place in range(len(job.rows))]))

    def _count_failure(self, doing: str, error: Exception) -> None:
        """Note that the model failed."""
        logger.error("%s failed", doing, exc_info=error)
        # a process never gets rid of an error of CUDA
        self._failures = BROKEN if "CUDA error" in str(error) else self._failures + 1

    def _fail(self, jobs: Sequence[Job], error: Exception) -> None:
        for job in jobs:
            job.report(Failed(error=error))
