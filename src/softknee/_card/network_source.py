"""The source of an activation that has a small network."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from softknee._card import networks
from softknee._errors import UsageError
from softknee._expression.collect import Collection, NotSelfContained
from softknee._expression.parse import parse
from softknee._expression.print_class import literal
from softknee._expression.print_module import file_source
from softknee._expression.print_python import check_name, python_function
from softknee.nn.contextual import ATAC, DynamicReLU, FReLU, MetaACON
from softknee.nn.gated_mix import GatedMix
from softknee.nn.names import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._spec import Spec
    from softknee.nn.contextual import Contextual

_CLASSES: Mapping[type[Contextual], type] = {
    ours: getattr(networks, ours.__name__) for ours in (FReLU, DynamicReLU, MetaACON, ATAC, GatedMix)
}


def network_source(spec: Spec, name: str | None, module: Contextual | None = None) -> str:
    """Return the source of an activation with a network.

    Args:
        spec: The activation.
        name: Of the class; None for its own.
        module: One whose sizes and options become the defaults.

    Returns:
        The source.

    Raises:
        UsageError: It is none of the catalogue's, or the name is none.
    """
    ours = next((one for one in _CLASSES if one is type(module) or (module is None and one.spec is spec)), None)
    if ours is None:
        raise UsageError(f"{type(module).__name__} has a network of its own and cannot be printed")
    name = name or spec.title
    check_name(name)
    collection = Collection(taken=frozenset({name}) - {spec.title})
    try:
        experts = _experts(module.candidates, collection) if isinstance(module, GatedMix) else ""
        collection.add(_CLASSES[ours])
    except NotSelfContained as error:
        raise UsageError(f"{spec.name} cannot be printed: {error}") from None
    if experts:
        collection.definitions["EXPERTS"] = experts
    text = collection.definitions[spec.title].replace(f"class {spec.title}", f"class {name}", 1)
    collection.definitions[spec.title] = text if module is None else _with_defaults(text, _options(module))
    note = "" if module is None else "\n\nTrained weights are loaded into it by `load_state_dict`.\n"
    return file_source(name, collection, note=note)


def _options(module: Contextual) -> dict[str, Any]:
    """Return the options that make a module of the same sizes."""
    channels = module.channels
    options: dict[str, Any] = {}
    match module:
        case FReLU():
            options = {"kernel": module.conv.kernel_size[0], "spatial": module.spatial}
        case DynamicReLU():
            options = {"reduction": channels // module.fc1.out_features, "shared": module.shared}
        case MetaACON():
            trained = tuple(name for name, _ in module.named_parameters(recurse=False))
            # Also the least width of the hidden layer, which it thus has again.
            options = {"reduction": module.fc1.out_features, "batch_norm": module.batch_norm, "trainable": trained}
        case ATAC():
            options = {"reduction": channels // module.conv1.out_channels}
        case GatedMix():
            options = {"reduction": channels // module.fc1.out_features}
    return {"channels": channels, **options}


def _with_defaults(text: str, values: Mapping[str, Any]) -> str:
    """Return the source of a class with other defaults of its arguments."""
    init = next(node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    named = zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
    arguments = ["self", f"channels: int = {values['channels']}", "*"]
    for argument, default in named:
        value = values[argument.arg] if argument.arg in values else ast.literal_eval(default or "None")
        arguments.append(f"{ast.unparse(argument)} = {literal(value)}")
    head = ["    def __init__(", *(f"        {argument}," for argument in arguments), "    ) -> None:"]
    lines = text.splitlines()
    return "\n".join([*lines[: init.lineno - 1], *head, *lines[init.body[0].lineno - 1 :]])


def _experts(candidates: Sequence[str], collection: Collection) -> str:
    """Return a mixture's functions as source."""
    lines = [f"    lambda x: {_call(BY_NAME[name], collection)},\n" for name in candidates]
    return f"EXPERTS = (\n{''.join(lines)})"


def _call(spec: Spec, collection: Collection) -> str:
    """Return a call of an activation at its default parameters."""
    try:
        function = collection.add(spec.function)
    except NotSelfContained:
        function = f"{spec.name}_formula"
        names = [param.name for param in spec.parameters]
        collection.definitions[function] = python_function(parse(spec.formula).root, names, function, (), collection)
    return f"{function}({', '.join(['x', *(repr(param.default) for param in spec.parameters)])})"
