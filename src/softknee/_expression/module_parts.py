"""What a printed module is made of, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from softknee._expression.collect import Collection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Start = float | Sequence[float] | Sequence[Sequence[float]] | None


@dataclass(frozen=True, kw_only=True)
class ModuleParameter:
    """A parameter of the module.

    Attributes:
        name: Of the argument and the attribute.
        start: Its value unless another is given; None where one must be given or where it is drawn.
        trained: Whether it is trained unless told otherwise.
        vector: Whether it has several entries.
        drawn: Whether the initialization returns it.
        whole: Whether it is a whole number.
        fixed: Whether it cannot be trained.
    """

    name: str
    start: Start = None
    trained: bool = True
    vector: bool = False
    drawn: bool = False
    whole: bool = False
    fixed: bool = False


@dataclass(frozen=True, kw_only=True)
class ModuleParts:
    """What a module is made of.

    Attributes:
        name: Of the class.
        about: What it is, for the docstring.
        function: Called with the input, or with gate and value, and the parameters.
        parameters: In the order of the function's arguments.
        kind: What the function looks at, as in a spec.
        options: Present values of the options that say where in its input a module of the kind finds what it looks
            at: `per_channel` and `channel_dim`; of a gated one `dim`, `gate_first`, `interleaved` and `per_channel`; of
            one of vectors `dim`.
        sampled: Called in training instead, if anything.
        channelwise: Whether the function takes `channel=`.
        initialization: Expression in `generator` and the number of terms, or of channels, that gives drawn parameters
            by name.
        terms: Number of terms unless another is given.
        collection: The functions and what they use.
    """

    name: str
    about: str
    function: str
    parameters: tuple[ModuleParameter, ...] = ()
    kind: Literal["elementwise", "gated", "vector"] = "elementwise"
    options: Mapping[str, Any] = field(default_factory=lambda: {"per_channel": None, "channel_dim": 1})
    sampled: str = ""
    channelwise: bool = False
    initialization: str = ""
    terms: int = 0
    collection: Collection = field(default_factory=Collection)
