"""From a resource to its queue by way of Secrets: what is read when, and what is said when something is wrong."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import Any

import pytest

from siorg_operator.api.resource import SiorgSyncWorker, parse
from siorg_operator.cluster.fingerprint import KEY_SECRET, Fingerprints
from siorg_operator.cluster.secrets import SecretQueueReader, Secrets
from siorg_operator.decide.ports import ClusterError
from siorg_operator.decide.reasons import Reason
from siorg_operator.decide.state import QueueState, Reading, Unreadable
from siorg_runtime.redaction import Redactor
from support.operator_values import body, worker
from support.rows import holds_for

URL = "postgresql://siorg:hunter2@db/siorg"
TOKEN = "s3cret-token"
NEW_URL = "postgresql://new/siorg"
REDACTOR = Redactor()
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
    redacted: str = ""

    async def read(self, url: str) -> Reading | Unreadable:
        self.asked.append(url)
        self.redacted = REDACTOR.text(f"{url} a-new-token")
        found: Reading | Unreadable = self.readings.get(url, NO_ANSWER)
        return found


class Reader:
    """The reader under test, in a small world."""

    def __init__(self) -> None:
        self.cluster, self.databases, self.now, self.keys = Cluster(), Databases(), 0.0, Cluster()
        self.keys.put(KEY_SECRET, key="k" * 32)
        self.secrets = Secrets(self.cluster.read_secret, refresh_seconds=60, clock=lambda: self.now)
        self.fingerprints = Fingerprints("sync", self.keys.read_secret, None)
        self.reader = self.another()

    def another(self) -> SecretQueueReader:
        """One for another resource, with the same Secrets."""
        return SecretQueueReader(self.secrets, self.fingerprints, self.databases.read)

    def read(self, resource: SiorgSyncWorker | None = None) -> QueueState:
        queue = asyncio.run(self.reader.read(resource or worker()))
        assert "hunter2" not in repr(queue)
        return queue

    def unread(self, resource: SiorgSyncWorker | None = None) -> Unreadable:
        reading = self.read(resource).reading
        assert isinstance(reading, Unreadable)
        return reading


@pytest.fixture(autouse=True)
def own_redactor(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is learned here, no other test's logs are cleansed of."""
    monkeypatch.setattr("siorg_operator.cluster.secrets.redactor", REDACTOR)


@pytest.fixture
def reader() -> Reader:
    made = Reader()
    made.cluster.put("database", DATABASE_URL=URL)
    return made


WITH_TOKEN = worker(siorg={"tokenSecretRef": {"name": "token"}})


def test_reads_the_queue_that_the_secret_names_by_the_key_that_the_resource_names(reader: Reader) -> None:
    queue = reader.read()
    assert (queue.reading, queue.siorg_token_error) == (Reading(5), None)
    assert reader.databases.asked == [URL]
    assert reader.reader.url == URL
    reader.cluster.put("other", url=f" {URL}\n")
    assert reader.read(worker(database={"urlSecretRef": {"name": "other", "key": "url"}})).depth == 5
    elsewhere = body()
    elsewhere["metadata"]["namespace"] = "elsewhere"
    with pytest.raises(AssertionError):  # by the fake cluster: into the resource's own namespace it looks, and nowhere else
        reader.read(parse(elsewhere))


# -- how often --------------------------------------------------------------------------------------------------------


def test_a_secret_is_kept_for_a_while_and_shared(reader: Reader) -> None:
    reader.read()
    reader.now = 59
    reader.read()
    asyncio.run(reader.another().read(worker(name="two")))
    assert reader.cluster.asked == ["database"]
    reader.now = 60
    reader.read()
    assert reader.cluster.asked == ["database"] * 2


def test_a_changed_secret_is_noticed_without_asking_the_database_and_used_when_it_is_read(reader: Reader) -> None:
    def changed() -> bool:
        return asyncio.run(reader.reader.changed())

    assert not changed()
    reader.read()
    reader.now = 61
    assert not changed()
    reader.cluster.put("database", DATABASE_URL=NEW_URL)
    assert not changed()  # kept
    reader.now = 122
    assert changed()
    assert reader.databases.asked == [URL]
    reader.databases.readings[NEW_URL] = Reading(7)
    assert reader.read().depth == 7
    assert reader.reader.url == NEW_URL
    assert not changed()
    reader.cluster.error = ClusterError("no answer")
    reader.now = 183
    assert not changed()  # not known, which is not the same


def test_a_secret_is_read_at_once_when_the_database_refuses() -> None:
    for reason in (Reason.DATABASE_UNAVAILABLE, Reason.ACCESS_DENIED, Reason.WRONG_URL):
        reader = Reader()
        reader.cluster.put("database", DATABASE_URL=URL)
        reader.read()
        reader.databases.readings = {URL: Unreadable(reason, "no"), NEW_URL: Reading(7)}
        reader.cluster.put("database", DATABASE_URL=NEW_URL)
        assert reader.read().depth == 7, reason


def test_a_database_that_refuses_costs_no_further_request_where_the_secret_is_not_to_blame(reader: Reader) -> None:
    reader.databases.readings = {}
    assert reader.unread().reason == "DatabaseUnavailable"
    assert reader.databases.asked == [URL]  # the Secret was read anew, and is the same
    reader.databases.readings = {URL: Unreadable(Reason.NOT_MIGRATED, "no table")}
    reader.cluster.asked.clear()
    reader.unread()
    reader.unread()
    assert reader.cluster.asked == []


def test_a_secret_that_is_gone_is_listened_to_no_more_and_while_the_database_is_away_that_is_the_reason(reader: Reader) -> None:
    reader.read()
    reader.cluster.secrets.clear()
    reader.now = 61
    assert asyncio.run(reader.reader.changed())
    assert reader.unread().reason == "SecretMissing"
    assert reader.reader.url is None
    reader.cluster.put("database", DATABASE_URL=URL)
    reader.read()
    reader.databases.readings = {}
    reader.cluster.secrets.clear()
    assert reader.unread().reason == "DatabaseUnavailable"
    assert reader.unread().reason == "SecretMissing"


# -- what is wrong ----------------------------------------------------------------------------------------------------


DATABASE = "the Secret sync/database of spec.database.urlSecretRef"
EMPTY = "the key DATABASE_URL of the Secret sync/database (spec.database.urlSecretRef) is empty or not text"
CREATE = "create it (kubectl create secret generic {0} -n sync --from-env-file=FILE, whose line is {1}=…)"


def test_what_is_wrong_with_a_secret_is_said_and_seen_as_soon_as_it_is_right() -> None:
    table: list[tuple[Any, Reason, str]] = [
        ("no Secret", Reason.SECRET_MISSING, f"{DATABASE} does not exist: {CREATE.format('database', 'DATABASE_URL')}"),
        (None, Reason.SECRET_KEY_MISSING, f"{DATABASE} has no key DATABASE_URL; its keys: none"),
        ({}, Reason.SECRET_KEY_MISSING, f"{DATABASE} has no key DATABASE_URL; its keys: none"),
        ({"url": "eA==", "a": ""}, Reason.SECRET_KEY_MISSING, f"{DATABASE} has no key DATABASE_URL; its keys: a, url"),
        *(({"DATABASE_URL": value}, Reason.SECRET_KEY_MISSING, EMPTY) for value in (None, "", "IA==", "/w==", "no base64", "ä")),
    ]

    def check(row: tuple[Any, Reason, str]) -> None:
        data, reason, message = row
        reader = Reader()
        if data != "no Secret":
            reader.cluster.put_raw("database", data)
        assert reader.unread() == Unreadable(reason, message)
        assert reader.databases.asked == []
        reader.cluster.put("database", DATABASE_URL=URL)
        reader.now = 60 if message == EMPTY else 0  # what lacks a key is not kept
        assert reader.read().depth == 5

    holds_for(table, check)


def test_secrets_that_cannot_be_read_leave_the_depth_unknown(reader: Reader) -> None:
    reader.read()
    reader.cluster.error = ClusterError("get secrets: the API server did not answer: timed out")
    reader.now = 10_000
    assert reader.read().depth == 5  # whoever has read before goes on
    assert reader.unread(WITH_TOKEN) == Unreadable(
        Reason.SECRET_UNREADABLE,
        "the Secret sync/token of spec.siorg.tokenSecretRef cannot be read: get secrets: the API server did not answer:"
        " timed out; it is tried again by itself",
    )
    forbidden = Reader()
    forbidden.cluster.error = ClusterError("get secrets: 403: forbidden", 403)
    assert forbidden.read() == QueueState(
        Unreadable(
            Reason.ACCESS_DENIED,
            f"{DATABASE} cannot be read: get secrets: 403: forbidden; the operator's Role must allow get of secrets database",
        ),
        secrets_hash=None,  # not known, which is not the same as changed
    )


# -- SIORG's token ----------------------------------------------------------------------------------------------------


def test_a_missing_token_is_told_and_hides_nothing_of_the_queue(reader: Reader) -> None:
    queue = reader.read(WITH_TOKEN)
    assert queue.depth == 5
    assert queue.siorg_token_error == (
        f"the Secret sync/token of spec.siorg.tokenSecretRef does not exist: {CREATE.format('token', 'SIORG_API_TOKEN')}"
    )
    reader.cluster.put("token", SIORG_API_TOKEN=TOKEN)
    assert reader.read(WITH_TOKEN).siorg_token_error is None
    reader.cluster.put("database", DATABASE_URL=URL, SIORG_API_TOKEN=TOKEN)  # one Secret may hold both
    reader.cluster.asked.clear()
    reader.now = 61
    queue = reader.read(worker(siorg={"tokenSecretRef": {"name": "database"}}))
    assert (queue.depth, queue.siorg_token_error) == (5, None)
    assert reader.cluster.asked == ["database"]


# -- what is said of them ---------------------------------------------------------------------------------------------


def test_the_fingerprint_changes_with_what_is_used_and_with_nothing_else(reader: Reader) -> None:
    reader.cluster.put("token", SIORG_API_TOKEN=TOKEN)

    def told() -> str | None:
        reader.now += 61
        return reader.read(WITH_TOKEN).secrets_hash

    first = told()
    assert first is not None
    reader.cluster.put("token", SIORG_API_TOKEN=TOKEN, other="what no Job uses")
    reader.cluster.put("database", DATABASE_URL=URL)  # touched: another resourceVersion
    assert told() == first
    assert asyncio.run(reader.reader.changed()) is False
    reader.cluster.put("token", SIORG_API_TOKEN="another")
    second = told()
    reader.cluster.put("database", DATABASE_URL=NEW_URL)
    third = told()
    del reader.cluster.secrets["token"]
    assert len({first, second, third, told(), None}) == 5


def test_without_the_key_nothing_is_launched_while_the_api_server_does_not_answer(reader: Reader) -> None:
    reader.keys.error = ClusterError("get secrets: the API server did not answer: timed out")
    unread = reader.unread()
    assert (unread.reason, reader.read().secrets_hash) == (Reason.SECRET_UNREADABLE, None)
    assert f"the Secret sync/{KEY_SECRET} of the operator cannot be read" in unread.message
    reader.keys.error = None
    assert reader.read().depth == 5


def test_the_redactor_knows_every_secret_before_it_is_used(reader: Reader) -> None:
    reader.cluster.put("database", DATABASE_URL="host=new")
    reader.cluster.put("token", SIORG_API_TOKEN="a-new-token")
    reader.read(WITH_TOKEN)
    assert reader.databases.redacted == "*** ***"
