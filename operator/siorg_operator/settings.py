"""Settings of the operator: read from the environment once at the start, all of it checked, every problem told at once.

A variable is ``SIORG_OPERATOR_`` and the field's name in capitals, unit included. An empty value means "not set"; white
space around a value does not count. What is not understood is refused, and so is a variable with our prefix that nobody
reads: a typo must not silently become a default.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

from siorg_operator.decide.job_failures import Pacing

PREFIX: Final = "SIORG_OPERATOR_"
"""A variable that begins so is ours, or a typo."""

NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where Kubernetes tells a pod its namespace."""

# What they say below WARNING is noise, or bodies of Secrets.
_QUIET = (
    "aiohttp.access",  # a line for each request
    "kopf.activities.probe",  # two for each probe
    "leaderelection",  # three for each renewal
    "kubernetes",
    "urllib3",
    "asyncio",
    "psycopg",
)
_QUIET_UNLESS_DEBUG = ("kopf.objects",)  # "Daemon 'x' is invoked": what our own lines say better
_SHOWN_AT_MOST = 12  # characters of a wrong value: enough to recognise it, too few for most secrets
_JITTER = 1.2  # kubernetes.leaderelection wants the renew deadline longer than so many retry periods
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,9})?")
_BOOLEANS: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(?:\.{_LABEL.pattern})*")
# Rough on purpose: registries differ, and the kubelet says the rest (InvalidImageName).
_IMAGE = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:/\[\]-]*(?:@[a-z0-9+._-]+:[0-9a-f]{32,})?")
_IDENTITY = re.compile(r"[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,126}[A-Za-z0-9])?")
# What Kubernetes injects for each Service of the namespace, here one that is called siorg-operator…:
# https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
_SERVICE_NAME = re.compile(
    r"[A-Z0-9_]+_SERVICE_(?:HOST|PORT(?:_[A-Z0-9_]+)?)|[A-Z0-9_]+_PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?"
)
_SERVICE_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://", re.IGNORECASE)


class SettingsError(Exception):
    """The environment does not make settings. One line for each problem: ``NAME: what is wrong; …; allowed: …``."""

    def __init__(self, problems: Iterable[str]) -> None:
        """``problems``: one line each."""
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


# -- from text to values ----------------------------------------------------------------------------------------------


def _whole(value: object) -> object:
    if not isinstance(value, str):
        return value
    if _WHOLE.fullmatch(value) is None:
        raise ValueError("is not a whole number in plain decimal digits")
    return int(value)


def _decimal(value: object) -> object:
    if not isinstance(value, str):
        return value
    if _DECIMAL.fullmatch(value) is None:
        raise ValueError("is not a number in plain decimal digits")
    return float(value)


def _switch(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lower() not in _BOOLEANS:
        raise ValueError("is neither true nor false")
    return _BOOLEANS[value.lower()]


def _word(value: object) -> object:
    if not isinstance(value, str):
        return value
    return "warning" if value.lower() == "warn" else value.lower()


def _matching(pattern: re.Pattern[str], longest: int, wrong: str) -> BeforeValidator:
    def check(value: object) -> object:
        if isinstance(value, str) and (len(value) > longest or pattern.fullmatch(value) is None):
            raise ValueError(wrong)
        return value

    return BeforeValidator(check)


def _address(value: object) -> object:
    if isinstance(value, str):
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise ValueError("is no IP address") from None
    return value


_Whole = Annotated[int, BeforeValidator(_whole)]
_Seconds = Annotated[float, BeforeValidator(_decimal)]
_Switch = Annotated[bool, BeforeValidator(_switch)]
_Label = Annotated[str, _matching(_LABEL, 63, "is no name of a namespace")]
_Name = Annotated[str, _matching(_SUBDOMAIN, 253, "is no name of an object")]
_Image = Annotated[str, _matching(_IMAGE, 1024, "is no reference to an image")]
_Identity = Annotated[str, _matching(_IDENTITY, 128, "is no plain name")]
_Address = Annotated[str, BeforeValidator(_address)]
_Format = Annotated[Literal["text", "json"], BeforeValidator(_word)]
_Level = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_word)]


def _number(default: float, low: float, high: float, meaning: str, *, unit: str = "seconds") -> Any:
    return Field(default, ge=low, le=high, description=meaning, json_schema_extra={"unit": unit})


def _text(default: object, allowed: str, meaning: str, *, shown: str | None = None) -> Any:
    """``shown``: the default for people, where the value itself is not what they should read."""
    return Field(default, description=meaning, json_schema_extra={"allowed": allowed, "shown": shown})


class OperatorSettings(BaseModel):
    """Everything that the environment says about the operator. Immutable; holds no secret.

    Made by ``from_environment`` at the start. The constructor checks the same rules: tests use it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False, validate_default=True)

    namespace: _Label = Field(
        description="The one namespace that is watched; where not set: POD_NAMESPACE, or that of the pod's service account",
        json_schema_extra={"allowed": "a namespace's name: lower-case letters, digits and -, at most 63"},
    )
    job_image: _Image | None = _text(
        None, "an image, as registry/name:tag or with @sha256:…", "Image of the Jobs whose resource names none"
    )

    leader_election: _Switch = _text(
        default=True,
        allowed="true, false (also 1, 0, yes, no, on, off)",
        meaning="Whether replicas agree on one leader by a Lease; false only where there is never more than one",
    )
    lease_name: _Name = _text("siorg-operator", "an object's name: lower-case letters, digits, - and .", "Name of the Lease")
    lease_secs: _Whole = _number(15, 2, 600, "A standby takes over so long after the leader's last renewal")
    lease_renew_secs: _Whole = _number(
        10, 1, 599, "A leader that could not renew for so long ends itself; less than SIORG_OPERATOR_LEASE_SECS"
    )
    lease_retry_secs: _Whole = _number(
        2, 1, 400, "Pause between two tries to renew or to take the Lease; well below SIORG_OPERATOR_LEASE_RENEW_SECS"
    )
    identity: _Identity = Field(
        default_factory=lambda: _hostname(),  # noqa: PLW0108 - defined below
        description="How this replica is called in the Lease; a random end is always added, for two may have one name",
        json_schema_extra={"allowed": "letters, digits, -, _ and ., at most 128", "shown": "the host's name"},
    )

    http_address: _Address = _text(
        "0.0.0.0",  # noqa: S104 - the kubelet and Prometheus come from outside the pod
        "an IP address (:: for both families)",
        "Where /healthz, /readyz and /metrics are served",
    )
    http_port: _Whole = _number(8080, 0, 65_535, "And on which port; 0: any free one, which the log names", unit="")

    stuck_grace_secs: _Seconds = _number(
        30, 0, 86_400, "A pod that cannot start for so long (its image cannot be pulled, its configuration is wrong) is removed"
    )
    unschedulable_grace_secs: _Seconds = _number(300, 0, 86_400, "A pod that no node takes for so long is removed")
    backoff_base_secs: _Seconds = _number(10, 1, 3600, "Pause after a first Job that failed; doubles from there")
    backoff_max_secs: _Seconds = _number(300, 1, 86_400, "Longest such pause; not less than SIORG_OPERATOR_BACKOFF_BASE_SECS")
    siorg_probe_base_secs: _Seconds = _number(
        30, 1, 3600, "Pause before the first single Job that tries whether SIORG answers again; doubles from there"
    )
    siorg_probe_max_secs: _Seconds = _number(
        600, 1, 86_400, "Longest such pause; not less than SIORG_OPERATOR_SIORG_PROBE_BASE_SECS"
    )
    healthy_after_secs: _Seconds = _number(60, 1, 86_400, "A Job that has run for so long proves that the trouble is over")
    secret_refresh_secs: _Seconds = _number(30, 1, 3600, "Secrets are read again after so long at the latest")

    log_format: _Format = _text("json", "text, json", "Form of the log")
    log_level: _Level = _text("info", "debug, info, warning (or warn), error", "Least severe level that is logged")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, namespace_file: Path = NAMESPACE_FILE) -> Self:
        """Read the settings from ``environ``.

        Args:
            environ: usually ``os.environ``.
            namespace_file: where Kubernetes wrote the namespace of this pod, if it runs in one.

        Raises:
            SettingsError: with every problem.
        """
        problems = list(_unknown(environ))
        given = _given(environ, namespace_file)
        values: dict[str, Any] = {}
        for name, (variable, text) in given.items():
            try:
                values[name] = _adapters()[name].validate_python(_encodable(text))
            except ValidationError as error:
                problems.append(_problem(name, _what_is_wrong(error), variable, text))
            except ValueError as wrong:
                problems.append(_problem(name, str(wrong), variable, text))
        if "namespace" not in given:
            problems.append(f"{PREFIX}NAMESPACE: is required and not set; allowed: {_allowed(cls.model_fields['namespace'])}")
        wrong_names = given.keys() - values.keys()
        for name, misfit in _check_together({**_defaults(), **values}, wrong_names):
            variable, text = given.get(name, (_variable(name), str(_defaults()[name])))
            problems.append(_problem(name, misfit, variable, text, default=name not in given))
        if problems:
            raise SettingsError(problems)
        return cls(**values)

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

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        wrong = [f"{name} {what}" for name, what in _check_together(dict(self), frozenset())]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


def _check_together(values: Mapping[str, Any], unknown: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What depends on two variables: the field to blame and what is wrong with it. ``unknown``: fields without a value."""
    unknown = set(unknown)
    if not unknown & {"lease_secs", "lease_renew_secs"} and values["lease_renew_secs"] >= values["lease_secs"]:
        yield "lease_renew_secs", f"is not less than {PREFIX}LEASE_SECS ({values['lease_secs']})"
    if (
        not unknown & {"lease_renew_secs", "lease_retry_secs"}
        and values["lease_retry_secs"] * _JITTER >= values["lease_renew_secs"]
    ):
        limit = f"{PREFIX}LEASE_RENEW_SECS ({values['lease_renew_secs']})"
        yield "lease_retry_secs", f"is not less than {limit} divided by {_JITTER:g}"
    for base, longest in (("backoff_base_secs", "backoff_max_secs"), ("siorg_probe_base_secs", "siorg_probe_max_secs")):
        if not unknown & {base, longest} and values[longest] < values[base]:
            yield longest, f"is less than {_variable(base)} ({values[base]:g})"


def markdown_table() -> str:
    """All settings as a table, for the documentation and ``siorg-operator settings``."""
    rows = [
        "| Variable | Default | Allowed | Unit | Meaning |",
        "|---|---|---|---|---|",
        *(
            f"| `{_variable(name)}` | {_shown_default(one)} | {_allowed(one)} | {_extra(one, 'unit')} | {one.description} |"
            for name, one in OperatorSettings.model_fields.items()
        ),
    ]
    return "\n".join(rows) + "\n"


# -- the environment --------------------------------------------------------------------------------------------------


def _given(environ: Mapping[str, str], namespace_file: Path) -> dict[str, tuple[str, str]]:
    """Of each field that has a value: where that comes from, and its text."""
    found = {
        name: (_variable(name), text)
        for name in OperatorSettings.model_fields
        if (text := environ.get(_variable(name), "").strip())
    }
    if "namespace" not in found:
        if text := environ.get("POD_NAMESPACE", "").strip():
            found["namespace"] = ("POD_NAMESPACE", text)
        elif text := _content(namespace_file):
            found["namespace"] = (str(namespace_file), text)
    return found


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _unknown(environ: Mapping[str, str]) -> Iterator[str]:
    known = {_variable(name) for name in OperatorSettings.model_fields}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known:
            continue
        if _SERVICE_NAME.fullmatch(name) or (name.endswith("_PORT") and _SERVICE_ADDRESS.match(environ[name].strip())):
            continue
        shown = ascii(name[:64])[1:-1]
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        yield f"{shown}: is no setting; did you mean {nearest}?; allowed: what siorg-operator settings lists"


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8 text") from None
    if "\0" in text:
        raise ValueError("has a zero character in it")
    return text


def _hostname() -> str:
    """The host's name, as far as it can be an identity."""
    return re.sub(r"[^-_.A-Za-z0-9]", "-", socket.gethostname())[:100].strip("-_.") or "siorg-operator"


# -- telling what is wrong, and what there is ------------------------------------------------------------------------


def _problem(name: str, wrong: str, variable: str, text: str, *, default: bool = False) -> str:
    if name == "http_port" and _SERVICE_ADDRESS.match(text):
        wrong = (
            "is what Kubernetes injects for a Service called siorg-operator-http (rename that, or set enableServiceLinks: "
            "false on the pod)"
        )
    # Short values are shown; of long ones the length: people paste tokens into wrong lines.
    shape = ascii(text) if len(text) <= _SHOWN_AT_MOST else f"{len(text)} characters"
    origin = " (the default)" if default else ""
    return f"{variable}: {wrong}; value: {shape}{origin}; allowed: {_allowed(OperatorSettings.model_fields[name])}"


def _what_is_wrong(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    known = {
        "greater_than_equal": "is too small",
        "less_than_equal": "is too large",
        "literal_error": "is none of the words allowed",
    }
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    return known.get(first["type"], "cannot be read")


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _allowed(one: FieldInfo) -> str:
    if named := _extra(one, "allowed"):
        return named
    limits = {type(limit).__name__: limit for limit in one.metadata}
    return f"{limits['Ge'].ge:.0f} to {limits['Le'].le:.0f}"


def _extra(one: FieldInfo, key: str) -> str:
    extra = one.json_schema_extra
    return str(extra.get(key) or "") if isinstance(extra, dict) else ""


def _shown_default(one: FieldInfo) -> str:
    if one.is_required():
        return "required"
    if shown := _extra(one, "shown"):
        return shown
    if one.default is None:
        return "not set"
    return f"`{str(one.default).lower()}`" if isinstance(one.default, bool) else f"`{one.default}`"


@cache
def _adapters() -> Mapping[str, TypeAdapter[Any]]:
    return {
        name: TypeAdapter(cast("Any", Annotated[one.annotation, one]), config=ConfigDict(hide_input_in_errors=True))
        for name, one in OperatorSettings.model_fields.items()
    }


def _defaults() -> Mapping[str, Any]:
    return {name: one.default for name, one in OperatorSettings.model_fields.items() if not one.is_required()}
