"""Why no answer came: who did not let a request through, SIORG or the proxy before it, and what a person can do. Pure."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from dataclasses import dataclass
from typing import Final

from siorg_job.siorg.errors import AccessRefused, SiorgError, SiorgUnavailable
from siorg_runtime.proxies import Proxy

# What OpenSSL finds wrong with an authority's certificate only where VERIFY_X509_STRICT is set, as Python does from 3.13 on:
# X509_V_ERR_PATHLEN_INVALID_FOR_NON_CA to X509_V_ERR_EC_KEY_EXPLICIT_PARAMS.
_STRICT_CODES: Final = range(80, 95)
_TRIED_IN_TLS = ".start_tls"
_CLOSED = "the connection is closed in the middle of the handshake"


@dataclass(slots=True)
class Way:
    """The way of one request, and how far it came.

    Attributes:
        proxy: that it leads through, if it does.
        step: the last that was begun, as the HTTP library calls it: ``connection.connect_tcp``, ``connection.start_tls`` (with
            the proxy, if there is one), ``proxy.start_tls`` (with SIORG, through it), ``http11.send_request_headers`` …
    """

    proxy: Proxy | None = None
    step: str = ""

    async def trace(self, event: str, _details: object) -> None:
        """Hear of every event on the way."""
        if event.endswith(".started"):
            self.step = event.removesuffix(".started")

    @property
    def ends_at_proxy(self) -> bool:
        """Whether it did not come farther than the proxy."""
        return self.proxy is not None and self.step.startswith("connection.")

    def __str__(self) -> str:
        """Where it leads through, to be put behind a sentence."""
        return "" if self.proxy is None else f" (through the proxy that {self.proxy.variable} names)"


def why(error: BaseException, way: Way) -> SiorgError:
    """Say what kept a request from being answered, by what the HTTP library raised."""
    causes = _causes(error)
    who, whose, reason = "SIORG", "SIORG's", ""
    if way.ends_at_proxy:
        assert way.proxy is not None
        who = f"the proxy that {way.proxy.variable} names"
        whose, reason = f"{who}: its", "proxy"
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            message = f"{whose} certificate is not trusted ({cause.verify_message}){_way_out(cause)}"
            return SiorgUnavailable(message, reason=reason or "tls")
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            said = (cause.reason or _CLOSED).replace("_", " ").lower()
            return SiorgUnavailable(f"no TLS connection with {who} comes about ({said})", reason=reason or "tls")
    subject = who if way.ends_at_proxy else "SIORG's host"
    failures: tuple[tuple[type[BaseException], str, str], ...] = (
        (TimeoutError, "connect-timeout", f"{who} does not take the connection in time"),
        (socket.gaierror, "name", f"the name of {subject} cannot be resolved"),
        (ConnectionRefusedError, "refused", f"{subject} refuses the connection"),
    )
    for kind, word, message in failures:
        if any(isinstance(cause, kind) for cause in causes):
            return SiorgUnavailable(message, reason=reason or word)
    if way.step.endswith(_TRIED_IN_TLS):
        message = f"no TLS connection with {who} comes about ({_CLOSED})"
        return SiorgUnavailable(message, reason=reason or "tls")
    if way.step == "connection.connect_tcp":
        return SiorgUnavailable(f"no connection with {who} comes about", reason=reason or "connect")
    return SiorgUnavailable(f"SIORG closed the connection without an answer{way}", reason="closed")


def out_of_memory(error: BaseException) -> MemoryError | None:
    """Our own want of memory, which libraries tell as a connection that broke or a file that cannot be read; None: it is none."""
    for cause in _causes(error):
        if isinstance(cause, MemoryError):
            return cause
        if isinstance(cause, ssl.SSLError) and cause.reason == "MALLOC_FAILURE":
            return MemoryError("OpenSSL has no memory left")
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            return MemoryError(os.strerror(errno.ENOMEM))
    return None


def refused_by_proxy(status: int | None, way: Way) -> SiorgError:
    """Say that the proxy answered in SIORG's place, with an HTTP status."""
    variable = "the environment" if way.proxy is None else way.proxy.variable
    if status in {401, 403, 407}:
        wants = "wants a user and a password in its address" if status == 407 else "does not let anybody through to SIORG"
        return AccessRefused(f"the proxy that {variable} names {wants} (HTTP {status})", status=status)
    told = "" if status is None else f" (HTTP {status})"
    return SiorgUnavailable(f"the proxy that {variable} names does not reach SIORG{told}", reason="proxy")


def _way_out(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _STRICT_CODES:
        return (
            "; from 3.13 on Python demands this of authorities in SSL_CERT_FILE or SSL_CERT_DIR (VERIFY_X509_STRICT), but not of"
            " those in SIORG_CA_BUNDLE: name it there, or have its certificate issued anew"
        )
    return "; does it need SIORG_CA_BUNDLE?"


def _causes(error: BaseException) -> list[BaseException]:
    """An error and what led to it, in some 20 steps."""
    causes = [error]
    for cause in causes:  # grows meanwhile
        if isinstance(cause, BaseExceptionGroup):
            causes += cause.exceptions
        if len(causes) < 20 and (following := cause.__cause__ or cause.__context__):
            causes.append(following)
    return causes
