"""What ``siorg-operator local`` shows: a live view on a terminal, lines where there is none, a table at the end."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from siorg_operator.decide.state import OUTCOMES, Job, JobState, rfc3339
from siorg_operator.decide.status import Event
from siorg_operator.local.machine import LocalMachine

_EVENTS = 5
_LINES_SECONDS = 1.0
_BAR = 40  # characters


class View:
    """Shows a ``LocalMachine``; ``with View(console) as view: view.show(machine)``."""

    def __init__(self, console: Console) -> None:
        """``console``: whether it is a terminal decides how things are shown."""
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=False, auto_refresh=False)
        self._most = 1
        self._most_jobs = 0
        self._events_shown = 0
        self._line = ""
        self._line_at = 0.0
        self._reason: str | None = None
        self._began = time.monotonic()
        self._ended: dict[str, Job] = {}

    def __enter__(self) -> View:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, machine: LocalMachine) -> None:
        jobs = machine.jobs()
        self._ended |= {job.name: job for job in jobs if not job.unfinished}
        self._most_jobs = max(self._most_jobs, sum(job.unfinished for job in jobs))
        self._most = max(self._most, _waiting(machine.status) or 0)
        if self._console.is_terminal:
            self._live.update(self._picture(machine, jobs), refresh=True)
        else:
            self._lines(machine, jobs)

    def finish(self, machine: LocalMachine, folder: str) -> None:
        """The final table."""
        table = Table(title=f"What {machine.resource.metadata.name} did", show_header=False, min_width=60)
        table.add_column(style="bold")
        table.add_column(justify="right")
        summaries = [job.summary for job in self._ended.values() if job.summary is not None]
        for name in OUTCOMES:
            table.add_row(f"items {name}", str(sum(summary.outcomes.get(name, 0) for summary in summaries)))
        queue = machine.status.get("queue")
        table.add_row("items left", _shown(_waiting(machine.status)))
        of_people = None if queue is None else sum(queue[name] for name in ("failed", "conflict", "held"))
        table.add_row("items that wait for a person", _shown(of_people))
        table.add_row("job processes", str(len(self._ended)))
        table.add_row("  at most at once", str(self._most_jobs))
        table.add_row("  that found nothing", str(sum(summary.claimed == 0 for summary in summaries)))
        if untold := len(self._ended) - len(summaries):  # what they did is in none of these numbers
            table.add_row("  that left no summary", str(untold))
        table.add_row("  that failed", str(sum(job.state is JobState.FAILED for job in self._ended.values())))
        table.add_row("requests to SIORG", str(sum(summary.requests for summary in summaries)))
        table.add_row("time", f"{time.monotonic() - self._began:.1f} s")
        if (in_sync := _condition(machine.status, "InSync")) is not None:
            table.add_row("in sync", f"{in_sync['status']} ({in_sync['reason']})")
        self._console.print(table)
        if in_sync is not None:
            self._console.print(f"In sync: {in_sync['message']}", highlight=False, soft_wrap=True)
        for job in self._ended.values():
            if job.state is JobState.FAILED:
                self._console.print(f"{job.name}: {job.message}", highlight=False)
        self._console.print(f"Logs of the job processes: {folder}", highlight=False)

    def _picture(self, machine: LocalMachine, jobs: list[Job]) -> Group:
        status = machine.status
        decision, waiting = status.get("lastDecision") or {}, _waiting(status)
        filled = round(_BAR * (waiting or 0) / self._most)
        processing, failed, conflicts, held = _counts(status, "processing", "failed", "conflict", "held")
        head = Text.assemble(
            (f"{machine.resource.metadata.name}  ", "bold"),
            ("█" * filled + "░" * (_BAR - filled), "cyan"),
            f"  {_shown(waiting)} waiting, {processing} in work, {failed} failed, {conflicts} conflicts, {held} held",
        )
        table = Table("slot", "job", "state", "since", box=None, pad_edge=False)
        for job in sorted((job for job in jobs if job.unfinished), key=lambda job: job.slot):
            seconds = time.time() - job.created_at.timestamp()
            table.add_row(str(job.slot), job.name, job.state.value, f"{seconds:.0f} s")
        ready = _condition(status, "Ready")
        parts: list[Any] = [head, Text(f"decision: {decision.get('message', '-')}{_until(machine, jobs)}")]
        if ready is not None and ready["status"] != "True":
            parts.append(Text(f"not ready: {ready['reason']}: {ready['message']}", style="yellow"))
        if table.row_count:
            parts.append(table)
        return Group(*parts, *map(_line_of, machine.events[-_EVENTS:]))

    def _lines(self, machine: LocalMachine, jobs: list[Job]) -> None:
        for event in machine.events[self._events_shown :]:
            self._console.print(_line_of(event))
        self._events_shown = len(machine.events)
        unfinished = sum(job.unfinished for job in jobs)
        (processing,) = _counts(machine.status, "processing")
        decision = machine.status.get("lastDecision") or {}
        line = (
            f"{unfinished} jobs, {_shown(_waiting(machine.status))} waiting, {processing} in work"
            f" · {decision.get('message', 'not decided yet')}{_until(machine, jobs)}"
        )
        # Numbers that move are told each second; a decision of another kind at once, for it may not stand that long.
        told_at_once = unfinished == 0 or decision.get("reason") != self._reason
        if line != self._line and (told_at_once or time.monotonic() >= self._line_at):
            self._console.print(line, highlight=False, soft_wrap=True)
            self._line, self._line_at = line, time.monotonic() + _LINES_SECONDS
            self._reason = decision.get("reason")


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any] | None:
    return next((each for each in status.get("conditions", ()) if each["type"] == kind), None)


def _waiting(status: dict[str, Any]) -> int | None:
    """Items that wait; None: not known now."""
    queue = status.get("queue")
    return None if queue is None else int(queue["due"] + queue["scheduled"])


def _counts(status: dict[str, Any], *names: str) -> list[str]:
    """Items, as they are shown."""
    queue = status.get("queue")
    return ["?" if queue is None else str(queue[name]) for name in names]


def _shown(count: int | None) -> str:
    return "?" if count is None else str(count)


def _until(machine: LocalMachine, jobs: list[Job]) -> str:
    """When there is something to do again, where nothing is but something will be."""
    due = machine.next_due
    if due is None or any(job.unfinished for job in jobs):
        return ""
    return f"; the next item is due at {rfc3339(due)}"


def _line_of(recorded: tuple[datetime, Event]) -> Text:
    at, event = recorded
    return Text(f"{at:%H:%M:%S}  {event.reason}: {event.message}", style="yellow" if event.type == "Warning" else "green")
