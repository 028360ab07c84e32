"""Whether the last run of a CronJob failed, as long as that is so: only a later good run of it is recovery.

Its Job goes (a weekly one's long before the next run), and somebody may delete it: what failed is remembered in status.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from siorg_operator.api.resource import FailedRun, SiorgSyncWorker
from siorg_operator.control.cron_jobs import CronJobState, CronRun
from siorg_operator.decide.manifests import CRON_COMPONENTS, CronComponent, cron_job_name, cron_spec
from siorg_operator.decide.pods import moment
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import Fault, rfc3339


def last_runs(
    resource: SiorgSyncWorker, cron_jobs: Sequence[CronJobState], runs: Sequence[CronRun], now: datetime
) -> dict[CronComponent, FailedRun | None]:
    """The last run of each CronJob that is enabled, where it failed; None: it went well. Not there: nothing is known."""
    found: dict[CronComponent, FailedRun | None] = {}
    for component in CRON_COMPONENTS:
        if not cron_spec(resource, component).enabled:
            continue
        remembered = None if resource.status.failed_runs is None else resource.status.failed_runs.of(component)
        good, failed = list[datetime](), list[FailedRun]() if remembered is None else [remembered]
        for run in runs:
            finished_at = moment(run.finished_at) if run.component == component else None
            if finished_at is None or run.stopped or (remembered is not None and run.name == remembered.job):
                continue
            at = min(finished_at, now)  # one that lies ahead, as another clock had it, would be the last for ever
            if run.failure:
                failed.append(FailedRun(job=run.name, time=at, message=run.failure))
            else:
                good.append(at)
        name = cron_job_name(resource, component)
        told = [moment(state.succeeded_at) for state in cron_jobs if state.name == name]
        good += [min(at, now) for at in told if at is not None]
        last = max(failed, key=_order, default=None)
        if last is not None or good:
            # Times are whole seconds. Of two ends in one the good one counts as the later: it is what somebody started by hand.
            found[component] = last if last is not None and all(last.time > at for at in good) else None
    return found


def _order(run: FailedRun) -> tuple[datetime, str]:
    return run.time, run.job  # of one second the later has the higher name


def faults(last: Mapping[CronComponent, FailedRun | None], runs: Sequence[CronRun]) -> Iterator[Fault]:
    """What a person should know of them."""
    there = {run.name for run in runs}
    for component, run in last.items():
        if run is not None:
            look = f"see kubectl logs job/{run.job}" if run.job in there else "that Job is gone by now"
            said = f"failed at {rfc3339(run.time)}: {run.message}: {look}; it is over when a later one succeeds"
            yield Fault(Reason(f"{component.capitalize()}Failing"), f"the last Job of {component}, {run.job}, {said}")
