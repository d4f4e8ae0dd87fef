/* One step of a DNC, an NTM or a recurrent cell for a list of sessions, in place in their slots of the arena.
 *
 * Names and equations are those of models/addressing.py, models/cells.py, models/dnc.py and models/ntm.py, which say what
 * is computed; this file says how to do it fast. A session's numbers are the same, bit for bit, whoever is stepped with
 * it: products accumulate over the inputs one by one, and everything else is done row by row.
 *
 * All arrays are float32. Sizes with a bar over them in the comments, and `padded` in the code, are rounded up to a
 * multiple of eight; what lies beyond the size is zero and stays so. */

#include "vector.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define EPSILON 1e-6f
#define SMALLEST_WEIGHT 1e-8f
#define PANEL 16

typedef int64_t i64;

enum cell_kind { BASIC_RNN, GRU, LSTM, FEED_FORWARD };
enum activation { TANH, SIGMOID, RELU, IDENTITY, SOFTMAX };
enum model_kind { CELLS_ONLY, DNC, NTM };
enum strength { ONEPLUS, SOFTPLUS };

/* y = W x + b. Weights lie in panels of 16 outputs: [outputs / 16][inputs][16]; both sizes are padded. */
typedef struct {
    i64 inputs, outputs;
    const float *weights, *bias;
} linear;

/* One layer of the controller. h, c: its leaves in the arena, [slots][size] and [slots][cells]; sizes are padded. second
 * is a GRU's candidate, or an LSTM's projection. Bounds of 0 are none. peepholes: [3][cells], or none. */
typedef struct {
    i64 kind, activation, size, cells;
    float forget_bias, cell_clip, projection_clip, unused;
    linear gates, second;
    const float *peepholes;
    float *h, *c;
} layer;

/* What a model is, and where the states of its sessions lie. */
typedef struct {
    i64 kind, strength, layers, input_size, output_size, slots, word, reads, writes, shift_width, output_activation;
    i64 linked, masking, deallocation, link_sharpening;
    float clip, unused;
    const layer *controller;
    linear interface, output;
    /* The arena: leaves of all sessions, [capacity][...], rows padded. */
    float *memory, *read_weights, *write_weights, *read_vectors, *usage, *link, *precedence;
    /* Where the parts of the interface begin in its output, padded word by word and head by head. */
    i64 read_keys, write_keys, erase, add, strengths, gates, modes, shifts, read_masks, write_masks, sharpness;
} model;

INLINE i64 padded(i64 size) { return (size + LANES - 1) / LANES * LANES; }

/* ---- Linear layers ---- */

/* A tile of `rows` rows and `panels` panels of outputs, kept in registers: each output accumulates over the inputs in
 * their order, whatever the tile. */
INLINE void apply_tile(const linear *layer, const float *in, float *out, i64 panel, const i64 rows, const i64 panels) {
    i64 inputs = layer->inputs, outputs = layer->outputs;
    const float *weights = layer->weights + panel * inputs, *bias = layer->bias + panel;
    vec total[12];
#pragma clang loop unroll(full)
    for (i64 t = 0; t < rows * panels * 2; t++) total[t] = load(bias + t % (panels * 2) * LANES);
    for (i64 k = 0; k < inputs; k++)
#pragma clang loop unroll(full)
        for (i64 r = 0; r < rows; r++) {
            vec value = all(in[r * inputs + k]);
#pragma clang loop unroll(full)
            for (i64 p = 0; p < panels; p++) {
                const float *w = weights + (p * inputs + k) * PANEL;
                vec *t = total + (r * panels + p) * 2;
                t[0] = fma_(value, load(w), t[0]), t[1] = fma_(value, load(w + LANES), t[1]);
            }
        }
#pragma clang loop unroll(full)
    for (i64 r = 0; r < rows; r++)
#pragma clang loop unroll(full)
        for (i64 t = 0; t < panels * 2; t++)
            store(out + r * outputs + panel + t * LANES, total[r * panels * 2 + t]);
}

/* Rows of `in` [batch][inputs] to rows of `out` [batch][outputs]. Six rows share a panel of weights; of those that are
 * left over, each takes several panels at once. */
static void apply_linear(const linear *layer, const float *in, i64 batch, float *out) {
    i64 inputs = layer->inputs, outputs = layer->outputs, tiled = batch / 6 * 6;
    for (i64 panel = 0; tiled && panel < outputs; panel += PANEL)
        for (i64 row = 0; row < tiled; row += 6)
            apply_tile(layer, in + row * inputs, out + row * outputs, panel, 6, 1);
    for (i64 row = tiled; row < batch; row++) {
        const float *x = in + row * inputs;
        float *y = out + row * outputs;
        i64 panel = 0;
        for (; panel + 4 * PANEL <= outputs; panel += 4 * PANEL) apply_tile(layer, x, y, panel, 1, 4);
        for (; panel < outputs; panel += PANEL) apply_tile(layer, x, y, panel, 1, 1);
    }
}

/* ---- Cells: models/cells.py ---- */

INLINE vec activate(i64 activation, vec x) {
    if (activation == TANH) return tanh_(x);
    if (activation == SIGMOID) return sigmoid_(x);
    return activation == RELU ? choose(x < all(0.0f), all(0.0f), x) : x;
}

INLINE vec clipped(vec x, float bound) {
    return bound > 0 ? choose(x == x, min_(max_(x, all(-bound)), all(bound)), x) : x;
}

/* i, f, o = sigmoid, j = tanh;  c = f c + i j;  h = o tanh(c); peepholes let i and f see the old c, o the new one.
 * gates: i, j, f, o, [4][cells]; h may take the place of i. */
static void lstm_row(const layer *cell, const float *gates, float *h, float *c) {
    i64 size = cell->cells;
    const float *peep = cell->peepholes;
    for (i64 k = 0; k < size; k += LANES) {
        vec before = load(c + k), i = load(gates + k), f = load(gates + 2 * size + k), o = load(gates + 3 * size + k);
        if (peep) i = fma_(load(peep + k), before, i), f = fma_(load(peep + size + k), before, f);
        vec kept = sigmoid_(f + all(cell->forget_bias)) * before;
        vec next = clipped(fma_(sigmoid_(i), tanh_(load(gates + size + k)), kept), cell->cell_clip);
        if (peep) o = fma_(load(peep + 2 * size + k), next, o);
        store(c + k, next);
        store(h + k, sigmoid_(o) * tanh_(next));
    }
}

/* h = clip(P h), from the rows of `hidden` [batch][cells]. */
static void project(const layer *cell, const float *hidden, const i64 *slots, i64 batch, float *products) {
    apply_linear(&cell->second, hidden, batch, products);
    for (i64 row = 0; row < batch; row++)
        for (i64 k = 0; k < cell->size; k += LANES) {
            vec h = load(products + row * cell->second.outputs + k);
            store(cell->h + slots[row] * cell->size + k, clipped(h, cell->projection_clip));
        }
}

/* Step one layer. in: [batch][inputs of its products], of which the last `size` are for its own h where it has one.
 * out: [batch][size]. */
static void step_layer(const layer *cell, float *in, const i64 *slots, i64 batch, float *products, float *out) {
    i64 size = cell->size, inputs = cell->gates.inputs, outputs = cell->gates.outputs;
    float *spare = products + batch * outputs, *candidates = spare;
    if (cell->kind != FEED_FORWARD)
        for (i64 row = 0; row < batch; row++)
            memcpy(in + row * inputs + inputs - size, cell->h + slots[row] * size, size * sizeof(float));
    apply_linear(&cell->gates, in, batch, products);
    for (i64 row = 0; row < batch; row++) {
        float *h = cell->kind == FEED_FORWARD ? out + row * size : cell->h + slots[row] * size;
        float *x = products + row * outputs;
        if (cell->kind == LSTM) {
            float *own = cell->second.weights ? spare + row * cell->cells : h;
            lstm_row(cell, x, own, cell->c + slots[row] * cell->cells);
        } else if (cell->kind == GRU) { /* r, u = sigmoid; what the candidate sees of h is r h */
            float *own = in + row * inputs + inputs - size;
            for (i64 k = 0; k < size; k += LANES) store(own + k, sigmoid_(load(x + k)) * load(h + k));
        } else {
            for (i64 k = 0; k < size; k += LANES) store(h + k, activate(cell->activation, load(x + k)));
        }
    }
    if (cell->kind == LSTM && cell->second.weights)
        project(cell, spare, slots, batch, spare + batch * cell->cells);
    if (cell->kind == FEED_FORWARD) return;
    if (cell->kind == GRU) apply_linear(&cell->second, in, batch, candidates);
    for (i64 row = 0; row < batch; row++) { /* h = u h + (1 - u) tanh(candidate) */
        float *h = cell->h + slots[row] * size;
        for (i64 k = 0; cell->kind == GRU && k < size; k += LANES) {
            vec update = sigmoid_(load(products + row * outputs + size + k));
            vec candidate = tanh_(load(candidates + row * cell->second.outputs + k));
            store(h + k, fma_(update, load(h + k) - candidate, candidate));
        }
        memcpy(out + row * size, h, size * sizeof(float));
    }
}

/* ---- Addressing: models/addressing.py ---- */

/* |x| = sqrt(sum x^2 + eps). */
INLINE float norm(const float *x, i64 size) { return scalar(sqrt_, dot(x, x, size) + EPSILON); }

/* From products k.m and norms |m| of the words to softmax(strength D), D(k, m) = k.m / (|k| |m| + eps). */
static void content_weights(float *products, const float *norms, float key_norm, float strength, i64 slots) {
    i64 row = padded(slots);
    for (i64 n = 0; n < row; n += LANES)
        store(products + n, all(strength) * (load(products + n) / fma_(all(key_norm), load(norms + n), all(EPSILON))));
    softmax(products, slots, row);
}

/* The same where the key and the words are compared through a mask: D(m k, m M[n]). `mask` and `key` are changed: to the
 * mask's square, and to that times the key. */
static void masked_content_weights(const float *memory, float *key, float *mask, float strength, i64 slots, i64 size,
                                   float *norms, float *out) {
    vec square = all(0.0f);
    for (i64 k = 0; k < size; k += LANES) {
        vec m = load(mask + k), masked = load(key + k) * m;
        square = fma_(masked, masked, square);
        store(key + k, masked * m), store(mask + k, m * m);
    }
    for (i64 n = 0; n < slots; n++) {
        vec total = all(0.0f);
        const float *word = memory + n * size;
        for (i64 k = 0; k < size; k += LANES) total = fma_(load(word + k) * load(word + k), load(mask + k), total);
        norms[n] = scalar(sqrt_, sum(total) + EPSILON);
        out[n] = dot(key, word, size);
    }
    for (i64 n = slots; n < padded(slots); n++) norms[n] = 1.0f, out[n] = 0.0f;
    content_weights(out, norms, scalar(sqrt_, sum(square) + EPSILON), strength, slots);
}

/* M[n] = psi M[n] prod_v (1 - w_v[n] e_v) + sum_v w_v[n] a_v, one word. */
INLINE void write_word(float *word, i64 n, const float *weights, const float *erase, const float *add, i64 writes,
                       i64 row, i64 size, float retention) {
    for (i64 k = 0; k < size; k += LANES) {
        vec kept = all(retention), added = all(0.0f);
        for (i64 v = 0; v < writes; v++) {
            vec w = all(weights[v * row + n]);
            kept *= all(1.0f) - w * load(erase + v * size + k);
            added = fma_(w, load(add + v * size + k), added);
        }
        store(word + k, fma_(load(word + k), kept, added));
    }
}

/* r = sum_n w[n] M[n]. */
static void read_vector(const float *memory, const float *weights, i64 slots, i64 size, float *out) {
    for (i64 k = 0; k < size; k += LANES) {
        vec total = all(0.0f);
        for (i64 n = 0; n < slots; n++) total = fma_(all(weights[n]), load(memory + n * size + k), total);
        store(out + k, total);
    }
}

/* ---- DNC: models/dnc.py ---- */

/* The numbers of the slots, the most free first, equals in the order of their numbers: a stable sort of what is not
 * negative, by the bits, from the lowest byte to the highest. counts: [256]; order, spare: [slots]. */
static void sort_by_free(const float *free_, i64 slots, int32_t *order, int32_t *spare, int32_t *counts) {
    if (slots <= 64) {
        for (i64 n = 0; n < slots; n++) {
            i64 at = n;
            for (; at > 0 && free_[order[at - 1]] < free_[n]; at--) order[at] = order[at - 1];
            order[at] = (int32_t)n;
        }
        return;
    }
    for (i64 n = 0; n < slots; n++) order[n] = (int32_t)n;
    for (int shift = 0; shift < 32; shift += 8) {
        memset(counts, 0, 256 * sizeof(int32_t));
        for (i64 n = 0; n < slots; n++) {
            int32_t bits;
            memcpy(&bits, free_ + n, sizeof bits);
            counts[(~bits >> shift) & 255]++;
        }
        for (int32_t total = 0, byte = 0; byte < 256; byte++) {
            int32_t here = counts[byte];
            counts[byte] = total, total += here;
        }
        for (i64 n = 0; n < slots; n++) {
            int32_t bits;
            memcpy(&bits, free_ + order[n], sizeof bits);
            spare[counts[(~bits >> shift) & 255]++] = order[n];
        }
        memcpy(order, spare, slots * sizeof(int32_t));
    }
}

/* a[phi_j] = (1 - u[phi_j]) prod_{i<j} u[phi_i], u = eps + (1 - eps) usage, the most free first. scratch: [row] and
 * integers [2 row + 256]. */
static void allocation_weights(const float *usage, i64 slots, float *out, float *scratch, int32_t *integers) {
    i64 row = padded(slots);
    for (i64 n = 0; n < row; n += LANES) {
        vec free_ = all(1.0f) - (all(EPSILON) + all(1.0f - EPSILON) * load(usage + n)); /* rounded as torch does */
        store(scratch + n, max_(free_, all(0.0f)));
    }
    sort_by_free(scratch, slots, integers, integers + row, integers + 2 * row);
    float all_before_used = 1.0f;
    for (i64 j = 0; j < slots; j++) {
        float free_ = scratch[integers[j]];
        out[integers[j]] = free_ * all_before_used;
        all_before_used *= 1.0f - free_;
    }
}

/* L = (1 - w_i - w_j) L + w_i p_j, L_ii = 0; forward f_r[i] = sum_j L_ij w_r[j], backward b_r[j] = sum_i L_ij w_r[i]:
 * one pass, for `reads` heads of at most four at once. precedence is read with its own entry taken out. */
INLINE void link_pass(float *link, const float *w, float *precedence, const float *read_weights, float *forward,
                      float *backward, i64 slots, const i64 reads, const i64 update) {
    i64 row = padded(slots);
    for (i64 i = 0; i < slots; i++) {
        float *line = link + i * row, own = precedence[i];
        vec total[4], here[4], written = all(w[i]), kept = all(1.0f - w[i]);
        for (i64 r = 0; r < reads; r++) total[r] = all(0.0f), here[r] = all(read_weights[r * row + i]);
        precedence[i] = 0.0f;
        for (i64 j = 0; j < row; j += LANES) {
            vec entry = load(line + j);
            if (update) {
                entry = fma_(kept - load(w + j), entry, written * load(precedence + j));
                store(line + j, entry);
            }
            for (i64 r = 0; r < reads; r++) {
                total[r] = fma_(entry, load(read_weights + r * row + j), total[r]);
                store(backward + r * row + j, fma_(entry, here[r], load(backward + r * row + j)));
            }
        }
        precedence[i] = own;
        for (i64 r = 0; r < reads; r++) forward[r * row + i] = sum(total[r]);
    }
}

static void update_link(float *link, const float *w, float *precedence, const float *read_weights, float *forward,
                        float *backward, i64 slots, i64 reads) {
    i64 row = padded(slots);
    memset(forward, 0, reads * row * sizeof(float));
    memset(backward, 0, reads * row * sizeof(float));
    for (i64 first = 0; first < reads; first += 4) {
        const float *weights = read_weights + first * row;
        float *f = forward + first * row, *b = backward + first * row;
        i64 heads = reads - first;
        if (heads >= 4) link_pass(link, w, precedence, weights, f, b, slots, 4, first == 0);
        else if (heads == 3) link_pass(link, w, precedence, weights, f, b, slots, 3, first == 0);
        else if (heads == 2) link_pass(link, w, precedence, weights, f, b, slots, 2, first == 0);
        else link_pass(link, w, precedence, weights, f, b, slots, 1, first == 0);
    }
}

/* (d + eps)^s / sum (d + eps)^s, s = 1 + softplus(sharpness). */
static void sharpen_direction(float *weights, float sharpness, i64 slots) {
    vec s = all(1.0f + scalar(softplus_, sharpness));
    for (i64 n = 0; n < padded(slots); n += LANES) store(weights + n, s * log_(load(weights + n) + all(EPSILON)));
    softmax(weights, slots, padded(slots));
}

INLINE float strength_of(const model *m, float x) { return (m->strength == ONEPLUS) + scalar(softplus_, x); }

/* The memory's part of a DNC's step, for one session. z: its interface, before activation. */
static void dnc_row(const model *m, i64 slot, float *z, float *scratch, float *traced_allocation) {
    i64 slots = m->slots, row = padded(slots), size = padded(m->word), reads = m->reads, writes = m->writes;
    float *memory = m->memory + slot * slots * size, *usage = m->usage + slot * row;
    float *read_weights = m->read_weights + slot * reads * row, *write_weights = m->write_weights + slot * writes * row;
    float *precedence = m->linked ? m->precedence + slot * writes * row : 0;
    float *link = m->linked ? m->link + slot * writes * slots * row : 0;
    float *read_keys = z + m->read_keys, *write_keys = z + m->write_keys, *erase = z + m->erase, *add = z + m->add;
    float *free_gates = z + m->gates, *allocation_gate = free_gates + reads, *write_gate = allocation_gate + writes;
    float *read_masks = z + m->read_masks, *write_masks = z + m->write_masks;
    float *norms = scratch, *promised = norms + row, *keys_free = promised + row, *kept = keys_free + row;
    float *allocation = kept + row;
    float *content = allocation + writes * row, *forward = content + (reads > writes ? reads : writes) * row;
    float *backward = forward + writes * reads * row;
    int32_t *integers = (int32_t *)(backward + writes * reads * row);

    for (i64 k = 0; k < writes * size; k += LANES) store(erase + k, sigmoid_(load(erase + k)));
    for (i64 k = 0; k < padded(reads + 2 * writes); k += LANES) store(free_gates + k, sigmoid_(load(free_gates + k)));

    /* Write: find free slots, mix them with those of similar content, erase and add */
    for (i64 n = 0; n < row; n += LANES) {
        vec unwritten = all(1.0f), retention = all(1.0f), u = load(usage + n);
        for (i64 v = 0; v < writes; v++) unwritten *= all(1.0f) - load(write_weights + v * row + n);
        for (i64 r = 0; r < reads; r++) retention *= all(1.0f) - all(free_gates[r]) * load(read_weights + r * row + n);
        u = (u + (all(1.0f) - u) * (all(1.0f) - unwritten)) * retention;
        store(usage + n, u), store(promised + n, u), store(kept + n, m->deallocation ? retention : all(1.0f));
    }
    for (i64 k = 0; m->masking && k < reads * size; k += LANES) store(read_masks + k, sigmoid_(load(read_masks + k)));
    for (i64 k = 0; m->masking && k < writes * size; k += LANES) store(write_masks + k, sigmoid_(load(write_masks + k)));
    for (i64 v = 0; v < writes; v++) {
        float *a = allocation + v * row;
        for (i64 n = slots; n < row; n++) a[n] = 0.0f;
        allocation_weights(promised, slots, a, keys_free, integers);
        vec gate = all(allocation_gate[v] * write_gate[v]);
        for (i64 n = 0; n < row; n += LANES) {
            vec u = load(promised + n);
            store(promised + n, u + (all(1.0f) - u) * gate * load(a + n));
        }
    }
    for (i64 n = 0; n < row; n++) norms[n] = n < slots ? norm(memory + n * size, size) : 1.0f;
    for (i64 v = 0; v < writes; v++) {
        float *key = write_keys + v * size, *c = content + v * row;
        float strength = strength_of(m, z[m->strengths + reads + v]);
        if (m->masking) {
            masked_content_weights(memory, key, write_masks + v * size, strength, slots, size, norms, c);
        } else {
            for (i64 n = 0; n < slots; n++) c[n] = dot(key, memory + n * size, size);
            for (i64 n = slots; n < row; n++) c[n] = 0.0f;
            content_weights(c, norms, norm(key, size), strength, slots);
        }
        vec mixed = all(allocation_gate[v]), gate = all(write_gate[v]);
        for (i64 n = 0; n < row; n += LANES) {
            vec by_content = load(c + n), next = fma_(mixed, load(allocation + v * row + n) - by_content, by_content);
            store(write_weights + v * row + n, gate * next);
        }
    }
    if (traced_allocation) memcpy(traced_allocation, allocation, writes * row * sizeof(float));

    /* Read: by content, or forward or backward along the order of writing */
    for (i64 n = 0; n < slots; n++) {
        float *word = memory + n * size;
        write_word(word, n, write_weights, erase, add, writes, row, size, kept[n]);
        norms[n] = norm(word, size);
        for (i64 r = 0; r < reads; r++) content[r * row + n] = dot(read_keys + r * size, word, size);
    }
    for (i64 v = 0; m->linked && v < writes; v++) {
        float *w = write_weights + v * row, *p = precedence + v * row, total = 0.0f;
        update_link(link + v * slots * row, w, p, read_weights, forward + v * reads * row, backward + v * reads * row,
                    slots, reads);
        vec part = all(0.0f);
        for (i64 n = 0; n < row; n += LANES) part += load(w + n);
        total = sum(part);
        for (i64 n = 0; n < row; n += LANES) store(p + n, fma_(all(1.0f - total), load(p + n), load(w + n)));
    }
    for (i64 r = 0; r < reads; r++) {
        float *c = content + r * row, *modes = z + m->modes + r * padded(2 * writes + 1), *key = read_keys + r * size;
        float strength = strength_of(m, z[m->strengths + r]);
        if (m->masking) {
            masked_content_weights(memory, key, read_masks + r * size, strength, slots, size, norms, c);
        } else {
            for (i64 n = slots; n < row; n++) c[n] = 0.0f;
            content_weights(c, norms, norm(key, size), strength, slots);
        }
        if (!m->linked) {
            memcpy(read_weights + r * row, c, row * sizeof(float));
            read_vector(memory, c, slots, size, m->read_vectors + (slot * reads + r) * size);
            continue;
        }
        for (i64 v = 0; m->link_sharpening && v < writes; v++) {
            const float *sharpness = z + m->sharpness + r * writes + v;
            sharpen_direction(forward + (v * reads + r) * row, sharpness[0], slots);
            sharpen_direction(backward + (v * reads + r) * row, sharpness[reads * writes], slots);
        }
        softmax(modes, 2 * writes + 1, padded(2 * writes + 1));
        for (i64 n = 0; n < row; n += LANES) {
            vec next = all(modes[2 * writes]) * load(c + n);
            for (i64 v = 0; v < writes; v++) {
                i64 at = (v * reads + r) * row + n;
                next = fma_(all(modes[v]), load(backward + at), next);
                next = fma_(all(modes[writes + v]), load(forward + at), next);
            }
            store(read_weights + r * row + n, next);
        }
        read_vector(memory, read_weights + r * row, slots, size, m->read_vectors + (slot * reads + r) * size);
    }
}

/* ---- NTM: models/ntm.py, its heads together and in the style of the paper ---- */

/* The memory's part of an NTM's step, for one session. The read heads come first in keys, strengths, gates, shifts. */
static void ntm_row(const model *m, i64 slot, float *z, float *scratch) {
    i64 slots = m->slots, row = padded(slots), size = padded(m->word), reads = m->reads, writes = m->writes;
    i64 heads = reads + writes, width = m->shift_width, half = width / 2;
    float *memory = m->memory + slot * slots * size;
    float *read_weights = m->read_weights + slot * reads * row, *write_weights = m->write_weights + slot * writes * row;
    float *keys = z + m->read_keys, *erase = z + m->erase, *add = z + m->add;
    float *strengths = z + m->strengths, *gates = strengths + padded(heads), *sharpening = gates + padded(heads);
    float *norms = scratch, *gated = norms + row, *weights = gated + padded(slots + width + LANES);

    for (i64 k = 0; k < heads * size; k += LANES) store(keys + k, tanh_(load(keys + k)));
    for (i64 k = 0; k < writes * size; k += LANES) {
        store(erase + k, sigmoid_(load(erase + k)));
        store(add + k, tanh_(load(add + k)));
    }
    for (i64 k = 0; k < padded(heads); k += LANES) {
        store(strengths + k, softplus_(load(strengths + k)));
        store(gates + k, sigmoid_(load(gates + k)));
        store(sharpening + k, all(1.0f) + softplus_(load(sharpening + k)));
    }

    /* Address: by content, then relative to the previous weighting */
    for (i64 n = 0; n < slots; n++) {
        const float *word = memory + n * size;
        norms[n] = norm(word, size);
        for (i64 h = 0; h < heads; h++) weights[h * row + n] = dot(keys + h * size, word, size);
    }
    for (i64 n = slots; n < row; n++) norms[n] = 1.0f;
    for (i64 h = 0; h < heads; h++) {
        float *w = weights + h * row, *previous = h < reads ? read_weights + h * row : write_weights + (h - reads) * row;
        float *shifts = z + m->shifts + h * padded(width);
        for (i64 n = slots; n < row; n++) w[n] = 0.0f;
        content_weights(w, norms, norm(keys + h * size, size), strengths[h], slots);
        for (i64 n = 0; n < row; n += LANES) { /* w_g = g w_c + (1 - g) w */
            vec before = load(previous + n);
            store(gated + half + n, fma_(all(gates[h]), load(w + n) - before, before));
        }
        for (i64 k = 0; k < half; k++) { /* what lies beyond the ends comes round */
            gated[half - 1 - k] = gated[half + slots - 1 - k % slots];
            gated[half + slots + k] = gated[half + k % slots];
        }
        softmax(shifts, width, padded(width));
        for (i64 n = 0; n < row; n += LANES) { /* w[i] = sum_j w_g[i - j] s[j], then gamma log w */
            vec moved = all(0.0f);
            for (i64 k = 0; k < width; k++) moved = fma_(all(shifts[k]), load(gated + n + width - 1 - k), moved);
            store(w + n, all(sharpening[h]) * log_(max_(moved, all(SMALLEST_WEIGHT))));
        }
        softmax(w, slots, row);
    }
    memcpy(read_weights, weights, reads * row * sizeof(float));
    memcpy(write_weights, weights + reads * row, writes * row * sizeof(float));

    /* Read, then write */
    for (i64 r = 0; r < reads; r++)
        read_vector(memory, read_weights + r * row, slots, size, m->read_vectors + (slot * reads + r) * size);
    for (i64 n = 0; n < slots; n++) write_word(memory + n * size, n, write_weights, erase, add, writes, row, size, 1.0f);
}

/* ---- A step ---- */

/* Numbers too small for their full precision are taken for zero while a step is computed: they cost a hundred times as
 * much. Returns the processor's mode before, to be put back. */
#if defined(__x86_64__)
static uint64_t flush_denormals(void) {
    unsigned int before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | 0x8040);
    return before;
}
static void restore_mode(uint64_t before) { __builtin_ia32_ldmxcsr((unsigned int)before); }
#elif defined(__aarch64__)
static uint64_t flush_denormals(void) {
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | (1ull << 24)));
    return before;
}
static void restore_mode(uint64_t before) { __asm__ volatile("msr fpcr, %0" : : "r"(before)); }
#endif

INLINE i64 at_least(i64 a, i64 b) { return a > b ? a : b; }

/* The floats that one session's memory needs while it is stepped. */
static i64 row_scratch(const model *m) {
    i64 row = padded(m->slots), reads = m->reads, writes = m->writes;
    if (m->kind == DNC)
        return row * (4 + writes + at_least(reads, writes) + 2 * reads * writes) + 2 * row + 256;
    if (m->kind == NTM) return row * (1 + reads + writes) + padded(m->slots + m->shift_width + LANES) + LANES;
    return 0;
}

static i64 widest_input(const model *m) {
    i64 widest = m->output.inputs;
    for (i64 k = 0; k < m->layers; k++) widest = at_least(widest, m->controller[k].gates.inputs);
    return widest;
}

static i64 widest_product(const model *m) {
    i64 widest = 0;
    for (i64 k = 0; k < m->layers; k++)
        widest = at_least(widest, m->controller[k].gates.outputs + m->controller[k].cells +
                                      m->controller[k].second.outputs);
    return widest;
}

/* The floats of scratch that a step of so many sessions needs. */
i64 engram_scratch(const model *m, i64 batch) {
    i64 hidden = m->controller[m->layers - 1].size;
    for (i64 k = 0; k < m->layers; k++) hidden = at_least(hidden, m->controller[k].size);
    return batch * (widest_input(m) + widest_product(m) + hidden) + row_scratch(m);
}

static void clip_row(float *values, i64 size, float bound) {
    for (i64 k = 0; k < size; k += LANES) store(values + k, clipped(load(values + k), bound));
}

/* Step sessions, each in its slot of the arena, none twice.
 * inputs: [batch][input_size]; outputs: [batch][output.outputs], activated; interface: [batch][interface.outputs], its
 * parts as the heads used them; allocation: [batch][writes][row], or none. */
void engram_step(const model *m, const i64 *slots, i64 batch, const float *inputs, float *outputs, float *interface,
                 float *allocation, float *scratch) {
    i64 x_size = padded(m->input_size), read_size = m->reads * padded(m->word), row = padded(m->slots);
    float *in = scratch, *products = in + batch * widest_input(m), *hidden = products + batch * widest_product(m);
    const layer *last = m->controller + m->layers - 1;
    float *own = scratch + engram_scratch(m, batch) - row_scratch(m);
    uint64_t mode = flush_denormals();

    /* Controller: from the input and from what was read at the step before */
    for (i64 b = 0; b < batch; b++) {
        float *to = in + b * m->controller[0].gates.inputs;
        memset(to, 0, x_size * sizeof(float));
        memcpy(to, inputs + b * m->input_size, m->input_size * sizeof(float));
        if (read_size) memcpy(to + x_size, m->read_vectors + slots[b] * read_size, read_size * sizeof(float));
    }
    for (i64 k = 0; k < m->layers; k++) {
        const layer *cell = m->controller + k;
        if (k)
            for (i64 b = 0; b < batch; b++)
                memcpy(in + b * cell->gates.inputs, hidden + b * cell[-1].size, cell[-1].size * sizeof(float));
        step_layer(cell, in, slots, batch, products, hidden);
    }
    for (i64 k = 0; k < m->layers && m->clip > 0; k++) {
        const layer *cell = m->controller + k;
        for (i64 b = 0; b < batch; b++) {
            if (cell->h) clip_row(cell->h + slots[b] * cell->size, cell->size, m->clip);
            if (cell->c) clip_row(cell->c + slots[b] * cell->cells, cell->cells, m->clip);
        }
    }
    for (i64 b = 0; b < batch; b++) clip_row(hidden + b * last->size, last->size, m->clip);

    /* Memory */
    if (m->kind != CELLS_ONLY) apply_linear(&m->interface, hidden, batch, interface);
    for (i64 b = 0; b < batch; b++) {
        float *z = interface + b * m->interface.outputs;
        if (m->kind == DNC) dnc_row(m, slots[b], z, own, allocation ? allocation + b * m->writes * row : 0);
        if (m->kind == NTM) ntm_row(m, slots[b], z, own);
    }

    /* Outputs: from the controller and from what was read */
    for (i64 b = 0; b < batch; b++) {
        float *to = in + b * m->output.inputs;
        memcpy(to, hidden + b * last->size, last->size * sizeof(float));
        if (read_size) memcpy(to + last->size, m->read_vectors + slots[b] * read_size, read_size * sizeof(float));
    }
    apply_linear(&m->output, in, batch, outputs);
    for (i64 k = 0; k < batch * m->output.outputs; k += LANES)
        store(outputs + k, activate(m->output_activation, clipped(load(outputs + k), m->clip)));
    for (i64 b = 0; m->output_activation == SOFTMAX && b < batch; b++)
        softmax(outputs + b * m->output.outputs, m->output_size, m->output.outputs);
    restore_mode(mode);
}

/* Return whether this processor has the instructions that the rest of the library was compiled for. */
int engram_runs_here(void) {
#if defined(__x86_64__)
    unsigned int a, b, c, d, state, high;
    const unsigned int fma = 1u << 12, xsave = 1u << 27, avx2 = 1u << 5, registers = 6;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (fma | xsave)) != (fma | xsave)) return 0;
    __asm__ volatile("xgetbv" : "=a"(state), "=d"(high) : "c"(0)); /* does the system keep the wide registers? */
    return (state & registers) == registers && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & avx2);
#else
    return 1;
#endif
}

/* Fill `out` with one of the functions of `in`, for the test of their errors. */
void engram_function(i64 which, const float *in, float *out, i64 count) {
    for (i64 k = 0; k < count; k += LANES) {
        vec x = load(in + k);
        vec values[] = {exp_(x), tanh_(x), sigmoid_(x), softplus_(x), log_(x)};
        store(out + k, values[which]);
    }
}
