"""Triton's interpreter, with two of its faults mended."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

triton: Any = pytest.importorskip("triton", reason="needs Triton, which there is for Linux only")
if not triton.knobs.runtime.interpret:
    pytest.skip("TRITON_INTERPRET forbids its interpreter", allow_module_level=True)
interpreter: Any = import_module("triton.runtime.interpreter")
assert isinstance(triton.language.sum, interpreter.InterpretedFunction), (
    "conftest.py asked for the interpreter too late"
)

_combine = interpreter.InterpreterBuilder.binary_op
_cut = interpreter.InterpreterBuilder.create_fp_trunc


def _combined(builder, left, right, operation):
    """A comparison gives truths; the interpreter notes that they are numbers, and fails where it spreads one."""
    result = _combine(builder, left, right, operation)
    return interpreter.TensorHandle(result.data, triton.language.int1) if result.data.dtype == np.bool_ else result


def _rounded(builder, source, target):
    """A GPU rounds to the nearest bfloat16; the interpreter cuts digits off."""
    if target.scalar != triton.language.bfloat16:
        return _cut(builder, source, target)
    rounded = torch.tensor(source.data).to(torch.bfloat16).view(torch.uint16)
    return interpreter.TensorHandle(rounded.numpy(), triton.language.bfloat16)


interpreter.InterpreterBuilder.binary_op = _combined
interpreter.InterpreterBuilder.create_fp_trunc = _rounded


@contextmanager
def programs_in_another_order():
    """Within it, the programs of a launch run last to first."""
    place = interpreter.InterpreterBuilder.set_grid_idx

    def turned(builder, x, y, z):
        place(builder, builder.grid_dim[0] - 1 - x, y, z)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.InterpreterBuilder, "set_grid_idx", turned)
        yield
