"""How shards are shared when workers fail, with a stand-in for Ray that fails on demand."""

import sys
from types import SimpleNamespace

import pytest

from cm3_retrieval.bank.ray_shards import share_shards


class RayError(Exception):
    pass


FAILURES = {
    name: type(name, (RayError,), {})
    for name in ("ActorDiedError", "ActorUnavailableError", "OutOfMemoryError", "NodeDiedError")
}


class RayTaskError(RayError):
    pass


@pytest.fixture
def killed(monkeypatch) -> list[str]:
    """Install the stand-in; give the workers that were killed."""
    killed: list[str] = []

    def get(result):
        if isinstance(result, BaseException):
            raise result

    ray = SimpleNamespace(
        get=get,
        kill=killed.append,
        wait=lambda refs, num_returns: (refs[:num_returns], refs[num_returns:]),
        exceptions=SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    return killed


def share(failures, attempts: int = 3) -> tuple[list[int], list[str]]:
    """Share four shards among two workers; `failures` are those of shard 2, one after another."""
    names = iter("abcdefgh")
    staff, done, left = [next(names), next(names)], [], list(failures)

    def start(worker: str, shard: int):
        if shard == 2 and left:
            return left.pop(0)
        return worker, shard

    share_shards(staff, lambda: next(names), range(4), attempts, start, done.append)
    return done, staff


@pytest.mark.parametrize("name", FAILURES)
def test_a_worker_that_fails_is_replaced_and_its_shard_repeated(killed, name):
    done, staff = share([FAILURES[name]("gone"), FAILURES[name]("gone")])
    assert sorted(done) == [0, 1, 2, 3]
    assert len(killed) == 2 and len(staff) == 2 and not set(killed) & set(staff)


def test_too_many_failures_end_the_job(killed):
    failures = [FAILURES["OutOfMemoryError"]("no memory") for _ in range(3)]
    with pytest.raises(RuntimeError, match=r"shard 2: its worker died 3 times \(no memory\)"):
        share(failures)


def test_an_error_of_the_shard_itself_is_not_repeated(killed):
    with pytest.raises(RayTaskError, match="broken"):
        share([RayTaskError("broken")])
    assert not killed
