"""The connection to the API server, and one request with its time limit. Synchronous, for any thread.

Bodies are dictionaries and answers are read as JSON, and paths are made here: the client's classes for each kind, with the models
that they import, cost more than the requests (25 MiB).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, TypeAlias

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from siorg_operator.api.resource import GROUP, PLURAL, VERSION
from siorg_operator.cluster.clock import ClusterClock
from siorg_operator.cluster.endpoint import configuration, connected
from siorg_operator.decide.ports import ClusterError
from siorg_operator.settings import NAMESPACE_FILE

POOL_SIZE: Final = 8  # requests under way at once; a slow API server must not pile up threads
CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 35.0  # a webhook may take 30 s of it
REQUEST_SECONDS: Final = CONNECT_SECONDS + READ_SECONDS
"""The slowest request that is allowed: all that waits for one waits at least so long."""
_LONGEST_RETRY_AFTER_SECONDS = 60.0
_PIECE_BYTES = 65_536
_LONGEST_MESSAGE = 500  # characters
_METHODS: Final = {"get": "GET", "list": "GET", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}
_GROUPS: Final = {
    "events": "/api/v1",
    "pods": "/api/v1",
    "secrets": "/api/v1",
    "jobs": "/apis/batch/v1",
    "cronjobs": "/apis/batch/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    PLURAL: f"/apis/{GROUP}/{VERSION}",
}

Body: TypeAlias = dict[str, Any]


def api_client() -> client.ApiClient:
    """A client of the cluster: the service account's inside one, the kubeconfig's current context elsewhere.

    Raises:
        UsageError: neither exists, or the proxy cannot be used.
    """
    found = configuration()
    found.connection_pool_maxsize = POOL_SIZE
    found.retries = False  # urllib3's own would make four limits of each call's limit
    return connected(found)


def namespace_of_context() -> str:
    """The namespace that kubectl would take: the pod's, or that of the kubeconfig's current context; empty without either."""
    with suppress(OSError):
        return NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    with suppress(config.ConfigException, OSError):
        _, active = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
        return str(active["context"].get("namespace") or "")
    return ""


def request(
    api: client.ApiClient,
    verb: str,
    resource: str,
    namespace: str,
    name: str = "",
    body: Body | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    content_type: str = "application/json",
    accept: str = "application/json",
    timeout: float | None = None,
    clock: ClusterClock | None = None,
) -> Body:
    """Send one request; its answer as JSON.

    Args:
        api: whom to ask, and as whom.
        verb: as RBAC has it: get, list, create, update, patch, delete.
        resource: the plural, with a subresource after a slash.
        namespace: where it is.
        name: of the object; empty: the collection.
        body: what to send.
        options: of the query (``labelSelector``, ``fieldManager``, …).
        content_type: of the body.
        accept: of the answer.
        timeout: seconds for all of it; None: ``CONNECT_SECONDS`` for the connection and ``READ_SECONDS`` for the rest.
        clock: learns from the answer.

    Raises:
        ClusterError: it failed; the code is the answer's HTTP status, or 0 without an answer.
    """
    asked_at = 0.0 if clock is None else clock.monotonic()
    retry_after = 0.0
    until = time.monotonic() + (REQUEST_SECONDS if timeout is None else timeout)
    try:
        limits = (CONNECT_SECONDS, READ_SECONDS) if timeout is None else timeout
        headers = {"Accept": accept} | ({} if body is None else {"Content-Type": content_type})
        made = api.param_serialize(
            _METHODS[verb], _path(resource, named=bool(name)), {"namespace": namespace, "name": name}, [*(options or {}).items()],
            headers, body, auth_settings=["BearerToken"],
        )  # fmt: skip
        answer = api.call_api(*made, _request_timeout=limits).response
        if clock is not None:
            clock.answered(answer.headers.get("Date"), asked_at, clock.monotonic())
        with suppress(ValueError):  # there is none, or it is a date, which the API server sends never
            retry_after = min(max(float(answer.headers.get("Retry-After") or ""), 0.0), _LONGEST_RETRY_AFTER_SECONDS)
        try:
            status, data = answer.status, _content(answer, until)
        finally:
            answer.close()
        found = {} if status >= 400 else json.loads(data)
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except ApiException as error:  # TLS, or what the client cannot send
        raise ClusterError(f"{verb} {resource}: the API server did not answer: {_message(error.reason)}") from None
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise ClusterError(f"{verb} {resource}: the API server did not answer: {_cause(error)}") from None
    else:
        if status < 400:
            return found
    raise ClusterError(f"{verb} {resource}: {status}: {_message(data)[:_LONGEST_MESSAGE]}", status, retry_after)


def _content(answer: urllib3.BaseHTTPResponse, until: float) -> bytes:
    """All of an answer, however many pieces it comes in: a limit of each read would be none of all of them."""
    content = bytearray()
    while piece := answer.read1(_PIECE_BYTES):
        content += piece
        if time.monotonic() > until:
            raise TimeoutError("the answer did not come to its end")
    return bytes(content)


def _path(resource: str, *, named: bool) -> str:
    plural, _, subresource = resource.partition("/")
    parts = (_GROUPS[plural], "namespaces/{namespace}", plural, "{name}" if named else "", subresource)
    return "/".join(part for part in parts if part)


def _message(body: object) -> str:
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return " ".join(text.split())


def _cause(error: BaseException) -> str:
    """The innermost reason: the client's own texts hold the whole URL and an object's address."""
    while isinstance(inner := getattr(error, "reason", None) or error.__cause__, Exception):
        error = inner
    return type(error).__name__ if isinstance(error, urllib3.exceptions.HTTPError) else f"{type(error).__name__}: {error}"
