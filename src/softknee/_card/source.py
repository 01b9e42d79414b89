"""Any activation of one element as source to paste into a project that has torch and nothing of ours."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from softknee._catalogue import get
from softknee._errors import UsageError
from softknee._expression.collect import Collection, NotSelfContained
from softknee._expression.nodes import VARIABLE
from softknee._expression.parse import parse
from softknee._expression.print_module import ModuleParameter, ModuleParts, formula_parts, module_source
from softknee._expression.tree import Expression
from softknee._expression.walk import vector_names
from softknee.nn.elementwise import Elementwise
from softknee.nn.formula import FUNCTIONS

if TYPE_CHECKING:
    import numpy as np

    from softknee._spec import Spec

UNNAMED = "Activation"


def source(activation: str | Expression | Elementwise, *, name: str | None = None) -> str:
    """Return the source of a module that needs torch alone.

    What is printed is the function that softknee itself evaluates, with all it uses. The module's state is laid out as
    that of softknee's own, so that trained parameters can be loaded.

    Args:
        activation: A name, a formula or a module. A module's present parameters become the starting values; those of a
            bare formula must be given when the printed module is made.
        name: Of the class; by default the activation's own, `Activation` for a formula.

    Returns:
        The text of a Python module.

    Raises:
        UsageError: There is no such activation, it looks at more than one element, or the name is none.
    """
    if isinstance(activation, Elementwise):
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
    parameters = tuple(
        ModuleParameter(
            name=param.name,
            start=param.default,
            trained=param.trainable,
            vector=param.vector,
            drawn=param.default is None and bool(spec.initializations),
        )
        for param in spec.parameters
    )
    return module_source(_parts(spec, parameters, name))


def _parts_of_module(module: Elementwise, name: str | None) -> ModuleParts:
    """Return the parts of a module as it is now."""
    trained = {one for one, _ in module.named_parameters()}
    values = module.named_values()
    parameters = tuple(
        ModuleParameter(
            name=param.name, start=_numbers(values[param.name]), trained=param.name in trained, vector=param.vector
        )
        for param in module.spec.parameters
    )
    layout = {"per_channel": module.per_channel, "channel_dim": module.channel_dim}
    return _parts(module.spec, parameters, name, **layout)


def _parts(spec: Spec, parameters: tuple[ModuleParameter, ...], name: str | None, **layout: Any) -> ModuleParts:
    """Return the parts of a spec's module.

    Raises:
        UsageError: It looks at more than one element.
    """
    if spec.kind != "elementwise":
        raise UsageError(f"{spec.name} is {spec.kind}; only activations of one element can be printed")
    if isinstance(spec.function, Expression):
        return formula_parts(spec.function.root, parameters, name or UNNAMED, **layout)
    name = name or spec.title
    collection = Collection(taken=frozenset({name}))
    try:
        return ModuleParts(
            name=name,
            about=f"`{spec.formula}`",
            function=collection.add(spec.function),
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
    if spec.channelwise or spec.sampled is not None or spec.surrogate or any(one.drawn for one in parameters):
        raise UsageError(f"{spec.name} cannot be printed: {reason}")
    expression = parse(spec.formula).simplify()
    by_name = {one.name: one for one in parameters}
    return formula_parts(expression.root, tuple(by_name[one] for one in expression.parameters), name, **layout)


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
    arguments = [*map(repr, given), "terms", "generator", *(f"{name}={value!r}" for name, value in named.items())]
    return f"{function}({', '.join(arguments)})"


def _numbers(value: Tensor | float) -> Any:
    """Return a parameter as plain numbers, with no more digits than its dtype has."""
    if not isinstance(value, Tensor):
        return value
    plain = value.detach().cpu().double().numpy() if value.dtype.itemsize < 4 else value.detach().cpu().numpy()
    return float(str(plain[0])) if plain.shape == (1,) else _nested(plain)


def _nested(values: np.ndarray[Any, Any]) -> Any:
    return tuple(map(_nested, values)) if values.ndim else float(str(values))
