"""A server on loopback that misbehaves exactly as told: byte for byte, without an HTTP library to mend it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Received:
    """A request that arrived; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]


Script = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


class ScriptedServer:
    """Answers each request as its script says; a script that returns with the connection open keeps it alive."""

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.script = script
        self.received: list[Received] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        self.port = int(self._server.sockets[0].getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/doc"
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def targets(self) -> list[str]:
        return [request.target for request in self.received]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while not writer.is_closing():
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                    method, target, _ = head[0].split(" ")
                    fields = (line.partition(":") for line in head[1:] if line)
                    request = Received(method, target, {name.lower(): value.strip() for name, _, value in fields})
                    self.received.append(request)
                    await self.script(request, writer)
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def reply(status: int = 200, body: bytes | str = b"", **headers: str) -> Script:
    """A whole answer; in header names, underscores stand for hyphens."""
    content = body.encode() if isinstance(body, str) else body
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} Some Reason\r\nContent-Length: {len(content)}\r\n{fields}\r\n"
    return raw(head.encode("latin-1") + content, close=False)


def raw(data: bytes, *, close: bool = True) -> Script:
    """These bytes, and the end of the connection."""

    async def script(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if close:
            writer.close()

    script.__qualname__ = repr(data[:200])  # names the row of a table that fails
    return script


def in_turn(*scripts: Script) -> Script:
    """One script a request; the last again and again."""
    left = list(scripts)

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(request, writer)

    return script


def by_path(scripts: dict[str, Script], otherwise: Script) -> Script:
    """The script of the first path that the target begins with, after ``/doc``."""

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        path = request.target.removeprefix("/doc")
        chosen = next((script for prefix, script in scripts.items() if path.startswith(prefix)), otherwise)
        await chosen(request, writer)

    return script


def envelope(key: str = "unidade", value: Any = None, *, code: Any = 0, message: str = "ok", **service: Any) -> bytes:
    """SIORG's envelope around a value."""
    header = {"codigoErro": code, "mensagem": message, "data": "2026-11-23", "versaoServico": "4.0.2", "ticket": None, **service}
    return json.dumps({"servico": header, key: value}, separators=(",", ":")).encode()


def unit_row(code: int = 471, **fields: Any) -> dict[str, Any]:
    """A small unit as SIORG writes it; ``fields`` replace or add."""
    base = "https://estruturaorganizacional.dados.gov.br/id"
    unit = f"{base}/unidade-organizacional"
    return {
        "codigoUnidade": f"{unit}/{code}", "codigoUnidadePai": f"{unit}/244", "codigoOrgaoEntidade": f"{unit}/471",
        "codigoTipoUnidade": f"{base}/tipo-unidade/unidade-administrativa",
        "nome": "Faculdade de Geociências", "sigla": "FAGEO", "versaoConsulta": "107.0.0", "operacao": None,
        **fields,
    }  # fmt: skip
