"""The drawings of `ditac.py`, by matplotlib, and a page of them."""

from __future__ import annotations

import base64
import html
from typing import TYPE_CHECKING, Any

import torch
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

import softknee as sk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Function = Callable[[Tensor], Tensor]
    Shapes = list[tuple[int, list[Tensor]]]

# Colours that stay apart for the colour-blind (Okabe and Ito); activations differ by their dashes, too.
COLOURS = {"DiTAC": "#d55e00", "PReLU": "#009e73", "ReLU": "#0072b2", "GELU": "#000000"}
DASHES = {"DiTAC": "-", "PReLU": "-.", "ReLU": "--", "GELU": ":"}
THREE = ("#0072b2", "#e69f00", "#cc79a7")
GREY = "#8a8a8a"
# Velocities at the inner knots for the drawing of the order.
FIELDS = (
    (0.5, 1.5, 2.0, 1.0, -0.5, -1.0, 0.5, 1.5, 1.0),
    (-1.0, -1.5, 0.5, 1.5, 1.0, 0.5, 1.5, 0.0, -1.0),
    (1.0, -1.0, -2.0, -1.0, 0.5, 1.5, -1.0, -1.5, 0.5),
)
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>What DiTAC learns</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }}
figure {{ margin: 2.5rem 0 }} img {{ width: 100%; height: auto }} figcaption {{ color: #444; max-width: 75ch }}
table {{ border-collapse: collapse }} th, td {{ text-align: left; padding: .2rem 1.2rem .2rem 0 }}
</style>
<h1>What DiTAC learns</h1>
<p>A network 2-50-1 on a sum of six plane waves: R² on a fixed grid.</p>
{body}
</html>
"""


def figure(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, Any]:
    """Return a figure, and its axes as `(rows, columns)`."""
    drawn = Figure(figsize=size, layout="constrained", dpi=120)
    return drawn, drawn.subplots(rows, columns, squeeze=False, **options)


def whole(activation: nn.Module) -> Tensor:
    """Return the velocities at all knots in float64, with those of 0 at both ends."""
    return F.pad(activation.velocities.detach().double(), (1, 1))


@rc_context(STYLE)
def field(trained: Sequence[nn.Module], seen: Tensor, bound: float) -> Figure:
    """Draw velocity fields, their maps and the slopes of the maps.

    Args:
        trained: DiTAC of each seed; the first one stands out.
        seen: What came into the first one.
        bound: Half the width of the interval.
    """
    drawn, ((left, middle, right),) = figure(1, 3, (11, 3.5))
    within = (-bound, bound)
    knots = torch.linspace(*within, len(whole(trained[0])), dtype=torch.float64)
    x = torch.linspace(*within, 2401, dtype=torch.float64, requires_grad=True)
    density = left.twinx()
    density.hist(seen.flatten().numpy(), bins=80, range=within, density=True, color="#d8d8d8")
    density.set(yticks=[], ylim=(0, 2.5))
    density.spines[:].set_visible(False)
    density.grid(visible=False)
    left.set_zorder(density.get_zorder() + 1)
    left.patch.set_visible(False)
    for axes, line in ((left, 0.0), (right, 1.0)):
        axes.axhline(line, color="black", lw=1, ls=":")
    middle.plot(within, within, color="black", lw=1, ls=":", label="nothing moves")
    for index, activation in reversed(list(enumerate(trained))):
        look = {"color": GREY, "lw": 1.0} if index else {"color": COLOURS["DiTAC"], "lw": 2.0}
        label = None if index > 1 else "other seeds" if index else "first seed"
        velocities = whole(activation)
        place = sk.cpab.warp(x, velocities, interval=within)
        (slope,) = torch.autograd.grad(place.sum(), x)
        left.plot(knots, velocities, marker=None if index else "o", ms=4, **look)
        middle.plot(x.detach(), place.detach(), label=label, **look)
        right.plot(x.detach(), slope, **look)
    left.set(title="velocity field, with its knots", ylabel="v(x), per unit of time")
    left.text(0.98, 0.03, "grey: the layer's inputs", transform=left.transAxes, ha="right", color="#6a6a6a", fontsize=8)
    middle.set(title="the map: where time 1 takes x", ylabel="T(x)", aspect="equal")
    middle.legend(loc="upper left", fontsize=8)
    right.set(title="its slope: stretched above 1, squeezed below", ylabel="T'(x)", yscale="log")
    for axes in (left, middle, right):
        axes.set(xlabel="x", xlim=within)
    return drawn


@rc_context(STYLE)
def training(axis: Tensor, films: Sequence[tuple[str, Shapes]]) -> Figure:
    """Draw activations while they are trained, one panel for each; the colour is the step.

    Args:
        axis: Inputs.
        films: What the panels are of, and one step and shape after another.
    """
    counts = [len(film[0][1]) for _, film in films]
    drawn, (row,) = figure(1, sum(counts), (2.8 * sum(counts) + 0.9 * len(films), 3.3), sharey=True)
    free = iter(row)
    for (name, film), count in zip(films, counts, strict=True):
        panels = [next(free) for _ in range(count)]
        scale = ScalarMappable(LogNorm(10, film[-1][0]), "viridis")
        for k, axes in enumerate(panels):
            for step, made in film:
                axes.plot(axis, made[k], color=scale.to_rgba(max(step, 10)), lw=1.0)
            axes.plot(axis, F.gelu(axis), color="black", lw=1.2, ls=":", label="GELU, the start")
            axes.set(title=f"{name}, layer {k + 1}" if count > 1 else name, xlabel="x")
        drawn.colorbar(scale, ax=panels, label="step", pad=0.02)
    row[0].set(ylabel="activation")
    row[0].legend(loc="upper left", fontsize=8)
    return drawn


@rc_context(STYLE)
def order(bound: float) -> Figure:
    """Draw a map before and after an activation, and how much each of its velocities then does."""
    drawn, rows = figure(2, 3, (11, 6.2))
    within = (-bound, bound)
    x = torch.linspace(-bound - 0.5, bound + 0.5, 1401, dtype=torch.float64)
    fields = [torch.tensor(one, dtype=torch.float64) for one in FIELDS]
    knots = torch.linspace(*within, len(fields[0]) + 2, dtype=torch.float64)[1:-1]
    for (before, after, bars), (name, f) in zip(rows, (("GELU", F.gelu), ("ReLU", F.relu)), strict=True):

        def first(x: Tensor, v: Tensor, f: Function = f) -> Tensor:
            return f(sk.cpab.warp(x, F.pad(v, (1, 1)), interval=within))

        def second(x: Tensor, v: Tensor, f: Function = f) -> Tensor:
            return sk.cpab.warp(f(x), F.pad(v, (1, 1)), interval=within)

        for axes, made in ((before, first), (after, second)):
            for colour, velocities in zip(THREE, fields, strict=True):
                axes.plot(x, made(x, velocities), color=colour)
            axes.plot(x, f(x), color="black", lw=1, ls=":", label=f"{name} alone")
            axes.set(xlabel="x", ylabel="output", ylim=(-0.6, bound + 0.3))
        before.set(title=f"map first: {name}(T(x))")
        after.set(title=f"map last: T({name}(x))")
        before.legend(fontsize=8, loc="upper left")
        for shift, made, colour, label in (
            (-0.12, first, "#0072b2", "map first"),
            (0.12, second, "#e69f00", "map last"),
        ):
            moved = sum(influence(made, x, velocities) for velocities in fields) / len(fields)
            bars.bar(knots + shift, moved, 0.22, color=colour, label=label)
        bars.set(title="influence of the velocity at each knot", xlabel="knot", ylabel="rms of ∂ output / ∂ velocity")
        bars.grid(visible=False, axis="x")
    rows[0][2].legend(fontsize=8, loc="upper left")
    return drawn


def influence(made: Callable[[Tensor, Tensor], Tensor], x: Tensor, velocities: Tensor) -> Tensor:
    """Return the root mean square, over inputs, of the output's derivative by each velocity."""
    step = 1e-5 * torch.eye(len(velocities), dtype=velocities.dtype)
    slopes = [(made(x, velocities + one) - made(x, velocities - one)) / 2e-5 for one in step]
    return torch.stack([one.square().mean().sqrt() for one in slopes])


@rc_context(STYLE)
@torch.no_grad()
def units(models: dict[str, nn.Sequential], x: Tensor, y: Tensor, target: Function) -> Figure:
    """Draw networks of three units from inside.

    Args:
        models: By the name of their activation.
        x: `(n, 1)`, what they were trained on.
        y: What belongs to it.
        target: The function without its noise.
    """
    drawn, rows = figure(len(models), 4, (12.5, 3.1 * len(models)), sharex=True)
    axis = torch.linspace(float(x.min()), float(x.max()), 801)[:, None]
    for (fit, before, after, parts), (name, model) in zip(rows, models.items(), strict=True):
        first, activation, last = model
        error = float((model(x) - y).square().mean().sqrt())
        fit.plot(x, y, ".", color=GREY, ms=3.5, label="data")
        fit.plot(axis, target(axis), color="black", lw=1, ls=":", label="target")
        fit.plot(axis, model(axis), color=COLOURS["DiTAC"], label="fit")
        fit.set(title=f"{name}: rms error {error:.3f}", ylabel="y")
        z = first(axis)
        for k, colour in enumerate(THREE):
            before.plot(axis, z[:, k], color=colour, label=f"unit {k + 1}")
            after.plot(axis, activation(z)[:, k], color=colour)
            parts.plot(axis, last.weight[0, k] * activation(z)[:, k], color=colour)
        parts.plot(axis, model(axis), color=COLOURS["DiTAC"], lw=2, label="sum and bias: the fit")
        before.set(title="units before the activation")
        after.set(title="after it")
        parts.set(title="times the weights behind it")
    rows[0][0].legend(fontsize=8, loc="upper left")
    rows[0][1].legend(fontsize=8)
    rows[0][3].legend(fontsize=8)
    for axes in rows[-1]:
        axes.set(xlabel="x")
    return drawn


@rc_context(STYLE)
@torch.no_grad()
def surface(models: dict[str, nn.Sequential], scores: dict[str, list[float]], points: Tensor, target: Tensor) -> Figure:
    """Draw the target, and fits and errors beneath each other.

    Args:
        models: By the name of their activation.
        scores: R2 of all seeds, by the same names; the models are those of the first.
        points: A square of `(side * side, 2)`.
        target: `(side * side, 1)`.
    """
    side = round(len(points) ** 0.5)
    look = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1, "origin": "lower", "extent": (-1, 1, -1, 1)}
    drawn, (fits, errors) = figure(2, 1 + len(models), (2.3 * (1 + len(models)) + 0.7, 4.9))
    shown = fits[0].imshow(target.reshape(side, side).T, **look)
    fits[0].set(title="target", ylabel="x₂")
    for upper, lower, (name, model) in zip(fits[1:], errors[1:], models.items(), strict=True):
        made = model(points)
        upper.imshow(made.reshape(side, side).T, **look)
        lower.imshow((made - target).reshape(side, side).T, **look)
        upper.set(title=f"{name}, R² {scores[name][0]:.2f}")
        lower.set(title="its error", xlabel="x₁")
    dots = errors[0]
    for row, (name, found) in enumerate(scores.items()):
        dots.plot(found, [row] * len(found), "o", ms=5, color=COLOURS[name], alpha=0.8)
    dots.set(
        title="R² of all seeds",
        xlim=(-0.05, 1.05),
        ylim=(len(scores) - 0.5, -0.5),
        yticks=range(len(scores)),
        yticklabels=list(scores),
    )
    errors[1].set(ylabel="x₂")
    for axes in (*fits, *errors[1:]):
        axes.grid(visible=False)
        axes.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    drawn.colorbar(shown, ax=[*fits, *errors], label="value", pad=0.01, shrink=0.7)
    return drawn


@rc_context(STYLE)
def why(
    causes: dict[str, Any], interventions: dict[str, Any], scores: dict[str, list[float]], degrees: Sequence[int]
) -> Figure:
    """Draw what `ditac.causes` and `ditac.interventions` return."""
    drawn, ((tails, polynomials), (kernels, scales)) = figure(2, 2, (11, 7.4))
    looks = {
        "relu": ("ReLU", COLOURS["ReLU"], "--"),
        "gelu": ("GELU", COLOURS["GELU"], ":"),
        "gelu(5*x)/5": ("GELU(5 x) / 5", "#cc79a7", "-"),
    }
    for key, (name, colour, dash) in looks.items():
        tails.plot(degrees, causes["beyond"][key], dash, color=colour, label=name, marker=".")
    tails.set(
        title="what activations hold beyond polynomials of a degree",
        yscale="log",
        ylim=(1e-12, 1),
        ylabel="share of the variance",
        xlabel="degree",
    )
    polynomials.plot(degrees, causes["target_r2"], color=GREY, marker=".", label="the target")
    polynomials.plot(
        degrees, causes["gelu_r2"], ":", color=COLOURS["GELU"], marker=".", label="what the GELU network learned"
    )
    polynomials.set(title="what polynomials of a degree explain", ylabel="R² of the best polynomial", xlabel="degree")
    polynomials.axhline(scores["GELU"][0], color=COLOURS["GELU"], lw=1, label="the GELU network's R²")
    polynomials.set(ylim=(-0.03, 1.03))
    curves = {
        "ReLU": ("ReLU", "--"),
        "GELU": ("GELU", ":"),
        "GELU(5 x) / 5": ("#cc79a7", "-"),
        "DiTAC, trained": ("DiTAC", "-"),
    }
    for name, (colour, dash) in curves.items():
        found = causes["kernels"][name]
        kernels.plot(found["eigenvalues"], found["share"], dash, color=COLOURS.get(colour, colour), label=name)
    kernels.axvspan(1e-18, 1e-15, color="#eeeeee")
    kernels.text(3e-17, 0.9, "rounding", color="#6a6a6a", fontsize=8, ha="center")
    kernels.set(title="the target in the tangent kernel's directions", xscale="log", xlim=(1, 1e-18), ylim=(0, 1))
    kernels.set(xlabel="eigenvalue / largest, easy directions first", ylabel="share of the target, cumulative")
    for key, name, colour, shift in (
        ("sharpened", "GELU(k x) / k", "#cc79a7", 0.97),
        ("weights", "GELU, first weights × k", "#000000", 1.03),
    ):
        for index, (k, found) in enumerate(interventions[key].items()):
            scales.plot(
                [k * shift] * len(found), found, "o", ms=5, alpha=0.75, color=colour, label=None if index else name
            )
        means = [sum(found) / len(found) for found in interventions[key].values()]
        scales.plot([k * shift for k in interventions[key]], means, color=colour, lw=1)
    for name in ("DiTAC", "ReLU"):
        scales.axhspan(
            min(scores[name]), max(scores[name]), color=COLOURS[name], alpha=0.25, lw=0, label=f"{name}, all seeds"
        )
    ticks = list(interventions["sharpened"])
    scales.set(
        title="the intervention: nothing but GELU's scale",
        xscale="log",
        xlabel="k",
        ylabel="R² of each seed",
        ylim=(-0.03, 1.03),
    )
    scales.set_xticks(ticks, labels=[str(k) for k in ticks], minor=False)
    scales.minorticks_off()
    for axes, place in (
        (tails, "upper right"),
        (polynomials, (0.56, 0.28)),
        (kernels, (0.5, 0.22)),
        (scales, "lower right"),
    ):
        axes.legend(fontsize=8, loc=place)
    return drawn


def page(folder: Path, drawings: dict[str, tuple[Figure, str]], scores: dict[str, list[float]]) -> Path:
    """Write drawings as PNG, and a page with all of them inside.

    Args:
        folder: Made if it is not there.
        drawings: By name: a drawing and what it shows.
        scores: For the table.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        f"<tr><th scope='row'>{name}</th><td>{sum(found) / len(found):.3f}</td><td>"
        + ", ".join(f"{one:.3f}" for one in found)
        for name, found in scores.items()
    ]
    parts = [f"<table><tr><th>activation</th><th>mean R²</th><th>each seed</th></tr>{''.join(rows)}</table>"]
    for name, (drawn, caption) in drawings.items():
        drawn.savefig(folder / f"{name}.png")
        code = base64.b64encode((folder / f"{name}.png").read_bytes()).decode("ascii")
        said = html.escape(caption)
        parts.append(
            f'<figure><img alt="{said}" src="data:image/png;base64,{code}"><figcaption>{said}</figcaption></figure>'
        )
    made = folder / "index.html"
    made.write_text(PAGE.format(body="\n".join(parts)), encoding="utf-8")
    return made
