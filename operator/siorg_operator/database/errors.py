"""Why a queue could not be read, told so that a person knows what to do, and without any secret.

The one place where foreign words are read: of a refused login libpq gives the server's words and no code.
"""

from __future__ import annotations

import re
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import Unreadable
from siorg_queue import is_transient
from siorg_runtime.redaction import Redactor

URL_IN_SECRET: Final = "the URL in the Secret"  # noqa: S105 - words for people
"""What a person has to correct, where the URL comes from a Secret."""

_LONGEST_TEXT = 300  # characters of what a server says

# Servers in Brazil may say them in Portuguese. Names in quotes are left out: a user may be called "password".
_CROWDED = re.compile(r"too many|remaining connection slots|muitas conex|vagas de conex", re.IGNORECASE)
_NO_DATABASE = re.compile(r"(?:database|banco de dados) \"\" (?:does not exist|não existe)|no such database", re.IGNORECASE)
_DENIED = re.compile(
    r"authenti|autentica|pg_hba|password|senha|no such user|permission denied|permissão negada|permitted to log in"
    r"|\brole \"\" (?:does not exist|não existe|não tem permissão)",
    re.IGNORECASE,
)
_WRONG_VALUE = re.compile(r"\binvalid (?:\w+ )*value|invalid port number", re.IGNORECASE)


def unreadable(error: Exception, url: str, correct: str = URL_IN_SECRET) -> Unreadable:
    """Why the queue behind ``url`` could not be read, without any secret of that.

    ``error``: one of ``connection.FAILURES``. ``correct``: what a person has to correct when the URL is wrong.
    """
    what = describe(error, url)
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        return _refusal(error, error.sqlstate, what, url)
    bare = re.sub(r'"[^"]*"', '""', what)
    if isinstance(error, UnicodeError | psycopg.ProgrammingError) or _WRONG_VALUE.search(bare):
        return wrong_url(f"cannot be used: {what}", correct)
    if not _CROWDED.search(bare):
        if _NO_DATABASE.search(bare):
            return Unreadable(Reason.WRONG_URL, f"{what}: correct {correct}, or create the database")
        if _DENIED.search(bare):
            return Unreadable(Reason.ACCESS_DENIED, f"{what}: correct {correct}, or let the user in")
    return _away(what)


def unverifiable(error: psycopg.Error, url: str) -> str:
    """Why the stored verifications cannot be read while the queue can, and what to do about it."""
    what = describe(error, url)
    match error.sqlstate:
        case "42P01" | "42703":  # table, column
            return f"the table of verifications is missing ({what}): run siorg-job migrate. Launching goes on"
        case "42501":
            return f"{what}: let the tables' owner run GRANT SELECT ON siorg_verifications TO {_user(url)}. Launching goes on"
    return f"the stored verifications cannot be read: {what} (SQLSTATE {error.sqlstate}). Launching goes on"


def wrong_url(problem: str, correct: str = URL_IN_SECRET) -> Unreadable:
    """The URL itself is wrong. ``problem``: what is wrong with it, in words that follow its name."""
    return Unreadable(Reason.WRONG_URL, f"the database's URL {problem}: correct {correct}")


def _refusal(error: psycopg.Error, code: str, what: str, url: str) -> Unreadable:
    match code:
        case "42P01" | "42703" | "42704":  # table, column, type
            return Unreadable(
                Reason.NOT_MIGRATED,
                f"the queue's tables are missing or older than this version ({what}): run siorg-job migrate. If they are"
                " there, the user has no USAGE on their schema, or its search_path does not name it",
            )
        case "42501":
            return Unreadable(
                Reason.ACCESS_DENIED,
                f"{what}: let the tables' owner run GRANT SELECT ON siorg_sync_queue, system_settings, siorg_request_pace"
                f" TO {_user(url)} (Jobs, with the same URL, have to write too)",
            )
    if is_transient(error):
        return _away(what)
    return Unreadable(Reason.STATEMENT_FAILED, f"the database refuses to be read: {what} (SQLSTATE {code})")


def _away(what: str) -> Unreadable:
    message = f"the database does not answer: {what}. Jobs go on; nothing new is launched until it does"
    return Unreadable(Reason.DATABASE_UNAVAILABLE, message)


def describe(error: Exception, url: str) -> str:
    """One line of what went wrong, without any secret of ``url``."""
    match error:
        case UnicodeError():
            text = "its host is no host name"
        case psycopg.ProgrammingError() if error.sqlstate is None:
            text = "libpq does not take it"  # what it says has parts of the URL in it
        case psycopg.errors.ConnectionTimeout():
            text = f"no connection to {where(url)} in time"
        case psycopg.Error():
            text = error.diag.message_primary or str(error)
        case _:
            text = str(error) or f"no connection to {where(url)} in time"
    # The first line: behind it libpq has good advice, and what it tried with other addresses.
    text = " ".join(text.strip().partition("\n")[0].split())
    for opening in ("connection failed: ", "connection is bad: ", "consuming input failed: "):
        text = text.removeprefix(opening)
    if _WRONG_VALUE.search(text):  # without the value: it may be a part of a password that went astray
        text = re.sub(r':? "[^"]*"', "", text)
    # None is expected: neither libpq nor a server tells a password.
    return Redactor([url]).text(text)[:_LONGEST_TEXT] or type(error).__name__


def where(url: str) -> str:
    """Database and host of a URL, for people: ``siorg on db.example``. Never raises, and shows nothing of a wrong URL."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        return "a database"
    return f"{parts.get('dbname') or parts.get('user') or 'postgres'} on {parts.get('host') or 'localhost'}"


def _user(url: str) -> str:
    user = str(conninfo_to_dict(url).get("user") or "")
    if re.fullmatch(r"[a-z_][a-z0-9_]*", user):
        return user
    return '"' + user.replace('"', '""') + '"' if user else "the user"
