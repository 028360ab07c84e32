"""A server that answers every request alike: with a page for people, as what stands in SIORG's place does, or as told."""

from __future__ import annotations

from support.loopback_http import Answering, LoopbackServer

_PAGE = b"<html><body>We will be back soon</body></html>"


class Gateway(LoopbackServer):
    """``with Gateway(404) as gateway: gateway.url``; ``location`` is sent with a redirect."""

    def __init__(self, status: int, *, location: str | None = None, body: bytes = _PAGE) -> None:
        headers = {} if location is None else {"Location": location}

        class Handler(Answering):
            def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
                self.answer(status, body, "text/html", **headers)

        super().__init__(Handler)
