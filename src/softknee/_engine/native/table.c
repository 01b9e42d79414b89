/* Piecewise cubic tables: y = c0 + t (c1 + t (c2 + t c3)) with the four coefficients of a bin side by side, so that one
   16-byte load an element serves both the value and the slope. Eight lookups of single numbers, or gathers, cost more.

   Where `entries` are given, bins are divided into cells of their own: an entry holds their number and the row of the
   first, so that one more load of four bytes finds the row of an element.

   Elements outside the grid are counted and left out of the moments; the caller evaluates them exactly, and finds zero,
   or their incoming gradient, where the result goes. NaN counts as outside. The tensor is seen as outer x channels x inner, contiguous, with one table a channel
   (channels may be 1). */
#include <stdlib.h>

#include "elements.h"
#include "lanes.h"

#define SK_RUN 128        /* elements located at a time */
#define SK_PIECE 65536    /* elements after which single precision goes over to double */
#define SK_NEAR 262144    /* bytes of tables of neighbouring channels that are used together */
#define SK_ACROSS 128     /* channels that are, at least, where neighbours in memory belong to different ones */
#define SK_ROW_BITS 20

/* The input that was kept for a backward pass may be halves, whatever the gradients are. */
#if defined(SK_INPUT_FLOAT16)
typedef uint16_t X;
#define sk_read sk_load_half
#else
typedef T X;
#define sk_read sk_load
#endif

typedef struct {
    const X *x;
    const T *g;
    T *y;
    const sk_row *rows; /* channels x length */
    const int *entries; /* channels x bins, or null */
    float origin, per_step;
    int first, bins; /* the grid begins `first` steps from the origin */
    long length, channels, inner;
} sk_table;

/* A row with its moments beside its coefficients, so that both come with one cache line. */
typedef struct {
    sk_row row, moments;
} sk_bin;

typedef struct {
    _Alignas(64) float t[SK_RUN];        /* place within the bin or cell, in [0, 1] */
    _Alignas(64) float g[SK_RUN];        /* incoming gradient, or 1 where some are outside; 0 for those */
    _Alignas(64) float per_width[SK_RUN]; /* one over the width of the cell, where bins are divided */
    float kept[SK_RUN];                  /* incoming gradient outside the grid, else 0 */
    _Alignas(64) int row[SK_RUN];
} sk_located;

/* From the place in a bin to that in its cell. */
SK_INLINE void sk_divide(const sk_table *a, int count, sk_located *at) {
    const float per_step = a->per_step;
    const int *entries = a->entries;
#pragma omp simd
    for (int i = 0; i < count; i++) {
        const int entry = entries[at->row[i]];
        const float parts = (float)(entry >> SK_ROW_BITS), place = at->t[i] * parts;
        float whole = sk_floor(place);
        whole = whole < parts - 1 ? whole : parts - 1;
        at->row[i] = (entry & ((1 << SK_ROW_BITS) - 1)) + (int)whole;
        at->t[i] = place - whole;
        at->per_width[i] = per_step * parts;
    }
}

/* Locates up to SK_RUN elements from `start`; `channel_step` is 1 where each element is in the next channel, else 0.
   Returns how many lie outside. */
SK_INLINE int sk_locate(const sk_table *a, long start, int count, int channel, int channel_step, int divided,
                        sk_located *at) {
    const float low = (float)a->first, last = (float)(a->first + a->bins - 1), high = (float)(a->first + a->bins);
    const float origin = a->origin, per_step = a->per_step;
    const int bins = a->bins, first = a->first;
    const X *x = a->x + start;
    const T *g = a->g ? a->g + start : 0;
    int outside = 0;
#pragma omp simd reduction(+ : outside)
    for (int i = 0; i < count; i++) {
        float u = (sk_read(x[i]) - origin) * per_step;
        float whole = sk_floor(u);
        /* Comparisons with NaN are false, so it ends in the first bin. */
        whole = whole > low ? whole : low;
        whole = whole < last ? whole : last;
        int inside = (u >= low) & (u <= high);
        at->t[i] = inside ? u - whole : 0.0f;
        at->row[i] = (int)whole - first + (channel + i * channel_step) * bins;
        outside += 1 - inside;
    }
    if (divided) sk_divide(a, count, at);
    if (g) {
#pragma omp simd
        for (int i = 0; i < count; i++) at->g[i] = sk_load(g[i]);
    } else if (outside) {
        for (int i = 0; i < count; i++) at->g[i] = 1.0f;
    }
    if (outside)
        for (int i = 0; i < count; i++) {
            float u = (sk_read(x[i]) - origin) * per_step;
            int inside = u >= low && u <= high;
            at->kept[i] = inside || !g ? 0.0f : at->g[i];
            at->g[i] = inside ? at->g[i] : 0.0f;
        }
    for (int i = count; i < ((count + 3) & ~3); i++)
        at->t[i] = at->g[i] = at->per_width[i] = 0.0f, at->row[i] = at->row[0];
    return outside;
}

SK_INLINE void sk_put(T *y, const float *values, int count) {
#pragma omp simd
    for (int i = 0; i < count; i++) y[i] = sk_store(values[i]);
}

SK_INLINE void sk_values(const sk_table *a, const sk_located *at, long start, int count, int outside) {
    _Alignas(64) float values[SK_RUN];
    for (int i = 0; i < count; i += 4) {
        SK_TRANSPOSE(a->rows[at->row[i]], a->rows[at->row[i + 1]], a->rows[at->row[i + 2]], a->rows[at->row[i + 3]],
                     c0, c1, c2, c3);
        const sk_row t = *(const sk_row *)(at->t + i);
        *(sk_row *)(values + i) = c0 + t * (c1 + t * (c2 + t * c3));
    }
    if (outside)
        for (int i = 0; i < count; i++) values[i] *= at->g[i];
    sk_put(a->y + start, values, count);
}

SK_INLINE sk_row sk_times(const sk_table *a, const sk_located *at, int i, sk_row g, int divided) {
    return divided ? g * *(const sk_row *)(at->per_width + i) : g * a->per_step;
}

SK_INLINE void sk_slopes(const sk_table *a, const sk_located *at, long start, int count, int outside, int divided) {
    _Alignas(64) float values[SK_RUN];
    for (int i = 0; i < count; i += 4) {
        const int *row = at->row + i;
        const sk_row t = *(const sk_row *)(at->t + i), g = *(const sk_row *)(at->g + i);
        SK_TRANSPOSE(a->rows[row[0]], a->rows[row[1]], a->rows[row[2]], a->rows[row[3]], c0, c1, c2, c3);
        *(sk_row *)(values + i) = sk_times(a, at, i, g, divided) * (c1 + t * (2.0f * c2 + t * (3.0f * c3)));
    }
    if (outside)
        for (int i = 0; i < count; i++) values[i] += at->kept[i];
    sk_put(a->y + start, values, count);
}

/* The same, and adds g, g t and g t^2 of each element to its row; the fourth number of the moments is unused. `bins`
   begin with the row at `from`. */
SK_INLINE void sk_slopes_and_moments(const sk_table *a, const sk_located *at, long start, int count, int outside,
                                     int divided, sk_bin *bins, long from) {
    _Alignas(64) float values[SK_RUN];
    bins -= from;
    for (int i = 0; i < count; i += 4) {
        sk_bin *b0 = bins + at->row[i], *b1 = bins + at->row[i + 1], *b2 = bins + at->row[i + 2];
        sk_bin *b3 = bins + at->row[i + 3];
        const sk_row t = *(const sk_row *)(at->t + i), g = *(const sk_row *)(at->g + i), gt = g * t, gtt = gt * t;
        {
            SK_TRANSPOSE(b0->row, b1->row, b2->row, b3->row, c0, c1, c2, c3);
            *(sk_row *)(values + i) = sk_times(a, at, i, g, divided) * (c1 + t * (2.0f * c2 + t * (3.0f * c3)));
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

/* Fetches up to SK_RUN elements ahead: the next stretch of a channel is too far away for processors to foresee. */
SK_INLINE void sk_fetch(const sk_table *a, long from, long count) {
    for (long i = 0; i < count && i < SK_RUN; i += 64 / (long)sizeof(T)) {
        __builtin_prefetch(a->x + from + i);
        if (a->g) __builtin_prefetch(a->g + from + i);
        __builtin_prefetch(a->y + from + i, 1);
    }
}

/* Works through `length` elements from `start`, after which come those from `next`; what is done to them depends on what
   is asked for. */
SK_INLINE long sk_stretch_of(const sk_table *a, long start, long length, long next, int channel, int step, sk_bin *bins,
                             long from, int divided) {
    sk_located at;
    long outside = 0;
    for (long done = 0; done < length; done += SK_RUN) {
        int count = length - done < SK_RUN ? (int)(length - done) : SK_RUN;
        if (done + SK_RUN < length) sk_fetch(a, start + done + SK_RUN, length - done - SK_RUN);
        else sk_fetch(a, next, length);
        int beyond = sk_locate(a, start + done, count, channel + (step ? (int)done : 0), step, divided, &at);
        outside += beyond;
        if (!a->g) sk_values(a, &at, start + done, count, beyond);
        else if (bins) sk_slopes_and_moments(a, &at, start + done, count, beyond, divided, bins, from);
        else sk_slopes(a, &at, start + done, count, beyond, divided);
    }
    return outside;
}

static long sk_stretch(const sk_table *a, long start, long length, long next, int channel, int step, sk_bin *bins,
                       long from) {
    if (a->entries) return sk_stretch_of(a, start, length, next, channel, step, bins, from, 1);
    return sk_stretch_of(a, start, length, next, channel, step, bins, from, 0);
}

/* Channels from `low` to `high` of the samples from `first` to `last`. */
static long sk_part(const sk_table *a, long first, long last, long low, long high, sk_bin *bins) {
    const long from = low * a->length, channels = a->channels, inner = a->inner;
    long outside = 0;
    if (channels == 1) return sk_stretch(a, first * inner, (last - first) * inner, first * inner, 0, 0, bins, from);
    for (long row = first; row < last; row++) {
        const long start = row * channels + low, after = row + 1 < last ? start + channels : start;
        if (inner == 1) outside += sk_stretch(a, start, high - low, after, (int)low, 1, bins, from);
        else
            for (long c = low; c < high; c++) {
                const long here = row * channels + c, next = c + 1 < high ? here + 1 : after;
                outside += sk_stretch(a, here * inner, inner, next * inner, (int)c, 0, bins, from);
            }
    }
    return outside;
}

/* The same, gathering moments: in single precision over pieces, to be added up in double precision in `sums`. */
static long sk_gathered(const sk_table *a, long first, long last, long low, long high, sk_bin *bins, double *sums) {
    const long size = (high - low) * a->length, width = (high - low) * a->inner;
    const long wanted = size * 8 > SK_PIECE ? size * 8 : SK_PIECE, step = width < wanted ? wanted / width : 1;
    long outside = 0;
    for (long k = 0; k < size; k++) bins[k] = (sk_bin){a->rows[low * a->length + k], {0}};
    for (long k = 0; k < size * 4; k++) sums[k] = 0;
    for (long from = first; from < last; from += step) {
        outside += sk_part(a, from, from + step < last ? from + step : last, low, high, bins);
        for (long k = 0; k < size; k++) {
            for (int j = 0; j < 3; j++) sums[4 * k + j] += bins[k].moments[j];
            bins[k].moments = (sk_row){0};
        }
    }
    return outside;
}

/* Without g, y receives values; with it, g times slopes. `total`, where given, receives channels x length x 4 moments.
   Channels are taken in groups whose moments are near, and samples in as many parts as there are threads, so that the
   result depends on the number of threads only. Returns how many elements lie outside, or -1 where memory ran out. */
long sk_table_run(const X *x, const T *g, T *y, const float *rows, const int *entries, float *total, float origin,
                  float per_step, int first, int bins, long length, long outer, long channels, long inner, int threads) {
    const sk_table a = {x, g, y, (const sk_row *)rows, entries, origin, per_step, first, bins, length, channels, inner};
    const long taken = total ? sizeof(sk_bin) + 4 * sizeof(double) : sizeof(sk_row);
    const long least = inner == 1 ? SK_ACROSS : 1, near = SK_NEAR / (length * taken), wanted = near < least ? least : near;
    const long group = wanted < channels ? wanted : channels;
    const long groups = (channels + group - 1) / group, width = group * inner, enough = SK_PIECE / (width ? width : 1) + 1;
    long parts = (outer + enough - 1) / enough, outside = 0;
    if (parts > threads) parts = threads;
    if (parts < 1) parts = 1;
    const long share = (outer + parts - 1) / parts, size = channels * length * 4, tasks = groups * parts;
    double *sums = total ? malloc((size_t)parts * size * sizeof(double)) : 0;
    int failed = total && !sums;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : outside) reduction(| : failed) if (threads > 1)
    for (long task = 0; task < tasks; task++) {
        const long part = task % parts, low = task / parts * group;
        const long high = low + group < channels ? low + group : channels;
        const long begin = part * share, end = begin + share < outer ? begin + share : outer;
        if (!total) {
            outside += sk_part(&a, begin, end, low, high, 0);
            continue;
        }
        sk_bin *own = failed ? 0 : aligned_alloc(64, ((high - low) * length * sizeof(sk_bin) + 63) / 64 * 64);
        if (!own) {
            failed = 1;
            continue;
        }
        outside += sk_gathered(&a, begin, end, low, high, own, sums + part * size + low * length * 4);
        free(own);
    }
    for (long k = 0; total && !failed && k < size; k++) {
        double all = 0;
        for (long part = 0; part < parts; part++) all += sums[part * size + k];
        total[k] = (float)all;
    }
    free(sums);
    return failed ? -1 : outside;
}

/* Writes the positions of the elements outside the grid, in order. */
void sk_table_outside(const X *x, int64_t *positions, float origin, float per_step, int first, int bins, long count) {
    const float low = (float)first, high = (float)(first + bins);
    for (long i = 0; i < count; i++) {
        float u = (sk_read(x[i]) - origin) * per_step;
        if (!(u >= low && u <= high)) *positions++ = i;
    }
}
