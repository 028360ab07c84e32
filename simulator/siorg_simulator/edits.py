"""Editing one unit of the current edition, so that a test can make SIORG change. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from siorg_simulator.rows import DETAIL_DEFAULTS, SnapshotError, parse_code, parse_row, short_row
from siorg_simulator.structure import Edition, Snapshot, Unit, Version, format_version, parse_version

HELP = """{"code": 16466, "set": {"nome": "…"}}, {"code": 16466, "remove": true}, \
{"code": 16466, "remove": true, "subtree": true}, {"code": 16466, "verbatim": {"nome": 5}}, \
or {"add": {"codigoUnidade": 9001, "codigoUnidadePai": 471, "nome": "…"}}"""

# What /alteradas tells follows from the differences; it cannot be set.
_FOLLOWING = {"operacao", "codigoUnidadePaiAnterior", "codigoOrgaoEntidadeAnterior"}
_ROW_KEYS = {*short_row(Unit(1, None, None, "", *(None,) * 9)), *DETAIL_DEFAULTS} - _FOLLOWING


def edit(edition: Edition, request: object, *, versions: Mapping[int, Version], date: str) -> Snapshot:
    """The structure after one edit, as a new snapshot.

    The edited unit's versaoConsulta is the version that its organization now gets, unless the edit says one.

    Args:
        edition: The structure before.
        request: See HELP.
        versions: The organizations' newest versions, which the edit follows.
        date: Today, for dataInicialVersaoConsulta of what changed.

    Raises:
        SnapshotError: The request is not understood, or names a unit that is not there.
    """
    if not isinstance(request, dict):
        raise _refused("not an object")
    match request:
        case {"add": dict(row), **rest} if not rest:
            return _added(edition, row, versions, date)
        case {"code": code, "set": dict(row), **rest} if not rest:
            return _changed(edition, _unit(edition, code), row, versions, date)
        case {"code": code, "verbatim": dict(row), **rest} if not rest:
            unit = _unit(edition, code)
            return _with(edition, f"verbatim {unit.code}", replace(unit, verbatim=json.dumps(row) if row else ""))
        case {"code": code, "remove": True, **rest} if not rest or rest.keys() == {"subtree"}:
            return _removed(edition, _unit(edition, code), subtree=rest.get("subtree") is True)
    raise _refused("not understood")


def _added(edition: Edition, row: dict[str, object], versions: Mapping[int, Version], date: str) -> Snapshot:
    _check_keys(row)
    code = parse_code(row.get("codigoUnidade"), "codigoUnidade")
    if code in edition.units:
        raise _refused(f"codigoUnidade {code} is there already")
    parent = edition.units.get(parse_code(row.get("codigoUnidadePai"), "codigoUnidadePai") or 0)
    base = short_row(parent) if parent else {}
    defaults = {
        key: base.get(key)
        for key in (
            "codigoOrgaoEntidade",
            "codigoEsfera",
            "codigoPoder",
            "codigoNaturezaJuridica",
            "codigoSubNaturezaJuridica",
        )
    }
    defaults |= {"codigoTipoUnidade": "unidade-administrativa", "nivelNormatizacao": "ATO_INTERNO"}
    unit = parse_row({**defaults, **row})
    return _with(edition, f"add {unit.code}", _dated(unit, row, versions, date))


def _changed(edition: Edition, unit: Unit, row: dict[str, object], versions: Mapping[int, Version], date: str) -> Snapshot:
    _check_keys(row)
    if "codigoUnidade" in row and parse_code(row["codigoUnidade"], "codigoUnidade") != unit.code:
        raise _refused("codigoUnidade cannot be changed")
    if row.keys() & DETAIL_DEFAULTS.keys():
        row = unit.details.fields() | row
    changed = parse_row({**short_row(replace(unit, verbatim="")), **row}, known=unit)
    return _with(edition, f"set {unit.code}", _dated(changed, row, versions, date))


def _removed(edition: Edition, unit: Unit, *, subtree: bool) -> Snapshot:
    gone = {unit.code}
    if subtree:
        queue = [unit.code]
        for current in queue:
            below = [child for child in edition.children.get(current, ()) if child not in gone]
            gone.update(below)
            queue += below
    units = {code: other for code, other in edition.units.items() if code not in gone}
    if not units:
        raise _refused("nothing would be left")
    return Snapshot(f"edit: remove {unit.code}", units)


def _with(edition: Edition, what: str, unit: Unit) -> Snapshot:
    return Snapshot(f"edit: {what}", {**edition.units, unit.code: unit})


def _dated(unit: Unit, row: dict[str, object], versions: Mapping[int, Version], date: str) -> Unit:
    """The unit with the version of the edit; an organization's own row gets its version from the history."""
    version = unit.version
    newest = versions.get(unit.organization or 0)
    if "versaoConsulta" not in row and not unit.is_organization and newest is not None:
        version = format_version((newest[0], newest[1], newest[2] + 1))
    if "versaoConsulta" in row and version is not None and parse_version(version) is None:
        raise _refused(f"versaoConsulta is {version!r}, not major.minor.build")
    return replace(unit, version=version, since=unit.since if "dataInicialVersaoConsulta" in row else date)


def _unit(edition: Edition, code: object) -> Unit:
    unit = edition.units.get(parse_code(code, "code") or 0)
    if unit is None:
        raise _refused(f"there is no unit {code}")
    return unit


def _check_keys(row: dict[str, object]) -> None:
    unknown = [key for key in row if key not in _ROW_KEYS]
    if unknown:
        raise _refused(f"no key that can be set: {', '.join(map(repr, unknown))}")


def _refused(why: str) -> SnapshotError:
    return SnapshotError(f"unit: {why}; wanted: {HELP}")
