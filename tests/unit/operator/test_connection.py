"""What is said of a request to Kubernetes that fails, whatever answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3
from kubernetes.client.exceptions import ApiException

from siorg_operator.cluster.clock import ClusterClock
from siorg_operator.cluster.connection import request
from siorg_operator.decide.ports import ClusterError
from support.rows import holds_for

REFUSED = b'{"kind": "Status", "code": 403, "message": "jobs.batch is forbidden"}'


DATED = {"Date": "Sun, 24 Nov 2030 12:00:00 GMT"}


class Api:
    """Of the client what sends."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer

    def param_serialize(self, *_: Any, **__: Any) -> tuple[()]:
        return ()

    def call_api(self, **_: Any) -> Any:
        return SimpleNamespace(response=self._answer())


def get_jobs(api: Api, **more: Any) -> Any:
    return request(api, "get", "jobs", "siorg", **more)  # type: ignore[arg-type]


def answers(status: int, body: bytes, headers: Mapping[str, str] = DATED) -> Api:
    pieces = iter([body, b""])
    return Api(lambda: SimpleNamespace(status=status, headers=headers, read1=lambda _: next(pieces), close=lambda: None))


def raises(error: Exception) -> Api:
    def answer() -> None:
        raise error

    return Api(answer)


def test_an_answer_is_read_as_json() -> None:
    assert get_jobs(answers(200, b'{"items": []}')) == {"items": []}


def test_an_answer_that_comes_in_drops_has_a_limit_as_a_whole() -> None:
    drips = Api(lambda: SimpleNamespace(status=200, headers=DATED, read1=lambda _: b" ", close=lambda: None))
    with pytest.raises(ClusterError, match="the answer did not come to its end") as failed:
        get_jobs(drips, timeout=0.05)
    assert failed.value.may_be_done


@pytest.mark.parametrize(
    ("asks", "seconds"), [("7", 7.0), ("9999", 60.0), ("-1", 0.0), ("", 0.0), ("Sun, 24 Nov 2030 12:00:00 GMT", 0.0)]
)
def test_for_how_long_an_answer_asks_not_to_be_asked_again(asks: str, seconds: float) -> None:
    with pytest.raises(ClusterError) as refused:
        get_jobs(answers(429, REFUSED, {"Retry-After": asks}))
    assert refused.value.retry_after == seconds


def test_each_answer_tells_the_time_also_a_refusal() -> None:
    for api in (answers(200, b"{}"), answers(502, b""), answers(403, REFUSED)):
        clock = ClusterClock()
        with suppress(ClusterError):
            get_jobs(api, clock=clock)
        assert clock.now().year == 2030


def test_what_fails_is_said_with_its_code() -> None:
    nowhere = urllib3.exceptions.MaxRetryError(urllib3.HTTPConnectionPool("host"), "/secret", ConnectionRefusedError("refused"))
    table: list[tuple[Api, int, str]] = [
        (answers(403, REFUSED), 403, "get jobs: 403: jobs.batch is forbidden"),
        (answers(502, b"<html>\n  Bad Gateway</html>"), 502, "get jobs: 502: <html> Bad Gateway</html>"),
        (answers(200, b""), 0, "get jobs: the API server did not answer: JSONDecodeError: Expecting value: line 1 column 1"),
        (answers(200, b"[]"), 0, "get jobs: the API server did not answer: ValueError: no JSON object"),
        (
            raises(ApiException(status=0, reason="SSLError\nno trust")),
            0,
            "get jobs: the API server did not answer: SSLError no trust",
        ),
        (raises(nowhere), 0, "get jobs: the API server did not answer: ConnectionRefusedError: refused"),
        (raises(TimeoutError("timed out")), 0, "get jobs: the API server did not answer: TimeoutError: timed out"),
    ]

    def check(row: tuple[Api, int, str]) -> None:
        api, code, message = row
        with pytest.raises(ClusterError) as failed:
            get_jobs(api)
        assert failed.value.code == code
        assert str(failed.value).startswith(message)

    holds_for(table, check)
