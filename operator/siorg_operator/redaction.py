"""Keeps secrets out of what the operator logs.

Two nets, one behind the other: **known secrets** (``remember``: database URLs, passwords, tokens) are replaced wherever
they stand, also percent-encoded, JSON-escaped and in base64, as Kubernetes keeps them; from four characters on, for a
password ``a`` would turn every log into stars. **Known places** hold secrets whatever these are:
``scheme://user:password@host``, ``password=…``, ``Authorization: …``, ``Bearer …``.
"""

from __future__ import annotations

import base64
import re
import threading
from bisect import insort
from collections.abc import Iterator
from urllib.parse import unquote

from siorg_runtime.secret_places import SHORTEST_SECRET, STARS, forms_of, without_known_places

_SECRET_PARAMETER = re.compile(r"[?&](?:ssl)?password=([^&#]*)", re.IGNORECASE)


class Redactor:
    """Replaces secrets with ``***``. Learns at run time; safe to use from several threads."""

    __slots__ = ("_known", "_lock", "_remembered")

    def __init__(self) -> None:
        """Know no secret yet."""
        self._remembered: set[str] = set()
        self._known: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Say what this is and nothing of what it knows."""
        return "Redactor(***)"

    def remember(self, secret: str) -> None:
        """Replace ``secret`` from now on: a token, a password, or a URL with a password in it. Never forgotten again.

        A Secret that was replaced may still be in an error that is yet to be logged.
        """
        if secret in self._remembered:  # the usual case: Secrets are read again and again
            return
        forms = {form for one in _parts(secret) for form in _forms(one) if len(form) >= SHORTEST_SECRET}
        with self._lock:
            # Put in their places, not sorted anew: with hundreds of resources that took more than a second at the start.
            known = list(self._known)
            for form in forms.difference(known):
                insort(known, form, key=_longest_first)
            self._known = tuple(known)
            self._remembered.add(secret)

    def text(self, text: str) -> str:
        """Return ``text`` without the secrets."""
        # A plain search for each: an alternation of thousands is much slower, and 500 resources may bring so many.
        for known in self._known:
            if known in text:
                text = text.replace(known, STARS)
        return without_known_places(text)


def _longest_first(form: str) -> int:
    """Of a URL and the password in it, the URL goes as a whole."""
    return -len(form)


def _parts(secret: str) -> Iterator[str]:
    """The secret itself, and the passwords in it where it is a URL."""
    secret = secret.strip()
    yield secret
    _, scheme, rest = secret.partition("://")
    if not scheme:
        return
    # Both readings of a URL that is ambiguous: up to the first @, as libpq does it, and up to the last one.
    for user_information in {rest.partition("@")[0], rest.rpartition("@")[0]}:
        _, colon, password = user_information.partition(":")
        if colon and "@" in rest:
            yield user_information
            yield from (password, unquote(password))
    for password in _SECRET_PARAMETER.findall(rest):
        yield from (password, unquote(password))


def _forms(secret: str) -> Iterator[str]:
    """The ways in which one secret may be written; in base64 too, as Kubernetes keeps Secrets."""
    yield from forms_of(secret)
    encodable = secret.encode("utf-8", "surrogateescape")
    for kept in (encodable, encodable + b"\n"):  # the second as `echo … | base64` makes it
        yield base64.b64encode(kept).decode()
