/* Eight numbers at a time, and the functions of them that networks need. Rows of every array are padded with zeros to a
 * multiple of eight, so that no loop has a remainder, and a row's numbers never depend on what lies beside it.
 *
 * The numbers are float32. Compiled with -DENGRAM_FLOAT64 they are float64, and the functions those of the C library:
 * slow, and for tests, which can then tell a wrong equation from a rounding. */

#ifndef ENGRAM_VECTOR_H
#define ENGRAM_VECTOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 8
#define INLINE static inline __attribute__((always_inline))

#ifdef ENGRAM_FLOAT64
typedef double real;
typedef int64_t whole;
#else
typedef float real;
typedef int32_t whole;
#endif

typedef real vec __attribute__((vector_size(LANES * sizeof(real))));
typedef whole ivec __attribute__((vector_size(LANES * sizeof(real))));
typedef real loose_vec __attribute__((vector_size(LANES * sizeof(real)), aligned(sizeof(real)), may_alias));

INLINE vec load(const real *from) { return *(const loose_vec *)from; }
INLINE void store(real *to, vec values) { *(loose_vec *)to = values; }
INLINE vec all(real value) { return (vec){value, value, value, value, value, value, value, value}; }
INLINE vec fma_(vec a, vec b, vec c) { return __builtin_elementwise_fma(a, b, c); }
INLINE vec min_(vec a, vec b) { return __builtin_elementwise_min(a, b); }
INLINE vec max_(vec a, vec b) { return __builtin_elementwise_max(a, b); }
INLINE vec abs_(vec a) { return __builtin_elementwise_abs(a); }
INLINE vec sqrt_(vec a) { return __builtin_elementwise_sqrt(a); }
INLINE vec choose(ivec where, vec a, vec b) { return (vec)(((ivec)a & where) | ((ivec)b & ~where)); }

/* Sixteen numbers, for products of matrices: one register where the processor has such, else two. */
typedef real wide_vec __attribute__((vector_size(2 * LANES * sizeof(real))));
typedef real loose_wide __attribute__((vector_size(2 * LANES * sizeof(real)), aligned(sizeof(real)), may_alias));

typedef whole wide_whole __attribute__((vector_size(2 * LANES * sizeof(real))));

INLINE wide_vec load_wide(const real *from) { return *(const loose_wide *)from; }
INLINE void store_wide(real *to, wide_vec values) { *(loose_wide *)to = values; }
INLINE wide_vec all_wide(real value) {
    vec half = all(value);
    return __builtin_shufflevector(half, half, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
INLINE wide_vec fma_wide(wide_vec a, wide_vec b, wide_vec c) { return __builtin_elementwise_fma(a, b, c); }

/* Return the sum of the lanes, always in the same order. */
INLINE real sum(vec a) {
    a += __builtin_shufflevector(a, a, 4, 5, 6, 7, 4, 5, 6, 7);
    a += __builtin_shufflevector(a, a, 2, 3, 2, 3, 2, 3, 2, 3);
    return a[0] + a[1];
}

INLINE real sum_wide(wide_vec a) {
    return sum(__builtin_shufflevector(a, a, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(a, a, 8, 9, 10, 11, 12, 13, 14, 15));
}

/* Return the sums of eight vectors, one in each lane. */
INLINE vec sums(const vec *a) {
    vec pairs[4], quads[2];
#pragma clang loop unroll(full)
    for (int k = 0; k < 4; k++)
        pairs[k] = __builtin_shufflevector(a[2 * k], a[2 * k + 1], 0, 8, 2, 10, 4, 12, 6, 14) +
                   __builtin_shufflevector(a[2 * k], a[2 * k + 1], 1, 9, 3, 11, 5, 13, 7, 15);
#pragma clang loop unroll(full)
    for (int k = 0; k < 2; k++)
        quads[k] = __builtin_shufflevector(pairs[2 * k], pairs[2 * k + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
                   __builtin_shufflevector(pairs[2 * k], pairs[2 * k + 1], 2, 3, 10, 11, 6, 7, 14, 15);
    return __builtin_shufflevector(quads[0], quads[1], 0, 1, 2, 3, 8, 9, 10, 11) +
           __builtin_shufflevector(quads[0], quads[1], 4, 5, 6, 7, 12, 13, 14, 15);
}

INLINE real largest(vec a) { return __builtin_reduce_max(a); }

/* What follows takes what is no number for what it is, and gives it back: an overflow is not to pass for an answer. */

#ifdef ENGRAM_FLOAT64

#define EACH_LANE(name, function) \
    INLINE vec name(vec x) { \
        for (int k = 0; k < LANES; k++) x[k] = function(x[k]); \
        return x; \
    }
EACH_LANE(exp_, exp)
EACH_LANE(log_, log)
EACH_LANE(log1p_, log1p)
EACH_LANE(tanh_, tanh)

#else

/* e^x: 2^n e^r with n the nearest whole number to x / ln 2, and a polynomial for e^r (Cephes). */
INLINE vec exp_(vec from) {
    vec x = min_(max_(from, all(-87.0f)), all(88.0f));
    vec n = __builtin_elementwise_rint(x * all(1.44269504088896341f));
    vec r = fma_(n, all(-0.693359375f), x);
    r = fma_(n, all(2.12194440e-4f), r);
    vec y = all(1.9875691500e-4f);
    y = fma_(y, r, all(1.3981999507e-3f));
    y = fma_(y, r, all(8.3334519073e-3f));
    y = fma_(y, r, all(4.1665795894e-2f));
    y = fma_(y, r, all(1.6666665459e-1f));
    y = fma_(y, r, all(5.0000001201e-1f));
    y = fma_(y, r * r, r) + all(1.0f);
    ivec power = (__builtin_convertvector(n, ivec) + 127) << 23;
    return choose(from == from, y * (vec)power, from);
}

/* ln x, x > 0: the exponent and a polynomial of the mantissa in [sqrt(1/2), sqrt(2)) (Cephes). */
INLINE vec log_(vec x) {
    ivec bits = (ivec)x;
    ivec exponent = ((bits >> 23) & 255) - 126;
    vec m = (vec)((bits & 0x007fffff) | 0x3f000000);
    ivec low = m < all(0.707106781186547524f);
    exponent += low;
    m = choose(low, m + m, m) - all(1.0f);
    vec square = m * m, y = all(7.0376836292e-2f);
    y = fma_(y, m, all(-1.1514610310e-1f));
    y = fma_(y, m, all(1.1676998740e-1f));
    y = fma_(y, m, all(-1.2420140846e-1f));
    y = fma_(y, m, all(1.4249322787e-1f));
    y = fma_(y, m, all(-1.6668057665e-1f));
    y = fma_(y, m, all(2.0000714765e-1f));
    y = fma_(y, m, all(-2.4999993993e-1f));
    y = fma_(y, m, all(3.3333331174e-1f));
    y *= m * square;
    vec e = __builtin_convertvector(exponent, vec);
    y = fma_(e, all(-2.12194440e-4f), y);
    y = fma_(square, all(-0.5f), y);
    return fma_(e, all(0.693359375f), m + y);
}

/* ln(1 + y) for y in [0, 1], exact in proportion also for the smallest y (Kahan). */
INLINE vec log1p_(vec y) {
    vec u = y + all(1.0f);
    vec slope = choose(u == all(1.0f), all(1.0f), y / choose(u == all(1.0f), all(1.0f), u - all(1.0f)));
    return choose(u == all(1.0f), y, log_(u) * slope);
}

/* tanh x: a polynomial near zero, where 1 - 2 / (e^2x + 1) would lose its digits (Cephes). */
INLINE vec tanh_(vec x) {
    vec square = x * x, y = all(-5.70498872745e-3f);
    y = fma_(y, square, all(2.06390887954e-2f));
    y = fma_(y, square, all(-5.37397155531e-2f));
    y = fma_(y, square, all(1.33314422036e-1f));
    y = fma_(y, square, all(-3.33332819422e-1f));
    vec near = fma_(y * square, x, x);
    vec size = abs_(x), far = all(1.0f) - all(2.0f) / (exp_(size + size) + all(1.0f));
    far = choose(x < all(0.0f), -far, far);
    return choose(size < all(0.625f), near, far);
}

#endif

INLINE vec sigmoid_(vec x) { return all(1) / (all(1) + exp_(-x)); }

/* ln(1 + e^x), without overflow. */
INLINE vec softplus_(vec x) { return max_(x, all(0)) + log1p_(exp_(-abs_(x))); }

/* Replace `values` [count, padded] by their softmax: e^(x - max) / sum. */
INLINE void softmax(real *values, int64_t count, int64_t padded) {
    for (int64_t j = count; j < padded; j++) values[j] = -1e30;
    vec top = load(values), total = all(0);
    for (int64_t j = LANES; j < padded; j += LANES) top = max_(top, load(values + j));
    top = all(largest(top));
    for (int64_t j = 0; j < padded; j += LANES) {
        vec e = exp_(load(values + j) - top);
        e = choose(load(values + j) > all(-1e29), e, all(0));
        total += e;
        store(values + j, e);
    }
    vec scale = all(1 / sum(total));
    for (int64_t j = 0; j < padded; j += LANES) store(values + j, load(values + j) * scale);
}

/* From the softmax y and its gradient to that of what it was taken of: y (dy - y . dy), in place of dy. */
INLINE void softmax_backward(const real *y, real *dy, int64_t padded) {
    vec total = all(0);
    for (int64_t j = 0; j < padded; j += LANES) total = fma_(load(y + j), load(dy + j), total);
    vec mean = all(sum(total));
    for (int64_t j = 0; j < padded; j += LANES) store(dy + j, load(y + j) * (load(dy + j) - mean));
}

INLINE real dot(const real *a, const real *b, int64_t padded) {
    vec total = all(0);
    for (int64_t j = 0; j < padded; j += LANES) total = fma_(load(a + j), load(b + j), total);
    return sum(total);
}

INLINE real scalar(vec (*function)(vec), real value) { return function(all(value))[0]; }

#endif
