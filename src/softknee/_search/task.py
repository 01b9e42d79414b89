"""What a search is for: somebody's model, training step and data, whatever they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from softknee._bench.streams import Stream, stream_seed
from softknee._diagnose.trial.run import checked_model, spare_activations
from softknee._errors import DataError, UsageError
from softknee._search.batches import apart, count, drawing
from softknee._search.checks import (
    check_callable,
    check_finite,
    check_fresh,
    check_gradient,
    described,
    swap_example,
    whole,
)
from softknee._search.scope import check_scope, find_groups
from softknee._surgery.places import Site
from softknee._surgery.swap import swap
from softknee._surgery.untouched import gradients_on_demand
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MakeModel = Callable[[], nn.Module]
TrainStep = Callable[[nn.Module, Any], Tensor]
MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
Put = Callable[[Site, int], nn.Module | str]

# The number that stands for a run where all runs are evaluated alike.
EVALUATION = 2**32 - 1
# 0.7 of 10 steps are 7, though their product is more.
ROUNDING = 1e-9


class Task:
    """A model to make, a step to train it by, and data; everything about it is checked before any training.

    What the caller's code draws from torch's global random state is seeded by run and epoch, and the state is
    afterwards as before; numpy's and Python's are left to the caller.

    Args:
        make_model: Makes a new model, freshly initialised, on any device.
        train_step: Takes the model and a batch and returns the loss, one number. It does not call `backward`.
        train_batches: Batches that can be read again and again: a list, a DataLoader. An epoch is one reading.
        val_batches: The same, to select by. Batches count alike, whatever their size.
        test_batches: The same, for the one final reading.
        optimizer: Makes the optimizer of a list of parameters, among them those of activations, which are spared
            weight decay.
        epochs: Of a full run.
        where: Which activations, as `softknee.swap` takes it.
        scope: One function for `"all"`, for each `"site"`, or for groups by name with where each acts.
        seed: Of everything.

    Attributes:
        groups: Of sites, one function for each.
        unseen: What of the model could not be seen, with the reasons.
        steps: Batches of an epoch.
        val_steps: Validation batches.
        test_steps: Test batches, 0 without.
        example: Arguments and named arguments that the training step called the model with; None if it did not.
        parameters: How many numbers the model trains as it is made.
        devices: CUDA devices that the model is on.

    Raises:
        UsageError: Something cannot be searched for; the message says what.
        DataError: There is no batch, or the loss is not finite from the start.
    """

    def __init__(
        self,
        make_model: MakeModel,
        train_step: TrainStep,
        train_batches: Iterable[Any],
        val_batches: Iterable[Any],
        test_batches: Iterable[Any] | None = None,
        *,
        optimizer: MakeOptimizer,
        epochs: int,
        where: Any = None,
        scope: str | Mapping[str, Any] = "all",
        seed: int = 0,
    ) -> None:
        check_callable(make_model=make_model, train_step=train_step, optimizer=optimizer)
        self.epochs = whole("epochs", epochs, 1)
        self.seed = whole("seed", seed, 0)
        check_scope(scope, where)
        self.make_model, self.train_step, self.optimizer = make_model, train_step, optimizer
        self.train_batches, self.val_batches, self.test_batches = train_batches, val_batches, test_batches
        self.steps = count("train_batches", train_batches)
        self.val_steps = count("val_batches", val_batches)
        self.test_steps = 0 if test_batches is None else count("test_batches", test_batches)
        self.devices: tuple[int, ...] = ()
        model, other = self.fresh(0), self.fresh(0)
        check_fresh(model, other)
        self.parameters = sum(one.numel() for one in other.parameters() if one.requires_grad)
        self.devices = tuple(sorted({one.device.index for one in other.parameters() if one.is_cuda}))
        self._optimizer_text = described(self.optimizer_of(other))
        self.example, self._first_loss = self._tried(model)
        with drawing(self.seed_of(Stream.ACTIVATION, 0)):
            self.groups, self.unseen = find_groups(other, self.example, scope, where)
        self._groups = {site.place: index for index, group in enumerate(self.groups) for site in group.sites}
        self.model(0, lambda *_: "relu")

    @property
    def run_steps(self) -> int:
        """Steps of a full run."""
        return self.epochs * self.steps

    def steps_of(self, part: float) -> int:
        """Return how many steps a part of a full run has.

        Args:
            part: Above 0, at most 1.

        Returns:
            At least 1.

        Raises:
            UsageError: It is no part.
        """
        if not 0 < part <= 1:
            raise UsageError(f"part must be above 0 and at most 1, got {part}")
        return math.ceil(part * self.run_steps - ROUNDING)

    def facts(self) -> dict[str, Any]:
        """Return what the task is as plain data, to tell whether another one is the same."""
        return {
            "epochs": self.epochs,
            "steps": self.steps,
            "val_steps": self.val_steps,
            "test_steps": self.test_steps,
            "seed": self.seed,
            "parameters": self.parameters,
            "groups": {group.name: [site.name for site in group.sites] for group in self.groups},
            "optimizer": self._optimizer_text,
            "first_loss": self._first_loss,
        }

    def fresh(self, run: int) -> nn.Module:
        """Return the model of a run as it is made, in training mode.

        Args:
            run: Number of the run, which its weights are drawn by.

        Returns:
            A new one.

        Raises:
            UsageError: What was made is no module.
        """
        seed = self.seed_of(Stream.WEIGHTS, run)
        with drawing(seed):
            # The factory may be the first to use a device.
            torch.manual_seed(seed)
            return checked_model(self.make_model()).train()

    def model(self, run: int, put: Put) -> nn.Module:
        """Return the model of a run with other activations; all else about it is that of `fresh`.

        Args:
            run: Number of the run.
            put: What to put in, by site and number of its group: a module, or text as `softknee.swap` takes it.

        Returns:
            A new model in training mode.

        Raises:
            UsageError: An activation cannot be put in, or the model is built otherwise than before.
        """
        model = self.fresh(run)
        with drawing(self.seed_of(Stream.ACTIVATION, run)):
            model, report = swap(
                model,
                lambda site: put(site, self._groups[site.place]),
                where=lambda site: site.place in self._groups,
                example_inputs=swap_example(model, self.example),
            )
        if len(report.changed) != len(self._groups):
            raise UsageError(
                f"make_model made a model with {len(report.changed)} of the {len(self._groups)} activations that the "
                "first one had; it must build the same at each call"
            )
        return model.train()

    def optimizer_of(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return a new optimizer of a model; the parameters of its activations are spared weight decay.

        Args:
            model: As it is to be trained.

        Returns:
            What the caller's factory makes.

        Raises:
            UsageError: It makes no optimizer, or one of other parameters.
        """
        parameters = list(model.parameters())
        made: Any = self.optimizer(parameters)
        if not isinstance(made, torch.optim.Optimizer):
            raise UsageError(f"optimizer must return a torch.optim.Optimizer, it returned {excerpt(made)}")
        held = {id(one) for group in made.param_groups for one in group["params"]}
        if held.isdisjoint(map(id, parameters)):
            raise UsageError("optimizer returned an optimizer of other parameters than the ones it was given")
        spare_activations(made, model)
        return made

    def batches(self, run: int, epoch: int, *, skip: int = 0) -> Iterator[Any]:
        """Yield the training batches of an epoch: the same ones for all candidates, whatever else draws numbers.

        Args:
            run: Number of the run.
            epoch: From 0.
            skip: How many to leave out at the beginning.

        Yields:
            The batches.

        Raises:
            DataError: There are fewer than in the first epoch.
        """
        number = skip
        order = self.seed_of(Stream.ORDER, run, epoch)
        for batch in islice(apart(self.train_batches, order, self.devices), skip, self.steps):
            number += 1
            yield batch
        if number < self.steps:
            raise DataError(f"train_batches yielded {number} batches in epoch {epoch + 1}, and {self.steps} at first")

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss of a batch, a tensor of no dimensions, as the caller's step makes it.

        Args:
            model: To train or evaluate.
            batch: One batch.

        Returns:
            The loss, in its graph.

        Raises:
            UsageError: It is not one number.
        """
        found: Any = self.train_step(model, batch)
        if not isinstance(found, Tensor) or found.numel() != 1:
            what = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else excerpt(found)
            raise UsageError(f"train_step must return the loss as a tensor of one number, it returned {what}")
        return found.reshape(()) if found.dim() else found

    def evaluate(self, model: nn.Module, batches: Iterable[Any]) -> NDArray[np.float64]:
        """Return the loss of each batch in evaluation mode; the model's modes are afterwards as before.

        All models see the same batches and the same noise. Gradients are off but where the step itself asks for them.

        Args:
            model: Trained.
            batches: Validation or test batches.

        Returns:
            The losses, `(batches,)`.
        """
        modes = [(module, module.training) for module in model.modules()]
        order = self.seed_of(Stream.ORDER, EVALUATION)
        try:
            model.eval()
            with drawing(self.seed_of(Stream.NOISE, EVALUATION)), gradients_on_demand():
                losses = [self.loss(model, batch).detach() for batch in apart(batches, order, self.devices)]
        finally:
            for module, mode in modes:
                module.training = mode
        return torch.stack(losses).cpu().double().numpy()

    def seed_of(self, stream: Stream, run: int, epoch: int = 0) -> int:
        """Return the seed of what is drawn for one purpose in an epoch of a run."""
        return stream_seed(stream_seed(self.seed, stream, run), stream, epoch)

    def _tried(self, model: nn.Module) -> tuple[tuple[tuple[Any, ...], dict[str, Any]] | None, float]:
        """Run the caller's step once on each kind of batches; return what it called the model with, and its loss.

        Raises:
            UsageError: The loss is none to train by.
            DataError: It is not finite.
        """
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        hook = model.register_forward_pre_hook(lambda _, inputs, names: calls.append((inputs, names)), with_kwargs=True)
        with drawing(self.seed_of(Stream.NOISE, 0)):
            loss = self.loss(model, next(self.batches(0, 0)))
        hook.remove()
        check_gradient(model, loss)
        first = float(loss.detach())
        check_finite("train_batches", first)
        for name, batches in (("val_batches", self.val_batches), ("test_batches", self.test_batches)):
            if batches is not None:
                check_finite(name, float(self.evaluate(model, _First(batches))[0]))
        # A graph would be kept alive by what is kept.
        return (tree_map_only(Tensor, Tensor.detach, calls[0]) if calls else None), first


class _First:
    """The first of some batches."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return islice(self.batches, 1)
