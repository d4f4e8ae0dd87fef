/* What DNC and NTM do alike, models/addressing.py: look a key up, write, read; each with its gradients.
 *
 * A memory is [row][size]: words that are none are zero and stay so. A weighting is [row]. */

#ifndef ENGRAM_MEMORY_H
#define ENGRAM_MEMORY_H

#include "linear.h"

#define EPSILON ((real)1e-6)
#define TINY ((real)1e-12)

enum similarity { COSINE, TIGHT_COSINE, JOINT_COSINE };

/* ---- Products with all words ---- */

/* k . M[n] of eight words; without a key |M[n]|^2, through the mask where there is one (given squared). */
INLINE vec products_of_eight(const real *words, i64 size, const real *key, const real *mask) {
    vec total[LANES];
#pragma clang loop unroll(full)
    for (i64 n = 0; n < LANES; n++) total[n] = all(0);
    for (i64 k = 0; k < size; k += LANES)
#pragma clang loop unroll(full)
        for (i64 n = 0; n < LANES; n++) {
            vec word = load(words + n * size + k);
            total[n] = fma_(key ? load(key + k) : mask ? word * load(mask + k) : word, word, total[n]);
        }
    return sums(total);
}

static void products(const real *memory, i64 row, i64 size, const real *key, real *out) {
    for (i64 n = 0; n < row; n += LANES) store(out + n, products_of_eight(memory + n * size, size, key, 0));
}

/* What the denominators are made of, from sum x^2: |x| = sqrt(sum x^2 + eps), or for a joint similarity the sum. */
INLINE vec measure(i64 similarity, vec squares) {
    if (similarity == JOINT_COSINE) return squares;
    return sqrt_(squares + all(similarity == COSINE ? EPSILON : TINY));
}

static void measures(const real *memory, i64 row, i64 size, i64 similarity, real *out) {
    for (i64 n = 0; n < row; n += LANES)
        store(out + n, measure(similarity, products_of_eight(memory + n * size, size, 0, 0)));
}

static real measure_of(i64 similarity, const real *key, i64 size) {
    return measure(similarity, all(dot_(key, key, size)))[0];
}

INLINE wide_vec denominators(i64 similarity, wide_vec key, wide_vec words) {
    if (similarity == COSINE) return fma_(key, words, all_wide(EPSILON));
    return similarity == TIGHT_COSINE ? key * words : sqrt_(fma_(key, words, all_wide(EPSILON)));
}

/* out = sum_n w[n] M[n] for so many weightings, `columns` vectors of columns at once; with two ways the even slots and
 * the odd ones are summed apart, so that a sum need not wait for the one before. */
INLINE void read_columns(const real *memory, const real *weights, i64 row, i64 size, real *out, const i64 count,
                         const i64 columns, const i64 ways) {
    vec total[8];
#pragma clang loop unroll(full)
    for (i64 t = 0; t < count * columns * ways; t++) total[t] = all(0);
    for (i64 n = 0; n < row; n += ways)
#pragma clang loop unroll(full)
        for (i64 c = 0; c < columns * ways; c++) {
            i64 way = c / columns;
            vec word = load(memory + (n + way) * size + c % columns * LANES);
#pragma clang loop unroll(full)
            for (i64 r = 0; r < count; r++) {
                vec *t = total + r * columns * ways + c;
                *t = fma_(all(weights[r * row + n + way]), word, *t);
            }
        }
#pragma clang loop unroll(full)
    for (i64 t = 0; t < count * columns; t++) {
        const vec *first = total + t / columns * columns * ways + t % columns;
        store(out + t / columns * size + t % columns * LANES, ways == 2 ? first[0] + first[columns] : first[0]);
    }
}

/* r = sum_n w[n] M[n] for so many weightings [count][row]: out [count][size]. */
static void read_vectors(const real *memory, const real *weights, i64 count, i64 row, i64 size, real *out) {
    for (; count >= 4; count -= 4, weights += 4 * row, out += 4 * size) {
        i64 k = 0;
        for (; k + WIDE <= size; k += WIDE) read_columns(memory + k, weights, row, size, out + k, 4, 2, 1);
        for (; k < size; k += LANES) read_columns(memory + k, weights, row, size, out + k, 4, 1, 2);
    }
    for (; count > 0; count--, weights += row, out += size) {
        i64 k = 0;
        for (; k + 4 * LANES <= size; k += 4 * LANES) read_columns(memory + k, weights, row, size, out + k, 1, 4, 2);
        if (size - k == 3 * LANES) read_columns(memory + k, weights, row, size, out + k, 1, 3, 2);
        if (size - k == WIDE) read_columns(memory + k, weights, row, size, out + k, 1, 2, 2);
        if (size - k == LANES) read_columns(memory + k, weights, row, size, out + k, 1, 1, 2);
    }
}

/* Vectors to be added to every word of a gradient, of each so much as its weights say, at most four at once. */
typedef struct {
    i64 count;
    const real *weights[4], *vectors[4];
} outers;

/* dM[n] += sum_t w_t[n] v_t, and with a scale c: + c[n] M[n]. */
INLINE void add_so_many(real *d_memory, i64 row, i64 size, const outers *terms, const real *scale, const real *memory,
                        const i64 count) {
    for (i64 n = 0; n < row; n++) {
        vec weight[4], own = all(scale ? scale[n] : 0);
#pragma clang loop unroll(full)
        for (i64 t = 0; t < count; t++) weight[t] = all(terms->weights[t][n]);
        for (i64 k = 0; k < size; k += LANES) {
            vec d = load(d_memory + n * size + k);
            if (scale) d = fma_(own, load(memory + n * size + k), d);
#pragma clang loop unroll(full)
            for (i64 t = 0; t < count; t++) d = fma_(weight[t], load(terms->vectors[t] + k), d);
            store(d_memory + n * size + k, d);
        }
    }
}

static void add_outers(real *d_memory, i64 row, i64 size, outers *terms, const real *scale, const real *memory) {
#define ADD(count_)                                                                                                    \
    case count_:                                                                                                       \
        if (scale) add_so_many(d_memory, row, size, terms, scale, memory, count_);                                     \
        else add_so_many(d_memory, row, size, terms, 0, 0, count_);                                                    \
        break;
    switch (terms->count) { ADD(0) ADD(1) ADD(2) ADD(3) ADD(4) }
#undef ADD
    terms->count = 0;
}

/* Add one more, now or when there are four. */
INLINE void add_outer(real *d_memory, i64 row, i64 size, outers *terms, const real *weights, const real *vector) {
    if (terms->count == 4) add_outers(d_memory, row, size, terms, 0, 0);
    terms->weights[terms->count] = weights, terms->vectors[terms->count] = vector;
    terms->count++;
}

/* ---- Content ---- */

/* From products k . M[n], in `similarities`, to D(k, M[n]) in their place and to softmax(strength D). */
static void content_weights(i64 similarity, real *similarities, const real *words, real key, real strength, i64 slots,
                            real *weights) {
    i64 row = row_of(slots);
    for (i64 n = 0; n < row; n += WIDE) {
        wide_vec d = load_wide(similarities + n) / denominators(similarity, all_wide(key), load_wide(words + n));
        store_wide(similarities + n, d), store_wide(weights + n, all_wide(strength) * d);
    }
    softmax_wide(weights, slots, row);
}

/* What the gradient of a weighting by content says of what is not a vector. */
typedef struct {
    real strength;
    real key; /* how much of the key itself is to be added to its gradient */
} content_gradient;

/* From the gradient of the weights to that of the products, in its place. d_words: [row], to it is added how much of
 * each word itself is to be added to the word's gradient. */
static content_gradient content_weights_backward(i64 similarity, const real *weights, const real *similarities,
                                                 const real *words, real key, real strength, i64 slots, real *d_weights,
                                                 real *d_words) {
    i64 row = row_of(slots);
    wide_vec d_strength = all_wide(0), d_key = all_wide(0);
    softmax_backward_wide(weights, d_weights, row);
    for (i64 n = 0; n < row; n += WIDE) {
        wide_vec d = load_wide(d_weights + n), s = load_wide(similarities + n), w = load_wide(words + n);
        wide_vec below = denominators(similarity, all_wide(key), w), d_product = d * all_wide(strength) / below;
        wide_vec d_below = -d_product * s; /* of the denominator; joint: of what is under its root, twice */
        d_strength = fma_(d, s, d_strength);
        if (similarity == JOINT_COSINE) d_below /= below;
        d_key = fma_(d_below, w, d_key);
        wide_vec of_word = d_below * all_wide(key);
        if (similarity != JOINT_COSINE) of_word /= w;
        store_wide(d_weights + n, d_product), store_wide(d_words + n, load_wide(d_words + n) + of_word);
    }
    real of_key = sum_wide(d_key);
    return (content_gradient){sum_wide(d_strength), similarity == JOINT_COSINE ? of_key : of_key / key};
}

/* dk = sum_n dP[n] M[n] + c k, from the gradient of the products and how much of the key itself is to be added. */
static void key_backward(const real *memory, const real *d_products, i64 row, i64 size, const real *key, real own,
                         real *d_key) {
    read_vectors(memory, d_products, 1, row, size, d_key);
    for (i64 k = 0; k < size; k += LANES) store(d_key + k, fma_(all(own), load(key + k), load(d_key + k)));
}

/* One weighting by content, where the key and the words are compared through a mask: D(m k, m M[n]). masked: [2][size],
 * left with m^2 and m^2 k. */
static void masked_look_up(const real *memory, i64 slots, i64 size, const real *key, const real *mask, real strength,
                           real *masked, real *words, real *similarities, real *weights) {
    i64 row = row_of(slots);
    vec squares = all(0);
    for (i64 k = 0; k < size; k += LANES) {
        vec m = load(mask + k), both = load(key + k) * m;
        squares = fma_(both, both, squares);
        store(masked + k, m * m), store(masked + size + k, both * m);
    }
    for (i64 n = 0; n < row; n += LANES) {
        const real *eight = memory + n * size;
        store(words + n, measure(COSINE, products_of_eight(eight, size, 0, masked)));
        store(similarities + n, products_of_eight(eight, size, masked + size, 0));
    }
    content_weights(COSINE, similarities, words, measure(COSINE, all(sum(squares)))[0], strength, slots, weights);
}

/* Returns the gradient of the strength; d_weights is changed, to d_memory is added. masked: as masked_look_up left it.
 * spare: [2 size + row]. */
static real masked_look_up_backward(const real *memory, i64 slots, i64 size, const real *key, const real *mask,
                                    real strength, const real *masked, const real *words, const real *similarities,
                                    const real *weights, real *d_weights, real *d_memory, real *d_key, real *d_mask,
                                    real *spare) {
    i64 row = row_of(slots);
    real *sums_ = spare, *squares = spare + size, *d_words = spare + 2 * size;
    real measured = measure(COSINE, all(dot_(key, masked + size, size)))[0];
    memset(d_words, 0, row * sizeof(real));
    content_gradient d =
        content_weights_backward(COSINE, weights, similarities, words, measured, strength, slots, d_weights, d_words);
    read_vectors(memory, d_weights, 1, row, size, sums_);
    for (i64 k = 0; k < size; k += LANES) {
        vec total = all(0);
        for (i64 n = 0; n < slots; n++) {
            vec word = load(memory + n * size + k);
            total = fma_(all(d_words[n]) * word, word, total);
        }
        store(squares + k, total);
    }
    for (i64 n = 0; n < row; n++) /* dM[n] += dP[n] m^2 k + c[n] m^2 M[n] */
        for (i64 k = 0; k < size; k += LANES) {
            vec own = all(d_words[n]) * load(masked + k) * load(memory + n * size + k);
            vec d = load(d_memory + n * size + k) + own;
            store(d_memory + n * size + k, fma_(all(d_weights[n]), load(masked + size + k), d));
        }
    for (i64 k = 0; k < size; k += LANES) {
        vec x = load(key + k), m = load(mask + k), s = load(sums_ + k), own = all(d.key) * x;
        store(d_key + k, m * m * (s + own));
        store(d_mask + k, m * (x * (s + s + own) + load(squares + k)));
    }
    return d.strength;
}

/* ---- Writing ---- */

/* M[n] = psi[n] M[n] prod_v (1 - w_v[n] e_v) + sum_v w_v[n] a_v, for eight words from n on, from where they were to
 * where they will be. weights: [writes][row]; erase, add: [writes][size]; psi: [row], or none for 1. */
INLINE void write_eight_of(const real *memory, real *to, i64 n, const real *weights, const real *erase, const real *add,
                           const i64 writes, i64 row, i64 size, const real *psi) {
    for (i64 m = n; m < n + LANES; m++)
        for (i64 k = 0; k < size; k += LANES) {
            vec kept = all(psi ? psi[m] : 1), added = all(0);
            for (i64 v = 0; v < writes; v++) {
                vec w = all(weights[v * row + m]);
                kept *= fma_(-w, load(erase + v * size + k), all(1));
                added = fma_(w, load(add + v * size + k), added);
            }
            store(to + m * size + k, fma_(load(memory + m * size + k), kept, added));
        }
}

INLINE void write_eight(const real *memory, real *to, i64 n, const real *weights, const real *erase, const real *add,
                        i64 writes, i64 row, i64 size, const real *psi) {
    if (writes == 1 && !psi) write_eight_of(memory, to, n, weights, erase, add, 1, row, size, 0);
    else write_eight_of(memory, to, n, weights, erase, add, writes, row, size, psi);
}

/* prod_v (1 - w_v[n] e_v) of all heads but one. */
INLINE vec kept_by_others(const real *weights, const real *erase, const i64 writes, i64 head, i64 row, i64 size, i64 n,
                          i64 k) {
    vec kept = all(1);
    for (i64 v = 0; v < writes; v++)
        if (v != head) kept *= fma_(-all(weights[v * row + n]), load(erase + v * size + k), all(1));
    return kept;
}

INLINE void write_backward_of(const real *memory, const real *weights, const real *erase, const real *add,
                              const i64 writes, i64 row, i64 size, const real *psi, real *d_memory, real *d_weights,
                              real *d_erase, real *d_add, real *d_psi) {
    for (i64 n = 0; n < row; n += LANES) {
        vec total[LANES];
        for (i64 v = 0; v < writes; v++) {
#pragma clang loop unroll(full)
            for (i64 m = 0; m < LANES; m++) total[m] = all(0);
            for (i64 k = 0; k < size; k += LANES) {
                real *d_e = d_erase + v * size + k, *d_a = d_add + v * size + k;
                vec e = load(erase + v * size + k), a = load(add + v * size + k), of_e = load(d_e), of_a = load(d_a);
#pragma clang loop unroll(full)
                for (i64 m = 0; m < LANES; m++) {
                    real *at = d_memory + (n + m) * size + k;
                    vec w = all(weights[v * row + n + m]), d = load(at);
                    vec d_lost = -d * load(memory + (n + m) * size + k);
                    if (psi) d_lost *= all(psi[n + m]);
                    if (writes > 1) d_lost *= kept_by_others(weights, erase, writes, v, row, size, n + m, k);
                    total[m] = fma_(d, a, fma_(d_lost, e, total[m]));
                    of_e = fma_(d_lost, w, of_e), of_a = fma_(d, w, of_a);
                    if (writes == 1 && !psi) store(at, d * fma_(-w, e, all(1)));
                }
                store(d_e, of_e), store(d_a, of_a);
            }
            store(d_weights + v * row + n, load(d_weights + v * row + n) + sums(total));
        }
        if (writes == 1 && !psi) continue;
#pragma clang loop unroll(full)
        for (i64 m = 0; m < LANES; m++) total[m] = all(0);
        for (i64 k = 0; k < size; k += LANES)
#pragma clang loop unroll(full)
            for (i64 m = 0; m < LANES; m++) {
                real *at = d_memory + (n + m) * size + k;
                vec d = load(at) * kept_by_others(weights, erase, writes, -1, row, size, n + m, k);
                if (psi) total[m] = fma_(d, load(memory + (n + m) * size + k), total[m]), d *= all(psi[n + m]);
                store(at, d);
            }
        if (psi) store(d_psi + n, load(d_psi + n) + sums(total));
    }
}

/* From the gradient of a memory that was written to that of the memory before, in its place. To d_weights
 * [writes][row], d_erase and d_add [writes][size], and with psi to d_psi [row], is added. memory: the one before. */
static void write_backward(const real *memory, const real *weights, const real *erase, const real *add, i64 writes,
                           i64 row, i64 size, const real *psi, real *d_memory, real *d_weights, real *d_erase,
                           real *d_add, real *d_psi) {
    if (writes == 1 && !psi)
        write_backward_of(memory, weights, erase, add, 1, row, size, 0, d_memory, d_weights, d_erase, d_add, 0);
    else
        write_backward_of(memory, weights, erase, add, writes, row, size, psi, d_memory, d_weights, d_erase, d_add,
                          d_psi);
}

#endif
