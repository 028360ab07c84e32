"""What a person is told of a queue that cannot be read: what is wrong, and what to do."""

from __future__ import annotations

import psycopg

from siorg_operator.database.errors import unreadable, where, wrong_url
from support.rows import holds_for

URL = "postgresql://siorg:hunter2-word@db.example:5432/queue"
AT = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: '


SAID = [
    (AT + "Connection refused\n\tIs the server running on that host?", "DatabaseUnavailable"),
    (AT + "FATAL:  the database system is starting up", "DatabaseUnavailable"),
    (AT + "FATAL:  sorry, too many clients already", "DatabaseUnavailable"),
    (AT + 'FATAL:  too many connections for role "siorg"', "DatabaseUnavailable"),
    (AT + "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", "DatabaseUnavailable"),
    (AT + "FATAL:  desculpe, muitas conexões para role", "DatabaseUnavailable"),
    ("consuming input failed: server closed the connection unexpectedly\n\tThis probably means", "DatabaseUnavailable"),
    ("failed to resolve host 'db.example': [Errno -2] Name or service not known", "DatabaseUnavailable"),
    (AT + 'FATAL:  password authentication failed for user "siorg"', "AccessDenied"),
    (AT + 'FATAL:  autenticação do tipo senha falhou para usuário "siorg"', "AccessDenied"),
    (AT + "fe_sendauth: no password supplied", "AccessDenied"),
    (AT + 'FATAL:  role "siorg" does not exist', "AccessDenied"),
    (AT + 'FATAL:  role "siorg" não existe', "AccessDenied"),
    (AT + 'FATAL:  role "siorg" is not permitted to log in', "AccessDenied"),
    (AT + 'FATAL:  no pg_hba.conf entry for host "10.0.0.2", user "siorg"', "AccessDenied"),
    (AT + 'FATAL:  nenhuma entrada no pg_hba.conf para máquina "10.0.0.2"', "AccessDenied"),
    (AT + 'FATAL:  permission denied for database "queue"', "AccessDenied"),
    (AT + 'FATAL:  database "queue" does not exist', "WrongUrl"),
    (AT + 'FATAL:  banco de dados "queue" não existe', "WrongUrl"),
    (AT + "FATAL:  no such database: queue", "WrongUrl"),
    ('connection is bad: invalid sslmode value: "hunter"', "WrongUrl"),
    (AT + 'FATAL:  the database system is shutting down, role "password authentication"', "DatabaseUnavailable"),
]


def test_a_login_that_failed_is_told_by_what_helps() -> None:
    def check(row: tuple[str, str]) -> None:
        found = unreadable(psycopg.OperationalError(row[0]), URL)
        assert found.reason == row[1], found.message
        assert "hunter" not in found.message
        assert found.message.isprintable()

    holds_for(SAID, check)


ERRORS: list[tuple[Exception, str, str]] = [
    (psycopg.errors.UndefinedTable('relation "siorg_sync_queue" does not exist'), "NotMigrated", "siorg-job migrate"),
    (psycopg.errors.UndefinedColumn('column "lease_expires_at" does not exist'), "NotMigrated", "siorg-job migrate"),
    (psycopg.errors.UndefinedObject('type "sync_status_enum" does not exist'), "NotMigrated", "siorg-job migrate"),
    (psycopg.errors.InsufficientPrivilege("permission denied for table siorg_sync_queue"), "AccessDenied", "TO siorg "),
    (psycopg.errors.QueryCanceled("canceling statement due to statement timeout"), "DatabaseUnavailable", "Jobs go on"),
    (psycopg.errors.AdminShutdown("terminating connection"), "DatabaseUnavailable", "Jobs go on"),
    (psycopg.errors.DivisionByZero("division by zero"), "StatementFailed", "22012"),
    (psycopg.errors.ConnectionTimeout("connection timeout expired"), "DatabaseUnavailable", "queue on db.example"),
    (psycopg.ProgrammingError('invalid URI: "hunter2-word"'), "WrongUrl", "correct the URL in the Secret"),
    (UnicodeError("label empty or too long"), "WrongUrl", "no host name"),
    (TimeoutError(), "DatabaseUnavailable", "in time"),
    (TimeoutError("no answer within 10 s"), "DatabaseUnavailable", "no answer within 10 s"),
]


def test_whatever_went_wrong_the_message_says_what_to_do() -> None:
    def check(row: tuple[Exception, str, str]) -> None:
        error, reason, helps = row
        found = unreadable(error, URL)
        assert found.reason == reason
        assert helps.lower() in found.message.lower()
        assert "hunter2" not in found.message

    holds_for(ERRORS, check)


def test_a_secret_in_a_servers_words_is_not_told_and_long_words_are_cut() -> None:
    found = unreadable(psycopg.OperationalError(f"no luck with hunter2-word at {URL} {'x' * 5000}"), URL)
    assert "hunter2" not in found.message
    assert len(found.message) < 500


def test_where_a_database_is_has_no_secret_in_it() -> None:
    assert where(URL) == "queue on db.example"
    assert where("postgresql://") == "postgres on localhost"
    assert where("postgresql://u:hunter2-word@[::1/d") == "a database"


def test_what_is_to_be_corrected_is_where_the_url_comes_from() -> None:
    assert wrong_url("is empty").message == "the database's URL is empty: correct the URL in the Secret"
    for words, advice in {
        "no such database: queue": "correct DATABASE_URL, or create the database",
        "password authentication failed": "correct DATABASE_URL, or let the user in",
        'invalid sslmode value: "x"': "correct DATABASE_URL",
    }.items():
        message = unreadable(psycopg.OperationalError(words), URL, "DATABASE_URL").message
        assert message.endswith(advice)
        assert "Secret" not in message
