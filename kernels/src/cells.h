/* The cells of controllers, models/cells.py: a step, and its gradients. */

#ifndef ENGRAM_CELLS_H
#define ENGRAM_CELLS_H

#include "linear.h"

enum cell_kind { BASIC_RNN, GRU, LSTM, FEED_FORWARD };
enum activation { TANH, SIGMOID, RELU, ELU, SOFTSIGN, LINEAR, IDENTITY, SOFTMAX };

/* The parts that a product sees, side by side: outputs of layers, by their numbers, or INPUTS: the inputs of the model
 * and the vectors read. size: numbers in all parts. */
typedef struct {
    i64 count, size;
    const i64 *parts;
} sources;

#define INPUTS (-1)

/* One layer of the controller. Sizes are padded. second is a GRU's candidate, or an LSTM's projection. Bounds of 0 are
 * none. peepholes: [3][cells], or none. below: what it sees before its own h. */
typedef struct {
    i64 kind, activation, size, cells;
    double forget_bias, cell_clip, projection_clip;
    sources below;
    linear gates, second;
    const real *peepholes;
    real *d_peepholes;
} layer;

/* The states of a layer in the slots of an arena: [slots][size] and [slots][cells]. Gradients of states are kept in an
 * arena of their own. */
typedef struct {
    real *h, *c;
} cell_states;

/* Who is stepped: the row of each in the batch, and the slots of its state before and after, which may be the same. */
typedef struct {
    i64 batch;
    const i64 *row, *from, *to;
} rows;

/* What a layer computes in a step, row by row, and keeps for the gradients. seen: what its products are taken of, with
 * its own h at the end; again, candidates: the same for the second product; cell: c before the model clips it; before:
 * c before the step, where peepholes see it. */
typedef struct {
    real *seen, *products, *again, *candidates, *cell, *before;
} layer_work;

/* A softmax is of many numbers, not of each, and is taken elsewhere. */
INLINE vec activate(i64 activation, vec x) {
    switch (activation) {
    case TANH: return tanh_(x);
    case SIGMOID: return sigmoid_(x);
    case RELU: return choose(x < all(0), all(0), x);
    case ELU: return elu_(x);
    case SOFTSIGN: return softsign_(x);
    default: return x;
    }
}

/* dy times the slope of an activation where it came to y. */
INLINE vec activate_backward(i64 activation, vec y, vec dy) {
    vec left = all(1) - abs_(y);
    switch (activation) {
    case TANH: return dy * (all(1) - y * y);
    case SIGMOID: return dy * y * (all(1) - y);
    case RELU: return choose(y > all(0), dy, all(0));
    case ELU: return choose(y < all(0), dy * (all(1) + y), dy);
    case SOFTSIGN: return dy * left * left;
    default: return dy;
    }
}

INLINE vec clipped(vec x, double bound) {
    real b = (real)bound;
    return bound > 0 ? choose(x == x, min_(max_(x, all(-b)), all(b)), x) : x;
}

/* dy where x was within the bound before it was clipped, or on it. */
INLINE vec clip_backward(vec x, vec dy, double bound) {
    return bound > 0 ? choose(abs_(x) <= all((real)bound), dy, all(0)) : dy;
}

/* The same where only y is known, what x was clipped to: on the bound, it is taken for clipped. */
INLINE vec clipped_backward(vec y, vec dy, double bound) {
    return bound > 0 ? choose(abs_(y) < all((real)bound), dy, all(0)) : dy;
}

INLINE i64 has_projection(const layer *cell) { return cell->kind == LSTM && cell->second.weights; }

/* What a layer puts out for a row: its new h, or where it has none its activated products. */
INLINE const real *layer_output(const layer *cell, const cell_states *states, layer_work work, i64 row, i64 slot) {
    return cell->kind == FEED_FORWARD ? work.products + row * cell->gates.outputs : states->h + slot * cell->size;
}

/* ---- LSTM ---- */

/* i, f, o = sigmoid, j = act;  c = f c + i j;  h = o act(c), act: the activation of the cell; peepholes let i and f see
 * the old c, o the new one. gates: i, j, f, o, [4][cells], left activated. next: c before the model clips it, again. */
INLINE void lstm_row(const layer *cell, const i64 activation, real *gates, const real *c, real *h, real *next_c,
                     real *next) {
    i64 size = cell->cells;
    const real *peep = cell->peepholes;
    for (i64 k = 0; k < size; k += LANES) {
        vec before = load(c + k), i = load(gates + k), f = load(gates + 2 * size + k), o = load(gates + 3 * size + k);
        if (peep) i = fma_(load(peep + k), before, i), f = fma_(load(peep + size + k), before, f);
        vec j = activate(activation, load(gates + size + k));
        i = sigmoid_(i), f = sigmoid_(f + all((real)cell->forget_bias));
        vec now = clipped(fma_(i, j, f * before), cell->cell_clip);
        if (peep) o = fma_(load(peep + 2 * size + k), now, o);
        o = sigmoid_(o);
        store(gates + k, i), store(gates + size + k, j), store(gates + 2 * size + k, f), store(gates + 3 * size + k, o);
        store(next_c + k, now), store(next + k, now);
        store(h + k, o * activate(activation, now));
    }
}

/* The gradients of the gates, in their place, and of the c before, in place of that after. c: the c before. */
static void lstm_row_backward(const layer *cell, real *gates, const real *c, const real *next, const real *dh,
                              real *dc) {
    i64 size = cell->cells;
    const real *peep = cell->peepholes;
    for (i64 k = 0; k < size; k += LANES) {
        vec before = load(c + k), now = load(next + k), i = load(gates + k), j = load(gates + size + k);
        vec f = load(gates + 2 * size + k), o = load(gates + 3 * size + k);
        vec out = activate(cell->activation, now), d_h = load(dh + k), d_o = d_h * out * o * (all(1) - o);
        vec d_c = load(dc + k) + activate_backward(cell->activation, out, d_h * o);
        if (peep) d_c = fma_(d_o, load(peep + 2 * size + k), d_c);
        d_c = clip_backward(fma_(i, j, f * before), d_c, cell->cell_clip);
        vec d_i = d_c * j * i * (all(1) - i), d_f = d_c * before * f * (all(1) - f);
        store(gates + k, d_i), store(gates + size + k, activate_backward(cell->activation, j, d_c * i));
        store(gates + 2 * size + k, d_f), store(gates + 3 * size + k, d_o);
        d_c *= f;
        if (peep) d_c = fma_(d_i, load(peep + k), fma_(d_f, load(peep + size + k), d_c));
        store(dc + k, d_c);
    }
}

/* Add what the gates' gradients of one row say of the peepholes. */
static void peepholes_backward(const layer *cell, const real *d_gates, const real *c, const real *next) {
    i64 size = cell->cells;
    for (i64 k = 0; k < size; k += LANES) {
        real *d = cell->d_peepholes + k;
        store(d, fma_(load(d_gates + k), load(c + k), load(d)));
        store(d + size, fma_(load(d_gates + 2 * size + k), load(c + k), load(d + size)));
        store(d + 2 * size, fma_(load(d_gates + 3 * size + k), load(next + k), load(d + 2 * size)));
    }
}

/* h = clip(P h), from the rows of `again` [batch][cells]. */
static void project(const layer *cell, const cell_states *states, const rows *who, layer_work work) {
    i64 size = cell->size;
    apply_linear(&cell->second, work.again, who->batch, work.candidates);
    for (i64 b = 0; b < who->batch; b++)
        for (i64 k = 0; k < size; k += LANES) {
            vec h = load(work.candidates + b * cell->second.outputs + k);
            store(states->h + who->to[b] * size + k, clipped(h, cell->projection_clip));
        }
}

static void lstm(const layer *cell, const cell_states *states, const rows *who, layer_work work) {
    i64 size = cell->cells;
    for (i64 b = 0; b < who->batch; b++) {
        real *h = has_projection(cell) ? work.again + b * size : states->h + who->to[b] * size;
        if (cell->peepholes) memcpy(work.before + b * size, states->c + who->from[b] * size, size * sizeof(real));
        real *gates = work.products + b * cell->gates.outputs, *next = work.cell + b * size;
        const real *c = states->c + who->from[b] * size;
        real *next_c = states->c + who->to[b] * size;
        if (cell->activation == TANH) /* compiled apart, without a branch in its loop */
            lstm_row(cell, TANH, gates, c, h, next_c, next);
        else lstm_row(cell, cell->activation, gates, c, h, next_c, next);
    }
    if (has_projection(cell)) project(cell, states, who, work);
}

/* dh: [batch][size]; dc: [rows][cells], in place. spare: [batch][padded to panels]. */
static void lstm_backward(const layer *cell, const cell_states *states, const rows *who, layer_work work, real *dh,
                          real *dc, real *spare) {
    i64 size = cell->cells, d_size = size;
    if (has_projection(cell)) {
        i64 outputs = cell->second.outputs;
        for (i64 b = 0; b < who->batch; b++)
            for (i64 k = 0; k < cell->size; k += LANES) {
                real *h = work.candidates + b * outputs + k;
                store(h, clip_backward(load(h), load(dh + b * cell->size + k), cell->projection_clip));
            }
        linear_backward(&cell->second, work.candidates, who->batch, spare);
        dh = spare, d_size = padded_to_panels(size);
    }
    for (i64 b = 0; b < who->batch; b++)
        lstm_row_backward(cell, work.products + b * cell->gates.outputs, states->c + who->from[b] * size,
                          work.cell + b * size, dh + b * d_size, dc + who->row[b] * size);
}

/* ---- GRU ---- */

/* r, u = sigmoid;  candidate = act(W [x, r h]), act: the activation of the cell;  h = u h + (1 - u) candidate. */
static void gru(const layer *cell, const cell_states *states, const rows *who, layer_work work) {
    i64 size = cell->size, inputs = cell->gates.inputs, outputs = cell->gates.outputs, second = cell->second.outputs;
    memcpy(work.again, work.seen, who->batch * inputs * sizeof(real));
    for (i64 b = 0; b < who->batch; b++) {
        real *reset = work.again + (b + 1) * inputs - size;
        for (i64 k = 0; k < size; k += LANES)
            store(reset + k, sigmoid_(load(work.products + b * outputs + k)) * load(reset + k));
    }
    apply_linear(&cell->second, work.again, who->batch, work.candidates);
    for (i64 b = 0; b < who->batch; b++)
        for (i64 k = 0; k < size; k += LANES) {
            vec update = sigmoid_(load(work.products + b * outputs + size + k));
            vec candidate = activate(cell->activation, load(work.candidates + b * second + k));
            vec h = load(states->h + who->from[b] * size + k);
            store(states->h + who->to[b] * size + k, fma_(update, h - candidate, candidate));
        }
}

/* dh: [batch][size], replaced by what of the gradient of the h before does not come by the gates. spare: the gradient
 * of `again`, [batch][inputs, padded to panels]. */
static void gru_backward(const layer *cell, const cell_states *states, const rows *who, layer_work work, real *dh,
                         real *spare) {
    i64 size = cell->size, outputs = cell->gates.outputs, second = cell->second.outputs;
    i64 seen = padded_to_panels(cell->gates.inputs), own = cell->gates.inputs - size;
    for (i64 b = 0; b < who->batch; b++) {
        const real *h = states->h + who->from[b] * size;
        for (i64 k = 0; k < size; k += LANES) {
            real *x = work.candidates + b * second + k, *gate = work.products + b * outputs + size + k;
            vec candidate = activate(cell->activation, load(x)), update = sigmoid_(load(gate));
            vec d = load(dh + b * size + k);
            store(x, activate_backward(cell->activation, candidate, d * (all(1) - update)));
            store(gate, d * (load(h + k) - candidate) * update * (all(1) - update));
            store(dh + b * size + k, d * update);
        }
    }
    linear_backward(&cell->second, work.candidates, who->batch, spare);
    for (i64 b = 0; b < who->batch; b++) {
        const real *h = states->h + who->from[b] * size, *d_kept = spare + b * seen + own;
        for (i64 k = 0; k < size; k += LANES) {
            real *gate = work.products + b * outputs + k, *d = dh + b * size + k;
            vec reset = sigmoid_(load(gate));
            store(gate, load(d_kept + k) * load(h + k) * reset * (all(1) - reset));
            store(d, fma_(load(d_kept + k), reset, load(d)));
        }
    }
}

/* ---- A layer ---- */

INLINE void add_to(real *to, const real *from, i64 size) {
    for (i64 k = 0; k < size; k += LANES) store(to + k, load(to + k) + load(from + k));
}

/* Step one layer. Its inputs lie in work.seen. */
static void step_layer(const layer *cell, const cell_states *states, const rows *who, layer_work work) {
    i64 size = cell->size, inputs = cell->gates.inputs, outputs = cell->gates.outputs;
    for (i64 b = 0; cell->kind != FEED_FORWARD && b < who->batch; b++)
        memcpy(work.seen + (b + 1) * inputs - size, states->h + who->from[b] * size, size * sizeof(real));
    apply_linear(&cell->gates, work.seen, who->batch, work.products);
    if (cell->kind == LSTM) lstm(cell, states, who, work);
    if (cell->kind == GRU) gru(cell, states, who, work);
    for (i64 b = 0; (cell->kind == BASIC_RNN || cell->kind == FEED_FORWARD) && b < who->batch; b++) {
        real *y = work.products + b * outputs;
        for (i64 k = 0; k < outputs; k += LANES) store(y + k, activate(cell->activation, load(y + k)));
        if (cell->kind == BASIC_RNN) memcpy(states->h + who->to[b] * size, y, size * sizeof(real));
    }
}

/* From the gradient of what a layer put out, d_out [batch][size], which is changed, and those of the states after, to
 * those of its products, in their place, of the states before, in place, and of what it saw, d_seen [batch][inputs,
 * padded to panels]. clip: the model's. spare: as much as d_seen, and a row of cells for each. */
static void layer_backward(const layer *cell, const cell_states *states, const cell_states *d_states, double clip,
                           const rows *who, layer_work work, real *d_out, real *d_seen, real *spare) {
    i64 size = cell->size, outputs = cell->gates.outputs, inputs = cell->gates.inputs;
    i64 seen = padded_to_panels(inputs);
    for (i64 b = 0; d_states->h && b < who->batch; b++)
        for (i64 k = 0; k < size; k += LANES) {
            vec after = load(states->h + who->to[b] * size + k), d = load(d_states->h + who->row[b] * size + k);
            store(d_out + b * size + k, load(d_out + b * size + k) + clipped_backward(after, d, clip));
        }
    for (i64 b = 0; d_states->c && b < who->batch; b++)
        for (i64 k = 0; k < cell->cells; k += LANES) {
            real *d = d_states->c + who->row[b] * cell->cells + k;
            store(d, clip_backward(load(work.cell + b * cell->cells + k), load(d), clip));
        }
    if (cell->kind == LSTM) lstm_backward(cell, states, who, work, d_out, d_states->c, spare);
    if (cell->kind == GRU) gru_backward(cell, states, who, work, d_out, spare);
    for (i64 b = 0; (cell->kind == BASIC_RNN || cell->kind == FEED_FORWARD) && b < who->batch; b++)
        for (i64 k = 0; k < size; k += LANES) {
            real *y = work.products + b * outputs + k;
            store(y, activate_backward(cell->activation, load(y), load(d_out + b * size + k)));
        }
    linear_backward(&cell->gates, work.products, who->batch, d_seen);
    for (i64 b = 0; d_states->h && b < who->batch; b++) {
        real *d_h = d_states->h + who->row[b] * size;
        memcpy(d_h, d_seen + b * seen + inputs - size, size * sizeof(real));
        if (cell->kind != GRU) continue;
        add_to(d_seen + b * seen, spare + b * seen, inputs - size);
        add_to(d_h, d_out + b * size, size);
    }
}

#endif
