"""What the environment may say: every default, every refusal, and nothing secret in what is said about it."""

import dataclasses
import pickle
import re
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from siorg_job.settings import (
    Secret,
    Settings,
    SettingsError,
    check_database_url,
    env_example,
    markdown_table,
    variables,
)

ROOT = Path(__file__).resolve().parents[3]
URL = "postgresql://siorg:hunter2-word@db:5432/siorg"
TOKEN = "tok-3f9a-secret"


def read(**environ: str) -> Settings:
    return Settings.from_environment({"DATABASE_URL": URL, **environ})


def problems(environ: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment(environ)
    return raised.value.problems


def test_defaults() -> None:
    settings = read()
    found = {one.name: getattr(settings, one.name) for one in dataclasses.fields(settings)}
    assert found == {
        "database_url": Secret(URL),
        "siorg_api_url": "https://api.siorg.gov.br",
        "siorg_api_token": None,
        "siorg_allow_insecure": False,
        "siorg_ca_bundle": None,
        "siorg_timeout_secs": 30,
        "siorg_connect_timeout_secs": 10,
        "siorg_max_body_bytes": 67108864,
        "siorg_max_requests_per_second": 50,
        "siorg_fresh_secs": 300,
        "siorg_breaker_failures": 5,
        "siorg_breaker_cooldown_secs": 5,
        "worker_batch_size": 10,
        "worker_concurrency": 32,
        "worker_poll_interval_secs": 5,
        "worker_linger_secs": 10,
        "worker_max_retries": 3,
        "worker_retry_base_delay_ms": 1000,
        "worker_retry_max_delay_ms": 60000,
        "worker_item_timeout_secs": 120,
        "worker_lease_secs": 60,
        "worker_unavailable_secs": 30,
        "worker_shutdown_grace_secs": 20,
        "worker_enable_cleanup": True,
        "worker_cleanup_interval_secs": 3600,
        "worker_retention_days": 30,
        "worker_metrics_port": None,
        "worker_termination_log": Path("/dev/termination-log"),
        "log_format": "text",
        "log_level": "info",
        "notices": (),
    }


def test_values_are_read_trimmed_and_typed(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    settings = read(
        SIORG_API_TOKEN=f" {TOKEN}\n",
        SIORG_API_URL="http://127.0.0.1:8900/doc/",
        SIORG_ALLOW_INSECURE="Yes",
        SIORG_CA_BUNDLE=str(bundle),
        SIORG_TIMEOUT_SECS="2.5",
        WORKER_BATCH_SIZE="\t250 ",
        WORKER_ENABLE_CLEANUP="OFF",
        WORKER_METRICS_PORT="9100",
        LOG_FORMAT="JSON",
        LOG_LEVEL="Warn",
    )
    assert settings.siorg_api_token == Secret(TOKEN)
    assert settings.siorg_api_url == "http://127.0.0.1:8900/doc"
    assert settings.siorg_allow_insecure is True
    assert settings.siorg_ca_bundle == bundle
    assert settings.siorg_timeout_secs == 2.5
    assert settings.worker_batch_size == 250
    assert settings.worker_enable_cleanup is False
    assert settings.worker_metrics_port == 9100
    assert (settings.log_format, settings.log_level) == ("json", "warning")


WRONG = [
    ("DATABASE_URL", "", "required"),
    ("DATABASE_URL", "   ", "required"),
    ("DATABASE_URL", "host=db password=hunter2-word", "begin with postgresql://"),
    ("DATABASE_URL", "mysql://u:hunter2-word@h/d", "begin with postgresql://"),
    ("DATABASE_URL", "postgresql+asyncpg://u:hunter2-word@h/d", "begin with postgresql://"),
    ("DATABASE_URL", "postgresql://u:hunter2\x01word@h/d", "control character"),
    ("DATABASE_URL", "postgresql://u:hunter2 word@h/d", "space"),
    ("DATABASE_URL", "postgresql://u:hunter2@word@h/d", "%40"),
    ("DATABASE_URL", "postgresql://u:hunter2/word@h/d", "%2F"),
    ("DATABASE_URL", "postgresql://u:hunter2%word@h/d", "%25"),
    ("DATABASE_URL", "postgresql://u:hunter2-word@h:99999/d", "port"),
    ("DATABASE_URL", "postgresql://u:hunter2-word@h:0/d", "port"),
    ("DATABASE_URL", "postgresql://u:hunter2-word@h:x/d", "port"),
    ("DATABASE_URL", "postgresql://u:hunter2-word@h/d?sslmode", "name=value"),
    ("DATABASE_URL", "postgresql://u:hunter2-word@h/d?sslmod=require", "does not know"),
    ("DATABASE_URL", "postgresql://u:hunter2%80word@h/d", "UTF-8"),
    ("SIORG_API_URL", "http://api.siorg.gov.br", "https"),
    ("SIORG_API_URL", "https://hunter2-word@api.siorg.gov.br", "https://host[:port][/path]"),
    ("SIORG_API_URL", "https://localhost/doc", "allowed"),
    ("SIORG_API_URL", "api.siorg.gov.br", "https"),
    ("SIORG_API_TOKEN", "Bearer hunter2-word", "space"),
    ("SIORG_API_TOKEN", "hunter2-wörd", "ASCII"),
    ("SIORG_API_TOKEN", "hunter2-word" * 400, "too long"),
    ("SIORG_ALLOW_INSECURE", "maybe", "true, false"),
    ("SIORG_CA_BUNDLE", "/nowhere/ca.pem", "exists"),
    ("SIORG_CA_BUNDLE", "/", "exists"),
    ("SIORG_TIMEOUT_SECS", "0", "0.001 to 600"),
    ("SIORG_TIMEOUT_SECS", "nan", "0.001 to 600"),
    ("SIORG_TIMEOUT_SECS", "inf", "plain decimal"),
    ("SIORG_TIMEOUT_SECS", "30s", "plain decimal"),
    ("SIORG_MAX_BODY_BYTES", "64MB", "1024 to 1073741824"),
    ("SIORG_MAX_REQUESTS_PER_SECOND", "-1", "0 to 10000"),
    ("WORKER_BATCH_SIZE", "0", "1 to 1000"),
    ("WORKER_BATCH_SIZE", "1001", "1 to 1000"),
    ("WORKER_BATCH_SIZE", "1e1", "1 to 1000"),
    ("WORKER_BATCH_SIZE", "10.0", "1 to 1000"),
    ("WORKER_BATCH_SIZE", "1_0", "1 to 1000"),
    ("WORKER_BATCH_SIZE", "٣", "1 to 1000"),
    ("WORKER_BATCH_SIZE", "+5", "1 to 1000"),
    ("WORKER_BATCH_SIZE", "9" * 5000, "1 to 1000"),
    ("WORKER_BATCH_SIZE", "\udcff", "UTF-8"),
    ("WORKER_CONCURRENCY", "257", "1 to 256"),
    ("WORKER_POLL_INTERVAL_SECS", "0", "1 to 3600"),
    ("WORKER_MAX_RETRIES", "0", "1 to 100"),
    ("WORKER_RETRY_MAX_DELAY_MS", "999", "less than WORKER_RETRY_BASE_DELAY_MS (1000)"),
    ("WORKER_ENABLE_CLEANUP", "2", "true, false"),
    ("WORKER_RETENTION_DAYS", "3651", "1 to 3650"),
    ("WORKER_LEASE_SECS", "1", "2 to 3600"),
    ("WORKER_METRICS_PORT", "0", "1 to 65535"),
    ("WORKER_METRICS_PORT", "tcp://10.0.0.1:9090", "enableServiceLinks"),
    ("LOG_FORMAT", "pretty", "text, json"),
    ("LOG_LEVEL", "trace", "debug, info, warning (or warn), error"),
    ("WORKER_BATCHSIZE", "10", "did you mean WORKER_BATCH_SIZE?"),
    ("SIORG_TOKEN", "hunter2-word", "did you mean SIORG_API_TOKEN?"),
    ("SIORG_PORT", "8900", "is no setting"),
]


@pytest.mark.parametrize(("name", "value", "said"), WRONG, ids=[f"{name}={value[:24]!a}" for name, value, _ in WRONG])
def test_a_wrong_value_is_refused_with_its_name_and_what_is_allowed(name: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read(**{name: value})
    (problem,) = raised.value.problems
    assert problem.startswith(f"{name}: ")
    assert "; allowed: " in problem
    assert said in problem
    assert problem.isprintable()
    everything = "".join(traceback.format_exception(raised.value)) + repr(raised.value) + problem
    assert "hunter2" not in everything
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_every_problem_is_told_at_once() -> None:
    found = problems({"WORKER_BATCH_SIZE": "x", "LOG_LEVEL": "loud", "SIORG_API_URL": "ftp://x", "WORKER_TYPO": "1"})
    assert sorted(problem.partition(":")[0] for problem in found) == [
        "DATABASE_URL",
        "LOG_LEVEL",
        "SIORG_API_URL",
        "WORKER_BATCH_SIZE",
        "WORKER_TYPO",
    ]


def test_a_secret_in_the_wrong_place_is_not_shown() -> None:
    (problem,) = problems({"DATABASE_URL": "postgresql://u:w0rd@h/d", "WORKER_BATCH_SIZE": "w0rd"})
    assert "w0rd" not in problem
    (problem,) = problems({"DATABASE_URL": URL, "WORKER_BATCH_SIZE": "a-long-token-by-mistake"})
    assert "23 characters" in problem
    assert "by-mistake" not in problem


def test_a_default_that_another_value_makes_wrong_is_told_as_such() -> None:
    (problem,) = problems({"DATABASE_URL": URL, "WORKER_RETRY_BASE_DELAY_MS": "100000"})
    assert problem.startswith("WORKER_RETRY_MAX_DELAY_MS: is less than WORKER_RETRY_BASE_DELAY_MS (100000)")
    assert "(the default)" in problem


def test_a_wrong_switch_is_told_alone() -> None:
    (problem,) = problems({"DATABASE_URL": URL, "SIORG_ALLOW_INSECURE": "ture", "SIORG_API_URL": "http://127.0.0.1:8900/doc"})
    assert problem.startswith("SIORG_ALLOW_INSECURE: is neither true nor false")


def test_empty_values_are_as_good_as_none() -> None:
    empty = {one.name: " " for one in variables() if not one.required}
    assert read(**empty) == read()


def test_what_kubernetes_injects_for_services_is_no_setting() -> None:
    assert (
        read(
            SIORG_SIMULATOR_PORT="tcp://10.0.0.1:8900",
            SIORG_DB_PORT="tcp://10.0.0.1:5432",
            SIORG_DB_SERVICE_HOST="10.0.0.1",
            SIORG_DB_SERVICE_PORT="5432",
            SIORG_DB_SERVICE_PORT_POSTGRES="5432",
            SIORG_DB_PORT_5432_TCP="tcp://10.0.0.1:5432",
            SIORG_DB_PORT_5432_TCP_PROTO="tcp",
            SIORG_DB_PORT_5432_TCP_PORT="5432",
            SIORG_DB_PORT_5432_TCP_ADDR="10.0.0.1",
            WORKER_POOL_PORT_53_UDP="udp://10.0.0.1:53",
        )
        == read()
    )


def test_variables_of_others_do_not_matter() -> None:
    assert read(PATH="/bin", SIORG_OPERATOR_NAMESPACE="x", HOME="", LOG_LEVELS="x") == read()


def test_rust_log_is_told_unless_log_level_says_it() -> None:
    assert read(RUST_LOG="debug").notices == ("RUST_LOG is not read any more; use LOG_LEVEL",)
    assert read(RUST_LOG="debug", LOG_LEVEL="info").notices == ()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql:///siorg",
        "postgres://db",
        "postgresql://u@db/siorg",
        "postgresql://u:p%40ss%2Fw@db:5432/siorg?sslmode=require&connect_timeout=5",
        "postgresql://u:pa?ss@db/siorg",
        "postgresql://postgres:@/postgres?host=/tmp/pg",
        "postgresql://u:p@a:1,b:2/d?target_session_attrs=read-write",
        "postgresql://u:p@[::1]:5432/d",
        "postgresql://u:p@%2Ftmp%2Fpg/d",
        "postgresql://u:pa:ss@db/d",
    ],
)
def test_urls_that_libpq_takes_are_taken(url: str) -> None:
    conninfo_to_dict(url)
    check_database_url(url)


@example(password="0%80")
@example(password="0%01")
@given(password=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=4, max_size=12))
def test_a_password_is_taken_apart_as_libpq_does_it_or_refused(password: str) -> None:
    url = f"postgresql://u:{password}@db/d"
    try:
        settings = Settings.from_environment({"DATABASE_URL": url})
    except SettingsError as error:
        assert password in "DATABASE_URL" or password not in str(error).partition("; allowed")[0]  # noqa: PT017
        return
    parts = conninfo_to_dict(url)
    assert parts["host"] == "db"
    assume(len(str(parts["password"])) >= 4)  # shorter ones would make stars of every log
    assert str(parts["password"]) not in settings.redactor().text(f"[{parts['password']}] [{url}]")


@given(url=st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_text_after_the_scheme_is_taken_or_refused(url: str) -> None:
    try:
        check_database_url(f"postgresql://{url}")
    except ValueError as refused:
        assert not url or len(url) < 12 or url not in str(refused)  # noqa: PT017


@pytest.mark.parametrize(
    "text",
    [
        URL,
        "hunter2-w@rd",
        "hunter2-w%40rd",
        "hunter2-w%40RD".replace("RD", "rd"),
        "siorg:hunter2-w%40rd",
        f"token {TOKEN}",
        "certpass",
    ],
)
def test_the_redactor_knows_every_secret_in_every_form(text: str) -> None:
    url = "postgresql://siorg:hunter2-w%40rd@db:5432/siorg?sslpassword=certpass"
    settings = Settings.from_environment({"DATABASE_URL": url, "SIORG_API_TOKEN": TOKEN})
    redacted = settings.redactor().text(f"before {text} after")
    assert not re.search(r"hunter2|w@rd|w%40rd|3f9a|certpass", redacted)


def test_an_empty_password_makes_no_stars_of_the_users_name() -> None:
    settings = Settings.from_environment({"DATABASE_URL": "postgresql://postgres:@/postgres?host=/tmp/pg"})
    assert settings.redactor().text("postgres: no such role") == "postgres: no such role"


def test_settings_show_and_pickle_no_secret() -> None:
    settings = read(SIORG_API_TOKEN=TOKEN)
    shown = f"{settings} {settings!r} {settings.database_url} {settings.database_url!r} {settings.siorg_api_token:>3}"
    assert "hunter2" not in shown
    assert TOKEN not in shown
    with pytest.raises(TypeError):
        pickle.dumps(settings.database_url)


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().worker_batch_size = 5  # type: ignore[misc]


def test_every_setting_is_documented() -> None:
    fields = {one.name.upper() for one in dataclasses.fields(Settings)} - {"NOTICES"}
    assert {one.name for one in variables()} == fields
    assert all(one.meaning and one.allowed for one in variables())
    assert all(one.unit for one in variables() if one.name.endswith(("_SECS", "_MS", "_BYTES", "_DAYS")))
    table = markdown_table()
    assert [line.split("`")[1] for line in table.splitlines()[2:]] == [one.name for one in variables()]
    assert all(line.count("|") == 6 for line in table.splitlines())


def test_every_documented_default_is_the_default() -> None:
    given = {one.name: one.default for one in variables() if one.default is not None}
    assert read(**given) == read()


def test_the_example_file_is_up_to_date_and_covers_exactly_the_settings() -> None:
    text = (ROOT / ".env.example").read_text()
    assert text == env_example()
    given = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert given.keys() == {one.name for one in variables()}
    assert dataclasses.replace(Settings.from_environment(given), database_url=Secret(URL)) == read()


def test_importing_the_settings_loads_no_driver_and_no_framework() -> None:
    code = (
        "import sys, siorg_job.settings\n"
        "heavy = {'pydantic', 'psycopg', 'httpx2', 'structlog', 'asyncio', 'difflib'}\n"
        "sys.exit(' '.join(heavy & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
