"""A Kubernetes API as tests use it: dict bodies over the official client's connections, errors that say what was asked."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes import config

Body = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_KINDS = {
    "/api/v1": ("Pod", "Secret", "ConfigMap", "ServiceAccount", "Event", "Namespace", "Node"),
    "/apis/batch/v1": ("Job", "CronJob"),
    "/apis/coordination.k8s.io/v1": ("Lease",),
    "/apis/apiextensions.k8s.io/v1": ("CustomResourceDefinition",),
}
_OF_THE_CLUSTER = ("Namespace", "Node", "CustomResourceDefinition")


class ApiError(Exception):
    """The API refused a request, or could not be reached (status 0)."""

    def __init__(self, asked: str, status: int, body: Body | None, text: str = "") -> None:
        self.status, self.body = status, body or {}
        self.reason = str(self.body.get("reason", ""))
        self.message = str(self.body.get("message", text))
        super().__init__(f"{asked}: {status} {self.reason}: {self.message}")

    @property
    def causes(self) -> list[Body]:
        """The fields at fault, as ``details.causes`` has them."""
        found: list[Body] = (self.body.get("details") or {}).get("causes") or []
        return found


class Kube:
    """One connection pool to one API server.

    Args:
        kubeconfig: Where the server is, and who asks.
        namespace: Where to look when a call names none.
        user_agent: Tells requests apart in ``ApiServer.requests``.
    """

    def __init__(self, kubeconfig: Path, namespace: str = "default", user_agent: str = "siorg-tests") -> None:
        self.namespace = namespace
        self._api: Any = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
        settings = self._api.configuration
        self.url: str = settings.host
        self._headers = {"User-Agent": user_agent, "Accept": "application/json"}
        for auth in settings.auth_settings().values():
            if auth["in"] == "header" and auth["value"]:
                self._headers[auth["key"]] = auth["value"]
        self._pool: urllib3.PoolManager = self._api.rest_client.pool_manager
        self._plurals = {kind: f"{kind.lower()}s" for kinds in _KINDS.values() for kind in kinds}
        self._paths = {
            self._plurals[kind]: (path, kind not in _OF_THE_CLUSTER) for path, kinds in _KINDS.items() for kind in kinds
        }

    def close(self) -> None:
        self._pool.clear()

    # One request

    def request(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", accept: str = "", **query: Any
    ) -> Any:
        """Any request; the answer's JSON, or its text.

        Raises:
            ApiError: It was refused, or nobody answered.
        """
        wanted = {key: value for key, value in query.items() if value not in (None, "")}
        target = f"{path}?{urlencode(wanted)}" if wanted else path
        headers = self._headers | ({"Content-Type": content_type} if body is not None else {})
        if accept:
            headers["Accept"] = accept
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            answer = self._pool.request(
                method, self.url + target, body=data, headers=headers, retries=False, timeout=urllib3.Timeout(connect=5, read=60)
            )
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(f"{method} {target}", 0, None, str(error)) from error
        return _read(f"{method} {target}", answer.status, answer.data)

    def path(self, resource: str, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """The path of a resource; ``*`` as namespace for all of them."""
        prefix, namespaced = self._where(resource)
        place = namespace or self.namespace
        path = f"{prefix}/namespaces/{place}/{resource}" if namespaced and place != "*" else f"{prefix}/{resource}"
        return path + (f"/{name}" if name else "") + (f"/{subresource}" if subresource else "")

    def _where(self, resource: str) -> tuple[str, bool]:
        if resource not in self._paths:
            self._discover()
        return self._paths[resource]

    def _discover(self) -> None:
        for group in self.request("GET", "/apis")["groups"]:
            version = group["preferredVersion"]["groupVersion"]
            with suppress(ApiError):
                for each in self.request("GET", f"/apis/{version}")["resources"]:
                    if "/" not in each["name"]:
                        self._paths.setdefault(each["name"], (f"/apis/{version}", each["namespaced"]))
                        self._plurals.setdefault(each["kind"], each["name"])

    def plural(self, manifest: Body) -> str:
        if manifest["kind"] not in self._plurals:
            self._discover()
        return self._plurals[manifest["kind"]]

    # Reading

    def get(self, resource: str, name: str, namespace: str | None = None) -> Body | None:
        """The object; None if it is not there.

        Raises:
            ApiError: Anything else.
        """
        try:
            found: Body = self.request("GET", self.path(resource, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def list(self, resource: str, namespace: str | None = None, *, labels: str = "", fields: str = "") -> list[Body]:
        answer = self.request("GET", self.path(resource, namespace), labelSelector=labels, fieldSelector=fields)
        head = {"apiVersion": answer["apiVersion"], "kind": str(answer["kind"]).removesuffix("List")}
        return [head | item for item in answer["items"]]

    def watch(
        self, resource: str, namespace: str | None = None, *, version: str = "", labels: str = "", fields: str = "",
        seconds: float = 60, **more: Any,
    ) -> Iterator[Body]:  # fmt: skip
        """Events of a watch, until ``seconds`` are over.

        Raises:
            ApiError: It was refused, or the connection broke.
        """
        query = {"watch": "true", "resourceVersion": version, "labelSelector": labels, "fieldSelector": fields,
                 "timeoutSeconds": max(int(seconds), 1)} | more  # fmt: skip
        target = f"{self.path(resource, namespace)}?{urlencode({key: value for key, value in query.items() if value != ''})}"
        try:
            answer = self._pool.request(
                "GET", self.url + target, headers=self._headers, retries=False, preload_content=False,
                timeout=urllib3.Timeout(connect=5, read=seconds + 10),
            )  # fmt: skip
            try:
                if answer.status != 200:
                    _read(f"GET {target}", answer.status, answer.data)
                yield from _lines(answer)
            finally:
                answer.close()
                answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(f"GET {target}", 0, None, str(error)) from error

    # Writing

    def create(self, manifest: Body, namespace: str | None = None, **query: Any) -> Body:
        """POST; the object as it was stored."""
        place = manifest.get("metadata", {}).get("namespace") or namespace
        created: Body = self.request("POST", self.path(self.plural(manifest), place), manifest, **query)
        return created

    def replace(self, manifest: Body, namespace: str | None = None, subresource: str = "", **query: Any) -> Body:
        """PUT; with the resourceVersion that the manifest has."""
        metadata = manifest["metadata"]
        path = self.path(self.plural(manifest), metadata.get("namespace") or namespace, metadata["name"], subresource)
        replaced: Body = self.request("PUT", path, manifest, **query)
        return replaced

    def patch(
        self, resource: str, name: str, patch: Any, namespace: str | None = None, *, subresource: str = "",
        content_type: str = MERGE_PATCH, **query: Any,
    ) -> Body:  # fmt: skip
        """PATCH; a merge patch unless told otherwise."""
        path = self.path(resource, namespace, name, subresource)
        patched: Body = self.request("PATCH", path, patch, content_type=content_type, **query)
        return patched

    def patch_status(self, resource: str, name: str, status: Body, namespace: str | None = None) -> Body:
        return self.patch(resource, name, {"status": status}, namespace, subresource="status")

    def apply(self, manifest: Body, namespace: str | None = None, *, manager: str = "test", force: bool = False) -> Body:
        metadata = manifest["metadata"]
        return self.patch(
            self.plural(manifest), metadata["name"], manifest, metadata.get("namespace") or namespace,
            content_type=APPLY_PATCH, fieldManager=manager, force="true" if force else None,
        )  # fmt: skip

    def delete(
        self, resource: str, name: str, namespace: str | None = None, *, policy: str = "Background", grace: int | None = None,
        uid: str = "",
    ) -> Body | None:  # fmt: skip
        """DELETE; None if it was gone already."""
        options: Body = {"propagationPolicy": policy} if policy else {}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            gone: Body = self.request("DELETE", self.path(resource, namespace, name), options)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return gone

    def create_namespace(self, name: str) -> None:
        """A namespace in which pods can be made at once."""
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        try:
            self.create(account, name)
        except ApiError as error:
            if error.status != 409:
                raise

    def create_secret(self, name: str, values: Mapping[str, str], namespace: str | None = None) -> Body:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        return self.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}, namespace)

    def apply_crd(self, definition: Body) -> None:
        """Create or update a definition, and wait until its kind is served."""
        self.apply(definition, force=True)
        name, spec = definition["metadata"]["name"], definition["spec"]
        self.wait_for("customresourcedefinitions", name, lambda body: condition(body, "Established") == "True")
        version = next(each["name"] for each in spec["versions"] if each["storage"])
        plural, prefix = spec["names"]["plural"], f"/apis/{spec['group']}/{version}"
        self._paths[plural] = prefix, spec["scope"] == "Namespaced"
        self._plurals[spec["names"]["kind"]] = plural
        deadline = time.monotonic() + 30
        while True:
            with suppress(ApiError):
                self.request("GET", f"{prefix}/{plural}")
                return
            assert time.monotonic() < deadline, f"{plural} is not served after 30 s"
            time.sleep(0.05)

    def job_from_cronjob(self, name: str, job: str, namespace: str | None = None) -> Body:
        """What the CronJob would start at its hour, now; as ``kubectl create job --from`` does."""
        cron = self.get("cronjobs", name, namespace)
        assert cron is not None, f"no CronJob {name}"
        template = cron["spec"]["jobTemplate"]
        owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": name, "uid": cron["metadata"]["uid"], "controller": True}
        metadata = {**template.get("metadata", {}), "name": job, "ownerReferences": [owner]}
        return self.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}, namespace)

    # Waiting

    def wait_for(
        self, resource: str, name: str, wanted: Callable[[Body], object] = bool, namespace: str | None = None, *,
        seconds: float = 30.0,
    ) -> Body:  # fmt: skip
        """The object, once it is there and as ``wanted`` says."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.get(resource, name, namespace)
            if found is not None and wanted(found):
                return found
            assert time.monotonic() < deadline, f"{resource} {name} is not so after {seconds:g} s: {json.dumps(found, indent=1)}"
            time.sleep(0.05)

    def wait_gone(self, resource: str, name: str, namespace: str | None = None, *, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while (found := self.get(resource, name, namespace)) is not None:
            assert time.monotonic() < deadline, f"{resource} {name} is there after {seconds:g} s: {json.dumps(found, indent=1)}"
            time.sleep(0.05)


def condition(body: Body, kind: str) -> str:
    """The status of a condition: True, False, Unknown; empty if there is none of this type."""
    for each in (body.get("status") or {}).get("conditions") or ():
        if each["type"] == kind:
            return str(each["status"])
    return ""


def _read(asked: str, status: int, data: bytes) -> Any:
    try:
        body = json.loads(data) if data else {}
    except ValueError:
        body = None
    if status >= 400:
        raise ApiError(asked, status, body if isinstance(body, dict) else None, data.decode(errors="replace"))
    return data.decode() if body is None else body


def _lines(answer: urllib3.BaseHTTPResponse) -> Iterator[Body]:
    kept = b""
    for piece in answer.stream(amt=None):
        kept += piece
        *lines, kept = kept.split(b"\n")
        for line in lines:
            if line:
                yield json.loads(line)
