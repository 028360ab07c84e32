"""``siorg-operator local FILE``: the same resource and the same decisions on this machine, job processes in place of Jobs."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.control.loop import Attendant
from siorg_operator.control.reconcile import Reconciler, Seen
from siorg_operator.database.errors import of_variable
from siorg_operator.database.reader import Backlogs, Watch
from siorg_operator.decide import manifests
from siorg_operator.decide.job_failures import Pacing, later
from siorg_operator.decide.jobs import JobRecord, PodRecord, combine
from siorg_operator.decide.plan import Launch, Removal
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.state import Backlog, Job, Unreadable
from siorg_operator.decide.status import Event
from siorg_operator.serving.health import Health
from siorg_operator.serving.metrics import OperatorMetrics
from siorg_queue.address import check_database_url
from siorg_runtime.redaction import redactor

_KILL_MARGIN_SECONDS = 5.0
_LOG_TAIL_BYTES = 2048
_UNREADABLE_SECONDS = 30.0
"""With ``--until-empty``: a queue that cannot be read for so long is not waited for."""
_READ_AGAIN_SECONDS = 3.0
_SAME_MOMENT_SECONDS = 2.0
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last one: the terminal was closed


class LocalError(Exception):
    """The resource cannot be run on this machine; the message says why and what to do."""


class Over(Enum):
    """Why ``run`` came to its end by itself."""

    EMPTY = "nothing waits and nothing runs"
    NEVER = "the resource itself keeps the queue from ever becoming empty"
    UNAVAILABLE = "something outside keeps it from that"


@dataclass(frozen=True, slots=True)
class End:
    """That ``run`` came to its end by itself, and why in a sentence for people; empty where that is as it should be."""

    over: Over
    message: str = ""


@dataclass(slots=True)
class Process:
    """One job process, from its launch until it is removed from the history."""

    name: str
    launch: Launch
    template: str
    created_at: datetime
    log: Path
    termination_log: Path
    process: asyncio.subprocess.Process | None = None
    finished_at: datetime | None = None
    deadline_over: bool = False
    uid: str = field(default="")

    def job(self) -> Job:
        """This process as the decision sees a Job: by way of what Kubernetes would have told of it."""
        code = None if self.process is None or self.finished_at is None else self.process.returncode
        failed = "DeadlineExceeded" if self.deadline_over else "BackoffLimitExceeded"
        record = JobRecord(
            name=self.name,
            uid=self.uid,
            slot=self.launch.slot,
            round=self.launch.round,
            template=self.template,
            created_at=self.created_at,
            finished_at=self.finished_at,
            failed_because=failed if code or (self.deadline_over and self.finished_at) else None,
            failure_message="",
            complete=code == 0 and not self.deadline_over,
            stuck_because="",
        )
        pod = PodRecord(
            name=self.name,
            running=self.finished_at is None,
            started_at=self.created_at,
            stuck=None,
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


class LocalMachine:
    """This machine as ``ports.Launcher``, ``ports.Cluster`` and ``attendant.World``."""

    def __init__(self, resource: SiorgSyncWorker, databases: Backlogs, folder: Path, environ: Mapping[str, str]) -> None:
        """``folder``: where logs go. ``environ``: what job processes inherit, the database's URL in it."""
        self.resource = resource
        # Of a run before this one logs may be there: its names are not used again, as in a cluster.
        self.status: dict[str, Any] = {"jobs": {"lastRound": _last_round(resource, folder)}}
        self.end_reached: End | None = None
        self.unreadable: Unreadable | None = None
        self.unreadable_since: float | None = None
        """By the monotonic clock; None: the last reading worked, or there was none yet."""
        self.next_due: datetime | None = None
        """When the next item falls due that waits; None: one is due, or none waits."""
        self.events: list[tuple[datetime, Event]] = []
        self.changed = asyncio.Event()
        self._databases = databases
        self._folder = folder
        self._environ = environ
        self._processes: dict[str, Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: Watch | None = None
        self._wake: Callable[[], None] = lambda: None
        self._stopping = False
        self._killing = False

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
        made = Process(name, launch, manifests.template_hash(resource, credentials), datetime.now(UTC), log, termination_log)
        self._processes[name] = made  # before anything is awaited: two launches of one slot must not both begin
        try:
            with log.open("wb") as output:
                made.process = await asyncio.create_subprocess_exec(
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
        task = asyncio.create_task(self._see_to(made))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def end(self, resource: SiorgSyncWorker, removal: Removal) -> None:
        """See ``ports.Launcher``. Processes do not get stuck before they start."""

    async def remove(self, resource: SiorgSyncWorker, name: str) -> None:
        """See ``ports.Launcher``. The log stays."""
        del resource
        self._processes.pop(name, None)

    async def _see_to(self, made: Process) -> None:
        """Wait for the end of a process, and bring it about when its deadline is over."""
        assert made.process is not None  # it was started
        deadline = self.resource.spec.job.active_deadline_seconds
        try:
            async with asyncio.timeout(deadline):
                await made.process.wait()
        except TimeoutError:
            made.deadline_over = True
            await self._stop(made)
        made.finished_at = datetime.now(UTC)
        self.changed.set()
        self._wake()

    async def _stop(self, made: Process) -> None:
        """SIGTERM, and SIGKILL when the grace is over."""
        process = made.process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        grace = self.resource.spec.job.pod_template.spec.termination_grace_period_seconds
        try:
            async with asyncio.timeout(grace + _KILL_MARGIN_SECONDS):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def stop(self) -> None:
        """Launch nothing more; every job process that has begun finishes what it holds or gives it back."""
        self._stopping = True
        await asyncio.gather(*(self._stop(made) for made in self._processes.values()))
        await asyncio.gather(*self._tasks)

    def kill(self) -> None:
        """End every job process at once, also one that is only being launched."""
        self._killing = True
        for made in self._processes.values():
            if made.process is not None and made.process.returncode is None:
                with suppress(ProcessLookupError):
                    made.process.kill()

    # -- ports.Cluster ------------------------------------------------------------------------------------------------

    async def write_status(self, resource: SiorgSyncWorker, patch: dict[str, Any]) -> None:
        """See ``ports.Cluster``."""
        del resource
        self.status = _merged(self.status, patch)
        self.changed.set()

    async def record(self, resource: SiorgSyncWorker, event: Event) -> None:
        """See ``ports.Cluster``."""
        del resource
        self.events.append((datetime.now(UTC), event))
        self.changed.set()

    async def apply_cron_job(self, resource: SiorgSyncWorker, manifest: dict[str, Any]) -> dict[str, Any]:
        """See ``ports.Cluster``. There are none here: ``Seen.cron_jobs`` is None."""
        del resource
        return manifest

    async def delete_cron_job(self, resource: SiorgSyncWorker, name: str) -> None:
        """See ``ports.Cluster``. There are none here."""

    # -- attendant.World ----------------------------------------------------------------------------------------------

    def body(self) -> Mapping[str, Any]:
        """See ``attendant.World``."""
        return {**self.resource.body(), "status": self.status}

    def jobs(self) -> list[Job]:
        """Every job process that is remembered."""
        return [made.job() for made in self._processes.values()]

    def seen(self, resource: SiorgSyncWorker, now: datetime) -> Seen:
        """See ``attendant.World``."""
        del now
        return Seen(resource, {}, self.jobs(), None)

    def listen(self, resource: SiorgSyncWorker, wake: Callable[[], None]) -> None:
        """See ``attendant.World``."""
        del resource
        self._wake = wake
        if self._watch is None:
            self._watch = self._databases.watch(self._environ["DATABASE_URL"], wake)

    async def read(self, resource: SiorgSyncWorker) -> Backlog:
        """See ``ports.BacklogReader``."""
        del resource
        reading = await self._databases.read(self._environ["DATABASE_URL"])
        if isinstance(reading, Unreadable):
            self.unreadable = reading = of_variable(reading)
            self.unreadable_since = self.unreadable_since or time.monotonic()
        else:
            self.unreadable = self.unreadable_since = None
            seconds = reading.next_due_seconds
            due = later(_now(), seconds) if seconds and not reading.claimable else None
            # What is told of it should not change with every reading.
            if due is None or self.next_due is None or abs((due - self.next_due).total_seconds()) >= _SAME_MOMENT_SECONDS:
                self.next_due = due
        return Backlog(reading)


def prepare(resource: SiorgSyncWorker, environ: Mapping[str, str]) -> tuple[SiorgSyncWorker, dict[str, str]]:
    """The resource with what this machine stands for, and the environment of its job processes.

    ``DATABASE_URL``, ``SIORG_API_TOKEN`` and, if set, ``SIORG_API_URL`` (with ``SIORG_ALLOW_INSECURE``) of ``environ`` stand
    for the Secrets and the URL; every other setting is the resource's.

    Raises:
        LocalError: something is missing, or makes no sense on one machine.
    """
    if not environ.get("DATABASE_URL", "").strip():
        ref = resource.spec.database.url_secret_ref
        raise LocalError(
            f"DATABASE_URL is not set: here it stands for the Secret {ref.name} (key {ref.key}) of spec.database.urlSecretRef"
        )
    try:
        check_database_url(environ["DATABASE_URL"].strip())
    except ValueError as wrong:
        raise LocalError(f"DATABASE_URL {wrong}") from None
    uid = hashlib.sha256(resource.metadata.name.encode()).hexdigest()[:32]
    metadata = resource.metadata.model_copy(update={"namespace": "local", "uid": uid, "generation": 1})
    job = resource.spec.job.model_copy(update={"image": resource.spec.job.image or "local"})
    resource = resource.model_copy(update={"metadata": metadata, "spec": resource.spec.model_copy(update={"job": job})})
    theirs: dict[str, str] = {}
    for entry in resource.spec.job.pod_template.spec.body().get("env") or ():
        if "value" not in entry and "valueFrom" in entry:
            if entry["name"] not in environ:
                raise LocalError(
                    f"spec.job.podTemplate.spec.env: {entry['name']} comes from the cluster (valueFrom), which is not here; set"
                    f" {entry['name']} in the environment"
                )
            continue
        theirs[entry["name"]] = str(entry.get("value", ""))
    said = manifests.environment(resource)
    for name in ("SIORG_API_URL", "SIORG_ALLOW_INSECURE"):
        if environ.get(name, "").strip():
            said[name] = environ[name]
    inherited = {name: value for name, value in environ.items() if not name.startswith("SIORG_OPERATOR_")}
    return resource, {**inherited, **theirs, **said, "PYTHONUNBUFFERED": "1"}


async def run(
    resource: SiorgSyncWorker,
    environ: Mapping[str, str],
    *,
    metrics: OperatorMetrics,
    folder: Path,
    until_empty: bool,
    show: Callable[[LocalMachine], None],
    pacing: Pacing | None = None,
) -> LocalMachine:
    """Attend to the resource until a signal comes, or until its queue is empty or is found never to become so.

    Which of them it was is the machine's ``end_reached``; None: a signal.

    Args:
        resource: as ``prepare`` returned it.
        environ: likewise.
        metrics: what happened is counted there.
        folder: where the job processes' logs go.
        until_empty: end by itself once nothing waits and nothing runs, or once that cannot come.
        show: is called when something changed, and each second.
        pacing: how patient to be with trouble.
    """
    databases = Backlogs()
    machine = LocalMachine(resource, databases, folder, environ)
    reconciler = Reconciler(reader=machine, launcher=machine, cluster=machine, metrics=metrics, clock=_now, pacing=pacing)
    attendant = Attendant(machine, reconciler, machine, metrics=metrics, health=Health(), clock=_now, default_image=None)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():  # the second one: the person means it
            machine.kill()
        stop.set()

    for number in _ENDING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup: whoever started us wants it so
            loop.add_signal_handler(number, on_signal)
    attending = asyncio.create_task(attendant.attend(stop.is_set))
    ended = asyncio.create_task(stop.wait())
    read_again = time.monotonic()
    try:
        while not stop.is_set() and not attending.done():
            show(machine)
            if until_empty and (reached := _reached(machine)):
                machine.end_reached = reached
                break
            if until_empty and machine.unreadable is not None and time.monotonic() >= read_again:
                attendant.wake()
                read_again = time.monotonic() + _READ_AGAIN_SECONDS
            machine.changed.clear()
            changed = asyncio.create_task(machine.changed.wait())
            await asyncio.wait({ended, attending, changed}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
    finally:
        stop.set()
        attendant.hurry()
        stopping = asyncio.create_task(_stopped(machine, attending))
        while not stopping.done():
            with suppress(OSError):  # nobody may be there to look any more; the job processes have to end all the same
                show(machine)
            await asyncio.wait({stopping}, timeout=0.5)
        ended.cancel()
        await databases.close()
        with suppress(OSError):
            show(machine)
        attending.result()
    return machine


async def _stopped(machine: LocalMachine, attending: asyncio.Task[None]) -> None:
    await machine.stop()
    await asyncio.wait({attending})
    await machine.stop()  # one that was being launched meanwhile


def _reached(machine: LocalMachine) -> End | None:
    """Whether the end is reached, one way or the other; None: go on."""
    if any(job.unfinished for job in machine.jobs()):
        return None
    if machine.unreadable is not None and machine.unreadable_since is not None:
        if time.monotonic() - machine.unreadable_since < _UNREADABLE_SECONDS:
            return None
        return End(
            Over.UNAVAILABLE,
            f"The queue could not be read for {_UNREADABLE_SECONDS:.0f} s: {redactor.text(machine.unreadable.message)}",
        )
    queue, jobs = machine.status.get("queue"), machine.status["jobs"]
    if queue is None or jobs.get("active") or jobs.get("pending"):
        return None
    waiting = max(queue["claimable"], queue["due"]) + queue["scheduled"]
    if queue["claimable"] + queue["scheduled"] + queue["processing"] == 0:
        return End(Over.EMPTY)
    spec = machine.resource.spec
    its_own = (
        "spec.suspend is true" if spec.suspend
        else "spec.mode is Observe" if spec.mode == "Observe"
        else "spec.scaling.maxJobs is 0" if spec.scaling.max_jobs == 0
        else ""
    )  # fmt: skip
    if waiting and its_own:
        return End(Over.NEVER, f"{waiting} items wait and {its_own}: nothing is launched, so the queue never becomes empty")
    if waiting and (machine.status.get("lastDecision") or {}).get("reason") == "SyncDisabled":
        return End(
            Over.UNAVAILABLE, f"{waiting} items wait and the database's setting siorg.sync_enabled is false: set it to true"
        )
    return None


def _last_round(resource: SiorgSyncWorker, folder: Path) -> int:
    """The highest round among the names that a run before this one left in the folder; 0: it left none."""
    there = re.compile(
        rf"{re.escape(manifests.job_name(resource, 0, 0)[: -len('0-0')])}\d+-(\d{{1,9}})\.(?:log|summary)", re.ASCII
    )
    return max((int(found[1]) for file in folder.iterdir() if (found := there.fullmatch(file.name))), default=0)


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


def _now() -> datetime:
    return datetime.now(UTC)


def log_folder(given: str | None) -> Path:
    """Where logs go: a folder that a person named, or a new one among the temporary files.

    Raises:
        LocalError: it cannot be made.
    """
    if given is None:
        return Path(tempfile.mkdtemp(prefix="siorg-local-"))
    folder = Path(given)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"--logs {given}: {error.strerror or error}") from None
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise LocalError(f"--logs {given}: cannot be read and written to")
    return folder
