/* The functions that networks need, of a vector of either width: vector.h includes this file once for each width, and
 * defines VEC, INTEGERS, COUNT, LOAD, STORE, ALL, SUM and NAME.
 *
 * All of them pass NaN on: an overflow must not pass for an answer. */

#ifdef ENGRAM_FLOAT64

#define EACH_LANE(function)                                                                                            \
    INLINE VEC NAME(function)(VEC x) {                                                                                 \
        for (int k = 0; k < COUNT; k++) x[k] = function(x[k]);                                                         \
        return x;                                                                                                      \
    }
EACH_LANE(exp)
EACH_LANE(log)
EACH_LANE(log1p)
EACH_LANE(tanh)
#undef EACH_LANE

#else

/* e^x: 2^n e^r with n the nearest whole number to x / ln 2, and a polynomial for e^r (Cephes). */
INLINE VEC NAME(exp)(VEC from) {
    VEC x = min_(max_(from, ALL(-87.0f)), ALL(88.0f));
    VEC n = __builtin_elementwise_rint(x * ALL(1.44269504088896341f));
    VEC r = fma_(n, ALL(-0.693359375f), x);
    r = fma_(n, ALL(2.12194440e-4f), r);
    VEC y = ALL(1.9875691500e-4f);
    y = fma_(y, r, ALL(1.3981999507e-3f));
    y = fma_(y, r, ALL(8.3334519073e-3f));
    y = fma_(y, r, ALL(4.1665795894e-2f));
    y = fma_(y, r, ALL(1.6666665459e-1f));
    y = fma_(y, r, ALL(5.0000001201e-1f));
    y = fma_(y, r * r, r) + ALL(1.0f);
    INTEGERS power = (__builtin_convertvector(n, INTEGERS) + 127) << 23;
    return choose(from == from, y * (VEC)power, from);
}

/* ln x, x > 0: the exponent and a polynomial of the mantissa in [sqrt(1/2), sqrt(2)) (Cephes). */
INLINE VEC NAME(log)(VEC x) {
    INTEGERS bits = (INTEGERS)x;
    INTEGERS exponent = ((bits >> 23) & 255) - 126;
    VEC m = (VEC)((bits & 0x007fffff) | 0x3f000000);
    INTEGERS low = m < ALL(0.707106781186547524f);
    exponent += low;
    m = choose(low, m + m, m) - ALL(1.0f);
    VEC square = m * m, y = ALL(7.0376836292e-2f);
    y = fma_(y, m, ALL(-1.1514610310e-1f));
    y = fma_(y, m, ALL(1.1676998740e-1f));
    y = fma_(y, m, ALL(-1.2420140846e-1f));
    y = fma_(y, m, ALL(1.4249322787e-1f));
    y = fma_(y, m, ALL(-1.6668057665e-1f));
    y = fma_(y, m, ALL(2.0000714765e-1f));
    y = fma_(y, m, ALL(-2.4999993993e-1f));
    y = fma_(y, m, ALL(3.3333331174e-1f));
    y *= m * square;
    VEC e = __builtin_convertvector(exponent, VEC);
    y = fma_(e, ALL(-2.12194440e-4f), y);
    y = fma_(square, ALL(-0.5f), y);
    return fma_(e, ALL(0.693359375f), m + y);
}

/* ln(1 + y) for y in [0, 1], with a small relative error also for the smallest y (Kahan). */
INLINE VEC NAME(log1p)(VEC y) {
    VEC u = y + ALL(1.0f);
    VEC slope = choose(u == ALL(1.0f), ALL(1.0f), y / choose(u == ALL(1.0f), ALL(1.0f), u - ALL(1.0f)));
    return choose(u == ALL(1.0f), y, NAME(log)(u) * slope);
}

/* tanh x: a polynomial near zero, where 1 - 2 / (e^2x + 1) would lose its digits (Cephes). */
INLINE VEC NAME(tanh)(VEC x) {
    VEC square = x * x, y = ALL(-5.70498872745e-3f);
    y = fma_(y, square, ALL(2.06390887954e-2f));
    y = fma_(y, square, ALL(-5.37397155531e-2f));
    y = fma_(y, square, ALL(1.33314422036e-1f));
    y = fma_(y, square, ALL(-3.33332819422e-1f));
    VEC near = fma_(y * square, x, x);
    VEC size = abs_(x), far = ALL(1.0f) - ALL(2.0f) / (NAME(exp)(size + size) + ALL(1.0f));
    far = choose(x < ALL(0.0f), -far, far);
    return choose(size < ALL(0.625f), near, far);
}

#endif

INLINE VEC NAME(sigmoid)(VEC x) { return ALL(1) / (ALL(1) + NAME(exp)(-x)); }

/* x, or e^x - 1 where x < 0: 2 t / (1 - t) with t = tanh(x / 2), which keeps its digits near zero. */
INLINE VEC NAME(elu)(VEC x) {
    VEC t = NAME(tanh)(min_(x, ALL(0)) * ALL((real)0.5));
    return choose(x < ALL(0), (t + t) / (ALL(1) - t), x);
}

INLINE VEC NAME(softsign)(VEC x) { return x / (ALL(1) + abs_(x)); }

/* ln(1 + e^x), without overflow. */
INLINE VEC NAME(softplus)(VEC x) { return max_(x, ALL(0)) + NAME(log1p)(NAME(exp)(-abs_(x))); }

/* Replace `values` [count, padded] by their softmax: e^(x - max) / sum. */
INLINE void NAME(softmax)(real *values, int64_t count, int64_t padded) {
    for (int64_t j = count; j < padded; j++) values[j] = -1e30;
    VEC top = LOAD(values), total = ALL(0);
    for (int64_t j = COUNT; j < padded; j += COUNT) top = max_(top, LOAD(values + j));
    top = ALL(largest(top));
    for (int64_t j = 0; j < padded; j += COUNT) {
        VEC e = NAME(exp)(LOAD(values + j) - top);
        e = choose(LOAD(values + j) > ALL(-1e29), e, ALL(0));
        total += e;
        STORE(values + j, e);
    }
    VEC scale = ALL(1 / SUM(total));
    for (int64_t j = 0; j < padded; j += COUNT) STORE(values + j, LOAD(values + j) * scale);
}

/* dx = y (dy - y . dy) for y = softmax(x), in place of dy. */
INLINE void NAME(softmax_backward)(const real *y, real *dy, int64_t padded) {
    VEC total = ALL(0);
    for (int64_t j = 0; j < padded; j += COUNT) total = fma_(LOAD(y + j), LOAD(dy + j), total);
    VEC mean = ALL(SUM(total));
    for (int64_t j = 0; j < padded; j += COUNT) STORE(dy + j, LOAD(y + j) * (LOAD(dy + j) - mean));
}

INLINE real NAME(dot)(const real *a, const real *b, int64_t padded) {
    VEC total = ALL(0);
    for (int64_t j = 0; j < padded; j += COUNT) total = fma_(LOAD(a + j), LOAD(b + j), total);
    return SUM(total);
}

#undef VEC
#undef INTEGERS
#undef COUNT
#undef NAME
#undef LOAD
#undef STORE
#undef ALL
#undef SUM
