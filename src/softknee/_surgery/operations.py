"""The functions of torch by the part they can play in an activation, by their names without underscores."""

from __future__ import annotations

import operator
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import get_overridable_functions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

# Activations by themselves.
ACTIVATIONS = frozenset(
    {
        *("relu", "relu6", "elu", "selu", "celu", "leaky_relu", "prelu", "rrelu", "threshold", "gelu", "silu", "mish"),
        *("sigmoid", "special_expit", "tanh", "hardtanh", "hardswish", "hardsigmoid", "softplus", "softsign"),
        *("log_sigmoid", "logsigmoid", "hardshrink", "softshrink", "tanhshrink", "glu", "softmax"),
    }
)
# Functions of single elements that are part of activations written out, such as the error function.
PARTS = frozenset(
    {
        *("erf", "erfc", "exp", "expm1", "log", "log1p", "square", "pow", "sqrt", "abs", "clamp", "clamp_min"),
        *("sin", "cos", "arctan", "atan", "sinh", "cosh", "asinh", "reciprocal", "rsqrt", "special_erf"),
    }
)
# Straight lines where the other operand is a number, and where it is a tensor what joins two ways from the same input.
ARITHMETIC = frozenset({"add", "sub", "mul", "multiply", "div", "true_divide", "neg", "rsub", "rdiv", "pos"})
PRODUCTS = frozenset({"mul", "multiply", "div", "true_divide"})
SUMS = frozenset({"add", "sub", "rsub"})
JOINING = frozenset({"cat", "concat", "concatenate", "stack"})
POINTWISE = ACTIVATIONS - {"glu", "softmax"} | PARTS | ARITHMETIC
WATCHED = ACTIVATIONS | PARTS | ARITHMETIC
# Values between 0 and 1, with which other things are weighted.
SIGMOIDAL = frozenset({"sigmoid", "special_expit", "hardsigmoid", "hardsigmoid_keras"})
# The same elements under another shape or dtype, or left out at random.
RESHAPING = frozenset(
    {
        *("view", "reshape", "expand", "expand_as", "unsqueeze", "squeeze", "flatten", "unflatten", "contiguous"),
        *("clone", "to", "float", "double", "half", "bfloat16", "type", "type_as", "dropout", "detach"),
        *("dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout"),
        *("repeat", "broadcast_to", "getitem"),
    }
)
# Functions that lead to units in the last dimension, and in the one behind the batch.
LAST = frozenset({"linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "einsum", "bilinear", "embedding"})
# Those of them that lead to units in the last dimension but one where the weights stand first.
PRODUCTS_OF_MATRICES = frozenset({"matmul", "mm", "bmm"})
CONVOLUTIONS = {
    **{f"conv{n}d": n for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": n for n in (1, 2, 3)},
}
# Functions that take the dimension behind the batch for the channels.
NORMS = frozenset({"batch_norm", "instance_norm", "group_norm"})
# Functions that keep the order of the elements, and functions that show some of the same memory.
RESHAPED = frozenset(
    {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "ravel", "view_as", "reshape_as"}
)
VIEWS = frozenset(
    {"transpose", "permute", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "adjoint", "get", "getitem", "select"}
)
# Functions after which a dimension may stand elsewhere.
MOVING = RESHAPED | VIEWS | {"stack", "unfold", "fold", "pixel_shuffle", "pixel_unshuffle"}
# Functions whose activations are inside one kernel, and what is there.
FUSED = {
    "lstm": "the gates of an LSTM are inside one kernel",
    "gru": "the gates of a GRU are inside one kernel",
    "rnn_tanh": "the tanh of a recurrent network is inside one kernel",
    "rnn_relu": "the ReLU of a recurrent network is inside one kernel",
    "lstm_cell": "the gates of an LSTM cell are inside one kernel",
    "gru_cell": "the gates of a GRU cell are inside one kernel",
    "rnn_tanh_cell": "the tanh of a recurrent cell is inside one kernel",
    "rnn_relu_cell": "the ReLU of a recurrent cell is inside one kernel",
    "_transformer_encoder_layer_fwd": "the layer runs as one kernel",
}


# Where torch has its functions.
_SPACES = (torch, Tensor, F, torch._C._nn, torch._C._special, operator)  # type: ignore[attr-defined]
_FORMS = ("{}", "{}_", "_{}", "__{}__", "__i{}__", "__r{}__")
# Operators of Python that are called otherwise in torch.
_SYNONYMS = {"div": ("div", "truediv"), "rsub": ("rsub",), "rdiv": ("rdiv", "rtruediv")}


@cache
def _names() -> dict[Callable[..., Any], str]:
    """Return the one name of each function of torch that counts: of tensors, in place, as an operator."""
    names: dict[Callable[..., Any], str] = {}
    for name in sorted({*WATCHED, "getitem"}):
        forms = [form.format(one) for one in _SYNONYMS.get(name, (name,)) for form in _FORMS]
        found = (getattr(space, form, None) for form in forms for space in _SPACES)
        names.update((one, name) for one in found if callable(one))
        packets = (getattr(torch.ops.aten, form, None) for form in forms)
        names.update((getattr(one, which), name) for one in packets if one for which in one.overloads())
    return names


def functions(names: Collection[str]) -> tuple[tuple[Callable[..., Any], str], ...]:
    """Return all functions of torch that go by some names, each with its name."""
    return tuple((function, name) for function, name in _names().items() if name in names)


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function, without the underscores of its in-place, reflected or private form."""
    name = called(function)
    return _names().get(function) or (name if name in FUSED else name.strip("_"))


def called(function: Callable[..., Any]) -> str:
    """Return what a function is called, for operators of exported programs without what they are overloaded for."""
    return str(getattr(getattr(function, "overloadpacket", function), "__name__", ""))


@cache
def _overridable() -> frozenset[Callable[..., Any]]:
    return frozenset(chain.from_iterable(get_overridable_functions().values()))


def shown_by_compilers(function: Callable[..., Any]) -> bool:
    """Return whether compilers show a function to modes, as they do not `torch.relu_`, `F.tanh` or `F.hardswish`."""
    return function in _overridable() or isinstance(function, torch._ops.OpOverload)


def positional(args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments with tensors that were given by torch's usual names in their positions."""
    if args or "input" not in keywords:
        return args, keywords
    names = ("input", "other") if "other" in keywords else ("input",)
    return tuple(keywords[name] for name in names), {
        name: value for name, value in keywords.items() if name not in names
    }


def takes_expert(owner: nn.Module, args: tuple[Any, ...]) -> bool:
    """Return whether an index takes the weights of one expert out of a stack of a module's own."""
    stack, index = args
    one = isinstance(index, int) or (isinstance(index, Tensor) and index.dim() == 0 and not index.is_floating_point())
    return one and stack.dim() > 2 and len(stack) > 1 and any(stack is own for own in owner._parameters.values())


def is_in_place(name: str, arguments: dict[str, object]) -> bool:
    """Return whether a function overwrites its first argument."""
    assigns = name.startswith("__i") and name not in {"__invert__", "__index__", "__int__"}
    return (name.endswith("_") and not name.startswith("__")) or assigns or bool(arguments.get("inplace"))
