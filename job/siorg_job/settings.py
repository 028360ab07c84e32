"""Settings from the environment: read once at the start, all of it checked, every problem told at once.

A field's name is its variable's name in lower case, unit included. An empty value means "not set", as ``docker
--env-file`` gives it; white space around a value does not count. What is not understood is refused, and so is a
variable with our prefixes that nobody reads: a typo must not silently become a default.

Dataclasses and not pydantic: making one pydantic model takes 90 ms of CPU (measured 2026-11), almost half of what the
interpreter, the database driver and the HTTP client take together, and a Job that finds an empty queue should cost
little.
"""

# ruff: noqa: RUF009 - _setting() is dataclasses.field() with its metadata

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar, cast

from siorg_runtime.redaction import Redactor

PREFIXES: Final = ("WORKER_", "SIORG_")
"""A variable that begins so is ours, or a typo."""

_OTHER_PROGRAMS = ("SIORG_OPERATOR_", "SIORG_SIMULATOR_")
_DAY = 86_400
_SHOWN_AT_MOST = 12  # characters of a wrong value: enough to recognise it, too few for most secrets
_LONGEST_TOKEN = 4096  # characters
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,9})?")
_BOOLEANS: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
# What Kubernetes injects for each Service of the namespace, here one that is called siorg-… or worker-…:
# https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
_SERVICE_NAME = re.compile(
    r"[A-Z0-9_]+_SERVICE_(?:HOST|PORT(?:_[A-Z0-9_]+)?)|[A-Z0-9_]+_PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?"
)
_SERVICE_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://", re.IGNORECASE)


class SettingsError(Exception):
    """The environment does not make settings. One line for each problem: ``NAME: what is wrong; …; allowed: …``."""

    def __init__(self, problems: Iterable[str]) -> None:
        """``problems``: one line each, without secrets."""
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Secret:
    """A text that is not shown by accident: neither ``str`` nor ``repr`` nor a format gives it away."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Hold ``value``."""
        self._value = value

    def get_secret_value(self) -> str:
        """Return the text itself."""
        return self._value

    def __repr__(self) -> str:
        """Say that there is a secret."""
        return "Secret(***)"

    def __str__(self) -> str:
        """Say that there is a secret."""
        return "***"

    def __format__(self, _form: str) -> str:
        """Say that there is a secret."""
        return "***"

    def __eq__(self, other: object) -> bool:
        """Compare the texts."""
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        """Hash the text."""
        return hash(self._value)

    def __reduce__(self) -> tuple[object, ...]:
        """Refuse to be pickled: a secret would leave the process."""
        raise TypeError("a secret is not pickled")


@dataclass(frozen=True, slots=True)
class Variable:
    """What there is to know of one environment variable.

    Attributes:
        name: of the variable.
        default: as it would be written in the environment; None: nothing stands for it.
        required: there is no doing without.
        allowed: what its value may be, for people.
        unit: of its value; empty where it has none.
        meaning: what it is for, in one line.
        secret: its value is never shown.
    """

    name: str
    default: str | None
    required: bool
    allowed: str
    unit: str
    meaning: str
    secret: bool


# -- from text to values ----------------------------------------------------------------------------------------------


_Number = TypeVar("_Number", int, float)


class _Kind(Protocol):
    """How a variable's text becomes a value, and what is allowed."""

    @property
    def allowed(self) -> str: ...

    def read(self, text: str) -> object:
        """Raises ValueError with what is wrong, and nothing of the text."""
        ...


@dataclass(frozen=True, slots=True)
class _Whole:
    low: int
    high: int

    @property
    def allowed(self) -> str:
        return f"{self.low} to {self.high}"

    def read(self, text: str) -> int:
        if _WHOLE.fullmatch(text) is None:
            raise ValueError("is not a whole number in plain decimal digits")
        return _within(int(text), self.low, self.high)


@dataclass(frozen=True, slots=True)
class _Seconds:
    low: float  # 0.001 where a limit of no time would make no sense
    high: float

    @property
    def allowed(self) -> str:
        return f"{self.low:g} to {self.high:g}" if self.high < _DAY else f"{self.low:g} to {int(self.high)}"

    def read(self, text: str) -> float:
        if _DECIMAL.fullmatch(text) is None:
            raise ValueError("is not a number in plain decimal digits")
        return _within(float(text), self.low, self.high)


@dataclass(frozen=True, slots=True)
class _Switch:
    allowed: str = "true, false (also 1, 0, yes, no, on, off)"

    def read(self, text: str) -> bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError("is neither true nor false")
        return _BOOLEANS[text.lower()]


@dataclass(frozen=True, slots=True)
class _Word:
    words: Mapping[str, str]  # as it may be written → as it is meant
    allowed: str

    def read(self, text: str) -> str:
        if text.lower() not in self.words:
            raise ValueError("is none of the words allowed")
        return self.words[text.lower()]


@dataclass(frozen=True, slots=True)
class _Text:
    allowed: str
    make: Callable[[str], object]

    def read(self, text: str) -> object:
        return self.make(text)


def _within(number: _Number, low: float, high: float) -> _Number:
    if number < low:
        raise ValueError("is too small")
    if number > high:
        raise ValueError("is too large")
    return number


def check_database_url(url: str) -> None:
    """Refuse a URL as ``siorg_queue.address`` does, which is loaded only now: with the package comes the database driver.

    Raises:
        ValueError: with what is wrong, and nothing of the URL.
    """
    from siorg_queue.address import check_database_url as check  # noqa: PLC0415

    check(url)


def _database_url(text: str) -> Secret:
    check_database_url(text)
    return Secret(text)


def _token(text: str) -> Secret:
    if not all("!" <= character <= "~" for character in text):
        raise ValueError("has a space, a control character or a character that is not ASCII in it")
    if len(text) > _LONGEST_TOKEN:
        raise ValueError("is too long")
    return Secret(text)


def _existing_file(text: str) -> Path:
    path = Path(text)
    try:
        exists = path.is_file()
    except (OSError, ValueError):
        exists = False
    if not exists:
        raise ValueError("is no file that exists")
    return path


def _setting(kind: _Kind, meaning: str, *, unit: str = "", default: object = MISSING) -> Any:
    return field(default=cast("Any", default), metadata={"kind": kind, "meaning": meaning, "unit": unit})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the environment says about a job. Immutable; its repr shows no secret.

    Made by ``from_environment``, which checks. ``dataclasses.replace`` changes a field and checks nothing: for tests.
    """

    database_url: Secret = _setting(
        _Text("postgresql://user:password@host:port/database", _database_url), "The PostgreSQL database with the queue"
    )
    siorg_api_url: str = _setting(
        _Text("https://host[:port][/path] without user information", str),
        "Address of SIORG; the public open-data service is https://estruturaorganizacional.dados.gov.br/doc",
        default="https://api.siorg.gov.br",
    )
    siorg_api_token: Secret | None = _setting(
        _Text(f"printable ASCII without spaces, at most {_LONGEST_TOKEN} characters", _token),
        "Token for SIORG, sent as a bearer token",
        default=None,
    )
    siorg_allow_insecure: bool = _setting(
        _Switch(), "Also http, loopback and private addresses for SIORG: the simulator, a test cluster", default=False
    )
    siorg_ca_bundle: Path | None = _setting(
        _Text("a PEM file that exists", _existing_file),
        "Certificates of further authorities to trust for SIORG, beside the system's",
        default=None,
    )
    siorg_timeout_secs: float = _setting(
        _Seconds(0.001, 600), "A whole request to SIORG may take so long", unit="seconds", default=30.0
    )
    siorg_connect_timeout_secs: float = _setting(
        _Seconds(0.001, 600), "Connecting to SIORG may take so long", unit="seconds", default=10.0
    )
    siorg_max_body_bytes: int = _setting(
        _Whole(1024, 1_073_741_824), "A larger answer of SIORG is refused", unit="bytes", default=67_108_864
    )
    siorg_max_requests_per_second: int = _setting(
        _Whole(0, 10_000),
        "Requests to SIORG of all processes on one database together; 0: no limit",
        unit="requests per second",
        default=50,
    )
    siorg_fresh_secs: float = _setting(
        _Seconds(0, _DAY), "A fetched answer serves further items of the run for so long", unit="seconds", default=300.0
    )
    siorg_breaker_failures: int = _setting(
        _Whole(1, 1000), "After so many failures in a row SIORG counts as down", unit="failures", default=5
    )
    siorg_breaker_cooldown_secs: float = _setting(
        _Seconds(0.001, 3600), "First pause before SIORG is tried again after that", unit="seconds", default=5.0
    )

    worker_batch_size: int = _setting(_Whole(1, 1000), "Claimed at once, at most", unit="items", default=10)
    worker_concurrency: int = _setting(_Whole(1, 256), "In flight at once, at most", unit="items", default=32)
    worker_poll_interval_secs: float = _setting(
        _Seconds(1, 3600), "Pause of run --forever when nothing is due", unit="seconds", default=5.0
    )
    worker_linger_secs: float = _setting(
        _Seconds(0, 3600),
        "A run waits for an item that is due again within this time, and else ends",
        unit="seconds",
        default=10.0,
    )
    worker_max_retries: int = _setting(
        _Whole(1, 100),
        "Attempts of an item before it ends FAILED, the first one included",
        unit="attempts",
        default=3,
    )
    worker_retry_base_delay_ms: int = _setting(
        _Whole(1, _DAY * 1000),
        "Longest pause before the second attempt; doubles from there",
        unit="milliseconds",
        default=1000,
    )
    worker_retry_max_delay_ms: int = _setting(
        _Whole(1, _DAY * 1000),
        "Longest pause before any attempt; not less than WORKER_RETRY_BASE_DELAY_MS",
        unit="milliseconds",
        default=60_000,
    )
    worker_item_timeout_secs: float = _setting(
        _Seconds(0.001, 3600), "Fetching what one item needs may take so long", unit="seconds", default=120.0
    )
    worker_lease_secs: float = _setting(
        _Seconds(2, 3600), "An item of a worker that died is claimable again after this", unit="seconds", default=60.0
    )
    worker_unavailable_secs: float = _setting(
        _Seconds(0, 3600),
        "How long a run waits for a database or SIORG that is down before it exits with 75",
        unit="seconds",
        default=30.0,
    )
    worker_shutdown_grace_secs: float = _setting(
        _Seconds(0, 600), "After SIGTERM, what is in flight may finish for so long", unit="seconds", default=20.0
    )
    worker_enable_cleanup: bool = _setting(_Switch(), "Whether run --forever also cleans up", default=True)
    worker_cleanup_interval_secs: float = _setting(
        _Seconds(1, 7 * _DAY), "How often run --forever cleans up", unit="seconds", default=3600.0
    )
    worker_retention_days: int = _setting(_Whole(1, 3650), "Cleanup keeps finished items for so long", unit="days", default=30)
    worker_metrics_port: int | None = _setting(
        _Whole(1, 65_535), "Serve Prometheus metrics on this port; not set: no metrics", default=None
    )
    worker_termination_log: Path = _setting(
        _Text("a path", Path),
        "Where this file exists, the run's summary is written here too",
        default=Path("/dev/termination-log"),
    )

    log_format: Literal["text", "json"] = _setting(
        _Word({"text": "text", "json": "json"}, "text, json"), "Form of the log", default="text"
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        _Word(
            {"debug": "debug", "info": "info", "warning": "warning", "warn": "warning", "error": "error"},
            "debug, info, warning (or warn), error",
        ),
        "Least severe level that is logged",
        default="info",
    )

    notices: tuple[str, ...] = ()
    """What a person should know of the environment although it is not wrong: to be logged as warnings."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings from ``environ``.

        Raises:
            SettingsError: with every problem; neither it nor anything it refers to holds a secret.
        """
        given = {name: text for name in _VARIABLES if (text := environ.get(name, "").strip())}
        problems = list(_unknown(environ))
        values: dict[str, Any] = {}
        # ValueErrors become text here and are let go: attached to what is raised they would bring local variables.
        for name, text in given.items():
            try:
                values[name.lower()] = _KINDS[name].read(_encodable(text))
            except ValueError as wrong:
                problems.append(_problem(name, str(wrong), given))
        problems += [
            f"{one.name}: is required and not set; allowed: {one.allowed}"
            for one in _VARIABLES.values()
            if one.required and one.name not in given
        ]
        problems += _check_together(values, given)
        if problems:
            raise SettingsError(problems)
        return cls(**values, notices=tuple(_notices(environ)))

    def redactor(self) -> Redactor:
        """Return a redactor that knows every secret of these settings."""
        token = self.siorg_api_token.get_secret_value() if self.siorg_api_token is not None else ""
        return Redactor((self.database_url.get_secret_value(), token))


def _check_together(values: dict[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    """What depends on two variables. Puts the address of SIORG into its one plain form."""
    from siorg_job.siorg.address import check_base_url  # noqa: PLC0415 - not needed for the documentation

    if "siorg_api_url" in values:
        # Where the switch itself is wrong, that is told; the address is then held to the wider rule.
        wrong_switch = "SIORG_ALLOW_INSECURE" in given and "siorg_allow_insecure" not in values
        insecure = wrong_switch or values.get("siorg_allow_insecure", False)
        try:
            values["siorg_api_url"] = check_base_url(values["siorg_api_url"], allow_insecure=insecure)
        except ValueError as wrong:
            yield _problem("SIORG_API_URL", str(wrong), given)
    base, longest = "WORKER_RETRY_BASE_DELAY_MS", "WORKER_RETRY_MAX_DELAY_MS"
    read = {name: values.get(name.lower(), _DEFAULTS[name]) for name in (base, longest)}
    if read[longest] < read[base]:
        yield _problem(longest, f"is less than {base} ({read[base]})", given)


# -- the environment's oddities ---------------------------------------------------------------------------------------


def _unknown(environ: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(environ):
        if not name.startswith(PREFIXES) or name in _VARIABLES or name.startswith(_OTHER_PROGRAMS):
            continue
        if _SERVICE_NAME.fullmatch(name) or (name.endswith("_PORT") and _SERVICE_ADDRESS.match(environ[name].strip())):
            continue
        import difflib  # noqa: PLC0415 - for a mistake only

        shown = ascii(name[:64])[1:-1]
        nearest = difflib.get_close_matches(name, _VARIABLES, n=1, cutoff=0.0)[0]
        yield f"{shown}: is no setting; did you mean {nearest}?; allowed: see siorg-job --help"


def _notices(environ: Mapping[str, str]) -> Iterator[str]:
    if environ.get("RUST_LOG", "").strip() and not environ.get("LOG_LEVEL", "").strip():
        yield "RUST_LOG is not read any more; use LOG_LEVEL"


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8 text") from None
    if "\0" in text:
        raise ValueError("has a zero character in it")
    return text


# -- telling what is wrong --------------------------------------------------------------------------------------------


def _problem(name: str, wrong: str, given: Mapping[str, str]) -> str:
    variable = _VARIABLES[name]
    text = given.get(name, variable.default or "")
    if name == "WORKER_METRICS_PORT" and _SERVICE_ADDRESS.match(text):
        wrong = (
            "is what Kubernetes injects for a Service called worker-metrics (rename that, or set enableServiceLinks: "
            "false on the pod)"
        )
    origin = "" if name in given else " (the default)"
    return f"{name}: {wrong}; value: {_shape(variable, text, given)}{origin}; allowed: {variable.allowed}"


def _shape(variable: Variable, text: str, given: Mapping[str, str]) -> str:
    """The value where it can be nothing secret, and else how long it is: people paste tokens into wrong lines."""
    if variable.secret or variable.name == "SIORG_API_URL" or len(text) > _SHOWN_AT_MOST:
        return f"{len(text)} characters"
    redactor = Redactor((given.get("DATABASE_URL", ""), given.get("SIORG_API_TOKEN", "")))
    return ascii(redactor.text(text))


# -- telling what there is --------------------------------------------------------------------------------------------


def variables() -> tuple[Variable, ...]:
    """Every variable that is read, in the order in which people should meet them."""
    return tuple(_VARIABLES.values())


def markdown_table() -> str:
    """All settings as a table, for the documentation and ``--help``."""
    rows = [
        "| Variable | Default | Allowed | Unit | Meaning |",
        "|---|---|---|---|---|",
        *(f"| `{one.name}` | {_shown_default(one)} | {one.allowed} | {one.unit} | {one.meaning} |" for one in variables()),
    ]
    return "\n".join(rows) + "\n"


def env_example() -> str:
    """All settings with their defaults, as a file for ``docker run --env-file``: no quotes, no comment behind."""
    lines = [
        "# Settings of siorg-job, with their defaults. An empty value is the same as none.",
        "# Made by siorg_job.settings.env_example(); for `docker run --env-file`.",
    ]
    for one in variables():
        unit = f" ({one.unit})" if one.unit else ""
        value = "postgresql://siorg:change-me@localhost:5432/siorg" if one.required else one.default or ""
        lines += ["", f"# {one.meaning}. Allowed: {one.allowed}{unit}", f"{one.name}={value}"]
    return "\n".join(lines) + "\n"


def _shown_default(variable: Variable) -> str:
    if variable.required:
        return "required"
    return "not set" if variable.default is None else f"`{variable.default}`"


def _described(one: Field[Any]) -> Variable:
    required = one.default is MISSING
    return Variable(
        name=one.name.upper(),
        default=None if required or one.default is None else _as_written(one.default),
        required=required,
        allowed=one.metadata["kind"].allowed,
        unit=one.metadata["unit"],
        meaning=one.metadata["meaning"],
        secret=one.name in {"database_url", "siorg_api_token"},
    )


def _as_written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


_FIELDS = [one for one in fields(Settings) if one.metadata]
_VARIABLES: Final[Mapping[str, Variable]] = {one.name.upper(): _described(one) for one in _FIELDS}
_KINDS: Final[Mapping[str, _Kind]] = {one.name.upper(): one.metadata["kind"] for one in _FIELDS}
_DEFAULTS: Final[Mapping[str, Any]] = {one.name.upper(): one.default for one in _FIELDS}
