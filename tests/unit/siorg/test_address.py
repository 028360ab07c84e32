"""Which addresses may be asked, and that every parser reads the accepted ones alike."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from siorg_job.siorg.address import check_base_url

SECRET = "hunter2secret"


PLAIN = [
    ("https://api.siorg.gov.br", "https://api.siorg.gov.br"),
    ("https://api.siorg.gov.br/", "https://api.siorg.gov.br"),
    ("HTTPS://Estruturaorganizacional.Dados.gov.br/doc//", "https://estruturaorganizacional.dados.gov.br/doc"),
    ("https://siorg.example.com.br:8443/a/b.c/~d", "https://siorg.example.com.br:8443/a/b.c/~d"),
    ("https://8.8.8.8/doc", "https://8.8.8.8/doc"),
    ("https://[2606:4700::1111]:443/doc", "https://[2606:4700::1111]:443/doc"),
    ("https://xn--rgo-1na.example.com", "https://xn--rgo-1na.example.com"),
]
INSECURE = [
    "http://127.0.0.1:8900/doc",
    "http://localhost:8900/doc",
    "https://siorg.default.svc.cluster.local",
    "http://siorg-simulator:8900/doc",
    "http://siorg_simulator/doc",
    "http://[::1]:8900/doc",
    "http://10.0.0.7",
    "https://192.168.1.1",
    "http://host.docker.internal:8900",
    "http://siorg.gov.br",
]
PRIVATE_HOSTS = [
    "localhost", "LOCALHOST", "a.localhost", "printer.local", "metadata.google.internal", "siorg.svc",
    "a.svc.cluster.local",
    "router.home.arpa", "intranet", "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.0.1",
    "169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "[::]", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:8.8.8.8]", "[::127.0.0.1]",
    "[fe80::1]", "[fc00::1]", "[fd12::1]", "[ff02::1]",
    "[2001:db8::1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::a00:1]", "[2002:7f00:1::]", "[2002:808:808::]",
    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
]  # fmt: skip
REFUSED = [
    ("user information", [f"https://host:{SECRET}@evil/", f"https://{SECRET}@evil.example.com/", "https://@evil.example.com/",
        "https://api.siorg.gov.br:443@evil.example.com/", f"https://a:{SECRET}@[2606:4700::1111]/"]),
    ("backslash", [f"https://evil.example.com\\@{SECRET}.example.com", "https:\\\\api.siorg.gov.br",
        "https://api.siorg.gov.br\\doc"]),
    ("query", [f"https://api.siorg.gov.br/?token={SECRET}", "https://api.siorg.gov.br?"]),
    ("query or fragment", [f"https://api.siorg.gov.br/#{SECRET}"]),
    ("white space", ["https://api.siorg.gov.br/a b", " https://api.siorg.gov.br"]),
    ("control", ["https://api.siorg.gov.br\n", "https://api.siorg\t.gov.br", "https://api.siorg.gov.br\x00"]),
    ("ASCII", ["https://órgão.gov.br", "https://api。siorg。gov。br", "https://ⓛocalhost"]),
    ("no scheme", ["", "api.siorg.gov.br/doc", "//api.siorg.gov.br", "https:api.siorg.gov.br", "https:/api.siorg.gov.br"]),
    ("no host", ["https:///doc", "https://", "https://:443/doc", "file:///etc/passwd"]),
    ("https", ["ftp://api.siorg.gov.br", "javascript://api.siorg.gov.br"]),
    ("percent-encoded", ["https://api%2esiorg.gov.br", "https://[fe80::1%25eth0]/", "https://[fe80::1%eth0]/"]),
    ("not written plainly", ["https://[::1"]),
    ("IPv6", ["https://[12345::1]/"]),
    ("plainly", ["https://[]/", "https://api.siorg.gov.br:-1", "https://api.siorg.gov.br:+443", "https://api.siorg.gov.br:",
        "https://api.siorg.gov.br:443:444", "https://api.siorg.gov.br/%2e%2e/x", "https://api.siorg.gov.br//x"]),
    ("port", ["https://api.siorg.gov.br:0", "https://api.siorg.gov.br:65536", "https://api.siorg.gov.br:99999"]),
    ("trailing dot", ["https://api.siorg.gov.br.", "https://localhost."]),
    ("four decimal", ["https://127.0.0.1.", "https://2130706433/", "https://0x7f000001/", "https://0X7F.1/",
        "https://0177.0.0.1/", "https://127.1/", "https://127.0.0.256/", "https://1.2.3.4.5/"]),
    ("letters, digits", ["https://api..siorg.gov.br", "https://-api.siorg.gov.br", "https://" + ".".join(["a" * 60] * 6)]),
    ("path", ["https://api.siorg.gov.br/../x", "https://api.siorg.gov.br/./x"]),
    ("longer", ["https://api.siorg.gov.br/" + "a" * 3000]),
]  # fmt: skip


def test_a_public_https_address_is_accepted_in_its_plain_form() -> None:
    for url, expected in PLAIN:
        for allow_insecure in (False, True):
            assert check_base_url(url, allow_insecure=allow_insecure) == expected


def test_insecure_and_private_addresses_need_the_switch() -> None:
    for url in (*INSECURE, *(f"https://{host}/doc" for host in PRIVATE_HOSTS)):
        with pytest.raises(ValueError, match=r"private|reserved|begin with https"):
            pytest.fail(f"{url} was taken as {check_base_url(url, allow_insecure=False)}")
        assert check_base_url(url, allow_insecure=True) == url.lower()


def test_what_parsers_could_read_differently_is_refused_with_the_reason() -> None:
    for reason, url in ((reason, url) for reason, urls in REFUSED for url in urls):
        for allow_insecure in (False, True):
            with pytest.raises(ValueError, match="SIORG") as caught:
                pytest.fail(f"{url} was taken as {check_base_url(url, allow_insecure=allow_insecure)}")
            assert reason in str(caught.value), url
            assert SECRET not in repr(caught.value), url
            assert caught.value.__cause__ is None, url


_PIECES = st.sampled_from(
    ["https", "http", "://", ":", "/", "//", "@", "\\", "?", "#", "%40", "%2f", "[", "]", "::1", "127.0.0.1", "a.com",
     "evil.org", ".", "..", " ", "\t", "user:pw", "443", "é", "0x7f", "doc", "。", "‥", "\x00", "-", "_", ";",
     "&", "65536"],
)  # fmt: skip


@given(
    st.one_of(
        st.text(),
        st.lists(_PIECES, max_size=12).map("".join),
        st.lists(_PIECES, max_size=10).map(lambda pieces: "https://" + "".join(pieces)),
    ),
    st.booleans(),
)
@example("https://a.com:443/doc", False)
def test_whatever_is_accepted_means_the_same_to_urllib_and_to_the_http_library(url: str, allow_insecure: bool) -> None:
    try:
        accepted = check_base_url(url, allow_insecure=allow_insecure)
    except ValueError:
        return
    standard, library = urlsplit(accepted), httpx2.URL(accepted)
    assert standard.username is None
    assert standard.password is None
    assert library.userinfo == b""
    assert "@" not in accepted
    assert standard.hostname == library.host
    assert standard.scheme == library.scheme
    default = {"https": 443, "http": 80}[standard.scheme]
    assert (standard.port or default) == (library.port or default)
    assert standard.path == library.path.rstrip("/")
    assert not accepted.endswith("/")
    assert check_base_url(accepted, allow_insecure=allow_insecure) == accepted
