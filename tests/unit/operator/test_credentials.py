"""From a resource to its queue by way of Secrets: what is read when, and what is said when something is wrong."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import Any

import pytest

from siorg_operator.api.resource import SiorgSyncWorker, parse
from siorg_operator.cluster.secrets import SecretQueueReader, Secrets
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import Backlog, Reading, Unreadable
from support.operator_values import body, worker

URL = "postgresql://siorg:hunter2@db/siorg"
TOKEN = "s3cret-token"
NO_ANSWER: Any = Unreadable(Reason.DATABASE_UNAVAILABLE, "the database at db:5432 does not answer")


@dataclass
class Cluster:
    """Secrets by name; counts who asks."""

    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: ClusterError | None = None
    asked: list[str] = field(default_factory=list)
    version: int = 0

    async def read_secret(self, namespace: str, name: str) -> dict[str, Any] | None:
        assert namespace == "sync"
        self.asked.append(name)
        if self.error is not None:
            raise self.error
        return self.secrets.get(name)

    def put(self, name: str, **data: str | None) -> None:
        """``data``: as text; None: as Kubernetes shows an empty value now and then."""
        self.version += 1
        coded = {key: None if text is None else base64.b64encode(text.encode()).decode() for key, text in data.items()}
        self.put_raw(name, coded)

    def put_raw(self, name: str, data: Any) -> None:
        self.version += 1
        self.secrets[name] = {"metadata": {"uid": f"uid-{name}", "resourceVersion": str(self.version)}, "data": data}


@dataclass
class Databases:
    """What each URL shows; unknown ones do not answer."""

    readings: dict[str, Reading | Unreadable] = field(default_factory=lambda: {URL: Reading(5)})
    asked: list[str] = field(default_factory=list)

    async def read(self, url: str) -> Reading | Unreadable:
        self.asked.append(url)
        found: Reading | Unreadable = self.readings.get(url, NO_ANSWER)
        return found


class Reader:
    """The reader under test, in a small world."""

    def __init__(self, *, refresh_seconds: float = 60) -> None:
        self.cluster, self.databases, self.now = Cluster(), Databases(), 0.0
        self.told: list[str] = []
        self.secrets = Secrets(self.cluster, refresh_seconds=refresh_seconds, clock=lambda: self.now)
        self.reader = SecretQueueReader(self.secrets, self.databases, remember_secret=self.told.append)

    def read(self, resource: SiorgSyncWorker | None = None) -> Backlog:
        return asyncio.run(self.reader.read(resource or worker()))

    def wrong(self, resource: SiorgSyncWorker | None = None) -> Unreadable:
        reading = self.read(resource).reading
        assert isinstance(reading, Unreadable)
        return reading


@pytest.fixture
def reader() -> Reader:
    made = Reader()
    made.cluster.put("database", DATABASE_URL=URL)
    return made


WITH_TOKEN = worker(siorg={"tokenSecretRef": {"name": "token"}})


def test_reads_the_queue_that_the_secret_names(reader: Reader) -> None:
    backlog = reader.read()
    assert (backlog.reading, backlog.siorg_token_problem) == (Reading(5), None)
    assert reader.databases.asked == [URL]
    assert reader.reader.url == URL


def test_takes_the_key_that_the_resource_names(reader: Reader) -> None:
    reader.cluster.put("other", url=f" {URL}\n")
    assert reader.read(worker(database={"urlSecretRef": {"name": "other", "key": "url"}})).depth == 5


def test_looks_into_the_resources_own_namespace_and_nowhere_else(reader: Reader) -> None:
    elsewhere = body()
    elsewhere["metadata"]["namespace"] = "elsewhere"
    with pytest.raises(AssertionError):
        reader.read(parse(elsewhere))


# -- how often --------------------------------------------------------------------------------------------------------


def test_a_secret_is_kept_for_a_while(reader: Reader) -> None:
    reader.read()
    reader.now = 59
    reader.read()
    assert reader.cluster.asked == ["database"]
    reader.now = 60
    reader.read()
    assert reader.cluster.asked == ["database"] * 2


def test_resources_share_what_is_kept(reader: Reader) -> None:
    reader.read(worker(name="one"))
    reader.read(worker(name="two"))
    assert reader.cluster.asked == ["database"]


def test_a_changed_secret_is_noticed_without_asking_the_database(reader: Reader) -> None:
    assert not asyncio.run(reader.reader.changed())
    reader.read()
    reader.now = 61
    assert not asyncio.run(reader.reader.changed())
    reader.cluster.put("database", DATABASE_URL="postgresql://new/siorg")
    assert not asyncio.run(reader.reader.changed())  # kept
    reader.now = 122
    assert asyncio.run(reader.reader.changed())
    assert reader.databases.asked == [URL]
    reader.databases.readings["postgresql://new/siorg"] = Reading(7)
    reader.read()
    assert not asyncio.run(reader.reader.changed())


def test_an_api_server_that_is_away_changes_no_secret(reader: Reader) -> None:
    reader.read()
    reader.cluster.error = ClusterError("no answer")
    reader.now = 61
    assert not asyncio.run(reader.reader.changed())


def test_a_secret_that_is_gone_is_listened_to_no_more(reader: Reader) -> None:
    reader.read()
    reader.cluster.secrets.clear()
    reader.now = 61
    assert asyncio.run(reader.reader.changed())
    assert reader.wrong().reason == "SecretMissing"
    assert reader.reader.url is None


def test_a_changed_secret_is_used_when_it_is_read_again(reader: Reader) -> None:
    reader.read()
    reader.cluster.put("database", DATABASE_URL="postgresql://new/siorg")
    reader.databases.readings["postgresql://new/siorg"] = Reading(7)
    reader.now = 61
    assert reader.read().depth == 7
    assert reader.reader.url == "postgresql://new/siorg"


@pytest.mark.parametrize("reason", ["DatabaseUnavailable", "AccessDenied", "WrongUrl"])
def test_a_secret_is_read_at_once_when_the_database_refuses(reader: Reader, reason: Any) -> None:
    reader.read()
    reader.databases.readings = {URL: Unreadable(reason, "no"), "postgresql://new/siorg": Reading(7)}
    reader.cluster.put("database", DATABASE_URL="postgresql://new/siorg")
    assert reader.read().depth == 7


def test_an_unchanged_secret_is_no_reason_to_try_again(reader: Reader) -> None:
    reader.databases.readings = {}
    assert reader.wrong().reason == "DatabaseUnavailable"
    assert reader.databases.asked == [URL]


def test_a_database_that_refuses_for_another_reason_does_not_cost_a_request_each_time(reader: Reader) -> None:
    reader.databases.readings = {URL: Unreadable(Reason.NOT_MIGRATED, "no table")}
    reader.wrong()
    reader.wrong()
    assert reader.cluster.asked == ["database"]


def test_a_secret_that_goes_while_the_database_is_away_keeps_the_reason(reader: Reader) -> None:
    reader.read()
    reader.databases.readings = {}
    reader.cluster.secrets.clear()
    assert reader.wrong().reason == "DatabaseUnavailable"
    assert reader.wrong().reason == "SecretMissing"


# -- what is wrong ----------------------------------------------------------------------------------------------------


def test_a_missing_secret_says_how_to_make_it() -> None:
    reader = Reader()
    assert reader.wrong() == Unreadable(
        Reason.SECRET_MISSING,
        "the Secret sync/database of spec.database.urlSecretRef is not there: create it (kubectl create secret generic database"
        " -n sync --from-env-file=FILE, whose line is DATABASE_URL=…)",
    )
    assert reader.databases.asked == []


def test_a_missing_secret_is_seen_as_soon_as_it_is_there() -> None:
    reader = Reader()
    reader.wrong()
    reader.cluster.put("database", DATABASE_URL=URL)
    assert reader.read().depth == 5


def test_a_wrong_key_names_the_keys_that_are_there() -> None:
    reader = Reader()
    reader.cluster.put("database", url=URL, password="x")
    assert reader.wrong() == Unreadable(
        Reason.SECRET_KEY_MISSING,
        "the Secret sync/database of spec.database.urlSecretRef has no key DATABASE_URL; its keys: password, url",
    )


def test_a_wrong_key_is_seen_as_soon_as_it_is_right() -> None:
    reader = Reader()
    reader.cluster.put("database", url=URL)
    reader.wrong()
    reader.cluster.put("database", DATABASE_URL=URL)
    assert reader.read().depth == 5


@pytest.mark.parametrize("data", [None, {}])
def test_a_secret_without_keys_says_so(data: Any) -> None:
    reader = Reader()
    reader.cluster.put_raw("database", data)
    assert reader.wrong().message.endswith("has no key DATABASE_URL; its keys: none")


@pytest.mark.parametrize(
    "value", [None, "", "IA==", "/w==", "no base64", "ä"], ids=["null", "empty", "blank", "bytes", "text", "ascii"]
)
def test_a_value_that_is_no_text_says_so(value: str | None) -> None:
    reader = Reader()
    reader.cluster.put_raw("database", {"DATABASE_URL": value})
    assert reader.wrong() == Unreadable(
        Reason.SECRET_KEY_MISSING,
        "the key DATABASE_URL of the Secret sync/database (spec.database.urlSecretRef) is empty or no text",
    )


def test_secrets_that_cannot_be_read_leave_the_depth_unknown() -> None:
    reader = Reader()
    reader.cluster.error = ClusterError("get secrets: 403: forbidden", 403)
    backlog = reader.read()
    assert backlog.depth is None
    assert backlog.credentials == ""  # not known, which is not the same as changed
    assert backlog.reading == Unreadable(
        Reason.ACCESS_DENIED,
        "the Secret sync/database of spec.database.urlSecretRef cannot be read: get secrets: 403: forbidden;"
        " the operator's Role must allow get of secrets database",
    )


def test_of_two_secrets_the_one_is_named_that_cannot_be_read(reader: Reader) -> None:
    reader.read()
    reader.cluster.error = ClusterError("get secrets: the API server did not answer: timed out")
    assert reader.wrong(WITH_TOKEN) == Unreadable(
        Reason.SECRET_UNREADABLE,
        "the Secret sync/token of spec.siorg.tokenSecretRef cannot be read: get secrets: the API server did not answer:"
        " timed out; it is tried again by itself",
    )


def test_an_api_server_that_is_away_stops_nobody_who_has_read_before(reader: Reader) -> None:
    reader.read()
    reader.cluster.error = ClusterError("no answer")
    reader.now = 10_000
    assert reader.read().depth == 5


# -- SIORG's token ----------------------------------------------------------------------------------------------------


def test_a_token_that_is_there_is_no_problem(reader: Reader) -> None:
    reader.cluster.put("token", SIORG_API_TOKEN=TOKEN)
    assert reader.read(WITH_TOKEN).siorg_token_problem is None


def test_a_missing_token_is_told_and_hides_nothing_of_the_queue(reader: Reader) -> None:
    backlog = reader.read(WITH_TOKEN)
    assert backlog.depth == 5
    assert backlog.siorg_token_problem == (
        "the Secret sync/token of spec.siorg.tokenSecretRef is not there: create it (kubectl create secret generic token"
        " -n sync --from-env-file=FILE, whose line is SIORG_API_TOKEN=…)"
    )
    reader.cluster.put("token", SIORG_API_TOKEN=TOKEN)
    assert reader.read(WITH_TOKEN).siorg_token_problem is None


def test_one_secret_may_hold_both(reader: Reader) -> None:
    reader.cluster.put("database", DATABASE_URL=URL, SIORG_API_TOKEN=TOKEN)
    both = worker(siorg={"tokenSecretRef": {"name": "database"}})
    backlog = reader.read(both)
    assert (backlog.depth, backlog.siorg_token_problem) == (5, None)
    assert reader.cluster.asked == ["database"]


# -- what is said of them ---------------------------------------------------------------------------------------------


def test_the_fingerprint_changes_with_each_secret_and_holds_nothing_of_them(reader: Reader) -> None:
    reader.cluster.put("token", SIORG_API_TOKEN=TOKEN)
    first = reader.read(WITH_TOKEN).credentials
    assert reader.read(WITH_TOKEN).credentials == first
    reader.cluster.put("token", SIORG_API_TOKEN="another")
    reader.now += 61
    second = reader.read(WITH_TOKEN).credentials
    reader.cluster.put("database", DATABASE_URL=URL)
    reader.now += 61
    third = reader.read(WITH_TOKEN).credentials
    assert len({first, second, third}) == 3
    # The same versions with another content would look the same: it is made of nothing else.
    one, other = Reader(), Reader()
    one.cluster.put("database", DATABASE_URL=URL)
    other.cluster.put("database", DATABASE_URL="postgresql://x/y")
    assert one.read().credentials == other.read().credentials


def test_every_secret_is_told_to_the_redactor_before_it_is_used(reader: Reader) -> None:
    reader.cluster.put("token", SIORG_API_TOKEN=TOKEN)
    reader.databases.readings = {}
    reader.read(WITH_TOKEN)
    assert {URL, TOKEN} <= set(reader.told)


@pytest.mark.parametrize("data", [{"DATABASE_URL": URL}, {"other": URL}, {"DATABASE_URL": ""}], ids=str)
def test_no_message_holds_a_secret(data: dict[str, str]) -> None:
    reader = Reader()
    reader.databases.readings = {}
    reader.cluster.put("database", **data)
    assert "hunter2" not in repr(reader.read())
