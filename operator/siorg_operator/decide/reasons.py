"""The words that say why: one CamelCase word each, as conditions, decisions, events and metrics have it.

Everything that depends on a word is a value in this table; no text is ever searched for one. ``docs/operator.md`` explains
each of them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal


class ConditionType(StrEnum):
    """The types of the resource's conditions, in the order in which they are shown."""

    READY = "Ready"
    IN_SYNC = "InSync"
    QUEUE_REACHABLE = "QueueReachable"
    SIORG_AVAILABLE = "SiorgAvailable"
    SCALING_ACTIVE = "ScalingActive"
    DEGRADED = "Degraded"


class Reason(StrEnum):
    """A word, the condition that owns it (and has its event, where others repeat the word), and what it means for launches."""

    condition: ConditionType | None
    holds: bool
    """Whether nothing, or nothing but probes, is launched because of it."""
    chosen: bool
    """Whether a person wants it so: no fault."""

    def __new__(cls, word: str, condition: ConditionType | None = None, effect: Literal["holds", "chosen", ""] = "") -> Reason:
        reason = str.__new__(cls, word)
        reason._value_, reason.condition = word, condition
        reason.holds, reason.chosen = effect != "", effect == "chosen"
        return reason

    # what was decided
    LAUNCHED = "Launched"
    PROBING = "Probing"
    ENOUGH_JOBS = "EnoughJobs"
    RECOVERING = "Recovering"
    QUEUE_EMPTY = "QueueEmpty"

    # what holds launches
    BEING_DELETED = "BeingDeleted", ConditionType.SCALING_ACTIVE, "chosen"
    SUSPENDED = "Suspended", ConditionType.SCALING_ACTIVE, "chosen"
    OBSERVE = "Observe", ConditionType.SCALING_ACTIVE, "chosen"
    SYNC_DISABLED = "SyncDisabled", ConditionType.SCALING_ACTIVE, "chosen"
    INVALID_SPEC = "InvalidSpec", ConditionType.SCALING_ACTIVE, "holds"
    CONNECTION_BUDGET = "ConnectionBudget", ConditionType.SCALING_ACTIVE, "holds"
    LAUNCH_FAILED = "LaunchFailed", ConditionType.SCALING_ACTIVE, "holds"
    DEPTH_UNKNOWN = "DepthUnknown", ConditionType.QUEUE_REACHABLE, "holds"
    SECRET_MISSING = "SecretMissing", ConditionType.DEGRADED, "holds"
    SIORG_UNAVAILABLE = "SiorgUnavailable", ConditionType.SIORG_AVAILABLE, "holds"
    SIORG_RATE_LIMITED = "SiorgRateLimited", ConditionType.SIORG_AVAILABLE, "holds"
    JOBS_FAILING = "JobsFailing", ConditionType.DEGRADED, "holds"
    PODS_STUCK = "PodsStuck", ConditionType.DEGRADED, "holds"
    NOTHING_CLAIMABLE = "NothingClaimable", ConditionType.DEGRADED, "holds"

    # why the queue cannot be read: all of them hold launches as DEPTH_UNKNOWN
    DATABASE_UNAVAILABLE = "DatabaseUnavailable", ConditionType.QUEUE_REACHABLE
    ACCESS_DENIED = "AccessDenied", ConditionType.QUEUE_REACHABLE
    NOT_MIGRATED = "NotMigrated", ConditionType.QUEUE_REACHABLE
    WRONG_URL = "WrongUrl", ConditionType.QUEUE_REACHABLE
    SECRET_KEY_MISSING = "SecretKeyMissing", ConditionType.QUEUE_REACHABLE
    SECRET_UNREADABLE = "SecretUnreadable", ConditionType.QUEUE_REACHABLE
    STATEMENT_FAILED = "StatementFailed", ConditionType.QUEUE_REACHABLE

    # what goes wrong beside the drain Jobs, and holds nothing
    CRON_JOB_REFUSED = "CronJobRefused", ConditionType.DEGRADED
    REMOVAL_REFUSED = "RemovalRefused", ConditionType.DEGRADED
    DISCOVERY_FAILING = "DiscoveryFailing", ConditionType.DEGRADED
    CLEANUP_FAILING = "CleanupFailing", ConditionType.DEGRADED
    VERIFICATION_FAILING = "VerificationFailing", ConditionType.DEGRADED

    # what the last verification says of the copy; holds nothing either
    DRIFT_FOUND = "DriftFound", ConditionType.IN_SYNC
    NOT_VERIFIED = "NotVerified", ConditionType.IN_SYNC
    VERIFICATION_OLD = "VerificationOld", ConditionType.IN_SYNC
    INCOMPLETE = "Incomplete", ConditionType.IN_SYNC

    # all is well
    AS_EXPECTED = "AsExpected", ConditionType.READY
    VERIFIED = "Verified", ConditionType.IN_SYNC
    CONNECTED = "Connected", ConditionType.QUEUE_REACHABLE
    ANSWERING = "Answering", ConditionType.SIORG_AVAILABLE
    NOT_ASKED_YET = "NotAskedYet", ConditionType.SIORG_AVAILABLE
    RECOVERED = "Recovered", ConditionType.SIORG_AVAILABLE
    SCALING = "Scaling", ConditionType.SCALING_ACTIVE
    PENDING_ADMISSION = "PendingAdmission", ConditionType.SCALING_ACTIVE

    # events alone
    SCALED_UP = "ScaledUp"
    QUEUE_DRAINED = "QueueDrained"
    STUCK_JOB_ENDED = "StuckJobEnded"
    LEFTOVER_POD_ENDED = "LeftoverPodEnded"
    JOBS_STOPPED = "JobsStopped"
    FIRST_DISCOVERY = "FirstDiscovery"
    SCALING_RESUMED = "ScalingResumed"
