"""An API server for one kind, Lease, that misbehaves as told: hangs, fails, refuses, answers nonsense."""

from __future__ import annotations

import itertools
import json
import threading
from contextlib import suppress
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Literal, Self

from support.loopback_http import Answering

Mood = Literal["well", "hangs", "fails", "forbids", "answers html", "answers nothing"]
PATH: Final = "/apis/coordination.k8s.io/v1/namespaces/siorg/leases"


class LeaseServer:
    """Serves from entering the context until leaving it; ``away`` and ``back`` in between keep the port."""

    def __init__(self) -> None:
        self.mood: Mood = "well"
        self.leases: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._versions = itertools.count(1)
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.back()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.closing.set()
        self.away()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def back(self) -> None:
        """Accept connections."""

        class Handler(_Handler):
            served = self

        self._server = _Listening(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def away(self) -> None:
        """Refuse connections."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def lease(self, name: str = "siorg-operator") -> dict[str, Any]:
        """Its spec; empty when there is none."""
        with self.lock:
            spec: dict[str, Any] = json.loads(json.dumps(self.leases.get(name, {}).get("spec", {})))
            return spec

    @property
    def holder(self) -> str:
        return self.lease().get("holderIdentity") or ""

    def write(self, name: str = "siorg-operator", **spec: Any) -> None:
        """Write to a Lease as somebody else."""
        with self.lock:
            lease = self.leases.setdefault(name, {"metadata": {"name": name, "namespace": "siorg"}, "spec": {}})
            lease["spec"].update(spec)
            self.keep(name, lease)

    def remove(self, name: str = "siorg-operator") -> None:
        with self.lock:
            del self.leases[name]

    def keep(self, name: str, lease: dict[str, Any]) -> dict[str, Any]:
        lease["metadata"]["resourceVersion"] = str(next(self._versions))
        self.leases[name] = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease}
        return self.leases[name]


class _Listening(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


class _Handler(Answering):
    served: LeaseServer
    protocol_version = "HTTP/1.0"  # a connection that is kept would be served on while the server is away

    def do_GET(self) -> None:  # noqa: N802 - the base class looks for this name
        self._serve()

    def do_POST(self) -> None:  # noqa: N802 - the base class looks for this name
        self._serve()

    def do_PUT(self) -> None:  # noqa: N802 - the base class looks for this name
        self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        served = self.served
        served.requests.append((self.command, self.path))
        match served.mood:
            case "hangs":
                while served.mood == "hangs" and not served.closing.wait(0.02):
                    pass
                self.close_connection = True
            case "fails":
                self._refuse(500, "InternalError", "etcdserver: request timed out")
            case "forbids":
                self._refuse(403, "Forbidden", 'leases.coordination.k8s.io is forbidden: cannot get resource "leases"')
            case "answers html":
                self.answer(502, b"<html>Bad Gateway</html>", "text/html")
            case "answers nothing":
                self.answer(200, b"", "application/json")
            case _:
                with served.lock:
                    status, answer = self._done(body)
                self.answer(status, json.dumps(answer).encode(), "application/json")

    def _done(self, body: bytes) -> tuple[int, dict[str, Any]]:
        served, name = self.served, self.path.partition("?")[0].removeprefix(PATH).strip("/")
        if self.command == "GET":
            found = served.leases.get(name)
            return (200, found) if found is not None else _status(404, "NotFound", f"{name} not found")
        given = json.loads(body)
        if self.command == "POST":
            name = given["metadata"]["name"]
            if name in served.leases:
                return _status(409, "AlreadyExists", f"{name} already exists")
            given["metadata"].update(uid="u-1", namespace="siorg", creationTimestamp="2026-11-24T00:00:00Z")
            return 201, served.keep(name, given)
        if name not in served.leases:
            return _status(404, "NotFound", f"{name} not found")
        if given["metadata"]["resourceVersion"] != served.leases[name]["metadata"]["resourceVersion"]:
            return _status(409, "Conflict", "the object has been modified")
        return 200, served.keep(name, given)

    def _refuse(self, code: int, reason: str, message: str) -> None:
        status, answer = _status(code, reason, message)
        with suppress(ConnectionError):
            self.answer(status, json.dumps(answer).encode(), "application/json")


def _status(code: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}
