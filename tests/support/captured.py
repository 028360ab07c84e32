"""UFMT as SIORG really had it on two dates, local edits of every kind, every way of deciding, and a reform: no drift at rest.

``make soak-captured ARGS='--seeds 1-20'`` runs many; a test runs one. What is in line is said twice: by ``siorg-job verify``,
and by raw SQL beside the captured JSON, which must find the very same differences.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import logging
import sys
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

from psycopg.types.json import Jsonb

from siorg_job.__main__ import main as job
from siorg_queue import Connection, connect
from support.postgres import embedded_postgres
from support.siorg_server import CAPTURES, SiorgServer

UFMT = 471
VERSION = "siorg_last_version"
OLD, NEW = CAPTURES / "ufmt-2016-03-02.json", CAPTURES / "ufmt-2016-06-30.json"
EDITS = 30

Rows = dict[int, dict[str, Any]]
_UNIT = "http://estruturaorganizacional.dados.gov.br/id/unidade-organizacional"


# -- SIORG ---------------------------------------------------------------------------------------------------------------


def read(path: Path) -> Rows:
    return {code_of(row["codigoUnidade"]): row for row in json.loads(path.read_text(encoding="utf-8"))["unidades"]}


def code_of(uri: object) -> int:
    return int(str(uri).rsplit("/", 1)[-1])


def parent_of(row: Mapping[str, Any]) -> int:
    return code_of(row["codigoUnidadePai"])


def reformed(rows: Rows, random: Random) -> Rows:
    """A reform of our own: renames, a line that turns round, parents that swap, a merge, a recoded unit, new contacts."""
    new = copy.deepcopy(rows)
    children: dict[int, list[int]] = {}
    for code, row in new.items():
        if code != UFMT:
            children.setdefault(parent_of(row), []).append(code)
    leaves = [code for code in new if code not in children and code != UFMT]
    for number, code in enumerate(random.sample(sorted(new.keys() - {UFMT}), 40)):
        new[code] |= {"nome": f"{new[code]['nome']} (nova)"} if number % 2 else {"sigla": f"N{number}"}
    upper = random.choice([code for code in children if code != UFMT and any(below in children for below in children[code])])
    lower = next(below for below in children[upper] if below in children)
    new[lower]["codigoUnidadePai"], new[upper]["codigoUnidadePai"] = new[upper]["codigoUnidadePai"], new[lower]["codigoUnidade"]
    ended, recoded, *swapped = random.sample(leaves, 6)
    for one, other in (swapped[:2], swapped[2:]):
        new[one]["codigoUnidadePai"], new[other]["codigoUnidadePai"] = (
            new[other]["codigoUnidadePai"],
            new[one]["codigoUnidadePai"],
        )
    new[900_001] = new.pop(recoded) | {"codigoUnidade": f"{_UNIT}/900001"}
    del new[ended]
    for code in swapped:
        new[code] |= {"contato": [{"telefone": [f"(65) 3615-{code % 10_000:04}"]}], "areaAtuacao": "FIM"}
    for row in new.values():
        row["versaoConsulta"] = "900.0.0"
    return new


def snapshot(rows: Rows, folder: Path, name: str) -> Path:
    """A file for the simulator."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"servico": {}, "unidades": list(rows.values())}), encoding="utf-8")
    return path


# -- people --------------------------------------------------------------------------------------------------------------


def _changes(before: Rows, after: Rows) -> list[tuple[int, str]]:
    """(code, field) of what SIORG is about to change of units that it keeps."""
    keys = {"name": ("nome",), "acronym": ("sigla",), "contact_info.phones": ("contato",), "activity_area": ("areaAtuacao",)}
    found = [
        (code, field)
        for code in sorted(before.keys() & after.keys())
        for field, (key,) in keys.items()
        if before[code].get(key) != after[code].get(key)
    ]
    return found + [(code, "parent") for code in sorted(before.keys() & after.keys()) if _moves(before[code], after[code])]


def _moves(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return parent_of(before) != parent_of(after)


def edits(connection: Connection, before: Rows, after: Rows, random: Random) -> set[tuple[int, str]]:
    """Thirty edits, of every kind, half of them where SIORG is about to change the same; returns what was edited."""
    rows = connection.execute(
        "SELECT siorg_code AS code, id, parent_id, contact_info FROM organizational_units"
        " WHERE is_active AND siorg_code IS NOT NULL ORDER BY 1"
    ).fetchall()
    here, parents = {row["code"]: row for row in rows}, {row["parent_id"] for row in rows}
    leaves = [code for code, row in here.items() if row["id"] not in parents]
    (category,) = connection.execute(
        "INSERT INTO organizational_unit_categories (name) VALUES ('Nossa') ON CONFLICT (name) DO UPDATE SET name = excluded.name"
        " RETURNING id"
    ).fetchall()
    (kind,) = connection.execute(
        "SELECT id FROM organizational_unit_types WHERE code NOT IN ('unidade-administrativa', 'entidade') ORDER BY code LIMIT 1"
    ).fetchall()

    def contact(code: int, **kinds: Any) -> dict[str, Any]:
        return {"contact_info": Jsonb({**here[code]["contact_info"], **kinds})}

    def elsewhere(code: int) -> dict[str, Any]:
        return {"parent_id": here[random.choice([other for other in leaves if other != code])]["id"]}

    ways: dict[str, Callable[[int], dict[str, Any]]] = {
        "name": lambda code: {"name": f"Nossa unidade {code}"},
        "acronym": lambda code: {"acronym": f"NOS{code % 1000}"},
        "acronym:none": lambda _: {"acronym": None},
        "parent": elsewhere,
        "parent:top": lambda _: {"parent_id": None},
        "is_active": lambda _: {"is_active": False},
        "contact_info.phones": lambda code: contact(code, phones=[f"(65) {code}"]),
        "contact_info.address": lambda code: contact(code, address="Bloco 3"),
        "activity_area": lambda _: {"activity_area": "CORE"},
        "category": lambda _: {"category_id": category["id"]},
        "unit_type": lambda _: {"unit_type_id": kind["id"]},
    }
    contested = [(code, field) for code, field in _changes(before, after) if code in leaves]
    chosen = random.sample(contested, min(EDITS // 2, len(contested)))
    others = random.sample(sorted(set(leaves) - {code for code, _ in chosen}), EDITS - 1 - len(chosen))
    chosen += zip(others, cycle(random.sample(sorted(ways), len(ways))), strict=False)
    connection.execute("UPDATE organizations SET acronym = 'NOSSA UFMT' WHERE siorg_code = %s", [UFMT])
    for code, what in chosen:
        values = ways[what](code)
        sets = ", ".join(f"{column} = %({column})s" for column in values)
        connection.execute(f"UPDATE organizational_units SET {sets} WHERE siorg_code = %(code)s", {**values, "code": code})
        connection.execute("SELECT fn_update_descendant_paths(%s)", [here[code]["id"]])  # as whoever moves or renames has to
    return {(UFMT, "acronym"), *((code, what.partition(":")[0]) for code, what in chosen)}


WAYS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "--accept-siorg": lambda _: None,
    "--keep-local": lambda _: None,
    "--skip": lambda _: None,
    "--set": lambda _: None,
    "the API server: accept": lambda item: ("PENDING", {"resolution": "ACCEPT_SIORG"}),
    "the API server: merge": lambda item: (
        "PENDING",
        {
            "resolution": "MERGE", "merged_payload": item["payload"],
            "field_resolutions": dict.fromkeys(item["detected_changes"], "LOCAL"),
        },
    ),
    "the API server: keep": lambda _: ("COMPLETED", None),
    "the API server: skip": lambda _: ("SKIPPED", None),
}  # fmt: skip
_LATER = ("--skip", "the API server: skip")


class Copy:
    """One database that follows UFMT."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = connect(url, application_name="test")
        self.kept: set[tuple[int, str]] = set()
        """Ends that a person turned down."""

    def run(self, siorg: SiorgServer, *words: str) -> tuple[int, str]:
        out = io.StringIO()
        environ = {"DATABASE_URL": self.url, "SIORG_API_URL": siorg.url, "SIORG_ALLOW_INSECURE": "true", "LOG_LEVEL": "error",
                   "SIORG_MAX_REQUESTS_PER_SECOND": "0", "WORKER_LINGER_SECS": "3"}  # fmt: skip
        with redirect_stdout(out):
            code = job(words, environ)
        return code, out.getvalue()

    def follow(self, siorg: SiorgServer, times: int = 1) -> None:
        """Discover and drain, and release what a limit has held."""
        for _ in range(times):
            for words in (("discover", "--organization", str(UFMT), "--full"), ("run",)):
                code, out = self.run(siorg, *words)
                assert code == 0, out
            if self.connection.execute(
                "SELECT FROM siorg_sync_queue WHERE status = 'CONFLICT' AND held_at IS NOT NULL"
            ).fetchone():
                assert self.run(siorg, "held", "release", "--organization", str(UFMT), "--yes", "--by", "test")[0] == 0
                assert self.run(siorg, "run")[0] == 0

    def conflicts(self) -> list[dict[str, Any]]:
        sql = "SELECT * FROM siorg_sync_queue WHERE status = 'CONFLICT' AND held_at IS NULL ORDER BY siorg_code"
        return self.connection.execute(sql).fetchall()

    def decide(self, siorg: SiorgServer, ways: Iterator[str]) -> Counter[str]:
        """Every open conflict, each by the next way."""
        done: Counter[str] = Counter()
        for item in self.conflicts():
            way = next(ways)
            done[way] += 1
            if way not in _LATER and "accept" not in way and "is_active" in item["detected_changes"]:
                self.kept.add((item["siorg_code"], "is_active"))
            if way.startswith("--"):
                words = ["conflicts", "resolve", str(item["id"]), way]
                if way == "--set":
                    words = words[:-1] + [part for field in item["detected_changes"] for part in ("--set", f"{field}=LOCAL")]
                code, out = self.run(siorg, *words)
                assert code == 0, out
                continue
            status, details = WAYS[way](item)
            self.connection.execute(
                "UPDATE siorg_sync_queue SET status = %s::sync_status_enum, error_details = coalesce(%s, error_details),"
                " processed_at = CASE WHEN %s <> 'PENDING' THEN now() END WHERE id = %s",
                [status, None if details is None else Jsonb(details), status, item["id"]],
            )
        return done

    # -- what is in line, said twice --------------------------------------------------------------------------------------

    def check(self, siorg: SiorgServer, rows: Rows, edited: set[tuple[int, str]], when: str) -> Counter[str]:
        """Assert that there is no drift, and that SQL and JSON say the same as ``verify``; returns the departures by kind."""
        code, out = self.run(siorg, "verify", "--organization", str(UFMT), "--json")
        told = [each for each in map(json.loads, out.splitlines()) if "kind" in each and "field" in each]
        drift = [each for each in told if each["kind"] == "drift"]
        assert (code, drift) == (0, []), f"{when}: exit {code}, {drift}"
        # The version of a row comes with the decision about it.
        listed = {(each["code"], each["field"]) for each in told if (each["field"], each["kind"]) != (VERSION, "conflict")}
        differing = set(self._differing(rows))
        assert listed == differing, f"{when}: only verify {listed - differing}, only SQL {differing - listed}"
        edited = edited | self.kept
        odd = [each for each in told if each["kind"] == "edited" and (each["code"], each["field"]) not in edited]
        assert not odd, f"{when}: {odd}"
        return Counter(each["kind"] for each in told)

    def _differing(self, rows: Rows) -> Iterator[tuple[int, str]]:
        """By SQL and JSON alone: (code, field) of what is not as SIORG has it, where SIORG says something."""
        units = self.connection.execute(
            "SELECT u.siorg_code AS code, u.name, u.acronym, p.siorg_code AS parent, u.parent_id, u.is_active,"
            " u.activity_area::text,"
            " u.contact_info, t.code AS type, u.siorg_last_version AS version, u.level, u.path_names, p.level AS above,"
            " p.path_names AS path_above, o.name AS organization_name FROM organizational_units AS u"
            " JOIN organizations AS o ON o.id = u.organization_id JOIN organizational_unit_types AS t ON t.id = u.unit_type_id"
            " LEFT JOIN organizational_units AS p ON p.id = u.parent_id WHERE u.siorg_code IS NOT NULL"
        ).fetchall()
        here = {unit["code"]: unit for unit in units}
        for unit in units:
            above = unit["path_above"] or unit["organization_name"]
            assert unit["path_names"] == f"{above} > {unit['name']}", unit
            assert unit["level"] == (unit["above"] or 0) + 1, unit
            if unit["is_active"] and unit["code"] not in rows:
                yield unit["code"], "is_active"
        (organization,) = self.connection.execute("SELECT * FROM organizations WHERE siorg_code = %s", [UFMT]).fetchall()
        for field, key in (("name", "nome"), ("acronym", "sigla")):
            if organization[field] != _text(rows[UFMT][key]):
                yield UFMT, field
        for code, row in rows.items():
            if code == UFMT:
                continue
            if code not in here:
                yield code, "*"
                continue
            unit, parent = here[code], parent_of(row)
            same = {
                "name": unit["name"] == _text(row["nome"]),
                "acronym": not _text(row["sigla"]) or unit["acronym"] == _text(row["sigla"]),
                "parent": unit["parent"] == parent if parent != UFMT else unit["parent_id"] is None,
                "unit_type": unit["type"] == str(row["codigoTipoUnidade"]).rsplit("/", 1)[-1],
                "is_active": unit["is_active"],
                "activity_area": row.get("areaAtuacao") is None or unit["activity_area"] == "CORE",
                "contact_info.phones": "contato" not in row or unit["contact_info"]["phones"] == row["contato"][0]["telefone"],
            }
            yield from ((code, field) for field, is_same in same.items() if not is_same)
            if all(same.values()):
                assert unit["version"] == row["versaoConsulta"], (code, unit["version"])


def _text(value: str | None) -> str:
    return unicodedata.normalize("NFC", " ".join((value or "").split()))


THERE_AND_BACK = ("first", "second", "reform", "second", "first")


def story(url: str, folder: Path, seed: int, ways: Iterable[str] = WAYS, states: Sequence[str] = THERE_AND_BACK) -> list[str]:
    """One run: SIORG goes through ``states``, people edit before each next one, conflicts are decided; returns what came of it.

    Args:
        url: an empty database with all tables.
        folder: for the simulator's files.
        seed: of edits and reform.
        ways: of deciding, in turn.
        states: ``first`` and ``second`` as captured, and ``reform``.

    Raises:
        AssertionError: something is not in line, and has no name.
    """
    random = Random(seed)
    first, second = read(OLD), read(NEW)
    rows = {"first": first, "second": second, "reform": reformed(second, random)}
    files = {name: snapshot(each, folder, name) for name, each in rows.items()}
    lines, turn, edited = [], cycle(list(ways)), set[tuple[int, str]]()
    local = Copy(url)
    try:
        for number, name in enumerate(states):
            when = f"{number} {name}"
            with SiorgServer("--snapshot", files[name]) as siorg:
                local.follow(siorg)
                said = f"  {when}: {dict(local.check(siorg, rows[name], edited, when))}"
                if decided := local.decide(siorg, turn):
                    assert local.run(siorg, "run")[0] == 0
                    local.follow(siorg)
                    still = local.check(siorg, rows[name], edited, f"{when}, decided")
                    later = sum(count for way, count in decided.items() if way in _LATER)
                    asked = [item for item in local.conflicts() if (item["error_details"] or {}).get("kind") != "active_children"]
                    assert len(asked) <= later, (decided, asked)
                    said += f"; decided {dict(decided)}: {dict(still)}"
                lines.append(said)
            if number + 1 < len(states):
                edited |= edits(local.connection, rows[name], rows[states[number + 1]], random)
    finally:
        local.connection.close()
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="captured", description=__doc__)
    parser.add_argument("--seeds", default="1-5", metavar="FIRST-LAST", help="or one seed (default 1-5)")
    first, _, last = parser.parse_args().seeds.partition("-")
    logging.disable(logging.WARNING)
    failed = 0
    with embedded_postgres() as postgres:
        for seed in range(int(first), int(last or first) + 1):
            for ways in ([way] for way in WAYS) if seed % 2 else [list(WAYS)]:
                url, started = postgres.database(), time.monotonic()
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        lines = story(url, Path(folder), seed, ways)
                        said = "0 drift"
                    except AssertionError as error:
                        lines, said = [f"  {error}"], "FAILED"
                        failed += 1
                names = "every way in turn" if len(ways) > 1 else ways[0]
                print(f"seed {seed}, {names}: {said} in {time.monotonic() - started:.0f} s", *lines, sep="\n", flush=True)  # noqa: T201
                postgres.drop(url)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
