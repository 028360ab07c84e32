"""The alerts: valid, each with a case in which it fires and one in which it does not, and each explained to who is woken."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.monitoring import alerts, documents, rule_groups
from support.prometheus import MISSING, PROMTOOL
from support.siorg_server import REPOSITORY

CASES = Path(__file__).with_name("rules_test.yaml")
RUNBOOKS = REPOSITORY / "docs" / "runbooks.md"
NAMES = [alert["alert"] for alert in alerts()]
BASE = "https://siorg-sync.example/docs/runbooks.md#"

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason=MISSING.format("promtool"))


def promtool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run promtool in a folder that has the rules as Prometheus wants them: plain, without Kubernetes around them."""
    (folder / "siorg-rules.yaml").write_text(yaml.safe_dump({"groups": rule_groups()}))
    shutil.copy(CASES, folder)
    return subprocess.run([str(PROMTOOL), *arguments], cwd=folder, capture_output=True, text=True, timeout=150, check=False)


def cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    return found


@needs_promtool
def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    checked = promtool(tmp_path, "check", "rules", "siorg-rules.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"SUCCESS: {len(NAMES)} rules found" in checked.stdout


@needs_promtool
def test_every_case_comes_out_as_written(tmp_path: Path) -> None:
    tested = promtool(tmp_path, "test", "rules", CASES.name)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(name: str) -> None:
    expected = [
        asked["exp_samples"]
        for case in cases()
        for asked in case.get("promql_expr_test", ())
        if asked["expr"] == f'count by (alertname, namespace, worker) (ALERTS{{alertname="{name}", alertstate="firing"}})'
    ]
    assert any(samples for samples in expected), "it never fires"
    assert any(not samples for samples in expected), "it always fires"


def test_the_cases_speak_of_alerts_that_there_are() -> None:
    told = set(re.findall(r'alertname="(\w+)"', CASES.read_text()))
    assert told == set(NAMES)


def test_names_are_unique_and_in_camel_case() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for name in NAMES:
        assert re.fullmatch(r"Siorg([A-Z][a-z]+)+", name), name


@pytest.mark.parametrize("alert", alerts(), ids=NAMES)
def test_an_alert_says_how_bad_it_is_where_it_is_and_what_to_read(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert alert["for"]  # nothing is told of a moment
    annotations = alert["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] == f"{BASE}{alert['alert'].lower()}"
    for text in (annotations["summary"], annotations["description"]):
        assert "$labels.namespace" in text
        if alert["alert"] != "SiorgOperatorDown":  # that one is about every resource of a namespace
            assert "$labels.worker" in text


@pytest.mark.parametrize("alert", alerts(), ids=NAMES)
def test_an_alert_is_the_same_whichever_replica_leads(alert: dict[str, Any]) -> None:
    """What fires has no label of a pod: a change of leaders would end the alert and begin another."""
    for grouping in re.findall(r"\b(?:max|min|sum|count) by \(([^)]*)\)", alert["expr"]):
        assert "pod" not in grouping
    assert re.search(r"\b(?:max|min|sum) by \(namespace", alert["expr"])


def test_every_alert_has_a_section_of_the_runbooks_and_every_section_an_alert() -> None:
    sections = re.findall(r"^## (Siorg\w+)$", RUNBOOKS.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(sections) == sorted(NAMES)
    assert len(set(sections)) == len(sections)


@pytest.mark.parametrize("name", NAMES)
def test_a_section_says_what_it_means_who_suffers_where_to_look_what_to_do_and_when_to_be_silent(name: str) -> None:
    text = RUNBOOKS.read_text(encoding="utf-8")
    section = text.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]
    for heading in ("**Means**", "**Who suffers**", "**Look**", "**Mend**", "**Silence**"):
        assert heading in section, heading
    assert "\nkubectl " in section


def test_the_rules_are_labelled_as_everything_of_ours() -> None:
    for rule in documents(REPOSITORY / "manifests" / "components" / "monitoring" / "prometheus-rule.yaml"):
        assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
        assert rule["metadata"]["labels"]["app.kubernetes.io/name"] == "siorg-sync"
        assert "namespace" not in rule["metadata"]
