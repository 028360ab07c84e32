"""What status is written when: once for each change, at once or put off, and again where it is not what we wrote."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from typing import Any

import pytest

from siorg_operator.control.status_writer import StatusWriter
from siorg_operator.decide.ports import ClusterError
from support.fake_cluster import FakeCluster
from support.operator_values import at

READY: dict[str, Any] = {"conditions": [{"type": "Ready", "status": "True", "reason": "AsExpected"}]}
BROKEN: dict[str, Any] = {"conditions": [{"type": "Ready", "status": "False", "reason": "Nonsense"}], "extra": {"streak": 99}}


class Written:
    """A resource whose status was written once."""

    def __init__(self, status: Mapping[str, Any] = READY) -> None:
        self.cluster = FakeCluster()
        self.woken = 0
        self.writer = StatusWriter(self.cluster, self._wake)
        self.write(status)

    def _wake(self) -> None:
        self.woken += 1

    def write(self, status: Mapping[str, Any], seconds: float = 0) -> float | None:
        self.writer.look(self.cluster.object)
        return asyncio.run(self.writer.write(self.cluster.resource, status, at(seconds)))

    def edit(self, status: Mapping[str, Any]) -> None:
        """Somebody else writes it."""
        self.cluster.edit(lambda there: there.update(status=copy.deepcopy(dict(status))))

    @property
    def writes(self) -> int:
        return self.cluster.steps.count("status")


def test_it_is_written_only_when_it_differs_and_that_of_the_process_before_is_ours() -> None:
    written = Written()
    written.write(READY)
    assert (written.writes, written.cluster.status) == (1, READY)
    restarted = StatusWriter(written.cluster, lambda: None)
    restarted.look(written.cluster.object)
    assert restarted.status == READY


# -- a status that is not ours ----------------------------------------------------------------------------------------


def test_only_a_newer_object_that_differs_is_drift() -> None:
    written = Written()  # which made version 10
    late = copy.deepcopy(written.cluster.object)
    assert not written.writer.has_drifted(late)
    for version, drifted in (("", False), ("7", False), ("9", False), ("11", True)):
        metadata = late["metadata"] | {"resourceVersion": version}
        assert written.writer.has_drifted({"metadata": metadata, "status": BROKEN}) is drifted, version
    written.write({**READY, "rate": 1.0})
    assert not written.writer.has_drifted(late)


def test_a_status_that_somebody_else_wrote_is_put_right_and_not_believed() -> None:
    written = Written()
    written.edit(BROKEN)
    assert written.writer.has_drifted(written.cluster.object)
    written.write(READY)
    assert (written.writes, written.cluster.status, written.writer.status) == (2, READY, READY)
    assert not written.writer.has_drifted(written.cluster.object)


def test_one_that_was_written_just_before_ours_asks_for_another_write() -> None:
    written = Written()
    shown = copy.deepcopy(written.cluster.object)
    written.edit({**READY, "selector": "x"})  # not shown yet
    status = {**READY, "rate": 1.0}
    written.writer.look(shown)
    asyncio.run(written.writer.write(written.cluster.resource, status, at(0)))
    assert written.woken == 1
    written.write(status)
    assert (written.cluster.status, written.woken) == (status, 1)


def test_what_the_api_server_always_changes_is_no_reason_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written()

    async def cleansed(resource: object, patch: dict[str, Any]) -> dict[str, Any]:
        written.cluster.steps.append("status")
        written.edit({**READY, "message": "***"})
        return copy.deepcopy(written.cluster.object)

    monkeypatch.setattr(written.cluster, "write_status", cleansed)
    for _ in range(5):
        written.write({**READY, "message": "token"})
    assert written.woken == 1


def test_a_write_whose_answer_was_lost_is_found_out_from_the_watch() -> None:
    written = Written()
    written.cluster.loses_answer = lambda step: True
    status = {**READY, "rate": 1.0}
    with pytest.raises(ClusterError):
        written.write(status)
    assert written.writer.status == READY
    written.cluster.loses_answer = lambda step: False
    written.write(status)
    assert (written.writes, written.writer.status) == (2, status)


# -- what may wait ----------------------------------------------------------------------------------------------------


def counts(claimable: int, message: str = "") -> dict[str, Any]:
    return {**READY, "queue": {"claimable": claimable}, "lastDecision": {"message": message}}


def test_counts_alone_are_written_every_few_seconds() -> None:
    written = Written(counts(0))
    put_off = [written.write(counts(tenths), tenths / 10) for tenths in range(1, 101)]
    assert written.writes == 3  # the first, and after 5 and 10 s
    assert put_off[0] == pytest.approx(4.9)
    assert written.writer.status == written.cluster.status == counts(100)


@pytest.mark.parametrize("change", [{"rate": 1.0}, {"lastDecision": {"message": "", "launched": 1}}, BROKEN])
def test_anything_else_is_written_at_once(change: dict[str, Any]) -> None:
    written = Written(counts(0))
    status = {**counts(1), **change}
    assert written.write(status, 0.1) is None
    assert written.cluster.status == status
