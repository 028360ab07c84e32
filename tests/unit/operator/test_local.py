"""When ``siorg-operator local --until-empty`` comes to its end by itself, and with which exit code."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

from siorg_operator.cli import DONE, ERROR, TRY_LATER, USAGE
from siorg_operator.database.databases import Databases
from siorg_operator.decide.planned import Launch
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import Unreadable
from siorg_operator.local.command import reached_end
from siorg_operator.local.machine import LocalMachine
from support.operator_values import worker

IDLE = {"claimable": 0, "due": 0, "scheduled": 0, "processing": 0, "failed": 3, "conflict": 2}
NO_JOBS = {"active": 0, "pending": 0}
NEVER = {"suspend": True}, {"mode": "Observe"}, {"scaling": {"maxJobs": 0}}


def machine(
    folder: Path, *, jobs: Any = NO_JOBS, reason: str = "", spec: Any = None, status: Any = None, **queue: int
) -> LocalMachine:
    made = LocalMachine(worker(**(spec or {})), Databases(), folder, {"DATABASE_URL": "postgresql://db/siorg"})
    made.status = status or {"queue": IDLE | queue, "jobs": jobs, "lastDecision": {"reason": reason}}
    return made


def code_of(made: LocalMachine) -> int | None:
    end = reached_end(made)
    return None if end is None else end.code


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, DONE),
        ({"status": {"jobs": NO_JOBS}}, None),  # before the first reading
        ({"spec": NEVER[0]}, DONE),
        *(({"spec": spec, "claimable": 1, "due": 1}, USAGE) for spec in NEVER),
        ({"spec": NEVER[0], "scheduled": 1}, USAGE),
        ({"reason": "SyncDisabled", "claimable": 1, "due": 1}, TRY_LATER),
        ({"claimable": 1, "due": 1}, None),
        ({"scheduled": 1}, None),
        ({"processing": 1}, None),
        ({"jobs": {"active": 0, "pending": 1}}, None),
    ],
    ids=str,
)
def test_it_ends_when_nothing_more_will_happen(tmp_path: Path, given: dict[str, Any], code: int | None) -> None:
    assert code_of(machine(tmp_path, **given)) == code


@pytest.mark.parametrize(
    ("ending", "streak", "code"),
    [
        ("JobFailed", 2, None),
        ("JobFailed", 3, ERROR),
        ("OutOfMemory", 3, ERROR),
        ("DatabaseUnavailable", 3, TRY_LATER),
        ("NothingClaimable", 3, TRY_LATER),
        ("WrongSettings", 1, USAGE),
        ("SiorgUnavailable", 99, None),
        ("SiorgRateLimited", 99, None),
    ],
)
def test_job_processes_that_fail_one_after_the_other_are_not_tried_for_ever(
    tmp_path: Path, ending: str, streak: int, code: int | None
) -> None:
    made = machine(tmp_path, claimable=1, due=1)
    made.status["backoff"] = {"reason": ending, "streak": streak, "message": "here-0-3: exit code 1: no space left on device"}
    assert code_of(made) == code
    made.status["queue"] = IDLE
    assert code_of(made) == DONE


@pytest.mark.parametrize("gone", ["the folder", "processes"])
def test_a_job_process_that_cannot_be_started_is_none_and_ends_it_after_a_while(
    tmp_path: Path, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    made = machine(folder, claimable=1, due=1)
    if gone == "the folder":
        folder.rmdir()  # as where the disk is full: no file can be made
    else:
        monkeypatch.setattr("asyncio.create_subprocess_exec", AsyncMock(side_effect=BlockingIOError("no more processes")))
    for _ in range(2):
        with pytest.raises(ClusterError, match="could not be started"):
            asyncio.run(made.launch(made.resource, Launch(0, 1), secrets_hash="", decision=""))
    assert (made.jobs(), code_of(made)) == ([], None)
    made.not_started_since -= 30
    assert code_of(made) == ERROR


@pytest.mark.parametrize(("seconds", "code"), [(29, None), (31, TRY_LATER)])
def test_a_queue_that_cannot_be_read_is_waited_for_for_a_while(tmp_path: Path, seconds: float, code: int | None) -> None:
    made = machine(tmp_path)
    made.unreadable = Unreadable(Reason.DATABASE_UNAVAILABLE, "the database does not answer")
    made.unreadable_since = time.monotonic() - seconds
    assert code_of(made) == code
