"""What the cluster refuses is tried again, more and more rarely, and told once it is sure."""

from __future__ import annotations

import asyncio

import pytest

from siorg_operator.control.retries import Request, Retries
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import Fault
from support.operator_values import at

FAULT = Fault(Reason.CRON_JOB_REFUSED, "the API server answered")


class Cluster:
    """Refuses requests with a code, while there is one."""

    def __init__(self, code: int | None = None, retry_after: float = 0.0) -> None:
        self.code = code
        self.retry_after = retry_after
        self.sent: list[float] = []
        self.retries = Retries()

    def at(self, seconds: float, *keys: str) -> Retries:
        async def send() -> None:
            self.sent.append(seconds)
            if self.code is not None:
                raise ClusterError("the API server answered", self.code, self.retry_after)

        requests = [Request(key, Reason.CRON_JOB_REFUSED, send) for key in keys or ("apply",)]
        asyncio.run(self.retries.send(requests, at(seconds)))
        return self.retries


def test_pauses_grow_to_a_minute() -> None:
    cluster = Cluster(403)
    for seconds in range(200):
        cluster.at(seconds)
    assert cluster.sent == [0, 1, 3, 7, 15, 31, 63, 123, 183]
    assert cluster.retries.seconds(at(200)) == 43
    cluster.code = None
    cluster.at(250)
    assert (cluster.retries.seconds(at(250)), cluster.retries.faults()) == (None, [])


def test_for_as_long_as_the_answer_asks_nothing_is_sent() -> None:
    cluster = Cluster(429, retry_after=20.0)
    for seconds in range(50):
        cluster.at(seconds)
    assert cluster.sent == [0, 20, 40]


@pytest.mark.parametrize(("code", "failures"), [(403, 1), (422, 1), (0, 3), (429, 3), (500, 3)])
def test_a_refusal_is_told_at_once_and_an_answer_that_does_not_come_after_three(code: int, failures: int) -> None:
    cluster = Cluster(code)
    told = [bool(cluster.at(seconds).faults()) for seconds in (0, 1, 3)]
    assert told == [count >= failures for count in (1, 2, 3)]
    assert cluster.retries.faults() == [FAULT]


def test_another_request_is_sent_at_once_and_what_is_wanted_no_more_is_forgotten() -> None:
    cluster = Cluster(403)
    cluster.at(0, "one")
    cluster.at(0.5, "one", "other")
    assert len(cluster.sent) == 2
    cluster.code = None
    assert cluster.at(0.6, "third").seconds(at(0.6)) is None


def test_a_clock_that_was_set_back_silences_nothing() -> None:
    cluster = Cluster(403)
    cluster.at(0)
    cluster.at(-3600)
    assert len(cluster.sent) == 2


def test_a_bug_is_not_hidden() -> None:
    async def send() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(Retries().send([Request("apply", Reason.CRON_JOB_REFUSED, send)], at(0)))
