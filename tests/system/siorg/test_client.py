"""What the client asks, whom it believes, when it asks again, and what it tells the breaker."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import zlib
from typing import Any

import pytest

from siorg_job.siorg.breaker import Breaker, BreakerState
from siorg_job.siorg.errors import (
    AccessRefused,
    BreakerOpen,
    InvalidData,
    MalformedResponse,
    NotAnOrganization,
    NotFound,
    RateLimited,
    RequestRefused,
    SiorgError,
    SiorgUnavailable,
)
from siorg_job.siorg.json_reader import JsonReader
from siorg_job.siorg.model import DomainTable
from support.event_loop import until
from support.scripted_server import Received, Script, by_path, envelope, in_turn, raw, reply, unit_row
from support.siorg_client import TOKEN, UNIT, WHOLE, Clock, Recorder, asking, client_of, error_of

ESFERA = reply(200, envelope("esfera", [{"codigoEsfera": 1, "descricaoEsfera": "Federal", "ativo": "SIM"}]))
HTML_404 = reply(404, "<html>Not Found</html>", Content_Type="text/html")


def structures(filtered: Any, unfiltered: Any = None, judicial: Any = None, *, code: int = 0) -> Script:
    """Answers to a structure with poder 1, without any, and with poder 3."""

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        if "codigoPoder=1&" in request.target:
            answer = reply(200, envelope("unidades", filtered, code=code))
        else:
            answer = reply(200, envelope("unidades", judicial if "codigoPoder=3&" in request.target else unfiltered))
        await answer(request, writer)

    return script


# ── Questions ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_each_question_goes_to_its_path_with_the_right_headers() -> None:
    script = by_path(
        {
            "/unidade-organizacional/471/completa": UNIT,
            "/unidade-organizacional/471/versao": reply(200, envelope("unidades", [{"versaoConsulta": "107.0.0"}])),
            "/estrutura-organizacional/completa": reply(200, envelope("unidades", [unit_row(471), unit_row(9)])),
            "/esfera": ESFERA,
        },
        reply(500),
    )
    async with asking(script, token=TOKEN) as (server, _), client_of(server.url, token=TOKEN) as client:
        assert (await client.unit(471)).name == "Faculdade de Geociências"
        assert await client.version(471) == "107.0.0"
        assert set((await client.structure(471)).units) == {471, 9}
        (sphere,) = await client.domain(DomainTable.SPHERE)
        assert (sphere.code, sphere.name) == (1, "Federal")
        await client.probe()
        filters = "codigoPoder=1&codigoEsfera=1&codigoUnidade=471&retornarOrgaoEntidadeVinculados=NAO"
        forms = ("completa", "versao")
        assert server.targets == [
            *(f"/doc/unidade-organizacional/471/{form}" for form in forms),
            f"/doc/estrutura-organizacional/completa?{filters}", "/doc/esfera", "/doc/esfera",
        ]  # fmt: skip
        expected = {"accept": "application/json", "accept-encoding": "gzip", "authorization": f"Bearer {TOKEN}"}
        for request in server.received:
            assert request.method == "GET"
            assert expected.items() <= request.headers.items()
            assert request.headers["user-agent"].startswith("siorg-sync/")
        assert server.connections == 1
    async with asking(UNIT) as (server, client):
        await client.unit(471)
        assert "authorization" not in server.received[0].headers


async def test_questions_that_cannot_be_are_refused_without_a_request() -> None:
    async with asking(UNIT) as (server, client):
        for code in (0, -1, 2**31, 10**20):
            for question in (client.unit(code), client.structure(code), client.version(code)):
                with pytest.raises(RequestRefused, match="1 to 2147483647"):
                    await question
        assert server.received == []


# With the failures in a row that the breaker has counted after it, of seven before: one more (SIORG is not well), none (it
# answered), or as many (that says nothing about its health).
ANSWERS: list[tuple[type[SiorgError], int, list[Script]]] = [
    (SiorgUnavailable, 8, [
        reply(200, envelope(code=1, ticket="T1")), reply(404, envelope(code=1)), reply(410, envelope(code=1)),
        reply(500, "<html>"), reply(502), reply(503, envelope(code=102)), reply(504), reply(408),
        raw(b""), raw(b"\x16\x03\x01 this is no HTTP\r\n\r\n"), raw(b"HTTP/1.1 200 OK\r\nContent-"),
        raw(b"HTTP/1.1 200 OK\r\n" + b"X-Fill: " + b"x" * 300_000)]),
    (MalformedResponse, 8, [
        reply(200, ""), reply(204), reply(200, "<html>Login</html>"), reply(200, '{"unidade":{"codigoUnidade":471}}'),
        reply(200, b"\x00\xff" * 100), reply(200, WHOLE[:-40]),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + WHOLE[:100]),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"ser\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        reply(200, gzip.compress(WHOLE)[:-12], Content_Encoding="gzip"), reply(200, WHOLE, Content_Encoding="gzip"),
        reply(200, gzip.compress(WHOLE) + b"more", Content_Encoding="gzip"),
        reply(200, zlib.compress(WHOLE), Content_Encoding="deflate"), reply(200, WHOLE, Content_Encoding="gzip, gzip")]),
    (MalformedResponse, 0, [reply(200, envelope(code=101)), reply(404, envelope(code=101))]),
    (NotFound, 0, [reply(200, envelope(code=102)), reply(404, envelope(code=102)), reply(404, envelope())]),
    (NotAnOrganization, 0, [reply(200, envelope(code=104))]),
    (RequestRefused, 0, [
        reply(200, envelope(code=103)), reply(400, envelope()), reply(400, envelope(code=100, message="O campo")),
        reply(405, envelope(code=103))]),
    (InvalidData, 0, [reply(200, envelope(value=unit_row(472))), reply(200, envelope(value=unit_row(471, nome=5)))]),
    (AccessRefused, 0, [reply(401), reply(403, WHOLE), reply(407)]),
    (RateLimited, 7, [reply(429)]),
]  # fmt: skip


async def test_every_answer_is_a_model_or_its_error() -> None:
    for kind, failures, script in ((kind, failures, script) for kind, failures, scripts in ANSWERS for script in scripts):
        breaker = Breaker(100, 60.0, 60.0)
        for _ in range(7):
            breaker.failure(breaker.before_request())
        errors: list[tuple[str, str]] = []
        calls: list[tuple[str, str, float]] = []
        observers = {"observe": lambda *call: calls.append(call), "observe_error": lambda *error: errors.append(error)}  # noqa: B023
        async with asking(script, token=TOKEN, breaker=breaker, **observers) as (_, client):
            error = await error_of(client.unit(471))
        assert type(error) is kind, script
        assert breaker.consecutive_failures == failures, script
        assert [asked for asked, _ in errors] == ["unit"], script
        ((endpoint, status, seconds),) = calls
        assert (endpoint, seconds >= 0) == ("unit", True), script
        assert status == "error" or status.isdigit(), script
        assert error.__context__ is None or isinstance(error.__context__, SiorgError), script
        json.dumps(dict(error.details), allow_nan=False)


async def test_other_questions_have_answers_of_their_own() -> None:
    async with asking(in_turn(reply(200, envelope("unidades", None, code=104)))) as (server, client):
        with pytest.raises(NotAnOrganization):
            await client.structure(9)
        assert len(server.received) == 1
    large = [unit_row(471)] + [unit_row(code, finalidade="x" * 500) for code in range(1000, 3000)]
    async with asking(by_path({"/estrutura": reply(200, envelope("unidades", large))}, UNIT)) as (_, client):
        structure, unit = await asyncio.gather(client.structure(471), client.unit(471))  # the large body is read on a thread
        assert (len(structure.units), unit.code) == (2001, 471)


# ── Structures of organizations outside the federal executive ────────────────────────────────────────────────────────

ROOT = unit_row(471)
JUDICIAL_ROOT = unit_row(471, codigoPoder="https://x/id/poder/3", codigoEsfera="https://x/id/esfera/1")


async def test_an_organization_that_the_filters_leave_out_is_asked_for_without_them() -> None:
    for code in (0, 101):
        for filtered in ([], None, [unit_row(9)]):
            async with asking(structures(filtered, [ROOT, unit_row(9)], code=code)) as (server, client):
                assert set((await client.structure(471)).units) == {471, 9}
                unfiltered = "codigoUnidade=471&retornarOrgaoEntidadeVinculados=NAO"
                assert server.targets[1:] == [f"/doc/estrutura-organizacional/completa?{unfiltered}"]


async def test_a_root_alone_is_asked_about_with_its_own_power_and_sphere() -> None:
    for unfiltered, judicial, codes, requests in (
        ([JUDICIAL_ROOT], [JUDICIAL_ROOT, unit_row(9), unit_row(10)], {471, 9, 10}, 3),
        ([JUDICIAL_ROOT], [JUDICIAL_ROOT], {471}, 3),
        ([ROOT], None, {471}, 2),
    ):
        async with asking(structures([], unfiltered, judicial)) as (server, client):
            assert set((await client.structure(471)).units) == codes
            assert len(server.received) == requests
    async with asking(structures([], [unit_row(471, nome=5)])) as (_, client):
        with pytest.raises(InvalidData, match="nome"):
            await client.structure(471)


async def test_a_structure_without_its_root_is_never_believed() -> None:
    stranger = [unit_row(9)]
    for unfiltered, judicial in (([], None), (None, None), (stranger, None), ([JUDICIAL_ROOT], []), ([JUDICIAL_ROOT], stranger)):
        breaker = Breaker(1, 60.0, 60.0)
        async with asking(structures([], unfiltered, judicial), breaker=breaker, retries=2) as (_, client):
            assert type(await error_of(client.structure(471))) is MalformedResponse, (unfiltered, judicial)
            # SIORG is well: it answered each question whole.
            assert (breaker.state, client.retries) == (BreakerState.CLOSED, 0)


# ── Refusals, and who says them ──────────────────────────────────────────────────────────────────────────────────────

NOT_SIORG = [
    HTML_404, reply(400), reply(405, "<html>Method Not Allowed</html>"), reply(406, "no JSON"), reply(410, "gone"),
    reply(300, "choose"), reply(304), reply(418, b"x" * 500_000), raw(b"HTTP/1.1 400 Bad\r\nContent-Length: 500\r\n\r\ncut"),
]  # fmt: skip


async def test_a_refusal_is_believed_only_where_siorg_itself_is_heard() -> None:
    for script in NOT_SIORG:
        breaker = Breaker(100, 60.0, 60.0)
        async with asking(script, breaker=breaker) as (_, client):
            for question in (client.unit(471), client.structure(471), client.domain(DomainTable.SPHERE), client.probe()):
                assert type(await error_of(question)) is SiorgUnavailable, script
            assert breaker.consecutive_failures == 4, script
        async with asking(by_path({"/esfera": ESFERA}, script), breaker=breaker) as (_, client):
            assert type(await error_of(client.unit(471))) is (NotFound if script is HTML_404 else RequestRefused), script
            assert breaker.consecutive_failures == 0, script


async def test_a_wrong_address_does_not_make_every_unit_not_found() -> None:
    async with asking(HTML_404) as (server, client):
        errors = await asyncio.gather(*(error_of(client.unit(code)) for code in range(1, 21)))
        assert {type(error) for error in errors} == {SiorgUnavailable}
        assert all("is SIORG_API_URL right?" in str(error) for error in errors)
        # Those that were asked at a time shared the question whether this is SIORG.
        assert 1 <= server.targets.count("/doc/esfera") < 20


async def test_a_404_is_believed_from_who_is_siorg_now() -> None:
    limiter = Recorder()
    script = by_path({"/esfera": ESFERA, "/unidade-organizacional/471/": UNIT}, HTML_404)
    async with asking(script, limiter=limiter) as (server, client):
        with pytest.raises(NotFound, match="HTTP 404"):
            await client.unit(9)
        await client.unit(471)
        # An earlier good answer is no proof: since then a gateway may answer 404 to everything.
        server.script = HTML_404
        with pytest.raises(SiorgUnavailable, match="not as SIORG"):
            await client.unit(471)
        assert limiter.waits == len(server.received) == 5


async def test_the_question_whether_this_is_siorg_may_fail_too() -> None:
    for esfera, kind in (
        (reply(200, envelope("esfera", None, code=1)), NotFound),
        (reply(500), SiorgUnavailable),
        (reply(429), RateLimited),
        (reply(200, "{}"), SiorgUnavailable),
        (reply(401), SiorgUnavailable),
        (raw(b""), SiorgUnavailable),
    ):
        async with asking(by_path({"/esfera": esfera}, HTML_404)) as (_, client):
            assert type(await error_of(client.unit(9))) is kind, esfera


# ── Retries and the breaker ──────────────────────────────────────────────────────────────────────────────────────────


async def test_transient_failures_are_asked_again_at_once() -> None:
    for bad in (reply(502), reply(200, ""), raw(b""), reply(200, envelope(code=1))):
        limiter = Recorder()
        errors: list[tuple[str, str]] = []
        observer = lambda *error: errors.append(error)  # noqa: E731, B023
        async with asking(in_turn(bad, bad, UNIT), limiter=limiter, retries=2, observe_error=observer) as (server, client):
            assert (await client.unit(471)).code == 471
            assert (client.retries, limiter.waits, len(errors)) == (2, 3, 2), bad
            server.script = bad
            assert await error_of(client.unit(471)) is not None, bad
            assert len(server.received) == 6, bad


async def test_what_does_not_mend_at_once_is_not_asked_again() -> None:
    for script in (
        reply(429), reply(503, Retry_After="30"), reply(404, envelope(code=102)), reply(403), reply(400, envelope(code=100)),
        reply(200, envelope(code=101)), reply(200, envelope(value=unit_row(1))),
    ):  # fmt: skip
        async with asking(script, retries=2) as (server, client):
            assert await error_of(client.unit(471)) is not None, script
            assert len(server.received) == 1, script


async def test_the_breaker_opens_and_then_nothing_is_sent() -> None:
    breaker, limiter = Breaker(2, 60.0, 60.0), Recorder()
    async with asking(reply(500), breaker=breaker, limiter=limiter, retries=5) as (server, client):
        with pytest.raises(SiorgUnavailable, match="HTTP 500"):
            await client.unit(471)
        assert (len(server.received), breaker.state) == (2, BreakerState.OPEN)
        for question in (client.unit(471), client.structure(471), client.probe()):
            with pytest.raises(BreakerOpen) as caught:
                await question
            assert 0 < caught.value.retry_in <= 60
        assert (len(server.received), limiter.waits) == (2, 2)


async def test_after_the_cooldown_one_request_finds_out_and_the_others_wait() -> None:
    clock = Clock()
    breaker = Breaker(1, 10.0, 10.0, clock, lambda: 0.0)
    arrived, answer = asyncio.Event(), asyncio.Event()

    async def held(request: Received, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await answer.wait()
        await UNIT(request, writer)

    async with asking(reply(500), breaker=breaker) as (server, client):
        with pytest.raises(SiorgUnavailable):
            await client.unit(471)
        clock.now += 10.0
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


async def test_a_probe_takes_nothing_but_siorgs_own_word_for_life() -> None:
    cases: dict[type[SiorgError] | None, list[Script]] = {
        None: [ESFERA, reply(404, envelope(code=102)), reply(400, envelope(code=100)), reply(200, envelope(code=104))],
        AccessRefused: [reply(401), reply(403, "<html>"), reply(407), reply(302, Location="http://elsewhere.example/")],
        MalformedResponse: [reply(200, "no JSON"), raw(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ncut")],
        SiorgUnavailable: [reply(404, envelope(code=1)), HTML_404, reply(500), reply(503), raw(b"")],
        RateLimited: [reply(429)],
    }
    for script, kind in ((script, kind) for kind, scripts in cases.items() for script in scripts):
        clock = Clock()
        breaker = Breaker(1, 10.0, 10.0, clock, lambda: 0.0)
        breaker.failure(breaker.before_request())
        clock.now += 10.0
        async with asking(script, breaker=breaker, retries=2) as (server, client):
            error = await error_of(client.probe())
            assert server.targets == ["/doc/esfera"], script
        assert (error and type(error)) is kind, script
        # Who refuses us is there; that a person has to act is what the error says.
        alive = kind in (None, AccessRefused)
        assert breaker.state is (BreakerState.CLOSED if alive else BreakerState.OPEN), script


async def test_what_was_never_sent_or_was_cancelled_is_not_told_to_the_observers() -> None:
    observed: list[tuple[Any, ...]] = []
    arrived = asyncio.Event()

    async def held(_request: Received, _writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await asyncio.Event().wait()

    observers = {"observe": lambda *call: observed.append(call), "observe_error": lambda *error: observed.append(error)}
    async with asking(held, breaker=Breaker(1, 60.0, 60.0), **observers) as (server, client):
        cancelled = asyncio.create_task(client.unit(471))
        await arrived.wait()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert observed == []
        server.script = reply(200, "")
        with pytest.raises(MalformedResponse):
            await client.unit(471)
        for question in (client.unit(471), client.probe()):
            with pytest.raises(BreakerOpen):
                await question
        assert [entry[0:2] for entry in observed] == [("unit", "200"), ("unit", "TornAnswer")]


# ── Many at a time ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_64_at_a_time_share_as_many_connections_and_survive_cancellation() -> None:
    hold = asyncio.Event()
    waiting = asyncio.Semaphore(0)

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        if not hold.is_set():
            waiting.release()
            await hold.wait()
        code = int(request.target.split("/")[3])
        await reply(200, envelope(value=unit_row(code)))(request, writer)

    async with asking(script) as (server, client):
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


async def test_a_request_takes_as_many_steps_beside_idle_connections_as_alone() -> None:
    hold = asyncio.Event()

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        await hold.wait()
        await UNIT(request, writer)

    async def steps() -> int:
        """Calls of functions for one request."""
        calls = 0

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal calls
            calls += event in {"call", "c_call"}

        sys.setprofile(count)
        try:
            await client.unit(471)
        finally:
            sys.setprofile(None)
        return calls

    async with asking(script) as (server, client):
        hold.set()
        await client.unit(471)
        alone = await steps()
        hold.clear()
        tasks = [asyncio.create_task(client.unit(471)) for _ in range(64)]
        await until(lambda: len(server.received) == 2 + 64, seconds=30)
        hold.set()
        await asyncio.gather(*tasks)
        among = await steps()
        assert server.connections == 64
    assert among <= alone * 1.1, f"{among} calls beside 63 idle connections, {alone} alone"


async def test_a_body_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[bytes] = []

    class Counted(JsonReader):
        def __init__(self, body: bytes | bytearray) -> None:
            bodies.append(bytes(body))
            super().__init__(body)

    monkeypatch.setattr("siorg_job.siorg.envelope.JsonReader", Counted)
    absent, refusal = envelope(code=102), envelope(code=103)
    for status, body, error in (
        (200, WHOLE, None),
        (200, absent, NotFound),
        (404, absent, NotFound),
        (400, refusal, RequestRefused),
    ):
        async with asking(reply(status, body)) as (_, client):
            came = await error_of(client.unit(471))
            assert came is None if error is None else isinstance(came, error)
        assert bodies == [body]
        bodies.clear()
