"""Stands between a client and an embedded PostgreSQL: sees what is asked, holds answers back, cuts connections."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote


class DatabaseProxy:
    """A Unix socket in ``folder`` whose other end is the server's. Belongs to the event loop that enters it."""

    def __init__(self, server: Path, folder: Path) -> None:
        """``server``: the folder of the server's socket."""
        self._server = server / ".s.PGSQL.5432"
        self._folder = folder
        self._answers = asyncio.Event()
        self._answers.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self.asked = bytearray()
        """All that clients sent."""
        self.losing = 0
        """Of how many COMMITs from now on the answer is lost: they are done, and then the connection breaks."""

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_unix_server(self._accept, self._folder / ".s.PGSQL.5432")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listening.close()
        self.cut()
        self._answers.set()
        if self._connections:
            await asyncio.wait(self._connections)

    def url(self, direct: str) -> str:
        """The URL of the database behind ``direct``, through here."""
        return f"{direct.partition('?')[0]}?host={quote(str(self._folder), safe='')}"

    def readings(self) -> int:
        """How many readings were asked for."""
        return self.asked.count(b"BEGIN READ ONLY")

    def hold(self) -> None:
        """Pass no answer on."""
        self._answers.clear()

    def release(self) -> None:
        """Pass answers on again, those held back first."""
        self._answers.set()

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def _heard(self, data: bytes) -> None:
        self.asked += data

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with suppress(OSError):
            from_server, to_server = await asyncio.open_unix_connection(self._server)
            self._writers |= {writer, to_server}
            loses = asyncio.Event()
            try:
                await asyncio.gather(self._questions(reader, to_server, loses), self._pass_answers(from_server, writer, loses))
            finally:
                self._writers -= {writer, to_server}
                to_server.close()
        writer.close()

    async def _questions(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, loses: asyncio.Event) -> None:
        while data := await reader.read(65_536):
            self._heard(data)
            if self.losing > 0 and b"COMMIT" in data:
                self.losing -= 1
                loses.set()
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _pass_answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, loses: asyncio.Event) -> None:
        while data := await reader.read(65_536):
            if loses.is_set():
                writer.transport.abort()
                return
            await self._answers.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


@contextmanager
def on_a_thread(server: Path) -> Iterator[DatabaseProxy]:
    """A proxy for tests without an event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    with tempfile.TemporaryDirectory(prefix="siorg-proxy-") as folder:
        proxy = DatabaseProxy(server, Path(folder))
        asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result(30)
        try:
            yield proxy
        finally:
            asyncio.run_coroutine_threadsafe(proxy.__aexit__(None, None, None), loop).result(30)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
