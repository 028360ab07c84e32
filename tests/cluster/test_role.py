"""The operator's Role: enough for all that it does, each right is needed, and what is missing is named where a person looks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from siorg_operator.api.resource import parse
from siorg_operator.cluster.fingerprint import KEY_SECRET
from siorg_operator.decide.manifests import cron_job, job_name
from support.cluster import real_kubeconfig
from support.fleet import eventually
from support.kube import ApiError, Body, Kube, condition
from support.operator_process import Operator
from support.role import OPERATOR, Account, Right, account, may, rights, shipped, without
from support.siorg_server import REPOSITORY
from support.siorg_world import IMAGE, ORGANIZATION, RESOURCE, World

ROLE = shipped("role.yaml", "Role", OPERATOR)
RIGHTS = rights(ROLE)
NOWHERE = "registry.example/siorg-job:nowhere"
CLEANUP = {"enabled": True, "schedule": "17 3 * * *"}
DISCOVERY = {"enabled": True, "schedule": "7 * * * *", "organizations": [ORGANIZATION]}
ELECTION: Mapping[str, Any] = {"LEADER_ELECTION": "true", "LEASE_RETRY_SECS": 1}


def take_the_name_of_the_next_job(world: World) -> str:
    """A Job of somebody else, called as the operator will call its first one. It starts no pod."""
    name = job_name(parse(world.get()), 0, 1)
    pod = {"restartPolicy": "Never", "containers": [{"name": "theirs", "image": "theirs:1"}]}
    world.kube.create({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": world.namespace},
        "spec": {"suspend": True, "template": {"spec": pod}},
    })  # fmt: skip
    return name


def decision(world: World, reason: str) -> str:
    eventually(lambda: world.decision()["reason"] == reason)
    return str(world.decision()["message"])


def said(operator: Operator, message: str, level: str = "WARN") -> str:
    """What the log's entries say that begin so, their reasons included; waits for the first."""

    def found() -> list[str]:
        entries = [one for one in operator.entries() if one["level"] == level and one["message"].startswith(message)]
        return [f"{one['message']} {one.get('reason', '')}" for one in entries]

    return "\n".join(eventually(found))


# -- enough, and no more ----------------------------------------------------------------------------------------------


def test_a_whole_life_needs_all_of_the_role_and_nothing_else(world: World, tmp_path: Path) -> None:
    who = account(world.cluster, tmp_path, ROLE)
    asked_before = len(world.cluster.server.requests) if world.cluster.server else 0
    operator = world.operator(kubeconfig=who.kubeconfig, **ELECTION)
    world.secret()
    world.create(world.resource(job={"successfulJobsHistoryLimit": 0}, cleanup=CLEANUP, verification={"enabled": True}))
    world.wait_for_condition("Ready", "True")

    # A name that is taken, and is free again.
    theirs = take_the_name_of_the_next_job(world)
    world.enqueue(5)
    assert f"Job {theirs} cannot be created" in decision(world, "LaunchFailed")
    world.kube.delete("jobs", theirs)
    world.wait_until_drained()
    eventually(lambda: not world.jobs())  # the history keeps none

    # CronJobs come and go.
    eventually(lambda: len(world.kube.list("cronjobs")) == 2)
    world.edit({"cleanup": {"enabled": False}})
    world.kube.wait_gone("cronjobs", "sync-cleanup")

    # A pod that cannot start.
    edited = world.edit({"job": {"image": NOWHERE}})["metadata"]["generation"]
    eventually(lambda: world.status()["observedGeneration"] == edited)  # else the next Job may still have the good image
    world.enqueue(5)
    eventually(lambda: world.events("StuckJobEnded"))
    told = world.operator(start=False, kubeconfig=who.kubeconfig).explain("sync")
    assert told.returncode == 0, told.stderr
    world.edit({"job": {"image": IMAGE}})
    world.wait_until_drained()

    # The first discovery.
    world.edit({"discovery": DISCOVERY})
    world.kube.wait_for("jobs", "sync-discovery-first", lambda job: condition(job, "Complete") == "True", seconds=60)
    world.wait_until_drained()

    world.kube.delete(RESOURCE, "sync")
    eventually(lambda: not world.jobs() and not world.kube.list("cronjobs"))
    assert operator.stop() == 0
    lease = world.kube.get("leases", OPERATOR)
    assert lease is not None
    assert not lease["spec"].get("holderIdentity")  # given back

    assert "forbidden" not in operator.log.lower()
    if world.cluster.server is not None:
        asked = [one for one in world.cluster.server.requests[asked_before:] if one.user == who.user]
        assert not [one for one in asked if one.status in {401, 403}]
        assert [str(right) for right in RIGHTS if not any(right.is_used_by(one) for one in asked)] == []


# -- one right after the other ----------------------------------------------------------------------------------------


def started(world: World, who: Account, *, ready: bool = True, **settings: Any) -> Operator:
    """An operator with that account, ended with the test."""
    return world.operator(start=False, kubeconfig=who.kubeconfig, **settings).start(ready=ready)


def cannot_list(world: World, who: Account) -> str:
    operator = started(world, who, ready=False)
    told = said(operator, "Waiting for the cluster")
    assert operator.probe("readyz") == (503, "what is watched has not been listed yet\n")
    operator.kill()  # rather than wait until it has tried again
    return told


def cannot_watch(world: World, who: Account) -> str:
    operator = started(world, who, ready=False)
    return said(operator, "Request attempt", "ERROR")


def cannot_read_the_resource(world: World, who: Account) -> str:
    world.create()
    told = world.operator(start=False, kubeconfig=who.kubeconfig).explain("sync")
    assert told.returncode == 75
    return told.stderr


def cannot_write_the_status(world: World, who: Account) -> str:
    operator = started(world, who)
    world.create()
    told = said(operator, "Reconcile incomplete")
    assert not world.status()
    assert operator.metric("siorg_operator_reconcile_errors_total", "403") >= 1
    return told


def cannot_create_jobs(world: World, who: Account) -> str:
    world.secret()
    world.enqueue()
    started(world, who)
    world.create()
    told = str(world.wait_for_condition("Ready", "False", "LaunchFailed")["message"])
    assert "let the operator's Role create Jobs" in told
    return told


def blocking_is_enforced(world: World, who: Account, owner: Body) -> bool:
    """Whether the account may not own a CronJob in the name of ``owner``; none is made."""
    manifest = cron_job(parse(owner), "cleanup")
    asking = Kube(who.kubeconfig, namespace=world.namespace)
    enforced = refused(lambda: asking.request("POST", asking.path("cronjobs"), manifest, dryRun="All"))
    asking.close()
    return enforced


def cannot_block_deletion(world: World, who: Account) -> str:
    owner = world.create()
    if not blocking_is_enforced(world, who, owner):
        assert real_kubeconfig() is not None  # the small one enforces it always
        pytest.skip("a real API server asks only where its plugin OwnerReferencesPermissionEnforcement is on")
    world.secret()
    world.enqueue()
    started(world, who)
    told = str(world.wait_for_condition("Ready", "False", "LaunchFailed")["message"])
    assert "let the operator's Role update siorgsyncworkers/finalizers" in told
    return told


def cannot_get_jobs(world: World, who: Account) -> str:
    world.secret()
    world.create()
    take_the_name_of_the_next_job(world)
    world.enqueue()
    started(world, who)
    return str(world.wait_for_condition("Ready", "False", "LaunchFailed")["message"])


def cannot_patch_jobs(world: World, who: Account) -> str:
    world.secret()
    world.enqueue()
    operator = started(world, who)
    world.create(world.resource(job={"image": NOWHERE}))
    told = said(operator, "RemovalRefused")
    assert world.condition("Degraded")["reason"] == "PodsStuck"
    assert len(world.unfinished_jobs()) == 1
    return told


def cannot_delete_jobs(world: World, who: Account) -> str:
    world.secret()
    world.enqueue()
    started(world, who)
    world.create(world.resource(job={"successfulJobsHistoryLimit": 0}))
    told = str(world.wait_for_condition("Degraded", "True", "RemovalRefused")["message"])
    assert [condition(job, "Complete") for job in world.jobs()] == ["True"]
    return told


def cannot_apply_cron_jobs(world: World, who: Account) -> str:
    world.secret()
    started(world, who)
    world.create(world.resource(cleanup=CLEANUP))
    told = str(world.wait_for_condition("Ready", "False", "CronJobRefused")["message"])
    assert not world.kube.list("cronjobs")
    eventually(lambda: world.events("CronJobRefused"))
    return told


def cannot_delete_cron_jobs(world: World, who: Account) -> str:
    world.secret()
    started(world, who)
    world.create(world.resource(cleanup=CLEANUP))
    world.kube.wait_for("cronjobs", "sync-cleanup")
    world.edit({"cleanup": {"enabled": False}})
    return str(world.wait_for_condition("Degraded", "True", "CronJobRefused")["message"])


def cannot_read_secrets(world: World, who: Account) -> str:
    world.secret()
    started(world, who)
    world.create()
    told = str(world.wait_for_condition("Ready", "False", "AccessDenied")["message"])
    assert "the operator's Role must allow get of secrets database" in told
    return told


def cannot_keep_the_key(world: World, who: Account) -> str:
    world.secret()
    operator = started(world, who)
    world.create()
    told = said(operator, "The key of the Secrets' fingerprints cannot be kept")
    world.wait_for_condition("Ready", "True")
    return told


def cannot_tell_events(world: World, who: Account) -> str:
    operator = started(world, who)
    world.create()
    told = said(operator, "Event not recorded")
    assert not world.events()
    return told


def cannot_stand_for_election(world: World, who: Account) -> str:
    operator = started(world, who, ready=False, **ELECTION)
    told = said(operator, "The lease cannot be read or renewed")
    assert operator.probe("readyz")[0] == 503
    assert "the Lease cannot be asked for" in operator.probe("readyz")[1]
    return told


def cannot_keep_the_lead(world: World, who: Account) -> str:
    hasty = {**ELECTION, "LEASE_SECS": 3, "LEASE_RENEW_SECS": 2}
    operator = started(world, who, ready=False, **hasty)
    assert operator.ends() == 1
    return said(operator, "Lost leadership; exiting at once", "ERROR")


BREAKAGES: Mapping[str, Callable[[World, Account], str]] = {
    "list siorgsyncworkers": cannot_list,
    "list jobs": cannot_list,
    "list cronjobs": cannot_list,
    "list pods": cannot_list,
    "watch siorgsyncworkers": cannot_watch,
    "watch jobs": cannot_watch,
    "watch cronjobs": cannot_watch,
    "watch pods": cannot_watch,
    "get siorgsyncworkers": cannot_read_the_resource,
    "update siorgsyncworkers/finalizers": cannot_block_deletion,
    "patch siorgsyncworkers/status": cannot_write_the_status,
    "create jobs": cannot_create_jobs,
    "get jobs": cannot_get_jobs,
    "patch jobs": cannot_patch_jobs,
    "delete jobs": cannot_delete_jobs,
    "get cronjobs": cannot_apply_cron_jobs,
    "create cronjobs": cannot_apply_cron_jobs,
    "patch cronjobs": cannot_apply_cron_jobs,
    "delete cronjobs": cannot_delete_cron_jobs,
    "get secrets": cannot_read_secrets,
    "patch secrets": cannot_keep_the_key,
    "create events": cannot_tell_events,
    "create leases": cannot_stand_for_election,
    "get leases": cannot_stand_for_election,
    "update leases": cannot_keep_the_lead,
}
"""What breaks without each right: does it, and returns what a person then sees."""


def test_for_every_right_it_is_known_what_breaks_without_it() -> None:
    assert sorted(map(str, RIGHTS)) == sorted(BREAKAGES)


@pytest.mark.parametrize("right", RIGHTS, ids=str)
def test_without_a_right_something_breaks_and_names_it(right: Right, world: World, tmp_path: Path) -> None:
    who = account(world.cluster, tmp_path, without(ROLE, right))

    told = BREAKAGES[str(right)](world, who)

    assert right.refusal in told


# -- nothing beyond ---------------------------------------------------------------------------------------------------


@pytest.fixture
def asking(world: World, tmp_path: Path) -> Iterator[Kube]:
    """The API with the operator's account."""
    kube = Kube(account(world.cluster, tmp_path, ROLE).kubeconfig, namespace=world.namespace)
    yield kube
    kube.close()


def refused(ask: Callable[[], object]) -> bool:
    """Whether the API server says 403 to that."""
    try:
        ask()
    except ApiError as error:
        return error.status == 403
    return False


def test_no_other_lease_can_be_touched(world: World, asking: Kube) -> None:
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"namespace": world.namespace}, "spec": {}}
    for name in (OPERATOR, "theirs"):
        world.kube.create({**lease, "metadata": {"name": name, "namespace": world.namespace}})
    ours, theirs = world.kube.get("leases", OPERATOR), world.kube.get("leases", "theirs")
    assert ours is not None
    assert theirs is not None

    assert asking.get("leases", OPERATOR)
    assert asking.replace(ours)
    assert refused(lambda: asking.get("leases", "theirs"))
    assert refused(lambda: asking.replace(theirs))
    assert refused(lambda: asking.list("leases"))
    assert refused(lambda: asking.delete("leases", OPERATOR))


def test_secrets_are_read_one_by_one_and_in_no_other_namespace(world: World, asking: Kube) -> None:
    world.secret()

    assert asking.get("secrets", "database")
    assert refused(lambda: asking.list("secrets"))
    assert refused(lambda: asking.get("secrets", "database", "kube-system"))
    assert refused(lambda: asking.create_secret("another", {"key": "value"}))
    assert refused(lambda: asking.patch("secrets", "database", {"data": {"key": "dmFsdWU="}}))
    assert asking.patch("secrets", KEY_SECRET, {"data": {"key": "dmFsdWU="}})


def test_nothing_works_in_another_namespace_or_in_all_of_them(asking: Kube) -> None:
    for right in RIGHTS:
        if right.verb == "list":
            assert refused(partial(asking.list, right.resource, "*")), right
            assert refused(partial(asking.list, right.resource, "kube-system")), right
    for what in ("namespaces", "nodes", "customresourcedefinitions"):
        assert refused(partial(asking.list, what)), what


# -- people -----------------------------------------------------------------------------------------------------------


def test_who_may_view_a_namespace_may_look_at_its_resources_only(world: World, tmp_path: Path) -> None:
    view = shipped("aggregated-roles.yaml", "ClusterRole", "siorgsyncworkers-view")
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    viewer = Kube(account(world.cluster, tmp_path, view, name="viewer").kubeconfig, namespace=world.namespace)
    world.create()

    assert viewer.get(RESOURCE, "sync")
    assert viewer.list(RESOURCE)
    assert next(iter(viewer.watch(RESOURCE, seconds=5)))["type"] == "ADDED"
    assert refused(lambda: viewer.patch(RESOURCE, "sync", {"spec": {"suspend": True}}))
    assert refused(lambda: viewer.delete(RESOURCE, "sync"))
    assert refused(lambda: viewer.create(world.resource("second")))
    assert refused(lambda: viewer.patch(RESOURCE, "sync", {"spec": {"replicas": 2}}, subresource="scale"))
    assert refused(lambda: viewer.list("secrets"))
    viewer.close()


def test_who_may_edit_a_namespace_may_edit_its_resources_and_not_their_status(world: World, tmp_path: Path) -> None:
    edit = shipped("aggregated-roles.yaml", "ClusterRole", "siorgsyncworkers-edit")
    for whom in ("edit", "admin"):
        assert edit["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{whom}"] == "true"
    editor = Kube(account(world.cluster, tmp_path, edit, name="editor").kubeconfig, namespace=world.namespace)

    assert editor.create(world.resource())
    assert editor.patch(RESOURCE, "sync", {"spec": {"suspend": True}})
    editor.patch(RESOURCE, "sync", {"spec": {"replicas": 2}}, subresource="scale")  # kubectl scale
    assert world.get()["spec"]["scaling"]["maxJobs"] == 2
    assert refused(lambda: editor.patch_status(RESOURCE, "sync", {"observedGeneration": 9}))
    assert editor.delete(RESOURCE, "sync")
    assert all(may(editor, right) for right in rights(edit))
    editor.close()


# -- what is written in the code --------------------------------------------------------------------------------------


def test_every_request_in_the_code_stands_in_the_role() -> None:
    room = REPOSITORY / "operator" / "siorg_operator" / "cluster"
    code = "".join((room / name).read_text(encoding="utf-8") for name in ("client.py", "leader.py"))
    calls = re.findall(r'(?:_call\(|_or_none\(|request\(self\._api,)\s*"(\w+)",\s*f?"?([\w{}/]+)"?,', code)
    asked = {f"{verb} {what}".replace("{PLURAL}", RESOURCE).replace("PLURAL", RESOURCE) for verb, what in calls} - {"list what"}
    assert len(asked) > 10  # the pattern finds them
    assert "update leases" in asked

    assert asked <= set(map(str, RIGHTS))


def test_the_binding_gives_the_role_to_the_account_and_to_nobody_else() -> None:
    binding = shipped("role-binding.yaml", "RoleBinding", OPERATOR)
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ROLE["metadata"]["name"]}
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": OPERATOR}]
    assert shipped("service-account.yaml", "ServiceAccount", OPERATOR)
