"""The class of a printed module: how each kind of activation keeps its parameters and meets its input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softknee._expression.module_parts import ModuleParameter, ModuleParts

# Values longer than this are written over several lines, no longer than that.
LONG, WIDTH = 80, 116

_KEEP = '''
    def _keep(self, name: str, value: Any, vector: bool, trainable: bool | tuple[str, ...]) -> None:
        """Make an attribute of a fixed number, a parameter or a buffer of anything else."""
        trained = trainable if isinstance(trainable, bool) else name in trainable
        if not trained and isinstance(value, (int, float)){alone}:
            setattr(self, name, float(value))
            return
        tensor = torch.as_tensor(value, dtype=torch.get_default_dtype()).detach().clone()
{expand}
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
{view}
'''
_PER_CHANNEL = {
    "alone": " and self.per_channel is None",
    "expand": """
        if self.per_channel is not None:
            tensor = tensor.unsqueeze(-1) if tensor.dim() == vector else tensor
            tensor = tensor.expand(*tensor.shape[:vector], self.per_channel).clone()
        elif not vector:""".lstrip("\n"),
    "view": """
        if self.per_channel is None:
            return value if vector else value.view(())
        return value.view(*value.shape, *[1] * self._after(x))""".lstrip("\n"),
}
_SHARED = {
    "alone": "",
    "expand": "        if not vector:",
    "view": "        return value if vector else value.view(())",
}
_AFTER = '''
    def _after(self, x: Tensor) -> int:
        """Return the number of dimensions behind that of the channels; a one-dimensional input is all channels."""
        return x.dim() - 1 - self.{dim} % x.dim() if x.dim() > 1 else 0
'''
_HALVES = '''
    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return gate and value; a one-dimensional input is one vector."""
        dim = self.dim if x.dim() > 1 else 0
        size = x.shape[dim]
        if size % 2:
            raise ValueError(f"dimension {dim} must be even to be halved, got an input of shape {tuple(x.shape)}")
        dim %= x.dim()
        if self.interleaved:
            first, second = x.unflatten(dim, (size // 2, 2)).unbind(dim + 1)
        else:
            first, second = x.chunk(2, dim)
        return (first, second) if self.gate_first else (second, first)
'''
_TYPES = {
    "per_channel": "int | None",
    "channel_dim": "int",
    "dim": "int",
    "gate_first": "bool",
    "interleaved": "bool",
}
_ABOUT = {
    "per_channel": "Number of channels, for separate parameters in each.",
    "channel_dim": "Dimension of the channels in the input.",
    "dim": "Dimension that it works along.",
    "gate_first": "Whether the gate is the first half.",
    "interleaved": "Whether gates and values alternate instead.",
}


def class_source(parts: ModuleParts) -> str:
    """Return the source of a module's class.

    Args:
        parts: What it is made of; `Any`, torch and the functions are in scope.

    Returns:
        The source.
    """
    return _PRINTERS[parts.kind](parts).text()


class _Class:
    """The class of an activation of one element; those of others differ in what is overridden."""

    # What counts how many parameters are drawn, and what that is.
    drawn_by = ("terms", "Number of terms.")
    # Attribute with the dimension of the channels.
    channel_dim = "channel_dim"
    per_channel = True
    takes = "x: Tensor"
    applies = "Apply it to a tensor of any shape."

    def __init__(self, parts: ModuleParts) -> None:
        self.parts = parts
        self.kept = [one for one in parts.parameters if not one.whole]

    def text(self) -> str:
        parts = self.parts
        about = fill(parts.about, WIDTH - 4, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        text = f'class {parts.name}(nn.Module):\n    """{about}{self.documentation()}"""\n'
        if parts.parameters or self.options():
            text += f"\n{self.init()}"
        return f"{text}\n{self.forward()}{self.helpers()}"

    def options(self) -> list[str]:
        """Return the options the module takes beside its parameters."""
        if self.kept:
            return ["per_channel", "channel_dim"]
        return ["channel_dim"] if self.parts.channelwise else []

    def arguments(self) -> list[str]:
        """Return what the function is called with."""
        return ["x", *self.values("x")]

    def before(self) -> list[str]:
        """Return what stands before the call."""
        return []

    def helpers(self) -> str:
        text = ""
        if self.kept:
            text += _KEEP.format(**(_PER_CHANNEL if self.per_channel else _SHARED))
        if (self.kept and self.per_channel) or self.parts.channelwise:
            text += _AFTER.format(dim=self.channel_dim)
        return text

    def values(self, like: str) -> list[str]:
        """Return the parameters as the function takes them."""
        return [
            f"self.{one.name}" if one.whole else f"self._fit(self.{one.name}, {like}, {one.vector})"
            for one in self.parts.parameters
        ]

    def documentation(self) -> str:
        arguments = {one.name: "Starting value." for one in self.parts.parameters if not one.drawn}
        arguments |= {one.name: "Whole number." for one in self.parts.parameters if one.whole}
        if self.parts.initialization:
            arguments |= {self.drawn_by[0]: self.drawn_by[1], "generator": "Source of drawn parameters."}
        if self._trainable():
            arguments["trainable"] = "Whether parameters are trained: all, none, or those named."
        arguments |= {option: _ABOUT[option] for option in self.options()}
        lines = [f"        {name}: {about}" for name, about in arguments.items()]
        return "\n\n    Args:\n" + "\n".join(lines) + "\n    " if lines else ""

    def init(self) -> str:
        parts = self.parts
        given = [one for one in parts.parameters if not one.drawn]
        # Arguments without a default come first; a function's own order counts for calls of it only.
        arguments = ["self", *map(_argument, sorted(given, key=lambda one: one.start is not None))]
        named = self._named()
        arguments += ["*", *named] if named else []
        body = ["super().__init__()", *(f"self.{option} = {option}" for option in self.options())]
        body += [f"drawn = {parts.initialization}"] if parts.initialization else []
        body += map(_kept, parts.parameters)
        head = "".join(f"        {argument},\n" for argument in arguments)
        return f"    def __init__(\n{head}    ) -> None:\n" + "".join(f"        {line}\n" for line in body)

    def _named(self) -> list[str]:
        """Return the arguments that are given by name."""
        parts, named = self.parts, []
        if parts.initialization:
            named.append(f"{self.drawn_by[0]}: int = {parts.terms}" if parts.terms else f"{self.drawn_by[0]}: int")
        if self._trainable():
            trained = tuple(one.name for one in parts.parameters if one.trained)
            named.append(f"trainable: bool | tuple[str, ...] = {literal(trained)}")
        named += [f"{option}: {_TYPES[option]} = {parts.options[option]!r}" for option in self.options()]
        if parts.initialization:
            named.append("generator: torch.Generator | None = None")
        return named

    def forward(self) -> str:
        parts, arguments, lines = self.parts, self.arguments(), self.before()
        if parts.channelwise:
            lines.append("count = x.shape[-1 - self._after(x)]")
            lines.append("channel = torch.arange(count, device=x.device).view(-1, *[1] * self._after(x))")
            arguments.append("channel=channel")
        if parts.sampled:
            lines += ["if self.training:", *(f"    {line}" for line in _return(parts.sampled, arguments))]
        lines += _return(parts.function, arguments)
        body = "".join(f"        {line}\n" for line in lines)
        return f'    def forward(self, {self.takes}) -> Tensor:\n        """{self.applies}"""\n{body}'

    def _trainable(self) -> bool:
        return any(not one.fixed for one in self.kept)


class _Gated(_Class):
    """The class of a gated pair."""

    channel_dim = "dim"
    takes = "x: Tensor, value: Tensor | None = None"
    applies = "Apply it to a gate and its value, or to a tensor with both in `dim`; the result is half as wide as that."

    def options(self) -> list[str]:
        return ["dim", "gate_first", "interleaved", *["per_channel"] * bool(self.kept)]

    def before(self) -> list[str]:
        return ["gate, value = self._halves(x) if value is None else (x, value)"]

    def arguments(self) -> list[str]:
        return ["gate", "value", *self.values("gate")]

    def helpers(self) -> str:
        return _HALVES + super().helpers()


class _Vector(_Class):
    """The class of an activation of all entries along a dimension."""

    drawn_by = ("channels", "Size of that dimension.")
    per_channel = False
    applies = "Apply it to the vectors along `dim`; a one-dimensional input is one vector."

    def options(self) -> list[str]:
        return ["dim"]

    def arguments(self) -> list[str]:
        return ["x", *self.values("x"), "dim=self.dim if x.dim() > 1 else 0"]


_PRINTERS = {"elementwise": _Class, "gated": _Gated, "vector": _Vector}


def literal(value: Any) -> str:
    """Return numbers, names, or nested tuples of them, as source; also numbers that Python has no literal for."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, Sequence):
        return f"({', '.join(map(literal, value))}{',' * (len(value) == 1)})"
    return repr(value) if not isinstance(value, float) or math.isfinite(value) else f'float("{value}")'


def _return(function: str, arguments: list[str]) -> list[str]:
    """Return the lines that return what a function does."""
    line = f"return {function}({', '.join(arguments)})"
    return [line] if len(line) <= WIDTH - 12 else [f"return {function}(", *(f"    {one}," for one in arguments), ")"]


def _kept(parameter: ModuleParameter) -> str:
    name = parameter.name
    if parameter.whole:
        return f"self.{name} = {name}"
    value = f'drawn["{name}"]' if parameter.drawn else name
    return f'self._keep("{name}", {value}, {parameter.vector}, {"()" if parameter.fixed else "trainable"})'


def _argument(parameter: ModuleParameter) -> str:
    start, kind = parameter.start, "int" if parameter.whole else "Any" if parameter.vector else "float | Tensor"
    if start is None:
        return f"{parameter.name}: {kind}"
    text = literal(start)
    if isinstance(start, Sequence) and len(text) > LONG:
        indent = " " * 12
        inner = fill(text[1:-1], WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        text = f"(\n{inner}\n        )"
    return f"{parameter.name}: {kind if not isinstance(start, Sequence) else 'Any'} = {text}"
