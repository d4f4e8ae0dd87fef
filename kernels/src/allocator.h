/* A bump allocator. Workspaces and scratch are allocated by functions named allocate_..., each beside the struct of the
 * arrays that it fills in. The same function counts: run once without a base, it leaves in `used` the numbers that it
 * takes. So no size is written down a second time. */

#ifndef ENGRAM_ALLOCATOR_H
#define ENGRAM_ALLOCATOR_H

#include "vector.h"

typedef int64_t i64;

/* base: of numbers, or none to count only. used: how many are allocated. */
typedef struct {
    real *base;
    i64 used;
} allocator;

/* Compiled with -DENGRAM_GUARDS, for a test, a guard of NaNs follows every array: the caller fills memory with them,
 * and every allocation counts in `engram_overruns` whether the guard was changed since. */
#ifdef ENGRAM_GUARDS
#define GUARD 64
i64 engram_overruns = 0;

INLINE void check_guard(allocator *from) {
    for (i64 k = 0; from->base && k < GUARD; k++) {
        real number = from->base[from->used + k];
        if (number == number) {
            engram_overruns++;
            break;
        }
    }
    from->used += GUARD;
}
#else
INLINE void check_guard(allocator *from) { (void)from; }
#endif

/* Allocate `size` numbers; return where number `at` of them lies, or none without a base. */
INLINE real *allocate_at(allocator *from, i64 size, i64 at) {
    real *start = from->base ? from->base + from->used + at : 0;
    from->used += size;
    check_guard(from);
    return start;
}

INLINE real *allocate(allocator *from, i64 size) { return allocate_at(from, size, 0); }

/* Allocate `size` integers, each in the place of a number. */
INLINE int32_t *allocate_integers(allocator *from, i64 size) { return (int32_t *)allocate(from, size); }

/* The rows that one thread computes, `first` and those after it, of the `total` rows of the batch. keep: whether every
 * row keeps what its memory's part computes, for the gradients. */
typedef struct {
    i64 total, first, keep;
} row_range;

/* Allocate an array [total][width]; return its row `first`. */
INLINE real *allocate_rows(allocator *from, row_range of, i64 width) {
    return allocate_at(from, of.total * width, of.first * width);
}

/* Allocate an array [total][width] and, where there is a step before, one of that step behind it: the gradients of the
 * interface's weights read both as rows of one batch. */
static real *allocate_both(allocator *from, row_range of, i64 width, i64 before, real **array_before) {
    real *array = allocate_at(from, (1 + before) * of.total * width, of.first * width);
    *array_before = array && before ? array + of.total * width : 0;
    return array;
}

#endif
