"""The component as kustomize puts it into an installation."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.monitoring import dashboard
from support.pages import Page
from support.rendered import rendered
from support.siorg_server import REPOSITORY


def named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = (one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name)
    return found


def test_it_adds_monitors_rules_and_the_dashboard_in_the_namespace() -> None:
    made = rendered("base", "components/monitoring", NAMESPACE="elsewhere")
    ours = [one for one in made if one["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "monitoring"]
    assert sorted((one["kind"], one["metadata"]["name"]) for one in ours) == [
        ("ConfigMap", "siorg-dashboard"),
        ("PodMonitor", "siorg-operator"),
        ("PodMonitor", "siorg-worker"),
        ("PrometheusRule", "siorg-operator"),
        ("PrometheusRule", "siorg-sync"),
    ]
    assert {one["metadata"]["namespace"] for one in ours} == {"elsewhere"}
    config = named(ours, "ConfigMap", "siorg-dashboard")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["dashboard.json"]) == dashboard()


def test_the_kustomization_of_the_runbooks_can_be_built(tmp_path: Path) -> None:
    """In a folder beside ``siorg-sync/``, which is this repository."""
    ours = REPOSITORY / ".venv" / "bin" / "kustomize"
    commands = (["kustomize", "build"], [str(ours), "build"], ["kubectl", "kustomize"])
    command = next((words for words in commands if shutil.which(words[0])), None)
    if command is None:
        pytest.skip("needs kustomize or kubectl (make tools)")
    for part in ("manifests", "crds"):
        shutil.copytree(REPOSITORY / part, tmp_path / "siorg-sync" / part, ignore=shutil.ignore_patterns(".render.*"))
    (example,) = (text for language, text in Page.of(REPOSITORY / "docs" / "runbooks.md").blocks if language == "yaml")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "kustomization.yaml").write_text(example)
    built = subprocess.run([*command, str(tmp_path / "own")], capture_output=True, text=True, timeout=60, check=False)
    assert built.returncode == 0, built.stderr
    made = [found for found in yaml.safe_load_all(built.stdout) if found]
    for kind, name in (("PodMonitor", "siorg-operator"), ("PodMonitor", "siorg-worker"), ("PrometheusRule", "siorg-sync")):
        assert named(made, kind, name)["metadata"]["labels"]["release"] == "monitoring"
    rules = named(made, "PrometheusRule", "siorg-sync")["spec"]["groups"][0]["rules"]
    assert [rule["alert"] for rule in rules if "oldest_due" in rule["expr"] and "86400" in rule["expr"]] == [
        "SiorgQueueOldestTooOld"
    ]
    assert not [one for one in made if one["kind"] == "PrometheusRule" and one["metadata"]["name"] == "siorg-operator"]
