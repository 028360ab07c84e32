"""The SIORG side of the job: which address may be asked, what an answer means, and how hard SIORG may be asked.

    SiorgError
    ├─ TransientError ── SiorgUnavailable (─ BreakerOpen) · TornAnswer · RateLimited
    ├─ PermanentError ── NotFound · InvalidAnswer · NotAnOrganization · VersionUnknown · AnswerTooLarge · RequestRefused
    └─ AccessRefused

The client itself is ``siorg_job.siorg.client.SiorgClient``. It is not imported here: it brings the HTTP library, and
commands that ask SIORG nothing start without it.
"""

from siorg_job.siorg.address import check_base_url
from siorg_job.siorg.errors import (
    AccessRefused,
    AnswerTooLarge,
    BreakerOpen,
    InvalidAnswer,
    NotAnOrganization,
    NotFound,
    PermanentError,
    RateLimited,
    RequestRefused,
    SiorgError,
    SiorgUnavailable,
    TornAnswer,
    TransientError,
    VersionUnknown,
)
from siorg_job.siorg.limits import Breaker, BreakerState, Permit, RateLimiter, Unlimited
from siorg_job.siorg.model import DomainRow, DomainTable, Operation, RemoteUnit, Structure
from siorg_job.siorg.parsing import parse_stored, version_key

__all__ = [
    "AccessRefused",
    "AnswerTooLarge",
    "Breaker",
    "BreakerOpen",
    "BreakerState",
    "DomainRow",
    "DomainTable",
    "InvalidAnswer",
    "NotAnOrganization",
    "NotFound",
    "Operation",
    "PermanentError",
    "Permit",
    "RateLimited",
    "RateLimiter",
    "RemoteUnit",
    "RequestRefused",
    "SiorgError",
    "SiorgUnavailable",
    "Structure",
    "TornAnswer",
    "TransientError",
    "Unlimited",
    "VersionUnknown",
    "check_base_url",
    "parse_stored",
    "version_key",
]
