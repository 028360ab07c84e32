"""Reads the queue that a resource names: first its Secrets, in the resource's own namespace, then the database."""

from __future__ import annotations

import base64
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.api.spec import DatabaseUrlKey, TokenKey
from siorg_operator.cluster.fingerprint import KEY_SECRET, Fingerprints
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import QueueState, Reading, Unreadable
from siorg_runtime.redaction import redactor

Body: TypeAlias = dict[str, Any]

_URL: Final = "spec.database.urlSecretRef"
_TOKEN: Final = "spec.siorg.tokenSecretRef"  # noqa: S105 - a field
_MAYBE_THE_URL: Final = frozenset({Reason.DATABASE_UNAVAILABLE, Reason.ACCESS_DENIED, Reason.WRONG_URL})
"""Reasons that a changed Secret may cure."""


class Secrets:
    """Secrets as they were read last, for ``refresh_seconds`` at most: no right to list or watch them is needed.

    Several resources that name the same Secret share the reading.
    """

    def __init__(
        self,
        read: Callable[[str, str], Awaitable[Body | None]],
        *,
        refresh_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``read``: reads a Secret by namespace and name; None when there is none. ``clock``: monotonic seconds."""
        self._read = read
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._kept: dict[tuple[str, str], tuple[Body | None, float]] = {}

    async def get(self, namespace: str, name: str, key: str, *, anew: bool = False) -> Body | None:
        """The Secret; None when there is none.

        Args:
            namespace: of the Secret.
            name: of the Secret.
            key: what is wanted of it: a Secret that lacks it is looked at each time, since somebody is about to mend it.
            anew: what is kept may be what is wrong.

        Raises:
            ClusterError: it was never read, and cannot be read now.
        """
        now = self._clock()
        kept, read_at = self._kept.get((namespace, name), (None, 0.0))
        usable = kept is not None and (kept.get("data") or {}).get(key)
        if usable and not anew and now - read_at < self._refresh_seconds:
            return kept
        try:
            secret = await self._read(namespace, name)
        except ClusterError:
            if kept is None:
                raise
            return kept  # the API server is away; what it said last still holds for the database
        self._kept[namespace, name] = secret, now
        return secret


@dataclass(frozen=True, slots=True)
class _Resolved:
    """What a resource's Secrets say."""

    url: str | Unreadable
    """The database's URL, or why there is none."""
    token_error: str | None = None
    """Why there is no token for SIORG, although the resource names one."""
    secrets_hash: str | None = None
    """The fingerprint of both Secrets; None: they could not be read, which is not the same as changed."""


class SecretQueueReader:
    """``ports.QueueReader`` of one resource in a cluster: the database's URL is in a Secret."""

    def __init__(
        self,
        secrets: Secrets,
        fingerprints: Fingerprints,
        read_queue: Callable[[str], Awaitable[Reading | Unreadable]],
    ) -> None:
        """``secrets`` and ``fingerprints``: shared by all resources. ``read_queue``: reads the queue behind a URL."""
        self._secrets = secrets
        self._fingerprints = fingerprints
        self._read_queue = read_queue
        self.url: str | None = None
        self._used: tuple[SiorgSyncWorker, str | None] | None = None

    async def changed(self) -> bool:
        if self._used is None:
            return False
        resource, secrets_hash = self._used
        now = (await self._resolve(resource)).secrets_hash
        return now is not None and now != secrets_hash

    async def read(self, resource: SiorgSyncWorker) -> QueueState:
        """With a URL that fails, the Secret is read anew: it may have been changed."""
        used = await self._resolve(resource)
        queue = await self._read(used)
        self._used = resource, used.secrets_hash
        if isinstance(used.url, str) and isinstance(queue.reading, Unreadable) and queue.reading.reason in _MAYBE_THE_URL:
            again = await self._resolve(resource, anew=True)
            self._used = resource, again.secrets_hash
            if isinstance(again.url, str) and again.url != used.url:
                queue = await self._read(again)
        return queue

    async def _read(self, resolved: _Resolved) -> QueueState:
        self.url = resolved.url if isinstance(resolved.url, str) else None
        reading = resolved.url if isinstance(resolved.url, Unreadable) else await self._read_queue(resolved.url)
        return QueueState(reading, resolved.secrets_hash, resolved.token_error)

    async def _resolve(self, resource: SiorgSyncWorker, *, anew: bool = False) -> _Resolved:
        namespace = resource.metadata.namespace
        refs: dict[str, DatabaseUrlKey | TokenKey] = {_URL: resource.spec.database.url_secret_ref}
        if resource.spec.siorg.token_secret_ref is not None:
            refs[_TOKEN] = resource.spec.siorg.token_secret_ref
        secrets: dict[str, Body | None] = {}
        for field, ref in refs.items():
            try:
                secrets[field] = await self._secrets.get(namespace, ref.name, ref.key, anew=anew)
            except ClusterError as error:
                return _Resolved(_not_read(error, field, namespace, ref.name))
        values = {field: _value(secrets[field], field, namespace, ref.name, ref.key) for field, ref in refs.items()}
        # Before it is used: no log shows it.
        redactor.uses(self, [value for value in values.values() if isinstance(value, str)])
        used = [value.message if isinstance(value, Unreadable) else value for value in (values[_URL], values.get(_TOKEN))]
        try:
            secrets_hash = await self._fingerprints.of(used)
        except ClusterError as error:
            return _Resolved(_not_read(error, "the operator", namespace, KEY_SECRET))
        token = values.get(_TOKEN)
        return _Resolved(values[_URL], token.message if isinstance(token, Unreadable) else None, secrets_hash)


def _not_read(error: ClusterError, field: str, namespace: str, name: str) -> Unreadable:
    problem = f"the Secret {namespace}/{name} of {field} cannot be read: {error}"
    if error.code == 403:
        return Unreadable(Reason.ACCESS_DENIED, f"{problem}; the operator's Role must allow get of secrets {name}")
    return Unreadable(Reason.SECRET_UNREADABLE, f"{problem}; it is tried again by itself")


def _value(secret: Body | None, field: str, namespace: str, name: str, key: str) -> str | Unreadable:
    if secret is None:
        return Unreadable(
            Reason.SECRET_MISSING,
            f"the Secret {namespace}/{name} of {field} does not exist: create it (kubectl create secret generic {name}"
            f" -n {namespace} --from-env-file=FILE, whose line is {key}=…)",
        )
    data = secret.get("data") or {}
    if key not in data:
        keys = ", ".join(sorted(data)) or "none"
        problem = f"the Secret {namespace}/{name} of {field} has no key {key}; its keys: {keys}"
        return Unreadable(Reason.SECRET_KEY_MISSING, problem)
    try:
        text = base64.b64decode(data[key] or "", validate=True).decode().strip()
    except ValueError:  # neither base64 nor UTF-8
        text = ""
    if not text:
        problem = f"the key {key} of the Secret {namespace}/{name} ({field}) is empty or not text"
        return Unreadable(Reason.SECRET_KEY_MISSING, problem)
    return text
