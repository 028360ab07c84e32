"""An item pays only for what is its own fault, and is told from one that pays for others (test_burns.py has those)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from siorg_job.siorg import rows as siorg_rows
from siorg_job.siorg.model import RemoteUnit
from siorg_job.sync.working_copy import WorkingCopy
from support.fleet import eventually
from support.poison import PoisonedSiorg
from support.queue import rows

from .conftest import Scene, somebodys_trigger

ITEMS = 60


def check_unburnt(scene: Scene, items: int = ITEMS) -> None:
    """The fault is over: everything is done, with attempts as if nothing had been."""
    scene.run(0)
    assert scene.states() == {("COMPLETED", 1): items}
    scene.audit()


# -- ours -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["fetch", "apply"])
def test_the_workers_own_bug_gives_everything_back(scene: Scene, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    scene.waiting(ITEMS)
    with monkeypatch.context() as patched:
        if stage == "apply":
            patched.setattr(WorkingCopy, "chain", ours)
        else:
            buggy(patched, lambda _: True)
        assert scene.drain(WORKER_LEASE_SECS="30")[0] == "worker_fault"
    assert scene.states() == {("PENDING", 0): ITEMS}
    check_unburnt(scene)


# -- the items' -------------------------------------------------------------------------------------------------------------


def ours(*_: object) -> None:
    raise LookupError("ours")


def buggy(monkeypatch: pytest.MonkeyPatch, when: Callable[[int], bool]) -> None:
    """We have a bug that some units bring out."""
    parse = siorg_rows.parse_unit

    def parse_unit(body: Any, code: int) -> RemoteUnit:
        if when(code):
            raise TypeError(f"odd: {code}")
        return parse(body, code)

    monkeypatch.setattr(siorg_rows, "parse_unit", parse_unit)


def test_forty_rows_alike_that_come_first_pay_and_block_nobody(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = scene.waiting(ITEMS)
    odd = set(codes[:40])
    scene.connection.execute("UPDATE siorg_sync_queue SET priority = 1 WHERE siorg_code = ANY (%s)", [list(odd)])
    buggy(monkeypatch, odd.__contains__)
    assert scene.drain(WORKER_LINGER_SECS="5")[0] == "exhausted"
    assert scene.states() == {("FAILED", 3): 40, ("COMPLETED", 1): ITEMS - 40}
    assert {row["siorg_code"] for row in rows(scene.connection) if row["status"] == "FAILED"} == odd


def test_rows_that_a_policy_or_a_trigger_refuses_pay_where_others_get_past(scene: Scene) -> None:
    codes = scene.waiting(ITEMS)
    scene.connection.execute(somebodys_trigger(f"NEW.siorg_code IN ({codes[0]}, {codes[1]})", "42501").encode())
    scene.run(0)
    assert scene.states() == {("FAILED", 1): 2, ("COMPLETED", 1): ITEMS - 2}
    scene.connection.execute("UPDATE siorg_sync_queue SET status = 'PENDING', attempts = 0 WHERE status = 'FAILED'")
    scene.run(0)  # they are alone now, and known
    assert scene.states() == {("FAILED", 1): 2, ("COMPLETED", 1): ITEMS - 2}


@pytest.mark.parametrize(("code", "exits"), [("23514", 0), ("42501", 0), ("P0001", 1), ("42703", 1)])
def test_a_row_that_is_refused_alone_pays_for_its_values_only(scene: Scene, code: str, exits: int) -> None:
    scene.waiting(1)
    scene.connection.execute(somebodys_trigger(code=code).encode())
    scene.run(exits)
    assert scene.states() == {("PENDING", 0) if exits else ("FAILED", 1): 1}


# -- SIORG's ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [1, 3])
def test_an_endpoint_in_trouble_burns_no_attempts_however_few_items_there_are(scene: Scene, items: int) -> None:
    scene.waiting(items)
    with PoisonedSiorg(scene.siorg.url, endpoint="/unidade-organizacional/") as siorg:
        job = scene.run(75, SIORG_API_URL=siorg.url)
        assert scene.states() == {("PENDING", 0): items}, job.stderr
    check_unburnt(scene, items)


def test_an_endpoint_that_comes_back_within_the_time_has_burnt_nothing(scene: Scene) -> None:
    scene.waiting(ITEMS)
    with PoisonedSiorg(scene.siorg.url, endpoint="/unidade-organizacional/") as siorg:
        job = scene.start(SIORG_API_URL=siorg.url, WORKER_UNAVAILABLE_SECS="60")
        eventually(lambda: "every item was given back" in job.stderr)
        siorg.endpoint = None
        assert job.ends() == 0, job.stderr
    assert scene.states() == {("COMPLETED", 1): ITEMS}


def test_what_whole_structures_do_not_serve_is_fetched_singly_meanwhile(scene: Scene) -> None:
    scene.run(0, "discover")
    waiting = scene.number("SELECT count(*) FROM siorg_sync_queue")
    with PoisonedSiorg(scene.siorg.url, endpoint="/estrutura-organizacional/") as siorg:
        scene.run(0, SIORG_API_URL=siorg.url)
    assert waiting > 100
    assert scene.states() == {("COMPLETED", 1): waiting}


@pytest.mark.parametrize("items", [1, 30])
def test_one_of_which_the_answer_is_too_large_ends_and_no_other(scene: Scene, items: int) -> None:
    code, *_ = scene.waiting(items)
    with PoisonedSiorg(scene.siorg.url, {code}, answers=(200, b" " * (4 * 1024 * 1024 + 1))) as siorg:
        job = scene.run(0, SIORG_API_URL=siorg.url)
    others = {("COMPLETED", 1): items - 1} if items > 1 else {}
    assert scene.states() == {("FAILED", 1): 1, **others}, job.stderr
    assert (
        scene.number(f"SELECT siorg_code FROM siorg_sync_queue WHERE last_error LIKE '%has over%' AND siorg_code = {code}")
        == code
    )


def test_one_that_fails_alone_is_compared_with_another_unit_and_pays(scene: Scene) -> None:
    (code,) = scene.waiting(1)
    with PoisonedSiorg(scene.siorg.url, {code}) as siorg:
        scene.run(0, SIORG_API_URL=siorg.url, WORKER_LINGER_SECS="5")
    assert scene.states() == {("FAILED", 3): 1}


def test_one_that_our_bug_meets_alone_pays_where_nothing_tells_that_it_meets_others(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.waiting(1)
    buggy(monkeypatch, lambda _: True)
    with PoisonedSiorg(scene.siorg.url, endpoint="/esfera") as siorg:  # what SIORG would be asked to find out
        assert scene.drain(SIORG_API_URL=siorg.url, WORKER_LINGER_SECS="5")[0] == "exhausted"
    assert scene.states() == {("FAILED", 3): 1}
