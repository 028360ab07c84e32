"""Every command that a page names exists, with the options that it is given there."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench
import siorg_job.__main__ as job
import siorg_operator.__main__ as operator
import siorg_simulator.__main__ as simulator
from support.pages import PAGES, Page, name
from support.siorg_server import REPOSITORY

PARSERS = {"siorg-job": job.parser(), "siorg-operator": operator.parser()}
PLACEHOLDERS = {"ID": "00000000-0000-0000-0000-000000000000", "CODE": "471", "N": "1", "DAYS": "30"}
GRAMMAR = re.compile(r"[…\[\]|<>]")
"""What makes a text a form and not a command."""


def commands(page: Page) -> Iterator[list[str]]:
    """The words of each command of ours that the page names: in a block, behind ``kubectl exec … --``, or within a line."""
    for text in [*page.shell_lines(), *page.spans]:
        match = re.search(r"(?:^|\s|--\s)((?:siorg-(?:job|operator|simulator)|make)(?:\s.*)?)$", text.partition(" #")[0].strip())
        if match is None or GRAMMAR.search(match[1]):
            continue
        yield [PLACEHOLDERS.get(word, word) for word in shlex.split(match[1])]
    for text in page.shell_lines():
        if match := re.search(r"siorg-job:\S+ (\w[\w -]*)$", text.partition(" #")[0].strip()):
            yield ["siorg-job", *match[1].split()]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z0-9-]*):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def is_a_name(parser: argparse.ArgumentParser, words: list[str]) -> bool:
    """Whether the words are the name of a command and nothing more: what it needs besides, the sentence says."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and words[0] in action.choices:
            return len(words) == 1 or is_a_name(action.choices[words[0]], words[1:])
    return False


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_command_is_one(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for program, *words in commands(Page.of(path)):
        if program == "make":
            assert {word for word in words if "=" not in word} <= targets(), words
            if words[:1] == ["bench"]:
                given = "".join(word.removeprefix("ARGS=") for word in words if word.startswith("ARGS="))
                bench.arguments_parser().parse_args(shlex.split(given))
        elif program in PARSERS and words and not {"--help", "--version"} & set(words) and not is_a_name(PARSERS[program], words):
            try:
                PARSERS[program].parse_args(words)
            except (SystemExit, argparse.ArgumentError):
                pytest.fail(f"{path.name}: {program} {shlex.join(words)}: {capsys.readouterr().err}")


def test_commands_are_found_at_all() -> None:
    found = [command for path in PAGES for command in commands(Page.of(path))]
    assert len(found) > 100
    assert {command[0] for command in found} == {"siorg-job", "siorg-operator", "siorg-simulator", "make"}
    assert simulator.__doc__


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_a_wrong_command_would_be_seen(path: Path, tmp_path: Path) -> None:
    wrong = Page(path, f"{path.read_text()}\n`siorg-job retry --everything`\n")
    assert ["siorg-job", "retry", "--everything"] in list(commands(wrong))
