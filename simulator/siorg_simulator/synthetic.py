"""Generated structures with the shape and the dirt of real ones, and changed versions of them. Pure and seeded.

The model is the Universidade Federal de Mato Grosso as captured on 2016-06-30: 476 units, of which 30, 227, 106, 77
and 35 lie one to five levels below the root, 89 % still in the version of the initial load, 116 acronyms not unique.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from siorg_simulator.details import GeneratedDetails
from siorg_simulator.structure import Snapshot, Unit, format_version, parse_version

_LEVELS = (227, 106, 77, 35)
"""Units two to five levels below the root, in the model."""

_WIDEST = 255
"""The most children that any unit had in the whole SIORG of 2016."""

_CODES = 668_873
"""Codes were this large in 2026; they are sparse."""

_ABOVE = (244, 26)
"""Codes above an organization, the second for the first: of no unit in it, or the structure would be a circle."""

_AREAS = (
    "Administração", "Agronomia", "Arquitetura", "Artes", "Biologia", "Ciência da Computação", "Ciências Contábeis",
    "Ciências Sociais", "Comunicação", "Direito", "Economia", "Educação Física", "Enfermagem", "Engenharia Civil",
    "Engenharia Elétrica", "Engenharia Florestal", "Estatística", "Filosofia", "Física", "Geografia", "Geologia",
    "História", "Letras", "Matemática", "Medicina", "Medicina Veterinária", "Nutrição", "Pedagogia", "Psicologia",
    "Química", "Saúde Coletiva", "Serviço Social", "Zootecnia",
)  # fmt: skip
_SERVICES = (
    "Administração Patrimonial", "Almoxarifado", "Apoio Acadêmico", "Assistência Estudantil", "Atendimento", "Compras",
    "Contabilidade", "Convênios", "Cultura", "Desenvolvimento Humano", "Extensão", "Execução Orçamentária", "Finanças",
    "Gestão de Pessoas", "Infraestrutura", "Licitações", "Manutenção", "Pesquisa", "Planejamento", "Protocolo",
    "Registro Escolar", "Relações Internacionais", "Tecnologia da Informação", "Transportes",
)  # fmt: skip
_KINDS = (
    (("Faculdade de {a}", 4), ("Instituto de {a}", 4), ("Pró-Reitoria de {s}", 3), ("Secretaria de {s}", 1)),
    (
        ("Departamento de {a}", 4), ("Coordenação de Ensino de Graduação em {a}", 4), ("Secretaria", 2),
        ("Coordenação de {s}", 3), ("Programa de Pós-Graduação em {a}", 2),
    ),
    (("Gerência de {s}", 4), ("Divisão de {s}", 3), ("Laboratório de {a}", 3), ("Secretaria", 1)),
    (("Seção de {s}", 4), ("Supervisão de {s}", 3), ("Secretaria", 1)),
    (("Setor de {s}", 5), ("Serviço de {s}", 3)),
)  # fmt: skip
_SMALL_WORDS = frozenset({"de", "da", "do", "das", "dos", "em", "e"})

# Versions that are not the initial one, with their dates, as captured.
_LATER_VERSIONS = (
    ("101.0.0", "2014-02-21"), ("102.0.0", "2015-06-02"), ("104.0.0", "2015-12-03"), ("105.0.0", "2016-03-16"),
    ("106.0.0", "2016-04-29"), ("107.0.0", "2016-06-16"),
)  # fmt: skip
_INITIAL = ("99.0.0", "2013-11-11")
_CHANGED_SINCE = 0.11

_TRIES = 200
"""So many units are looked at for one that a change fits."""


def level_sizes(count: int) -> list[int]:
    """How many of ``count`` units lie at each level below the root, nearest first.

    The first level grows slowly with the size (a large organization is deeper and broader below, not at its top).
    """
    rest = count - 1
    first = min(rest, _WIDEST, max(1, round(30 * (rest / 475) ** 0.4)))
    left = rest - first
    shares = [left * weight / sum(_LEVELS) for weight in _LEVELS]
    sizes = [int(share) for share in shares]
    by_remainder = sorted(range(len(sizes)), key=lambda level: shares[level] - sizes[level], reverse=True)
    for level in by_remainder[: left - sum(sizes)]:
        sizes[level] += 1
    return [first, *sizes]


def generate(count: int, *, seed: int = 0, organization: int = 471, dirt: bool = True) -> Snapshot:
    """One organization of ``count`` units, its own row being one of them.

    Args:
        count: At least 1.
        seed: Same seed and arguments, same structure.
        organization: The organization's code.
        dirt: Whether names, acronyms, versions, addresses and order are as untidy as in real data.
    """
    draw = _random(seed, "generate")
    highest = max(_CODES, count * 8)
    top, spare = _ABOVE[organization == _ABOVE[0]], max(highest, organization + 1)
    drawn = [code for code in draw.sample(range(1, highest), count) if code != organization][: count - 1]
    codes = [spare if code == top else code for code in drawn]
    root = Unit(
        code=organization,
        parent=top,
        organization=organization,
        type_slug="entidade",
        name="Fundação Universidade Federal de Mato Grosso",
        acronym="UFMT",
        sphere="1",
        power="1",
        nature="2",
        subnature="17",
        norm_level="LEI_DECRETO",
        version=_LATER_VERSIONS[-1][0],
        since=_LATER_VERSIONS[-1][1],
        details=GeneratedDetails(seed, organization, dirt, is_root=True),
    )
    units = {organization: root}
    above = [organization]
    taken = iter(codes)
    for level, size in enumerate(level_sizes(count)):
        below: list[int] = []
        for parent in _parents(draw, above, size):
            unit = _unit(draw, root, next(taken), parent, level, dirt=dirt, seed=seed)
            units[unit.code] = unit
            below.append(unit.code)
        above = below
    if dirt:
        _soil(draw, units, organization)
    else:
        _make_acronyms_unique(units)
    return Snapshot(f"synthetic: {count} units, seed {seed}", _ordered(draw, units, organization, dirt=dirt))


def _random(seed: int, purpose: str) -> random.Random:
    return random.Random(f"{seed} {purpose}")  # noqa: S311  made-up data, not secrets


def _parents(draw: random.Random, above: list[int], size: int) -> list[int]:
    """A parent for each of ``size`` units: some three children for each that has any (the median of 2016)."""
    if not size:
        return []
    chosen = draw.sample(above, max(1, min(len(above), size // 3)))
    return [*chosen[:size], *draw.choices(chosen, k=size - len(chosen[:size]))]


def _unit(draw: random.Random, root: Unit, code: int, parent: int, level: int, *, dirt: bool, seed: int) -> Unit:
    name = _name(draw, level)
    version, since = draw.choice(_LATER_VERSIONS) if draw.random() < _CHANGED_SINCE else _INITIAL
    return replace(
        root,
        code=code,
        parent=parent,
        type_slug="unidade-colegiada" if draw.random() < 0.01 else "unidade-administrativa",
        name=name,
        acronym=_acronym(name),
        norm_level="ATO_INTERNO",
        version=version,
        since=since,
        details=GeneratedDetails(seed, code, dirt),
    )


def _name(draw: random.Random, level: int) -> str:
    kinds = _KINDS[min(level, len(_KINDS) - 1)]
    (kind,) = draw.choices([text for text, _ in kinds], weights=[weight for _, weight in kinds])
    return kind.format(a=draw.choice(_AREAS), s=draw.choice(_SERVICES))


def _acronym(name: str) -> str:
    words = [word for word in name.replace("-", " ").split() if word.lower() not in _SMALL_WORDS]
    return words[0][:3].upper() if len(words) == 1 else "".join(word[0] for word in words).upper()


def _make_acronyms_unique(units: dict[int, Unit]) -> None:
    counts: dict[str, int] = {}
    for code, unit in units.items():
        acronym = unit.acronym or ""
        number = counts[acronym] = counts.get(acronym, 0) + 1
        if number > 1:
            units[code] = replace(unit, acronym=f"{acronym}-{number}")


# What captured names have: padding (4 %), doubled spaces, no-break spaces, tabs, line ends.
_SOILED = (
    lambda text: f"{text} ",
    lambda text: f" {text}",
    lambda text: text.replace(" ", "  ", 1) if " " in text else f"{text}  ",
    lambda text: text.replace(" ", "\xa0", 1) if " " in text else f"{text}\xa0",
    lambda text: f"{text}\r\n",
    lambda text: f"{text}\t",
)


def _soil(draw: random.Random, units: dict[int, Unit], organization: int) -> None:
    codes = [code for code in units if code != organization]
    for number, code in enumerate(draw.sample(codes, min(len(codes), max(len(_SOILED), len(codes) // 25)))):
        unit = units[code]
        units[code] = replace(unit, name=_SOILED[number % len(_SOILED)](unit.name or ""))
    for number, code in enumerate(draw.sample(codes, min(len(codes), max(2, len(codes) // 250)))):
        unit = units[code]
        # One acronym is blank, as the national root's was; the others are padded.
        units[code] = replace(unit, acronym=f"{unit.acronym} " if number else " ")
    for code in draw.sample(codes, min(len(codes), max(1, len(codes) // 400))):
        units[code] = replace(units[code], version=None, since=None)


def _ordered(draw: random.Random, units: dict[int, Unit], organization: int, *, dirt: bool) -> dict[int, Unit]:
    """Parents first; with dirt in no order at all, and the root in the middle or last."""
    children: dict[int, list[int]] = {}
    for unit in units.values():
        if unit.parent is not None:
            children.setdefault(unit.parent, []).append(unit.code)
    order = [organization]
    for code in order:
        order.extend(children.get(code, ()))
    if dirt:
        rest = order[1:]
        draw.shuffle(rest)
        place = draw.choice((len(rest) // 2, len(rest)))
        order = [*rest[:place], organization, *rest[place:]]
    return {code: units[code] for code in order}


# Changed versions


@dataclass(slots=True)
class _Evolution:
    """A structure while it is being changed. No unit is changed twice."""

    draw: random.Random
    root: Unit
    version: str
    since: str
    dirt: bool
    seed: int
    units: dict[int, Unit]
    children: dict[int, list[int]] = field(default_factory=dict)
    touched: set[int] = field(default_factory=set)
    codes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        for unit in self.units.values():
            if unit.parent is not None:
                self.children.setdefault(unit.parent, []).append(unit.code)
        self.codes = [code for code in self.units if code != self.root.code]
        self.touched.add(self.root.code)

    def rename(self) -> bool:
        """Give a unit another name and acronym."""
        code = self._find(lambda code: code not in self.touched)
        if code is None:
            return False
        unit = self.units[code]
        name = self._new_name()
        while name == unit.name:
            name = self._new_name()
        self._write(replace(unit, name=name, acronym=_acronym(name)))
        return True

    def move(self) -> bool:
        """Put a unit, with all below it, under another parent."""
        code = self._find(lambda code: code not in self.touched)
        if code is None:
            return False
        unit = self.units[code]
        own = set(self._subtree(code))
        parent = self._find(lambda other: other not in own and other != unit.parent)
        if parent is None:
            return False
        self.children[unit.parent or 0].remove(code)
        self.children.setdefault(parent, []).append(code)
        self._write(replace(unit, parent=parent))
        return True

    def add(self) -> bool:
        """Add a unit."""
        parent = self._find(lambda _: True) or self.root.code
        code = self.draw.randint(1, max(_CODES, len(self.units) * 8))
        while code in self.units or code in self.touched or code == self.root.parent:
            code += 1
        unit = _unit(self.draw, self.root, code, parent, 2, dirt=self.dirt, seed=self.seed)
        self.children.setdefault(parent, []).append(code)
        self._write(unit)
        return True

    def extinguish_leaf(self) -> bool:
        """Take away one unit without children."""
        return self._extinguish(1, 1)

    def extinguish_subtree(self) -> bool:
        """Take away a unit with all that is below it."""
        return self._extinguish(2, 10)

    def _extinguish(self, least: int, most: int) -> bool:
        def fits(code: int) -> bool:
            if code in self.touched or len(self.children.get(code, ())) >= most:
                return False
            subtree = self._subtree(code)
            return least <= len(subtree) <= most and self.touched.isdisjoint(subtree)

        code = self._find(fits)
        if code is None:
            return False
        self.children[self.units[code].parent or 0].remove(code)
        for gone in self._subtree(code):
            del self.units[gone]
            self.touched.add(gone)
        return True

    def _find(self, fits: Callable[[int], bool]) -> int | None:
        """A random unit (not the root) that fits; None when many tries found none."""
        if not self.codes:
            return None
        for _ in range(_TRIES):
            code = self.draw.choice(self.codes)
            if code in self.units and fits(code):
                return code
        return None

    def _new_name(self) -> str:
        return _name(self.draw, self.draw.randrange(len(_KINDS)))

    def _write(self, unit: Unit) -> None:
        self.units[unit.code] = replace(unit, version=self.version, since=self.since)
        self.touched.add(unit.code)

    def _subtree(self, code: int) -> list[int]:
        found = [code]
        for current in found:
            found.extend(self.children.get(current, ()))
        return found


def evolve(snapshot: Snapshot, changes: int, *, seed: int = 0, dirt: bool = True) -> Snapshot:
    """A later version of a generated structure.

    Of the changes, half are renames, the rest additions, moves, extinctions of leaves and of small subtrees (of up to
    ten units; one change each). With five changes or more each kind is among them, if the structure has room for it.

    Args:
        snapshot: The structure before.
        changes: How many; no unit meets two.
        seed: Same seed and arguments, same changes.
        dirt: Whether the order is as untidy as in real data, and new units' details are.
    """
    draw = _random(seed, f"evolve {snapshot.source}")
    root = next(unit for unit in snapshot.units.values() if unit.is_organization)
    major, _, _ = parse_version(root.version or "") or (99, 0, 0)
    version = format_version((major + 1, 0, 0))
    since = (date(2016, 7, 1) + timedelta(days=30 * max(0, major - 107))).isoformat()
    evolution = _Evolution(draw, root, version, since, dirt, seed, dict(snapshot.units))
    kinds: list[tuple[Callable[[], bool], int]] = [
        (evolution.rename, 50),
        (evolution.add, 20),
        (evolution.move, 15),
        (evolution.extinguish_leaf, 10),
        (evolution.extinguish_subtree, 5),
    ]
    plan = [kind for kind, _ in kinds][:changes] if changes >= len(kinds) else []
    plan += draw.choices([kind for kind, _ in kinds], weights=[weight for _, weight in kinds], k=changes - len(plan))
    for change in plan:
        # Where the structure is too small for a change of that kind, it grows.
        if not change():
            evolution.add()
    evolution.units[root.code] = replace(root, version=version, since=since)
    units = _ordered(draw, evolution.units, root.code, dirt=dirt)
    return Snapshot(f"{snapshot.source}, then {changes} changes", units)
