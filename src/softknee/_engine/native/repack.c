/* Transposes matrices, one after the other: how a tensor changes between channels first and channels last. A tile is
   small enough that the lines it reads and those it writes stay in the first cache. */
#include "elements.h"
#include "lanes.h"

#define SK_TILE 16
#define SK_PIECE 65536 /* elements of a piece of work */

SK_INLINE void sk_corner(const T *in, T *out, long rows, long columns, long r0, long r1, long c0, long c1) {
    for (long r = r0; r < r1; r++)
        for (long c = c0; c < c1; c++) out[c * rows + r] = in[r * columns + c];
}

SK_INLINE void sk_tile(const T *in, T *out, long rows, long columns, long r0, long c0) {
#if defined(SK_BFLOAT16) || defined(SK_FLOAT16)
    sk_corner(in, out, rows, columns, r0, r0 + SK_TILE, c0, c0 + SK_TILE);
#else
    for (long c = c0; c < c0 + SK_TILE; c += 4)
        for (long r = r0; r < r0 + SK_TILE; r += 4) {
            const T *from = in + r * columns + c;
            T *to = out + c * rows + r;
            SK_TRANSPOSE(sk_row_at(from), sk_row_at(from + columns), sk_row_at(from + 2 * columns),
                         sk_row_at(from + 3 * columns), c0_, c1_, c2_, c3_);
            sk_put_row(to, c0_), sk_put_row(to + rows, c1_), sk_put_row(to + 2 * rows, c2_);
            sk_put_row(to + 3 * rows, c3_);
        }
#endif
}

/* `count` matrices of rows x columns become columns x rows. */
void sk_repack(const T *in, T *out, long count, long rows, long columns, int threads) {
    long size = rows * columns, step = size < SK_PIECE ? SK_PIECE / (size ? size : 1) : 1;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && count > step)
    for (long m = 0; m < count; m++) {
        const T *from = in + m * size;
        T *to = out + m * size;
        /* Rows of the result one tile at a time: scattered writes cost more than scattered reads. */
        for (long c = 0; c < columns; c += SK_TILE)
            for (long r = 0; r < rows; r += SK_TILE) {
                long r1 = r + SK_TILE, c1 = c + SK_TILE;
                if (r1 <= rows && c1 <= columns) sk_tile(from, to, rows, columns, r, c);
                else sk_corner(from, to, rows, columns, r, r1 < rows ? r1 : rows, c, c1 < columns ? c1 : columns);
            }
    }
}
