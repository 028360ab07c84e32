"""``siorg-job organizations``: which organizations this database keeps. SIORG serves no CNPJ, so a person adds them."""

from __future__ import annotations

import argparse
import re
from typing import Any

import psycopg

from siorg_job.commands.context import CommandError, Context, Exit, integer, siorg_code
from siorg_queue import transaction

_LIST = """
SELECT o.siorg_code, o.acronym, o.name, o.cnpj, coalesce(o.is_active, true) AS is_active,
       (SELECT count(*) FROM organizational_units u WHERE u.organization_id = o.id AND u.is_active) AS units,
       (SELECT s.value #>> '{}' FROM system_settings s WHERE s.key = 'siorg_versao:' || o.siorg_code) AS version
FROM organizations o ORDER BY o.siorg_code
"""
_ADD = """
INSERT INTO organizations (siorg_code, acronym, name, cnpj, ug_code, is_main)
VALUES (%(code)s, %(acronym)s, %(name)s, %(cnpj)s, %(ug_code)s, false)
"""


def add_to(subparsers: Any) -> None:
    parser = subparsers.add_parser("organizations", help="list or add the organizations that are kept in line")
    parser.set_defaults(run=run_list)
    verbs = parser.add_subparsers(metavar="VERB")
    verbs.add_parser("list", help="what is registered").set_defaults(run=run_list)
    add = verbs.add_parser(
        "add",
        help="register one",
        description="Example: siorg-job organizations add 423 --acronym UFMG --name 'Universidade Federal de Minas Gerais'"
        " --cnpj 17217985000104 --ug-code 153062",
    )
    add.add_argument("code", type=siorg_code, help="SIORG code of the órgão or entidade")
    add.add_argument("--acronym", required=True, help="1 to 50 characters")
    add.add_argument("--name", required=True, help="1 to 255 characters; the first sync brings SIORG's")
    add.add_argument("--cnpj", required=True, help="14 digits, with or without punctuation")
    add.add_argument("--ug-code", required=True, type=integer(0, 999_999_999), help="Unidade Gestora (SIAFI), up to 6 digits")
    add.set_defaults(run=run_add)


def run_list(_: argparse.Namespace, context: Context) -> int:
    with context.database() as connection, transaction(connection):
        rows = connection.execute(_LIST).fetchall()
    for row in rows:
        state = "" if row["is_active"] else "  (inactive)"
        print(
            f"{row['siorg_code']:>8}  {row['acronym']:<12} {row['units']:>6} units  version {row['version'] or '-':<12}"
            f" {row['name']}{state}"
        )
    if not rows:
        print("no organization is registered: siorg-job organizations add")
    return Exit.DONE


def run_add(arguments: argparse.Namespace, context: Context) -> int:
    cnpj = re.sub(r"[./-]", "", arguments.cnpj)
    if not re.fullmatch(r"[0-9]{14}", cnpj):
        raise CommandError("--cnpj must have 14 digits, with or without punctuation")
    name, acronym = " ".join(arguments.name.split()), " ".join(arguments.acronym.split())
    if not 1 <= len(name) <= 255 or not 1 <= len(acronym) <= 50:
        raise CommandError("--name takes 1 to 255 characters, --acronym 1 to 50")
    values = {"code": arguments.code, "acronym": acronym, "name": name, "cnpj": cnpj, "ug_code": arguments.ug_code}
    with context.database() as connection:
        try:
            with transaction(connection):
                connection.execute(_ADD, values)
        except psycopg.errors.UniqueViolation as error:
            what = "CNPJ" if "cnpj" in (error.diag.constraint_name or "") else "SIORG code"
            raise CommandError(f"an organization with this {what} is registered already") from None
    print(f"registered {acronym} ({arguments.code}); siorg-job discover --organization {arguments.code} finds its units")
    return Exit.DONE
