"""What the cluster shows of the resources' things, as its events tell.

Not kopf's indices: with those each object waits at the start until every other one was listed, and each that comes wakes all
that wait. 10,000 Jobs took more than 90 s and 600 MiB so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.control.cron_jobs import CronJobState, CronRun, cron_job_state, cron_run
from siorg_operator.control.reconcile import Observed
from siorg_operator.decide.clocks import not_ahead
from siorg_operator.decide.jobs import JobRecord, combine, controller_uid, job_record
from siorg_operator.decide.manifests import COMPONENT_LABEL
from siorg_operator.decide.pods import UNSCHEDULABLE, PodRecord, pod_record
from siorg_operator.decide.state import Job, later
from siorg_runtime.redaction import redactor

_Entry = TypeVar("_Entry")


@dataclass(slots=True)
class _Job:
    record: JobRecord
    seen: JobRecord | None = None
    """The record as it was observed last."""
    started_at: datetime | None = None
    """When its container started, as a pod told that may be gone: the Job controller removes it when a deadline is over."""
    ended: _Pod | None = None
    """The last of its pods that told how it ended and are gone."""
    podless_since: datetime | None = None
    """When it was first seen without a pod, since it had one."""


@dataclass(slots=True)
class _Pod:
    """What a pod tells, and when it was first seen so. Its own times are of other clocks, or of something that came before."""

    record: PodRecord
    seen: PodRecord | None = None
    """The record as it was observed last."""
    stuck_since: datetime | None = None
    """It tells only when a node took it, and then it may have pulled for minutes."""
    silent_since: datetime | None = None
    ended_since: datetime | None = None
    deleted_since: datetime | None = None

    def at(self, now: datetime) -> PodRecord:
        record = self.seen = not_ahead(self.record, self.seen, now)
        stuck = record.stuck
        tells_when = stuck is None or stuck.reason == UNSCHEDULABLE  # its condition does
        self.stuck_since = None if tells_when else self.stuck_since or now
        self.silent_since = None if record.silent_since is None else self.silent_since or now
        self.deleted_since = None if record.deleted_at is None else self.deleted_since or now
        self.ended_since = None if record.exit_code is None else self.ended_since or now
        return replace(
            record,
            stuck=stuck if stuck is None or self.stuck_since is None else replace(stuck, since=self.stuck_since),
            silent_since=self.silent_since,
            deleted_at=None if self.deleted_since is None else later(self.deleted_since, record.deletion_grace),
            ended_since=self.ended_since,
        )


class Cache:
    """Everything of one namespace."""

    def __init__(self) -> None:
        self._jobs: _Index[_Job] = _Index()
        self._pods: _Index[_Pod] = _Index()
        self._cron_jobs: _Index[CronJobState] = _Index()
        self._cron_runs: _Index[CronRun] = _Index()
        self._of_kind: dict[str, tuple[_Index[Any], ...]] = {
            "jobs": (self._jobs, self._cron_runs), "pods": (self._pods,), "cronjobs": (self._cron_jobs,),
        }  # fmt: skip

    def update(self, kind: str, body: Mapping[str, Any], *, deleted: bool) -> str:
        """Take an object as it is now, or was when it was deleted; returns the uid of its resource, empty if there is none."""
        uid = body["metadata"]["uid"]
        if kind == "pods":
            is_drain = (body["metadata"].get("labels") or {}).get(COMPONENT_LABEL) == "drain"
            return self._jobs.owners.get(self._update_pod(uid, body, deleted=deleted or not is_drain), "")
        if kind == "cronjobs":
            return self._cron_jobs.keep(uid, controller_uid(body), None if deleted else cron_job_state(body))
        if (cron_job := controller_uid(body, "CronJob")) is not None:
            return self._cron_jobs.owners.get(self._cron_runs.keep(uid, cron_job, None if deleted else cron_run(body)), "")
        record, job = job_record(body), self._jobs.get(uid)
        kept = None if deleted or record is None else replace(job or _Job(record), record=record)
        return self._jobs.keep(uid, controller_uid(body), kept)

    def _update_pod(self, uid: str, body: Mapping[str, Any], *, deleted: bool) -> str:
        """Returns the uid of its Job."""
        record, pod, owner = pod_record(body), self._pods.get(uid), controller_uid(body, "Job")
        if not deleted:
            return self._pods.keep(uid, owner, replace(pod or _Pod(record), record=record))
        job = self._jobs.get(owner or "")
        if pod is not None and job is not None and record.exit_code is not None:
            job.ended = replace(pod, record=record)
        return self._pods.keep(uid, owner, None)

    def drop(self, kind: str, uids: set[str]) -> None:
        """These are gone, although no event told."""
        for index in self._of_kind[kind]:
            for uid in uids:
                index.keep(uid, None, None)

    def uids(self, kind: str) -> set[str]:
        """Of everything that is known of a kind: ``jobs``, ``pods`` or ``cronjobs``."""
        return {uid for index in self._of_kind[kind] for uid in index.owners}

    def observe(self, resource: SiorgSyncWorker, now: datetime) -> Observed:
        """What belongs to a resource."""
        owner = resource.metadata.uid
        cron_jobs = self._cron_jobs.of(owner)
        return Observed(
            jobs=[self._job(entry, now) for entry in self._jobs.of(owner)],
            cron_jobs=cron_jobs,
            cron_runs=[run for cron_job in cron_jobs for run in self._cron_runs.of(cron_job.uid)],
        )

    def _job(self, entry: _Job, now: datetime) -> Job:
        pods = [pod.at(now) for pod in self._pods.of(entry.record.uid)]
        entry.podless_since = None if any(pod.lives for pod in pods) else entry.podless_since or now
        if entry.ended is not None:
            pods.append(replace(entry.ended.at(now), lives=False))
        entry.seen = not_ahead(entry.record, entry.seen, now)
        job = combine(entry.seen, pods, now, redactor.text, podless_since=entry.podless_since)
        entry.started_at = job.started_at or entry.started_at
        return job if job.started_at else replace(job, started_at=entry.started_at)


class _Index(Generic[_Entry]):
    """Entries by the uid of their owner."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}
        """The owner of each entry, by the entry's uid."""
        self._of: dict[str, dict[str, _Entry]] = {}

    def keep(self, uid: str, owner: str | None, entry: _Entry | None) -> str:
        """Keep an entry, None: keep it no longer; returns its owner, empty if there is none."""
        before = self.owners.pop(uid, "")
        if before and (owner != before or entry is None):
            del self._of[before][uid]
            if not self._of[before]:
                del self._of[before]
        if owner and entry is not None:
            self._of.setdefault(owner, {})[uid] = entry
            self.owners[uid] = owner
        return owner or before

    def get(self, uid: str) -> _Entry | None:
        return self._of.get(self.owners.get(uid, ""), {}).get(uid)

    def of(self, owner: str | None) -> list[_Entry]:
        return list(self._of.get(owner or "", {}).values())
