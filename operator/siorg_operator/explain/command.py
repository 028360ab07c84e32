"""``siorg-operator explain FILE|NAME``: look, decide, show."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from siorg_operator.api.resource import read_file
from siorg_operator.cli import DONE, TRY_LATER, USAGE, UsageError, read_text
from siorg_operator.database.databases import Databases
from siorg_operator.decide.plan import plan
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import Backlog, Job, JobState, Reading, Unreadable
from siorg_operator.explain.subject import Subject
from siorg_operator.explain.view import show
from siorg_operator.settings import OperatorSettings
from siorg_queue.address import check_database_url


def explain(what: str, environ: Mapping[str, str], *, namespace: str | None, depth: int | None, unfinished: int | None) -> int:
    """Explain a manifest or a resource of the cluster; returns the exit code.

    Args:
        what: a file's name (or -), or a resource's.
        environ: DATABASE_URL for a file; settings of the operator as far as they are set here.
        namespace: of a resource.
        depth: suppose that so many items are claimable.
        unfinished: suppose that so many Jobs are unfinished; for a file only.

    Raises:
        UsageError, ResourceError, SettingsError: what is given cannot be used.
    """
    # Where to look is found out once there is a cluster: for the settings any namespace will do.
    any_namespace = environ.get("SIORG_OPERATOR_NAMESPACE", "").strip() or "default"
    settings = OperatorSettings.from_environment({**environ, "SIORG_OPERATOR_NAMESPACE": any_namespace})
    is_file = what == "-" or "/" in what or what.endswith((".yaml", ".yml")) or Path(what).is_file()
    try:
        if is_file:
            subject = _of_file(what, environ, depth, unfinished)
            subject.assume_image(settings.job_image)
        elif unfinished is not None:
            raise UsageError("--unfinished goes with FILE: the Jobs of NAME are those in the cluster")
        else:
            from siorg_operator.explain import cluster  # half a second of imports that a file does not need

            subject = asyncio.run(cluster.subject(what, namespace, depth, environ, settings.job_image))
    except ClusterError as error:
        print(error, file=sys.stderr)
        return TRY_LATER
    decided = plan(subject.resource, subject.backlog, subject.jobs, datetime.now(UTC), settings.pacing)
    show(Console(), subject, decided)
    reading = subject.backlog.reading
    if is_file and isinstance(reading, Unreadable) and reading.reason is Reason.WRONG_URL:
        return USAGE
    return DONE if decided.depth is not None else TRY_LATER


def _of_file(name: str, environ: Mapping[str, str], depth: int | None, unfinished: int | None) -> Subject:
    resource, now = read_file(read_text(name)), datetime.now(UTC)
    jobs = [Job(f"supposed-{slot}", slot, 1, JobState.ACTIVE, now, started_at=now) for slot in range(unfinished or 0)]
    if depth is not None:
        return Subject(resource, Backlog(Reading(depth, due=depth)), jobs)
    url = environ.get("DATABASE_URL", "").strip()
    if not url:
        raise UsageError("DATABASE_URL is not set: set it to the queue's database, or suppose a depth with --depth N")
    try:
        check_database_url(url)
    except ValueError as wrong:
        raise UsageError(f"DATABASE_URL {wrong}") from None
    return Subject(resource, Backlog(asyncio.run(_read(url))), jobs)


async def _read(url: str) -> Reading | Unreadable:
    databases = Databases(correct="DATABASE_URL")
    try:
        return await databases.read(url)
    finally:
        await databases.close()
