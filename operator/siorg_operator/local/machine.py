"""This machine in place of a cluster: a process for each Job, a status in memory, a queue whose URL is in the environment."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.database.databases import Databases
from siorg_operator.decide import manifests
from siorg_operator.decide.jobs import JobRecord, combine
from siorg_operator.decide.planned import Launch, Removal
from siorg_operator.decide.pods import PodRecord
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.state import Job, QueueState, Unreadable, later
from siorg_operator.decide.status import Event
from siorg_runtime.application import tagged
from siorg_runtime.redaction import redactor

_KILL_MARGIN_SECONDS = 5.0
_LOG_TAIL_BYTES = 2048
_SAME_MOMENT_SECONDS = 2.0


@dataclass(slots=True)
class Process:
    """One job process, from its launch until it is removed from the history."""

    record: JobRecord
    """As it was launched."""
    log: Path
    termination_log: Path
    handle: asyncio.subprocess.Process | None = None
    watch: asyncio.Task[None] | None = None
    finished_at: datetime | None = None
    deadline_over: bool = False
    stopped: bool = False
    """Whether it was told to stop."""
    ending: asyncio.Task[None] | None = None
    """Brings that about."""

    def job(self) -> Job:
        """This process as the decision sees a Job: by way of what Kubernetes would have told of it."""
        code = None if self.handle is None or self.finished_at is None else self.handle.returncode
        told_to_end = self.deadline_over or self.stopped
        failed = "DeadlineExceeded" if told_to_end else "BackoffLimitExceeded"
        record = replace(
            self.record,
            finished_at=self.finished_at,
            failed_because=failed if code or (told_to_end and self.finished_at) else None,
            stopped=self.stopped,
        )
        pod = PodRecord(
            name=record.name,
            running=self.finished_at is None,
            started_at=record.created_at,
            exit_code=code,
            exit_reason="" if code is None else "Completed" if code == 0 else "Error",
            termination_message="" if code is None else self._last_words(),
            finished_at=self.finished_at,
        )
        return combine(record, [pod], datetime.now(UTC), redactor.text)

    def _last_words(self) -> str:
        """The summary, or the end of the log where there is none: as a pod's termination message."""
        with suppress(OSError):
            if summary := self.termination_log.read_text(encoding="utf-8"):
                return summary
            return self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
        return ""

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, and SIGKILL when the grace is over."""
        if self.handle is None or self.handle.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self.handle.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_seconds + _KILL_MARGIN_SECONDS):
                await self.handle.wait()
        except TimeoutError:
            self.kill()
            await self.handle.wait()

    def kill(self) -> None:
        """SIGKILL at once, if it runs."""
        if self.handle is not None and self.handle.returncode is None:
            with suppress(ProcessLookupError):
                self.handle.kill()


class LocalMachine:
    """This machine as ``ports.Launcher``, ``ports.Reporter`` and ``ports.QueueReader``."""

    def __init__(self, resource: SiorgSyncWorker, databases: Databases, folder: Path, environ: Mapping[str, str]) -> None:
        """``folder``: where logs go. ``environ``: what job processes inherit; its DATABASE_URL stands for the Secret."""
        self.resource = resource
        self.url = environ["DATABASE_URL"]
        self.unreadable: Unreadable | None = None
        """Why the queue could not be read; None: the last reading worked, or there was none yet."""
        self.unreadable_since = 0.0  # by the monotonic clock
        self.not_started = ""
        """Why no job process could be started; empty: the last one could, or there was none yet."""
        self.not_started_since = 0.0  # by the monotonic clock
        self.next_due: datetime | None = None
        """When the next item falls due that waits; None: one is due, or none waits."""
        # Of a run before this one logs may be there: its names are not used again, as in a cluster.
        self.status: dict[str, Any] = {"jobs": {"lastRound": _last_round(resource, folder)}}
        self.events: list[tuple[datetime, Event]] = []
        self.news = asyncio.Event()
        """Something is worth showing."""
        self.on_exit: Callable[[], None] = lambda: None
        """Is called when a job process has ended."""
        self._databases = databases
        self._folder = folder
        self._environ = environ
        self._processes: dict[str, Process] = {}
        self._grace_seconds = resource.spec.job.pod_template.spec.termination_grace_period_seconds
        self._stopping = False
        self._killing = False

    def body(self) -> dict[str, Any]:
        """The resource's object as it is now."""
        return {**self.resource.body(), "status": self.status}

    def jobs(self) -> list[Job]:
        """Every job process that is remembered."""
        return [process.job() for process in self._processes.values()]

    async def stop(self) -> None:
        """Launch nothing more; every job process that has begun finishes what it holds or gives it back."""
        self._stopping = True
        processes = list(self._processes.values())
        await asyncio.gather(*(process.stop(self._grace_seconds) for process in processes))
        await asyncio.gather(*(process.watch for process in processes if process.watch is not None))

    def kill(self) -> None:
        """End every job process at once, also one that is only being launched."""
        self._killing = True
        for process in self._processes.values():
            process.kill()

    # -- ports.Launcher -----------------------------------------------------------------------------------------------

    async def launch(self, resource: SiorgSyncWorker, launch: Launch, *, secrets_hash: str, decision: str) -> Job:
        del decision  # it is on the screen
        name = manifests.job_name(resource, launch.slot, launch.round)
        if name in self._processes:
            return self._processes[name].job()
        if self._stopping:
            raise ClusterError("the operator is ending: nothing is launched")
        template = manifests.template_hash(resource, secrets_hash)
        record = JobRecord(
            name=name, uid=name, slot=launch.slot, round=launch.round, template=template, created_at=datetime.now(UTC),
            finished_at=None, failed_because=None,
        )  # fmt: skip
        process = Process(record, self._folder / f"{name}.log", self._folder / f"{name}.summary")
        self._processes[name] = process  # before anything is awaited: two launches of one slot must not both begin
        try:
            process.termination_log.write_bytes(b"")
            with process.log.open("wb") as output:
                process.handle = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "siorg_job", "run",
                    env={
                        **self._environ,
                        "HOSTNAME": name,
                        "PGAPPNAME": tagged(manifests.job_tag(name)),
                        "WORKER_TERMINATION_LOG": str(process.termination_log),
                    },
                    stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                    start_new_session=True,  # Ctrl-C is ours to pass on, once
                )  # fmt: skip
        except OSError as error:  # the disk is full, the folder has gone, there is no room for another process
            del self._processes[name]
            if not self.not_started:
                self.not_started_since = time.monotonic()
            self.not_started = str(error)
            self.news.set()
            raise ClusterError(f"a job process could not be started: {error}") from None
        self.not_started = ""
        if self._killing:
            self.kill()
        process.watch = asyncio.create_task(self._watch(process, process.handle))
        return process.job()

    async def end(self, resource: SiorgSyncWorker, removal: Removal) -> None:
        """Processes do not get stuck before they start."""

    async def terminate(self, resource: SiorgSyncWorker, job: Job, *, why: str) -> None:  # noqa: ARG002 - of the port
        process = self._processes.get(job.name)
        if process is None or job.uid != process.record.uid or process.finished_at is not None or process.stopped:
            return
        if process.handle is None:
            raise ClusterError(f"{job.name} is only being launched: it is told to stop in a moment")
        process.stopped = True
        process.ending = asyncio.create_task(process.stop(self._grace_seconds))

    async def remove(self, resource: SiorgSyncWorker, job: Job) -> None:  # noqa: ARG002 - of the port
        self._processes.pop(job.name, None)  # the log stays

    async def find(self, resource: SiorgSyncWorker) -> list[Job]:  # noqa: ARG002 - of the port
        return self.jobs()

    async def _watch(self, process: Process, handle: asyncio.subprocess.Process) -> None:
        """Wait for the end of a process, and bring it about when its deadline is over."""
        try:
            async with asyncio.timeout(self.resource.spec.job.active_deadline_seconds):
                await handle.wait()
        except TimeoutError:
            process.deadline_over = True
            await process.stop(self._grace_seconds)
        process.finished_at = datetime.now(UTC)
        self.news.set()
        self.on_exit()

    # -- ports.Reporter ------------------------------------------------------------------------------------------------

    async def write_status(self, resource: SiorgSyncWorker, patch: dict[str, Any]) -> dict[str, Any] | None:  # noqa: ARG002
        self.status = _merged(self.status, patch)
        self.news.set()
        return self.body()

    async def record(self, resource: SiorgSyncWorker, event: Event) -> None:  # noqa: ARG002 - of the port
        self.events.append((datetime.now(UTC), event))
        self.news.set()

    # -- ports.QueueReader ---------------------------------------------------------------------------------------------

    async def changed(self) -> bool:
        return False  # the environment of a process does not change

    async def read(self, resource: SiorgSyncWorker) -> QueueState:  # noqa: ARG002 - of the port
        reading = await self._databases.read(self.url)
        if isinstance(reading, Unreadable):
            if self.unreadable is None:
                self.unreadable_since = time.monotonic()
            self.unreadable = reading
            return QueueState(reading)
        self.unreadable = None
        seconds = reading.next_due_seconds
        due = later(datetime.now(UTC), seconds) if seconds and not reading.claimable else None
        # What is shown of it should not change with every reading.
        if due is None or self.next_due is None or abs((due - self.next_due).total_seconds()) >= _SAME_MOMENT_SECONDS:
            self.next_due = due
        return QueueState(reading)


def _last_round(resource: SiorgSyncWorker, folder: Path) -> int:
    """The highest round among the names that a run before this one left in the folder; 0: it left none."""
    pattern = re.compile(
        rf"{re.escape(manifests.job_name(resource, 0, 0)[: -len('0-0')])}\d+-(\d{{1,9}})\.(?:log|summary)", re.ASCII
    )
    return max((int(found[1]) for file in folder.iterdir() if (found := pattern.fullmatch(file.name))), default=0)


def _merged(old: object, patch: Mapping[str, Any]) -> dict[str, Any]:
    """``old`` with a JSON merge patch (RFC 7386) applied."""
    new = dict(old) if isinstance(old, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = _merged(new.get(key), value) if isinstance(value, Mapping) else value
    return new
