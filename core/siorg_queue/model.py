"""What a row of ``siorg_sync_queue`` means."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

COUNTED: Final = 25_000
"""Items of a kind that are counted exactly; where there are more, one more is counted (``most`` of ``predicates.sql``)."""


class EntityType(StrEnum):
    """What an item is about (``siorg_entity_type_enum``)."""

    ORGANIZATION = "ORGANIZATION"
    UNIT = "UNIT"
    CATEGORY = "CATEGORY"
    TYPE = "TYPE"


class Operation(StrEnum):
    """What the producer saw happen in SIORG (``siorg_change_type_enum``); the truth is fetched anew."""

    CREATION = "CREATION"
    UPDATE = "UPDATE"
    EXTINCTION = "EXTINCTION"
    HIERARCHY_CHANGE = "HIERARCHY_CHANGE"
    MERGE = "MERGE"
    SPLIT = "SPLIT"


class Status(StrEnum):
    """Where an item stands (``sync_status_enum``)."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CONFLICT = "CONFLICT"
    SKIPPED = "SKIPPED"


class Outcome(StrEnum):
    """What became of a claimed item."""

    COMPLETED = "COMPLETED"
    CONFLICT = "CONFLICT"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    RETRY = "RETRY"
    """PENDING again, later; FAILED when the attempts are spent."""
    RELEASED = "RELEASED"
    """PENDING again, unharmed: the attempt is given back."""


@dataclass(frozen=True, slots=True)
class Item:
    """A claimed item: ours until the lease runs out, proved by ``lease_token``. What is JSON in it may be ``Unreadable``."""

    id: UUID
    entity_type: EntityType
    siorg_code: int
    operation: Operation
    priority: int
    payload: Any
    attempts: int
    """Attempts counted so far, this one included."""
    max_attempts: int
    lease_token: int
    needed_at: datetime
    """An answer of SIORG is good for the item if it was asked for then or later, whoever asked; by the database's clock."""
    local_id: UUID | None = None
    error_details: Any = None
    """What is known of earlier trouble; a person's resolution is carried here."""
    detected_changes: Any = None
    """The differences of an earlier conflict: what the person was asked about."""
    alone: bool = False
    """Workers that held it were lost twice: nothing is worked on beside it, so that it shows whether it kills them."""


@dataclass(frozen=True, slots=True)
class LostItem:
    """An abandoned item that a claim ended: its workers died with nothing else in their hands."""

    id: UUID
    entity_type: EntityType
    siorg_code: int
    last_error: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What one claim returned; both empty means that nothing is claimable."""

    items: tuple[Item, ...] = ()
    lost: tuple[LostItem, ...] = ()

    def __bool__(self) -> bool:
        """Whether the claim took anything at all."""
        return bool(self.items or self.lost)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one item, to be written under its lease."""

    item: Item
    outcome: Outcome
    error: str | None = None
    """One sentence that a person can act on (``last_error``)."""
    details: dict[str, Any] | None = None
    """What a program can read (``error_details``)."""
    changes: dict[str, Any] | None = None
    """Field differences of a CONFLICT (``detected_changes``): ``{field: {base, local, remote}}``."""
    delay_seconds: float | None = None
    """Pause before a retry or after a release; None: the queue's own backoff, or none for a release."""
    local_id: UUID | None = None
    needed_at: datetime | None = None
    """An answer of SIORG asked for before it will not do when the item is worked on again."""
    held: bool = False
    """Of a CONFLICT: beyond a limit, and nothing that people changed."""


@dataclass(frozen=True, slots=True)
class Settled:
    """How the queue recorded a verdict."""

    status: Status
    attempts: int
    delay_seconds: float | None
    """Seconds until the item is due again, for a PENDING one."""


class JsonText(str):
    """JSON that stays text: it is stored, and nobody here reads it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class NewItem:
    """Something to enqueue."""

    entity_type: EntityType
    siorg_code: int
    operation: Operation
    payload: Any = field(default_factory=dict)
    """What JSON can hold, or ``JsonText``."""
    priority: int | None = None
    """1 (first) to 10 (last); None: 5, an end 6: after the rest, for what is below may have to move away or end first."""
    delay_seconds: float = 0.0
    needed_at: datetime | None = None
    """When, by the database's clock, the answer was asked for that showed the need; None: the moment of enqueueing."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided about fields of one entity that were in no conflict."""

    entity_type: EntityType
    siorg_code: int
    decision: dict[str, Any]
    """As ``error_details`` keeps it."""
    changes: dict[str, Any]
    """What the person was shown: ``{field: {base, local, remote}}``."""


@dataclass(frozen=True, slots=True)
class Depth:
    """How much could be claimed right now."""

    claimable: int
    at_least: bool
    """Whether there may be more than ``COUNTED`` and one."""
    oldest_due_seconds: float | None


@dataclass(frozen=True, slots=True)
class Counts:
    """The queue by state (items)."""

    claimable: int
    at_least: bool
    """Whether claimable and due may be more: claimable is more than ``COUNTED``."""
    due: int
    scheduled: int
    """Waiting for a later time; may be more where it is more than ``COUNTED``."""
    processing: int
    completed: int
    failed: int
    conflict: int
    """Both sides changed; those that are held are not among them."""
    held: int
    """An end or an overwrite beyond a limit: waits for a person."""
    skipped: int
    estimated: bool
    """Whether completed or skipped is an estimate: one is where it is more than ``COUNTED``."""
    expired: int
    spent: int
    """PENDING with no attempts left: never claimable, ended by reap."""
    abandoned: int
    """PROCESSING with nobody working on it."""
    oldest_due_seconds: float | None

    @property
    def waiting(self) -> int:
        """PENDING in any sense."""
        return self.due + self.scheduled + self.expired + self.spent


@dataclass(frozen=True, slots=True)
class CleanedPage:
    """What one page of a cleanup did."""

    last: str | None
    """Where to go on; None: nothing was found."""
    found: int
    """As many as were wanted: there may be more."""
    deleted: int
    """Of those found; somebody else had the others."""
    unlinked: int
    """History rows that stayed and lost their link."""


@dataclass(frozen=True, slots=True)
class Attention:
    """An item that waits for a person."""

    id: UUID
    entity_type: EntityType
    siorg_code: int
    operation: Operation
    status: Status
    attempts: int
    max_attempts: int
    last_error: str | None
    error_details: Any
    detected_changes: Any
    created_at: datetime
    last_attempt_at: datetime | None


@dataclass(frozen=True, slots=True)
class HeldRow:
    """One field that is held: it waits for a person, who releases or drops it."""

    id: UUID
    entity_type: EntityType
    code: int
    organization: int
    """Code of the organization that holds the unit here."""
    name: str
    """Of the entity, here."""
    path: str
    """Names from the organization down to the unit, as ``path_names`` has them."""
    field: str
    """``is_active`` or ``name``."""
    local: Any
    remote: Any
    """SIORG's value."""
    held_at: datetime
    reason: str
    """How many of how many it was, and the limit."""
