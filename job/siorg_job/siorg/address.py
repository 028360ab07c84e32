"""Which address may be asked as SIORG.

The address is where the token goes, so it has to mean the same to every parser: only the plain form is accepted
(``https://host[:port][/path]`` in ASCII), and whatever two programs could read differently is refused.
"""

from __future__ import annotations

import ipaddress
import re

_MAX_LENGTH = 2048
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~-]+)*)/*"
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# What a resolver would read as a number: inet_aton takes decimal, octal and hexadecimal, in one to four parts.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".svc", ".cluster.local", ".localdomain", ".home.arpa")
_FORM = "give it as https://host[:port][/path]"


def check_base_url(url: str, *, allow_insecure: bool) -> str:
    """Return the base address of SIORG in its one plain form: lower-case host, no trailing slash.

    Args:
        url: what the person configured.
        allow_insecure: also http, and private names and addresses (the simulator, loopback, a test cluster).

    Raises:
        ValueError: the address is refused; the message says what is allowed and repeats nothing of the address,
            which may hold a password.
    """
    if len(url) > _MAX_LENGTH:
        raise ValueError(f"the address of SIORG is longer than {_MAX_LENGTH} characters")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(
            "the address of SIORG has to be plain ASCII without white space or control characters "
            "(international names in their xn-- form)"
        )
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f"the address of SIORG {_why_malformed(url)}: {_FORM}")
    scheme, host, port = match["scheme"].lower(), match["host"].lower(), match["port"]
    if scheme != "https" and not (allow_insecure and scheme == "http"):
        raise ValueError("the address of SIORG has to begin with https:// (http:// only when insecure ones are allowed)")
    if port is not None and not 1 <= int(port) <= 65535:
        raise ValueError("the port in the address of SIORG has to be 1 to 65535")
    if any(set(segment) == {"."} for segment in match["path"].split("/") if segment):
        raise ValueError(f"the address of SIORG must not have . or .. in its path: {_FORM}")
    address = _ip_address(host)
    if address is None:
        _check_name(host, allow_private=allow_insecure)
    elif not (allow_insecure or _is_public(address)):
        message = "the address of SIORG is a loopback, private or reserved IP address: refused unless insecure ones are allowed"
        raise ValueError(message)
    return f"{scheme}://{host}{'' if port is None else f':{int(port)}'}{match['path']}"


def _why_malformed(url: str) -> str:
    """The most telling reason; the order matters, because user information is the worst to overlook."""
    authority = re.split(r"[/?#\\]", url.partition("://")[2], maxsplit=1)[0]
    reasons = {
        "must not hold user information (name or password before @)": "@" in authority,
        "must not hold backslashes": "\\" in url,
        "has no scheme": "://" not in url,
        "must not hold a query or fragment": "?" in url or "#" in url,
        "must not hold a percent-encoded host or a zone": "%" in authority,
        "has no host": not authority or authority.startswith(":"),
    }
    return next((reason for reason, holds in reasons.items() if holds), "is not written plainly")


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a host stands for, or None for a name.

    Raises:
        ValueError: a number in a notation that programs read differently (``127.1``, ``0x7f000001``, ``0177.0.0.1``).
    """
    if host.startswith("["):
        try:
            return ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise ValueError("the address of SIORG has a wrong IPv6 address between the brackets") from None
    if not _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return None
    try:
        return ipaddress.IPv4Address(host)
    except ValueError:
        message = "an IPv4 address in the address of SIORG has to be written as four decimal numbers without leading zeros"
        raise ValueError(message) from None


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    # 6to4, Teredo and NAT64 (all of ::/8 is reserved) reach an IPv4 address inside them; nobody serves SIORG that way.
    tunnel = isinstance(address, ipaddress.IPv6Address) and (address.sixtofour or address.teredo)
    return address.is_global and not (address.is_multicast or address.is_reserved or tunnel)


def _check_name(host: str, *, allow_private: bool) -> None:
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise ValueError("the host in the address of SIORG has to be of letters, digits and hyphens, without a trailing dot")
    if not allow_private and ("." not in host or host.endswith(_PRIVATE_SUFFIXES)):
        raise ValueError(
            "the address of SIORG is a private name (localhost, *.local, *.internal, *.svc, a single word …); those "
            "are refused unless insecure addresses are allowed"
        )
