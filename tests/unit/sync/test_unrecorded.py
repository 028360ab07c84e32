"""Of what SIORG said last, only what stands in for what is not recorded has to be read."""

from __future__ import annotations

from typing import Any

import pytest

from siorg_job.siorg.rows import parse_stored
from siorg_job.sync.merge import remote_unit_values
from siorg_job.sync.merge_base import Base, unrecorded
from siorg_job.sync.model import UnitField, Values
from support.local_structure import contact, siorg_row

_ADDRESS: dict[str, Any] = {"endereco": [{"logradouro": "Rua A", "numero": 12, "cep": 78060900, "uf": "MT"}]}
_WHOLE = siorg_row(
    900, areaAtuacao="FIM", codigoCategoriaUnidade="6", **contact(phones=["1"], emails=["a@b.c"], sites=["x.br"]), **_ADDRESS
)
_ALL: Values = dict.fromkeys(UnitField, "recorded")


@pytest.mark.parametrize(
    "row", [_WHOLE, siorg_row(900), siorg_row(900, operacao="EXCLUSAO"), {"CodigoUnidade": "900", "Nome": "x"}]
)
@pytest.mark.parametrize(
    "lacking", [*((field,) for field in UnitField), (), (UnitField.PHONES, UnitField.PARENT), tuple(UnitField)]
)
def test_the_base_is_what_it_would_be_of_the_whole_row(row: dict[str, Any], lacking: tuple[UnitField, ...]) -> None:
    recorded = {name: value for name, value in _ALL.items() if name not in lacking}
    whole, part = parse_stored(row), parse_stored(dict(unrecorded(row, Base(recorded))))
    assert whole is not None
    assert part is not None
    assert {**remote_unit_values(part), **recorded} == {**remote_unit_values(whole), **recorded}


def test_of_what_is_recorded_whole_only_the_code_is_left() -> None:
    assert unrecorded(_WHOLE, Base(_ALL)).keys() == {"codigoUnidade"}
    assert unrecorded(_WHOLE, None) == _WHOLE
