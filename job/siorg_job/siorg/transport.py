"""GET requests over one pool of connections. The only module that imports the HTTP library.

The library is httpx2. Requests go over the connections below its client (httpcore2, of the same version): what the client does is
not needed for a GET whose redirects are followed here, and costs more than half of a request's CPU.

TLS is verified, redirects are followed within the origin alone, so that the token never leaves it, a body has a cap that
counts after decompression, and a call has a budget of time. Errors are said in our own words: those of the library may
hold addresses, headers and proxies, and no error is chained to one of its.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urljoin

import httpx2

from siorg_job.siorg.errors import AccessRefused, AnswerTooLarge, MalformedResponse, SiorgError, SiorgUnavailable
from siorg_job.siorg.pool import Pool
from siorg_job.siorg.rate_limiter import RateLimiter
from siorg_job.siorg.unreachable import Way, out_of_memory, refused_by_proxy, why
from siorg_runtime.proxies import proxy_for
from siorg_runtime.redaction import STARS
from siorg_runtime.version import version

if TYPE_CHECKING:
    import httpcore2

MAX_REDIRECTS = 3
MAX_RETRY_AFTER_SECONDS = 3600.0

_ERROR_BODY_BYTES = 64 * 1024
_SMALL_BODY_BYTES = 256 * 1024  # larger ones are in hand one at a time
_PIECE_BYTES = 64 * 1024
_IDLE_SECONDS = 5.0  # a connection is kept for so long: servers, and what is between, forget those that are silent for longer
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

CallObserver: TypeAlias = Callable[[str, str, float], None]
"""Called for every request that came to an end: endpoint, HTTP status (or ``error``), seconds. Not for one that we cancelled."""


def ignore(*_observed: object) -> None:
    """Observe nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from one request, its body whole (of an error: as far as it came)."""

    status: int
    body: bytearray
    location: str | None
    retry_after: float | None


@dataclass(slots=True)
class Budget:
    """Seconds that one call may still spend on requests."""

    left: float


class Transport:
    """One origin, and its pool of connections. For one event loop; any number of requests at a time.

    Attributes:
        limiter: to be asked before every request; redirects ask it by themselves.
        max_body_bytes: cap of a body, after decompression.
    """

    def __init__(
        self,
        base_url: str,
        *,
        limiter: RateLimiter,
        token: str | None = None,
        connect_timeout_seconds: float = 10.0,
        max_body_bytes: int = 64 * 1024 * 1024,
        max_connections: int = 64,
        ca_bundle: Path | None = None,
        observe: CallObserver = ignore,
    ) -> None:
        """Nothing is connected, and no certificate store read, before the first request.

        Args:
            base_url: as ``check_base_url`` returned it.
            limiter: of this process alone, or of all that share a database.
            token: sent as ``Authorization: Bearer`` when there is one; printable ASCII without white space.
            connect_timeout_seconds: the most that one connection may take to come about, TLS included.
            max_body_bytes: cap of a body, after decompression.
            max_connections: the most open at a time; idle ones are kept for reuse.
            ca_bundle: PEM file of further certificate authorities, beside the system's.
            observe: called for every request.

        Raises:
            ValueError: the bundle cannot be used.
        """
        self.limiter = limiter
        base = httpx2.URL(base_url)
        self._origin = _origin(base)
        self._site = base_url.removesuffix(base.path)  # without a path
        self._path = base.path.removesuffix("/")
        self._token = token
        self.max_body_bytes = max_body_bytes
        self._large = asyncio.Lock()
        self._observe = observe
        # Gzip alone, because its decompression is bounded here.
        headers = {"Host": base.netloc.decode(), "Accept": "application/json", "Accept-Encoding": "gzip"}
        headers |= {"User-Agent": f"siorg-sync/{version()}"} | ({"Authorization": f"Bearer {token}"} if token is not None else {})
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._timeouts = {"connect": connect_timeout_seconds}
        self._cookies = httpx2.Cookies()  # what a gateway gave out, by which it may know us again
        self._max_connections = max_connections
        self._proxy = proxy_for(base_url, os.environ)
        self._tls = _tls_with(ca_bundle) if ca_bundle is not None else None
        self._pool: Pool[httpcore2.AsyncConnectionInterface] | None = None

    async def aclose(self) -> None:
        """Close all connections. What is still being asked then fails."""
        if self._pool is not None:
            await self._pool.aclose()

    async def get(
        self, endpoint: str, path: str, budget: Budget, held: contextlib.AsyncExitStack, max_bytes: int | None = None
    ) -> Answer:
        """Send a request that the limiter has let pass, and follow redirects within the origin.

        Args:
            endpoint: the kind of question, for the observer.
            path: under the base address, with its query.
            budget: what the request takes is taken from it; waiting for another large answer to be read does not count.
            held: to be left when the body has been read: until then no other large body is received.
            max_bytes: cap of this body, where it is lower than that of all.

        Raises:
            SiorgUnavailable: no answer came, or not within the budget.
            MalformedResponse: it broke off, or is compressed in a wrong way.
            AnswerTooLarge: it is over the cap.
            AccessRefused: it is a redirect elsewhere, or one too many; or the proxy cannot be used.
        """
        target = self._path + path
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._exchange(
                endpoint, target, budget, held, min(max_bytes or self.max_body_bytes, self.max_body_bytes)
            )
            if answer.status not in _REDIRECTS:
                return answer
            target = self._redirected(target, answer)
            await self.limiter.wait()
        message = f"SIORG redirects in a circle, or more than {MAX_REDIRECTS} times (HTTP {answer.status})"
        raise AccessRefused(message, status=answer.status)

    def redact(self, error: SiorgError) -> None:
        """Take the token out of what a server may have echoed."""
        token = self._token or ""
        if len(token) < 4:
            return
        error.args = (str(error).replace(token, STARS),)
        texts = {key: value.replace(token, STARS) for key, value in error.details.items() if isinstance(value, str)}
        error.details = {**error.details, **texts}

    def _redirected(self, target: str, answer: Answer) -> str:
        if answer.location is not None:
            with contextlib.suppress(httpx2.InvalidURL, ValueError):
                url = httpx2.URL(urljoin(self._site + target, answer.location))
                if not url.userinfo and _origin(url) == self._origin:
                    return url.raw_path.decode()
        message = f"SIORG redirects elsewhere (HTTP {answer.status}), which is not followed; is SIORG_API_URL right?"
        raise AccessRefused(message, status=answer.status)

    async def _exchange(self, endpoint: str, target: str, budget: Budget, held: contextlib.AsyncExitStack, cap: int) -> Answer:
        """Send one request and read its answer within the budget."""
        started = time.monotonic()
        status = "error"
        cancelled = False
        way = Way(self._proxy)

        async def become_large() -> None:
            nonlocal started
            before, ends_at = time.monotonic(), deadline.when()
            assert ends_at is not None
            deadline.reschedule(None)
            await held.enter_async_context(self._large)
            waited = time.monotonic() - before
            started += waited
            deadline.reschedule(ends_at + waited)

        try:
            async with asyncio.timeout(max(budget.left, 0)) as deadline, (self._pool or self._open()).take() as http:
                response = await self._send(http, target, way)
                try:
                    status = str(response.status)
                    headers = {name.decode().lower(): value.decode("utf-8", "replace") for name, value in response.headers}
                    if "set-cookie" in headers:
                        self._keep_cookies(target, response)
                    body = await self._body(response, headers, cap, become_large)
                    return Answer(response.status, body, headers.get("location"), _retry_after(headers))
                finally:
                    await response.aclose()
        except TimeoutError:
            budget.left = 0.0
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            seconds = time.monotonic() - started
            budget.left -= seconds
            if not cancelled:  # whether it was sent is not known, and nobody waits for its answer
                self._observe(endpoint, status, seconds)
        raise SiorgUnavailable(f"SIORG did not answer completely within {seconds:.1f} s{way}", reason="timeout")

    async def _send(self, http: httpcore2.AsyncConnectionInterface, target: str, way: Way) -> httpcore2.Response:
        import httpcore2  # noqa: PLC0415 - as the first request did

        scheme, host, port = self._origin
        headers = [*self._headers, *self._cookie_header(target)] if self._cookies else self._headers
        failure: SiorgError | MemoryError
        try:
            url = httpcore2.URL(scheme=scheme, host=host, port=port, target=target)
            extensions = {"timeout": self._timeouts, "trace": way.trace}
            return await http.handle_async_request(httpcore2.Request("GET", url, headers=headers, extensions=extensions))
        except httpcore2.ProxyError as error:
            status = str(error)[:3]
            failure = refused_by_proxy(int(status) if status.isdecimal() else None, way)
        except _http_errors() as error:
            failure = out_of_memory(error) or why(error, way)
        # Raised here, so that it is not chained to an error that knows the request and its headers.
        raise failure

    def _cookie_header(self, target: str) -> list[tuple[bytes, bytes]]:
        request = httpx2.Request("GET", self._site + target, cookies=self._cookies)
        return [(name, value) for name, value in request.headers.raw if name.lower() == b"cookie"]

    def _keep_cookies(self, target: str, response: httpcore2.Response) -> None:
        request = httpx2.Request("GET", self._site + target)
        self._cookies.extract_cookies(httpx2.Response(response.status, headers=response.headers, request=request))

    async def _body(
        self, response: httpcore2.Response, headers: Mapping[str, str], cap: int, become_large: Callable[[], Awaitable[None]]
    ) -> bytearray:
        """The body, decompressed; of an HTTP error at most the beginning, as far as it comes."""
        whole = 200 <= response.status < 300
        failure: SiorgError | MemoryError | None = None
        body = bytearray()
        try:
            await self._receive(response, headers, body, cap if whole else min(cap, _ERROR_BODY_BYTES), become_large)
        except (AnswerTooLarge, MalformedResponse) as error:
            failure = error
        except zlib.error:
            failure = MalformedResponse("SIORG's answer is damaged gzip", received=len(body))
        except _http_errors() as error:
            failure = out_of_memory(error) or MalformedResponse("SIORG's answer broke off before its end", received=len(body))
        if failure is not None and whole:
            body.clear()  # the error's traceback would keep it
            raise failure
        return body

    async def _receive(
        self,
        response: httpcore2.Response,
        headers: Mapping[str, str],
        body: bytearray,
        cap: int,
        become_large: Callable[[], Awaitable[None]],
    ) -> None:
        """Fill a body, of which no more is there than the cap."""
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in {"", "identity", "gzip", "x-gzip"}:
            raise MalformedResponse("SIORG's answer is compressed in a way that was not asked for")
        length = headers.get("content-length", "")
        if length.isdecimal() and len(length) < 20 and int(length) > self.max_body_bytes:
            raise self._too_large(self.max_body_bytes)
        packed = _Gzip() if encoding.endswith("gzip") else None
        is_large = False
        async with contextlib.aclosing(response.aiter_stream()) as chunks:
            async for chunk in chunks:
                for piece in (chunk,) if packed is None else packed.unpack(chunk):
                    body += piece
                    if len(body) > cap:
                        raise self._too_large(cap)
                    if len(body) > _SMALL_BODY_BYTES and not is_large:
                        is_large = True
                        await become_large()
        if packed is not None and not packed.is_whole:
            raise MalformedResponse("SIORG's answer is gzip that breaks off before its end")

    def _too_large(self, cap: int) -> AnswerTooLarge:
        # A person may want to raise it: which setting it is, and that memory may set a lower one.
        whose = ", the lower of SIORG_MAX_BODY_BYTES and what the memory limit allows" if cap == self.max_body_bytes else ""
        return AnswerTooLarge(f"SIORG's answer has over {cap} bytes{whose}", max_bytes=cap)

    def _open(self) -> Pool[httpcore2.AsyncConnectionInterface]:
        """Make the pool of connections, at the first request: reading the certificates takes its time."""
        import httpcore2  # noqa: PLC0415 - a run that asks nothing has no use for it

        scheme, host, port = self._origin
        origin = httpcore2.URL(scheme=scheme, host=host, port=port, target="/").origin
        proxies_tls = self._proxy is not None and self._proxy.url.lower().startswith("https:")
        try:
            speaks_tls = self._origin[0] == "https" or proxies_tls
            # One context for all connections; the empty one trusts nobody.
            tls = (self._tls or httpx2.create_ssl_context()) if speaks_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            proxy = None
            if self._proxy is not None:
                read = httpx2.Proxy(self._proxy.url)
                address = httpcore2.URL(
                    scheme=read.url.raw_scheme, host=read.url.raw_host, port=read.url.port, target=read.url.raw_path
                )
                proxy = httpcore2.Proxy(address, read.raw_auth, ssl_context=tls if proxies_tls else None)
            # It knows how each kind of connection is made.
            library = httpcore2.AsyncConnectionPool(ssl_context=tls, proxy=proxy, keepalive_expiry=_IDLE_SECONDS)
            make = partial(library.create_connection, origin)
            self._pool = Pool(make, most=self._max_connections, idle_seconds=_IDLE_SECONDS)
            return self._pool
        except OSError as error:  # they were there when the settings were read; ssl.SSLError is one
            failure = out_of_memory(error) or AccessRefused(
                "the certificates that SSL_CERT_FILE or SSL_CERT_DIR name cannot be read any more"
            )
        except (ValueError, ImportError, httpx2.InvalidURL):
            variable = self._proxy.variable if self._proxy is not None else "the environment"
            failure = AccessRefused(f"the proxy that {variable} names is unusable; give it as http://host:port")
        raise failure


class _Gzip:
    """Unpacks gzip of one or more members, piece by piece: a few kilobytes of it can hold a gigabyte."""

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None

    @property
    def is_whole(self) -> bool:
        return self._member is None or self._member.eof

    def unpack(self, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            if self._member is None or self._member.eof:
                self._member = zlib.decompressobj(wbits=31)
            yield self._member.decompress(chunk, _PIECE_BYTES)
            chunk = self._member.unused_data if self._member.eof else self._member.unconsumed_tail


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.raw_host.decode("ascii"), url.port


def _http_errors() -> tuple[type[Exception], ...]:
    """What the library raises when a request fails."""
    import httpcore2  # noqa: PLC0415 - as the first request did

    own = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, httpcore2.UnsupportedProtocol)
    return (*own, httpcore2.ConnectionNotAvailable, OSError, ValueError)


def _tls_with(bundle: Path) -> ssl.SSLContext:
    context = httpx2.create_ssl_context()
    try:
        context.load_verify_locations(cafile=bundle)
    except OSError:  # ssl.SSLError is one
        raise ValueError("the CA bundle cannot be read, or is not a file of PEM certificates") from None
    # Who names an authority wants it to be trusted as it is: Python 3.13 demands extensions that many authorities have not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait according to Retry-After, within 0 and an hour; None when it does not say, or not readably."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), MAX_RETRY_AFTER_SECONDS)
    wanted = _http_date(text)
    if wanted is None:
        return None
    # By the server's own clock where it tells the time: ours may be wrong.
    now = _http_date(headers.get("date", "")) or datetime.now(UTC)
    return min(max((wanted - now).total_seconds(), 0.0), MAX_RETRY_AFTER_SECONDS)


def _http_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
