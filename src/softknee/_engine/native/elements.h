/* How elements lie in memory. Kernels compute in float32; T is what they read and write. */
#pragma once
#include "vector_math.h"

/* Shifted by 13 bits, a half is a float with its exponent off by 112, which an exact product mends, subnormals
   included. */
SK_INLINE float sk_load_half(uint16_t stored) {
    uint32_t magnitude = ((uint32_t)stored & 0x7fffu) << 13;
    float value = sk_float(magnitude) * 0x1p112f;
    uint32_t bits = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : sk_bits(value);
    return sk_float(bits | (((uint32_t)stored & 0x8000u) << 16));
}

#if defined(SK_BFLOAT16)

typedef uint16_t T;

SK_INLINE float sk_load(T stored) { return sk_float((uint32_t)stored << 16); }

/* Round to nearest, ties to even; NaN stays NaN. */
SK_INLINE T sk_store(float value) {
    uint32_t bits = sk_bits(value);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (T)(value != value ? 0x7fc0u : rounded);
}

#elif defined(SK_FLOAT16)

typedef uint16_t T;

SK_INLINE float sk_load(T stored) { return sk_load_half(stored); }

/* Adding a number whose last digit is that of the half rounds as the half must be rounded, ties to even. */
SK_INLINE T sk_store(float value) {
    uint32_t sign = (sk_bits(value) >> 16) & 0x8000u, magnitude = sk_bits(value) & 0x7fffffffu;
    float size = sk_float(magnitude);
    uint32_t subnormal = sk_bits(size + 0.5f) - sk_bits(0.5f);
    uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    uint32_t finite = size < 0x1p-14f ? subnormal : normal;
    uint32_t rounded = size >= 65520.0f ? 0x7c00u : finite;
    return (T)(sign | (value != value ? 0x7e00u : rounded));
}

#else

typedef float T;

SK_INLINE float sk_load(T stored) { return stored; }

SK_INLINE T sk_store(float value) { return value; }

#endif

/* What a kernel reads and writes; unused pointers are null. */
typedef struct {
    const T *x, *u, *g, *v;
    T *y, *z;
    const float *leaves; /* parameter entries, each with one number a channel */
    uint64_t seed;
    long run; /* of pairs: gates that lie together before as many values, or the other way round; 0 for all */
} sk_arrays;
