"""``siorg-operator explain``: the decision, and every limit that shaped it, as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from siorg_operator.observed import Backlog, Job, JobState, Reading
from siorg_operator.plan import Plan
from siorg_operator.resource import SiorgSyncWorker


def show(console: Console, resource: SiorgSyncWorker, backlog: Backlog, jobs: Sequence[Job], plan: Plan) -> None:
    """Print it."""
    table = Table(title=f"{resource.metadata.name}: what would be decided now", min_width=70)
    table.add_column("what", style="bold")
    table.add_column("Jobs", justify="right")
    table.add_column("how")
    reading = backlog.reading
    if isinstance(reading, Reading):
        oldest = "" if reading.oldest_due_seconds is None else f", the oldest due for {reading.oldest_due_seconds:.0f} s"
        others = f"; {reading.scheduled} wait for later, {reading.processing} in work, {reading.failed} failed"
        table.add_row("depth", "", f"{reading.claimable} items are claimable{oldest}{others}, {reading.conflict} conflicts")
    else:
        table.add_row("depth", "?", f"unknown: {reading.message}")
    for limit in plan.limits:
        mark = "  ◀ decides" if limit.binding else ""
        table.add_row(limit.name, "-" if limit.jobs is None else str(limit.jobs), limit.how + mark)
    table.add_row("desired", str(plan.desired), "", end_section=True)
    active = sum(job.state is JobState.ACTIVE for job in jobs)
    table.add_row("unfinished", str(plan.unfinished), f"{active} with a running pod; each is capacity")
    table.add_row("maxLaunchesPerStep", str(resource.spec.scaling.max_launches_per_step), "spec.scaling.maxLaunchesPerStep")
    table.add_row("launch", str(len(plan.launches)), f"{plan.reason}{' (held back)' if plan.held_back else ''}")
    console.print(table)
    console.print(plan.message, highlight=False, soft_wrap=True)
    if plan.trouble is not None:
        when = "" if plan.retry_at is None else f"; next probe {plan.retry_at:%Y-%m-%dT%H:%M:%SZ}"
        console.print(f"Trouble: {plan.trouble.sentence}{when}", highlight=False, soft_wrap=True)
    rate = "not learned yet" if plan.rate is None else f"{plan.rate:g} items/s a Job"
    drain = "-" if plan.predicted_drain_seconds is None else f"{plan.predicted_drain_seconds:.0f} s"
    console.print(f"Rate: {rate}; predicted drain: {drain}; next look in at most {plan.poll_seconds:g} s", highlight=False)
    for removal in plan.end:
        console.print(f"Would end {removal.name}: {removal.stuck.reason}: {removal.stuck.message}", highlight=False)
