"""The roles as they are shipped, right by right; and accounts of the test's cluster that have them, or all of one but some."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kube_double.authorizer import rules_of
from kube_double.observed_requests import Request
from support.cluster import Cluster
from support.fleet import eventually
from support.kube import Body, Kube
from support.siorg_server import REPOSITORY

BASE = REPOSITORY / "manifests" / "base"
OPERATOR = "siorg-operator"


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One verb on one resource: what a role gives, piece by piece."""

    resource: str
    """With the subresource, as ``jobs/status``."""
    verb: str
    group: str = ""
    name: str = ""
    """Of the one object that it is for; empty: any."""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"

    @property
    def refusal(self) -> str:
        """How the API server says that it is missing."""
        if self.resource.endswith("/finalizers"):
            return "cannot set blockOwnerDeletion"
        return f'cannot {self.verb} resource "{self.resource}"'

    def is_used_by(self, request: Request) -> bool:
        """Whether the request needed it. To apply what is not there yet is to create it, too.

        Finalizers are nothing that we ask for: the admission of what we own asks whether we might.
        """
        asked = f"{request.resource}/{request.subresource}" if request.subresource else request.resource
        verbs = {request.verb} | ({"create"} if request.verb == "patch" and request.status == 201 else set())
        if self.resource.endswith("/finalizers"):
            return "create" in verbs and request.status == 201 and request.group == "batch"
        fits = (request.group, asked) == (self.group, self.resource) and self.verb in verbs
        return fits and (not self.name or request.name == self.name)


def shipped(file: str, kind: str, name: str) -> Body:
    """An object of ``manifests/base``."""
    documents: Iterable[Body] = yaml.safe_load_all((BASE / file).read_text(encoding="utf-8"))
    (found,) = (body for body in documents if (body["kind"], body["metadata"]["name"]) == (kind, name))
    return found


def rights(role: Body) -> list[Right]:
    return sorted({
        Right(resource, verb, group, name)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames") or ("",)
    })  # fmt: skip


def without(role: Body, right: Right) -> Body:
    """The same role, but for one right."""
    left = [one for one in rights(role) if one != right]
    return {**role, "rules": [_rule(one) for one in left]}


def _rule(right: Right) -> Body:
    rule: Body = {"apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb]}
    return rule | ({"resourceNames": [right.name]} if right.name else {})


@dataclass(frozen=True, slots=True)
class Account:
    """A ServiceAccount of the test's namespace."""

    kubeconfig: Path
    user: str
    """As the API server names it."""


def account(cluster: Cluster, folder: Path, *roles: Body, name: str = OPERATOR) -> Account:
    """An account that has these roles (Roles, or ClusterRoles bound in the namespace), and nothing else.

    Args:
        cluster: its namespace is the account's.
        folder: for the kubeconfig.
        roles: what it may do.
        name: of the ServiceAccount.
    """
    user = f"system:serviceaccount:{cluster.namespace}:{name}"
    if cluster.server is None:
        return Account(_real(cluster, folder, roles, name), user)
    token = f"{cluster.namespace}:{name}"
    given = [rule for role in roles for rule in rules_of(role, cluster.namespace)]
    cluster.server.rules = {**(cluster.server.rules or {}), token: given}
    return Account(cluster.server.kubeconfig(folder, token=token, namespace=cluster.namespace), user)


def _real(cluster: Cluster, folder: Path, roles: Iterable[Body], name: str) -> Path:
    kube, place = cluster.kube, cluster.namespace
    kube.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": place}})
    for at, role in enumerate(roles):
        named = {"name": f"{name}-{at}", "namespace": place}
        kube.create({**role, "kind": "Role", "metadata": named})
        binding = shipped("role-binding.yaml", "RoleBinding", OPERATOR)
        kube.create({
            **binding, "metadata": named, "roleRef": {**binding["roleRef"], "name": named["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": place}],
        })  # fmt: skip
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = kube.request("POST", kube.path("serviceaccounts", place, name, "token"), asked)["status"]["token"]
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    context = next(one for one in config["contexts"] if one["name"] == config["current-context"])
    context["context"]["user"] = name
    config["users"] = [{"name": name, "user": {"token": token}}]
    path = folder / f"kubeconfig-{name}.yaml"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    wanted = [right for role in roles for right in rights(role)]
    asking = Kube(path, namespace=place)
    eventually(lambda: all(may(asking, right) for right in wanted))  # the authorizer hears of a role some time later
    asking.close()
    return path


def may(kube: Kube, right: Right) -> bool:
    """What the API server says that the asking account may do in its namespace."""
    resource, _, subresource = right.resource.partition("/")
    attributes: dict[str, Any] = {
        "verb": right.verb, "group": right.group, "resource": resource, "subresource": subresource, "name": right.name,
        "namespace": kube.namespace,
    }  # fmt: skip
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = kube.request("POST", path, review | {"spec": {"resourceAttributes": attributes}})
    return bool(answer["status"]["allowed"])
