"""Triton's interpreter, with two of its faults mended; import this before anything that imports Triton."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import pytest
import torch

triton = pytest.importorskip("triton", reason="needs Triton, which is there on Linux only")

from triton import language as tl
from triton.runtime import interpreter

assert triton.knobs.runtime.interpret, "something imported Triton before its interpreter was asked for"

_combine = interpreter.InterpreterBuilder.binary_op
_truncate = interpreter.InterpreterBuilder.create_fp_trunc


def _combined(builder, left, right, operation):
    """A comparison gives truths; the interpreter says that they are numbers, and fails where it then spreads one."""
    result = _combine(builder, left, right, operation)
    return interpreter.TensorHandle(result.data, tl.int1) if result.data.dtype == np.bool_ else result


def _rounded(builder, source, target):
    """GPUs round to the nearest bfloat16; the interpreter cuts off."""
    if (source.dtype.scalar, target.scalar) != (tl.float32, tl.bfloat16):
        return _truncate(builder, source, target)
    rounded = torch.from_numpy(np.ascontiguousarray(source.data)).to(torch.bfloat16)
    return interpreter.TensorHandle(rounded.view(torch.uint16).numpy().reshape(source.data.shape), tl.bfloat16)


interpreter.InterpreterBuilder.binary_op = _combined
interpreter.InterpreterBuilder.create_fp_trunc = _rounded
