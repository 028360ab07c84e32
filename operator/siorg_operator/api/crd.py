"""The CustomResourceDefinition, made from the model: ``siorg-operator crd`` prints it, ``crds/`` holds what it printed."""

from __future__ import annotations

import json
from typing import Any, Final

import yaml

from siorg_operator.api.resource import GROUP, KIND, PLURAL, VERSION, SiorgSyncWorker
from siorg_operator.api.schema import Schema, structural

_FIRST_LINES: Final = """\
# Made from the models in operator/siorg_operator/api. To change it, change those, then:
#   siorg-operator crd > crds/siorgsyncworkers.yaml
"""

_COLUMNS: Final = (
    # name, type, where, meaning; what is wide is shown by kubectl get -o wide only
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Whether all is well.", 0),
    ("InSync", "string", '.status.conditions[?(@.type=="InSync")].status', "Whether the copy was in line when last verified.", 0),
    ("Depth", "integer", ".status.queue.claimable", "Items that a Job could claim now.", 0),
    ("Oldest", "integer", ".status.queue.oldestDueSeconds", "Age of the oldest due item in seconds.", 0),
    ("Active", "integer", ".status.jobs.active", "Jobs with a running pod.", 0),
    ("Max", "integer", ".spec.scaling.maxJobs", "Most Jobs at one time.", 0),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Why it is ready, or is not.", 0),
    ("Age", "date", ".metadata.creationTimestamp", "Since it was made.", 0),
    ("Mode", "string", ".spec.mode", "Active, or Observe.", 1),
    ("Failed", "integer", ".status.queue.failed", "Items given up.", 1),
    ("Conflicts", "integer", ".status.queue.conflict", "Items that a person has to decide.", 1),
    ("Held", "integer", ".status.queue.held", "Ends and overwrites beyond a limit, which wait for a person.", 1),
    ("Rate", "number", ".status.rate", "Items a second that one Job brings to an end.", 1),
    ("Decided", "date", ".status.lastDecision.time", "Since when the last decision has been as it is.", 1),
    ("Message", "string", ".status.lastDecision.message", "The last decision in one sentence.", 1),
)


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition of apiextensions.k8s.io/v1."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{PLURAL}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "siorg-sync", "app.kubernetes.io/component": "crd"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["ssw"],
                "categories": ["siorg"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.scaling.maxJobs",
                            "statusReplicasPath": ".status.jobs.active",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "description": meaning, "priority": priority}
                        for name, kind, path, meaning, priority in _COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": _schema()},
                }
            ],
        },
    }


def crd_yaml() -> str:
    """The same as YAML, with a comment that says how it is made."""
    copied = json.loads(json.dumps(crd()))  # no object stands in it twice: YAML would make an anchor of that
    return _FIRST_LINES + yaml.safe_dump(copied, sort_keys=False, allow_unicode=True, width=2**20)


def _schema() -> Schema:
    schema = structural(SiorgSyncWorker)
    parts = schema["properties"]
    name = parts["metadata"]["properties"]["name"]
    schema["properties"] = {
        "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
        "kind": {"type": "string", "description": KIND},
        # Of metadata, Kubernetes lets a schema limit the name and nothing else.
        "metadata": {"type": "object", "properties": {"name": name}},
        "spec": parts["spec"],
        "status": _without_defaults(parts["status"]),
    }
    schema["required"] = ["spec"]
    return schema


def _without_defaults(node: Any) -> Any:
    """The status as it was written, and nothing that reads like an observation where none was made."""
    if isinstance(node, dict):
        return {key: _without_defaults(inner) for key, inner in node.items() if key != "default"}
    return node
