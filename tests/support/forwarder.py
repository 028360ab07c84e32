"""Lets pods of a real cluster reach what a test runs: forwards an address of this machine to a local server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

Dial = Callable[[], Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Forwarder:
    """``with Forwarder(address, dial) as forwarder: forwarder.port``; ``dial`` opens a connection to the server behind."""

    def __init__(self, address: str, dial: Dial) -> None:
        self._address = address
        self._dial = dial
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._forward, self._address, 0)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        assert self._server is not None  # entered
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # aborted transports close in the loop's next turn

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            behind_reader, behind_writer = await self._dial()
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(_pump(reader, behind_writer), _pump(behind_reader, writer))
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            for each in (writer, behind_writer):
                each.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


def to_unix(path: str) -> Dial:
    """Of PostgreSQL's socket, for instance."""
    return lambda: asyncio.open_unix_connection(path)


def to_port(port: int) -> Dial:
    """Of a server on loopback."""
    return lambda: asyncio.open_connection("127.0.0.1", port)
