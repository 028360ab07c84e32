"""Resources on one database server, planned by one operator: none takes what another one was given."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from siorg_operator.control.tenants import Tenants
from siorg_operator.decide.connections import CONNECTIONS_LEFT_FREE, CONNECTIONS_PER_JOB
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import ConnectionLimit, JobState, Unreadable
from support.fake_cluster import NO_CRON_JOBS, FakeCluster, FakeOperator
from support.operator_values import queue_of

ONE_JOB = CONNECTIONS_PER_JOB + CONNECTIONS_LEFT_FREE


def neighbours(count: int, *, depth: int = 1000, most: int = 97, **reading: Any) -> list[FakeOperator]:
    """One process with so many resources, each with a database of its own on the same server."""
    tenants, operators = Tenants(), []
    for number in range(count):
        # The server as it was before anybody connected: what was launched since is not seen in it.
        database = ConnectionLimit("database", f"d{number}", None)
        queue = queue_of(depth, max_connections=most, server="s", database=database, **reading)
        cluster = FakeCluster(queue, scaling={"maxJobs": 50, "itemsPerJob": 1, "maxLaunchesPerStep": 50}, **NO_CRON_JOBS)
        cluster.object["metadata"]["uid"] = f"uid {number}"
        operators.append(FakeOperator(cluster, tenants))
    return operators


def pass_over(*operators: FakeOperator) -> None:
    async def together() -> None:
        await asyncio.gather(*(one.one_pass() for one in operators))

    asyncio.run(together())


def launched(operators: Sequence[FakeOperator]) -> list[int]:
    return [len(one.cluster.unfinished) for one in operators]


def test_two_in_one_second_do_not_take_the_same_connections() -> None:
    two = neighbours(2, most=ONE_JOB + 2)  # 2 are the operator's own
    pass_over(*two)
    assert launched(two) == [1, 0]
    message = two[1].cluster.conditions["ScalingActive"][2]
    assert two[1].cluster.conditions["ScalingActive"][1] == "ConnectionBudget"
    assert "10 connections of the server − 2 in use by others − 3 · 1 Job of other resources − 5 left free" in message
    assert "raise max_connections, or end sessions that nobody needs, or lower maxJobs of the other resources" in message


def test_ten_that_want_more_than_there_is_share_it() -> None:
    ten = neighbours(10)
    ten[0].context.tenants.gather(f"uid {number}" for number in range(10))
    for _ in range(10):
        pass_over(*ten)
    assert set(launched(ten)) == {2, 3}
    assert 60 <= CONNECTIONS_PER_JOB * sum(launched(ten)) <= 97 - 9 * 2 - CONNECTIONS_LEFT_FREE


def test_whoever_comes_later_gets_what_becomes_free() -> None:
    large, small = neighbours(2)
    pass_over(large)
    assert launched([large]) == [30]
    pass_over(small, large)
    assert launched([small]) == [0]
    for job in large.cluster.unfinished[:6]:
        large.cluster.jobs[job.name] = replace(job, state=JobState.SUCCEEDED, finished_at=large.cluster.now)
    pass_over(large, small)
    assert launched([large, small]) == [24, 6]


def test_who_waits_longest_comes_first_and_everybody_comes() -> None:
    three = neighbours(3, most=ONE_JOB + 4)
    served = set()
    for _ in range(6):
        pass_over(*three)
        (working,) = (one for one in three if one.cluster.unfinished)
        served.add(working.cluster.resource.metadata.uid)
        gone = working.cluster.unfinished
        working.cluster.jobs.clear()
        for job in gone:
            working.reconciler.job_deleted(job.uid)
        pass_over(working)
        assert sum(launched(three)) <= 1
    assert len(served) == 3


def test_an_operator_that_begins_waits_until_it_knows_who_is_there() -> None:
    first, second = neighbours(2, most=ONE_JOB + 2)
    pass_over(first)
    assert launched([first]) == [1]
    # Another process: it knows of nobody, and the Job is not connected yet.
    tenants = Tenants()
    tenants.gather(["uid 0", "uid 1"])
    pass_over(FakeOperator(second.cluster, tenants), FakeOperator(first.cluster, tenants))
    assert launched([first, second]) == [1, 0]


def test_a_resource_that_is_gone_or_cannot_be_understood_takes_nothing() -> None:
    first, second = neighbours(2, most=ONE_JOB + 2)
    pass_over(first)
    first.context.tenants.forget("uid 0")
    pass_over(second)
    assert launched([second]) == [1]


def test_one_that_cannot_be_read_keeps_what_it_has() -> None:
    first, second = neighbours(2, most=ONE_JOB + 2)
    pass_over(first)
    first.cluster.queue = replace(first.cluster.queue, reading=Unreadable(Reason.DATABASE_UNAVAILABLE, "away"))
    pass_over(first, second)
    assert launched([first, second]) == [1, 0]


def test_behind_a_pooler_nobody_takes_a_connection_of_the_server() -> None:
    pooled = neighbours(2, most=ONE_JOB, pooled=True)
    pass_over(*pooled)
    assert launched(pooled) == [50, 50]
