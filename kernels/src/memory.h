/* The parts that DNC and NTM share, models/addressing.py: look a key up, write, read; each with its gradients. */

#ifndef ENGRAM_MEMORY_H
#define ENGRAM_MEMORY_H

#include "linear.h"

#define EPSILON ((real)1e-6)
#define TINY ((real)1e-12)

enum similarity { COSINE, TIGHT_COSINE, JOINT_COSINE };

/* A memory is [width][size], a weighting [width]. width: `locations`, padded to a multiple of sixteen; size: numbers of
 * a word, padded to eight. Beyond the locations, all is zero and stays so. */
typedef struct {
    i64 locations, width, size;
} memory_shape;

/* ---- Products with all words ---- */

/* k . M[n] of eight words, or without a key |M[n]|^2, or with a mask, given squared, |m M[n]|^2. */
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

/* out[n] = k . M[n]. out: [width]. */
static void products(const real *memory, memory_shape shape, const real *key, real *out) {
    i64 size = shape.size;
    for (i64 n = 0; n < shape.width; n += LANES) store(out + n, products_of_eight(memory + n * size, size, key, 0));
}

/* dw[n] += dr . M[n], for r = sum_n w[n] M[n]. d_weights: [width]; d_vector: [size]. */
static void read_weights_backward(const real *memory, memory_shape shape, const real *d_vector, real *d_weights) {
    i64 size = shape.size;
    for (i64 n = 0; n < shape.width; n += LANES)
        store(d_weights + n, load(d_weights + n) + products_of_eight(memory + n * size, size, d_vector, 0));
}

/* A norm from sum x^2: |x| = sqrt(sum x^2 + eps); for a joint similarity, whose root is over both norms, the sum. */
INLINE vec norm_from(i64 similarity, vec squares) {
    if (similarity == JOINT_COSINE) return squares;
    return sqrt_(squares + all(similarity == COSINE ? EPSILON : TINY));
}

/* Norms of eight words. */
INLINE vec norms_of_eight(const real *words, i64 size, i64 similarity) {
    return norm_from(similarity, products_of_eight(words, size, 0, 0));
}

/* out[n] = |M[n]|. out: [width]. */
static void norms(const real *memory, memory_shape shape, i64 similarity, real *out) {
    for (i64 n = 0; n < shape.width; n += LANES)
        store(out + n, norms_of_eight(memory + n * shape.size, shape.size, similarity));
}

static real norm(i64 similarity, const real *key, i64 size) {
    return norm_from(similarity, all(dot_(key, key, size)))[0];
}

INLINE wide_vec denominators(i64 similarity, wide_vec key, wide_vec words) {
    if (similarity == COSINE) return fma_(key, words, all_wide(EPSILON));
    return similarity == TIGHT_COSINE ? key * words : sqrt_(fma_(key, words, all_wide(EPSILON)));
}

/* r = sum_n w[n] M[n] for `count` weightings, `columns` vectors of columns at once. With two ways the even locations
 * and the odd ones are summed separately, so that a sum need not wait for the one before. */
INLINE void read_columns(const real *memory, const real *weights, memory_shape shape, real *out, const i64 count,
                         const i64 columns, const i64 ways) {
    i64 width = shape.width, size = shape.size;
    vec total[8];
#pragma clang loop unroll(full)
    for (i64 t = 0; t < count * columns * ways; t++) total[t] = all(0);
    for (i64 n = 0; n < width; n += ways)
#pragma clang loop unroll(full)
        for (i64 c = 0; c < columns * ways; c++) {
            i64 way = c / columns;
            vec word = load(memory + (n + way) * size + c % columns * LANES);
#pragma clang loop unroll(full)
            for (i64 r = 0; r < count; r++) {
                vec *t = total + r * columns * ways + c;
                *t = fma_(all(weights[r * width + n + way]), word, *t);
            }
        }
#pragma clang loop unroll(full)
    for (i64 t = 0; t < count * columns; t++) {
        const vec *first = total + t / columns * columns * ways + t % columns;
        store(out + t / columns * size + t % columns * LANES, ways == 2 ? first[0] + first[columns] : first[0]);
    }
}

/* r = sum_n w[n] M[n] for each of `count` weightings. weights: [count][width]; out: [count][size]. */
static void read_vectors(const real *memory, const real *weights, i64 count, memory_shape shape, real *out) {
    i64 width = shape.width, size = shape.size;
    for (; count >= 4; count -= 4, weights += 4 * width, out += 4 * size) {
        i64 k = 0;
        for (; k + WIDE <= size; k += WIDE) read_columns(memory + k, weights, shape, out + k, 4, 2, 1);
        for (; k < size; k += LANES) read_columns(memory + k, weights, shape, out + k, 4, 1, 2);
    }
    for (; count > 0; count--, weights += width, out += size) {
        i64 k = 0;
        for (; k + 4 * LANES <= size; k += 4 * LANES) read_columns(memory + k, weights, shape, out + k, 1, 4, 2);
        if (size - k == 3 * LANES) read_columns(memory + k, weights, shape, out + k, 1, 3, 2);
        if (size - k == WIDE) read_columns(memory + k, weights, shape, out + k, 1, 2, 2);
        if (size - k == LANES) read_columns(memory + k, weights, shape, out + k, 1, 1, 2);
    }
}

/* Outer products w v^T to be added to the gradient of a memory, at most four at once. weights: w, [width] each;
 * vectors: v, [size] each. */
typedef struct {
    i64 count;
    const real *weights[4], *vectors[4];
} outer_products;

/* dM[n] += sum_t w_t[n] v_t, and with a scale c: + c[n] M[n]. scale: [width], or none. */
INLINE void add_count(real *d_memory, memory_shape shape, const outer_products *terms, const real *scale,
                      const real *memory, const i64 count) {
    i64 size = shape.size;
    for (i64 n = 0; n < shape.width; n++) {
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

/* Add the terms, and with a scale c + c[n] M[n], and begin with none again. */
static void add_outer_products(real *d_memory, memory_shape shape, outer_products *terms, const real *scale,
                               const real *memory) {
#define ADD(count_)                                                                                                    \
    case count_:                                                                                                       \
        if (scale) add_count(d_memory, shape, terms, scale, memory, count_);                                           \
        else add_count(d_memory, shape, terms, 0, 0, count_);                                                          \
        break;
    switch (terms->count) { ADD(0) ADD(1) ADD(2) ADD(3) ADD(4) }
#undef ADD
    terms->count = 0;
}

/* Take one more term; add them all to the gradient when there were four. */
INLINE void add_outer_product(real *d_memory, memory_shape shape, outer_products *terms, const real *weights,
                              const real *vector) {
    if (terms->count == 4) add_outer_products(d_memory, shape, terms, 0, 0);
    terms->weights[terms->count] = weights, terms->vectors[terms->count] = vector;
    terms->count++;
}

/* ---- Content ---- */

/* A weighting by content: weights = softmax(strength D(k, M[n])). norms: of the words, [width]; key_norm: of the key;
 * similarities: D, [width]; weights: [width]. */
typedef struct {
    i64 similarity;
    real strength, key_norm;
    real *norms, *similarities, *weights;
} content_weighting;

/* Replace the products k . M[n], in c.similarities, by D(k, M[n]), and set c.weights. */
static void content_weights(content_weighting c, memory_shape shape) {
    for (i64 n = 0; n < shape.width; n += WIDE) {
        wide_vec below = denominators(c.similarity, all_wide(c.key_norm), load_wide(c.norms + n));
        wide_vec d = load_wide(c.similarities + n) / below;
        store_wide(c.similarities + n, d), store_wide(c.weights + n, all_wide(c.strength) * d);
    }
    softmax_wide(c.weights, shape.locations, shape.width);
}

/* The scalars of a gradient of a weighting by content. key_scale: dk += key_scale k, from the norm of the key. */
typedef struct {
    real strength, key_scale;
} content_gradient;

/* Replace d_weights [width] by the gradient of the products k . M[n]. Add to word_scale [width] the c of
 * dM[n] += c[n] M[n], from the norms of the words. */
static content_gradient content_weights_backward(content_weighting c, memory_shape shape, real *d_weights,
                                                 real *word_scale) {
    wide_vec strength = all_wide(c.strength), key_norm = all_wide(c.key_norm);
    wide_vec d_strength = all_wide(0), d_key = all_wide(0);
    softmax_backward_wide(c.weights, d_weights, shape.width);
    for (i64 n = 0; n < shape.width; n += WIDE) {
        wide_vec d = load_wide(d_weights + n), s = load_wide(c.similarities + n), w = load_wide(c.norms + n);
        wide_vec below = denominators(c.similarity, key_norm, w), d_product = d * strength / below;
        wide_vec d_below = -d_product * s; /* of the denominator; joint: of the sum under its root, twice */
        d_strength = fma_(d, s, d_strength);
        if (c.similarity == JOINT_COSINE) d_below /= below;
        d_key = fma_(d_below, w, d_key);
        wide_vec scale = d_below * key_norm;
        if (c.similarity != JOINT_COSINE) scale /= w;
        store_wide(d_weights + n, d_product), store_wide(word_scale + n, load_wide(word_scale + n) + scale);
    }
    real of_key = sum_wide(d_key);
    return (content_gradient){sum_wide(d_strength), c.similarity == JOINT_COSINE ? of_key : of_key / c.key_norm};
}

/* dk = sum_n dP[n] M[n] + key_scale k. d_products: [width]; d_key: [size]. */
static void key_backward(const real *memory, const real *d_products, memory_shape shape, const real *key,
                         real key_scale, real *d_key) {
    read_vectors(memory, d_products, 1, shape, d_key);
    for (i64 k = 0; k < shape.size; k += LANES) store(d_key + k, fma_(all(key_scale), load(key + k), load(d_key + k)));
}

/* A key k that is compared with the words through a mask m: D(m k, m M[n]). mask, key: [size]; masked: [2][size], left
 * with m^2 and m^2 k. */
typedef struct {
    const real *key, *mask;
    real *masked;
} masked_key;

/* One weighting by content through a mask. Sets c.norms, c.similarities and c.weights. */
static void masked_look_up(const real *memory, memory_shape shape, masked_key k, content_weighting c) {
    i64 size = shape.size;
    vec squares = all(0);
    for (i64 j = 0; j < size; j += LANES) {
        vec m = load(k.mask + j), both = load(k.key + j) * m;
        squares = fma_(both, both, squares);
        store(k.masked + j, m * m), store(k.masked + size + j, both * m);
    }
    for (i64 n = 0; n < shape.width; n += LANES) {
        const real *eight = memory + n * size;
        store(c.norms + n, norm_from(COSINE, products_of_eight(eight, size, 0, k.masked)));
        store(c.similarities + n, products_of_eight(eight, size, k.masked + size, 0));
    }
    c.key_norm = norm_from(COSINE, all(sum(squares)))[0];
    content_weights(c, shape);
}

/* Gradients of a look-up through a mask. weights: [width], which is changed; memory, to which is added; key, mask:
 * [size], which are set. Scratch: word_scale [width]; sums, squares: [size]. */
typedef struct {
    real *weights, *memory, *key, *mask;
    real *word_scale, *sums, *squares;
} masked_gradients;

/* dM[n] += dP[n] m^2 k + c[n] m^2 M[n]. */
static void masked_words_backward(const real *memory, memory_shape shape, masked_key k, masked_gradients d) {
    i64 size = shape.size;
    for (i64 n = 0; n < shape.width; n++)
        for (i64 j = 0; j < size; j += LANES) {
            vec own = all(d.word_scale[n]) * load(k.masked + j) * load(memory + n * size + j);
            vec dm = load(d.memory + n * size + j) + own;
            store(d.memory + n * size + j, fma_(all(d.weights[n]), load(k.masked + size + j), dm));
        }
}

/* Return the gradient of the strength. k, c: as masked_look_up left them. */
static real masked_look_up_backward(const real *memory, memory_shape shape, masked_key k, content_weighting c,
                                    masked_gradients d) {
    i64 size = shape.size;
    c.key_norm = norm_from(COSINE, all(dot_(k.key, k.masked + size, size)))[0];
    memset(d.word_scale, 0, shape.width * sizeof(real));
    content_gradient of = content_weights_backward(c, shape, d.weights, d.word_scale);
    read_vectors(memory, d.weights, 1, shape, d.sums);
    for (i64 j = 0; j < size; j += LANES) { /* sum_n c[n] M[n]^2 */
        vec total = all(0);
        for (i64 n = 0; n < shape.locations; n++) {
            vec word = load(memory + n * size + j);
            total = fma_(all(d.word_scale[n]) * word, word, total);
        }
        store(d.squares + j, total);
    }
    masked_words_backward(memory, shape, k, d);
    for (i64 j = 0; j < size; j += LANES) {
        vec x = load(k.key + j), m = load(k.mask + j), s = load(d.sums + j), own = all(of.key_scale) * x;
        store(d.key + j, m * m * (s + own));
        store(d.mask + j, m * (x * (s + s + own) + load(d.squares + j)));
    }
    return of.strength;
}

/* ---- Writing ---- */

/* The write heads of a step. weights: [count][width]; erase, add: [count][size]; retention: psi, [width], or none
 * for 1. */
typedef struct {
    i64 count;
    const real *weights, *erase, *add, *retention;
} write_heads;

/* Their gradients, to which is added, of the same shapes. */
typedef struct {
    real *weights, *erase, *add, *retention;
} write_gradients;

/* M[n] = psi[n] M[n] prod_v (1 - w_v[n] e_v) + sum_v w_v[n] a_v for eight words from n on, from `memory` to `to`. */
INLINE void write_eight_by(const real *memory, real *to, i64 n, memory_shape shape, write_heads by) {
    i64 width = shape.width, size = shape.size;
    for (i64 m = n; m < n + LANES; m++)
        for (i64 k = 0; k < size; k += LANES) {
            vec kept = all(by.retention ? by.retention[m] : 1), added = all(0);
            for (i64 v = 0; v < by.count; v++) {
                vec w = all(by.weights[v * width + m]);
                kept *= fma_(-w, load(by.erase + v * size + k), all(1));
                added = fma_(w, load(by.add + v * size + k), added);
            }
            store(to + m * size + k, fma_(load(memory + m * size + k), kept, added));
        }
}

/* The one head of most models is compiled separately, without loops over heads. */
INLINE i64 is_one_head(write_heads by) { return by.count == 1 && !by.retention; }
INLINE write_heads one_head(write_heads by) { return (write_heads){1, by.weights, by.erase, by.add, 0}; }

INLINE void write_eight(const real *memory, real *to, i64 n, memory_shape shape, write_heads by) {
    if (is_one_head(by)) write_eight_by(memory, to, n, shape, one_head(by));
    else write_eight_by(memory, to, n, shape, by);
}

/* prod_v (1 - w_v[n] e_v) of all heads but one, for entries k and on of a word. */
INLINE vec kept_by_others(write_heads by, i64 head, memory_shape shape, i64 n, i64 k) {
    vec kept = all(1);
    for (i64 v = 0; v < by.count; v++)
        if (v != head) kept *= fma_(-all(by.weights[v * shape.width + n]), load(by.erase + v * shape.size + k), all(1));
    return kept;
}

/* The gradients of head v's weights, erase and add vectors, for eight words from n on. With one head, also those of the
 * memory before, in place. */
INLINE void write_head_backward(const real *memory, memory_shape shape, write_heads by, real *d_memory,
                                write_gradients d, i64 v, i64 n) {
    i64 width = shape.width, size = shape.size;
    vec total[LANES];
#pragma clang loop unroll(full)
    for (i64 m = 0; m < LANES; m++) total[m] = all(0);
    for (i64 k = 0; k < size; k += LANES) {
        real *d_e = d.erase + v * size + k, *d_a = d.add + v * size + k;
        vec e = load(by.erase + v * size + k), a = load(by.add + v * size + k), of_e = load(d_e), of_a = load(d_a);
#pragma clang loop unroll(full)
        for (i64 m = 0; m < LANES; m++) {
            real *at = d_memory + (n + m) * size + k;
            vec w = all(by.weights[v * width + n + m]), dm = load(at);
            vec d_lost = -dm * load(memory + (n + m) * size + k);
            if (by.retention) d_lost *= all(by.retention[n + m]);
            if (by.count > 1) d_lost *= kept_by_others(by, v, shape, n + m, k);
            total[m] = fma_(dm, a, fma_(d_lost, e, total[m]));
            of_e = fma_(d_lost, w, of_e), of_a = fma_(dm, w, of_a);
            if (by.count == 1 && !by.retention) store(at, dm * fma_(-w, e, all(1)));
        }
        store(d_e, of_e), store(d_a, of_a);
    }
    store(d.weights + v * width + n, load(d.weights + v * width + n) + sums(total));
}

/* The gradients of the memory before, in place, and of psi, for eight words from n on. */
INLINE void written_words_backward(const real *memory, memory_shape shape, write_heads by, real *d_memory,
                                   real *d_retention, i64 n) {
    i64 size = shape.size;
    vec total[LANES];
#pragma clang loop unroll(full)
    for (i64 m = 0; m < LANES; m++) total[m] = all(0);
    for (i64 k = 0; k < size; k += LANES)
#pragma clang loop unroll(full)
        for (i64 m = 0; m < LANES; m++) {
            real *at = d_memory + (n + m) * size + k;
            vec dm = load(at) * kept_by_others(by, -1, shape, n + m, k);
            if (by.retention) {
                total[m] = fma_(dm, load(memory + (n + m) * size + k), total[m]);
                dm *= all(by.retention[n + m]);
            }
            store(at, dm);
        }
    if (by.retention) store(d_retention + n, load(d_retention + n) + sums(total));
}

INLINE void write_backward_by(const real *memory, memory_shape shape, write_heads by, real *d_memory,
                              write_gradients d) {
    for (i64 n = 0; n < shape.width; n += LANES) {
        for (i64 v = 0; v < by.count; v++) write_head_backward(memory, shape, by, d_memory, d, v, n);
        if (!is_one_head(by)) written_words_backward(memory, shape, by, d_memory, d.retention, n);
    }
}

/* From the gradient of a memory that was written to that of the memory before, in its place. memory: the one before. */
static void write_backward(const real *memory, memory_shape shape, write_heads by, real *d_memory, write_gradients d) {
    if (is_one_head(by)) write_backward_by(memory, shape, one_head(by), d_memory, d);
    else write_backward_by(memory, shape, by, d_memory, d);
}

#endif
