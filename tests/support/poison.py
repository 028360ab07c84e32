"""A proxy before the simulator that answers chosen units, or a whole endpoint, with an error, always, or does worse."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Collection

from support.loopback_http import Answering, LoopbackServer


class PoisonedSiorg(LoopbackServer):
    """``with PoisonedSiorg(simulator.url, {471}) as siorg: siorg.url``; ``endpoint``: also everything under this path."""

    def __init__(
        self,
        behind: str,
        poisoned: Collection[int] = (),
        endpoint: str | None = None,
        *,
        strike: Callable[[], object] = lambda: None,
        answers: tuple[int, bytes] = (500, b"<html>Internal Server Error</html>"),
    ) -> None:
        """``strike`` is called, on a thread of the server's, before a chosen unit is answered with ``answers``."""
        self.endpoint = endpoint
        proxy, origin = self, behind.removesuffix("/doc")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        class Handler(Answering):
            def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
                if any(f"/unidade-organizacional/{code}/" in self.path for code in poisoned):
                    strike()
                    self.answer(*answers, "text/html")
                    return
                if proxy.endpoint is not None and self.path.startswith("/doc" + proxy.endpoint):
                    self.answer(503, b"<html>Service Unavailable</html>", "text/html")
                    return
                try:
                    with opener.open(origin + self.path, timeout=30) as answer:
                        self.answer(200, answer.read(), "application/json")
                except urllib.error.HTTPError as error:
                    with error:
                        self.answer(error.code, error.read(), "application/json")

        super().__init__(Handler)
