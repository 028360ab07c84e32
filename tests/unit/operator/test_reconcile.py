"""One pass and what comes of it: in which order, after a crash at any point, and when the cluster refuses something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.control.reconcile import CronRun, Passed, PassFailed, Reconciler, Seen, Tally, cron_job_seen, cron_run
from siorg_operator.decide.manifests import cron_job_name, discovery_cron_job, job_name, template_hash
from siorg_operator.decide.plan import Launch, Removal
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.state import Backlog, Ending, Job, JobState
from siorg_operator.decide.status import Event
from siorg_operator.serving.metrics import OperatorMetrics
from support.operator_values import (
    CREDENTIALS,
    NOW,
    active,
    at,
    backlog,
    ended,
    names,
    pending,
    rfc3339,
    stuck,
    summary,
    with_status,
    worker,
)


class Killed(Exception):
    """The operator's process was killed."""


class World:
    """A cluster with one resource. Every call of a port is a step, at which it can refuse, or the operator can die."""

    def __init__(self, resource: SiorgSyncWorker, queue: Backlog, jobs: list[Job] | None = None) -> None:
        self.resource = resource
        self.queue = queue
        self.jobs = {job.name: job for job in jobs or []}
        self.cron_jobs: dict[str, dict[str, Any]] = {}
        self.runs: list[CronRun] = []
        self.status: dict[str, Any] = {}
        self.events: list[Event] = []
        self.steps: list[str] = []
        self.refuses: Callable[[str], Exception | None] = lambda step: None
        self.loses_answer: Callable[[str], bool] = lambda step: False
        self.dies_after: int | None = None
        self.now = NOW

    # -- the ports ----------------------------------------------------------------------------------------------------

    async def read(self, resource: SiorgSyncWorker) -> Backlog:
        return self.queue

    async def launch(self, resource: SiorgSyncWorker, launch: Launch, *, credentials: str, decision: str) -> bool:
        name = job_name(resource, launch.slot, launch.round)

        def create() -> None:
            made = Job(name, launch.slot, launch.round, JobState.PENDING, self.now, template_hash(resource, credentials))
            self.jobs.setdefault(name, made)

        there = name in self.jobs
        self._step(f"launch {launch.slot}-{launch.round}", create)
        return not there

    async def end(self, resource: SiorgSyncWorker, removal: Removal) -> None:
        self._step(f"end {self.jobs[removal.name].slot}", lambda: None)  # the Job controller takes its time

    async def remove(self, resource: SiorgSyncWorker, name: str) -> None:
        self._step(f"remove {name}", lambda: self.jobs.pop(name, None))

    async def write_status(self, resource: SiorgSyncWorker, patch: dict[str, Any]) -> None:
        self._step("status", lambda: _merge(self.status, patch))

    async def record(self, resource: SiorgSyncWorker, event: Event) -> None:
        self._step(f"event {event.reason}", lambda: self.events.append(event))

    async def apply_cron_job(self, resource: SiorgSyncWorker, manifest: dict[str, Any]) -> dict[str, Any]:
        name = manifest["metadata"]["name"]
        self._step(f"apply {name}", lambda: self.write_cron_job(name, manifest["spec"], manifest["metadata"]["annotations"]))
        return self.cron_jobs[name]

    async def delete_cron_job(self, resource: SiorgSyncWorker, name: str) -> None:
        self._step(f"delete {name}", lambda: self.cron_jobs.pop(name, None))

    def write_cron_job(
        self, name: str, spec: Mapping[str, Any], annotations: Mapping[str, str] | None = None, by: str = "siorg-operator"
    ) -> None:
        """As the API server does: a changed spec is another generation, and who wrote it is known."""
        before = self.cron_jobs.get(name, {"metadata": {"generation": 0, "annotations": {}, "managedFields": []}, "spec": None})
        metadata = before["metadata"]
        self.cron_jobs[name] = before | {
            "metadata": {
                "name": name,
                "uid": f"uid of {name}",
                "generation": metadata["generation"] + (before["spec"] != spec),
                "annotations": {**metadata["annotations"], **(annotations or {})},
                "managedFields": [*metadata["managedFields"], {"manager": by, "fieldsV1": {"f:spec": {}}}],
            },
            "spec": dict(spec),
        }

    def _step(self, step: str, effect: Callable[[], object]) -> None:
        if self.dies_after is not None and len(self.steps) >= self.dies_after:
            raise Killed
        refusal = self.refuses(step)
        self.steps.append(step)
        if refusal is not None:
            raise refusal
        effect()
        if self.loses_answer(step):
            raise ClusterError("no answer in time")
        if self.dies_after is not None and len(self.steps) >= self.dies_after:
            raise Killed

    # -- what it shows ------------------------------------------------------------------------------------------------

    def seen(self, jobs: list[Job] | None = None) -> Seen:
        status = {**self.status}
        shown = list(self.jobs.values()) if jobs is None else jobs
        cron_jobs = [cron_job_seen(one) for one in self.cron_jobs.values()]
        return Seen(with_status(self.resource, status), status, shown, cron_jobs, self.runs)

    @property
    def unfinished(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.unfinished]


def _merge(target: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            inner = target[key] = dict(target.get(key) or {})
            _merge(inner, value)
        else:
            target[key] = value


class Operator:
    """One process of the operator: what it keeps in memory dies with it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.registry = CollectorRegistry()
        self.reconciler = Reconciler(
            reader=world, launcher=world, cluster=world, metrics=OperatorMetrics(self.registry), clock=lambda: world.now
        )
        self.tally = Tally((world.status.get("jobs") or {}).get("lastFinishedTime") or "")

    def look(self, jobs: list[Job] | None = None) -> Passed:
        """One pass; ``jobs``: what the cluster shows, if that is not what there is."""
        return asyncio.run(self.reconciler.step(self.world.seen(jobs), self.tally))

    def value(self, name: str, **labels: str) -> float:
        found = self.registry.get_sample_value(name, {"namespace": "sync", "worker": "siorg", **labels})
        return found or 0.0


def no_cron_jobs(**spec: Any) -> SiorgSyncWorker:
    return worker(cleanup={"enabled": False}, discovery={"enabled": False}, **spec)


def run(component: str, *, ended: int | None = None, failure: str = "") -> CronRun:
    name = f"{component}{'' if ended is None else ended}"
    return CronRun(name, f"uid of {name}", component, "" if ended is None else rfc3339(at(ended)), failure)


def told(world: World) -> dict[str, tuple[str, str, str]]:
    """Conditions, as they were written."""
    return {one["type"]: (one["status"], one["reason"], one["message"]) for one in world.status["conditions"]}


def error(code: int = 500) -> ClusterError:
    return ClusterError(f"the API server answered {code}", code)


def refusing(*steps: str, code: int = 500) -> Callable[[str], Exception | None]:
    return lambda step: error(code) if step.startswith(steps) else None


# -- a pass -----------------------------------------------------------------------------------------------------------


def test_a_pass_launches_what_was_decided_and_says_so() -> None:
    world = World(no_cron_jobs(), backlog(480))
    passed = Operator(world).look()
    assert world.steps == ["launch 0-1", "launch 1-1", "launch 2-1", "launch 3-1", "launch 4-1", "status", "event ScaledUp"]
    assert names(passed.result.launched) == names(world.unfinished)
    assert all(job.template == template_hash(world.resource, CREDENTIALS) for job in passed.result.launched)
    assert passed.status == world.status
    assert world.status["jobs"]["pending"] == 5
    assert world.status["lastDecision"]["launched"] == 5


def test_jobs_come_before_the_status_that_tells_of_them() -> None:
    jobs = [ended(-100 + n, slot=n) for n in range(5)]
    world = World(worker(), backlog(480), [*jobs, stuck(9, since=-100)])
    Operator(world).look()
    last = {step.split()[0]: place for place, step in enumerate(world.steps)}
    assert last["launch"] < last["end"] < last["remove"] < last["apply"] < last["status"] < last["event"]


def test_at_rest_nothing_is_asked_of_the_cluster() -> None:
    world = World(worker(), backlog(0), [ended(-100, summary=summary(5))])
    operator = Operator(world)
    operator.look()
    world.steps.clear()
    for seconds in range(30, 3000, 30):
        world.now = at(seconds)
        operator.look()
    assert world.steps == []


def test_a_restart_at_rest_asks_nothing_either() -> None:
    world = World(worker(), backlog(0), [ended(-100, summary=summary(5))])
    Operator(world).look()
    world.steps.clear()
    Operator(world).look()
    assert world.steps == []


def test_what_the_cluster_does_not_show_yet_is_not_launched_twice() -> None:
    world = World(no_cron_jobs(), backlog(480))
    operator = Operator(world)
    operator.look()
    operator.look(jobs=[])  # its index lags behind
    Operator(world).look(jobs=[])
    assert len(world.unfinished) == 5
    assert len({job.slot for job in world.unfinished}) == 5


@pytest.mark.parametrize("lost", range(5))
def test_a_launch_whose_answer_was_lost_is_not_made_again_under_another_name(lost: int) -> None:
    world = World(no_cron_jobs(), backlog(480))
    world.loses_answer = lambda step: step == f"launch {lost}-1"
    operator = Operator(world)
    with pytest.raises(PassFailed, match="no answer in time"):
        operator.look()
    world.loses_answer = lambda step: False
    # The cluster does not show that one yet, and the others it does.
    operator.look(jobs=[job for job in world.jobs.values() if job.slot != lost])
    assert len(world.unfinished) == 5
    operator.look()
    assert len(world.unfinished) == 5


def test_a_job_that_was_there_already_counts_as_launched() -> None:
    world = World(no_cron_jobs(), backlog(50), pending(1))
    passed = Operator(world).look(jobs=[])
    assert names(passed.result.launched) == names(world.unfinished)


# -- CronJobs ---------------------------------------------------------------------------------------------------------


def test_cron_jobs_are_made_once() -> None:
    world = World(worker(), backlog(0))
    operator = Operator(world)
    operator.look()
    assert [step for step in world.steps if step.startswith("apply")] == ["apply siorg-cleanup", "apply siorg-discovery"]
    world.steps.clear()
    operator.look()
    assert world.steps == []


@pytest.mark.parametrize(
    "edit", [{"discovery": {"schedule": "@daily"}}, {"discovery": {"organizations": [26]}}, {"suspend": True}]
)
def test_a_changed_cron_job_is_applied(edit: dict[str, Any]) -> None:
    world = World(worker(), backlog(0))
    Operator(world).look()
    world.steps.clear()
    world.resource = worker(**edit)
    Operator(world).look()
    assert "apply siorg-discovery" in world.steps
    assert world.cron_jobs["siorg-discovery"]["spec"] == discovery_cron_job(world.resource)["spec"]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_cron_job_that_somebody_else_changed_is_put_right(restarted: bool) -> None:
    world = World(worker(), backlog(0))
    operator = Operator(world)
    operator.look()
    name = cron_job_name(world.resource, "cleanup")
    world.write_cron_job(name, {**world.cron_jobs[name]["spec"], "suspend": True}, by="kubectl-edit")
    world.steps.clear()
    operator = Operator(world) if restarted else operator
    operator.look()
    operator.look()
    assert world.steps == ["apply siorg-cleanup"]
    assert world.cron_jobs[name]["spec"]["suspend"] is False


def test_a_cron_job_that_is_not_wanted_any_more_is_removed() -> None:
    world = World(worker(), backlog(0))
    Operator(world).look()
    world.resource = worker(discovery={"enabled": False})
    world.steps.clear()
    Operator(world).look()
    assert world.steps == ["apply siorg-discovery"]
    assert world.cron_jobs["siorg-discovery"]["spec"]["suspend"] is True
    Operator(world).look()
    assert world.steps == ["apply siorg-discovery", "delete siorg-discovery"]
    assert list(world.cron_jobs) == ["siorg-cleanup"]


@pytest.mark.parametrize("told_by", ["status", "job"])
def test_its_job_comes_to_its_end_first(told_by: str) -> None:
    world = World(worker(), backlog(0))
    Operator(world).look()
    world.resource = worker(discovery={"enabled": False})
    if told_by == "status":
        world.cron_jobs["siorg-discovery"]["status"] = {"active": [{"name": "siorg-discovery-1"}]}
    else:
        world.runs = [run("discovery")]
    for _ in range(3):
        Operator(world).look()
    assert world.cron_jobs["siorg-discovery"]["spec"]["suspend"] is True
    world.cron_jobs["siorg-discovery"].pop("status", None)
    world.runs = [run("discovery", ended=-1)]
    Operator(world).look()
    assert "siorg-discovery" not in world.cron_jobs


def test_one_that_is_enabled_again_before_it_went_starts_jobs_again() -> None:
    world = World(worker(), backlog(0))
    operator = Operator(world)
    operator.look()
    world.resource = worker(discovery={"enabled": False})
    operator.look()
    world.resource = worker()
    operator.look()
    assert world.cron_jobs["siorg-discovery"]["spec"]["suspend"] is False


def test_a_refused_cron_job_is_told_and_holds_up_no_launch() -> None:
    world = World(worker(), backlog(50))
    world.refuses = refusing("apply siorg-cleanup", code=403)
    operator = Operator(world)
    passed = operator.look()
    assert len(world.unfinished) == 1
    assert told(world)["Degraded"] == ("True", "CronJobRefused", "The API server answered 403")
    assert told(world)["Ready"] == ("False", "CronJobRefused", "The API server answered 403")
    assert passed.retry_seconds == 1
    for seconds in range(1, 100):
        world.now = at(seconds)
        operator.look()
    assert world.steps.count("apply siorg-cleanup") == 7  # after 0, 1, 3, 7, 15, 31 and 63 s
    assert [event.reason for event in world.events].count("CronJobRefused") == 1
    world.refuses = refusing()
    world.now = at(200)
    assert operator.look().retry_seconds is None
    operator.look()
    assert told(world)["Degraded"][0] == "False"
    assert "siorg-cleanup" in world.cron_jobs


def test_an_edit_of_a_refused_cron_job_is_tried_at_once() -> None:
    world = World(worker(), backlog(0))
    world.refuses = refusing("apply siorg-discovery", code=422)
    operator = Operator(world)
    operator.look()
    operator.look()
    assert world.steps.count("apply siorg-discovery") == 1
    world.resource = worker(discovery={"schedule": "@daily"})
    world.refuses = refusing()
    operator.look()
    assert "siorg-discovery" in world.cron_jobs
    assert told(world)["Degraded"][0] == "False"


def test_an_answer_that_does_not_come_once_is_no_news() -> None:
    world = World(worker(), backlog(0))
    world.refuses = refusing("apply", code=0)
    operator = Operator(world)
    for seconds, value in ((0, "False"), (1, "False"), (3, "True")):
        world.now = at(seconds)
        operator.look()
        assert told(world)["Degraded"][0] == value


def test_a_cron_job_whose_last_job_failed_is_told_until_one_succeeds() -> None:
    world = World(worker(), backlog(0))
    world.runs = [
        run("discovery", ended=-90),
        run("discovery", ended=-50, failure="BackoffLimitExceeded"),
        run("cleanup", ended=-9),
    ]
    operator = Operator(world)
    operator.look()
    assert told(world)["Degraded"][:2] == ("True", "DiscoveryFailing")
    assert "kubectl logs job/discovery-50" in told(world)["Degraded"][2]
    assert operator.value("siorg_operator_cron_job_failing", component="discovery") == 1
    assert [event.reason for event in world.events] == ["DiscoveryFailing"]
    world.runs += [run("discovery"), run("discovery", ended=-5)]
    operator.look()
    assert told(world)["Degraded"][0] == "False"
    assert operator.value("siorg_operator_cron_job_failing", component="discovery") == 0
    assert [event.reason for event in world.events] == ["DiscoveryFailing", "Recovered"]


def test_nobody_asks_of_one_that_is_disabled() -> None:
    world = World(no_cron_jobs(), backlog(0))
    world.runs = [run("discovery", ended=-50, failure="BackoffLimitExceeded")]
    Operator(world).look()
    assert told(world)["Degraded"][0] == "False"


def test_a_cron_jobs_job_is_understood() -> None:
    body = {
        "metadata": {"name": "d-1", "uid": "u", "labels": {"app.kubernetes.io/component": "discovery"}},
        "status": {"conditions": [{
            "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "no more",
            "lastTransitionTime": "2026-11-24T12:00:00Z",
        }]},
    }  # fmt: skip
    assert cron_run(body) == CronRun("d-1", "u", "discovery", "2026-11-24T12:00:00Z", "BackoffLimitExceeded: no more")
    assert cron_run({"metadata": body["metadata"]}) == CronRun("d-1", "u", "discovery", "", "")


def test_there_are_none_on_one_machine() -> None:
    world = World(worker(), backlog(0))
    operator = Operator(world)
    asyncio.run(operator.reconciler.step(replace(world.seen(), cron_jobs=None), operator.tally))
    assert world.steps == ["status"]


# -- what is written when ---------------------------------------------------------------------------------------------


def test_counts_alone_are_written_every_few_seconds() -> None:
    world = World(no_cron_jobs(suspend=True), backlog(1))
    operator = Operator(world)
    for tenths in range(1, 101):
        world.now, world.queue = at(tenths / 10), backlog(tenths)
        passed = operator.look()
        assert passed.status == world.status
    assert world.steps.count("status") == 2
    world.now = at(10.0)
    assert passed.retry_seconds == pytest.approx(0.1, abs=0.2)
    world.now = at(10.3)
    operator.look()
    assert world.status["queue"]["claimable"] == 100


def test_anything_else_is_written_at_once() -> None:
    world = World(no_cron_jobs(suspend=True), backlog(1))
    operator = Operator(world)
    operator.look()
    world.resource = no_cron_jobs()
    world.queue = backlog(7)
    operator.look()
    assert world.status["queue"]["claimable"] == 7
    assert world.status["lastDecision"]["launched"] == 1


# -- a crash at any point ---------------------------------------------------------------------------------------------


def busy_world() -> World:
    """A pass over it has something of everything to do: 5 launches, a stuck Job, old ones, CronJobs to make and to remove."""
    resource = worker(scaling={"maxJobs": 6}, discovery={"enabled": False})
    finished = [ended(-500 + n, slot=n, summary=summary(9)) for n in range(5)]
    world = World(resource, backlog(480), [*finished, stuck(5, since=-100)])
    world.write_cron_job("siorg-discovery", {"schedule": "@daily"})
    return world


def settle(world: World) -> None:
    """Passes of a fresh process, while the cluster does what it was told, until nothing changes any more."""
    operator = Operator(world)
    for seconds in range(1, 20):
        world.now = at(seconds)
        before = len(world.steps)
        operator.look()
        assert len(world.unfinished) <= world.resource.spec.scaling.max_jobs
        if len(world.steps) == before and seconds > 3:
            return
    raise AssertionError(f"never quiet: {world.steps[-5:]}")


def outcome(world: World) -> Any:
    """What a person would see, but for times and rounds: a name may come again when the Job that had it is gone."""
    conditions = {kind: one[:2] for kind, one in told(world).items()}
    jobs = sorted((job.slot, job.state) for job in world.jobs.values())
    counts = {kind: count for kind, count in world.status["jobs"].items() if kind != "lastRound"}
    return jobs, sorted(world.cron_jobs), conditions, counts, world.status["queue"]


def undisturbed() -> World:
    world = busy_world()
    settle(world)
    return world


def test_a_world_that_nobody_disturbs_comes_to_rest() -> None:
    world = undisturbed()
    assert len(world.unfinished) == 6
    assert len(world.jobs) == 6 + 3
    assert list(world.cron_jobs) == ["siorg-cleanup"]


STEPS = undisturbed().steps


@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
def test_killed_after_each_step_it_comes_to_the_same_end(step: int) -> None:
    world = busy_world()
    world.dies_after = step
    with pytest.raises(Killed):
        settle(world)
    assert len(world.unfinished) <= 6
    world.dies_after = None
    settle(world)
    slots = [job.slot for job in world.unfinished]
    assert len(set(slots)) == len(slots)
    assert outcome(world) == outcome(undisturbed())


@pytest.mark.parametrize("steps", [(1, 1, 1), (2, 3, 5), (7, 1, 2), (4, 4, 4)])
def test_killed_again_and_again(steps: tuple[int, ...]) -> None:
    world = busy_world()
    for step in steps:
        world.dies_after = len(world.steps) + step
        with pytest.raises(Killed):
            settle(world)
    world.dies_after = None
    settle(world)
    assert outcome(world) == outcome(undisturbed())


@pytest.mark.parametrize("code", [0, 409, 422, 500])
@pytest.mark.parametrize("step", [place for place, step in enumerate(STEPS) if not step.startswith("event")])
def test_refused_at_each_step_it_comes_to_the_same_end(step: int, code: int) -> None:
    world = busy_world()
    world.refuses = lambda _: error(code) if len(world.steps) == step else None
    if STEPS[step].startswith(("launch", "status")):
        with pytest.raises(PassFailed) as refused:
            settle(world)
        assert refused.value.code == code
    else:
        settle(world)
    world.refuses = lambda _: None
    settle(world)
    assert outcome(world) == outcome(undisturbed())


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_a_refused_launch_is_told_and_tried_again() -> None:
    world = World(no_cron_jobs(), backlog(150))
    world.refuses = refusing("launch 1", code=403)
    operator = Operator(world)
    with pytest.raises(PassFailed, match="answered 403") as refused:
        operator.look()
    assert (refused.value.code, names(refused.value.passed.result.launched)) == (403, names(world.unfinished))
    assert [launch.slot for launch in refused.value.passed.result.launched] == [0, 2]
    assert world.status["lastDecision"] == {
        "time": rfc3339(NOW),
        "reason": "LaunchFailed",
        "message": "depth 150, 50 a Job → 3 wanted, 0 unfinished → launched 2; the API server answered 403",
        "launched": 2,
    }
    assert told(world)["Ready"] == told(world)["ScalingActive"] == ("False", "LaunchFailed", "The API server answered 403")
    assert "LaunchFailed" in [event.reason for event in world.events]
    world.refuses = refusing()
    world.events.clear()
    operator.look()
    assert len(world.unfinished) == 3
    assert [event.reason for event in world.events] == ["ScalingResumed"]


def test_what_is_not_refused_is_done_all_the_same() -> None:
    world = busy_world()
    world.refuses = refusing("launch", "remove", "end")
    with pytest.raises(PassFailed):
        Operator(world).look()
    assert "siorg-cleanup" in world.cron_jobs
    assert world.status["lastDecision"]["launched"] == 0


def test_a_status_that_cannot_be_written_loses_no_job() -> None:
    world = World(no_cron_jobs(), backlog(100))
    world.refuses = refusing("status")
    with pytest.raises(PassFailed) as refused:
        Operator(world).look()
    assert names(refused.value.passed.result.launched) == names(world.unfinished)
    assert refused.value.passed.status == {}  # as it is written
    assert world.events == []


def test_a_bug_is_not_hidden() -> None:
    world = World(no_cron_jobs(), backlog(100))
    world.refuses = lambda step: ZeroDivisionError() if step == "launch 0-1" else None
    with pytest.raises(ZeroDivisionError):
        Operator(world).look()
    assert [job.slot for job in world.unfinished] == [1]


# -- stuck Jobs -------------------------------------------------------------------------------------------------------


def test_a_stuck_job_is_ended_once() -> None:
    world = World(no_cron_jobs(), backlog(50), [stuck(since=-100)])
    operator = Operator(world)
    for _ in range(3):
        operator.look()
    assert world.steps.count("end 0") == 1
    assert [event.reason for event in world.events].count("StuckJobEnded") == 1


def test_one_that_could_not_be_ended_is_ended_later() -> None:
    world = World(no_cron_jobs(), backlog(50), [stuck(since=-100)])
    operator = Operator(world)
    world.refuses = refusing("end")
    operator.look()
    assert "StuckJobEnded" not in [event.reason for event in world.events]
    world.refuses = refusing()
    world.now = at(1)
    operator.look()
    operator.look()
    assert world.steps.count("end 0") == 2
    assert [event.reason for event in world.events].count("StuckJobEnded") == 1


def test_another_process_ends_it_again_which_does_no_harm() -> None:
    world = World(no_cron_jobs(), backlog(50), [stuck(since=-100)])
    Operator(world).look()
    Operator(world).look()
    assert world.steps.count("end 0") == 2


def test_its_slot_is_free_once_it_has_ended() -> None:
    world = World(no_cron_jobs(scaling={"maxJobs": 1}), backlog(50), [stuck(since=-100)])
    operator = Operator(world)
    operator.look()
    world.jobs = {job.name: job for job in [ended(-1, Ending.STUCK, lived=0, message="ImagePullBackOff")]}
    operator.look()
    assert world.unfinished == []
    world.now = at(30)
    operator.look()
    assert [(job.slot, job.round) for job in world.unfinished] == [(0, 2)]


# -- counting ---------------------------------------------------------------------------------------------------------


def drained(operator: Operator) -> float:
    return operator.value("siorg_operator_items_total", outcome="completed")


def test_each_job_is_counted_once() -> None:
    world = World(no_cron_jobs(), backlog(0), [ended(-10, summary=summary(7))])
    operator = Operator(world)
    operator.look()
    operator.look()
    assert drained(operator) == 7
    world.jobs = {job.name: job for job in [ended(-10, summary=summary(7)), ended(-5, slot=1, summary=summary(5))]}
    operator.look()
    assert drained(operator) == 12


def test_also_across_a_restart() -> None:
    world = World(no_cron_jobs(), backlog(0), [ended(-10, summary=summary(7))])
    Operator(world).look()
    restarted = Operator(world)
    restarted.look()
    assert drained(restarted) == 0
    world.jobs |= {job.name: job for job in [ended(-5, slot=1, summary=summary(5))]}
    restarted.look()
    assert drained(restarted) == 5


def test_a_job_that_goes_and_whose_name_comes_again_is_another() -> None:
    tally = Tally()
    assert len(tally.new([ended(-10)])) == 1
    assert len(tally.new([])) == 0
    assert len(tally.new([ended(-5)])) == 1
    assert len(tally.new(active(1))) == 0


def test_the_wait_of_new_work_is_measured_at_the_first_job_for_it() -> None:
    world = World(no_cron_jobs(), backlog(500, oldest_due_seconds=0.2))
    operator = Operator(world)
    name = "siorg_operator_enqueue_to_launch_seconds"
    operator.look()
    assert operator.value(f"{name}_count") == 1
    assert 0.2 <= operator.value(f"{name}_sum") < 1
    world.jobs.popitem()
    operator.look()  # one more beside those that are there
    assert operator.value(f"{name}_count") == 1


def test_a_resource_that_is_gone_leaves_nothing() -> None:
    world = World(no_cron_jobs(), backlog(50), [stuck(since=-100)])
    operator = Operator(world)
    operator.look()
    assert operator.value("siorg_operator_jobs_desired") == 1
    metadata = world.resource.metadata
    operator.reconciler.forget(metadata.uid, metadata.namespace, metadata.name)
    assert operator.value("siorg_operator_jobs_desired") == 0
    operator.look()
    assert world.steps.count("end 0") == 2


def test_time_comes_from_the_clock() -> None:
    world = World(no_cron_jobs(), backlog(50))
    world.now = datetime.fromisoformat("2030-01-02T03:04:05+00:00")
    Operator(world).look()
    assert world.status["lastDecision"]["time"] == "2030-01-02T03:04:05Z"
