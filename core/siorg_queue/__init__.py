"""The queue: what a row of ``siorg_sync_queue`` means, every statement that touches it, and its migrations.

Knows nothing of SIORG, of the job or of the operator; both of those stand on it.
"""

from siorg_queue.database import (
    Connection,
    Cursor,
    DatabaseBlocked,
    DatabaseUnavailable,
    clock,
    connect,
    describe,
    in_one_trip,
    is_blocked,
    is_transient,
    keeps_plans,
    query,
    reading,
    transaction,
)
from siorg_queue.decisions import Decisions
from siorg_queue.loaders import Unreadable
from siorg_queue.model import (
    COUNTED,
    Attention,
    Claim,
    Counts,
    Decision,
    EntityType,
    HeldRow,
    Item,
    JsonText,
    LostItem,
    NewItem,
    Operation,
    Outcome,
    Settled,
    Status,
    Verdict,
)
from siorg_queue.session import UnsuitableDatabase
from siorg_queue.store import CHANNEL, LeaseLost, QueueStore, RetryPolicy, asked_at_text

__all__ = [
    "CHANNEL",
    "COUNTED",
    "Attention",
    "Claim",
    "Connection",
    "Counts",
    "Cursor",
    "DatabaseBlocked",
    "DatabaseUnavailable",
    "Decision",
    "Decisions",
    "EntityType",
    "HeldRow",
    "Item",
    "JsonText",
    "LeaseLost",
    "LostItem",
    "NewItem",
    "Operation",
    "Outcome",
    "QueueStore",
    "RetryPolicy",
    "Settled",
    "Status",
    "Unreadable",
    "UnsuitableDatabase",
    "Verdict",
    "asked_at_text",
    "clock",
    "connect",
    "describe",
    "in_one_trip",
    "is_blocked",
    "is_transient",
    "keeps_plans",
    "query",
    "reading",
    "transaction",
]
