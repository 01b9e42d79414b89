"""Several printed modules as one file: shared definitions once, names that would clash renamed."""

from __future__ import annotations

import ast
import io
import keyword
import re
import tokenize
from typing import TYPE_CHECKING

from softknee._expression.collect import import_lines
from softknee._report.table import listed
from softknee._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SINGLE = "Found"


def class_names(groups: Sequence[str]) -> dict[str, str]:
    """Return a class name for each group of sites.

    Args:
        groups: Their names.

    Returns:
        `Found` for a single one; otherwise words of the groups' names joined, different for each.
    """
    if len(groups) == 1:
        return {groups[0]: SINGLE}
    names: dict[str, str] = {}
    for group in groups:
        words = re.findall(r"[A-Za-z0-9]+", group)
        base = "".join(word[0].upper() + word[1:] for word in words)
        if not base.isidentifier() or keyword.iskeyword(base):
            base = f"{SINGLE}{base}"
        taken, name, number = set(names.values()), base, 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        names[group] = name
    return names


def merged(names: Sequence[str], sources: Sequence[str]) -> str:
    """Return printed modules as one file.

    Args:
        names: Of their classes, all different.
        sources: Their texts.

    Returns:
        The text of one Python module. Definitions that are the same stand in it once; of those with the same name that
        are not, later ones get a number.
    """
    imports: set[str] = set()
    blocks: dict[str, str] = {}
    for number, source in enumerate(sources, 1):
        found = _blocks(source, imports)
        for name, block in _without_clashes(found, blocks, number).items():
            blocks.setdefault(name, block)
    about = f'"""{listed(names)}, printed by softknee {__version__}; they need torch alone."""'
    head = [about, "from __future__ import annotations", import_lines(imports)]
    return "\n\n".join(head) + "".join(f"\n\n\n{block}" for block in blocks.values()) + "\n"


def _blocks(source: str, imports: set[str]) -> dict[str, str]:
    """Return the definitions of a module by the names they bind, with the comments above; collect its imports."""
    lines, found, end = source.splitlines(), {}, 0
    for statement in ast.parse(source).body:
        block = "\n".join(lines[end : statement.end_lineno]).strip("\n")
        end = statement.end_lineno or end
        match statement:
            case ast.Import(names=aliases):
                imports.update(f"import {ast.unparse(alias)}" for alias in aliases)
            case ast.ImportFrom(module=module, names=aliases) if module != "__future__":
                imports.update(f"from {module} import {ast.unparse(alias)}" for alias in aliases)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = block
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = block
    return found


def _without_clashes(found: Mapping[str, str], known: Mapping[str, str], number: int) -> dict[str, str]:
    """Rename what has the name of something else; what uses it is something else too, then."""
    renames: dict[str, str] = {}
    while True:
        blocks = {name: _renamed(block, renames) for name, block in found.items()}
        clashing = {name for name, block in blocks.items() if name not in renames and known.get(name, block) != block}
        if not clashing:
            return {renames.get(name, name): block for name, block in blocks.items()}
        renames |= {name: f"{name}_{number}" for name in clashing}


def _renamed(block: str, renames: Mapping[str, str]) -> str:
    """Return source with names replaced where they stand for definitions: not as attributes, not in texts."""
    if not renames:
        return block
    lines, last = block.splitlines(), ""
    changes = []
    for token in tokenize.generate_tokens(io.StringIO(block).readline):
        if token.type == tokenize.NAME and token.string in renames and last != ".":
            changes.append((token.start, token.end, renames[token.string]))
        last = token.string
    for (row, start), (_, end), text in reversed(changes):
        line = lines[row - 1]
        lines[row - 1] = line[:start] + text + line[end:]
    return "\n".join(lines)
