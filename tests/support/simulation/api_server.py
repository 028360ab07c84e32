"""The API server as clients meet it: slow, failing, silent; and the watches of one process of the operator."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from kubernetes import client

from kube_double.patches import merge_patch
from siorg_operator.api.resource import PLURAL
from siorg_operator.cluster.client import Kubernetes
from siorg_operator.cluster.clock import ClusterClock
from siorg_operator.decide.manifests import COMPONENT_LABEL, WORKER_LABEL
from siorg_operator.decide.ports import ClusterError
from support.operator_values import at, rfc3339

if TYPE_CHECKING:
    from support.simulation.world import World

Body = dict[str, Any]

KINDS = (PLURAL, "jobs", "pods", "cronjobs")
_TIMEOUT_SECONDS = 10.0


class ApiServer:
    """What is stored, and who watches it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.objects: dict[str, dict[str, Body]] = {kind: {} for kind in (*KINDS, "secrets")}
        self.version = 1000
        self.watches: list[Watch] = []
        self.writes = 0
        """Requests that were to change something."""

    def moment(self) -> str:
        """Its clock: the reference of all others."""
        return rfc3339(at(self.world.now))

    def put(self, kind: str, body: Body) -> Body:
        name = body["metadata"]["name"]
        told = "MODIFIED" if name in self.objects[kind] else "ADDED"
        body = self.objects[kind][name] = self._of_next_version(body)
        self._tell(kind, told, body)
        return body

    def drop(self, kind: str, name: str) -> None:
        if (body := self.objects[kind].pop(name, None)) is not None:
            self._tell(kind, "DELETED", self._of_next_version(body))

    def _of_next_version(self, body: Body) -> Body:
        self.version += 1
        return {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}

    def _tell(self, kind: str, told: str, body: Body) -> None:
        for watch in self.watches:
            if watch.kind == kind:
                watch.tell(told, body)

    # -- requests -------------------------------------------------------------------------------------------------------

    def ask(self, verb: str, what: str, name: str, body: Body, options: Mapping[str, Any]) -> asyncio.Future[Body]:
        """Send a request: what becomes of it does not depend on whether somebody waits for the answer."""
        answer: asyncio.Future[Body] = asyncio.get_running_loop().create_future()
        pick, on = self.world.pick, self.world.on
        latency = pick.uniform(0.5, 8.0) if on("API slow") else pick.uniform(0.001, 0.03)
        trouble = self._trouble(verb)
        if trouble == "lost":
            self._answer(answer, _TIMEOUT_SECONDS, ClusterError(f"{verb} {what}: the API server did not answer"))
            return answer
        if isinstance(trouble, int):
            self._answer(answer, latency, ClusterError(f"{verb} {what}: the API server answered {trouble}", trouble))
            return answer

        def perform() -> None:
            if verb not in {"get", "list"}:
                self.writes += 1
            try:
                done: Body | ClusterError = self._perform(verb, what, name, body, options)
            except ClusterError as error:
                done = error
            if trouble == "answer lost":
                done = ClusterError(f"{verb} {what}: the API server did not answer")
                self._answer(answer, _TIMEOUT_SECONDS, done)
            else:
                self._answer(answer, 0.0, done)

        self.world.after(latency, perform)
        return answer

    def _trouble(self, verb: str) -> str | int | None:
        pick, on = self.world.pick, self.world.on
        if on("API away"):
            return "lost"
        if pick.random() >= (0.3 if on("API fails") else 0.0 if self.world.is_calm else 0.003):
            return None
        kinds: list[str | int] = ["lost", "answer lost", "answer lost", 500, 503, 429]
        return pick.choice(kinds if verb in {"create", "get", "list"} else [*kinds, 409])

    def _answer(self, answer: asyncio.Future[Body], seconds: float, what: Body | ClusterError) -> None:
        def set_it() -> None:
            if answer.done():
                return  # nobody waits for it any more
            if isinstance(what, ClusterError):
                answer.set_exception(what)
            else:
                answer.set_result(what)

        if seconds:
            self.world.after(seconds, set_it)
        else:
            set_it()

    def _perform(self, verb: str, what: str, name: str, body: Body, options: Mapping[str, Any]) -> Body:
        cluster = self.world.cluster
        match verb, what:
            case "list", _:
                return {"metadata": {}, "items": self._selected(what, options.get("labelSelector") or "")}
            case "get", _:
                return self._found(what, name)
            case "create", "jobs":
                return cluster.create_job(body)
            case "patch", "jobs":
                return cluster.patch_job(name, body)
            case "delete", "jobs":
                return cluster.delete_job(name, body["preconditions"])
            case "patch", "secrets":
                return self.put("secrets", merge_patch(self._found("secrets", name), body))
            case "create", "events":
                return {}
        if (verb, what) == ("patch", f"{PLURAL}/status"):
            before = self._found(PLURAL, name)
            after = merge_patch(before, body)
            return before if after == before else self.put(PLURAL, after)
        raise AssertionError(f"{verb} {what} is not simulated")

    def _found(self, kind: str, name: str) -> Body:
        found = self.objects[kind].get(name)
        if found is None:
            raise ClusterError(f'{kind} "{name}" not found', 404)
        return found

    def _selected(self, kind: str, selector: str) -> list[Body]:
        wanted = dict(part.split("=", 1) for part in selector.split(",") if part)
        uid = wanted.pop("batch.kubernetes.io/controller-uid", None)
        found = list(self.objects[kind].values())
        if uid is not None:
            return [body for body in found if body["metadata"]["ownerReferences"][0]["uid"] == uid]
        if WORKER_LABEL in wanted or COMPONENT_LABEL in wanted:
            return [body for body in found if wanted.items() <= (body["metadata"].get("labels") or {}).items()]
        return found


class Watch:
    """What one process of the operator hears of one kind: in order, late, and at times not at all."""

    def __init__(self, world: World, kind: str, heard: Callable[[str | None, Body], None], listed: Callable[[], object]) -> None:
        self.world = world
        self.kind = kind
        self._heard = heard
        self._listed = listed
        self._coming: deque[tuple[float, str | None, Body]] = deque()
        self._last = 0.0
        self._lost = False
        self._ended = False
        self.version = 0
        """Of what was heard last."""

    def begin(self) -> None:
        """The initial list, and what happens from then on."""
        self.world.api.watches.append(self)
        self._listed()
        for body in self.world.api.objects[self.kind].values():
            self.tell(None, body)

    def end(self) -> None:
        self._ended = True
        if self in self.world.api.watches:
            self.world.api.watches.remove(self)

    def tell(self, told: str | None, body: Body) -> None:
        if self._lost:
            return
        pick, world = self.world.pick, self.world
        lag = pick.uniform(2.0, 40.0) if world.on(f"{self.kind} lag") else pick.uniform(0.001, 0.05)
        self._last = max(self._last, world.now + lag)
        self._coming.append((self._last, told, body))
        if len(self._coming) == 1:
            world.at(self._last, self._deliver)

    def _deliver(self) -> None:
        if self._ended:
            return
        if self.world.is_silent(self.kind):
            self.world.after(5.0, self._deliver)
            return
        while self._coming and self._coming[0][0] <= self.world.now:
            _, told, body = self._coming.popleft()
            self.version = max(self.version, int(body["metadata"]["resourceVersion"]))
            self._heard(told, body)
        if self._coming:
            self.world.at(self._coming[0][0], self._deliver)

    def lose(self) -> None:
        """The stream broke off; what happens until it is listed anew is never told."""
        self._lost = True
        self._coming.clear()

    def list_anew(self) -> None:
        if self._lost:
            self._lost = False
            self._listed()
            for body in self.world.api.objects[self.kind].values():
                self.tell(None, body)


class SimulatedKubernetes(Kubernetes):
    """The real client of the operator, over the simulated server in place of HTTP."""

    def __init__(self, world: World, api: client.ApiClient, may_write: Callable[[], bool], **more: Any) -> None:
        clock = ClusterClock(lambda: at(world.now + world.settings.operator_ahead), lambda: world.now)
        super().__init__(api, more["metrics"], may_write=may_write, clock=clock)
        self._world = world
        self._allowed = may_write

    async def _call(self, verb: str, what: str, namespace: str, name: str = "", body: Body | None = None, **more: Any) -> Body:
        if verb not in {"get", "list"} and not self._allowed():
            raise ClusterError(f"{verb} {what}: not done, another replica may lead by now")
        asked = self._world.now
        try:
            return await self._world.api.ask(verb, what, name, body or {}, more.get("options") or {})
        except ClusterError as error:
            if error.code == 0:
                asked = -1.0
            raise
        finally:
            if asked >= 0:
                self.clock.answered(formatdate(at(self._world.now).timestamp(), usegmt=True), asked, self._world.now)
