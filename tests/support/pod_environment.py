"""What a container finds in its environment, as a kubelet makes it from the pod and its Secrets."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from support.kube import Body, Kube


class ConfigError(Exception):
    """The environment cannot be made: CreateContainerConfigError with this message."""


def environment(kube: Kube, body: Body, container: Body, node: str) -> dict[str, str]:
    """The container's own variables.

    Raises:
        ConfigError: A Secret or a key of one is missing.
        ApiError: The API cannot say.
    """
    found: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        for kind, resource in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
            if kind in source:
                values = _values(kube, body, resource, source[kind], optional=bool(source[kind].get("optional")))
                found |= {source.get("prefix", "") + key: value for key, value in values.items()}
    for variable in container.get("env") or ():
        value = _value(kube, body, variable, node)
        if value is not None:
            found[variable["name"]] = expand(value, found) if "value" in variable else value
    return found


def _value(kube: Kube, body: Body, variable: Body, node: str) -> str | None:
    source = variable.get("valueFrom")
    if source is None:
        return str(variable.get("value", ""))
    for kind, resource in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
        if kind in source:
            reference = source[kind]
            optional = bool(reference.get("optional"))
            values = _values(kube, body, resource, reference, optional=optional)
            if reference["key"] not in values:
                if optional:
                    return None
                what = "Secret" if resource == "secrets" else "ConfigMap"
                raise ConfigError(f"couldn't find key {reference['key']} in {what} {body['metadata']['namespace']}/"
                                   f"{reference['name']}")  # fmt: skip
            return values[reference["key"]]
    return _field(body, node, source["fieldRef"]["fieldPath"]) if "fieldRef" in source else ""


def _values(kube: Kube, body: Body, resource: str, reference: Body, *, optional: bool) -> dict[str, str]:
    found = kube.get(resource, reference["name"], body["metadata"]["namespace"])
    if found is None:
        if optional:
            return {}
        raise ConfigError(f'{resource.removesuffix("s")} "{reference["name"]}" not found')
    data: dict[str, str] = found.get("data") or {}
    if resource == "configmaps":
        return data
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def _field(body: Body, node: str, path: str) -> str:
    if (keyed := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)) is not None:
        return str((body["metadata"].get(keyed[1]) or {}).get(keyed[2], ""))
    known = {"spec.nodeName": node, "status.hostIP": "127.0.0.1", "status.podIP": "127.0.0.1",
             "spec.serviceAccountName": body["spec"].get("serviceAccountName", "default")}  # fmt: skip
    if path in known:
        return str(known[path])
    value: Any = body
    for key in path.split("."):
        value = value.get(key, "") if isinstance(value, dict) else ""
    return str(value)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """``$(NAME)`` replaced by the variable, ``$$`` by a dollar; what is unknown stays."""
    return re.sub(
        r"\$\$|\$\(([^()]+)\)",
        lambda found: "$" if found[0] == "$$" else variables.get(found[1], found[0]),
        text,
    )
