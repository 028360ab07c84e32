"""How an environment becomes settings: kinds, refusals, all errors at once, and nothing secret in what is said."""

from __future__ import annotations

import pickle
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siorg_runtime.environment import (
    LOG_LEVEL,
    Environment,
    Kind,
    Reading,
    Secret,
    SettingsError,
    seconds,
    setting,
    switch,
    whole,
)


def no_question(text: str) -> str:
    if "?" in text:
        raise ValueError("must not ask")
    return text


@dataclass(frozen=True, kw_only=True)
class Sample:
    url: str = setting(Kind("any address", no_question), "Where", hidden=True)
    batch_size: int = whole(10, 1, 1000, "How many", unit="items")
    pause_secs: float = seconds(2.5, 0.5, 86_400, "How long")
    enabled: bool = switch("Whether", default=True)
    log_level: str = setting(LOG_LEVEL, "Which", default="info")
    metrics_port: int | None = whole(None, 1, 65_535, "On which port")
    identity: str = setting(Kind("a name", no_question), "Who", default_factory=lambda: "host", shown="the host's name")
    notices: tuple[str, ...] = ()


ENVIRONMENT = Environment(Sample, prefix="APP_", ours=("APP_",), others=("APP_OTHER_",), listing="app settings")


def reading(environ: Mapping[str, str], **fallbacks: tuple[str, str]) -> Reading:
    return ENVIRONMENT.read({"APP_URL": "there", **environ}, fallbacks)


def read(environ: Mapping[str, str]) -> Sample:
    return Sample(**reading(environ).checked())


def test_values_are_read_trimmed_and_typed_and_empty_ones_are_as_good_as_none() -> None:
    assert read({"APP_BATCH_SIZE": "\t250 ", "APP_PAUSE_SECS": "3", "APP_ENABLED": "Off", "APP_LOG_LEVEL": "Warn\n"}) == Sample(
        url="there", batch_size=250, pause_secs=3.0, enabled=False, log_level="warning"
    )
    assert read(dict.fromkeys((one.name for one in ENVIRONMENT.variables if not one.required), " ")) == Sample(url="there")
    assert read({one.name: one.default for one in ENVIRONMENT.variables if one.default is not None}) == Sample(url="there")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("APP_URL", "", "is required and not set; allowed: any address"),
        ("APP_URL", "why?", "must not ask; value: 4 characters; allowed: any address"),
        ("APP_BATCH_SIZE", "0", "must be at least 1; value: '0'; allowed: 1 to 1000"),
        ("APP_BATCH_SIZE", "1001", "must be at most 1000; value: '1001'; allowed: 1 to 1000"),
        ("APP_BATCH_SIZE", "1e1", "must be an integer in plain decimal digits; value: '1e1'; allowed: 1 to 1000"),
        ("APP_BATCH_SIZE", "10.0", "must be an integer"),
        ("APP_BATCH_SIZE", "1_0", "must be an integer"),
        ("APP_BATCH_SIZE", "+5", "must be an integer"),
        ("APP_BATCH_SIZE", "٣", r"must be an integer in plain decimal digits; value: '\u0663'"),
        ("APP_BATCH_SIZE", "9" * 5000, "must be an integer in plain decimal digits; value: 5000 characters"),
        ("APP_BATCH_SIZE", "a-long-token-by-mistake", "must be an integer in plain decimal digits; value: 23 characters"),
        ("APP_BATCH_SIZE", "\udcff", "must be UTF-8 text"),
        ("APP_BATCH_SIZE", "1\x000", "must not have a NUL character in it"),
        ("APP_PAUSE_SECS", "0.4", "must be at least 0.5; value: '0.4'; allowed: 0.5 to 86400"),
        ("APP_PAUSE_SECS", "nan", "must be a number in plain decimal digits"),
        ("APP_PAUSE_SECS", "30s", "must be a number in plain decimal digits"),
        ("APP_ENABLED", "maybe", "must be true or false; value: 'maybe'; allowed: true, false (also 1, 0, yes, no, on, off)"),
        ("APP_LOG_LEVEL", "trace", "unsupported value; value: 'trace'; allowed: debug, info, warning (or warn), error"),
        ("APP_METRICS_PORT", "tcp://10.0.0.1:9090", "a Service called app-metrics (rename that, or set enableServiceLinks"),
        ("APP_BATCHSIZE", "hunter2-word", "unknown variable; did you mean APP_BATCH_SIZE?; allowed: what app settings lists"),
        ("APP_PORT", "8900", "unknown variable; did you mean "),
    ],
)
def test_what_is_wrong_is_refused_with_its_name_and_what_is_allowed(name: str, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read({name: text})
    (error,) = raised.value.errors
    assert error.startswith(f"{name}: ")
    assert said in error
    assert error.isprintable()
    everything = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert not re.search("why|mistake|hunter2", everything)
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)


def test_every_error_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        read({"APP_URL": "", "APP_BATCH_SIZE": "x", "APP_LOG_LEVEL": "loud", "APP_TYPO": "1"})
    named = sorted(error.partition(":")[0] for error in raised.value.errors)
    assert named == ["APP_BATCH_SIZE", "APP_LOG_LEVEL", "APP_TYPO", "APP_URL"]


def test_a_secret_in_the_wrong_place_is_not_shown() -> None:
    (error,) = reading({"APP_URL": "postgresql://u:w0rd@h/d", "APP_BATCH_SIZE": "w0rd"}).errors
    assert "value: '***'" in error


def test_what_depends_on_two_variables_is_added_with_the_default_told_as_such() -> None:
    found = reading({"APP_ENABLED": "?"})
    assert found.is_wrong("enabled")
    assert not found.is_wrong("batch_size")
    assert (found.value("enabled"), found.value("batch_size")) == (True, 10)
    found.refuse("batch_size", "must be less than another")
    assert found.errors[1:] == ["APP_BATCH_SIZE: must be less than another; value: '10' (the default); allowed: 1 to 1000"]


def test_a_text_may_come_from_elsewhere_where_the_variable_is_not_set() -> None:
    assert reading({}, batch_size=("POD_SIZE", "5")).checked()["batch_size"] == 5
    assert reading({"APP_BATCH_SIZE": "6"}, batch_size=("POD_SIZE", "5")).checked()["batch_size"] == 6
    assert reading({}, batch_size=("POD_SIZE", "")).checked() == {"url": "there"}
    (error,) = reading({}, batch_size=("POD_SIZE", "x")).errors
    assert error.startswith("POD_SIZE: must be an integer")


def test_what_kubernetes_injects_for_services_and_what_is_others_is_left_alone() -> None:
    injected = {
        "APP_PORT": "tcp://10.0.0.1:8080",
        "APP_DB_PORT": "tcp://10.0.0.1:5432",
        "APP_DB_SERVICE_HOST": "10.0.0.1",
        "APP_DB_SERVICE_PORT": "5432",
        "APP_DB_SERVICE_PORT_POSTGRES": "5432",
        "APP_DB_PORT_5432_TCP": "tcp://10.0.0.1:5432",
        "APP_DB_PORT_5432_TCP_PROTO": "tcp",
        "APP_DB_PORT_5432_TCP_ADDR": "10.0.0.1",
        "APP_POOL_PORT_53_UDP": "udp://10.0.0.1:53",
        "APP_OTHER_NAME": "of another program",
        "BATCH_SIZE": "of another program",
    }
    assert read(injected) == read({})


@given(
    name=st.sampled_from(["batch_size", "pause_secs", "enabled", "log_level"]),
    text=st.text(min_size=1, max_size=12) | st.from_regex(r"-?[0-9]{1,3}(\.[0-9])?", fullmatch=True),
)
def test_any_text_is_read_or_refused_in_one_line(name: str, text: str) -> None:
    found = reading({f"APP_{name.upper()}": text})
    assert (name in found.values) != bool(found.errors) or not text.strip()
    assert all(error.isprintable() for error in found.errors)


def test_the_table_has_a_row_for_each_variable() -> None:
    rows = ENVIRONMENT.markdown_table().splitlines()
    assert rows[2:] == [
        "| `APP_URL` | required | any address |  | Where |",
        "| `APP_BATCH_SIZE` | `10` | 1 to 1000 | items | How many |",
        "| `APP_PAUSE_SECS` | `2.5` | 0.5 to 86400 | seconds | How long |",
        "| `APP_ENABLED` | `true` | true, false (also 1, 0, yes, no, on, off) |  | Whether |",
        "| `APP_LOG_LEVEL` | `info` | debug, info, warning (or warn), error |  | Which |",
        "| `APP_METRICS_PORT` | not set | 1 to 65535 |  | On which port |",
        "| `APP_IDENTITY` | the host's name | a name |  | Who |",
    ]


def test_a_secret_is_neither_shown_nor_pickled() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r}"
    assert secret.get_secret_value() == "hunter2"
    assert (secret == Secret("hunter2"), hash(secret) == hash(Secret("hunter2")), secret == "hunter2") == (True, True, False)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
