"""Elementary functions for Triton kernels: those of `native/vector_math.h`, operation by operation.

Triton's own exponential multiplies by log2(e) in single precision, so that its error grows with the argument; its
logarithm, sine and error function come from libdevice, which flushes subnormals and which the interpreter lacks. These
formulas are right to a few float32 ulp everywhere, give the CPU's numbers, and run wherever Triton does.

Every step is an explicit `fma`, or exact, or harmless to contract, so a compiler that fuses products with sums changes
nothing that matters. NaN stays NaN because comparisons with it are false.
"""

from __future__ import annotations

import triton
import triton.language as tl

# ln 2 in two parts; the first has 15 bits, so that its product with an exponent is exact.
LN2_HI = tl.constexpr(0.693145751953125)
LN2_LO = tl.constexpr(1.42860677e-6)
LOG2E = tl.constexpr(1.44269504)
# Adding it leaves the nearest integer in the low bits of the sum.
ROUNDER = tl.constexpr(12582912.0)
ROUNDER_D = tl.constexpr(6755399441055744.0)
# The smallest normal number.
SMALLEST = tl.constexpr(1.1754943508222875e-38)
INFINITY = tl.constexpr(float("inf"))
EXPONENT = tl.constexpr(0xFF800000)
SIGN = tl.constexpr(0x80000000)


@triton.jit
def bits_of(x):
    """Return the bits of a float32 as uint32."""
    return x.to(tl.uint32, bitcast=True)


@triton.jit
def float_of(bits):
    """Return the float32 with given bits."""
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def with_sign(magnitude, sign):
    """Return a number, positive or with that sign already, with the sign of another."""
    return float_of(bits_of(magnitude) | (bits_of(sign) & SIGN))


@triton.jit
def double(value: tl.constexpr):
    """Return a float64 constant: a bare number would pass through float32."""
    return tl.full((), value, tl.float64)


@triton.jit
def _exp_reduced(r):
    """Return e^r on |r| <= ln 2 / 2."""
    p = tl.fma(r, 1.38189446e-3, 8.36870354e-3)
    p = tl.fma(p, r, 4.16682884e-2)
    p = tl.fma(p, r, 1.66665211e-1)
    p = tl.fma(p, r, 4.99999940e-1)
    p = tl.fma(p, r, 1.0)
    return tl.fma(p, r, 1.0)


@triton.jit
def _expm1_tail(r):
    """Return (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2."""
    q = tl.fma(r, 1.38682872e-3, 8.36642459e-3)
    q = tl.fma(q, r, 4.16674651e-2)
    q = tl.fma(q, r, 1.66665450e-1)
    return tl.fma(q, r, 4.99999970e-1)


@triton.jit
def exp(x):
    """Return e^x; 2^n goes in as two factors: neither overflows, and the second rounds a subnormal result once."""
    t = tl.fma(x, LOG2E, ROUNDER + 254.0)
    n = t - (ROUNDER + 254.0)
    r = tl.fma(n, -LN2_LO, tl.fma(n, -LN2_HI, x))
    lower = float_of((bits_of(t) << 22) & EXPONENT)
    upper = float_of(((bits_of(t) + 1) << 22) & EXPONENT)
    y = _exp_reduced(r) * lower * upper
    y = tl.where(x > 89.0, INFINITY, y)
    return tl.where(x < -105.0, 0.0, y)


@triton.jit
def _exp_minus_abs(x):
    """Return e^-|x|; as `exp`, with a fixed second factor."""
    a = tl.abs(x)
    t = tl.fma(a, -LOG2E, ROUNDER + 159.0)
    n = t - (ROUNDER + 159.0)
    r = tl.fma(n, -LN2_LO, tl.fma(n, -LN2_HI, -a))
    y = _exp_reduced(r) * float_of(bits_of(t) << 23) * 2.3283064365386963e-10
    return tl.where(a > 105.0, 0.0, y)


@triton.jit
def expm1(x):
    """Return e^x - 1, from (2^n (1 + r) - 1) + 2^n (e^r - 1 - r): the first part is exact where it cancels."""
    t = tl.fma(x, LOG2E, ROUNDER + 126.0)
    n = t - (ROUNDER + 126.0)
    s = float_of(bits_of(t) << 23)
    r = tl.fma(n, -LN2_LO, tl.fma(n, -LN2_HI, x))
    y = tl.fma(s * r, r * _expm1_tail(r), tl.fma(s, r, s - 0.5))
    y = tl.where(x > 89.0, INFINITY, y + y)
    return with_sign(tl.where(x < -20.0, -1.0, y), x)


@triton.jit
def sigmoid(x):
    """Return 1 / (1 + e) or e / (1 + e) with e = e^-|x|; the rounding of 1 + e is given back."""
    e = _exp_minus_abs(x)
    numerator = tl.where(x < 0.0, e, 1.0)
    return tl.fma(-e, tl.div_rn(numerator, 1.0 + e), numerator)


@triton.jit
def tanh(x):
    """Return tanh x, from w / (1 + w) with w = (e^2|x| - 1) / 2, taken from min(w, 1)."""
    a = tl.abs(x)
    t = tl.fma(a, 2.0 * LOG2E, ROUNDER + 127.0)
    n = t - (ROUNDER + 127.0)
    s = float_of(bits_of(t) << 23)
    r = tl.fma(n, -0.5 * LN2_LO, tl.fma(n, -0.5 * LN2_HI, a))
    q = _expm1_tail(2.0 * r) * 2.0
    w = tl.fma(s * r, r * q, tl.fma(s, r, tl.fma(s, 0.5, -0.5)))
    m = tl.where(w > 1.0, 1.0, w)
    y = tl.fma(-m, tl.div_rn(m, 1.0 + w), m)
    return with_sign(tl.where(a > 10.0, 1.0, y), x)


@triton.jit
def erf(x):
    """Return erf x = 1 - e^-v, where v / |x| is smooth enough for one polynomial up to 3.93."""
    a = tl.abs(x)
    z = a * a
    u = tl.fma(z, -9.38734775e-6, tl.fma(a, 1.18856471e-4, -6.37349847e-4))
    u = tl.fma(u, z, tl.fma(a, 1.67565944e-3, -1.69494815e-4))
    u = tl.fma(u, z, tl.fma(a, -1.91478245e-2, 1.02776304e-1))
    u = tl.fma(u, z, tl.fma(a, 6.36619568e-1, 1.28379166e-1))
    v = tl.fma(u, a, a)
    t = tl.fma(v, -LOG2E, ROUNDER + 127.0)
    n = t - (ROUNDER + 127.0)
    s = float_of(bits_of(t) << 23)
    r = tl.fma(n, LN2_LO, tl.fma(n, LN2_HI, v))
    p = tl.fma(-r * _expm1_tail(-r), r, r)
    y = tl.fma(s, p, 1.0 - s)
    return with_sign(tl.where(a > 3.93, 1.0, y), x)


@triton.jit
def _log_join(f, k):
    """Return log(2^k (1 + f)), with k as 2^23 k."""
    z = f * f
    q = tl.fma(f, 5.41496463e-2, -1.20671771e-1)
    q = tl.fma(q, z, tl.fma(f, 1.49822742e-1, -1.68223128e-1))
    q = tl.fma(q, z, tl.fma(f, 1.99772075e-1, -2.49934912e-1))
    q = tl.fma(q, z, tl.fma(f, 3.33335459e-1, -5.00000596e-1))
    r = tl.fma(z, q, k * (LN2_LO * 1.1920928955078125e-7))
    return tl.fma(k, LN2_HI * 1.1920928955078125e-7, f + r)


@triton.jit
def _number_of(exponent):
    """Return 2^23 k as float32 from the bits of k in an exponent's place."""
    return exponent.to(tl.int32, bitcast=True).to(tl.float32)


@triton.jit
def log(x):
    """Return log x with x = 2^k (1 + f), 3/4 <= 1 + f < 3/2; subnormals are scaled first."""
    small = x < SMALLEST
    v = bits_of(tl.where(small, x * 8388608.0, x))
    k = (v - 0x3F400000) & EXPONENT
    y = _log_join(float_of(v - k) - 1.0, _number_of(k) - tl.where(small, 192937984.0, 0.0))
    y = tl.where(x < INFINITY, y, x)
    y = tl.where(x < 0.0, float("nan"), y)
    return tl.where(x == 0.0, -INFINITY, y)


@triton.jit
def log1p(x):
    """Return log(1 + x): k is taken from 1 + x, but f = 2^-k x + (2^-k - 1) from x itself, which loses nothing."""
    k = (bits_of(1.0 + x) - 0x3F400000) & EXPONENT
    f = float_of(bits_of(x) - k) + tl.fma(float_of(0x40000000 - k), 0.5, -1.0)
    y = _log_join(f, _number_of(k))
    y = tl.where(x < INFINITY, y, x)
    y = tl.where(x < -1.0, float("nan"), y)
    return with_sign(tl.where(x == -1.0, INFINITY, y), x)


@triton.jit
def _sin_of_double(x):
    """Return sin x. n pi is taken off in double: one product serves up to 1e9, and an odd n turns the sign."""
    t = tl.fma(x, double(0.31830988618379067), double(ROUNDER_D))
    d = tl.fma(t - double(ROUNDER_D), double(-3.1415926535897931), x)
    turned = d.to(tl.int64, bitcast=True) ^ (t.to(tl.int64, bitcast=True) << 63)
    r = turned.to(tl.float64, bitcast=True).to(tl.float32)
    z = r * r
    p = tl.fma(z, 2.60127877e-6, -1.98079753e-4)
    p = tl.fma(p, z, 8.33304692e-3)
    p = tl.fma(p, z, -1.66666582e-1)
    return with_sign(tl.fma(p * z, r, r), r)


@triton.jit
def sin(x):
    """Return sin x; past 1e15 the phase is lost, and 0 at least keeps to the range."""
    return tl.where(tl.abs(x) < 1e15, _sin_of_double(x.to(tl.float64)), x * 0.0)


@triton.jit
def cos(x):
    """Return cos x, as `sin`."""
    return tl.where(tl.abs(x) < 1e15, _sin_of_double(double(1.5707963267948966) - x.to(tl.float64)), x * 0.0)


@triton.jit
def tan(x):
    """Return tan r or -1 / tan r after taking off a multiple of pi / 2: in two parts, for poles magnify the rest."""
    wide = x.to(tl.float64)
    t = tl.fma(wide, double(0.63661977236758134), double(ROUNDER_D))
    n = t - double(ROUNDER_D)
    r = tl.fma(n, double(-6.077100506506192e-11), tl.fma(n, double(-1.5707963267341256), wide)).to(tl.float32)
    z = r * r
    p = tl.fma(z, 9.39650834e-3, 3.10149929e-3)
    p = tl.fma(p, z, 2.44413875e-2)
    p = tl.fma(p, z, 5.34082018e-2)
    p = tl.fma(p, z, 1.33388355e-1)
    p = tl.fma(p, z, 3.33331555e-1)
    p = tl.fma(p * z, r, r)
    odd = (t.to(tl.int64, bitcast=True) & 1) != 0
    y = tl.div_rn(tl.where(odd, -1.0, p), tl.where(odd, p, 1.0))
    return tl.where(tl.abs(x) < 1e15, y, x * 0.0)


@triton.jit
def atan(x):
    """Return the arctangent; above 1 it is pi / 2 plus that of -1 / x, with pi / 2 as a product of two floats."""
    a = tl.abs(x)
    big = a > 1.0
    w = tl.div_rn(tl.where(big, -1.0, a), tl.where(big, a, 1.0))
    z = w * w
    y = z * z
    p = tl.fma(z, 2.49865674e-3, -1.46397008e-2)
    p = tl.fma(p, y, tl.fma(z, 4.03287187e-2, -7.30104744e-2))
    p = tl.fma(p, y, tl.fma(z, 1.05445370e-1, -1.41791970e-1))
    p = tl.fma(p, y, tl.fma(z, 1.99897304e-1, -3.33329737e-1))
    p = tl.fma(p * z, w, w)
    return with_sign(tl.fma(tl.where(big, 0.991597712, 0.0), 1.5841064453125, p), x)


@triton.jit
def _log2_mantissa(f):
    """Return log2(1 + f) in double on -1/4 <= f <= 1/2."""
    z = f * f
    q = tl.fma(f, double(-0.044953439063200172), double(0.11550205452362436))
    q = tl.fma(q, z, tl.fma(f, double(-0.1528698231264736), double(0.16465714948503046)))
    q = tl.fma(q, z, tl.fma(f, double(-0.18031469574784884), double(0.20582040241964145)))
    q = tl.fma(q, z, tl.fma(f, double(-0.24042821495657404), double(0.28854602306816651)))
    q = tl.fma(q, z, tl.fma(f, double(-0.36067435941555515), double(0.48089828223243042)))
    q = tl.fma(q, z, tl.fma(f, double(-0.72134751685526444), double(1.4426950409945427)))
    return q * f


@triton.jit
def _exp2_reduced(r):
    """Return 2^r on |r| <= 1/2."""
    p = tl.fma(r, 1.53264729e-4, 1.33908063e-3)
    p = tl.fma(p, r, 9.61850584e-3)
    p = tl.fma(p, r, 5.55035993e-2)
    p = tl.fma(p, r, 2.40226477e-1)
    p = tl.fma(p, r, 6.93147182e-1)
    return tl.fma(p, r, 1.0)


@triton.jit
def power(x, y):
    """Return x^y = 2^(y log2|x|), logarithm and product in double, because y magnifies their errors up to 128 times."""
    a = tl.abs(x)
    small = a < SMALLEST
    v = bits_of(tl.where(small, a * 8388608.0, a))
    k = (v - 0x3F400000) & EXPONENT
    n = _number_of(k) * 1.1920928955078125e-7 - tl.where(small, 23.0, 0.0)
    n = tl.where(a < INFINITY, n, a)
    n = tl.where(a == 0.0, -INFINITY, n)
    f = (float_of(v - k) - 1.0).to(tl.float64)
    t = (_log2_mantissa(f) + n.to(tl.float64)) * y.to(tl.float64)
    rounded = t + double(ROUNDER_D + 1023.0)
    r = (t - (rounded - double(ROUNDER_D + 1023.0))).to(tl.float32)
    # Scaled in double, so that the conversion rounds subnormals and overflows.
    scale = (rounded.to(tl.int64, bitcast=True) << 52).to(tl.float64, bitcast=True)
    m = (_exp2_reduced(r).to(tl.float64) * scale).to(tl.float32)
    e = t.to(tl.float32)
    m = tl.where(e > 129.0, INFINITY, m)
    m = tl.where(e < -151.0, 0.0, m)
    m = tl.where((a == 1.0) & (tl.abs(y) == INFINITY), 1.0, m)
    half = 0.5 * tl.abs(y)
    odd = half - tl.floor(half) == 0.5
    m = tl.where(odd, float_of(bits_of(m) | (bits_of(x) & SIGN)), m)
    m = tl.where((x < 0.0) & (x > -INFINITY) & (tl.floor(y) != y), float("nan"), m)
    return tl.where((x == 1.0) | (y == 0.0), 1.0, m)


@triton.jit
def exponentials(y_at, count: tl.constexpr):
    """Write e^0, e^1, ...: a kernel to try whether kernels work."""
    place = tl.arange(0, count)
    tl.store(y_at + place, exp(place.to(tl.float32)))
