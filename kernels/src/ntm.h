/* The memory's part of an NTM's step, models/ntm.py, for one session; and its gradients. */

#ifndef ENGRAM_NTM_H
#define ENGRAM_NTM_H

#include "model.h"

/* What a step finds on its way and its gradients need again. Of several turns, each has its own memory to address. */
typedef struct {
    real *words;        /* [turns][row]: measures of words */
    real *memories;     /* [turns - 1][row][size]: the memory after each turn but the last */
    real *similarities; /* [heads][row] */
    real *content;      /* [heads][row] */
} ntm_work;

INLINE i64 ntm_turns(const model *m) { return m->order == IN_TURN ? m->reads : 1; }
INLINE i64 ntm_wide(const model *m) { return row_of(m->slots) + padded(m->shift_width) + WIDE; }

static ntm_work lay_ntm(const model *m, room *from) {
    i64 row = row_of(m->slots), heads = m->reads + m->writes, turns = ntm_turns(m);
    ntm_work w;
    w.words = take(from, turns * row);
    w.memories = take(from, (turns - 1) * row * padded(m->word));
    w.similarities = take(from, heads * row), w.content = take(from, heads * row);
    return w;
}

/* Return where the memory lies that a turn addresses: that before the step, or what the turn before left. */
INLINE const real *ntm_addressed(const model *m, const real *memory, ntm_work w, i64 turn) {
    return turn ? w.memories + (turn - 1) * row_of(m->slots) * padded(m->word) : memory;
}

INLINE i64 writes_size(const model *m) { return m->writes * padded(m->word); }

/* ---- Styles ---- */

INLINE vec between(vec x, real low, real high) { return min_(max_(x, all(low)), all(high)); }

INLINE vec ntm_vector(i64 style, vec x) { /* keys and add vectors */
    return style == PAPER ? tanh_(x) : style == NTM_LASAGNE ? between(x, 0, 1) : x;
}
INLINE vec ntm_vector_backward(i64 style, vec x, vec y, vec dy) {
    if (style == PAPER) return dy * (all(1) - y * y);
    return style == NTM_LASAGNE ? choose((x >= all(0)) & (x <= all(1)), dy, all(0)) : dy;
}
INLINE vec ntm_positive(i64 style, vec x) { return style == NTM_LASAGNE ? max_(x, all(0)) : softplus_(x); }
INLINE vec ntm_positive_backward(i64 style, vec x, vec dy) {
    return style == NTM_LASAGNE ? choose(x > all(0), dy, all(0)) : dy * sigmoid_(x);
}
INLINE vec ntm_gate(i64 style, vec x) {
    return style == NTM_LASAGNE ? between(all((real)0.2) * x + all((real)0.5), 0, 1) : sigmoid_(x);
}
INLINE vec ntm_gate_backward(i64 style, vec x, vec y, vec dy) {
    vec inside = all((real)0.2) * x + all((real)0.5);
    if (style == NTM_LASAGNE) return choose((inside >= all(0)) & (inside <= all(1)), dy * all((real)0.2), all(0));
    return dy * y * (all(1) - y);
}
INLINE i64 ntm_similarity(i64 style) {
    return style == PAPER ? COSINE : style == PYTORCH_NTM ? TIGHT_COSINE : JOINT_COSINE;
}

/* What is taken the logarithm of when a weighting is sharpened. */
INLINE wide_vec ntm_above_zero(i64 style, wide_vec w) {
    if (style == NTM_LASAGNE) return w + all_wide(EPSILON);
    return max_(w, all_wide(style == PAPER ? (real)1e-8 : (real)1e-30));
}

/* From the interface vector to what the heads use. The strengths, gates and sharpening of the heads follow each other.
 */
static void ntm_controls(const model *m, real *z) {
    i64 size = padded(m->word), heads = m->reads + m->writes, width = m->shift_width, style = m->style;
    real *keys = z + m->read_keys, *add = z + m->add, *erase = z + m->erase;
    for (i64 k = 0; k < heads * size; k += LANES) store(keys + k, ntm_vector(style, load(keys + k)));
    for (i64 k = 0; k < writes_size(m); k += LANES) {
        store(erase + k, ntm_gate(style, load(erase + k)));
        store(add + k, ntm_vector(style, load(add + k)));
    }
    for (i64 k = 0; m->signed_heads && k < heads * size; k += LANES)
        store(keys + k, load(keys + k) * between(load(z + m->key_signs + k), -1, 1));
    for (i64 k = 0; m->signed_heads && k < writes_size(m); k += LANES)
        store(add + k, load(add + k) * between(load(z + m->add_signs + k), -1, 1));
    real *strengths = z + m->strengths, *gates = strengths + padded(heads), *sharpening = gates + padded(heads);
    for (i64 k = 0; k < padded(heads); k += LANES) {
        store(strengths + k, ntm_positive(style, load(strengths + k)));
        store(gates + k, ntm_gate(style, load(gates + k)));
        store(sharpening + k, all(1) + ntm_positive(style, load(sharpening + k)));
    }
    for (i64 h = 0; h < heads; h++) softmax_(z + m->shifts + h * padded(width), width, padded(width));
}

/* Vectors that are multiplied by signs in [-1, 1], backwards. x, sign: before their activation. */
INLINE void signed_backward(i64 style, const real *x, const real *sign, real *d, real *d_sign, i64 size) {
    for (i64 k = 0; k < size; k += LANES) {
        vec s = load(sign + k), before = load(x + k), y = ntm_vector(style, before), dy = load(d + k);
        store(d_sign + k, choose((s >= all(-1)) & (s <= all(1)), dy * y, all(0)));
        store(d + k, ntm_vector_backward(style, before, y, dy * between(s, -1, 1)));
    }
}

/* The same backwards. z: as the heads used it; raw: as it was; d: the gradient of the one, and then of the other. */
static void ntm_controls_backward(const model *m, const real *z, const real *raw, real *d) {
    i64 size = padded(m->word), heads = m->reads + m->writes, width = padded(m->shift_width), style = m->style;
#define BACK(start, size_, expression)                                                                                 \
    for (i64 k = (start); k < (start) + (size_); k += LANES) {                                                         \
        vec x = load(raw + k), y = load(z + k), dy = load(d + k);                                                      \
        (void)y, store(d + k, expression);                                                                             \
    }
    if (m->signed_heads) {
        signed_backward(style, raw + m->read_keys, raw + m->key_signs, d + m->read_keys, d + m->key_signs,
                        heads * size);
        signed_backward(style, raw + m->add, raw + m->add_signs, d + m->add, d + m->add_signs, writes_size(m));
    } else {
        BACK(m->read_keys, heads * size, ntm_vector_backward(style, x, y, dy))
        BACK(m->add, writes_size(m), ntm_vector_backward(style, x, y, dy))
    }
    BACK(m->erase, writes_size(m), ntm_gate_backward(style, x, y, dy))
    BACK(m->strengths, padded(heads), ntm_positive_backward(style, x, dy))
    BACK(m->strengths + padded(heads), padded(heads), ntm_gate_backward(style, x, y, dy))
    BACK(m->strengths + 2 * padded(heads), padded(heads), ntm_positive_backward(style, x, dy))
#undef BACK
    for (i64 h = 0; h < heads; h++) softmax_backward_(z + m->shifts + h * width, d + m->shifts + h * width, width);
}

/* ---- Addressing relative to the weighting before ---- */

/* w_g = g w_c + (1 - g) w, then w[i] = sum_j w_g[i - j] s[j]. gated: [wide], left with w_g from entry `half` on, and
 * around it with what comes round, or nothing. */
static void move(const model *m, const real *content, const real *previous, real gate, const real *shifts, real *gated,
                 real *out) {
    i64 slots = m->slots, width = m->shift_width, half = width / 2;
    for (i64 n = 0; n < row_of(slots); n += WIDE) {
        wide_vec before = load_wide(previous + n), by_content = load_wide(content + n);
        store_wide(gated + half + n, fma_(all_wide(gate), by_content - before, before));
    }
    for (i64 k = 0; k < half; k++) {
        gated[half - 1 - k] = m->style == NTM_LASAGNE ? 0 : gated[half + slots - 1 - k % slots];
        gated[half + slots + k] = m->style == NTM_LASAGNE ? 0 : gated[half + k % slots];
    }
    for (i64 k = slots + 2 * half; k < ntm_wide(m); k++) gated[k] = 0;
    for (i64 n = 0; n < row_of(slots); n += WIDE) {
        wide_vec moved = all_wide(0);
        for (i64 k = 0; k < width; k++) moved = fma_(all_wide(shifts[k]), load_wide(gated + n + width - 1 - k), moved);
        store_wide(out + n, moved);
    }
    for (i64 n = slots; n < row_of(slots); n++) out[n] = 0;
}

/* d_moved: [row], zero beyond the slots; d_gated: [wide], of w_g from entry `half` on. */
static void shift_backward(const model *m, const real *shifts, const real *gated, const real *d_moved, real *d_gated,
                           real *d_shifts) {
    i64 slots = m->slots, width = m->shift_width, half = width / 2;
    memset(d_gated, 0, ntm_wide(m) * sizeof(real));
    for (i64 k = 0; k < width; k++) {
        wide_vec total = all_wide(0), share = all_wide(shifts[k]);
        const real *from = gated + width - 1 - k;
        real *d = d_gated + width - 1 - k;
        for (i64 n = 0; n < row_of(slots); n += WIDE) {
            total = fma_(load_wide(d_moved + n), load_wide(from + n), total);
            store_wide(d + n, fma_(share, load_wide(d_moved + n), load_wide(d + n)));
        }
        d_shifts[k] = sum_wide(total);
    }
    for (i64 k = 0; m->style != NTM_LASAGNE && k < half; k++) {
        d_gated[half + slots - 1 - k % slots] += d_gated[half - 1 - k];
        d_gated[half + k % slots] += d_gated[half + slots + k];
    }
}

/* w^gamma / sum w^gamma, in the sense of the style. */
static void sharpen(const model *m, const real *weights, real sharpening, real *out) {
    i64 row = row_of(m->slots), slots = m->slots;
    wide_vec gamma = all_wide(sharpening);
    for (i64 n = 0; n < row; n += WIDE)
        store_wide(out + n, gamma * log_wide(ntm_above_zero(m->style, load_wide(weights + n))));
    if (m->style != PYTORCH_NTM) {
        softmax_wide(out, slots, row);
        return;
    }
    for (i64 n = slots; n < row; n++) out[n] = (real)-1e30; /* e^x / (sum e^x + 1e-16) */
    wide_vec top = all_wide((real)-36.841361487904734), total = all_wide(0);
    real below = top[0];
    for (i64 n = 0; n < row; n += WIDE) top = max_(top, load_wide(out + n));
    top = all_wide(largest(top));
    for (i64 n = 0; n < row; n += WIDE) {
        wide_vec e =
            choose(load_wide(out + n) > all_wide((real)-1e29), exp_wide(load_wide(out + n) - top), all_wide(0));
        total += e, store_wide(out + n, e);
    }
    wide_vec scale = all_wide(1 / (sum_wide(total) + exp_wide(all_wide(below) - top)[0]));
    for (i64 n = 0; n < row; n += WIDE) store_wide(out + n, load_wide(out + n) * scale);
}

/* d: of the sharpened weights, and then of the weights. Returns the gradient of the sharpening. */
static real sharpen_backward(const model *m, const real *weights, const real *out, real sharpening, real *d) {
    i64 row = row_of(m->slots), style = m->style;
    real least = style == PAPER ? (real)1e-8 : (real)1e-30;
    wide_vec gamma = all_wide(sharpening), d_gamma = all_wide(0);
    /* What a weighting that sums to less than 1 misses has no gradient of its own. */
    softmax_backward_wide(out, d, row);
    for (i64 n = 0; n < row; n += WIDE) {
        wide_vec w = load_wide(weights + n), above = ntm_above_zero(style, w), d_log = load_wide(d + n);
        d_gamma = fma_(d_log, log_wide(above), d_gamma);
        wide_vec d_w = d_log * gamma / above;
        store_wide(d + n, style == NTM_LASAGNE ? d_w : choose(w >= all_wide(least), d_w, all_wide(0)));
    }
    return sum_wide(d_gamma);
}

/* ---- A step ---- */

INLINE real *weighting_of(const model *m, const states *s, i64 slot, i64 head) {
    i64 row = row_of(m->slots);
    if (head < m->reads) return read_weights_of(m, s, slot) + head * row;
    return write_weights_of(m, s, slot) + (head - m->reads) * row;
}

/* Find one head's weighting: by content, then relative to the previous one. memory: what it addresses. */
static void address(const model *m, const states *s, i64 from, i64 to, i64 head, const real *memory, const real *words,
                    const real *z, ntm_work w, room spare) {
    i64 slots = m->slots, row = row_of(slots), size = padded(m->word), heads = padded(m->reads + m->writes);
    i64 similarity = ntm_similarity(m->style);
    const real *key = z + m->read_keys + head * size, *strengths = z + m->strengths, *gates = strengths + heads;
    real *content = w.content + head * row, *similarities = w.similarities + head * row;
    real *gated = take(&spare, ntm_wide(m)), *moved = take(&spare, row);
    products(memory, row, size, key, similarities);
    content_weights(similarity, similarities, words, measure_of(similarity, key, size), strengths[head], slots,
                    content);
    move(m, content, weighting_of(m, s, from, head), gates[head], z + m->shifts + head * padded(m->shift_width), gated,
         moved);
    sharpen(m, moved, gates[heads + head], weighting_of(m, s, to, head));
}

/* z: the interface as the heads use it. from, to: slots of the states before and after, which may be the same. spare:
 * a weighting before and after it is moved. */
static void ntm_row(const model *m, const states *s, i64 from, i64 to, real *z, ntm_work w, room spare) {
    i64 slots = m->slots, row = row_of(slots), size = padded(m->word), turns = ntm_turns(m);
    i64 reads = m->reads / turns, writes = m->writes / turns;
    for (i64 turn = 0; turn < turns; turn++) {
        const real *memory = ntm_addressed(m, memory_of(m, s, from), w, turn);
        real *next = turn + 1 < turns ? (real *)ntm_addressed(m, 0, w, turn + 1) : memory_of(m, s, to);
        real *words = w.words + turn * row;

        /* Address, read, write */
        measures(memory, row, size, ntm_similarity(m->style), words);
        for (i64 k = 0; k < reads; k++) address(m, s, from, to, turn * reads + k, memory, words, z, w, spare);
        for (i64 k = 0; k < writes; k++)
            address(m, s, from, to, m->reads + turn * writes + k, memory, words, z, w, spare);
        read_vectors(memory, read_weights_of(m, s, to) + turn * reads * row, reads, row, size,
                     read_vectors_of(m, s, to) + turn * reads * size);
        const real *weights = write_weights_of(m, s, to) + turn * writes * row;
        const real *erase = z + m->erase + turn * writes * size, *add = z + m->add + turn * writes * size;
        for (i64 n = 0; n < row; n += LANES) write_eight(memory, next, n, weights, erase, add, writes, row, size, 0);
    }
}

/* Numbers that the gradients of a row need while they are found. */
static i64 ntm_row_spare(const model *m) { return (m->reads + m->writes + 2) * row_of(m->slots) + 2 * ntm_wide(m); }

/* The gradients of one head's weighting, which lie in `d_weights`: [row]. They become those of the products.
 * d_previous: [row], replaced by those of the weighting before. */
static void address_backward(const model *m, const states *s, i64 from, i64 to, i64 head, const real *memory,
                             const real *words, const real *z, ntm_work w, real *d_weights, real *d_previous,
                             real *d_words, real *d, room spare) {
    i64 slots = m->slots, row = row_of(slots), size = padded(m->word), heads = padded(m->reads + m->writes);
    i64 similarity = ntm_similarity(m->style), half = m->shift_width / 2;
    const real *key = z + m->read_keys + head * size, *strengths = z + m->strengths, *gates = strengths + heads;
    real *d_strengths = d + m->strengths, *d_gates = d_strengths + heads, *d_key = d + m->read_keys + head * size;
    const real *content = w.content + head * row, *previous = weighting_of(m, s, from, head);
    real *gated = take(&spare, ntm_wide(m)), *moved = take(&spare, row), *d_gated = take(&spare, ntm_wide(m));
    i64 at = head * padded(m->shift_width);
    move(m, content, previous, gates[head], z + m->shifts + at, gated, moved);
    d_gates[heads + head] = sharpen_backward(m, moved, weighting_of(m, s, to, head), gates[heads + head], d_weights);
    shift_backward(m, z + m->shifts + at, gated, d_weights, d_gated, d + m->shifts + at);
    wide_vec d_gate = all_wide(0), gate = all_wide(gates[head]);
    for (i64 n = slots; n < row; n++) d_gated[half + n] = 0;
    for (i64 n = 0; n < row; n += WIDE) {
        wide_vec dg = load_wide(d_gated + half + n);
        d_gate = fma_(dg, load_wide(content + n) - load_wide(previous + n), d_gate);
        store_wide(d_previous + n, dg - gate * dg), store_wide(d_weights + n, gate * dg);
    }
    d_gates[head] = sum_wide(d_gate);
    content_gradient of =
        content_weights_backward(similarity, content, w.similarities + head * row, words,
                                 measure_of(similarity, key, size), strengths[head], slots, d_weights, d_words);
    d_strengths[head] = of.strength;
    key_backward(memory, d_weights, row, size, key, of.key, d_key);
}

/* The gradients of a step. g: those of the state, for the slot `own` of their arena, from after the step to before it.
 * z, raw: the interface as the heads used it, and as it was; d: its gradient, zeros when it comes. */
static void ntm_row_backward(const model *m, const states *s, const states *g, i64 from, i64 to, i64 own, const real *z,
                             const real *raw, ntm_work w, real *d, real *spare) {
    i64 slots = m->slots, row = row_of(slots), size = padded(m->word), turns = ntm_turns(m);
    i64 reads = m->reads / turns, writes = m->writes / turns;
    real *d_memory = memory_of(m, g, own), *d_vectors = read_vectors_of(m, g, own);
    room left = {spare, 0};
    real *d_words = take(&left, row), *d_weights = take(&left, (m->reads + m->writes) * row);
    for (i64 turn = turns - 1; turn >= 0; turn--) {
        const real *memory = ntm_addressed(m, memory_of(m, s, from), w, turn), *words = w.words + turn * row;
        const real *written = write_weights_of(m, s, to) + turn * writes * row;
        real *d_read = read_weights_of(m, g, own), *d_write = write_weights_of(m, g, own) + turn * writes * row;
        i64 at = turn * writes * size;
        outers terms = {0};

        write_backward(memory, written, z + m->erase + at, z + m->add + at, writes, row, size, 0, d_memory, d_write,
                       d + m->erase + at, d + m->add + at, 0);
        memset(d_words, 0, row * sizeof(real));
        for (i64 k = 0; k < reads + writes; k++) {
            i64 head = k < reads ? turn * reads + k : m->reads + turn * writes + k - reads;
            real *d_w = d_weights + head * row, *d_own = k < reads ? d_read + head * row : d_write + (k - reads) * row;
            const real *key = z + m->read_keys + head * size, *d_vector = d_vectors + head * size;
            memcpy(d_w, d_own, row * sizeof(real));
            for (i64 n = 0; k < reads && n < row; n += LANES)
                store(d_w + n, load(d_w + n) + products_of_eight(memory + n * size, size, d_vector, 0));
            address_backward(m, s, from, to, head, memory, words, z, w, d_w, d_own, d_words, d, left);
            add_outer(d_memory, row, size, &terms, d_w, key);
            if (k < reads) add_outer(d_memory, row, size, &terms, weighting_of(m, s, to, head), d_vector);
        }
        add_outers(d_memory, row, size, &terms, d_words, memory);
    }
    memset(d_vectors, 0, m->reads * size * sizeof(real));
    ntm_controls_backward(m, z, raw, d);
}

/* ---- A step whose heads act before the controller ---- */

/* Write and read with the weightings of the step before. z: the interface as the heads use it, of the step before. */
static void ntm_act(const model *m, const states *s, i64 from, i64 to, const real *z) {
    i64 row = row_of(m->slots), size = padded(m->word);
    const real *memory = memory_of(m, s, from), *weights = write_weights_of(m, s, from);
    real *next = memory_of(m, s, to);
    for (i64 n = 0; n < row; n += LANES)
        write_eight(memory, next, n, weights, z + m->erase, z + m->add, m->writes, row, size, 0);
    read_vectors(next, read_weights_of(m, s, from), m->reads, row, size, read_vectors_of(m, s, to));
}

/* g: the gradients of the state, for the slot `own` of their arena; of the weightings, those of the step before. z,
 * raw: the interface of the step before as the heads used it, and as it was; d: its gradient, zeros when it comes. */
static void ntm_act_backward(const model *m, const states *s, const states *g, i64 from, i64 to, i64 own, const real *z,
                             const real *raw, real *d) {
    i64 row = row_of(m->slots), size = padded(m->word);
    const real *next = memory_of(m, s, to), *weights = read_weights_of(m, s, from);
    real *d_memory = memory_of(m, g, own), *d_vectors = read_vectors_of(m, g, own);
    outers terms = {0};
    for (i64 r = 0; r < m->reads; r++) {
        real *d_w = read_weights_of(m, g, own) + r * row;
        const real *d_vector = d_vectors + r * size;
        for (i64 n = 0; n < row; n += LANES)
            store(d_w + n, load(d_w + n) + products_of_eight(next + n * size, size, d_vector, 0));
        add_outer(d_memory, row, size, &terms, weights + r * row, d_vector);
    }
    add_outers(d_memory, row, size, &terms, 0, 0);
    write_backward(memory_of(m, s, from), write_weights_of(m, s, from), z + m->erase, z + m->add, m->writes, row, size,
                   0, d_memory, write_weights_of(m, g, own), d + m->erase, d + m->add, 0);
    memset(d_vectors, 0, read_size(m) * sizeof(real));
    ntm_controls_backward(m, z, raw, d);
}

/* Find the weightings with which the next step writes and reads. */
static void ntm_aim(const model *m, const states *s, i64 from, i64 to, const real *z, ntm_work w, room spare) {
    const real *memory = memory_of(m, s, to);
    measures(memory, row_of(m->slots), padded(m->word), ntm_similarity(m->style), w.words);
    for (i64 head = 0; head < m->reads + m->writes; head++) address(m, s, from, to, head, memory, w.words, z, w, spare);
}

/* g: the gradients of the state, for the slot `own` of their arena; of the weightings, from after the step to before
 * it. z, raw, d: as for ntm_row_backward. */
static void ntm_aim_backward(const model *m, const states *s, const states *g, i64 from, i64 to, i64 own, const real *z,
                             const real *raw, ntm_work w, real *d, real *spare) {
    i64 row = row_of(m->slots), size = padded(m->word), heads = m->reads + m->writes;
    const real *memory = memory_of(m, s, to);
    real *d_memory = memory_of(m, g, own);
    room left = {spare, 0};
    real *d_words = take(&left, row), *d_weights = take(&left, heads * row);
    outers terms = {0};
    memset(d_words, 0, row * sizeof(real));
    for (i64 head = 0; head < heads; head++) {
        real *d_w = d_weights + head * row, *d_own = weighting_of(m, g, own, head);
        memcpy(d_w, d_own, row * sizeof(real));
        address_backward(m, s, from, to, head, memory, w.words, z, w, d_w, d_own, d_words, d, left);
        add_outer(d_memory, row, size, &terms, d_w, z + m->read_keys + head * size);
    }
    add_outers(d_memory, row, size, &terms, d_words, memory);
    ntm_controls_backward(m, z, raw, d);
}

#endif
