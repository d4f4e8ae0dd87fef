/* Vectors of eight and sixteen numbers, and the functions of them that networks need. Rows of every array are padded
 * with zeros to a multiple of eight, so that no loop has a remainder, and a row's numbers never depend on its
 * neighbours.
 *
 * The numbers are float32. Compiled with -DENGRAM_FLOAT64 they are float64, and the functions those of the C library:
 * slow, and for tests, which then distinguish a wrong equation from a rounding. */

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

/* Sixteen numbers, for products of matrices and for weightings: one register where the processor has such, else two. */
#define WIDE (2 * LANES)
typedef real wide_vec __attribute__((vector_size(WIDE * sizeof(real))));
typedef whole wide_ivec __attribute__((vector_size(WIDE * sizeof(real))));
typedef real loose_wide __attribute__((vector_size(WIDE * sizeof(real)), aligned(sizeof(real)), may_alias));

/* ThreadSanitizer itself sees no access of more than sixteen bytes. */
#if __has_feature(thread_sanitizer)
void __tsan_read_range(const void *from, unsigned long size);
void __tsan_write_range(void *to, unsigned long size);
#define WATCH_READ(from, type) __tsan_read_range(from, sizeof(type))
#define WATCH_WRITE(to, type) __tsan_write_range(to, sizeof(type))
#else
#define WATCH_READ(from, type) (void)0
#define WATCH_WRITE(to, type) (void)0
#endif

INLINE vec load(const real *from) {
    WATCH_READ(from, vec);
    return *(const loose_vec *)from;
}
INLINE void store(real *to, vec values) {
    WATCH_WRITE(to, vec);
    *(loose_vec *)to = values;
}
INLINE vec all(real value) { return (vec){value, value, value, value, value, value, value, value}; }
INLINE wide_vec load_wide(const real *from) {
    WATCH_READ(from, wide_vec);
    return *(const loose_wide *)from;
}
INLINE void store_wide(real *to, wide_vec values) {
    WATCH_WRITE(to, wide_vec);
    *(loose_wide *)to = values;
}
INLINE wide_vec all_wide(real value) {
    vec half = all(value);
    return __builtin_shufflevector(half, half, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

/* These take vectors of either width. */
#define fma_ __builtin_elementwise_fma
#define min_ __builtin_elementwise_min
#define max_ __builtin_elementwise_max
#define abs_ __builtin_elementwise_abs
#define sqrt_ __builtin_elementwise_sqrt
#define largest __builtin_reduce_max
#define choose(where, a, b)                                                                                            \
    ({                                                                                                                 \
        __typeof__(where) where_ = (where);                                                                            \
        (__typeof__(a))(((__typeof__(where))(a) & where_) | ((__typeof__(where))(b) & ~where_));                       \
    })

/* Return the sum of the lanes, always in the same order. */
INLINE real sum(vec a) {
    a += __builtin_shufflevector(a, a, 4, 5, 6, 7, 4, 5, 6, 7);
    a += __builtin_shufflevector(a, a, 2, 3, 2, 3, 2, 3, 2, 3);
    return a[0] + a[1];
}
INLINE real sum_wide(wide_vec a) {
    return sum(__builtin_shufflevector(a, a, 0, 1, 2, 3, 4, 5, 6, 7) +
               __builtin_shufflevector(a, a, 8, 9, 10, 11, 12, 13, 14, 15));
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

#define VEC vec
#define INTEGERS ivec
#define COUNT LANES
#define NAME(name) name##_
#define LOAD load
#define STORE store
#define ALL all
#define SUM sum
#include "functions.h"

#define VEC wide_vec
#define INTEGERS wide_ivec
#define COUNT WIDE
#define NAME(name) name##_wide
#define LOAD load_wide
#define STORE store_wide
#define ALL all_wide
#define SUM sum_wide
#include "functions.h"

/* Return a function of one number. */
INLINE real scalar(vec (*function)(vec), real value) { return function(all(value))[0]; }

/* ---- The mode of the processor ---- */

/* Flush denormals to zero while a step is computed: they cost a hundred times as much. Returns the mode before, for
 * restore_mode. */
#if defined(__x86_64__)
INLINE uint64_t flush_denormals(void) {
    unsigned int before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | 0x8040);
    return before;
}
INLINE void restore_mode(uint64_t before) { __builtin_ia32_ldmxcsr((unsigned int)before); }
#elif defined(__aarch64__)
INLINE uint64_t flush_denormals(void) {
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | (1ull << 24)));
    return before;
}
INLINE void restore_mode(uint64_t before) { __asm__ volatile("msr fpcr, %0" : : "r"(before)); }
#endif

#endif
