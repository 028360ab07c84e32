"""What a container finds in its environment, as a kubelet makes it from the pod and its Secrets."""

from __future__ import annotations

import base64
import re
from typing import Any

from support.kube import Body, Kube


class ConfigError(Exception):
    """The environment cannot be made: CreateContainerConfigError with this message."""


def environment(kube: Kube, body: Body, container: Body) -> dict[str, str]:
    """The container's own variables.

    Raises:
        ConfigError: A Secret or a key of one is missing.
        ApiError: The API cannot say.
    """
    found: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        found |= {source.get("prefix", "") + key: value for key, value in _values(kube, body, source["secretRef"]).items()}
    for variable in container.get("env") or ():
        value, source = variable.get("value", ""), variable.get("valueFrom") or {}
        if "secretKeyRef" in source:
            reference = source["secretKeyRef"]
            value = _values(kube, body, reference).get(reference["key"])
            if value is None and not reference.get("optional"):
                where = f"{body['metadata']['namespace']}/{reference['name']}"
                raise ConfigError(f"couldn't find key {reference['key']} in Secret {where}")
        elif "fieldRef" in source:
            value = _field(body, source["fieldRef"]["fieldPath"])
        if value is not None:
            found[variable["name"]] = expand(str(value), found) if "value" in variable else str(value)
    return found


def _values(kube: Kube, body: Body, reference: Body) -> dict[str, str]:
    found = kube.get("secrets", reference["name"], body["metadata"]["namespace"])
    if found is None:
        if reference.get("optional"):
            return {}
        raise ConfigError(f'secret "{reference["name"]}" not found')
    return {key: base64.b64decode(value).decode() for key, value in (found.get("data") or {}).items()}


def _field(body: Any, path: str) -> Any:
    for key in path.split("."):
        body = body.get(key, "") if isinstance(body, dict) else ""
    return body


def expand(text: str, variables: dict[str, str]) -> str:
    """``$(NAME)`` replaced by the variable, ``$$`` by a dollar; what is unknown stays."""
    return re.sub(r"\$\$|\$\(([^()]+)\)", lambda found: "$" if found[0] == "$$" else variables.get(found[1], found[0]), text)
