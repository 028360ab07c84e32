"""No secret survives the redactor, in whatever form it is written, and what is none stays."""

import base64
import gc
import json
import textwrap
from unittest.mock import patch
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import siorg_runtime.needles
from siorg_runtime.needles import Needles
from siorg_runtime.redaction import Redactor

DAY = 86_400

PASSWORD = 'p@ss/w"örd\\1'
URL = "postgresql://siorg:p%40ss-w0rd@db:5432/siorg?sslpassword=cert-p%2Fss"


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize(
    "written",
    [
        PASSWORD,
        quote(PASSWORD, safe=""),
        quote(PASSWORD, safe="").lower(),
        json.dumps(PASSWORD),
        json.dumps(PASSWORD, ensure_ascii=False),
        repr(PASSWORD),
        base64.b64encode(PASSWORD.encode()).decode(),
        base64.b64encode(f"{PASSWORD}\n".encode()).decode(),
    ],
)
def test_a_known_secret_is_replaced_however_it_is_written(written: str) -> None:
    redactor = Redactor([PASSWORD])
    assert redactor.text(f"[{written}]").strip("[\"']") == "***"
    assert redactor.text(f"before{written}after").replace('"', "").replace("'", "") == "before***after"


@pytest.mark.parametrize(
    "written",
    [
        URL, "p%40ss-w0rd", "p@ss-w0rd", "siorg:p%40ss-w0rd", "cert-p/ss", "cert-p%2Fss",
        base64.b64encode(URL.encode()).decode(), base64.b64encode(b"p@ss-w0rd").decode(),
    ],
)  # fmt: skip
def test_of_a_url_the_passwords_are_known_too(written: str) -> None:
    assert Redactor([URL]).text(f"before {written} after") == "before *** after"


KEYWORDS = r"host=db password='it\'s a s3cr3t' user=siorg"


@pytest.mark.parametrize(
    ("secret", "written"),
    [
        # Any part percent-encoded, in either case, and once more.
        ("tok-en/1", "".join(f"%{byte:02x}" for byte in b"tok-en/1")),
        ("tok-en/1", "tok%2Den%2f1"),
        ("tok-en/1", quote(quote("tok-en/1", safe=""), safe="")),
        (PASSWORD, quote(json.dumps(PASSWORD)[1:-1], safe="")),
        # As PHP writes JSON.
        ("tok-en/1", "tok-en\\/1"),
        # Base64: amid other text at each of the three places, without padding, of URLs, wrapped, percent-encoded.
        *((PASSWORD, base64.b64encode(f"{before}{PASSWORD};x".encode()).decode()) for before in ("", "a", "ab", "siorg:")),
        (PASSWORD, base64.b64encode(PASSWORD.encode()).decode().rstrip("=")),
        ("??>>~~token", base64.urlsafe_b64encode(b"u:??>>~~token").decode()),
        (PASSWORD, "\n".join(textwrap.wrap(base64.b64encode(f"DATABASE_PASSWORD={PASSWORD}".encode()).decode(), 20))),
        (PASSWORD, quote(base64.b64encode(f"a{PASSWORD}".encode()).decode(), safe="")),
        (URL, base64.b64encode(f"DATABASE_URL={URL}\nOTHER=x".encode()).decode()),
        (PASSWORD, PASSWORD.encode().hex()),
        # A password within libpq's keyword string.
        (KEYWORDS, "it's a s3cr3t"),
        (KEYWORDS, r"'it\'s a s3cr3t'"),
        (KEYWORDS, quote("it's a s3cr3t")),
        (r"password=a\ b\\c1 host=db", r"a b\c1"),
    ],
)
def test_a_known_secret_is_replaced_where_it_only_shows_once_it_is_decoded(secret: str, written: str) -> None:
    assert Redactor([secret]).text(f"before {written} after") == "before *** after"


def test_what_only_looks_encoded_stays() -> None:
    text = "100% of %41 in C:\\new \\u0041 aGVsbG8gd29ybGQ=\nabc"
    assert Redactor([PASSWORD, URL]).text(text) == text


def test_of_secrets_within_each_other_the_longest_goes_as_a_whole() -> None:
    assert Redactor(["word", "user:password@host"]).text("user:password@host") == "***"


class User:
    """Of secrets."""


def test_what_is_in_use_or_was_remembered_for_good_is_never_forgotten() -> None:
    moment, (first, second) = [0.0], (User(), User())
    redactor = Redactor(["of-the-process"], clock=lambda: moment[0])
    redactor.uses(first, ["shared-token"])
    redactor.uses(second, ["shared-token"])
    for moment[0] in range(0, 10 * DAY, DAY // 100):
        redactor.uses(first, [f"rotated-{moment[0]}"])
    assert redactor.text(f"of-the-process shared-token rotated-{moment[0]}") == "*** *** ***"
    assert repr(redactor) == "Redactor(***)"


@pytest.mark.parametrize("end", ["replaced", "its user is gone"])
def test_what_nobody_uses_any_more_is_replaced_for_a_day(end: str) -> None:
    moment, (first, second) = [0.0], (User(), User())
    redactor = Redactor(clock=lambda: moment[0])
    redactor.uses(second, ["second-token"])
    redactor.uses(first, [URL])
    if end == "replaced":
        redactor.uses(first, ["another-token"])
    else:
        del first
        gc.collect()
        redactor.uses(second, ["another-token"])
    for moment[0], forgotten in ((DAY - 1, False), (DAY + 1, True)):
        redactor.uses(second, ["another-token"])
        assert (redactor.text("p@ss-w0rd") == "p@ss-w0rd") is forgotten
    redactor.uses(second, [URL])
    assert redactor.text("p@ss-w0rd") == "***"


def test_however_often_secrets_are_rotated_no_more_than_a_few_hundred_are_looked_for() -> None:
    user, redactor, kept = User(), Redactor(), set()
    for number in range(1500):
        redactor.uses(user, [f"token-{number:08}"])
        if number > 1000:
            kept.add(len(redactor._forms))
    assert len(kept) == 1
    assert redactor.text("token-00001499 token-00001400 token-00000000") == "*** *** token-00000000"


@given(
    st.lists(st.text("ab", min_size=4, max_size=8), max_size=30),
    st.lists(st.integers(0, 29)),
    st.text("ab"),
    st.sampled_from([0, 100]),
)
def test_needles_are_found_wherever_they_are_however_many_there_are(
    added: list[str], gone: list[int], text: str, few: int
) -> None:
    needles: Needles[str] = Needles()
    for needle in added:
        needles.add(needle)
    left = list(added)
    for number in gone:
        if number < len(left):
            needles.discard(left.pop(number))
    with patch.object(siorg_runtime.needles, "_FEW", few):
        found = set(needles.spans(text))
    assert found == {(at, at + len(needle)) for needle in left for at in range(len(text)) if text.startswith(needle, at)}
    assert len(needles) == len(set(left))


def test_short_secrets_are_left_in_running_text_but_not_in_known_places() -> None:
    redactor = Redactor(["abc", "a", ""])
    assert redactor.text("the abc of a banana") == "the abc of a banana"
    assert redactor.text("postgresql://u:abc@h/d password=abc") == "postgresql://***@h/d password=***"


def test_an_empty_password_makes_no_stars_of_the_users_name() -> None:
    redactor = Redactor(["postgresql://postgres:@/postgres?host=/tmp/pg"])
    assert redactor.text("postgres: no such role") == "postgres: no such role"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("see https://user:pass@host/path?q=1", "see https://***@host/path?q=1"),
        ("redis://:x@host", "redis://***@host"),
        ("postgresql://u:pa/s?s@x@host/db", "postgresql://***@host/db"),
        ("postgres://u@host", "postgres://***@host"),
        ("Authorization: Bearer a", "Authorization: Bearer ***"),
        ("authorization: Basic dTpw", "authorization: Basic ***"),
        ('{"Authorization": "Bearer tok-en"}', '{"Authorization": "Bearer ***"}'),
        ("(b'authorization', b'Bearer x1')", "(b'authorization', b'Bearer ***')"),
        ("sent Bearer eyJh.b-c_d=", "sent Bearer ***"),
        ("host=h password=x user=u", "host=h password=*** user=u"),
        ("password = 'a b\\' c' user=u", "password = *** user=u"),
        (r"password=a\ b'c,d user=u", "password=*** user=u"),
        ("oauth_client_secret=x scram_client_key=y", "oauth_client_secret=*** scram_client_key=***"),
        ('database "postgresql://siorg:Sup3rS3cr" does not', 'database "postgresql://siorg:***" does not'),
        ("at postgresql://db:5432/siorg and postgresql://db:5432", "at postgresql://db:5432/siorg and postgresql://db:5432"),
        ("?sslpassword=x&a=b", "?sslpassword=***&a=b"),
        ("PGPASSWORD=x", "PGPASSWORD=***"),
        ("mail to pessoa@ufmt.br about https://www.ufmt.br/a?b=c", "mail to pessoa@ufmt.br about https://www.ufmt.br/a?b=c"),
        ('["http://www.ufmt.br","pessoa@ufmt.br"]', '["http://www.ufmt.br","pessoa@ufmt.br"]'),
        ("lease_token=5 the bearer of news", "lease_token=5 the bearer of news"),
        ("password authentication failed for user siorg", "password authentication failed for user siorg"),
        ("", ""),
    ],
)
def test_known_places_are_redacted_whatever_stands_in_them_and_nothing_else(text: str, redacted: str) -> None:
    assert Redactor(["s3cr3t"]).text(text) == redacted


def test_values_are_gone_through_keys_included() -> None:
    value = {
        "s3cr3t": [1, None, True, 2.5, ("a s3cr3t", {"x": b"s3cr3t"}), ValueError("s3cr3t")],
        "set": {"s3cr3t"},
        "Authorization": "x",
        "password": "y",
        "lease_token": 7,
    }
    assert Redactor(["s3cr3t"]).value(value) == {
        "***": [1, None, True, 2.5, ["a ***", {"x": "***"}], "ValueError: ***"],
        "set": ["***"],
        "Authorization": "***",
        "password": "***",
        "lease_token": 7,
    }
    assert Redactor().value("postgresql:///x", "database_url") == "***"


def test_a_text_is_cut_after_it_is_redacted() -> None:
    shown = Redactor(["s3cr3t"]).value("x" * 16_380 + "s3cr3t" + "x" * 1000)
    assert shown == "x" * 16_380 + "***x… (17383 characters)"


def test_a_value_that_contains_itself_or_cannot_be_shown_comes_to_an_end() -> None:
    endless: list[object] = [Rude(), ValueError(Rude())]
    endless.append(endless)
    shown = json.dumps(Redactor().value(endless), ensure_ascii=False)
    assert "<unreadable Rude>" in shown
    assert "ValueError: <unreadable ValueError>" in shown
    assert "…" in shown


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(odd=st.text(min_size=4), secret=st.text("xyzXYZ-_.%/@:", min_size=4), before=st.text(), after=st.text(), around=_json)
def test_no_secret_survives(odd: str, secret: str, before: str, after: str, around: object) -> None:
    assert odd.strip() not in Redactor([odd]).text(before + odd + after).replace("***", "\0") or len(odd.strip()) < 4
    redactor = Redactor([secret])
    assert secret not in redactor.text(f"{before}{secret}{after}")
    assert secret not in json.dumps(redactor.value([around, {"x": secret, secret: before + secret + after}]))
