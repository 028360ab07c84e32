"""What the Jobs of one resource showed before and their pods tell no more: since when one has been stuck, when one began."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from siorg_operator.decide.jobs import JobRecord, PodRecord, combine
from siorg_operator.decide.state import Job


class Past:
    """Remembers it between two looks. What is gone is forgotten."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._stuck: dict[str, datetime] = {}
        self._started: dict[str, datetime] = {}

    def jobs(
        self, seen: Iterable[tuple[JobRecord, Sequence[PodRecord]]], now: datetime, clean: Callable[[str], str]
    ) -> list[Job]:
        """Every Job with its pods, and with what was seen of them before.

        Args:
            seen: all Jobs of the resource.
            now: the time.
            clean: see ``jobs.combine``.
        """
        seen = list(seen)
        self._stuck = {
            pod.uid: self._stuck.get(pod.uid, now)
            for _, pods in seen
            for pod in pods
            if pod.stuck is not None and pod.stuck.reason != "Unschedulable"  # of which its condition tells the time
        }
        jobs = [(record, combine(record, [self._since(pod) for pod in pods], now, clean)) for record, pods in seen]
        # When its deadline is over the Job controller removes the pod: whether it ever began is known by then or never.
        self._started = {
            record.uid: started
            for record, job in jobs
            if (started := job.started_at or self._started.get(record.uid)) is not None
        }
        return [job if job.started_at else replace(job, started_at=self._started.get(record.uid)) for record, job in jobs]

    def _since(self, pod: PodRecord) -> PodRecord:
        """A pod tells when a node took it, not since when it has been stuck: before that it may have pulled for minutes."""
        if pod.stuck is None or pod.uid not in self._stuck:
            return pod
        return replace(pod, stuck=replace(pod.stuck, since=max(pod.stuck.since, self._stuck[pod.uid])))
