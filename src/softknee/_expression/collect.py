"""The source of functions with everything of ours that they use, so that it can stand alone.

The text of the modules is read, nothing in it is executed: which names a definition uses, where each comes from, and
what that uses in turn. What is imported from elsewhere becomes an import, what is ours is copied.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from textwrap import dedent
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OURS = "softknee"
# What printed source may import beside Python's own library.
FREE = frozenset({"torch", *sys.stdlib_module_names})


class NotSelfContained(Exception):
    """A function is made in a way that its source alone does not tell."""


@dataclass
class Collection:
    """Definitions in an order in which they can be executed, and the imports they need.

    Attributes:
        taken: Names that mean something else where the definitions will stand.
        imports: Import statements.
        definitions: Source by name.
        origins: Module of each definition.
    """

    taken: frozenset[str] = frozenset()
    imports: set[str] = field(default_factory=set)
    definitions: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def add(self, function: Any) -> str:
        """Add a function and what it uses; all or nothing.

        Args:
            function: Defined at the top of a module.

        Returns:
            Its name.

        Raises:
            NotSelfContained: It is no such function, or uses something that cannot be copied.
        """
        name, module = getattr(function, "__name__", ""), getattr(function, "__module__", "")
        if getattr(sys.modules.get(module), name, None) is not function:
            raise NotSelfContained(f"{function!r} is not defined at the top of a module")
        trial = Collection(self.taken, {*self.imports}, {**self.definitions}, {**self.origins})
        trial.visit(module, name)
        self.imports, self.definitions, self.origins = trial.imports, trial.definitions, trial.origins
        return str(name)

    def visit(self, module: str, name: str) -> None:
        """Add the definition of a name in a module, those it uses first.

        Raises:
            NotSelfContained: There is none, or the name is taken.
        """
        source, statements = _statements(module)
        if name not in statements:
            raise NotSelfContained(f"{module} does not define {name}")
        statement = statements[name]
        if isinstance(statement, ast.Import | ast.ImportFrom):
            self._import(statement, name)
            return
        if name in self.taken or self.origins.get(name, module) != module:
            raise NotSelfContained(f"{name} would mean two things")
        if name in self.origins:
            return
        self.origins[name] = module
        for used in _names_in(statement):
            if used != name and (used in statements or not hasattr(builtins, used)):
                self.visit(module, used)
        self.definitions[name] = _text(source, statement)

    def _import(self, statement: ast.Import | ast.ImportFrom, name: str) -> None:
        alias = next(alias for alias in statement.names if (alias.asname or alias.name) == name)
        origin = (statement.module or "") if isinstance(statement, ast.ImportFrom) else alias.name
        root = origin.partition(".")[0]
        if root == OURS and isinstance(statement, ast.ImportFrom) and alias.asname in {None, alias.name}:
            self.visit(origin, alias.name)
        elif root in FREE:
            only = type(statement)(**{**dict(ast.iter_fields(statement)), "names": [alias]})
            self.imports.add(ast.unparse(only))
        else:
            raise NotSelfContained(f"{name} comes from {origin}")

    def text(self) -> str:
        """Return the definitions: values together, functions and classes with space around them."""
        text, after_value = "", False
        for source in self.definitions.values():
            value = not _is_block(source)
            gap = "\n" if value and after_value else "\n\n\n"
            text, after_value = (f"{text}{gap}{source}" if text else source), value
        return text


def _is_block(source: str) -> bool:
    code = next(line for line in source.splitlines() if not line.startswith("#"))
    return code.startswith(("def ", "class ", "@"))


def import_lines(statements: set[str]) -> str:
    """Return import statements sorted as is usual: Python's own library first, then torch."""

    def is_torch(line: str) -> bool:
        return line.split()[1].partition(".")[0] == "torch"

    def key(line: str) -> tuple[bool, str]:
        return line.startswith("from"), line

    merged = _merged(statements)
    own, torch = (sorted((line for line in merged if is_torch(line) == wanted), key=key) for wanted in (False, True))
    return "\n\n".join("\n".join(lines) for lines in (own, torch) if lines)


def _merged(statements: set[str]) -> list[str]:
    """Return one statement for each module that names are taken from."""
    names: dict[str, set[str]] = {}
    for line in statements:
        start, _, name = line.partition(" import ")
        if line.startswith("from"):
            names.setdefault(start, set()).add(name)
    plain = [line for line in statements if not line.startswith("from")]
    return plain + [f"{start} import {', '.join(sorted(found))}" for start, found in names.items()]


@lru_cache(maxsize=64)
def _statements(module: str) -> tuple[str, Mapping[str, ast.stmt]]:
    """Return the text of a module and its statements by the names they bind.

    Raises:
        NotSelfContained: The text is not there.
    """
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, KeyError, TypeError) as error:
        raise NotSelfContained(f"{module} has no source") from error
    return source, {name: statement for statement in _top(ast.parse(source).body) for name in _bound(statement)}


def _top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, also those for type checkers only."""
    for statement in body:
        if isinstance(statement, ast.If):
            yield from _top(statement.body)
        else:
            yield statement


def _bound(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [alias.asname or alias.name for alias in names]
        case ast.Assign(targets=targets):
            return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _names_in(statement: ast.stmt) -> list[str]:
    """Return the names a definition uses but does not make itself, in order of appearance."""
    nodes = [*ast.walk(statement)]
    own = {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node is not statement}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    used = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    return [name for name in dict.fromkeys(used) if name not in own]


def _text(source: str, statement: ast.stmt) -> str:
    """Return the lines of a statement, with decorators and the comment right above."""
    lines = source.splitlines()
    decorators = getattr(statement, "decorator_list", [])
    first = min([statement.lineno, *(decorator.lineno for decorator in decorators)]) - 1
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return dedent("\n".join(lines[first : statement.end_lineno]))
