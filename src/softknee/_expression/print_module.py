"""An activation as the source of a module that needs torch alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from softknee._errors import UsageError
from softknee._expression.collect import Collection, import_lines
from softknee._expression.module_parts import ModuleParameter, ModuleParts
from softknee._expression.print_class import class_source
from softknee._expression.print_python import check_name, python_function
from softknee._expression.walk import vector_names
from softknee._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from softknee._expression.module_parts import Start
    from softknee._expression.nodes import Node

# What a printed module has beside its parameters: attributes, arguments, methods.
OWN = {
    "elementwise": {"per_channel", "channel_dim", "_after"},
    "gated": {"per_channel", "dim", "gate_first", "interleaved", "_after", "_halves"},
    "vector": {"dim"},
}
EVERY = frozenset({*dir(nn.Module()), "self", "trainable", "_keep", "_fit"})


def expression_module(root: Node, parameters: Sequence[str], name: str, values: Mapping[str, Start]) -> str:
    """Return a formula as the source of a module with trained parameters.

    Args:
        root: The formula.
        parameters: Its names other than `x`.
        name: Of the class.
        values: Starting values; parameters without one need it when the module is made.

    Returns:
        The source.

    Raises:
        UsageError: The name is none, or a value belongs to no parameter.
    """
    unknown = [given for given in values if given not in parameters]
    if unknown:
        raise UsageError(f"{root} has no parameter {unknown[0]!r}; it has {', '.join(parameters) or 'none'}")
    made = tuple(
        ModuleParameter(name=one, start=values.get(one), vector=one in vector_names(root)) for one in parameters
    )
    return module_source(formula_parts(root, made, name))


def formula_parts(
    root: Node,
    parameters: tuple[ModuleParameter, ...],
    name: str,
    **layout: Any,
) -> ModuleParts:
    """Return what the module of a formula is made of.

    Args:
        root: The formula.
        parameters: One for each name other than `x`, and for each that a gated pair has beside `value`.
        name: Of the class.
        **layout: `kind` and `options`, as in `ModuleParts`.

    Returns:
        Its parts.
    """
    check_name(name)
    collection = Collection(taken=frozenset({name, "formula"}))
    vectors = {parameter.name for parameter in parameters if parameter.vector}
    names = [*["value"] * (layout.get("kind") == "gated"), *(parameter.name for parameter in parameters)]
    source = python_function(root, names, "formula", vectors, collection)
    collection.definitions["formula"] = source
    return ModuleParts(
        name=name,
        about=f"`{root}`",
        function="formula",
        parameters=parameters,
        collection=collection,
        **layout,
    )


def module_source(parts: ModuleParts) -> str:
    """Return the source of a module.

    Args:
        parts: What it is made of.

    Returns:
        The source.

    Raises:
        UsageError: A parameter has the name of something that every module has.
    """
    check_name(parts.name)
    taken = [one.name for one in parts.parameters if one.name in EVERY | OWN[parts.kind]]
    if taken:
        raise UsageError(f"{taken[0]!r} cannot name a parameter, for every module has it already")
    imports = {"from typing import Any"} if any(not one.whole for one in parts.parameters) else set()
    return file_source(parts.name, parts.collection, class_source(parts), imports)


def file_source(
    name: str, collection: Collection, text: str = "", imports: AbstractSet[str] = frozenset(), *, note: str = ""
) -> str:
    """Return a module's class with what it uses as a file.

    Args:
        name: Of the class.
        collection: What it uses, and itself where `text` is empty.
        text: The class.
        imports: Import statements that it needs beside torch and those of the collection.
        note: What else the file says at its top.

    Returns:
        The source.
    """
    every = {*collection.imports, *imports, "import torch", "from torch import Tensor", "from torch import nn"}
    about = f"{name}, printed by softknee {__version__}; it needs torch alone."
    head = [f'"""{about}{note}"""', "from __future__ import annotations", import_lines(every)]
    body = [collection.text(), *[text.rstrip("\n")] * bool(text)]
    return "\n\n".join(head) + "".join(f"\n\n\n{part}" for part in body) + "\n"
