/* Vectors of four numbers, in the way that GCC and Clang have them on every machine. */
#pragma once
#include <string.h>

#include "vector_math.h"

typedef float sk_row __attribute__((vector_size(16)));
typedef int sk_lanes __attribute__((vector_size(16)));

#if defined(__clang__)
#define SK_MIX(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SK_MIX(a, b, i, j, k, l) __builtin_shuffle(a, b, (sk_lanes){i, j, k, l})
#endif

/* Rows to columns. */
#define SK_TRANSPOSE(r0, r1, r2, r3, c0, c1, c2, c3)                                           \
    const sk_row lo01_ = SK_MIX(r0, r1, 0, 4, 1, 5), hi01_ = SK_MIX(r0, r1, 2, 6, 3, 7);       \
    const sk_row lo23_ = SK_MIX(r2, r3, 0, 4, 1, 5), hi23_ = SK_MIX(r2, r3, 2, 6, 3, 7);       \
    const sk_row c0 = SK_MIX(lo01_, lo23_, 0, 1, 4, 5), c1 = SK_MIX(lo01_, lo23_, 2, 3, 6, 7); \
    const sk_row c2 = SK_MIX(hi01_, hi23_, 0, 1, 4, 5), c3 = SK_MIX(hi01_, hi23_, 2, 3, 6, 7); \
    (void)c0, (void)c1, (void)c2, (void)c3

/* Four numbers at any address. */
SK_INLINE sk_row sk_row_at(const float *from) {
    sk_row row;
    memcpy(&row, from, sizeof row);
    return row;
}

SK_INLINE void sk_put_row(float *to, sk_row row) { memcpy(to, &row, sizeof row); }
