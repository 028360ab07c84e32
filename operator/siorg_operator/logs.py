r"""Logs of the operator: one line an entry, as text for people or as JSON for programs, without secrets.

The form is that of the job's logs, so that one query finds both. Text::

    2026-01-01T12:00:00.123Z  INFO siorg_operator.control.reconcile: Launched 2 Jobs namespace=siorg name=main

JSON has the keys ``timestamp`` (RFC 3339, UTC, milliseconds), ``level`` (DEBUG, INFO, WARN, ERROR), ``target`` and
``message``, then the fields. A field with one of those four names gets a trailing underscore.

It stands on the standard library's ``logging``, as kopf and the Kubernetes client do: whatever they log comes out in the
same form, past the same redactor. What kopf logs of an object has that object's ``namespace`` and ``name`` as fields.

Writing an entry never raises: a log line must not be what ends a pass.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Final, Literal, TextIO, TypeAlias

from siorg_operator.redaction import Redactor
from siorg_runtime.log_line import LONGEST_TEXT, RESERVED, as_json, as_text_line, level_name, timestamp, traceback_of

LogFormat: TypeAlias = Literal["text", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

_SEVERITY: Final[Mapping[str, int]] = MappingProxyType(
    {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
)
_ALWAYS_QUIET: Final = (
    "aiohttp.access",  # a line for each request
    "kopf.activities.probe",  # two for each probe
    "leaderelection",  # three for each renewal
    "kubernetes",
    "urllib3",
    "asyncio",
    "psycopg",
)
"""Loggers that are heard from WARNING on, also at level debug: what they say below that is noise, or bodies of Secrets."""
_QUIET_UNLESS_DEBUG: Final = ("kopf.objects",)  # "Daemon 'x' is invoked": what our own lines say better

_FIELDS = "siorg_fields"
# What a record has of itself, and what kopf adds for its own handlers.
_NO_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {
    "message", "asctime", "taskName", "color_message", "k8s_skip", "k8s_ref", "settings", _FIELDS,
}  # fmt: skip
_DEEPEST = 16  # levels of a field's value

_redactor = Redactor()


def remember_secret(secret: str) -> None:
    """Keep ``secret`` (a token, a password, a URL with a password) out of every entry from now on."""
    _redactor.remember(secret)


def redacted(text: str) -> str:
    """Return ``text`` without the secrets that are known: for a status, an event, an answer to a probe."""
    return _redactor.text(text)


def configure(format: LogFormat, level: LogLevel, stream: TextIO | None = None) -> None:  # noqa: A002 - the word of LOG_FORMAT
    """Say how and where everything that this process logs is written. May be called again.

    Args:
        format: ``text`` or ``json``.
        level: the least severe level that is written.
        stream: standard error when not given.
    """
    threshold = _SEVERITY[level]
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)
    handler = _Handler(threshold, stream)
    handler.setFormatter(_Formatter(format, threshold, handler))
    root.addHandler(handler)
    root.setLevel(threshold)
    for name in _ALWAYS_QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _QUIET_UNLESS_DEBUG:
        logging.getLogger(name).setLevel(logging.NOTSET if threshold <= logging.DEBUG else logging.WARNING)


def capture_uncaught() -> None:
    """Send what nobody caught (main thread, other threads, warnings) through the log, and so past the redactor.

    For the command line's entry point: it changes hooks of the whole process.
    """
    logging.captureWarnings(capture=True)
    log = logging.getLogger("siorg_operator")

    def of_main(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            log.error("Unexpected error", exc_info=(kind, error, trace))

    def of_thread(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None and not issubclass(arguments.exc_type, SystemExit):
            thread = arguments.thread.name if arguments.thread is not None else "unknown"
            caught = (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
            log.error("Unexpected error in a thread", exc_info=caught, extra={_FIELDS: {"thread": thread}})

    sys.excepthook = of_main
    threading.excepthook = of_thread


class Logger:
    """Writes entries of one target with the fields that were bound to it. Immutable."""

    __slots__ = ("_fields", "_log")

    def __init__(self, target: str, fields: Mapping[str, object] = MappingProxyType({})) -> None:
        """See ``logger``."""
        self._log = logging.getLogger(target)
        self._fields = fields

    def bind(self, **fields: object) -> Logger:
        """Return a logger that adds ``fields`` to each entry. Of two fields with one name the later one counts."""
        return Logger(self._log.name, {**self._fields, **fields})

    def debug(self, message: str, /, **fields: object) -> None:
        """Write what helps to find a fault."""
        self._write(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        """Write what a person wants to know of an operator that is well."""
        self._write(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        """Write what is not as it should be, while the work goes on."""
        self._write(logging.WARNING, message, fields)

    def error(self, message: str, /, *, exc_info: BaseException | None = None, **fields: object) -> None:
        """Write what failed, with ``exc_info`` if given: its type, message and traceback."""
        self._write(logging.ERROR, message, fields, exc_info)

    def exception(self, message: str, /, **fields: object) -> None:
        """Write what failed, with the exception that is being handled."""
        self._write(logging.ERROR, message, fields, sys.exception())

    def _write(self, severity: int, message: str, fields: Mapping[str, object], error: BaseException | None = None) -> None:
        if self._log.isEnabledFor(severity):
            # As an argument: a % in a message is a %.
            self._log.log(severity, "%s", message, exc_info=error, extra={_FIELDS: {**self._fields, **fields}})


def logger(target: str) -> Logger:
    """Return the logger of ``target``, a module's name. May be called before ``configure``."""
    return Logger(target)


# -- writing ----------------------------------------------------------------------------------------------------------


class _Handler(logging.Handler):
    """Writes lines to standard error, or to ``stream``."""

    def __init__(self, level: int, stream: TextIO | None) -> None:
        super().__init__(level)
        self._stream = stream

    @property
    def stream(self) -> TextIO:
        """Whatever standard error is at this moment, unless a stream was given."""
        return self._stream if self._stream is not None else sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        stream = self.stream
        try:
            stream.write(self.format(record) + "\n")
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # the stream is closed, full or absent: there is nowhere left to say so


class _Formatter(logging.Formatter):
    """Makes the line of a record."""

    def __init__(self, form: LogFormat, threshold: int, handler: _Handler) -> None:
        super().__init__()
        self._form = form
        self._tracebacks_from = logging.DEBUG if threshold <= logging.DEBUG else logging.ERROR
        self._handler = handler

    def format(self, record: logging.LogRecord) -> str:
        encoding = getattr(self._handler.stream, "encoding", None) or "utf-8"
        try:
            entry = self._entry(record, _fields_of(record))
        except Exception:  # noqa: BLE001 - see the module's docstring
            entry = {**self._head(record, f"(its fields could not be written) {_as_text(record.msg)}"), "level": "ERROR"}
        if self._form == "json":
            return as_json(entry, encoding)
        return as_text_line(entry).encode(encoding, "backslashreplace").decode(encoding)

    def _head(self, record: logging.LogRecord, message: object) -> dict[str, object]:
        return {
            "timestamp": timestamp(record.created),
            "level": level_name(record.levelno),
            "target": record.name,
            "message": _clean(message),
        }

    def _entry(self, record: logging.LogRecord, fields: Mapping[str, object]) -> dict[str, object]:
        entry = self._head(record, _message_of(record))
        for name, value in fields.items():
            entry[f"{name}_" if name in RESERVED else name] = _value(value, _DEEPEST)
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            entry["exception"] = _value(error, _DEEPEST)
            if record.levelno >= self._tracebacks_from:
                entry["traceback"] = _clean(traceback_of(error))
        if record.stack_info:
            entry["stack"] = _clean(record.stack_info)
        return entry


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    reference = getattr(record, "k8s_ref", None)
    fields: dict[str, object] = {}
    if isinstance(reference, Mapping):
        fields.update({key: reference[key] for key in ("namespace", "name") if reference.get(key)})
    fields.update({key: value for key, value in vars(record).items() if key not in _NO_FIELDS})
    ours = getattr(record, _FIELDS, None)
    if isinstance(ours, Mapping):
        fields.update(ours)
    return fields


def _message_of(record: logging.LogRecord) -> object:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit are the caller's fault, and no reason to fail
        return record.msg


def _value(value: object, levels: int) -> object:
    """``value`` without secrets, and so that ``json.dumps`` takes it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else hex(value)[:64]  # Python itself refuses the decimal text of huge ones
    if isinstance(value, float):
        return str(value) if value - value != 0 else value  # infinite, or not a number
    if isinstance(value, BaseException):
        said = _as_text(value)
        return _clean(f"{type(value).__name__}: {said}" if said else type(value).__name__)
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        if levels == 0:
            return "…"
        if isinstance(value, Mapping):
            return {_clean(key): _value(entry, levels - 1) for key, entry in value.items()}
        return [_value(entry, levels - 1) for entry in value]
    return _clean(value)


def _clean(value: object) -> str:
    # Redacted before it is shortened, or half a secret could stay at the end.
    text = _redactor.text(_as_text(value).encode("utf-8", "backslashreplace").decode())
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}… ({len(text)} characters)"


def _as_text(value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - any class may have any __str__
        return f"<unreadable {type(value).__name__}>"
