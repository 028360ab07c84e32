"""Which proxy is asked, and for whom none is: as curl has it, and a little more."""

from __future__ import annotations

import pytest

from siorg_runtime.proxies import is_excepted, proxy_for

SIORG = "https://api.siorg.gov.br"


@pytest.mark.parametrize(
    ("url", "environ", "variable", "address"),
    [
        (SIORG, {}, None, None),
        (SIORG, {"HTTPS_PROXY": "http://a:3128"}, "HTTPS_PROXY", "http://a:3128"),
        (SIORG, {"HTTPS_PROXY": " a:3128 "}, "HTTPS_PROXY", "http://a:3128"),
        (SIORG, {"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:1"}, "https_proxy", "http://b:1"),
        (SIORG, {"HTTPS_PROXY": "http://a:1", "https_proxy": ""}, None, None),
        (SIORG, {"HTTP_PROXY": "http://a:1"}, None, None),
        (SIORG, {"ALL_PROXY": "http://a:1"}, "ALL_PROXY", "http://a:1"),
        (SIORG, {"HTTPS_PROXY": "http://a:1", "NO_PROXY": ".gov.br"}, None, None),
        (SIORG, {"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*", "no_proxy": ""}, "HTTPS_PROXY", "http://a:1"),
        ("http://siorg.svc:8900/doc", {"http_proxy": "http://a:1", "HTTPS_PROXY": "http://b:1"}, "http_proxy", "http://a:1"),
        ("http://[fd00::1]/doc", {"http_proxy": "http://a:1", "NO_PROXY": "fd00::/8"}, None, None),
    ],
)
def test_the_proxy_is_that_of_the_address_s_scheme(
    url: str, environ: dict[str, str], variable: str | None, address: str | None
) -> None:
    proxy = proxy_for(url, environ)
    assert ((None, None) if proxy is None else (proxy.variable, proxy.url)) == (variable, address)
    assert "a:1" not in repr(proxy)


EXCEPTED = [
    # As curl 7.88 has it.
    ("a.svc", 80, ".svc", True), ("a.svc", 80, "svc", True), ("svc", 80, ".svc", True), ("a.svc", 80, "A.SVC", True),
    ("a.svc", 80, "a.svc.", True), ("asvc", 80, "svc", False), ("a.svc", 80, "b.a.svc", False), ("a.svc", 80, "b a.svc", True),
    ("a.svc", 80, "*", True), ("a.svc", 80, "", False), ("a.svc", 80, ",, ,", False), ("a.svc", 80, "b,a.svc", True),
    ("10.1.2.3", 80, "10.0.0.0/8", True), ("10.1.2.3", 80, "11.0.0.0/8", False), ("10.1.2.3", 80, "10.1.2.3", True),
    ("10.1.2.3", 80, "2.3", False), ("10.1.2.3", 80, "fd00::/8", False), ("10.1.2.3", 80, "10.0.0.0/99", False),
    ("fd00::1", 80, "fd00::/8", True), ("fd00::1", 80, "fd00::1", True), ("fd00::1", 80, "FD00:0::1", True),
    ("fd00::1", 80, "10.0.0.0/8", False), ("a10.1.2.3.svc", 80, "10.1.2.3", False),
    # More than curl.
    ("10.1.2.3", 80, "10.*", True), ("10.1.2.3", 80, "10.1.*", True), ("100.1.2.3", 80, "10.*", False),
    ("10.svc", 80, "10.*", False), ("a.svc", 80, "b,*", True), ("a.svc", 80, "*.svc", True), ("fd00::1", 80, "[fd00::1]", True),
    ("a.svc", 80, "a.svc:80", True), ("a.svc", 81, "a.svc:80", False), ("a.svc", 443, ".svc:443", True),
    ("10.1.2.3", 80, "10.1.2.3:80", True), ("10.1.2.3", 80, "10.1.2.3:81", False), ("10.1.2.3", 80, "10.0.0.0/8:80", True),
    ("fd00::1", 80, "[fd00::1]:80", True), ("fd00::1", 80, "[fd00::1]:81", False), ("fd00::1", 80, "[fd00::/8]:80", True),
    # Nonsense says nothing.
    ("a.svc", 80, "http://a.svc", False), ("a.svc", 80, ":80", False), ("a.svc", 80, ".", False), ("a.svc", 80, "[", False),
    ("a.svc", 80, "a.svc:" + "9" * 5000, False),
]  # fmt: skip


@pytest.mark.parametrize("no_proxy", ["10.*", "10.96.0.0/12", ".svc", "kubernetes.default.svc"])
def test_a_host_is_excepted_under_each_of_its_names(no_proxy: str) -> None:
    environ, names = {"HTTPS_PROXY": "http://a:1", "NO_PROXY": no_proxy}, ("kubernetes.default.svc",)
    assert proxy_for("https://10.96.0.1:443", environ, other_names=names) is None
    assert proxy_for("https://192.0.2.1:443", environ, other_names=()) is not None


@pytest.mark.parametrize(("host", "port", "no_proxy", "expected"), EXCEPTED)
def test_no_proxy_names_domains_addresses_networks_and_ports(host: str, port: int, no_proxy: str, *, expected: bool) -> None:
    assert is_excepted(host, port, no_proxy) is expected
