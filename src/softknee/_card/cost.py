"""What activations cost on this machine, against ReLU and against one copy of the tensor."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._catalogue import parse_choice
from softknee._engine.select import ENGINES, check_engine, engine
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Activation = Callable[[Tensor], Tensor]

SHAPE = (128, 64, 32, 32)
REPEATS = 9
BASE = "relu"
# Seconds of one measurement, at least.
SHORTEST = 1e-3


@dataclass(frozen=True)
class Cost:
    """The cost of one activation by one engine; ratios are medians over the repeats.

    Attributes:
        activation: Canonical text.
        engine: How it was asked to be evaluated: `"auto"`, or one engine.
        used: How it was evaluated on this tensor.
        forward: Time of the forward pass without gradients, over that of one copy of the tensor into memory that is
            there already, while an activation's result is fresh memory.
        forward_to_relu: The same over that of `torch.relu`.
        both: Time of forward and backward with all gradients, over ReLU's.
        saved_bytes: Memory kept for backward, in bytes an element.
        milliseconds: Time of forward and backward.
    """

    activation: str
    engine: str
    used: str
    forward: float
    forward_to_relu: float
    both: float
    saved_bytes: float
    milliseconds: float


def cost(
    *activations: str,
    shape: Sequence[int] = SHAPE,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    engines: Sequence[str] = ENGINES,
    repeats: int = REPEATS,
    seed: int = 0,
) -> list[Cost]:
    """Measure activations on this machine, interleaved with ReLU and a copy in one run.

    Args:
        *activations: As on the command line: names, names with options, formulas.
        shape: Of the tensor, drawn from a standard normal; channels in dimension 1.
        device: For example `"cpu"` or `"cuda"`.
        dtype: Of the tensor.
        engines: Which of `"auto"`, `"eager"`, `"fused"`, `"table"` to measure; ones that cannot run are left out.
        repeats: How often each is timed.
        seed: Of the tensor and of drawn parameters.

    Returns:
        One entry for each activation and engine.

    Raises:
        UsageError: Or a subclass, where an argument is not as it should be.
    """
    _check(activations, shape, device, engines, repeats)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator).to(device, dtype)
    subjects = _subjects(activations, x, engines, seed)
    runs: dict[Any, Callable[[], Any]] = {
        "copy": partial(torch.empty_like(x).copy_, x),
        **{("forward", key): _forward(act, how, x) for key, (act, how) in subjects.items()},
        **{("both", key): forward_backward(act, x, how) for key, (act, how) in subjects.items()},
    }
    seconds = interleaved(runs, repeats=repeats, synchronize=torch.cuda.synchronize if x.is_cuda else None)
    base = (BASE, "eager")
    result = []
    for key, (act, how) in subjects.items():
        if key == base:
            continue
        with engine(how):
            used = getattr(act, "engine_for", lambda _: "eager")(x)
        result.append(
            Cost(
                *key,
                used,
                ratio(seconds[("forward", key)], seconds["copy"]),
                ratio(seconds[("forward", key)], seconds[("forward", base)]),
                ratio(seconds[("both", key)], seconds[("both", base)]),
                saved_bytes(act, x, how),
                1e3 * median(seconds[("both", key)]),
            )
        )
    return result


def interleaved(
    runs: Mapping[Any, Callable[[], Any]], *, repeats: int, synchronize: Callable[[], None] | None = None
) -> dict[Any, list[float]]:
    """Time several things in turn, so that what disturbs the machine disturbs them alike.

    Args:
        runs: What to time, by name; each is called beforehand.
        repeats: How many rounds.
        synchronize: Waits for a device, before the clock is read.

    Returns:
        Seconds of each round, by name.
    """
    wait = synchronize or (lambda: None)

    def timed(run: Callable[[], Any], number: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(number):
            run()
        wait()
        return (time.perf_counter() - start) / number

    numbers = {}
    for name, run in runs.items():
        run()
        # Short ones are repeated, so that neither the clock nor cold caches weigh in.
        numbers[name] = max(1, round(SHORTEST / max(timed(run, 1), 1e-9)))
    seconds: dict[Any, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            seconds[name].append(timed(run, numbers[name]))
    return seconds


def ratio(seconds: Sequence[float], base: Sequence[float]) -> float:
    """Return the median of the ratios round by round."""
    return median(one / other for one, other in zip(seconds, base, strict=True))


def forward_backward(activation: Activation, x: Tensor, how: str = "auto") -> Callable[[], None]:
    """Return what runs an activation forward and backward, with the gradients of its input and parameters.

    Args:
        activation: A module or function.
        x: Input.
        how: Engine to force, `"auto"` for the activation's own choice.

    Returns:
        A function without arguments.
    """
    x = x.detach().requires_grad_()
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x)
    trained = [p for p in getattr(activation, "parameters", list)() if p.requires_grad]

    def run() -> None:
        with engine(how):
            torch.autograd.backward(activation(x), g)
        x.grad = None
        for parameter in trained:
            parameter.grad = None

    return run


def saved_bytes(activation: Activation, x: Tensor, how: str = "auto") -> float:
    """Return the memory that an activation keeps for its backward pass, in bytes an element; views count once."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.numel() >= x.numel():
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with engine(how), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        activation(x.detach().requires_grad_())
    return sum(kept.values()) / x.numel()


def _subjects(
    activations: Sequence[str], x: Tensor, engines: Sequence[str], seed: int
) -> dict[tuple[str, str], tuple[Activation, str]]:
    subjects: dict[tuple[str, str], tuple[Activation, str]] = {(BASE, "eager"): (F.relu, "auto")}
    channels = x.shape[min(1, x.dim() - 1)]
    for text in activations:
        choice = parse_choice(text)
        module = choice.build(channels=channels, generator=torch.Generator().manual_seed(seed)).to(x.device)
        for how in engines:
            with engine(how):
                able = how in {"auto", module.engine_for(x)}
            if able:
                subjects[choice.label, how] = (module, how)
    return subjects


def _forward(activation: Activation, how: str, x: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.no_grad(), engine(how):
            return activation(x)

    return run


def _check(activations: Sequence[str], shape: Sequence[int], device: str, engines: Sequence[str], repeats: int) -> None:
    if not activations:
        raise UsageError("name at least one activation, for example gelu")
    if not shape or any(size < 1 for size in shape):
        raise UsageError(f"shape must be whole numbers of at least 1, got {'x'.join(map(str, shape))!r}")
    if repeats < 1:
        raise UsageError(f"repeats must be at least 1, got {repeats}")
    for name in engines:
        check_engine(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from None
