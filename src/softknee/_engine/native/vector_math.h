/*
 * Elementary functions on float32 that compilers vectorise inside `#pragma omp simd` loops.
 *
 * No function branches, calls or reads a table: every lane runs the same instructions, and special values are selected
 * last, where their comparisons delay nothing. NaN, infinities, signed zeros and subnormals come out as from libm.
 * Compile with -fno-math-errno and -fno-trapping-math (else comparisons keep loops scalar), never with -ffast-math (it
 * undoes the rounding tricks).
 *
 * An error in ulp below is the largest over all float32 numbers; in brackets, that without a fused multiply-add.
 */
#ifndef SOFTKNEE_VECTOR_MATH_H
#define SOFTKNEE_VECTOR_MATH_H

#include <math.h>
#include <stdint.h>

/* A call left in a loop stops its vectorisation, and these bodies are longer than compilers inline unasked. */
#if defined(__GNUC__)
#define SK_INLINE static inline __attribute__((always_inline, unused))
#else
#define SK_INLINE static inline
#endif

/* Without the instruction fmaf is a slow call, so the reductions below are exact with a separate product too. */
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define SK_FMA(a, b, c) fmaf((a), (b), (c))
#define SK_FMA_D(a, b, c) fma((a), (b), (c))
#else
#define SK_FMA(a, b, c) ((a) * (b) + (c))
#define SK_FMA_D(a, b, c) ((a) * (b) + (c))
#endif

/* ln 2 in two parts; the first has 15 bits, so that its product with an exponent is exact. */
#define SK_LN2_HI 0.693145751953125f
#define SK_LN2_LO 1.42860677e-6f
#define SK_LOG2E 1.44269504f

/* Adding it leaves the nearest integer in the low bits of the sum. */
#define SK_ROUNDER 12582912.0f
#define SK_ROUNDER_D 6755399441055744.0

#define SK_PI 3.1415926535897931

SK_INLINE uint32_t sk_bits(float x) {
    union { float f; uint32_t u; } v = {x};
    return v.u;
}

SK_INLINE float sk_float(uint32_t bits) {
    union { uint32_t u; float f; } v = {bits};
    return v.f;
}

SK_INLINE uint64_t sk_bits_d(double x) {
    union { double f; uint64_t u; } v = {x};
    return v.u;
}

SK_INLINE double sk_float_d(uint64_t bits) {
    union { uint64_t u; double f; } v = {bits};
    return v.f;
}

SK_INLINE float sk_abs(float x) { return sk_float(sk_bits(x) & 0x7fffffffu); }

/* For a magnitude that is positive, or already has the sign. */
SK_INLINE float sk_with_sign(float magnitude, float sign) {
    return sk_float(sk_bits(magnitude) | (sk_bits(sign) & 0x80000000u));
}

#if defined(__SSE4_1__) || defined(__aarch64__)
SK_INLINE float sk_round(float x) { return rintf(x); }
SK_INLINE float sk_floor(float x) { return floorf(x); }
SK_INLINE float sk_trunc(float x) { return truncf(x); }
#else
/* Halves to even, like rintf. Floats from 2^23 up are integers. */
SK_INLINE float sk_round(float x) {
    float a = sk_abs(x);
    float r = (a + 8388608.0f) - 8388608.0f;
    return sk_with_sign(a < 8388608.0f ? r : a, x);
}

SK_INLINE float sk_floor(float x) {
    float r = sk_round(x);
    r = r > x ? r - 1.0f : r;
    return r == 0.0f ? sk_with_sign(0.0f, x) : r;
}

SK_INLINE float sk_trunc(float x) {
    float a = sk_abs(x);
    float r = sk_round(a);
    return sk_with_sign(r > a ? r - 1.0f : r, x);
}
#endif

/* Polynomials, coefficients from the lowest. */
SK_INLINE float sk_poly3(float x, float c0, float c1, float c2, float c3) {
    return SK_FMA(SK_FMA(SK_FMA(c3, x, c2), x, c1), x, c0);
}

SK_INLINE float sk_poly4(float x, float c0, float c1, float c2, float c3, float c4) {
    return SK_FMA(sk_poly3(x, c1, c2, c3, c4), x, c0);
}

SK_INLINE float sk_poly6(float x, float c0, float c1, float c2, float c3, float c4, float c5, float c6) {
    return SK_FMA(SK_FMA(sk_poly4(x, c2, c3, c4, c5, c6), x, c1), x, c0);
}

/* In pairs over z = x^2: half the dependent steps of Horner's rule, which is what a long polynomial waits for. */
SK_INLINE float sk_pairs7(float x, float z, float c0, float c1, float c2, float c3, float c4, float c5, float c6,
                          float c7) {
    return sk_poly3(z, SK_FMA(c1, x, c0), SK_FMA(c3, x, c2), SK_FMA(c5, x, c4), SK_FMA(c7, x, c6));
}

/* e^r on |r| <= ln 2 / 2. */
SK_INLINE float sk_exp_reduced(float r) {
    return sk_poly6(r, 1.0f, 1.0f, 4.99999940e-1f, 1.66665211e-1f, 4.16682884e-2f, 8.36870354e-3f, 1.38189446e-3f);
}

/* (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2. */
SK_INLINE float sk_expm1_tail(float r) {
    return sk_poly4(r, 4.99999970e-1f, 1.66665450e-1f, 4.16674651e-2f, 8.36642459e-3f, 1.38682872e-3f);
}

/*
 * x = n ln 2 + r. 2^n goes in as two factors: neither overflows, and the second rounds a subnormal result once.
 * 0.90 ulp (1.17).
 */
SK_INLINE float sk_exp(float x) {
    float t = SK_FMA(x, SK_LOG2E, SK_ROUNDER + 254.0f);
    float n = t - (SK_ROUNDER + 254.0f);
    uint32_t s = (sk_bits(t) << 22) & 0xff800000u;
    float r = SK_FMA(n, -SK_LN2_LO, SK_FMA(n, -SK_LN2_HI, x));
    float y = sk_exp_reduced(r) * sk_float(s) * sk_float((sk_bits(t) << 23) - s);
    y = x > 89.0f ? INFINITY : y;
    return x < -105.0f ? 0.0f : y;
}

/* e^-|x|. As sk_exp, with a fixed second factor, for the first can be 2^(n + 32). */
SK_INLINE float sk_exp_minus_abs(float x) {
    float a = sk_abs(x);
    float t = SK_FMA(a, -SK_LOG2E, SK_ROUNDER + 159.0f);
    float n = t - (SK_ROUNDER + 159.0f);
    float s = sk_float(sk_bits(t) << 23);
    float r = SK_FMA(n, -SK_LN2_LO, SK_FMA(n, -SK_LN2_HI, -a));
    float y = sk_exp_reduced(r) * s * 0x1p-32f;
    return a > 105.0f ? 0.0f : y;
}

/*
 * x = n ln 2 + r, then (2^n (1 + r) - 1) + 2^n (e^r - 1 - r): the first part is exact where it cancels. Halved until
 * the end, because 2^128 is no float. 1.29 ulp (1.32).
 */
SK_INLINE float sk_expm1(float x) {
    float t = SK_FMA(x, SK_LOG2E, SK_ROUNDER + 126.0f);
    float n = t - (SK_ROUNDER + 126.0f);
    float s = sk_float(sk_bits(t) << 23);
    float r = SK_FMA(n, -SK_LN2_LO, SK_FMA(n, -SK_LN2_HI, x));
    float y = SK_FMA(s * r, r * sk_expm1_tail(r), SK_FMA(s, r, s - 0.5f));
    y = x > 89.0f ? INFINITY : y + y;
    y = x < -20.0f ? -1.0f : y;
    return sk_with_sign(y, x);
}

/*
 * 1 / (1 + e) or e / (1 + e) with e = e^-|x|: no overflow, and both tails are relative. The sum 1 + e loses half an
 * ulp; y = numerator - e y gives it back, for it shrinks an error of y by e <= 1. 1.65 ulp (1.98).
 */
SK_INLINE float sk_sigmoid(float x) {
    float e = sk_exp_minus_abs(x);
    float numerator = x < 0.0f ? e : 1.0f;
    return SK_FMA(-e, numerator / (1.0f + e), numerator);
}

/*
 * log(1 + e^x) = max(x, 0) + log(1 + e), e = e^-|x| <= 1: one polynomial and no second range reduction.
 * 2.26 ulp (2.66).
 */
SK_INLINE float sk_softplus(float x) {
    float e = sk_exp_minus_abs(x);
    float z = e * e;
    float q = sk_pairs7(e, z, -4.99996483e-1f, 3.33213300e-1f, -2.48572171e-1f, 1.91538483e-1f, -1.37541890e-1f,
                        7.92088881e-2f, -3.00683770e-2f, 5.36545413e-3f);
    return (x > 0.0f ? x : 0.0f) + SK_FMA(z, q, e);
}

/*
 * tanh|x| = w / (1 + w) with w = (e^2|x| - 1) / 2, taken from min(w, 1) by a multiple of itself that is at most half:
 * y = m - m (m / (1 + w)) is w / (1 + w) for m = w and for m = 1. Above 10 the result is 1. 1.75 ulp (1.87).
 */
SK_INLINE float sk_tanh(float x) {
    float a = sk_abs(x);
    float t = SK_FMA(a, 2.0f * SK_LOG2E, SK_ROUNDER + 127.0f);
    float n = t - (SK_ROUNDER + 127.0f);
    float s = sk_float(sk_bits(t) << 23);
    float r = SK_FMA(n, -0.5f * SK_LN2_LO, SK_FMA(n, -0.5f * SK_LN2_HI, a));
    float q = sk_expm1_tail(2.0f * r) * 2.0f;
    float w = SK_FMA(s * r, r * q, SK_FMA(s, r, SK_FMA(s, 0.5f, -0.5f)));
    float m = w > 1.0f ? 1.0f : w;
    float y = SK_FMA(-m, m / (1.0f + w), m);
    return sk_with_sign(a > 10.0f ? 1.0f : y, x);
}

/*
 * erfc a = e^-v, where v / a is smooth enough for one polynomial on 0 <= a <= 3.93; erf a = 1 - e^-v as in expm1.
 * Above 3.93 the result is 1. 1.91 ulp (2.24).
 */
SK_INLINE float sk_erf(float x) {
    float a = sk_abs(x);
    float z = a * a;
    float high = sk_poly3(z, SK_FMA(-1.91478245e-2f, a, 1.02776304e-1f), SK_FMA(1.67565944e-3f, a, -1.69494815e-4f),
                          SK_FMA(1.18856471e-4f, a, -6.37349847e-4f), -9.38734775e-6f);
    float u = SK_FMA(high, z, SK_FMA(6.36619568e-1f, a, 1.28379166e-1f));
    float v = SK_FMA(u, a, a);
    float t = SK_FMA(v, -SK_LOG2E, SK_ROUNDER + 127.0f);
    float n = t - (SK_ROUNDER + 127.0f);
    float s = sk_float(sk_bits(t) << 23);
    float r = SK_FMA(n, SK_LN2_LO, SK_FMA(n, SK_LN2_HI, v));
    float p = SK_FMA(-r * sk_expm1_tail(-r), r, r);
    float y = SK_FMA(s, p, 1.0f - s);
    return sk_with_sign(a > 3.93f ? 1.0f : y, x);
}

/* (log(1 + f) - f) / f^2 on -1/4 <= f <= 1/2. */
SK_INLINE float sk_log1p_tail(float f) {
    return sk_pairs7(f, f * f, -5.00000596e-1f, 3.33335459e-1f, -2.49934912e-1f, 1.99772075e-1f, -1.68223128e-1f,
                     1.49822742e-1f, -1.20671771e-1f, 5.41496463e-2f);
}

/* log(2^k (1 + f)); k comes as 2^23 k, the bits of an exponent in place. */
SK_INLINE float sk_log_join(float f, float k) {
    float r = SK_FMA(f * f, sk_log1p_tail(f), k * (SK_LN2_LO * 0x1p-23f));
    return SK_FMA(k, SK_LN2_HI * 0x1p-23f, f + r);
}

/* x = 2^k (1 + f) with 3/4 <= 1 + f < 3/2; subnormals are scaled first. 1.32 ulp (1.42). */
SK_INLINE float sk_log(float x) {
    float scale = x < 0x1p-126f ? 0x1p23f : 1.0f;
    uint32_t v = sk_bits(x * scale);
    uint32_t k = (v - 0x3f400000u) & 0xff800000u;
    float f = sk_float(v - k) - 1.0f;
    float y = sk_log_join(f, (float)(int32_t)(k - (sk_bits(scale) - 0x3f800000u)));
    y = x < INFINITY ? y : x;
    y = x < 0.0f ? NAN : y;
    return x == 0.0f ? -INFINITY : y;
}

/*
 * k is taken from 1 + x, but f = 2^-k x + (2^-k - 1) from x itself: both are exact, whatever the sum lost. 3/4 to 3/2
 * is the range where that holds. Twice 2^-k stays a float for k = 128. 1.32 ulp (1.42).
 */
SK_INLINE float sk_log1p(float x) {
    uint32_t k = (sk_bits(1.0f + x) - 0x3f400000u) & 0xff800000u;
    float twice = sk_float(0x40000000u - k);
    float f = sk_float(sk_bits(x) - k) + SK_FMA(twice, 0.5f, -1.0f);
    float y = sk_log_join(f, (float)(int32_t)k);
    y = x < INFINITY ? y : x;
    y = x < -1.0f ? NAN : y;
    return sk_with_sign(x == -1.0f ? INFINITY : y, x);
}

/*
 * n pi is taken off in double: one product then serves up to |x| = 1e9, and an odd n turns the sign. The coefficients
 * are rounded such that no result exceeds 1 and cos 0 is 1. Past 1e15 the phase is lost, and 0 at least keeps to the
 * range. For |x| <= 1e6 1.83 ulp (2.09), or 2e-16 |x| where that is more, near zeros; to 1e9 within 1.6e-7.
 */
SK_INLINE float sk_sin_of_double(double x) {
    double t = SK_FMA_D(x, 0.31830988618379067, SK_ROUNDER_D);
    double d = SK_FMA_D(t - SK_ROUNDER_D, -SK_PI, x);
    float r = (float)sk_float_d(sk_bits_d(d) ^ (sk_bits_d(t) << 63));
    float z = r * r;
    float p = sk_poly3(z, -1.66666582e-1f, 8.33304692e-3f, -1.98079753e-4f, 2.60127877e-6f);
    return sk_with_sign(SK_FMA(p * z, r, r), r);
}

SK_INLINE float sk_sin(float x) {
    float y = sk_sin_of_double((double)x);
    return sk_abs(x) < 1e15f ? y : x * 0.0f;
}

SK_INLINE float sk_cos(float x) {
    float y = sk_sin_of_double(0.5 * SK_PI - (double)x);
    return sk_abs(x) < 1e15f ? y : x * 0.0f;
}

/*
 * tan r or -1 / tan r after taking off a multiple of pi/2; in two parts, because a pole magnifies what is left of it.
 * For |x| <= 1e6 2.73 ulp.
 */
SK_INLINE float sk_tan(float x) {
    double t = SK_FMA_D((double)x, 0.63661977236758134, SK_ROUNDER_D);
    int odd = (int)((uint32_t)sk_bits_d(t) & 1u);
    double n = t - SK_ROUNDER_D;
    float r = (float)SK_FMA_D(n, -6.077100506506192e-11, SK_FMA_D(n, -1.5707963267341256, (double)x));
    float z = r * r;
    float p = sk_poly4(z, 1.33388355e-1f, 5.34082018e-2f, 2.44413875e-2f, 3.10149929e-3f, 9.39650834e-3f);
    p = SK_FMA(p, z, 3.33331555e-1f);
    p = SK_FMA(p * z, r, r);
    float y = (odd ? -1.0f : p) / (odd ? p : 1.0f);
    return sk_abs(x) < 1e15f ? y : x * 0.0f;
}

/*
 * atan a = pi/2 + atan(-1/a). pi/2 is a product of two floats, so that a fused sum has it to 37 bits; where it is added
 * follows from the sign of -1/a, for with the comparison again compilers make two copies. 1.48 ulp (2.09).
 */
SK_INLINE float sk_atan(float x) {
    float a = sk_abs(x);
    float w = (a > 1.0f ? -1.0f : a) / (a > 1.0f ? a : 1.0f);
    float base = sk_float(sk_bits(0.991597712f) & (0u - (sk_bits(w) >> 31)));
    float z = w * w;
    float p = sk_pairs7(z, z * z, -3.33329737e-1f, 1.99897304e-1f, -1.41791970e-1f, 1.05445370e-1f, -7.30104744e-2f,
                        4.03287187e-2f, -1.46397008e-2f, 2.49865674e-3f);
    p = SK_FMA(p * z, w, w);
    return sk_with_sign(SK_FMA(base, 1.5841064453125f, p), x);
}

/*
 * 2^(y log2|x|), the logarithm and the product in double, because y magnifies their errors up to 128 times; |x| is
 * split as in sk_log. 2^t is scaled in double too, so that the conversion rounds subnormals and overflows. 0.91 ulp
 * (1.18) in 14 million samples.
 */
SK_INLINE float sk_pow(float x, float y) {
    float a = sk_abs(x);
    float scale = a < 0x1p-126f ? 0x1p23f : 1.0f;
    uint32_t v = sk_bits(a * scale);
    uint32_t k = (v - 0x3f400000u) & 0xff800000u;
    float n = (float)(int32_t)(k - (sk_bits(scale) - 0x3f800000u)) * 0x1p-23f;
    n = a < INFINITY ? n : a;
    n = a == 0.0f ? -INFINITY : n;
    double f = (double)(sk_float(v - k) - 1.0f);
    double z = f * f;
    double q = SK_FMA_D(-0.044953439063200172, f, 0.11550205452362436);
    q = SK_FMA_D(q, z, SK_FMA_D(-0.1528698231264736, f, 0.16465714948503046));
    q = SK_FMA_D(q, z, SK_FMA_D(-0.18031469574784884, f, 0.20582040241964145));
    q = SK_FMA_D(q, z, SK_FMA_D(-0.24042821495657404, f, 0.28854602306816651));
    q = SK_FMA_D(q, z, SK_FMA_D(-0.36067435941555515, f, 0.48089828223243042));
    q = SK_FMA_D(q, z, SK_FMA_D(-0.72134751685526444, f, 1.4426950409945427));
    double t = SK_FMA_D(q, f, (double)n) * (double)y;
    double rounded = t + (SK_ROUNDER_D + 1023.0);
    float r = (float)(t - (rounded - (SK_ROUNDER_D + 1023.0)));
    float p = sk_poly6(r, 1.0f, 6.93147182e-1f, 2.40226477e-1f, 5.55035993e-2f, 9.61850584e-3f, 1.33908063e-3f,
                       1.53264729e-4f);
    float m = (float)((double)p * sk_float_d(sk_bits_d(rounded) << 52));
    float e = (float)t;
    m = e > 129.0f ? INFINITY : m;
    m = e < -151.0f ? 0.0f : m;
    m = ((a == 1.0f) & (sk_abs(y) == INFINITY)) ? 1.0f : m;

    float half = 0.5f * sk_abs(y);
    uint32_t sign = half - sk_floor(half) == 0.5f ? sk_bits(x) & 0x80000000u : 0u;
    m = sk_float(sk_bits(m) | sign);
    m = ((x < 0.0f) & (x > -INFINITY) & (sk_floor(y) != y)) ? NAN : m;
    return ((x == 1.0f) | (y == 0.0f)) ? 1.0f : m;
}

#endif
