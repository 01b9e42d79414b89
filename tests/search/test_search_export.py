"""What is exported of a found function computes what was found, and what is said about it is true."""

from __future__ import annotations

import ast
import json
import math

import pytest
import torch

from softknee._card.card import Card
from softknee._card.function import function_of
from softknee._errors import UsageError
from softknee._report.plain import plain
from softknee._search import export
from softknee._search.candidate import Function
from softknee._search.export_audit import audited
from softknee._search.export_source import class_names

FOUND = Function("sigmoid(a * x) * gelu(x) + min(max(x, -3.1622776601683795), 3.1622776601683795)**2", (("a", 1.2),))
TRAINED = Function("sigmoid(a * x) * gelu(x) + b", (("a", 1.2), ("b", -0.3)), trained=True)
X = torch.linspace(-12, 12, 4001, dtype=torch.float64)


def classes(source):
    """Run printed source where there is nothing but torch; what it imports, and what it defines."""
    tree = ast.parse(source)
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.partition(".")[0] for name in modules} <= {"__future__", "torch", "typing", "math", "collections"}
    made = {}
    exec(compile(source, "best.py", "exec"), made)
    return made


@pytest.mark.parametrize("function", [FOUND, TRAINED, Function("gelu"), Function("prelu"), Function("swish[beta=1.5]")])
def test_the_source_computes_the_function(function):
    made = classes(export.module_source({"all": function}))["Found"]().double()
    wanted = function.make().double()
    torch.testing.assert_close(made(X), wanted(X), rtol=1e-12, atol=1e-12)
    assert {name for name, _ in made.named_parameters()} == {name for name, _ in wanted.named_parameters()}


def test_groups_have_a_class_each_in_one_file_that_works():
    other = Function("silu(x) * b + gelu(x)", (("b", 2.0),), trained=True)
    functions = {"conv.1": TRAINED, "head": other, "2": TRAINED, "gate": Function("relu(x)")}
    source = export.module_source(functions)
    made = classes(source)
    names = class_names([*functions])
    for group, function in functions.items():
        torch.testing.assert_close(made[names[group]]().double()(X), function.make().double()(X))
    assert source.count("def gelu(") == 1
    assert source.count("from torch import Tensor, nn\n") == 1
    # Two formulas, of which one is used twice, and a third one.
    assert sum(line.startswith("def formula") for line in source.splitlines()) == 3


def test_classes_are_called_after_their_groups():
    assert class_names(["all"]) == {"all": "Found"}
    assert class_names(["conv.1", "conv1", "conv_1", "2", "none", "…"]) == {
        "conv.1": "Conv1",
        "conv1": "Conv1_2",
        "conv_1": "Conv1_3",
        "2": "Found2",
        "none": "FoundNone",
        "…": "Found",
    }


def test_nothing_cannot_be_printed():
    with pytest.raises(UsageError, match="there is no function to print"):
        export.module_source({})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("function", [FOUND, TRAINED, Function("prelu")])
def test_the_onnx_model_computes_the_function_at_any_size(function, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "best.onnx"
    assert export.to_onnx(function, path) < 1e-5
    session = runtime.InferenceSession(path)
    for shape in ((1, 7), (33, 2)):
        x = 4 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        wanted = function.make().double()(x.double()).detach()
        assert float(((torch.from_numpy(got) - wanted).abs() / (1 + wanted.abs())).max()) < 1e-5


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_model_that_is_off_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(UsageError, match=r"the ONNX model of gelu is off by .* from torch, .*; nothing was written"):
        export.to_onnx(Function("gelu"), tmp_path / "best.onnx")
    assert not [*tmp_path.iterdir()]


def audit(function):
    return plain(audited(Card(function_of(function.label))))


def formats(function):
    return {one["format"]: one for one in audit(function)["formats"]}


def test_the_audit_finds_where_numbers_end():
    found = formats(Function("x**10"))
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        most = torch.finfo(dtype).max
        end = min(most ** (1 / 10), (most / 10) ** (1 / 9))
        assert not found[name]["finite"]
        # Neighbours among the numbers that are looked at differ by at most a 128th.
        assert end <= abs(found[name]["first_not_finite"]) <= end * (1 + 2**-6)
    assert all(one["finite"] for one in formats(FOUND).values())


def test_the_audit_knows_slopes_and_lines():
    found = audit(Function("2 * softplus(x) - x"))
    assert found["asymptotes"] == {"left": {"slope": -1.0, "intercept": 0.0}, "right": {"slope": 1.0, "intercept": 0.0}}
    assert found["lipschitz"] == pytest.approx(1.0)
    assert all(one["steepest"] == pytest.approx(1.0, abs=0.01) for one in found["formats"])
    assert audit(Function("x**2"))["lipschitz"] is None
    squares = formats(Function("x**2"))
    assert squares["float32"]["largest"] == pytest.approx(1e8, rel=4e-3)
    assert squares["float16"]["first_not_finite"] == pytest.approx(-256, abs=1)
    dead = formats(Function("relu(x)"))["bfloat16"]
    assert dead["dead_low"] == pytest.approx(0.0, abs=1e-30)
    assert dead["dead_high"] is None


def test_the_audit_compares_with_float64():
    found = formats(Function("tanh(x)"))
    assert found["float32"]["error"] < 1e-6
    # Half of the distance between numbers just below 1, over 2.
    assert found["bfloat16"]["error"] == pytest.approx(2**-9 / 2, rel=0.6)


def test_a_function_is_described_in_plain_data():
    data = export.describe(FOUND, group="conv", sites=("a.b",), class_name="Conv", measured=False)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["text"] == FOUND.text
    assert data["constants"] == {"a": 1.2}
    assert not data["trained"]
    assert "class Conv(nn.Module)" in data["source"]
    assert data["recognised"] is data["cost"] is None
    lines = data["curves"]
    x = torch.tensor(lines["x"], dtype=torch.float64)
    wanted = FOUND.make().double()(x)
    assert lines["value"] == pytest.approx(wanted.tolist())
    assert all(len(lines[name]) == len(x) for name in ("value", "slope"))
    assert [one["name"] for one in data["relatives"]["curves"]][:3] == ["relu", "gelu", "silu"]
    assert all(len(one["value"]) == len(one["slope"]) == len(x) for one in data["relatives"]["curves"])
    assert export.describe(TRAINED, measured=False)["trained"]


@pytest.mark.parametrize(
    ("text", "name", "exact"),
    [
        ("gelu", "gelu", True),
        ("x * (1 + erf(x / sqrt(2))) / 2", "gelu", True),
        ("2 * relu(x) + 1", "relu", False),
        ("sigmoid(softplus(x)) * gelu(x)", None, None),
    ],
)
def test_known_functions_are_recognised(text, name, exact):
    found = export.describe(Function(text), measured=False)["recognised"]
    assert (found and found["name"], found and found["exact"]) == (name, exact)


def test_the_nearest_is_found_up_to_scale_and_shift():
    near = export.describe(Function("2 * gelu(x) + 1"), measured=False)["relatives"]
    first = near["nearest"][0]
    assert first["name"] == "gelu"
    assert (first["scale"], first["shift"], first["left"]) == pytest.approx((2.0, 1.0, 0.0), abs=1e-9)
    left = [one["left"] for one in near["nearest"]]
    assert left == sorted(left)
    # What coincides with it is no use in its plot.
    last = near["curves"][-1]
    assert last["name"] not in {"relu", "gelu", "silu", "xgelu", "gelu_tanh"}
    y = 2 * torch.nn.functional.gelu(X) + 1
    assert torch.tensor(last["value"]).max() < 1.1 * y.max()


def test_a_constant_is_like_nothing():
    near = export.describe(Function("0 * x + 2"), measured=False)["relatives"]
    assert near["nearest"] == []
    assert [one["name"] for one in near["curves"]] == ["relu", "gelu", "silu"]


def test_functions_of_more_than_one_element_are_described_without_curves():
    data = export.describe(Function("maxout"), measured=False)
    assert data["curves"] is data["audit"] is data["relatives"] is None
    assert export.sketch(Function("maxout")) == []


def test_sketches_are_values_from_minus_3_to_3():
    found = export.sketch(Function("log(x)"))
    assert len(found) == 49
    assert found[:24] == [None] * 24
    assert found[-1] == pytest.approx(math.log(3), rel=1e-3)


def test_cost_is_measured_against_the_usual_ones():
    found = export.cost_of(Function("gelu"))
    rows = [(one["activation"], one["engine"]) for one in found["costs"]]
    assert rows[:2] == [("gelu", "auto"), ("gelu", "eager")]
    assert {name for name, _ in rows} == {"gelu", "relu", "silu"}
    assert all(0 < one["both"] < 1e3 for one in found["costs"])
    assert found["machine"]["shape"] == [32, 64, 16, 16]
