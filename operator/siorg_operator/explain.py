"""``siorg-operator explain FILE|NAME``: the decision that would be made now. Launches and writes nothing."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from siorg_operator.api.resource import SiorgSyncWorker, parse, read_file
from siorg_operator.cli import DONE, TRY_LATER, USAGE, UsageError, read_text
from siorg_operator.database.databases import Databases, database_url
from siorg_operator.decide import wording
from siorg_operator.decide.in_sync import in_sync
from siorg_operator.decide.jobs import controller_uid
from siorg_operator.decide.plan import plan
from siorg_operator.decide.planned import Plan
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import Job, JobState, QueueState, Reading, Unreadable, Verifications
from siorg_operator.settings import OperatorSettings

_NOTHING_READ: Final = Reading(0, verifications=Verifications(unreadable="the database was not read"))
"""A queue whose depth is supposed."""


@dataclass(slots=True)
class Subject:
    """A resource as the operator would see it now."""

    resource: SiorgSyncWorker
    queue: QueueState
    jobs: list[Job]
    newest: Mapping[str, Any] | None = None
    """The newest Job in the cluster, which the operator made."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    assumed: list[str] = field(default_factory=list)
    """What was taken for granted, in words that follow "Assumed: "."""

    def assume_image(self, default: str | None) -> None:
        """Put in the image that the operator would take where the resource names none; ``default``: as it is set here."""
        if self.resource.spec.job.image:
            return
        image, whence = default, "SIORG_OPERATOR_JOB_IMAGE as it is set here"
        if not image and self.newest is not None:
            image = self.newest["spec"]["template"]["spec"]["containers"][0]["image"]
            whence = f"the newest Job, {self.newest['metadata']['name']}"
        if not image:
            self.assumed.append(
                "that the operator has a default image (SIORG_OPERATOR_JOB_IMAGE), for spec.job.image is not set. Without one it"
                " refuses this resource: InvalidSpec, and nothing is launched"
            )
            return
        self.resource = self.resource.with_image(image)
        self.assumed.append(f"image {image} (from {whence}), for spec.job.image is not set: the operator takes its default")

    def assume_depth(self, depth: int) -> None:
        """Suppose that so many items are claimable."""
        reading = self.queue.reading
        if isinstance(reading, Unreadable):
            self.assumed.append(f"that the queue could be read. It cannot be: {reading.message}")
            reading = _NOTHING_READ
        self.queue = replace(self.queue, reading=replace(reading, claimable=depth, at_least=False))


def explain(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Explain a manifest or a resource of the cluster; returns the exit code.

    Raises:
        UsageError, ResourceError, SettingsError: what is given cannot be used.
    """
    what, depth = arguments.what, arguments.depth
    # Where to look is found out once there is a cluster: for the settings any namespace will do.
    any_namespace = environ.get("SIORG_OPERATOR_NAMESPACE", "").strip() or "default"
    settings = OperatorSettings.from_environment({**environ, "SIORG_OPERATOR_NAMESPACE": any_namespace})
    is_file = what == "-" or "/" in what or what.endswith((".yaml", ".yml")) or Path(what).is_file()
    try:
        if is_file:
            subject = _of_file(what, environ, arguments.unfinished or 0, may_ask=depth is None)
        elif arguments.unfinished is not None:
            raise UsageError("--unfinished goes with FILE: the Jobs of NAME are those in the cluster")
        else:
            subject = asyncio.run(_of_cluster(what, arguments.namespace, environ))
    except ClusterError as error:
        print(error, file=sys.stderr)
        return TRY_LATER
    subject.assume_image(settings.job_image)
    if depth is not None:
        subject.assume_depth(depth)
    decided = plan(subject.resource, subject.queue, subject.jobs, subject.now(), settings.pacing)
    show(Console(), subject, decided)
    reading = subject.queue.reading
    if is_file and isinstance(reading, Unreadable) and reading.reason is Reason.WRONG_URL:
        return USAGE
    return DONE if decided.depth is not None else TRY_LATER


def _of_file(name: str, environ: Mapping[str, str], unfinished: int, *, may_ask: bool) -> Subject:
    """A manifest, with the queue of DATABASE_URL (``may_ask``) or an empty one."""
    resource, now = read_file(read_text(name)), datetime.now(UTC)
    jobs = [Job(f"supposed-{slot}", slot, 1, JobState.ACTIVE, now, started_at=now) for slot in range(unfinished)]
    reading: Reading | Unreadable = _NOTHING_READ
    if may_ask:
        reading = asyncio.run(_read(database_url(environ, "set it to the queue's database, or suppose a depth with --depth N")))
    return Subject(resource, QueueState(reading), jobs)


async def _read(url: str) -> Reading | Unreadable:
    databases = Databases(correct="DATABASE_URL")
    try:
        return await databases.read(url)
    finally:
        await databases.close()


async def _of_cluster(name: str, namespace: str | None, environ: Mapping[str, str]) -> Subject:
    """A resource of the cluster, with its own Secret, Jobs and status. ``ClusterError``: the cluster does not answer."""
    # Half a second of imports that a file does not need.
    from prometheus_client import CollectorRegistry

    from siorg_operator.cluster.client import Kubernetes, owned_jobs
    from siorg_operator.cluster.connection import api_client, namespace_of_context
    from siorg_operator.cluster.fingerprint import Fingerprints
    from siorg_operator.cluster.secrets import SecretQueueReader, Secrets
    from siorg_operator.serving.metrics import OperatorMetrics

    api = api_client()
    named = (namespace or "", environ.get("SIORG_OPERATOR_NAMESPACE", "").strip(), environ.get("POD_NAMESPACE", "").strip())
    namespace = next(filter(None, named), "") or namespace_of_context() or "default"
    kubernetes, databases = Kubernetes(api, OperatorMetrics(CollectorRegistry())), Databases()
    try:
        body = await kubernetes.read_resource(namespace, name)
        if body is None:
            raise UsageError(f"there is no SiorgSyncWorker {name} in namespace {namespace} (kubectl get ssw -n {namespace})")
        resource = parse(body)
        bodies, pods = await kubernetes.list_owned(namespace, resource.metadata.name)
        bodies = [job for job in bodies if controller_uid(job) == resource.metadata.uid]
        secrets = Secrets(kubernetes.read_secret, refresh_seconds=0)
        fingerprints = Fingerprints(namespace, kubernetes.read_secret, None)
        queue = await SecretQueueReader(secrets, fingerprints, databases.read).read(resource)
    finally:
        await databases.close()
        kubernetes.close()
    jobs = owned_jobs(resource, bodies, pods, kubernetes.clock.now())
    newest = max(bodies, key=lambda job: str(job["metadata"].get("creationTimestamp") or ""), default=None)
    return Subject(resource, queue, jobs, newest, kubernetes.clock.now)


def show(console: Console, subject: Subject, plan: Plan) -> None:
    """Print the decision, and every limit that shaped it, as a table for people."""
    resource = subject.resource
    table = Table(title=f"{resource.metadata.name}: what would be decided now", min_width=70)
    table.add_column("what", style="bold")
    table.add_column("Jobs", justify="right")
    table.add_column("how")
    reading, size = subject.queue.reading, plan.size
    if isinstance(reading, Reading):
        oldest = "" if reading.oldest_due_seconds is None else f", the oldest due for {reading.oldest_due_seconds:.0f} s"
        others = f"; {reading.scheduled} wait for later, {reading.processing} in work, {reading.failed} failed"
        others += f", {reading.conflict} conflicts, {reading.held} held"
        mark = _mark(size.binding == "depth")
        depth = wording.counted(reading.claimable, at_least=reading.at_least)
        table.add_row("depth", "", f"{depth} items are claimable{oldest}{mark}{others}")
    else:
        table.add_row("depth", "?", f"unknown: {reading.message}")
    for name, allowed in size.limits.items():
        if name != "depth":  # which stands above
            how = wording.limit(resource, size, name) + _mark(name == size.binding)
            table.add_row(name, "-" if allowed is None else str(allowed), how)
    table.add_row("desired", str(plan.desired), "", end_section=True)
    active = sum(job.state is JobState.ACTIVE for job in subject.jobs)
    others = f", {plan.suspended} pending admission" if plan.suspended else ""
    others += f", {plan.stopping} stopping" if plan.stopping else ""
    lost = f"; {plan.lost} lost beside them" if plan.lost else ""
    table.add_row("unfinished", str(plan.unfinished), f"{active} with a running pod{others}; each is capacity{lost}")
    table.add_row("maxLaunchesPerStep", str(resource.spec.scaling.max_launches_per_step), "spec.scaling.maxLaunchesPerStep")
    why: str = "" if plan.reason is Reason.LAUNCHED else plan.reason
    table.add_row("would launch", str(len(plan.launches)), f"{why}{' (held back)' if plan.held_back else ''}")
    console.print(table)

    def say(sentence: str) -> None:
        console.print(sentence, highlight=False, soft_wrap=True)

    say(wording.intent(resource, plan, "would launch"))
    say("Nothing was launched or written: this only explains.")
    for sentence in subject.assumed:
        say(f"Assumed: {sentence}")
    if plan.backoff is not None:
        say(f"Backoff: {wording.backoff(plan.backoff)}")
    items = size.rates.items
    rate = "not learned yet" if items is None else f"{items:g} items/s a Job"
    drain = "-" if plan.predicted_drain_seconds is None else f"{plan.predicted_drain_seconds:.0f} s"
    say(f"Rate: {rate}; predicted drain: {drain}; next look in at most {plan.poll_seconds:g} s")
    verified = in_sync(resource, subject.queue)
    say(f"In sync: {verified.status} ({verified.reason}): {verified.message}")
    for removal in plan.end:
        # Since when it has been stuck, and not only on its way, only the operator has seen.
        say(f"Would end {removal.name}, once its grace is over: {removal.stuck.reason}: {removal.stuck.message}")


def _mark(binding: bool) -> str:  # noqa: FBT001 - a value, not a switch
    return "  ◀ decides" if binding else ""
