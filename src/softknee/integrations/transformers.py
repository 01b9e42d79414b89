"""Transformers: activations of softknee in configurations, and a callback for its `Trainer`."""

# ruff: noqa: ARG002  (the library calls these methods with arguments that are not all of use)
from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from softknee._catalogue import create, parse_choice
from softknee._diagnose.units.modules import check_every
from softknee._errors import OptionError, UsageError
from softknee._extras import require
from softknee.integrations._recorder import EVERY, ActivationRecorder, scalars
from softknee.nn.activation import Activation
from softknee.nn.options import needs_channels

if TYPE_CHECKING:
    from softknee._spec import Spec
    from softknee.integrations._loggers import Logger

PREFIX = "softknee:"
# How a module made for a configuration remembers what it was made from.
_TEXT = "text_in_configuration"


def register() -> None:
    """Make softknee's activations available to the configurations of transformers, in this process.

    From then on `hidden_act="softknee:swish[beta=1.5,trainable]"` works wherever a configuration names an activation:
    a name, a name with options or a formula, as on the command line, behind `softknee:`. A bad one ends in softknee's
    error. Call it before a model with such a configuration is made or loaded; calling it again changes nothing.
    Activations are those that keep the shape of their input; channels, where they matter, are in the last dimension.

    `from_pretrained` of a checkpoint that has no such activation gives their parameters the values from the
    configuration; transformers by itself would leave them uninitialized.

    Raises:
        MissingExtra: transformers is not installed.
    """
    activations = require("transformers.activations", extra="transformers")
    table = activations.ACT2FN
    # Models hold this very object, so it is changed where it is.
    if not getattr(table, "knows_softknee", False):
        table.__class__ = _knowing(type(table))
        model = require("transformers.modeling_utils", extra="transformers").PreTrainedModel
        model._initialize_weights = _restoring(model._initialize_weights)


def activation_of(text: str) -> Activation:
    """Make the activation that a configuration names.

    Args:
        text: With the prefix.

    Returns:
        A new module.

    Raises:
        UsageError: The activation changes the shape of its input, or needs to know the number of channels.
        UnknownActivation: No activation has that name.
        ExpressionError: The text is no formula.
        OptionError: An option is unknown, missing or has a bad value.
    """
    spec, options = _checked(text)
    if spec.kind == "vector":
        options["dim"] = -1
    elif options.get("per_channel") or spec.channelwise:
        options["channel_dim"] = -1
    module = create(spec.name, **options)
    setattr(module, _TEXT, text)
    return module


def _checked(text: str) -> tuple[Spec, dict[str, Any]]:
    """Return what a text names, and its options.

    Raises:
        UsageError: It cannot stand in a configuration.
        OptionError: An option lacks its value.
    """
    choice = parse_choice(text.removeprefix(PREFIX))
    spec, options = choice.spec, dict(choice.options)
    if spec.kind == "gated" or not spec.promises.same_shape:
        raise UsageError(
            f"{spec.name} changes the shape of its input, and an activation in a configuration must keep it: {text!r}"
        )
    if needs_channels(spec):
        raise UsageError(
            f"{spec.name} must know the number of channels, and a configuration cannot say it: {text!r}; "
            "replace activations of the finished model instead"
        )
    if options.get("per_channel") is True:
        raise OptionError(
            f"per_channel in a configuration needs the number of channels, as in per_channel=3072: {text!r}"
        )
    return spec, options


def _knowing(base: Any) -> Any:
    """Return the class of a table of activations that also knows softknee's."""

    def contains(self: Any, key: object) -> bool:
        if isinstance(key, str) and key.startswith(PREFIX):
            # What is wrong with a bad one is said here, before any model is made.
            _checked(key)
            return True
        return bool(base.__contains__(self, key))

    def missing(_: Any, key: object) -> tuple[Any, dict[str, object]]:
        if isinstance(key, str) and key.startswith(PREFIX):
            return activation_of, {"text": key}
        raise KeyError(key)

    return type(base.__name__, (base,), {"__contains__": contains, "__missing__": missing, "knows_softknee": True})


def _restoring(initialize: Any) -> Any:
    """Return a function that initializes a module of a model, activations made for a configuration among them."""

    def initialize_weights(self: Any, module: Any, *rest: Any, **options: Any) -> None:
        loaded = getattr(module, "_is_hf_initialized", False)
        initialize(self, module, *rest, **options)
        if loaded or not (isinstance(module, Activation) and hasattr(module, _TEXT)):
            return
        start = activation_of(getattr(module, _TEXT)).state_dict()
        with torch.no_grad():
            for name, tensor in module.state_dict(keep_vars=True).items():
                if not getattr(tensor, "_is_hf_initialized", False):
                    tensor.copy_(start[name])

    return initialize_weights


class _Monitor:
    """Logs trained parameters and health of a model's activations at every n-th step of a `Trainer`.

    Results are those of `softknee.integrations.ActivationRecorder`, of the batches of all processes. The numbers of
    the last recorded step join the next logs of the trainer. Reporters see logs in the order of the callbacks, so the
    monitor comes first: `trainer.callback_handler.callbacks.insert(0, ActivationMonitor())`; one given as `callbacks=`
    adds to `trainer.state.log_history` and to what is printed, but not to what reporters got before it.

    Args:
        every: Steps 0, `every`, 2 `every` and so on are recorded.
        logger: Takes numbers and histograms of each recorded step, for example `softknee.integrations.JsonLines`.

    Raises:
        OptionError: `every` is no positive whole number.
    """

    def __init__(self, *, every: int = EVERY, logger: Logger | None = None) -> None:
        super().__init__()
        check_every(every)
        self.every = every
        self.logger = logger
        self._step = 0
        self._recorder: ActivationRecorder | None = None
        self._latest: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Look for the activations, so that what is wrong is known before training.

        Raises:
            UsageError: The model has no activation module, or is compiled.
        """
        if args.torch_compile:
            raise UsageError("activations of compiled models cannot be recorded; leave out torch_compile=True")
        self._latest = {}
        self._recorder = ActivationRecorder(others["model"], every=self.every, together=args.world_size > 1)

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Begin to record, if this step is one to record."""
        if self._recorder is not None and self._recorder.begin(state.global_step):
            self._step = state.global_step
            self._pause_after_forward(others["model"])

    def on_substep_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Go on with the next batch whose gradients are added up."""
        if self._recorder is not None and self._recorder.is_recording:
            self._recorder.resume()
            self._pause_after_forward(others["model"])

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Note the gradients, added up over the batches of the step and clipped."""
        if self._recorder is not None:
            self._recorder.note_gradients()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Keep what was recorded for the next logs."""
        values = self._recorder.end() if self._recorder is not None else {}
        if not values:
            return
        self._latest = scalars(values)
        if self.logger is not None and state.is_world_process_zero:
            self.logger.log(values, self._step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **others: Any) -> None:
        """Add what was recorded last to the logs."""
        if logs is not None:
            logs.update(self._latest)
        # The trainer has put a copy of its logs there already.
        if state.log_history:
            state.log_history[-1].update(self._latest)
        self._latest = {}

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Let go of the model."""
        if self._recorder is not None:
            self._recorder.cancel()
        self._recorder = None

    def _pause_after_forward(self, model: torch.nn.Module) -> None:
        """Have the hooks leave the model as soon as its forward ends, or fails, for no event says that it failed."""

        def leave(*_: Any) -> None:
            handle.remove()
            if self._recorder is not None:
                self._recorder.pause()

        handle = model.register_forward_hook(leave, always_call=True)


@cache
def _monitor() -> type:
    base = require("transformers", extra="transformers").TrainerCallback
    names = {"__doc__": _Monitor.__doc__, "__module__": __name__, "__qualname__": "ActivationMonitor"}
    return type("ActivationMonitor", (_Monitor, base), names)


def __getattr__(name: str) -> Any:
    # Made at its first use: its base class comes from an optional library.
    if name == "ActivationMonitor":
        return _monitor()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "ActivationMonitor"])
