"""Prints a graph as a C kernel; the loops around it are in `native/pointwise.h`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
_ARRAYS = ("x", "g", "v")
_RESULTS = ("y", "z")
# Elements whose sums are gathered in single precision, in as many parts as a vector has lanes.
_BLOCK = 1024


def kernel_source(graph: Graph, *, arrays: int, leaves: int, per_channel: bool) -> str:
    """Return the C source of a kernel.

    Args:
        graph: From inputs `x`, `g`, `v` and leaves `p0, p1, ...`; the first outputs are stored element by element,
            the others are summed over the elements of a channel.
        arrays: How many outputs are stored, 1 or 2.
        leaves: How many parameter entries there are.
        per_channel: Whether each channel has leaves of its own.

    Returns:
        A translation unit that exports `sk_run`, to be compiled in the folder `native`.
    """
    texts = [_text(position, graph) for position in range(len(graph.operations))]
    body = _Body(
        used={*graph.inputs},
        leaves=leaves,
        statements=_statements(graph, texts),
        stored=[texts[output] for output in graph.outputs[:arrays]],
        summed=[texts[output] for output in graph.outputs[arrays:]],
    )
    parts = [
        '#include "elements.h"',
        '#include "random.h"' if graph.draws else "",
        f"#define SK_SUMS {len(body.summed)}\n#define SK_PER_CHANNEL {int(per_channel)}\n#define SK_BLOCK {_BLOCK}",
        body.block(random=graph.draws),
        body.across(random=graph.draws) if per_channel else "",
        '#include "pointwise.h"',
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


@dataclass(frozen=True)
class _Body:
    """The statements for one element, and the two loops they stand in."""

    used: set[str]
    leaves: int
    statements: list[str]
    stored: list[str]
    summed: list[str]

    def block(self, *, random: bool) -> str:
        """Return `sk_block`: a run of elements that share their leaves."""
        sums = [f"s{k}" for k in range(len(self.summed))]
        reduction = f" reduction(+ : {', '.join(sums)})" if sums else ""
        return _function(
            "sk_block(const sk_arrays *a, long start, long stop, long channel, long channels, float *sums)",
            [
                *self._pointers(),
                *self._leaf_lines("channel"),
                "const uint64_t key = sk_key(a->seed, (uint64_t)start);" if random else "",
                f"float {', '.join(f'{s} = 0' for s in sums)};" if sums else "",
                f"#pragma omp simd{reduction}",
                "for (long i = start; i < stop; i++) {",
                *self._loads("i"),
                *self.statements,
                *(f"{name}[i] = sk_store({text});" for name, text in zip(_RESULTS, self.stored, strict=False)),
                *(f"{s} += {text};" for s, text in zip(sums, self.summed, strict=True)),
                "}",
                *(f"sums[{k}] = {s};" for k, s in enumerate(sums)),
                "(void)channel, (void)channels, (void)sums;",
            ],
        )

    def across(self, *, random: bool) -> str:
        """Return `sk_across`: one element of each channel."""
        return _function(
            "sk_across(const sk_arrays *a, long start, long channels, float *sums)",
            [
                *self._pointers(),
                "const uint64_t key = sk_key(a->seed, (uint64_t)start);" if random else "",
                "#pragma omp simd",
                "for (long c = 0; c < channels; c++) {",
                "const long i = start + c;" if random else "",
                *self._leaf_lines("c"),
                *self._loads("start + c"),
                *self.statements,
                *(f"{name}[start + c] = sk_store({text});" for name, text in zip(_RESULTS, self.stored, strict=False)),
                *(f"sums[{k} * channels + c] += {text};" for k, text in enumerate(self.summed)),
                "}",
                "(void)sums;",
            ],
        )

    def _pointers(self) -> list[str]:
        read = [f"const T *x{name} = a->{name};" for name in _ARRAYS if name in self.used]
        return read + [f"T *{name} = a->{name};" for name, _ in zip(_RESULTS, self.stored, strict=False)]

    def _leaf_lines(self, channel: str) -> list[str]:
        names = [(k, f"p{k}") for k in range(self.leaves)]
        return [
            f"const float {name} = a->leaves[{k} * channels + {channel}];" for k, name in names if name in self.used
        ]

    def _loads(self, place: str) -> list[str]:
        return [f"const float {name} = sk_load(x{name}[{place}]);" for name in _ARRAYS if name in self.used]


def _function(head: str, lines: list[str]) -> str:
    return f"static void {head} {{\n" + "\n".join(f"    {line}" for line in lines if line) + "\n}"


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


def _statements(graph: Graph, texts: list[str]) -> list[str]:
    return [
        f"const float t{position} = {_formula(operation, [texts[argument] for argument in operation.arguments])};"
        for position, operation in enumerate(graph.operations)
        if texts[position] == f"t{position}"
    ]


def _formula(operation: Operation, arguments: list[str]) -> str:
    if operation.name in _INFIX:
        return f"{arguments[0]} {_INFIX[operation.name]} {arguments[1]}"
    if operation.name in _TEMPLATES:
        return _TEMPLATES[operation.name].format(*arguments)
    return f"sk_{operation.name}({', '.join(arguments)})"
