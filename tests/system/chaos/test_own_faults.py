"""A fault of ours in the drain itself ends the run, and no item pays for it."""

from __future__ import annotations

import pytest

from siorg_job.drain.maintenance import Maintenance
from siorg_job.metrics import JobMetrics

from .conftest import Scene


def test_what_is_in_flight_goes_back_unharmed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.waiting(5)
    scene.latency("9000")

    async def fault(_self: Maintenance, in_flight: int, _metrics: JobMetrics) -> None:
        if in_flight:
            raise LookupError("ours")

    monkeypatch.setattr(Maintenance, "run_due", fault)
    with pytest.raises(LookupError):
        scene.drain()
    assert scene.states() == {("PENDING", 0): 5}
    assert scene.audit() == {"claim": 5, "release": 5}
