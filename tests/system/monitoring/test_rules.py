"""The alerts as promtool reads them, and the cases of ``rules*_test.yaml`` as it works them out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from support.monitoring import CASES, alerts, rule_groups
from support.prometheus import MISSING, PROMTOOL

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason=MISSING.format("promtool"))


def promtool(folder: Path, *arguments: str) -> str:
    """What promtool says in a folder that has the rules as Prometheus wants them: plain, without Kubernetes around them."""
    (folder / "siorg-rules.yaml").write_text(yaml.safe_dump({"groups": rule_groups()}))
    for file in CASES:
        shutil.copy(file, folder)
    done = subprocess.run([str(PROMTOOL), *arguments], cwd=folder, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    assert f"SUCCESS: {len(alerts())} rules found" in promtool(tmp_path, "check", "rules", "siorg-rules.yaml")


def test_every_case_comes_out_as_written(tmp_path: Path) -> None:
    promtool(tmp_path, "test", "rules", *(file.name for file in CASES))
