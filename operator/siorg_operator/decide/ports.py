"""What a pass needs of the world, as small ports: the cluster and the local machine both stand behind them."""

from __future__ import annotations

from typing import Any, Protocol

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide.plan import Launch, Removal
from siorg_operator.decide.state import Backlog
from siorg_operator.decide.status import Event


class ClusterError(Exception):
    """The cluster did not do what was asked; the message says what and why. The next pass tries again.

    Attributes:
        code: of the answer (HTTP), or 0 when there was none.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        """``message``: what was asked, and what came of it."""
        super().__init__(message)
        self.code = code


class Launcher(Protocol):
    """Starts Jobs, ends those that cannot start, removes those that are history."""

    async def launch(self, resource: SiorgSyncWorker, launch: Launch, *, credentials: str, decision: str) -> bool:
        """Start a Job; False when it was there already.

        Raises:
            ClusterError: it could not be started.
        """
        ...

    async def end(self, resource: SiorgSyncWorker, removal: Removal) -> None:
        """End a Job whose pod cannot start; it stays as a failed one that says why.

        Raises:
            ClusterError: it could not be ended.
        """
        ...

    async def remove(self, resource: SiorgSyncWorker, name: str) -> None:
        """Remove a finished Job.

        Raises:
            ClusterError: it could not be removed.
        """
        ...


class Cluster(Protocol):
    """Where a resource's status and events go, and where its CronJobs live."""

    async def write_status(self, resource: SiorgSyncWorker, patch: dict[str, Any]) -> dict[str, Any] | None:
        """Merge ``patch`` into the status; the object as it is now, or None where that is not known.

        A resource that is gone is no error.

        Raises:
            ClusterError: it could not be written.
        """
        ...

    async def record(self, resource: SiorgSyncWorker, event: Event) -> None:
        """Tell an event. One that cannot be told is logged and lost: an event is no truth."""
        ...

    async def apply_cron_job(self, resource: SiorgSyncWorker, manifest: dict[str, Any]) -> dict[str, Any]:
        """Make a CronJob as it is written (server-side apply); the object as it is now.

        Raises:
            ClusterError: it could not be applied, or one of that name is there that this resource does not own.
        """
        ...

    async def delete_cron_job(self, resource: SiorgSyncWorker, name: str) -> None:
        """Remove a CronJob. One that is gone is no error.

        Raises:
            ClusterError: it could not be removed.
        """
        ...


class BacklogReader(Protocol):
    """Reads the queue that a resource names."""

    async def read(self, resource: SiorgSyncWorker) -> Backlog:
        """Look at the queue now. Never raises for a database that is away: unknown is a value."""
        ...
