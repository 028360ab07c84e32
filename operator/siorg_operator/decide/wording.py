"""The sentences that people read: of decisions, conditions and events. Values in, words out; nothing is decided here.

No text made here is taken apart again, by nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide.connections import CONNECTIONS_LEFT_FREE, CONNECTIONS_PER_JOB, Room
from siorg_operator.decide.job_failures import Failures
from siorg_operator.decide.planned import Backoff, Hold, Plan, Removal, Result
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.sizing import LimitName, Size
from siorg_operator.decide.state import (
    DEPARTURES,
    ConnectionLimit,
    Ending,
    Fault,
    Job,
    Stuck,
    Verification,
    Verifications,
    rfc3339,
    whole_second,
)

# -- decisions --------------------------------------------------------------------------------------------------------


def intent(resource: SiorgSyncWorker, plan: Plan, verb: str = "launched") -> str:
    """The decision as it is to be carried out: ``depth 480, 50 a Job → 10 wanted, maxJobs 5 → 5, 3 unfinished → launched 2``.

    ``verb``: ``would launch`` where nobody carries it out.
    """
    count, said = len(plan.launches), _sum(resource, plan)
    if plan.hold is not None and plan.reason is Reason.OBSERVE:
        return f"{said} → would launch {plan.hold.count}, but mode is Observe: nothing is launched"
    if plan.hold is not None:
        return f"{said}; held back: {hold(resource, plan.size, plan.hold)}"
    if plan.reason is Reason.QUEUE_EMPTY:
        return f"{said} → nothing to do"
    if plan.reason is Reason.PROBING:
        return f"{said} → {verb} {count} as a probe"
    return f"{said} → {verb} {count}{_limited(resource, plan)}"


def _limited(resource: SiorgSyncWorker, plan: Plan) -> str:
    """Why fewer Jobs are launched than the work wants, if they are and nothing is wrong."""
    count, step = len(plan.launches), resource.spec.scaling.max_launches_per_step
    if count >= plan.desired - plan.unfinished or plan.reason is Reason.ENOUGH_JOBS:
        return ""
    if plan.recovering is not None and plan.recovering.recovered_at is not None and count < step:
        since = rfc3339(plan.recovering.recovered_at)
        return f" (the trouble is over since {since}: their number doubles as items are completed)"
    return f" (maxLaunchesPerStep {step})" if count else ""


def decision(resource: SiorgSyncWorker, result: Result) -> str:
    """The decision as it was carried out."""
    if result.refused:
        return f"{_sum(resource, result.plan)} → launched {len(result.launched)}; {result.refused}"
    return intent(resource, result.plan)


def _sum(resource: SiorgSyncWorker, plan: Plan) -> str:
    scaling, size, limits = resource.spec.scaling, plan.size, plan.size.limits
    steps = [f"depth {'unknown' if size.depth is None else counted(size.depth, at_least=size.at_least)}"]
    if "by size" in limits:
        steps.append(f"{scaling.items_per_job} a Job → {limits['by size']} wanted")
    if limits.get("by time") is not None:
        target = f"{size.rates.items:g} items/s a Job and {scaling.target_drain_seconds} s"
        steps.append(f"{target} → {limits['by time']} wanted")
    if size.asked_by == "MinJobs":
        steps.append(f"minJobs {scaling.min_jobs} → {size.asked}")
    if size.binding is not None and size.desired < size.asked:
        whose = f" of {_whose(size.room.limit)}" if size.binding == "connection budget" and size.room is not None else ""
        steps.append(f"{size.binding}{whose} {limits[size.binding]} → {size.desired}")
    kinds = (f"{count} {word}" for count, word in ((plan.suspended, "pending admission"), (plan.stopping, "stopping")) if count)
    some = f" ({also})" if (also := ", ".join(kinds)) else ""
    lost = f", {plan.lost} lost" if plan.lost else ""
    return f"{', '.join(steps)}, {plan.unfinished} unfinished{some}{lost}{no_node_yet(plan)}"


def counted(items: int, *, at_least: bool) -> str:
    """How many there are, as far as they are counted."""
    return f"at least {items}" if at_least else f"{items}"


def limit(resource: SiorgSyncWorker, size: Size, name: LimitName) -> str:
    """How a limit comes about."""
    scaling, rates = resource.spec.scaling, size.rates
    match name:
        case "by size":
            return f"ceil({size.depth} / itemsPerJob {scaling.items_per_job})"
        case "by time":
            if not scaling.target_drain_seconds:
                return "no targetDrainSeconds is set"
            if not rates.items:
                return "no Job has shown its rate yet"
            return f"ceil({size.depth} / ({rates.items:g} items/s · targetDrainSeconds {scaling.target_drain_seconds}))"
        case "minJobs":
            return "at least 1 while there is work" if scaling.min_jobs < 1 else "spec.scaling.minJobs"
        case "maxJobs":
            return "spec.scaling.maxJobs"
        case "connection budget":
            return _connection_budget(size)
        case "request budget":
            most = resource.spec.siorg.max_requests_per_second
            if not most:
                return "maxRequestsPerSecond is 0: no limit"
            if not rates.requests:
                return "no Job has shown its requests yet"
            return f"ceil(maxRequestsPerSecond {most:g} / {rates.requests:g} requests/s a Job)"
    return "nothing is claimable"


def switched_off_by(resource: SiorgSyncWorker) -> str:
    """What a person set, so that there are no more Jobs."""
    return "spec.suspend is true" if resource.spec.suspend else "spec.scaling.maxJobs is 0"


def stopped(resource: SiorgSyncWorker, result: Result) -> str:
    """Jobs were told to stop."""
    return f"{sentence(_stopping(len(result.stopped)))}{switched_off_by(resource)} (whenSuspended: Stop)"


def first_discovery(resource: SiorgSyncWorker, job: str) -> str:
    """The CronJob is new."""
    return (
        f"Launched Job {job}: it puts onto the queue what differs from SIORG. Later ones are by the clock"
        f" (spec.discovery.schedule {resource.spec.discovery.schedule})"
    )


def _stopping(count: int) -> str:
    if not count:
        return "nothing runs any more, "
    whose = "which gives back what it holds" if count == 1 else "which give back what they hold"
    return f"stopping {count} {_plural(count, 'Job')}, {whose}; "


def _connection_budget(size: Size) -> str:
    room = size.room
    if room is None:
        return "no limit of the database's connections is known"
    jobs = f"{room.neighbours} {_plural(room.neighbours, 'Job')} of other resources"
    reserved = f" − {CONNECTIONS_PER_JOB} · {jobs}" if room.neighbours else ""
    used = f"{room.limit.most} connections of {_whose(room.limit)} − {room.others} in use by others{reserved}"
    shared = f", in turns with {_others(room)}" if room.sharing else ""
    return f"({used} − {CONNECTIONS_LEFT_FREE} left free) / {CONNECTIONS_PER_JOB} a Job{shared}"


def _whose(limit: ConnectionLimit) -> str:
    return "the server" if limit.kind == "server" else f"the {limit.kind} {limit.name}"


def _others(room: Room) -> str:
    return f"{room.sharing - 1} other {_plural(room.sharing - 1, 'resource')}"


_MORE_ROOM: Final = {
    "server": "raise max_connections, or end sessions that nobody needs",
    "database": "raise the database's limit (ALTER DATABASE … CONNECTION LIMIT)",
    "role": "raise the role's limit (ALTER ROLE … CONNECTION LIMIT), or give others a role of their own",
}


def _no_room(size: Size) -> str:
    """A limit leaves no room for a Job, and what would help."""
    room = size.room
    if room is None:
        return _connection_budget(size)
    whose = "database server" if room.limit.kind == "server" else f"{room.limit.kind} {room.limit.name}"
    theirs = ", or lower maxJobs of the other resources" if room.neighbours or room.sharing else ""
    return f"the {whose} has no room for another Job: {_connection_budget(size)}; {_MORE_ROOM[room.limit.kind]}{theirs}"


def hold(resource: SiorgSyncWorker, size: Size, held: Hold) -> str:
    """What keeps Jobs from being launched."""
    if held.failures is not None:
        when = _probes(held.probes) if held.until is None else f"one probe Job at {_at(held.until)}"
        return f"{failures(held.failures)}; {when}"
    match held.reason:
        case Reason.DEPTH_UNKNOWN:
            return f"the queue cannot be read: {held.said}"
        case Reason.BEING_DELETED:
            return "the resource is being deleted, and its Jobs with it"
        case Reason.SUSPENDED:
            if resource.spec.when_suspended == "Stop":
                return f"{switched_off_by(resource)}: {_stopping(held.stopping)}nothing is launched (whenSuspended: Stop)"
            return f"{switched_off_by(resource)}: {'what runs drains, ' if resource.spec.suspend else ''}nothing is launched"
        case Reason.OBSERVE:
            return "spec.mode is Observe: decisions are told, nothing is launched"
        case Reason.SYNC_DISABLED:
            return "the database's setting siorg.sync_enabled is false"
        case Reason.SIORG_RATE_LIMITED if held.until is not None:
            return f"SIORG asked for no requests until {_at(held.until)}"
        case Reason.CONNECTION_BUDGET:
            return _no_room(size)
    return held.said


# -- Jobs that fail or do not start -----------------------------------------------------------------------------------

_WHAT_FAILS: Final = {
    Ending.SIORG_UNAVAILABLE: "SIORG does not answer",
    Ending.SIORG_RATE_LIMITED: "SIORG wants fewer requests",
    Ending.DATABASE_UNAVAILABLE: "Jobs cannot reach the database",
    Ending.WRONG_SETTINGS: "Jobs refuse their settings",
    Ending.STUCK: "pods cannot start",
    Ending.LOST: "pods are deleted before their workers have ended",
    Ending.NOTHING: "Jobs find nothing to claim although rows are due",
    Ending.DEADLINE: "Jobs reach activeDeadlineSeconds and, as far as is known, end no item",
}
_ADVICE: Final = {
    Ending.SIORG_UNAVAILABLE: "No attempt is counted meanwhile; check SIORG and spec.siorg.url if it lasts",
    Ending.SIORG_RATE_LIMITED: "No attempt is counted meanwhile; lower spec.siorg.maxRequestsPerSecond if it comes back",
    Ending.DATABASE_UNAVAILABLE: "See QueueReachable: where it is True, only the pods fail; check network policies and connection"
    " limits then",
    Ending.WRONG_SETTINGS: "Correct what the message names, in the resource or its Secrets; a change is tried at once",
    Ending.STUCK: "Correct what the message names (image, pull secrets, Secrets, node selection); a change is tried at once",
    # There is no log any more.
    Ending.LOST: "See who or what deletes them (kubectl get events, kubectl get nodes)",
    Ending.NOTHING: "Another transaction holds the rows, or somebody else takes them: look in pg_stat_activity for sessions that"
    " are idle in transaction, and for workers that still run",
    Ending.DEADLINE: "Raise spec.job.activeDeadlineSeconds, or see what the Job's log says",
    # Its log holds nothing of it.
    Ending.OUT_OF_MEMORY: "Raise spec.job.resources.limits.memory, or lower spec.worker.batchSize and concurrency; a change is"
    " tried at once",
    Ending.FAILED: "See the log of that Job (kubectl logs job/…); a change of the resource is tried at once",
}


def failures(found: Failures) -> str:
    """What is wrong, in one sentence without a full stop."""
    times = f"{found.streak} {_plural(found.streak, 'failure')} in a row, the last at {rfc3339(found.last_failure)}"
    return f"{_WHAT_FAILS.get(found.ending, 'Jobs fail')} ({times}{': ' + found.message if found.message else ''})"


def backoff(found: Backoff) -> str:
    """What is wrong, and when it is tried again."""
    if not found.due:
        when = f"one probe Job may leave at {_at(found.retry_at)}"
    elif found.probes:
        when = _probes(found.probes)
    elif found.dormant:
        when = "nothing waits now, and the next work is taken up by a single probe Job"
    else:
        when = "the next Job that is launched is a single probe"
    return f"{failures(found.failures)}; {when}"


def advice(found: Backoff) -> str:
    """What is wrong, when it is tried again, and what to do about it."""
    return sentence(f"{backoff(found)}. {_ADVICE[found.failures.ending]}")


def stuck_pod(job: Job, stuck: Stuck) -> str:
    """A pod cannot start, and it is not too late yet."""
    said = f"{stuck.reason}: {stuck.message}. It is removed after a grace"
    return f"The pod of Job {job.name} cannot start: {said}. {_ADVICE[Ending.STUCK]}"


def no_node_yet(plan: Plan) -> str:
    """What is to be known of pods that no node has taken and that may come right by themselves; empty: there are none."""
    if not plan.unschedulable:
        return ""
    first, count = plan.unschedulable[0], len(plan.unschedulable)
    said = first.stuck.message if first.stuck is not None else ""
    pods = "the pod of 1 Job waits" if count == 1 else f"the pods of {count} Jobs wait"
    return f" (Info: {pods} for a node, as an autoscaler may make one: {first.name}: {said})"


def removal(ended: Removal) -> str:
    """A Job that is ended because it does not go on."""
    advice = f". {_SIDECARS}" if ended.last_words else ""
    return f"{ended.name}: {ended.stuck.reason}: {ended.stuck.message}{advice}"


_SIDECARS: Final = (
    "It counts as it ended. A sidecar ends with the worker as an init container with restartPolicy Always (Istio:"
    " sidecar.istio.io/nativeSidecar, Vault: agent-pre-populate-only)"
)


def pending_admission(plan: Plan) -> str:
    """Jobs are suspended."""
    wait = "waits" if plan.suspended == 1 else "wait"
    return (
        f"{plan.suspended} of {plan.unfinished} unfinished {_plural(plan.unfinished, 'Job')} {wait} for admission: suspended, by"
        " Kueue (kubectl get workloads) or by whoever set spec.suspend of the Job"
    )


# -- conditions -------------------------------------------------------------------------------------------------------

AS_EXPECTED: Final = "The queue is read and Jobs are launched as it needs them"
NOT_DEGRADED: Final = "Jobs start and end as they should"
QUEUE_READ: Final = "The queue is read"
SIORG_PAUSED: Final = "SIORG asked for no requests for a while: Jobs wait for it"
SIORG_ANSWERS: Final = "SIORG answered the last Jobs"
SIORG_RECOVERED: Final = "The trouble is over: a Job has been at work since"
SIORG_NOT_ASKED: Final = "No Job has ended yet that tells whether SIORG answers"
SCALING: Final = "Jobs are launched as the queue needs them"
NOT_LOOKED_AT: Final = "Not looked at until spec is corrected: see Ready"
INVALID_SPEC: Final = "Nothing is launched until spec is corrected; what runs drains"
QUEUE_DRAINED: Final = "The queue is empty and every Job has ended"


VERIFICATIONS_UNREADABLE: Final = "The stored verifications cannot be read: see QueueReachable"
NOT_VERIFIED: Final = "No complete verification is stored yet: the next by the schedule makes it, or siorg-job verify --stored"


def verified(found: Verification) -> str:
    """No drift was found."""
    return f"Verified {_ago(found.age_seconds)}: {_compared(found)}, and no drift{_departures(found)}"


def drift_found(found: Verification) -> str:
    """Drift was found, and what to do about it."""
    mended = f"; {found.enqueued} {_plural(found.enqueued, 'item')} went onto the queue to mend that" if found.enqueued else ""
    differ = (
        f"{found.drift} {_plural(found.drift, 'value')} {'differs' if found.drift == 1 else 'differ'} from SIORG without a reason"
    )
    return (
        f"Verified {_ago(found.age_seconds)}: {differ}{_departures(found)}; {_compared(found)}{mended}."
        " siorg-job verify lists them, and tells whether it is still so"
    )


def verification_old(found: Verification, interval: float) -> str:
    """The last complete one tells nothing of the present."""
    drift = f"{found.drift} drift" if found.drift else "no drift"
    return (
        f"The last complete verification was {_ago(found.age_seconds)}, more than twice its interval ({_span(interval)}). It"
        f" found {drift}{_departures(found)}. See the CronJob verification, or run siorg-job verify --stored"
    )


def incomplete(stored: Verifications) -> str:
    """Not everything could be compared."""
    why = f": {stored.incomplete_reason}" if stored.incomplete_reason else ""
    return f"The verification {_ago(stored.incomplete_seconds or 0.0)} could not compare everything{why}"


def not_verified_by_choice(stored: Verifications) -> str:
    """Nobody wants to know."""
    newest = stored.newest
    last = "none is stored" if newest is None else f"the last one, {_ago(newest.age_seconds)}, found {newest.drift} drift"
    return f"spec.verification.enabled is false: nothing is verified by the clock; {last}"


def _compared(found: Verification) -> str:
    rows, organizations = _plural(found.rows, "row"), _plural(found.organizations, "organization")
    return f"{found.rows} {rows} of {found.organizations} {organizations} compared"


def _departures(found: Verification) -> str:
    named = [f"{found.departures[kind]} {kind}" for kind in DEPARTURES if found.departures.get(kind)]
    return f" (departures with a reason: {', '.join(named)})" if named else ""


def _ago(seconds: float) -> str:
    """An age in words, coarse: what is said with it is written anew only as often."""
    return "less than two hours ago" if seconds < 2 * 3600 else f"{_span(seconds)} ago"


def _span(seconds: float) -> str:
    size, noun = next(((size, noun) for size, noun in _SPANS if seconds >= 2 * size), _SPANS[-1])
    count = int(seconds // size)
    return f"{count} {_plural(count, noun)}"


_SPANS: Final = ((86_400, "day"), (3600, "hour"), (60, "minute"))


def only_probes(found: Backoff) -> str:
    """Why fewer Jobs are launched than the work wants."""
    return f"Nothing but single probe Jobs is launched: {backoff(found)}"


def faults(found: Sequence[Fault]) -> str:
    """What is wrong beside the drain Jobs: everything that has the first one's reason, each once, and each with its beginning."""
    messages = list(dict.fromkeys(sentence(fault.message) for fault in found if fault.reason is found[0].reason))
    told, more = messages[:_MOST_FAULTS], len(messages) - _MOST_FAULTS
    longest = _LONGEST_FAULTS // len(told)
    cut = [message if len(message) <= longest else f"{message[: longest - 1]}…" for message in told]
    return ". ".join([*cut, *([f"And {more} more"] if more > 0 else [])])


_MOST_FAULTS = 5
_LONGEST_FAULTS = 1000  # characters, so that a condition's message has room for all of them


def _probes(count: int) -> str:
    return f"{count} unfinished {_plural(count, 'Job')} will show whether it is over"


def _at(moment: datetime) -> str:
    """A moment that is still ahead."""
    return rfc3339(whole_second(moment))


def sentence(text: str) -> str:
    """``text`` as a sentence begins; a name (spec.suspend, maxJobs) stays as one writes it."""
    first = text.partition(" ")[0]
    is_a_name = any(letter == "." or letter.isupper() for letter in first[1:])
    return text if is_a_name else text[:1].upper() + text[1:]


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"
