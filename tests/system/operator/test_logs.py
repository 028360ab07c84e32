"""What the operator logs: the job's form, everybody's entries, and no secret in any of them."""

import base64
import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote

import kopf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siorg_operator import logs
from siorg_operator.logs import LogFormat, LogLevel, configure, logger, redacted, remember_secret
from siorg_operator.redaction import Redactor

Configured = Callable[..., io.StringIO]
URL = "postgresql://siorg:p%40ss-w0rd@db:5432/siorg"


@pytest.fixture
def to_text(monkeypatch: pytest.MonkeyPatch) -> Iterator[Configured]:
    """Logs into a text that is returned; afterwards logging is as it was."""
    monkeypatch.setattr(logs, "_redactor", Redactor())
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    changed = [logging.getLogger(name) for name in (*logs._ALWAYS_QUIET, *logs._QUIET_UNLESS_DEBUG)]
    levels = [log.level for log in changed]

    def start(form: LogFormat = "text", level: LogLevel = "info") -> io.StringIO:
        stream = io.StringIO()
        root.handlers.clear()  # pytest's own do not stand arguments that do not fit; it takes care of them itself
        configure(form, level, stream)
        return stream

    yield start
    root.handlers[:] = handlers
    root.setLevel(level)
    for log, before in zip(changed, levels, strict=True):
        log.setLevel(before)


def entries(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_text_reads_as_the_jobs_do(to_text: Configured) -> None:
    out = to_text()
    logger("siorg_operator.control.reconcile").info("Launched 2 Jobs", seconds=0.4, why="two words", code="a-b")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z  INFO siorg_operator\.reconcile: "
        r'Launched 2 Jobs seconds=0\.4 why="two words" code=a-b\n',
        out.getvalue(),
    )


def test_json_has_the_four_keys_and_the_fields_beside_them(to_text: Configured) -> None:
    out = to_text("json")
    log = logger("siorg_operator.control.reconcile").bind(worker="w", name="n")
    log.warning("100 % Ação %s", items=3, nested={"a": [1, None]}, level="mine", message="m")
    (entry,) = entries(out)
    assert datetime.fromisoformat(entry.pop("timestamp")).tzinfo is not None
    assert entry == {
        "level": "WARN",
        "target": "siorg_operator.control.reconcile",
        "message": "100 % Ação %s",
        "worker": "w",
        "name": "n",
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
@pytest.mark.parametrize("target", ["siorg_operator.decide.plan", "kopf._core.reactor.running"])
def test_only_what_is_severe_enough_is_written(to_text: Configured, level: LogLevel, written: list[str], target: str) -> None:
    out = to_text("json", level)
    log = logger(target)
    for write in (log.debug, log.info, log.warning, log.error):
        write("x")
    assert [entry["level"] for entry in entries(out)] == written


@pytest.mark.parametrize("name", ["aiohttp.access", "leaderelection", "kubernetes.client.rest", "urllib3.connectionpool"])
def test_noisy_libraries_are_heard_from_warnings_on(to_text: Configured, name: str) -> None:
    out = to_text("json", "debug")
    logging.getLogger(name).info("every two seconds")
    logging.getLogger(name).warning("something is wrong")
    assert [entry["message"] for entry in entries(out)] == ["something is wrong"]
    out = to_text("json", "error")
    logging.getLogger(name).warning("something is wrong")
    assert entries(out) == []


def test_what_is_logged_with_the_standard_library_keeps_its_extra_fields(to_text: Configured) -> None:
    out = to_text("json")
    logging.getLogger("siorg_operator.x").info("pass %d", 3, extra={"worker": "main"})
    (entry,) = entries(out)
    assert (entry["message"], entry["worker"]) == ("pass 3", "main")
    assert set(entry) == {"timestamp", "level", "target", "message", "worker"}


def test_what_kopf_logs_of_an_object_names_that_object(to_text: Configured) -> None:
    out = to_text("json")
    body = kopf.Body({"apiVersion": "v1", "kind": "K", "metadata": {"name": "main", "namespace": "siorg", "uid": "u"}})
    from kopf._core.actions.loggers import ObjectLogger

    log = ObjectLogger(body=body, settings=kopf.OperatorSettings())
    log.info("Daemon 'reconcile' is invoked.")  # noise at level info
    log.warning("Stopped %s.", "early")
    (entry,) = entries(out)
    del entry["timestamp"]
    assert entry == {
        "level": "WARN", "target": "kopf.objects", "message": "Stopped early.", "namespace": "siorg", "name": "main",
    }  # fmt: skip


def test_at_level_debug_kopf_tells_all(to_text: Configured) -> None:
    out = to_text("json", "debug")
    logging.getLogger("kopf.objects").debug("Patching with …")
    assert [entry["level"] for entry in entries(out)] == ["DEBUG"]


def test_an_error_brings_its_traceback_in_the_same_line(to_text: Configured) -> None:
    out = to_text("text")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger("t").exception("Pass failed", worker="w")
    (line,) = out.getvalue().splitlines()
    assert r'worker=w exception="ValueError: two\nlines" traceback="Traceback (most recent call last):\n' in line


def test_a_warning_brings_its_traceback_at_level_debug_only(to_text: Configured) -> None:
    for level, expected in (("info", False), ("debug", True)):
        out = to_text("json", level)
        logging.getLogger("t").warning("hm", exc_info=ValueError("x"))
        (entry,) = entries(out)
        assert entry["exception"] == "ValueError: x"
        assert ("traceback" in entry) is expected


FORMS = [
    "s3cr3t/token+x",
    quote("s3cr3t/token+x", safe=""),
    base64.b64encode(b"s3cr3t/token+x").decode(),
    URL,
    "p@ss-w0rd",
    "p%40ss-w0rd",
    base64.b64encode(URL.encode()).decode(),
]


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("shown", FORMS)
def test_known_secrets_are_nowhere(to_text: Configured, form: LogFormat, shown: str) -> None:
    out = to_text(form, "debug")
    remember_secret("s3cr3t/token+x")
    remember_secret(URL)

    def fail() -> None:
        raise ValueError(f"connecting with {shown} failed")

    try:
        try:
            fail()
        except ValueError as error:
            raise RuntimeError("pass failed") from error
    except RuntimeError:
        logger("t").exception(f"a {shown} b", field=shown, nested={shown: [shown]}, data=shown.encode())
    logging.getLogger("kopf.objects").error("Body: %r", {"data": {"url": shown}}, extra={"k8s_ref": {"name": shown}})
    logging.getLogger("urllib3").warning("x", exc_info=OSError(shown))
    assert shown not in out.getvalue()
    assert "***" in out.getvalue()


def test_a_secret_that_was_replaced_is_still_kept(to_text: Configured) -> None:
    out = to_text()
    remember_secret("first-token")
    remember_secret("second-token")
    logger("t").info("first-token second-token")
    assert out.getvalue().endswith(" t: *** ***\n")
    assert redacted("a first-token") == "a ***"


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("postgresql://u:p/w@h/d", "postgresql://***@h/d"),
        ("https://u:p@h/x", "https://***@h/x"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("sent bearer tok-1", "sent bearer ***"),
        ("host=db password='a b' user=u", "host=db password=*** user=u"),
        ("the bearer of news", "the bearer of news"),
    ],
)
def test_known_places_are_covered_whatever_stands_there(said: str, written: str) -> None:
    assert Redactor().text(said) == written


def test_a_very_short_secret_does_not_turn_the_log_into_stars() -> None:
    redactor = Redactor()
    redactor.remember("a")
    redactor.remember("")
    assert redactor.text("a banana") == "a banana"
    assert repr(redactor) == "Redactor(***)"


def test_passwords_among_the_parameters_of_a_url_are_known() -> None:
    redactor = Redactor()
    redactor.remember("postgresql://db/siorg?user=u&password=hunter%2D2&sslpassword=ssl-word")
    assert redactor.text("hunter-2 ssl-word hunter%2D2") == "*** *** ***"


@given(st.text(min_size=4, max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_no_known_secret_survives(secret: str, before: str, after: str) -> None:
    redactor = Redactor()
    redactor.remember(secret)
    clean = redactor.text(before + secret + after)
    assert secret.strip() not in clean.replace("***", "\0") or len(secret.strip()) < 4


class _Unreadable:
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    [_Unreadable(), {"a": _Unreadable()}, float("nan"), 10**30, "\udcff", b"\xff", "a\nb\x1b[31m\u2028", {1: {2, 3}}],
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_whatever_is_logged_makes_one_line_and_no_exception(to_text: Configured, form: LogFormat, value: object) -> None:
    out = to_text(form)
    logger("t").info("x", field=value)
    assert len(out.getvalue().splitlines()) == 1
    if form == "json":
        entries(out)


def test_arguments_that_do_not_fit_are_no_reason_to_fail(to_text: Configured) -> None:
    out = to_text()
    logging.getLogger("x").error("%d of %d", "a")  # noqa: PLE1206 - that is what is tested
    assert "%d of %d" in out.getvalue()


def test_a_structure_that_contains_itself_comes_to_an_end(to_text: Configured) -> None:
    out = to_text("json")
    endless: list[object] = []
    endless.append(endless)
    logger("t").info("x", field=endless)
    assert "…" in out.getvalue()


def test_configuring_twice_writes_once(to_text: Configured) -> None:
    to_text()
    out = io.StringIO()
    configure("text", "info", out)
    logger("t").info("once")
    assert out.getvalue().count("once") == 1


def test_what_nobody_caught_goes_through_the_log() -> None:
    program = """
import threading, warnings
from siorg_operator.logs import capture_uncaught, configure, remember_secret
configure("json", "info"); capture_uncaught(); remember_secret("hunter2-word")
def fail(): raise RuntimeError("thread hunter2-word")
thread = threading.Thread(target=fail, name="watch"); thread.start(); thread.join()
warnings.warn("warned of hunter2-word")
raise ValueError("main hunter2-word")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    said = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [(entry["level"], entry["message"].partition(":")[0]) for entry in said] == [
        ("ERROR", "Unexpected error in a thread"),
        ("WARN", "<string>"),
        ("ERROR", "Unexpected error"),
    ]
    assert said[0]["thread"] == "watch"
    assert said[2]["exception"] == "ValueError: main ***"
    assert "hunter2" not in ended.stderr
    assert ended.returncode == 1


def test_a_closed_stream_is_no_reason_to_fail(to_text: Configured) -> None:
    to_text().close()
    logger("t").info("to nobody")
