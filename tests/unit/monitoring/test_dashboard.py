"""The dashboard and the alerts name only metrics that the code has; and the dashboard shows what it has to."""

from __future__ import annotations

import re
from typing import Any

from prometheus_client import generate_latest

from siorg_job.metrics import JobMetrics
from siorg_operator.serving.metrics import OperatorMetrics, operator_registry
from support.monitoring import alerts, dashboard, metrics_of, panels, queries
from support.rows import holds_for
from support.siorg_server import REPOSITORY

OF_THE_DESIGN = {
    "siorg_sync_operations_total",
    "siorg_sync_operation_duration_seconds",
    "siorg_sync_queue_size",
    "siorg_sync_conflicts_total",
    "siorg_sync_retry_attempts_total",
    "siorg_worker_batch_duration_seconds",
    "siorg_worker_batch_size",
    "siorg_external_api_call_duration_seconds",
    "siorg_external_api_errors_total",
}
"""The first system's metrics, which keep their names."""

_SUFFIXES = re.compile(r"_(bucket|sum|count)$")


def families() -> dict[str, str]:
    """The type of every metric that operator and job have, by its name."""
    registry = operator_registry()
    OperatorMetrics(registry)
    text = (generate_latest(registry) + generate_latest(JobMetrics().registry)).decode()
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


def asked() -> list[tuple[str, str]]:
    """Every expression that we ship, with where it stands."""
    variables = [(f"variable {one['name']}", str(one["query"])) for one in dashboard()["templating"]["list"]]
    shown = [(query.panel, query.expression) for query in queries()]
    return [*shown, *variables, *((alert["alert"], alert["expr"]) for alert in alerts())]


def test_every_query_names_metrics_that_the_code_has() -> None:
    types = families()
    for where, expression in asked():
        for name in metrics_of(expression):
            plain = name if name in types else _SUFFIXES.sub("", name)
            assert plain in types, f"{where}: {name}"
            assert (plain != name) == (types[plain] == "histogram"), f"{where}: {name} is a {types[plain]}"


def test_counters_are_asked_for_their_growth_and_gauges_for_their_value() -> None:
    types = families()
    for where, expression in asked():
        for name in metrics_of(expression):
            grows = re.search(rf"(?:rate|increase)\((?:\{{[^}}]*__name__[^}}]*)?{name}\b", expression)
            if types.get(name) == "gauge":
                assert not grows, f"{where}: {name}"
            elif not where.startswith("variable"):
                assert grows, f"{where}: {name}"


def test_everything_that_the_operator_tells_is_shown() -> None:
    shown = {_SUFFIXES.sub("", name) for query in queries() for name in metrics_of(query.expression)}
    assert {name for name in families() if name.startswith("siorg_")} <= shown


def test_the_metrics_of_the_design_are_those_of_the_code() -> None:
    assert families().keys() >= OF_THE_DESIGN


def test_a_panel_has_a_title_a_unit_and_a_meaning() -> None:
    def check(panel: dict[str, Any]) -> None:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"
            assert 'namespace=~"$namespace"' in target["expr"]

    holds_for(panels(), check)


def test_panels_have_their_own_place_number_and_title() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        own = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not own & cells, panel["title"]
        cells |= own
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)


def test_one_chooses_the_data_source_the_namespace_and_the_worker() -> None:
    variables = {one["name"]: one for one in dashboard()["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "worker"]
    assert variables["datasource"]["type"] == "datasource"
    for name in ("namespace", "worker"):
        assert variables[name]["multi"]
        assert variables[name]["includeAll"]


def test_the_windows_of_rates_are_left_to_grafana() -> None:
    for query in queries():
        assert set(re.findall(r"\}\[([^\]]*)\]", query.expression)) <= {"$__rate_interval"}, query.panel


def test_no_address_of_anybody_is_in_it() -> None:
    text = (REPOSITORY / "manifests" / "components" / "monitoring" / "dashboard.json").read_text()
    assert "://" not in text
