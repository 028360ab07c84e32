"""Mutants of named SQL: conditions left out or turned round, locks, order, bounds, what is written.

No parser of SQL: words, with the depth of brackets and CASEs at which they stand. Any test finds a mutant that
PostgreSQL refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from support.mutants.mutation import Mutation

_WORDS = r"'(?:[^']|'')*'|\{\{\w+\}\}|%\(\w+\)s|OPERATOR\([^)]*\)|[A-Za-z_][\w.]*|\d+"
_SIGNS = r"<=|>=|<>|::|\?\||#>>?|->>?|@>|\|\||[-+*/<>=(),?@|]"
_TOKEN = re.compile(f"{_WORDS}|{_SIGNS}")
_NAME = re.compile(r"-- name: (\w+)[ \t]*$", re.MULTILINE)
_COMMENT = re.compile(r"--[^\n]*")
_LOCK = re.compile(r"\bFOR (?:NO KEY UPDATE|UPDATE|SHARE)(?: OF \w+)?(?: SKIP LOCKED)?")
_WAITS = re.compile(r" SKIP LOCKED")

_BEGINS_CONDITION = {"WHERE", "ON", "WHEN", "HAVING"}
_JOINS = {"AND", "OR"}
_ENDS_CLAUSE = {
    "ORDER", "LIMIT", "GROUP", "FOR", "RETURNING", "UNION", "WHERE", "THEN", "ELSE", "WHEN", "HAVING", "ON", "JOIN", "LEFT",
    "CROSS", "FROM", "AS", "DO", "OFFSET", ",",
}  # fmt: skip
_OTHER = {
    "<=": "<", "<": "<=", ">=": ">", ">": ">=", "=": "<>", "<>": "=", "OPERATOR(pg_catalog.=)": "OPERATOR(pg_catalog.<>)",
    "OPERATOR(pg_catalog.<>)": "OPERATOR(pg_catalog.=)",
}  # fmt: skip
_FUNCTION = {"greatest": "least", "least": "greatest", "min": "max", "max": "min"}


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    start: int
    end: int
    depth: int


def mutations(source: str) -> list[Mutation]:
    """All of a file's, in its order."""
    names = list(_NAME.finditer(source))
    ends = [*(match.start() for match in names[1:]), len(source)]
    unique = {
        (mutation.start, mutation.end, mutation.text): mutation
        for name, end in zip(names, ends, strict=True)
        for mutation in _of_statement(source, name[1], name.end(), end)
    }
    return [unique[key] for key in sorted(unique)]


def _of_statement(source: str, name: str, start: int, end: int) -> Iterator[Mutation]:
    blank = _COMMENT.sub(lambda match: " " * len(match[0]), source[:end])
    tokens = _tokens(blank, start)
    for first, last in (*_conditions(tokens), *_whole_fragment(tokens)):
        yield from _of_condition(tokens, first, last, name)
    for match in _LOCK.finditer(blank, start):
        yield Mutation(match.start(), match.end(), "", name)
        if waits := _WAITS.search(match[0]):
            yield Mutation(match.start() + waits.start(), match.start() + waits.end(), "", name)
    for number, token in enumerate(tokens):
        after = tokens[number + 1 :]
        if token.text == "ORDER" and after and after[0].text == "BY":
            last = _clause(tokens, number + 2)
            yield Mutation(token.start, tokens[last].end, "", name)
            if tokens[last].text not in ("DESC", "ASC", "LAST", "FIRST"):
                yield Mutation(tokens[last].end, tokens[last].end, " DESC", name)
        elif token.text == "LIMIT" and after:
            yield Mutation(token.start, after[0].end, "", name)
        elif token.text in _FUNCTION and after and after[0].text == "(":
            yield Mutation(token.start, token.end, _FUNCTION[token.text], name)
        elif token.text == "UNION" and after and after[0].text != "ALL":
            yield Mutation(token.start, token.end, "UNION ALL", name)
        elif token.text == "SET" and after:
            yield from _of_assignments(tokens, number + 1, name)


def _tokens(text: str, start: int) -> list[_Token]:
    found, depth = [], 0
    for match in _TOKEN.finditer(text, start):
        word = match[0]
        depth -= word in (")", "END")
        found.append(_Token(word, match.start(), match.end(), depth))
        depth += word in ("(", "CASE")
    return found


def _clause(tokens: list[_Token], first: int) -> int:
    """Number of the last token of what begins at ``first``, up to the next clause or the closing bracket."""
    depth, last = tokens[first].depth, first
    for number in range(first, len(tokens)):
        token = tokens[number]
        if token.depth < depth or (token.depth == depth and token.text in _ENDS_CLAUSE - {",", "AS"}):
            break
        last = number
    return last


def _operand(tokens: list[_Token], first: int) -> int:
    """Number of the last token of the condition's part that begins at ``first``."""
    depth, last = tokens[first].depth, first
    for number in range(first, len(tokens)):
        token = tokens[number]
        if token.depth < depth or (token.depth == depth and number > first and token.text in _ENDS_CLAUSE | _JOINS):
            break
        last = number
    return last


def _conditions(tokens: list[_Token]) -> Iterator[tuple[int, int]]:
    """First and last token of each part of a condition."""
    for number, token in enumerate(tokens[:-1]):
        if token.text in _BEGINS_CONDITION or token.text in _JOINS:
            yield number + 1, _operand(tokens, number + 1)
        elif token.text == "(" and tokens[number + 1].text != ")":
            last = _operand(tokens, number + 1)
            if last + 1 < len(tokens) and tokens[last + 1].text in _JOINS and tokens[last + 1].depth == tokens[number + 1].depth:
                yield number + 1, last


def _whole_fragment(tokens: list[_Token]) -> Iterator[tuple[int, int]]:
    """A word of predicates.sql is a condition without a clause before it."""
    if tokens and tokens[0].text not in ("SELECT", "WITH", "UPDATE", "INSERT", "DELETE", "CASE"):
        last = _operand(tokens, 0)
        if tokens[0].text == "(" or any(token.text in _OTHER and token.depth == 0 for token in tokens[: last + 1]):
            yield 0, last


def _of_condition(tokens: list[_Token], first: int, last: int, name: str) -> Iterator[Mutation]:
    if first == last and tokens[first].text.startswith("'"):
        return  # CASE value WHEN 'word'
    start, end, depth = tokens[first].start, tokens[last].end, tokens[first].depth
    around = [tokens[number] for number in (first - 1, last + 1) if 0 <= number < len(tokens)]
    beside = {token.text for token in around if token.depth == depth}
    yield Mutation(start, end, "false" if "OR" in beside else "true", name)
    if "AND" in beside and "OR" in beside:
        yield Mutation(start, end, "true", name)
    for number in range(first, last + 1):
        token = tokens[number]
        if token.depth == depth and token.text in _OTHER:
            yield Mutation(token.start, token.end, _OTHER[token.text], name)
        elif token.depth == depth and token.text == "NOT":
            yield Mutation(token.start, token.end, "", name)
        elif token.depth == depth and token.text == "IS" and number < last and tokens[number + 1].text != "NOT":
            yield Mutation(token.start, token.end, "IS NOT", name)


def _of_assignments(tokens: list[_Token], first: int, name: str) -> Iterator[Mutation]:
    """Each column that is written, left as it was."""
    last = _clause(tokens, first)
    depth = tokens[first].depth
    commas = [number for number in range(first, last + 1) if tokens[number].text == "," and tokens[number].depth == depth]
    if not commas:
        return
    yield Mutation(tokens[first].start, tokens[commas[0]].end, "", name)
    for number, comma in enumerate(commas):
        following = commas[number + 1] - 1 if number + 1 < len(commas) else last
        yield Mutation(tokens[comma].start, tokens[following].end, "", name)
