"""The Helm chart installs what manifests/ does; each value changes what it names and nothing else; wrong ones are refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import pytest
import yaml

from kube_double.patches import merge_patch
from siorg_operator.api.resource import parse
from siorg_operator.settings import OperatorSettings
from support.rendered import Body, needs_kustomize, rendered
from support.rows import holds_for
from support.siorg_server import REPOSITORY

VERSION: Final = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
IMAGES: Final = {
    "OPERATOR_IMAGE": f"registry.example/siorg-operator:{VERSION}",
    "JOB_IMAGE": f"registry.example/siorg-job:{VERSION}",
}
OF_HELM: Final = {"app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": f"siorg-sync-{VERSION}"}
ABSENT: Final = object()
OPERATOR: Final = "Deployment/siorg-operator: spec"
POD: Final = f"{OPERATOR}.template.spec"
CONTAINER: Final = f"{POD}.containers[0]"
MIGRATION: Final = "Job/siorg-migrate: spec.template.spec"
DATABASE: Final = "NetworkPolicy/siorg-names-and-database: spec.egress[1]"
HTTPS: Final = "NetworkPolicy/siorg-https: spec.egress[0]"
API_SERVER: Final = "NetworkPolicy/siorg-operator: spec.egress[0]"
DIGEST: Final = "sha256:" + "0" * 64
WORKER: Final[Body] = {
    "database": {"urlSecretRef": {"name": "siorg-database", "key": "DATABASE_URL"}},
    "siorg": {"url": "https://api.siorg.gov.br"},
    "discovery": {"organizations": [471, 2_147_483_647]},
}
EVERYTHING: Final[Body] = {"migrate": {"enabled": True}, "monitoring": {"enabled": True}, "workers": {"siorg": WORKER}}
NAMESPACE: Final = "some-namespace"
PATH: Final = os.pathsep.join((os.environ.get("PATH", ""), str(REPOSITORY / ".venv" / "bin")))
KUBERNETES: Final = "1.30.0"  # a helm that was built with `go install` believes that the cluster has 1.20


class HelmError(AssertionError):
    """helm did not end with 0; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart in a folder or an archive; ``home`` is where helm keeps its own files. No cluster is asked."""

    path: Path
    home: Path

    @classmethod
    def made(cls, folder: Path) -> Chart:
        """The chart as ``make chart`` makes it, within ``folder``."""
        run([sys.executable, str(REPOSITORY / "chart" / "make_chart.py"), str(folder / "chart")], {})
        return cls(folder / "chart", folder / "helm")

    def helm(self, *arguments: str) -> str:
        homes = {f"HELM_{name}_HOME": str(self.home) for name in ("CACHE", "CONFIG", "DATA")}
        return run(["helm", *arguments], {**homes, "KUBECONFIG": os.devnull})

    def objects(self, values: Body | None = None) -> list[Body]:
        """Every object but the CRD that would be installed with these values on top of the defaults; None: with those alone."""
        file = self.home / "values.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(values or {}))
        text = self.helm(
            "template", "some-release", str(self.path), "--namespace", NAMESPACE, "--kube-version", KUBERNETES,
            "--values", str(file),
        )  # fmt: skip
        return [body for body in yaml.safe_load_all(text) if body]

    def definition(self) -> Body:
        found: Body = yaml.safe_load(self.helm("show", "crds", str(self.path)))
        return found


def run(command: list[str], more: dict[str, str]) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HELM_")} | {"PATH": PATH, **more}
    program = shutil.which(command[0], path=PATH)
    assert program is not None, command[0]
    done = subprocess.run([program, *command[1:]], env=environment, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise HelmError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}{done.stdout}")
    return done.stdout


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Chart:
    needs_kustomize()
    if shutil.which("helm", path=PATH) is None:
        pytest.skip("helm is not installed; `make tools` builds it where Go is")
    return Chart.made(tmp_path_factory.mktemp("chart"))


@pytest.fixture(scope="module")
def everything(chart: Chart) -> dict[str, Any]:
    """Every value within every object that there can be, by its path."""
    return flat(chart.objects(EVERYTHING))


def of_helm(body: Body) -> Body:
    """Takes Helm's own labels and annotations off an object; those that were there."""
    metadata = body["metadata"]
    labels, annotations = metadata.get("labels", {}), metadata.get("annotations", {})
    found = {name: labels.pop(name, None) for name in ("app.kubernetes.io/managed-by", "helm.sh/chart")}
    found |= {name: annotations.pop(name) for name in list(annotations) if name.startswith("helm.sh/")}
    if not annotations:
        metadata.pop("annotations", None)
    return found


def named(bodies: list[Body]) -> dict[str, Body]:
    found = {f"{body['kind']}/{body['metadata']['name']}": body for body in bodies}
    assert len(found) == len(bodies)
    return found


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value within, by its path; an empty map or list is one too."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{number}]")
    else:
        yield path, value


def flat(bodies: list[Body]) -> dict[str, Any]:
    return {path.replace(": .", ": "): leaf for name, body in named(bodies).items() for path, leaf in leaves(body, f"{name}: ")}


def over(below: Body, above: Body) -> Body:
    """Both, with ``above`` over ``below``, as Helm does it."""
    both = {**below, **above}
    return {
        key: over(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
        for key, value in both.items()
    }


def at(path: str, value: Any) -> Body:
    """Values of which one, ``a.b.c``, is set."""
    for step in reversed(path.split(".")):
        value = {step: value}
    assert isinstance(value, dict)
    return value


# -- the same as manifests/ -------------------------------------------------------------------------------------------


def test_helm_finds_nothing_to_complain_about(chart: Chart) -> None:
    assert "0 chart(s) failed" in chart.helm("lint", "--strict", str(chart.path))


def test_its_version_is_that_of_the_project(chart: Chart) -> None:
    told = yaml.safe_load((chart.path / "Chart.yaml").read_text())
    assert (told["version"], told["appVersion"]) == (VERSION, VERSION)


def test_the_defaults_install_what_the_base_does(chart: Chart) -> None:
    objects = chart.objects()
    for body in objects:
        assert of_helm(body) == OF_HELM
    assert named([*objects, chart.definition()]) == named(rendered("base", NAMESPACE=NAMESPACE, **IMAGES))


def test_with_everything_it_installs_what_the_other_folders_do(chart: Chart) -> None:
    objects = named(chart.objects(EVERYTHING))
    assert of_helm(objects["Job/siorg-migrate"]) == {
        **OF_HELM,
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-delete-policy": "before-hook-creation",
    }
    for body in objects.values():
        of_helm(body)
    worker = objects.pop("SiorgSyncWorker/siorg")
    objects |= named([chart.definition()])
    assert objects == named(rendered("base", "migrate", "components/monitoring", NAMESPACE=NAMESPACE, **IMAGES))
    assert worker["metadata"] == {"name": "siorg", "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": "siorg-sync"}}
    assert worker["spec"] == WORKER
    worker["metadata"] |= {"uid": "0", "generation": 1}
    parse(worker)


def test_it_asks_for_the_kubernetes_that_the_documents_name(chart: Chart) -> None:
    told = yaml.safe_load((chart.path / "Chart.yaml").read_text())["kubeVersion"]
    named = re.search(r"Kubernetes cluster of version (\d+\.\d+) or later", (REPOSITORY / "docs" / "install.md").read_text())
    assert named is not None
    assert told == f">={named[1]}.0-0"


def test_each_object_is_valid_to_the_last_field(chart: Chart) -> None:
    values = over(EVERYTHING, {})
    for name, value, _ in EFFECTS:
        values = over(values, at(name, value))
    objects = [body for body in chart.objects(values) if not body["apiVersion"].startswith(("siorg.", "monitoring."))]
    assert objects
    for body in objects:
        kubernetes_validate.validate(body, "1.36", strict=True)


# -- what each value does ---------------------------------------------------------------------------------------------

BOTH_PODS: Final = (POD, MIGRATION)

EFFECTS: Final[tuple[tuple[str, Any, Body], ...]] = (
    ("operator.image.repository", "harbor.example:5000/a/b", {f"{CONTAINER}.image": f"harbor.example:5000/a/b:{VERSION}"}),
    ("operator.image.tag", f"1@{DIGEST}", {f"{CONTAINER}.image": f"registry.example/siorg-operator:1@{DIGEST}"}),
    ("job.image.repository", "other/job", {
        f"{CONTAINER}.env[0].value": f"other/job:{VERSION}", f"{MIGRATION}.containers[0].image": f"other/job:{VERSION}",
    }),
    ("job.image.tag", "1", {
        f"{CONTAINER}.env[0].value": "registry.example/siorg-job:1",
        f"{MIGRATION}.containers[0].image": "registry.example/siorg-job:1",
    }),
    ("operator.replicas", 3, {f"{OPERATOR}.replicas": 3}),
    ("operator.resources", {"requests": {"memory": "1Gi"}, "limits": {"cpu": 2}}, {
        f"{CONTAINER}.resources.requests.memory": "1Gi", f"{CONTAINER}.resources.limits.cpu": 2,
    }),
    ("operator.settings", {"LOG_LEVEL": "debug", "STUCK_GRACE_SECS": 60}, {
        f"{CONTAINER}.env[3].name": "SIORG_OPERATOR_LOG_LEVEL", f"{CONTAINER}.env[3].value": "debug",
        f"{CONTAINER}.env[4].name": "SIORG_OPERATOR_STUCK_GRACE_SECS", f"{CONTAINER}.env[4].value": "60",
    }),
    ("imagePullSecrets", [{"name": "registry"}], {f"{pod}.imagePullSecrets[0].name": "registry" for pod in BOTH_PODS}),
    ("nodeSelector", {"kubernetes.io/arch": "arm64"}, {f"{pod}.nodeSelector.kubernetes.io/arch": "arm64" for pod in BOTH_PODS}),
    ("tolerations", [{"operator": "Exists"}], {f"{pod}.tolerations[0].operator": "Exists" for pod in BOTH_PODS}),
    ("priorityClassName", "high", {f"{pod}.priorityClassName": "high" for pod in BOTH_PODS}),
    ("serviceAccount.annotations", {"a/b": "true"}, {"ServiceAccount/siorg-operator: metadata.annotations.a/b": "true"}),
    ("networkPolicies.ports.database", [5433], {
        f"{DATABASE}.ports[0].port": 5433, f"{DATABASE}.ports[1].port": ABSENT, f"{DATABASE}.ports[1].protocol": ABSENT,
    }),
    ("networkPolicies.ports.siorg", [443, 3128], {f"{HTTPS}.ports[1].port": 3128, f"{HTTPS}.ports[1].protocol": "TCP"}),
    ("networkPolicies.ports.apiServer", [443, 16443], {f"{API_SERVER}.ports[1].port": 16443}),
    ("monitoring.labels", {"release": "prometheus"}, {
        f"{name}: metadata.labels.release": "prometheus"
        for name in ("PodMonitor/siorg-operator", "PodMonitor/siorg-worker", "PrometheusRule/siorg-operator",
                     "PrometheusRule/siorg-sync")
    }),
    ("migrate.databaseSecret.name", "owner", {f"{MIGRATION}.containers[0].env[0].valueFrom.secretKeyRef.name": "owner"}),
    ("migrate.databaseSecret.key", "URL", {f"{MIGRATION}.containers[0].env[0].valueFrom.secretKeyRef.key": "URL"}),
)  # fmt: skip

POLICIES: Final = {f"NetworkPolicy/siorg-{name}" for name in ("default-deny", "https", "names-and-database", "operator")}
WATCHED: Final = {
    *(f"PodMonitor/siorg-{name}" for name in ("operator", "worker")),
    *(f"PrometheusRule/siorg-{name}" for name in ("operator", "sync")),
    "ConfigMap/siorg-dashboard",
}

SWITCHES: Final[tuple[tuple[str, Any, set[str]], ...]] = (
    ("networkPolicies.enabled", False, POLICIES),
    ("podDisruptionBudget.enabled", False, {"PodDisruptionBudget/siorg-operator"}),
    ("aggregatedRoles.enabled", False, {"ClusterRole/siorgsyncworkers-view", "ClusterRole/siorgsyncworkers-edit"}),
    ("monitoring.enabled", True, WATCHED),
    ("migrate.enabled", True, {"Job/siorg-migrate"}),
    ("workers", {"a": WORKER, "b": WORKER}, {"SiorgSyncWorker/a", "SiorgSyncWorker/b"}),
)


def test_a_value_changes_what_it_names_and_nothing_else(chart: Chart, everything: dict[str, Any]) -> None:
    def check(row: tuple[str, Any, Body]) -> None:
        name, value, effect = row
        before, after = everything, flat(chart.objects(over(EVERYTHING, at(name, value))))
        changed = {path for path in {**before, **after} if before.get(path, ABSENT) != after.get(path, ABSENT)}
        assert {path: after.get(path, ABSENT) for path in changed} == effect

    holds_for(EFFECTS, check)


def test_a_switch_adds_or_leaves_out_whole_objects(chart: Chart) -> None:
    before = named(chart.objects())

    def check(row: tuple[str, Any, set[str]]) -> None:
        name, value, objects = row
        after = named(chart.objects(at(name, value)))
        assert before.keys() ^ after.keys() == objects
        both = before.keys() & after.keys()
        assert {key: before[key] for key in both} == {key: after[key] for key in both}

    holds_for(SWITCHES, check)


def schema(chart: Chart) -> Body:
    found: Body = json.loads((chart.path / "values.schema.json").read_text())
    return found


def declared(part: Body, whole: Body, path: str = "") -> Iterator[str]:
    """Every value of the schema; a map with names of one's own, and one of settings, counts as one."""
    if "$ref" in part:
        part = whole["definitions"][part["$ref"].rpartition("/")[2]]
    if "properties" not in part or path in {".operator.settings", ".operator.resources"}:
        yield path.removeprefix(".")
        return
    for name, inner in part["properties"].items():
        yield from declared(inner, whole, f"{path}.{name}")


def test_no_value_is_without_effect(chart: Chart) -> None:
    whole = schema(chart)
    assert {*declared(whole, whole)} - {"global"} == {name for name, _, _ in (*EFFECTS, *SWITCHES)}


def test_every_default_stands_in_the_values(chart: Chart) -> None:
    whole, values = schema(chart), yaml.safe_load((chart.path / "values.yaml").read_text())
    for name in {*declared(whole, whole)} - {"global"}:
        found = values
        for step in name.split("."):
            found = found[step]


def test_the_settings_are_those_of_the_operator(chart: Chart) -> None:
    defaults = {
        name: one["default"]
        for name, one in schema(chart)["properties"]["operator"]["properties"]["settings"]["properties"].items()
    }
    (operator,) = (body for body in chart.objects({"operator": {"settings": defaults}}) if body["kind"] == "Deployment")
    entries = operator["spec"]["template"]["spec"]["containers"][0]["env"]
    environ = {one["name"]: one.get("value", "from-the-pod") for one in entries}
    assert len(environ) == len(entries) == len(defaults) + 3  # NAMESPACE, IDENTITY, JOB_IMAGE
    settings = OperatorSettings.from_environment(environ)
    assert {name: getattr(settings, name.lower()) for name in defaults} == defaults


# -- what is refused --------------------------------------------------------------------------------------------------

WRONG: Final[tuple[tuple[str, Any, str], ...]] = (
    ("replicas", 3, ""),
    ("operator.replica", 3, "/operator"),
    ("operator.replicas", 0, "/operator/replicas"),
    ("operator.replicas", "2", "/operator/replicas"),
    ("operator.replicas", None, "/operator"),
    ("operator.image", "registry.example/siorg-operator:0.1.0", "/operator/image"),
    ("operator.image.repository", "registry.example/siorg-operator:0.1.0", "/operator/image/repository"),
    ("operator.image.tag", 0.1, "/operator/image/tag"),
    ("job.image.tag", "a b", "/job/image/tag"),
    ("operator.resources", {"cpu": 1}, "/operator/resources"),
    ("operator.resources.limits.memory", "1 GB", "/operator/resources/limits/memory"),
    ("operator.settings.LOG_LEVEL", "loud", "/operator/settings/LOG_LEVEL"),
    ("operator.settings.SIORG_OPERATOR_LOG_LEVEL", "debug", "/operator/settings"),
    ("operator.settings.LEASE_NAME", "other", "/operator/settings"),
    ("operator.settings.LEASE_SECS", 601, "/operator/settings/LEASE_SECS"),
    ("imagePullSecrets", ["registry"], "/imagePullSecrets/0"),
    ("nodeSelector", {"a": True}, "/nodeSelector/a"),
    ("tolerations", [{"effect": "NoRun"}], "/tolerations/0/effect"),
    ("priorityClassName", "Very High", "/priorityClassName"),
    ("serviceAccount.annotations", {"a": 1}, "/serviceAccount/annotations/a"),
    ("networkPolicies.enabled", "no", "/networkPolicies/enabled"),
    ("networkPolicies.enabled", None, "/networkPolicies"),
    ("networkPolicies.ports.database", [65_536], "/networkPolicies/ports/database/0"),
    ("networkPolicies.ports.database", ["5432"], "/networkPolicies/ports/database/0"),
    ("networkPolicies.ports.siorg", [], "/networkPolicies/ports/siorg"),
    ("networkPolicies.ports.siorg", None, "/networkPolicies/ports"),
    ("monitoring.labels", {"release": 1}, "/monitoring/labels/release"),
    ("migrate.databaseSecret.name", "", "/migrate/databaseSecret/name"),
    ("migrate.databaseSecret.url", "postgresql://", "/migrate/databaseSecret"),
    ("workers", {"Siorg": {}}, "/workers"),
    ("workers", {"siorg": []}, "/workers/siorg"),
)
"""Values that are refused, each with the place that is blamed."""


def test_a_wrong_value_is_refused_where_it_stands(chart: Chart) -> None:
    validator, values = jsonschema.Draft7Validator(schema(chart)), yaml.safe_load((chart.path / "values.yaml").read_text())
    assert not list(validator.iter_errors(values))

    def check(row: tuple[str, Any, str]) -> None:
        name, value, where = row
        given = merge_patch(values, at(name, value))  # as helm does it: null takes a default away
        blamed = {"".join(f"/{step}" for step in error.absolute_path) for error in validator.iter_errors(given)}
        assert blamed == {where}

    holds_for(WRONG, check)


def test_helm_holds_values_to_the_schema(chart: Chart) -> None:
    with pytest.raises(HelmError, match="at '/operator/replicas': minimum: got 0, want 1"):
        chart.objects(at("operator.replicas", 0))
    with pytest.raises(HelmError, match="at '/operator': missing property 'replicas'"):
        chart.objects(at("operator.replicas", None))


# -- as it is given to others -----------------------------------------------------------------------------------------


def test_it_can_be_packed_and_used_from_the_archive(chart: Chart, tmp_path: Path) -> None:
    chart.helm("package", str(chart.path), "--destination", str(tmp_path))
    packed = Chart(tmp_path / f"siorg-sync-{VERSION}.tgz", tmp_path / "helm")
    assert packed.objects(EVERYTHING) == chart.objects(EVERYTHING)
    assert packed.definition() == chart.definition()


def test_it_can_be_a_part_of_another_chart(chart: Chart, tmp_path: Path) -> None:
    (tmp_path / "Chart.yaml").write_text('{"apiVersion": "v2", "name": "all-of-ours", "version": "1.0.0"}')
    shutil.copytree(chart.path, tmp_path / "charts" / "siorg-sync")
    whole = Chart(tmp_path, tmp_path / "helm")
    (operator,) = (each for each in whole.objects({"siorg-sync": {"operator": {"replicas": 5}}}) if each["kind"] == "Deployment")
    assert operator["spec"]["replicas"] == 5


def test_making_it_again_leaves_nothing_of_the_older_one(chart: Chart, tmp_path: Path) -> None:
    (tmp_path / "chart" / "templates").mkdir(parents=True)
    (tmp_path / "chart" / "templates" / "old.yaml").write_text("{{ fail }}")
    assert Chart.made(tmp_path).objects() == chart.objects()
