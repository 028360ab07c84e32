import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siorg_job import logs
from siorg_job.logs import LogFormat, LogLevel, configure, logger
from siorg_job.redaction import Redactor

Configured = Callable[..., io.StringIO]


@pytest.fixture
def to_text() -> Iterator[Configured]:
    """Logs into a text that is returned; afterwards logging is as it was."""
    before, root = logs._destination, logging.getLogger()
    level_before = root.level

    def start(form: LogFormat = "text", level: LogLevel = "info") -> io.StringIO:
        stream = io.StringIO()
        root.handlers.clear()  # pytest's own do not stand arguments that do not fit; it takes care of them itself
        configure(form, level, Redactor(["s3cr3t"]), stream)
        return stream

    yield start
    logs._destination = before
    root.handlers.clear()
    root.setLevel(level_before)


def test_text_reads_as_the_first_workers_did(to_text: Configured) -> None:
    out = to_text()
    logger("siorg_job.drain").info("Batch complete: 1 processed", seconds=0.4, why="two words", code="a-b")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z  INFO siorg_job\.drain: "
        r'Batch complete: 1 processed seconds=0\.4 why="two words" code=a-b\n',
        out.getvalue(),
    )


def test_json_has_the_four_keys_and_the_fields_beside_them(to_text: Configured) -> None:
    out = to_text("json")
    logger("siorg_job.drain").bind(worker="w").warning("Ação", items=3, nested={"a": [1, None]}, level="mine", message="m")
    entry = json.loads(out.getvalue())
    assert datetime.fromisoformat(entry.pop("timestamp")).tzinfo is not None
    assert entry == {
        "level": "WARN",
        "target": "siorg_job.drain",
        "message": "Ação",
        "worker": "w",
        "items": 3,
        "nested": {"a": [1, None]},
        "level_": "mine",
        "message_": "m",
    }


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["DEBUG", "INFO", "WARN", "ERROR"]),
        ("info", ["INFO", "WARN", "ERROR"]),
        ("warning", ["WARN", "ERROR"]),
        ("error", ["ERROR"]),
    ],
)
def test_only_what_is_severe_enough_is_written(to_text: Configured, level: LogLevel, written: list[str]) -> None:
    out = to_text("json", level)
    log = logger("t")
    for write in (log.debug, log.info, log.warning, log.error):
        write("x")
    assert [json.loads(line)["level"] for line in out.getvalue().splitlines()] == written


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_replaced_wherever_they_come_in(to_text: Configured, form: LogFormat) -> None:
    out = to_text(form, "debug")
    log = logger("t").bind(bound="s3cr3t")
    log.info("s3cr3t in the message", field=["s3cr3t", {"s3cr3t": b"s3cr3t"}], url="https://u:p@h/", password="hidden")
    try:
        raise ValueError("s3cr3t in an exception")
    except ValueError as error:
        log.exception("failed")
        log.error("failed", reason=error)
    logging.getLogger("library").warning("told %s", "s3cr3t")
    assert "s3cr3t" not in out.getvalue()
    assert "u:p@" not in out.getvalue()
    assert "hidden" not in out.getvalue()
    assert out.getvalue().count("***") >= 8


def test_an_exception_is_its_type_and_message_and_its_traceback_only_at_debug(to_text: Configured) -> None:
    for level, has_traceback in (("info", False), ("debug", True)):
        out = to_text("json", level)
        try:
            raise KeyError("gone")
        except KeyError:
            logger("t").exception("failed")
        entry = json.loads(out.getvalue())
        assert entry["exception"] == "KeyError: 'gone'"
        assert ("traceback" in entry) is has_traceback


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_entry_is_one_line_whatever_is_in_it(to_text: Configured, form: LogFormat) -> None:
    out = to_text(form)
    logger("t").info("a\nb\r\u2028c\x1b[31m\x85", field="x\ny", odd={"k\n": "v\n"})
    assert len(out.getvalue().splitlines()) == 1
    assert "\x1b" not in out.getvalue()


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "value",
    [
        Rude(),
        [Rude()],
        {Rude: Rude()},
        b"\xff\x00",
        "\udc80",
        float("nan"),
        10**5000,
        object(),
        {1, "a"},
        ValueError(Rude()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_odd_values_are_written_somehow(to_text: Configured, form: LogFormat, value: object) -> None:
    out = to_text(form)
    logger("t").info("odd", value=value)
    logger("t").error("odd", exc_info=ValueError(Rude()))
    assert len(out.getvalue().splitlines()) == 2
    assert all("odd" in line for line in out.getvalue().splitlines())
    out.getvalue().encode()
    if form == "json":
        json.loads(out.getvalue().splitlines()[0], parse_constant=pytest.fail)


_odd = st.recursive(
    st.text(st.characters(codec=None)) | st.binary() | st.floats() | st.integers() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec=None)), inner),
    max_leaves=10,
)


@given(message=st.text(st.characters(codec=None)), value=_odd)
def test_json_lines_are_always_json(message: str, value: object) -> None:
    destination = logs._Destination("json", logging.INFO, Redactor(), None)
    line = logs._line(destination, logging.INFO, "t", message, {"value": value}, None)
    assert json.loads(line, parse_constant=pytest.fail)["target"] == "t"
    assert len(line.splitlines()) == 1
    line.encode()


def test_what_libraries_log_comes_out_the_same_from_warning_on(to_text: Configured) -> None:
    out = to_text("json", "debug")
    logging.getLogger("psycopg.pool").info("chatter")
    logging.getLogger("psycopg.pool").warning("lost %d", 2)
    logging.getLogger("psycopg.pool").warning("arguments %d do not fit", "x")
    entries = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(entry["target"], entry["message"]) for entry in entries] == [
        ("psycopg.pool", "lost 2"),
        ("psycopg.pool", "arguments %d do not fit"),
    ]


def test_configuring_twice_does_not_write_twice(to_text: Configured) -> None:
    to_text()
    out = to_text()
    logging.getLogger("library").warning("once")
    assert out.getvalue().count("once") == 1


def test_long_texts_are_cut(to_text: Configured) -> None:
    out = to_text()
    logger("t").info("x" * 1_000_000)
    assert len(out.getvalue()) < 20_000
    assert "(1000000 characters)" in out.getvalue()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_stream_that_cannot_write_everything_gets_it_escaped(to_text: Configured, form: LogFormat) -> None:
    to_text()
    raw = io.BytesIO()
    configure(form, "info", Redactor(), io.TextIOWrapper(raw, "ascii", write_through=True))
    logger("t").info("Ação")
    assert raw.getvalue().count(b"\n") == 1
    if form == "json":
        assert json.loads(raw.getvalue())["message"] == "Ação"


def test_a_closed_stream_is_no_failure(to_text: Configured) -> None:
    out = to_text()
    out.close()
    logger("t").info("nobody hears this")


def test_without_being_configured_it_writes_text_to_standard_error() -> None:
    code = "from siorg_job.logs import logger; logger('t').info('hello')"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert ran.stdout == ""
    assert ran.stderr.endswith("  INFO t: hello\n")


def test_what_nobody_caught_passes_the_redactor_too() -> None:
    code = (
        "import threading, warnings\n"
        "from siorg_job.logs import *; from siorg_job.redaction import Redactor\n"
        "configure('json', 'debug', Redactor(['s3cr3t'])); capture_uncaught()\n"
        "def fail(): raise ValueError('s3cr3t')\n"
        "thread = threading.Thread(target=fail); thread.start(); thread.join()\n"
        "warnings.warn('s3cr3t')\n"
        "fail()\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert "s3cr3t" not in ran.stdout + ran.stderr
    assert [json.loads(line)["target"] for line in ran.stderr.splitlines()] == ["siorg_job", "py.warnings", "siorg_job"]
