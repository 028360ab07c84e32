"""A proxy before the simulator that answers chosen units with an error of the server, always."""

from __future__ import annotations

import contextlib
import threading
import urllib.error
import urllib.request
from collections.abc import Collection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


class PoisonedSiorg:
    """``with PoisonedSiorg(simulator.url, {471}) as siorg: siorg.url``."""

    def __init__(self, behind: str, poisoned: Collection[int]) -> None:
        origin = behind.removesuffix("/doc")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if any(f"/unidade-organizacional/{code}/" in self.path for code in poisoned):
                    self._answer(500, b"<html>Internal Server Error</html>", "text/html")
                    return
                try:
                    with opener.open(origin + self.path, timeout=30) as answer:
                        self._answer(200, answer.read(), "application/json")
                except urllib.error.HTTPError as error:
                    with error:
                        self._answer(error.code, error.read(), "application/json")

            def _answer(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # a client that was stopped does not wait for its answer
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/doc"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
