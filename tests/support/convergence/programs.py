"""Programs by seed: what may come next, how a failing program is made small, and how it is shown."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from support.convergence import oracle
from support.convergence.machine import Broken, Machine, Step
from support.convergence.siorg import ORGANIZATIONS, is_organization, organization_of, parent_of, units_of

STEPS = 50
"""Steps of a program; the last is a quiet point, and a few before it."""
_QUIET_EVERY = 14
_LARGEST = 24
"""Units of SIORG's: more are not made."""
_SHRINKING_SECONDS = 60.0


@dataclass(frozen=True)
class Failure:
    """A program that ends in something wrong."""

    seed: int
    steps: Sequence[Step]
    reason: str

    def __str__(self) -> str:
        program = "\n".join(f"    {step!r}," for step in self.steps)
        return f"seed {self.seed}: {self.reason}\nPROGRAM = [\n{program}\n]"


class Proposals:
    """What may happen next, drawn from the model alone; each program leaves some kinds out."""

    def __init__(self, rng: random.Random, machine: Machine) -> None:
        """``machine``: the one whose steps they are."""
        self._rng = rng
        self._machine = machine
        self._next_code = 1000
        self._next_name = 0
        self._coming: list[Step] = []
        """The rest of what was begun."""
        kinds: dict[str, int] = {
            "ask": 2, "verify": 1,
            "create": 8, "rename": 3, "abbreviate": 2, "call": 2, "retype": 1, "damage": 1, "mend": 2, "move": 7, "transfer": 1,
            "swap": 2, "invert": 2, "end": 4, "return": 2, "recode": 1, "demote": 1, "promote": 1, "dissolve": 1, "undo": 4,
            "announce": 1, "renumber": 1, "later": 2, "register": 1, "activate": 1, "edit": 5, "decide": 6, "discover": 8,
            "drain": 8, "claim": 3, "fetch": 4, "apply": 4, "crash": 4, "die": 1, "pauses": 1, "outage": 2, "tear": 2,
        }  # fmt: skip
        kinds |= {"lag": 5, "quarrel": 3}
        always = {"lag", "create", "move", "discover", "drain", "claim", "fetch", "apply"}
        self._kinds = {kind: weight for kind, weight in kinds.items() if kind in always or rng.random() < 0.6}
        self._is_limited = rng.random() < 0.15
        if self._is_limited:
            self._kinds |= {"cut": 6, "held": 6, "undo": 6}

    def opening(self) -> Iterator[Step]:
        """A tree; and, in half of the programs, that tree perturbed in one way and, from there, in another one."""
        organizations = ORGANIZATIONS[: self._rng.randint(1, len(ORGANIZATIONS))]
        yield ("organizations", len(organizations))
        if self._is_limited:
            yield ("limits",)
            first, number = self._next_code + 1, self._rng.randint(6, _LARGEST)
            self._next_code += number
            yield ("settle", first, number, self._rng.choice(organizations))
        twice = self._rng.random() < 0.5
        made: list[int] = []
        for _ in range(self._rng.randint(3, 9 if twice else 14)):
            code = self._code()
            yield ("create", code, self._rng.choice([*organizations, *made, *made]), f"Unidade {code}")
            made.append(code)
        yield ("quiet",)
        if not twice:
            return
        before = len(self._machine.siorg.past)
        yield from self._perturbation()
        yield ("quiet",)
        yield ("undo", len(self._machine.siorg.past) - before)
        yield from self._perturbation()

    def _perturbation(self) -> Iterator[Step]:
        for _ in range(self._rng.randint(2, 5)):
            step = self._propose(
                self._rng.choice(["create", "rename", "move", "move", "transfer", "swap", "invert", "end", "recode"])
            )
            if step is not None:
                yield step

    @property
    def is_amid(self) -> bool:
        """Whether something was begun and is not over."""
        return bool(self._coming)

    def step(self) -> Step:
        while True:
            if self._coming:
                return self._coming.pop(0)
            (kind,) = self._rng.choices(list(self._kinds), list(self._kinds.values()))
            proposed = self._propose(kind)
            if proposed is not None:
                return proposed
            if kind in ("lag", "quarrel"):
                getattr(self, f"_begin_{kind}")()

    def _propose(self, kind: str) -> Step | None:
        propose: Callable[[], Step | None] | None = getattr(self, f"_{kind}", None)
        return propose() if propose is not None else None

    # -- what there is to choose from ---------------------------------------------------------------------------------

    def _code(self) -> int:
        self._next_code += 1
        return self._next_code

    def _name(self) -> str:
        self._next_name += 1
        return f"Nome {self._next_name}" if self._rng.random() < 0.9 else f"Nome  {self._next_name} "

    def _unit(self) -> int:
        units = units_of(self._machine.siorg.rows)
        return self._rng.choice(units) if units else 0

    def _above(self) -> int:
        rows = self._machine.siorg.rows
        return self._rng.choice(list(rows)) if self._rng.random() < 0.7 and rows else self._organization()

    def _organization(self) -> int:
        rows = self._machine.siorg.rows
        found = [code for code in rows if is_organization(code, rows)]
        return self._rng.choice(found) if found else 0

    def _local(self) -> int:
        found = sorted(code for kind, code in self._machine.mirror if kind == "UNIT")
        return self._rng.choice(found) if found else 0

    def _silently(self) -> bool:
        return self._rng.random() < 0.15

    def _process(self) -> int:
        return self._rng.randrange(2)

    # -- reforms ------------------------------------------------------------------------------------------------------

    def _create(self) -> Step | None:
        if len(self._machine.siorg.rows) > _LARGEST:
            return None
        return ("create", self._code(), self._above(), self._name(), self._silently())

    def _rename(self) -> Step:
        code = self._unit() if self._rng.random() < 0.85 else self._organization()
        return ("rename", code, self._name(), self._silently())

    def _abbreviate(self) -> Step:
        acronym = None if self._rng.random() < 0.1 else f"A{self._rng.randrange(5)}"
        return ("abbreviate", self._unit(), acronym, self._silently())

    def _call(self) -> Step:
        return ("call", self._unit(), [f"2{self._rng.randrange(9)}" for _ in range(self._rng.randint(1, 2))], self._silently())

    def _retype(self) -> Step:
        slug = self._rng.choice(["unidade-administrativa", "unidade-colegiada"])
        return ("retype", self._unit(), slug, self._silently())

    def _damage(self) -> Step:
        return ("damage", self._unit())

    def _mend(self) -> Step | None:
        rows = self._machine.siorg.rows
        damaged = [code for code, row in rows.items() if len(row["sigla"] or "") > 50]
        return ("mend", self._rng.choice(damaged), f"M{self._rng.randrange(9)}") if damaged else None

    def _move(self) -> Step:
        how = self._rng.choice(["along", "along", "along", "apart", "behind"])
        return ("move", self._unit(), self._above(), how, self._silently())

    def _transfer(self) -> Step:
        return ("transfer", self._unit(), self._organization(), self._silently())

    def _swap(self) -> Step:
        return ("swap", self._unit(), self._unit(), self._rng.choice(["names", "places"]))

    def _invert(self) -> Step | None:
        rows = self._machine.siorg.rows
        found = [code for code in units_of(rows) if not is_organization(parent_of(rows[code]), rows)]
        return ("invert", self._rng.choice(found)) if found else None

    def _end(self) -> Step:
        return ("end", self._unit(), self._rng.choice(["alone", "alone", "tree", "tree", "orphaning"]))

    def _cut(self) -> Step:
        return ("cut", self._organization(), self._rng.randint(1, _LARGEST // 2))

    def _return(self) -> Step | None:
        siorg = self._machine.siorg
        gone = sorted({code for state in siorg.past for code in state} - siorg.rows.keys())
        return ("return", self._rng.choice(gone)) if gone else None

    def _recode(self) -> Step:
        return ("recode", self._unit(), self._code())

    def _demote(self) -> Step:
        return ("demote", self._organization(), self._organization())

    def _promote(self) -> Step:
        return ("promote", self._unit())

    def _dissolve(self) -> Step:
        return ("dissolve", self._organization())

    def _undo(self) -> Step | None:
        past = len(self._machine.siorg.past)
        return ("undo", self._rng.randint(1, min(past, 8)), self._silently()) if past else None

    def _announce(self) -> Step:
        return ("announce", self._organization())

    def _renumber(self) -> Step:
        return ("renumber", self._unit())

    def _later(self) -> Step | None:
        kind = self._rng.choice(["rename", "move", "end", "undo", "create"])
        step = self._propose(kind)
        return ("later", self._rng.randrange(4), step) if step else None

    # -- people -------------------------------------------------------------------------------------------------------

    def _register(self) -> Step:
        return ("register", self._organization())

    def _activate(self) -> Step:
        return ("activate", self._organization(), self._rng.random() < 0.6)

    def _edit(self) -> Step:
        if self._rng.random() < 0.1:
            return ("edit", "ORGANIZATION", self._organization(), "name", f"Nosso {self._name()}")
        name = self._rng.choice([*oracle.FIELDS, "name"])
        number = self._code()
        value = {"name": f"Nosso nome {number}", "acronym": f"N{number}", "contact_info.phones": [f"9{number}"]}
        return ("edit", "UNIT", self._local(), name, self._local() if name == "place" else value[name])

    def _decide(self) -> Step | None:
        asked = sorted(oracle.asked_of_people(self._machine.connection).open)
        if not asked:
            return None
        how = self._rng.choice([
            "accept", "accept by the API server", "keep", "keep by the API server", "merge by the API server", "set", "skip",
            "skip by the API server",
        ])  # fmt: skip
        kind, code = self._rng.choice(asked)
        return ("decide", kind, code, how, f"Decidido {self._code()}") if how == "set" else ("decide", kind, code, how)

    def _held(self) -> Step | None:
        held = sorted({row.organization for row in self._machine.world.decisions.held()})
        return ("held", self._rng.choice(held), self._rng.choice(["release", "drop"])) if held else None

    # -- what chance alone would bring too seldom: the steps of one story, with others between them -------------------

    def _begin_lag(self) -> None:
        """SIORG changes a unit while an answer about it waits to be applied; others work on it meanwhile."""
        code, (slow, fast) = self._unit(), self._rng.sample([0, 1], 2)
        if not code:
            return
        home = organization_of(self._machine.siorg.rows[code])
        story: list[Step | None] = [
            self._some([("rename", code, self._name()), ("move", code, self._above(), "along"), ("call", code, ["7"])]),
            self._some([("discover", fast, home), ("discover", fast, home, True), ("ask", code)]),
            ("claim", slow, 100),
            ("fetch", slow),
            self._some(
                [("undo", 1), ("undo", 1), ("rename", code, self._name()), ("end", code, "alone"), ("move", code, home, "along")]
            ),
            self._some([("discover", fast, home), ("discover", fast, home, True), None]),
            self._some([("ask", code), None]),
            self._some([("drain", fast, 100), None]),
            self._some([("apply", slow), ("apply", slow), ("crash", slow, self._rng.randint(1, 25), "ends")]),
        ]
        self._coming = [step for step in story if step is not None]

    def _begin_quarrel(self) -> None:
        """A person and SIORG change one field; the person decides, and SIORG goes on, or back."""
        code = self._local()
        if code not in self._machine.siorg.rows:
            return
        home = organization_of(self._machine.siorg.rows[code])
        work: list[Step] = [("discover", 0, home), ("drain", 0, 100)]
        how = self._rng.choice(["accept", "keep", "keep", "keep by the API server", "merge by the API server", "set", "skip"])
        decide: Step = (
            ("decide", "UNIT", code, how, f"Decidido {self._code()}") if how == "set" else ("decide", "UNIT", code, how)
        )
        beside: list[list[Step | None]] = [  # one of them at most: see ``oracle.NOT_ASKED_YET``
            [None, None],
            [("edit", "UNIT", code, "acronym", f"N{self._code()}"), None],
            [None, ("abbreviate", code, f"Q{self._rng.randrange(9)}")],
        ]
        ours, theirs = self._rng.choice(beside)
        story: list[Step | None] = [
            ours,
            ("edit", "UNIT", code, "name", f"Nosso nome {self._code()}"),
            ("rename", code, self._name()),
            *work,
            theirs,
            decide,
            *self._rng.choice([[], work, [("drain", 1, 100)]]),
            self._some([("undo", 1), ("undo", 2), ("rename", code, self._name()), None]),
            *work,
        ]
        self._coming = [step for step in story if step is not None]

    def _some(self, steps: Sequence[Step | None]) -> Step | None:
        return self._rng.choice(steps)

    # -- processes ----------------------------------------------------------------------------------------------------

    def _discover(self) -> Step:
        return ("discover", self._process(), self._organization(), self._rng.random() < 0.2)

    def _verify(self) -> Step:
        return ("verify", self._organization(), self._rng.random() < 0.5)

    def _ask(self) -> Step:
        return ("ask", self._local())

    def _drain(self) -> Step:
        return ("drain", self._process(), self._rng.choice([1, 2, 5, 100]))

    def _claim(self) -> Step:
        return ("claim", self._process(), self._rng.choice([1, 2, 5, 100]))

    def _fetch(self) -> Step:
        return ("fetch", self._process())

    def _apply(self) -> Step:
        return ("apply", self._process())

    def _crash(self) -> Step:
        return ("crash", self._process(), self._rng.randint(1, 25), self._rng.choice(["ends", "breaks"]))

    def _die(self) -> Step:
        return ("die", self._process())

    def _pauses(self) -> Step:
        return ("pauses",)

    def _outage(self) -> Step:
        return ("outage", self._machine.siorg.down is None)

    def _tear(self) -> Step:
        torn = sorted(self._machine.siorg.torn)
        return ("tear", self._rng.choice(torn), False) if torn and self._rng.random() < 0.7 else ("tear", self._above(), True)


def run_seed(machine: Machine, seed: int, *, steps: int = STEPS) -> Failure | None:
    """One program of so many steps, each of which does something; the failure as it came, if any."""
    proposals = Proposals(random.Random(seed), machine)
    machine.begin()
    done: list[Step] = []
    opening, since_quiet = proposals.opening(), 0
    while len(done) < steps:
        if (first := next(opening, None)) is not None:
            step = first
        elif len(done) >= steps - 1 or (since_quiet >= _QUIET_EVERY and not proposals.is_amid):
            step = ("quiet", len(done) >= steps - 1)
        else:
            step = proposals.step()
        before = machine.done
        reason = _do(machine, step)
        if reason or machine.done > before:
            done.append(step)
            since_quiet = 0 if step[0] == "quiet" else since_quiet + 1
        if reason:
            return Failure(seed, done, reason)
    return None


def _do(machine: Machine, step: Step) -> str | None:
    try:
        machine.do(step)
    except Broken as broken:
        return str(broken)
    except Exception as error:  # noqa: BLE001 - whatever it is, the program that led to it is wanted
        return f"{type(error).__name__}: {error}"
    return None


def replay(machine: Machine, steps: Sequence[Step]) -> str | None:
    """A program again; what is wrong, if anything."""
    machine.begin()
    return next((reason for step in steps if (reason := _do(machine, step))), None)


def shrunk(machine: Machine, failure: Failure) -> Failure:
    """The program without the steps that it does not need: greedily, large pieces first."""
    until = time.monotonic() + _SHRINKING_SECONDS
    steps, reason = list(failure.steps), failure.reason
    size = max(len(steps) // 2, 1)
    while size and time.monotonic() < until:
        start, smaller = 0, False
        while start < len(steps) and time.monotonic() < until:
            fewer = steps[:start] + steps[start + size :]
            if found := replay(machine, fewer):
                steps, reason, smaller = fewer, found, True
            else:
                start += size
        size = size // 2 if size > 1 or not smaller else 1
        if size == 0 and smaller:
            size = 1
    return Failure(failure.seed, steps, reason)
