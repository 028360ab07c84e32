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
REFUSED: list[tuple[object, str]] = [
    (f"https://host:{SECRET}@evil/", "user information"),
    (f"https://{SECRET}@evil.example.com/", "user information"),
    ("https://@evil.example.com/", "user information"),
    ("https://api.siorg.gov.br:443@evil.example.com/", "user information"),
    (f"https://a:{SECRET}@[2606:4700::1111]/", "user information"),
    (f"https://evil.example.com\\@{SECRET}.example.com", "backslash"),
    ("https:\\\\api.siorg.gov.br", "backslash"),
    ("https://api.siorg.gov.br\\doc", "backslash"),
    (f"https://api.siorg.gov.br/?token={SECRET}", "query"),
    (f"https://api.siorg.gov.br/#{SECRET}", "query or fragment"),
    ("https://api.siorg.gov.br?", "query"),
    ("https://api.siorg.gov.br/a b", "white space"),
    (" https://api.siorg.gov.br", "white space"),
    ("https://api.siorg.gov.br\n", "control"),
    ("https://api.siorg\t.gov.br", "control"),
    ("https://api.siorg.gov.br\x00", "control"),
    ("https://órgão.gov.br", "ASCII"),
    ("https://api。siorg。gov。br", "ASCII"),
    ("https://ⓛocalhost", "ASCII"),
    ("", "missing"),
    (None, "missing"),
    (471, "missing"),
    (b"https://api.siorg.gov.br", "missing"),
    ("api.siorg.gov.br/doc", "no scheme"),
    ("//api.siorg.gov.br", "no scheme"),
    ("https:api.siorg.gov.br", "no scheme"),
    ("https:/api.siorg.gov.br", "no scheme"),
    ("https:///doc", "no host"),
    ("https://", "no host"),
    ("https://:443/doc", "no host"),
    ("ftp://api.siorg.gov.br", "https"),
    ("file:///etc/passwd", "no host"),
    ("javascript://api.siorg.gov.br", "https"),
    ("https://api%2esiorg.gov.br", "percent-encoded"),
    ("https://[fe80::1%25eth0]/", "percent-encoded"),
    ("https://[fe80::1%eth0]/", "percent-encoded"),
    ("https://[::1", "not written plainly"),
    ("https://[12345::1]/", "IPv6"),
    ("https://[]/", "plainly"),
    ("https://api.siorg.gov.br:0", "port"),
    ("https://api.siorg.gov.br:65536", "port"),
    ("https://api.siorg.gov.br:99999", "port"),
    ("https://api.siorg.gov.br:-1", "plainly"),
    ("https://api.siorg.gov.br:+443", "plainly"),
    ("https://api.siorg.gov.br:", "plainly"),
    ("https://api.siorg.gov.br:443:444", "plainly"),
    ("https://api.siorg.gov.br.", "trailing dot"),
    ("https://localhost.", "trailing dot"),
    ("https://127.0.0.1.", "four decimal"),
    ("https://api..siorg.gov.br", "letters, digits"),
    ("https://-api.siorg.gov.br", "letters, digits"),
    ("https://2130706433/", "four decimal"),
    ("https://0x7f000001/", "four decimal"),
    ("https://0X7F.1/", "four decimal"),
    ("https://0177.0.0.1/", "four decimal"),
    ("https://127.1/", "four decimal"),
    ("https://127.0.0.256/", "four decimal"),
    ("https://1.2.3.4.5/", "four decimal"),
    ("https://api.siorg.gov.br/../x", "path"),
    ("https://api.siorg.gov.br/./x", "path"),
    ("https://api.siorg.gov.br/%2e%2e/x", "plainly"),
    ("https://api.siorg.gov.br//x", "plainly"),
    ("https://api.siorg.gov.br/" + "a" * 3000, "longer"),
    ("https://" + ".".join(["a" * 60] * 6), "letters, digits"),
]


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
    for url, reason in REFUSED:
        for allow_insecure in (False, True):
            with pytest.raises(ValueError, match="SIORG") as caught:
                pytest.fail(f"{url} was taken as {check_base_url(url, allow_insecure=allow_insecure)}")  # type: ignore[arg-type]
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
