"""What the cluster shows of the resources' things, as its events tell.

Not kopf's indices: with those each object waits at the start until every other one was listed, and each that comes wakes all
that wait. 10,000 Jobs took more than 90 s and 600 MiB so.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar

from siorg_operator.control.past import Past
from siorg_operator.control.reconcile import CronJobSeen, CronRun, cron_job_seen, cron_run
from siorg_operator.decide.jobs import JobRecord, PodRecord, job_of_pod, job_record, owner_uid, pod_record
from siorg_operator.decide.manifests import COMPONENT_LABEL
from siorg_operator.decide.state import Job
from siorg_runtime.redaction import redactor

_Record = TypeVar("_Record")


class Sight:
    """Everything of one namespace."""

    def __init__(self) -> None:
        """See nothing yet."""
        self._jobs: _Index[JobRecord] = _Index()
        self._pods: _Index[PodRecord] = _Index()
        self._cron_jobs: _Index[CronJobSeen] = _Index()
        self._runs: _Index[CronRun] = _Index()

    # -- what is told -------------------------------------------------------------------------------------------------

    def job(self, body: Mapping[str, Any], *, there: bool) -> str:
        """A Job is so, or gone; returns the uid of its resource, empty if it has none."""
        if (cron_job := _cron_job_of(body)) is not None:
            return self._cron_jobs.owner(self._runs.keep(body["metadata"]["uid"], cron_job, cron_run(body) if there else None))
        owner, record = owner_uid(body), job_record(body)
        return self._jobs.keep(body["metadata"]["uid"], owner, record if there else None)

    def pod(self, body: Mapping[str, Any], *, there: bool) -> str:
        """A pod is so, or gone; returns the uid of its Job's resource, empty if it has none."""
        is_drain = (body["metadata"].get("labels") or {}).get(COMPONENT_LABEL) == "drain"
        job = self._pods.keep(body["metadata"]["uid"], job_of_pod(body), pod_record(body) if there and is_drain else None)
        return self._jobs.owner(job)

    def cron_job(self, body: Mapping[str, Any], *, there: bool) -> str:
        """A CronJob is so, or gone; returns the uid of its resource, empty if it has none."""
        return self._cron_jobs.keep(body["metadata"]["uid"], owner_uid(body), cron_job_seen(body) if there else None)

    def forget(self, kind: str, uids: set[str]) -> None:
        """These are gone, although nobody told."""
        for uid in uids:
            for index in self._indices(kind):
                index.keep(uid, None, None)

    # -- what is asked ------------------------------------------------------------------------------------------------

    def jobs(self, owner: str, now: datetime, past: Past) -> list[Job]:
        """Of a resource; ``past``: what was seen of them before."""
        return past.jobs([(job, self._pods.of(job.uid)) for job in self._jobs.of(owner)], now, redactor.text)

    def cron_jobs(self, owner: str) -> list[CronJobSeen]:
        """Of a resource."""
        return self._cron_jobs.of(owner)

    def runs(self, owner: str) -> list[CronRun]:
        """Jobs of a resource's CronJobs."""
        return [run for cron_job in self._cron_jobs.of(owner) for run in self._runs.of(cron_job.uid)]

    def uids(self, kind: str) -> set[str]:
        """Of everything that is seen of a kind: ``jobs``, ``pods`` or ``cronjobs``."""
        return {uid for index in self._indices(kind) for uid in index.uids()}

    def _indices(self, kind: str) -> list[_Index[Any]]:
        of_kind: dict[str, list[_Index[Any]]] = {
            "jobs": [self._jobs, self._runs], "pods": [self._pods], "cronjobs": [self._cron_jobs],
        }  # fmt: skip
        return of_kind[kind]


def _cron_job_of(body: Mapping[str, Any]) -> str | None:
    for reference in body["metadata"].get("ownerReferences") or ():
        if reference.get("controller") and reference.get("kind") == "CronJob":
            return str(reference["uid"])
    return None


class _Index(Generic[_Record]):
    """Records by the uid of their owner."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, _Record]] = {}
        self._owners: dict[str, str] = {}

    def keep(self, uid: str, owner: str | None, record: _Record | None) -> str:
        """Keep a record, None: keep it no longer; returns its owner, empty if there is none."""
        before = self._owners.pop(uid, "")
        if before and (owner != before or record is None):
            del self._of[before][uid]
            if not self._of[before]:
                del self._of[before]
        if owner and record is not None:
            self._of.setdefault(owner, {})[uid] = record
            self._owners[uid] = owner
        return owner or before

    def of(self, owner: str) -> list[_Record]:
        return list(self._of.get(owner, {}).values())

    def owner(self, uid: str) -> str:
        return self._owners.get(uid, "")

    def uids(self) -> set[str]:
        return set(self._owners)
