"""A Job that was launched is capacity until the watch, or a list, says otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest

from siorg_operator.control.expectations import Expectations
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.state import Job
from support.operator_values import active, ended, job, names


@dataclass
class Scene:
    """What there is, what the watch shows of it, and what is expected; by a clock that stands still."""

    there: list[Job] = field(default_factory=list)
    shown: list[Job] = field(default_factory=list)
    now: float = 100.0
    lists: int = 0

    def __post_init__(self) -> None:
        self.expectations = Expectations(lambda: self.now)

    async def find(self) -> list[Job]:
        self.lists += 1
        if self.lists == 1:
            raise ClusterError("list jobs: the API server did not answer")
        return self.there

    def ask(self) -> None:
        asyncio.run(self.expectations.ask(self.find))

    def seen(self) -> list[str]:
        return names(self.expectations.beside(self.shown))


def expecting(*jobs: Job, there: Iterable[Job] = (), shown: Iterable[Job] = ()) -> Scene:
    made = Scene(list(there), list(shown))
    for one in jobs:
        made.expectations.expect(one)
    return made


def test_an_expected_job_is_seen_once_whether_shown_or_not() -> None:
    scene = expecting(job(0), job(1))
    assert scene.seen() == names([job(0), job(1)])
    scene.shown = [job(1), ended(slot=2)]
    assert scene.seen() == names([job(1), ended(slot=2), job(0)])
    scene.shown = [job(0), job(1)]
    assert scene.seen() == names(scene.shown)
    assert scene.expectations.seconds() is None


def test_an_older_job_of_its_name_does_not_stand_for_it() -> None:
    scene = expecting(job(0), shown=[replace(ended(), uid="older")])
    assert len(scene.seen()) == 2
    scene.expectations.deleted("older")
    assert len(scene.seen()) == 2
    scene.expectations.deleted(job(0).uid)
    assert len(scene.seen()) == 1


def test_what_is_not_shown_is_asked_for_and_time_alone_ends_nothing() -> None:
    scene = expecting(job(0), job(1), there=[*active(1), ended(slot=2)])
    assert scene.expectations.seconds() == 5.0
    scene.now += 1_000_000
    assert scene.seen() == names([job(0), job(1)])
    assert scene.expectations.seconds() == 0.0
    with pytest.raises(ClusterError):
        scene.ask()
    assert scene.seen() == names([job(0), job(1)])
    assert scene.expectations.seconds() == 5.0
    scene.now += 5.0
    scene.ask()  # one has come and gone, of another nobody had heard
    assert scene.seen() == names([*active(1), ended(slot=2)])


def test_of_a_launch_without_an_answer_a_list_says_whether_it_was_made() -> None:
    scene = expecting()
    for made in (True, False):
        scene.lists, scene.there = 1, [job(0)] if made else []
        scene.expectations.expect(replace(job(0), uid=""))
        scene.expectations.doubt()
        assert scene.expectations.seconds() == 0.0
        assert scene.seen() == names([job(0)])
        scene.ask()
        assert scene.seen() == (names([job(0)]) if made else [])
    scene.expectations.expect(replace(job(0), uid=""))
    scene.shown = [job(0)]
    assert scene.seen() == names([job(0)])


def test_a_doubt_lasts_until_a_list_has_answered() -> None:
    scene = expecting(there=[ended()])
    scene.expectations.doubt()
    with pytest.raises(ClusterError):
        scene.ask()
    assert scene.expectations.seconds() == 5.0
    scene.ask()
    assert scene.seen() == names([ended()])
    scene.shown = [ended()]
    assert scene.seen() == names([ended()])
    assert scene.expectations.seconds() is None
