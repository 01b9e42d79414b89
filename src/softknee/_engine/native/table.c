/* Piecewise cubic tables: y = c0 + t (c1 + t (c2 + t c3)) with the four coefficients of a bin side by side, so that one
   16-byte load an element serves both the value and the slope. Eight lookups of single numbers, or gathers, cost more.

   Elements outside the grid are counted and left out of the moments; the caller evaluates them exactly, and finds zero,
   or their incoming gradient, where the result goes. NaN counts as outside. The tensor is seen as outer x channels x inner, contiguous, with one table a channel
   (channels may be 1). */
#include <stdlib.h>

#include "elements.h"
#include "lanes.h"

#define SK_RUN 128        /* elements located at a time */
#define SK_PIECE 65536    /* elements of a piece of work */

typedef struct {
    const T *x, *g;
    T *y;
    const sk_row *rows; /* channels x bins */
    float origin, per_step;
    int first, bins; /* the grid begins `first` steps from the origin */
    long channels, inner;
} sk_table;

/* A bin with its moments beside its coefficients, so that both come with one cache line. */
typedef struct {
    sk_row row, moments;
} sk_bin;

typedef struct {
    _Alignas(64) float t[SK_RUN];      /* place within the bin, in [0, 1] */
    _Alignas(64) float g[SK_RUN];      /* incoming gradient, or 1 where some are outside; 0 for those */
    float kept[SK_RUN];                /* incoming gradient outside the grid, else 0 */
    _Alignas(64) int bin[SK_RUN];
} sk_located;

/* Locates up to SK_RUN elements from `start`; `channel_step` is 1 where each element is in the next channel, else 0.
   Returns how many lie outside. */
SK_INLINE int sk_locate(const sk_table *a, long start, int count, int channel, int channel_step, sk_located *at) {
    const float low = (float)a->first, last = (float)(a->first + a->bins - 1), high = (float)(a->first + a->bins);
    const float origin = a->origin, per_step = a->per_step;
    const int bins = a->bins, first = a->first;
    const T *x = a->x + start, *g = a->g ? a->g + start : 0;
    int outside = 0;
#pragma omp simd reduction(+ : outside)
    for (int i = 0; i < count; i++) {
        float u = (sk_load(x[i]) - origin) * per_step;
        float whole = sk_floor(u);
        /* Comparisons with NaN are false, so it ends in the first bin. */
        whole = whole > low ? whole : low;
        whole = whole < last ? whole : last;
        int inside = (u >= low) & (u <= high);
        at->t[i] = inside ? u - whole : 0.0f;
        at->bin[i] = (int)whole - first + (channel + i * channel_step) * bins;
        outside += 1 - inside;
    }
    if (g) {
#pragma omp simd
        for (int i = 0; i < count; i++) at->g[i] = sk_load(g[i]);
    } else if (outside) {
        for (int i = 0; i < count; i++) at->g[i] = 1.0f;
    }
    if (outside)
        for (int i = 0; i < count; i++) {
            float u = (sk_load(x[i]) - origin) * per_step;
            int inside = u >= low && u <= high;
            at->kept[i] = inside || !g ? 0.0f : at->g[i];
            at->g[i] = inside ? at->g[i] : 0.0f;
        }
    for (int i = count; i < ((count + 3) & ~3); i++) at->t[i] = at->g[i] = 0.0f, at->bin[i] = at->bin[0];
    return outside;
}

SK_INLINE void sk_put(T *y, const float *values, int count) {
#pragma omp simd
    for (int i = 0; i < count; i++) y[i] = sk_store(values[i]);
}

SK_INLINE void sk_values(const sk_table *a, const sk_located *at, long start, int count, int outside) {
    _Alignas(64) float values[SK_RUN];
    for (int i = 0; i < count; i += 4) {
        SK_TRANSPOSE(a->rows[at->bin[i]], a->rows[at->bin[i + 1]], a->rows[at->bin[i + 2]], a->rows[at->bin[i + 3]],
                     c0, c1, c2, c3);
        const sk_row t = *(const sk_row *)(at->t + i);
        *(sk_row *)(values + i) = c0 + t * (c1 + t * (c2 + t * c3));
    }
    if (outside)
        for (int i = 0; i < count; i++) values[i] *= at->g[i];
    sk_put(a->y + start, values, count);
}

SK_INLINE void sk_slopes(const sk_table *a, const sk_located *at, long start, int count, int outside) {
    _Alignas(64) float values[SK_RUN];
    for (int i = 0; i < count; i += 4) {
        const int *bin = at->bin + i;
        const sk_row t = *(const sk_row *)(at->t + i), g = *(const sk_row *)(at->g + i);
        SK_TRANSPOSE(a->rows[bin[0]], a->rows[bin[1]], a->rows[bin[2]], a->rows[bin[3]], c0, c1, c2, c3);
        *(sk_row *)(values + i) = g * a->per_step * (c1 + t * (2.0f * c2 + t * (3.0f * c3)));
    }
    if (outside)
        for (int i = 0; i < count; i++) values[i] += at->kept[i];
    sk_put(a->y + start, values, count);
}

/* The same, and adds g, g t and g t^2 of each element to its bin; the fourth number of the moments is unused. */
SK_INLINE void sk_slopes_and_moments(const sk_table *a, const sk_located *at, long start, int count, int outside,
                                     sk_bin *bins) {
    _Alignas(64) float values[SK_RUN];
    for (int i = 0; i < count; i += 4) {
        sk_bin *b0 = bins + at->bin[i], *b1 = bins + at->bin[i + 1], *b2 = bins + at->bin[i + 2];
        sk_bin *b3 = bins + at->bin[i + 3];
        const sk_row t = *(const sk_row *)(at->t + i), g = *(const sk_row *)(at->g + i), gt = g * t, gtt = gt * t;
        {
            SK_TRANSPOSE(b0->row, b1->row, b2->row, b3->row, c0, c1, c2, c3);
            *(sk_row *)(values + i) = g * a->per_step * (c1 + t * (2.0f * c2 + t * (3.0f * c3)));
        }
        SK_TRANSPOSE(g, gt, gtt, gtt, m0, m1, m2, m3);
        b0->moments += m0;
        b1->moments += m1;
        b2->moments += m2;
        b3->moments += m3;
    }
    if (outside)
        for (int i = 0; i < count; i++) values[i] += at->kept[i];
    sk_put(a->y + start, values, count);
}

/* Works through `length` elements from `start`; what is done to them depends on what is asked for. */
SK_INLINE long sk_stretch(const sk_table *a, long start, long length, int channel, int step, sk_bin *bins) {
    sk_located at;
    long outside = 0;
    for (long done = 0; done < length; done += SK_RUN) {
        int count = length - done < SK_RUN ? (int)(length - done) : SK_RUN;
        int beyond = sk_locate(a, start + done, count, channel + (step ? (int)done : 0), step, &at);
        outside += beyond;
        if (!a->g) sk_values(a, &at, start + done, count, beyond);
        else if (bins) sk_slopes_and_moments(a, &at, start + done, count, beyond, bins);
        else sk_slopes(a, &at, start + done, count, beyond);
    }
    return outside;
}

static long sk_part(const sk_table *a, long first, long last, sk_bin *bins) {
    long outside = 0;
    if (a->channels == 1) return sk_stretch(a, first * a->inner, (last - first) * a->inner, 0, 0, bins);
    for (long row = first; row < last; row++) {
        if (a->inner == 1) outside += sk_stretch(a, row * a->channels, a->channels, 0, 1, bins);
        else
            for (long c = 0; c < a->channels; c++)
                outside += sk_stretch(a, (row * a->channels + c) * a->inner, a->inner, (int)c, 0, bins);
    }
    return outside;
}

/* Without g, y receives values; with it, g times slopes. `total`, where given, receives channels x bins x 4 moments.
   Each thread gathers moments in single precision over a stretch and adds them up in double precision, so that the
   result depends on the number of threads only. Returns how many elements lie outside, or -1 where memory ran out. */
long sk_table_run(const T *x, const T *g, T *y, const float *rows, float *total, float origin, float per_step, int first,
                  int bins, long outer, long channels, long inner, int threads) {
    const sk_table a = {x, g, y, (const sk_row *)rows, origin, per_step, first, bins, channels, inner};
    long width = channels * inner, size = total ? channels * bins : 0;
    long wanted = size * 8 > SK_PIECE ? size * 8 : SK_PIECE;
    long step = width < wanted ? wanted / (width ? width : 1) : 1, pieces = (outer + step - 1) / step;
    if (threads > pieces) threads = pieces > 0 ? (int)pieces : 1;
    long share = (pieces + threads - 1) / threads, outside = 0;
    double *sums = size ? calloc((size_t)threads * size * 4, sizeof(double)) : 0;
    sk_bin *pairs = size ? aligned_alloc(64, ((size_t)threads * size * sizeof(sk_bin) + 63) / 64 * 64) : 0;
    if (size && (!sums || !pairs)) return free(sums), free(pairs), -1;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : outside) if (threads > 1)
    for (int thread = 0; thread < threads; thread++) {
        sk_bin *mine = size ? pairs + thread * size : 0;
        double *sum = size ? sums + thread * size * 4 : 0;
        for (long k = 0; k < size; k++) mine[k] = (sk_bin){a.rows[k], {0}};
        for (long p = thread * share; p < (thread + 1) * share && p < pieces; p++) {
            long last = (p + 1) * step < outer ? (p + 1) * step : outer;
            outside += sk_part(&a, p * step, last, mine);
            for (long k = 0; k < size; k++) {
                for (int j = 0; j < 3; j++) sum[4 * k + j] += mine[k].moments[j];
                mine[k].moments = (sk_row){0};
            }
        }
    }
    for (long k = 0; k < size * 4; k++) {
        double all = 0;
        for (int thread = 0; thread < threads; thread++) all += sums[thread * size * 4 + k];
        total[k] = (float)all;
    }
    free(sums), free(pairs);
    return outside;
}

/* Writes the positions of the elements outside the grid, in order. */
void sk_table_outside(const T *x, int64_t *positions, float origin, float per_step, int first, int bins, long count) {
    const float low = (float)first, high = (float)(first + bins);
    for (long i = 0; i < count; i++) {
        float u = (sk_load(x[i]) - origin) * per_step;
        if (!(u >= low && u <= high)) *positions++ = i;
    }
}
