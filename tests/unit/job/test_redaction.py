import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siorg_job.redaction import Redactor

PASSWORD = 'p@ss/w"örd\\1'


def test_a_known_secret_is_replaced_wherever_it_stands() -> None:
    assert Redactor(["s3cr3t"]).text("before s3cr3t, afters3cr3tafter") == "before ***, after***after"


@pytest.mark.parametrize(
    "written",
    [
        PASSWORD,
        quote(PASSWORD, safe=""),
        quote(PASSWORD, safe="").lower(),
        json.dumps(PASSWORD),
        json.dumps(PASSWORD, ensure_ascii=False),
        repr(PASSWORD),
    ],
)
def test_a_known_secret_is_replaced_however_it_is_written(written: str) -> None:
    assert Redactor([PASSWORD]).text(f"[{written}]").strip("[\"']") == "***"


def test_of_secrets_within_each_other_the_longest_goes_as_a_whole() -> None:
    assert Redactor(["word", "user:password@host"]).text("user:password@host") == "***"


def test_short_secrets_are_left_in_running_text_but_not_in_known_places() -> None:
    redactor = Redactor(["abc"])
    assert redactor.text("the abc of it") == "the abc of it"
    assert redactor.text("postgresql://u:abc@h/d password=abc") == "postgresql://***@h/d password=***"


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
        ("?sslpassword=x&a=b", "?sslpassword=***&a=b"),
        ("PGPASSWORD=x", "PGPASSWORD=***"),
    ],
)
def test_known_places_are_redacted_whatever_stands_in_them(text: str, redacted: str) -> None:
    assert Redactor().text(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "mail to pessoa@ufmt.br about https://www.ufmt.br/a?b=c",
        '["http://www.ufmt.br","pessoa@ufmt.br"]',
        "lease_token=5 the bearer of news",
        "password authentication failed for user siorg",
        "",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert Redactor(["s3cr3t"]).text(text) == text


def test_values_are_gone_through_keys_included() -> None:
    value = {"s3cr3t": [1, None, True, 2.5, ("a s3cr3t", {"x": b"s3cr3t"})], "set": {"s3cr3t"}}
    assert Redactor(["s3cr3t"]).value(value) == {"***": [1, None, True, 2.5, ["a ***", {"x": "***"}]], "set": ["***"]}


def test_fields_that_are_named_for_secrets_are_redacted() -> None:
    assert Redactor().value({"Authorization": "x", "password": "y", "lease_token": 7}) == {
        "Authorization": "***",
        "password": "***",
        "lease_token": 7,
    }
    assert Redactor().field("database_url", "postgresql:///x") == "***"


def test_a_value_that_contains_itself_or_cannot_be_shown_comes_to_an_end() -> None:
    class Rude:
        def __str__(self) -> str:
            raise RuntimeError("no")

    loop: list[object] = [Rude()]
    loop.append(loop)
    assert "<unreadable Rude>" in json.dumps(Redactor().value(loop))


def test_the_repr_says_nothing() -> None:
    assert "s3cr3t" not in repr(Redactor(["s3cr3t"]))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(secret=st.text("xyzXYZ-_.%/@:", min_size=4), before=st.text(), after=st.text(), around=_json)
def test_no_secret_survives(secret: str, before: str, after: str, around: object) -> None:
    redactor = Redactor([secret])
    assert secret not in redactor.text(f"{before}{secret}{after}")
    assert secret not in json.dumps(redactor.value([around, {"x": secret, secret: before + secret + after}]))
