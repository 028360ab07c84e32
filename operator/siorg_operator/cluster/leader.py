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
all, no two wait for each other. They are renewed side by side, each with one request where nobody else wrote: only the slowest
answer counts, and all may take as long as the lease allows two of them in a row (``answer_seconds``).

A leader is gone before another may lead, whatever hangs (``leads_until``): renewing has threads and connections of its own (a
stuck event loop loses no lead), a watchdog thread ends the process when the renewing one hangs, and ``is_leader`` is asked before
each write, which a machine that slept cannot answer wrongly.
"""

from __future__ import annotations

import copy
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Final

from kubernetes import client

from siorg_operator.cluster.connection import Body, request
from siorg_operator.cluster.endpoint import connected
from siorg_operator.cluster.lease import Observed, answer_seconds, held, leads_until, observe, released, remaining
from siorg_operator.decide.ports import ClusterError
from siorg_operator.settings import OperatorSettings
from siorg_runtime.logs import logger
from siorg_runtime.redaction import redactor

_log = logger(__name__)

LEASE: Final = "siorg-operator"
"""The name of the Lease of whoever reconciles a namespace's resources."""

_RELEASE_SECONDS = 10.0  # the process has a grace to end in, and a lease that is not released expires
_CHANGED = frozenset({404, 409})  # it is gone, or another wrote since we did
_WATCHED_EVERY = 0.25  # seconds
_LAST_WORDS_SECONDS = 1.0


def end_process(reason: str) -> None:
    """Log that the lead is lost and end the process with exit code 1: no cleaning up, nothing more is written anywhere."""
    exit_at_once(f"Lost leadership; exiting at once: {reason}")


def exit_at_once(message: str) -> None:
    """Log it and end the process with exit code 1, whatever hangs."""
    # On another thread: whatever hangs may hold the log's lock, or be whoever should read our standard error.
    saying = threading.Thread(target=_log.error, args=(message,), daemon=True)
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
        self._ours: Body | None = None
        self.asked_at = self.answered_at = 0.0
        """Of the last request that made it ours."""

    def __str__(self) -> str:
        return "/".join(self._place)

    @property
    def holder(self) -> str:
        """Who held it when it was read last; empty: nobody."""
        return "" if self._observed is None else self._observed.holder

    @property
    def is_ours(self) -> bool:
        """Whether it was when we heard of it last."""
        return self._ours is not None

    @property
    def is_anothers(self) -> bool:
        return self.holder not in ("", self._identity)

    def remaining(self) -> float:
        """Seconds for which another's lease has to be respected."""
        return remaining(self._observed, self._identity, self._duration, _now())

    def ask(self) -> bool:
        """Take or renew it; whether it is ours from now on."""
        self._ours = None
        lease = self._read()
        if lease is not None:
            self._observed = observe(self._observed, lease.get("spec") or {}, _now())
        if self.remaining() > 0:
            return False
        self._hold(lease)
        return True

    def renew(self) -> bool:
        """As ``ask``, with one request where nobody wrote since we did."""
        if self._ours is not None:
            with _unless_changed():
                self._hold(self._ours)
                return True
        return self.ask()

    def release(self) -> bool:
        """Empty it, if it is ours; whether it was."""
        if self._ours is not None:
            with _unless_changed():
                self._write(self._ours, released(self._ours["spec"], datetime.now(UTC)))
                return True
        lease = self._read()
        if lease is None or (lease.get("spec") or {}).get("holderIdentity") != self._identity:
            return False
        self._write(lease, released(lease["spec"], datetime.now(UTC)))
        return True

    def _hold(self, lease: Body | None) -> None:
        spec = {} if lease is None else lease.get("spec") or {}
        asked_at = _now()
        self._ours = self._write(lease, held(spec, self._identity, self._duration, datetime.now(UTC)))
        self.asked_at, self.answered_at = asked_at, _now()
        self._observed = observe(self._observed, self._ours["spec"], self.answered_at)

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


@contextmanager
def _unless_changed() -> Iterator[None]:
    """Do nothing where the Lease is not as we wrote it last."""
    try:
        yield
    except ClusterError as error:
        if error.code not in _CHANGED:
            raise


def _side_by_side(calls: Sequence[Callable[[], bool]]) -> bool:
    """Whether all of them say so. The first error is raised once all have ended."""
    answers: list[bool] = []
    errors: list[Exception] = []

    def answer(call: Callable[[], bool]) -> None:
        try:
            answers.append(call())
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=answer, args=(call,), name="lease-request", daemon=True) for call in calls[1:]]
    for thread in threads:
        thread.start()
    for call in calls[:1]:
        answer(call)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return all(answers)


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
        self._timeout = answer_seconds(settings.lease_secs, settings.lease_renew_secs)
        self._leases = tuple(
            _Lease(own, settings.namespace, name, self.identity, settings.lease_secs, self._timeout) for name in names
        )
        self._names = " and ".join(map(str, self._leases))
        self._stands_by = ""
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
        failures: list[str] = []
        releasing = threading.Thread(target=self._release, args=(failures,), name="lease-release", daemon=True)
        releasing.start()
        releasing.join(_RELEASE_SECONDS)
        if releasing.is_alive():
            failures.append("no answer yet")
        if failures and led:
            _log.warning(
                "Leadership could not be released; a standby takes over when the lease expires",
                lease=self._names,
                reason=failures[0],
                seconds=self._settings.lease_secs,
            )

    def _release(self, failures: list[str]) -> None:
        if self._thread.ident is not None:
            # A try that is under way can do no harm when it ends later: the API server refuses what it read before.
            self._thread.join(self._timeout)

        def release(lease: _Lease) -> bool:
            if lease.release():
                _log.info("Released leadership", lease=str(lease), identity=self.identity)
            return True

        try:
            _side_by_side([partial(release, lease) for lease in self._leases])
        except Exception as error:  # noqa: BLE001 - see above
            failures.append(_described(error))

    # -- on the thread "lease" ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                began = _now()
                self._take_or_renew()
                self._stopping.wait(self._pause(_now() - began))
        except BaseException as error:  # noqa: BLE001 - without this thread we would be a standby, or a leader, for ever
            self._lose(f"the election failed: {_described(error)}")

    def _take_or_renew(self) -> None:
        led = self._leading.is_set()
        if led and self._is_late():
            self._lose(self._why_late())
        elif self._try():
            if not led and not self._is_late():  # the first one taken may be old by now: then they are renewed first
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

    def _pause(self, tried: float) -> float:
        """Seconds until the next try: a retry period, or until another's lease ends where that is sooner.

        Where all are ours it runs from try to try: what the answers took, ``tried``, is part of it.
        """
        period = float(self._settings.lease_retry_secs)
        if self._leading.is_set() or all(lease.is_ours for lease in self._leases):
            return max(period - tried, 0.0)
        left = next((left for lease in self._leases if (left := lease.remaining()) > 0), 0.0)
        return min(period * random.uniform(0.75, 1.0), left + 0.01 if left > 0 else period)  # noqa: S311 - jitter

    def _try(self) -> bool:
        """Whether every lease is ours from now on. What goes wrong is logged once, until another thing does."""
        try:
            ours = [lease.renew for lease in self._leases if lease.is_ours]
            others = [lease for lease in self._leases if not lease.is_ours]
            succeeded, failure = _side_by_side(ours) and all(lease.ask() for lease in others), None
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
        return _now() >= min(map(self._until, self._leases))

    def _until(self, lease: _Lease) -> float:
        return leads_until(lease.asked_at, lease.answered_at, self._settings.lease_secs, self._settings.lease_renew_secs)

    def _why_late(self) -> str:
        last = f"; the last try: {self._failure}" if self._failure is not None else ""
        lease = min(self._leases, key=self._until)
        ago, limit = _now() - lease.asked_at, self._until(lease) - lease.asked_at
        return f"the lease {lease} was last renewed {ago:.1f} s ago (limit {limit:.0f} s){last}"


def _described(error: BaseException) -> str:
    return redactor.text(str(error) if isinstance(error, ClusterError) else f"{type(error).__name__}: {error}")


def _now() -> float:
    """Seconds of a clock that nobody sets; where the system has one, of one that runs on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
