"""How the connections of a server are shared out: each limit counts its own users, and nobody starves."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siorg_operator.decide.connections import CONNECTIONS_PER_JOB, Tenant, room
from siorg_operator.decide.state import ConnectionLimit


def server(most: int | None = 97, others: int = 0, **counts: Any) -> ConnectionLimit:
    return ConnectionLimit("server", "s", most, others, **counts)


def role(name: str, most: int | None, others: int = 0, **counts: Any) -> ConnectionLimit:
    return ConnectionLimit("role", name, most, others, **counts)


def database(name: str, most: int | None, others: int = 0) -> ConnectionLimit:
    return ConnectionLimit("database", name, most, others)


def tenant(uid: str = "me", jobs: int = 0, *, limits: Any = None, runs: bool = True, **fields: Any) -> Tenant:
    return Tenant(uid, tuple(limits or [server()]), {f"{uid}-{slot}-1": runs for slot in range(jobs)}, **fields)


def jobs(mine: Tenant, *beside: Tenant) -> int:
    found = room(mine, beside)
    assert found is not None
    return found.jobs


# -- one resource -----------------------------------------------------------------------------------------------------

ALONE: list[tuple[str, tuple[ConnectionLimit, ...], int, str]] = [
    ("what is left of the server", (server(100, 80),), 5, "server"),
    ("a role's limit counts that role's connections, not those of others", (role("r", 20), server(97, 25)), 5, "role"),
    ("where the role has its own", (role("r", 20, 9), server(97, 25)), 2, "role"),
    ("a database's limit counts that database's", (role("r", None), database("d", 30, 4), server(97, 60)), 7, "database"),
    ("the server's counts all", (role("r", 90), database("d", 90), server(97, 80)), 4, "server"),
    ("nothing below zero", (role("r", 2), server(97)), 0, "role"),
]


@pytest.mark.parametrize(("rule", "limits", "most", "narrowest"), ALONE)
def test_alone_it_has(rule: str, limits: tuple[ConnectionLimit, ...], most: int, narrowest: str) -> None:
    found = room(tenant(limits=limits))
    assert found is not None
    assert (found.jobs, found.limit.kind, found.sharing) == (most, narrowest, 0), rule


def test_without_a_limit_there_is_no_end() -> None:
    assert room(Tenant("me", ())) is None
    assert room(tenant(limits=(role("r", None), server(None)))) is None


COUNTED: list[tuple[str, dict[str, Any], dict[str, Any], int]] = [
    ("a Job has its connections before it has connected", {"jobs": 4, "runs": False}, {}, 30),
    ("and has them once", {"jobs": 4}, {"jobs": 12, "named": {f"me-{slot}-1": 3 for slot in range(4)}}, 30),
    ("as few as they are", {"jobs": 4}, {"jobs": 5, "named": {f"me-{slot}-1": 1 for slot in range(4)}}, 30),
    ("of nobody's Jobs they are others'", {"jobs": 4, "runs": False}, {"jobs": 12, "named": {"else-0-1": 12}}, 26),
    ("Jobs of older images are nameless", {"jobs": 4}, {"jobs": 12}, 30),
    ("what those cannot have is others'", {"jobs": 4}, {"jobs": 18}, 28),
    ("what does not run has none", {"jobs": 4, "runs": False}, {"jobs": 12}, 26),
]


@pytest.mark.parametrize(("rule", "mine", "seen", "most"), COUNTED)
def test_others_are_only_those_of_none_of_our_jobs(rule: str, mine: dict[str, Any], seen: dict[str, Any], most: int) -> None:
    assert jobs(tenant(limits=[server(97, **seen)], **mine)) == most, rule


# -- several on one server --------------------------------------------------------------------------------------------


def test_jobs_that_others_have_launched_are_counted_although_the_server_does_not_see_them_yet() -> None:
    found = room(tenant(), [tenant("b", 20, runs=False)])
    assert found is not None
    assert (found.jobs, found.neighbours) == (10, 20)


def test_a_limit_counts_only_resources_that_it_counts() -> None:
    mine, other = (role("mine", 40), server(97)), (role("theirs", 40), server(97))
    assert jobs(tenant(limits=mine), tenant("b", 11, limits=other)) == 11
    assert jobs(tenant(limits=mine), tenant("b", 8, limits=mine)) == 3


def test_those_who_want_the_same_get_the_same_and_those_who_want_less_leave_the_rest() -> None:
    beside = [tenant(uid, wanted=100) for uid in "bc"]
    assert jobs(tenant(), *beside) == 10  # of 30
    assert jobs(tenant(), *beside, tenant("d", wanted=3)) == 9
    assert jobs(tenant(), tenant("b", wanted=100, limits=[role("b", 11), server()])) == 28  # which b cannot use


def test_what_becomes_free_goes_to_whoever_has_the_fewest_jobs() -> None:
    large, small = tenant("large", 28, wanted=100), tenant("small", 1, wanted=100)
    assert (jobs(large, small), jobs(small, large)) == (28, 2)
    found = room(large, [small])
    assert found is not None
    assert found.sharing == 2


def test_among_equals_it_is_the_turn_of_whoever_waits_longest() -> None:
    limits = [server(CONNECTIONS_PER_JOB + 5)]
    first, second = (tenant(uid, wanted=1, limits=limits, waits_since=since) for uid, since in (("a", 20.0), ("b", 10.0)))
    assert (jobs(first, second), jobs(second, first)) == (0, 1)


def test_each_that_rests_finds_room_for_its_first_job() -> None:
    resting = [tenant(f"r{number}", rests=True) for number in range(9)]
    assert jobs(tenant(), *resting) == 30 - 9
    assert jobs(resting[0], tenant("large", 21), *resting[1:]) >= 1
    # As far as half of what there is goes: more would keep all connections for those who may never come.
    many = [tenant(f"r{number}", rests=True) for number in range(200)]
    assert (jobs(tenant(), *many), jobs(tenant("large", 20), *many)) == (16, 20)  # what is there stays
    assert jobs(tenant("b"), tenant("large", 16), *many) == 1


def test_the_operators_own_connections_for_the_other_databases_are_expected() -> None:
    ten = [tenant(f"t{n}", wanted=9, limits=[database(f"d{n}", None), server(97, 1, operator=1)]) for n in range(10)]
    assert sum(jobs(one, *(other for other in ten if other is not one)) for one in ten) == (97 - 9 * 2 - 5) // CONNECTIONS_PER_JOB
    shared = [tenant(f"t{n}", wanted=9, limits=[database("d", None), server(97, 2, operator=2)]) for n in range(3)]
    assert jobs(shared[0], *shared[1:]) == (97 - 2 - 5) // CONNECTIONS_PER_JOB - 9 - 9


# -- whatever happens -------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_no_limit_is_ever_exceeded_and_nobody_waits_for_ever(seed: int) -> None:
    """Resources come to a server in any order, launch what they are given, and end; now and then somebody else connects."""
    pick = random.Random(seed)
    roles = {name: pick.choice([None, None, 14, 40]) for name in "xy"}
    most, others = pick.choice([20, 40, 97]), pick.randint(0, 10)
    tenants: dict[str, Tenant] = {}
    served: Counter[str] = Counter()
    wants = {f"t{number}": pick.choice([1, 3, 50]) for number in range(pick.randint(1, 12))}
    uses = {uid: pick.choice("xy") for uid in wants}
    for step in range(400):
        uid = pick.choice(list(wants))
        before = tenants.get(uid, Tenant(uid, (), waits_since=step))
        held = {tag: True for tag in before.jobs if pick.random() < 0.7}  # some have ended
        tenants[uid] = replace(
            before, jobs=held, wanted=wants[uid], limits=(role(uses[uid], roles[uses[uid]]), server(most, others))
        )
        found = room(tenants[uid], [one for one in tenants.values() if one.uid != uid])
        assert found is not None
        more = max(min(wants[uid], found.jobs) - len(held), 0)
        served[uid] += more
        taken = {f"{uid}-{step}-{number}": False for number in range(more)}
        tenants[uid] = replace(tenants[uid], jobs=held | taken, waits_since=step if more else before.waits_since)
        count = Counter({"server": others})
        for one in tenants.values():
            count["server"] += CONNECTIONS_PER_JOB * len(one.jobs)
            count[uses[one.uid]] += CONNECTIONS_PER_JOB * len(one.jobs)
        assert count["server"] <= most
        assert all(count[name] <= limit for name, limit in roles.items() if limit is not None)
    if most - others - 5 >= CONNECTIONS_PER_JOB:
        assert set(served) == set(wants), served
