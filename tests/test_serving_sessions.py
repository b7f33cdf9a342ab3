"""Sessions are kept if they have learnt something, for a time, and only so many."""

from typing import Any, cast

import pytest

from cm3leon.serving.limits import Limits
from cm3leon.serving.sessions import Sessions


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def sessions(clock, **limits):
    return Sessions(cast(Any, object()), Limits(**limits), clock)


def test_only_what_is_kept_is_found_again(clock):
    kept = sessions(clock)
    one, other = kept.of(None), kept.of("a guess")
    assert len({one.token, other.token, "a guess"}) == 3 and len(one.token) >= 32
    assert len(kept) == 0 and kept.of(one.token) is not one
    kept.keep(one)
    assert kept.of(one.token) is one and len(kept) == 1


def test_a_session_unused_for_long_is_forgotten(clock):
    kept = sessions(clock, session_seconds=10.0)
    one, other = kept.of(None), kept.of(None)
    kept.keep(one)
    kept.keep(other)
    clock.now = 8
    assert kept.of(one.token) is one  # which counts as use
    clock.now = 15
    assert len(kept) == 1 and kept.of(one.token) is one and kept.of(other.token) is not other


def test_the_session_unused_for_longest_makes_room(clock):
    kept = sessions(clock, sessions=2)
    three = [kept.of(None) for _ in range(3)]
    kept.keep(three[0])
    kept.keep(three[1])
    assert kept.of(three[0].token) is three[0]
    kept.keep(three[2])
    assert [kept.of(one.token) is one for one in three] == [True, False, True]


@pytest.mark.parametrize(("name", "value"), [("rows", 0), ("seconds", -1.0), ("waiting", 0)])
def test_limits_that_let_nothing_through_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name}: wanted a number above 0, got {value}"):
        Limits(**{name: value})


def test_candidates_must_have_room():
    with pytest.raises(ValueError, match="^candidates: wanted at most the 4 rows, got 5"):
        Limits(rows=4, candidates=5)
