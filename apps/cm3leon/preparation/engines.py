"""Who works on the shards: processes of this machine, or actors of a Ray cluster.

Both open the models once a worker, replace a worker that dies, and repeat its shard alone. What is
made depends on neither: a shard's folder is a function of the job and the shard.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from cm3leon.preparation.job import AnyJob
from cm3leon.preparation.source import Shard

Finished = Callable[[int], object]
"""Called with the number of each shard that is done."""


class Engine(Protocol):
    """Workers."""

    def run(self, task: str, shards: Mapping[int, Shard], finished: Finished) -> None:
        """Do one task of the workers for each shard, given by its number."""
        ...

    def close(self) -> None:
        """Let the workers go."""
        ...


def engine_of(job: AnyJob) -> Engine:
    """Return the engine that the job names; its workers start now."""
    return LocalEngine(job) if job.options.engine == "local" else RayEngine(job)


class LocalEngine:
    """Processes of this machine, started afresh (spawn), so that none inherits a thread."""

    def __init__(self, job: AnyJob) -> None:
        self.job = job
        self._context = multiprocessing.get_context("spawn")
        self._staff = [self._hire() for _ in range(job.options.workers)]

    def run(self, task: str, shards: Mapping[int, Shard], finished: Finished) -> None:
        """Do one task for each shard.

        Raises:
            RuntimeError: The workers of one shard died in every attempt.
            ValueError: A shard cannot be worked on; names it.
        """
        waiting, deaths, attempts = deque(shards), Counter[int](), self.job.options.attempts
        idle, busy = list(self._staff), {}
        while waiting or busy:
            while idle and waiting:
                worker, shard = idle.pop(), waiting.popleft()
                busy[worker.pipe] = worker, shard
                worker.give(task, shard, shards[shard])
            for pipe in wait(list(busy)):
                worker, shard = busy.pop(pipe)
                try:
                    error = worker.pipe.recv()
                except (EOFError, ConnectionResetError):  # it died
                    worker.stop()
                    deaths[shard] += 1
                    if deaths[shard] >= attempts:
                        raise RuntimeError(
                            f"shard {shard}: its worker died {attempts} times, at last with exit "
                            f"status {worker.process.exitcode}"
                        ) from None
                    waiting.appendleft(shard)
                    self._staff.remove(worker)
                    worker = self._hire()
                    self._staff.append(worker)
                else:
                    if error is not None:
                        raise ValueError(f"shard {shard}: {error}")
                    finished(shard)
                idle.append(worker)

    def close(self) -> None:
        """End the processes."""
        for worker in self._staff:
            worker.stop()

    def _hire(self) -> _Process:
        return _Process(self._context, self.job)


class _Process:
    """A worker's process, and the pipe to it."""

    def __init__(self, context: Any, job: AnyJob) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, job), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends when the process does

    def give(self, task: str, number: int, shard: Shard) -> None:
        try:
            self.pipe.send((task, number, shard))
        except OSError:  # it died idle; the next read says so
            pass

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, job: AnyJob) -> None:
    """Work until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver ends us
    driver = multiprocessing.parent_process()
    assert driver is not None

    def leave() -> None:
        wait([driver.sentinel])
        os._exit(1)  # a driver that was killed may start anew: nobody else may write then

    threading.Thread(target=leave, daemon=True).start()
    worker = job.worker_class()(job)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            worker.run(*task)
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")
        else:
            pipe.send(None)


class RayEngine:
    """Actors of a Ray cluster, which must see source and prepared folder under the same paths.

    Ray is started on this machine where neither the caller has called `ray.init` nor `RAY_ADDRESS`
    names a cluster.
    """

    def __init__(self, job: AnyJob) -> None:
        # under `uv run` Ray would start each worker by another `uv run`
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError:
            wanted = "wanted ray installed: pip install cm3-retrieval[ray]"
            raise ValueError(f"engine: {wanted}") from None
        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False)
        self.job = job
        actor: Any = ray.remote(job.worker_class())
        on_gpu = job.recipe.device == "auto" and ray.cluster_resources().get("GPU", 0)
        options = {"num_gpus": 1} if on_gpu or job.recipe.device.startswith("cuda") else {}
        self._hire: Callable[[], Any] = lambda: actor.options(num_cpus=1, **options).remote(job)
        self._staff = [self._hire() for _ in range(job.options.workers)]

    def run(self, task: str, shards: Mapping[int, Shard], finished: Finished) -> None:
        """Do one task for each shard; errors as of `LocalEngine.run`."""
        from ray.exceptions import RayTaskError  # pyright: ignore[reportMissingImports]

        from cm3_retrieval.bank.ray_shards import share_shards

        attempts = self.job.options.attempts
        try:
            share_shards(
                self._staff, self._hire, shards, attempts,
                lambda worker, n: worker.run.remote(task, n, shards[n]), finished,
            )  # fmt: skip
        except RayTaskError as error:
            raise ValueError(f"{task}: {error.cause}") from error

    def close(self) -> None:
        """Let the actors go."""
        import ray  # pyright: ignore[reportMissingImports]

        for worker in self._staff:
            ray.kill(worker)
