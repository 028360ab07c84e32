r"""Logs: one line an entry, as text for people or as JSON for programs, without secrets.

They go to standard error, so that what a command prints (``status --json``) stays clean on standard output; Kubernetes
collects both. Text reads as the first worker's did::

    2026-01-01T12:00:00.123Z  INFO siorg_job.drain: Batch complete: 10 processed, … seconds=0.4

JSON has the keys ``timestamp`` (RFC 3339, UTC, milliseconds), ``level`` (DEBUG, INFO, WARN, ERROR), ``target`` and
``message``, then the bound fields. A field with one of those four names gets a trailing underscore.

Written for this job and not on a logging framework: a Job that finds an empty queue should cost little more than its
database driver, and importing structlog alone adds a tenth to that, and about a quarter where rich is installed.

Writing an entry never raises, whatever it is given: a log line must not be what ends an item.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Final, Literal, TextIO, TypeAlias

from siorg_job.redaction import Redactor, as_text
from siorg_runtime.log_line import LONGEST_TEXT, RESERVED, as_json, as_text_line, level_name, timestamp, traceback_of

LogFormat: TypeAlias = Literal["text", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

_SEVERITY: Final[Mapping[str, int]] = MappingProxyType(
    {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
)


@dataclass(frozen=True, slots=True)
class _Destination:
    """Where entries go, and how."""

    format: LogFormat
    threshold: int
    redactor: Redactor
    stream: TextIO | None  # None: whatever sys.stderr is at that moment


_destination = _Destination("text", logging.INFO, Redactor(), None)
_write_lock = threading.Lock()


def configure(format: LogFormat, level: LogLevel, redactor: Redactor, stream: TextIO | None = None) -> None:  # noqa: A002 - the word of LOG_FORMAT
    """Say how and where logs are written. Also takes in what libraries log, from WARNING on.

    Args:
        format: ``text`` or ``json``.
        level: the least severe level that is written.
        redactor: goes over every text of every entry.
        stream: standard error when not given.
    """
    global _destination  # noqa: PLW0603 - a process has one log
    _destination = _Destination(format, _SEVERITY[level], redactor, stream)
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _FromLibraries)]:
        root.removeHandler(handler)
    root.addHandler(_FromLibraries(level=logging.WARNING))
    root.setLevel(logging.WARNING)


def capture_uncaught() -> None:
    """Send what nobody caught (main thread, other threads, warnings) through the log, and so past the redactor.

    For the command line's entry point: it changes hooks of the whole process.
    """
    logging.captureWarnings(capture=True)

    def of_main(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            return
        _write(logging.ERROR, "siorg_job", "Unexpected error", {}, error.with_traceback(trace))

    def of_thread(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None and not issubclass(arguments.exc_type, SystemExit):
            thread = arguments.thread.name if arguments.thread is not None else "unknown"
            _write(logging.ERROR, "siorg_job", "Unexpected error in a thread", {"thread": thread}, arguments.exc_value)

    sys.excepthook = of_main
    threading.excepthook = of_thread


class Logger:
    """Writes entries of one target with the fields that were bound to it. Immutable."""

    __slots__ = ("_fields", "_target")

    def __init__(self, target: str, fields: Mapping[str, object] = MappingProxyType({})) -> None:
        """See ``logger``."""
        self._target = target
        self._fields = fields

    def bind(self, **fields: object) -> Logger:
        """Return a logger that adds ``fields`` to each entry. Of two fields with one name the later one counts."""
        return Logger(self._target, {**self._fields, **fields})

    def debug(self, message: str, /, **fields: object) -> None:
        """Write what helps to find a fault."""
        self._write(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        """Write what a person wants to know of a run that goes well."""
        self._write(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        """Write what is not as it should be, while the work goes on."""
        self._write(logging.WARNING, message, fields)

    def error(self, message: str, /, *, exc_info: BaseException | None = None, **fields: object) -> None:
        """Write what failed, with ``exc_info`` if given: its type and message, and at level debug its traceback."""
        self._write(logging.ERROR, message, fields, exc_info)

    def exception(self, message: str, /, **fields: object) -> None:
        """Write what failed, with the exception that is being handled."""
        self._write(logging.ERROR, message, fields, sys.exception())

    def _write(self, severity: int, message: str, fields: Mapping[str, object], error: BaseException | None = None) -> None:
        if severity >= _destination.threshold:
            _write(severity, self._target, message, {**self._fields, **fields}, error)


def logger(target: str) -> Logger:
    """Return the logger of ``target``, a module's name. Costs nothing, and may be called before ``configure``."""
    return Logger(target)


class _FromLibraries(logging.Handler):
    """Takes in what psycopg, httpx2, asyncio and others log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record as an entry of ours."""
        if record.levelno < _destination.threshold:
            return
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit are the library's fault, and no reason to fail
            message = as_text(record.msg)
        error = record.exc_info[1] if record.exc_info else None
        _write(record.levelno, record.name, message, {}, error)


# -- writing ----------------------------------------------------------------------------------------------------------


def _write(severity: int, target: str, message: object, fields: Mapping[str, object], error: BaseException | None) -> None:
    to = _destination
    try:
        line = _line(to, severity, target, message, fields, error)
    except Exception:  # noqa: BLE001 - see the module's docstring
        line = _line(to, logging.ERROR, target, f"(its fields could not be written) {as_text(message)}", {}, None)
    stream = to.stream if to.stream is not None else sys.stderr
    try:
        if to.format == "text":
            encoding = getattr(stream, "encoding", None) or "utf-8"
            line = line.encode(encoding, "backslashreplace").decode(encoding)
        with _write_lock:
            stream.write(line + "\n")
            stream.flush()
    except (OSError, ValueError, AttributeError):
        pass  # the stream is closed, full or absent: there is nowhere left to say so


def _line(
    to: _Destination,
    severity: int,
    target: str,
    message: object,
    fields: Mapping[str, object],
    error: BaseException | None,
) -> str:
    entry: dict[str, object] = {
        "timestamp": timestamp(time.time()),
        "level": level_name(severity),
        "target": target,
        "message": _clean(message, to.redactor),
    }
    for name, value in fields.items():
        entry[f"{name}_" if name in RESERVED else name] = _field(name, value, to.redactor)
    if error is not None:
        entry["exception"] = _field("exception", error, to.redactor)
        if to.threshold <= logging.DEBUG:
            entry["traceback"] = _clean(traceback_of(error), to.redactor)
    return as_json(entry, _encoding(to.stream)) if to.format == "json" else as_text_line(entry)


def _field(name: str, value: object, redactor: Redactor) -> object:
    if isinstance(value, BaseException):
        said = as_text(value)
        return _clean(f"{type(value).__name__}: {said}" if said else type(value).__name__, redactor)
    return _encodable(redactor.field(name, value))


def _encodable(value: object) -> object:
    """A value of ``Redactor.value`` with texts that can be encoded, and numbers that JSON has."""
    if isinstance(value, str):
        return _short(_no_surrogates(value))
    if isinstance(value, dict):
        return {_no_surrogates(key): _encodable(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_encodable(entry) for entry in value]
    if isinstance(value, float) and value - value != 0:  # infinite, or not a number
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        return hex(value)[:64]  # decimal text of a huge integer is refused by Python itself
    return value


def _clean(value: object, redactor: Redactor) -> str:
    # Redacted before it is shortened, or half a secret could stay at the end.
    return _short(redactor.text(_no_surrogates(as_text(value))))


def _no_surrogates(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}… ({len(text)} characters)"


def _encoding(stream: TextIO | None) -> str:
    return getattr(stream if stream is not None else sys.stderr, "encoding", None) or "utf-8"
