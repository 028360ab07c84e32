"""What the environment may say: every default, every refusal, and nothing secret in what is said about it."""

import dataclasses
import re
import ssl
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from siorg_job.settings import ENVIRONMENT, OPEN_DATA, Settings, env_example
from siorg_queue.address import check_database_url
from siorg_runtime.environment import Secret, SettingsError
from support.rows import holds_for

ROOT = Path(__file__).resolve().parents[3]
URL = "postgresql://siorg:hunter2-word@db:5432/siorg"
TOKEN = "tok-3f9a-secret"
CERTIFICATE = b"""\
-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIUFMijm/aRmnBOmDgN7eiqYACGvhcwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjgwNDMwMjZaGA8yMTI2MTEwNDA0MzAy
NlowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABEb8
2NApoOCpRPPuh8qeCnGwBSHjXjkbORK6bgjyhPd+qskA+Y6/1JPBacg/k3gml/gt
/W1/Z/XJElcy5cugKVujUzBRMB0GA1UdDgQWBBTNG+YShRsDEdBTohPxFFDuxOUu
5zAfBgNVHSMEGDAWgBTNG+YShRsDEdBTohPxFFDuxOUu5zAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIQCx4ufkjHup7l4rlgyHoqbuXX+IefkpHV2U
BqyjkzmmWgIgLsWgUmEfgk7igdoPRXqsyHwpPWNEow8bFpujXnIpJZ8=
-----END CERTIFICATE-----
"""


def read(**environ: str) -> Settings:
    return Settings.from_environment({"DATABASE_URL": URL, **environ})


def test_values_are_read_trimmed_and_typed(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(CERTIFICATE)
    address = {"SIORG_API_URL": "http://127.0.0.1:8900/doc/", "SIORG_ALLOW_INSECURE": "Yes", "SIORG_CA_BUNDLE": str(bundle)}
    settings = read(SIORG_API_TOKEN=f" {TOKEN}\n", WORKER_METRICS_PORT="9100", LOG_FORMAT="JSON", **address)
    assert (settings.siorg_api_token, settings.siorg_ca_bundle) == (Secret(TOKEN), bundle)
    assert (settings.siorg_api_url, settings.siorg_allow_insecure) == ("http://127.0.0.1:8900/doc", True)
    assert (settings.worker_metrics_port, settings.log_format) == (9100, "json")


WRONG = [
    ("DATABASE_URL", "", "required"),
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
    ("DATABASE_URL", "postgresql://u:hunter2-word@h/d?sslmode=no-verify", "sslmode (or the environment has)"),
    ("DATABASE_URL", "postgresql://u:hunter2-word@h/d?sslmode=require&sslrootcert=system", "too weak"),
    ("DATABASE_URL", "postgresql://u:hunter2-word@h/d?service=nowhere", "no service file defines"),
    ("DATABASE_URL", "postgresql://u:hunter2-word@h/d?target_session_attrs=best", "it may be any, read-write"),
    ("DATABASE_URL", "postgresql://u:hunter2-word@h/d?connect_timeout=soon", "it may be a whole number"),
    ("SIORG_API_URL", "http://api.siorg.gov.br", "https"),
    ("SIORG_API_URL", "https://hunter2-word@api.siorg.gov.br", "https://host[:port][/path]"),
    ("SIORG_API_URL", "https://localhost/doc", "allowed"),
    ("SIORG_API_URL", "api.siorg.gov.br", "https"),
    ("SIORG_API_TOKEN", "Bearer hunter2-word", "space"),
    ("SIORG_API_TOKEN", "hunter2-wörd", "ASCII"),
    ("SIORG_API_TOKEN", "hunter2-word\r\nX-Evil: 1", "ASCII"),
    ("SIORG_API_TOKEN", "hunter2-word" * 400, "at most 4096 characters"),
    ("SIORG_ALLOW_INSECURE", "maybe", "true, false"),
    ("SIORG_CA_BUNDLE", "/nowhere/ca.pem", "exists"),
    ("SIORG_CA_BUNDLE", "/", "is a directory"),
    ("SSL_CERT_FILE", "/nowhere/ca.pem", "exists"),
    ("SSL_CERT_DIR", "/nowhere", "exists"),
    ("SIORG_TIMEOUT_SECS", "0", "0.001 to 600"),
    ("SIORG_TIMEOUT_SECS", "nan", "must be a number"),
    ("SIORG_MAX_BODY_BYTES", "64MB", "1024 to 1073741824"),
    ("SIORG_MAX_REQUESTS_PER_SECOND", "-1", "0 to 10000"),
    ("WORKER_BATCH_SIZE", "0", "1 to 1000"),
    ("WORKER_CONCURRENCY", "257", "1 to 256"),
    ("WORKER_POLL_INTERVAL_SECS", "0", "1 to 3600"),
    ("WORKER_MAX_RETRIES", "0", "1 to 100"),
    ("WORKER_RETRY_MAX_DELAY_MS", "999", "must not be less than WORKER_RETRY_BASE_DELAY_MS (1000)"),
    ("WORKER_ENABLE_CLEANUP", "2", "true, false"),
    ("WORKER_RETENTION_DAYS", "3651", "1 to 3650"),
    ("WORKER_LEASE_SECS", "1", "2 to 3600"),
    ("WORKER_METRICS_PORT", "0", "1 to 65535"),
    ("WORKER_METRICS_PORT", "tcp://10.0.0.1:9090", "enableServiceLinks"),
    ("LOG_FORMAT", "pretty", "text, json"),
    ("LOG_LEVEL", "trace", "debug, info, warning (or warn), error"),
    ("WORKER_BATCHSIZE", "10", "did you mean WORKER_BATCH_SIZE?"),
    ("SIORG_TOKEN", "hunter2-word", "did you mean SIORG_API_TOKEN?"),
    ("SIORG_PORT", "8900", "unknown variable"),
]


def test_a_wrong_value_is_refused_with_its_name_and_what_is_allowed() -> None:
    failed = []
    for name, value, said in WRONG:
        with pytest.raises(SettingsError) as raised:
            read(**{name: value})
        told = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
        alone = len(raised.value.errors) == 1 and not raised.value.__cause__ and not raised.value.__context__
        found = re.fullmatch(rf"{name}: .*; allowed: .*", raised.value.errors[0])
        if not (alone and found and said in found[0] and found[0].isprintable() and "hunter2" not in told):
            failed.append((name, value, raised.value.errors))
    assert failed == []


def test_certificates_that_cannot_be_used_are_refused_with_the_variables_name(tmp_path: Path) -> None:
    files = {
        "der": (ssl.PEM_cert_to_DER_cert(CERTIFICATE.decode()), "is DER; must be PEM"),
        "not-pem": (b"no certificate", "is not PEM"),
        "empty": (b"", "is not PEM"),
        "key": (b"-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n", "has no certificate"),
        "torn": (CERTIFICATE[:300], "cannot be read"),
        "damaged": (CERTIFICATE.replace(b"MII", b"AAA"), "cannot be read"),
        "second-damaged": (CERTIFICATE + CERTIFICATE.replace(b"MII", b"AAA"), "cannot be read"),
        "folder/file": (b"", "is not PEM"),
    }
    (tmp_path / "folder").mkdir()
    cases = [("folder", "is a directory"), ("absent", "must be a file that exists")]
    for name, (content, said) in files.items():
        (tmp_path / name).write_bytes(content)
        cases.append((name, said))
    wrong = [(variable, name, said) for variable in ("SIORG_CA_BUNDLE", "SSL_CERT_FILE") for name, said in cases]
    folders = (("key", "is a file"), ("folder", "hashed name"), ("absent", "exists"))
    wrong += [("SSL_CERT_DIR", name, said) for name, said in folders]

    def check(case: tuple[str, str, str]) -> None:
        variable, name, said = case
        with pytest.raises(SettingsError) as raised:
            read(**{variable: str(tmp_path / name)})
        (error,) = raised.value.errors
        assert re.fullmatch(rf"{variable}: .*; allowed: .*", error)
        assert said in error

    holds_for(wrong, check)
    (tmp_path / "good").write_bytes(b"# whose it is\n" + CERTIFICATE * 2)
    (tmp_path / "folder" / "0a1b2c3d.0").write_bytes(CERTIFICATE)
    read(SSL_CERT_FILE=str(tmp_path / "good"), SSL_CERT_DIR=f"{tmp_path}/folder:/etc")
    read(SSL_CERT_FILE="", SSL_CERT_DIR="")


def test_what_libpq_takes_from_the_environment_is_checked_with_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, said in (
        ("PGSSLMODE", "no-verify", "sslmode"),
        ("PGSERVICE", "nowhere", "PGSERVICE"),
        ("PGPORT", "x", "port"),
    ):
        monkeypatch.setenv(name, value)
        if name != "PGPORT":  # the URL's own counts
            with pytest.raises(SettingsError, match=f"DATABASE_URL: .*{said}"):
                read()
        monkeypatch.delenv(name)


def test_a_wrong_switch_is_told_alone() -> None:
    with pytest.raises(SettingsError, match=r"\ASIORG_ALLOW_INSECURE: must be true or false.*\Z"):
        read(SIORG_ALLOW_INSECURE="ture", SIORG_API_URL="http://127.0.0.1:8900/doc")


def test_variables_of_others_do_not_matter() -> None:
    others = {"SIORG_SIMULATOR_PORT": "tcp://10.0.0.1:8900", "SIORG_OPERATOR_NAMESPACE": "x", "LOG_LEVELS": "x"}
    assert read(PATH="/bin", WORKER_POOL_PORT_53_UDP="udp://10.0.0.1:53", **others) == read()


def test_rust_log_is_told_unless_log_level_says_it() -> None:
    assert read(RUST_LOG="debug").notices == ("RUST_LOG is not read any more; use LOG_LEVEL",)
    assert read(RUST_LOG="debug", LOG_LEVEL="info").notices == ()


def test_urls_that_libpq_takes_are_taken() -> None:
    for url in (
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
    ):
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


def test_the_redactor_knows_every_secret() -> None:
    url = "postgresql://siorg:hunter2-w%40rd@db:5432/siorg?sslpassword=certpass"
    settings = Settings.from_environment({"DATABASE_URL": url, "SIORG_API_TOKEN": TOKEN})
    assert settings.redactor().text(f"{url} hunter2-w@rd {TOKEN} certpass") == "*** *** *** ***"


def test_settings_neither_show_a_secret_nor_change() -> None:
    settings = read(SIORG_API_TOKEN=TOKEN)
    assert not re.search(f"hunter2|{TOKEN}", f"{settings} {settings!r}")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.worker_batch_size = 5  # type: ignore[misc]


def test_what_is_set_limits_a_run_and_without_it_the_request_rate_does() -> None:
    def limits(**environ: str) -> tuple[int, int, int]:
        settings = read(**environ)
        return settings.items_in_flight, settings.items_a_claim, settings.requests_at_once

    assert limits() == (256, 256, 64)
    assert limits(SIORG_MAX_REQUESTS_PER_SECOND="0") == (256, 256, 64)
    assert limits(SIORG_MAX_REQUESTS_PER_SECOND="10") == (256, 256, 20)
    assert limits(SIORG_MAX_REQUESTS_PER_SECOND="1") == (256, 256, 8)
    assert limits(WORKER_BATCH_SIZE="5") == (256, 5, 64)
    assert limits(WORKER_CONCURRENCY="100") == (100, 100, 100)
    assert limits(WORKER_CONCURRENCY="4", WORKER_BATCH_SIZE="10") == (4, 10, 4)


def test_every_setting_is_documented() -> None:
    variables = ENVIRONMENT.variables
    assert {one.name for one in variables} == {one.name.upper() for one in dataclasses.fields(Settings)} - {"NOTICES"}
    assert all(one.meaning and one.kind.allowed for one in variables)
    assert all(one.unit for one in variables if one.name.endswith(("_SECS", "_MS", "_BYTES", "_DAYS")))
    assert {one.name for one in variables if one.hidden} == {"DATABASE_URL", "SIORG_API_URL", "SIORG_API_TOKEN"}
    assert read(**{one.name: one.default for one in variables if one.default is not None}) == read()


def test_the_example_file_is_up_to_date_and_covers_exactly_the_settings() -> None:
    text = (ROOT / ".env.example").read_text()
    assert text == env_example()
    given = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert given.keys() == {one.name for one in ENVIRONMENT.variables}
    assert given["SIORG_API_URL"] == OPEN_DATA
    assert dataclasses.replace(Settings.from_environment(given), database_url=Secret(URL)) == read(SIORG_API_URL=OPEN_DATA)


def test_a_run_that_finds_nothing_loads_neither_http_client_nor_metrics_nor_a_framework() -> None:
    code = (
        "import sys, siorg_job.__main__\n"
        "heavy = {'pydantic', 'httpx2', 'prometheus_client', 'difflib'}\n"
        "sys.exit(' '.join(heavy & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
