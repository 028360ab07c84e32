"""A connection to the small API server on which one request is late: it arrives although its sender is long dead."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import yaml

_HELD_SECONDS = 60.0


class LateLink:
    """Forwards to the server of a kubeconfig; holds back the first bytes that begin with ``held``, until ``let_go``.

    Args:
        kubeconfig: whose server it is, without TLS.
        folder: where the kubeconfig goes that leads through here.
        held: beginning of a request, as ``POST /apis/batch/v1/``.
    """

    def __init__(self, kubeconfig: Path, folder: Path, *, held: str) -> None:
        self._config = yaml.safe_load(kubeconfig.read_text())
        self.kubeconfig = folder / "kubeconfig-late.yaml"
        self._behind = urlsplit(self._config["clusters"][0]["cluster"]["server"])
        self._prefix = held.encode()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._let_go = asyncio.Event()
        self.holds = threading.Event()
        """Set once the request is held."""

    def __enter__(self) -> Self:
        self._thread.start()
        serving = asyncio.start_server(self._forward, "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        port = server.sockets[0].getsockname()[1]
        self._config["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{port}"
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
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            behind_reader, behind_writer = await asyncio.open_connection(self._behind.hostname, self._behind.port)
            answers = asyncio.create_task(_pump(behind_reader, writer))
            while data := await reader.read(65_536):
                if data.startswith(self._prefix) and not self.holds.is_set():
                    self.holds.set()
                    async with asyncio.timeout(_HELD_SECONDS):
                        await self._let_go.wait()
                behind_writer.write(data)
            # The sender may be dead; what it sent is answered all the same.
            await asyncio.wait({answers}, timeout=2)
            behind_writer.close()
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()
