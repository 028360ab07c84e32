"""What can go wrong between the job and SIORG, told apart by what to do next.

"Try again later" and "never" are types, decided here where the knowledge is:

    SiorgError
    ├─ TransientError          try again later
    │   ├─ SiorgUnavailable    cannot connect, timeout, 5xx, codigoErro 1, a 4xx of somebody else; counts toward the breaker
    │   │   └─ BreakerOpen     refused locally while SIORG rests
    │   ├─ MalformedResponse   empty, cut off, not JSON, not SIORG's envelope; counts toward the breaker
    │   │   └─ UnusableAnswer  whole, but of its several rows not one can be used; no item pays for it
    │   └─ RateLimited         HTTP 429
    ├─ PermanentError          asking again will not help
    │   ├─ NotFound            HTTP 404, codigoErro 102; 101 of a list (of a single unit that is a MalformedResponse)
    │   ├─ InvalidData         the envelope is right, this row's data cannot be used
    │   ├─ ParentFailed        the row can be used, one above it cannot
    │   ├─ NotAnOrganization   codigoErro 104
    │   ├─ AnswerTooLarge      the body is over the cap; counts toward the breaker, for every answer may be
    │   └─ RequestRefused      any other codigoErro, or 4xx from who is known to be SIORG
    └─ AccessRefused           401, 403, a redirect elsewhere: nothing can be fetched until a person acts

Messages and details hold no token, no URL and no foreign data beyond short, cleaned excerpts: they are stored and
printed as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

Detail = str | int | float | bool | list[int] | None


class SiorgError(Exception):
    """Asking SIORG failed. The text, for a person to act on, is safe to store and print; ``details`` is made of JSON values."""

    kind: ClassVar[str] = "siorg_error"
    """The word for it in ``error_details.kind``."""
    endpoint: str | None = None
    """The kind of question that it came of, where that is known."""

    def __init__(self, message: str, **details: Detail) -> None:
        super().__init__(message)
        self.details: Mapping[str, Detail] = details

    def __init_subclass__(cls, *, kind: str) -> None:
        """Give the class its word, which is stored and exported: the class may be renamed, the word may not."""
        cls.kind = kind

    @property
    def error_type(self) -> str:
        """The word for it in the metrics: the kind in CamelCase."""
        return "".join(word.capitalize() for word in self.kind.split("_"))


class TransientError(SiorgError, kind="transient_error"):
    """Later the same question may well be answered.

    Attributes:
        retry_after: seconds that SIORG asked us to wait, or None when it did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, **details: Detail) -> None:
        if retry_after is not None:
            details["retry_after"] = retry_after
        super().__init__(message, **details)
        self.retry_after = retry_after


class SiorgUnavailable(TransientError, kind="siorg_unavailable"):
    """SIORG cannot be reached, does not answer in time, or says that it failed."""


class BreakerOpen(SiorgUnavailable, kind="breaker_open"):
    """Refused locally, nothing was sent: SIORG failed too often in a row.

    Attributes:
        retry_in: seconds until asking may make sense again.
    """

    def __init__(self, retry_in: float) -> None:
        super().__init__(f"SIORG failed repeatedly and is left alone for another {retry_in:.1f} s", retry_in=round(retry_in, 3))
        self.retry_in = retry_in


class MalformedResponse(TransientError, kind="torn_answer"):
    """What arrived is no whole answer of SIORG: empty, cut off, not JSON, or another program's envelope."""


class UnusableAnswer(MalformedResponse, kind="unusable_answer"):
    """None of several rows can be used: rather a broken answer than so many bad units."""


class RateLimited(TransientError, kind="rate_limited"):
    """SIORG answered 429."""


class PermanentError(SiorgError, kind="permanent_error"):
    """The same question will get the same answer."""


class NotFound(PermanentError, kind="not_found"):
    """SIORG has nothing under this code."""


class InvalidData(PermanentError, kind="invalid_answer"):
    """SIORG answered, but this row cannot be used; ``details["field"]`` is the place in it (``contato[0].telefone``)."""


class ParentFailed(PermanentError, kind="parent_failed"):
    """The row is well, but one above it cannot be used; ``details["waits_for"]`` has its code."""


class NotAnOrganization(PermanentError, kind="not_an_organization"):
    """The code belongs to a unit, where SIORG wants an órgão or entidade (codigoErro 104)."""


class AnswerTooLarge(PermanentError, kind="answer_too_large"):
    """The body is over the cap and was not read to its end."""


class RequestRefused(PermanentError, kind="request_refused"):
    """SIORG refuses the request itself."""


class AccessRefused(SiorgError, kind="access_refused"):
    """401, 403, or a redirect to elsewhere: the settings or the rights are wrong, and waiting does not mend that."""


def says_no_organization(error: SiorgError) -> bool:
    """Whether the answer is SIORG's word that it has no such órgão or entidade: codigoErro 102 or 104, or HTTP 404."""
    return error.details.get("siorg_error") in (102, 104) or (isinstance(error, NotFound) and error.details.get("status") == 404)
