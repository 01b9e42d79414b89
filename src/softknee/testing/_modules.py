"""What a module must survive: copies, compilers, transforms, precisions."""

from __future__ import annotations

import copy
import io
import pickle
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._engine.select import engine
from softknee._extras import require
from softknee.testing._case import cases
from softknee.testing._subject import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softknee.testing._case import Activation, Case


def check_copies(activation: Activation, example: Tensor | None = None, **values: Any) -> None:
    """Check that pickling, deep copies and the state dict bring the same module back.

    Args:
        activation: A spec, a name of the catalogue, or any module.
        example: An input for the module; needed where it is not elementwise.
        **values: As in `check_values`.

    Raises:
        AssertionError: One fails or changes the outputs.
    """
    for case in cases(activation, example, values):
        for check, way in _COPIES.items():
            _check_copy(case, check, way)


def check_safetensors(activation: Activation, example: Tensor | None = None, **values: Any) -> None:
    """Check that a file of safetensors brings the same module back.

    Args:
        activation: As in `check_copies`.
        example: As in `check_copies`.
        **values: As in `check_values`.

    Raises:
        AssertionError: It fails or changes the outputs.
    """
    safetensors = require("safetensors.torch", extra="dev")
    for case in cases(activation, example, values):
        _check_copy(
            case,
            "safetensors",
            lambda module: _refilled(module, safetensors.load(safetensors.save(module.state_dict()))),
        )


def _check_copy(case: Case, check: str, way: Callable[[nn.Module], nn.Module]) -> None:
    expected = case.module(case.x)
    with case.must(check):
        got = way(case.module)(case.x)
    case.same(check, got, expected)


def check_compiles(activation: Activation, example: Tensor | None = None, **values: Any) -> None:
    """Check `torch.compile(fullgraph=True, backend="aot_eager")`, forward and backward, where it is promised.

    Args:
        activation: As in `check_copies`.
        example: As in `check_copies`.
        **values: As in `check_values`.

    Raises:
        AssertionError: It breaks the graph, or changes values or gradients.
    """
    check_compiled(activation, example, backend="aot_eager", **values)


def check_compiled(activation: Activation, example: Tensor | None = None, *, backend: str, **values: Any) -> None:
    """Check `torch.compile(fullgraph=True)` with a backend, as `check_compiles` does.

    Args:
        activation: As in `check_copies`.
        example: As in `check_copies`.
        backend: One of PyTorch's.
        **values: As in `check_values`.

    Raises:
        AssertionError: It breaks the graph, or changes values or gradients.
    """
    for case in cases(activation, example, values)[-1:]:
        if not case.promises.compiles:
            continue
        # What is compiled are the formula's own operations, unless they are very many.
        with engine("eager"):
            expected = _with_gradients(case.module, case.x)
        torch._dynamo.reset()
        with case.must("compiles"):
            compiled = torch.compile(copy.deepcopy(case.module), fullgraph=True, backend=backend)
            got = _with_gradients(compiled, case.x)
        for one, other in zip(got, expected, strict=True):
            case.near("compiles", one, other)


def check_vmap(activation: Activation, example: Tensor | None = None, **values: Any) -> None:
    """Check `torch.func.vmap` of the module and, of a pointwise function, of its derivative, where it is promised.

    Args:
        activation: As in `check_copies`.
        example: As in `check_copies`.
        **values: As in `check_values`.

    Raises:
        AssertionError: It fails or changes values.
    """
    for case in cases(activation, example, values):
        if not case.promises.vmap:
            return
        expected = case.module(case.x)
        with case.must("vmap"):
            got = torch.func.vmap(case.module)(torch.stack([case.x, case.x]))
        case.near("vmap", got, torch.stack([expected, expected]))
    if isinstance(activation, nn.Module) or case.kind == "vector":
        return
    subject = Subject(activation, values)
    x = case.x.flatten().double()
    slope = torch.func.grad(lambda x: subject(x, subject.defaults).sum())
    with case.must("vmap"):
        mapped = torch.func.vmap(slope)(x)
    case.near("vmap", mapped, slope(x))


def check_functional_call(activation: Activation, example: Tensor | None = None, **values: Any) -> None:
    """Check that `torch.func.functional_call` with other parameters gives what a module with them gives.

    Args:
        activation: As in `check_copies`.
        example: As in `check_copies`.
        **values: As in `check_values`.

    Raises:
        AssertionError: It differs.
    """
    for case in cases(activation, example, values):
        moved = {name: 1.25 * tensor.detach() + 0.01 for name, tensor in case.module.named_parameters()}
        other = copy.deepcopy(case.module)
        other.load_state_dict(moved, strict=False)
        with case.must("functional_call"):
            got = torch.func.functional_call(case.module, moved, (case.x,))
        case.near("functional_call", got, other(case.x))


def check_dtypes(activation: Activation, example: Tensor | None = None, **values: Any) -> None:
    """Check every dtype: outputs and gradients have the input's, cast or not; autocast and the meta device work.

    Args:
        activation: As in `check_copies`.
        example: As in `check_copies`.
        **values: As in `check_values`.

    Raises:
        AssertionError: A dtype, a shape or, under autocast, a value differs, or one is not finite.
    """
    for case in cases(activation, example, values):
        expected = case.module(case.x)
        for dtype in (torch.float64, torch.bfloat16, torch.float16):
            cast = copy.deepcopy(case.module).to(dtype)
            # Ours take inputs of any dtype, whatever that of their parameters; others need not.
            for module in (case.module, cast) if case.kind else (cast,):
                with case.must(f"{dtype}"):
                    got, by_x, *by = _with_gradients(module, case.x.to(dtype))
                case.same("dtypes of output and gradient", (got.dtype, by_x.dtype), (dtype, dtype))
                wanted = [parameter.dtype for parameter in module.parameters() if parameter.requires_grad]
                case.same("dtypes of the parameters' gradients", [one.dtype for one in by], wanted)
                case.same(f"finite output in {dtype}", bool(got.isfinite().all()), True)
        with case.must("autocast"), torch.autocast("cpu", torch.bfloat16):
            got, half = case.module(case.x), case.module(case.x.bfloat16())
        case.near("autocast", got.to(expected.dtype), expected, roundings=torch.finfo(torch.bfloat16).eps)
        case.same("finite output under autocast", bool(half.isfinite().all()), True)
        with case.must("meta"):
            shape = copy.deepcopy(case.module).to("meta")(case.x.to("meta")).shape
        case.same("shape on meta", shape, expected.shape)


def check_exports(activation: Activation, example: Tensor | None = None, **values: Any) -> None:
    """Check `torch.export` with a dynamic batch, where compiling is promised.

    Args:
        activation: As in `check_copies`.
        example: As in `check_copies`.
        **values: As in `check_values`.

    Raises:
        AssertionError: It fails or changes values.
    """
    for case in cases(activation, example, values)[-1:]:
        if not case.promises.compiles:
            continue
        with case.must("export"):
            batch = torch.export.Dim.DYNAMIC
            program = torch.export.export(case.module, (case.x,), dynamic_shapes=({0: batch},))
            got = program.module()(case.x[:-1])
        case.near("export", got, case.module(case.x[:-1]))


def check_onnx(activation: Activation, example: Tensor | None = None, **values: Any) -> None:
    """Check that the ONNX exporter's model gives the same numbers in onnxruntime, where compiling is promised.

    Args:
        activation: As in `check_copies`.
        example: As in `check_copies`.
        **values: As in `check_values`.

    Raises:
        AssertionError: It fails or changes values.
    """
    runtime = require("onnxruntime", extra="dev")
    for case in cases(activation, example, values)[-1:]:
        if not case.promises.compiles:
            continue
        with case.must("onnx"):
            program: Any = torch.onnx.export(case.module, (case.x,), dynamo=True, verbose=False)
            session = runtime.InferenceSession(program.model_proto.SerializeToString())
            (got,) = session.run(None, {session.get_inputs()[0].name: case.x.numpy()})
        case.near("onnx", torch.from_numpy(got), case.module(case.x))


def _pickled(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))  # type: ignore[no-any-return]  # noqa: S301 (our own bytes)


def _reloaded(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    return _refilled(module, torch.load(file, weights_only=True))


def _refilled(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    fresh = copy.deepcopy(module)
    with torch.no_grad():
        for tensor in fresh.state_dict().values():
            tensor.fill_(1)
    fresh.load_state_dict(state)
    return fresh


_COPIES: Mapping[str, Callable[[nn.Module], nn.Module]] = MappingProxyType(
    {"pickle": _pickled, "deepcopy": copy.deepcopy, "state_dict": _reloaded}
)


def _with_gradients(module: Any, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    y = module(x)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    grads = torch.autograd.grad(y.square().sum(), [x, *trained], allow_unused=True, materialize_grads=True)
    return [y.detach(), *grads]
