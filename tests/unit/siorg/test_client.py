"""The client against servers that answer well, badly, late, endlessly, or from elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import subprocess
import sys
import traceback
import zlib
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siorg_job.siorg.breaker import Breaker, BreakerState
from siorg_job.siorg.client import SiorgClient
from siorg_job.siorg.errors import (
    AccessRefused,
    AnswerTooLarge,
    BreakerOpen,
    InvalidData,
    MalformedResponse,
    NotAnOrganization,
    NotFound,
    RateLimited,
    RequestRefused,
    SiorgError,
    SiorgUnavailable,
    VersionUnknown,
)
from siorg_job.siorg.model import DomainTable
from siorg_job.siorg.rate_limiter import Unlimited
from support.scripted_server import (
    Received,
    Script,
    ScriptedServer,
    by_path,
    envelope,
    in_turn,
    raw,
    reply,
    unit_row,
)

Run = Callable[[Coroutine[Any, Any, None]], None]
MakeClient = Callable[..., SiorgClient]

TOKEN = "tok-3f9a-very-secret"
UNIT = reply(200, envelope(value=unit_row(471)))
ESFERA = reply(200, envelope("esfera", [{"codigoEsfera": 1, "descricaoEsfera": "Federal", "ativo": "SIM"}]))
HTML_404 = reply(404, "<html>Not Found</html>", Content_Type="text/html")


class Recorder(Unlimited):
    """A limiter that remembers what was asked of it, and never makes anyone wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0
        self.pauses: list[float] = []

    async def wait(self) -> None:
        self.waits += 1

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


async def until_closed(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Write a piece again and again until the client has gone."""
    while not writer.is_closing():
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.01)


# ── Questions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_question_goes_to_its_path_with_the_right_headers(run: Run, client_of: MakeClient) -> None:
    async def scenario() -> None:
        script = by_path(
            {
                "/unidade-organizacional/471/completa": UNIT,
                "/unidade-organizacional/471/versao": reply(200, envelope("unidades", [{"versaoConsulta": "107.0.0"}])),
                "/unidade-organizacional/471/alteradas": reply(200, envelope("unidades", [unit_row(9, operacao="EXCLUSAO")])),
                "/estrutura-organizacional/completa": reply(200, envelope("unidades", [unit_row(471), unit_row(9)])),
                "/esfera": ESFERA,
            },
            reply(500),
        )
        async with ScriptedServer(script) as server, client_of(server.url + "/", token=TOKEN) as client:
            assert (await client.unit(471)).name == "Faculdade de Geociências"
            assert await client.version(471) == "107.0.0"
            (change,) = await client.changed_since(471, "106.0.0")
            assert (change.code, change.operation, change.ended) == (9, "EXCLUSAO", True)
            assert set((await client.structure(471)).units) == {471, 9}
            (sphere,) = await client.domain(DomainTable.SPHERE)
            assert (sphere.code, sphere.name) == (1, "Federal")
            await client.probe()
            assert server.targets == [
                "/doc/unidade-organizacional/471/completa",
                "/doc/unidade-organizacional/471/versao",
                "/doc/unidade-organizacional/471/alteradas?versaoConsulta=106.0.0",
                (
                    "/doc/estrutura-organizacional/completa?codigoPoder=1&codigoEsfera=1&codigoUnidade=471"
                    "&retornarOrgaoEntidadeVinculados=NAO"
                ),
                "/doc/esfera",
                "/doc/esfera",
            ]
            for request in server.received:
                assert request.method == "GET"
                assert request.headers["accept"] == "application/json"
                assert request.headers["accept-encoding"] == "gzip"
                assert request.headers["user-agent"].startswith("siorg-sync")
                assert request.headers["authorization"] == f"Bearer {TOKEN}"
            assert server.connections == 1

    run(scenario())


def test_without_a_token_nothing_is_authorized(run: Run, client_of: MakeClient) -> None:
    async def scenario() -> None:
        async with ScriptedServer(UNIT) as server, client_of(server.url) as client:
            await client.unit(471)
            assert "authorization" not in server.received[0].headers

    run(scenario())


@pytest.mark.parametrize("code", [0, -1, 2**31, 10**20])
def test_codes_that_cannot_be_are_refused_without_a_request(run: Run, client_of: MakeClient, code: int) -> None:
    async def scenario() -> None:
        async with ScriptedServer(UNIT) as server, client_of(server.url) as client:
            for question in (client.unit(code), client.structure(code), client.version(code)):
                with pytest.raises(RequestRefused, match="1 to 2147483647"):
                    await question
            for version in ("", "1.2", "x.y.z", "1.2.3&a=b"):
                with pytest.raises(VersionUnknown, match=r"major\.minor\.build"):
                    await client.changed_since(471, version)
            assert server.received == []

    run(scenario())


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (reply(200, envelope(code=1, ticket="T1")), SiorgUnavailable),
        (reply(200, envelope(code=101)), MalformedResponse),
        (reply(404, envelope(code=101)), MalformedResponse),
        (reply(200, envelope(code=102)), NotFound),
        (reply(200, envelope(code=104)), NotAnOrganization),
        (reply(200, envelope(code=103)), RequestRefused),
        (reply(200, envelope(value=unit_row(472))), InvalidData),
        (reply(200, envelope(value=unit_row(471, nome=5))), InvalidData),
        (reply(200, ""), MalformedResponse),
        (reply(204), MalformedResponse),
        (reply(200, "<html>Login</html>"), MalformedResponse),
        (reply(200, '{"unidade":{"codigoUnidade":471}}'), MalformedResponse),
        (reply(200, b"\x00\xff" * 100), MalformedResponse),
        (reply(200, envelope(value=unit_row(471))[:-40]), MalformedResponse),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + envelope(value=unit_row(471))[:100]), MalformedResponse),
        (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"ser\r\n"), MalformedResponse),
        (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), MalformedResponse),
        (reply(200, gzip.compress(envelope(value=unit_row(471)))[:-12], Content_Encoding="gzip"), MalformedResponse),
        (reply(200, envelope(value=unit_row(471)), Content_Encoding="gzip"), MalformedResponse),
        (reply(200, gzip.compress(envelope(value=unit_row(471))) + b"more", Content_Encoding="gzip"), MalformedResponse),
        (reply(200, zlib.compress(envelope(value=unit_row(471))), Content_Encoding="deflate"), MalformedResponse),
        (reply(200, envelope(value=unit_row(471)), Content_Encoding="gzip, gzip"), MalformedResponse),
        (raw(b""), SiorgUnavailable),
        (raw(b"\x16\x03\x01 this is no HTTP\r\n\r\n"), SiorgUnavailable),
        (raw(b"HTTP/1.1 200 OK\r\nContent-"), SiorgUnavailable),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"X-Fill: " + b"x" * 300_000), SiorgUnavailable),
        (reply(500, "<html>"), SiorgUnavailable),
        (reply(502), SiorgUnavailable),
        (reply(503, envelope(code=102)), SiorgUnavailable),
        (reply(504), SiorgUnavailable),
        (reply(408), SiorgUnavailable),
        (reply(401), AccessRefused),
        (reply(403, envelope(value=unit_row(471))), AccessRefused),
        (reply(407), AccessRefused),
        (reply(404, envelope(code=102)), NotFound),
        (reply(404, envelope()), NotFound),
        (reply(404, envelope(code=1)), SiorgUnavailable),
        (reply(400, envelope()), RequestRefused),
        (reply(400, envelope(code=100, message="O campo")), RequestRefused),
        (reply(405, envelope(code=103)), RequestRefused),
        (reply(410, envelope(code=1)), SiorgUnavailable),
        (reply(429), RateLimited),
    ],
)  # fmt: skip
def test_every_answer_is_a_model_or_its_error(run: Run, client_of: MakeClient, script: Script, kind: type[SiorgError]) -> None:
    async def scenario() -> None:
        errors: list[tuple[str, str]] = []
        calls: list[tuple[str, str, float]] = []
        async with (
            ScriptedServer(script) as server,
            client_of(
                server.url,
                token=TOKEN,
                limiter=Recorder(),
                observe=lambda *call: calls.append(call),
                observe_error=lambda *error: errors.append(error),
            ) as client,
        ):
            with pytest.raises(SiorgError) as caught:
                await client.unit(471)
            assert type(caught.value) is kind
            ((asked, _),) = errors
            assert asked == "unit"
            ((endpoint, status, seconds),) = calls
            assert (endpoint, seconds >= 0) == ("unit", True)
            assert status == "error" or status.isdigit()
            assert caught.value.__context__ is None or isinstance(caught.value.__context__, SiorgError)
            json.dumps(dict(caught.value.details), allow_nan=False)

    run(scenario())


def test_errors_of_changes_and_structures(run: Run, client_of: MakeClient) -> None:
    async def scenario() -> None:
        script = in_turn(reply(200, envelope("unidades", None, code=103)), reply(200, envelope("unidades", None, code=104)))
        async with ScriptedServer(script) as server, client_of(server.url) as client:
            with pytest.raises(VersionUnknown):
                await client.changed_since(471, "1.0.0")
            with pytest.raises(NotAnOrganization):
                await client.structure(9)
            assert len(server.received) == 2

    run(scenario())


def test_gzip_is_read_also_in_several_members_and_tiny_pieces(run: Run, client_of: MakeClient) -> None:
    body = envelope(value=unit_row(471))
    packed = gzip.compress(body[:50]) + gzip.compress(body[50:])

    async def dripped(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
        for byte in packed:
            writer.write(b"1\r\n" + bytes([byte]) + b"\r\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def scenario() -> None:
        script = in_turn(reply(200, packed, Content_Encoding="gzip"), reply(200, packed, Content_Encoding="X-GZip"), dripped)
        async with ScriptedServer(script) as server, client_of(server.url) as client:
            for _ in range(3):
                assert (await client.unit(471)).code == 471
            assert server.connections == 1

    run(scenario())


# ── Structures of organizations outside the federal executive ────────────────────────────────────────────────────────


def structure_server(filtered: Any, unfiltered: Any, judicial: Any = None, *, code: int = 0) -> Script:
    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        if "codigoPoder=1&" in request.target:
            answer = reply(200, envelope("unidades", filtered, code=code))
        elif "codigoPoder=3&" in request.target:
            answer = reply(200, envelope("unidades", judicial))
        else:
            answer = reply(200, envelope("unidades", unfiltered))
        await answer(request, writer)

    return script


ROOT = unit_row(471)
JUDICIAL_ROOT = unit_row(471, codigoPoder="https://x/id/poder/3", codigoEsfera="https://x/id/esfera/1")


@pytest.mark.parametrize("code", [0, 101])
@pytest.mark.parametrize("filtered", [[], None, [unit_row(9)]])
def test_an_organization_that_the_filters_leave_out_is_asked_for_without_them(
    run: Run, client_of: MakeClient, filtered: Any, code: int
) -> None:
    async def scenario() -> None:
        script = structure_server(filtered, [ROOT, unit_row(9)], code=code)
        async with ScriptedServer(script) as server, client_of(server.url) as client:
            assert set((await client.structure(471)).units) == {471, 9}
            assert server.targets[1:] == [
                "/doc/estrutura-organizacional/completa?codigoUnidade=471&retornarOrgaoEntidadeVinculados=NAO"
            ]

    run(scenario())


def test_a_root_alone_is_asked_about_with_its_own_power_and_sphere(run: Run, client_of: MakeClient) -> None:
    async def scenario() -> None:
        script = structure_server([], [JUDICIAL_ROOT], [JUDICIAL_ROOT, unit_row(9), unit_row(10)])
        async with ScriptedServer(script) as server, client_of(server.url) as client:
            assert set((await client.structure(471)).units) == {471, 9, 10}
            assert len(server.received) == 3
        async with (
            ScriptedServer(structure_server([], [JUDICIAL_ROOT], [JUDICIAL_ROOT])) as server,
            client_of(server.url) as client,
        ):
            assert set((await client.structure(471)).units) == {471}
        async with ScriptedServer(structure_server([], [ROOT])) as server, client_of(server.url) as client:
            assert set((await client.structure(471)).units) == {471}

    run(scenario())


@pytest.mark.parametrize(
    ("unfiltered", "judicial"),
    [([], None), (None, None), ([unit_row(9)], None), ([JUDICIAL_ROOT], []), ([JUDICIAL_ROOT], [unit_row(9)])],
)
def test_a_structure_without_the_organization_is_never_believed(
    run: Run, client_of: MakeClient, unfiltered: Any, judicial: Any
) -> None:
    async def scenario() -> None:
        script = structure_server([], unfiltered, judicial)
        breaker = Breaker(1, 60.0, 60.0)
        async with ScriptedServer(script) as server, client_of(server.url, breaker=breaker, retries=2) as client:
            with pytest.raises(MalformedResponse):
                await client.structure(471)
            # SIORG is well: it answered each question whole.
            assert breaker.state is BreakerState.CLOSED
            assert client.retries == 0

    run(scenario())


def test_an_unreadable_root_alone_is_an_invalid_answer(run: Run, client_of: MakeClient) -> None:
    async def scenario() -> None:
        script = structure_server([], [unit_row(471, nome=5)])
        async with ScriptedServer(script) as server, client_of(server.url) as client:
            with pytest.raises(InvalidData, match="nome"):
                await client.structure(471)

    run(scenario())


# ── Refusals, and who says them ──────────────────────────────────────────────────────────────────────────────────────

NOT_SIORG = [
    HTML_404,
    reply(400),
    reply(405, "<html>Method Not Allowed</html>"),
    reply(406, "no JSON"),
    reply(410, "gone"),
    reply(300, "choose"),
    reply(304),
    reply(418, b"x" * 500_000),
    raw(b"HTTP/1.1 400 Bad\r\nContent-Length: 500\r\n\r\ncut"),
]


@pytest.mark.parametrize("script", NOT_SIORG)
def test_a_refusal_of_everything_by_another_than_siorg_is_no_answer(run: Run, client_of: MakeClient, script: Script) -> None:
    async def scenario() -> None:
        breaker = Breaker(100, 60.0, 60.0)
        async with ScriptedServer(script) as server, client_of(server.url, breaker=breaker) as client:
            for question in (client.unit(471), client.structure(471), client.domain(DomainTable.SPHERE), client.probe()):
                with pytest.raises(SiorgUnavailable):
                    await question
            assert breaker.consecutive_failures == 4

    run(scenario())


@pytest.mark.parametrize("script", NOT_SIORG)
def test_the_same_refusal_is_believed_where_siorg_itself_is_heard(run: Run, client_of: MakeClient, script: Script) -> None:
    async def scenario() -> None:
        breaker = Breaker(100, 60.0, 60.0)
        script_of = by_path({"/esfera": ESFERA}, script)
        async with ScriptedServer(script_of) as server, client_of(server.url, breaker=breaker) as client:
            with pytest.raises(NotFound if script is HTML_404 else RequestRefused):
                await client.unit(471)
            assert breaker.consecutive_failures == 0

    run(scenario())


def test_a_wrong_address_does_not_make_every_unit_not_found(run: Run, client_of: MakeClient) -> None:
    async def scenario() -> None:
        async with ScriptedServer(HTML_404) as server, client_of(server.url) as client:
            results = await asyncio.gather(*(client.unit(code) for code in range(1, 21)), return_exceptions=True)
            for result in results:
                assert type(result) is SiorgUnavailable
                assert "is SIORG_API_URL right?" in str(result)
            # Those that were asked at a time shared the question whether this is SIORG.
            assert 1 <= server.targets.count("/doc/esfera") < 20

    run(scenario())


def test_a_404_is_believed_from_who_is_siorg_now(run: Run, client_of: MakeClient) -> None:
    async def scenario() -> None:
        limiter = Recorder()
        script = by_path({"/esfera": ESFERA, "/unidade-organizacional/471/": UNIT}, HTML_404)
        async with ScriptedServer(script) as server, client_of(server.url, limiter=limiter) as client:
            with pytest.raises(NotFound, match="HTTP 404"):
                await client.unit(9)
            await client.unit(471)
            # An earlier good answer is no proof: since then a gateway may answer 404 to everything.
            server.script = HTML_404
            with pytest.raises(SiorgUnavailable, match="not as SIORG"):
                await client.unit(471)
            assert limiter.waits == len(server.received) == 5

    run(scenario())


@pytest.mark.parametrize(
    ("esfera", "kind"),
    [
        (reply(200, envelope("esfera", None, code=1)), NotFound),
        (reply(500), SiorgUnavailable),
        (reply(429), RateLimited),
        (reply(200, "{}"), SiorgUnavailable),
        (reply(401), SiorgUnavailable),
        (raw(b""), SiorgUnavailable),
    ],
)
def test_the_question_whether_this_is_siorg_may_fail_too(
    run: Run, client_of: MakeClient, esfera: Script, kind: type[SiorgError]
) -> None:
    async def scenario() -> None:
        script = by_path({"/esfera": esfera}, HTML_404)
        async with ScriptedServer(script) as server, client_of(server.url, limiter=Recorder()) as client:
            with pytest.raises(SiorgError) as caught:
                await client.unit(9)
            assert type(caught.value) is kind

    run(scenario())


# ── Time and size ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_body_that_drips_for_ever_is_cut_at_the_budget(run: Run, client_of: MakeClient) -> None:
    async def drip(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        await until_closed(writer, b" ")

    async def drip_headers(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        await until_closed(writer, b"X-A: b\r\n")

    async def drip_error(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 1000000\r\n\r\n")
        await until_closed(writer, b" ")

    async def scenario() -> None:
        for script in (drip, drip_headers, drip_error):
            async with (
                ScriptedServer(script) as server,
                client_of(server.url, timeout_seconds=0.2, max_structure_seconds=0.2, retries=2) as client,
            ):
                began = asyncio.get_running_loop().time()
                for question in (client.unit(471), client.structure(471), client.probe()):
                    with pytest.raises(SiorgUnavailable, match="within"):
                        await question
                # One budget for a call with all its retries: nothing was left for any.
                assert asyncio.get_running_loop().time() - began < 5
                assert client.retries == 0
                assert len(server.received) == 3

    run(scenario())


def test_a_server_that_never_answers_is_given_up(run: Run, client_of: MakeClient) -> None:
    async def silence(_request: Received, writer: asyncio.StreamWriter) -> None:
        await until_closed(writer, b"")

    async def scenario() -> None:
        async with ScriptedServer(silence) as server, client_of(server.url, timeout_seconds=0.2) as client:
            with pytest.raises(SiorgUnavailable, match="within"):
                await client.unit(471)

    run(scenario())


def test_a_gzip_bomb_is_stopped_at_the_cap_without_being_unpacked(run: Run, client_of: MakeClient) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(512)) + packer.flush()  # 512 MiB in half a megabyte

    async def scenario() -> None:
        async with (
            ScriptedServer(reply(200, bomb, Content_Encoding="gzip")) as server,
            client_of(server.url, max_body_bytes=1 << 20) as client,
        ):
            before = peak_kilobytes()
            with pytest.raises(AnswerTooLarge, match="over 1048576 bytes"):
                await client.unit(471)
            assert peak_kilobytes() - before < 30_000

    run(scenario())


def peak_kilobytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_cap_is_not_read_to_its_end(run: Run, client_of: MakeClient, declared: bool) -> None:
    async def endless(_request: Received, writer: asyncio.StreamWriter) -> None:
        length = b"Content-Length: 99999999999\r\n" if declared else b""
        writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
        await until_closed(writer, b"x" * 65536)

    async def scenario() -> None:
        async with (
            ScriptedServer(endless) as server,
            client_of(server.url, max_body_bytes=100_000, retries=2) as client,
        ):
            with pytest.raises(AnswerTooLarge):
                await client.unit(471)
            assert len(server.received) == 1  # permanent: not asked again

    run(scenario())


def test_a_body_of_exactly_the_cap_is_read(run: Run, client_of: MakeClient) -> None:
    body = envelope(value=unit_row(471))

    async def scenario() -> None:
        script = in_turn(reply(200, body), reply(200, gzip.compress(body), Content_Encoding="gzip"))
        async with ScriptedServer(script) as server:
            async with client_of(server.url, max_body_bytes=len(body)) as client:
                await client.unit(471)
                await client.unit(471)
            async with client_of(server.url, max_body_bytes=len(body) - 1) as client:
                with pytest.raises(AnswerTooLarge):
                    await client.unit(471)

    run(scenario())


def test_a_refused_connection_says_so(run: Run, client_of: MakeClient) -> None:
    async def scenario() -> None:
        async with ScriptedServer(UNIT) as server:
            url = server.url
        async with client_of(url) as client:
            with pytest.raises(SiorgUnavailable, match="refuses the connection") as caught:
                await client.unit(471)
            assert caught.value.details["reason"] == "refused"
        async with client_of("http://no-such-host.invalid/doc") as client:
            with pytest.raises(SiorgUnavailable, match="cannot be resolved"):
                await client.unit(471)

        async def plain(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 this is no TLS\r\n\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(plain, "127.0.0.1", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            async with client_of(f"https://127.0.0.1:{port}") as client:
                with pytest.raises(SiorgUnavailable, match="TLS"):
                    await client.unit(471)

    run(scenario())


# ── Retry-After ──────────────────────────────────────────────────────────────────────────────────────────────────────

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def http_date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry_After": "7"}, 7.0),
        ({"Retry_After": "0"}, 0.0),
        ({"Retry_After": "99999"}, 3600.0),
        ({"Retry_After": "9" * 500}, 3600.0),
        ({"Retry_After": "-5"}, None),
        ({"Retry_After": "1.5"}, None),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "٣"}, None),
        ({"Retry_After": ""}, None),
        ({"Retry_After": http_date(NOW + timedelta(seconds=90)), "Date": http_date(NOW)}, 90.0),
        ({"Retry_After": http_date(NOW - timedelta(days=9)), "Date": http_date(NOW)}, 0.0),
        ({"Retry_After": http_date(NOW + timedelta(days=9)), "Date": http_date(NOW)}, 3600.0),
        ({"Retry_After": "Wed, 01 Jan 2020 00:00:00 GMT"}, 0.0),
        ({"Retry_After": "Fri, 01 Jan 2100 00:00:00 GMT"}, 3600.0),
        ({"Retry_After": "Xxx, 99 Foo 99999 99:99:99 GMT"}, None),
    ],
)
def test_retry_after_is_obeyed_within_an_hour(
    run: Run, client_of: MakeClient, headers: dict[str, str], seconds: float | None
) -> None:
    headers = {name: value.encode("utf-8").decode("latin-1") for name, value in headers.items()}

    async def scenario() -> None:
        limiter = Recorder()
        script = in_turn(reply(429, **headers), reply(503, **headers))
        async with ScriptedServer(script) as server, client_of(server.url, limiter=limiter) as client:
            with pytest.raises(RateLimited) as limited:
                await client.unit(471)
            assert limited.value.retry_after == seconds
            assert limiter.pauses == [5.0 if seconds is None else seconds]
            with pytest.raises(SiorgUnavailable) as unavailable:
                await client.unit(471)
            assert unavailable.value.retry_after == seconds

    run(scenario())


# ── Retries and the breaker ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bad", [reply(502), reply(200, ""), raw(b""), reply(200, envelope(code=1))])
def test_transient_failures_are_asked_again_at_once(run: Run, client_of: MakeClient, bad: Script) -> None:
    async def scenario() -> None:
        limiter = Recorder()
        errors: list[tuple[str, str]] = []
        async with (
            ScriptedServer(in_turn(bad, bad, UNIT)) as server,
            client_of(server.url, limiter=limiter, retries=2, observe_error=lambda *error: errors.append(error)) as client,
        ):
            assert (await client.unit(471)).code == 471
            assert (client.retries, limiter.waits, len(errors)) == (2, 3, 2)
            server.script = bad
            with pytest.raises(SiorgError):
                await client.unit(471)
            assert len(server.received) == 6

    run(scenario())


@pytest.mark.parametrize(
    "script",
    [
        reply(429),
        reply(503, Retry_After="30"),
        reply(404, envelope(code=102)),
        reply(403),
        reply(400, envelope(code=100)),
        reply(200, envelope(code=101)),
        reply(200, envelope(value=unit_row(1))),
    ],
)
def test_what_does_not_mend_at_once_is_not_asked_again(run: Run, client_of: MakeClient, script: Script) -> None:
    async def scenario() -> None:
        async with ScriptedServer(script) as server, client_of(server.url, limiter=Recorder(), retries=2) as client:
            with pytest.raises(SiorgError):
                await client.unit(471)
            assert len(server.received) == 1

    run(scenario())


def test_the_breaker_opens_and_then_nothing_is_sent(run: Run, client_of: MakeClient) -> None:
    async def scenario() -> None:
        breaker = Breaker(2, 60.0, 60.0)
        limiter = Recorder()
        async with (
            ScriptedServer(reply(500)) as server,
            client_of(server.url, breaker=breaker, limiter=limiter, retries=5) as client,
        ):
            with pytest.raises(SiorgUnavailable, match="HTTP 500"):
                await client.unit(471)
            assert (len(server.received), breaker.state) == (2, BreakerState.OPEN)
            for question in (client.unit(471), client.structure(471), client.probe()):
                with pytest.raises(BreakerOpen) as caught:
                    await question
                assert 0 < caught.value.retry_in <= 60
            assert (len(server.received), limiter.waits) == (2, 2)

    run(scenario())


@pytest.mark.parametrize(
    ("script", "failures"),
    [
        (reply(500), 1),
        (reply(200, ""), 1),
        (raw(b""), 1),
        (reply(200, envelope(code=1)), 1),
        (HTML_404, 1),
        (reply(429), 7),
        (reply(404, envelope(code=102)), 0),
        (reply(200, envelope(value=unit_row(471, nome=5))), 0),
        (reply(400), 1),
        (reply(400, envelope(code=100)), 0),
        (reply(200, envelope(code=101)), 0),
        (reply(401), 0),
        (UNIT, 0),
    ],
)
def test_what_counts_for_the_breaker(run: Run, client_of: MakeClient, script: Script, failures: int) -> None:
    """From seven failures before: one more, none (it answered), or as before (it says nothing about health)."""

    async def scenario() -> None:
        breaker = Breaker(100, 60.0, 60.0)
        async with (
            ScriptedServer(script) as server,
            client_of(server.url, breaker=breaker, limiter=Recorder()) as client,
        ):
            for _ in range(7):
                breaker.failure(breaker.before_request())
            with contextlib.suppress(SiorgError):
                await client.unit(471)
            assert breaker.consecutive_failures == (8 if failures == 1 else failures)

    run(scenario())


def test_after_the_cooldown_one_request_finds_out_and_the_others_wait(run: Run, client_of: MakeClient) -> None:
    async def scenario() -> None:
        now = 0.0
        breaker = Breaker(1, 10.0, 10.0, lambda: now, lambda: 0.0)
        arrived, answer = asyncio.Event(), asyncio.Event()

        async def held(request: Received, writer: asyncio.StreamWriter) -> None:
            arrived.set()
            await answer.wait()
            await UNIT(request, writer)

        async with ScriptedServer(reply(500)) as server, client_of(server.url, breaker=breaker) as client:
            with pytest.raises(SiorgUnavailable):
                await client.unit(471)
            now = 10.0
            server.script = held
            cancelled = asyncio.create_task(client.unit(471))
            await arrived.wait()
            with pytest.raises(BreakerOpen):
                await client.unit(471)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            # The cancelled probe has made room for another.
            arrived.clear()
            probe = asyncio.create_task(client.unit(471))
            await arrived.wait()
            with pytest.raises(BreakerOpen):
                await client.unit(471)
            answer.set()
            assert (await probe).code == 471
            assert (await client.unit(471)).code == 471
            assert breaker.state is BreakerState.CLOSED

    run(scenario())


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (ESFERA, None),
        (reply(404, envelope(code=102)), None),
        (reply(400, envelope(code=100)), None),
        (reply(404, envelope(code=1)), SiorgUnavailable),
        (HTML_404, SiorgUnavailable),
        (reply(400), SiorgUnavailable),
        (reply(405), SiorgUnavailable),
        (reply(410, "<html>"), SiorgUnavailable),
        (reply(304), SiorgUnavailable),
        (reply(401), AccessRefused),
        (reply(403, "<html>"), AccessRefused),
        (reply(407), AccessRefused),
        (reply(302, Location="http://elsewhere.example/"), AccessRefused),
        (reply(200, "no JSON"), MalformedResponse),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ncut"), MalformedResponse),
        (reply(500), SiorgUnavailable),
        (reply(503), SiorgUnavailable),
        (raw(b""), SiorgUnavailable),
        (reply(429), RateLimited),
    ],
)
def test_a_probe_takes_nothing_but_siorgs_own_word_for_life(
    run: Run, client_of: MakeClient, script: Script, kind: type[SiorgError] | None
) -> None:
    async def scenario() -> None:
        now = 0.0
        breaker = Breaker(1, 10.0, 10.0, lambda: now, lambda: 0.0)
        breaker.failure(breaker.before_request())
        now = 10.0
        async with (
            ScriptedServer(script) as server,
            client_of(server.url, breaker=breaker, limiter=Recorder(), retries=2) as client,
        ):
            if kind is None:
                await client.probe()
                assert breaker.state is BreakerState.CLOSED
            else:
                with pytest.raises(kind):
                    await client.probe()
                # Who refuses us is there; that a person has to act is what the error says.
                assert breaker.state is (BreakerState.CLOSED if kind is AccessRefused else BreakerState.OPEN)
            assert server.targets == ["/doc/esfera"]

    run(scenario())


def test_a_probe_follows_redirects_as_every_question_does(run: Run, client_of: MakeClient) -> None:
    async def scenario() -> None:
        script = by_path({"/esfera/": ESFERA}, reply(301, Location="/doc/esfera/"))
        async with ScriptedServer(script) as server, client_of(server.url) as client:
            await client.probe()
            assert server.targets == ["/doc/esfera", "/doc/esfera/"]

    run(scenario())


def test_what_was_never_sent_or_was_cancelled_is_not_told_to_the_observers(run: Run, client_of: MakeClient) -> None:
    async def scenario() -> None:
        told: list[tuple[Any, ...]] = []
        arrived = asyncio.Event()

        async def held(_request: Received, writer: asyncio.StreamWriter) -> None:
            arrived.set()
            await until_closed(writer, b"")

        breaker = Breaker(1, 60.0, 60.0)
        async with (
            ScriptedServer(held) as server,
            client_of(
                server.url,
                breaker=breaker,
                observe=lambda *call: told.append(call),
                observe_error=lambda *error: told.append(error),
            ) as client,
        ):
            cancelled = asyncio.create_task(client.unit(471))
            await arrived.wait()
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            assert told == []
            server.script = reply(500)
            with pytest.raises(SiorgUnavailable):
                await client.unit(471)
            assert [entry[0:2] for entry in told] == [("unit", "500"), ("unit", "SiorgUnavailable")]
            for question in (client.unit(471), client.probe()):
                with pytest.raises(BreakerOpen):
                    await question
            assert len(told) == 2

    run(scenario())


# ── Redirects and secrets ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_within_the_origin_are_followed(run: Run, client_of: MakeClient, status: int) -> None:
    async def scenario() -> None:
        limiter = Recorder()
        script = in_turn(reply(status, Location="/doc/b"), reply(status, Location="c?x=1#f"), reply(status, Location="d"), UNIT)
        async with ScriptedServer(script) as server, client_of(server.url, token=TOKEN, limiter=limiter) as client:
            assert (await client.unit(471)).code == 471
            assert server.targets[1:] == ["/doc/b", "/doc/c?x=1", "/doc/d"]
            assert limiter.waits == 4

    run(scenario())


def test_redirects_elsewhere_are_refused_and_the_token_stays(run: Run, client_of: MakeClient) -> None:
    async def scenario() -> None:
        async with ScriptedServer(UNIT) as evil, ScriptedServer(UNIT) as server:
            port = server.port
            locations = [
                evil.url,
                f"//127.0.0.1:{evil.port}/doc",
                f"https://127.0.0.1:{port}/doc",
                f"http://localhost:{port}/doc",
                f"http://127.0.0.1:{port}@127.0.0.1:{evil.port}/doc",
                f"http://{TOKEN}@127.0.0.1:{port}/doc",
                f"http://127.0.0.1:{port}\\@127.0.0.1:{evil.port}/",
                f"http://{TOKEN}.evil.example/",
                "http://127.0.0.1/doc",
                "ftp://127.0.0.1/doc",
                "file:///etc/passwd",
                "http://[::1",
                "http://127.0.0.1:99999999/",
                "javascript:alert(1)",
                "data:,x",
                "",
                " ",
            ]
            for location in locations:
                server.script = reply(302, Location=location)
                async with client_of(server.url, token=TOKEN, limiter=Recorder()) as client:
                    with pytest.raises(AccessRefused) as caught:
                        await client.unit(471)
                    assert TOKEN not in shown(caught.value)
            server.script = reply(302)
            async with client_of(server.url, token=TOKEN) as client:
                with pytest.raises(AccessRefused, match="elsewhere"):
                    await client.unit(471)
            assert evil.received == []

    run(scenario())


def test_a_circle_of_redirects_ends(run: Run, client_of: MakeClient) -> None:
    async def scenario() -> None:
        async with ScriptedServer(reply(302, Location="/doc/a")) as server, client_of(server.url, retries=2) as client:
            with pytest.raises(AccessRefused, match="circle"):
                await client.unit(471)
            assert len(server.received) == 4

    run(scenario())


def shown(error: BaseException) -> str:
    """All that a log could show of an error: its text, its details, and the whole chain behind it."""
    seen: list[str] = []
    following: BaseException | None = error
    while following is not None:
        seen += [repr(following), str(following), repr(vars(following)), *traceback.format_exception(following)]
        following = following.__context__
    return "\n".join(seen)


@pytest.mark.parametrize(
    "script",
    [
        reply(401),
        reply(200, f"<html>{TOKEN}</html>"),
        reply(200, envelope(code=100, message=f"Bearer {TOKEN}", ticket=TOKEN)),
        reply(400, envelope(code=1, message=f"who is {TOKEN}?")),
        reply(200, envelope(value={**unit_row(471), f"{TOKEN}": "\x00"})),
        reply(302, Location=f"https://evil.example/{TOKEN}"),
        raw(b""),
        raw(f"HTTP/1.1 {TOKEN} nonsense\r\n\r\n".encode()),
        raw(f"HTTP/1.1 200 OK\r\nBad Header {TOKEN}\r\n\r\n".encode()),
        HTML_404,
    ],
)
def test_the_token_is_in_nothing_that_is_raised_even_when_echoed(
    run: Run, client_of: MakeClient, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")

    async def scenario() -> None:
        async with ScriptedServer(script) as server, client_of(server.url, token=TOKEN) as client:
            with pytest.raises(SiorgError) as caught:
                await client.unit(471)
            assert TOKEN not in shown(caught.value)
            assert TOKEN not in repr(client)
            assert server.received[0].headers["authorization"].endswith(TOKEN)

    run(scenario())
    assert TOKEN not in "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("siorg"))


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX-Evil: 1", "tökén", "a\x00", "\n"])
def test_a_token_that_is_no_header_is_refused_without_repeating_it(client_of: MakeClient, token: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as caught:
        client_of("https://api.siorg.gov.br", token=token)
    assert token == "" or token not in repr(caught.value)


@pytest.mark.parametrize("url", ["https://host:x@evil/", "https://a@b.c", "https://b.c?x=y", "b.c", "ftp://b.c"])
def test_the_client_checks_the_form_of_its_address_too(client_of: MakeClient, url: str) -> None:
    with pytest.raises(ValueError, match="address of SIORG"):
        client_of(url)


def test_an_unusable_bundle_or_proxy_is_told(
    run: Run, client_of: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bundle in (tmp_path / "absent.pem", tmp_path / "empty.pem"):
        (tmp_path / "empty.pem").write_text("no certificate")
        with pytest.raises(ValueError, match="CA bundle"):
            client_of("https://api.siorg.gov.br", ca_bundle=bundle)
    monkeypatch.setenv("HTTP_PROXY", "gopher://user:hunter2secret@proxy:1")

    async def scenario() -> None:
        async with client_of("http://siorg.example/doc") as client:
            with pytest.raises(AccessRefused, match="proxy") as caught:
                await client.unit(471)
            assert "hunter2secret" not in shown(caught.value)

    run(scenario())


def test_tls_is_verified_and_a_bundle_adds_an_authority(run: Run, client_of: MakeClient, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        capture_output=True,
        check=False,
    )  # fmt: skip
    if made.returncode != 0:
        pytest.skip("openssl cannot make a certificate here")

    async def scenario() -> None:
        import ssl

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        async with ScriptedServer(UNIT, tls=context) as server:
            url = f"https://localhost:{server.port}/doc"
            async with client_of(url) as client:
                with pytest.raises(SiorgUnavailable, match="certificate is not trusted") as caught:
                    await client.unit(471)
                assert caught.value.details["reason"] == "tls"
            async with client_of(url, ca_bundle=certificate) as client:
                assert (await client.unit(471)).code == 471
            async with client_of(url.replace("localhost", "127.0.0.1"), ca_bundle=certificate) as client:
                with pytest.raises(SiorgUnavailable, match="certificate is not trusted"):
                    await client.unit(471)

    run(scenario())


# ── Many at a time ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_64_at_a_time_share_as_many_connections_and_survive_cancellation(run: Run, client_of: MakeClient) -> None:
    async def scenario() -> None:
        hold = asyncio.Event()
        waiting = asyncio.Semaphore(0)

        async def script(request: Received, writer: asyncio.StreamWriter) -> None:
            if not hold.is_set():
                waiting.release()
                await hold.wait()
            code = int(request.target.split("/")[3])
            await reply(200, envelope(value=unit_row(code)))(request, writer)

        async with ScriptedServer(script) as server, client_of(server.url) as client:
            for _ in range(3):
                tasks = [asyncio.create_task(client.unit(code)) for code in range(1, 65)]
                for _ in tasks:
                    await waiting.acquire()
                for task in tasks[::2]:
                    task.cancel()
                hold.set()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
                assert [unit.code for unit in results[1::2]] == list(range(2, 65, 2))  # type: ignore[union-attr]
                hold.clear()
            hold.set()
            units = await asyncio.gather(*(client.unit(code) for code in range(1, 641)))
            assert [unit.code for unit in units] == list(range(1, 641))
            assert server.connections <= 64 + 3 * 32

    run(scenario())


def test_a_large_structure_is_read_while_others_are_answered(run: Run, client_of: MakeClient) -> None:
    rows = [unit_row(471)] + [unit_row(code, finalidade="x" * 500) for code in range(1000, 3000)]

    async def scenario() -> None:
        script = by_path({"/estrutura": reply(200, envelope("unidades", rows))}, UNIT)
        async with ScriptedServer(script) as server, client_of(server.url) as client:
            structure, unit = await asyncio.gather(client.structure(471), client.unit(471))
            assert (len(structure.units), unit.code) == (2001, 471)

    run(scenario())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([200, 200, 200, 201, 204, 301, 400, 401, 404, 429, 500, 503]),
            st.one_of(st.binary(max_size=80), st.just(envelope(value=unit_row(471))), st.just(envelope(code=102))),
            st.dictionaries(
                st.sampled_from(["Location", "Retry-After", "Content-Encoding", "Date", "Content-Type"]),
                st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20),
            ),
        ),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 200),
)
def test_nothing_but_errors_of_the_tree_ever_comes_out(answers: list[tuple[int, bytes, dict[str, str]]], cut: int) -> None:
    def wire(status: int, body: bytes, headers: dict[str, str]) -> bytes:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *(f"{n}: {v}" for n, v in headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    async def scenario() -> None:
        scripts = [raw(wire(*answer)) for answer in answers] + [raw(wire(*answers[0])[:cut])]
        async with (
            ScriptedServer(in_turn(*scripts)) as server,
            SiorgClient(server.url, limiter=Recorder(), breaker=Breaker(2, 1, 1), retries=0, timeout_seconds=5) as client,
        ):
            for question in (client.unit(471), client.structure(471), client.version(471), client.probe()):
                try:
                    await question
                except SiorgError as error:
                    error.message.encode()
                    json.dumps(dict(error.details), allow_nan=False)

    asyncio.run(scenario())


def test_the_package_itself_does_not_bring_the_http_library() -> None:
    code = "import sys, siorg_job.siorg; print([m for m in ('httpx2', 'httpcore2', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert done.stdout.strip() == "[]"


def environment() -> dict[str, str]:
    import os

    job = str(Path(__file__).resolve().parents[3] / "job")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [job, os.environ.get("PYTHONPATH", "")]))}
