"""What ``manifests/`` promise: valid, restricted, closed to the network, and one place for each name."""

from __future__ import annotations

import re
from pathlib import Path

import kubernetes_validate
import pytest

from siorg_job.settings import Settings
from siorg_operator.control.run import GRACE_SECONDS
from siorg_operator.settings import OperatorSettings
from support.rendered import Body, pod_of, written
from support.rows import holds_for
from support.siorg_server import REPOSITORY

WRITTEN = list(written())
PODS = [(str(file), body["metadata"]["name"], pod) for file, body in WRITTEN if (pod := pod_of(body)) is not None]
VERSIONS = ("1.29", "1.33", "1.36")
"""Of Kubernetes: the oldest that docs/install.md names, and current ones."""
CLUSTER_KINDS = {"siorg.waterswamp.dev", "monitoring.coreos.com"}
SECRETS = {"siorg-database", "siorg-token"}
NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"


def labels_of(body: Body) -> dict[str, str]:
    labels: dict[str, str] = body["metadata"].get("labels", {})
    return labels


@pytest.mark.parametrize("version", VERSIONS)
def test_each_object_is_valid_to_the_last_field(version: str) -> None:
    def check(written: tuple[Path, Body]) -> None:
        body = {**written[1], "metadata": {**written[1]["metadata"]}}
        if body["kind"] == "RoleBinding":  # the namespace comes with the kustomization
            body["subjects"] = [{**subject, "namespace": "siorg"} for subject in body["subjects"]]
        kubernetes_validate.validate(body, version, strict=True)

    holds_for((each for each in WRITTEN if each[1]["apiVersion"].split("/")[0] not in CLUSTER_KINDS), check)


def is_somebody_elses_image(spec: Body) -> bool:
    """Whether its USER may be root, or a name: the kubelet sees from a number alone that it is not root."""
    return not all("/siorg-" in container["image"] for container in spec["containers"])


@pytest.mark.parametrize("program", ["job", "operator", "simulator"])
def test_the_images_name_a_user_by_its_number_who_is_not_root(program: str) -> None:
    dockerfile = (REPOSITORY / program / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == ["65532:65532"]


def test_each_pod_passes_pod_security_restricted_and_more() -> None:
    def check(named: tuple[str, str, Body]) -> None:
        spec = named[2]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        if not is_somebody_elses_image(spec):
            assert not {"runAsUser", "runAsGroup"} & spec["securityContext"].keys(), "OpenShift takes one of its own"
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

    holds_for(PODS, check)


def test_only_the_operator_has_a_token_and_secrets_have_the_documented_names() -> None:
    def check(named: tuple[str, str, Body]) -> None:
        pod = named[2]
        assert pod["spec"]["automountServiceAccountToken"] is (labels_of(pod)[COMPONENT] == "operator")
        assert pod["spec"]["enableServiceLinks"] is False
        variables = [variable for container in pod["spec"]["containers"] for variable in container.get("env", ())]
        references = [variable["valueFrom"].get("secretKeyRef") for variable in variables if "valueFrom" in variable]
        assert {reference["name"] for reference in references if reference} <= SECRETS

    holds_for(PODS, check)


def test_what_runs_for_ever_is_watched() -> None:
    def check(named: tuple[str, str, Body]) -> None:
        assert all({"livenessProbe", "readinessProbe"} & container.keys() for container in named[2]["spec"]["containers"])

    holds_for((each for each in PODS if each[2]["spec"].get("restartPolicy", "Always") == "Always"), check)


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
        there = {labels_of(pod)[COMPONENT] for _, _, pod in PODS} | {"drain", "cleanup", "discovery", "verification"}
        for policy in self.policies():
            selector = policy["spec"]["podSelector"]
            named = {selector.get("matchLabels", {}).get(COMPONENT)} - {None}
            named |= {value for each in selector.get("matchExpressions", ()) for value in each["values"]}
            assert named <= there, policy["metadata"]["name"]

    @pytest.mark.parametrize(
        ("component", "ports"),
        [
            ("operator", {53, 5353, 5432, 6432, 443, 6443}),
            ("drain", {53, 5353, 5432, 6432, 443}),
            ("discovery", {53, 5353, 5432, 6432, 443}),
            ("verification", {53, 5353, 5432, 6432, 443}),
            ("cleanup", {53, 5353, 5432, 6432}),  # asks nobody but the database
            ("migrate", {53, 5353, 5432, 6432}),
            ("tools", {53, 5353, 5432, 6432, 443}),
            ("worker", {53, 5353, 5432, 6432, 443}),
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
        assert operator["spec"]["terminationGracePeriodSeconds"] > GRACE_SECONDS

    def test_a_worker_of_the_deployment_overlay_starts_with_its_own(self) -> None:
        shared = next(body["data"] for _, body in WRITTEN if body["kind"] == "ConfigMap")
        worker = next(pod for file, _, pod in PODS if file == "overlays/deployment/worker.yaml")
        container = worker["spec"]["containers"][0]
        own = {each["name"]: each["value"] for each in container["env"] if "value" in each}
        settings = Settings.from_environment({**shared, **own, "DATABASE_URL": "postgresql://siorg@database/siorg"})
        grace = worker["spec"]["terminationGracePeriodSeconds"]
        assert settings.worker_shutdown_grace_secs < grace
        assert container["ports"] == [{"name": "metrics", "containerPort": settings.worker_metrics_port}]
