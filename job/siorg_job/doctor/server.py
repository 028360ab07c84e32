"""What server this is, whether it can be written, and whether others can read along."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from siorg_job.doctor.findings import Finding, error, ok, warning
from siorg_job.settings import Settings
from siorg_queue import Connection, keeps_plans, transaction

_OLDEST = 15
_VERIFY = "add ?sslmode=verify-full&sslrootcert=/certs/ca.pem to DATABASE_URL"


def version(connection: Connection, _: Settings) -> Iterator[Finding]:
    found = connection.info.server_version // 10000
    if found >= _OLDEST:
        yield ok(f"PostgreSQL {found}")
    else:
        yield error(f"PostgreSQL {found}: {_OLDEST} or later is needed")


def writable(connection: Connection, _: Settings) -> Iterator[Finding]:
    """Whether anything can be written at all."""
    with transaction(connection):
        row = connection.execute(
            "SELECT pg_is_in_recovery() AS standby, current_setting('transaction_read_only')::boolean AS read_only,"
            " quote_ident(current_user) AS role, quote_ident(current_database()) AS database"
        ).fetchone()
    assert row is not None
    if row["standby"]:
        remedy = "give DATABASE_URL the primary, or all hosts and ?target_session_attrs=read-write"
        yield error("the server is a standby: it can only be read", remedy)
    elif row["read_only"]:
        remedy = f"ALTER ROLE {row['role']} IN DATABASE {row['database']} SET default_transaction_read_only = off;"
        yield error("the database is read-only for this user: default_transaction_read_only is on", remedy)


def encryption(connection: Connection, _: Settings) -> Iterator[Finding]:
    """Whether TLS is used; of a PgBouncer in between, only the way to it is known."""
    host = connection.info.host
    if host.startswith(("/", "@")) or not host:
        yield ok("the connection is a socket of this machine: TLS is not needed")
    elif connection.pgconn.ssl_in_use:
        mode = connection.info.get_parameters().get("sslmode", "prefer")
        if mode == "verify-full":
            yield ok("the connection uses TLS, and the server's certificate and name are verified")
        else:
            yield warning(f"the connection uses TLS, but who the server is, is not verified (sslmode={mode})", _VERIFY)
    elif _is_loopback(host):
        yield ok("the connection stays on this machine: TLS is not used")
    else:
        yield warning("the connection does not use TLS: whoever is on the way can read and change everything", _VERIFY)


def plans(connection: Connection, _: Settings) -> Iterator[Finding]:
    """Whether the drain's statements are planned once a connection, or each time."""
    if keeps_plans(connection):
        yield ok("statements are planned once: the way to the server bears prepared statements")
    else:
        yield ok(
            "statements are planned each time: the pooler in between bears no prepared statements (PgBouncer from 1.21 on"
            " does, with max_prepared_statements); that costs the database some CPU, and nothing else"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
