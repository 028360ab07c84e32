"""Where the API server is, and how it is reached: found out in one place, for every client of this process.

What one of them reaches, all do. A leader whose Lease went another way than its watches would lead, and do nothing.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import urllib3
from kubernetes import client, config

from siorg_operator.cli import UsageError
from siorg_runtime.proxies import Proxy, proxy_for
from siorg_runtime.redaction import redactor

_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_NAMES: Final = ("kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
"""Of the API server within its cluster, beside the address that a pod is told: ``NO_PROXY`` may name it by these alone."""


def configuration(environ: Mapping[str, str] = os.environ) -> client.Configuration:
    """Address, credentials, certificates and proxy: the service account's in a pod, the kubeconfig's current context elsewhere.

    A kubeconfig's ``proxy-url`` comes before the environment's proxy.

    Raises:
        UsageError: neither exists, or the proxy cannot be used.
    """
    found = client.Configuration(proxy="", no_proxy="")  # its own reading of the environment knows fewer forms of NO_PROXY
    in_cluster = _TOKEN.exists()
    try:
        if in_cluster:
            config.load_incluster_config(client_configuration=found)  # type: ignore[no-untyped-call]
            found.refresh_api_key_hook = _read_token  # type: ignore[assignment]
        else:
            config.load_kube_config(client_configuration=found)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        raise UsageError(f"no cluster is configured: {error}; set KUBECONFIG, or run inside a cluster") from None
    if found.proxy:
        _use(found, Proxy("proxy-url of the kubeconfig", found.proxy))
    elif not _is_loopback(found.host):
        proxy = proxy_for(found.host, environ, other_names=_NAMES if in_cluster else ())
        if proxy is not None:
            _use(found, proxy)
    return found


def _read_token(configuration: client.Configuration) -> None:
    """Anew for each request: for a minute after it changed, as the client keeps it, a leader would have lost its Lease."""
    with suppress(OSError):
        if token := _TOKEN.read_text(encoding="utf-8").strip():
            configuration.api_key["BearerToken"] = f"bearer {token}"


def _is_loopback(url: str) -> bool:
    """This machine, as kind and minikube are reached: kubectl asks no proxy for it either."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _use(found: client.Configuration, proxy: Proxy) -> None:
    redactor.remember(proxy.url)
    parts = urlsplit(proxy.url)
    if parts.scheme != "http" or not parts.hostname:
        raise UsageError(
            f"the API server cannot be reached through the proxy that {proxy.variable} names; allowed: http://host:port"
        )
    found.proxy = proxy.url
    if parts.username is not None:
        name = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        found.proxy_headers = urllib3.make_headers(proxy_basic_auth=name)


def tls(configuration: client.Configuration) -> ssl.SSLContext:
    """What an API server's certificate is checked with, and how we show who we are.

    The cluster's own authority is trusted as it is: from 3.13 on Python demands of it what many clusters' lack (an Authority Key
    Identifier, Basic Constraints marked as critical). Authorities of the system, where the cluster names none, have to be strict.
    """
    own_authority = configuration.ssl_ca_cert
    context = ssl.create_default_context(cafile=own_authority)
    if own_authority:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context


def connected(configuration: client.Configuration) -> client.ApiClient:
    """A client of Kubernetes' own; to be used instead of its constructor, which makes TLS of its own."""
    made = client.ApiClient(configuration)
    made.user_agent = "siorg-operator"
    if configuration.host.startswith("https:"):
        made.rest_client.pool_manager.connection_pool_kw["ssl_context"] = tls(configuration)
    return made
