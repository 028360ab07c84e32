"""What the environment may say to the operator: every default, every refusal, all at once."""

import re
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from siorg_operator.decide.job_failures import Pacing
from siorg_operator.settings import PREFIX, OperatorSettings, SettingsError, markdown_table

NOWHERE = Path("/nowhere/namespace")


def read(**settings: str) -> OperatorSettings:
    return OperatorSettings.from_environment(
        {"POD_NAMESPACE": "siorg", **{PREFIX + name: text for name, text in settings.items()}}, namespace_file=NOWHERE
    )


def problems(**settings: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as raised:
        read(**settings)
    return raised.value.problems


def test_defaults() -> None:
    assert read().model_dump() == {
        "namespace": "siorg",
        "job_image": None,
        "leader_election": True,
        "lease_name": "siorg-operator",
        "lease_secs": 15,
        "lease_renew_secs": 10,
        "lease_retry_secs": 2,
        "identity": socket.gethostname(),
        "http_address": "0.0.0.0",
        "http_port": 8080,
        "stuck_grace_secs": 30,
        "unschedulable_grace_secs": 300,
        "backoff_base_secs": 10,
        "backoff_max_secs": 300,
        "siorg_probe_base_secs": 30,
        "siorg_probe_max_secs": 600,
        "healthy_after_secs": 60,
        "secret_refresh_secs": 30,
        "log_format": "json",
        "log_level": "info",
    }


def test_values_are_read_trimmed_and_typed() -> None:
    settings = read(
        JOB_IMAGE=" registry.example:5000/siorg/job:0.1.0\n",
        LEADER_ELECTION="Off",
        LEASE_SECS="\t30 ",
        HTTP_ADDRESS="::",
        STUCK_GRACE_SECS="2.5",
        LOG_FORMAT="TEXT",
        LOG_LEVEL="Warn",
        IDENTITY="pod-1",
        BACKOFF_BASE_SECS="",
    )
    assert settings.job_image == "registry.example:5000/siorg/job:0.1.0"
    assert settings.leader_election is False
    assert (settings.lease_secs, settings.stuck_grace_secs, settings.backoff_base_secs) == (30, 2.5, 10)
    assert (settings.http_address, settings.log_format, settings.log_level) == ("::", "text", "warning")
    assert settings.identity == "pod-1"


def test_the_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        read().lease_secs = 1


@pytest.mark.parametrize(
    ("environ", "file", "namespace"),
    [
        ({"SIORG_OPERATOR_NAMESPACE": "one", "POD_NAMESPACE": "two"}, "three", "one"),
        ({"SIORG_OPERATOR_NAMESPACE": " ", "POD_NAMESPACE": "two"}, "three", "two"),
        ({}, "three\n", "three"),
    ],
)
def test_the_namespace_is_the_first_that_is_told(tmp_path: Path, environ: dict[str, str], file: str, namespace: str) -> None:
    (told := tmp_path / "namespace").write_text(file)
    assert OperatorSettings.from_environment(environ, namespace_file=told).namespace == namespace


@pytest.mark.parametrize("content", [None, "", b"\xff\xfe"])
def test_a_namespace_is_required(tmp_path: Path, content: str | bytes | None) -> None:
    told = tmp_path / "namespace"
    if content is not None:
        told.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match="SIORG_OPERATOR_NAMESPACE: is required and not set; allowed: a namespace's name"):
        OperatorSettings.from_environment({}, namespace_file=told)


def test_a_wrong_namespace_is_told_under_the_name_where_it_stands() -> None:
    with pytest.raises(SettingsError, match=r"^POD_NAMESPACE: is no name of a namespace; value: 'Siorg'; allowed"):
        OperatorSettings.from_environment({"POD_NAMESPACE": "Siorg"}, namespace_file=NOWHERE)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("NAMESPACE", "a" * 64, "64 characters"),
        ("NAMESPACE", "a,b", "is no name of a namespace"),
        ("JOB_IMAGE", "an image", "is no reference to an image"),
        ("LEADER_ELECTION", "maybe", "is neither true nor false; value: 'maybe'; allowed: true, false"),
        ("LEASE_NAME", "Siorg", "is no name of an object"),
        ("LEASE_SECS", "1", "is too small; value: '1'; allowed: 2 to 600"),
        ("LEASE_SECS", "15.5", "is not a whole number in plain decimal digits"),
        ("LEASE_SECS", "1_5", "is not a whole number"),
        ("LEASE_SECS", "٣", "is not a whole number"),
        ("LEASE_SECS", "9" * 5000, "5000 characters"),
        ("LEASE_RENEW_SECS", "15", "is not less than SIORG_OPERATOR_LEASE_SECS (15); value: '15'; allowed: 1 to 599"),
        ("LEASE_SECS", "10", "LEASE_RENEW_SECS: is not less than SIORG_OPERATOR_LEASE_SECS (10); value: '10' (the default)"),
        ("LEASE_RETRY_SECS", "9", "is not less than SIORG_OPERATOR_LEASE_RENEW_SECS (10) divided by 1.2"),
        ("IDENTITY", "a b", "is no plain name"),
        ("HTTP_ADDRESS", "localhost", "is no IP address"),
        ("HTTP_PORT", "65536", "is too large"),
        ("HTTP_PORT", "tcp://10.0.0.1:80", "a Service called siorg-operator-http"),
        ("STUCK_GRACE_SECS", "-1", "is too small"),
        ("STUCK_GRACE_SECS", "nan", "is not a number in plain decimal digits"),
        ("STUCK_GRACE_SECS", "1e3", "is not a number in plain decimal digits"),
        ("BACKOFF_MAX_SECS", "5", "is less than SIORG_OPERATOR_BACKOFF_BASE_SECS (10)"),
        ("SIORG_PROBE_MAX_SECS", "29", "is less than SIORG_OPERATOR_SIORG_PROBE_BASE_SECS (30)"),
        ("LOG_FORMAT", "yaml", "is none of the words allowed; value: 'yaml'; allowed: text, json"),
        ("LOG_LEVEL", "trace", "allowed: debug, info, warning (or warn), error"),
        ("LOG_LEVEL", "in\0fo", "has a zero character in it"),
        ("LOG_LEVEL", "\udcff", "is not UTF-8 text"),
        ("LOG_LEVL", "debug", "is no setting; did you mean SIORG_OPERATOR_LOG_LEVEL?"),
        ("LOG_LEVL", "debug", "allowed: what siorg-operator settings lists"),
        ("HTTP_PROT", "1", "did you mean SIORG_OPERATOR_HTTP_PORT?"),
        ("PORT", "8080", "SIORG_OPERATOR_PORT: is no setting"),
    ],
)
def test_what_is_wrong_is_refused(name: str, text: str, said: str) -> None:
    (problem,) = problems(**{name: text})
    assert said in problem
    assert problem.startswith(PREFIX)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    told = problems(LEASE_SECS="0", LOG_LEVL="x", BACKOFF_MAX_SECS="5", LEADER_ELECTION="?")
    assert sorted(line.partition(":")[0].removeprefix(PREFIX) for line in told) == [
        "BACKOFF_MAX_SECS", "LEADER_ELECTION", "LEASE_SECS", "LOG_LEVL",
    ]  # fmt: skip


def test_long_values_are_not_shown() -> None:
    (problem,) = problems(LOG_LEVEL="tok-3f9a-secret-token")
    assert "tok-3f9a" not in problem


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SIORG_OPERATOR_SERVICE_HOST", "10.96.0.7"),
        ("SIORG_OPERATOR_SERVICE_PORT", "8080"),
        ("SIORG_OPERATOR_SERVICE_PORT_HTTP", "8080"),
        ("SIORG_OPERATOR_PORT", "tcp://10.96.0.7:8080"),
        ("SIORG_OPERATOR_PORT_8080_TCP", "tcp://10.96.0.7:8080"),
        ("SIORG_OPERATOR_PORT_8080_TCP_ADDR", "10.96.0.7"),
        ("SIORG_OPERATOR_METRICS_PORT", "tcp://10.96.0.7:8080"),
        ("WORKER_BATCH_SIZE", "of another program"),
        ("SIORG_API_URL", "of another program"),
    ],
)
def test_what_kubernetes_injects_for_services_and_what_is_others_is_left_alone(name: str, text: str) -> None:
    assert OperatorSettings.from_environment({"POD_NAMESPACE": "siorg", name: text}) == read()


@given(st.dictionaries(st.sampled_from(list(OperatorSettings.model_fields)), st.text(max_size=20)))
def test_any_text_makes_settings_or_lines_that_name_variables(texts: dict[str, str]) -> None:
    try:
        read(**{name.upper(): text for name, text in texts.items()})
    except SettingsError as error:
        for line in error.problems:
            assert re.fullmatch(r"SIORG_OPERATOR_[A-Z_]+: .+; value: .+; allowed: .+", line)


def test_the_constructor_keeps_the_rules_too() -> None:
    with pytest.raises(ValidationError, match="lease_renew_secs is not less than"):
        OperatorSettings(namespace="siorg", lease_secs=5)
    with pytest.raises(ValidationError):
        OperatorSettings(namespace="siorg", lease_secss=5)  # type: ignore[call-arg]


def test_the_table_names_every_setting_once() -> None:
    rows = markdown_table().splitlines()
    names = [row.split("`")[1] for row in rows[2:]]
    assert names == [PREFIX + name.upper() for name in OperatorSettings.model_fields]
    assert {row.count("|") for row in rows} == {6}
    assert "| `SIORG_OPERATOR_LEASE_SECS` | `15` | 2 to 600 | seconds | " in markdown_table()
    assert "| `SIORG_OPERATOR_LEADER_ELECTION` | `true` | " in markdown_table()
    assert "| `SIORG_OPERATOR_IDENTITY` | the host's name | " in markdown_table()


def test_says_how_patient_to_be_with_trouble() -> None:
    assert read().pacing == Pacing()
    hasty = read(
        STUCK_GRACE_SECS="1",
        UNSCHEDULABLE_GRACE_SECS="2",
        BACKOFF_BASE_SECS="3",
        BACKOFF_MAX_SECS="4",
        SIORG_PROBE_BASE_SECS="5",
        SIORG_PROBE_MAX_SECS="6",
        HEALTHY_AFTER_SECS="7",
    )
    assert hasty.pacing == Pacing(1, 2, 3, 4, 5, 6, 7)
