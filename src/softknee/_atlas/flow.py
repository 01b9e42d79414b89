"""The activations that no formula states, in JavaScript: those from flows of velocity fields."""

from __future__ import annotations

from softknee._expression.parse import parse

# The statement of `softknee.functional`, number by number.
_CARRY = """const carry = (x, velocities, low, high) => {
  const cells = velocities.length - 1, width = (high - low) / cells;
  let cell = Math.min(Math.max(Math.floor((x - low) / width), 0), cells - 1), left = 1;
  for (;;) {
    const slope = (velocities[cell + 1] - velocities[cell]) / width;
    const velocity = velocities[cell] + slope * (x - low - cell * width), forward = velocity > 0;
    const arrives = x + velocity * (slope === 0 ? left : Math.expm1(slope * left) / slope);
    const knot = low + (forward ? cell + 1 : cell) * width, next = forward ? cell + 1 : cell - 1;
    const within = forward ? arrives <= knot : arrives >= knot;
    if (velocity === 0 || next < 0 || next >= cells || within || Number.isNaN(velocity)) return arrives;
    const way = knot - x;
    left -= slope === 0 ? way / velocity : Math.log1p((slope * way) / velocity) / slope;
    x = knot;
    cell = next;
  }
};
const warped = (x, velocities, low, high) => x < low || x > high ? x : carry(x, [0, ...velocities, 0], low, high);
"""
_GATE = parse("(1 + erf(x / sqrt(2))) / 2").to_javascript("f").strip()
# What their functions need.
PRELUDE = f"{_CARRY}const gate = {_GATE};\n"
# By name: the arguments behind x, and the function.
STATED = {
    "ditac": (("velocities", "low", "high"), "warped(x, velocities, low, high) * gate(x)"),
    "digraf": (("velocities", "bound"), "warped(x, velocities, -bound, bound)"),
    "ge_ditac": (("velocities", "high"), "x < 0 ? x * gate(x) : warped(x, velocities, 0, high)"),
    "leaky_ditac": (
        ("velocities", "low", "high", "slope"),
        "x < low ? low + slope * (x - low) : warped(x, velocities, low, high)",
    ),
    "inf_ditac": (("velocities", "low", "high"), "carry(x, velocities, low, high) * gate(x)"),
}
