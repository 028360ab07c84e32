"""Whatever SIORG answers: the drain goes on, every item ends with a reason, nothing is half-written, nothing is erased."""

from __future__ import annotations

import json
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siorg_job.siorg.model import DomainTable
from support.dirt import clean_row, dirty_row
from support.job import job_environment, run_job
from support.local_structure import UFMT, World, check_tree, siorg_row, unit_uri, whole_tables
from support.siorg_server import SiorgServer

CODES = (900, 901, 902, 903)
NEW = 910

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.integers(-5, 5)
    | st.floats()
    | st.text(max_size=20)
    | st.text(st.sampled_from("a \x00\x07\ud800\udfff\u2028\u00a0\r\n\ufeff"), max_size=10)
    | st.sampled_from(
        ["", " ", "x" * 300, "x" * 3000, "null", "\x00", "\ud83d", "99.0.0", "EXCLUSAO", "EXTINCAO", "ALTERACAO", "FIM"]
    )
)
_odd = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_parents = st.sampled_from([None, "", UFMT, *CODES, NEW, 999_999]).map(
    lambda code: unit_uri(code) if isinstance(code, int) else code
)
_contacts = st.lists(st.dictionaries(st.sampled_from(["telefone", "email", "site"]), _odd, max_size=3) | _odd, max_size=3) | _odd
_places = st.lists(
    st.dictionaries(st.sampled_from(["logradouro", "numero", "cep", "uf", "municipio", "bairro"]), _odd, max_size=4), max_size=2
)
_KEYS = (*siorg_row(1), "areaAtuacao", "codigoCategoriaUnidade", "contato", "endereco", "outra")
_patches = st.dictionaries(st.sampled_from(_KEYS), _odd, max_size=3)


@st.composite
def _dirty(draw: st.DrawFn, code: int) -> dict[str, Any]:
    """A row that is odd in some keys, lacks some, and may hang anywhere."""
    row = {**_clean(code), "codigoUnidadePai": draw(_parents)}
    row |= draw(_patches)
    if draw(st.booleans()):
        row["contato"] = draw(_contacts)
    if draw(st.booleans()):
        row["endereco"] = draw(_places)
    for key in draw(st.sets(st.sampled_from(_KEYS), max_size=3)):
        row.pop(key, None)
    return row


_ENVELOPES = (
    b"", b"null", b"[]", b"5", b"{", b'"x"', b"<html>504</html>", b'{"servico": {}}', b'{"servico": null, "unidade": {}}',
    b'{"servico": {"codigoErro": 0}, "unidade": []}', b'{"servico": {"codigoErro": "x"}, "unidade": null}',
    b'{"servico": {"codigoErro": 1, "mensagem": "erro"}}', b'{"servico": {"codigoErro": 102}}',
    b'{"servico": {"codigoErro": 0}, "unidade": [5, null]}', b'{"servico": {"codigoErro": 0}, "unidade": {"codigoUnidade": 7}}',
    b'{"servico": {"codigoErro": 0}, "unidade": ' + b'{"nome":' * 5000 + b"1" + b"}" * 5000 + b"}",
    b"[" * 100_000, b"\xff\xfe\x00",
)  # fmt: skip


def _clean(code: int) -> dict[str, Any]:
    contact = {"telefone": ["(65) 1111"], "email": ["a@ufmt.br"], "site": ["https://a.ufmt.br"]}
    place = {"logradouro": "Av. A", "numero": "1", "cep": "78060-900", "uf": "MT"}
    return siorg_row(code, areaAtuacao="FIM", contato=[contact], endereco=[place])


def _start_afresh(world: World) -> dict[int, dict[str, Any]]:
    """900 to 903 in line with SIORG, each below the one before, every field set; nothing else."""
    world.connection.execute("TRUNCATE siorg_sync_queue, siorg_history, siorg_mappings, organizational_units")
    world.siorg.rows.clear()
    world.siorg.bodies.clear()
    world.siorg.publish(siorg_row(UFMT, 244))
    for parent, code in pairwise((UFMT, *CODES)):
        world.siorg.publish({**_clean(code), "codigoUnidadePai": unit_uri(parent)})
    world.sync(*CODES, payload=siorg_row(1))
    return world.units()


_SHOWN = ("name", "acronym", "activity_area", "is_active")
_KINDS = ("phones", "emails", "websites")


def _shown(unit: dict[str, Any]) -> dict[str, Any]:
    info = {f"contact_info.{key}": unit["contact_info"][key] for key in (*_KINDS, "address")}
    return {**{key: unit[key] for key in _SHOWN}, **info}


def _check(world: World, before: dict[int, dict[str, Any]]) -> None:
    for item in world.rows("SELECT * FROM siorg_sync_queue"):
        assert item["status"] != "PROCESSING"
        if item["status"] != "COMPLETED":
            assert item["last_error"], item
        # The drain would give each other chance to a passing trouble; a fault of ours is none.
        assert (item["error_details"] or {}).get("kind") != "internal_error", item["last_error"]
    after = world.units()
    assert before.keys() <= after.keys()
    for code, unit in after.items():
        entries = world.history(code)
        assert entries
        known = entries[-1]["new_data"] if entries[-1]["change_type"] != "EXTINCTION" else None
        if known is not None:
            assert {key: known[key] for key in _shown(unit)} == _shown(unit), f"row and history of {code} differ"
        if code in before and len(entries) == 1:
            assert _shown(unit) == _shown(before[code])
        for entry in entries[1:]:
            assert entry["affected_fields"]
    for code, unit in before.items():
        assert after[code]["name"].strip()
        assert after[code]["acronym"], "an acronym was erased"
        for kind in (*_KINDS, "address"):
            assert after[code]["contact_info"][kind], f"{kind} was erased"
        assert after[code]["siorg_parent_code"] is not None
        assert unit["organization_id"] == after[code]["organization_id"]
    check_tree(world.connection)


_PAYLOADS: tuple[object, ...] = (
    {}, siorg_row(1), siorg_row(1), 5, "x", 10**400, {"codigoUnidade": {}}, {"codigoUnidade": 1, "codigoOrgaoEntidade": 10**400},
)  # fmt: skip
_relaxed = settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)


@_relaxed
@given(st.fixed_dictionaries({code: _dirty(code) for code in (*CODES, NEW)}), st.sampled_from(_PAYLOADS))
def test_odd_rows(world: World, rows: dict[int, dict[str, Any]], payload: object) -> None:
    before = _start_afresh(world)
    world.siorg.rows |= rows
    world.enqueue(*rows, payload=payload)
    world.drain()
    _check(world, before)


@_relaxed
@given(st.dictionaries(st.sampled_from(CODES), st.sampled_from(_ENVELOPES), min_size=1))
def test_odd_envelopes(world: World, bodies: dict[int, bytes]) -> None:
    before = _start_afresh(world)
    world.siorg.bodies = bodies
    world.enqueue(*bodies)
    world.drain()
    _check(world, before)
    assert world.units() == before
    assert all(status in ("FAILED", "PENDING") for code, status in world.statuses().items() if code in bodies)


@_relaxed
@given(st.dictionaries(st.sampled_from([*CODES, NEW]), st.sampled_from([None, UFMT, *CODES, NEW, 911, 999_999]), min_size=1))
def test_hierarchies_that_cannot_be(world: World, parents: dict[int, int | None]) -> None:
    """Loops, unknown parents, units below themselves, and a limit of depth that some of them pass."""
    before = _start_afresh(world)
    world.setting("units.max_hierarchy_depth", 4)
    world.siorg.publish(_clean(NEW), {**_clean(911), "codigoUnidadePai": unit_uri(903)})
    for code, parent in parents.items():
        world.siorg.change(code, parent=parent)
    world.enqueue(*parents, NEW, operation="HIERARCHY_CHANGE")
    world.drain()
    _check(world, before)
    assert max(unit["level"] for unit in world.units().values()) <= 4


_NOTES = {"siorg_base", "siorg_raw_data", "siorg_url", "siorg_synced_at", "updated_at"}
_CATEGORIES = [{"codigoCategoriaUnidade": code, "descricaoCategoriaUnidade": "Ç" * 120, "ativo": "SIM"} for code in (12, 13)]


def _columns(world: World) -> dict[int, dict[str, Any]]:
    rows = [world.organization(), *world.units().values()]
    return {row["siorg_code"]: {name: value for name, value in row.items() if name not in _NOTES} for row in rows}


@_relaxed
@given(st.integers(0, 2**32).map(Random))
def test_the_same_answer_in_other_dirt_writes_nothing(world: World, random: Random) -> None:
    """Units in a list and alone, and the organization, written through the database and asked for again."""
    world.siorg.tables[DomainTable.UNIT_CATEGORY] = _CATEGORIES
    world.connection.execute("TRUNCATE siorg_sync_queue, siorg_history, siorg_mappings, organizational_units")
    world.edit_organization(siorg_synced_at=None, siorg_raw_data=None)
    kind = siorg_row(UFMT)["codigoTipoUnidade"]
    clean = {UFMT: clean_row(random, UFMT, 244) | {"codigoTipoUnidade": kind}}
    clean |= {code: clean_row(random, code, parent) for parent, code in pairwise((UFMT, *CODES))}

    def answer(*codes: int) -> int:
        for code in codes:
            world.siorg.rows[code] = dirty_row(random, clean[code], shuffled=code != UFMT)
        world.enqueue(*codes)
        changes = world.drain()
        assert set(world.statuses().values()) == {"COMPLETED"}, world.items(codes[0])[-1]["last_error"]
        return changes

    world.siorg.rows.clear()
    answer(UFMT, *CODES)
    before = _columns(world)
    assert answer(UFMT, *CODES) == answer(CODES[0]) == answer(UFMT) == 0
    assert _columns(world) == before


_UNUSABLE: tuple[tuple[str, Any, str], ...] = (
    ("sigla", " " + "X" * 51, "sigla is text of 51 characters; allowed: text of at most 50 characters"),
    ("nome", "x" * 256, "nome is text of 256 characters; allowed: text of at most 255 characters"),
    ("codigoUnidadePai", 2**31, "allowed: a URI that ends in a code, digits, or a whole number, 1 to 2147483647"),
    ("codigoOrgaoEntidade", "-471", "allowed: a URI that ends in a code"),
    ("codigoCategoriaUnidade", 0, "allowed: a URI that ends in a code"),
)


@pytest.mark.parametrize(("key", "value", "said"), _UNUSABLE, ids=[key for key, _, _ in _UNUSABLE])
def test_a_row_that_cannot_be_used_ends_alike_alone_and_in_a_list(world: World, key: str, value: Any, said: str) -> None:
    world.have(*CODES)
    world.siorg.change(900, **{key: value})
    alone = world.sync(900)
    world.siorg.requests.clear()
    listed = world.sync(*CODES)
    assert world.siorg.requests == [f"structure {UFMT}"]
    assert said in alone["last_error"]
    assert alone["error_details"]["details"]["field"] == key
    for item in (alone, listed):
        ended = {name: item[name] for name in ("status", "attempts", "last_error", "error_details")}
        assert ended == {**ended, "status": "FAILED", "last_error": alone["last_error"], "error_details": alone["error_details"]}
    assert [world.statuses()[code] for code in CODES[1:]] == ["COMPLETED"] * 3


def test_an_answer_without_one_usable_row_fails_nothing(database_url: str) -> None:
    with SiorgServer("--synthetic", "20") as server, World(database_url) as world:
        env = job_environment(database_url, server.url, WORKER_MAX_RETRIES="1", WORKER_LINGER_SECS="0")
        run_job("discover", env=env)
        run_job("run", env=env)
        before = whole_tables(world.connection)
        for code in (UFMT, *world.units()):
            server.control("PUT", "unit", {"code": code, "verbatim": {"sigla": "X" * 51}})
        run_job("enqueue", *map(str, world.units()), env=env)
        run_job("run", env=env)
        waiting = world.rows("SELECT status, attempts, last_error FROM siorg_sync_queue WHERE status <> 'COMPLETED'")
        assert {(item["status"], item["attempts"]) for item in waiting} == {("PENDING", 0)}
        assert all("rows of SIORG's answer can be used, the first because sigla" in item["last_error"] for item in waiting)
        for code in (UFMT, *world.units()):
            server.control("PUT", "unit", {"code": code, "verbatim": {}})
        world.pauses_are_over()
        run_job("run", env=env)
        assert set(world.statuses().values()) == {"COMPLETED"}
        after = whole_tables(world.connection)
        assert after["siorg_history"] == before["siorg_history"]


_ODD_KEYS: tuple[dict[str, Any], ...] = (
    {"nome": 5}, {"nome": "x" * 256}, {"sigla": "X" * 51}, {"sigla": ["A"]}, {"codigoUnidadePai": 1e30},
    {"codigoUnidadePai": "abc"}, {"codigoOrgaoEntidade": -1}, {"codigoTipoUnidade": {}}, {"areaAtuacao": 7}, {"contato": "x"},
    {"contato": [{"telefone": {}}]}, {"endereco": [[1]]}, {"versaoConsulta": "tomorrow"}, {"operacao": "?"},
    {"codigoUnidade": None}, {"codigoCategoriaUnidade": 2**40},
)  # fmt: skip


def test_a_real_drain_over_odd_answers_torn_bodies_and_errors(database_url: str) -> None:
    with SiorgServer("--synthetic", "80") as server, World(database_url) as world:
        env = job_environment(
            database_url, server.url, WORKER_RETRY_BASE_DELAY_MS="10", WORKER_RETRY_MAX_DELAY_MS="50", WORKER_MAX_RETRIES="10"
        )
        run_job("discover", env=env)
        run_job("run", env=env)
        before = world.units()
        assert set(world.statuses().values()) == {"COMPLETED"}
        odd = dict(zip(sorted(before), _ODD_KEYS, strict=False))
        for code, keys in odd.items():
            server.control("PUT", "unit", {"code": code, "verbatim": keys})
        server.control("PUT", "faults", {"faults": "torn=0.05,garbage=0.05,status=503:0.05"})
        run_job("enqueue", *map(str, before), env=env)
        run_job("run", env=env)
        statuses = world.statuses()
        # Without its code a row in a list is nobody's, and alone it cannot be told from another unit's.
        assert {code: statuses[code] for code in odd} == dict.fromkeys(odd, "FAILED")
        assert {status for code, status in statuses.items() if code not in odd} == {"COMPLETED"}
        reasons = {code: world.items(code)[-1]["last_error"] for code in odd}
        assert all(next(iter(keys)) in reasons[code] for code, keys in odd.items()), json.dumps(reasons, indent=1)
        after = world.units()
        assert {code: _shown(unit) for code, unit in after.items()} == {code: _shown(unit) for code, unit in before.items()}
        assert len(world.rows("SELECT * FROM siorg_history WHERE entity_type = 'UNIT'")) == len(before)
