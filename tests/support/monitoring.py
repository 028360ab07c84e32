"""What we ship for Prometheus and Grafana, as tests need it: the rules, the dashboard's queries, and the names in a query."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from support.siorg_server import REPOSITORY

COMPONENT: Final = REPOSITORY / "manifests" / "components" / "monitoring"
CASES: Final = sorted((REPOSITORY / "tests" / "unit" / "monitoring").glob("rules*_test.yaml"))
"""When which alert fires, as promtool works it out."""

TARGET_LABELS: Final = frozenset({"namespace", "worker", "pod", "instance"})
"""Labels that a PodMonitor gives to everything of a pod that is scraped; and the one that ours adds to a worker's."""

_METRIC = re.compile(r"\b((?:siorg|process)_[a-z0-9_]+)\b(?:\{([^}]*)\})?")
_MATCHED = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
_LISTED = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


def documents(path: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if found]


def rule_groups() -> list[dict[str, Any]]:
    """The groups of every PrometheusRule."""
    return [group for rule in documents(COMPONENT / "prometheus-rule.yaml") for group in rule["spec"]["groups"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for group in rule_groups() for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    board: dict[str, Any] = json.loads((COMPONENT / "dashboard.json").read_text(encoding="utf-8"))
    return board


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels, without the rows that only divide them."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


@dataclass(frozen=True, slots=True)
class Query:
    panel: str
    legend: str
    expression: str

    def filled_in(self, *, namespace: str = ".+", worker: str = ".+", rate_interval: str = "15s") -> str:
        """The expression with Grafana's variables replaced."""
        filled = self.expression.replace("$__rate_interval", rate_interval)
        filled = filled.replace("$namespace", namespace).replace("$worker", worker)
        assert "$" not in filled, filled
        return filled


def queries() -> Iterator[Query]:
    for panel in panels():
        for target in panel["targets"]:
            yield Query(panel["title"], target["legendFormat"], target["expr"])


def metrics_of(expression: str) -> dict[str, set[str]]:
    """The metrics of an expression, each with the labels that it is matched by."""
    found: dict[str, set[str]] = {}
    for name, matchers in _METRIC.findall(expression):
        found.setdefault(name, set()).update(_MATCHED.findall(matchers))
    return found


def grouped_by(expression: str) -> set[str]:
    """The labels that an expression groups or joins by."""
    listed = {label.strip() for labels in _LISTED.findall(expression) for label in labels.split(",")}
    return listed - {""}
