"""Diagnoses a model: measures part after part on one sample of its data, then lets the rules look at the numbers."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from softknee._diagnose.diagnosis import diagnosed
from softknee._diagnose.options import options
from softknee._diagnose.past import Past
from softknee._diagnose.preserve import seeded
from softknee._diagnose.rules.explain import RULES, rule
from softknee._diagnose.rules.rules import THRESHOLDS, findings
from softknee._diagnose.schema import SCHEMA
from softknee._diagnose.steps import Measured, steps
from softknee._diagnose.structure import structure
from softknee._diagnose.task import LOSSES, SAMPLES, loss_function, task
from softknee._errors import SoftkneeError, UsageError
from softknee._version import __version__
from softknee.nn.activation import Activation
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping

    from softknee._diagnose.diagnosis import Diagnosis
    from softknee._diagnose.options import Options
    from softknee._diagnose.task import Batch, Loss, Task

# Name of a loss that the model returns itself.
OWN_LOSS = "the model's own"
# Samples on which a model is tried before anything is measured.
_FIRST = 8


def diagnose(
    model: nn.Module | Callable[[], nn.Module],
    loader: Iterable[Any],
    loss: Loss = None,
    *,
    level: str = "quick",
    samples: int = SAMPLES,
    seed: int = 0,
    optimizer: torch.optim.Optimizer | None = None,
    lr: float | None = None,
    momentum: float | None = None,
    history: Any = None,
    out: str | os.PathLike[str] | None = None,
    silence: Iterable[str] = (),
    budget: float | str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Diagnosis:
    """Measure how the activations of a model do on its data, and say what to do about it.

    The model, its modes, buffers, gradients and hooks and the random states are afterwards as before, also after an
    error. A part that this model cannot be measured by is left out, with the reason among the findings.

    Args:
        model: Runs as written, all of it on one device; or a function that makes one, which trials then call for new
            ones. It is called with the random numbers of `seed`.
        loader: Yields batches: inputs, `(inputs, target)` or a dictionary of named inputs with `labels`; read once.
        loss: A function of outputs and target that returns a mean, the name of one (`"cross_entropy"`, `"mse"`, ...),
            or None: for a model that returns its own as `.loss`, or for what needs none.
        level: `"quick"`: units, signal, trained activations; needs no loss. `"full"`: also gradients, curvature,
            landscape, tangent kernel, rank, Lipschitz interval, right and wrong. `"trial"`: also paired experiments
            with other activations.
        samples: How many to take, from the beginning of the loader.
        seed: Of all random choices: the same seed gives the same numbers.
        optimizer: Of the model: whether it holds the parameters of activations, its learning rate and momentum. Trials
            train with others of its class and options.
        lr: Learning rate of plain SGD, where there is no optimizer.
        momentum: Its momentum.
        history: What `softknee.watch` saw of the training, the file it was saved to, or a run folder of a study.
        out: Folder to write `report.html` and `report.json` to; None writes nothing.
        silence: Ids of rules to leave out.
        budget: For trials, in seconds or such as `"5m"`; at the level `"trial"` alone.
        progress: Called with the name of each part before it is measured.

    Returns:
        The diagnosis.

    Raises:
        UsageError: An option is wrong, the model does not run on the first batch, or its loss is not one number.
        DataError: The loader is empty, fails, or yields something else; or the history cannot be read.
        OSError: The folder cannot be made or written.
    """
    quiet = [rule(name).id for name in silence]
    chosen = options(model, level, seed, optimizer, lr, momentum, budget, progress)
    past = Past.of(history)
    own = _made(model, seed)
    with seeded(seed):  # so that a loader that shuffles yields the same sample
        whole = task(own, loader, loss, samples=samples)
    own = whole.model  # of a compiled one the original
    raw = [_raw(batch) for batch in whole.batches]
    first = task(own, raw, loss, samples=_FIRST)
    data = _heading(whole, loss, chosen, history=past is not None)
    seen = structure(first, loss=whole.has_loss())
    data["structure"] = seen.data
    data["data"]["loss"] = OWN_LOSS if seen.own_loss else data["data"]["loss"]
    if chosen.level == "trial" and not (whole.has_loss() or seen.own_loss):
        raise UsageError("level 'trial' trains the model and needs a loss: give one, or a model that returns its own")
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)  # fails before the work, not after it
    measured = Measured(own, raw, loss, whole, chosen, seen.acts, whole.has_loss() or seen.own_loss)
    missing: dict[str, str] = {}
    for step in steps(chosen):
        if progress is not None:
            progress(step.name)
        try:
            data.update(step.measure(measured, data))
        except Exception as error:  # Whatever one part cannot do, the others can.
            missing[step.name] = _reason(error)
    if past is not None:
        data |= {"history": past.to_dict(), "trainable": past.into(data["trainable"] or ())}
    data["method"] = _method(quiet, missing)
    data["findings"] = findings(data, silence=quiet)
    found = diagnosed(data)
    if out is not None:
        found.save(out)
    return found


def _made(model: Any, seed: int) -> nn.Module:
    """Return the model, made with its own random numbers if it is a function that makes one.

    Raises:
        UsageError: The function fails, or makes something else.
    """
    if isinstance(model, nn.Module) or not callable(model):
        return model  # type: ignore[no-any-return]  # what is no module is refused by `task`
    try:
        with seeded(seed):
            made = model()
    except Exception as error:
        raise UsageError(f"making the model failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise UsageError(f"the function that makes the model returned {excerpt(made)}, not a torch.nn.Module")
    return made


def _reason(error: Exception) -> str:
    """Return why a part was not measured; what was raised here says it in a sentence."""
    return str(error) if isinstance(error, SoftkneeError) else f"{type(error).__name__}: {error}"


def _raw(batch: Batch) -> Any:
    """Return a batch as a loader yields it, so that every part reads the same sample."""
    inputs = dict(batch.keywords) if batch.keywords else batch.inputs
    return (inputs,) if batch.target is None else (inputs, batch.target)


def _heading(whole: Task, loss: Loss, options: Options, *, history: bool) -> dict[str, Any]:
    """Return what was diagnosed, on what, with what."""
    model = whole.model
    parameters = list(model.parameters())
    first = next((one for one in (*parameters, *model.buffers()) if one.is_floating_point()), None)
    optimizer = {"kind": options.kind, "lr": options.lr, "momentum": options.momentum} if options.kind else None
    return {
        "schema": SCHEMA,
        "tool": {"name": "softknee", "version": __version__},
        "level": options.level,
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "platform": f"{platform.system()} {platform.machine()}",
        },
        "model": {
            "class": type(model).__name__,
            "parameters": sum(one.numel() for one in parameters),
            "activation_parameters": _of_activations(model),
            "trained": True if history or (options.optimizer is not None and options.optimizer.state) else None,
            "dtype": None if first is None else str(first.dtype).removeprefix("torch."),
            "device": None if first is None else str(first.device),
            "training_mode": "eval",
            "optimizer": optimizer,
        },
        "data": {
            "samples": whole.samples,
            "batches": len(whole.batches),
            "seed": options.seed,
            "hash": whole.fingerprint,
            "loss": _loss_name(loss),
        },
        **{name: [] for name in ("coverage", "sites", "findings", "trials")},
        **dict.fromkeys(("signal", "gradients", "trainable", "curvature", "history")),
        "method": {},
    }


def _of_activations(model: nn.Module) -> int:
    modules = (one for one in model.modules() if isinstance(one, Activation | nn.PReLU))
    return sum(one.numel() for one in {one for module in modules for one in module.parameters()})


def _loss_name(loss: Loss) -> str | None:
    """Return the name of a loss; None where the model brings its own, or there is none."""
    function = loss_function(loss)
    if function is None:
        return None
    return next((name for name, known in LOSSES.items() if known is function), getattr(function, "__name__", None)) or (
        type(function).__name__
    )


def _method(quiet: list[str], missing: Mapping[str, str]) -> dict[str, Any]:
    return {
        "thresholds": dict(THRESHOLDS),
        "definitions": [[one.id, one.definition] for one in RULES.values()],
        "silenced": quiet,
        "not_measured": dict(missing),
    }
