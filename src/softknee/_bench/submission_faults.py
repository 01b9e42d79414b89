"""What can be wrong with a submission, found by its use in the model of a setting. For child processes only."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from softknee._bench.model import BUILDERS, activation_sites, count_costs, example_shape
from softknee._bench.streams import Stream, stream_generator
from softknee._bench.submission import read_submission
from softknee._bench.submission_module import CLASS, DRY_BATCH, build_lazy, load_class, make
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from softknee._bench.protocol import Recipe

# Inputs of the last check are normal with this deviation: what layers without norms give, and more.
DEVIATION = 3.0
# Examples of the evaluation: another number than that of training, since the last batch is a smaller one.
EVALUATED = 3


def examine(path: Path, recipe: Recipe, *, seed: int, stage: Callable[[str], None]) -> dict[str, Any]:
    """Use a submission as a run does: import it, build the model, take a step, evaluate.

    Args:
        path: Of the file.
        recipe: With the model.
        seed: Of the model, and of inputs.
        stage: Told what comes next, since the submission may not come back from it.

    Returns:
        `problem`, a sentence about the submission, if there is one; else `sites`, `parameters` and those of
        activations, and how many of them were built by the dry forward pass.
    """
    try:
        return _examined(path, recipe, seed, stage)
    except UsageError as error:
        return {"problem": str(error)}


def _examined(path: Path, recipe: Recipe, seed: int, stage: Callable[[str], None]) -> dict[str, Any]:
    submission, shape = read_submission(path), example_shape(recipe)
    noise = stream_generator(seed, Stream.NOISE)
    stage("while it was imported")
    with _blamed(path, "importing it"):
        load_class(path)
    stage("while it was made")
    with _blamed(path, f"{CLASS}(), which gets no arguments,"):
        made = make(submission)
    early = sum(parameter.numel() for parameter in made.parameters() if not is_lazy(parameter))
    model = BUILDERS[recipe.model](recipe, submission, seed=seed)
    sites = activation_sites(model)
    hooks = [site.register_forward_hook(_look(name)) for name, site in sites.items()]
    stage("in the first forward pass")
    with _blamed(path, "the first forward pass"):
        build_lazy(model, shape=shape, seed=seed)
    stage("in a training step")
    with _blamed(path, "a training step"):
        model.train()(torch.rand(DRY_BATCH, *shape, generator=noise)).square().mean().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            raise UsageError(f"the gradient of {name} is not finite in the first training step")
    stage("in an evaluation")
    with _blamed(path, "an evaluation"), torch.no_grad():
        seen = _evaluate(model, sites, torch.rand(EVALUATED, *shape, generator=noise))
        for name, site in sites.items():
            site(DEVIATION * torch.randn(seen[name], generator=noise))
        for hook in hooks:
            hook.remove()
        counts = count_costs(model, shape=shape)
    trained = counts["activation_parameters"] or 0
    return {
        "sites": len(sites),
        "parameters": counts["parameters"],
        "activation_parameters": trained,
        "built_late": trained - early * len(sites),
    }


def _evaluate(model: nn.Module, sites: dict[str, nn.Module], x: Tensor) -> dict[str, tuple[int, ...]]:
    """Evaluate a model and return the shapes of what its activations got."""
    seen: dict[str, tuple[int, ...]] = {}

    def note(name: str, given: tuple[Tensor, ...]) -> None:
        seen.setdefault(name, tuple(given[0].shape))

    hooks = [
        site.register_forward_pre_hook(lambda _, given, name=name: note(name, given)) for name, site in sites.items()
    ]
    model.eval()(x)
    for hook in hooks:
        hook.remove()
    return seen


def _look(site: str) -> Callable[[nn.Module, tuple[Tensor, ...], Any], None]:
    """Return a hook that refuses outputs that cannot stand in the place of their inputs."""

    def look(_: nn.Module, given: tuple[Tensor, ...], made: Any) -> None:
        x = given[0]
        if not isinstance(made, Tensor):
            raise UsageError(f"at {site} it returned {type(made).__name__}, not a tensor")
        for what in ("shape", "device", "dtype"):
            before, after = (_plain(getattr(tensor, what)) for tensor in (x, made))
            if before != after:
                raise UsageError(f"at {site} it changed the {what} from {before} to {after}")
        if not made.isfinite().all():
            raise UsageError(f"at {site} it returned NaN or infinity for inputs in a normal range")

    return look


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, torch.Size) else value


@contextmanager
def _blamed(path: Path, doing: str) -> Iterator[None]:
    """Turn what the submission raises into a sentence with its line.

    Raises:
        UsageError: It raised something.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
        message = getattr(error, "msg", None) or str(error).partition("\n")[0]
        where = f" (line {line})" if line else ""
        raise UsageError(f"{doing} raised {type(error).__name__}: {message}{where}") from error
