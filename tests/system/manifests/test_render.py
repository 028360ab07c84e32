"""What kustomize makes of ``manifests/``, and what ``manifests/render`` refuses at the door."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support.rendered import FOLDERS, MANIFESTS, needs_kustomize, pod_of, render, rendered


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

    def test_on_openshift_the_base_is_held_to_its_restricted_constraints_and_nothing_else_differs(self) -> None:
        base, openshift = (rendered(folder, JOB_IMAGE="a/b:1") for folder in ("base", "overlays/openshift"))
        deployment = next(body for body in openshift if body["kind"] == "Deployment")
        annotations = deployment["spec"]["template"]["metadata"]["annotations"]
        assert annotations.pop("openshift.io/required-scc") == "restricted-v2"
        assert openshift == base

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
