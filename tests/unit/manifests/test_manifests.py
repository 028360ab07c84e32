"""What ``manifests/`` promise: valid, restricted, closed to the network, and one place for each name."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest

from siorg_job.settings import Settings
from siorg_operator.settings import OperatorSettings
from support.rendered import FOLDERS, MANIFESTS, Body, needs_kustomize, pod_of, render, rendered, written

WRITTEN = list(written())
PODS = [(str(file), body["metadata"]["name"], pod) for file, body in WRITTEN if (pod := pod_of(body)) is not None]
NAMED = [pytest.param(pod, id=f"{file}:{name}") for file, name, pod in PODS]
VERSIONS = ("1.29", "1.33", "1.36")
"""Of Kubernetes: the oldest that docs/install.md names, and current ones."""
CLUSTER_KINDS = {"siorg.waterswamp.dev", "monitoring.coreos.com"}
SECRETS = {"siorg-database", "siorg-token"}
NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"


def labels_of(body: Body) -> dict[str, str]:
    labels: dict[str, str] = body["metadata"].get("labels", {})
    return labels


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(body, id=f"{file}:{body['kind']}:{body['metadata']['name']}")
        for file, body in WRITTEN
        if body["apiVersion"].split("/")[0] not in CLUSTER_KINDS
    ],
)
def test_each_object_is_valid_to_the_last_field(body: Body, version: str) -> None:
    body = {**body, "metadata": {**body["metadata"]}}
    if body["kind"] == "RoleBinding":  # the namespace comes with the kustomization
        body["subjects"] = [{**subject, "namespace": "siorg"} for subject in body["subjects"]]
    kubernetes_validate.validate(body, version, strict=True)


def test_a_field_that_does_not_exist_would_be_noticed() -> None:
    body = next(body for _, body in WRITTEN if body["kind"] == "PodDisruptionBudget")
    wrong = {**body, "spec": {**body["spec"], "maxUnavailible": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("pod", NAMED)
def test_each_pod_passes_pod_security_restricted_and_more(pod: Body) -> None:
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert all(set(volume) & {"emptyDir", "configMap", "secret"} for volume in spec.get("volumes", ()))
    for container in spec["containers"] + spec.get("initContainers", []):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
        assert re.search(r":[^/]+$", container["image"]), "an image without a tag is another one tomorrow"
        assert not container["image"].endswith(":latest")


@pytest.mark.parametrize("pod", NAMED)
def test_only_the_operator_has_a_token_and_nobody_gets_the_services_environment(pod: Body) -> None:
    assert pod["spec"]["automountServiceAccountToken"] is (labels_of(pod)[COMPONENT] == "operator")
    assert pod["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("pod", NAMED)
def test_secrets_are_referred_to_by_the_documented_names(pod: Body) -> None:
    named = {
        variable["valueFrom"]["secretKeyRef"]["name"]
        for container in pod["spec"]["containers"]
        for variable in container.get("env", ())
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    assert named <= SECRETS


@pytest.mark.parametrize(
    "pod", [each for each, (_, _, pod) in zip(NAMED, PODS, strict=True) if pod["spec"].get("restartPolicy", "Always") == "Always"]
)
def test_what_runs_for_ever_is_watched(pod: Body) -> None:
    assert all({"livenessProbe", "readinessProbe"} & container.keys() for container in pod["spec"]["containers"])


def test_each_object_says_what_it_belongs_to() -> None:
    for file, body in WRITTEN:
        if file.parts[0] in ("base", "migrate", "tools") or file.parts[:2] == ("overlays", "deployment"):
            assert labels_of(body)[NAME] == "siorg-sync", (file, body["kind"])
    for _, _, pod in PODS:
        assert {NAME, COMPONENT} <= labels_of(pod).keys()


def test_selectors_find_their_pods_and_nobody_elses() -> None:
    for file, body in WRITTEN:
        selector = body.get("spec", {}).get("selector")
        if body["kind"] in ("Deployment", "StatefulSet"):
            assert selector["matchLabels"] == labels_of(body["spec"]["template"]), file
        if body["kind"] in ("PodDisruptionBudget", "PodMonitor"):
            wanted = selector["matchLabels"].items()
            assert len({labels_of(pod)[COMPONENT] for _, _, pod in PODS if wanted <= labels_of(pod).items()}) == 1, file


class TestNetwork:
    """Closed, but for what stands in a policy."""

    def policies(self) -> list[Body]:
        return [body for _, body in WRITTEN if body["kind"] == "NetworkPolicy"]

    def test_everything_is_denied_to_every_pod_of_ours(self) -> None:
        deny = next(each for each in self.policies() if each["metadata"]["name"] == "siorg-default-deny")
        assert deny["spec"] == {"podSelector": {"matchLabels": {NAME: "siorg-sync"}}, "policyTypes": ["Ingress", "Egress"]}
        assert all(labels_of(pod)[NAME] == "siorg-sync" for _, _, pod in PODS)

    def test_policies_are_for_components_that_there_are(self) -> None:
        there = {labels_of(pod)[COMPONENT] for _, _, pod in PODS} | {"drain", "cleanup", "discovery"}
        for policy in self.policies():
            selector = policy["spec"]["podSelector"]
            named = {selector.get("matchLabels", {}).get(COMPONENT)} - {None}
            named |= {value for each in selector.get("matchExpressions", ()) for value in each["values"]}
            assert named <= there, policy["metadata"]["name"]

    @pytest.mark.parametrize(
        ("component", "ports"),
        [
            ("operator", {53, 5432, 6432, 443, 6443}),
            ("drain", {53, 5432, 6432, 443}),
            ("discovery", {53, 5432, 6432, 443}),
            ("cleanup", {53, 5432, 6432}),  # asks nobody but the database
            ("migrate", {53, 5432, 6432}),
            ("tools", {53, 5432, 6432, 443}),
            ("worker", {53, 5432, 6432, 443}),
        ],
    )
    def test_each_component_reaches_what_it_needs_and_no_more(self, component: str, ports: set[int]) -> None:
        reached: set[int] = set()
        for file, policy in WRITTEN:
            if policy["kind"] != "NetworkPolicy" or "kind" in file.parts:
                continue
            selector = policy["spec"]["podSelector"]
            only = selector.get("matchLabels", {}).get(COMPONENT)
            among = [value for each in selector.get("matchExpressions", ()) for value in each["values"]]
            if (only is None or only == component) and (not among or component in among):
                reached |= {port["port"] for rule in policy["spec"].get("egress", ()) for port in rule["ports"]}
        assert reached == ports

    def test_only_metrics_can_be_asked_for(self) -> None:
        open_to = {
            (policy["metadata"]["name"], port["port"])
            for file, policy in WRITTEN
            if policy["kind"] == "NetworkPolicy" and "kind" not in file.parts
            for rule in policy["spec"].get("ingress", ())
            for port in rule["ports"]
        }
        assert open_to == {("siorg-operator", 8080), ("siorg-worker", 9090)}


class TestSettings:
    """Variables in manifests are ones that somebody reads."""

    def test_the_operator_starts_with_those_of_its_deployment(self) -> None:
        operator = next(pod for file, _, pod in PODS if file == "base/operator.yaml")
        variables = {each["name"]: each.get("value", "siorg") for each in operator["spec"]["containers"][0]["env"]}
        settings = OperatorSettings.from_environment(variables)
        assert settings.namespace == "siorg"
        assert settings.job_image == "registry.example/siorg-job:0.1.0"
        assert settings.leader_election

    def test_a_worker_of_the_deployment_overlay_starts_with_its_own(self) -> None:
        shared = next(body["data"] for _, body in WRITTEN if body["kind"] == "ConfigMap")
        worker = next(pod for file, _, pod in PODS if file == "overlays/deployment/worker.yaml")
        container = worker["spec"]["containers"][0]
        own = {each["name"]: each["value"] for each in container["env"] if "value" in each}
        settings = Settings.from_environment({**shared, **own, "DATABASE_URL": "postgresql://siorg@database/siorg"})
        grace = worker["spec"]["terminationGracePeriodSeconds"]
        assert settings.worker_shutdown_grace_secs < grace
        assert container["ports"] == [{"name": "metrics", "containerPort": settings.worker_metrics_port}]


class TestRendered:
    """What kustomize makes of it."""

    def test_namespace_and_images_reach_everything(self) -> None:
        operator, job = "harbor.example:5000/siorg/operator:1.2.3", f"harbor.example/job@sha256:{'a' * 64}"
        bodies = rendered("namespace", "base", "migrate", "tools", NAMESPACE="other", OPERATOR_IMAGE=operator, JOB_IMAGE=job)
        text = str(bodies)
        assert "registry.example" not in text
        for body in bodies:
            if body["kind"] in ("CustomResourceDefinition", "ClusterRole"):
                assert "namespace" not in body["metadata"]
            elif body["kind"] == "Namespace":
                assert body["metadata"]["name"] == "other"
            else:
                assert body["metadata"]["namespace"] == "other"
        binding = next(body for body in bodies if body["kind"] == "RoleBinding")
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "siorg-operator", "namespace": "other"}]
        deployment = next(body for body in bodies if body["kind"] == "Deployment")
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        assert container["image"] == operator
        assert {"name": "SIORG_OPERATOR_JOB_IMAGE", "value": job} in container["env"]

    @pytest.mark.parametrize(
        ("image", "expected"),
        [("a", "a:latest"), ("a/b:1", "a/b:1"), ("localhost:5000/a", "localhost:5000/a:latest"), ("h:1/a:2", "h:1/a:2")],
    )
    def test_an_image_is_taken_apart_where_its_tag_begins(self, image: str, expected: str) -> None:
        migrate = rendered("migrate", JOB_IMAGE=image)[0]
        assert migrate["spec"]["template"]["spec"]["containers"][0]["image"] == expected

    def test_the_operators_rules_can_be_a_cluster_role_that_is_bound_in_the_namespace_only(self) -> None:
        bodies = rendered("base", "components/cluster-role")
        assert not [body for body in bodies if body["kind"] in ("Role", "ClusterRoleBinding")]
        role = next(body for body in bodies if body["kind"] == "ClusterRole" and body["metadata"]["name"] == "siorg-operator")
        assert role["rules"] == next(body for body in rendered("base") if body["kind"] == "Role")["rules"]
        binding = next(body for body in bodies if body["kind"] == "RoleBinding")
        assert binding["roleRef"]["kind"] == "ClusterRole"

    @pytest.mark.parametrize("folder", [each for each in FOLDERS if not each.startswith("components/")])
    def test_each_kustomization_can_be_made(self, folder: str) -> None:
        bodies = rendered(folder)
        names = [(body["kind"], body["metadata"]["name"]) for body in bodies]
        assert names
        assert len(names) == len(set(names))

    def test_the_kind_overlay_takes_the_images_that_kind_test_builds(self) -> None:
        images = {
            container["image"]
            for body in rendered("overlays/kind")
            if (pod := pod_of(body)) is not None
            for container in pod["spec"]["containers"]
        }
        script = (Path(__file__).parents[2] / "e2e" / "kind-test").read_text(encoding="utf-8")
        built = set(re.findall(r"E2E_\w+_IMAGE=(\S+)", script))
        assert images == built | {"docker.io/library/postgres:17"}


class TestRender:
    """``manifests/render`` refuses at the door what kustomize would make nonsense of."""

    @pytest.mark.parametrize(
        ("variables", "told"),
        [
            ({"NAMESPACE": "Bad Name"}, "NAMESPACE is no namespace"),
            ({"NAMESPACE": "a'b"}, "NAMESPACE is no namespace"),
            ({"NAMESPACE": "a" * 64}, "NAMESPACE is no namespace"),
            ({"OPERATOR_IMAGE": "a b"}, "OPERATOR_IMAGE is no image"),
            ({"JOB_IMAGE": ":1"}, "JOB_IMAGE is no image"),
            ({"JOB_IMAGE": 'a"b'}, "JOB_IMAGE is no image"),
            ({"JOB_IMAGE": "a@sha256:12"}, "JOB_IMAGE is no image"),
        ],
    )
    def test_what_is_no_name_is_refused_by_its_variable(self, variables: dict[str, str], told: str) -> None:
        done = render("base", **variables)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"manifests/render: {told}")

    def test_a_folder_that_is_none_is_named(self) -> None:
        assert "there is no manifests/nowhere/kustomization.yaml" in render("base", "nowhere").stderr

    def test_images_of_the_kind_overlay_are_its_own(self) -> None:
        assert render("overlays/kind", JOB_IMAGE="a/b:1").returncode == 2

    def test_without_a_folder_it_says_how_it_is_used(self) -> None:
        done = render()
        assert done.returncode == 2
        assert "manifests/render base" in done.stderr

    @pytest.mark.parametrize("name", ["123", "on", "null"])
    def test_a_namespace_that_looks_like_something_else_stays_a_name(self, name: str) -> None:
        assert rendered("migrate", NAMESPACE=name)[0]["metadata"]["namespace"] == name

    @pytest.mark.parametrize("folder", ["base/", "./base", "manifests/base"])
    def test_a_folder_can_be_written_in_more_than_one_way(self, folder: str) -> None:
        assert rendered(folder, JOB_IMAGE="a/b:1") == rendered("base", JOB_IMAGE="a/b:1")

    def test_it_leaves_nothing_behind(self) -> None:
        needs_kustomize()
        with subprocess.Popen([MANIFESTS / "render", "tools"], stdout=subprocess.DEVNULL) as process:
            assert process.wait(60) == 0
        assert not list(MANIFESTS.glob(f".render.{process.pid}.*"))
