"""Lets one weight move under noise on the loss that an activation makes, by equation and by sampling.

The loss is `(phi(w) - 1/2)^2 / 2`. A ReLU is flat below 0, so a weight that begins there gets no gradient, and only
noise brings it back; a smooth activation pulls it. The lines of the drawing are the density by the Fokker-Planck
equation at three times, the dots a histogram of chains of Langevin dynamics at the same times.

Usage: python examples/dynamics.py [-a relu -a gelu] [--out .]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from softknee.diagnostics import dynamics_demo


def main() -> None:
    """Compute, sample, draw, and say how much of the weights escaped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-a", "--activation", action="append", help="a name or an expression; repeat")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the drawings")
    how = parser.parse_args()
    print(f"{'':12}share of the weights above 0 at time   distance of the sample")
    for name in how.activation or ["relu", "leaky_relu", "gelu"]:
        found = dynamics_demo(name)
        above = found.diffusion.density[:, found.diffusion.x > 0].sum(1) * found.diffusion.width
        shares = "  ".join(f"{time:g}: {share:.2f}" for time, share in zip(found.diffusion.times, above, strict=True))
        print(f"{name:12}{shares:38} {found.distance().max():.3f}")
        found.write_svg(how.out / f"dynamics-{name}.svg")


if __name__ == "__main__":
    main()
