/* The memory's part of an NTM's step, models/ntm.py, for one row; and its gradients. */

#ifndef ENGRAM_NTM_H
#define ENGRAM_NTM_H

#include "model.h"

/* In the order IN_TURN, heads address the memory in turns: a read head, and write heads that change it for the next. */
INLINE i64 ntm_turns(const model *m) { return m->order == IN_TURN ? m->read_heads : 1; }

/* Numbers of a weighting with room for shifts on both sides. */
INLINE i64 gated_width(const model *m) { return padded_wide(m->memory_size) + padded(m->shift_width) + WIDE; }

INLINE i64 writes_size(const model *m) { return m->write_heads * padded(m->word_size); }

/* The activations of a step that its gradients need. */
typedef struct {
    real *norms;        /* of words, [turns][width] */
    real *memories;     /* the memory after each turn but the last, [turns - 1][width][size] */
    real *similarities; /* [heads][width] */
    real *content;      /* [heads][width] */
} ntm_workspace;

static ntm_workspace allocate_ntm_workspace(const model *m, allocator *from) {
    memory_shape shape = shape_of(m);
    i64 heads = m->read_heads + m->write_heads, turns = ntm_turns(m);
    ntm_workspace w;
    w.norms = allocate(from, turns * shape.width);
    w.memories = allocate(from, (turns - 1) * shape.width * shape.size);
    w.similarities = allocate(from, heads * shape.width), w.content = allocate(from, heads * shape.width);
    return w;
}

/* A weighting while it is moved. gated: [gated width], as in shift_weights; moved: [width]. */
typedef struct {
    real *gated, *moved;
} ntm_scratch;

static ntm_scratch allocate_ntm_scratch(const model *m, allocator *from) {
    ntm_scratch scratch;
    scratch.gated = allocate(from, gated_width(m)), scratch.moved = allocate(from, padded_wide(m->memory_size));
    return scratch;
}

/* Scratch of a step's gradients. weights: of the weightings after the step, [heads][width]; word_scale: [width], as in
 * content_weights_backward; d_gated: [gated width]; moving: a weighting, moved again. */
typedef struct {
    real *word_scale, *weights, *d_gated;
    ntm_scratch moving;
} ntm_gradients;

static ntm_gradients allocate_ntm_gradients(const model *m, allocator *from) {
    i64 width = padded_wide(m->memory_size);
    ntm_gradients g;
    g.word_scale = allocate(from, width);
    g.weights = allocate(from, (m->read_heads + m->write_heads) * width);
    g.d_gated = allocate(from, gated_width(m));
    g.moving = allocate_ntm_scratch(m, from);
    return g;
}

/* ---- Styles ---- */

INLINE vec clamp(vec x, real low, real high) { return min_(max_(x, all(low)), all(high)); }

INLINE vec ntm_vector(i64 style, vec x) { /* keys and add vectors */
    return style == PAPER ? tanh_(x) : style == NTM_LASAGNE ? clamp(x, 0, 1) : x;
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
    return style == NTM_LASAGNE ? clamp(all((real)0.2) * x + all((real)0.5), 0, 1) : sigmoid_(x);
}
INLINE vec ntm_gate_backward(i64 style, vec x, vec y, vec dy) {
    vec inside = all((real)0.2) * x + all((real)0.5);
    if (style == NTM_LASAGNE) return choose((inside >= all(0)) & (inside <= all(1)), dy * all((real)0.2), all(0));
    return dy * y * (all(1) - y);
}
INLINE i64 ntm_similarity(i64 style) {
    return style == PAPER ? COSINE : style == PYTORCH_NTM ? TIGHT_COSINE : JOINT_COSINE;
}

/* A weighting as its logarithm is taken to sharpen it: above zero. */
INLINE real ntm_least(i64 style) { return style == PAPER ? (real)1e-8 : (real)1e-30; }
INLINE wide_vec ntm_above_zero(i64 style, wide_vec w) {
    if (style == NTM_LASAGNE) return w + all_wide(EPSILON);
    return max_(w, all_wide(ntm_least(style)));
}

/* ---- The interface ---- */

/* Strength, interpolation gate and sharpening of each head in an interface, or their gradients: [heads] each, one array
 * behind the other. */
typedef struct {
    real *strengths, *gates, *sharpening;
} ntm_scalars;

INLINE ntm_scalars scalars_in(const model *m, real *controls) {
    i64 heads = padded(m->read_heads + m->write_heads);
    real *strengths = controls + m->strengths;
    return (ntm_scalars){strengths, strengths + heads, strengths + 2 * heads};
}

/* Activate the interface, in place. */
static void ntm_controls(const model *m, real *z) {
    i64 size = padded(m->word_size), heads = m->read_heads + m->write_heads, shift = m->shift_width, style = m->style;
    real *keys = z + m->read_keys, *add = z + m->add, *erase = z + m->erase;
    for (i64 k = 0; k < heads * size; k += LANES) store(keys + k, ntm_vector(style, load(keys + k)));
    for (i64 k = 0; k < writes_size(m); k += LANES) {
        store(erase + k, ntm_gate(style, load(erase + k)));
        store(add + k, ntm_vector(style, load(add + k)));
    }
    for (i64 k = 0; m->signed_heads && k < heads * size; k += LANES)
        store(keys + k, load(keys + k) * clamp(load(z + m->key_signs + k), -1, 1));
    for (i64 k = 0; m->signed_heads && k < writes_size(m); k += LANES)
        store(add + k, load(add + k) * clamp(load(z + m->add_signs + k), -1, 1));
    ntm_scalars of = scalars_in(m, z);
    for (i64 k = 0; k < padded(heads); k += LANES) {
        store(of.strengths + k, ntm_positive(style, load(of.strengths + k)));
        store(of.gates + k, ntm_gate(style, load(of.gates + k)));
        store(of.sharpening + k, all(1) + ntm_positive(style, load(of.sharpening + k)));
    }
    for (i64 h = 0; h < heads; h++) softmax_(z + m->shifts + h * padded(shift), shift, padded(shift));
    force_gates(m, z);
}

/* Gradients of vectors that are multiplied by signs in [-1, 1]. x, sign: before their activation, [size]; d: of the
 * product, replaced by that of x. */
INLINE void signed_backward(i64 style, const real *x, const real *sign, real *d, real *d_sign, i64 size) {
    for (i64 k = 0; k < size; k += LANES) {
        vec s = load(sign + k), before = load(x + k), y = ntm_vector(style, before), dy = load(d + k);
        store(d_sign + k, choose((s >= all(-1)) & (s <= all(1)), dy * y, all(0)));
        store(d + k, ntm_vector_backward(style, before, y, dy * clamp(s, -1, 1)));
    }
}

/* From the gradient of the activated interface z to that of the raw one, in place of d. */
static void ntm_controls_backward(const model *m, const real *z, const real *raw, real *d) {
    i64 size = padded(m->word_size), heads = m->read_heads + m->write_heads, style = m->style;
    i64 shift = padded(m->shift_width);
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
    for (i64 h = 0; h < heads; h++) softmax_backward_(z + m->shifts + h * shift, d + m->shifts + h * shift, shift);
}

/* ---- Addressing relative to the weighting before ---- */

/* w_g = g w_c + (1 - g) w, then out[i] = sum_j w_g[i - j] s[j]. content, previous, out: [width]; shifts: [shift width];
 * gated: [gated width], left with w_g from entry `half` on, and around it with its other end, or zeros. */
static void shift_weights(const model *m, const real *content, const real *previous, real gate, const real *shifts,
                          real *gated, real *out) {
    i64 locations = m->memory_size, width = padded_wide(locations), shift = m->shift_width, half = shift / 2;
    for (i64 n = 0; n < width; n += WIDE) {
        wide_vec before = load_wide(previous + n), by_content = load_wide(content + n);
        store_wide(gated + half + n, fma_(all_wide(gate), by_content - before, before));
    }
    for (i64 k = 0; k < half; k++) {
        gated[half - 1 - k] = m->style == NTM_LASAGNE ? 0 : gated[half + locations - 1 - k % locations];
        gated[half + locations + k] = m->style == NTM_LASAGNE ? 0 : gated[half + k % locations];
    }
    for (i64 k = locations + 2 * half; k < gated_width(m); k++) gated[k] = 0;
    for (i64 n = 0; n < width; n += WIDE) {
        wide_vec moved = all_wide(0);
        for (i64 k = 0; k < shift; k++) moved = fma_(all_wide(shifts[k]), load_wide(gated + n + shift - 1 - k), moved);
        store_wide(out + n, moved);
    }
    for (i64 n = locations; n < width; n++) out[n] = 0;
}

/* d_moved: [width], zero beyond the locations; d_gated: [gated width], set to the gradient of w_g from entry `half` on;
 * d_shifts: [shift width], which is set. */
static void shift_backward(const model *m, const real *shifts, const real *gated, const real *d_moved, real *d_gated,
                           real *d_shifts) {
    i64 locations = m->memory_size, width = padded_wide(locations), shift = m->shift_width, half = shift / 2;
    clear(d_gated, gated_width(m));
    for (i64 k = 0; k < shift; k++) {
        wide_vec total = all_wide(0), by = all_wide(shifts[k]);
        const real *from = gated + shift - 1 - k;
        real *d = d_gated + shift - 1 - k;
        for (i64 n = 0; n < width; n += WIDE) {
            total = fma_(load_wide(d_moved + n), load_wide(from + n), total);
            store_wide(d + n, fma_(by, load_wide(d_moved + n), load_wide(d + n)));
        }
        d_shifts[k] = sum_wide(total);
    }
    for (i64 k = 0; m->style != NTM_LASAGNE && k < half; k++) {
        d_gated[half + locations - 1 - k % locations] += d_gated[half - 1 - k];
        d_gated[half + k % locations] += d_gated[half + locations + k];
    }
}

/* w_g = g w_c + (1 - g) w: from d_gated to the gradients of the content, d_content, and of the weighting before,
 * d_previous: [width]. Returns the gradient of the gate. */
static real gate_backward(const model *m, const real *content, const real *previous, real gate_, real *d_gated,
                          real *d_content, real *d_previous) {
    i64 locations = m->memory_size, width = padded_wide(locations), half = m->shift_width / 2;
    wide_vec d_gate = all_wide(0), gate = all_wide(gate_);
    for (i64 n = locations; n < width; n++) d_gated[half + n] = 0;
    for (i64 n = 0; n < width; n += WIDE) {
        wide_vec dg = load_wide(d_gated + half + n);
        d_gate = fma_(dg, load_wide(content + n) - load_wide(previous + n), d_gate);
        store_wide(d_previous + n, dg - gate * dg), store_wide(d_content + n, gate * dg);
    }
    return sum_wide(d_gate);
}

/* e^x / (sum e^x + 1e-16), in place of x. */
static void softmax_above_least(real *x, memory_shape shape) {
    for (i64 n = shape.locations; n < shape.width; n++) x[n] = (real)-1e30;
    wide_vec top = all_wide((real)-36.841361487904734), total = all_wide(0);
    real below = top[0];
    for (i64 n = 0; n < shape.width; n += WIDE) top = max_(top, load_wide(x + n));
    top = all_wide(largest(top));
    for (i64 n = 0; n < shape.width; n += WIDE) {
        wide_vec e = choose(load_wide(x + n) > all_wide((real)-1e29), exp_wide(load_wide(x + n) - top), all_wide(0));
        total += e, store_wide(x + n, e);
    }
    wide_vec scale = all_wide(1 / (sum_wide(total) + exp_wide(all_wide(below) - top)[0]));
    for (i64 n = 0; n < shape.width; n += WIDE) store_wide(x + n, load_wide(x + n) * scale);
}

/* w^gamma / sum w^gamma, as the style has it. weights, out: [width]. */
static void sharpen(const model *m, const real *weights, real sharpening, real *out) {
    memory_shape shape = shape_of(m);
    wide_vec gamma = all_wide(sharpening);
    for (i64 n = 0; n < shape.width; n += WIDE)
        store_wide(out + n, gamma * log_wide(ntm_above_zero(m->style, load_wide(weights + n))));
    if (m->style == PYTORCH_NTM) softmax_above_least(out, shape);
    else softmax_wide(out, shape.locations, shape.width);
}

/* d: of the sharpened weights, replaced by that of the weights. Returns the gradient of the sharpening. */
static real sharpen_backward(const model *m, const real *weights, const real *out, real sharpening, real *d) {
    i64 width = padded_wide(m->memory_size), style = m->style;
    real least = ntm_least(style);
    wide_vec gamma = all_wide(sharpening), d_gamma = all_wide(0);
    /* The part by which a weighting sums to less than 1 has no gradient of its own. */
    softmax_backward_wide(out, d, width);
    for (i64 n = 0; n < width; n += WIDE) {
        wide_vec w = load_wide(weights + n), above = ntm_above_zero(style, w), d_log = load_wide(d + n);
        d_gamma = fma_(d_log, log_wide(above), d_gamma);
        wide_vec d_w = d_log * gamma / above;
        store_wide(d + n, style == NTM_LASAGNE ? d_w : choose(w >= all_wide(least), d_w, all_wide(0)));
    }
    return sum_wide(d_gamma);
}

/* ---- Addressing ---- */

/* Return the weighting of a head, of all read heads and then all write heads, in a state. */
INLINE real *weighting_of(const memory_step *s, const leaves *state, i64 head) {
    i64 reads = s->m->read_heads, width = s->shape.width;
    return head < reads ? state->read_weights + head * width : state->write_weights + (head - reads) * width;
}

/* A memory that heads address, and the norms of its words. */
typedef struct {
    const real *memory;
    real *norms;
} addressed_memory;

INLINE content_weighting ntm_content(const memory_step *s, const ntm_workspace *w, addressed_memory in, i64 head) {
    i64 similarity = ntm_similarity(s->m->style), at = head * s->shape.width, size = s->shape.size;
    return (content_weighting){
        .similarity = similarity,
        .strength = scalars_in(s->m, s->controls).strengths[head] * (real)s->m->look_up_scale,
        .key_norm = norm(similarity, s->controls + s->m->read_keys + head * size, size),
        .norms = in.norms,
        .similarities = w->similarities + at,
        .weights = w->content + at,
    };
}

/* Copy the weightings of one head that were asked for. content: [width]; moving: the weighting, gated and shifted. */
static void leave_addressing(const memory_step *s, i64 head, const real *content, ntm_scratch moving) {
    i64 width = s->shape.width, at = s->row * (s->m->read_heads + s->m->write_heads) + head;
    leave(s->traced->content_weights, at, content, width);
    leave(s->traced->gated_weights, at, moving.gated + s->m->shift_width / 2, width);
    leave(s->traced->shifted_weights, at, moving.moved, width);
}

/* Find one head's weighting after the step: by content, then relative to the one before. */
static void address(const memory_step *s, const ntm_workspace *w, addressed_memory in, i64 head, ntm_scratch scratch) {
    const model *m = s->m;
    ntm_scalars of = scalars_in(m, s->controls);
    const real *shifts = s->controls + m->shifts + head * padded(m->shift_width);
    content_weighting c = ntm_content(s, w, in, head);
    products(in.memory, s->shape, s->controls + m->read_keys + head * s->shape.size, c.similarities);
    content_weights(c, s->shape);
    shift_weights(m, c.weights, weighting_of(s, &s->before, head), of.gates[head], shifts, scratch.gated,
                  scratch.moved);
    sharpen(m, scratch.moved, of.sharpening[head], weighting_of(s, &s->after, head));
    if (s->traced) leave_addressing(s, head, c.weights, scratch);
}

/* The gradients of one head's weighting. d_weights: of the one after, [width], replaced by that of the products with
 * the words; d_previous: [width], set to that of the one before. To g->word_scale is added, the head's controls are
 * set. */
static void address_backward(const memory_step *s, const ntm_workspace *w, addressed_memory in, i64 head,
                             const memory_gradients *d, const ntm_gradients *g, real *d_weights, real *d_previous) {
    const model *m = s->m;
    i64 at = m->shifts + head * padded(m->shift_width), key = m->read_keys + head * s->shape.size;
    ntm_scalars of = scalars_in(m, s->controls), d_of = scalars_in(m, d->controls);
    const real *previous = weighting_of(s, &s->before, head), *shifts = s->controls + at;
    content_weighting c = ntm_content(s, w, in, head);
    ntm_scratch scratch = g->moving;
    shift_weights(m, c.weights, previous, of.gates[head], shifts, scratch.gated, scratch.moved);
    d_of.sharpening[head] =
        sharpen_backward(m, scratch.moved, weighting_of(s, &s->after, head), of.sharpening[head], d_weights);
    shift_backward(m, shifts, scratch.gated, d_weights, g->d_gated, d->controls + at);
    d_of.gates[head] = gate_backward(m, c.weights, previous, of.gates[head], g->d_gated, d_weights, d_previous);
    content_gradient by = content_weights_backward(c, s->shape, d_weights, g->word_scale);
    d_of.strengths[head] = by.strength * (real)m->look_up_scale;
    key_backward(in.memory, d_weights, s->shape, s->controls + key, by.key_scale, d->controls + key);
}

/* ---- A step ---- */

/* Return the memory that a turn addresses: that before the step, or the one that the turn before left. */
INLINE addressed_memory addressed_in(const memory_step *s, const ntm_workspace *w, i64 turn) {
    i64 all_words = s->shape.width * s->shape.size;
    const real *memory = turn ? w->memories + (turn - 1) * all_words : s->before.memory;
    return (addressed_memory){memory, w->norms + turn * s->shape.width};
}

/* The write heads of a turn, `at` and those after it. weights: of all write heads. */
INLINE write_heads ntm_writes(const memory_step *s, const real *weights, i64 at, i64 count) {
    i64 size = s->shape.size;
    const real *erase = s->controls + s->m->erase + at * size, *add = s->controls + s->m->add + at * size;
    return (write_heads){count, weights + at * s->shape.width, erase, add, 0};
}

INLINE write_gradients ntm_writes_gradients(const memory_step *s, const memory_gradients *d, i64 at) {
    i64 size = s->shape.size;
    real *d_erase = d->controls + s->m->erase + at * size, *d_add = d->controls + s->m->add + at * size;
    return (write_gradients){d->state.write_weights + at * s->shape.width, d_erase, d_add, 0};
}

static void ntm_step(const memory_step *s, const ntm_workspace *w, ntm_scratch scratch) {
    memory_shape shape = s->shape;
    i64 turns = ntm_turns(s->m), reads = s->m->read_heads / turns, writes = s->m->write_heads / turns;
    for (i64 turn = 0; turn < turns; turn++) {
        addressed_memory in = addressed_in(s, w, turn);
        i64 read = turn * reads, write = turn * writes;
        real *next = turn + 1 < turns ? w->memories + turn * shape.width * shape.size : s->after.memory;

        /* Address, read, write */
        norms(in.memory, shape, ntm_similarity(s->m->style), in.norms);
        for (i64 k = 0; k < reads; k++) address(s, w, in, read + k, scratch);
        for (i64 k = 0; k < writes; k++) address(s, w, in, s->m->read_heads + write + k, scratch);
        read_vectors(in.memory, s->after.read_weights + read * shape.width, reads, shape,
                     s->after.read_vectors + read * shape.size);
        write_heads by = ntm_writes(s, s->after.write_weights, write, writes);
        for (i64 n = 0; n < shape.width; n += LANES) write_eight(in.memory, next, n, shape, by);
    }
}

/* The gradients of one head that addressed a memory, and read it where it is a read head. terms: outer products to be
 * added to the gradient of the memory. */
static void ntm_head_backward(const memory_step *s, const ntm_workspace *w, addressed_memory in, i64 head,
                              const memory_gradients *d, const ntm_gradients *g, outer_products *terms) {
    memory_shape shape = s->shape;
    i64 reads = head < s->m->read_heads;
    real *d_weights = g->weights + head * shape.width, *d_own = weighting_of(s, &d->state, head);
    const real *key = s->controls + s->m->read_keys + head * shape.size;
    const real *d_vector = reads ? d->state.read_vectors + head * shape.size : 0;
    copy(d_weights, d_own, shape.width);
    if (reads) read_weights_backward(in.memory, shape, d_vector, d_weights);
    address_backward(s, w, in, head, d, g, d_weights, d_own);
    add_outer_product(d->state.memory, shape, terms, d_weights, key);
    if (reads) add_outer_product(d->state.memory, shape, terms, weighting_of(s, &s->after, head), d_vector);
}

static void ntm_step_backward(const memory_step *s, const ntm_workspace *w, const memory_gradients *d,
                              const ntm_gradients *g) {
    memory_shape shape = s->shape;
    i64 turns = ntm_turns(s->m), reads = s->m->read_heads / turns, writes = s->m->write_heads / turns;
    for (i64 turn = turns - 1; turn >= 0; turn--) {
        addressed_memory in = addressed_in(s, w, turn);
        outer_products terms = {0};
        i64 read = turn * reads, write = turn * writes;
        write_backward(in.memory, shape, ntm_writes(s, s->after.write_weights, write, writes), d->state.memory,
                       ntm_writes_gradients(s, d, write));
        clear(g->word_scale, shape.width);
        for (i64 k = 0; k < reads; k++) ntm_head_backward(s, w, in, read + k, d, g, &terms);
        for (i64 k = 0; k < writes; k++) ntm_head_backward(s, w, in, s->m->read_heads + write + k, d, g, &terms);
        add_outer_products(d->state.memory, shape, &terms, g->word_scale, in.memory);
    }
    clear(d->state.read_vectors, read_size(s->m));
    ntm_controls_backward(s->m, s->controls, d->raw, d->controls);
}

/* ---- A step whose heads act before the controller ---- */

/* Write and read with the weightings of the step before. s->controls: of the step before. */
static void ntm_act(const memory_step *s) {
    write_heads by = ntm_writes(s, s->before.write_weights, 0, s->m->write_heads);
    for (i64 n = 0; n < s->shape.width; n += LANES) write_eight(s->before.memory, s->after.memory, n, s->shape, by);
    read_vectors(s->after.memory, s->before.read_weights, s->m->read_heads, s->shape, s->after.read_vectors);
}

/* d->state: of the weightings, those of the step before, to which is added. d->raw, d->controls: of the step before. */
static void ntm_act_backward(const memory_step *s, const memory_gradients *d) {
    memory_shape shape = s->shape;
    outer_products terms = {0};
    for (i64 r = 0; r < s->m->read_heads; r++) {
        const real *weights = s->before.read_weights + r * shape.width;
        const real *d_vector = d->state.read_vectors + r * shape.size;
        read_weights_backward(s->after.memory, shape, d_vector, d->state.read_weights + r * shape.width);
        add_outer_product(d->state.memory, shape, &terms, weights, d_vector);
    }
    add_outer_products(d->state.memory, shape, &terms, 0, 0);
    write_backward(s->before.memory, shape, ntm_writes(s, s->before.write_weights, 0, s->m->write_heads),
                   d->state.memory, ntm_writes_gradients(s, d, 0));
    clear(d->state.read_vectors, read_size(s->m));
    ntm_controls_backward(s->m, s->controls, d->raw, d->controls);
}

/* Find the weightings with which the next step writes and reads. */
static void ntm_aim(const memory_step *s, const ntm_workspace *w, ntm_scratch scratch) {
    addressed_memory in = {s->after.memory, w->norms};
    norms(in.memory, s->shape, ntm_similarity(s->m->style), in.norms);
    for (i64 head = 0; head < s->m->read_heads + s->m->write_heads; head++) address(s, w, in, head, scratch);
}

/* d->state: of the weightings, those after the step, replaced by those before it. */
static void ntm_aim_backward(const memory_step *s, const ntm_workspace *w, const memory_gradients *d,
                             const ntm_gradients *g) {
    memory_shape shape = s->shape;
    addressed_memory in = {s->after.memory, w->norms};
    outer_products terms = {0};
    clear(g->word_scale, shape.width);
    for (i64 head = 0; head < s->m->read_heads + s->m->write_heads; head++) {
        real *d_weights = g->weights + head * shape.width, *d_own = weighting_of(s, &d->state, head);
        copy(d_weights, d_own, shape.width);
        address_backward(s, w, in, head, d, g, d_weights, d_own);
        add_outer_product(d->state.memory, shape, &terms, d_weights, s->controls + s->m->read_keys + head * shape.size);
    }
    add_outer_products(d->state.memory, shape, &terms, g->word_scale, in.memory);
    ntm_controls_backward(s->m, s->controls, d->raw, d->controls);
}

#endif
