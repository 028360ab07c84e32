"""Whose key the fingerprint of Secrets has, and what becomes of it where the key cannot be kept."""

from __future__ import annotations

import asyncio
import base64
import logging
from dataclasses import dataclass, field
from typing import Any

import pytest

from siorg_operator.cluster.fingerprint import KEY_SECRET, Fingerprints
from siorg_operator.decide.ports import ClusterError

USED = ("postgresql://siorg:hunter2@db/siorg", None)


@dataclass
class Cluster:
    """The Secret of the key as it comes with the manifests: without data."""

    secret: dict[str, Any] | None = field(default_factory=lambda: {"metadata": {"resourceVersion": "1"}})
    refuses: dict[str, int] = field(default_factory=dict)
    """Codes by verb."""
    others: list[str] = field(default_factory=list)
    """What others write before our next patch."""
    patches: int = 0

    async def read(self, namespace: str, name: str) -> dict[str, Any] | None:
        assert (namespace, name) == ("sync", KEY_SECRET)
        self._refuse("get")
        return self.secret

    async def patch(self, namespace: str, name: str, change: dict[str, Any]) -> dict[str, Any] | None:
        assert (namespace, name) == ("sync", KEY_SECRET)
        self._refuse("patch")
        self.patches += 1
        assert self.secret is not None
        if self.others:
            self.write(self.others.pop())
        if change["metadata"] != self.secret["metadata"]:
            raise ClusterError("patch secrets: 409: the object has been modified", 409)
        return self.write(change["data"]["key"])

    def write(self, key: str) -> dict[str, Any]:
        version = 1 if self.secret is None else int(self.secret["metadata"]["resourceVersion"]) + 1
        self.secret = {"metadata": {"resourceVersion": str(version)}, "data": {"key": key}}
        return self.secret

    def _refuse(self, verb: str) -> None:
        if verb in self.refuses:
            raise ClusterError(f"{verb} secrets: {self.refuses[verb]}", self.refuses[verb])

    def told(self, *, writes: bool = True, used: tuple[str | None, ...] = USED) -> str | None:
        """The fingerprint that a new process tells."""
        return asyncio.run(Fingerprints("sync", self.read, self.patch if writes else None).of(used))


def test_the_key_is_made_once_and_every_process_tells_the_same() -> None:
    cluster = Cluster()
    assert cluster.told() == cluster.told() == cluster.told(writes=False)
    assert cluster.patches == 1
    assert cluster.told(used=("another", None)) != cluster.told() != Cluster().told()


def test_loops_that_begin_at_once_share_one_key() -> None:
    cluster = Cluster()
    fingerprints = Fingerprints("sync", cluster.read, cluster.patch)

    async def all_at_once() -> list[str | None]:
        return await asyncio.gather(*(fingerprints.of(USED) for _ in range(5)))

    assert len(set(asyncio.run(all_at_once()))) == 1
    assert cluster.patches == 1


@pytest.mark.parametrize("key", ["", "not base64!", base64.b64encode(b"short").decode()])
def test_what_is_no_key_is_replaced(key: str) -> None:
    cluster = Cluster()
    cluster.write(key)
    assert cluster.told() == cluster.told()
    assert cluster.patches == 1


def test_of_two_that_make_a_key_the_first_ones_counts() -> None:
    theirs = base64.b64encode(b"k" * 32).decode()
    cluster, other = Cluster(others=[theirs]), Cluster()
    other.write(theirs)
    assert cluster.told() == other.told()


@pytest.mark.parametrize("cluster", [Cluster(secret=None), Cluster(refuses={"get": 403}), Cluster(refuses={"patch": 403})])
def test_a_key_that_cannot_be_kept_is_this_processes_own_and_that_is_told(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert None is not cluster.told() != cluster.told() is not None
    assert "each restart is one needless try" in caplog.text
    caplog.clear()
    assert cluster.told(writes=False) is None  # who may write nothing has no opinion
    assert caplog.text == ""


@pytest.mark.parametrize("code", [0, 500])
@pytest.mark.parametrize("verb", ["get", "patch"])
def test_an_api_server_in_trouble_is_asked_again_rather_than_given_another_key(verb: str, code: int) -> None:
    cluster = Cluster(refuses={verb: code})
    fingerprints = Fingerprints("sync", cluster.read, cluster.patch)
    with pytest.raises(ClusterError):
        asyncio.run(fingerprints.of(USED))
    cluster.refuses.clear()
    assert asyncio.run(fingerprints.of(USED)) == cluster.told()
