"""The alerts: each has a case in which it fires and one in which it does not, and is explained to who is woken."""

from __future__ import annotations

import re
from typing import Any

import yaml

from support.monitoring import CASES, alerts, documents
from support.rows import holds_for
from support.siorg_server import REPOSITORY

RUNBOOKS = REPOSITORY / "docs" / "runbooks.md"
NAMES = [alert["alert"] for alert in alerts()]
BASE = "https://siorg-sync.example/docs/runbooks.md#"


OF_A_NAMESPACE = {"SiorgOperatorDown", "SiorgWatchesUnanswered"}
"""About every resource of a namespace."""


def cases() -> list[dict[str, Any]]:
    return [case for file in CASES for case in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]]


def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    asked = [each for case in cases() for each in case.get("promql_expr_test", ())]

    def check(name: str) -> None:
        expression = f'count by (alertname, namespace, worker) (ALERTS{{alertname="{name}", alertstate="firing"}})'
        expected = [each["exp_samples"] for each in asked if each["expr"] == expression]
        assert any(samples for samples in expected), "it never fires"
        assert any(not samples for samples in expected), "it always fires"

    holds_for(NAMES, check)


def test_the_cases_speak_of_alerts_that_there_are() -> None:
    told = {name for file in CASES for name in re.findall(r'alertname="(\w+)"', file.read_text())}
    assert told == set(NAMES)


def test_names_are_unique_and_in_camel_case() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for name in NAMES:
        assert re.fullmatch(r"Siorg([A-Z][a-z]+)+", name), name


def test_an_alert_says_how_bad_it_is_where_it_is_and_what_to_read() -> None:
    def check(alert: dict[str, Any]) -> None:
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert alert["for"]  # nothing is told of a moment
        annotations = alert["annotations"]
        assert annotations.keys() == {"summary", "description", "runbook_url"}
        assert annotations["runbook_url"] == f"{BASE}{alert['alert'].lower()}"
        for text in (annotations["summary"], annotations["description"]):
            assert "$labels.namespace" in text
            if alert["alert"] not in OF_A_NAMESPACE:
                assert "$labels.worker" in text

    holds_for(alerts(), check)


def test_an_alert_is_the_same_whichever_replica_leads() -> None:
    """What fires has no label of a pod: a change of leaders would end the alert and begin another."""

    def check(alert: dict[str, Any]) -> None:
        for grouping in re.findall(r"\b(?:max|min|sum|count) by \(([^)]*)\)", alert["expr"]):
            assert "pod" not in grouping
        assert re.search(r"\b(?:max|min|sum) by \(namespace", alert["expr"])

    holds_for(alerts(), check)


def test_every_alert_has_a_section_of_the_runbooks_and_every_section_an_alert() -> None:
    sections = re.findall(r"^## (Siorg\w+)$", RUNBOOKS.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(sections) == sorted(NAMES)
    assert len(set(sections)) == len(sections)


def test_a_section_says_what_it_means_who_suffers_where_to_look_what_to_do_and_when_to_be_silent() -> None:
    def check(name: str) -> None:
        text = RUNBOOKS.read_text(encoding="utf-8")
        section = text.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]
        for heading in ("**Means**", "**Who suffers**", "**Look**", "**Mend**", "**Silence**"):
            assert heading in section, heading
        assert "\nkubectl " in section

    holds_for(NAMES, check)


def test_the_rules_are_labelled_as_everything_of_ours() -> None:
    for rule in documents(REPOSITORY / "manifests" / "components" / "monitoring" / "prometheus-rule.yaml"):
        assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
        assert rule["metadata"]["labels"]["app.kubernetes.io/name"] == "siorg-sync"
        assert "namespace" not in rule["metadata"]
