"""Stands before an API server and passes everything on: late, or with one request held back."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import yaml

_ANSWER_SECONDS = 2.0


class LateLink:
    """Forwards to the server of a kubeconfig, without TLS, from entering the context until leaving it.

    Args:
        kubeconfig: of the server behind.
        folder: for ``kubeconfig``, which leads through here.
        held: beginning of a request, as ``POST /apis/batch/v1/``: the first such is held back until ``let_go``.
        delay: seconds by which everything that the server says is late.
    """

    def __init__(self, kubeconfig: Path, folder: Path, *, held: str = "", delay: float = 0.0) -> None:
        self._config = yaml.safe_load(kubeconfig.read_text())
        self._behind = urlsplit(self._config["clusters"][0]["cluster"]["server"])
        self.kubeconfig = folder / "kubeconfig-late.yaml"
        self._held, self._delay = held.encode(), delay
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._let_go = asyncio.Event()
        self.holds = threading.Event()
        """Set once the request is held."""

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._forward, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        self._config["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self.kubeconfig.write_text(yaml.safe_dump(self._config))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def let_go(self) -> None:
        """Pass on what is held."""
        self._loop.call_soon_threadsafe(self._let_go.set)

    async def _end(self) -> None:
        assert self._server is not None  # entered
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # aborted transports close in the loop's next turn

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            behind_reader, behind_writer = await asyncio.open_connection(self._behind.hostname, self._behind.port)
            try:
                answers = asyncio.create_task(self._answers(behind_reader, writer))
                while data := await reader.read(65_536):
                    if self._held and data.startswith(self._held) and not self.holds.is_set():
                        self.holds.set()
                        await self._let_go.wait()
                    behind_writer.write(data)
                # The sender may be dead; what it sent is answered all the same.
                await asyncio.wait({answers}, timeout=_ANSWER_SECONDS)
            finally:
                behind_writer.transport.abort()
        writer.transport.abort()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                self._loop.call_later(self._delay, writer.write, data)
            self._loop.call_later(self._delay, writer.close)
