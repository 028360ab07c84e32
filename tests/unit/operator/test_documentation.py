"""What people read: every word that the operator says stands in docs/operator.md, and its example can be followed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from siorg_operator.api.resource import read_file
from siorg_operator.cluster import secrets as credentials
from siorg_operator.control import reconcile
from siorg_operator.decide import job_failures as trouble
from siorg_operator.decide import plan, sizing, status
from siorg_operator.decide import state as observed

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTATION = (ROOT / "docs" / "operator.md").read_text()
EXAMPLE = (ROOT / "manifests" / "siorgsyncworker.yaml").read_text()

NO_REASONS = frozenset(
    {"Normal", "Warning", "True", "False", "Unknown"}  # types of events, statuses of conditions
    | {"Pending", "Active", "Succeeded", "Failed"}  # states of Jobs
    | {"Size", "Time", "MinJobs", "Probe"}  # what asked for a launch: a label of a metric
    | {"Done", "Failing", "Complete", "Job"}
)


def words() -> Iterator[str]:
    """Every text of one CamelCase word in the modules that say why."""
    for module in (plan, trouble, sizing, status, reconcile, observed, credentials):
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for word in node.value.split():  # annotations as texts, too
                    if word == node.value and re.fullmatch(r"([A-Z][a-z]+)+", word):
                        yield word


@pytest.mark.parametrize("word", sorted(set(words()) - NO_REASONS))
def test_every_reason_is_explained(word: str) -> None:
    assert f"`{word}`" in DOCUMENTATION


def test_the_faults_of_cron_jobs_are_explained() -> None:
    for word in ("DiscoveryFailing", "CleanupFailing"):  # put together from the CronJob's name
        assert f"`{word}`" in DOCUMENTATION


def test_the_example_is_a_resource_that_names_its_secrets_and_leaves_the_image_to_the_operator() -> None:
    worker = read_file(EXAMPLE)
    assert "namespace" not in yaml.safe_load(EXAMPLE)["metadata"]  # kubectl -n says it
    assert not worker.spec.job.image
    assert worker.spec.siorg.token_secret_ref is not None
    for name in (worker.spec.database.url_secret_ref.name, worker.spec.siorg.token_secret_ref.name):
        assert f"create secret generic {name} --from-env-file" in EXAMPLE
    assert "--from-literal" not in EXAMPLE
