"""Maps tensors on a GPU through a table, as `native/table.c` does on the CPU.

The moments of the incoming gradient are gathered by atomic additions, whose order differs from run to run. Sums of
floats would differ with it; so moments are gathered as 64-bit integers, in fixed point, which give the same sum in any
order. The unit is a power of two, as small as it can be without n elements of the size of the largest |g| overflowing.
Each element errs by at most one unit, less than 2^(ceil(log2 n) - 61) times the largest |g|: 2^-37 for 2^24 elements,
while float32 keeps 2^-24 of each. Elements smaller than a unit count as zero, or as one unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from softknee._engine.lookup import in_memory_order

if TYPE_CHECKING:
    from torch import Tensor

    from softknee._engine.grid import Grid, Table
    from softknee._engine.layout import Layout

# Elements of a program.
BLOCK = 1024
# Programs are spread over copies of the moments, for few bins are hit by many elements: copies times rows, and copies.
COPIED_ROWS = 2**15
MOST_COPIES = 32
# Digits of an integer sum.
DIGITS = 62
# Of powers of two that are float32.
SMALLEST_EXPONENT, LARGEST_EXPONENT = -126, 127
# Samples larger than this are told apart by 64-bit divisions.
LARGE = 2**30
# What Triton can say about sizes for memory to be moved in vectors.
EVEN = 16
# Products and sums are fused, as they are on the CPU.
OPTIONS = {"enable_fp_fusion": True}


@triton.jit
def _channel(start, lane, channels, inner, large: tl.constexpr):
    """Return the channels of elements; divisions are in 32 bits where a sample is not larger than that."""
    sample = channels * inner
    place = start % sample
    if not large:
        place = place.to(tl.int32)
        inner = inner.to(tl.int32)
        channels = channels.to(tl.int32)
    return (place + lane) // inner % channels


@triton.jit
def _located(
    x_at,
    entries_at,
    flags_at,
    count: tl.int64,
    channels,
    inner,
    origin,
    per_step,
    first,
    bins,
    even: tl.constexpr,
    large: tl.constexpr,
    per_channel: tl.constexpr,
    divided: tl.constexpr,
    width: tl.constexpr,
):
    """Return where elements lie: flat start, lanes that are real and those inside the grid, rows, places, 1 / widths.

    A program with elements outside sets its flag; several lanes may, to the same value.
    """
    if even:
        count = count // 16 * 16
    program = tl.program_id(0)
    start = program.to(tl.int64) * width
    lane = tl.arange(0, width)
    real = start + lane < count
    u = (tl.load(x_at + start + lane, mask=real).to(tl.float32) - origin) * per_step
    low = first.to(tl.float32)
    last = (first + bins - 1).to(tl.float32)
    inside = (u >= low) & (u <= last + 1.0)
    # Comparisons with NaN are false, so it ends in the first bin.
    whole = tl.floor(u)
    whole = tl.where(whole > low, whole, low)
    whole = tl.where(whole < last, whole, last)
    tl.store(flags_at + program + lane * 0, 1, mask=real & ~inside)
    row = whole.to(tl.int32) - first
    if per_channel:
        row += _channel(start, lane, channels, inner, large) * bins
    t = tl.where(inside, u - whole, 0.0)
    per_width = tl.zeros([width], tl.float32) + per_step
    if divided:
        entry = tl.load(entries_at + row)
        # As `ROW_BITS` in division.py has it.
        parts = (entry >> 20).to(tl.float32)
        cell = tl.floor(t * parts)
        cell = tl.where(cell < parts - 1, cell, parts - 1)
        row = (entry & 0xFFFFF) + cell.to(tl.int32)
        t = t * parts - cell
        per_width = per_width * parts
    return start, lane, real, inside, row, t, per_width


@triton.jit
def _fixed(value, unit):
    """Return a number in units, rounded, as int64."""
    return tl.floor(value * unit + 0.5).to(tl.int64)


@triton.jit(do_not_specialize=["count", "channels", "inner", "first", "bins"])
def _values(
    x_at,
    y_at,
    rows_at,
    entries_at,
    flags_at,
    count: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    origin: tl.float32,
    per_step: tl.float32,
    first: tl.int32,
    bins: tl.int32,
    even: tl.constexpr,
    large: tl.constexpr,
    per_channel: tl.constexpr,
    divided: tl.constexpr,
    width: tl.constexpr,
):
    """Write values, and zero outside the grid."""
    start, lane, real, inside, row, t, _ = _located(
        x_at,
        entries_at,
        flags_at,
        count,
        channels,
        inner,
        origin,
        per_step,
        first,
        bins,
        even,
        large,
        per_channel,
        divided,
        width,
    )
    at = rows_at + row.to(tl.int64) * 4
    y = tl.load(at) + t * (tl.load(at + 1) + t * (tl.load(at + 2) + t * tl.load(at + 3)))
    tl.store(y_at + start + lane, tl.where(inside, y, 0.0), mask=real)


@triton.jit(do_not_specialize=["count", "channels", "inner", "first", "bins", "rows", "copies"])
def _slopes(
    x_at,
    g_at,
    y_at,
    rows_at,
    entries_at,
    flags_at,
    moments_at,
    unit_at,
    count: tl.int64,
    channels: tl.int64,
    inner: tl.int64,
    origin: tl.float32,
    per_step: tl.float32,
    first: tl.int32,
    bins: tl.int32,
    rows: tl.int32,
    copies: tl.int32,
    even: tl.constexpr,
    large: tl.constexpr,
    per_channel: tl.constexpr,
    divided: tl.constexpr,
    gather: tl.constexpr,
    width: tl.constexpr,
):
    """Write g times slopes, and g itself outside the grid; gather the moments of what is inside."""
    start, lane, real, inside, row, t, per_width = _located(
        x_at,
        entries_at,
        flags_at,
        count,
        channels,
        inner,
        origin,
        per_step,
        first,
        bins,
        even,
        large,
        per_channel,
        divided,
        width,
    )
    g = tl.load(g_at + start + lane, mask=real).to(tl.float32)
    at = rows_at + row.to(tl.int64) * 4
    slope = tl.load(at + 1) + t * (2.0 * tl.load(at + 2) + t * (3.0 * tl.load(at + 3)))
    if gather:
        unit = tl.load(unit_at)
        copy = (tl.program_id(0) % copies).to(tl.int64) * rows
        to = moments_at + (copy + row) * 3
        met = real & inside
        gt = g * t
        tl.atomic_add(to, _fixed(g, unit), mask=met, sem="relaxed")
        tl.atomic_add(to + 1, _fixed(gt, unit), mask=met, sem="relaxed")
        tl.atomic_add(to + 2, _fixed(gt * t, unit), mask=met, sem="relaxed")
    # Comes last, for it may be written over g.
    tl.store(y_at + start + lane, tl.where(inside, g * per_width * slope, g), mask=real)


def run_table(
    table: Table, layout: Layout, x: Tensor, g: Tensor | None, y: Tensor, moments: Tensor | None
) -> Tensor | None:
    """Map a tensor through a table.

    Args:
        table: The function.
        layout: Of the tensors.
        x: Dense, on a GPU.
        g: Incoming gradient in the same order; None for values.
        y: In the same order, may be `g`; receives values, zero outside the grid, or `g` times slopes, `g` outside.
        moments: `(channels, rows, 4)` float32; receives the sums of `g`, `g t` and `g t^2` over each row, and zero.

    Returns:
        Flat positions, in memory order, of the elements outside, None where there are none.
    """
    count, (_, channels, inner) = x.numel(), layout[:3]
    programs = -(-count // BLOCK)
    flags = torch.zeros(programs, dtype=torch.int8, device=x.device)
    divided = table.entries is not None
    given: dict[str, Any] = {"x_at": x, "y_at": y, "rows_at": table.rows, "flags_at": flags, **_place(table.grid)}
    given |= {"entries_at": table.entries if divided else table.rows, "divided": divided}
    given |= {"count": count, "channels": channels, "inner": inner, "even": count % EVEN == 0, "width": BLOCK}
    given |= {"per_channel": channels > 1, "large": channels * inner > LARGE}
    with torch.cuda.device_of(x):
        if g is None:
            _values[(programs,)](**given, **OPTIONS)
        else:
            gathered, unit = (table.rows, x) if moments is None else _accumulators(table, g)
            given |= {"g_at": g, "moments_at": gathered, "unit_at": unit}
            given |= {"rows": table.rows.numel() // 4, "copies": len(gathered)}
            _slopes[(programs,)](**given, gather=moments is not None, **OPTIONS)
            if moments is not None:
                moments[..., :3] = gathered.sum(0).double() / unit.double()
                moments[..., 3] = 0
    return _outside(table.grid, in_memory_order(x, layout.memory_format), flags)


def _place(grid: Grid) -> dict[str, float]:
    return {"origin": grid.origin, "per_step": 1 / grid.step, "first": grid.first, "bins": grid.bins}


def _accumulators(table: Table, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return zeroed moments, `(copies, channels, rows, 3)`, and how many of their units make 1, a power of two."""
    rows = table.rows.shape[:2]
    copies = max(1, min(MOST_COPIES, COPIED_ROWS // rows.numel()))
    peak = torch.stack(torch.aminmax(g)).float().abs().amax()
    # Stays on the GPU; built from its bits, because powers need not be exact there.
    exponent = DIGITS - (g.numel() - 1).bit_length() - torch.frexp(peak).exponent
    bits = (exponent.clamp(SMALLEST_EXPONENT, LARGEST_EXPONENT) + LARGEST_EXPONENT).to(torch.int32) << 23
    # A gradient that is not finite makes all moments NaN.
    unit = torch.where(peak.isfinite(), bits.view(torch.float32), torch.nan)
    return torch.zeros(copies, *rows, 3, dtype=torch.int64, device=g.device), unit


def _outside(grid: Grid, x: Tensor, flags: Tensor) -> Tensor | None:
    """Return positions of elements outside the grid, looked for in the flagged blocks only."""
    blocks = flags.nonzero()
    if not len(blocks):
        return None
    positions = (blocks * BLOCK + torch.arange(BLOCK, device=x.device)).flatten()
    positions = positions[positions < x.numel()]
    u = (x[positions].float() - grid.origin) * (1 / grid.step)
    return positions[~((u >= grid.first) & (u <= grid.first + grid.bins))]
