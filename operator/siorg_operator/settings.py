"""Settings of the operator: ``SIORG_OPERATOR_`` and a field's name; ``siorg_runtime.environment`` says how they are read."""

# ruff: noqa: RUF009 - setting() is dataclasses.field() with its metadata

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from siorg_operator.decide.job_failures import Pacing
from siorg_runtime.environment import LOG_FORMAT, LOG_LEVEL, Environment, Kind, Reading, seconds, setting, switch, whole
from siorg_runtime.logs import LogFormat, LogLevel

PREFIX: Final = "SIORG_OPERATOR_"
"""A variable that begins so is ours, or a typo."""

NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where Kubernetes tells a pod its namespace."""

_DAY = 86_400
_JITTER = 1.2  # as client-go has it: the renew deadline is longer than so many retry periods
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(?:\.{_LABEL.pattern})*")
# Rough on purpose: registries differ, and the kubelet says the rest (InvalidImageName).
_IMAGE = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:/\[\]-]*(?:@[a-z0-9+._-]+:[0-9a-f]{32,})?")
_IDENTITY = re.compile(r"[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,126}[A-Za-z0-9])?")
# What they say below WARNING is noise, or bodies of Secrets.
_QUIET = (
    "aiohttp.access",  # a line for each request
    "kopf.activities.probe",  # two for each probe
    "kubernetes",
    "urllib3",
    "asyncio",
    "psycopg",
)
_QUIET_UNLESS_DEBUG = ("kopf.objects",)  # "Daemon 'x' is invoked": what our own lines say better


def _matching(pattern: re.Pattern[str], longest: int, what: str, allowed: str) -> Kind:
    def read(text: str) -> str:
        if len(text) > longest or pattern.fullmatch(text) is None:
            raise ValueError(f"must be {what}")
        return text

    return Kind(allowed, read)


def _ip_address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("must be an IP address") from None
    return text


def _host_name() -> str:
    """The host's name, as far as it can be an identity."""
    return re.sub(r"[^-_.A-Za-z0-9]", "-", socket.gethostname())[:100].strip("-_.") or "siorg-operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """Everything that the environment says about the operator. Immutable; holds no secret; checked by ``from_environment``."""

    namespace: str = setting(
        _matching(_LABEL, 63, "a namespace's name", "a namespace's name: lower-case letters, digits and -, at most 63"),
        "The one namespace that is watched; where not set: POD_NAMESPACE, or that of the pod's service account",
    )
    job_image: str | None = setting(
        _matching(_IMAGE, 1024, "a reference to an image", "an image, as registry/name:tag or with @sha256:…"),
        "Image of the Jobs whose resource names none",
        default=None,
    )

    leader_election: bool = switch(
        "Whether replicas agree on one leader by a Lease; false only where there is never more than one", default=True
    )
    lease_name: str = setting(
        _matching(_SUBDOMAIN, 253, "an object's name", "an object's name: lower-case letters, digits, - and ."),
        "A Lease to hold beside the namespace's own, siorg-operator: the one by which an older version of this installation led",
        default="siorg-operator",
    )
    lease_secs: int = whole(15, 2, 600, "A standby takes over so long after the leader's last renewal", unit="seconds")
    lease_renew_secs: int = whole(
        10, 1, 599, "A leader that could not renew for so long ends itself; less than SIORG_OPERATOR_LEASE_SECS", unit="seconds"
    )
    lease_retry_secs: int = whole(
        2, 1, 400, unit="seconds",
        meaning="Pause between two tries to renew or to take the Lease; well below SIORG_OPERATOR_LEASE_RENEW_SECS",
    )  # fmt: skip
    identity: str = setting(
        _matching(_IDENTITY, 128, "a plain name", "letters, digits, -, _ and ., at most 128"),
        "How this replica is called in the Lease; a random end is always added, for two may have one name",
        default_factory=_host_name,
        shown="the host's name",
    )

    http_address: str = setting(
        Kind("an IP address (:: for both families)", _ip_address),
        "Where /healthz, /readyz and /metrics are served",
        default="0.0.0.0",  # noqa: S104 - the kubelet and Prometheus come from outside the pod
    )
    http_port: int = whole(8080, 0, 65_535, "And on which port; 0: any free one, which the log names")

    stuck_grace_secs: float = seconds(
        30, 0, _DAY, "A pod that cannot start for so long (its image cannot be pulled, its configuration is wrong) is removed"
    )
    unschedulable_grace_secs: float = seconds(300, 0, _DAY, "A pod that no node takes for so long is removed")
    backoff_base_secs: float = seconds(10, 1, 3600, "Pause after a first Job that failed; doubles from there")
    backoff_max_secs: float = seconds(300, 1, _DAY, "Longest such pause; not less than SIORG_OPERATOR_BACKOFF_BASE_SECS")
    siorg_probe_base_secs: float = seconds(
        5, 1, 3600, "Pause before each single Job that tries whether SIORG answers again; after five minutes it doubles"
    )
    siorg_probe_max_secs: float = seconds(600, 1, _DAY, "Longest such pause; not less than SIORG_OPERATOR_SIORG_PROBE_BASE_SECS")
    healthy_after_secs: float = seconds(
        60, 1, _DAY, "A Job that has run for so long proves that the trouble is over, where no completed item does"
    )
    secret_refresh_secs: float = seconds(30, 1, 3600, "Secrets are read again after so long at the latest")

    log_format: LogFormat = setting(LOG_FORMAT, "Form of the log", default="json")
    log_level: LogLevel = setting(LOG_LEVEL, "Least severe level that is logged", default="info")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, namespace_file: Path = NAMESPACE_FILE) -> Self:
        """Read the settings. ``namespace_file``: where Kubernetes wrote the namespace of this pod, if it runs in one.

        Raises:
            SettingsError: with every error.
        """
        return cls(**read(environ, namespace_file).checked())

    @property
    def quiet_loggers(self) -> tuple[str, ...]:
        """Libraries' loggers that are heard from WARNING on."""
        return _QUIET if self.log_level == "debug" else (*_QUIET, *_QUIET_UNLESS_DEBUG)

    @property
    def pacing(self) -> Pacing:
        """How patient to be with trouble."""
        return Pacing(
            stuck_grace=self.stuck_grace_secs,
            unschedulable_grace=self.unschedulable_grace_secs,
            failing_base=self.backoff_base_secs,
            failing_longest=self.backoff_max_secs,
            siorg_base=self.siorg_probe_base_secs,
            siorg_longest=self.siorg_probe_max_secs,
            healthy_after=self.healthy_after_secs,
        )


ENVIRONMENT: Final = Environment(OperatorSettings, prefix=PREFIX, ours=(PREFIX,), listing="siorg-operator settings")


def read(environ: Mapping[str, str], namespace_file: Path = NAMESPACE_FILE) -> Reading:
    """What an environment says, and all that is wrong with it."""
    of_pod = environ.get("POD_NAMESPACE", "").strip()
    namespace = ("POD_NAMESPACE", of_pod) if of_pod else (str(namespace_file), _content(namespace_file))
    reading = ENVIRONMENT.read(environ, {"namespace": namespace})
    for name, other, what in _misfits(reading.value):
        if not reading.is_wrong(name) and not reading.is_wrong(other):
            reading.refuse(name, what)
    return reading


def _misfits(value: Callable[[str], Any]) -> Iterator[tuple[str, str, str]]:
    """What depends on two settings: the field to blame, the other one, and what is wrong."""
    lease, renew = value("lease_secs"), value("lease_renew_secs")
    if renew >= lease:
        yield "lease_renew_secs", "lease_secs", f"must be less than {PREFIX}LEASE_SECS ({lease})"
    if value("lease_retry_secs") * _JITTER >= renew:
        what = f"must be less than {PREFIX}LEASE_RENEW_SECS ({renew}) divided by {_JITTER:g}"
        yield "lease_retry_secs", "lease_renew_secs", what
    for base, longest in (("backoff_base_secs", "backoff_max_secs"), ("siorg_probe_base_secs", "siorg_probe_max_secs")):
        if value(longest) < value(base):
            yield longest, base, f"must not be less than {PREFIX}{base.upper()} ({value(base):g})"


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
