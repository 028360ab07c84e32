"""Who may do what: RBAC's rules for bearer tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kube_double.errors import Body


@dataclass(frozen=True, slots=True)
class Rule:
    """A PolicyRule, in a namespace or (None) everywhere."""

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ("",)
    resources: tuple[str, ...] = ()
    """With the subresource, as ``jobs/status``; ``*`` for all."""
    names: tuple[str, ...] = ()
    """resourceNames; empty for all."""
    namespace: str | None = None

    def allows(self, verb: str, group: str, resource: str, namespace: str, name: str) -> bool:
        return (
            bool({verb, "*"} & set(self.verbs))
            and bool({group, "*"} & set(self.groups))
            and bool({resource, "*"} & set(self.resources))
            and (not self.names or name in self.names)
            and self.namespace in (None, namespace)
        )


Accounts = Mapping[str, Iterable[Rule]]
"""Rules by bearer token. The token is the service account's name, too."""


def rules_of(role: Body, namespace: str | None = None) -> list[Rule]:
    """The rules of a Role (``namespace`` given) or ClusterRole manifest."""
    return [
        Rule(tuple(rule["verbs"]), tuple(rule["apiGroups"]), tuple(rule["resources"]), tuple(rule.get("resourceNames") or ()),
             namespace)
        for rule in role["rules"]
    ]  # fmt: skip
