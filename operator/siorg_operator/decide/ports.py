"""What a pass needs of the world, as small ports. Each has two implementations, which pass one suite (test_ports.py):
a Kubernetes cluster, and this machine with processes in place of Jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide.planned import Launch, Removal
from siorg_operator.decide.state import Job, QueueState
from siorg_operator.decide.status import Event


class ClusterError(Exception):
    """The cluster did not do what was asked; the message says what and why. The next pass tries again.

    Attributes:
        code: of the answer (HTTP), or 0 when there was none.
        retry_after: seconds for which not to try again, as the answer asks; 0: it does not.
    """

    def __init__(self, message: str, code: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after

    @property
    def may_be_done(self) -> bool:
        """Whether it may have been done all the same: no answer came, or one of a server that is in trouble."""
        return self.code == 0 or self.code >= 500


class Launcher(Protocol):
    """Starts Jobs, ends those that do not go on, stops those that are not to go on, removes those that are history.

    Each method raises a ``ClusterError`` when it could not be done.
    """

    async def launch(self, resource: SiorgSyncWorker, launch: Launch, *, secrets_hash: str, decision: str) -> Job:
        """Start a Job; this resource's Job of that slot and round as it is then: it may have been there, even finished."""

    async def end(self, resource: SiorgSyncWorker, removal: Removal) -> None:
        """End a Job that does not go on; it stays as one that says why. One that is gone is no error, and another one that has
        its name by now is left alone.
        """

    async def terminate(self, resource: SiorgSyncWorker, job: Job, *, why: str) -> None:
        """Tell a Job's worker to end: SIGTERM, and SIGKILL when its grace is over. It stays as history that says ``why``. One
        that is gone is no error, and another one that has its name by now is left alone.
        """

    async def remove(self, resource: SiorgSyncWorker, job: Job) -> None:
        """Remove a Job that is finished or suspended. One that is gone is no error; another one that has its name by now, and
        one that was suspended and has changed, are left alone.
        """

    async def find(self, resource: SiorgSyncWorker) -> Sequence[Job]:
        """All Jobs of a resource as they are now, whatever has been shown of them."""


class Reporter(Protocol):
    """Where a resource's status and events go."""

    async def write_status(self, resource: SiorgSyncWorker, patch: dict[str, Any]) -> dict[str, Any] | None:
        """Merge ``patch`` (RFC 7386) into the status; the whole object as it is now, or None when the resource is gone.

        Raises:
            ClusterError: it could not be written.
        """

    async def record(self, resource: SiorgSyncWorker, event: Event) -> None:
        """Record an event. One that cannot be recorded is logged and lost: nothing is decided by events."""


class QueueReader(Protocol):
    """Reads the queue of one resource."""

    @property
    def url(self) -> str | None:
        """Of the database that was read last, to listen there; None: none is known."""

    async def read(self, resource: SiorgSyncWorker) -> QueueState:
        """Look at the queue now. Never raises for a database that is away: unknown is a value."""

    async def changed(self) -> bool:
        """Whether the Secrets are not those of the last reading any more. No database is asked."""
