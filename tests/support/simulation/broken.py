"""The operator broken on purpose, in the simulation only: each fault has to be found. ``--broken`` says after how many worlds."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any, Final
from unittest import mock

from siorg_operator.cluster import client
from siorg_operator.cluster.clock import ClusterClock
from siorg_operator.cluster.fingerprint import Fingerprints
from siorg_operator.control import cache, expectations
from siorg_operator.decide import connections, job_failures, jobs, manifests, pods, state
from support.simulation.operators import PROCESS
from support.simulation.world import Outcome, run

_SEEDS: Final = range(1, 101)


def _instead(owner: Any, name: str, other: object) -> AbstractContextManager[Any]:
    return mock.patch.object(owner, name, other)


def _lists_show_none_running() -> AbstractContextManager[Any]:
    record = pods.pod_record
    return _instead(client, "pod_record", lambda body: replace(record(body), running=False))


def _forgets_by_time() -> AbstractContextManager[Any]:
    async def forget(self: expectations.Expectations, find: object) -> None:
        self._jobs, self._doubtful = {}, False

    return _instead(expectations.Expectations, "ask", forget)


def _of_the_moment() -> AbstractContextManager[Any]:
    async def of(self: Fingerprints, values: Sequence[str | None]) -> str:
        process = PROCESS.get()
        assert process is not None
        return hashlib.sha256(f"{values}{process.world.now // 60}".encode()).hexdigest()[:10]

    return _instead(Fingerprints, "of", of)


def _another_name_each_time() -> AbstractContextManager[Any]:
    names, number = manifests.job_name, count()
    return _instead(manifests, "job_name", lambda *where: f"{names(*where)}-{next(number)}")


def _at_once(self: job_failures.Failures, *_: object) -> Any:
    return self.last_failure + timedelta(seconds=1)


def _as_it_is(record: Any, before: object, now: object) -> Any:
    return record


FAULTS: Final[dict[str, Callable[[], AbstractContextManager[Any]]]] = {
    "a lost node's Job is capacity": lambda: _instead(pods.PodRecord, "lost", lambda self, now: False),
    "a worker that ended is capacity while its pod lives": lambda: _instead(jobs, "_is_outlived", lambda *_: False),
    "a pod that nobody starts is never told": lambda: _instead(jobs, "_stuck_job", lambda *_: None),
    "a launch has another name each time": _another_name_each_time,
    "expectations end by time": _forgets_by_time,
    "only running Jobs are capacity": lambda: _instead(
        state.Job, "unfinished", property(lambda job: job.state is state.JobState.ACTIVE)
    ),
    "a stuck Job is ended as the watch last showed it": _lists_show_none_running,
    "times ahead are believed": lambda: _instead(cache, "not_ahead", _as_it_is),
    "ages by the machine's own clock": lambda: _instead(ClusterClock, "answered", lambda *_: None),
    "fingerprints change by themselves": _of_the_moment,
    "failures are no reason to wait": lambda: _instead(job_failures.Failures, "retry_at", _at_once),
    "connections are without end": lambda: _instead(connections, "room", lambda *_: None),
    "nothing proves health": lambda: _instead(job_failures, "_proves_health", lambda *_: False),
    "what was deleted unseen stays": lambda: _instead(cache.Cache, "drop", lambda *_: None),
}


def found(name: str, seeds: Sequence[int] = _SEEDS) -> tuple[int, Outcome | None]:
    """How many worlds it took, and the one that showed it and is well without the fault; None: none did."""
    logging.disable(logging.WARNING)
    for number, seed in enumerate(seeds, 1):
        with FAULTS[name]():
            outcome = run(seed)
        if outcome.violations and not run(seed).violations:
            return number, outcome
    return len(seeds), None


def all_found(words: str, workers: int) -> Iterator[tuple[bool, str]]:
    """For each fault with these words in its name: whether it was found, and a line about it."""
    names = [name for name in FAULTS if words in name]
    with ProcessPoolExecutor(workers) as pool:
        for name, (worlds, outcome) in zip(names, pool.map(found, names), strict=True):
            if outcome is None:
                yield False, f"{name}: NOT FOUND in {worlds} worlds"
            else:
                yield True, f"{name}: found after {worlds} worlds, seed {outcome.seed}: {outcome.violations[0][:200]}"
