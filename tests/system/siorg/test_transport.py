"""The transport against servers that answer late, endlessly, packed, or from elsewhere; and what never leaves it."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
import struct
import traceback
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siorg_job.siorg.breaker import Breaker
from siorg_job.siorg.errors import AccessRefused, AnswerTooLarge, MalformedResponse, RateLimited, SiorgError, SiorgUnavailable
from support.certificates import made, strict
from support.event_loop import until
from support.scripted_server import Received, ScriptedServer, by_path, envelope, in_turn, raw, reply, unit_row
from support.siorg_client import TOKEN, UNIT, WHOLE, Recorder, asking, client_of, error_of

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


async def until_closed(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Write a piece again and again until the client has gone."""
    while not writer.is_closing():
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.01)


def shown(error: BaseException | None) -> str:
    """All that a log could show of an error: its text, its details, and the whole chain behind it."""
    seen: list[str] = []
    while error is not None:
        seen += [repr(error), str(error), repr(vars(error)), *traceback.format_exception(error)]
        error = error.__context__
    return "\n".join(seen)


# ── Time and size ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_whoever_does_not_come_to_an_end_is_cut_at_the_budget() -> None:
    for head, piece in (
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 1000000\r\n\r\n", b" "),
        (b"", b""),
    ):

        async def drip(_request: Received, writer: asyncio.StreamWriter, head: bytes = head, piece: bytes = piece) -> None:
            writer.write(head)
            await until_closed(writer, piece)

        async with asking(drip, timeout_seconds=0.4, max_structure_seconds=0.4, retries=2) as (server, client):
            for question in (client.unit(471), client.structure(471), client.probe()):
                with pytest.raises(SiorgUnavailable, match="within"):
                    await question
            # One budget for a call with all its retries: nothing was left for any.
            await until(lambda: len(server.received) == 3)
            assert client.retries == 0, head


async def test_a_gzip_bomb_is_stopped_at_the_cap_without_being_unpacked() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(512)) + packer.flush()  # 512 MiB in half a megabyte
    async with asking(reply(200, bomb, Content_Encoding="gzip"), max_body_bytes=1 << 20) as (_, client):
        before = peak_kilobytes()
        with pytest.raises(AnswerTooLarge, match="over 1048576 bytes"):
            await client.unit(471)
        assert peak_kilobytes() - before < 30_000


def peak_kilobytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


async def test_a_body_over_the_cap_is_not_read_to_its_end() -> None:
    for length in (b"", b"Content-Length: 99999999999\r\n"):

        async def endless(_request: Received, writer: asyncio.StreamWriter, length: bytes = length) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
            await until_closed(writer, b"x" * 65536)

        async with asking(endless, max_body_bytes=100_000, retries=2) as (server, client):
            with pytest.raises(AnswerTooLarge):
                await client.unit(471)
            assert len(server.received) == 1  # permanent: not asked again
    # One of exactly the cap is read.
    script = in_turn(reply(200, WHOLE), reply(200, gzip.compress(WHOLE), Content_Encoding="gzip"))
    async with asking(script, max_body_bytes=len(WHOLE)) as (server, client):
        await client.unit(471)
        await client.unit(471)
        async with client_of(server.url, max_body_bytes=len(WHOLE) - 1) as narrow:
            with pytest.raises(AnswerTooLarge):
                await narrow.unit(471)


async def test_large_answers_are_in_hand_one_at_a_time_and_waiting_costs_no_time() -> None:
    rows = [unit_row(code, nota="x" * 1000) for code in range(471, 871)]
    large, small = reply(200, envelope("unidades", rows)), reply(200, envelope("unidades", rows[:1]))
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def stalls(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b" " * 300_000)
        begun.set()
        await until_closed(writer, b" ")

    async def held(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 300001\r\n\r\n" + b" " * 300_000)
        begun.set()
        await may_end.wait()
        writer.write(b"x")

    # One that is given up lets the next go on, which has all of its own time.
    async with asking(in_turn(stalls, large), max_structure_seconds=0.5) as (_, client):
        first = asyncio.create_task(error_of(client.structure(471)))
        await begun.wait()
        assert len((await client.structure(471)).units) == 400
        assert isinstance(await first, SiorgUnavailable)
    # Small ones do not wait.
    begun.clear()
    async with asking(in_turn(held, large, small)) as (server, client):
        first = asyncio.create_task(error_of(client.structure(471)))
        await begun.wait()
        second = asyncio.create_task(client.structure(471))
        await until(lambda: len(server.received) == 2, seconds=30)
        assert (await client.unit(471)).code == 471
        assert not second.done()
        may_end.set()
        assert isinstance(await first, MalformedResponse)
        assert len((await second).units) == 400


async def test_gzip_is_read_also_in_several_members_and_tiny_pieces() -> None:
    packed = gzip.compress(WHOLE[:50]) + gzip.compress(WHOLE[50:])
    chunks = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in packed)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    dripped = raw(head + chunks + b"0\r\n\r\n", close=False)
    script = in_turn(reply(200, packed, Content_Encoding="gzip"), reply(200, packed, Content_Encoding="X-GZip"), dripped)
    async with asking(script) as (server, client):
        for _ in range(3):
            assert (await client.unit(471)).code == 471
        assert server.connections == 1


# ── Retry-After ──────────────────────────────────────────────────────────────────────────────────────────────────────


def http_date(days: float) -> str:
    return format_datetime(NOW + timedelta(days=days), usegmt=True)


async def test_retry_after_is_obeyed_within_an_hour() -> None:
    cases: dict[str, float | None] = {
        "7": 7.0, "0": 0.0, "99999": 3600.0, "9" * 500: 3600.0, "-5": None, "1.5": None, "soon": None, "": None,
        "٣".encode().decode("latin-1"): None, "Xxx, 99 Foo 99999 99:99:99 GMT": None,
        "Wed, 01 Jan 2020 00:00:00 GMT": 0.0, "Fri, 01 Jan 2100 00:00:00 GMT": 3600.0,
    }  # fmt: skip
    dated = {http_date(1 / 960): 90.0, http_date(-9): 0.0, http_date(9): 3600.0}
    for headers, seconds in (
        ({}, None),
        *(({"Retry_After": after}, seconds) for after, seconds in cases.items()),
        *(({"Retry_After": after, "Date": http_date(0)}, seconds) for after, seconds in dated.items()),
    ):
        limiter = Recorder()
        async with asking(in_turn(reply(429, **headers), reply(503, **headers)), limiter=limiter) as (_, client):
            limited, unavailable = await error_of(client.unit(471)), await error_of(client.unit(471))
        assert isinstance(limited, RateLimited), headers
        assert isinstance(unavailable, SiorgUnavailable), headers
        assert limited.retry_after == unavailable.retry_after == seconds, headers
        assert limiter.pauses == [5.0 if seconds is None else seconds], headers


async def test_a_cookie_comes_back_on_every_connection_of_its_origin() -> None:
    given = reply(302, Location="/doc/again", Set_Cookie="way=7; Path=/")
    async with asking(in_turn(given, UNIT)) as (server, client):
        await client.unit(471)
        await asyncio.gather(client.unit(471), client.unit(471))
        assert [request.headers.get("cookie") for request in server.received] == [None, "way=7", "way=7", "way=7"]


# ── Connections and TLS ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_why_no_connection_comes_about_is_told() -> None:
    async def plain(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 this is no TLS\r\n\r\n")
        await writer.drain()
        writer.close()

    async with ScriptedServer(UNIT) as server:
        closed = server.url
    async with await asyncio.start_server(plain, "127.0.0.1", 0) as listener:
        for url, said, reason in (
            (closed, "refuses the connection", "refused"),
            ("http://no-such-host.invalid/doc", "cannot be resolved", "name"),
            (
                f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}",
                r"no TLS connection .* \((wrong version|record layer)",
                "tls",
            ),
        ):
            async with client_of(url) as client:
                with pytest.raises(SiorgUnavailable, match=said) as caught:
                    await client.unit(471)
                assert caught.value.details["reason"] == reason


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of localhost that nobody has signed, and its key."""
    return made(tmp_path, "localhost", "-addext", "subjectAltName=DNS:localhost")


async def test_tls_is_verified_and_a_bundle_adds_an_authority(certificate: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    async with ScriptedServer(UNIT, tls=context) as server:
        url = f"https://localhost:{server.port}/doc"
        async with client_of(url, ca_bundle=certificate[0]) as client:
            assert (await client.unit(471)).code == 471
        for untrusting in (client_of(url), client_of(url.replace("localhost", "127.0.0.1"), ca_bundle=certificate[0])):
            async with untrusting as client:
                with pytest.raises(SiorgUnavailable, match="certificate is not trusted") as caught:
                    await client.unit(471)
                assert caught.value.details["reason"] == "tls"


async def test_why_a_handshake_fails_is_told() -> None:
    def alert(number: int) -> bytes:
        return bytes([21, 3, 3, 0, 2, 2, number])

    for answered, said in (
        (alert(40), "handshake failure"),
        (alert(70), "protocol version"),
        (alert(112), "unrecognized name"),
        (b"", "(unexpected eof while reading|the connection is closed in the middle of the handshake)"),
        (None, "the connection is closed in the middle of the handshake"),
    ):

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answered: bytes | None = answered) -> None:
            await reader.read(65536)
            if answered is None:  # a reset, and no orderly end
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.write(answered or b"")
            writer.close()

        async with (
            await asyncio.start_server(answer, "127.0.0.1", 0) as listener,
            client_of(f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}/doc") as client,
        ):
            with pytest.raises(SiorgUnavailable, match=rf"no TLS connection with SIORG comes about \(.*{said}\)") as caught:
                await client.unit(471)
            assert caught.value.details["reason"] == "tls"


async def test_strictness_of_a_newer_python_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, key = made(tmp_path, "authority")  # as many are: without key usage
    signed = ("-CA", str(authority), "-CAkey", str(key), "-addext", "basicConstraints=critical,CA:FALSE")
    certificate = made(tmp_path, "localhost", "-addext", "subjectAltName=DNS:localhost", *signed)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    monkeypatch.setattr(ssl, "create_default_context", strict())
    async with ScriptedServer(UNIT, tls=context) as server:
        url = f"https://localhost:{server.port}/doc"
        async with client_of(url) as client:
            with pytest.raises(SiorgUnavailable, match=r"key usage.* Python .*VERIFY_X509_STRICT.* SIORG_CA_BUNDLE"):
                await client.unit(471)
        async with client_of(url, ca_bundle=authority) as client:
            assert (await client.unit(471)).code == 471


# ── Proxies ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_a_proxy_does_is_told_of_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedServer(UNIT) as server:
        dead = f"http://name:hunter2secret@127.0.0.1:{server.port}"
    for scheme in ("http", "https"):
        for proxy, said in (
            (dead, "refuses the connection"),
            (dead.replace("127.0.0.1", "no-such-host.invalid"), "cannot be resolved"),
            (dead.replace("http", "https", 1), "refuses the connection"),
        ):
            monkeypatch.setenv(f"{scheme}_proxy", proxy)
            async with client_of(f"{scheme}://siorg.example/doc") as client:
                with pytest.raises(SiorgUnavailable, match=rf"the proxy that {scheme}_proxy names {said}") as caught:
                    await client.unit(471)
            assert caught.value.details["reason"] == "proxy"
            assert "hunter2secret" not in shown(caught.value)


async def test_what_a_proxy_answers_in_siorg_s_place_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals: tuple[tuple[int, type[SiorgError], str], ...] = (
        (502, SiorgUnavailable, r"does not reach SIORG \(HTTP 502\)"), (504, SiorgUnavailable, "does not reach SIORG"),
        (407, AccessRefused, "wants a user and a password"), (403, AccessRefused, "does not let anybody through"),
    )  # fmt: skip
    for status, kind, said in refusals:
        async with ScriptedServer(reply(status)) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            async with client_of("https://siorg.example/doc") as client:
                with pytest.raises(kind, match=f"the proxy that HTTPS_PROXY names {said}"):
                    await client.unit(471)
            assert (proxy.received[0].method, proxy.targets) == ("CONNECT", ["siorg.example:443"])


async def test_behind_a_proxy_what_siorg_does_is_told_of_siorg(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    targets: list[str] = []

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while piece := await source.read(65536):
            sink.write(piece)
        sink.close()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        targets.append((await reader.readuntil(b"\r\n\r\n")).split()[1].decode())
        there, back = await asyncio.open_connection("127.0.0.1", int(targets[-1].rpartition(":")[2]))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)

    async with ScriptedServer(UNIT, tls=context) as server, await asyncio.start_server(tunnel, "127.0.0.1", 0) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        url = f"https://localhost:{server.port}/doc"
        async with client_of(url, ca_bundle=certificate[0]) as client:
            assert (await client.unit(471)).code == 471
        assert targets == [f"localhost:{server.port}"]
        async with client_of(url) as client:
            with pytest.raises(SiorgUnavailable, match=r"^SIORG's certificate is not trusted"):
                await client.unit(471)
        monkeypatch.setenv("NO_PROXY", f"localhost:{server.port}")
        async with client_of(url, ca_bundle=certificate[0]) as client:
            assert (await client.unit(471)).code == 471
        assert len(targets) == 2
    # And what a proxy's own certificate lacks is told of the proxy.
    async with ScriptedServer(UNIT, tls=context) as untrusted:
        monkeypatch.setenv("https_proxy", f"https://localhost:{untrusted.port}")
        async with client_of("https://siorg.example/doc") as client:
            with pytest.raises(SiorgUnavailable, match=r"^the proxy that https_proxy names: its certificate is not trusted"):
                await client.unit(471)


async def test_a_proxy_that_says_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(_request: Received, writer: asyncio.StreamWriter) -> None:
        await until_closed(writer, b"")

    async with ScriptedServer(silent) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        async with client_of("https://siorg.example/doc", timeout_seconds=0.2) as client:
            with pytest.raises(SiorgUnavailable, match=r"within .* s \(through the proxy that ALL_PROXY names\)"):
                await client.unit(471)


async def test_an_unusable_bundle_or_proxy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as unmounted:
        unmounted.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")  # since the settings were read
        async with client_of("https://api.siorg.gov.br") as client:
            with pytest.raises(AccessRefused, match="certificates"):
                await client.unit(471)
    (tmp_path / "empty.pem").write_text("no certificate")
    for bundle in (tmp_path / "absent.pem", tmp_path / "empty.pem"):
        with pytest.raises(ValueError, match="CA bundle"):
            client_of("https://api.siorg.gov.br", ca_bundle=bundle)
    monkeypatch.setenv("HTTP_PROXY", "gopher://user:hunter2secret@proxy:1")
    async with client_of("http://siorg.example/doc") as client:
        with pytest.raises(AccessRefused, match="the proxy that HTTP_PROXY names is unusable") as caught:
            await client.unit(471)
        assert "hunter2secret" not in shown(caught.value)


# ── Redirects and secrets ────────────────────────────────────────────────────────────────────────────────────────────


async def test_redirects_within_the_origin_are_followed() -> None:
    for status in (301, 302, 303, 307, 308):
        limiter = Recorder()
        script = in_turn(*(reply(status, Location=to) for to in ("/doc/b", "c?x=1#f", "d")), UNIT)
        async with asking(script, token=TOKEN, limiter=limiter) as (server, client):
            assert (await client.unit(471)).code == 471
            assert server.targets[1:] == ["/doc/b", "/doc/c?x=1", "/doc/d"], status
            assert limiter.waits == 4, status
    esfera = reply(200, envelope("esfera", []))
    async with asking(by_path({"/esfera/": esfera}, reply(301, Location="/doc/esfera/"))) as (server, client):
        await client.probe()
        assert server.targets == ["/doc/esfera", "/doc/esfera/"]


async def test_redirects_elsewhere_are_refused_and_the_token_stays() -> None:
    async with ScriptedServer(UNIT) as evil, ScriptedServer(UNIT) as server:
        port = server.port
        for location in (
            evil.url, f"//127.0.0.1:{evil.port}/doc", f"https://127.0.0.1:{port}/doc", f"http://localhost:{port}/doc",
            f"http://127.0.0.1:{port}@127.0.0.1:{evil.port}/doc", f"http://{TOKEN}@127.0.0.1:{port}/doc",
            f"http://127.0.0.1:{port}\\@127.0.0.1:{evil.port}/", f"http://{TOKEN}.evil.example/",
            "http://127.0.0.1/doc", "ftp://127.0.0.1/doc", "file:///etc/passwd", "http://[::1", "http://127.0.0.1:99999999/",
            "javascript:alert(1)", "data:,x", "", " ", None,
        ):  # fmt: skip
            server.script = reply(302) if location is None else reply(302, Location=location)
            async with client_of(server.url, token=TOKEN) as client:
                error = await error_of(client.unit(471))
            assert isinstance(error, AccessRefused), location
            # Blank is this very address: a circle.
            assert ("circle" if location in {"", " "} else "elsewhere") in str(error), location
            assert TOKEN not in shown(error), location
        assert evil.received == []
        server.script = reply(302, Location="/doc/a")
        server.received.clear()
        async with client_of(server.url, retries=2) as client:
            with pytest.raises(AccessRefused, match="circle"):
                await client.unit(471)
        assert len(server.received) == 4


async def test_the_token_is_in_nothing_that_is_raised_even_when_echoed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for script in (
        reply(401),
        reply(200, f"<html>{TOKEN}</html>"),
        reply(200, envelope(code=100, message=f"Bearer {TOKEN}", ticket=TOKEN)),
        reply(400, envelope(code=1, message=f"who is {TOKEN}?")),
        reply(200, envelope(value={**unit_row(471), f"{TOKEN}": "\ud800"})),
        reply(302, Location=f"https://evil.example/{TOKEN}"),
        raw(b""),
        raw(f"HTTP/1.1 {TOKEN} nonsense\r\n\r\n".encode()),
        raw(f"HTTP/1.1 200 OK\r\nBad Header {TOKEN}\r\n\r\n".encode()),
        reply(404, "<html>Not Found</html>"),
    ):
        async with asking(script, token=TOKEN) as (server, client):
            error = await error_of(client.unit(471))
            assert error is not None, script
            assert TOKEN not in shown(error), script
            assert TOKEN not in repr(client)
            assert server.received[0].headers["authorization"].endswith(TOKEN)
    assert TOKEN not in "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("siorg"))


# ── Anything at all ──────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([200, 200, 200, 201, 204, 301, 400, 401, 404, 429, 500, 503]),
            st.one_of(st.binary(max_size=80), st.just(WHOLE), st.just(envelope(code=102))),
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
        async with asking(in_turn(*scripts), breaker=Breaker(2, 1, 1), timeout_seconds=5) as (_, client):
            for question in (client.unit(471), client.structure(471), client.version(471), client.probe()):
                if (error := await error_of(question)) is not None:
                    str(error).encode()
                    json.dumps(dict(error.details), allow_nan=False)

    asyncio.run(scenario())
