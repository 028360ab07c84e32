"""A small Kubernetes API server in a thread, for tests: what this operator, its tests and its controllers ask of one.

It keeps everything in memory. ``tests/kube_double/test_api_server.py`` says what it does, and runs against a real server
too: what the two answer differently is a bug in this one. What is not asked for there is left out: kubectl's own needs
(OpenAPI, tables of built-in kinds), JSON and strategic patches, conversion, admission, most checks of built-in kinds' specs.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from kube_double.answering import Answering
from kube_double.authorizer import Rule
from kube_double.definitions import Definitions
from kube_double.errors import Body, Refused
from kube_double.garbage import GarbageCollector
from kube_double.kinds import Kinds
from kube_double.observed_requests import Hooks, Moment, Request, Trouble
from kube_double.registry import MERGE_PATCH, DeleteOptions, Options, Registry
from kube_double.selectors import by_labels
from kube_double.store import Store
from kube_double.watching import Watches, error_event

_START_SECONDS = 10.0
_GARBAGE_SECONDS = 0.02
_BODY_BYTES = 3 * 1024 * 1024

_T = TypeVar("_T")


@contextmanager
def _listed(entries: list[_T], entry: _T) -> Iterator[None]:
    """An entry is among others for as long as the context lasts."""
    entries.append(entry)
    try:
        yield
    finally:
        entries.remove(entry)


class ApiServer:
    """Serves from entering the context until leaving it.

    Args:
        rules: RBAC rules by bearer token; who shows no token may do everything. None: no authorization at all.
        bookmark_seconds: How often a watch that allows bookmarks gets one.
    """

    def __init__(self, *, rules: Mapping[str, Sequence[Rule]] | None = None, bookmark_seconds: float = 30.0) -> None:
        self.rules = None if rules is None else dict(rules)
        self._store = Store()
        self._kinds = Kinds(self._store.lock)
        self._definitions = Definitions(self._store, self._kinds)
        self._registry = Registry(self._store, self._kinds, self._definitions)
        self._hooks = Hooks()
        self._requests: list[Request] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="api-server", daemon=True)
        self._ready = threading.Event()
        self._port = 0
        self._http: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self._watches = Watches(self._store, self._loop, bookmark_seconds)
        self._garbage = GarbageCollector(self._registry, self._collect_soon)
        self._collecting = False
        self._answering = Answering(
            self._registry, self._kinds, self._definitions, self._watches, self._hooks,
            lambda: self.rules, self._requests.append,
        )  # fmt: skip
        for name in ("default", "kube-system", "kube-node-lease"):
            self._registry.create(self._kinds.named("namespaces"), "", {"metadata": {"name": name}})

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(_START_SECONDS), "the API server did not start"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_SECONDS)
        if kind is None and self._answering.crashes:
            raise AssertionError("the API server crashed:\n" + "\n".join(self._answering.crashes))

    # Where it is

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def kubeconfig(self, folder: Path, *, token: str = "", namespace: str = "default") -> Path:
        """A kubeconfig for this server, written into ``folder``; with a token, for whom ``rules`` knows by it."""
        user = {"token": token} if token else {}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "current-context": "test",
        }
        ending = f"-{token}".replace(":", "-") if token else ""  # KUBECONFIG is a list, with colons between
        path = folder / f"kubeconfig{ending}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    # What it was asked, and what shall go wrong

    @property
    def requests(self) -> list[Request]:
        """All requests that were carried out so far, oldest first; a watch counts when it begins."""
        return list(self._requests)

    @contextmanager
    def on_request(self, callback: Callable[[Request], None], moment: Moment = "after") -> Iterator[None]:
        """Call ``callback`` for each request that was carried out, before or after it is answered.

        It runs in a thread of its own, and that one request waits for it; it may use the server.
        """
        with _listed(self._hooks.callbacks, (moment, callback)):
            yield

    @contextmanager
    def webhook(self, resource: str, change: Callable[[Body], object]) -> Iterator[None]:
        """Let ``change`` alter each object of a kind (its plural) that is created, as a mutating webhook does."""
        with _listed(self._registry.webhooks, (resource, change)):
            yield

    @contextmanager
    def fault(self, **wanted: Any) -> Iterator[Trouble]:
        """A ``Trouble`` with these attributes, meanwhile."""
        trouble = Trouble(**wanted)
        self._hooks.troubles.append(trouble)
        try:
            yield trouble
        finally:
            self._hooks.troubles.remove(trouble)
            self._loop.call_soon_threadsafe(trouble.over.set)

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Refuse connections and cut those that are there; afterwards come back on the same port, with all data."""
        self._call(self._close())
        try:
            yield
        finally:
            self._call(self._listen())

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._abort_all)

    def compact(self) -> None:
        """Forget all past changes: a watch from an old version gets 410 Gone. Watches that run go on."""
        with self._store.lock:
            self._registry.forget()

    def break_watches(self, code: int = 410, *, line: bytes | None = None, user_agent: str = "") -> None:
        """End the watches that run with an ERROR event of that code, or with a line that is no event at all.

        ``user_agent``: a part of it, of those that end.
        """
        if line is None:
            line = error_event(Refused(code, "Expired" if code == 410 else "InternalError", "this test wants it so").status)
        self._loop.call_soon_threadsafe(self._watches.break_off, user_agent, line)

    # What it has

    def objects(self, resource: str, namespace: str | None = None, *, labels: str = "") -> list[Body]:
        page = self._registry.page(self._kinds.named(resource), namespace, by_labels(labels) if labels else None)
        return [entry.body for entry in page.entries]

    def get(self, resource: str, name: str, namespace: str = "") -> Body | None:
        kind = self._kinds.named(resource)
        entry = self._store.get(kind.collection, (namespace if kind.namespaced else "", name))
        return None if entry is None else entry.body

    def create(self, manifest: Body, namespace: str = "default") -> Body:
        """As POST does it, without HTTP.

        Raises:
            Refused: As Kubernetes does.
        """
        kind = self._kinds.of(manifest)
        place = (manifest["metadata"].get("namespace") or namespace) if kind.namespaced else ""
        return self._registry.create(kind, place, json.loads(json.dumps(manifest)), Options("test"))

    def patch(self, resource: str, name: str, patch: Body, namespace: str = "", *, subresource: str = "") -> Body:
        """A merge patch, without HTTP.

        Raises:
            Refused: As Kubernetes does.
        """
        kind = self._kinds.named(resource)
        return self._registry.patch(kind, namespace, name, MERGE_PATCH, patch, Options("test"), subresource)

    def delete(self, resource: str, name: str, namespace: str = "") -> None:
        """As DELETE in the background does it, without HTTP.

        Raises:
            Refused: As Kubernetes does.
        """
        self._registry.delete(self._kinds.named(resource), namespace, name, DeleteOptions("Background"))

    # The thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _start(self) -> None:
        self._http = web.Server(self._answering, request_factory=self._make_request, handler_cancellation=True, access_log=None)
        await self._listen()

    def _make_request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=_BODY_BYTES)

    async def _listen(self) -> None:
        assert self._http is not None
        self._listener = await self._loop.create_server(
            self._http, "127.0.0.1", self._port, family=socket.AF_INET, reuse_address=True, backlog=512
        )
        self._port = self._listener.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for _ in range(4):  # turns of the loop: a connection that was just accepted is known after two of them
            self._abort_all()
            await asyncio.sleep(0)

    def _abort_all(self) -> None:
        assert self._http is not None
        connections: list[RequestHandler] = self._http.connections
        for connection in connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def _end(self) -> None:
        await self._close()
        assert self._http is not None
        await self._http.shutdown(1.0)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_default_executor()

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_START_SECONDS)

    def _collect_soon(self) -> None:
        if self._collecting or self._loop.is_closed():
            return
        self._collecting = True
        self._loop.call_soon_threadsafe(self._loop.call_later, _GARBAGE_SECONDS, self._collect)

    def _collect(self) -> None:
        self._collecting = False
        self._garbage.collect()
