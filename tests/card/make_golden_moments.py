"""Writes golden_moments.json: moments of every activation of single elements by mpmath, from its formula text alone.

Run by hand where the catalogue changes: python tests/card/make_golden_moments.py [name ...]
"""

from __future__ import annotations

import json
import sys
from itertools import combinations, pairwise
from pathlib import Path

import mpmath
import sympy
from mpmath.calculus.quadrature import GaussLegendre

from softknee._card.subject import Subject
from softknee._expression.parse import parse
from softknee.functional import SPECS
from softknee.nn.formula import FUNCTIONS

GOLDEN = Path(__file__).with_name("golden_moments.json")
DIGITS = 30
AGREE = mpmath.mpf("1e-19")
REACH = 13
# Where breaks are looked for: as far as the widest density goes.
SCAN = 40
PER_UNIT = 40
MOST_HALVINGS = 45
QS = (0.25, 1, 9)
X = sympy.Symbol("x", real=True)
MODULE = ["mpmath"]


def main(names: list[str]) -> None:
    mpmath.mp.dps = DIGITS
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() and names else {}
    for spec in SPECS:
        if spec.kind == "elementwise" and (not names or spec.name in names):
            golden[spec.name] = {str(q): moments_of(spec, q) for q in QS}
    GOLDEN.write_text(json.dumps(dict(sorted(golden.items())), indent=1) + "\n")


def moments_of(spec, q):
    """Return mean, mean square and mean square of the slope for a normal input of variance q, and a doubt."""
    values = Subject.of(spec).values
    kinds = (0, 1) if spec.channelwise else (0,)
    found = [integrals(spec, {**values, "channel": kind}, mpmath.sqrt(q)) for kind in kinds]
    mean, square, slope_square, doubt = (sum(one[i] for one in found) / len(found) for i in range(4))
    return {"mean": text(mean), "square": text(square), "slope_square": text(slope_square), "doubt": float(doubt)}


def text(number):
    return mpmath.nstr(number, 20)


def integrals(spec, values, deviation):
    value = expression(spec.formula, spec, values)
    slope = expression(spec.surrogate or spec.formula, spec, values).diff(X)
    functions = [sympy.lambdify(X, one, MODULE) for one in (value, slope)]
    reach = REACH * deviation
    whole = {step * deviation for step in range(-REACH, REACH + 1)}
    edges = sorted(whole | {place for place in breaks(value) | breaks(slope) if abs(place) < reach})
    total, doubt = [mpmath.mpf(0)] * 3, mpmath.mpf(0)
    for low, high in pairwise(edges):
        part, off = panel((*functions, deviation), low, high, 0)
        total = [a + b for a, b in zip(total, part, strict=True)]
        doubt += off
    return (*total, doubt)


def expression(formula, spec, values):
    """Return a formula as a sympy expression of x alone, every number exact."""
    numbers = {"x": X, "channel": int(values["channel"])}
    for param in spec.parameters:
        given = values[param.name]
        numbers[param.name] = [sympy.Rational(v) for v in given] if isinstance(given, tuple) else sympy.Rational(given)
    return parse(formula, FUNCTIONS).to_sympy(numbers)


def breaks(expr):
    """Return where conditions of pieces change, extremes swap and sizes vanish."""
    conditions = set()
    for node in sympy.preorder_traversal(expr):
        if isinstance(node, sympy.core.relational.Relational):
            conditions.add(node.lhs - node.rhs)
        elif isinstance(node, (sympy.Max, sympy.Min)):
            conditions |= {a - b for a, b in combinations(node.args, 2)}
        elif isinstance(node, (sympy.Abs, sympy.sign, sympy.Heaviside)):
            conditions.add(node.args[0])
        elif isinstance(node, sympy.Pow) and node.exp.is_Rational and not node.exp.is_Integer:
            conditions.add(node.base)
    return {root for condition in conditions if condition.has(X) for root in roots(condition)}


def roots(condition):
    if condition.is_polynomial(X) and sympy.degree(condition, X) == 1:
        found = {number(sympy.solve(condition, X)[0])}
        return {root for root in found if abs(root) < SCAN}
    function = sympy.lambdify(X, condition, MODULE)
    places = [mpmath.mpf(i) / PER_UNIT for i in range(-SCAN * PER_UNIT, SCAN * PER_UNIT + 1)]
    signs = [mpmath.sign(mpmath.re(function(place))) for place in places]
    found = {place for place, sign in zip(places, signs, strict=True) if sign == 0}
    for (a, b), (sa, sb) in zip(pairwise(places), pairwise(signs), strict=True):
        if sa * sb < 0:
            found.add(bisected(function, a, b, sa))
    return found


def bisected(function, a, b, sign):
    for _ in range(4 * DIGITS):
        middle = (a + b) / 2
        a, b = (middle, b) if mpmath.sign(function(middle)) == sign else (a, middle)
    return (a + b) / 2


def number(value):
    return mpmath.mpmathify(sympy.N(value, DIGITS + 5))


def panel(functions, low, high, depth):
    coarse, fine = (rule(functions, low, high, degree) for degree in (4, 5))
    off = max(abs(a - b) for a, b in zip(coarse, fine, strict=True))
    if off < AGREE or depth == MOST_HALVINGS:
        return fine, off if depth == MOST_HALVINGS else mpmath.mpf(0)
    middle = (low + high) / 2
    (left, a), (right, b) = panel(functions, low, middle, depth + 1), panel(functions, middle, high, depth + 1)
    return [p + q for p, q in zip(left, right, strict=True)], a + b


def rule(functions, low, high, degree):
    half, middle = (high - low) / 2, (high + low) / 2
    *functions, deviation = functions
    sums = [mpmath.mpf(0)] * 3
    for node, weight in nodes(degree):
        x = middle + half * node
        y, slope = (mpmath.re(function(x)) for function in functions)
        w = half * weight * mpmath.npdf(x, 0, deviation)
        sums = [s + w * term for s, term in zip(sums, (y, y * y, slope * slope), strict=True)]
    return sums


_NODES = {}


def nodes(degree):
    if degree not in _NODES:
        _NODES[degree] = GaussLegendre(mpmath.mp).calc_nodes(degree, mpmath.mp.prec + 20)
    return _NODES[degree]


if __name__ == "__main__":
    main(sys.argv[1:])
