"""What a value of the table ``system_settings`` means, as people write it: ``true``, ``"False "``, ``1``. Pure."""

from __future__ import annotations

SYNC_ENABLED = "siorg.sync_enabled"
"""The switch that people have: while it is false, nothing is synchronised."""

BOOLEAN_WORDS = "true, false, on, off, yes, no, 1, 0"
"""What may stand for a boolean, in any case and with white space around it; for people."""

_WORDS = {
    **dict.fromkeys(("true", "on", "yes", "1"), True),
    **dict.fromkeys(("false", "off", "no", "0"), False),
}


def as_boolean(value: object) -> bool | None:
    """The JSON value of a setting as a boolean; None: it is neither true nor false."""
    return _WORDS.get(str(value).strip().lower()) if isinstance(value, str | int) else None
