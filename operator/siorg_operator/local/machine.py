"""This machine in place of a cluster: a process for each Job, a status in memory, a queue whose URL is in the environment."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.database.databases import Databases
from siorg_operator.decide import manifests
from siorg_operator.decide.jobs import JobRecord, PodRecord, combine
from siorg_operator.decide.plan import Launch, Removal
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.state import Backlog, Job, Unreadable, later
from siorg_operator.decide.status import Event
from siorg_runtime.redaction import redactor

_KILL_MARGIN_SECONDS = 5.0
_LOG_TAIL_BYTES = 2048
_SAME_MOMENT_SECONDS = 2.0


@dataclass(slots=True)
class Process:
    """One job process, from its launch until it is removed from the history."""

    name: str
    launch: Launch
    template: str
    created_at: datetime
    log: Path
    termination_log: Path
    handle: asyncio.subprocess.Process | None = None
    finished_at: datetime | None = None
    deadline_over: bool = False

    def job(self) -> Job:
        """This process as the decision sees a Job: by way of what Kubernetes would have told of it."""
        code = None if self.handle is None or self.finished_at is None else self.handle.returncode
        failed = "DeadlineExceeded" if self.deadline_over else "BackoffLimitExceeded"
        record = JobRecord(
            name=self.name,
            uid="",
            slot=self.launch.slot,
            round=self.launch.round,
            template=self.template,
            created_at=self.created_at,
            finished_at=self.finished_at,
            failed_because=failed if code or (self.deadline_over and self.finished_at) else None,
        )
        pod = PodRecord(
            name=self.name,
            running=self.finished_at is None,
            started_at=self.created_at,
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


class LocalQueueReader:
    """``ports.QueueReader`` of this machine: DATABASE_URL stands for the Secret."""

    def __init__(self, databases: Databases, url: str) -> None:
        """Nothing is read yet."""
        self.url: str | None = url
        self.unreadable: Unreadable | None = None
        """Why the queue could not be read; None: the last reading worked, or there was none yet."""
        self.unreadable_since = 0.0
        """By the monotonic clock."""
        self.next_due: datetime | None = None
        """When the next item falls due that waits; None: one is due, or none waits."""
        self._databases = databases
        self._url = url

    async def changed(self) -> bool:
        """See ``ports.QueueReader``. The environment of a process does not change."""
        return False

    async def read(self, resource: SiorgSyncWorker) -> Backlog:
        """See ``ports.QueueReader``."""
        del resource
        reading = await self._databases.read(self._url)
        if isinstance(reading, Unreadable):
            if self.unreadable is None:
                self.unreadable_since = time.monotonic()
            self.unreadable = reading
            return Backlog(reading)
        self.unreadable = None
        seconds = reading.next_due_seconds
        due = later(datetime.now(UTC), seconds) if seconds and not reading.claimable else None
        # What is shown of it should not change with every reading.
        if due is None or self.next_due is None or abs((due - self.next_due).total_seconds()) >= _SAME_MOMENT_SECONDS:
            self.next_due = due
        return Backlog(reading)


class LocalMachine:
    """This machine as ``ports.Launcher`` and ``ports.Reporter``."""

    def __init__(self, resource: SiorgSyncWorker, queue: LocalQueueReader, folder: Path, environ: Mapping[str, str]) -> None:
        """``folder``: where logs go. ``environ``: what job processes inherit, the database's URL in it."""
        self.resource = resource
        self.queue = queue
        # Of a run before this one logs may be there: its names are not used again, as in a cluster.
        self.status: dict[str, Any] = {"jobs": {"lastRound": _last_round(resource, folder)}}
        self.events: list[tuple[datetime, Event]] = []
        self.changed = asyncio.Event()
        """Something is worth showing."""
        self.on_exit: Callable[[], None] = lambda: None
        """Is called when a job process has ended."""
        self._folder = folder
        self._environ = environ
        self._processes: dict[str, Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._killing = False

    def body(self) -> Mapping[str, Any]:
        """The resource's object as it is now."""
        return {**self.resource.body(), "status": self.status}

    def jobs(self) -> list[Job]:
        """Every job process that is remembered."""
        return [process.job() for process in self._processes.values()]

    # -- ports.Launcher -----------------------------------------------------------------------------------------------

    async def launch(self, resource: SiorgSyncWorker, launch: Launch, *, credentials: str, decision: str) -> bool:
        """See ``ports.Launcher``."""
        del decision  # it is on the screen
        name = manifests.job_name(resource, launch.slot, launch.round)
        if name in self._processes:
            return False
        if self._stopping:
            raise ClusterError("the operator is ending: nothing is launched")
        log, termination_log = self._folder / f"{name}.log", self._folder / f"{name}.summary"
        termination_log.write_bytes(b"")
        process = Process(name, launch, manifests.template_hash(resource, credentials), datetime.now(UTC), log, termination_log)
        self._processes[name] = process  # before anything is awaited: two launches of one slot must not both begin
        try:
            with log.open("wb") as output:
                process.handle = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "siorg_job", "run",
                    env={**self._environ, "WORKER_TERMINATION_LOG": str(termination_log)},
                    stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                    start_new_session=True,  # Ctrl-C is ours to pass on, once
                )  # fmt: skip
        except OSError as error:
            del self._processes[name]
            raise ClusterError(f"a job process could not be started: {error}") from None
        if self._killing:
            self.kill()
        task = asyncio.create_task(self._watch(process))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def end(self, resource: SiorgSyncWorker, removal: Removal) -> None:
        """See ``ports.Launcher``. Processes do not get stuck before they start."""

    async def remove(self, resource: SiorgSyncWorker, name: str) -> None:
        """See ``ports.Launcher``. The log stays."""
        del resource
        self._processes.pop(name, None)

    async def _watch(self, process: Process) -> None:
        """Wait for the end of a process, and bring it about when its deadline is over."""
        assert process.handle is not None  # it was started
        deadline = self.resource.spec.job.active_deadline_seconds
        try:
            async with asyncio.timeout(deadline):
                await process.handle.wait()
        except TimeoutError:
            process.deadline_over = True
            await self._stop(process)
        process.finished_at = datetime.now(UTC)
        self.changed.set()
        self.on_exit()

    async def _stop(self, process: Process) -> None:
        """SIGTERM, and SIGKILL when the grace is over."""
        handle = process.handle
        if handle is None or handle.returncode is not None:
            return
        with suppress(ProcessLookupError):
            handle.send_signal(signal.SIGTERM)
        grace = self.resource.spec.job.pod_template.spec.termination_grace_period_seconds
        try:
            async with asyncio.timeout(grace + _KILL_MARGIN_SECONDS):
                await handle.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                handle.kill()
            await handle.wait()

    async def stop(self) -> None:
        """Launch nothing more; every job process that has begun finishes what it holds or gives it back."""
        self._stopping = True
        await asyncio.gather(*(self._stop(process) for process in self._processes.values()))
        await asyncio.gather(*self._tasks)

    def kill(self) -> None:
        """End every job process at once, also one that is only being launched."""
        self._killing = True
        for process in self._processes.values():
            if process.handle is not None and process.handle.returncode is None:
                with suppress(ProcessLookupError):
                    process.handle.kill()

    # -- ports.Reporter ------------------------------------------------------------------------------------------------

    async def write_status(self, resource: SiorgSyncWorker, patch: dict[str, Any]) -> dict[str, Any] | None:
        """See ``ports.Reporter``."""
        del resource
        self.status = _merged(self.status, patch)
        self.changed.set()
        return dict(self.body())

    async def record(self, resource: SiorgSyncWorker, event: Event) -> None:
        """See ``ports.Reporter``."""
        del resource
        self.events.append((datetime.now(UTC), event))
        self.changed.set()


def _last_round(resource: SiorgSyncWorker, folder: Path) -> int:
    """The highest round among the names that a run before this one left in the folder; 0: it left none."""
    pattern = re.compile(
        rf"{re.escape(manifests.job_name(resource, 0, 0)[: -len('0-0')])}\d+-(\d{{1,9}})\.(?:log|summary)", re.ASCII
    )
    return max((int(found[1]) for file in folder.iterdir() if (found := pattern.fullmatch(file.name))), default=0)


def _merged(old: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """``old`` with a JSON merge patch (RFC 7386) applied."""
    new = dict(old)
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        elif isinstance(value, Mapping):
            before = new.get(key)
            new[key] = _merged(before if isinstance(before, Mapping) else {}, value)
        else:
            new[key] = value
    return new
