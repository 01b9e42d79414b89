"""What a found function is, in plain data and in files: formula, source, curve, numeric audit, cost, ONNX."""

from __future__ import annotations

import io
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import torch

from softknee._card.card import Card
from softknee._card.card_figures import curves
from softknee._card.cost_table import cost_report
from softknee._card.function import function_of
from softknee._card.recognise import recognise
from softknee._card.source import source
from softknee._catalogue import parse_choice
from softknee._errors import SoftkneeError, UsageError
from softknee._expression.parse import parse
from softknee._extras import require
from softknee._report.files import write_atomic
from softknee._report.plain import plain
from softknee._search.export_audit import audited
from softknee._search.export_relatives import relatives
from softknee._search.export_source import class_names, merged
from softknee.functional import SPECS
from softknee.nn.formula import FUNCTIONS

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from softknee._catalogue import Choice
    from softknee._search.candidate import Function
    from softknee.nn.activation import Activation

# Points of a curve in the size of a word, and how far it goes.
SKETCH, REACH = 49, 3.0
# The tensor that costs are measured on, and how often: a second or two in all.
SHAPE, REPEATS = (32, 64, 16, 16), 7
# By softknee's own choice, and as the printed source does it: by plain torch.
HOW = ("auto", "eager")
COMPARED = ("relu", "gelu", "silu")
# Facts of a card that are not in the audit and not about layers of a network.
FACTS = ("properties", "smoothness", "monotonic", "extremes", "gain")
# Largest error of a model in ONNX, relative where values are large.
TOLERANCE = 1e-5


def describe(
    function: Function,
    *,
    group: str = "all",
    sites: Sequence[str] = (),
    class_name: str = "Found",
    measured: bool = True,
) -> dict[str, Any]:
    """Return all that a page says about one function, as plain data.

    Args:
        function: With the values of its constants.
        group: Name of the sites it is for.
        sites: Their paths in the model.
        class_name: Of the class in its source.
        measured: Whether its cost is measured on this machine, which takes a second or two.

    Returns:
        `group`, `sites`, `class_name`, `text`, `formula`, `latex`, `constants`, `trained`, `recognised` (or None) and
        `source`; then `curves`, `relatives`, `facts`, `audit` and `cost`, None where a function looks at more than one
        element.
    """
    choice = _choice(function)
    known: dict[str, Any] = {
        "group": group,
        "sites": [*sites],
        "class_name": class_name,
        "text": function.text,
        "formula": choice.spec.formula,
        "latex": latex_of(choice),
        "constants": _constants(choice),
        "trained": any(parameter.requires_grad for parameter in function.make().parameters()),
        "recognised": None,
        "source": _source(function, class_name),
    }
    if choice.spec.kind != "elementwise":
        return {**known, **dict.fromkeys(("curves", "relatives", "facts", "audit", "cost"))}
    card = Card(function_of(choice.label))
    shown = curves(card)
    return plain(
        {
            **known,
            "recognised": _recognised(choice),
            "curves": {
                "reach": shown.reach,
                "x": shown.x,
                "value": shown.value,
                "slope": shown.slope,
                "values": shown.values,
                "slopes": shown.slopes,
            },
            "relatives": relatives(card, shown.x),
            "facts": {name: card.facts[name] for name in FACTS if name in card.facts},
            "audit": audited(card),
            "cost": cost_of(function) if measured else None,
        }
    )


def sketch(function: Function) -> list[float | None]:
    """Return a function's values from -3 to 3 for a curve in the size of a word.

    Args:
        function: With the values of its constants.

    Returns:
        49 values of four digits, None where they are not finite; none where it looks at more than one element.
    """
    choice = _choice(function)
    if choice.spec.kind != "elementwise":
        return []
    x = torch.linspace(-REACH, REACH, SKETCH, dtype=torch.float64)
    values = function_of(choice.label)(x)[:, 0].tolist()
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]


def cost_of(function: Function, *, device: str = "cpu") -> dict[str, Any]:
    """Measure time and memory of a function and of ReLU, GELU and SiLU on this machine, interleaved.

    Args:
        function: Of one element.
        device: Where.

    Returns:
        `machine` and `costs`, as `softknee cost` writes them; the function comes first.

    Raises:
        UsageError: The device cannot be used.
    """
    label = _choice(function).label
    others = [name for name in COMPARED if name != label]
    report = cost_report([label, *others], SHAPE, device=device, repeats=REPEATS, engines=HOW)
    return {"machine": dict(report.machine), "costs": [asdict(one) for one in report.costs]}


def latex_of(choice: Choice) -> str:
    """Return the formula of a function as LaTeX, empty where it is only described.

    Args:
        choice: The function.
    """
    return "" if choice.spec.statement is not None else parse(choice.spec.formula, FUNCTIONS).to_latex()


def module_source(functions: Mapping[str, Function]) -> str:
    """Return the source of one class for each group of sites that needs torch alone.

    Args:
        functions: By group.

    Returns:
        The text of a Python module. A single class is called `Found`, several after their groups.

    Raises:
        UsageError: A function computes something that its source does not tell, or there is none.
    """
    if not functions:
        raise UsageError("there is no function to print")
    names = class_names([*functions])
    texts = [source(_made(function), name=names[group]) for group, function in functions.items()]
    return texts[0] if len(texts) == 1 else merged([*names.values()], texts)


def to_onnx(function: Function, path: str | os.PathLike[str]) -> float:
    """Write a function as an ONNX model of one input `(batch, features)`, float32, and check its numbers.

    Args:
        function: To export, with the present values of its constants.
        path: The file; replaced as a whole, and only by a model that agrees.

    Returns:
        The largest difference from torch on [-100, 100], relative where values are large.

    Raises:
        MissingExtra: onnx, onnxscript or onnxruntime is not installed.
        UsageError: The model in ONNX gives other numbers.
        OSError: The file cannot be written.
    """
    for module in ("onnx", "onnxscript"):
        require(module, extra="onnx")
    runtime = require("onnxruntime", extra="onnx")
    act = function.make().eval()
    near, far = torch.linspace(-10, 10, 2000), torch.linspace(-100, 100, 2000)
    x = torch.stack([near, far])
    sizes = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    program: Any = torch.onnx.export(act, (x,), dynamo=True, verbose=False, dynamic_shapes=sizes)
    file = io.BytesIO()
    program.save(file)
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        wanted = act(x)
    error = float(((torch.from_numpy(got) - wanted).abs() / (1 + wanted.abs())).max())
    if not error < TOLERANCE:
        raise UsageError(
            f"the ONNX model of {function.text} is off by {error:.2g} from torch, more than {TOLERANCE:g}; "
            "nothing was written"
        )
    write_atomic(path, file.getvalue())
    return error


def _made(function: Function) -> Activation:
    """Return a module of a function; whatever the catalogue makes is one of ours."""
    return cast("Activation", function.make())


def _choice(function: Function) -> Choice:
    """Return a function as on the command line, with the values of its constants."""
    values = ",".join(f"{name}={value!r}" for name, value in function.constants)
    return parse_choice(f"{function.text}[{values}]" if values else function.text)


def _constants(choice: Choice) -> dict[str, float]:
    """Return the numbers behind the names of a formula, those it comes with too."""
    given = dict(choice.options)
    values = {one.name: given.get(one.name, one.default) for one in choice.spec.parameters if not one.vector}
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def _recognised(choice: Choice) -> dict[str, Any] | None:
    """Return which activation of the catalogue a formula is."""
    if choice.what.isidentifier():
        return {"name": choice.what, "title": choice.spec.title, "text": choice.label, "exact": True}
    match = recognise(choice.what, SPECS, **_constants(choice))
    if match is None:
        return None
    title = parse_choice(match.name).spec.title
    return {"name": match.name, "title": title, "text": str(match), "exact": str(match) == match.name}


def _source(function: Function, name: str) -> str:
    """Return the source of a function's module; empty where it cannot be printed."""
    try:
        return source(_made(function), name=name)
    except SoftkneeError:
        return ""
