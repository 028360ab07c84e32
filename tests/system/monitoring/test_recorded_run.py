"""Everything that the dashboard and the alerts ask for is there in a real run; and a real Prometheus finds it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.monitoring import TARGET_LABELS, alerts, dashboard, grouped_by, metrics_of, queries
from support.prometheus import MISSING, Prometheus
from support.recorded_run import ITEMS, Exposed, recorded_run


@pytest.mark.timeout(300)  # half a minute alone, a minute and a half beside two busy neighbours
def test_a_real_run_answers_everything_that_is_asked(database_url: str, tmp_path: Path) -> None:
    with recorded_run(database_url, tmp_path) as run:
        everything_is_exposed(run.exposed)
        if run.prometheus is None:
            pytest.skip("every metric and label is exposed; to ask the queries " + MISSING.format("prometheus"))
        every_query_has_an_answer_and_every_legend_its_labels(run.prometheus, run.since)
        every_alert_can_be_asked(run.prometheus, run.since)
        every_item_is_counted_once(run.prometheus, run.since)
        the_variables_offer_what_there_is(run.prometheus, run.since)


def everything_is_exposed(exposed: Exposed) -> None:
    asked = [(query.panel, query.expression) for query in queries()] + [(alert["alert"], alert["expr"]) for alert in alerts()]
    for where, expression in asked:
        named = metrics_of(expression)
        for name, labels in named.items():
            assert name in exposed.labels, f"{where}: {name}"
            assert labels <= exposed.labels[name] | TARGET_LABELS, f"{where}: {name} has {exposed.labels[name]}"
        there = TARGET_LABELS.union(*(exposed.labels[name] for name in named))
        assert grouped_by(expression) <= there, f"{where}: {expression}"


def every_query_has_an_answer_and_every_legend_its_labels(prometheus: Prometheus, since: float) -> None:
    wrong = []
    for query in queries():
        series = prometheus.values(query.filled_in(), since)
        if not any(values for _, values in series):
            wrong.append(f"{query.panel}: no answer to {query.filled_in()}")
        missing = set(re.findall(r"{{(\w+)}}", query.legend)).difference(*(labels for labels, _ in series))
        if missing:
            wrong.append(f"{query.panel}: no series has the legend's {missing}")
    assert not wrong, "\n".join(wrong)


def every_alert_can_be_asked(prometheus: Prometheus, since: float) -> None:
    for alert in alerts():
        prometheus.values(alert["expr"], since)


def every_item_is_counted_once(prometheus: Prometheus, since: float) -> None:
    def last(expression: str) -> float:
        ((_, values),) = prometheus.values(expression, since)
        return values[-1]

    by_jobs = last('sum(siorg_operator_items_total{outcome!~"retried|released"})')
    by_the_worker = last('sum(siorg_sync_operations_total{status!="PENDING"})')
    assert by_jobs > 0
    assert by_the_worker > 0
    assert by_jobs + by_the_worker == ITEMS
    # What is tried again, or was given back, has come to an outcome too.
    assert last("sum(siorg_operator_item_duration_seconds_count)") == last("sum(siorg_operator_items_total)")


def the_variables_offer_what_there_is(prometheus: Prometheus, since: float) -> None:
    offered = {}
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert found is not None
            offered[variable["name"]] = prometheus.label_values(found[1].replace("$namespace", ".+"), found[2], since)
    assert len(offered["namespace"]) == 1
    assert offered["worker"] == {"sync", "siorg-worker"}
