"""``siorg-operator``: the commands, their exit codes, and what a person sees when something is wrong.

Exit codes: 0 done · 1 error · 2 wrong settings, resource or usage · 75 try later (cluster or database unavailable).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from siorg_operator.api.resource import ResourceError, SiorgSyncWorker, read_file
from siorg_operator.decide.state import Backlog, Job, JobState, Reading, Unreadable
from siorg_runtime.version import version

if TYPE_CHECKING:
    from siorg_operator.settings import OperatorSettings

DONE, ERROR, USAGE, TRY_LATER = 0, 1, 2, 75
_LARGEST_FILE = 1_000_000  # bytes; etcd would not take a larger object either


class UsageError(Exception):
    """What was asked for cannot be done as it was asked; the message says what to do. Exit code 2."""


def parser() -> argparse.ArgumentParser:
    """The command line of ``siorg-operator``."""
    root = argparse.ArgumentParser(
        prog="siorg-operator",
        description="Scales Jobs that drain the SIORG sync queue, as a SiorgSyncWorker resource says.",
        epilog="Exit codes: 0 done, 1 error, 2 wrong settings, resource or usage,"
        " 75 try later (cluster or database unavailable).",
    )
    root.add_argument("--version", action="version", version=f"siorg-operator {version()}")
    commands = root.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="watch the resources of one namespace and scale their Jobs (in a cluster)",
        description="Watches the SiorgSyncWorkers of one namespace until SIGTERM. Settings come from the environment:"
        " siorg-operator settings lists them.",
    )
    run.set_defaults(command=_run)

    local = commands.add_parser(
        "local",
        help="run a resource on this machine: job processes instead of Job pods",
        description="The same decisions as in a cluster, with job processes in place of Jobs. DATABASE_URL, SIORG_API_TOKEN and,"
        " if set, SIORG_API_URL (with SIORG_ALLOW_INSECURE) of the environment stand for the Secrets and the URL. Ctrl-C, SIGTERM"
        " or SIGHUP: job processes finish what they hold or give it back, then it exits 0; a second one ends them at once. The"
        " schedules of cleanup and discovery are the cluster's: here run siorg-job discover and siorg-job cleanup.",
    )
    local.add_argument("file", help="a YAML file with one SiorgSyncWorker; - for standard input")
    local.add_argument(
        "--until-empty",
        action="store_true",
        help="exit once nothing waits and nothing runs; with 2 when the resource itself never lets it come to that, with 75 when"
        " the queue could not be read for 30 s or the database says siorg.sync_enabled false",
    )
    local.add_argument("--logs", metavar="FOLDER", help="where the job processes' logs go (default: a new temporary folder)")
    local.add_argument("--plain", action="store_true", help="lines instead of a live view, also on a terminal")
    local.set_defaults(command=_local)

    explain = commands.add_parser(
        "explain",
        help="print the decision that would be made now, and every limit that shaped it",
        description="FILE: a manifest; the queue is that of DATABASE_URL, or what --depth says. NAME: a resource of the cluster,"
        " with its own Secret, Jobs and status. Of the operator's settings (SIORG_OPERATOR_…) those that are set here are used:"
        " give the same as it has. Nothing is launched or written.",
    )
    explain.add_argument("what", metavar="FILE|NAME", help="a YAML file (or -), or the name of a resource in the cluster")
    explain.add_argument(
        "-n",
        "--namespace",
        help="of NAME (default: SIORG_OPERATOR_NAMESPACE, POD_NAMESPACE, that of the kubeconfig's context, or default)",
    )
    explain.add_argument(
        "--depth",
        type=_count,
        metavar="N",
        help="suppose that N items are claimable; with NAME everything else is as it is read, with FILE no database is asked",
    )
    explain.add_argument(
        "--unfinished", type=_count, metavar="N", help="suppose that N Jobs are unfinished (with FILE; default 0)"
    )
    explain.set_defaults(command=_explain)

    crd = commands.add_parser("crd", help="print the CustomResourceDefinition")
    crd.set_defaults(command=_crd)
    settings = commands.add_parser("settings", help="list every setting of run with its default")
    settings.set_defaults(command=_settings)
    return root


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command; returns its exit code."""
    chosen = parser().parse_args(arguments)
    try:
        code: int = chosen.command(chosen, environ)
    except (UsageError, ResourceError) as error:
        print(error, file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stderr.close()
        return DONE
    return code


def _run(_arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from siorg_operator.settings import OperatorSettings
    from siorg_runtime.environment import SettingsError
    from siorg_runtime.logs import capture_uncaught, configure

    try:
        settings = OperatorSettings.from_environment(environ)
    except SettingsError as error:
        raise UsageError(str(error)) from None
    configure(settings.log_format, settings.log_level, quiet=settings.quiet_loggers)
    capture_uncaught("siorg_operator")
    from siorg_operator.control.run import run
    from siorg_operator.decide.ports import ClusterError
    from siorg_operator.serving.health import ProbesPortError

    try:
        return run(settings)
    except (ClusterError, ProbesPortError) as error:
        print(error, file=sys.stderr)
        return USAGE


def _local(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from prometheus_client import CollectorRegistry
    from rich.console import Console

    from siorg_operator.local.machine import LocalError, Over, log_folder, prepare, run
    from siorg_operator.local.view import View
    from siorg_operator.serving.metrics import OperatorMetrics
    from siorg_runtime.logs import configure
    from siorg_runtime.redaction import redactor

    resource = read_file(_text(arguments.file))
    try:
        resource, environment = prepare(resource, environ)
        folder = log_folder(arguments.logs)
    except LocalError as error:
        raise UsageError(str(error)) from None
    configure("text", "warning")
    for name in ("DATABASE_URL", "SIORG_API_TOKEN"):
        if environment.get(name):
            redactor.remember(environment[name])
    console = Console(force_terminal=False if arguments.plain else None)
    with View(console) as view:
        machine = asyncio.run(
            run(
                resource, environment, metrics=OperatorMetrics(CollectorRegistry()), folder=folder,
                until_empty=arguments.until_empty, show=view.show,
            )
        )  # fmt: skip
    view.finish(machine, str(folder))
    if machine.end_reached is None or machine.end_reached.over is Over.EMPTY:
        return DONE
    print(machine.end_reached.message, file=sys.stderr)
    return USAGE if machine.end_reached.over is Over.NEVER else TRY_LATER


def _explain(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from rich.console import Console

    from siorg_operator import explain
    from siorg_operator.decide.plan import plan
    from siorg_operator.decide.ports import ClusterError
    from siorg_operator.settings import OperatorSettings
    from siorg_runtime.environment import SettingsError
    from siorg_runtime.logs import configure

    configure("text", "warning")
    is_file = (
        arguments.what == "-"
        or "/" in arguments.what
        or arguments.what.endswith((".yaml", ".yml"))
        or Path(arguments.what).is_file()
    )
    try:
        # Where to look is found out below, once there is a cluster: here any namespace will do.
        namespace = environ.get("SIORG_OPERATOR_NAMESPACE", "").strip() or "default"
        settings = OperatorSettings.from_environment({**environ, "SIORG_OPERATOR_NAMESPACE": namespace})
        resource, backlog, jobs, assumed = (_of_file if is_file else _of_cluster)(arguments, environ, settings)
    except SettingsError as error:
        raise UsageError(str(error)) from None
    except ClusterError as error:
        print(error, file=sys.stderr)
        return TRY_LATER
    decided = plan(resource, backlog, jobs, datetime.now(UTC), settings.pacing)
    explain.show(Console(), resource, backlog, jobs, decided, assumed)
    if is_file and isinstance(backlog.reading, Unreadable) and backlog.reading.reason == "WrongUrl":
        return USAGE
    return DONE if decided.depth is not None else TRY_LATER


_Known: TypeAlias = "tuple[SiorgSyncWorker, Backlog, list[Job], list[str]]"
"""A resource, its queue and its Jobs, and what was assumed of them."""


def _of_file(arguments: argparse.Namespace, environ: Mapping[str, str], settings: OperatorSettings) -> _Known:
    from siorg_operator.database.errors import of_variable
    from siorg_queue.address import check_database_url

    resource, assumed = _with_image(read_file(_text(arguments.what)), settings, None)
    now = datetime.now(UTC)
    jobs = [Job(f"supposed-{slot}", slot, 1, JobState.ACTIVE, now, started_at=now) for slot in range(arguments.unfinished or 0)]
    if arguments.depth is not None:
        return resource, Backlog(Reading(arguments.depth, due=arguments.depth)), jobs, assumed
    url = environ.get("DATABASE_URL", "").strip()
    if not url:
        raise UsageError("DATABASE_URL is not set: set it to the queue's database, or suppose a depth with --depth N")
    try:
        check_database_url(url)
    except ValueError as wrong:
        raise UsageError(f"DATABASE_URL {wrong}") from None
    reading = asyncio.run(_reading(url))
    if isinstance(reading, Unreadable):  # here the URL is no Secret's
        reading = of_variable(reading)
    return resource, Backlog(reading), jobs, assumed


def _of_cluster(arguments: argparse.Namespace, environ: Mapping[str, str], settings: OperatorSettings) -> _Known:
    if arguments.unfinished is not None:
        raise UsageError("--unfinished goes with FILE: the Jobs of NAME are those in the cluster")
    return asyncio.run(_look(arguments, environ, settings))


async def _look(arguments: argparse.Namespace, environ: Mapping[str, str], settings: OperatorSettings) -> _Known:
    from prometheus_client import CollectorRegistry

    from siorg_operator.api.resource import parse
    from siorg_operator.cluster.client import Kubernetes, api_client, namespace_of_context
    from siorg_operator.cluster.secrets import SecretedBacklogs, Secrets
    from siorg_operator.database.reader import Backlogs
    from siorg_operator.decide.jobs import combine, job_of_pod, job_record, owner_uid, pod_record
    from siorg_operator.decide.ports import ClusterError
    from siorg_operator.serving.metrics import OperatorMetrics
    from siorg_runtime.redaction import redactor

    try:
        api = api_client()
    except ClusterError as error:  # none is configured: nothing that goes away by waiting
        raise UsageError(str(error)) from None
    namespace = (
        arguments.namespace
        or environ.get("SIORG_OPERATOR_NAMESPACE", "").strip()
        or environ.get("POD_NAMESPACE", "").strip()
        or namespace_of_context()
        or "default"
    )
    kubernetes, databases = Kubernetes(api, OperatorMetrics(CollectorRegistry())), Backlogs()
    try:
        body = await kubernetes.read_resource(namespace, arguments.what)
        if body is None:
            raise UsageError(
                f"there is no SiorgSyncWorker {arguments.what} in namespace {namespace} (kubectl get ssw -n {namespace})"
            )
        resource = parse(body)
        found, pods = await kubernetes.list_owned(namespace, resource.metadata.name)
        found = [job for job in found if owner_uid(job) == resource.metadata.uid]
        resource, assumed = _with_image(resource, settings, max(found, key=_made, default=None))
        secrets = Secrets(kubernetes, refresh_seconds=0)
        backlog = await SecretedBacklogs(secrets, databases, remember_secret=redactor.remember).read(resource)
        now = datetime.now(UTC)
        jobs = [
            combine(record, [pod_record(pod) for pod in pods if job_of_pod(pod) == record.uid], now, redactor.text)
            for job in found
            if (record := job_record(job)) is not None
        ]
        if arguments.depth is not None:
            reading = backlog.reading if isinstance(backlog.reading, Reading) else Reading(0)
            if isinstance(backlog.reading, Unreadable):
                assumed.append(f"that the queue could be read. It cannot be: {backlog.reading.message}")
            backlog = replace(backlog, reading=replace(reading, claimable=arguments.depth))
        return resource, backlog, jobs, assumed
    finally:
        await databases.close()
        kubernetes.close()


def _with_image(
    resource: SiorgSyncWorker, settings: OperatorSettings, newest: Mapping[str, Any] | None
) -> tuple[SiorgSyncWorker, list[str]]:
    """The resource with the image that the operator would take, and what was assumed for it. ``newest``: the newest Job."""
    if resource.spec.job.image:
        return resource, []
    image, whence = settings.job_image, "SIORG_OPERATOR_JOB_IMAGE as it is set here"
    if not image and newest is not None:
        image, whence = (
            newest["spec"]["template"]["spec"]["containers"][0]["image"],
            f"the newest Job, {newest['metadata']['name']}",
        )
    if not image:
        without = (
            "that the operator has a default image (SIORG_OPERATOR_JOB_IMAGE), for spec.job.image is not set. Without one it"
            " refuses this resource: InvalidSpec, and nothing is launched"
        )
        return resource, [without]
    job = resource.spec.job.model_copy(update={"image": image})
    resource = resource.model_copy(update={"spec": resource.spec.model_copy(update={"job": job})})
    return resource, [f"image {image} (from {whence}), for spec.job.image is not set: the operator takes its default"]


def _made(job: Mapping[str, Any]) -> str:
    return str(job["metadata"].get("creationTimestamp") or "")


async def _reading(url: str) -> Reading | Unreadable:
    from siorg_operator.database.reader import Backlogs

    databases = Backlogs()
    try:
        return await databases.read(url)
    finally:
        await databases.close()


def _crd(_arguments: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    from siorg_operator.api.crd import crd_yaml

    sys.stdout.write(crd_yaml())
    return DONE


def _settings(_arguments: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    from siorg_operator.settings import ENVIRONMENT

    print(ENVIRONMENT.markdown_table(), end="")
    return DONE


def _text(name: str) -> str:
    """A file's text.

    Raises:
        UsageError: it cannot be read, or is no text.
    """
    try:
        data = sys.stdin.buffer.read(_LARGEST_FILE + 1) if name == "-" else Path(name).read_bytes()[: _LARGEST_FILE + 1]
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}") from None
    if len(data) > _LARGEST_FILE:
        raise UsageError(f"{name}: larger than {_LARGEST_FILE} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{name}: is no UTF-8 text") from None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise argparse.ArgumentTypeError(f"{text[:20]!r}: a whole number from 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
