"""Half precision, and squares, where a formula's intermediate results leave the range of its dtype."""

from __future__ import annotations

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """Return half precision as float32, any other dtype as it is; the caller casts its result back.

    A parameter is widened once, so that the parts of its gradient add up before they are rounded to half precision.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        The same numbers, in float32 or wider.
    """
    return x.float() if x.dtype in {torch.float16, torch.bfloat16} else x


def hypotenuse(a: Tensor, b: Tensor) -> Tensor:
    r"""Return $\sqrt{a^2 + b^2}$ without squaring large numbers; `torch.hypot` cannot be exported to ONNX.

    Args:
        a: Any shape, any floating dtype.
        b: Broadcastable to `a`; one of them is not 0.

    Returns:
        In their common shape.
    """
    # The result does not depend on the scale, so nor do its derivatives.
    size = torch.maximum(a.detach().abs(), b.detach().abs())
    return size * torch.sqrt((a / size).square() + (b / size).square())
