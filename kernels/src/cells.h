/* The cells of controllers, models/cells.py: a step, and its gradients. */

#ifndef ENGRAM_CELLS_H
#define ENGRAM_CELLS_H

#include "linear.h"

enum cell_kind { BASIC_RNN, GRU, LSTM, FEED_FORWARD };
enum activation { TANH, SIGMOID, RELU, ELU, SOFTSIGN, LINEAR, IDENTITY, SOFTMAX };

/* The inputs of a product, side by side: outputs of layers, by their numbers, or INPUTS, which stands for the inputs of
 * the model and the vectors read. size: numbers in all parts. */
typedef struct {
    i64 count, size;
    const i64 *parts;
} sources;

#define INPUTS (-1)

/* One layer of the controller. Sizes are padded. second is a GRU's candidate, or an LSTM's projection. Bounds of 0 are
 * none. peepholes: [3][cells], or none. below: its inputs, without its own h. */
typedef struct {
    i64 kind, activation, size, cells;
    double forget_bias, cell_clip, projection_clip;
    sources below;
    linear gates, second;
    const real *peepholes;
    real *d_peepholes;
} layer;

/* The states of a layer in the slots of an arena, [slots][size] and [slots][cells], or their gradients in an arena of
 * gradients. */
typedef struct {
    real *h, *c;
} cell_states;

/* The rows of a batch that are stepped: their numbers, and the slots of their states before and after, which may be the
 * same: [count] each. */
typedef struct {
    i64 count;
    const i64 *row, *from, *to;
} stepped_rows;

/* The activations of a layer that its gradients need, row by row. inputs: of its product, its own h at the end;
 * products: the outputs; second_inputs, second_products: the same for the second product; cell: c before the model
 * clips it; before: c before the step, where there are peepholes. */
typedef struct {
    real *inputs, *products, *second_inputs, *second_products, *cell, *before;
} layer_workspace;

static layer_workspace allocate_layer_workspace(const layer *cell, row_range of, allocator *from) {
    layer_workspace w;
    w.inputs = allocate_rows(from, of, cell->gates.inputs);
    w.products = allocate_rows(from, of, cell->gates.outputs);
    w.second_inputs = allocate_rows(from, of, cell->second.inputs);
    w.second_products = allocate_rows(from, of, cell->second.outputs);
    w.cell = allocate_rows(from, of, cell->kind == LSTM ? cell->cells : 0);
    w.before = allocate_rows(from, of, cell->peepholes ? cell->cells : 0);
    return w;
}

/* The gradients in a layer's step. inputs: of its product, [batch][inputs, padded to panels]; second_inputs: the same
 * for the second product. */
typedef struct {
    real *inputs, *second_inputs;
} layer_gradients;

static layer_gradients allocate_layer_gradients(const layer *cell, i64 batch, allocator *from) {
    layer_gradients d;
    d.inputs = allocate(from, batch * padded_to_panels(cell->gates.inputs));
    d.second_inputs = allocate(from, batch * padded_to_panels(cell->second.inputs));
    return d;
}

/* All activations but softmax, which is no function of single numbers. */
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

/* dx = f'(x) dy of an activation y = f(x). */
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

/* The gradient of x, clipped to the bound: dy where |x| <= bound, else 0. */
INLINE vec clip_backward(vec x, vec dy, double bound) {
    return bound > 0 ? choose(abs_(x) <= all((real)bound), dy, all(0)) : dy;
}

/* The gradient of x where only y, the clipped x, is known: dy where |y| < bound, else 0. */
INLINE vec clipped_backward(vec y, vec dy, double bound) {
    return bound > 0 ? choose(abs_(y) < all((real)bound), dy, all(0)) : dy;
}

INLINE i64 has_projection(const layer *cell) { return cell->kind == LSTM && cell->second.weights; }

/* Return the output of a layer for a row: its new h, or where it has none its activated products. */
INLINE const real *layer_output(const layer *cell, const cell_states *states, layer_workspace w, i64 row, i64 slot) {
    return cell->kind == FEED_FORWARD ? w.products + row * cell->gates.outputs : states->h + slot * cell->size;
}

/* ---- LSTM ---- */

/* i, f, o = sigmoid, j = act;  c = f c + i j;  h = o act(c), act: the activation of the cell; peepholes let i and f see
 * the old c, o the new one. gates: i, j, f, o, [4][cells], left activated. kept: as next_c, which the model may clip.
 */
INLINE void lstm_row(const layer *cell, const i64 activation, real *gates, const real *c, real *h, real *next_c,
                     real *kept) {
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
        store(next_c + k, now), store(kept + k, now);
        store(h + k, o * activate(activation, now));
    }
}

/* Replace the gates by their gradients, and dc, of the c after, by that of the c before. c: before the step; next:
 * after it, not yet clipped by the model. */
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

/* Add one row's gradients of the peepholes, from those of the gates. c, next: as for lstm_row_backward. */
static void peepholes_backward(const layer *cell, const real *d_gates, const real *c, const real *next) {
    i64 size = cell->cells;
    for (i64 k = 0; k < size; k += LANES) {
        real *d = cell->d_peepholes + k;
        store(d, fma_(load(d_gates + k), load(c + k), load(d)));
        store(d + size, fma_(load(d_gates + 2 * size + k), load(c + k), load(d + size)));
        store(d + 2 * size, fma_(load(d_gates + 3 * size + k), load(next + k), load(d + 2 * size)));
    }
}

/* h = clip(P h), of the rows of w.second_inputs [batch][cells]. */
static void project(const layer *cell, const cell_states *states, const stepped_rows *rows, layer_workspace w) {
    i64 size = cell->size;
    apply_linear(&cell->second, w.second_inputs, rows->count, w.second_products);
    for (i64 b = 0; b < rows->count; b++)
        for (i64 k = 0; k < size; k += LANES) {
            vec h = load(w.second_products + b * cell->second.outputs + k);
            store(states->h + rows->to[b] * size + k, clipped(h, cell->projection_clip));
        }
}

/* From dh [batch][size] to the gradient of the h before its projection, d_second_inputs: [batch][cells, padded to
 * panels]. */
static void project_backward(const layer *cell, const stepped_rows *rows, layer_workspace w, const real *dh,
                             real *d_second_inputs) {
    i64 outputs = cell->second.outputs;
    for (i64 b = 0; b < rows->count; b++)
        for (i64 k = 0; k < cell->size; k += LANES) {
            real *h = w.second_products + b * outputs + k;
            store(h, clip_backward(load(h), load(dh + b * cell->size + k), cell->projection_clip));
        }
    linear_backward(&cell->second, w.second_products, rows->count, d_second_inputs);
}

static void lstm(const layer *cell, const cell_states *states, const stepped_rows *rows, layer_workspace w) {
    i64 size = cell->cells;
    for (i64 b = 0; b < rows->count; b++) {
        real *h = has_projection(cell) ? w.second_inputs + b * size : states->h + rows->to[b] * size;
        if (cell->peepholes) memcpy(w.before + b * size, states->c + rows->from[b] * size, size * sizeof(real));
        real *gates = w.products + b * cell->gates.outputs, *kept = w.cell + b * size;
        const real *c = states->c + rows->from[b] * size;
        real *next_c = states->c + rows->to[b] * size;
        if (cell->activation == TANH) /* compiled separately, without a branch in its loop */
            lstm_row(cell, TANH, gates, c, h, next_c, kept);
        else lstm_row(cell, cell->activation, gates, c, h, next_c, kept);
    }
    if (has_projection(cell)) project(cell, states, rows, w);
}

/* dh: [batch][size]; dc: [rows][cells], replaced by the gradient of the c before. */
static void lstm_backward(const layer *cell, const cell_states *states, const stepped_rows *rows, layer_workspace w,
                          const real *dh, real *dc, layer_gradients d) {
    i64 size = cell->cells, d_size = size;
    if (has_projection(cell)) {
        project_backward(cell, rows, w, dh, d.second_inputs);
        dh = d.second_inputs, d_size = padded_to_panels(size);
    }
    for (i64 b = 0; b < rows->count; b++)
        lstm_row_backward(cell, w.products + b * cell->gates.outputs, states->c + rows->from[b] * size,
                          w.cell + b * size, dh + b * d_size, dc + rows->row[b] * size);
}

/* ---- GRU ---- */

/* r, u = sigmoid;  candidate = act(W [x, r h]), act: the activation of the cell;  h = u h + (1 - u) candidate. */
static void gru(const layer *cell, const cell_states *states, const stepped_rows *rows, layer_workspace w) {
    i64 size = cell->size, inputs = cell->gates.inputs, outputs = cell->gates.outputs, second = cell->second.outputs;
    memcpy(w.second_inputs, w.inputs, rows->count * inputs * sizeof(real));
    for (i64 b = 0; b < rows->count; b++) {
        real *reset = w.second_inputs + (b + 1) * inputs - size;
        for (i64 k = 0; k < size; k += LANES)
            store(reset + k, sigmoid_(load(w.products + b * outputs + k)) * load(reset + k));
    }
    apply_linear(&cell->second, w.second_inputs, rows->count, w.second_products);
    for (i64 b = 0; b < rows->count; b++)
        for (i64 k = 0; k < size; k += LANES) {
            vec update = sigmoid_(load(w.products + b * outputs + size + k));
            vec candidate = activate(cell->activation, load(w.second_products + b * second + k));
            vec h = load(states->h + rows->from[b] * size + k);
            store(states->h + rows->to[b] * size + k, fma_(update, h - candidate, candidate));
        }
}

/* dh: [batch][size], replaced by the part of the gradient of the h before that does not pass through the gates. */
static void gru_backward(const layer *cell, const cell_states *states, const stepped_rows *rows, layer_workspace w,
                         real *dh, layer_gradients gradients) {
    i64 size = cell->size, outputs = cell->gates.outputs, second = cell->second.outputs;
    i64 width = padded_to_panels(cell->gates.inputs), own = cell->gates.inputs - size;
    for (i64 b = 0; b < rows->count; b++) {
        const real *h = states->h + rows->from[b] * size;
        for (i64 k = 0; k < size; k += LANES) {
            real *x = w.second_products + b * second + k, *gate = w.products + b * outputs + size + k;
            vec candidate = activate(cell->activation, load(x)), update = sigmoid_(load(gate));
            vec d = load(dh + b * size + k);
            store(x, activate_backward(cell->activation, candidate, d * (all(1) - update)));
            store(gate, d * (load(h + k) - candidate) * update * (all(1) - update));
            store(dh + b * size + k, d * update);
        }
    }
    linear_backward(&cell->second, w.second_products, rows->count, gradients.second_inputs);
    for (i64 b = 0; b < rows->count; b++) {
        const real *h = states->h + rows->from[b] * size, *d_reset_h = gradients.second_inputs + b * width + own;
        for (i64 k = 0; k < size; k += LANES) {
            real *gate = w.products + b * outputs + k, *d = dh + b * size + k;
            vec reset = sigmoid_(load(gate));
            store(gate, load(d_reset_h + k) * load(h + k) * reset * (all(1) - reset));
            store(d, fma_(load(d_reset_h + k), reset, load(d)));
        }
    }
}

/* ---- A layer ---- */

INLINE void add_to(real *to, const real *from, i64 size) {
    for (i64 k = 0; k < size; k += LANES) store(to + k, load(to + k) + load(from + k));
}

/* Step one layer, whose inputs from below lie in w.inputs. */
static void step_layer(const layer *cell, const cell_states *states, const stepped_rows *rows, layer_workspace w) {
    i64 size = cell->size, inputs = cell->gates.inputs, outputs = cell->gates.outputs;
    for (i64 b = 0; cell->kind != FEED_FORWARD && b < rows->count; b++)
        memcpy(w.inputs + (b + 1) * inputs - size, states->h + rows->from[b] * size, size * sizeof(real));
    apply_linear(&cell->gates, w.inputs, rows->count, w.products);
    if (cell->kind == LSTM) lstm(cell, states, rows, w);
    if (cell->kind == GRU) gru(cell, states, rows, w);
    for (i64 b = 0; (cell->kind == BASIC_RNN || cell->kind == FEED_FORWARD) && b < rows->count; b++) {
        real *y = w.products + b * outputs;
        for (i64 k = 0; k < outputs; k += LANES) store(y + k, activate(cell->activation, load(y + k)));
        if (cell->kind == BASIC_RNN) memcpy(states->h + rows->to[b] * size, y, size * sizeof(real));
    }
}

/* d_out: of the layer's output, [batch][size], which is changed. d_states: of the states after, replaced by those of
 * the states before. The products are replaced by their gradients, and d.inputs is set. clip: the model's. */
static void layer_backward(const layer *cell, const cell_states *states, const cell_states *d_states, double clip,
                           const stepped_rows *rows, layer_workspace w, real *d_out, layer_gradients d) {
    i64 size = cell->size, outputs = cell->gates.outputs, inputs = cell->gates.inputs;
    i64 width = padded_to_panels(inputs);
    for (i64 b = 0; d_states->h && b < rows->count; b++)
        for (i64 k = 0; k < size; k += LANES) {
            vec after = load(states->h + rows->to[b] * size + k), dh = load(d_states->h + rows->row[b] * size + k);
            store(d_out + b * size + k, load(d_out + b * size + k) + clipped_backward(after, dh, clip));
        }
    for (i64 b = 0; d_states->c && b < rows->count; b++)
        for (i64 k = 0; k < cell->cells; k += LANES) {
            real *dc = d_states->c + rows->row[b] * cell->cells + k;
            store(dc, clip_backward(load(w.cell + b * cell->cells + k), load(dc), clip));
        }
    if (cell->kind == LSTM) lstm_backward(cell, states, rows, w, d_out, d_states->c, d);
    if (cell->kind == GRU) gru_backward(cell, states, rows, w, d_out, d);
    for (i64 b = 0; (cell->kind == BASIC_RNN || cell->kind == FEED_FORWARD) && b < rows->count; b++)
        for (i64 k = 0; k < size; k += LANES) {
            real *y = w.products + b * outputs + k;
            store(y, activate_backward(cell->activation, load(y), load(d_out + b * size + k)));
        }
    linear_backward(&cell->gates, w.products, rows->count, d.inputs);
    for (i64 b = 0; d_states->h && b < rows->count; b++) {
        real *d_h = d_states->h + rows->row[b] * size;
        memcpy(d_h, d.inputs + b * width + inputs - size, size * sizeof(real));
        if (cell->kind != GRU) continue;
        add_to(d.inputs + b * width, d.second_inputs + b * width, inputs - size);
        add_to(d_h, d_out + b * size, size);
    }
}

#endif
