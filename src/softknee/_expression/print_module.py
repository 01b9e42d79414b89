"""An activation as the source of a module that needs torch alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import nn

from softknee._errors import UsageError
from softknee._expression.collect import Collection, import_lines
from softknee._expression.print_python import check_name, python_function
from softknee._expression.walk import vector_names
from softknee._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._expression.nodes import Node

    Start = float | Sequence[float] | Sequence[Sequence[float]] | None

# What the printed module has beside its parameters.
OWN = frozenset({"per_channel", "channel_dim", "_keep", "_fit", "_after"})
RESERVED = frozenset({*dir(nn.Module()), *OWN})

_KEEP = '''
    def _keep(self, name: str, value: Any, vector: bool, trainable: bool | tuple[str, ...]) -> None:
        """Make an attribute of a fixed number, a parameter or a buffer of anything else."""
        trained = trainable if isinstance(trainable, bool) else name in trainable
        if not trained and isinstance(value, (int, float)) and self.per_channel is None:
            setattr(self, name, float(value))
            return
        tensor = torch.as_tensor(value, dtype=torch.get_default_dtype()).detach().clone()
        if self.per_channel is not None:
            tensor = tensor.unsqueeze(-1) if tensor.dim() == vector else tensor
            tensor = tensor.expand(*tensor.shape[:vector], self.per_channel).clone()
        elif not vector:
            tensor = tensor.reshape(1)
        if trained:
            self.register_parameter(name, nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)

    def _fit(self, value: Any, x: Tensor, vector: bool) -> Any:
        """Return a parameter in a shape that broadcasts against x."""
        if isinstance(value, float):
            return value
        value = value.to(x.dtype)
        if self.per_channel is None:
            return value if vector else value.view(())
        return value.view(*value.shape, *[1] * self._after(x))
'''
_AFTER = '''
    def _after(self, x: Tensor) -> int:
        """Return the number of dimensions behind that of the channels; a one-dimensional input is all channels."""
        return x.dim() - 1 - self.channel_dim % x.dim() if x.dim() > 1 else 0
'''


@dataclass(frozen=True, kw_only=True)
class ModuleParameter:
    """A parameter of the module.

    Attributes:
        name: Of the argument and the attribute.
        start: Its value unless another is given; None where one must be given or where it is drawn.
        trained: Whether it is trained unless told otherwise.
        vector: Whether it has several entries.
        drawn: Whether the initialization returns it.
    """

    name: str
    start: Start = None
    trained: bool = True
    vector: bool = False
    drawn: bool = False


@dataclass(frozen=True, kw_only=True)
class ModuleParts:
    """What a module is made of.

    Attributes:
        name: Of the class.
        about: What it is, for the docstring.
        function: Called with the input and the parameters.
        parameters: In the order of the function's arguments.
        sampled: Called in training instead, if anything.
        channelwise: Whether the function takes `channel=`.
        initialization: Expression in `terms` and `generator` that gives drawn parameters by name.
        terms: Number of terms unless another is given.
        per_channel: Channels with parameters of their own unless told otherwise.
        channel_dim: Dimension of the channels unless told otherwise.
        collection: The functions and what they use.
    """

    name: str
    about: str
    function: str
    parameters: tuple[ModuleParameter, ...] = ()
    sampled: str = ""
    channelwise: bool = False
    initialization: str = ""
    terms: int = 0
    per_channel: int | None = None
    channel_dim: int = 1
    collection: Collection = field(default_factory=Collection)


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
    *,
    per_channel: int | None = None,
    channel_dim: int = 1,
) -> ModuleParts:
    """Return what the module of a formula is made of.

    Args:
        root: The formula.
        parameters: One for each name other than `x`.
        name: Of the class.
        per_channel: As in `ModuleParts`.
        channel_dim: As in `ModuleParts`.

    Returns:
        Its parts.
    """
    check_name(name)
    collection = Collection(taken=frozenset({name, "formula"}))
    vectors = {parameter.name for parameter in parameters if parameter.vector}
    source = python_function(root, [parameter.name for parameter in parameters], "formula", vectors, collection)
    collection.definitions["formula"] = source
    return ModuleParts(
        name=name,
        about=f"`{root}`",
        function="formula",
        parameters=parameters,
        per_channel=per_channel,
        channel_dim=channel_dim,
        collection=collection,
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
    taken = [parameter.name for parameter in parts.parameters if parameter.name in RESERVED]
    if taken:
        raise UsageError(f"{taken[0]!r} cannot name a parameter, for every module has it already")
    imports = {*parts.collection.imports, "import torch", "from torch import Tensor", "from torch import nn"}
    imports |= {"from typing import Any"} if parts.parameters else set()
    return "\n\n".join(
        [
            f'"""{parts.name}, printed by softknee {__version__}; it needs torch alone."""',
            "from __future__ import annotations",
            f"{import_lines(imports)}\n",
            f"{parts.collection.text()}\n",
            _class(parts),
        ]
    )


def _class(parts: ModuleParts) -> str:
    text = f'class {parts.name}(nn.Module):\n    """{parts.about}{_documentation(parts)}"""\n'
    if parts.parameters or parts.channelwise:
        text += f"\n{_init(parts)}"
    text += f"\n{_forward(parts)}"
    text += _KEEP if parts.parameters else ""
    return text + (_AFTER if parts.parameters or parts.channelwise else "")


def _documentation(parts: ModuleParts) -> str:
    arguments = {parameter.name: "Starting value." for parameter in parts.parameters if not parameter.drawn}
    if parts.initialization:
        arguments |= {"terms": "Number of terms.", "generator": "Source of drawn parameters."}
    if parts.parameters:
        arguments["trainable"] = "Whether parameters are trained: all, none, or those named."
        arguments["per_channel"] = "Number of channels, for separate parameters in each."
    if parts.parameters or parts.channelwise:
        arguments["channel_dim"] = "Dimension of the channels in the input."
    lines = [f"        {name}: {about}" for name, about in arguments.items()]
    return "\n\n    Args:\n" + "\n".join(lines) + "\n    " if lines else ""


def _init(parts: ModuleParts) -> str:
    given = [parameter for parameter in parts.parameters if not parameter.drawn]
    trained = _quoted(*(parameter.name for parameter in parts.parameters if parameter.trained))
    # Arguments without a default come first; a function's own order counts for calls of it only.
    arguments = [_argument(one) for one in sorted(given, key=lambda one: one.start is not None)]
    arguments += [f"terms: int = {parts.terms}"] if parts.initialization else []
    arguments += ["*"]
    if parts.parameters:
        arguments += [
            f"trainable: bool | tuple[str, ...] = ({trained})",
            f"per_channel: int | None = {parts.per_channel}",
        ]
    arguments += [f"channel_dim: int = {parts.channel_dim}"]
    arguments += ["generator: torch.Generator | None = None"] if parts.initialization else []
    body = ["super().__init__()", "self.channel_dim = channel_dim"]
    body += ["self.per_channel = per_channel"] if parts.parameters else []
    body += [f"drawn = {parts.initialization}"] if parts.initialization else []
    for parameter in parts.parameters:
        name = _quoted(parameter.name).rstrip(",")
        value = f"drawn[{name}]" if parameter.drawn else parameter.name
        body.append(f"self._keep({name}, {value}, {parameter.vector}, trainable)")
    head = "".join(f"        {argument},\n" for argument in ("self", *arguments))
    return f"    def __init__(\n{head}    ) -> None:\n" + "".join(f"        {line}\n" for line in body)


def _quoted(*names: str) -> str:
    """Return names as the inside of a tuple."""
    return ", ".join(f'"{name}"' for name in names) + "," * (len(names) == 1)


def _argument(parameter: ModuleParameter) -> str:
    kind = "Any" if parameter.vector else "float | Tensor"
    return f"{parameter.name}: {kind}" + ("" if parameter.start is None else f" = {parameter.start!r}")


def _forward(parts: ModuleParts) -> str:
    values = [f"self._fit(self.{one.name}, x, {one.vector})" for one in parts.parameters]
    lines = []
    if parts.channelwise:
        lines.append("count = x.shape[-1 - self._after(x)]")
        lines.append("channel = torch.arange(count, device=x.device).view(-1, *[1] * self._after(x))")
        values.append("channel=channel")
    arguments = ", ".join(["x", *values])
    if parts.sampled:
        lines += ["if self.training:", f"    return {parts.sampled}({arguments})"]
    lines.append(f"return {parts.function}({arguments})")
    body = "".join(f"        {line}\n" for line in lines)
    return f'    def forward(self, x: Tensor) -> Tensor:\n        """Apply it to a tensor of any shape."""\n{body}'
