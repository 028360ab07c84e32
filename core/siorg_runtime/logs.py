r"""Logs: one line an entry, as text for people or as JSON for programs, without secrets.

They go to standard error, so that what a command prints (``status --json``) stays clean on standard output; Kubernetes
collects both. Text::

    2026-01-01T12:00:00.123Z  INFO siorg_job.drain: Batch complete: 10 processed, … seconds=0.4

JSON has the keys ``timestamp`` (RFC 3339, UTC, milliseconds), ``level`` (DEBUG, INFO, WARN, ERROR), ``target`` and
``message``, then the fields. A field with one of those four names gets a trailing underscore. An error brings its
traceback, a warning only at level debug.

It stands on the standard library's ``logging``: what psycopg, kopf and others log comes out in the same form, past the
same redactor. What kopf logs of an object has that object's ``namespace`` and ``name`` as fields.

Writing an entry never raises, whatever it is given: a log line must not be what ends an item or a pass.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, TextIO, TypeAlias

from pythonjsonlogger.json import JsonFormatter

from siorg_runtime.redaction import Redactor, as_text, redactor

LogFormat: TypeAlias = Literal["text", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

_Line: TypeAlias = Callable[[dict[str, object]], str]

_SEVERITY: Final[Mapping[str, int]] = MappingProxyType(
    {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
)
_OURS = ("siorg_job", "siorg_operator", "siorg_queue", "siorg_runtime")
_HEAD = ("timestamp", "level", "target", "message")
_FIELDS = "siorg_fields"  # the one attribute of a record with all fields: ``name`` and others are the record's own
# What a record has of itself, and what kopf adds for its own handlers.
_NO_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {
    "message", "asctime", "taskName", "color_message", "k8s_skip", "k8s_ref", "settings", _FIELDS,
}  # fmt: skip

# Everything that some reader takes for the end of a line, or that a terminal would obey.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_LEFT_BY_JSON = re.compile(r"[\x7f-\x9f\u2028\u2029]")
_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_BARE = re.compile(r"[^\s\"=]+")


class Logger:
    """Writes entries of one target, with keyword arguments as fields."""

    __slots__ = ("_log",)

    def __init__(self, target: str) -> None:
        """See ``logger``."""
        self._log = logging.getLogger(target)

    def debug(self, message: str, /, **fields: object) -> None:
        """Write what helps to find a fault."""
        self._write(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        """Write what a person wants to know of a program that is well."""
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

    def _write(self, severity: int, message: str, fields: dict[str, object], error: BaseException | None = None) -> None:
        if self._log.isEnabledFor(severity):
            # As an argument: a % in a message is a %.
            self._log.log(severity, "%s", message, exc_info=error, extra={_FIELDS: fields}, stacklevel=3)


def logger(target: str) -> Logger:
    """Return the logger of ``target``, a module's name. May be called before ``configure``."""
    return Logger(target)


def configure(
    format: LogFormat,  # noqa: A002 - the word of LOG_FORMAT
    level: LogLevel,
    redactor: Redactor = redactor,
    *,
    quiet: Iterable[str] | None = None,
    stream: TextIO | None = None,
) -> None:
    """Say how and where everything that this process logs is written. May be called again.

    Args:
        format: ``text`` or ``json``.
        level: the least severe level that is written.
        redactor: goes over every text of every entry.
        quiet: names of libraries' loggers that are heard from WARNING on, whatever ``level`` is; None: all of them.
        stream: whatever standard error is at the moment of writing when not given.
    """
    threshold = _SEVERITY[level]
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)
    encoding = getattr(stream or sys.stderr, "encoding", None) or "utf-8"
    root.addHandler(_Handler(threshold, redactor, stream, (_json_line if format == "json" else _text_line)(encoding)))
    root.setLevel(logging.WARNING if quiet is None else threshold)
    for name in _OURS:
        logging.getLogger(name).setLevel(threshold if threshold < root.level else logging.NOTSET)
    for name in quiet or ():
        logging.getLogger(name).setLevel(logging.WARNING)


def capture_uncaught(target: str) -> None:
    """Send what nobody caught (main thread, other threads, warnings) through the log, and so past the redactor.

    For the command line's entry point: it changes hooks of the whole process.
    """
    logging.captureWarnings(capture=True)
    log = logger(target)

    def of_main(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            log.error("Unexpected error", exc_info=error.with_traceback(trace))

    def of_thread(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None and not issubclass(arguments.exc_type, SystemExit):
            thread = arguments.thread.name if arguments.thread is not None else "unknown"
            log.error("Unexpected error in a thread", exc_info=arguments.exc_value, thread=thread)

    sys.excepthook = of_main
    threading.excepthook = of_thread


# -- from a record to a line ------------------------------------------------------------------------------------------


class _Handler(logging.Handler):
    """Makes an entry of a record, without secrets, a line of the entry, and writes it."""

    def __init__(self, threshold: int, redactor: Redactor, stream: TextIO | None, line: _Line) -> None:
        super().__init__(threshold)
        self._redactor = redactor
        self._stream = stream
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        stream = self._stream if self._stream is not None else sys.stderr
        try:
            stream.write(self.format(record) + "\n")
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # the stream is closed, full or absent: there is nowhere left to say so

    def format(self, record: logging.LogRecord) -> str:
        try:
            entry = self._entry(record)
        except Exception:  # noqa: BLE001 - see the module's docstring
            entry = self._head(record, f"(its fields could not be written) {as_text(record.msg)}") | {"level": "ERROR"}
        return self._line(entry)

    def _head(self, record: logging.LogRecord, message: object) -> dict[str, object]:
        head = (_timestamp(record.created), _level_name(record.levelno), record.name, self._redactor.value(as_text(message)))
        return dict(zip(_HEAD, head, strict=True))

    def _entry(self, record: logging.LogRecord) -> dict[str, object]:
        entry = self._head(record, _message_of(record))
        for name, value in _fields_of(record).items():
            entry[f"{name}_" if name in _HEAD else name] = self._redactor.value(value, name)
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            entry["exception"] = self._redactor.value(error)
            if record.levelno >= (logging.DEBUG if self.level <= logging.DEBUG else logging.ERROR):
                entry["traceback"] = self._redactor.value(_traceback_of(error))
        if record.stack_info:
            entry["stack"] = self._redactor.value(record.stack_info)
        return entry


def _text_line(encoding: str) -> _Line:
    def line(entry: dict[str, object]) -> str:
        head = f"{entry['timestamp']} {entry['level']:>5} {entry['target']}: {entry['message']}"
        fields = (f"{name}={_shown(value)}" for name, value in entry.items() if name not in _HEAD)
        return _CONTROL.sub(_escaped, " ".join((head, *fields))).encode(encoding, "backslashreplace").decode(encoding)

    return line


def _json_line(encoding: str) -> _Line:
    utf8 = encoding.lower().replace("-", "").replace("_", "") == "utf8"
    return JsonFormatter(json_serializer=_as_json, json_ensure_ascii=not utf8).serialize_log_record


def _as_json(entry: Mapping[str, object], **options: Any) -> str:
    text = json.dumps(entry, separators=(",", ":"), **options)
    return _CONTROL_LEFT_BY_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    return _ESCAPES.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


# -- the parts of a record --------------------------------------------------------------------------------------------


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = {}
    reference = getattr(record, "k8s_ref", None)
    if isinstance(reference, Mapping):
        fields.update({key: reference[key] for key in ("namespace", "name") if reference.get(key)})
    fields.update({key: value for key, value in vars(record).items() if key not in _NO_FIELDS})
    fields.update(getattr(record, _FIELDS, {}))
    return fields


def _message_of(record: logging.LogRecord) -> object:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit are the caller's fault, and no reason to fail
        return record.msg


def _timestamp(seconds: float) -> str:
    """RFC 3339, UTC, milliseconds."""
    milliseconds = round(seconds * 1000)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{whole}.{milliseconds % 1000:03d}Z"


def _level_name(severity: int) -> str:
    """DEBUG, INFO, WARN or ERROR."""
    if severity >= logging.ERROR:
        return "ERROR"
    if severity >= logging.WARNING:
        return "WARN"
    return "INFO" if severity >= logging.INFO else "DEBUG"


def _traceback_of(error: BaseException) -> str:
    """The traceback as text; never raises."""
    try:
        return "".join(traceback.format_exception(error)).rstrip()
    except Exception:  # noqa: BLE001 - an exception whose parts cannot be shown
        return f"<no traceback of {type(error).__name__}>"
