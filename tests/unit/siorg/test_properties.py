"""Whatever SIORG sends: a value of the model or an error of the tree comes out, and only what can be stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from siorg_job.siorg import rows, values
from siorg_job.siorg.envelope import check_envelope
from siorg_job.siorg.errors import MalformedResponse, SiorgError
from siorg_job.siorg.model import MAX_ACRONYM, MAX_CODE, MAX_NAME, DomainTable, RemoteUnit
from support.scripted_server import envelope, unit_row

_TEXT = st.one_of(
    st.text(st.characters()),  # with surrogates, NUL and all
    st.sampled_from(["", " ", "\xa0", "x" * 300, "EXCLUSAO", "FIM", "1.2.3", "https://h/id/unidade-organizacional/5", "null"]),
)
_NUMBERS = st.one_of(st.integers(), st.floats(), st.booleans(), st.sampled_from([0, 471, 2**31 - 1, 2**31, -1, 10**400, 1e308]))
_JSON = st.recursive(
    st.one_of(st.none(), _NUMBERS, _TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXT, inner, max_size=4)),
    max_leaves=12,
)
_FIELDS = st.sampled_from(
    ["codigoUnidade", "codigoUnidadePai", "codigoOrgaoEntidade", "codigoTipoUnidade", "nome", "sigla", "codigoCategoriaUnidade",
     "areaAtuacao", "endereco", "contato", "versaoConsulta", "operacao", "CodigoUnidade", "Nome", "unknown"]
)  # fmt: skip
_PLACES = st.dictionaries(
    st.sampled_from(["telefone", "email", "site", "logradouro", "numero", "complemento", "bairro", "municipio", "uf", "cep"]),
    _JSON,
    max_size=6,
)
_ROWS = st.one_of(
    _JSON,
    st.builds(
        lambda code, fields, contacts, places: {**unit_row(code), "contato": contacts, "endereco": places, **fields},
        st.integers(1, 5),
        st.dictionaries(_FIELDS, _JSON, max_size=5),
        st.one_of(_PLACES, st.lists(_PLACES, max_size=3)),
        st.one_of(_PLACES, st.lists(_PLACES, max_size=3)),
    ),
)
_SERVICES = st.one_of(
    st.just({"codigoErro": 0}), _JSON, st.fixed_dictionaries({"codigoErro": _JSON, "mensagem": _JSON, "ticket": _JSON})
)
_BODIES = st.one_of(
    st.binary(max_size=200),
    _JSON.map(lambda value: json.dumps(value).encode()),
    st.builds(
        lambda service, key, value, more: json.dumps({key: value, "servico": service, **more}).encode(),
        _SERVICES,
        st.sampled_from(["unidade", "unidades", "versao", "tipoVersao", "poder", "Unidades"]),
        st.one_of(_ROWS, st.lists(_ROWS, max_size=4)),
        st.dictionaries(_TEXT, _JSON, max_size=2),
    ),
)
_PARSERS: list[Callable[[bytes], Any]] = [
    lambda body: rows.parse_unit(body, 1),
    lambda body: rows.read_structure(body, 1),
    lambda body: rows.parse_version(body, 1),
    lambda body: rows.parse_domain(body, DomainTable.POWER),
    lambda body: rows.parse_domain(body, DomainTable.UNIT_TYPE),
    check_envelope,
]


def check_unit(unit: RemoteUnit) -> None:
    """What the rest of the job relies on."""
    codes = [unit.code, unit.parent_code, unit.organization_code, unit.category_code]
    assert all(type(code) is int and 1 <= code <= MAX_CODE for code in codes if code is not None)
    texts = [unit.type_slug, unit.name, unit.acronym, unit.address, unit.zip_code, unit.state, unit.version]
    for texts_of_contact in (unit.phones, unit.emails, unit.websites):
        assert texts_of_contact is None or isinstance(texts_of_contact, tuple)
        texts += texts_of_contact or ()
        assert len(set(texts_of_contact or ())) == len(texts_of_contact or ())
    for text in texts:
        if text is not None:
            assert text
            assert text == values.normalise(text)
            assert "\x00" not in text
            text.encode()
    assert len(unit.name or "") <= MAX_NAME
    assert len(unit.acronym or "") <= MAX_ACRONYM
    assert unit.zip_code is None or (len(unit.zip_code) == 8 and unit.zip_code.isdigit())
    assert unit.state is None or (len(unit.state) == 2 and unit.state.isupper())
    if unit.version is not None:
        values.version_key(unit.version)
    unit.raw.encode()
    json.dumps(json.loads(unit.raw), allow_nan=False).encode()


def check_error(error: SiorgError) -> None:
    str(error).encode()
    assert "\x00" not in str(error)
    assert len(str(error)) < 600
    text = json.dumps(dict(error.details), allow_nan=False, ensure_ascii=False)
    text.encode()
    assert "\\u0000" not in text


@settings(max_examples=400)
@given(_BODIES, st.sampled_from(_PARSERS))
def test_any_body_gives_the_model_or_an_error_of_the_tree(body: bytes, parse: Callable[[bytes], Any]) -> None:
    try:
        result = parse(body)
    except SiorgError as error:
        check_error(error)
        return
    if isinstance(result, RemoteUnit):
        check_unit(result)
        assert rows.parse_stored(result.raw) == result


@settings(max_examples=400)
@given(_ROWS)
def test_any_row_is_read_alike_alone_in_a_list_and_from_storage(row: Any) -> None:
    body = envelope("unidades", [unit_row(471), row, unit_row(999)])
    structure = rows.read_structure(body, 471)
    assert {471, 999} <= set(structure.units) | set(structure.invalid)
    assert len(structure.units) + len(structure.invalid) + structure.unidentified in {2, 3}
    for error in structure.invalid.values():
        check_error(error)
    for unit in structure.units.values():
        check_unit(unit)
        assert rows.parse_stored(unit.raw) == unit
        assert rows.parse_unit(envelope(value=json.loads(unit.raw)), unit.code) == unit


@settings(max_examples=200)
@given(st.lists(st.builds(unit_row, st.integers(1, 30)), max_size=6), st.data())
def test_a_body_that_is_cut_anywhere_is_never_believed(units: list[dict[str, Any]], data: st.DataObject) -> None:
    body = envelope("unidades", units)
    cut = data.draw(st.integers(0, len(body) - 1))
    try:
        rows.read_structure(body[:cut], 1)
    except SiorgError as error:
        assert isinstance(error, MalformedResponse)  # noqa: PT017 - any other error would be as wrong as none
        return
    raise AssertionError("a torn body was believed")


@given(st.one_of(_JSON, _ROWS))
def test_anything_stored_reads_back_as_a_unit_or_nothing(raw: Any) -> None:
    for form in (raw, json.dumps(raw)):
        unit = rows.parse_stored(form) if isinstance(form, str | dict) else None
        if unit is not None:
            check_unit(unit)
