"""Leader election: one replica acts at a time, whatever happens to a leader, to a standby or to the API server.

The replicas share a Lease and treat it as client-go does::

                       nobody holds it, or its holder has not renewed it for a whole lease duration: take
    STANDBY ─────────────────────────────────────────────────────────────────────────────────────────────▶ LEADER
       another renews it: wait                                                                renews each retry period
                                                                                                             │
    process ends at once   ◀── not renewed for the renew deadline, or another's name stands in the Lease ────┤
    a standby takes over   ◀── release(): the Lease names nobody ────────────────────────────────────────────┘

Clocks: other machines' are never compared with ours. A lease runs from when *we* saw it change, by a clock that nobody sets
and that runs on while the machine sleeps. The times written into the Lease are for people.

Whoever reconciles the resources of a namespace holds its Lease ``LEASE``, from whatever installation: a second one in the same
namespace stands by. Where SIORG_OPERATOR_LEASE_NAME names another Lease, by which older versions of that installation led, that
one is held too, and taken first: replicas before and after an upgrade never lead together, and as the namespace's comes last for
all, no two wait for each other.

The renew deadline is shorter than the lease duration, so a leader is gone before another may lead, whatever hangs: renewing
has a thread and connections of its own (a stuck event loop loses no lead), a watchdog thread ends the process when the renewing
one hangs, and ``is_leader`` is asked before each write, which a machine that slept cannot answer wrongly.
"""

from __future__ import annotations

import copy
import os
import random
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from kubernetes import client

from siorg_operator.cluster.connection import Body, request
from siorg_operator.cluster.endpoint import connected
from siorg_operator.decide.ports import ClusterError
from siorg_operator.settings import OperatorSettings
from siorg_runtime.logs import logger
from siorg_runtime.redaction import redactor

_log = logger(__name__)

LEASE: Final = "siorg-operator"
"""The name of the Lease of whoever reconciles a namespace's resources."""

_REQUESTS_A_DEADLINE = 4  # of one Lease: a try is two requests, and a second try has to fit in before the deadline
_WATCHED_EVERY = 0.25  # seconds
_LAST_WORDS_SECONDS = 1.0


# -- deciding: pure ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Observed:
    """The Lease's spec as it was read last."""

    spec: Body
    since: float
    """Since when it has stood so, in seconds of our clock."""

    @property
    def holder(self) -> str:
        """Who holds the lease; empty: nobody."""
        return self.spec.get("holderIdentity") or ""


def observe(before: Observed | None, spec: Body, now: float) -> Observed:
    """What is known once ``spec`` was read: only a change shows that its holder lives."""
    return before if before is not None and before.spec == spec else Observed(spec, now)


def remaining(observed: Observed | None, identity: str, duration: float, now: float) -> float:
    """Seconds for which ``identity`` has to respect another's lease; 0: it takes the lease, or renews its own.

    Args:
        observed: what was read last, also when the Lease has been deleted since: its holder makes it again, and whoever was
            faster would lead beside it.
        identity: who asks.
        duration: ours, in seconds. The longer one counts, ours or that in the Lease: replicas before and after a change of
            the setting may meet.
        now: in seconds of our clock.
    """
    if observed is None or observed.holder in ("", identity):
        return 0.0
    longest = max(float(observed.spec.get("leaseDurationSeconds") or 0), duration)
    return max(observed.since + longest - now, 0.0)


def held(before: Body, identity: str, duration: float, at: datetime) -> Body:
    """The Lease's spec with ``identity`` as its holder, from the spec that it had; empty: there was no Lease."""
    time = _micro_time(at)
    spec = {**before, "holderIdentity": identity, "leaseDurationSeconds": int(duration), "renewTime": time}
    if before.get("holderIdentity") != identity:
        spec |= {"acquireTime": time, "leaseTransitions": before.get("leaseTransitions", 0) + 1 if before else 0}
    return spec


def released(before: Body, at: datetime) -> Body:
    """The Lease's spec with nobody as its holder, as client-go leaves it."""
    time = _micro_time(at)
    return {**before, "holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": time, "renewTime": time}


def _micro_time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# -- leading ----------------------------------------------------------------------------------------------------------


def end_process(reason: str) -> None:
    """Log that the lead is lost and end the process with exit code 1: no cleaning up, nothing more is written anywhere."""
    # On another thread: whatever hangs may hold the log's lock, or be whoever should read our standard error.
    saying = threading.Thread(target=_log.error, args=(f"Lost leadership; exiting at once: {reason}",), daemon=True)
    saying.start()
    saying.join(_LAST_WORDS_SECONDS)
    os._exit(1)


class _Lease:
    """One Lease, as one replica reads and writes it."""

    def __init__(self, api: client.ApiClient, namespace: str, name: str, identity: str, duration: float, timeout: float) -> None:
        """``duration``: for how long others have to respect it. ``timeout``: of each request. Both in seconds."""
        self._api = api
        self._place = namespace, name
        self._identity = identity
        self._duration = duration
        self._timeout = timeout
        self._observed: Observed | None = None

    def __str__(self) -> str:
        return "/".join(self._place)

    @property
    def holder(self) -> str:
        """Who held it when it was read last; empty: nobody."""
        return "" if self._observed is None else self._observed.holder

    @property
    def is_anothers(self) -> bool:
        return self.holder not in ("", self._identity)

    def remaining(self) -> float:
        """Seconds for which another's lease has to be respected."""
        return remaining(self._observed, self._identity, self._duration, _now())

    def ask(self) -> bool:
        """Take or renew it; whether it is ours from now on."""
        lease = self._read()
        spec = {} if lease is None else lease.get("spec") or {}
        if lease is not None:
            self._observed = observe(self._observed, spec, _now())
        if self.remaining() > 0:
            return False
        wanted = held(spec, self._identity, self._duration, datetime.now(UTC))
        self._observed = observe(self._observed, self._write(lease, wanted)["spec"], _now())
        return True

    def release(self) -> bool:
        """Empty it, if it is ours; whether it was."""
        lease = self._read()
        if lease is None or (lease.get("spec") or {}).get("holderIdentity") != self._identity:
            return False
        self._write(lease, released(lease["spec"], datetime.now(UTC)))
        return True

    def _read(self) -> Body | None:
        try:
            return request(self._api, "get", "leases", *self._place, timeout=self._timeout)
        except ClusterError as error:
            if error.code == 404:
                return None
            raise

    def _write(self, lease: Body | None, spec: Body) -> Body:
        """Make the Lease, or replace what was read: the API server refuses, with 409, to overwrite what was written since."""
        namespace, name = self._place
        if lease is None:
            new = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec}
            return request(self._api, "create", "leases", namespace, body=new, timeout=self._timeout)
        return request(self._api, "update", "leases", namespace, name, {**lease, "spec": spec}, timeout=self._timeout)


class Leadership:
    """One replica's part in the election. To be used once: wait, lead, release."""

    def __init__(
        self,
        api_client: client.ApiClient,
        settings: OperatorSettings,
        *,
        on_lost: Callable[[str], object] = end_process,
        on_try: Callable[[bool], object] | None = None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            api_client: which cluster, and who we are in it. Its settings are copied: requests of the election have
                connections and limits of their own.
            settings: namespace, name and times of the Lease.
            on_lost: is called with the reason when the lead is lost, on some thread. It has to end the process: another
                may lead any moment.
            on_try: is called after each try with whether the API server let us ask for the Lease.
        """
        self.identity: Final = f"{settings.identity}_{secrets.token_hex(3)}"
        """Our name in the Lease. Its random end makes it ours alone: two with one name would both lead."""
        self._settings = settings
        self._on_lost = on_lost
        self._on_try = on_try
        configuration = copy.deepcopy(api_client.configuration)
        configuration.retries = False  # urllib3 would try again three times, each with the whole time limit
        own = connected(configuration)
        own.user_agent = api_client.user_agent
        names = tuple(dict.fromkeys((settings.lease_name, LEASE)))
        self._timeout = settings.lease_renew_secs / (_REQUESTS_A_DEADLINE * len(names))
        self._leases = tuple(
            _Lease(own, settings.namespace, name, self.identity, settings.lease_secs, self._timeout) for name in names
        )
        self._names = " and ".join(map(str, self._leases))
        self._stands_by = ""
        self._renewed_at = 0.0
        self._failure: str | None = None
        self._leading = threading.Event()
        self._stopping = threading.Event()
        self._losing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    @property
    def is_leader(self) -> bool:
        """Whether this process may act now. To be asked before each write: it knows at once when the machine slept."""
        return self._leading.is_set() and not self._is_late()

    def wait_until_leading(self, stop: threading.Event) -> bool:
        """Wait for the lead, or until ``stop``; whether we lead.

        From then on the lead is kept, by threads of our own, until ``release`` or the end of the process.
        """
        _log.info("Waiting for leadership", lease=self._names, identity=self.identity)
        self._thread.start()
        while not stop.is_set():
            if self._leading.wait(_WATCHED_EVERY):
                return True
        self._stopping.set()
        return False

    def release(self) -> None:
        """Empty the Lease, if it is ours, so that a standby takes over at its next try.

        Nothing may act any more when this is called. May be called by a replica that never led, and twice. Never raises:
        a lease that cannot be released expires.
        """
        self._stopping.set()
        led = self._leading.is_set()
        self._leading.clear()
        if self._thread.ident is not None:
            # A try that is under way can do no harm when it ends later: the API server refuses what it read before.
            self._thread.join(2 * self._timeout * len(self._leases))
        for lease in reversed(self._leases):
            try:
                if lease.release():
                    _log.info("Released leadership", lease=str(lease), identity=self.identity)
            except Exception as error:  # noqa: BLE001 - see above
                if led:
                    _log.warning(
                        "Leadership could not be released; a standby takes over when the lease expires",
                        lease=str(lease),
                        reason=_described(error),
                        seconds=self._settings.lease_secs,
                    )

    # -- on the thread "lease" ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._take_or_renew()
                self._stopping.wait(self._pause())
        except BaseException as error:  # noqa: BLE001 - without this thread we would be a standby, or a leader, for ever
            self._lose(f"the election failed: {_described(error)}")

    def _take_or_renew(self) -> None:
        asked_at, led = _now(), self._leading.is_set()
        if led and self._is_late():
            self._lose(self._why_late())
        elif self._try():
            self._renewed_at = asked_at  # from before it was asked: the API server had it at some moment after that
            if not led:
                threading.Thread(target=self._watch, name="lease-watchdog", daemon=True).start()
                self._leading.set()
                _log.info("Acquired leadership", lease=self._names, identity=self.identity)
        elif anothers := next((lease for lease in self._leases if lease.is_anothers), None):
            holder = f"{anothers.holder} holds the lease {anothers}"
            if led:
                self._lose(holder)
            elif anothers.remaining() > 0 and holder != self._stands_by:
                self._stands_by = holder
                _log.info("Standing by: another one reconciles this namespace", reason=holder)

    def _pause(self) -> float:
        """Seconds until the next try: a retry period, or until another's lease ends where that is sooner."""
        period = float(self._settings.lease_retry_secs)
        if self._leading.is_set():
            return period
        left = next((left for lease in self._leases if (left := lease.remaining()) > 0), 0.0)
        return min(period * random.uniform(0.75, 1.0), left + 0.01 if left > 0 else period)  # noqa: S311 - jitter

    def _try(self) -> bool:
        """Whether every lease is ours from now on. What goes wrong is logged once, until another thing does."""
        try:
            succeeded, failure = all(lease.ask() for lease in self._leases), None
        except Exception as error:  # noqa: BLE001 - whatever it is, the lease was not renewed, and the next try may do it
            faster = isinstance(error, ClusterError) and error.code == 409  # another wrote since we read
            succeeded, failure = False, None if faster else _described(error)
        if failure is not None and failure != self._failure:
            _log.warning("The lease cannot be read or renewed", lease=self._names, reason=failure)
        elif failure is None and self._failure is not None:
            _log.info("The lease can be read and renewed again", lease=self._names)
        self._failure = failure
        if self._on_try is not None:
            self._on_try(failure is None)
        return succeeded

    # -- on the thread "lease-watchdog" -------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stopping.wait(_WATCHED_EVERY):
            if self._is_late():
                self._lose(self._why_late())

    def _lose(self, reason: str) -> None:
        with self._losing:
            if self._stopping.is_set():
                return
            self._stopping.set()
        self._leading.clear()
        self._on_lost(reason)

    def _is_late(self) -> bool:
        return _now() - self._renewed_at >= self._settings.lease_renew_secs

    def _why_late(self) -> str:
        last = f"; the last try: {self._failure}" if self._failure is not None else ""
        ago, limit = _now() - self._renewed_at, self._settings.lease_renew_secs
        return f"the lease {self._names} was last renewed {ago:.1f} s ago (limit {limit:g} s){last}"


def _described(error: BaseException) -> str:
    return redactor.text(str(error) if isinstance(error, ClusterError) else f"{type(error).__name__}: {error}")


def _now() -> float:
    """Seconds of a clock that nobody sets; where the system has one, of one that runs on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
