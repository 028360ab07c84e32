"""What both programs log: one form, everybody's entries, no secret in any of them, and nothing that makes it fail."""

import io
import json
import logging
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from unittest.mock import Mock

import kopf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kopf._core.actions.loggers import ObjectLogger

from siorg_runtime import logs
from siorg_runtime.logs import LogFormat, LogLevel, configure, logger
from siorg_runtime.redaction import Redactor

Configured = Callable[..., io.StringIO]

LOG = logger("siorg_job.drain")
QUIET = ("aiohttp.access", "kopf.objects")


@pytest.fixture
def to_text() -> Iterator[Configured]:
    """Logs into a text that is returned; afterwards logging is as it was."""
    changed = [logging.getLogger(name) for name in ("", *logs._OURS, *QUIET)]
    levels, handlers = [log.level for log in changed], changed[0].handlers[:]

    def start(form: LogFormat = "text", level: LogLevel = "info", *, quiet: tuple[str, ...] | None = None) -> io.StringIO:
        stream = io.StringIO()
        changed[0].handlers.clear()  # pytest's own do not stand arguments that do not fit; it takes care of them itself
        configure(form, level, Redactor(["s3cr3t"]), quiet=quiet, stream=stream)
        return stream

    yield start
    changed[0].handlers[:] = handlers
    for log, level in zip(changed, levels, strict=True):
        log.setLevel(level)


def entries(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in out.getvalue().splitlines()]


def test_text_is_one_line_for_people(to_text: Configured) -> None:
    out = to_text()
    LOG.info("Batch complete: 1 processed", seconds=0.4, why="two words", code="a-b")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z  INFO siorg_job\.drain: "
        r'Batch complete: 1 processed seconds=0\.4 why="two words" code=a-b\n',
        out.getvalue(),
    )


def test_json_has_the_four_keys_and_the_fields_behind_them(to_text: Configured) -> None:
    out = to_text("json")
    LOG.warning("100 % Ação %s", items=3, nested={"a": [1, None]}, level="mine", message="m", name="n", args="a", exc_text="e")
    (entry,) = entries(out)
    assert datetime.fromisoformat(entry.pop("timestamp")).tzinfo is not None
    assert list(entry.items()) == [
        ("level", "WARN"),
        ("target", "siorg_job.drain"),
        ("message", "100 % Ação %s"),
        ("items", 3),
        ("nested", {"a": [1, None]}),
        ("level_", "mine"),
        ("message_", "m"),
        ("name", "n"),
        ("args", "a"),
        ("exc_text", "e"),
    ]
    assert "Ação" in out.getvalue()


def test_only_what_is_severe_enough_is_written(to_text: Configured) -> None:
    levels: tuple[LogLevel, ...] = ("debug", "info", "warning", "error")
    for first, level in enumerate(levels):
        written = ["DEBUG", "INFO", "WARN", "ERROR"][first:]
        for target, quiet, heard in (
            ("siorg_job.drain", None, written),
            ("siorg_operator.decide", QUIET, written),
            ("psycopg.pool", None, written[-2:]),
            ("kopf._core.reactor", QUIET, written),
            ("aiohttp.access", QUIET, written[-2:]),
        ):
            out = to_text("json", level, quiet=quiet)
            log = logger(target)
            for write in (log.debug, log.info, log.warning, log.error):
                write("x")
            assert [entry["level"] for entry in entries(out)] == heard, (target, level)


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_replaced_wherever_they_come_in(to_text: Configured, form: LogFormat) -> None:
    out = to_text(form, "debug")
    LOG.info("s3cr3t in the message", field=["s3cr3t", {"s3cr3t": b"s3cr3t"}], url="https://u:p@h/", password="hidden")
    try:
        try:
            raise ValueError("s3cr3t in an exception")
        except ValueError as cause:
            raise RuntimeError("pass failed") from cause
    except RuntimeError as error:
        LOG.exception("failed")
        LOG.error("failed", reason=error)
    library = logging.getLogger("library")
    library.warning("told %s", "s3cr3t", exc_info=OSError("s3cr3t"), stack_info=True)
    library.error("Body: %r", {"data": "s3cr3t"}, extra={"k8s_ref": {"name": "s3cr3t"}, "more": "s3cr3t"})
    assert not re.search("s3cr3t|u:p@|hidden", out.getvalue())
    assert out.getvalue().count("***") >= 10


def test_an_error_brings_its_traceback_in_the_same_line_and_a_warning_only_at_level_debug(to_text: Configured) -> None:
    out = to_text("text")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        LOG.exception("Pass failed", worker="w")
    (line,) = out.getvalue().splitlines()
    assert r'worker=w exception="ValueError: two\nlines" traceback="Traceback (most recent call last):\n' in line
    for level, expected in (("info", False), ("debug", True)):
        out = to_text("json", level)
        logging.getLogger("library").warning("hm", exc_info=KeyError("gone"))
        (entry,) = entries(out)
        assert entry["exception"] == "KeyError: 'gone'"
        assert ("traceback" in entry) is expected


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "value",
    [
        Rude(), {Rude: Rude()}, b"\xff\x00", "\udc80", float("nan"), 10**5000, object(), {1, "a"}, ValueError(Rude()),
        "a\nb\r\u2028c\x1b[31m\x85", {"k\n": "v\n"},
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_an_entry_is_one_line_whatever_is_in_it(to_text: Configured, form: LogFormat, value: object) -> None:
    out = to_text(form)
    LOG.info("odd", value=value)
    LOG.error("odd", exc_info=ValueError(Rude()))
    LOG.info(f"odd \x1b[31m\x85\u2028 {value}" if isinstance(value, str) else "odd", **{"x\n": value})
    assert len(out.getvalue().splitlines()) == 3
    assert "\x1b" not in out.getvalue()
    out.getvalue().encode()
    if form == "json":
        assert all(entry["message"].startswith("odd") for entry in entries(out))


_odd = st.recursive(
    st.text(st.characters(codec=None)) | st.binary() | st.floats() | st.integers() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec=None)), inner),
    max_leaves=10,
)


@given(message=st.text(st.characters(codec=None)), value=_odd)
def test_json_lines_are_always_json(message: str, value: object) -> None:
    handler = logs._Handler(logging.INFO, Redactor(), None, logs._json_line("utf-8"))
    record = logging.makeLogRecord({"name": "t", "levelno": logging.INFO, "msg": message, logs._FIELDS: {"value": value}})
    line = handler.format(record)
    assert json.loads(line, parse_constant=pytest.fail)["target"] == "t"
    assert len(line.splitlines()) == 1
    line.encode()


def test_what_libraries_log_comes_out_in_the_same_form(to_text: Configured) -> None:
    out = to_text("json")
    log = logging.getLogger("library")
    log.warning("lost %d", 2, extra={"worker": "main"})
    log.error("arguments %d do not fit", "x")
    log.error("its fields", extra={logs._FIELDS: 5})
    found = [{key: value for key, value in entry.items() if key != "timestamp"} for entry in entries(out)]
    assert found == [
        {"level": "WARN", "target": "library", "message": "lost 2", "worker": "main"},
        {"level": "ERROR", "target": "library", "message": "arguments %d do not fit"},
        {"level": "ERROR", "target": "library", "message": "its fields"},
    ]


class Unwritable(Exception):
    """As where there is no memory left for it."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise MemoryError


def test_what_cannot_be_written_takes_nothing_else_with_it(to_text: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    out = to_text("json")
    LOG.error("The end", exc_info=ValueError("s3cr3t"), worker="main", large=Unwritable(), reason="s3cr3t")
    monkeypatch.setattr(traceback, "format_exception", Mock(side_effect=MemoryError))
    LOG.error("The end", exc_info=ValueError("s3cr3t"), worker="main")
    first, second = entries(out)
    assert (first["message"], first["worker"], first["large"], first["reason"]) == (
        "The end", "main", "(could not be written)", "***",
    )  # fmt: skip
    assert first["traceback"].endswith("ValueError: ***")
    assert (second["worker"], second["exception"], second["traceback"]) == (
        "main", "ValueError: ***", "(could not be written)",
    )  # fmt: skip


def test_what_kopf_logs_of_an_object_names_that_object(to_text: Configured) -> None:
    out = to_text("json", quiet=QUIET)
    body = kopf.Body({"apiVersion": "v1", "kind": "K", "metadata": {"name": "main", "namespace": "siorg", "uid": "u"}})
    log = ObjectLogger(body=body, settings=kopf.OperatorSettings())
    log.info("Daemon 'reconcile' is invoked.")  # noise at level info
    log.warning("Stopped %s.", "early")
    (entry,) = entries(out)
    del entry["timestamp"]
    assert entry == {
        "level": "WARN", "target": "kopf.objects", "message": "Stopped early.", "namespace": "siorg", "name": "main",
    }  # fmt: skip


def test_configuring_twice_does_not_write_twice(to_text: Configured) -> None:
    to_text()
    out = io.StringIO()
    configure("text", "info", stream=out)
    LOG.info("once")
    assert out.getvalue().count("once") == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_stream_that_cannot_write_everything_gets_it_escaped(to_text: Configured, form: LogFormat) -> None:
    to_text()
    raw = io.BytesIO()
    configure(form, "info", stream=io.TextIOWrapper(raw, "ascii", write_through=True))
    LOG.info("Ação")
    assert raw.getvalue().count(b"\n") == 1
    if form == "json":
        assert json.loads(raw.getvalue())["message"] == "Ação"


def test_a_closed_stream_is_no_failure(to_text: Configured) -> None:
    to_text().close()
    LOG.info("nobody hears this")


def test_what_nobody_caught_passes_the_redactor_too() -> None:
    code = (
        "import threading, warnings\n"
        "from siorg_runtime.logs import *; from siorg_runtime.redaction import redactor\n"
        "configure('json', 'info'); capture_uncaught('siorg_job'); redactor.remember('s3cr3t')\n"
        "def fail(): raise ValueError('s3cr3t')\n"
        "thread = threading.Thread(target=fail, name='watch'); thread.start(); thread.join()\n"
        "warnings.warn('s3cr3t')\n"
        "fail()\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "s3cr3t" not in ran.stderr
    found = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [(entry["level"], entry["target"], entry["message"].partition(":")[0]) for entry in found] == [
        ("ERROR", "siorg_job", "Unexpected error in a thread"),
        ("WARN", "py.warnings", "<string>"),
        ("ERROR", "siorg_job", "Unexpected error"),
    ]
    assert (found[0]["thread"], found[2]["exception"]) == ("watch", "ValueError: ***")
