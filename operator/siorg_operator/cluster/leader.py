"""Which replica acts: they agree on one leader by a Lease, and a leader that lost it ends its process at once.

The election is that of the ``kubernetes`` package. What it lacks to be relied on is here:

* A request has a time limit and is not repeated by the HTTP client, and whatever goes wrong with it is a failed try. (In the
  package only an answer with an error is; a connection that is refused ends the election, and one that hangs holds it up.)
* Time is measured by a clock that no person and no NTP sets, and that runs on while the machine sleeps. (The package asks
  the wall clock: set back, a standby would wait for ever; set forward, it would lead beside a living leader.)
* A watchdog on a thread of its own ends the process when the last renewal is older than the renew deadline, whatever the
  renewing thread is doing. The deadline comes before the lease's end: nobody else leads yet.
* A leader that reads another's name in the Lease ends at once, and not when its deadline is over.
* A lease that is not needed any more is given back: a standby need not wait for its end.

Other machines' clocks are never compared with ours: a lease runs from when we saw it change.
"""

from __future__ import annotations

import copy
import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.leaderelection.electionconfig import Config
from kubernetes.leaderelection.leaderelection import LeaderElection
from kubernetes.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from pydantic import ValidationError
from urllib3.exceptions import NewConnectionError, TimeoutError  # noqa: A004 - urllib3's own

from siorg_operator.settings import OperatorSettings
from siorg_runtime.logs import logger
from siorg_runtime.redaction import redactor

_log = logger(__name__)

_REQUESTS_A_DEADLINE = 4  # a try is two requests, and a second try has to fit in before the deadline
_WATCHED_EVERY = 0.25  # seconds
_LAST_WORDS_SECONDS = 1.0
_LONGEST_REASON = 300  # characters
_NO_TROUBLE = frozenset({404, 409})  # no Lease yet; another was faster

OnLost: TypeAlias = Callable[[str], object]


def end_process(reason: str) -> None:
    """Say that the lead is lost and end the process with exit code 1: no cleaning up, nothing more is written anywhere."""
    # On another thread: whatever hangs may hold the log's lock, or be whoever should read our standard error.
    saying = threading.Thread(target=_log.error, args=(f"Lost the lead, ending at once: {reason}",), daemon=True)
    saying.start()
    saying.join(_LAST_WORDS_SECONDS)
    os._exit(1)


class Leadership:
    """One replica's part in the election. To be used once: wait, lead, release."""

    def __init__(
        self,
        api_client: client.ApiClient,
        settings: OperatorSettings,
        *,
        on_lost: OnLost = end_process,
        on_try: Callable[[bool], object] | None = None,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            api_client: which cluster, and who we are in it. Its settings are copied: requests of the election have
                connections and limits of their own.
            settings: namespace, name and times of the Lease.
            on_lost: is told why the lead is lost, on some thread. It has to end the process: another may lead any moment.
            on_try: is told after each try whether the API server let us ask for the Lease.
        """
        self.identity: Final = f"{settings.identity}_{secrets.token_hex(3)}"
        """Our name in the Lease. Its random end makes it ours alone: two with one name would both lead."""
        self._settings = settings
        self._on_lost = on_lost
        self._on_try = on_try
        self._leases = _Leases(api_client, timeout=settings.lease_renew_secs / _REQUESTS_A_DEADLINE)
        self._election = _Election(_Lease(settings, self.identity, self._leases), settings)
        self._renewed_at = 0.0
        self._said: str | None = None
        self._leading = threading.Event()
        self._stopping = threading.Event()
        self._losing = threading.Lock()
        self._lost = False
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    @property
    def is_leader(self) -> bool:
        """Whether this process may act now. To be asked before each write: it knows at once when the machine slept."""
        return self._leading.is_set() and self._silence() < self._settings.lease_renew_secs

    def wait_until_leading(self, stop: threading.Event) -> bool:
        """Wait for the lead. From then on it is kept, by threads of our own, until ``release`` or the end of the process.

        Args:
            stop: ends the waiting.

        Returns:
            Whether we lead; False only when ``stop`` was set.
        """
        _log.info("Waiting for the lead", lease=self._lease_name, identity=self.identity)
        if self._thread.ident is None:
            self._thread.start()
        while not stop.is_set():
            if self._leading.wait(_WATCHED_EVERY):
                return True
        self._stopping.set()
        return False

    def release(self) -> None:
        """Give the lease back, if it is ours, so that a standby takes over at its next try.

        Nothing may act any more when this is called. May be called by a replica that never led, and twice. Never raises:
        a lease that cannot be given back runs out.
        """
        self._stopping.set()
        led = self._leading.is_set()
        self._leading.clear()
        if self._thread.ident is not None:
            # A try that is under way can do no harm when it ends later: the API server refuses what it read before.
            self._thread.join(2 * self._leases.timeout)
        try:
            released = self._leases.release(self._settings.lease_name, self._settings.namespace, self.identity)
        except Exception as error:  # noqa: BLE001 - see above
            if led:
                _log.warning(
                    "The lease could not be given back; a standby takes over when it runs out",
                    lease=self._lease_name,
                    reason=_described(error),
                    seconds=self._settings.lease_secs,
                )
        else:
            if released:
                _log.info("Gave the lead back", lease=self._lease_name, identity=self.identity)

    # -- on the thread "lease" ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._acquire():
                self._renew()
        except BaseException as error:  # noqa: BLE001 - without this thread we would be a standby, or a leader, for ever
            self._lose(f"the election failed: {_described(error)}")

    def _acquire(self) -> bool:
        while not self._stopping.is_set():
            asked_at = _now()
            if self._try():
                self._renewed_at = asked_at
                threading.Thread(target=self._watch, name="lease-watchdog", daemon=True).start()
                self._leading.set()
                _log.info("Leading", lease=self._lease_name, identity=self.identity)
                return True
            self._stopping.wait(self._pause())
        return False

    def _pause(self) -> float:
        """Seconds until the next try: a retry period, or until the other's lease ends where that is sooner."""
        remaining, period = self._election.others_remaining(), float(self._settings.lease_retry_secs)
        return min(period, remaining + 0.01) if remaining > 0 else period

    def _renew(self) -> None:
        while not self._stopping.wait(self._settings.lease_retry_secs):
            asked_at = _now()
            if self._silence() >= self._settings.lease_renew_secs:
                self._lose(self._why_late())
            elif self._try():
                # From before it was asked: the API server had it at some moment after that.
                self._renewed_at = asked_at
            elif (holder := self._election.other_holder()) is not None:
                self._lose(f"{holder} holds the lease {self._lease_name}")
            if self._lost:
                return

    def _try(self) -> bool:
        self._leases.trouble = None
        try:
            succeeded = bool(self._election.try_acquire_or_renew())
            trouble = self._leases.trouble
        except Exception as error:  # noqa: BLE001 - whatever it is, the lease was not renewed, and the next try may do it
            succeeded, trouble = False, _described(error)
        if trouble is not None and trouble != self._said:
            _log.warning("The lease cannot be asked for or renewed", lease=self._lease_name, reason=trouble)
        elif trouble is None and self._said is not None:
            _log.info("The lease can be asked for again", lease=self._lease_name)
        self._said = trouble
        if self._on_try is not None:
            self._on_try(trouble is None)
        return succeeded

    # -- on the thread "lease-watchdog" -------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stopping.wait(_WATCHED_EVERY):
            if self._silence() >= self._settings.lease_renew_secs:
                self._lose(self._why_late())
                return

    def _lose(self, reason: str) -> None:
        with self._losing:
            if self._lost or self._stopping.is_set():
                return
            self._lost = True
        self._leading.clear()
        self._on_lost(reason)

    def _silence(self) -> float:
        """Seconds since the last renewal that succeeded was asked for."""
        return _now() - self._renewed_at

    def _why_late(self) -> str:
        said = f"; the last try: {self._said}" if self._said is not None else ""
        limit = self._settings.lease_renew_secs
        return f"the lease {self._lease_name} was last renewed {self._silence():.1f} s ago (limit {limit} s){said}"

    @property
    def _lease_name(self) -> str:
        return f"{self._settings.namespace}/{self._settings.lease_name}"


class _Leases:
    """Requests for Leases, each with a time limit. Has of CoordinationV1Api what LeaseLock calls."""

    def __init__(self, api_client: client.ApiClient, *, timeout: float) -> None:
        """``timeout``: seconds that a request may take."""
        configuration = copy.deepcopy(api_client.configuration)
        configuration.retries = False  # urllib3 would try again three times, each with the whole time limit
        own = client.ApiClient(configuration)
        own.user_agent = api_client.user_agent
        self._api = client.CoordinationV1Api(own)
        self.timeout = timeout
        self.trouble: str | None = None
        """Why the last request failed that did; None is for its user to set."""

    def read_namespaced_lease(self, name: str, namespace: str) -> client.V1Lease:
        lease: client.V1Lease = self._asked(self._api.read_namespaced_lease, name, namespace)
        return lease

    def create_namespaced_lease(self, namespace: str, body: client.V1Lease) -> client.V1Lease:
        lease: client.V1Lease = self._asked(self._api.create_namespaced_lease, namespace, body)
        return lease

    def replace_namespaced_lease(self, name: str, namespace: str, body: client.V1Lease) -> client.V1Lease:
        lease: client.V1Lease = self._asked(self._api.replace_namespaced_lease, name, namespace, body)
        return lease

    def release(self, name: str, namespace: str, identity: str) -> bool:
        """Empty the Lease if ``identity`` holds it; whether it did."""
        try:
            lease = self.read_namespaced_lease(name, namespace)
        except ApiException as error:
            if error.status == 404:
                return False
            raise
        if lease.spec is None or lease.spec.holder_identity != identity:
            return False
        # As client-go does it. The version that was read goes along: whoever wrote since then is not overwritten.
        lease.spec.holder_identity = ""
        lease.spec.lease_duration_seconds = 1
        lease.spec.acquire_time = lease.spec.renew_time = datetime.now(UTC)
        self.replace_namespaced_lease(name, namespace, lease)
        return True

    def _asked(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments, _request_timeout=self.timeout)
        except Exception as error:
            if not (isinstance(error, ApiException) and error.status in _NO_TROUBLE):
                self.trouble = _described(error)
            raise


class _Lease(LeaseLock):
    """The package's lock, with our requests."""

    def __init__(self, settings: OperatorSettings, identity: str, leases: _Leases) -> None:
        super().__init__(settings.lease_name, settings.namespace, identity)  # type: ignore[no-untyped-call]
        self.api_instance = leases  # type: ignore[assignment]  # it has what LeaseLock calls
        self.may_create = True
        """Whether a Lease that is not there may be made."""

    def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        return self.may_create and bool(super().create(name, namespace, election_record))  # type: ignore[no-untyped-call]

    def get_lease_spec(
        self, leader_election_record: LeaderElectionRecord, current_spec: client.V1LeaseSpec | None = None
    ) -> client.V1LeaseSpec:
        """Also counts how often the lead changed hands, as client-go does: an election that flaps is seen there."""
        before = current_spec.holder_identity if current_spec is not None else self.identity
        spec: client.V1LeaseSpec = super().get_lease_spec(leader_election_record, current_spec)  # type: ignore[no-untyped-call]
        spec.lease_transitions = (spec.lease_transitions or 0) + (before != self.identity)
        return spec


class _Election(LeaderElection):
    """The package's election, told how old the lease is by a clock that cannot be set."""

    def __init__(self, lock: _Lease, settings: OperatorSettings) -> None:
        config = Config(  # type: ignore[no-untyped-call]
            lock,
            settings.lease_secs,
            settings.lease_renew_secs,
            settings.lease_retry_secs,
            onstarted_leading=lambda: None,  # we call neither run() nor what it calls
            onstopped_leading=lambda: None,
        )
        super().__init__(config)  # type: ignore[no-untyped-call]
        self._lock = lock
        self._own_seconds = settings.lease_secs
        self._observed_at = 0.0

    def try_acquire_or_renew(self) -> bool:
        remaining = self.others_remaining()
        # The package adds our own duration to this and compares with the wall clock, at once.
        self.observed_time_milliseconds = int((time.time() + remaining - self._own_seconds) * 1000)
        # A Lease that somebody removed under a leader: that one makes it again. To be faster would make two leaders.
        self._lock.may_create = remaining <= 0
        before = self.observed_record
        succeeded = bool(super().try_acquire_or_renew())  # type: ignore[no-untyped-call]
        if self.observed_record is not before:
            self._observed_at = _now()
        return succeeded

    def other_holder(self) -> str | None:
        """Who else holds the lease, as far as we saw; None: we, or nobody."""
        record = self.observed_record
        holder = None if record is None else record.holder_identity
        return holder if holder and holder != self._lock.identity else None

    def others_remaining(self) -> float:
        """Seconds for which another's lease is still to be respected; 0 when nobody else holds one."""
        if self.other_holder() is None or self.observed_record is None:
            return 0.0
        # The longer of both: replicas before and after a change of the setting may meet.
        seconds = max(float(self.observed_record.lease_duration or 0), self._own_seconds)
        return max(seconds - (_now() - self._observed_at), 0.0)


def _now() -> float:
    """Seconds of a clock that nobody sets; where there is one, such that runs on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def _described(error: BaseException) -> str:
    """What went wrong, in one line without secrets."""
    if isinstance(error, ApiException) and error.status:
        text = f"HTTP {error.status} {error.reason or ''}".strip()
        try:
            said = str(json.loads(error.body or "")["message"])
        except (ValueError, TypeError, KeyError):
            said = ""
        text = f"{text}: {said}" if said else text
    elif isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError):
        text = "no answer in time"  # and not urllib3's words, which differ each time by some microseconds
    elif isinstance(error, ValidationError):
        text = "the answer is no Lease"
    else:
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
    return " ".join(redactor.text(text).split())[:_LONGEST_REASON]
