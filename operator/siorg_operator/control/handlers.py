"""Everything that kopf calls. Decorators and wake-ups only: what to do is decided in a pass, never here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import kopf

from siorg_operator.api.resource import FINALIZER, GROUP, PLURAL, VERSION, SiorgSyncWorker
from siorg_operator.cluster.secrets import SecretedBacklogs
from siorg_operator.control.cache import Sight
from siorg_operator.control.loops import Attendants
from siorg_operator.control.past import Past
from siorg_operator.control.reconcile import Seen
from siorg_operator.control.resync import Lists, RollCall
from siorg_operator.database.reader import Backlogs, Watch
from siorg_operator.decide.manifests import MANAGED_BY
from siorg_runtime.logs import logger

log = logger(__name__)

_BEGIN_AGAIN_SECONDS = 10.0
_OURS = {"app.kubernetes.io/managed-by": MANAGED_BY}
_SELECTOR = ",".join(f"{key}={value}" for key, value in _OURS.items())


def configure(settings: kopf.OperatorSettings) -> None:
    """Kopf's own settings; each says what it bounds or avoids."""
    # Handlers of events put no finalizer and store nothing; should kopf ever do so, not under a name that others use too.
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = NothingCompared()
    settings.posting.enabled = False  # events are told by ports.Cluster, on transitions only
    settings.scanning.disabled = True  # no listing of namespaces and CRDs: a Role is enough
    settings.peering.standalone = True  # a Lease decides who leads
    settings.watching.server_timeout = 300  # a silent stream is opened anew after this
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500  # of a listing: never all bodies in memory at once
    settings.queueing.idle_timeout = 1.0  # a worker keeps the body that it saw last for so long
    settings.watching.label_selectors["batch", "jobs"] = _SELECTOR  # the server sends nobody else's Jobs
    settings.watching.label_selectors["batch", "cronjobs"] = _SELECTOR
    settings.watching.label_selectors["", "pods"] = _SELECTOR
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.process.ultimate_exiting_timeout = 30  # a thread that hangs must not keep the pod


class NothingCompared(kopf.DiffBaseStorage):
    """What an object was before is of no interest. kopf's own storages copy each one for every event: half of a start's time."""

    def build(self, **_: Any) -> Any:
        """See the base class."""
        return {}

    def fetch(self, **_: Any) -> None:
        """See the base class."""

    def store(self, **_: Any) -> None:
        """See the base class."""


class KopfWorld:
    """What kopf shows of one resource."""

    def __init__(self, sight: Sight, readers: SecretedBacklogs, databases: Backlogs) -> None:
        """``readers``, ``databases``: to listen to."""
        self._body: Mapping[str, Any] = {}
        self._sight = sight
        self._past = Past()
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
        return Seen(resource, {}, self._sight.jobs(uid, now, self._past), self._sight.cron_jobs(uid), self._sight.runs(uid))

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
    secrets_seconds: float,
) -> None:
    """Put the handlers into ``registry``.

    Args:
        registry: of the operator that will run.
        attendants: attend to the resources.
        readers: knows which URL each resource uses.
        databases: what can be listened to.
        lists: where objects are listed.
        namespace: the one that is watched.
        secrets_seconds: look for changed Secrets so often.
    """
    sight = Sight()

    def known(kind: str) -> set[str]:
        return attendants.uids() if kind == PLURAL else sight.uids(kind)

    async def gone(kind: str, uids: set[str]) -> None:
        if kind == PLURAL:
            await asyncio.gather(*(attendants.leave(uid) for uid in uids))
        else:
            sight.forget(kind, uids)
            attendants.wake()

    roll_call = RollCall(lists, namespace, (PLURAL, "jobs", "pods", "cronjobs"), known, gone)
    tasks: list[asyncio.Task[None]] = []

    async def begin() -> None:
        await roll_call.all_told()
        attendants.begin()
        await roll_call.run()

    async def watch_secrets() -> None:
        """Let those look whose Secrets have changed: their queue may not be polled for an hour."""
        while True:
            await asyncio.sleep(secrets_seconds)
            for uid in await readers.changed():
                if attendant := attendants.get(uid):
                    attendant.wake()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def resource_changed(*, type: str | None, uid: str, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's word
        roll_call.told(uid, listed=type is None)
        if type == "DELETED" or body.metadata.deletion_timestamp:
            await attendants.leave(uid)
        else:
            attendants.see(uid, body, lambda: KopfWorld(sight, readers, databases))

    @kopf.on.event("batch", "v1", "jobs", labels=_OURS, registry=registry)
    async def job_changed(*, type: str | None, uid: str, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's word
        owner = sight.job(body, there=type != "DELETED")
        roll_call.told(uid, listed=type is None)
        if attendant := attendants.get(owner):
            attendant.gone(body.metadata.name or "") if type == "DELETED" else attendant.wake()

    @kopf.on.event("v1", "pods", labels=_OURS, registry=registry)
    async def pod_changed(*, type: str | None, uid: str, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's word
        owner = sight.pod(body, there=type != "DELETED")
        roll_call.told(uid, listed=type is None)
        if attendant := attendants.get(owner):
            attendant.wake()

    @kopf.on.event("batch", "v1", "cronjobs", labels=_OURS, registry=registry)
    async def cron_job_changed(*, type: str | None, uid: str, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's word
        owner = sight.cron_job(body, there=type != "DELETED")
        roll_call.told(uid, listed=type is None)
        if attendant := attendants.get(owner):
            attendant.wake()

    @kopf.on.startup(registry=registry)
    async def begun(**_: Any) -> None:
        tasks.append(asyncio.create_task(_again_and_again(begin)))
        tasks.append(asyncio.create_task(_again_and_again(watch_secrets)))

    @kopf.on.cleanup(registry=registry)
    async def ended(**_: Any) -> None:
        # kopf waits for every task of the loop, ours too.
        for task in tasks:
            task.cancel()
        await attendants.close()
        await databases.close()


async def _again_and_again(work: Callable[[], Awaitable[None]]) -> None:
    """A bug of ours must not end silently what nobody else does."""
    while True:
        try:
            await work()
        except Exception as error:
            log.error("A task failed and begins again", exc_info=error)
            await asyncio.sleep(_BEGIN_AGAIN_SECONDS)
