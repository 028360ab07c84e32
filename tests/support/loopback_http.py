"""A small threaded HTTP server on loopback: its life, and answers of one piece. What it answers, its user says."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

_PAGE = b"<html><body>We will be back soon</body></html>"


class Answering(BaseHTTPRequestHandler):
    """A handler that answers in one piece and keeps quiet about it."""

    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # a client that was stopped does not wait for its answer
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        pass


class LoopbackServer:
    """Answers with ``handler`` from entering the context until leaving it."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/doc"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Gateway(LoopbackServer):
    """Answers every request alike: with a page for people, as what stands in SIORG's place does, or as told."""

    def __init__(self, status: int, *, location: str | None = None, body: bytes = _PAGE) -> None:
        headers = {} if location is None else {"Location": location}

        class Handler(Answering):
            def do_GET(self) -> None:
                self.answer(status, body, "text/html", **headers)

        super().__init__(Handler)
