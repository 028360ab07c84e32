"""The fingerprint of the Secrets in use: it changes when what is used of them changes, and with nothing else.

It is a part of a label on each Job, for whoever may read Jobs. From a plain hash a password can be guessed at leisure, however
slow the hash, so this is an HMAC. The key has to outlive the process, or each restart would take all Secrets for changed. It
is in a Secret of the operator's own, which comes empty with the manifests: to fill it takes the right to patch that one
Secret, where to create one would take the right to create any, tokens of service accounts too. (A Lease is no place for it:
roles that read everything but Secrets read Leases.) A key that is lost costs one needless try of Jobs that fail.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

from siorg_operator.decide.ports import ClusterError
from siorg_runtime.logs import logger

KEY_SECRET: Final = "siorg-operator-key"  # noqa: S105 - its name
_DATA_KEY = "key"
_KEY_BYTES = 32
_TRIES = 3  # another replica, one that has just lost the lead, may fill it at the same moment
_UNAVAILABLE = frozenset({403, 404})

Body: TypeAlias = dict[str, Any]
Read: TypeAlias = Callable[[str, str], Awaitable[Body | None]]
Patch: TypeAlias = Callable[[str, str, Body], Awaitable[Body | None]]

_log = logger(__name__)


class Fingerprints:
    """Of what is used of the Secrets of one namespace."""

    def __init__(self, namespace: str, read: Read, patch: Patch | None) -> None:
        """``read`` and ``patch``: a Secret by namespace and name; None: nothing may be written, so a key is not made here."""
        self._namespace = namespace
        self._read = read
        self._patch = patch
        self._key: bytes | None = None
        self._loading = asyncio.Lock()

    async def of(self, values: Sequence[str | None]) -> str | None:
        """The fingerprint of these values; None: there is no key, and none may be made.

        Raises:
            ClusterError: the API server does not answer; another key would take everything for changed.
        """
        async with self._loading:
            self._key = self._key or await self._kept_key()
        if self._key is None:
            return None
        return hmac.new(self._key, json.dumps(values).encode(), hashlib.sha256).hexdigest()[:10]

    async def _kept_key(self) -> bytes | None:
        try:
            for _ in range(_TRIES):
                secret = await self._read(self._namespace, KEY_SECRET)
                if secret is None:
                    raise ClusterError(f"the Secret {self._namespace}/{KEY_SECRET} does not exist: apply the manifests", 404)
                if key := _key_in(secret):
                    return key
                if self._patch is None:
                    return None
                if (key := await self._filled(secret, self._patch)) is not None:
                    return key
        except ClusterError as error:
            if error.code not in _UNAVAILABLE:
                raise
            if self._patch is None:
                return None
            _log.warning(
                "The key of the Secrets' fingerprints cannot be kept: each restart is one needless try of Jobs that fail",
                reason=str(error),
            )
            return secrets.token_bytes(_KEY_BYTES)
        raise ClusterError(f"the Secret {self._namespace}/{KEY_SECRET} changes all the time", 409)

    async def _filled(self, secret: Body, patch: Patch) -> bytes | None:
        """A new key, once it stands in the Secret; None: somebody wrote there since it was read."""
        key = secrets.token_bytes(_KEY_BYTES)
        version = {"resourceVersion": secret["metadata"]["resourceVersion"]}
        change = {"metadata": version, "data": {_DATA_KEY: base64.b64encode(key).decode()}}
        try:
            patched = await patch(self._namespace, KEY_SECRET, change)
        except ClusterError as error:
            if error.code != 409:
                raise
            return None
        return None if patched is None else key


def _key_in(secret: Body) -> bytes | None:
    """The key; None where there is none, or one that anybody could guess."""
    try:
        key = base64.b64decode((secret.get("data") or {}).get(_DATA_KEY) or "", validate=True)
    except ValueError:
        return None
    return key if len(key) >= _KEY_BYTES else None
