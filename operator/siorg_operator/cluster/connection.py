"""The connection to the API server, and one request with its time limit. Synchronous, for any thread.

Bodies are dictionaries and answers are read as JSON: the models of Kubernetes' client cost more than the requests.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

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
    verb: str,
    resource: str,
    method: Callable[..., Any],
    *arguments: Any,
    timeout: float | None = None,
    clock: ClusterClock | None = None,
    **options: Any,
) -> Body:
    """Call ``method`` of one of the client's APIs with ``arguments`` and ``options``; its answer as JSON.

    ``verb`` (as RBAC has it: get, create, patch, …) and ``resource`` (the plural) are for messages. ``timeout``: seconds for
    all of it; None: ``CONNECT_SECONDS`` for the connection and ``READ_SECONDS`` for the rest. ``clock``: learns from the answer.

    Raises:
        ClusterError: it failed; the code is the answer's HTTP status, or 0 without an answer.
    """
    asked_at = 0.0 if clock is None else clock.monotonic()
    retry_after = 0.0
    data: bytes | str

    def learn(headers: Any) -> None:
        nonlocal retry_after
        if headers is None:
            return
        with suppress(ValueError):  # there is none, or it is a date, which the API server sends never
            retry_after = min(max(float(headers.get("Retry-After") or ""), 0.0), _LONGEST_RETRY_AFTER_SECONDS)
        if clock is not None:
            clock.answered(headers.get("Date"), asked_at, clock.monotonic())

    until = time.monotonic() + (REQUEST_SECONDS if timeout is None else timeout)
    try:
        limits = (CONNECT_SECONDS, READ_SECONDS) if timeout is None else timeout
        answer = method(*arguments, **options, _preload_content=False, _request_timeout=limits)
        learn(answer.headers)
        try:
            status, data = answer.status, _content(answer, until)
        finally:
            answer.close()
        found = {} if status >= 400 else json.loads(data)
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except ApiException as error:
        learn(error.headers)
        status, data = error.status or 0, error.body or error.reason
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
