"""``x-kubernetes-validations``: a custom resource's CEL rules, evaluated with celpy."""

from __future__ import annotations

from support.api_server.refused import Body, Fault
from support.api_server.structure import Schema


def rule_faults(schema: Schema, body: Body, old: Body | None, subresource: str) -> list[Fault]:
    return []
