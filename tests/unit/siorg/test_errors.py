"""The words that are stored and exported outlive every renaming of a class."""

from __future__ import annotations

from siorg_job.siorg.errors import SiorgError


def tree(kind: type[SiorgError]) -> list[type[SiorgError]]:
    return [kind, *(deeper for further in kind.__subclasses__() for deeper in tree(further))]


def test_kinds_and_error_types_are_what_they_always_were() -> None:
    made = [(kind.__name__, kind.kind, kind.__new__(kind).error_type) for kind in tree(SiorgError)]
    assert made == [
        ("SiorgError", "siorg_error", "SiorgError"),
        ("TransientError", "transient_error", "TransientError"),
        ("SiorgUnavailable", "siorg_unavailable", "SiorgUnavailable"),
        ("BreakerOpen", "breaker_open", "BreakerOpen"),
        ("MalformedResponse", "torn_answer", "TornAnswer"),
        ("UnusableAnswer", "unusable_answer", "UnusableAnswer"),
        ("RateLimited", "rate_limited", "RateLimited"),
        ("PermanentError", "permanent_error", "PermanentError"),
        ("NotFound", "not_found", "NotFound"),
        ("InvalidData", "invalid_answer", "InvalidAnswer"),
        ("ParentFailed", "parent_failed", "ParentFailed"),
        ("NotAnOrganization", "not_an_organization", "NotAnOrganization"),
        ("AnswerTooLarge", "answer_too_large", "AnswerTooLarge"),
        ("RequestRefused", "request_refused", "RequestRefused"),
        ("AccessRefused", "access_refused", "AccessRefused"),
    ]
