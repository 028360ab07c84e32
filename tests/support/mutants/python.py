"""Mutants of Python: what is decided and done is changed, texts and what only tunes or tells are left alone."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator

from support.mutants.mutation import Mutation

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_COUNTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
_CALLED = {"min": "max", "max": "min", "any": "all", "all": "any"}
_TOLD = {"log", "logger", "metrics", "_metrics"}  # calls on these tell people something and decide nothing


def mutations(source: str) -> list[Mutation]:
    """All of a module's, in its order."""
    found = list(_Finder(source).functions(ast.parse(source), ""))
    return sorted(found, key=lambda mutation: (mutation.start, mutation.end, mutation.text))


class _Finder:
    def __init__(self, source: str) -> None:
        self._lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def functions(self, node: ast.AST, name: str) -> Iterator[Mutation]:
        """What a module and its classes say outside functions is declared: names, types, how long something waits."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                where = f"{name}{child.name}"
                for statement in child.body:
                    yield from self._within(statement, where)
            elif isinstance(child, ast.ClassDef):
                yield from self.functions(child, f"{name}{child.name}.")

    def _within(self, node: ast.AST, where: str) -> Iterator[Mutation]:
        if isinstance(node, ast.Expr) and (isinstance(node.value, ast.Constant) or _tells(node.value)):
            return
        for text in _variants(node):
            assert isinstance(node, ast.expr | ast.stmt)
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            start, end = self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)
            yield Mutation(start, end, text, where)
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "msg") or (isinstance(node, ast.Raise) and field == "exc"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr | ast.Assert):
                    yield from self._within(child, where)

    def _at(self, line: int, column: int) -> int:
        """Columns are counted in bytes."""
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())


def _variants(node: ast.AST) -> Iterator[str]:
    """Other texts for this very node."""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in _COMPARED:
            other = copy.deepcopy(node)
            other.ops = [_COMPARED[type(operator)]()]
            yield f"({ast.unparse(other)})"
        case ast.BoolOp(op=operator, values=values):
            swapped = copy.deepcopy(node)
            swapped.op = ast.Or() if isinstance(operator, ast.And) else ast.And()
            yield f"({ast.unparse(swapped)})"
            for number in range(len(values)):
                left = [value for position, value in enumerate(values) if position != number]
                yield f"({ast.unparse(left[0] if len(left) == 1 else ast.BoolOp(operator, left))})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield f"({ast.unparse(operand)})"
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _COUNTED:
            if not any(isinstance(side, ast.JoinedStr) or _is_text(side) for side in (left, right)):
                yield f"({ast.unparse(ast.BinOp(left, _COUNTED[type(operator)](), right))})"
        case ast.Constant(value=bool(value)):
            yield str(not value)
        case ast.Constant(value=int(value)):
            yield str(value + 1)
        case ast.Call(func=ast.Name(id=name)) if name in _CALLED:
            other_call = copy.deepcopy(node)
            other_call.func = ast.Name(_CALLED[name])
            yield ast.unparse(other_call)
        case ast.IfExp(body=body, orelse=orelse):
            yield f"({ast.unparse(body)})"
            yield f"({ast.unparse(orelse)})"
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Delete():
            yield "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "pass"
        case ast.Continue():
            yield "break"
        case ast.Break():
            yield "continue"
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield "return None"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _tells(node: ast.AST) -> bool:
    """A call that logs or counts for people."""
    while isinstance(node, ast.Call | ast.Attribute):
        if isinstance(node, ast.Attribute) and node.attr in _TOLD:
            return True
        node = node.func if isinstance(node, ast.Call) else node.value
    return isinstance(node, ast.Name) and node.id in _TOLD
