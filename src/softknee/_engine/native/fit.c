/* Cubics from the slopes at four places of each bin and the values at its ends, with their errors, and how bins are
   divided that err too much; see fit.py and division.py, which have the same in torch. */
#include "vector_math.h"

/* Errors of a bin: of the value and the slope; excess over their tolerances where it is smooth, and where pieces meet. */
enum { SK_VALUE, SK_SLOPE, SK_SMOOTH, SK_JOINED, SK_ERRORS };
/* Tolerances of value and slope, the roundings allowed, the caution, the ratio of value to slope errors, by how much the
   value must be better where pieces meet, the error where they meet at its worst, the largest slope over the mean, what may swing over its mean, and
   the tolerance of slopes of functions in pieces relative to that of others. */
enum { SK_OF_VALUE, SK_OF_SLOPE, SK_ROUNDINGS, SK_CAUTION, SK_RATIO, SK_BETTER, SK_WORST, SK_PEAK, SK_SWING, SK_IN_PIECES };

#define SK_ROW_BITS 20

static float sk_larger(float a, float b) { return a > b ? a : b; }

static float sk_smaller(float a, float b) { return a < b ? a : b; }

static double sk_larger_d(double a, double b) { return a > b ? a : b; }

static float sk_largest(const float *s) {
    return sk_larger(sk_larger(sk_abs(s[0]), sk_abs(s[1])), sk_larger(sk_abs(s[2]), sk_abs(s[3])));
}

/* The largest slope of the slope. */
static float sk_bend(const float *s, float step) {
    return sk_larger(sk_larger(4 * sk_abs(s[1] - s[0]), 4 * sk_abs(s[2] - s[1])), 2 * sk_abs(s[3] - s[2])) / step;
}

/* The largest value and slope, and what slopes and bends are compared with. */
static void sk_scales(const float *values, const float *slopes, float step, long count, const float *limits,
                      float *scales) {
    float value = 0, slope = 0, bend = 0;
    double slopes_sum = 0, bends_sum = 0;
    for (long k = 0; k < count; k++) {
        const float *v = values + 2 * k, *s = slopes + 4 * k;
        const float bent = sk_bend(s, step);
        value = sk_larger(value, sk_larger(sk_abs(v[0]), sk_abs(v[1])));
        slope = sk_larger(slope, sk_largest(s)), bend = sk_larger(bend, bent);
        slopes_sum += sk_abs(s[2]), bends_sum += bent;
    }
    const float mean_slope = (float)(slopes_sum / count), mean_bend = (float)(bends_sum / count);
    scales[0] = value, scales[1] = slope;
    scales[2] = sk_smaller(slope, limits[SK_PEAK] * mean_slope);
    scales[3] = sk_smaller(slope, limits[SK_SWING] * mean_slope);
    scales[4] = sk_smaller(bend, limits[SK_SWING] * mean_bend);
}

/* By how much the derivative of the slope, times h, jumps between the bins next to one, h being the width of all. */
static float sk_jump(const float *s, long k, long bins) {
    if (k == 0 || k == bins - 1) return 0;
    return 2 * sk_abs((s[4 + 2] - s[4 + 0]) - (s[-4 + 3] - s[-4 + 2]));
}

/* `values` and `pieces`, which may be null, are channels x bins x 2, `slopes` channels x bins x 4, `offsets`,
   `distances` and `steps` those of division.py, of one channel where all share them. `scales` are found where they are
   `fresh`, for a grid of even bins; else only the largest slope is brought up to date. `rows` receives channels x bins x 4 coefficients, `errors` channels x bins x
   SK_ERRORS, `found` the largest errors of value and slope and the largest excess, infinite where something is not a
   finite number. */
void sk_fit(const float *values, const float *slopes, const float *pieces, const float *offsets, const float *distances,
            const float *steps, int shared, long channels, long bins, const float *limits, float *scales, int fresh,
            float *rows, float *errors, float *found) {
    float value_error = 0, slope_error = 0, excess = 0;
    double total = 0; /* of which no sum of finite numbers runs out */
    if (fresh) sk_scales(values, slopes, steps[0], channels * bins, limits, scales);
    for (long k = 0; k < channels * bins && !fresh; k++) scales[1] = sk_larger(scales[1], sk_largest(slopes + 4 * k));
    const float value_scale = scales[0], roundings = limits[SK_ROUNDINGS], better = fresh ? limits[SK_BETTER] : 1;
    const float of_slope = limits[SK_OF_SLOPE] * (pieces && fresh ? limits[SK_IN_PIECES] : 1);
    for (long c = 0; c < channels; c++)
        for (long b = 0; b < bins; b++) {
            const long k = c * bins + b, p = shared ? b : k;
            const float *v = values + 2 * k, *s = slopes + 4 * k, *off = offsets + 4 * p;
            const float step = steps[p], distance = distances[p];
            const float steepest = sk_largest(s), slope_scale = sk_larger(scales[2], steepest);
            const float swing = sk_larger(scales[3], steepest), bend = sk_larger(scales[4], sk_bend(s, step));
            const float v0 = v[0] - s[0] * off[0], v1 = v[1] - s[3] * off[3];
            const float quarter = 0.375f * s[0] - s[1] + 0.75f * s[2] - 0.125f * s[3];
            const float mean = (s[0] + 4 * s[2] + s[3]) * (1 / 6.0f);
            const float by_slope = limits[SK_CAUTION] * sk_abs(quarter);
            const float by_value = sk_abs(v0 + step * mean - v1) + step * limits[SK_RATIO] * by_slope;
            const float value_noise = roundings * (value_scale + distance * swing);
            const float slope_noise = roundings * (sk_larger(scales[1], slope_scale) + distance * bend);
            const float value_limit = limits[SK_OF_VALUE] * value_scale + value_noise + 1e-30f;
            const float slope_limit = of_slope * slope_scale + slope_noise + 1e-30f;
            const int joined = pieces && pieces[2 * k] != pieces[2 * k + 1];
            float *row = rows + 4 * k, *error = errors + SK_ERRORS * k;
            total += sk_abs(v[0]) + sk_abs(v[1]) + sk_abs(s[0]) + sk_abs(s[1]) + sk_abs(s[2]) + sk_abs(s[3]);
            row[0] = v0;
            row[1] = step * s[0];
            row[2] = step * (-1.5f * s[0] + 2 * s[2] - 0.5f * s[3]);
            row[3] = step * (2 / 3.0f) * (s[0] - 2 * s[2] + s[3]);
            error[SK_VALUE] = by_value + value_noise;
            error[SK_SLOPE] = joined ? 0 : by_slope + slope_noise;
            error[SK_SMOOTH] = joined ? 0 : sk_larger(by_value / value_limit, by_slope / slope_limit);
            const float likely = fresh && joined ? limits[SK_WORST] * step * sk_jump(s, b, bins) : 0;
            error[SK_JOINED] = joined ? sk_larger(by_value, likely) / value_limit : 0;
            value_error = sk_larger(value_error, error[SK_VALUE]);
            slope_error = sk_larger(slope_error, error[SK_SLOPE]);
            excess = sk_larger(excess, sk_larger(error[SK_SMOOTH], better * error[SK_JOINED]));
        }
    found[0] = value_error, found[1] = slope_error;
    found[2] = total < INFINITY ? excess : INFINITY;
}

/* The cube root, to seven digits. */
static float sk_root(float x) {
    float root = sk_float(sk_bits(x) / 3 + 0x2a5137a0u);
    for (int k = 0; k < 3; k++) root -= (root * root * root - x) / (3 * root * root);
    return root;
}

/* How many parts suffice where `parts` err by these; smooth ones fall by the third power, others by the second. */
static int sk_needed(int parts, float smooth, float joined, float margin, int most) {
    if (!(smooth > 1 || joined > 1) || parts >= most) return parts;
    const float root = sk_larger(smooth > 1 ? sk_root(smooth) : 1, joined > 1 ? __builtin_sqrtf(joined) : 1);
    const float wanted = parts * margin * root;
    if (!(wanted < most)) return most;
    const int whole = (int)wanted;
    return whole < wanted ? whole + 1 : whole;
}

static long sk_longest(const int *parts, long channels, long bins) {
    long longest = 0;
    for (long c = 0; c < channels; c++) {
        long length = 0;
        for (long b = 0; b < bins; b++) length += parts[c * bins + b] > 1 ? parts[c * bins + b] : 0;
        longest = length > longest ? length : longest;
    }
    return longest;
}

/* How many parts a bin of a grid may have, so that each has some numbers in it. */
static int sk_most(double origin, double step, long at, int most, double numbers) {
    const double low = origin + step * at, high = low + step, size = sk_larger_d(low < 0 ? -low : low, high < 0 ? -high : high);
    const double parts = step / (numbers * size + 1e-300);
    return parts < 1 ? 1 : parts < most ? (int)parts : most;
}

/* Writes the parts of each bin by its errors and, for it may err less by chance, by half of those next to it; values of
   bins where pieces meet are to be so much `better`. `found` receives the largest errors of value and slope of bins that
   stay whole. Returns the cells of the channel with most. */
long sk_divide(const float *errors, long channels, long bins, float margin, float better, double origin, double step,
               long first, int most, double numbers, int *parts, float *found) {
    found[0] = found[1] = 0;
    for (long c = 0; c < channels; c++)
        for (long b = 0; b < bins; b++) {
            const float *error = errors + SK_ERRORS * (c * bins + b);
            const float before = b > 0 ? error[SK_SMOOTH - SK_ERRORS] : 0;
            const float after = b < bins - 1 ? error[SK_SMOOTH + SK_ERRORS] : 0;
            const float smooth = sk_larger(error[SK_SMOOTH], 0.5f * sk_larger(before, after));
            const int limit = sk_most(origin, step, first + b, most, numbers);
            const int count = sk_needed(1, smooth, better * error[SK_JOINED], margin, limit);
            parts[c * bins + b] = count;
            if (count > 1) continue;
            found[0] = sk_larger(found[0], error[SK_VALUE]), found[1] = sk_larger(found[1], error[SK_SLOPE]);
        }
    return sk_longest(parts, channels, bins);
}

/* Makes more parts of bins whose cells, channels x longest, still err too much; the rest is as in sk_divide. */
long sk_divide_again(const float *errors, long channels, long bins, long longest, float margin, float better,
                     double origin, double step, long first, int most, double numbers, int *parts) {
    for (long c = 0; c < channels; c++) {
        const float *error = errors + SK_ERRORS * c * longest;
        for (long b = 0; b < bins; b++) {
            int *count = parts + c * bins + b, cells = *count;
            float smooth = 0, joined = 0;
            if (cells == 1) continue;
            for (int k = 0; k < cells; k++, error += SK_ERRORS)
                smooth = sk_larger(smooth, error[SK_SMOOTH]), joined = sk_larger(joined, error[SK_JOINED]);
            const int limit = sk_most(origin, step, first + b, most, numbers);
            *count = sk_needed(cells, smooth, joined > 1 ? better * joined : 0, margin, limit);
        }
    }
    return sk_longest(parts, channels, bins);
}

static void sk_cell(long k, double left, double step, double bin, double hair, double float_hair, float *places,
                    float *ends, float *offsets, float *distances, float *steps) {
    static const double at[4] = {0, 0.25, 0.5, 1}, inward[4] = {1, 0, 0, -1};
    /* Where a place is in its bin is rounded too. */
    float distance = (float)bin;
    for (int j = 0; j < 4; j++) {
        const double exact = left + step * at[j], size = exact < 0 ? -exact : exact;
        const float place = (float)(exact + inward[j] * (hair * step + float_hair * size));
        places[4 * k + j] = place;
        offsets[4 * k + j] = (float)(place - exact);
        distance = sk_larger(distance, sk_abs(place));
    }
    ends[2 * k] = places[4 * k], ends[2 * k + 1] = places[4 * k + 3];
    distances[k] = distance, steps[k] = (float)step;
}

/* Writes where the cells of divided bins are evaluated, channels x longest, and for each bin how many parts it has and
   its first row. Channels with fewer cells have the last again, or a bin that stays whole. */
void sk_cells(const int *parts, long channels, long bins, long longest, double origin, double step, long first,
              double hair, double float_hair, int *entries, float *places, float *ends, float *offsets,
              float *distances, float *steps) {
    for (long c = 0; c < channels; c++) {
        double left = origin + step * first, width = step;
        long used = 0;
        for (long b = 0; b < bins; b++) {
            const int count = parts[c * bins + b];
            const long row = c * (bins + longest) + (count > 1 ? bins + used : b);
            entries[c * bins + b] = (int)((uint32_t)count << SK_ROW_BITS | (uint32_t)row);
            for (int k = 0; count > 1 && k < count; k++, used++) {
                left = origin + step * (first + b + (double)k / count), width = step / count;
                sk_cell(c * longest + used, left, width, step, hair, float_hair, places, ends, offsets, distances,
                        steps);
            }
        }
        for (; used < longest; used++)
            sk_cell(c * longest + used, left, width, step, hair, float_hair, places, ends, offsets, distances,
                        steps);
    }
}
