"""Any activation as source to paste into a project that has torch and nothing of ours."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from softknee._card.network_source import network_source
from softknee._catalogue import get
from softknee._errors import UsageError
from softknee._expression.collect import Collection, NotSelfContained
from softknee._expression.module_parts import ModuleParameter, ModuleParts
from softknee._expression.nodes import VARIABLE
from softknee._expression.parse import parse
from softknee._expression.print_class import literal
from softknee._expression.print_module import formula_parts, module_source
from softknee._expression.print_python import python_function
from softknee._expression.tree import Expression
from softknee._expression.walk import vector_names
from softknee.nn.activation import Activation
from softknee.nn.contextual import Contextual
from softknee.nn.elementwise import Elementwise
from softknee.nn.formula import FUNCTIONS
from softknee.nn.gated import Gated
from softknee.nn.options import can_be_trained, stored
from softknee.nn.vector import Vector

if TYPE_CHECKING:
    import numpy as np

    from softknee._spec import Param, Spec

UNNAMED = "Activation"
# Options that say where in its input a module of each class finds what it looks at.
_LAYOUTS: dict[type[Activation], tuple[str, ...]] = {
    Elementwise: ("per_channel", "channel_dim"),
    Gated: ("dim", "gate_first", "interleaved", "per_channel"),
    Vector: ("dim",),
}
# Names of functions that are made here.
MADE = ("formula", "function")
# What the docstring says a module of each kind is.
_ABOUT = {
    "elementwise": "`{0.formula}`",
    "gated": "`{0.formula}` of the gate `x` and the value, both in the input.",
    "vector": "{0.title}: {0.formula}.",
}


def source(activation: str | Expression | Activation, *, name: str | None = None) -> str:
    """Return the source of a module that needs torch alone.

    What is printed is the function that softknee itself evaluates, with all it uses. The module's state is laid out as
    that of softknee's own, so that trained parameters can be loaded; the range of tables, of which nothing is left, is
    no part of it.

    Args:
        activation: A name, a formula or a module. A module's present parameters become the starting values, but for
            the weights of small networks, which are loaded from its state; those of a bare formula must be given when
            the printed module is made.
        name: Of the class; by default the activation's own, `Activation` for a formula.

    Returns:
        The text of a Python module.

    Raises:
        UsageError: There is no such activation, it computes something that its source does not tell, or the name is
            none.
    """
    if isinstance(activation, Contextual):
        return network_source(activation.spec, name, activation)
    if isinstance(activation, Activation):
        return module_source(_parts_of_module(activation, name))
    if isinstance(activation, str) and (not activation.isidentifier() or activation == VARIABLE):
        activation = parse(activation, FUNCTIONS)
    if isinstance(activation, Expression):
        parameters = tuple(
            ModuleParameter(name=one, vector=one in vector_names(activation.root)) for one in activation.parameters
        )
        return module_source(formula_parts(activation.root, parameters, name or UNNAMED))
    if not isinstance(activation, str):
        raise UsageError(
            f"activation must be a name, a formula or a module of softknee, got {type(activation).__name__}"
        )
    spec = get(activation)
    if spec.kind == "contextual":
        return network_source(spec, name)
    return module_source(_parts_of_spec(spec, name))


def _parts_of_spec(spec: Spec, name: str | None) -> ModuleParts:
    """Return the parts of a module as it comes."""
    parameters = tuple(
        _parameter(param, param.default, param.trainable, drawn=param.default is None and bool(spec.initializations))
        for param in stored(spec)
    )
    usual = {
        "per_channel": None,
        "channel_dim": 1,
        "dim": spec.dim,
        "gate_first": spec.gate_first,
        "interleaved": False,
    }
    return _parts(spec, parameters, name, usual)


def _parts_of_module(module: Activation, name: str | None) -> ModuleParts:
    """Return the parts of a module as it is now.

    Raises:
        UsageError: It does something of its own, or has no values.
    """
    base = next((base for base in _LAYOUTS if type(module).forward is base.forward), None)
    if base is None:
        raise UsageError(f"{type(module).__name__} has a forward of its own and cannot be printed")
    trained = {one for one, _ in module.named_parameters()}
    values = module.named_values()
    if any(isinstance(value, Tensor) and value.is_meta for value in values.values()):
        raise UsageError(f"{type(module).__name__} is on the meta device and has no values; move it to one with memory")
    parameters = tuple(
        _parameter(param, _numbers(values[param.name], param.name in trained), param.name in trained)
        for param in stored(module.spec)
    )
    return _parts(module.spec, parameters, name, {option: getattr(module, option) for option in _LAYOUTS[base]})


def _parameter(param: Param, start: Any, trained: bool, *, drawn: bool = False) -> ModuleParameter:
    return ModuleParameter(
        name=param.name,
        start=start,
        trained=trained,
        vector=param.vector,
        drawn=drawn,
        whole=param.integer,
        fixed=not can_be_trained(param),
    )


def _parts(
    spec: Spec, parameters: tuple[ModuleParameter, ...], name: str | None, options: dict[str, Any]
) -> ModuleParts:
    """Return the parts of a spec's module."""
    layout: dict[str, Any] = {"kind": spec.kind, "options": options}
    if isinstance(spec.function, Expression):
        return formula_parts(spec.function.root, parameters, name or UNNAMED, **layout)
    name = name or spec.title
    collection = Collection(taken=frozenset({name, *MADE}))
    try:
        return ModuleParts(
            name=name,
            about=_ABOUT[spec.kind].format(spec),
            function=_function(spec.function, collection),
            parameters=parameters,
            sampled=collection.add(spec.sampled) if spec.sampled is not None else "",
            channelwise=spec.channelwise,
            initialization=_initialization(spec, collection) if any(one.drawn for one in parameters) else "",
            terms=spec.terms,
            collection=collection,
            **layout,
        )
    except NotSelfContained as error:
        return _parts_of_formula(spec, parameters, name, str(error), layout)


def _parts_of_formula(
    spec: Spec, parameters: tuple[ModuleParameter, ...], name: str, reason: str, layout: dict[str, Any]
) -> ModuleParts:
    """Return the parts of a module that evaluates the formula text of a spec.

    Raises:
        UsageError: The formula is not all there is to it.
    """
    more = spec.channelwise or spec.sampled is not None or spec.surrogate or any(one.drawn for one in parameters)
    if more or spec.kind == "vector":
        raise UsageError(f"{spec.name} cannot be printed: {reason}")
    return formula_parts(parse(spec.formula, FUNCTIONS).simplify().root, parameters, name, **layout)


def _function(function: Any, collection: Collection) -> str:
    """Return the name of a function; of an object that computes, one it is given.

    Raises:
        NotSelfContained: It is made in a way that its source does not tell.
    """
    text = _value(function, collection)
    if text.isidentifier():
        return text
    collection.definitions["function"] = f"function = {text}"
    return "function"


def _value(value: Any, collection: Collection) -> str:
    """Return a function, a number or an object made of them as source.

    Raises:
        NotSelfContained: It is made in a way that its source does not tell.
    """
    if isinstance(value, bool | int | float | str):
        return literal(value)
    if isinstance(value, Expression):
        vectors = vector_names(value.root)
        collection.definitions["formula"] = python_function(
            value.root, value.parameters, "formula", vectors, collection
        )
        return "formula"
    if is_dataclass(value) and not isinstance(value, type):
        made = collection.add(type(value))
        parts = [f"{field.name}={_value(getattr(value, field.name), collection)}" for field in fields(value)]
        return f"{made}({', '.join(parts)})"
    return collection.add(value)


def _initialization(spec: Spec, collection: Collection) -> str:
    """Return the source of a call that draws the parameters; also that of a function with some arguments given.

    Raises:
        NotSelfContained: The arguments are no plain values.
    """
    draw = next(iter(spec.initializations.values()))
    given, named = (draw.args, draw.keywords) if isinstance(draw, partial) else ((), {})
    if not all(isinstance(value, str | float | int) for value in (*given, *named.values())):
        raise NotSelfContained(f"{draw!r} has arguments that are no plain values")
    function = collection.add(draw.func if isinstance(draw, partial) else draw)
    count = "channels" if spec.kind == "vector" else "terms"
    arguments = [*map(repr, given), count, "generator", *(f"{name}={value!r}" for name, value in named.items())]
    return f"{function}({', '.join(arguments)})"


def _numbers(value: Tensor | float, trained: bool) -> Any:
    """Return a parameter as plain numbers, with no more digits than its dtype has; a buffer stays a vector."""
    if not isinstance(value, Tensor):
        return value
    plain = value.detach().cpu().double().numpy() if value.dtype.itemsize < 4 else value.detach().cpu().numpy()
    return float(str(plain[0])) if trained and plain.shape == (1,) else _nested(plain)


def _nested(values: np.ndarray[Any, Any]) -> Any:
    return tuple(map(_nested, values)) if values.ndim else float(str(values))
