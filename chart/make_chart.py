"""Writes the Helm chart: the objects of manifests/, with holes in them for values, and what else stands in this folder.

    .venv/bin/python chart/make_chart.py dist/chart

No template is written by hand, so chart and manifests can not drift apart. Needs kustomize or kubectl, as manifests/render does.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import yaml

from siorg_operator.api.resource import API_VERSION, KIND
from siorg_operator.settings import OperatorSettings

Body = dict[str, Any]

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent

_STAND_INS: Final = {
    "NAMESPACE": ("helm-namespace", "{{ .Release.Namespace | quote }}"),
    "OPERATOR_IMAGE": (
        "helm.invalid/operator:0",
        "{{ .Values.operator.image.repository }}:{{ .Values.operator.image.tag | default .Chart.AppVersion }}",
    ),
    "JOB_IMAGE": (
        "helm.invalid/job:0",
        "{{ .Values.job.image.repository }}:{{ .Values.job.image.tag | default .Chart.AppVersion }}",
    ),
}
"""What manifests/render is told, and what the template has in its place."""

_ONLY_WITH: Final = {
    "ClusterRole": "aggregatedRoles",
    "NetworkPolicy": "networkPolicies",
    "PodDisruptionBudget": "podDisruptionBudget",
    "ConfigMap": "monitoring",
    "PodMonitor": "monitoring",
    "PrometheusRule": "monitoring",
    "Job": "migrate",
}
"""Of each kind that can be left out: the value whose `enabled` says whether it is there."""

_PORTS: Final = {("siorg-names-and-database", 1): "database", ("siorg-https", 0): "siorg", ("siorg-operator", 0): "apiServer"}
"""Of a policy and the number of its egress rule: the list under networkPolicies.ports."""

_FIXED_SETTINGS: Final = frozenset({"namespace", "identity", "job_image", "leader_election", "lease_name", "http_port"})
"""Settings that other objects of the chart rely on."""


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as such, nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _yaml(body: Any) -> str:
    return yaml.dump(body, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000_000)


class Holes:
    """Pieces of template within an object: words while the object is written as YAML, and then what they stand for."""

    def __init__(self) -> None:
        """None yet."""
        self._pieces: list[str] = []

    def word(self, piece: str) -> str:
        """A value for which ``piece`` will stand; as an entry of a list it may have several lines."""
        self._pieces.append(piece)
        return f"hole{len(self._pieces) - 1}hole"

    def optional(self, body: Body, key: str, value: str) -> None:
        """``key`` with that value, where it is not empty."""
        body[self.word(f"{{{{- with {value} }}}}\n{key}: {{{{ toJson . }}}}\n{{{{- end }}}}")] = None

    def template(self, body: Body) -> str:
        """The object as a template. Braces of its own (Prometheus' and Grafana's) come out as they are."""
        text = _yaml(body).replace("{{", '{{ "{{" }}')
        text = re.sub(r"^( *)(?:- )?hole(\d+)hole(?:: null)?$", self._lines, text, flags=re.MULTILINE)
        return re.sub(r"hole(\d+)hole", lambda found: self._pieces[int(found[1])], text)

    def _lines(self, found: re.Match[str]) -> str:
        return "\n".join(found[1] + line for line in self._pieces[int(found[2])].split("\n"))


def rendered() -> list[Body]:
    """What manifests/ comes to, with our stand-ins."""
    environment = os.environ | {name: stand_in for name, (stand_in, _) in _STAND_INS.items()}
    command = [str(ROOT / "manifests" / "render"), "base", "migrate", "components/monitoring"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [body for body in yaml.safe_load_all(done.stdout) if body]


def template(body: Body) -> str:
    """The template of one object."""
    holes = Holes()
    body = _with_stand_ins(body, holes)
    kind = body["kind"]
    _of_helm(body, holes)
    if kind == "Deployment":
        _operator(body["spec"], holes)
    elif kind == "Job":
        _migration(body, holes)
    elif kind == "NetworkPolicy":
        _policy(body, holes)
    elif kind == "ServiceAccount":
        holes.optional(body["metadata"], "annotations", ".Values.serviceAccount.annotations")
    elif kind in {"PodMonitor", "PrometheusRule"}:
        piece = "{{- range $name, $value := .Values.monitoring.labels }}\n{{ $name | quote }}: {{ $value | quote }}\n{{- end }}"
        body["metadata"]["labels"][holes.word(piece)] = None
    text = holes.template(body)
    return f"{{{{- if .Values.{_ONLY_WITH[kind]}.enabled }}}}\n{text}{{{{- end }}}}\n" if kind in _ONLY_WITH else text


def workers() -> str:
    """The template of the resources, one for each entry of ``workers``."""
    holes = Holes()
    body: Body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": holes.word("{{ $name | quote }}")}}
    body["metadata"] |= {
        "namespace": holes.word("{{ $.Release.Namespace | quote }}"),
        "labels": {"app.kubernetes.io/name": "siorg-sync"},
    }
    _of_helm(body, holes)
    # JSON: toYaml writes large numbers, such as codes of organizations, as 1.234567e+06
    body["spec"] = holes.word("{{ toJson $spec }}")
    return f"{{{{- range $name, $spec := .Values.workers }}}}\n---\n{holes.template(body)}{{{{- end }}}}\n"


def _with_stand_ins(value: Any, holes: Holes) -> Any:
    if isinstance(value, dict):
        return {key: _with_stand_ins(inner, holes) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_stand_ins(inner, holes) for inner in value]
    for stand_in, piece in _STAND_INS.values():
        if value == stand_in:
            return holes.word(piece)
    return value


def _of_helm(body: Body, holes: Holes) -> None:
    body["metadata"]["labels"] |= {
        "app.kubernetes.io/managed-by": holes.word("{{ $.Release.Service }}"),
        "helm.sh/chart": holes.word('{{ $.Chart.Name }}-{{ $.Chart.Version | replace "+" "_" }}'),
    }


def _operator(spec: Body, holes: Holes) -> None:
    spec["replicas"] = holes.word("{{ .Values.operator.replicas }}")
    (container,) = spec["template"]["spec"]["containers"]
    container["resources"] = holes.word("{{ toJson .Values.operator.resources }}")
    container["env"].append(
        holes.word(
            "{{- range $name, $value := .Values.operator.settings }}\n"
            "- name: SIORG_OPERATOR_{{ $name }}\n  value: {{ $value | quote }}\n{{- end }}"
        )
    )
    _pod(spec["template"]["spec"], holes)


def _migration(body: Body, holes: Holes) -> None:
    # Not deleted when it succeeds: its log can be read until ttlSecondsAfterFinished.
    body["metadata"]["annotations"] = {
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-delete-policy": "before-hook-creation",
    }
    pod = body["spec"]["template"]["spec"]
    (database,) = (one for one in pod["containers"][0]["env"] if one["name"] == "DATABASE_URL")
    database["valueFrom"]["secretKeyRef"] = {
        "name": holes.word("{{ .Values.migrate.databaseSecret.name | quote }}"),
        "key": holes.word("{{ .Values.migrate.databaseSecret.key | quote }}"),
    }
    _pod(pod, holes)


def _pod(spec: Body, holes: Holes) -> None:
    for key in ("imagePullSecrets", "nodeSelector", "tolerations", "priorityClassName"):
        holes.optional(spec, key, f".Values.{key}")


def _policy(body: Body, holes: Holes) -> None:
    for number, rule in enumerate(body["spec"].get("egress", ())):
        if ports := _PORTS.get((body["metadata"]["name"], number)):
            piece = (
                f"{{{{- range .Values.networkPolicies.ports.{ports} }}}}\n- protocol: TCP\n  port: {{{{ . }}}}\n{{{{- end }}}}"
            )
            rule["ports"] = [holes.word(piece)]


def schema() -> Body:
    """The schema of the values, with the operator's settings in it."""
    whole: Body = json.loads((HERE / "values.schema.json").read_text(encoding="utf-8"))
    settings = whole["properties"]["operator"]["properties"]["settings"]["properties"]
    for one in dataclasses.fields(OperatorSettings):
        if one.name not in _FIXED_SETTINGS:
            settings[one.name.upper()] = {
                "description": one.metadata["meaning"], "default": one.default, **one.metadata["kind"].schema
            }  # fmt: skip
    return whole


def chart() -> Body:
    """Chart.yaml, with the version of the project."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return {**yaml.safe_load((HERE / "Chart.yaml").read_text(encoding="utf-8")), "version": version, "appVersion": version}


def write(folder: Path) -> None:
    """Make the chart anew in ``folder``; what was there of an older one goes."""
    for name in ("templates", "crds"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    (folder / "Chart.yaml").write_text(_yaml(chart()), encoding="utf-8")
    (folder / "values.schema.json").write_text(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for name in ("values.yaml", "templates/NOTES.txt"):
        shutil.copyfile(HERE / name, folder / name)
    for body in rendered():
        kind, name = body["kind"].lower(), body["metadata"]["name"]
        if kind == "customresourcedefinition":
            (folder / "crds" / f"{name}.yaml").write_text(_yaml(body), encoding="utf-8")
        else:
            (folder / "templates" / f"{kind}-{name}.yaml").write_text(template(body), encoding="utf-8")
    (folder / "templates" / f"{KIND.lower()}s.yaml").write_text(workers(), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_chart.py FOLDER")
    try:
        write(Path(sys.argv[1]))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # manifests/render said why
