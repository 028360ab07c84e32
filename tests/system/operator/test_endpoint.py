"""Every client of the operator reaches the API server in one and the same way, or does not."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp
import pytest
from kubernetes import client, config
from kubernetes.config import incluster_config

from siorg_operator.cli import UsageError
from siorg_operator.cluster import endpoint
from siorg_operator.cluster.connection import request
from siorg_operator.cluster.endpoint import configuration, connected
from siorg_operator.cluster.sessions import Sessions
from siorg_operator.decide.ports import ClusterError
from siorg_operator.serving.health import Health
from support.certificates import made, strict
from support.event_loop import in_a_loop
from support.scripted_server import ScriptedServer, reply

Client = Callable[[client.Configuration], Awaitable[None]]
VERSION = reply(200, json.dumps({"major": "1"}), Content_Type="application/json")
IN_CLUSTER = "https://10.96.0.1:443"


async def kubernetes_own(configuration: client.Configuration) -> None:
    """What Jobs, status and Lease go through."""
    await asyncio.to_thread(request, connected(configuration), "get", "jobs", "siorg", timeout=5.0)


async def of_kopf(configuration: client.Configuration) -> None:
    """What is watched with."""
    made = Sessions(configuration, Health())
    async with await made.open() as session, session.get(f"{made.server}/version/") as answer:
        answer.raise_for_status()


CLIENTS = pytest.mark.parametrize("ask", [kubernetes_own, of_kopf])
UNREACHED = (ClusterError, aiohttp.ClientError)


# -- certificates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authority", "certificate"),
    [
        (["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"], ["authorityKeyIdentifier=none"]),
        (["basicConstraints=CA:TRUE", "keyUsage=critical,keyCertSign"], ["authorityKeyIdentifier=keyid"]),
    ],
    ids=["missing authority key identifier", "basic constraints not critical"],
)
@CLIENTS
@in_a_loop
async def test_the_clusters_own_authority_is_trusted_as_it_is_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Client, authority: list[str], certificate: list[str]
) -> None:
    own = made(tmp_path, "authority", *extended(*authority))
    signed = ("-CA", str(own[0]), "-CAkey", str(own[1]))
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    names = extended("basicConstraints=critical,CA:FALSE", "subjectAltName=DNS:localhost", *certificate)
    serving.load_cert_chain(*made(tmp_path, "localhost", *signed, *names))
    monkeypatch.setattr(ssl, "create_default_context", strict())
    async with ScriptedServer(VERSION, tls=serving) as server:

        def trusting(file: Path, host: str = "localhost") -> client.Configuration:
            return client.Configuration(host=f"https://{host}:{server.port}", ssl_ca_cert=str(file), retries=False)

        await ask(trusting(own[0]))
        async with aiohttp.ClientSession() as session:  # what would have been, on Python 3.13
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get(f"https://localhost:{server.port}", ssl=ssl.create_default_context(cafile=own[0]))
        for wrong in (trusting(made(tmp_path, "another")[0]), trusting(own[0], "127.0.0.1")):
            with pytest.raises(UNREACHED):
                await ask(wrong)


def extended(*extensions: str) -> list[str]:
    return [word for extension in extensions for word in ("-addext", extension)]


def test_authorities_of_the_system_have_to_be_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "create_default_context", strict())
    assert endpoint.tls(client.Configuration(host=IN_CLUSTER)).verify_flags & ssl.VERIFY_X509_STRICT


# -- address and proxy ------------------------------------------------------------------------------------------------


@pytest.fixture
def in_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service account's files, and the variables that a pod has."""
    for name, content in (("token", "secret-token"), ("ca.crt", "…")):
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(endpoint, "_TOKEN", tmp_path / "token")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")


PROXY = "http://name:p%40ssword@127.0.0.1:3128"


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, ""),
        ({"HTTPS_PROXY": PROXY}, PROXY),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "10.*"}, ""),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": ".svc"}, ""),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": ".cluster.local"}, ""),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "10.96.0.0/12"}, ""),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "192.168.*,.example"}, PROXY),
    ],
)
def test_a_pod_asks_the_address_that_it_is_told_and_a_proxy_where_the_environment_says_so(
    in_a_pod: None, environ: Mapping[str, str], proxy: str
) -> None:
    found = configuration(environ)
    assert (Sessions(found, Health()).server, found.host, found.proxy) == (IN_CLUSTER, IN_CLUSTER, proxy)


@pytest.mark.usefixtures("in_a_pod")
def test_a_pods_token_is_read_anew_for_each_request(tmp_path: Path) -> None:
    found = configuration({})
    for content, token in (("another\n", "bearer another"), ("", "bearer another"), ("a third", "bearer a third")):
        (tmp_path / "token").write_text(content)
        assert found.get_api_key_with_prefix("BearerToken") == token
    (tmp_path / "token").unlink()
    assert found.get_api_key_with_prefix("BearerToken") == "bearer a third"


@pytest.mark.parametrize("host", ["https://127.0.0.1:6443", "https://[::1]:6443", "http://localhost:8001"])
def test_a_cluster_on_this_machine_is_asked_directly(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr(config, "load_kube_config", lambda client_configuration: setattr(client_configuration, "host", host))
    assert configuration({"ALL_PROXY": PROXY}).proxy == ""


@pytest.mark.parametrize("proxy", ["https://a:1", "socks5://a:1", "http://:1", "nonsense://"])
def test_a_proxy_that_not_every_client_could_use_is_refused_by_its_variable(in_a_pod: None, proxy: str) -> None:
    with pytest.raises(UsageError, match=r"the proxy that https_proxy names; allowed: http://host:port"):
        configuration({"https_proxy": proxy})


@CLIENTS
@in_a_loop
async def test_the_proxy_is_asked_with_its_password(monkeypatch: pytest.MonkeyPatch, ask: Client) -> None:
    monkeypatch.setattr(
        config,
        "load_kube_config",
        lambda client_configuration: setattr(client_configuration, "host", "https://kube.example:6443"),
    )
    async with ScriptedServer(reply(502)) as proxy:
        found = configuration({"HTTPS_PROXY": PROXY.replace("3128", str(proxy.port))})
        found.retries = False
        with pytest.raises(UNREACHED):
            await ask(found)
        (asked,) = proxy.received
    assert (asked.method, asked.target) == ("CONNECT", "kube.example:6443")
    assert asked.headers["proxy-authorization"] == "Basic bmFtZTpwQHNzd29yZA=="  # name:p@ssword


# -- credentials ------------------------------------------------------------------------------------------------------


@in_a_loop
async def test_a_session_has_the_token_of_its_time_and_a_refused_one_is_not_tried_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens, pauses = iter("abcd"), list[float]()

    async def noted(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", noted)
    found = client.Configuration()
    monkeypatch.setattr(found, "refresh_api_key_hook", lambda own: own.api_key.update(BearerToken=next(tokens)))
    async with ScriptedServer(reply(401)) as server:
        found.host = f"http://127.0.0.1:{server.port}"
        asked = Sessions(found, Health())
        for token in "abcd":
            async with await asked.open() as session, session.get(f"{asked.server}/version") as answer:
                assert (session.headers["Authorization"], answer.status) == (token, 401)
    assert [pause for pause in pauses if pause >= 1] == [1, 2]
