"""Names of database connections: what a job writes into them, the operator reads."""

from __future__ import annotations

import pytest

from siorg_runtime.application import job_application, tag_of, tagged


@pytest.mark.parametrize(
    ("given", "use", "name"),
    [
        (None, "", "siorg-job"),
        (None, "lease", "siorg-job lease"),
        (tagged("k3x9a-0-17"), "", "siorg-job/k3x9a-0-17"),
        (tagged("k3x9a-0-17"), "lease", "siorg-job/k3x9a-0-17 lease"),
        ("a person's", "lease", "siorg-job lease"),
    ],
)
def test_a_connection_is_named_for_its_job_and_its_use(
    monkeypatch: pytest.MonkeyPatch, given: str | None, use: str, name: str
) -> None:
    if given is None:
        monkeypatch.delenv("PGAPPNAME", raising=False)
    else:
        monkeypatch.setenv("PGAPPNAME", given)
    assert job_application(use) == name
    assert tagged(tag_of(name)) == name.partition(" ")[0] if "/" in name else tag_of(name) == ""


def test_a_longest_tag_has_room_in_a_name() -> None:
    # A name has 63 bytes; slots end at 999, and rounds at what a resource launches in its life.
    assert len(f"{tagged('k3x9a-999-99999999999')} lease") <= 63
