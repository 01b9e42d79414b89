/* Cubics from the slopes at four places of each bin and the values at its ends, with their errors; see fit.py, which has
   the same in torch. */
#include "vector_math.h"

static float sk_larger(float a, float b) { return a > b ? a : b; }

/* `values` are channels x bins x 2, `slopes` channels x bins x 4, `offsets` bins x 4, `distances` bins; `limits` are the
   tolerances of value and slope, the roundings allowed, the caution, and the ratio of value to slope errors. `rows`
   receives channels x bins x 4 coefficients, `found` the errors of value and slope and the excess over their tolerances,
   infinite where something is not a finite number. */
void sk_fit(const float *values, const float *slopes, const float *offsets, const float *distances, float step,
            long channels, long bins, const float *limits, float *rows, float *found) {
    float value_scale = 0, slope_scale = 0, bend = 0, value_error = 0, slope_error = 0, excess = 0;
    double total = 0; /* of which no sum of finite numbers runs out */
    for (long k = 0; k < channels * bins; k++) {
        const float *v = values + 2 * k, *s = slopes + 4 * k;
        total += sk_abs(v[0]) + sk_abs(v[1]) + sk_abs(s[0]) + sk_abs(s[1]) + sk_abs(s[2]) + sk_abs(s[3]);
        value_scale = sk_larger(value_scale, sk_larger(sk_abs(v[0]), sk_abs(v[1])));
        slope_scale = sk_larger(slope_scale, sk_larger(sk_larger(sk_abs(s[0]), sk_abs(s[1])),
                                                       sk_larger(sk_abs(s[2]), sk_abs(s[3]))));
        bend = sk_larger(bend, sk_abs(s[3] - s[0]) / step);
    }
    const float value_limit = limits[0] * value_scale, slope_limit = limits[1] * slope_scale, roundings = limits[2];
    for (long k = 0; k < channels * bins; k++) {
        const float *s = slopes + 4 * k, *off = offsets + 4 * (k % bins);
        const float distance = distances[k % bins];
        const float v0 = values[2 * k] - s[0] * off[0], v1 = values[2 * k + 1] - s[3] * off[3];
        const float quarter = 0.375f * s[0] - s[1] + 0.75f * s[2] - 0.125f * s[3];
        const float mean = (s[0] + 4 * s[2] + s[3]) * (1 / 6.0f);
        const float by_slope = limits[3] * sk_abs(quarter);
        const float by_value = sk_abs(v0 + step * mean - v1) + step * limits[4] * by_slope;
        const float value_noise = roundings * (value_scale + distance * slope_scale);
        const float slope_noise = roundings * (slope_scale + distance * bend);
        float *row = rows + 4 * k;
        row[0] = v0;
        row[1] = step * s[0];
        row[2] = step * (-1.5f * s[0] + 2 * s[2] - 0.5f * s[3]);
        row[3] = step * (2 / 3.0f) * (s[0] - 2 * s[2] + s[3]);
        value_error = sk_larger(value_error, by_value + value_noise);
        slope_error = sk_larger(slope_error, by_slope + slope_noise);
        excess = sk_larger(excess, sk_larger(by_value / (value_limit + value_noise + 1e-30f),
                                             by_slope / (slope_limit + slope_noise + 1e-30f)));
    }
    found[0] = value_error, found[1] = slope_error;
    found[2] = total < INFINITY ? excess : INFINITY;
}
