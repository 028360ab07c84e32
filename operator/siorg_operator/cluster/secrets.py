"""Reads the queue that a resource names: first its Secrets, in the resource's own namespace, then the database."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import Backlog, Reading, Unreadable

_MAYBE_THE_URL = frozenset({Reason.DATABASE_UNAVAILABLE, Reason.ACCESS_DENIED, Reason.WRONG_URL})
"""Reasons that a changed Secret may cure."""


class SecretReader(Protocol):
    """Where Secrets are read."""

    async def read_secret(self, namespace: str, name: str) -> dict[str, Any] | None:
        """A Secret's object; None when there is none."""
        ...


class Databases(Protocol):
    """Where databases are read."""

    async def read(self, url: str) -> Reading | Unreadable:
        """Look at the queue behind a connection URL."""
        ...


@dataclass(frozen=True, slots=True)
class _Kept:
    secret: dict[str, Any] | None
    read_at: float


class Secrets:
    """Secrets as they were read last, for ``refresh_seconds`` at most: no right to list or watch them is needed.

    Several resources that name the same Secret share the reading.
    """

    def __init__(self, reader: SecretReader, *, refresh_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: monotonic seconds."""
        self._reader = reader
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._kept: dict[tuple[str, str], _Kept] = {}

    async def get(self, namespace: str, name: str, key: str, *, anew: bool = False) -> dict[str, Any] | None:
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
        kept = self._kept.get((namespace, name))
        usable = kept is not None and kept.secret is not None and (kept.secret.get("data") or {}).get(key)
        if kept is not None and usable and not anew and now - kept.read_at < self._refresh_seconds:
            return kept.secret
        try:
            secret = await self._reader.read_secret(namespace, name)
        except ClusterError:
            if kept is None or kept.secret is None:
                raise
            return kept.secret  # the API server is away; what it said last still holds for the database
        self._kept[namespace, name] = _Kept(secret, now)
        return secret


class SecretQueueReader:
    """``ports.QueueReader`` of one resource in a cluster: the database's URL stands in a Secret."""

    def __init__(self, secrets: Secrets, databases: Databases, *, remember_secret: Callable[[str], None]) -> None:
        """``remember_secret``: is told every secret text before it is used, so that no log shows it."""
        self._secrets = secrets
        self._databases = databases
        self._remember_secret = remember_secret
        self._url: str | None = None
        self._used: tuple[SiorgSyncWorker, str] | None = None

    @property
    def url(self) -> str | None:
        """See ``ports.QueueReader``."""
        return self._url

    async def changed(self) -> bool:
        """See ``ports.QueueReader``."""
        if self._used is None:
            return False
        resource, credentials = self._used
        now = (await self._resolve(resource, anew=False))[1]
        return bool(now) and now != credentials

    async def read(self, resource: SiorgSyncWorker) -> Backlog:
        """See ``ports.QueueReader``. With a URL that fails, the Secret is read anew: it may have been changed."""
        found, credentials = await self._resolve(resource, anew=False)
        self._used = resource, credentials
        if isinstance(found, Unreadable):
            self._url = None
            return Backlog(found, credentials)
        backlog = await self._read(found, credentials)
        if isinstance(backlog.reading, Unreadable) and backlog.reading.reason in _MAYBE_THE_URL:
            again, credentials = await self._resolve(resource, anew=True)
            self._used = resource, credentials
            if isinstance(again, _Found) and again.url != found.url:
                backlog = await self._read(again, credentials)
        return backlog

    async def _read(self, found: _Found, credentials: str) -> Backlog:
        self._url = found.url
        return Backlog(await self._databases.read(found.url), credentials, found.token_problem)

    async def _resolve(self, resource: SiorgSyncWorker, *, anew: bool) -> tuple[_Found | Unreadable, str]:
        """The database's URL and what is wrong with SIORG's token; and the fingerprint of both Secrets."""
        namespace = resource.metadata.namespace or "default"
        database, token = resource.spec.database.url_secret_ref, resource.spec.siorg.token_secret_ref
        name, field = database.name, "spec.database.urlSecretRef"
        try:
            secret = await self._secrets.get(namespace, database.name, database.key, anew=anew)
            token_secret = None
            if token is not None:
                name, field = token.name, "spec.siorg.tokenSecretRef"
                token_secret = await self._secrets.get(namespace, token.name, token.key, anew=anew)
        except ClusterError as error:
            return _no_secret(error, field, namespace, name), ""
        credentials = _fingerprint(secret, token_secret)
        problem = None
        if token is not None:
            told = _value(token_secret, "spec.siorg.tokenSecretRef", namespace, token.name, token.key)
            problem = told.message if isinstance(told, Unreadable) else None
            if isinstance(told, str):
                self._remember_secret(told)
        url = _value(secret, "spec.database.urlSecretRef", namespace, database.name, database.key)
        if isinstance(url, Unreadable):
            return url, credentials
        self._remember_secret(url)
        return _Found(url, problem), credentials


@dataclass(frozen=True, slots=True)
class _Found:
    url: str
    token_problem: str | None


def _no_secret(error: ClusterError, field: str, namespace: str, name: str) -> Unreadable:
    told = f"the Secret {namespace}/{name} of {field} cannot be read: {error}"
    if error.code == 403:
        return Unreadable(Reason.ACCESS_DENIED, f"{told}; the operator's Role must allow get of secrets {name}")
    return Unreadable(Reason.SECRET_UNREADABLE, f"{told}; it is tried again by itself")


def _value(secret: dict[str, Any] | None, field: str, namespace: str, name: str, key: str) -> str | Unreadable:
    if secret is None:
        return Unreadable(
            Reason.SECRET_MISSING,
            f"the Secret {namespace}/{name} of {field} is not there: create it (kubectl create secret generic {name}"
            f" -n {namespace} --from-env-file=FILE, whose line is {key}=…)",
        )
    data = secret.get("data") or {}
    if key not in data:
        there = ", ".join(sorted(data)) or "none"
        return Unreadable(
            Reason.SECRET_KEY_MISSING, f"the Secret {namespace}/{name} of {field} has no key {key}; its keys: {there}"
        )
    try:
        text = base64.b64decode(data[key] or "", validate=True).decode().strip()
    except ValueError:  # neither base64 nor UTF-8
        text = ""
    if not text:
        return Unreadable(
            Reason.SECRET_KEY_MISSING, f"the key {key} of the Secret {namespace}/{name} ({field}) is empty or no text"
        )
    return text


def _fingerprint(*secrets: dict[str, Any] | None) -> str:
    """Of the versions, nothing of the content."""
    versions = [secret and [secret["metadata"].get("uid"), secret["metadata"].get("resourceVersion")] for secret in secrets]
    return hashlib.sha256(repr(versions).encode()).hexdigest()[:10]
