"""What people read: every word that the operator says stands in docs/operator.md, and its example can be followed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from siorg_operator.api.resource import read_file
from siorg_operator.decide.reasons import ConditionType, Reason
from siorg_operator.decide.state import Ending

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = (ROOT / "manifests" / "siorgsyncworker.yaml").read_text()


@pytest.mark.parametrize("page", ["docs/operator.md", "docs/pt-BR/operator.md"])
def test_every_word_is_explained_and_what_holds_launches_stands_in_its_table(page: str) -> None:
    text = (ROOT / page).read_text()
    words = [*Reason, *ConditionType, *(set(Ending) - {Ending.DONE})]
    assert [str(word) for word in words if f"`{word}`" not in text] == []
    table = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert [str(reason) for reason in Reason if reason.holds and not any(f"`{reason}`" in cell for cell in table)] == []


def test_the_example_is_a_resource_that_names_its_secret_and_leaves_the_image_to_the_operator() -> None:
    worker = read_file(EXAMPLE)
    assert "namespace" not in yaml.safe_load(EXAMPLE)["metadata"]  # kubectl -n says it
    assert not worker.spec.job.image
    assert worker.spec.siorg.token_secret_ref is None  # the public service answers without one
    assert f"create secret generic {worker.spec.database.url_secret_ref.name} --from-env-file" in EXAMPLE
    assert "--from-literal" not in EXAMPLE
