"""Which proxy the environment names for an address, and for whom it names none (``NO_PROXY``). Pure.

Variables are read as curl reads them, in small letters before capitals. An entry of ``NO_PROXY`` is a name, which stands for all
below it as well, with or without a dot in front; an address; or a network (``10.0.0.0/8``). More than curl knows: ``*`` may stand
among others, in front of a name and at the end of an address (``10.*``), IPv6 in brackets, and an entry may have a port.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}
_ENTRY = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*|.*:.*:.*?)(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the variable that names it. The address may hold a password."""

    variable: str
    url: str = field(repr=False)


def proxy_for(url: str, environ: Mapping[str, str], *, other_names: Iterable[str] = ()) -> Proxy | None:
    """The proxy for an http or https address in its plain form; None: it is asked directly.

    ``other_names``: under which its host is known as well, and may be excepted.
    """
    parts = urlsplit(url)
    proxy = _variable(f"{parts.scheme}_proxy", environ) or _variable("all_proxy", environ)
    if proxy is None:
        return None
    excepted = _variable("no_proxy", environ)
    port = parts.port or _PORTS[parts.scheme]
    if excepted is not None and any(is_excepted(name, port, excepted.url) for name in (parts.hostname or "", *other_names)):
        return None
    return proxy if "://" in proxy.url else Proxy(proxy.variable, f"http://{proxy.url}")


def is_excepted(host: str, port: int, no_proxy: str) -> bool:
    """Whether ``NO_PROXY`` names this host, a name or an address without brackets, at this port."""
    address = _address(host)
    for entry in re.split(r"[,\s]+", no_proxy):
        match = _ENTRY.fullmatch(entry)
        if match is None or (match["port"] is not None and int(match["port"]) != port):
            continue
        named = match["host"].strip("[]")
        if named == "*":
            return True
        if address is not None:
            network = _network(named)
            if address in network if network is not None else named.endswith(".*") and host.startswith(named[:-1]):
                return True
            continue
        name = named.lower().removeprefix("*").removeprefix(".").removesuffix(".")
        if name and f".{host.lower()}".endswith(f".{name}"):
            return True
    return False


def _variable(name: str, environ: Mapping[str, str]) -> Proxy | None:
    for variable in (name, name.upper()):
        if variable in environ:  # also to say: none
            text = environ[variable].strip()
            return Proxy(variable, text) if text else None
    return None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
