"""Half precision, where a formula's intermediate results leave its range."""

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
