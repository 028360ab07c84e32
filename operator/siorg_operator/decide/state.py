"""What is known of the world at one moment: values that ``plan`` decides on. Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, Literal

from siorg_operator.decide.reasons import Reason


class JobState(StrEnum):
    """Where a Job stands. The first three are unfinished: capacity that is there or on its way."""

    SUSPENDED = "Suspended"
    """It is kept from starting (``spec.suspend``), by Kueue for one: its admission is pending."""
    PENDING = "Pending"
    """Its worker can still begin."""
    ACTIVE = "Active"
    """Its worker runs, on a node that answers."""
    LOST = "Lost"
    """Its worker neither works nor will: the node does not answer, or what was ended does not go. It may stay so for days."""
    SUCCEEDED = "Succeeded"
    """Its worker has ended well, whatever Kubernetes calls the Job and whatever else runs on in its pod."""
    FAILED = "Failed"


class Ending(StrEnum):
    """Why a Job ended, as far as it matters for the next launch."""

    DONE = "Done"
    """Exit 0: the queue was drained, or it was told to stop."""
    SIORG_UNAVAILABLE = "SiorgUnavailable"
    """Exit 75: SIORG does not answer; attempts unburned."""
    SIORG_RATE_LIMITED = "SiorgRateLimited"
    """Exit 75: SIORG wants no requests for a while."""
    DATABASE_UNAVAILABLE = "DatabaseUnavailable"
    """Exit 75: the database cannot be reached from the pod."""
    WRONG_SETTINGS = "WrongSettings"
    """Exit 2: the job refused its settings."""
    STUCK = "PodStuck"
    """Its pod could not start: the operator ended it, or the kubelet refused it."""
    LOST = "PodLost"
    """Its pod was deleted, or its node lost, before it told how it ended."""
    DEADLINE = "DeadlineExceeded"
    """activeDeadlineSeconds were over."""
    NOTHING = "NothingClaimable"
    """Exit 0, and yet wrong: it found nothing to claim, nobody was at work beside it, and rows are due."""
    OUT_OF_MEMORY = "OutOfMemory"
    """The kernel killed it for its memory limit."""
    FAILED = "JobFailed"
    """Anything else: a crash, exit 1, killed."""


_TERMINAL: Final = ("completed", "conflict", "skipped", "failed")
OUTCOMES: Final = (*_TERMINAL, "retried", "released")
"""What may become of an item in a run; after the last two it waits again."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run said of itself: the JSON line of ``siorg-job run`` in the pod's termination message."""

    reason: str
    exit_code: int
    duration_seconds: float
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """Items by what became of them, one of ``OUTCOMES``."""
    claimed: int = 0
    requests: int = 0
    request_errors: int = 0
    item_seconds: float = 0.0
    """From claim to outcome, of all items together."""
    item_seconds_le: Mapping[float, int] = field(default_factory=dict)
    """How many items took so many seconds at most, and more than the next lower bound."""

    @property
    def ended(self) -> int:
        """Items that the run brought to a terminal status."""
        return sum(self.outcomes.get(outcome, 0) for outcome in _TERMINAL)

    @property
    def took_any(self) -> bool:
        """Whether it had any item in hand."""
        return self.claimed > 0 or self.ended > 0


@dataclass(frozen=True, slots=True)
class Stuck:
    """Why a Job does not go on: mostly in Kubernetes' own word why its pod cannot start (``ImagePullBackOff``, …)."""

    reason: str
    message: str
    since: datetime | None
    """From when on the grace runs after which it is ended; ahead for what may still come right by itself. None: it is left
    alone."""


@dataclass(frozen=True, slots=True)
class Job:
    """One Job of a resource, its pods included."""

    name: str
    slot: int
    """0 … maxJobs − 1: no two unfinished Jobs have the same."""
    round: int
    """Counts the Jobs of one slot, from 1."""
    state: JobState
    created_at: datetime
    template: str = ""
    """Hash of the template that it was made from."""
    started_at: datetime | None = None
    """When its container started."""
    finished_at: datetime | None = None
    ending: Ending | None = None
    """For a finished Job."""
    message: str = ""
    """For a finished Job that failed: what is known, in one line, without secrets."""
    stuck: Stuck | None = None
    """For one that does not go on: pending or lost, or finished in a pod that lives on."""
    completed_at: datetime | None = None
    """When it completed its newest item, as far as the queue tells that now."""
    changes_at: datetime | None = None
    """When it is something else although nothing happens, if that is known."""
    summary: Summary | None = None
    uid: str = ""
    """Which of all that ever had its name; empty: nobody has seen it yet."""
    version: str = ""
    """Its object's ``resourceVersion``; empty: not known."""
    last_words: str = ""
    """How its worker ended, for the annotation of one that is ended because its pod lives on."""
    stopped: bool = False
    """It was told to stop: it takes up nothing more, and however it ends, that is no failure."""

    @property
    def unfinished(self) -> bool:
        """Whether it is capacity: its worker works or can."""
        return self.state in {JobState.SUSPENDED, JobState.PENDING, JobState.ACTIVE}


DEPARTURES: Final = ("conflict", "held", "ended", "failed", "waiting", "outside", "edited")
"""The kinds of departures that have a name: why a value here is not SIORG's. What has none is drift."""


@dataclass(frozen=True, slots=True)
class Verification:
    """A complete comparison of the copy with SIORG, as ``siorg-job verify`` stored it. Counts are values (fields of rows)."""

    finished_at: datetime
    age_seconds: float
    """By the database's clock."""
    organizations: int
    rows: int
    """That were compared."""
    drift: int
    enqueued: int = 0
    """Items that it put on the queue to mend the drift."""
    departures: Mapping[str, int] = field(default_factory=dict)
    """By their kind, one of ``DEPARTURES``."""


@dataclass(frozen=True, slots=True)
class Verifications:
    """What is stored of them."""

    newest: Verification | None = None
    """The newest complete one; None: there is none."""
    incomplete_seconds: float | None = None
    """Age of the newest one that could not compare everything; None: there is none."""
    incomplete_reason: str = ""
    """Why it could not."""
    unreadable: str = ""
    """Why they cannot be read although the queue can; empty: they can."""


@dataclass(frozen=True, slots=True)
class ConnectionLimit:
    """How many connections a server lets its users, one database's or one role's have, and how many they have."""

    kind: Literal["server", "database", "role"]
    name: str
    """Of the database or the role; of the server what tells it from every other, empty: not known."""
    most: int | None
    """None: it does not limit, or that is not known."""
    others: int = 0
    """Connections that it counts, of anybody but jobs; the operator's are among them."""
    jobs: int = 0
    """Connections that it counts, of jobs of whatever resource."""
    named: Mapping[str, int] = field(default_factory=dict)
    """Of ``jobs`` those that say of which Job they are, by its tag (``manifests.job_tag``)."""
    operator: int = 0
    """Of ``others`` the operator's."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the database: the queue's state by the claim's own predicate, and what limits its use.

    Counts are items; times are seconds by the database's clock.
    """

    claimable: int
    due: int = 0
    at_least: bool = False
    """Whether ``claimable`` and ``due`` may be more: no more are counted."""
    scheduled: int = 0
    processing: int = 0
    failed: int = 0
    conflict: int = 0
    held: int = 0
    held_oldest_seconds: float | None = None
    """For so long the oldest held item has waited for a person; None: none is held."""
    oldest_due_seconds: float | None = None
    next_due_seconds: float | None = None
    """Until the next waiting item falls due; 0: one is due; None: none waits."""
    sync_enabled: bool = True
    """The setting ``siorg.sync_enabled`` of the database."""
    siorg_paused_seconds: float = 0.0
    """For so long nothing may be asked of SIORG (Retry-After); 0: no pause."""
    completed_by: Mapping[str, float] = field(default_factory=dict)
    """Ages of the newest items that were completed, by the host of the process: the pod of a Job. Those of a few dozen rows, and
    empty where they cannot be told cheaply."""
    max_connections: int | None = None
    """Connections that the server allows to anybody but superusers; None: not known."""
    other_connections: int = 0
    """Connections of the server in use by anybody but jobs."""
    job_connections: int = 0
    """Connections of the server in use by jobs, of whatever resource."""
    named_connections: Mapping[str, int] = field(default_factory=dict)
    """Of ``job_connections`` those that say of which Job they are, by its tag (``manifests.job_tag``)."""
    operator_connections: int = 0
    """Of ``other_connections`` the operator's."""
    server: str = ""
    """What tells the server from every other, as long as it runs, by whatever address it is reached; empty: not known."""
    database: ConnectionLimit | None = None
    role: ConnectionLimit | None = None
    pooled: bool = False
    """Whether a connection pooler stands between: whoever connects waits for one of its connections, and takes none."""
    verifications: Verifications = Verifications()

    @property
    def connection_limits(self) -> tuple[ConnectionLimit, ...]:
        """What limits the connections of Jobs, the narrowest kind first."""
        if self.pooled:
            return ()
        server = ConnectionLimit(
            "server",
            self.server,
            self.max_connections,
            self.other_connections,
            self.job_connections,
            self.named_connections,
            self.operator_connections,
        )
        return tuple(limit for limit in (self.role, self.database, server) if limit is not None)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it should be."""

    reason: Reason
    message: str
    """What is wrong and what to do about it; names no secret."""


@dataclass(frozen=True, slots=True)
class Unreadable(Fault):
    """Why the queue could not be read."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """The queue as it was read, or why it could not be: unknown is not zero."""

    reading: Reading | Unreadable
    secrets_hash: str | None = ""
    """Fingerprint of what is used of the Secrets: changes with that alone. None: not known now; empty: there are none."""
    siorg_token_error: str | None = None
    """What is wrong with the Secret of SIORG's token, if anything: Jobs could not start with it."""

    @property
    def depth(self) -> int | None:
        """Claimable items; None: unknown."""
        return self.reading.claimable if isinstance(self.reading, Reading) else None


def rfc3339(moment: datetime) -> str:
    """A moment as Kubernetes writes it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def later(moment: datetime, seconds: float) -> datetime:
    """``moment`` and ``seconds`` after it, or the end of all time."""
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=moment.tzinfo)


def whole_second(moment: datetime) -> datetime:
    """The first whole second that is not before ``moment``: as such a time is told, or it would be shown when it is past."""
    return later(moment, 1 - moment.microsecond / 1_000_000) if moment.microsecond else moment


def newest_last(job: Job) -> tuple[datetime, str]:
    """Sorts Jobs by their end."""
    return job.finished_at or job.created_at, job.name
