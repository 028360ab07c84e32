"""Which path gives which answer: the open API's resources over one history. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from siorg_simulator import domain
from siorg_simulator.answers import JSON_TYPE, TEXT_TYPE, Envelope, Reply, ReturnCode, page
from siorg_simulator.quirks import Quirk
from siorg_simulator.rows import RowForm, complete_details, complete_row, short_row
from siorg_simulator.structure import (
    Difference,
    Edition,
    History,
    Unit,
    differences,
    format_version,
    organization_changes,
    parse_version,
)

_UNIT = "unidade-organizacional"

_UNKNOWN_PATH = "(unknown)"
_PATHS = {
    "estrutura-organizacional": "estrutura-organizacional/resumida",
    "orgao-entidade": "orgao-entidade/resumida",
    "unidade-organizacional/{codigo}": "unidade-organizacional/{codigo}/resumida",
    "unidade-organizacional/endereco-contato/{codigo}": "unidade-organizacional/{codigo}/endereco-contato",
    "estrutura-organizacional/filha": "estrutura-organizacional/{codigo}/filha",
}
_PATHS |= {
    path: path
    for path in (
        *_PATHS.values(),
        *(f"{name}/completa" for name in ("estrutura-organizacional", "orgao-entidade", "unidade-organizacional/{codigo}")),
        *(f"unidade-organizacional/{{codigo}}/{name}" for name in ("estrutura", "versao", "alteradas")),
        "estrutura-organizacional/alteracoes",
        "unidade-organizacional",
        *domain.TABLES,
        *(f"{table}/{{codigo}}" for table in domain.TABLES),
    )
}
_NOUN = "Unidade organizacional"


def endpoint_of(path: str) -> str:
    """The template of a path, its aliases being one; ``(unknown)`` for a path that is none. For counting."""
    first, *parts = path.strip("/").split("/")
    if first != "doc" or not parts:
        return _UNKNOWN_PATH
    parts[-1] = parts[-1].removesuffix(".json")
    if len(parts) == 2 and parts[0] in domain.TABLES:
        parts[1] = "{codigo}"
    return _PATHS.get("/".join("{codigo}" if _is_code(part) else part for part in parts), _UNKNOWN_PATH)


class _BusinessError(Exception):
    """A request that ends in a business error."""

    def __init__(self, code: ReturnCode, about: str = "") -> None:
        super().__init__(code, about)
        self.code = code
        self.about = about


@dataclass(frozen=True, slots=True)
class _Filters:
    """The query of the list endpoints; None where a parameter was not given."""

    power: str | None
    sphere: str | None
    unit: int | None
    linked: bool

    def match(self, unit: Unit) -> bool:
        return self.power in (None, unit.power) and self.sphere in (None, unit.sphere)


@dataclass(frozen=True, slots=True)
class Site:
    """The resources under /doc.

    Attributes:
        history: What is served, and what came before.
        quirks: The wobbles that are on.
        history_limit: /alteradas knows only this many versions of an organization; None for all.
    """

    history: History
    quirks: frozenset[Quirk] = frozenset()
    history_limit: int | None = None

    def answer(self, path: str, query: Mapping[str, str], *, date: str, caller: str | None) -> Reply:
        """The answer to a GET.

        Args:
            path: The whole path, beginning with ``/doc`` (or ``/id``: identifiers lead to their documents).
            query: Parameters; unknown ones are ignored, as SIORG does.
            date: Today, for the envelope.
            caller: The caller's address, for the envelope.
        """
        first, *parts = path.strip("/").split("/")
        if first == "id":
            return _identifier(parts)
        if first != "doc" or not parts:
            return page(404, "Not Found")
        if parts[-1].endswith(".xml"):
            return not_acceptable()
        parts[-1] = parts[-1].removesuffix(".json")
        return self._route(parts, query, Envelope(date, caller, self.quirks))

    def _route(self, parts: list[str], query: Mapping[str, str], envelope: Envelope) -> Reply:
        match parts:
            case ["estrutura-organizacional", *rest]:
                return self._route_structure(rest, query, envelope)
            case ["orgao-entidade"] | ["orgao-entidade", "resumida"]:
                return self._organizations(query, envelope, complete=False)
            case ["orgao-entidade", "completa"]:
                return self._organizations(query, envelope, complete=True)
            case ["unidade-organizacional", *rest]:
                return self._route_unit(rest, query, envelope)
            case [table] if table in domain.TABLES:
                return _domain_table(domain.TABLES[table], query, envelope)
            case [table, code] if table in domain.TABLES:
                return _domain_item(domain.TABLES[table], code, envelope)
            case _:
                return page(404, "Not Found")

    def _route_structure(self, rest: list[str], query: Mapping[str, str], envelope: Envelope) -> Reply:
        match rest:
            case [] | ["resumida"]:
                return self._structure(query, envelope, complete=False)
            case ["completa"]:
                return self._structure(query, envelope, complete=True)
            case ["alteracoes"]:
                return self._organization_changes(query, envelope)
            case ["filha"]:
                return self._children(query.get("codigoUnidade", ""), query, envelope)
            case [code, "filha"] if _is_code(code):
                return self._children(code, query, envelope)
            case _:
                return page(404, "Not Found")

    def _route_unit(self, rest: list[str], query: Mapping[str, str], envelope: Envelope) -> Reply:
        match rest:
            case []:
                return envelope.error(ReturnCode.REQUIRED, name="unidade", about="unidade")
            # The list of 2017 prints this one the other way round.
            case ["endereco-contato", code] if _is_code(code):
                return self._unit(int(code), "endereco-contato", query, envelope)
            case [code] if _is_code(code):
                return self._unit(int(code), "resumida", query, envelope)
            case [code, what] if _is_code(code):
                return self._unit(int(code), what, query, envelope)
            case _:
                return page(404, "Not Found")

    # Lists of units

    def _structure(self, query: Mapping[str, str], envelope: Envelope, *, complete: bool) -> Reply:
        edition = self.history.current
        try:
            filters = _filters(query)
            if filters.unit is None:
                units = [unit for unit in edition.units.values() if filters.match(unit)]
            else:
                root = _organization(edition, filters.unit)
                units = [unit for unit in self._structure_of(edition, root, filters) if filters.match(unit)]
                if complete and Quirk.ROOT_ONLY in self.quirks and None in (filters.power, filters.sphere):
                    units = [root]
            if not units:
                raise _BusinessError(ReturnCode.NONE_MATCH, "unidades organizacionais")
        except _BusinessError as refused:
            return envelope.error(refused.code, about=refused.about)
        return self._rows(units, envelope, complete=complete)

    def _structure_of(self, edition: Edition, root: Unit, filters: _Filters) -> list[Unit]:
        units = edition.organization_units(root.code)
        if filters.linked:
            for linked in edition.linked_organizations(root.code):
                units += edition.organization_units(linked)
        elif Quirk.VINCULADOS_LEAK in self.quirks:
            units += [edition.units[linked] for linked in edition.linked_organizations(root.code)]
        return units

    def _children(self, code: str, query: Mapping[str, str], envelope: Envelope) -> Reply:
        edition = self.history.current
        try:
            if not code:
                raise _BusinessError(ReturnCode.REQUIRED, "codigoUnidade")
            filters = _filters({**query, "codigoUnidade": code})
            unit = _known(edition, filters.unit)
            if not unit.is_organization and Quirk.FILHA_ANY_UNIT not in self.quirks:
                raise _BusinessError(ReturnCode.NOT_ORGANIZATION)
        except _BusinessError as refused:
            return envelope.error(refused.code, about=refused.about)
        units = [edition.units[child] for child in edition.children.get(unit.code, ())]
        units = [child for child in units if child.organization == unit.organization]
        if filters.linked:
            units += [edition.units[linked] for linked in edition.linked_organizations(unit.code)]
        return self._rows(units, envelope, complete=True)

    def _organizations(self, query: Mapping[str, str], envelope: Envelope, *, complete: bool) -> Reply:
        try:
            filters = _filters({key: value for key, value in query.items() if key in ("codigoPoder", "codigoEsfera")})
            all_units = self.history.current.units.values()
            units = [unit for unit in all_units if unit.is_organization and filters.match(unit)]
            if not units:
                raise _BusinessError(ReturnCode.NONE_MATCH, "órgãos ou entidades")
        except _BusinessError as refused:
            return envelope.error(refused.code, about=refused.about)
        return self._rows(units, envelope, complete=complete)

    def _rows(self, units: list[Unit], envelope: Envelope, *, complete: bool) -> Reply:
        form, row = RowForm(self.quirks), complete_row if complete else short_row
        return envelope.units(units, lambda unit: row(unit, form))

    def _organization_changes(self, query: Mapping[str, str], envelope: Envelope) -> Reply:
        """Row 12 of the reference. The counter is 1 before everything, and one more with each snapshot."""
        reference = query.get("versaoReferencia", "")
        current = self.history.current_index + 2
        if not reference:
            return envelope.error(ReturnCode.REQUIRED, name="resposta", about="versaoReferencia")
        if not _is_code(reference) or not 1 <= int(reference) <= current:
            return envelope.error(ReturnCode.INVALID, name="resposta", about="versaoReferencia")
        old = self.history.editions[int(reference) - 2] if int(reference) > 1 else None
        new = self.history.current
        changes = organization_changes(old, new)

        def items(codes: tuple[int, ...]) -> list[dict[str, object]]:
            return [
                {"codigo": str(code), "versao": format_version(new.versions[code]), "estruturaPerfeita": True} for code in codes
            ]

        answer = {
            "versaoReferencia": reference,
            "versaoAtual": str(current),
            "orgaoEntidadeIncluido": items(changes.included),
            "orgaoEntidadeAlterado": items(changes.changed),
            "orgaoEntidadeExcluido": items(changes.excluded),
        }
        return Reply(200, JSON_TYPE, envelope.wrap([("resposta", envelope.dump(answer))]))

    # One unit

    def _unit(self, code: int, what: str, query: Mapping[str, str], envelope: Envelope) -> Reply:
        version = query.get("versaoConsulta", "")
        form = RowForm(self.quirks)
        name = {"estrutura": "estrutura", "alteradas": "unidades", "endereco-contato": "endereco"}.get(what, "unidade")
        try:
            match what:
                case "resumida":
                    return envelope.unit("unidade", short_row(self._unit_at(code, version), form))
                case "completa":
                    return envelope.unit("unidade", complete_row(self._unit_at(code, version), form))
                case "estrutura":
                    unit = _known(self.history.current, code)
                    return Reply(200, JSON_TYPE, envelope.wrap([("estrutura", self._tree(unit, envelope))]))
                case "endereco-contato":
                    details = complete_details(_known(self.history.current, code), form)
                    parts = [(key, envelope.dump(details[key])) for key in ("endereco", "contato")]
                    return Reply(200, JSON_TYPE, envelope.wrap(parts))
                case "versao":
                    return self._version(_known(self.history.current, code), envelope)
                case "alteradas":
                    return envelope.units(self._changed(code, version), lambda found: short_row(found.unit, form, found))
                case _:
                    return page(404, "Not Found")
        except _BusinessError as refused:
            return envelope.error(refused.code, name=name, about=refused.about)

    def _unit_at(self, code: int, version: str) -> Unit:
        """A unit as it is now, or as it was when its organization had a version."""
        if not version:
            return _known(self.history.current, code)
        wanted = parse_version(version)
        if wanted is None:
            raise _BusinessError(ReturnCode.INVALID, "versaoConsulta")
        known = self.history.editions[self.history.current_index :: -1]
        newest = next((edition.units[code] for edition in known if code in edition.units), None)
        if newest is None or newest.organization is None:
            return _known(self.history.current, code)
        at = next((edition for edition in known if edition.versions.get(newest.organization, wanted) <= wanted), None)
        if at is None:
            raise _BusinessError(ReturnCode.INVALID, "versaoConsulta")
        return _known(at, code)

    def _tree(self, root: Unit, envelope: Envelope) -> str:
        """``{"codigoUnidade":1,"estrutura":[…]}`` as text, without recursion: structures can be deep, or cyclic."""
        edition = self.history.current
        code_key, tree_key = envelope.key("codigoUnidade"), envelope.key("estrutura")
        leaf = f',"{tree_key}":[]'
        if Quirk.LEAF_NULL in self.quirks:
            leaf = f',"{tree_key}":null'
        elif Quirk.LEAF_ABSENT in self.quirks:
            leaf = ""
        seen = {root.code}
        pieces: list[str] = []
        # Text is closing punctuation that waits until what comes before it is written.
        pending: list[int | str] = [root.code]
        while pending:
            current = pending.pop()
            if isinstance(current, str):
                pieces.append(current)
                continue
            children = [
                child
                for child in edition.children.get(current, ())
                if edition.units[child].organization == root.organization and child not in seen
            ]
            seen.update(children)
            if not children:
                pieces.append(f'{{"{code_key}":{current}{leaf}}}')
                continue
            pieces.append(f'{{"{code_key}":{current},"{tree_key}":[')
            pending.append("]}")
            for number, child in enumerate(reversed(children)):
                if number:
                    pending.append(",")
                pending.append(child)
        return "".join(pieces)

    def _version(self, unit: Unit, envelope: Envelope) -> Reply:
        if Quirk.VERSAO_DOC_SHAPE not in self.quirks:
            row = {
                "codigoUnidade": RowForm(self.quirks).unit_code(unit.code),
                "versaoConsulta": unit.version,
                "dataInicialVersaoConsulta": unit.since,
                "dataFinalVersaoConsulta": unit.until,
            }
            return envelope.units([row], lambda item: item)
        before = None
        if unit.is_organization:
            known = self.history.known_versions(unit.code)
            before = known[-2][1].units[unit.code] if len(known) > 1 else None
        shape = {
            "versaoAnterior": before.version if before else "",
            "versaoPosterior": "",
            "versaoConsulta": unit.version,
            "dataVersaoAnterior": before.since if before else "",
            "dataVersaoPosterior": "",
            "dataVersaoConsulta": unit.since,
        }
        return Reply(200, JSON_TYPE, envelope.wrap([("versao", envelope.dump(shape))]))

    def _changed(self, code: int, version: str) -> list[Difference]:
        new = self.history.current
        _organization(new, code)
        if not version:
            raise _BusinessError(ReturnCode.REQUIRED, "versaoConsulta")
        wanted = parse_version(version)
        old = self.history.edition_at(code, wanted, self.history_limit) if wanted else None
        if old is None:
            raise _BusinessError(ReturnCode.INVALID, "versaoConsulta")
        return differences(old, new, code)


def not_acceptable() -> Reply:
    """The answer to a request for XML, which this simulator does not have."""
    text = "406: the simulator serves JSON only; ask with the suffix .json or Accept: application/json\n"
    return Reply(406, TEXT_TYPE, text.encode())


def _identifier(parts: list[str]) -> Reply:
    """Identifiers lead to documents: /id/esfera/federal to /doc/esfera/1."""
    if not parts or len(parts) > 2 or (parts[0] not in domain.TABLES and parts[0] != _UNIT):
        return page(404, "Not Found")
    if len(parts) == 2 and parts[0] in ("esfera", "poder", "natureza-juridica", "subnatureza-juridica"):
        parts = [parts[0], domain.number_tail(parts[0], parts[1])]
    reply = page(303, "See Other")
    return Reply(reply.status, reply.content_type, reply.body, location="/doc/" + "/".join(parts))


def _is_code(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12


def _known(edition: Edition, code: int | None) -> Unit:
    unit = edition.units.get(code) if code is not None else None
    if unit is None:
        raise _BusinessError(ReturnCode.NOT_FOUND, _NOUN)
    return unit


def _organization(edition: Edition, code: int) -> Unit:
    unit = _known(edition, code)
    if not unit.is_organization:
        raise _BusinessError(ReturnCode.NOT_ORGANIZATION)
    return unit


def _filters(query: Mapping[str, str]) -> _Filters:
    numbers: dict[str, int | None] = {}
    for name in ("codigoPoder", "codigoEsfera", "codigoUnidade"):
        text = query.get(name, "").strip()
        if text and not _is_code(text):
            raise _BusinessError(ReturnCode.INVALID, name)
        numbers[name] = int(text) if text else None
    linked = query.get("retornarOrgaoEntidadeVinculados", "").strip().upper()
    if linked not in ("", "SIM", "NAO"):
        raise _BusinessError(ReturnCode.INVALID, "retornarOrgaoEntidadeVinculados")
    if linked and numbers["codigoUnidade"] is None:
        raise _BusinessError(ReturnCode.LINKED_NEEDS_UNIT)
    power, sphere = numbers["codigoPoder"], numbers["codigoEsfera"]
    return _Filters(
        power=None if power is None else str(power),
        sphere=None if sphere is None else str(sphere),
        unit=numbers["codigoUnidade"],
        linked=linked == "SIM",
    )


def _domain_table(table: domain.Table, query: Mapping[str, str], envelope: Envelope) -> Reply:
    rows = [row for row in table.rows if row.active or query.get("ativo", "").upper() != "SIM"]
    nature = query.get("codigoNaturezaJuridica", "")
    wanted = query.get("codigoSubNaturezaJuridica", "")
    if table is domain.SUBNATURES:
        rows = [row for row in rows if nature in ("", str(row.nature)) and wanted in ("", str(row.code))]
    text = envelope.dump([_domain_row(table, row, envelope) for row in rows])
    return Reply(200, JSON_TYPE, envelope.wrap([(table.key, text)]))


def _domain_item(table: domain.Table, code: str, envelope: Envelope) -> Reply:
    wanted = str(int(code)) if _is_code(code) else code.upper()
    row = next((row for row in table.rows if str(row.code) == wanted), None)
    if row is None:
        return envelope.error(ReturnCode.NOT_FOUND, name=table.key, about=table.suffix)
    item: object = _domain_row(table, row, envelope)
    if Quirk.DOMAIN_ITEM_AS_LIST in envelope.quirks:
        item = [item]
    return Reply(200, JSON_TYPE, envelope.wrap([(table.key, envelope.dump(item))]))


def _domain_row(table: domain.Table, row: domain.Row, envelope: Envelope) -> dict[str, object]:
    keys: dict[str, object] = {}
    if row.nature is not None:
        keys["codigoNaturezaJuridica"] = RowForm(envelope.quirks).domain_code("natureza-juridica", str(row.nature))
    keys[f"codigo{table.suffix}"] = row.code
    keys[f"descricao{table.suffix}"] = row.description
    if table.has_active:
        keys["ativo"] = "SIM" if row.active else "NAO"
    return keys
