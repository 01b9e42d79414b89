/* Uniform numbers that depend on nothing but a seed and an element's position, so that nothing of them is stored.

   A run of elements has a key, mixed from the seed and where the run starts; within it, the position goes through two
   rounds of a 32-bit hash whose constants were found by search for small bias. */
#pragma once
#include "vector_math.h"

SK_INLINE uint64_t sk_key(uint64_t seed, uint64_t start) {
    uint64_t h = seed + 0x9e3779b97f4a7c15u * (start + 1);
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
    return h ^ (h >> 31);
}

SK_INLINE uint32_t sk_hash(uint32_t h) {
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    return h ^ (h >> 16);
}

/* In [0, 1), a multiple of 2^-24. */
SK_INLINE float sk_uniform(uint64_t key, uint32_t position) {
    uint32_t h = sk_hash(sk_hash(position ^ (uint32_t)key) ^ (uint32_t)(key >> 32));
    return (float)(int32_t)(h >> 8) * 0x1p-24f;
}
