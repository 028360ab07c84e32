"""Asks SIORG, in SIORG's own terms.

One call is one question with one answer from the model, or one of the errors of ``siorg_job.siorg.errors``: nothing
else comes out. A call has a budget of time that its quick retries share (waiting for the rate limit does not count).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Self, TypeAlias, TypeVar

from siorg_job.siorg import rows
from siorg_job.siorg.breaker import Breaker, BreakerState
from siorg_job.siorg.envelope import check_envelope
from siorg_job.siorg.errors import (
    AccessRefused,
    AnswerTooLarge,
    MalformedResponse,
    NotAnOrganization,
    NotFound,
    RateLimited,
    RequestRefused,
    SiorgError,
    SiorgUnavailable,
)
from siorg_job.siorg.json_reader import Body
from siorg_job.siorg.model import MAX_CODE, DomainRow, DomainTable, RemoteUnit, Structure
from siorg_job.siorg.transport import Answer, Budget, Transport, ignore
from siorg_runtime.backoff import exponential

_T = TypeVar("_T")

_IDENTITY = "/esfera"  # what SIORG always has: who answers as SIORG to this is SIORG
_PAUSE_SECONDS = 5.0  # after a 429 that does not say for how long
_RETRY_BASE_SECONDS = 0.2
_RETRY_CAP_SECONDS = 2.0
_SMALL_BYTES = 4 * 1024 * 1024  # cap of every answer but a structure: many of them are in hand at a time
_MEMORY_OF_A_BYTE = 2  # that may be received: what the units of a structure may take
_THREAD_BYTES = 256 * 1024  # larger bodies are read on a thread: 16 MB take half a second, and the event loop should live on

ErrorObserver: TypeAlias = Callable[[str, str], None]
"""Called for every attempt that sent something and brought an error: endpoint, the error's type."""


class SiorgClient:
    """A SIORG to ask, over one pool of connections. For one event loop; any number of calls at a time.

    Every call may raise the errors of ``siorg_job.siorg.errors``; a call names those with a meaning of their own.

    Attributes:
        retries: how many requests repeated one that had failed.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        breaker: Breaker,
        structure_breaker: Breaker | None = None,
        timeout_seconds: float = 30.0,
        max_structure_seconds: float = 300.0,
        observe_error: ErrorObserver = ignore,
        observe_answer: Callable[[str], object] = ignore,
        retries: int = 2,
    ) -> None:
        """Make a client.

        Args:
            transport: asked through; closed with the client.
            breaker: told of every attempt.
            structure_breaker: told of the attempts for whole structures in its place, where these can be done without: an
                endpoint's trouble is not SIORG's.
            timeout_seconds: budget of a call: its requests, retries and the pauses between them.
            max_structure_seconds: budget of a call for a whole structure.
            observe_error: called for every failed attempt.
            observe_answer: called with the endpoint that answered, whatever the answer says.
            retries: how often a call asks again at once after a transient failure.
        """
        self._transport = transport
        self._limiter = transport.limiter
        self._breaker = breaker
        self._structure_breaker = structure_breaker or breaker
        self._timeout = timeout_seconds
        self._max_structure = max_structure_seconds
        self._observe_error = observe_error
        self._observe_answer = observe_answer
        self._retries = retries
        self._identity = asyncio.Lock()
        self._seen_at = self._missed_at = float("-inf")
        self.retries = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._transport.aclose()

    # ── Questions ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def unit(self, code: int) -> RemoteUnit:
        """One unit, órgão or entidade, with contact and address.

        Raises:
            NotFound: SIORG has no such unit (any more): codigoErro 102, or HTTP 404 from who is known to be SIORG.
            MalformedResponse: also codigoErro 101 ("none meet the criteria"), the word for an empty search: to a question
                about one code it says neither that the unit is there nor that it is gone.
            InvalidData: its data cannot be used, or are those of another unit.
        """
        _check_code(code)
        try:
            return await self._call("unit", _unit_path(code), lambda body: rows.parse_unit(body, code), self._timeout)
        except NotFound as error:
            _refuse_empty_search(error, code)  # not for the breaker: SIORG is well, and answered whole
            raise

    async def structure(self, organization: int) -> Structure:
        """All units of an organization in one request (two or three for one outside the federal executive).

        Raises:
            NotAnOrganization: the code is a unit's.
            NotFound: SIORG has no such organization.
            MalformedResponse: the answer lacks the organization itself, so that it says nothing about what ended; or not one of
                its rows can be used (``UnusableAnswer``).
        """
        _check_code(organization)
        # Without poder and esfera, SIORG was seen to give the root alone; with 1 and 1 it gives the federal executive.
        structure = await self._structure(organization, (1, 1))
        if structure is not None and structure.is_whole:
            return structure
        structure = await self._structure(organization, None)
        if structure is None:
            raise NotFound(f"SIORG has no structure of {organization}", code=organization)
        if not structure.is_whole:
            message = f"SIORG's structure of {organization} lacks {organization} itself and is not believed"
            raise MalformedResponse(message, code=organization)
        if len(structure.units) + len(structure.invalid) + structure.unidentified > 1:
            return structure
        # The root alone may be all there is, or what SIORG gives without filters: its own row tells the right ones.
        root = structure.units.get(organization)
        if root is None:
            raise structure.invalid[organization]
        filters = rows.power_and_sphere(root)
        if filters is None:
            return structure
        filtered = await self._structure(organization, filters)
        if filtered is None or not filtered.is_whole:
            raise MalformedResponse(f"SIORG contradicts itself about the structure of {organization}", code=organization)
        return filtered

    async def _structure(self, organization: int, filters: tuple[int, int] | None) -> Structure | None:
        """One request for a structure; None when SIORG says that nothing meets the filters (codigoErro 101)."""
        path = "/estrutura-organizacional/completa?"
        if filters is not None:
            path += f"codigoPoder={filters[0]}&codigoEsfera={filters[1]}&"
        path += f"codigoUnidade={organization}&retornarOrgaoEntidadeVinculados=NAO"
        max_bytes = _MEMORY_OF_A_BYTE * self._transport.max_body_bytes
        try:
            return await self._call(
                "structure", path, lambda body: rows.read_structure(body, organization, max_bytes), self._max_structure
            )
        except NotFound as error:
            if error.details.get("siorg_error") == 101:
                return None
            raise

    async def version(self, organization: int) -> str:
        """The version of an organization, ``major.minor.build``.

        Raises:
            InvalidData: SIORG gives it no version, or an unreadable one.
        """
        _check_code(organization)
        path = f"/unidade-organizacional/{organization}/versao"
        return await self._call("version", path, lambda body: rows.parse_version(body, organization), self._timeout)

    async def domain(self, table: DomainTable) -> list[DomainRow]:
        """A whole domain table."""
        return await self._call("domain", f"/{table.value}", lambda body: rows.parse_domain(body, table), self._timeout)

    async def probe(self, unit: int | None = None) -> None:
        """Ask whether SIORG is alive: whether it speaks in its envelope. Never retried.

        Args:
            unit: ask for this one, to learn whether SIORG answers about single units; None: for what it always has.

        Raises:
            SiorgUnavailable: it is not, or something else answers in its place; ``BreakerOpen``: it is too early to ask.
            MalformedResponse: what answers says success, but not as SIORG: a login page, a notice of maintenance.
            RateLimited: it is, but wants to be left alone.
            AccessRefused: 401, 403, 407 or a redirect elsewhere: asking again will not help.
        """

        async def ask() -> None:
            path = _IDENTITY if unit is None else _unit_path(unit)
            # An error that SIORG reports there, other than that it failed, is an answer of SIORG.
            with contextlib.suppress(NotAnOrganization, RequestRefused):
                try:
                    await self._ask("probe", path, check_envelope, Budget(self._timeout))
                except NotFound as error:
                    if unit is not None:
                        _refuse_empty_search(error, unit)

        await self._attempt("probe", ask)

    # ── A call: attempts, breaker, retries ───────────────────────────────────────────────────────────────────────────

    async def _call(self, endpoint: str, path: str, read: Callable[[Body], _T], seconds: float) -> _T:
        budget, breaker = Budget(seconds), self._breaker_of(endpoint)
        attempt = 1
        while True:
            try:
                return await self._attempt(endpoint, lambda: self._ask(endpoint, path, read, budget))
            except (SiorgUnavailable, MalformedResponse) as error:
                # Full jitter, so that many workers do not come back together.
                pause = exponential(attempt, _RETRY_BASE_SECONDS, _RETRY_CAP_SECONDS, random.random())  # noqa: S311
                # Not while SIORG is left alone, wants time, or ours has run out.
                is_worth_it = breaker.state is BreakerState.CLOSED and (error.retry_after or 0.0) <= pause < budget.left
                if attempt > self._retries or not is_worth_it:
                    raise
                await asyncio.sleep(pause)
                if breaker.state is not BreakerState.CLOSED:
                    raise  # the reason, rather than that the breaker has opened meanwhile
                budget.left -= pause
                attempt += 1
                self.retries += 1

    async def _attempt(self, endpoint: str, ask: Callable[[], Awaitable[_T]]) -> _T:
        """One attempt, its result told to the breaker however it ends; to the observer what came of being sent."""
        breaker = self._breaker_of(endpoint)
        breaker.check()  # do not queue for a request that would be refused
        await self._limiter.wait()
        permit = breaker.before_request()
        settle = breaker.abandon  # cancelled, or a fault of our own
        try:
            result = await ask()
            settle = breaker.success
            self._observe_answer(endpoint)
            return result
        except SiorgError as error:
            error.endpoint = endpoint
            if isinstance(error, SiorgUnavailable | MalformedResponse | AnswerTooLarge):
                settle = breaker.failure
            elif not isinstance(error, RateLimited):
                settle = breaker.success
                if not _is_empty_search(error) or endpoint != "unit":
                    self._observe_answer(endpoint)
            self._observe_error(endpoint, error.error_type)
            self._transport.redact(error)
            raise
        finally:
            settle(permit)

    def _breaker_of(self, endpoint: str) -> Breaker:
        return self._structure_breaker if endpoint == "structure" else self._breaker

    # ── An attempt: from the answer to the model ─────────────────────────────────────────────────────────────────────

    async def _ask(self, endpoint: str, path: str, read: Callable[[Body], _T], budget: Budget) -> _T:
        started = time.monotonic()
        async with contextlib.AsyncExitStack() as held:
            answer = await self._transport.get(endpoint, path, budget, held, None if endpoint == "structure" else _SMALL_BYTES)
            status = answer.status
            if 200 <= status < 300:
                try:
                    return await self._read(answer.body, read)
                finally:
                    answer.body.clear()  # an error's traceback would keep it
        await self._raise_transient(answer)
        if status in {401, 403, 407}:
            message = f"access to SIORG is refused (HTTP {status}); are SIORG_API_TOKEN and the proxy right?"
            raise AccessRefused(message, status=status)
        if not await self._is_envelope(answer.body) and (path == _IDENTITY or not await self._is_siorg(started, budget)):
            message = f"the server answers, but not as SIORG (HTTP {status} without its envelope); is SIORG_API_URL right?"
            raise SiorgUnavailable(message, status=status)
        if status == 404:
            raise NotFound("SIORG has nothing under this code (HTTP 404)", status=404)
        raise RequestRefused(f"SIORG refuses the request (HTTP {status})", status=status)

    async def _read(self, body: Body, read: Callable[[Body], _T]) -> _T:
        try:
            result = read(body) if len(body) <= _THREAD_BYTES else await asyncio.to_thread(read, body)
        except SiorgError as error:
            if not isinstance(error, MalformedResponse | AnswerTooLarge):
                self._seen_at = time.monotonic()
            error.__traceback__ = None  # which would keep all that has been read
            raise
        self._seen_at = time.monotonic()
        return result

    async def _is_envelope(self, body: Body) -> bool:
        """Whether SIORG itself speaks in a body; what it reports there is raised."""
        try:
            await self._read(body, check_envelope)
        except MalformedResponse:
            return False
        return True

    async def _is_siorg(self, started: float, budget: Budget) -> bool:
        """Judge a refusal without SIORG's envelope: a wrong address or a gateway under repair answers so to everything.

        It is believed when SIORG itself was heard since the request began; else SIORG is asked for what it always has.
        """
        async with self._identity:  # many such refusals at a time share one question
            if self._seen_at < started and self._missed_at < started:
                await self._limiter.wait()
                async with contextlib.AsyncExitStack() as held:
                    answer = await self._transport.get("identity", _IDENTITY, budget, held, _SMALL_BYTES)
                    await self._raise_transient(answer)
                    with contextlib.suppress(SiorgError):  # an error that SIORG reports is SIORG
                        if not await self._is_envelope(answer.body):
                            self._missed_at = time.monotonic()
            return self._seen_at >= started

    async def _raise_transient(self, answer: Answer) -> None:
        """Raise what an HTTP status says about SIORG as a whole; upon a 429 the limiter has been paused."""
        if answer.status == 429:
            wait = answer.retry_after
            await self._limiter.pause(_PAUSE_SECONDS if wait is None else wait)
            raise RateLimited("SIORG wants fewer requests (HTTP 429)", retry_after=wait, status=429)
        if answer.status >= 500 or answer.status in {408, 425}:
            message = f"SIORG cannot answer now (HTTP {answer.status})"
            raise SiorgUnavailable(message, retry_after=answer.retry_after, status=answer.status)


def _refuse_empty_search(error: NotFound, code: int) -> None:
    """Of one unit, that nothing meets the criteria is no answer.

    Raises:
        MalformedResponse: that is what SIORG says.
    """
    if _is_empty_search(error):
        failure = MalformedResponse(f"{error}; of one unit that is no answer")
        failure.details = {**error.details, "code": code}
        raise failure from None


def _is_empty_search(error: SiorgError) -> bool:
    return error.details.get("siorg_error") == 101


def _unit_path(code: int) -> str:
    return f"/unidade-organizacional/{code}/completa"


def _check_code(code: int) -> None:
    if not 1 <= code <= MAX_CODE:
        raise RequestRefused(f"a SIORG code is a number of 1 to {MAX_CODE}")
