"""The decision, and every limit that shaped it, as a table for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from siorg_operator.decide import wording
from siorg_operator.decide.plan import Plan
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import JobState, Reading
from siorg_operator.explain.subject import Subject


def show(console: Console, subject: Subject, plan: Plan) -> None:
    """Print what was planned for it."""
    resource = subject.resource
    table = Table(title=f"{resource.metadata.name}: what would be decided now", min_width=70)
    table.add_column("what", style="bold")
    table.add_column("Jobs", justify="right")
    table.add_column("how")
    reading, size = subject.backlog.reading, plan.size
    if isinstance(reading, Reading):
        oldest = "" if reading.oldest_due_seconds is None else f", the oldest due for {reading.oldest_due_seconds:.0f} s"
        others = f"; {reading.scheduled} wait for later, {reading.processing} in work, {reading.failed} failed"
        others += f", {reading.conflict} conflicts{_mark(size.binding == 'depth')}"
        table.add_row("depth", "", f"{reading.claimable} items are claimable{oldest}{others}")
    else:
        table.add_row("depth", "?", f"unknown: {reading.message}")
    for name, allowed in size.limits.items():
        if name != "depth":  # which stands above
            how = wording.limit(resource, size, name) + _mark(name == size.binding)
            table.add_row(name, "-" if allowed is None else str(allowed), how)
    table.add_row("desired", str(plan.desired), "", end_section=True)
    active = sum(job.state is JobState.ACTIVE for job in subject.jobs)
    table.add_row("unfinished", str(plan.unfinished), f"{active} with a running pod; each is capacity")
    table.add_row("maxLaunchesPerStep", str(resource.spec.scaling.max_launches_per_step), "spec.scaling.maxLaunchesPerStep")
    why: str = "" if plan.reason is Reason.LAUNCHED else plan.reason
    table.add_row("would launch", str(len(plan.launches)), f"{why}{' (held back)' if plan.held_back else ''}")
    console.print(table)
    console.print(wording.intent(resource, plan, "would launch"), highlight=False, soft_wrap=True)
    console.print("Nothing was launched or written: this only explains.", highlight=False)
    for sentence in subject.assumed:
        console.print(f"Assumed: {sentence}", highlight=False, soft_wrap=True)
    if plan.backoff is not None:
        console.print(f"Backoff: {wording.backoff(plan.backoff)}", highlight=False, soft_wrap=True)
    items = size.rates.items
    rate = "not learned yet" if items is None else f"{items:g} items/s a Job"
    drain = "-" if plan.predicted_drain_seconds is None else f"{plan.predicted_drain_seconds:.0f} s"
    console.print(f"Rate: {rate}; predicted drain: {drain}; next look in at most {plan.poll_seconds:g} s", highlight=False)
    for removal in plan.end:
        # Since when it has been stuck, and not only on its way, only the operator has seen.
        why = f"{removal.stuck.reason}: {removal.stuck.message}"
        console.print(f"Would end {removal.name}, once its grace is over: {why}", highlight=False, soft_wrap=True)


def _mark(binding: bool) -> str:  # noqa: FBT001 - a value, not a switch
    return "  ◀ decides" if binding else ""
