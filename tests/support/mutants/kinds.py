"""Kinds of faults that tests once let through, each put in by hand. ``make mutants ARGS=--kinds``: not one may survive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from support.mutants.areas import Area
from support.mutants.mutation import Mutation


@dataclass(frozen=True, slots=True)
class Kind:
    """A text of the product, what stands in its place, and the tests that have to notice."""

    name: str
    file: str
    text: str
    other: str
    tests: tuple[str, ...]

    @property
    def area(self) -> Area:
        return Area(self.name, (self.file,), self.tests)

    def mutation(self, repository: Path) -> Mutation:
        """The fault.

        Raises:
            ValueError: the product reads otherwise by now: mend this list.
        """
        source = (repository / self.file).read_text(encoding="utf-8")
        if source.count(self.text) != 1:
            raise ValueError(f"{self.name}: {source.count(self.text)} times in {self.file}: {self.text!r}")
        start = source.index(self.text)
        return Mutation(start, start + len(self.text), self.other, self.name)


_CHAOS = "tests/system/chaos"
_SYNC = "tests/system/sync"
_JOB = "job/siorg_job"
_QUEUE = "core/siorg_queue"

KINDS = (
    Kind(
        "units not locked while effects are applied",
        f"{_JOB}/sync/sql/read.sql",
        "ORDER BY u.id FOR NO KEY UPDATE",
        "ORDER BY u.id",
        (f"{_SYNC}/test_people_at_the_same_moment.py",),
    ),
    Kind(
        "lease lost between fence and finish",
        f"{_QUEUE}/store.py",
        "self._send_outcomes(verdicts, wanted=len(verdicts))",
        "self._send_outcomes(verdicts)",
        (f"{_SYNC}/test_one_transaction.py",),
    ),
    Kind(
        "asked_at taken after the answer, of one unit",
        f"{_JOB}/fetch/fetcher.py",
        "        demoted = [",
        "        asked_at = await self._database.now()\n        demoted = [",
        (f"{_SYNC}/test_fetcher.py",),
    ),
    Kind(
        "asked_at taken after the answer, of what is kept",
        f"{_JOB}/fetch/cache.py",
        "        moment = await asked_at\n        value = await self._fetch(key)\n",
        "        value = await self._fetch(key)\n        moment = await self._database_now()\n",
        (f"{_SYNC}/test_fetcher.py", "tests/unit/job/test_fetch_cache.py"),
    ),
    Kind(
        "a too early fetch used again",
        f"{_JOB}/fetch/cache.py",
        " or (needed is not None and needed > answer.asked_at)",
        "",
        (f"{_SYNC}/test_fetcher.py", "tests/unit/job/test_fetch_cache.py"),
    ),
    Kind(
        "own fault gives nothing back",
        f"{_JOB}/drain/loop.py",
        '                await self._give_back("given back: the worker has a fault")\n',
        "                pass\n",
        (f"{_CHAOS}/test_own_faults.py",),
    ),
    Kind(
        "a telephone too long that people merged",
        f"{_JOB}/sync/resolution.py",
        " or len(value) > longest",
        "",
        ("tests/unit/sync/test_merged_values.py",),
    ),
    Kind(
        "a NUL in a text that people merged",
        f"{_JOB}/sync/resolution.py",
        " or not _is_printable(value)",
        "",
        ("tests/unit/sync/test_merged_values.py",),
    ),
    Kind(
        "a NUL in a telephone that people merged",
        f"{_JOB}/sync/resolution.py",
        " and _is_printable(entry)",
        "",
        ("tests/unit/sync/test_merged_values.py",),
    ),
    Kind(
        "ancestors written although the item ends CONFLICT",
        f"{_JOB}/sync/apply.py",
        "    if verdict.outcome is not Outcome.COMPLETED:\n        copy.roll_back",
        "    if verdict.outcome not in (Outcome.COMPLETED, Outcome.CONFLICT):\n        copy.roll_back",
        (f"{_SYNC}/test_one_transaction.py",),
    ),
    Kind(
        "a transient database error bisected",
        f"{_JOB}/sync/apply.py",
        "        elif is_transient(error):\n            raise\n",
        "",
        (f"{_SYNC}/test_one_transaction.py",),
    ),
    Kind(
        "a deadlock taken as permanent",
        f"{_QUEUE}/database.py",
        "return code[:2] in _TRANSIENT_CLASSES or code in _TRANSIENT_CODES",
        'return code != "40P01" and (code[:2] in _TRANSIENT_CLASSES or code in _TRANSIENT_CODES)',
        (f"{_SYNC}/test_one_transaction.py",),
    ),
    Kind(
        "reap waits for a row that somebody holds",
        f"{_QUEUE}/sql/dangling.sql",
        "WHERE {{abandoned}}\n            LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED",
        "WHERE {{abandoned}}\n            LIMIT %(limit)s FOR NO KEY UPDATE",
        ("tests/database/test_reap.py",),
    ),
    Kind(
        "reap takes all at once",
        f"{_QUEUE}/sql/dangling.sql",
        "    ) AS found\n    LIMIT %(limit)s\n",
        "    ) AS found\n",
        ("tests/database/test_reap.py",),
    ),
    Kind(
        "the keeper's thread dies at its first error",
        f"{_JOB}/drain/lease_keeper.py",
        'trying again", reason=reason)\n                continue\n',
        'trying again", reason=reason)\n                return\n',
        (f"{_CHAOS}/test_lease_keeper.py",),
    ),
    Kind(
        "a leader that goes silent",
        "operator/siorg_operator/cluster/leader.py",
        "            if self._is_late():\n",
        "            if False:\n",
        ("tests/cluster/test_leader.py",),
    ),
    Kind(
        "a breaker that never half-opens",
        f"{_JOB}/siorg/breaker.py",
        "            self._change(BreakerState.HALF_OPEN)\n",
        "            pass\n",
        ("tests/unit/siorg/test_breaker.py",),
    ),
    Kind(
        "Retry-After ignored",
        f"{_JOB}/siorg/client.py",
        "_PAUSE_SECONDS if wait is None else wait",
        "_PAUSE_SECONDS",
        (f"{_CHAOS}/test_rate_limited.py",),
    ),
    Kind(
        "a second claim after SIGTERM",
        f"{_JOB}/drain/loop.py",
        '        if self._stop.is_set():\n            return "stopped"\n',
        "",
        (f"{_CHAOS}/test_signals.py",),
    ),
)
