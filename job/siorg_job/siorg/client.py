"""Asks SIORG. The only module that imports the HTTP library.

One call is one question with one answer from the model, or one of the errors of ``siorg_job.siorg.errors``: nothing
else comes out. A call has a budget of time that its quick retries share (waiting for the rate limit does not count), a
body has a cap that counts after decompression, and the token never leaves the origin that was configured.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias, TypeVar
from urllib.parse import quote, urljoin

import httpx2

from siorg_job.siorg import parsing
from siorg_job.siorg.address import check_base_url
from siorg_job.siorg.errors import (
    AccessRefused,
    AnswerTooLarge,
    BreakerOpen,
    NotFound,
    PermanentError,
    RateLimited,
    RequestRefused,
    SiorgError,
    SiorgUnavailable,
    TornAnswer,
    VersionUnknown,
)
from siorg_job.siorg.limits import Breaker, BreakerState, RateLimiter
from siorg_job.siorg.model import MAX_CODE, DomainRow, DomainTable, RemoteUnit, Structure
from siorg_job.siorg.parsing import Body
from siorg_runtime.version import version

_T = TypeVar("_T")

MAX_REDIRECTS = 3
MAX_RETRY_AFTER_SECONDS = 3600.0
DEFAULT_PAUSE_SECONDS = 5.0
"""Pause after a 429 that does not say for how long."""

_RETRY_BASE_SECONDS = 0.2
_RETRY_CAP_SECONDS = 2.0
_ERROR_BODY_BYTES = 64 * 1024
_THREAD_BYTES = 256 * 1024
"""Bodies beyond this are read on a thread: 16 MB take half a second, in which the event loop should live on."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HTTP_ERRORS = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came back from one request, its body whole (of an error: as far as it came)."""

    status: int
    body: Body
    location: str | None
    retry_after: float | None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


@dataclass(slots=True)
class _Budget:
    """Seconds that one call may still spend on requests."""

    left: float


CallObserver: TypeAlias = Callable[[str, str, float], None]
"""Told of every request that came to an end: endpoint, HTTP status (or ``error``), seconds. One that we cancelled did not."""

ErrorObserver: TypeAlias = Callable[[str, str], None]
"""Told of every attempt that sent something and brought an error: endpoint, the error's class name."""


def ignore_call(_endpoint: str, _status: str, _seconds: float) -> None:
    """Tell nobody."""


def ignore_error(_endpoint: str, _error_type: str) -> None:
    """Tell nobody."""


class SiorgClient:
    """A SIORG to ask, over one pool of connections. For one event loop; any number of calls at a time.

    Every call may raise the errors of ``siorg_job.siorg.errors``; a call names those with a meaning of their own.

    Attributes:
        requests: requests that came to an end so far, redirects and retries included; cancelled ones are not.
        retries: how many of them repeated one that had failed.
    """

    def __init__(
        self,
        base_url: str,
        *,
        limiter: RateLimiter,
        breaker: Breaker,
        token: str | None = None,
        timeout_seconds: float = 30.0,
        connect_timeout_seconds: float = 10.0,
        max_body_bytes: int = 64 * 1024 * 1024,
        max_structure_seconds: float = 300.0,
        max_connections: int = 64,
        ca_bundle: Path | None = None,
        observe: CallObserver = ignore_call,
        observe_error: ErrorObserver = ignore_error,
        retries: int = 2,
        user_agent: str | None = None,
    ) -> None:
        """Make a client; nothing is connected, and no certificate store read, before the first request.

        Args:
            base_url: as ``check_base_url`` returned it.
            limiter: asked before every request.
            breaker: told of every request.
            token: sent as ``Authorization: Bearer`` when there is one.
            timeout_seconds: budget of a call: its requests, retries and the pauses between them.
            connect_timeout_seconds: the most of it that one connection may take to come about, TLS included.
            max_body_bytes: cap of a body, after decompression.
            max_structure_seconds: budget of a call for a whole structure.
            max_connections: the most open at a time; idle ones are kept for reuse.
            ca_bundle: PEM file of further certificate authorities, beside the system's.
            observe: told of every request: endpoint, HTTP status (or ``error``), seconds.
            observe_error: told of every failed attempt: endpoint, name of the error's class.
            retries: how often a call asks again at once after a transient failure.
            user_agent: default ``siorg-sync/<version>``.

        Raises:
            ValueError: the address, the token or the bundle cannot be used; the message does not repeat them.
        """
        # Whether insecure addresses are wanted was decided where the settings were read; the form is checked again.
        self._base_url = check_base_url(base_url, allow_insecure=True)
        if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
            raise ValueError("the SIORG token has to be printable ASCII without white space")
        self._token = token
        self._limiter = limiter
        self._breaker = breaker
        self._timeout = timeout_seconds
        self._connect_timeout = connect_timeout_seconds
        self._max_body = max_body_bytes
        self._max_structure = max_structure_seconds
        self._max_connections = max_connections
        self._observe = observe
        self._observe_error = observe_error
        self._retries = retries
        self._headers = {
            "Accept": "application/json",
            # Gzip alone, because its decompression is bounded here; see _Gunzip.
            "Accept-Encoding": "gzip",
            "User-Agent": user_agent or _default_user_agent(),
        }
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._tls = _tls_with(ca_bundle) if ca_bundle is not None else None
        self._http: httpx2.AsyncClient | None = None
        self._origin = _origin(httpx2.URL(self._base_url))
        self._identity = asyncio.Lock()
        self._seen_at = self._missed_at = float("-inf")
        self.requests = 0
        self.retries = 0

    def __repr__(self) -> str:
        return f"SiorgClient({self._base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections. What is still being asked then fails."""
        if self._http is not None:
            await self._http.aclose()

    # ── Questions ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def unit(self, code: int) -> RemoteUnit:
        """One unit, órgão or entidade, with contact and address.

        Raises:
            NotFound: SIORG has no such unit (any more): codigoErro 102, or HTTP 404 from who is known to be SIORG.
            TornAnswer: also codigoErro 101 ("none meet the criteria"), the word for an empty search: to a question about
                one code it says neither that the unit is there nor that it is gone.
            InvalidAnswer: its data cannot be used, or are those of another unit.
        """
        _check_code(code)
        path = f"/unidade-organizacional/{code}/completa"
        try:
            return await self._call("unit", path, lambda body: parsing.parse_unit(body, code), self._timeout)
        except NotFound as error:
            if error.details.get("siorg_error") != 101:
                raise
            message, details = error.message, {**error.details, "code": code}
        # Not for the breaker: SIORG is well, and answered whole.
        raise TornAnswer(f"{message}; of one unit that is no answer", **details)

    async def structure(self, organization: int) -> Structure:
        """All units of an organization in one request (two or three for one outside the federal executive).

        Raises:
            NotAnOrganization: the code is a unit's.
            NotFound: SIORG has no such organization.
            TornAnswer: the answer lacks the organization itself, so that it says nothing about what ended.
        """
        _check_code(organization)
        # Without poder and esfera, SIORG was seen to give the root alone; with 1 and 1 it gives the federal executive.
        structure = await self._structure(organization, (1, 1))
        if structure is not None and parsing.is_whole(structure):
            return structure
        structure = await self._structure(organization, None)
        if structure is None:
            raise NotFound(f"SIORG has no structure of {organization}", code=organization)
        if not parsing.is_whole(structure):
            raise TornAnswer(
                f"SIORG's structure of {organization} lacks {organization} itself and is not believed",
                code=organization,
            )
        if len(structure.units) + len(structure.invalid) + structure.unidentified > 1:
            return structure
        # The root alone may be all there is, or what SIORG gives without filters: its own row tells the right ones.
        root = structure.units.get(organization)
        if root is None:
            raise structure.invalid[organization]
        filters = parsing.power_and_sphere(root)
        if filters is None:
            return structure
        filtered = await self._structure(organization, filters)
        if filtered is None or not parsing.is_whole(filtered):
            raise TornAnswer(f"SIORG contradicts itself about the structure of {organization}", code=organization)
        return filtered

    async def _structure(self, organization: int, filters: tuple[int, int] | None) -> Structure | None:
        """One request for a structure; None when SIORG says that nothing meets the filters (codigoErro 101)."""
        path = "/estrutura-organizacional/completa?"
        if filters is not None:
            path += f"codigoPoder={filters[0]}&codigoEsfera={filters[1]}&"
        path += f"codigoUnidade={organization}&retornarOrgaoEntidadeVinculados=NAO"
        try:
            return await self._call(
                "structure", path, lambda body: parsing.read_structure(body, organization), self._max_structure
            )
        except NotFound as error:
            if error.details.get("siorg_error") == 101:
                return None
            raise

    async def version(self, organization: int) -> str:
        """The version of an organization, ``major.minor.build``.

        Raises:
            InvalidAnswer: SIORG gives it no version, or an unreadable one.
        """
        _check_code(organization)
        path = f"/unidade-organizacional/{organization}/versao"
        return await self._call("version", path, lambda body: parsing.parse_version(body, organization), self._timeout)

    async def changed_since(self, organization: int, version: str) -> list[RemoteUnit]:
        """What changed in an organization since a version, each with its ``operation``; empty when nothing did.

        Raises:
            VersionUnknown: SIORG does not know that version (any more); the whole structure has to be compared.
        """
        _check_code(organization)
        try:
            parsing.version_key(version)
        except ValueError:
            raise VersionUnknown("the version to compare with is not of the form major.minor.build") from None
        path = f"/unidade-organizacional/{organization}/alteradas?versaoConsulta={quote(version, safe='')}"
        return await self._call("changes", path, parsing.parse_changes, self._max_structure)

    async def domain(self, table: DomainTable) -> list[DomainRow]:
        """A whole domain table."""
        return await self._call("domain", f"/{table.value}", lambda body: parsing.parse_domain(body, table), self._timeout)

    async def probe(self) -> None:
        """Ask whether SIORG is alive: whether it speaks in its envelope. Never retried.

        Raises:
            SiorgUnavailable: it is not, or something else answers in its place; ``BreakerOpen``: it is too early to ask.
            TornAnswer: what answers says success, but not as SIORG: a login page, a notice of maintenance.
            RateLimited: it is, but wants to be left alone.
            AccessRefused: 401, 403, 407 or a redirect elsewhere: asking again will not help.
        """

        async def ask() -> None:
            answer = await self._follow("probe", "/esfera", _Budget(self._timeout))
            await self._raise_transient(answer)
            # An error that SIORG reports there, other than that it failed, is an answer of SIORG.
            with contextlib.suppress(PermanentError):
                if answer.ok:
                    await self._read(answer.body, parsing.check_envelope)
                    return
                _raise_access_refused(answer.status)
                if not self._is_envelope(answer.body):
                    raise _not_siorg(answer.status)

        await self._guarded("probe", ask)

    # ── A call: attempts, breaker, retries ───────────────────────────────────────────────────────────────────────────

    async def _call(self, endpoint: str, path: str, read: Callable[[Body], _T], seconds: float) -> _T:
        budget = _Budget(seconds)
        attempt = 0
        while True:
            try:
                return await self._guarded(endpoint, lambda: self._ask(endpoint, path, read, budget))
            except (SiorgUnavailable, TornAnswer) as error:
                # Full jitter, so that many workers do not come back together.
                pause = random.uniform(0, min(_RETRY_CAP_SECONDS, _RETRY_BASE_SECONDS * 2**attempt))  # noqa: S311
                if attempt >= self._retries or not self._may_retry(error, pause, budget):
                    raise
                await asyncio.sleep(pause)
                if self._breaker.state is not BreakerState.CLOSED:
                    raise  # the reason, rather than that the breaker has opened meanwhile
                budget.left -= pause
                attempt += 1
                self.retries += 1

    def _may_retry(self, error: SiorgError, pause: float, budget: _Budget) -> bool:
        """Whether asking again at once is worth it: not while SIORG is left alone, wants time, or ours has run out."""
        if isinstance(error, BreakerOpen) or self._breaker.state is not BreakerState.CLOSED:
            return False
        if isinstance(error, SiorgUnavailable) and error.retry_after is not None and error.retry_after > pause:
            return False
        return budget.left > pause

    async def _reported(self, endpoint: str, answer: Awaitable[_T]) -> _T:
        try:
            return await answer
        except SiorgError as error:
            self._observe_error(endpoint, type(error).__name__)
            self._redact(error)
            raise

    async def _guarded(self, endpoint: str, ask: Callable[[], Awaitable[_T]]) -> _T:
        """One attempt, its result told to the breaker however it ends; to the observers what came of being sent."""
        self._breaker.check()  # do not queue for a request that would be refused
        await self._limiter.wait()
        permit = self._breaker.before_request()
        try:
            result = await self._reported(endpoint, ask())
        except (SiorgUnavailable, TornAnswer):
            self._breaker.failure(permit)
            raise
        except RateLimited:
            self._breaker.abandon(permit)
            raise
        except SiorgError:
            self._breaker.success(permit)
            raise
        except BaseException:
            self._breaker.abandon(permit)
            raise
        self._breaker.success(permit)
        return result

    # ── An attempt: from the answer to the model ─────────────────────────────────────────────────────────────────────

    async def _ask(self, endpoint: str, path: str, read: Callable[[Body], _T], budget: _Budget) -> _T:
        started = time.monotonic()
        answer = await self._follow(endpoint, path, budget)
        if answer.ok:
            return await self._read(answer.body, read)
        await self._raise_transient(answer)
        _raise_access_refused(answer.status)
        if not self._is_envelope(answer.body) and not await self._is_siorg(started, budget):
            raise _not_siorg(answer.status)
        if answer.status == 404:
            raise NotFound("SIORG has nothing under this code (HTTP 404)", status=404)
        raise RequestRefused(f"SIORG refuses the request (HTTP {answer.status})", status=answer.status)

    async def _read(self, body: Body, read: Callable[[Body], _T]) -> _T:
        try:
            result = read(body) if len(body) <= _THREAD_BYTES else await asyncio.to_thread(read, body)
        except TornAnswer:
            raise
        except SiorgError:
            self._seen_at = time.monotonic()
            raise
        self._seen_at = time.monotonic()
        return result

    def _is_envelope(self, body: Body) -> bool:
        """Whether SIORG itself speaks in the body of an HTTP error; what it reports there is raised."""
        try:
            parsing.check_envelope(body)
        except TornAnswer:
            return False
        except SiorgError:
            self._seen_at = time.monotonic()
            raise
        self._seen_at = time.monotonic()
        return True

    async def _raise_transient(self, answer: _Answer) -> None:
        """Raise what an HTTP status says about SIORG as a whole.

        Raises:
            RateLimited: 429; the limiter has been paused.
            SiorgUnavailable: 5xx, and those 4xx that mean "again".
        """
        if answer.status == 429:
            wait = answer.retry_after
            await self._limiter.pause(DEFAULT_PAUSE_SECONDS if wait is None else wait)
            raise RateLimited("SIORG wants fewer requests (HTTP 429)", retry_after=wait, status=429)
        if answer.status >= 500 or answer.status in {408, 425}:
            raise SiorgUnavailable(
                f"SIORG cannot answer now (HTTP {answer.status})", retry_after=answer.retry_after, status=answer.status
            )

    async def _is_siorg(self, started: float, budget: _Budget) -> bool:
        """Judge a refusal without SIORG's envelope: a wrong address or a gateway under repair answers so to everything.

        It is believed when SIORG itself was heard since the request began; else SIORG is asked for what it always has.
        """
        async with self._identity:  # many such refusals at a time share one question
            if self._seen_at < started and self._missed_at < started:
                await self._limiter.wait()
                answer = await self._follow("identity", "/esfera", budget)
                await self._raise_transient(answer)
                try:
                    await self._read(answer.body, parsing.check_envelope)
                except TornAnswer:
                    self._missed_at = time.monotonic()
                except SiorgError:
                    pass  # an error that SIORG reports is SIORG
            return self._seen_at >= started

    # ── Requests ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _follow(self, endpoint: str, path: str, budget: _Budget) -> _Answer:
        """Send a request, and follow redirects within the origin."""
        url = self._base_url + path
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._exchange(endpoint, url, budget)
            if answer.status not in _REDIRECTS:
                return answer
            url = self._redirected(url, answer)
            await self._limiter.wait()
        raise AccessRefused(
            f"SIORG redirects in a circle, or more than {MAX_REDIRECTS} times (HTTP {answer.status})",
            status=answer.status,
        )

    def _redirected(self, url: str, answer: _Answer) -> str:
        try:
            target = httpx2.URL(urljoin(url, answer.location or ""))
        except (httpx2.InvalidURL, ValueError):
            target = None
        if answer.location is None or target is None or target.userinfo or _origin(target) != self._origin:
            raise AccessRefused(
                f"SIORG redirects elsewhere (HTTP {answer.status}), which is not followed; is SIORG_API_URL right?",
                status=answer.status,
            )
        return str(target.copy_with(fragment=None))

    async def _exchange(self, endpoint: str, url: str, budget: _Budget, *, whole: bool = True) -> _Answer:
        """Send one request and read its answer within the budget; the body ``whole``, or as far as it comes."""
        started = time.monotonic()
        status = "error"
        timed_out = cancelled = False
        try:
            async with asyncio.timeout(max(budget.left, 0)):
                response = await self._send(url)
                try:
                    status = str(response.status_code)
                    return _Answer(
                        response.status_code,
                        await self._body(response, whole=whole and response.is_success),
                        response.headers.get("location"),
                        _retry_after(response.headers),
                    )
                finally:
                    await response.aclose()
        except TimeoutError:
            timed_out = True
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            seconds = time.monotonic() - started
            budget.left = 0.0 if timed_out else budget.left - seconds
            if not cancelled:  # whether it was sent is not known, and nobody waits for its answer
                self.requests += 1
                self._observe(endpoint, status, seconds)
        raise SiorgUnavailable(f"SIORG did not answer completely within {seconds:.1f} s", reason="timeout")

    async def _send(self, url: str) -> httpx2.Response:
        http = self._http or self._open()
        try:
            return await http.send(http.build_request("GET", url), stream=True)
        except _HTTP_ERRORS as error:
            failure = _connection_failure(error)
        # Raised here, so that it is not chained to an error that knows the request and its headers.
        raise failure

    async def _body(self, response: httpx2.Response, *, whole: bool) -> bytearray:
        """The body, decompressed; of an answer that is not wanted whole, at most the beginning."""
        cap = self._max_body if whole else min(self._max_body, _ERROR_BODY_BYTES)
        failure: SiorgError | None = None
        body = bytearray()
        try:
            unpack = _unpacker(response.headers.get("content-encoding", ""))
            length = response.headers.get("content-length", "")
            if length.isdecimal() and len(length) < 20 and int(length) > self._max_body:
                raise AnswerTooLarge(f"SIORG's answer has over {self._max_body} bytes", max_bytes=self._max_body)
            async for chunk in response.aiter_raw():
                for piece in unpack.feed(chunk, cap - len(body) + 1):
                    body += piece
                    if len(body) > cap:
                        raise AnswerTooLarge(f"SIORG's answer has over {cap} bytes", max_bytes=cap)
            unpack.finish()
        except (AnswerTooLarge, TornAnswer) as error:
            failure = error
        except zlib.error:
            failure = TornAnswer("SIORG's answer is damaged gzip", received=len(body))
        except _HTTP_ERRORS:
            failure = TornAnswer("SIORG's answer broke off before its end", received=len(body))
        if failure is not None and whole:
            raise failure
        return body

    def _open(self) -> httpx2.AsyncClient:
        """Make the pool of connections, at the first request: reading the certificates takes its time."""
        verify: ssl.SSLContext | bool = False
        if self._base_url.startswith("https:"):
            verify = self._tls or httpx2.create_ssl_context()
        try:
            self._http = httpx2.AsyncClient(
                headers=self._headers,
                verify=verify,
                timeout=httpx2.Timeout(None, connect=self._connect_timeout),
                limits=httpx2.Limits(max_connections=self._max_connections, max_keepalive_connections=self._max_connections),
                follow_redirects=False,
            )
        except (ValueError, ImportError, httpx2.InvalidURL):
            failure = AccessRefused("the proxy that the environment names (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY) is unusable")
        else:
            return self._http
        raise failure

    def _redact(self, error: SiorgError) -> None:
        """Take the token out of what a server may have echoed."""
        token = self._token
        if token is None or len(token) < 4:
            return
        if token in error.message:
            error.args = (error.message.replace(token, "***"),)
        error.details = {
            key: value.replace(token, "***") if isinstance(value, str) else value for key, value in error.details.items()
        }


class _Plain:
    """A body as it comes."""

    def feed(self, chunk: bytes, _limit: int) -> Iterator[bytes]:
        yield chunk

    def finish(self) -> None:
        pass


class _Gunzip:
    """Decompression that never makes more than is asked for: a few kilobytes of gzip can hold a gigabyte."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)
        self._begun = False

    def feed(self, chunk: bytes, limit: int) -> Iterator[bytes]:
        """Yield what a chunk holds, at most ``limit`` bytes of it.

        Raises:
            zlib.error: it is damaged.
        """
        while chunk and limit > 0:
            if self._inflate.eof:  # another member follows
                self._inflate = zlib.decompressobj(wbits=31)
            self._begun = True
            piece = self._inflate.decompress(chunk, limit)
            limit -= len(piece)
            chunk = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            yield piece

    def finish(self) -> None:
        """Check that the end has come."""
        if self._begun and not self._inflate.eof:
            raise TornAnswer("SIORG's answer is gzip that breaks off before its end")


def _unpacker(encoding: str) -> _Plain | _Gunzip:
    match encoding.strip().lower():
        case "" | "identity":
            return _Plain()
        case "gzip" | "x-gzip":
            return _Gunzip()
        case _:
            raise TornAnswer("SIORG's answer is compressed in a way that was not asked for")


def _raise_access_refused(status: int) -> None:
    if status in {401, 403, 407}:
        raise AccessRefused(
            f"access to SIORG is refused (HTTP {status}); are SIORG_API_TOKEN and the proxy right?", status=status
        )


def _not_siorg(status: int) -> SiorgUnavailable:
    return SiorgUnavailable(
        f"the server answers, but not as SIORG (HTTP {status} without its envelope); is SIORG_API_URL right?", status=status
    )


def _check_code(code: int) -> None:
    if not 1 <= code <= MAX_CODE:
        raise RequestRefused(f"a SIORG code is a number of 1 to {MAX_CODE}")


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _default_user_agent() -> str:
    return f"siorg-sync/{version()}"


def _tls_with(bundle: Path) -> ssl.SSLContext:
    context = httpx2.create_ssl_context()
    try:
        context.load_verify_locations(cafile=bundle)
    except OSError:  # ssl.SSLError is one
        failure = ValueError("the CA bundle cannot be read, or is not a file of PEM certificates")
    else:
        return context
    raise failure


def _retry_after(headers: httpx2.Headers) -> float | None:
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


def _connection_failure(error: BaseException) -> SiorgUnavailable:
    """Say why no answer came, in our own words: those of the library may hold addresses and proxies."""
    if isinstance(error, httpx2.ConnectTimeout):
        return SiorgUnavailable("SIORG does not take the connection in time", reason="connect-timeout")
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return SiorgUnavailable(
                f"SIORG's certificate is not trusted ({cause.verify_message}); does it need SIORG_CA_BUNDLE?",
                reason="tls",
            )
        if isinstance(cause, ssl.SSLError):
            return SiorgUnavailable("no TLS connection with SIORG comes about", reason="tls")
        if isinstance(cause, socket.gaierror):
            return SiorgUnavailable("the name of SIORG's host cannot be resolved", reason="name")
        if isinstance(cause, ConnectionRefusedError):
            return SiorgUnavailable("SIORG's host refuses the connection", reason="refused")
    if isinstance(error, httpx2.ProxyError):
        return SiorgUnavailable("the proxy does not lead to SIORG", reason="proxy")
    if isinstance(error, httpx2.ConnectError):
        return SiorgUnavailable("no connection with SIORG comes about", reason="connect")
    return SiorgUnavailable("SIORG closed the connection without an answer", reason="closed")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it."""
    pending: list[BaseException] = [error]
    for _ in range(20):
        if not pending:
            return
        cause = pending.pop()
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            pending.extend(cause.exceptions)
        following = cause.__cause__ or cause.__context__
        if following is not None:
            pending.append(following)
