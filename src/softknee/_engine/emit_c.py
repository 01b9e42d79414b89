"""Prints a graph as a C kernel; the loops around it are in `native/pointwise.h`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from softknee._engine.graph import ARRAYS, PAIRS, RESULTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from softknee._engine.graph import Graph, Operation

_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "and": "&",
    "or": "|",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
}
# Comparisons with NaN are false, so the argument that may be NaN is the one that is kept then.
_TEMPLATES = {
    "neg": "-{0}",
    # Truths are whole numbers in C, and those divide otherwise.
    "div": "(float){0} / {1}",
    "not": "!{0}",
    "abs": "sk_abs({0})",
    "sqrt": "sqrtf({0})",
    "floor": "sk_floor({0})",
    "sign": "(float)({0} > 0) - (float)({0} < 0)",
    "max": "({0} >= {1} || {0} != {0}) ? {0} : {1}",
    "min": "({0} <= {1} || {0} != {0}) ? {0} : {1}",
    "where": "{0} ? {1} : {2}",
    "remainder": "{0} - sk_floor({0} / {1}) * {1}",
    "uniform": "sk_uniform(key, (uint32_t)(i - start))",
}
_SPECIAL = {"inf": "INFINITY", "-inf": "-INFINITY", "nan": "NAN"}
# Where gates and values alternate, both are found from the pointer to the first of all, so that compilers see that they
# lie side by side and move them in whole vectors.
_FIRST_OF_ALL = {"x": "in + odd", "u": "in + 1 - odd", "y": "out + odd", "z": "out + 1 - odd"}
# Elements whose sums are gathered in single precision, in as many parts as a vector has lanes.
_BLOCK = 1024


def kernel_source(graph: Graph, *, arrays: int, leaves: int, per_channel: bool, pairs: bool = False) -> str:
    """Return the C source of a kernel.

    Args:
        graph: From inputs `x`, `g`, `v`, or `x`, `u`, `g` of pairs, and leaves `p0, p1, ...`; the first outputs are
            stored element by element, the others are summed over the elements of a channel.
        arrays: How many outputs are stored, 1 or 2; 2 of pairs lie as the gates and values do.
        leaves: How many parameter entries there are.
        per_channel: Whether each channel has leaves of its own.
        pairs: Whether it takes gates and values.

    Returns:
        A translation unit that exports `sk_run`, to be compiled in the folder `native`.
    """
    texts = [_text(position, graph) for position in range(len(graph.operations))]
    body = _Body(
        used={*graph.inputs},
        leaves=leaves,
        once=_statements(graph, texts, graph.settled),
        statements=_statements(graph, texts, graph.varying),
        stored=[texts[output] for output in graph.outputs[:arrays]],
        summed=[texts[output] for output in graph.outputs[arrays:]],
        pairs=pairs,
    )
    parts = [
        '#include "elements.h"',
        '#include "random.h"' if graph.draws else "",
        f"#define SK_SUMS {len(body.summed)}\n#define SK_PER_CHANNEL {int(per_channel)}\n#define SK_BLOCK {_BLOCK}",
        "#define SK_PAIRS 1" if pairs else "",
        body.block(random=graph.draws),
        body.across(random=graph.draws) if per_channel else "",
        '#include "pointwise.h"',
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


@dataclass(frozen=True)
class _Body:
    """The statements for a channel and for one element, and the two loops they stand in."""

    used: set[str]
    leaves: int
    once: list[str]
    statements: list[str]
    stored: list[str]
    summed: list[str]
    pairs: bool

    def block(self, *, random: bool) -> str:
        """Return `sk_block`: a run of elements that share their leaves."""
        sums = [f"s{k}" for k in range(len(self.summed))]
        reduction = f" reduction(+ : {', '.join(sums)})" if sums else ""
        return self._function(
            "sk_block",
            "const sk_arrays *a, long start, long stop, long channel, long channels, float *sums",
            [
                *self._pointers(),
                *self._leaf_lines("channel"),
                *self.once,
                "const uint64_t key = sk_key(a->seed, (uint64_t)start);" if random else "",
                f"float {', '.join(f'{s} = 0' for s in sums)};" if sums else "",
                f"#pragma omp simd{reduction}",
                "for (long i = start; i < stop; i++) {",
                *self._loads("i"),
                *self.statements,
                *self._stores("i"),
                *(f"{s} += {text};" for s, text in zip(sums, self.summed, strict=True)),
                "}",
                *(f"sums[{k}] = {s};" for k, s in enumerate(sums)),
                "(void)channel, (void)channels, (void)sums;",
            ],
        )

    def across(self, *, random: bool) -> str:
        """Return `sk_across`: one element of each channel."""
        return self._function(
            "sk_across",
            "const sk_arrays *a, long start, long channels, float *sums",
            [
                *self._pointers(),
                "const uint64_t key = sk_key(a->seed, (uint64_t)start);" if random else "",
                "#pragma omp simd",
                "for (long c = 0; c < channels; c++) {",
                "const long i = start + c;" if random else "",
                *self._leaf_lines("c"),
                *self._loads("start + c"),
                *self.once,
                *self.statements,
                *self._stores("start + c"),
                *(f"sums[{k} * channels + c] += {text};" for k, text in enumerate(self.summed)),
                "}",
                "(void)sums;",
            ],
        )

    @property
    def _paired(self) -> frozenset[str]:
        """Names of the arrays that lie as the gates and values do."""
        if not self.pairs:
            return frozenset()
        return frozenset((*PAIRS[:2], *(RESULTS if len(self.stored) > 1 else ())))

    def _pointers(self) -> list[str]:
        first = ["const T *in = odd ? a->u : a->x;", "T *out = odd ? a->z : a->y;"]
        shift = "const long shift = a->run > 1 ? start / a->run * a->run : 0;"
        read = [f"const T *x{name} = {self._pointer(name)};" for name in ARRAYS if name in self.used]
        return [
            *([*first, shift, "(void)in, (void)out;"] if self.pairs else []),
            *read,
            *(f"T *{name} = {self._pointer(name)};" for name, _ in zip(RESULTS, self.stored, strict=False)),
        ]

    def _pointer(self, name: str) -> str:
        return f"step > 1 ? {_FIRST_OF_ALL[name]} : a->{name}" if name in self._paired else f"a->{name}"

    def _at(self, name: str, place: str) -> str:
        return f"({place}) * step + shift" if name in self._paired else place

    def _leaf_lines(self, channel: str) -> list[str]:
        names = [(k, f"p{k}") for k in range(self.leaves)]
        return [
            f"const float {name} = a->leaves[{k} * channels + {channel}];" for k, name in names if name in self.used
        ]

    def _loads(self, place: str) -> list[str]:
        return [
            f"const float {name} = sk_load(x{name}[{self._at(name, place)}]);" for name in ARRAYS if name in self.used
        ]

    def _stores(self, place: str) -> list[str]:
        return [
            f"{name}[{self._at(name, place)}] = sk_store({text});"
            for name, text in zip(RESULTS, self.stored, strict=False)
        ]

    def _function(self, name: str, parameters: str, lines: list[str]) -> str:
        """Return a function; one of pairs is made for the ways in which they lie, see `native/pointwise.h`."""
        head = f"static void {name}({parameters})"
        if self.pairs:
            head = f"SK_INLINE void {name}_of({parameters}, const long step, const long odd)"
        return f"{head} {{\n" + "\n".join(f"    {line}" for line in lines if line) + "\n}"


def _text(position: int, graph: Graph) -> str:
    """Return how later statements name a result: constants and truths are written out where they are used."""
    operation = graph.operations[position]
    if operation.name == "input":
        return operation.text
    if operation.name == "constant":
        digits = _SPECIAL.get(operation.text)
        return digits or f"({operation.text}f)"
    if operation.is_truth:
        return f"({_formula(operation, [_text(argument, graph) for argument in operation.arguments])})"
    return f"t{position}"


def _statements(graph: Graph, texts: list[str], positions: Iterable[int]) -> list[str]:
    """Return the statements at some of a graph's positions."""
    return [
        f"const float t{position} = {_formula(operation, [texts[argument] for argument in operation.arguments])};"
        for position in positions
        for operation in (graph.operations[position],)
        if texts[position] == f"t{position}"
    ]


def _formula(operation: Operation, arguments: list[str]) -> str:
    if operation.name in _INFIX:
        return f"{arguments[0]} {_INFIX[operation.name]} {arguments[1]}"
    if operation.name in _TEMPLATES:
        return _TEMPLATES[operation.name].format(*arguments)
    return f"sk_{operation.name}({', '.join(arguments)})"
