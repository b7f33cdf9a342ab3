"""`cm3_retrieval.bank.shards` on many machines, with Ray (`pip install cm3-retrieval[ray]`).

Takes the arguments of `build_from_shards`, with a function that opens the encoder and a work folder
that every machine sees; gives the same bank. A worker that dies, runs out of memory or is out of
reach is replaced, and only its shard is repeated.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from cm3_retrieval.bank.shards import (
    ReadShard,
    add_shard,
    check_mergeable,
    embed_shard,
    merge_shards,
    train_on_shards,
)
from cm3_retrieval.index.config import IndexConfig
from cm3_retrieval.interface import BANK_COMPONENT, Encoder
from cm3_retrieval.sealed_folder import MANIFEST_NAME, check_target


def build_with_ray(
    work: Path | str,
    shards: int,
    read: ReadShard,
    open_encoder: Callable[[], Encoder],
    folder: Path | str,
    index: IndexConfig | None = None,
    *,
    workers: int = 2,
    worker_options: Mapping[str, Any] | None = None,
    attempts: int = 3,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Build a bank with Ray actors; after a kill, the same call continues where it stopped.

    Training and merging run in the calling process. Ray is started with its defaults when the
    caller has not called `ray.init`.

    Args:
        work: Folder for the finished steps of this one job, readable and writable by all workers.
        shards: Number of shards.
        read: Reads one shard; called in the workers.
        open_encoder: Returns the encoder; called once in each worker.
        folder: Where to write the bank, for `MemoryBank.load`.
        index: The index to build. None chooses by the number of documents. HNSW cannot be merged.
        workers: Number of actors at a time.
        worker_options: What Ray reserves for each actor, such as `{"num_gpus": 1}`.
        attempts: How often to try a shard whose worker died.
        threads: FAISS's threads in each process.
        progress: Called with (steps done, steps).

    Raises:
        RuntimeError: The workers of one shard died in every attempt.
        ValueError: An argument that `build_from_shards` refuses, too.
    """
    import ray  # pyright: ignore[reportMissingImports]

    if workers < 1:
        raise ValueError(f"workers: wanted at least 1, got {workers}")
    check_mergeable(index)
    check_target(folder, MANIFEST_NAME, BANK_COMPONENT)
    work = Path(work).resolve()  # a worker runs in another folder
    actor: Any = ray.remote(_Worker)

    def hire() -> Any:
        return actor.options(**(worker_options or {})).remote(str(work), read, open_encoder)

    def report(done: int) -> None:
        if progress is not None:
            progress(done, 2 * shards)

    staff = [hire() for _ in range(min(workers, shards))]
    try:
        done = count(1)
        share = partial(share_shards, staff, hire, range(shards), attempts)
        share(lambda worker, shard: worker.embed.remote(shard), lambda shard: report(next(done)))
        train_on_shards(work, shards, index, threads=threads)
        share(
            lambda worker, shard: worker.add.remote(shard, threads),
            lambda shard: report(next(done)),
        )
    finally:
        for worker in staff:
            ray.kill(worker)
    merge_shards(work, shards, folder)


class _Worker:
    """An actor: one process with one encoder."""

    def __init__(self, work: str, read: ReadShard, open_encoder: Callable[[], Encoder]) -> None:
        self._work, self._read, self._open_encoder = work, read, open_encoder
        self._encoder: Encoder | None = None

    def embed(self, shard: int) -> None:
        if self._encoder is None:
            self._encoder = self._open_encoder()
        embed_shard(self._work, shard, self._read, self._encoder)

    def add(self, shard: int, threads: int) -> None:
        add_shard(self._work, shard, threads=threads)


def share_shards(
    staff: list[Any],
    hire: Callable[[], Any],
    shards: Iterable[int],
    attempts: int,
    start: Callable[[Any, int], Any],
    finished: Callable[[int], object],
) -> None:
    """Give each shard to an idle worker, and another worker in place of one that dies.

    Args:
        staff: The workers; those that die are replaced in it.
        hire: Gives a new worker.
        shards: Their numbers.
        attempts: How often to try a shard whose worker died.
        start: Gives the work on a shard to a worker; returns what `ray.get` takes.
        finished: Called with the number of each shard that is done.

    Raises:
        RuntimeError: The workers of one shard died in every attempt.
        ray.exceptions.RayTaskError: An error of the work itself, which would come again.
    """
    import ray  # pyright: ignore[reportMissingImports]

    waiting, deaths = deque(shards), Counter[int]()
    idle, busy = list(staff), {}
    while waiting or busy:
        while idle and waiting:
            worker, shard = idle.pop(), waiting.popleft()
            busy[start(worker, shard)] = worker, shard
        (ready,), _ = ray.wait(list(busy), num_returns=1)
        worker, shard = busy.pop(ready)
        try:
            ray.get(ready)
        except ray.exceptions.RayTaskError:
            raise  # an error of the shard's own, which would come again
        except ray.exceptions.RayError as error:  # died, out of reach, out of memory, its node lost
            deaths[shard] += 1
            if deaths[shard] >= attempts:
                raise RuntimeError(
                    f"shard {shard}: its worker died {attempts} times ({error})"
                ) from error
            waiting.append(shard)
            staff.remove(worker)
            ray.kill(worker)  # one that is out of reach may live, and keep what Ray reserved for it
            worker = hire()
            staff.append(worker)
        else:
            finished(shard)
        idle.append(worker)
