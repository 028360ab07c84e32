"""What the cluster shows of a resource's things: kopf's indices, without what is known to be gone. They are live."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from siorg_operator.jobs import JobRecord, PodRecord, combine
from siorg_operator.observed import Job
from siorg_operator.reconcile import CronJobSeen

_Record = TypeVar("_Record", JobRecord, PodRecord, CronJobSeen)


class Sight:
    """Everything of one namespace."""

    def __init__(self) -> None:
        """See nothing yet."""
        self._jobs: Mapping[str, Iterable[JobRecord]] = {}
        self._pods: Mapping[str, Iterable[PodRecord]] = {}
        self._cron_jobs: Mapping[str, Iterable[CronJobSeen]] = {}
        self._gone: set[str] = set()

    def open(self, indices: Mapping[str, Any]) -> None:
        """From now on see what ``indices`` show."""
        self._jobs, self._pods, self._cron_jobs = indices["jobs"], indices["pods"], indices["cron_jobs"]

    def jobs(self, owner: str, now: datetime) -> list[Job]:
        """Of a resource."""
        return [combine(job, self._there(self._pods, job.uid), now) for job in self._there(self._jobs, owner)]

    def cron_jobs(self, owner: str) -> list[CronJobSeen]:
        """Of a resource."""
        return self._there(self._cron_jobs, owner)

    def uids(self, kind: str) -> set[str]:
        """Of everything that is seen of a kind."""
        index: Mapping[str, Iterable[Any]] = {"jobs": self._jobs, "pods": self._pods, "cronjobs": self._cron_jobs}[kind]
        return {record.uid for owner in index for record in index[owner]} - self._gone

    def forget(self, uids: set[str]) -> None:
        """These are gone, whatever the indices show."""
        self._gone |= uids

    def _there(self, index: Mapping[str, Iterable[_Record]], owner: str) -> list[_Record]:
        return [record for record in index.get(owner, ()) if record.uid not in self._gone]
