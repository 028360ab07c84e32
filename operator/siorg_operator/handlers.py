"""Everything that kopf calls. Decorators and wake-ups only: what to do is decided in a pass, never here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import kopf

from siorg_operator.attendants import Attendants
from siorg_operator.backlog import Backlogs, Watch
from siorg_operator.credentials import SecretedBacklogs
from siorg_operator.jobs import JobRecord, PodRecord, job_of_pod, job_record, owner_uid, pod_record
from siorg_operator.manifests import COMPONENT_LABEL, MANAGED_BY
from siorg_operator.reconcile import CronJobSeen, Seen, cron_job_seen
from siorg_operator.resource import FINALIZER, GROUP, PLURAL, VERSION, SiorgSyncWorker
from siorg_operator.roll_call import Lists, RollCall
from siorg_operator.sight import Sight

_OURS = {"app.kubernetes.io/managed-by": MANAGED_BY}
_DRAIN = {**_OURS, COMPONENT_LABEL: "drain"}
_SELECTOR = ",".join(f"{key}={value}" for key, value in _OURS.items())


def configure(settings: kopf.OperatorSettings) -> None:
    """Kopf's own settings; each says what it bounds or avoids."""
    # Handlers of events put no finalizer and store nothing; should kopf ever do so, not under a name that others use too.
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    settings.posting.enabled = False  # events are told by ports.Cluster, on transitions only
    settings.scanning.disabled = True  # no listing of namespaces and CRDs: a Role is enough
    settings.peering.standalone = True  # a Lease decides who leads
    settings.watching.server_timeout = 300  # a silent stream is opened anew after this
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 10
    settings.watching.label_selectors["batch", "jobs"] = _SELECTOR  # the server sends nobody else's Jobs
    settings.watching.label_selectors["batch", "cronjobs"] = _SELECTOR
    settings.watching.label_selectors["", "pods"] = _SELECTOR
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.process.ultimate_exiting_timeout = 30  # a thread that hangs must not keep the pod


class KopfWorld:
    """What kopf shows of one resource."""

    def __init__(self, sight: Sight, readers: SecretedBacklogs, databases: Backlogs) -> None:
        """``readers``, ``databases``: to listen to."""
        self._body: Mapping[str, Any] = {}
        self._sight = sight
        self._readers, self._databases = readers, databases
        self._listening: tuple[str, Watch] | None = None

    def show(self, body: Mapping[str, Any]) -> None:
        """See ``attendants.Attended``."""
        self._body = body

    def body(self) -> Mapping[str, Any]:
        """See ``attendant.World``."""
        return self._body

    def seen(self, resource: SiorgSyncWorker, now: datetime) -> Seen:
        """See ``attendant.World``."""
        uid = resource.metadata.uid
        return Seen(resource, {}, self._sight.jobs(uid, now), self._sight.cron_jobs(uid))

    def listen(self, resource: SiorgSyncWorker, wake: Callable[[], None]) -> None:
        """See ``attendant.World``."""
        url = self._readers.url_of(resource.metadata.uid)
        if self._listening is not None and self._listening[0] == url:
            return
        self.close()
        if url is not None:
            self._listening = (url, self._databases.watch(url, wake))

    def close(self) -> None:
        """Listen no more."""
        if self._listening is not None:
            self._listening[1].close()
            self._listening = None


def register(  # noqa: C901 - every handler of the operator, each of a few lines
    registry: kopf.OperatorRegistry,
    attendants: Attendants,
    *,
    readers: SecretedBacklogs,
    databases: Backlogs,
    lists: Lists,
    namespace: str,
) -> None:
    """Put the handlers into ``registry``.

    Args:
        registry: of the operator that will run.
        attendants: attend to the resources.
        readers: knows which URL each resource uses.
        databases: what can be listened to.
        lists: where objects are listed.
        namespace: the one that is watched.
    """
    sight = Sight()
    owners: dict[str, str] = {}  # uid of a Job → uid of its resource: a pod names only its Job

    def known(kind: str) -> set[str]:
        return attendants.uids() if kind == PLURAL else sight.uids(kind)

    async def gone(kind: str, uids: set[str]) -> None:
        if kind == PLURAL:
            await asyncio.gather(*(attendants.leave(uid) for uid in uids))
        else:
            sight.forget(uids)
            attendants.wake()

    roll_call = RollCall(lists, namespace, (PLURAL, "jobs", "pods", "cronjobs"), known, gone)
    calling: list[asyncio.Task[None]] = []

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.index("batch", "v1", "jobs", id="jobs", labels=_DRAIN, registry=registry)
    def jobs(body: kopf.Body, **_: Any) -> dict[str, JobRecord] | None:
        owner, record = owner_uid(body), job_record(body)
        return None if owner is None or record is None else {owner: record}

    @kopf.index("v1", "pods", id="pods", labels=_DRAIN, registry=registry)
    def pods(body: kopf.Body, **_: Any) -> dict[str, PodRecord] | None:
        owner = job_of_pod(body)
        return None if owner is None else {owner: pod_record(body)}

    @kopf.index("batch", "v1", "cronjobs", id="cron_jobs", labels=_OURS, registry=registry)
    def cron_jobs(body: kopf.Body, **_: Any) -> dict[str, CronJobSeen] | None:
        owner = owner_uid(body)
        return None if owner is None else {owner: cron_job_seen(body)}

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def resource_changed(*, type: str | None, uid: str, body: kopf.Body, **indices: Any) -> None:  # noqa: A002 - kopf's word
        if type == "DELETED" or body.metadata.deletion_timestamp:
            await attendants.leave(uid)
        else:
            sight.open(indices)
            attendants.see(uid, body, lambda: KopfWorld(sight, readers, databases))

    @kopf.on.event("batch", "v1", "jobs", labels=_DRAIN, registry=registry)
    async def job_changed(*, type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's word
        job, owner = body.metadata.uid or "", owner_uid(body) or ""
        if type == "DELETED":
            owners.pop(job, None)
        else:
            owners[job] = owner
        if attendant := attendants.get(owner):
            attendant.gone(body.metadata.name or "") if type == "DELETED" else attendant.wake()

    @kopf.on.event("v1", "pods", labels=_DRAIN, registry=registry)
    async def pod_changed(*, body: kopf.Body, **_: Any) -> None:
        if attendant := attendants.get(owners.get(job_of_pod(body) or "", "")):
            attendant.wake()

    @kopf.on.event("batch", "v1", "cronjobs", labels=_OURS, registry=registry)
    async def cron_job_changed(*, body: kopf.Body, **_: Any) -> None:
        if attendant := attendants.get(owner_uid(body) or ""):
            attendant.wake()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    @kopf.on.event("batch", "v1", "jobs", labels=_DRAIN, registry=registry)
    @kopf.on.event("v1", "pods", labels=_DRAIN, registry=registry)
    @kopf.on.event("batch", "v1", "cronjobs", labels=_OURS, registry=registry)
    async def listed(*, type: str | None, **_: Any) -> None:  # noqa: A002 - kopf's word
        if type is None:
            roll_call.soon()

    @kopf.on.startup(registry=registry)
    async def begun(**_: Any) -> None:
        calling.append(asyncio.create_task(roll_call.run()))

    @kopf.on.cleanup(registry=registry)
    async def ended(**_: Any) -> None:
        # kopf waits for every task of the loop, ours too.
        for task in calling:
            task.cancel()
        await attendants.close()
        await databases.close()
