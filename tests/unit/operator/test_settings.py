"""What the environment may say to the operator: every default, every refusal, all at once."""

import dataclasses
import re
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siorg_operator.decide.job_failures import Pacing
from siorg_operator.settings import ENVIRONMENT, PREFIX, OperatorSettings
from siorg_runtime.environment import SettingsError

NOWHERE = Path("/nowhere/namespace")


def read(**settings: str) -> OperatorSettings:
    return OperatorSettings.from_environment(
        {"POD_NAMESPACE": "siorg", **{PREFIX + name: text for name, text in settings.items()}}, namespace_file=NOWHERE
    )


def errors(**settings: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as raised:
        read(**settings)
    return raised.value.errors


def test_each_documented_default_is_the_default() -> None:
    documented = {one.name: one.default for one in ENVIRONMENT.variables if one.default is not None}
    assert OperatorSettings.from_environment({"POD_NAMESPACE": "siorg", **documented}) == read()
    assert read() == OperatorSettings(namespace="siorg", identity=socket.gethostname())


def test_values_are_read_trimmed_and_typed_and_do_not_change() -> None:
    settings = read(JOB_IMAGE=" registry.example:5000/siorg/job:0.1.0\n", HTTP_ADDRESS="::", IDENTITY="pod-1", LEASE_SECS="30")
    expected = ("registry.example:5000/siorg/job:0.1.0", "::", "pod-1", 30)
    assert (settings.job_image, settings.http_address, settings.identity, settings.lease_secs) == expected
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.lease_secs = 1  # type: ignore[misc]


REQUIRED = "SIORG_OPERATOR_NAMESPACE: is required and not set; allowed: a namespace's name"


def test_the_namespace_is_the_first_that_is_told_and_is_required(tmp_path: Path) -> None:
    for environ, content, expected in (
        ({"SIORG_OPERATOR_NAMESPACE": "one", "POD_NAMESPACE": "two"}, b"three", "one"),
        ({"SIORG_OPERATOR_NAMESPACE": " ", "POD_NAMESPACE": "two"}, b"three", "two"),
        ({}, b"three\n", "three"),
        ({}, None, REQUIRED),
        ({}, b"", REQUIRED),
        ({}, b"\xff\xfe", REQUIRED),
        ({"POD_NAMESPACE": "Siorg"}, None, "POD_NAMESPACE: must be a namespace's name; value: 'Siorg'; allowed"),
    ):
        file = NOWHERE if content is None else tmp_path / "namespace"
        if content is not None:
            file.write_bytes(content)
        try:
            found = OperatorSettings.from_environment(environ, namespace_file=file).namespace
        except SettingsError as error:
            (found,) = error.errors
        assert found.startswith(expected), (environ, content)


WRONG = [
    ("NAMESPACE", "a" * 64, "64 characters"),
    ("NAMESPACE", "a,b", "must be a namespace's name"),
    ("JOB_IMAGE", "an image", "must be a reference to an image"),
    ("LEADER_ELECTION", "maybe", "must be true or false; value: 'maybe'; allowed: true, false"),
    ("LEASE_NAME", "Siorg", "must be an object's name"),
    ("LEASE_SECS", "1", "must be at least 2; value: '1'; allowed: 2 to 600"),
    ("LEASE_SECS", "15.5", "must be an integer"),
    ("LEASE_RENEW_SECS", "15", "must be less than SIORG_OPERATOR_LEASE_SECS (15); value: '15'; allowed: 1 to 599"),
    ("LEASE_SECS", "10", "LEASE_RENEW_SECS: must be less than SIORG_OPERATOR_LEASE_SECS (10); value: '10' (the default)"),
    ("LEASE_RETRY_SECS", "9", "must be less than SIORG_OPERATOR_LEASE_RENEW_SECS (10) divided by 1.2"),
    ("IDENTITY", "a b", "must be a plain name"),
    ("HTTP_ADDRESS", "localhost", "must be an IP address"),
    ("HTTP_PORT", "65536", "must be at most 65535"),
    ("HTTP_PORT", "tcp://10.0.0.1:80", "a Service called siorg-operator-http"),
    ("STUCK_GRACE_SECS", "-1", "must be at least 0"),
    ("BACKOFF_MAX_SECS", "5", "must not be less than SIORG_OPERATOR_BACKOFF_BASE_SECS (10)"),
    ("SIORG_PROBE_MAX_SECS", "4", "must not be less than SIORG_OPERATOR_SIORG_PROBE_BASE_SECS (5)"),
    ("LOG_FORMAT", "yaml", "unsupported value; value: 'yaml'; allowed: text, json"),
    ("LOG_LEVL", "debug", "did you mean SIORG_OPERATOR_LOG_LEVEL?; allowed: what siorg-operator settings lists"),
    ("HTTP_PROT", "1", "did you mean SIORG_OPERATOR_HTTP_PORT?"),
]


def test_what_is_wrong_is_refused() -> None:
    found = [(name, text, said, errors(**{name: text})) for name, text, said in WRONG]
    assert [row for row in found if len(row[3]) != 1 or row[2] not in row[3][0] or not row[3][0].startswith(PREFIX)] == []


def test_two_settings_are_not_compared_where_one_of_them_is_wrong() -> None:
    named = [error.partition(":")[0].removeprefix(PREFIX) for error in errors(LEASE_SECS="0", BACKOFF_MAX_SECS="5", LOG_LEVL="x")]
    assert sorted(named) == ["BACKOFF_MAX_SECS", "LEASE_SECS", "LOG_LEVL"]


def test_what_kubernetes_injects_for_services_and_what_is_others_is_left_alone() -> None:
    others = dict.fromkeys(("SIORG_OPERATOR_SERVICE_HOST", "WORKER_BATCH_SIZE", "SIORG_API_URL"), "of another program")
    assert OperatorSettings.from_environment({"POD_NAMESPACE": "siorg", **others}) == read()


FIELDS = [one.name for one in dataclasses.fields(OperatorSettings)]


@given(st.dictionaries(st.sampled_from(FIELDS), st.text(max_size=20)))
def test_any_text_makes_settings_or_lines_that_name_variables(texts: dict[str, str]) -> None:
    try:
        read(**{name.upper(): text for name, text in texts.items()})
    except SettingsError as error:
        for line in error.errors:
            assert re.fullmatch(r"SIORG_OPERATOR_[A-Z_]+: .+; value: .+; allowed: .+", line)


def test_every_setting_is_documented() -> None:
    assert [one.name for one in ENVIRONMENT.variables] == [PREFIX + name.upper() for name in FIELDS]
    assert all(one.meaning and one.kind.allowed for one in ENVIRONMENT.variables)
    assert all(one.unit for one in ENVIRONMENT.variables if one.name.endswith("_SECS"))


def test_libraries_are_quiet_and_what_kopf_says_of_objects_only_below_debug() -> None:
    info, debug = (set(read(LOG_LEVEL=level).quiet_loggers) for level in ("info", "debug"))
    assert info - debug == {"kopf.objects"}
    assert {"aiohttp.access", "kubernetes", "urllib3"} < debug


def test_says_how_patient_to_be_with_trouble() -> None:
    assert read().pacing == Pacing()
    hasty = read(
        STUCK_GRACE_SECS="1", UNSCHEDULABLE_GRACE_SECS="2", BACKOFF_BASE_SECS="3", BACKOFF_MAX_SECS="4",
        SIORG_PROBE_BASE_SECS="6", SIORG_PROBE_MAX_SECS="7", HEALTHY_AFTER_SECS="8",
    )  # fmt: skip
    assert hasty.pacing == Pacing(1, 2, 3, 4, 6, 7, 8)
