"""Where runs compute and how they round: devices, declared precision tiers, and compiled steps."""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, cast, get_args

import torch
from torch import nn

from softknee._bench.runs import DeviceName, Precision
from softknee._bench.tasks import load_tensors
from softknee._engine.build import compiler, kernel_level
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from softknee._bench.examples import Examples
    from softknee._bench.runs import RunSpec, Split

# Executors that train where the study is conducted; clusters are not asked for GPUs.
ON_THIS_MACHINE = ("local", "here")
# Tasks whose loss takes derivatives by the inputs, which compiled steps cannot be differentiated through again.
_TWICE_DIFFERENTIATED = ("poisson",)


def check_means(device: str, precision: str, *, compiled: bool, task: str) -> None:
    """Check that runs can be done here as asked.

    Args:
        device: Where they compute.
        precision: How their products round.
        compiled: Whether steps of training are compiled.
        task: Name of the task.

    Raises:
        UsageError: There is no such device, here or at all, no such precision on it, or nothing to compile with.
    """
    for name, value, allowed in (("device", device, DeviceName), ("precision", precision, Precision)):
        if value not in get_args(allowed):
            raise UsageError(f"{name} must be one of {', '.join(get_args(allowed))}, got {value!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda was asked for, and PyTorch finds no CUDA device here; leave device out for cpu")
    if precision == "tf32" and device != "cuda":
        raise UsageError(f"precision tf32 is there on device cuda alone, got device {device!r}")
    if not isinstance(compiled, bool):
        raise UsageError(f"compiled must be True or False, got {compiled!r}")
    if compiled and task in _TWICE_DIFFERENTIATED:
        raise UsageError(
            f"compiled steps have no second derivatives, which the loss of {task} takes; leave compiled out"
        )
    if compiled and device == "cpu" and compiler() is None:
        raise UsageError("compiled steps need a compiler, and there is none here; install one, or leave compiled out")
    if compiled and device == "cuda" and kernels_on("cuda") == "none":
        raise UsageError("compiled steps need Triton on CUDA, and it does not work here; leave compiled out")


def check_executor(device: str, executor: str) -> None:
    """Check that an executor has the device.

    Raises:
        UsageError: It has not.
    """
    if device == "cuda" and executor not in ON_THIS_MACHINE:
        raise UsageError(f"device cuda goes with the executors {' and '.join(ON_THIS_MACHINE)}, got {executor!r}")


def kernels_on(device: DeviceName) -> str:
    """Return what kernels of activations are made with on a device of this machine.

    Args:
        device: One that is here.

    Returns:
        An instruction set, or `"triton"` on CUDA; `"none"` where there are no kernels.
    """
    if device == "cpu":
        return kernel_level()
    from softknee._engine.triton_check import trouble

    return "triton" if trouble() is None else "none"


@contextmanager
def rounding(device: DeviceName, precision: Precision) -> Iterator[None]:
    """Allow TF32 in products and convolutions where it was declared, and forbid it elsewhere; then as it was before.

    Args:
        device: Without effect but on `"cuda"`.
        precision: The tier.

    Yields:
        Nothing.
    """
    if device != "cuda":
        yield
        return
    # By the older names, which all versions have: the compilers of some fail where the newer ones were used.
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


class Bfloat16(nn.Module):
    """A model whose forward pass PyTorch casts automatically to bfloat16; outputs come in float32, as losses take them.

    Args:
        model: Its parameters stay in float32.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the model's outputs.

        Args:
            inputs: As it takes them.

        Returns:
            Float32.
        """
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16):
            outputs: Tensor = self.model(inputs)
        return outputs.float()


def forward_of(model: nn.Module, spec: RunSpec, *, training: bool) -> nn.Module:
    """Return what is called for a model's forward pass under a run's tier, compiled where the run says so.

    A step of training is compiled at its first batch of each size; on CUDA its kernels are replayed as CUDA graphs.
    Evaluation is not compiled: it has larger batches and no backward pass, and would have to be compiled for itself.

    Args:
        model: On the device; what is returned has its parameters and shares its mode.
        spec: The run.
        training: Whether it is for training.

    Returns:
        What to call.
    """
    called = model
    if training and spec.compiled:
        # What earlier runs of this process compiled would count against the compiler's limit, past which it gives up
        # without a word: a run's numbers would depend on those before it.
        torch.compiler.reset()
        mode = "reduce-overhead" if spec.device == "cuda" else "default"
        called = cast("nn.Module", torch.compile(model, dynamic=False, mode=mode))
    return Bfloat16(called) if spec.precision == "bfloat16" else called


def load_on(device: DeviceName, source: str, split: Split, task: str) -> Examples:
    """Load the data of a task, once a process and device.

    Args:
        device: Where they are to lie.
        source: As in `load_tensors`.
        split: Likewise.
        task: Likewise.

    Returns:
        The data.

    Raises:
        DataError: As `load_tensors`.
    """
    return load_tensors(source, split, task) if device == "cpu" else _moved(device, source, split, task)


@lru_cache(maxsize=2)
def _moved(device: DeviceName, source: str, split: Split, task: str) -> Examples:
    return load_tensors(source, split, task).to(torch.device(device))
