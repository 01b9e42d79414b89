"""What an activation should be, by its formula text alone: symbolic derivatives to a hundred digits, without torch."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from softknee._expression.parse import parse
from softknee._extras import require
from softknee.nn.formula import FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from softknee._spec import Param

    Values = Mapping[str, float | tuple[float, ...]]

DIGITS = 100
# One-sided derivatives are taken this far, relatively, beside a point: far below any dtype, far above the last digit.
SIDE = "1e-25"
CHANNEL = "channel"
# Of differences that stand for derivatives.
STEP = "1e-40"


class Oracle:
    """Exact values and derivatives of a formula.

    Args:
        formula: In the expression language.
        parameters: What its names mean.
        channelwise: Whether `channel` is one of them.
        lengths: Of the vector parameters, in their order.
    """

    def __init__(
        self, formula: str, parameters: Iterable[Param], *, channelwise: bool, lengths: tuple[int, ...]
    ) -> None:
        self._sympy = require("sympy", extra="dev")
        self._mp = require("mpmath", extra="dev").mp.clone()
        self._mp.dps = DIGITS
        self._vectors = {param.name for param in parameters if param.vector}
        symbols: dict[str, Any] = {"x": self._sympy.Symbol("x", real=True)}
        length = iter(lengths)
        for param in parameters:
            names = [f"{param.name}_{i}" for i in range(next(length))] if param.vector else [param.name]
            made = [self._sympy.Symbol(name, real=True) for name in names]
            symbols[param.name] = made if param.vector else made[0]
        if channelwise:
            symbols[CHANNEL] = self._sympy.Symbol(CHANNEL, integer=True)
        self._expression = parse(formula, FUNCTIONS).to_sympy(symbols)
        self._symbols = _flat(symbols)
        self._functions: dict[str, Callable[..., Any]] = {}

    def value(self, x: float, values: Values, *, channel: int = 0) -> Any:
        """Return `f(x)` as an mpmath number, or None where the formula has no real value."""
        return self._at("", self._point(x, values, channel))

    def slopes(
        self, name: str, x: float, values: Values, *, channel: int = 0, side: str = SIDE
    ) -> tuple[Any, Any] | None:
        """Return the derivatives from the left and the right by `x` or a parameter (`amplitude_0` of a vector).

        They are taken `side`, relatively, beside the point and differ at a kink only. None where one has no real value.
        """
        point = self._point(x, values, channel)
        step = self._mp.mpf(side) * max(1, abs(point[name]))
        left, right = (self._at(name, {**point, name: point[name] + side}) for side in (-step, step))
        undefined = left is None or right is None or self._at("", point) is None
        return None if undefined else (left, right)

    def derivatives(self, values: Values, orders: int, *, digits: bool = False) -> list[Callable[[float], float]]:
        """Return `f, f', f'', ...` up to the given order as functions of `x` at fixed parameters.

        They compute in floats, or with all `digits`.
        """
        numbers = {symbol: self._sympy.Rational(v) for symbol, v in self._numbers(values, 0).items() if symbol != "x"}
        by_symbol = {self._symbols[name]: number for name, number in numbers.items()}
        x, expression = self._symbols["x"], self._expression.subs(by_symbol)
        module, number = (self._module(), self._mp.mpf) if digits else ("math", float)
        functions = [self._sympy.lambdify(x, expression.diff(x, n), module) for n in range(orders + 1)]
        return [partial(_at_number, function, number) for function in functions]

    def names(self, parameter: str) -> tuple[str, ...]:
        """Return the names of a parameter's entries: its own, or one for each term of a vector."""
        entries = tuple(name for name in self._symbols if name.startswith(f"{parameter}_"))
        return entries if parameter in self._vectors else (parameter,)

    def _point(self, x: float, values: Values, channel: int) -> dict[str, Any]:
        numbers = {**self._numbers(values, channel), "x": x}
        return {name: self._mp.mpf(numbers[name]) if name != CHANNEL else channel for name in self._symbols}

    def _numbers(self, values: Values, channel: int) -> dict[str, float]:
        flat: dict[str, float] = {CHANNEL: channel}
        for name, value in values.items():
            if isinstance(value, tuple):
                flat |= {f"{name}_{i}": entry for i, entry in enumerate(value)}
            else:
                flat[name] = value
        return {name: number for name, number in flat.items() if name in self._symbols}

    def _at(self, by: str, point: Mapping[str, Any]) -> Any:
        try:
            value = self._mp.mpmathify(self._function(by)(**point))
        except (ZeroDivisionError, ValueError):
            return None
        real = not isinstance(value, self._mp.mpc) and not self._mp.isnan(value)
        return value if real else None

    def _function(self, by: str) -> Callable[..., Any]:
        if by not in self._functions:
            expression = self._expression.diff(self._symbols[by]) if by else self._expression
            self._functions[by] = self._sympy.lambdify([*self._symbols.values()], expression, self._module())
        return self._functions[by]

    def _module(self) -> list[Any]:
        """Return the namespace of the functions, bound to our own precision rather than mpmath's global one."""
        names = ("exp", "log", "sqrt", "sin", "cos", "tan", "atan", "tanh", "erf", "pi", "mpf")
        return [{name: getattr(self._mp, name) for name in names}, "mpmath"]


class StatedOracle(Oracle):
    """Exact values of a function of one element by its statement; derivatives are differences, in as many digits.

    Args:
        statement: `(x, *parameters)` on numbers of mpmath, a vector as a list.
        parameters: Its parameters.
        lengths: Of the vectors among them, in their order.
    """

    def __init__(self, statement: Callable[..., Any], parameters: Iterable[Param], *, lengths: tuple[int, ...]) -> None:
        self._mp = require("mpmath", extra="dev").mp.clone()
        self._mp.dps = DIGITS
        self._statement = statement
        self._vectors = {param.name for param in parameters if param.vector}
        length = iter(lengths)
        self._entries = {
            param.name: [f"{param.name}_{i}" for i in range(next(length))] if param.vector else [param.name]
            for param in parameters
        }
        self._symbols = {name: name for names in (["x"], *self._entries.values()) for name in names}

    def derivatives(self, values: Values, orders: int, *, digits: bool = False) -> list[Callable[[float], float]]:
        """Return `f, f', f'', ...`; see `Oracle`."""
        point = self._point(0.0, values, 0)

        def derivative(order: int, x: float) -> Any:
            found = self._mp.diff(lambda at: self._at("", {**point, "x": at}), self._mp.mpf(x), order)
            return found if digits else float(found)

        return [partial(derivative, order) for order in range(orders + 1)]

    def _at(self, by: str, point: Mapping[str, Any]) -> Any:
        if by:
            step = self._mp.mpf(STEP) * max(1, abs(point[by]))
            right, left = (self._at("", {**point, by: point[by] + side}) for side in (step, -step))
            return (right - left) / (2 * step)
        arguments = [
            [point[entry] for entry in entries] if name in self._vectors else point[name]
            for name, entries in self._entries.items()
        ]
        return self._statement(point["x"], *arguments)


@lru_cache(maxsize=128)
def oracle(formula: str, parameters: tuple[Param, ...], *, channelwise: bool, lengths: tuple[int, ...] = ()) -> Oracle:
    """Return the oracle of a formula, made once: symbolic differentiation is the slow part."""
    return Oracle(formula, parameters, channelwise=channelwise, lengths=lengths)


@lru_cache(maxsize=16)
def stated_oracle(statement: Callable[..., Any], parameters: tuple[Param, ...], lengths: tuple[int, ...]) -> Oracle:
    """Return the oracle of a statement."""
    return StatedOracle(statement, parameters, lengths=lengths)


def _at_number(function: Callable[[Any], Any], number: Callable[[float], Any], x: float) -> Any:
    return function(number(x))


def _flat(symbols: Mapping[str, Any]) -> dict[str, Any]:
    return {
        str(symbol): symbol for entry in symbols.values() for symbol in (entry if isinstance(entry, list) else [entry])
    }
