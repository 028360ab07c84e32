"""The convergence machine: SIORG is reformed, people write, processes work and crash; at rest the rows are what the oracle says.

A step is a tuple of a word and plain values that stand in the model (codes, names, numbers): a program is a list of steps, is
replayed by them alone, and any of them may be left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, cast
from uuid import UUID

import psycopg

from siorg_job.reconciliation.discover import asked_for, discover, registered
from siorg_job.reconciliation.verify import Verified, verify
from siorg_job.siorg.errors import SiorgError
from siorg_job.sync.apply import Work
from siorg_job.sync.limits import Limits
from siorg_queue import Connection, Item, Outcome, QueueStore, Verdict
from support.convergence import limits, oracle
from support.convergence.oracle import Edit, Edits, Entity, Local
from support.convergence.siorg import (
    ORGANIZATIONS,
    TOP,
    UNREGISTERED,
    ReformingSiorg,
    Rows,
    as_unit,
    children_of,
    is_organization,
    organization_of,
    parent_of,
    placed,
    subtree_of,
)
from support.local_structure import World, apply, check_tree, contact

Step = tuple[Any, ...]

_ROUNDS = 10
_PROCESSES = 2
_LEASE = timedelta(seconds=600)
_MAX_DEPTH = 10


class Broken(AssertionError):
    """The local structure is not what it has to be."""


class Interrupted(BaseException):
    """A process ends here."""


class _Interruptible:
    """A connection that breaks at a statement: before it, or, of a COMMIT, after it."""

    def __init__(self, connection: Connection, at: int, error: BaseException | None) -> None:
        self._connection, self._left = connection, at
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
        error, words = self._error, query if isinstance(query, bytes) else str(query).encode()
        if error is None or words == b"ROLLBACK":
            return self._connection.execute(query, *arguments, **options)
        self._left -= 1
        if self._left == 0:
            self._error = None
            raise error
        result = self._connection.execute(query, *arguments, **options)
        if words == b"COMMIT":
            self._error = None
            raise error  # it was written, and nobody was told
        return result


class _Process:
    """One drain: what it has claimed, and the answers that it has not applied yet."""

    def __init__(self, url: str, siorg: ReformingSiorg) -> None:
        self.world = World(url)
        self.world.siorg = siorg
        self.connection = self.world.connection
        self.begin()

    def begin(self) -> None:
        self.fetcher = self.world.fetcher()
        self.claimed: list[Item] = []
        self.fetched: list[list[Work]] = []

    @property
    def held(self) -> list[UUID]:
        return [item.id for item in self.claimed] + [item.id for works in self.fetched for item, _ in works]

    def fetch(self) -> None:
        if self.claimed:
            works = self.world.fetch(self.claimed, self.fetcher)
            if self.world.siorg.down is not None:  # what a drain does that nobody answers
                works = [(item, _released(found)) for item, found in works]
            self.claimed, self.fetched = [], [*self.fetched, works]


def _released(found: Any) -> Any:
    if isinstance(found, Verdict) and found.outcome is Outcome.RETRY:
        return Verdict(found.item, Outcome.RELEASED, error=found.error)
    return found


class Machine:
    """One database, one SIORG, some processes, and what is known of people's edits."""

    def __init__(self, url: str, fresh_url: str) -> None:
        self.siorg = ReformingSiorg()
        self.processes = [_Process(url, self.siorg) for _ in range(_PROCESSES)]
        self.fresh = _Process(fresh_url, self.siorg)
        self.connection = self.processes[0].connection
        self.world = self.processes[0].world
        self.done = 0
        """Steps that did something."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for process in (*self.processes, self.fresh):
            process.world.__exit__(None, None, None)

    # -- a program ----------------------------------------------------------------------------------------------------

    def begin(self, registered: int = 3) -> None:
        """An empty database with so many organizations, and a SIORG of these and one more, all without units."""
        organizations = ORGANIZATIONS[:registered]
        self.siorg.begin((*organizations, UNREGISTERED))
        for process in self.processes:
            process.begin()
        _clear(self.connection, organizations)
        self.edits: Edits = {}
        self.told: set[UUID] = set()
        self.synced: dict[int, datetime] = {}
        self.asked_at: dict[int, datetime] = {}
        """When a discovery last asked for the structure that tells of a unit, or a little before that."""
        self.limits: Limits | None = None
        """For ends; most programs do without, for half of so few units is not many."""
        self.tallies: limits.Tallies = {}
        self.held: set[UUID] = set()
        self.ends: dict[int, set[int]] = {}
        """Units of each organization that SIORG ended."""
        self.mirror: dict[Entity, dict[str, Any]] = oracle.local(self.connection).values()
        """The rows as history tells them, with what people wrote."""

    def do(self, step: Step) -> bool:
        """Do a step; False where nothing like that can be done now.

        Raises:
            Broken: what came of it is wrong.
        """
        word, *arguments = step
        did = getattr(self, f"_{word}")(*arguments)
        if did is not False:
            self.done += 1
        return did is not False

    def _organizations(self, number: int) -> bool:
        """How many are registered at the beginning."""
        if self.siorg.past:
            return False
        self.begin(number)
        return True

    def _limits(self) -> bool:
        """Ends are limited in this program."""
        did, self.limits = self.limits is None, Limits()
        return did

    # -- SIORG's reforms ----------------------------------------------------------------------------------------------

    def _reform(self, changes: dict[int, Any], silently: bool = False) -> bool:
        rows = {code: row for code, row in {**self.siorg.rows, **changes}.items() if row is not None}
        return self._is_asked_for(rows) and self.siorg.reform(rows, silently=silently)

    def _is_asked_for(self, rows: Rows) -> bool:
        """Whether SIORG may become so: without limits no more units of an organization end than verification lets pass."""
        known = {code for code in self._registered() if is_organization(code, rows)}
        ends = {code: set(ended) for code, ended in self.ends.items()}
        for code, row in self.siorg.rows.items():
            if organization_of(row) in known and (code not in rows or organization_of(rows[code]) not in known):
                ends.setdefault(organization_of(row), set()).add(code)
        if self.limits is None and any(len(ended) > oracle.MAX_ENDS for ended in ends.values()):
            return False
        self.ends = ends
        return True

    def _is_unit(self, *codes: int) -> bool:
        rows = self.siorg.rows
        return all(code in rows and not is_organization(code, rows) for code in codes)

    def _create(self, code: int, parent: int, name: str, silently: bool = False) -> bool:
        if code in self.siorg.rows or parent not in self.siorg.rows:
            return False
        home = organization_of(self.siorg.rows[parent])
        return self._reform({code: self.siorg.new_unit(code, parent, home, name)}, silently)

    def _settle(self, first: int, number: int, organization: int) -> bool:
        """Many new units of an organization, three by three below each other."""
        codes = range(first, first + number)
        if not is_organization(organization, self.siorg.rows) or any(code in self.siorg.rows for code in codes):
            return False
        parents = [organization if at % 3 == 0 else code - 1 for at, code in enumerate(codes)]
        new = self.siorg.new_unit
        return self._reform(
            {code: new(code, parent, organization, f"Unidade {code}") for code, parent in zip(codes, parents, strict=True)}
        )

    def _cut(self, organization: int, number: int) -> bool:
        """Many units of an organization end at once, from below."""
        left = self.siorg.rows_of(organization)
        ended: list[int] = []
        while len(ended) < number:
            above = {parent_of(row) for row in left.values()}
            leaf = max((code for code in left if code not in above and code != organization), default=None)
            if leaf is None:
                break
            ended.append(leaf)
            left = {code: row for code, row in left.items() if code != leaf}
        return bool(ended) and self._reform(dict.fromkeys(ended))

    def _rename(self, code: int, name: str, silently: bool = False) -> bool:
        return self._set(code, {"nome": name}, silently)

    def _abbreviate(self, code: int, acronym: str | None, silently: bool = False) -> bool:
        return self._set(code, {"sigla": acronym}, silently)

    def _call(self, code: int, phones: list[str], silently: bool = False) -> bool:
        return self._is_unit(code) and self._set(code, contact(phones=phones), silently)

    def _retype(self, code: int, slug: str, silently: bool = False) -> bool:
        if not self._is_unit(code):
            return False
        row = self.siorg.rows[code]
        return self._reform({code: as_unit(row, parent_of(row), organization_of(row), slug)}, silently)

    def _set(self, code: int, fields: dict[str, Any], silently: bool) -> bool:
        return code in self.siorg.rows and self._reform({code: self.siorg.rows[code] | fields}, silently)

    def _damage(self, code: int) -> bool:
        return self._is_unit(code) and self._set(code, {"sigla": "D" * 51}, silently=False)

    def _mend(self, code: int, acronym: str) -> bool:
        return code in self._damaged() and self._set(code, {"sigla": acronym}, silently=False)

    def _damaged(self) -> set[int]:
        return {code for code, row in self.siorg.rows.items() if len(row["sigla"] or "") > 50}

    def _move(self, code: int, parent: int, how: str, silently: bool = False) -> bool:
        """Below another unit or organization; ``how``: the subtree goes along, stays, or hangs on to the old place."""
        if not self._is_unit(code) or parent not in self.siorg.rows:
            return False
        rows, home = self.siorg.rows, organization_of(self.siorg.rows[parent])
        changes = {code: placed(rows[code], parent, home)}
        below = subtree_of(code, rows)[1:]
        if how == "along":
            changes |= {child: placed(rows[child], parent_of(rows[child]), home) for child in below}
        elif how == "apart":  # what was below is taken over by what was above
            changes |= {child: placed(rows[child], parent_of(rows[code]), organization_of(rows[child]))
                        for child in below if parent_of(rows[child]) == code}  # fmt: skip
        return self._reform(changes, silently)

    def _transfer(self, code: int, home: int, silently: bool = False) -> bool:
        """The organization of a subtree changes, its parent does not (K8)."""
        rows = self.siorg.rows
        if not self._is_unit(code) or not is_organization(home, rows):
            return False
        return self._reform({one: placed(rows[one], parent_of(rows[one]), home) for one in subtree_of(code, rows)}, silently)

    def _swap(self, one: int, other: int, what: str) -> bool:
        if not self._is_unit(one, other):
            return False
        a, b = self.siorg.rows[one], self.siorg.rows[other]
        if what == "names":
            return self._reform({one: a | {"nome": b["nome"]}, other: b | {"nome": a["nome"]}})
        places = (parent_of(a), organization_of(a)), (parent_of(b), organization_of(b))
        return self._reform({one: placed(a, *places[1]), other: placed(b, *places[0])})

    def _invert(self, below: int) -> bool:
        """A unit and the one above it change places (K6)."""
        if not self._is_unit(below):
            return False
        above = parent_of(self.siorg.rows[below])
        if not self._is_unit(above):
            return False
        row = self.siorg.rows[above]
        home = organization_of(row)
        return self._reform({below: placed(self.siorg.rows[below], parent_of(row), home), above: placed(row, below, home)})

    def _end(self, code: int, how: str) -> bool:
        """``alone``: what is below hangs on to what was above; ``tree``: it ends too; ``orphaning``: it still names it (K19)."""
        if not self._is_unit(code):
            return False
        rows = self.siorg.rows
        changes: dict[int, Any] = {code: None}
        if how == "tree":
            changes |= dict.fromkeys(subtree_of(code, rows))
        elif how == "alone":
            changes |= {child: placed(rows[child], parent_of(rows[code]), organization_of(rows[child]))
                        for child in children_of(code, rows)}  # fmt: skip
        return self._reform(changes)

    def _return(self, code: int) -> bool:
        """A code that ended comes back with the row that it had."""
        if code in self.siorg.rows:
            return False
        row = next((state[code] for state in reversed(self.siorg.past) if code in state), None)
        if row is None or (organization_of(row) not in self.siorg.rows and organization_of(row) != code):
            return False
        if parent_of(row) not in self.siorg.rows and organization_of(row) != code:
            row = placed(row, organization_of(row), organization_of(row))
        return self._reform({code: row})

    def _recode(self, code: int, new: int) -> bool:
        if not self._is_unit(code) or new in self.siorg.rows:
            return False
        rows, row = self.siorg.rows, self.siorg.rows[code]
        changes: dict[int, Any] = {code: None}
        changes[new] = self.siorg.new_unit(new, parent_of(row), organization_of(row), row["nome"])
        changes |= {child: placed(rows[child], new, organization_of(rows[child])) for child in children_of(code, rows)}
        return self._reform(changes)

    def _demote(self, code: int, into: int) -> bool:
        """An organization becomes a unit of another, and its units come along (K10)."""
        rows = self.siorg.rows
        if code == into or not is_organization(code, rows) or not is_organization(into, rows):
            return False
        changes = {one: placed(row, parent_of(row), into) for one, row in self.siorg.rows_of(code).items()}
        return self._reform({**changes, code: as_unit(rows[code], into, into)})

    def _promote(self, code: int) -> bool:
        """A unit becomes an organization, and what is below comes along (K11)."""
        if not self._is_unit(code):
            return False
        rows = self.siorg.rows
        changes = {one: placed(rows[one], parent_of(rows[one]), code) for one in subtree_of(code, rows)}
        return self._reform({**changes, code: as_unit(rows[code], TOP, code, "entidade")})

    def _dissolve(self, code: int) -> bool:
        """An organization ends, and its units with it (K12)."""
        return is_organization(code, self.siorg.rows) and self._reform(dict.fromkeys(self.siorg.rows_of(code)))

    def _undo(self, number: int, silently: bool = False) -> bool:
        """SIORG is as it was so many reforms ago."""
        past = self.siorg.past
        if not 0 < number <= len(past) or not self._is_asked_for(past[-number]):
            return False
        return self.siorg.reform(past[-number], silently=silently, back=True)

    def _announce(self, organization: int) -> bool:
        """A version moves, whether there is a reason or not."""
        if not is_organization(organization, self.siorg.rows):
            return False
        self.siorg.announce(organization)
        return True

    def _renumber(self, code: int) -> bool:
        """A unit gets a version, and no other change (K20)."""
        return self._is_unit(code) and self._reform({code: self.siorg.rows[code] | {"versaoConsulta": None}})

    def _later(self, requests: int, step: Step) -> None:
        """A reform between two requests."""
        self.siorg.events.append((requests, lambda: self.do(step)))

    # -- what people do -----------------------------------------------------------------------------------------------

    def _register(self, code: int) -> bool:
        if not is_organization(code, self.siorg.rows) or ("ORGANIZATION", code) in self.mirror:
            return False
        row = self.siorg.rows[code]
        _register(self.connection, code, row["nome"], row["sigla"])
        self._look_again("ORGANIZATION", code)
        return True

    def _activate(self, code: int, active: bool) -> bool:
        row = self.mirror.get(("ORGANIZATION", code))
        if row is None or row["is_active"] == active or not is_organization(code, self.siorg.rows):
            return False
        self.connection.execute("UPDATE organizations SET is_active = %s WHERE siorg_code = %s", [active, code])
        self._look_again("ORGANIZATION", code)
        return True

    def _edit(self, kind: str, code: int, name: str, value: Any) -> bool:
        entity = (kind, code)
        row = self.mirror.get(entity)
        if row is None or not row["is_active"] or (kind == "UNIT" and row["organization"] not in self._registered()):
            return False
        if kind == "ORGANIZATION" and not self._is_synced(code):
            return False  # SIORG wins there
        if name == "place":
            if not self._may_hang(code, value):
                return False
            self.connection.execute(
                "UPDATE organizational_units SET parent_id = (SELECT id FROM organizational_units WHERE siorg_code = %s)"
                " WHERE siorg_code = %s", [value, code],
            )  # fmt: skip
        elif name == "contact_info.phones":
            self.world.edit_contact(code, phones=value)
        else:
            table = "organizational_units" if kind == "UNIT" else "organizations"
            self.connection.execute(f"UPDATE {table} SET {name} = %s WHERE siorg_code = %s".encode(), [value, code])
        self._refresh_paths(entity)
        before = _field(row, name)
        self._look_again(*entity)
        after = _field(self.mirror[entity], name)
        edit = self.edits.get((entity, name))
        if after == before:
            return False
        if edit is None or before not in edit.values:
            row = self.siorg.rows.get(code)
            named = None if row is None else (organization_of(row), parent_of(row))
            self.edits[entity, name] = Edit(before, [after], named=named)
        else:
            edit.weak = edit.weak or edit.accepted
            edit.values = [after, *edit.values] if edit.weak else [after]
        return True

    def _is_synced(self, organization: int) -> bool:
        sql = "SELECT FROM organizations WHERE siorg_code = %s AND siorg_synced_at IS NOT NULL"
        return self.connection.execute(sql, [organization]).fetchone() is not None

    def _registered(self) -> list[int]:
        return [code for (kind, code), row in self.mirror.items() if kind == "ORGANIZATION" and row["is_active"]]

    def _may_hang(self, code: int, parent: int) -> bool:
        """Whether a person may hang a unit below another one: of the same organization, and not below itself."""
        here = oracle.local(self.connection).units
        if parent not in here or not here[parent]["is_active"] or here[parent]["organization"] != here[code]["organization"]:
            return False
        above, seen = parent, [code]
        while above in here and above not in seen:
            seen.append(above)
            above = here[above]["parent"]
        deepest = max((row["level"] for row in here.values()), default=1)
        return above != code and deepest < _MAX_DEPTH - 5

    def _refresh_paths(self, entity: Entity) -> None:
        kind, code = entity
        which = (
            "u.siorg_code = %s"
            if kind == "UNIT"
            else ("u.parent_id IS NULL AND u.organization_id = (SELECT id FROM organizations WHERE siorg_code = %s)")
        )
        if kind == "ORGANIZATION":
            self.connection.execute(f"UPDATE organizational_units u SET name = name WHERE {which}".encode(), [code])
        refresh = f"SELECT fn_update_descendant_paths(u.id) FROM organizational_units u WHERE {which}"
        self.connection.execute(refresh.encode(), [code])

    def _look_again(self, kind: str, code: int) -> None:
        """A person changed a row: history tells nothing of it."""
        self.mirror[kind, code] = oracle.local(self.connection).values()[kind, code]

    def _decide(self, kind: str, code: int, how: str, value: Any = None) -> bool:
        """A person decides the newest conflict of an entity."""
        found = self.connection.execute(
            "SELECT id, operation::text, detected_changes AS changes, payload FROM siorg_sync_queue WHERE status = 'CONFLICT'"
            " AND entity_type = %s::siorg_entity_type_enum AND siorg_code = %s ORDER BY created_at DESC, id LIMIT 1",
            [kind, code],
        ).fetchone()
        if found is None:
            return False
        pending = self.connection.execute(
            "SELECT FROM siorg_sync_queue WHERE status IN ('PENDING', 'PROCESSING') AND error_details ? 'resolution'"
            " AND siorg_code = %s", [code],
        ).fetchone()  # fmt: skip
        changes = found["changes"] or {}
        if not self._carry(found["id"], found["payload"], sorted(changes), how, value, changes):
            return False
        entity = (kind, code)
        if how in ("skip", "skip by the API server"):
            return True
        for name, sides in changes.items():
            self._decided(entity, "place" if name in ("organization", "parent") else name, sides, changes, how, value)
            if pending:
                for edit in self._edits_of(entity):
                    edit.weak = True
        return True

    def _held(self, organization: int, how: str) -> bool:
        """A person decides about all ends of an organization that are held: ``release`` or ``drop``."""
        rows = [row for row in self.world.decisions.held(organization=organization) if row.field == "is_active"]
        decide = self.world.decisions.release_held if how == "release" else self.world.decisions.drop_held
        decide([row.id for row in rows], notes=None, by="a person")
        if how == "drop":
            for row in rows:
                self.edits[("UNIT", row.code), "is_active"] = Edit(None, [], weak=True)
        return bool(rows)

    def _carry(self, id_: UUID, payload: Any, names: list[str], how: str, value: Any, changes: Any) -> bool:
        world = self.world
        match how:
            case "accept":
                world.decisions.reopen_conflict(id_, {"resolution": "ACCEPT_SIORG"})
            case "accept by the API server":
                world.resolve(id_, "ACCEPT_SIORG")
            case "keep":
                world.decisions.reopen_conflict(id_, {"resolution": "MERGE", "field_resolutions": dict.fromkeys(names, "LOCAL")})
            case "keep by the API server":
                world.keep_as_the_api_server(id_)
            case "merge by the API server":
                chosen = dict.fromkeys(names, "LOCAL")
                world.resolve(id_, "MERGE", merged_payload=payload or {}, field_resolutions=chosen)
            case "set":
                if "name" not in names:
                    return False
                rest = {name: "LOCAL" for name in names if name != "name"}
                decision = {"resolution": "MERGE", "merged_payload": {"name": value}, "field_resolutions": rest}
                world.decisions.reopen_conflict(id_, decision)
            case "skip":
                world.decisions.skip_conflict(id_)
            case "skip by the API server":
                self.connection.execute(
                    "UPDATE siorg_sync_queue SET status = 'SKIPPED', processed_at = now() WHERE id = %s", [id_]
                )
        return True

    def _decided(self, entity: Entity, name: str, sides: Any, changes: Any, how: str, value: Any) -> None:
        if name == "is_active":
            if how not in ("accept", "accept by the API server"):
                self.edits[entity, name] = Edit(None, [], weak=True)
            return
        edit = self.edits.get((entity, name))
        if edit is None:
            if how == "set" and name == "name":  # of a conflict that is over, and was left open: fault 7
                self.edits[entity, name] = Edit(None, [self.mirror[entity]["name"], value], weak=True)
            return
        if how in ("accept", "accept by the API server"):
            edit.accepted = True
            return
        if edit.accepted:
            edit.weak = True
        remote = sides["remote"]
        if name == "place":
            home = changes.get("organization", {}).get("remote", self.mirror[entity]["organization"])
            remote = (home, changes["parent"]["remote"] if "parent" in changes else self.mirror[entity]["parent"])
        edit.kept.append(remote)
        edit.kept_at = len(self.siorg.past)
        if how == "set" and name == "name":
            edit.values.append(value)

    def _edits_of(self, entity: Entity) -> list[Edit]:
        return [edit for (of, _), edit in self.edits.items() if of == entity]

    # -- what processes do --------------------------------------------------------------------------------------------

    def _discover(self, process: int, code: int, full: bool = False) -> bool:
        return self._discovers(self.processes[process], code, full)

    def _discovers(self, process: _Process, code: int, full: bool = False) -> bool:
        organizations = registered(process.connection, [code])
        for organization in organizations:
            asked_at, told_of = _clock(process.connection), self._told_of(code)
            with contextlib.suppress(SiorgError):
                found = process.world._runner.run(
                    discover(
                        organization, cast("Any", self.siorg), process.connection, process.world.store, full=full,
                        limits=self._limits_of(process),
                    )
                )  # fmt: skip
                if found.how == "structure" and process is not self.fresh:
                    self.asked_at |= dict.fromkeys(told_of & self._told_of(code), asked_at)
            if process is not self.fresh:
                self._check_limits()
        return bool(organizations)

    def _limits_of(self, process: _Process) -> Limits | None:
        return None if process is self.fresh else self.limits

    def _told_of(self, organization: int) -> set[int]:
        """Units of which the structure of an organization tells, be it that it has them no more."""
        here = {code for (kind, code), row in self.mirror.items() if kind == "UNIT" and row["organization"] == organization}
        return here | self.siorg.rows_of(organization).keys()

    def _verify(self, code: int, enqueue: bool) -> bool:
        """As ``siorg-job verify`` does."""
        return bool(self._verified(*[known.code for known in registered(self.connection, [code])], enqueue=enqueue))

    def _verified(self, *codes: int, enqueue: bool = False) -> list[Verified]:
        found: list[Verified] = []
        for code in codes:
            with contextlib.suppress(SiorgError):
                store = self.world.store if enqueue else None
                found.append(self.world._runner.run(verify(code, cast("Any", self.siorg), self.connection, store)))
        self._check_limits()
        return found

    def _drain(self, process: int, number: int) -> bool:
        did = self._claim(process, number)
        self._fetch(process)
        while self.processes[process].fetched:
            self._apply(process)
        return did

    def _ask(self, code: int) -> bool:
        """Somebody who knows of no notes (the API server, the first worker) puts a unit on the queue, waiting or not."""
        if ("UNIT", code) not in self.mirror:
            return False
        self.world.enqueue(code)
        return True

    def _claim(self, process: int, number: int) -> bool:
        claimed = self.processes[process].world.store.claim(number, lease=_LEASE, worker=f"process {process}").items
        self.processes[process].claimed += claimed
        return bool(claimed)

    def _fetch(self, process: int) -> bool:
        did = bool(self.processes[process].claimed)
        self.processes[process].fetch()
        return did

    def _apply(self, process: int) -> bool:
        """The answers that came last are applied first."""
        held = self.processes[process]
        if not held.fetched:
            return False
        works = held.fetched.pop()
        apply(held.connection, held.world.store, works, self.limits)
        self._observe()
        return True

    def _crash(self, process: int, statement: int, how: str) -> bool:
        """Within an apply, before a statement or after COMMIT, the process ends; or its connection breaks, and it tries again."""
        held = self.processes[process]
        if not held.fetched:
            return False
        works = held.fetched.pop()
        error = Interrupted() if how == "ends" else psycopg.OperationalError("the connection broke")
        broken = cast("Any", _Interruptible(held.connection, statement, error))
        try:
            apply(broken, QueueStore(broken), works, self.limits)
        except Interrupted:
            held.fetched.append(works)
            self._die(process)
        except psycopg.OperationalError:
            self._observe()
            apply(held.connection, held.world.store, works, self.limits)
        self._observe()
        return True

    def _die(self, process: int) -> bool:
        """The process ends: its leases run out, what it knew is forgotten."""
        held = self.processes[process]
        ids = held.held
        self.connection.execute(
            "UPDATE siorg_sync_queue SET lease_expires_at = now() - interval '1 second'"
            " WHERE status = 'PROCESSING' AND id = ANY (%s)",
            [ids],
        )
        held.begin()
        return bool(ids)

    def _pauses(self) -> None:
        self.world.pauses_are_over()

    def _outage(self, down: bool) -> bool:
        did = (self.siorg.down is not None) != down
        self.siorg.fail(down=down)
        return did

    def _tear(self, code: int, torn: bool) -> bool:
        did = (code in self.siorg.torn) != torn
        (self.siorg.torn.add if torn else self.siorg.torn.discard)(code)
        return did

    # -- what must hold at every moment -------------------------------------------------------------------------------

    def _observe(self) -> None:
        """After something was applied: history has told all that the rows say, and no edit was overwritten."""
        # A pause is over when a step says so, however fast the machine is.
        self.connection.execute(
            "UPDATE siorg_sync_queue SET scheduled_for = now() + interval '1 day'"
            " WHERE status = 'PENDING' AND scheduled_for > now()"
        )
        self._check_order()
        self._check_limits()
        local = oracle.local(self.connection)
        here = local.values()
        for entry in self._news():
            self._retell(entry)
            if entry["kind"] == "UNIT":
                self._check_age(entry["code"])
                if entry["change"] == "EXTINCTION" and entry["by"] == "UNIT":
                    _check_end(entry["code"], local)
        for entity in {**self.mirror, **here}:
            if self.mirror.get(entity) != here.get(entity):
                raise Broken(f"{entity}: history says {_difference(self.mirror.get(entity), here.get(entity))}")
        for (entity, name), edit in list(self.edits.items()):
            if entity not in here or name == "is_active":
                continue
            now = _field(here[entity], name)
            if now in edit.values:
                continue
            if not (edit.accepted or edit.weak):
                raise Broken(f"{entity}: {name} was {edit.values} by a person, and is {now!r} now: nobody had decided so")
            if not edit.weak:
                del self.edits[entity, name]

    def _check_order(self) -> None:
        """No answer is applied over one that was asked for later."""
        rows = self.connection.execute("SELECT siorg_code AS code, siorg_synced_at AS at FROM organizational_units").fetchall()
        synced = {row["code"]: row["at"] for row in rows}
        for code, moment in self.synced.items():
            if synced[code] < moment:
                raise Broken(f"unit {code}: an older answer was applied over a newer one")
        self.synced = synced

    def _check_limits(self) -> None:
        """No more has ended than a limit lets pass, and what is held since the last look passed one."""
        if self.limits is None:
            return
        rows = self.world.decisions.held()
        before, self.tallies = self.tallies, limits.tallies(self.connection)
        known, self.held = self.held, {row.id for row in rows}
        states = (*self.siorg.past, self.siorg.rows)
        alive = {code for code in self.tallies if all(is_organization(code, state) for state in states)}
        new = {row.organization for row in rows if row.id not in known and row.field == "is_active"}
        found = limits.too_many(before, self.tallies, alive) + limits.needless(before, self.tallies, new & alive)
        if found:
            raise Broken("; ".join(found))

    def _check_age(self, code: int) -> None:
        """Nothing is written from an answer older than the structure that a discovery has compared with the unit."""
        if code in self.asked_at and self.synced[code] < self.asked_at[code]:
            raise Broken(f"unit {code}: written from an answer from before the last discovery")

    def _news(self) -> Iterator[dict[str, Any]]:
        """History rows that were not seen yet; of those of one moment and entity first the one that fits."""
        rows = self.connection.execute(
            "SELECT id, entity_type::text AS kind, siorg_code AS code, change_type::text AS change, previous_data AS before,"
            " new_data AS after, affected_fields AS fields, requires_review AS review,"
            " (SELECT q.entity_type::text FROM siorg_sync_queue q WHERE q.id = sync_queue_id) AS by FROM siorg_history"
            " WHERE id <> ALL (%s) ORDER BY created_at, id", [list(self.told)],
        ).fetchall()  # fmt: skip
        while rows:
            entity = (rows[0]["kind"], rows[0]["code"])
            known = self.mirror.get(entity)
            same = [row for row in rows if (row["kind"], row["code"]) == entity]
            row = next((row for row in same if row["before"] == known), same[0])
            rows.remove(row)
            self.told.add(row["id"])
            yield row

    def _retell(self, entry: dict[str, Any]) -> None:
        entity = (entry["kind"], entry["code"])
        before, after, change = entry["before"], entry["after"], entry["change"]
        if entity[0] not in ("UNIT", "ORGANIZATION"):
            return
        known = self.mirror.get(entity)
        if before != known:
            raise Broken(f"{entity}: {change} tells of {_difference(known, before)} that history did not tell")
        if after is None:
            after = {**(before or {}), "is_active": False}
        self.mirror[entity] = after
        if before is None:
            expected, differing = "CREATION", None
        else:
            differing = {name for name in after if _plain(after, name) != _plain(before, name)}
            if not before["is_active"] and after["is_active"]:
                expected = "CREATION"
            elif not after["is_active"] and before["is_active"]:
                expected = "EXTINCTION" if entity[0] == "ORGANIZATION" or change == "EXTINCTION" else "HIERARCHY_CHANGE"
            else:
                expected = "HIERARCHY_CHANGE" if differing & {"organization", "parent"} else "UPDATE"
        if change != expected:
            raise Broken(f"{entity}: {change} in history, and it is a {expected}: {_difference(before, after)}")
        if differing is not None and set(entry["fields"]) != differing:
            raise Broken(f"{entity}: history names {entry['fields']}, and {sorted(differing)} differ")
        if change in ("HIERARCHY_CHANGE", "EXTINCTION") and not entry["review"]:
            raise Broken(f"{entity}: {change} without review")

    # -- rest ---------------------------------------------------------------------------------------------------------

    def _quiet(self, compare: bool = False) -> None:
        """SIORG is well, nobody edits: after a few rounds nothing moves any more, and everything is in its place.

        ``compare``: also with a fresh load into an empty database.
        """
        self.siorg.fail(down=False)
        self.siorg.torn.clear()
        self.siorg.events.clear()
        for number in range(_PROCESSES):
            self._die(number)
        self._rest(self.processes[0])
        here = oracle.local(self.connection)
        asked = oracle.asked_of_people(self.connection)
        for edit in self.edits.values():
            edit.wavered = bool(edit.kept) and edit.kept_at != len(self.siorg.past)
        found = oracle.problems(here, self.siorg.rows, self.edits, asked, self._damaged())
        found += self._compare_with_verification(here, asked)
        if found:
            raise Broken("; ".join(found))
        check_tree(self.connection)
        self._look_for_writing(here)
        if compare:
            self._compare_with_fresh(here, asked)
        self.connection.execute(
            "DELETE FROM siorg_sync_queue AS q WHERE q.status = 'FAILED'"
            " AND NOT EXISTS (SELECT FROM siorg_history AS h WHERE h.sync_queue_id = q.id)"
        )
        # What was accepted, and has come to rest, is no news; what was turned down, and is said no more, neither.
        for key, edit in list(self.edits.items()):
            (_, code), name = key
            if code in self.siorg.rows and name != "is_active" and key[0] not in asked.open:
                theirs = oracle.place_in(code, self.siorg.rows) if name == "place" else oracle.said(self.siorg.rows[code], name)
                edit.kept, edit.kept_at = [value for value in edit.kept if value == theirs], len(self.siorg.past)
            row = here.values().get(key[0])
            if key[1] != "is_active" and row is not None and _field(row, key[1]) not in edit.values:
                del self.edits[key]

    def _compare_with_verification(self, here: Local, asked: oracle.Asked) -> list[str]:
        """What ``verify`` lists, beside what there has to be."""
        alive = [code for code in sorted(here.registered) if is_organization(code, self.siorg.rows)]
        verified = self._verified(*sorted(here.registered))
        untold = here.registered - {each.organization for each in verified}
        found = [f"organization {code} cannot be verified" for code in sorted(untold)]
        listed: dict[tuple[str, int, str], str] = {}
        for one in verified:
            kinds_here = [((str(each.entity_type), each.code, str(each.field)), str(each.kind)) for each in one.departures]
            found += [f"{key}: listed twice" for key, _ in kinds_here if [other for other, _ in kinds_here].count(key) > 1]
            for key, kind in kinds_here:  # what left this organization may be told of with that where it is, too
                listed[key] = min(kind, listed.get(key, kind), key=oracle.ORDER.index)
        expected = oracle.departures(here, self.siorg.rows, self.edits, asked, self._damaged())
        for key in sorted({*listed, *expected}):
            kind, allowed = listed.get(key, ""), expected.get(key, frozenset({""}))
            if kind not in allowed:
                found.append(f"{key}: verify lists {kind!r}, and it is {sorted(allowed)}")
            elif kind == "drift":
                found.append(f"{key}: drift")
        for code in asked.held if self.limits else ():  # a discovery without limits leaves what is held alone
            row, home = here.units.get(code), organization_of(self.siorg.rows[code]) if code in self.siorg.rows else None
            ends = row is not None and row["is_active"] and row["organization"] in alive and (home not in alive or home == code)
            if not ends and code not in self._damaged():
                found.append(f"unit {code}: its end is held, and it does not end, or with its organization")
        in_dispute = {key[:2] for key, kinds in expected.items() if "conflict" in kinds}
        in_dispute |= {("ORGANIZATION", code) for code in here.registered - {*alive}}  # one decision about each that has ended
        unread = {("UNIT", code) for code in self._damaged()}
        found += [f"{entity}: a person is asked, and nothing is in dispute" for entity in asked.open.keys() - in_dispute - unread]
        found += [f"{entity}: a person is asked twice" for entity in asked.several]
        return found

    def _rest(self, process: _Process) -> None:
        """Discoveries and drains, a week after the last, until they write nothing."""
        for _ in range(_ROUNDS):
            before = process.connection.execute("SELECT count(*) AS n FROM siorg_history").fetchone()
            process.connection.execute(  # a day passes
                "UPDATE siorg_sync_queue SET processed_at = processed_at - interval '1 day' WHERE status = 'FAILED'"
            )
            process.world.store.retry_due()
            process.connection.execute("DELETE FROM system_settings WHERE key LIKE 'siorg_em_dia:%'")
            for code in [found.code for found in asked_for(process.connection, None)]:
                self._discovers(process, code)
            for _ in range(_ROUNDS):
                process.world.pauses_are_over()
                process.claimed = list(process.world.store.claim(1000, lease=_LEASE, worker="quiet").items)
                if not process.claimed:
                    break
                process.fetch()
                apply(process.connection, process.world.store, process.fetched.pop(), self._limits_of(process))
                if process is not self.fresh:
                    self._observe()
            else:
                raise Broken("the queue does not come to its end: " + "; ".join(_waiting(process.connection)))
            after = process.connection.execute("SELECT count(*) AS n FROM siorg_history").fetchone()
            if after == before:
                return
        raise Broken("no rest")

    def _look_for_writing(self, here: Local) -> None:
        """Another discovery of everything writes nothing."""
        number, queue = len(self.told), self._queue()
        self._rest(self.processes[0])
        if len(self.told) != number or oracle.local(self.connection) != here:
            raise Broken("another discovery and drain still wrote something")
        if self._queue() != queue:
            raise Broken("another discovery enqueued something, asked people anew, or ended what they are asked")

    def _queue(self) -> dict[UUID, str]:
        return {row["id"]: row["status"] for row in self.world.rows("SELECT id, status::text AS status FROM siorg_sync_queue")}

    def _compare_with_fresh(self, here: Local, asked: oracle.Asked) -> None:
        """Whatever happened on the way: the same rows as of a fresh load, but for departures."""
        known = {code for code in here.organizations if is_organization(code, self.siorg.rows)}
        _clear(self.fresh.connection, [code for code in known if here.organizations[code]["is_active"]])
        self.fresh.begin()
        self._rest(self.fresh)
        fresh = oracle.local(self.fresh.connection)
        found = oracle.problems(fresh, self.siorg.rows, {}, oracle.asked_of_people(self.fresh.connection), self._damaged())
        if found:
            raise Broken("a fresh load: " + "; ".join(found))
        departed = {code for (kind, code), _ in self.edits if kind == "UNIT"}
        departed |= {code for kind, code in asked.open if kind == "UNIT"} | self._damaged()
        departed |= oracle.held_up(here, self.siorg.rows, self.edits, asked, self._damaged())
        for code, row in fresh.units.items():
            mine = here.units.get(code)
            above = parent_of(self.siorg.rows[code]) if code in self.siorg.rows else None
            if code in departed or above in departed or (above is not None and above not in self.siorg.rows):
                continue
            names = ["name", "organization", "parent", "unit_type", "is_active", "siorg_parent_code"]
            names += ["acronym"] if row["acronym"] is not None else []  # where SIORG is silent, nothing is erased
            wrong = {name for name in names if mine is None or mine[name] != row[name]}
            if wrong and not (mine is not None and not mine["at_home"]):
                raise Broken(f"unit {code}: after a fresh load otherwise: {sorted(wrong)}, {mine} and {row}")


def _clock(connection: Connection) -> datetime:
    (row,) = connection.execute("SELECT clock_timestamp() AS now").fetchall()
    moment: datetime = row["now"]
    return moment


def _check_end(code: int, here: Local) -> None:
    """A unit ends after those below it."""
    below = [one for one, row in here.units.items() if row["is_active"] and row["parent"] == code and not row["at_the_top"]]
    if below and not here.units[code]["is_active"]:
        raise Broken(f"unit {code} ended before {below} below it")


def _waiting(connection: Connection) -> list[str]:
    rows = connection.execute(
        "SELECT siorg_code, operation::text, status::text, last_error FROM siorg_sync_queue"
        " WHERE status IN ('PENDING', 'PROCESSING')"
    ).fetchall()
    return [f"{row['operation']} {row['siorg_code']} {row['status']}: {row['last_error']}" for row in rows]


def _field(row: dict[str, Any], name: str) -> Any:
    return (row["organization"], row["parent"]) if name == "place" else row[name]


def _plain(row: dict[str, Any], name: str) -> Any:
    """A value as it is compared: directly below the organization is no other parent in another organization."""
    if name == "parent":
        return None if row["parent"] == row["organization"] else row["parent"]
    return row[name]


def _difference(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    if before is None or after is None:
        return f"{before} → {after}"
    return ", ".join(
        f"{name} {before.get(name)!r} → {after.get(name)!r}" for name in after if before.get(name) != after.get(name)
    )


def _clear(connection: Connection, organizations: Iterable[int]) -> None:
    connection.execute(
        "TRUNCATE siorg_history, siorg_sync_queue, siorg_mappings, organizational_units, organizations,"
        " organizational_unit_categories, organizational_unit_types;"
        " DELETE FROM system_settings WHERE key LIKE 'siorg_versao:%' OR key LIKE 'siorg_em_dia:%'"
    )
    for code in organizations:
        _register(connection, code, f"Órgão {code}", f"O{code}")


def _register(connection: Connection, code: int, name: str, acronym: str | None) -> None:
    connection.execute(
        "INSERT INTO organizations (siorg_code, acronym, name, cnpj, ug_code) VALUES (%s, %s, %s, %s, 1)",
        [code, acronym or f"O{code}", name, f"{code:014d}"],
    )
