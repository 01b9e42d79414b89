"""Flows of piecewise affine fields without torch: in many digits by travel times, and by integration in small steps."""

from __future__ import annotations

import mpmath
import numpy as np
from scipy.integrate import solve_ivp

MP = mpmath.mp.clone()
MP.dps = 120
STEP, FEWEST = MP.mpf("1e-45"), MP.mpf("1e-100")


def carried_exactly(x, velocities, interval, time):
    """Where a point is after some time, as an mpmath number.

    Within a cell it runs from or to the zero of that cell's field, wherever that is: `y - zero` grows exponentially.
    """
    a, b, x, left = (MP.mpf(number) for number in (*interval, x, abs(time)))
    velocities = [MP.mpf(velocity) * (1 if time >= 0 else -1) for velocity in velocities]
    cells = len(velocities) - 1
    knots = [a + (b - a) * k / cells for k in range(cells + 1)]
    cell = max(0, min(cells - 1, sum(knot <= x for knot in knots) - 1))
    while True:
        slope = (velocities[cell + 1] - velocities[cell]) / (knots[cell + 1] - knots[cell])
        velocity = velocities[cell] + slope * (x - knots[cell])
        # A zero of the field, up to the last digits.
        if left == 0 or abs(velocity) <= FEWEST * max(map(abs, velocities)):
            return x
        way = 1 if velocity > 0 else -1
        zero = None if slope == 0 else x - velocity / slope
        outer = cell == (cells - 1 if way > 0 else 0)
        if not outer:
            knot, reached = (knots[cell + 1], velocities[cell + 1]) if way > 0 else (knots[cell], velocities[cell])
            if reached * way > 0:
                takes = (knot - x) / velocity if zero is None else MP.log((knot - zero) / (x - zero)) / slope
                if takes < left:
                    x, left, cell = knot, left - takes, cell + way
                    continue
        return x + velocity * left if zero is None else zero + (x - zero) * MP.exp(slope * left)


def derivatives_exactly(x, velocities, interval, time):
    """`dT/dx` and `dT/dv` by central differences of `carried_exactly`, right to some 45 digits where `T` is C2."""

    def difference(at):
        return (at(STEP) - at(-STEP)) / (2 * STEP)

    exact = [MP.mpf(velocity) for velocity in velocities]

    def nudged(k, by):
        return [velocity + by if i == k else velocity for i, velocity in enumerate(exact)]

    by_x = difference(lambda by: carried_exactly(MP.mpf(x) + by, exact, interval, time))
    by_knots = [
        difference(lambda by, k=k: carried_exactly(x, nudged(k, by), interval, time)) for k in range(len(exact))
    ]
    return by_x, by_knots


def integrated(x, velocities, interval, time, *, tolerance=1e-12):
    """Where points are after some time, by an integrator of order eight that starts anew at every knot."""
    knots = np.linspace(*interval, len(velocities))
    slopes = np.diff(velocities) / np.diff(knots)
    way = 1.0 if time >= 0 else -1.0

    def follow(start):
        cell = int(np.clip(np.searchsorted(knots, start, "right") - 1, 0, len(slopes) - 1))
        now, place = 0.0, start
        while True:
            base, velocity, slope = knots[cell], velocities[cell], slopes[cell]
            moving = way * (velocity + slope * (place - base))
            step = 1 if moving > 0 else -1
            inner = 0 <= cell + step < len(slopes)
            border = knots[cell + (step > 0)] if inner else np.inf

            def field(_, y, base=base, velocity=velocity, slope=slope):
                return way * (velocity + slope * (y - base))

            def leaves(_, y, border=border):
                return y[0] - border if np.isfinite(border) else 1.0

            leaves.terminal = True
            leaves.direction = step
            # Starting on the border itself is no event.
            solution = solve_ivp(
                field, (now, abs(time)), [place], "DOP853", events=leaves, rtol=tolerance, atol=1e-14, max_step=np.inf
            )
            if solution.status != 1:
                return solution.y[0, -1]
            now, place, cell = solution.t_events[0][0], border, cell + step

    return np.array([follow(start) for start in x])
