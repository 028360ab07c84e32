"""A database whose readings are counted: by whom and how often the operator's query is asked."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from support.database_proxy import DatabaseProxy


class CountedDatabase:
    """Leads to the same database as ``url``, and keeps when it was asked what.

    Args:
        url: of a database behind a Unix socket.
        socket: the folder of that socket.
        folder: an empty one of our own, with a short path.
    """

    def __init__(self, url: str, socket: Path, folder: Path) -> None:
        self._proxy = _Timed(socket, folder)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.url = self._proxy.url(url)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._proxy.__aenter__(), self._loop).result(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._proxy.__aexit__(kind, error, traceback), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def readings(self) -> list[float]:
        """When the queue was read, by ``time.monotonic``."""
        return [when for when, said in list(self._proxy.said) if b"BEGIN READ ONLY" in said]

    @property
    def messages(self) -> list[float]:
        """When anything was asked."""
        return [when for when, _ in list(self._proxy.said)]


class _Timed(DatabaseProxy):
    def __init__(self, server: Path, folder: Path) -> None:
        super().__init__(server, folder)
        self.said: list[tuple[float, bytes]] = []

    async def _questions(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            self.said.append((time.monotonic(), data))
            writer.write(data)
            await writer.drain()
        writer.close()
