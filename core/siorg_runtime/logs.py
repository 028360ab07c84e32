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

import codecs
import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Literal, TextIO, TypeAlias

from pythonjsonlogger.json import JsonFormatter

from siorg_runtime.redaction import Redactor, as_text, redactor

LogFormat: TypeAlias = Literal["text", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

_Line: TypeAlias = Callable[[dict[str, object]], str]

_OURS = ("siorg_job", "siorg_operator", "siorg_queue", "siorg_runtime")
_LEVELS = ((logging.ERROR, "ERROR"), (logging.WARNING, "WARN"), (logging.INFO, "INFO"))
_HEAD = ("timestamp", "level", "target", "message")
_FIELDS = "siorg_fields"  # the one attribute of a record with all fields: ``name`` and others are the record's own
# What a record has of itself, and what kopf adds for its own handlers.
_NO_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {
    "message", "asctime", "taskName", "color_message", "k8s_skip", "k8s_ref", "settings", _FIELDS,
}  # fmt: skip

# Everything that some reader takes for the end of a line, or that a terminal would obey.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_LEFT_BY_JSON = re.compile(r"[\x7f-\x9f\u2028\u2029]")
_UNWRITABLE = "(could not be written)"
_BARE = re.compile(r"[^\s\"=]+")


class Logger:
    """Writes entries of one target, with keyword arguments as fields."""

    __slots__ = ("_log",)

    def __init__(self, target: str) -> None:
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
            trace = None if error is None else (type(error), error, error.__traceback__)
            # Not by ``log``: looking for the line of code that logs costs a quarter of it all, and nothing shows it.
            self._log.handle(self._log.makeRecord(self._log.name, severity, "", 0, message, (), trace, extra={_FIELDS: fields}))


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
    threshold = logging.getLevelNamesMapping()[level.upper()]
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
        with suppress(Exception):  # the stream is closed, full or absent: there is nowhere left to say so
            stream = self._stream if self._stream is not None else sys.stderr
            stream.write(self.format(record) + "\n")
            stream.flush()

    def format(self, record: logging.LogRecord) -> str:
        return self._line(self._entry(record))

    def _entry(self, record: logging.LogRecord) -> dict[str, object]:
        clean = self._redactor.value
        entry: dict[str, object] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": next((name for least, name in _LEVELS if record.levelno >= least), "DEBUG"),
            "target": record.name,
            "message": _part(lambda: clean(_message(record))),
        }
        fields = getattr(record, _FIELDS, None)
        for name, value in (fields if isinstance(fields, dict) else _fields_of_another(record)).items():
            entry[f"{name}_" if name in _HEAD else name] = _part(partial(clean, value, name))
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            entry["exception"] = _part(lambda: clean(error))
            if record.levelno >= (logging.DEBUG if self.level <= logging.DEBUG else logging.ERROR):
                entry["traceback"] = _part(lambda: clean("".join(traceback.format_exception(error)).rstrip()))
        if record.stack_info:
            entry["stack"] = _part(lambda: clean(record.stack_info))
        return entry


def _part(value: Callable[[], object]) -> object:
    """A part of an entry. Each is made for itself: at the end of a process there may be no memory left for the largest."""
    try:
        return value()
    except Exception:  # noqa: BLE001 - see the module's docstring
        return _UNWRITABLE


def _message(record: logging.LogRecord) -> str:
    try:
        return as_text(record.getMessage())
    except Exception:  # noqa: BLE001 - arguments that do not fit are the caller's fault, and no reason to fail
        return as_text(record.msg)


def _fields_of_another(record: logging.LogRecord) -> dict[str, object]:
    """The fields of a record that a library made."""
    reference = getattr(record, "k8s_ref", None)
    named = {key: reference[key] for key in ("namespace", "name") if reference.get(key)} if isinstance(reference, dict) else {}
    return named | {key: value for key, value in vars(record).items() if key not in _NO_FIELDS}


def _text_line(encoding: str) -> _Line:
    def line(entry: dict[str, object]) -> str:
        head = f"{entry['timestamp']} {entry['level']:>5} {entry['target']}: {entry['message']}"
        fields = (f"{name}={_shown(value)}" for name, value in entry.items() if name not in _HEAD)
        text = _CONTROL.sub(lambda match: repr(match[0])[1:-1], " ".join((head, *fields)))
        return text.encode(encoding, "backslashreplace").decode(encoding)

    return line


def _shown(value: object) -> str:
    if isinstance(value, str) and _BARE.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _json_line(encoding: str) -> _Line:
    # One encoder for all lines, not one a line as json.dumps makes it; what it gets is plain JSON already.
    encode = json.JSONEncoder(ensure_ascii=codecs.lookup(encoding).name != "utf-8", separators=(",", ":")).encode

    def serialize(entry: Mapping[str, object], **_: object) -> str:
        return _CONTROL_LEFT_BY_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", encode(entry))

    return JsonFormatter(json_serializer=serialize).serialize_log_record
