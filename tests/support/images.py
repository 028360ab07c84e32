"""Which images there are, and how a kubelet words what is wrong with the others."""

from __future__ import annotations

import re
from dataclasses import dataclass

_REFERENCE = re.compile(
    r"(?:(?P<host>[A-Za-z0-9.-]+\.[A-Za-z0-9.-]+(?::[0-9]+)?|localhost(?::[0-9]+)?)/)?"
    r"(?P<path>[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container does not run yet."""

    reason: str
    message: str


def refused_reference(image: str) -> Waiting | None:
    """What is wrong with the reference itself, if anything."""
    if _REFERENCE.fullmatch(image):
        return None
    why = "invalid reference format"
    host, slash, rest = image.partition("/")
    if not slash or (host.islower() and not any(mark in host for mark in ".:") and host != "localhost"):
        rest = image if slash else f"library/{image}"
    name = rest.partition(":")[0]
    if name != name.lower():
        why += f": repository name ({name}) must be lowercase"
    told = f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": {why}'
    return Waiting("InvalidImageName", told)


def full_name(image: str) -> str:
    """``docker.io/library/x:latest`` for ``x``."""
    found = _REFERENCE.fullmatch(image)
    if found is None:
        return image
    host, path = found["host"] or "docker.io", found["path"]
    if host == "docker.io" and "/" not in path:
        path = f"library/{path}"
    tail = f"@{found['digest']}" if found["digest"] else f":{found['tag'] or 'latest'}"
    return f"{host}/{path}{tail}"


def pull_failed(image: str) -> Waiting:
    """The first answer when the image is nowhere."""
    name = full_name(image)
    return Waiting("ErrImagePull", f'failed to pull and unpack image "{name}": failed to resolve image: {name}: not found')


def pull_backed_off(image: str) -> Waiting:
    """What is said while the next try waits."""
    failed = pull_failed(image)
    return Waiting("ImagePullBackOff", f'Back-off pulling image "{image}": {failed.reason}: {failed.message}')


def never_pulled(image: str) -> Waiting:
    """imagePullPolicy Never, and the image is not there."""
    return Waiting("ErrImageNeverPull", f'Container image "{image}" is not present with pull policy of Never')
