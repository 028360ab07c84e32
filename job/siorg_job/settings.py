"""Settings of a job. A field's name is its variable's in lower case; ``siorg_runtime.environment`` says how they are read."""

# ruff: noqa: RUF009 - setting() is dataclasses.field() with its metadata

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from siorg_job.siorg import certificates
from siorg_job.siorg.address import check_base_url
from siorg_queue import RetryPolicy
from siorg_queue.address import check_database_url
from siorg_runtime.environment import LOG_FORMAT, LOG_LEVEL, Environment, Kind, Reading, Secret, seconds, setting, switch, whole
from siorg_runtime.logs import LogFormat, LogLevel
from siorg_runtime.redaction import Redactor

OPEN_DATA: Final = "https://estruturaorganizacional.dados.gov.br/doc"
"""SIORG as everybody may ask it, without a token."""
FIRST_WORKERS: Final = "https://api.siorg.gov.br"
"""What the first worker asks; it wants a token, and no answer of it was ever captured."""

_DAY = 86_400
_MOST_IN_FLIGHT = 256  # items: more made a load no faster, and a worker that dies takes them out of others' hands for a while
_MOST_REQUESTS = 64  # at once, where nobody says: more made no process faster
_LEAST_REQUESTS = 8
_SLOW_ANSWER_SECONDS = 2
_LONGEST_TOKEN = 4096  # characters


def _database_url(text: str) -> Secret:
    check_database_url(text)
    return Secret(text)


def _token(text: str) -> Secret:
    if not all("!" <= character <= "~" for character in text):
        raise ValueError("must be printable ASCII without spaces")
    if len(text) > _LONGEST_TOKEN:
        raise ValueError(f"must have at most {_LONGEST_TOKEN} characters")
    return Secret(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the environment says about a job. Immutable; its repr shows no secret.

    Made by ``from_environment``, which checks. ``dataclasses.replace`` changes a field and checks nothing: for tests.
    """

    database_url: Secret = setting(
        Kind("postgresql://user:password@host:port/database", _database_url),
        "The PostgreSQL database with the queue",
        hidden=True,
    )
    siorg_api_url: str = setting(
        Kind("https://host[:port][/path] without user information", str),
        f"Address of SIORG; the public open-data service is {OPEN_DATA}",
        default=FIRST_WORKERS,
        hidden=True,
    )
    siorg_api_token: Secret | None = setting(
        Kind(f"printable ASCII without spaces, at most {_LONGEST_TOKEN} characters", _token),
        "Token for SIORG, sent as a bearer token",
        default=None,
        hidden=True,
    )
    siorg_allow_insecure: bool = switch(
        "Also http, loopback and private addresses for SIORG: the simulator, a test cluster", default=False
    )
    siorg_ca_bundle: Path | None = setting(
        Kind("a PEM file with at least one certificate", certificates.check_bundle),
        "Certificates of further authorities to trust for SIORG, beside the system's",
        default=None,
    )
    siorg_timeout_secs: float = seconds(30.0, 0.001, 600, "A whole request to SIORG may take so long")
    siorg_connect_timeout_secs: float = seconds(10.0, 0.001, 600, "Connecting to SIORG may take so long")
    siorg_max_body_bytes: int = whole(
        67_108_864, 1024, 1_073_741_824, "A larger answer of SIORG is refused; where memory is limited, less", unit="bytes"
    )
    siorg_max_requests_per_second: int = whole(
        50, 0, 10_000, "Requests to SIORG of all processes on one database together; 0: no limit", unit="requests per second"
    )
    siorg_max_ends: int = whole(
        10,
        0,
        100_000,
        "Units of one organization that may end within 24 hours without a person; the larger limit counts",
        unit="units",
    )
    siorg_max_ends_percent: int = whole(5, 0, 50, "The same in percent of its active units", unit="percent")
    siorg_max_ends_total_percent: int = whole(
        2, 0, 50, "Units of all organizations that may end within 24 hours, in percent of all active ones", unit="percent"
    )
    siorg_fresh_secs: float = seconds(300.0, 0, _DAY, "A fetched answer serves further items of the run for so long")
    siorg_breaker_failures: int = whole(5, 1, 1000, "After so many failures in a row SIORG counts as down", unit="failures")
    siorg_breaker_cooldown_secs: float = seconds(5.0, 0.001, 3600, "First pause before SIORG is tried again after that")

    worker_batch_size: int | None = whole(
        None, 1, 1000, "Claimed at once, at most; not set: as many as there is room for", unit="items"
    )
    worker_concurrency: int | None = whole(
        None,
        1,
        _MOST_IN_FLIGHT,
        f"In flight at once, at most; not set: as many as the requests at once can serve, at most {_MOST_IN_FLIGHT}",
        unit="items",
    )
    worker_poll_interval_secs: float = seconds(5.0, 1, 3600, "Pause of run --forever when nothing is due")
    worker_linger_secs: float = seconds(
        10.0, 0, 3600, "A run waits for an item that is due again within this time, and else ends"
    )
    worker_max_retries: int = whole(
        3, 1, 100, "Attempts of an item before it ends FAILED, the first one included", unit="attempts"
    )
    worker_retry_base_delay_ms: int = whole(
        1000, 1, _DAY * 1000, "Longest pause before the second attempt; doubles from there", unit="milliseconds"
    )
    worker_retry_max_delay_ms: int = whole(
        60_000, 1, _DAY * 1000, "Longest pause before any attempt; not less than WORKER_RETRY_BASE_DELAY_MS", unit="milliseconds"
    )
    worker_item_timeout_secs: float = seconds(120.0, 0.001, 3600, "Fetching what one item needs may take so long")
    worker_lease_secs: float = seconds(60.0, 2, 3600, "An item of a worker that died is claimable again after this")
    worker_unavailable_secs: float = seconds(
        30.0, 0, 3600, "How long a run waits for a database or SIORG that is down before it exits with 75"
    )
    worker_shutdown_grace_secs: float = seconds(20.0, 0, 600, "After SIGTERM, what is in flight may finish for so long")
    worker_enable_cleanup: bool = switch("Whether run --forever also cleans up", default=True)
    worker_cleanup_interval_secs: float = seconds(3600.0, 1, 7 * _DAY, "How often run --forever cleans up")
    worker_retention_days: int = whole(30, 1, 3650, "Cleanup keeps finished items for so long", unit="days")
    worker_metrics_port: int | None = whole(None, 1, 65_535, "Serve Prometheus metrics on this port; not set: no metrics")
    worker_termination_log: Path = setting(
        Kind("a path", Path),
        "Where this file exists, the run's summary is written here too",
        default=Path("/dev/termination-log"),
    )

    log_format: LogFormat = setting(LOG_FORMAT, "Form of the log", default="text")
    log_level: LogLevel = setting(LOG_LEVEL, "Least severe level that is logged", default="info")

    notices: tuple[str, ...] = ()
    """What a person should know of the environment although it is not wrong: to be logged as warnings."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings from ``environ``.

        Raises:
            SettingsError: with every error; neither it nor anything it refers to holds a secret.
        """
        reading = read(environ)
        unread = environ.get("RUST_LOG", "").strip() and "log_level" not in reading.given
        notices = ("RUST_LOG is not read any more; use LOG_LEVEL",) if unread else ()
        return cls(**reading.checked(), notices=notices)

    @property
    def items_in_flight(self) -> int:
        """How many items a run holds at once, at most."""
        return self.worker_concurrency or _MOST_IN_FLIGHT

    @property
    def items_a_claim(self) -> int:
        """How many items one claim takes, at most."""
        return self.worker_batch_size or self.items_in_flight

    @property
    def requests_at_once(self) -> int:
        """How many requests to SIORG a process has under way at once: what somebody set, or the rate needs at slow answers."""
        if self.worker_concurrency is not None:
            return self.worker_concurrency
        rate = self.siorg_max_requests_per_second or _MOST_REQUESTS
        return min(max(_SLOW_ANSWER_SECONDS * rate, _LEAST_REQUESTS), _MOST_REQUESTS)

    def retry_policy(self) -> RetryPolicy:
        base, longest = self.worker_retry_base_delay_ms / 1000, self.worker_retry_max_delay_ms / 1000
        return RetryPolicy(self.worker_max_retries, base, longest)

    def redactor(self) -> Redactor:
        """Return a redactor that knows every secret of these settings."""
        token = self.siorg_api_token.get_secret_value() if self.siorg_api_token is not None else ""
        return Redactor((self.database_url.get_secret_value(), token))


ENVIRONMENT: Final = Environment(
    Settings, ours=("WORKER_", "SIORG_"), others=("SIORG_OPERATOR_", "SIORG_SIMULATOR_"), listing="siorg-job settings"
)


def read(environ: Mapping[str, str]) -> Reading:
    """What an environment says, and all that is wrong with it."""
    reading = ENVIRONMENT.read(environ)
    _check_together(reading)
    reading.errors += certificates.unusable(environ)
    return reading


def _check_together(reading: Reading) -> None:
    """What depends on two variables. Puts the address of SIORG into its one plain form."""
    if "siorg_api_url" in reading.values:
        # Where the switch itself is wrong, that is told; the address is then held to the wider rule.
        insecure = reading.is_wrong("siorg_allow_insecure") or reading.value("siorg_allow_insecure")
        try:
            reading.values["siorg_api_url"] = check_base_url(reading.values["siorg_api_url"], allow_insecure=insecure)
        except ValueError as wrong:
            reading.refuse("siorg_api_url", str(wrong))
    base = reading.value("worker_retry_base_delay_ms")
    if reading.value("worker_retry_max_delay_ms") < base:
        reading.refuse("worker_retry_max_delay_ms", f"must not be less than WORKER_RETRY_BASE_DELAY_MS ({base})")


_EXAMPLES = {"DATABASE_URL": "postgresql://siorg:change-me@localhost:5432/siorg", "SIORG_API_URL": OPEN_DATA}


def env_example() -> str:
    """All settings with their defaults, as a file for ``docker run --env-file``: no quotes, no comment behind."""
    lines = [
        "# Settings of siorg-job, with their defaults, but for the two addresses. An empty value is the same as none.",
        "# SIORG_API_URL is the public open-data service here, which asks for no token; the default is the first worker's.",
        "# Made by siorg_job.settings.env_example(); for `docker run --env-file`.",
    ]
    for variable in ENVIRONMENT.variables:
        unit = f" ({variable.unit})" if variable.unit else ""
        value = _EXAMPLES.get(variable.name, variable.default or "")
        lines += ["", f"# {variable.meaning}. Allowed: {variable.kind.allowed}{unit}", f"{variable.name}={value}"]
    return "\n".join(lines) + "\n"
