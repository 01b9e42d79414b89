/* The loops around a generated pointwise computation. The generated part, included before this, defines

     SK_SUMS             how many results are summed for each channel
     SK_PER_CHANNEL      whether each channel has leaves (parameter entries) of its own
     sk_block            a run of elements that share their leaves
     sk_across           (per channel) one element of each channel
     SK_PAIRS            where it takes pairs: instead of these two, sk_block_of and sk_across_of

   The tensor is seen as outer x channels x inner, contiguous. Of pairs it is the output; gates and values lie as it does,
   or in runs, now the ones, now the others, and their gradients as they do. Sums are gathered in single precision over short runs
   and in double precision beyond; they are the same whatever the number of threads. */
#include <stdlib.h>

/* Elements of a piece of work: enough to hide what starting it costs. */
#define SK_PIECE 65536
/* Rows whose sums are gathered in single precision. */
#define SK_GATHERED 256

#if SK_PAIRS
/* Gates and values in tensors of their own or in runs of more than one, alternating, and alternating with the value
   first. */
#define SK_EACH_WAY(function, a, ...)                              \
    do {                                                           \
        if ((a)->run != 1) function(a, __VA_ARGS__, 1, 0);          \
        else if ((a)->x < (a)->u) function(a, __VA_ARGS__, 2, 0);  \
        else function(a, __VA_ARGS__, 2, 1);                       \
    } while (0)

static void sk_block(const sk_arrays *a, long start, long stop, long channel, long channels, float *sums) {
    SK_EACH_WAY(sk_block_of, a, start, stop, channel, channels, sums);
}

#if SK_PER_CHANNEL
static void sk_across(const sk_arrays *a, long start, long channels, float *sums) {
    SK_EACH_WAY(sk_across_of, a, start, channels, sums);
}
#endif
#endif

#if SK_SUMS > 0
#define SK_ADD_BLOCK(array, start, stop, channel, channels, sums)                     \
    do {                                                                              \
        float block_[SK_SUMS];                                                        \
        sk_block(array, start, stop, channel, channels, block_);                      \
        for (int s_ = 0; s_ < SK_SUMS; s_++) (sums)[(long)s_ * (channels) + (channel)] += block_[s_]; \
    } while (0)
#else
#define SK_ADD_BLOCK(array, start, stop, channel, channels, sums) \
    do {                                                          \
        (void)(sums);                                             \
        sk_block(array, start, stop, channel, channels, 0);       \
    } while (0)
#endif

#if SK_PER_CHANNEL
static void sk_rows(const sk_arrays *a, long first, long last, long channels, long inner, double *sums) {
    for (long row = first; row < last; row++)
        for (long c = 0; c < channels; c++) {
            long start = (row * channels + c) * inner;
            for (long b = 0; b < inner; b += SK_BLOCK) {
                long stop = b + SK_BLOCK < inner ? b + SK_BLOCK : inner;
                SK_ADD_BLOCK(a, start + b, start + stop, c, channels, sums);
            }
        }
}

static int sk_columns(const sk_arrays *a, long first, long last, long channels, double *sums) {
    long size = (long)SK_SUMS * channels;
    float *gathered = calloc(size + 1, sizeof(float));
    if (!gathered) return 1;
    for (long row = first; row < last; row++) {
        sk_across(a, row * channels, channels, gathered);
        if ((row - first) % SK_GATHERED == SK_GATHERED - 1 || row == last - 1)
            for (long s = 0; s < size; s++) sums[s] += gathered[s], gathered[s] = 0;
    }
    free(gathered);
    return 0;
}
#endif

static int sk_piece(const sk_arrays *a, long first, long last, long channels, long inner, double *sums) {
#if SK_PER_CHANNEL
    if (inner > 1) sk_rows(a, first, last, channels, inner, sums);
    else return sk_columns(a, first, last, channels, sums);
#else
    (void)channels;
    for (long b = first * inner, stop; b < last * inner; b = stop) {
        stop = b + SK_BLOCK < last * inner ? b + SK_BLOCK : last * inner;
#if SK_PAIRS
        long run_end = a->run > 1 ? (b / a->run + 1) * a->run : stop;
        if (run_end < stop) stop = run_end;
#endif
        SK_ADD_BLOCK(a, b, stop, 0, 1, sums);
    }
#endif
    return 0;
}

/* Returns 0, or 1 where memory ran out. `total` receives the sums, SK_SUMS x channels. */
int sk_run(const T *x, const T *u, const T *g, const T *v, T *y, T *z, const float *leaves, float *total, long outer,
           long channels, long inner, long run, uint64_t seed, int threads) {
    const sk_arrays arrays = {x, u, g, v, y, z, leaves, seed, run};
    long row = channels * inner, size = (long)SK_SUMS * channels;
    /* Partial sums may take a small part of the tensor's own memory. */
    long wanted = 32 * size > SK_PIECE ? 32 * size : SK_PIECE, rows = row < wanted ? wanted / (row ? row : 1) : 1;
    long pieces = (outer + rows - 1) / rows;
    int failed = 0;
    double *sums = calloc(pieces * size + 1, sizeof(double));
    if (!sums) return 1;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(| : failed) if (threads > 1 && pieces > 1)
    for (long p = 0; p < pieces; p++) {
        long last = (p + 1) * rows < outer ? (p + 1) * rows : outer;
        failed |= sk_piece(&arrays, p * rows, last, channels, inner, sums + p * size);
    }
    for (long s = 0; s < size; s++) {
        double sum = 0;
        for (long p = 0; p < pieces; p++) sum += sums[p * size + s];
        total[s] = (float)sum;
    }
    free(sums);
    return failed;
}
