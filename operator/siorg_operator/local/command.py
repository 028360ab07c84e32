"""``siorg-operator local FILE``: the same resource and the same decisions on this machine, job processes in place of Jobs."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from rich.console import Console

from siorg_operator.api.resource import SiorgSyncWorker, read_file
from siorg_operator.cli import DONE, ERROR, TRY_LATER, USAGE, UsageError, read_text
from siorg_operator.control.loop import ControlLoop
from siorg_operator.control.reconcile import Context, Observed
from siorg_operator.database.databases import Databases, database_url
from siorg_operator.decide import manifests
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import Ending
from siorg_operator.local.machine import LocalMachine
from siorg_operator.local.view import View
from siorg_operator.serving.health import Health
from siorg_operator.serving.metrics import OperatorMetrics
from siorg_runtime.redaction import redactor

_UNREADABLE_SECONDS = 30.0
"""With ``--until-empty``: a queue that cannot be read for so long is not waited for."""
_READ_AGAIN_SECONDS = 3.0
_NOT_STARTED_SECONDS = 30.0
"""With ``--until-empty``: where no job process could be started for so long, none is waited for."""
_FAILURES = 3
"""With ``--until-empty``: after so many failures in a row no job process is tried any more. SIORG's outage ends some time."""
_CODES: Final = {Ending.WRONG_SETTINGS: USAGE, Ending.DATABASE_UNAVAILABLE: TRY_LATER, Ending.NOTHING: TRY_LATER}
"""Exit codes after failures of job processes; others: an error."""
_OF_SIORG: Final = frozenset({Ending.SIORG_UNAVAILABLE, Ending.SIORG_RATE_LIMITED})
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last one: the terminal was closed


@dataclass(frozen=True, slots=True)
class End:
    """Why ``run`` came to its end."""

    code: int
    message: str = ""
    """For people; empty: by a signal, or nothing waits and nothing runs, as it should be."""


def prepare(resource: SiorgSyncWorker, environ: Mapping[str, str]) -> tuple[SiorgSyncWorker, dict[str, str]]:
    """The resource with what this machine stands for, and the environment of its job processes.

    ``DATABASE_URL``, ``SIORG_API_TOKEN`` and, if set, ``SIORG_API_URL`` (with ``SIORG_ALLOW_INSECURE``) of ``environ`` stand
    for the Secrets and the URL; every other setting is the resource's. ``UsageError``: something is missing.
    """
    ref = resource.spec.database.url_secret_ref
    database_url(environ, f"here it stands for the Secret {ref.name} (key {ref.key}) of spec.database.urlSecretRef")
    uid = hashlib.sha256(resource.metadata.name.encode()).hexdigest()[:32]
    metadata = resource.metadata.model_copy(update={"namespace": "local", "uid": uid, "generation": 1})
    resource = resource.model_copy(update={"metadata": metadata}).with_image(resource.spec.job.image or "local")
    given: dict[str, str] = {}
    for entry in resource.spec.job.pod_template.spec.body().get("env") or ():
        if "value" in entry or "valueFrom" not in entry:
            given[entry["name"]] = str(entry.get("value", ""))
        elif entry["name"] not in environ:
            raise UsageError(
                f"spec.job.podTemplate.spec.env: {entry['name']} comes from the cluster (valueFrom), which is not here; set"
                f" {entry['name']} in the environment"
            )
    settings = manifests.environment(resource)
    for name in ("SIORG_API_URL", "SIORG_ALLOW_INSECURE"):
        if environ.get(name, "").strip():
            settings[name] = environ[name]
    inherited = {name: value for name, value in environ.items() if not name.startswith("SIORG_OPERATOR_")}
    return resource, {**inherited, **given, **settings, "PYTHONUNBUFFERED": "1"}


def local(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the resource in a file, and show what happens; returns the exit code.

    Raises:
        UsageError, ResourceError: what is given cannot be used.
    """
    resource, environment = prepare(read_file(read_text(arguments.file)), environ)
    folder = _log_folder(arguments.logs)
    for variable in ("DATABASE_URL", "SIORG_API_TOKEN"):
        if environment.get(variable):
            redactor.remember(environment[variable])
    try:
        with View(Console(force_terminal=False if arguments.plain else None)) as view:
            machine, end = asyncio.run(run(resource, environment, folder, view.show, until_empty=arguments.until_empty))
        view.finish(machine, str(folder))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # At the end of the process the rest of the output would be tried once more, and fail as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"What is shown cannot be written: {error.strerror or error}; job processes were ended", file=sys.stderr)
        return ERROR
    if end.message:
        print(end.message, file=sys.stderr)
    return end.code


def _log_folder(given: str | None) -> Path:
    """Where logs go: a folder that a person named, or a new one among the temporary files."""
    if given is None:
        try:
            return Path(tempfile.mkdtemp(prefix="siorg-local-"))
        except OSError as error:
            problem = f"no temporary folder for logs can be made: {error.strerror or error}; name another with --logs or TMPDIR"
            raise UsageError(problem) from None
    folder = Path(given)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--logs {given}: {error.strerror or error}") from None
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise UsageError(f"--logs {given}: cannot be read and written to")
    return folder


async def run(
    resource: SiorgSyncWorker,
    environ: Mapping[str, str],
    folder: Path,
    show: Callable[[LocalMachine], None],
    *,
    until_empty: bool,
) -> tuple[LocalMachine, End]:
    """Reconcile the resource until a signal comes, or until its queue is empty or is found never to become so.

    Args:
        resource: as ``prepare`` returned it, with ``environ``.
        environ: what job processes inherit.
        folder: where their logs go.
        show: is called when something changed, and each second.
        until_empty: end by itself once nothing waits and nothing runs, or once that cannot come.
    """
    databases = Databases(correct="DATABASE_URL")
    machine = LocalMachine(resource, databases, folder, environ)
    context = Context(
        launcher=machine,
        reporter=machine,
        new_reader=lambda: machine,
        observe=lambda *_: Observed(machine.jobs()),
        databases=databases,
        metrics=OperatorMetrics(CollectorRegistry()),
        health=Health(),
    )
    control_loop = ControlLoop(context, machine.body())
    machine.on_exit = control_loop.wake
    stop, end = asyncio.Event(), None

    def on_signal() -> None:
        if stop.is_set():  # the second one: the person means it
            machine.kill()
        stop.set()
        machine.news.set()

    for number in _ENDING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup: whoever started us wants it so
            asyncio.get_running_loop().add_signal_handler(number, on_signal)
    running = asyncio.create_task(control_loop.run())
    running.add_done_callback(lambda _: machine.news.set())
    read_again = time.monotonic()
    try:
        while not stop.is_set() and not running.done():
            machine.news.clear()
            show(machine)
            if until_empty and (end := reached_end(machine)):
                break
            if until_empty and machine.unreadable is not None and time.monotonic() >= read_again:
                control_loop.wake()
                read_again = time.monotonic() + _READ_AGAIN_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await machine.news.wait()
    finally:
        stop.set()
        control_loop.stop()
        stopping = asyncio.create_task(_stop(machine, running))
        while not stopping.done():
            await asyncio.wait({stopping}, timeout=0.5)
            with suppress(OSError):  # nobody may be there to look any more; the job processes have to end all the same
                show(machine)
        await databases.close()
        running.result()
    return machine, end or End(DONE)


async def _stop(machine: LocalMachine, running: asyncio.Task[None]) -> None:
    await machine.stop()
    await asyncio.wait({running})
    await machine.stop()  # one that was being launched meanwhile


def reached_end(machine: LocalMachine) -> End | None:
    """Whether the end is reached, one way or the other; None: go on."""
    if any(job.unfinished for job in machine.jobs()):
        return None
    if (unreadable := machine.unreadable) is not None:
        if time.monotonic() - machine.unreadable_since < _UNREADABLE_SECONDS:
            return None
        message = f"The queue could not be read for {_UNREADABLE_SECONDS:.0f} s: {redactor.text(unreadable.message)}"
        return End(TRY_LATER, message)
    if machine.not_started and time.monotonic() - machine.not_started_since >= _NOT_STARTED_SECONDS:
        message = f"No job process could be started for {_NOT_STARTED_SECONDS:.0f} s: {redactor.text(machine.not_started)}"
        return End(ERROR, message)
    queue, jobs = machine.status.get("queue"), machine.status["jobs"]
    if queue is None or jobs.get("active") or jobs.get("pending"):
        return None
    if queue["claimable"] + queue["scheduled"] + queue["processing"] == 0:
        return End(DONE)
    waiting = max(queue["claimable"], queue["due"]) + queue["scheduled"]
    if not waiting:
        return None
    spec = machine.resource.spec
    never = (
        (spec.suspend, "spec.suspend is true"),
        (spec.mode == "Observe", "spec.mode is Observe"),
        (spec.scaling.max_jobs == 0, "spec.scaling.maxJobs is 0"),
    )
    for chosen, what in never:
        if chosen:
            return End(USAGE, f"{waiting} items wait and {what}: nothing is launched, so the queue never becomes empty")
    if (machine.status.get("lastDecision") or {}).get("reason") == Reason.SYNC_DISABLED:
        return End(TRY_LATER, f"{waiting} items wait and the database's setting siorg.sync_enabled is false: set it to true")
    return _given_up(machine, waiting)


def _given_up(machine: LocalMachine, waiting: int) -> End | None:
    """The end after job processes that fail one after the other; None: they do not, or for want of SIORG."""
    backoff = machine.status.get("backoff")
    if backoff is None or backoff["reason"] in _OF_SIORG:
        return None
    code = _CODES.get(backoff["reason"], ERROR)
    if backoff["streak"] < (1 if code == USAGE else _FAILURES):  # what this machine sets does not change any more
        return None
    times = f"{backoff['streak']} times in a row" if backoff["streak"] > 1 else "at once"
    return End(code, f"{waiting} items wait and job processes failed {times}: {redactor.text(backoff['message'])}")
