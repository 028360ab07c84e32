"""Keeps secrets out of everything that is printed, stored or raised.

Two nets, one behind the other:

* **Known secrets** (the token, the database's password, its URL) are replaced wherever they stand, also percent-encoded
  or JSON-escaped. Only from four characters on: a password ``a`` would turn every log into stars.
* **Known places** hold secrets whatever these are: ``scheme://user:password@host``, ``password=…``,
  ``Authorization: …``, ``Bearer …``, and fields of those names. Here short ones are replaced too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from siorg_runtime.secret_places import STARS, forms_of, without_known_places

_DEEPEST = 64  # levels: JSON deeper than this is cut, and a structure that contains itself comes to an end

_SECRET_KEYS = frozenset(
    {
        "authorization", "proxy-authorization", "password", "passwd", "sslpassword", "pgpassword",
        "access_token", "api_key", "apikey", "client_secret", "database_url", "siorg_api_token",
    }
)  # fmt: skip


class Redactor:
    """Replaces secrets with ``***``. Immutable, and safe to use from several threads."""

    __slots__ = ("_known",)

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Know these ``secrets``, each also as it stands in a URL and inside JSON. Empty ones are ignored."""
        forms = {form for secret in secrets for form in forms_of(secret)}
        # Longest first: of a URL and the password in it, the URL goes as a whole.
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __repr__(self) -> str:
        """Say what this is and nothing of what it knows."""
        return "Redactor(***)"

    def text(self, text: str) -> str:
        """Return ``text`` without the secrets."""
        if self._known is not None:
            text = self._known.sub(STARS, text)
        return without_known_places(text)

    def value(self, value: object) -> object:
        """Return ``value`` without the secrets, and so that ``json.dumps`` takes it.

        Mappings, sequences and sets are gone through (keys too); numbers, booleans and None stay; bytes and anything
        else become text. Never raises.
        """
        return self._value(value, _DEEPEST)

    def field(self, name: str, value: object) -> object:
        """Return the ``value`` of a field: as ``value`` does, but ``***`` where ``name`` says that it is a secret."""
        return self._field(name, value, _DEEPEST)

    def _value(self, value: object, levels: int) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self.text(str.__str__(value))
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            if levels == 0:
                return "…"
            try:
                if isinstance(value, Mapping):
                    return {self._key(key): self._field(key, entry, levels - 1) for key, entry in value.items()}
                return [self._value(entry, levels - 1) for entry in value]
            except Exception:  # noqa: BLE001 - a mapping of another's making may raise anything
                return unreadable(value)
        return self.text(as_text(value))

    def _key(self, key: object) -> str:
        return self.text(as_text(key))

    def _field(self, key: object, entry: object, levels: int) -> object:
        if isinstance(key, str) and isinstance(entry, str | bytes) and entry and key.lower() in _SECRET_KEYS:
            return STARS
        return self._value(entry, levels)


def as_text(value: object) -> str:
    r"""``str(value)`` that never raises; bytes are read as UTF-8, with ``\xNN`` for what is none."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - any class may have any __str__
        return unreadable(value)


def unreadable(value: object) -> str:
    """What stands for a value that cannot say what it is."""
    return f"<unreadable {type(value).__name__}>"
