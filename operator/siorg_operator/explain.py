"""``siorg-operator explain``: the decision, and every limit that shaped it, as a table for people."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide.plan import Plan
from siorg_operator.decide.state import Backlog, Job, JobState, Reading


def show(
    console: Console, resource: SiorgSyncWorker, backlog: Backlog, jobs: Sequence[Job], plan: Plan, assumed: Sequence[str] = ()
) -> None:
    """Print it; ``assumed``: what was taken for granted, in sentences for people."""
    table = Table(title=f"{resource.metadata.name}: what would be decided now", min_width=70)
    table.add_column("what", style="bold")
    table.add_column("Jobs", justify="right")
    table.add_column("how")
    reading = backlog.reading
    binding = {limit.name for limit in plan.limits if limit.binding}
    if isinstance(reading, Reading):
        oldest = "" if reading.oldest_due_seconds is None else f", the oldest due for {reading.oldest_due_seconds:.0f} s"
        others = f"; {reading.scheduled} wait for later, {reading.processing} in work, {reading.failed} failed"
        table.add_row(
            "depth",
            "",
            f"{reading.claimable} items are claimable{oldest}{others}, {reading.conflict} conflicts{_mark('depth' in binding)}",
        )
    else:
        table.add_row("depth", "?", f"unknown: {reading.message}")
    for limit in plan.limits:
        if limit.name != "depth":  # which stands above
            table.add_row(limit.name, "-" if limit.jobs is None else str(limit.jobs), limit.how + _mark(limit.binding))
    table.add_row("desired", str(plan.desired), "", end_section=True)
    active = sum(job.state is JobState.ACTIVE for job in jobs)
    table.add_row("unfinished", str(plan.unfinished), f"{active} with a running pod; each is capacity")
    table.add_row("maxLaunchesPerStep", str(resource.spec.scaling.max_launches_per_step), "spec.scaling.maxLaunchesPerStep")
    why = "" if plan.reason == "Launched" else plan.reason
    table.add_row("would launch", str(len(plan.launches)), f"{why}{' (held back)' if plan.held_back else ''}")
    console.print(table)
    console.print(_as_if(plan.message), highlight=False, soft_wrap=True)
    console.print("Nothing was launched or written: this only explains.", highlight=False)
    for sentence in assumed:
        console.print(f"Assumed: {sentence}", highlight=False, soft_wrap=True)
    if plan.trouble is not None:
        when = "" if plan.retry_at is None else f"; next probe {plan.retry_at:%Y-%m-%dT%H:%M:%SZ}"
        console.print(f"Trouble: {plan.trouble.sentence}{when}", highlight=False, soft_wrap=True)
    rate = "not learned yet" if plan.rate is None else f"{plan.rate:g} items/s a Job"
    drain = "-" if plan.predicted_drain_seconds is None else f"{plan.predicted_drain_seconds:.0f} s"
    console.print(f"Rate: {rate}; predicted drain: {drain}; next look in at most {plan.poll_seconds:g} s", highlight=False)
    for removal in plan.end:
        # Since when it has been stuck, and not only on its way, only the operator has seen.
        told = f"{removal.name}, once its grace is over: {removal.stuck.reason}: {removal.stuck.message}"
        console.print(f"Would end {told}", highlight=False, soft_wrap=True)


def _as_if(message: str) -> str:
    """The plan tells what its carrying out will have done; here nobody carries it out."""
    return re.sub(r"\blaunched (?=\d)", "would launch ", message)


def _mark(binding: bool) -> str:  # noqa: FBT001 - a value, not a switch
    return "  ◀ decides" if binding else ""
