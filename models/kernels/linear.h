/* Linear layers: y = W x + b for the rows of a batch, and the gradients of x, W and b. */

#ifndef ENGRAM_LINEAR_H
#define ENGRAM_LINEAR_H

#include "vector.h"

#define PANEL 16

typedef int64_t i64;

/* Weights lie in panels of 16 outputs, [outputs / 16][inputs][16]; inputs are padded to a multiple of eight, outputs to
 * one of sixteen. For training also their transpose, in panels of 16 inputs, and their gradients, laid out as they are. */
typedef struct {
    i64 inputs, outputs;
    const real *weights, *bias, *transposed;
    real *d_weights, *d_bias;
} linear;

INLINE i64 padded(i64 size) { return (size + LANES - 1) / LANES * LANES; }
INLINE i64 padded_to_panels(i64 size) { return (size + PANEL - 1) / PANEL * PANEL; }

/* A tile of `rows` rows and `panels` panels of outputs, kept in registers: each output accumulates over the inputs in
 * their order, whatever the tile. */
INLINE void apply_tile(const linear *layer, const real *in, real *out, i64 panel, const i64 rows, const i64 panels) {
    i64 inputs = layer->inputs, outputs = layer->outputs;
    const real *weights = layer->weights + panel * inputs;
    vec total[12];
#pragma clang loop unroll(full)
    for (i64 t = 0; t < rows * panels * 2; t++)
        total[t] = layer->bias ? load(layer->bias + panel + t % (panels * 2) * LANES) : all(0);
    for (i64 k = 0; k < inputs; k++)
#pragma clang loop unroll(full)
        for (i64 r = 0; r < rows; r++) {
            vec value = all(in[r * inputs + k]);
#pragma clang loop unroll(full)
            for (i64 p = 0; p < panels; p++) {
                const real *w = weights + (p * inputs + k) * PANEL;
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

/* The same for all panels, so many at once. */
INLINE void apply_rows(const linear *layer, const real *in, real *out, const i64 rows, const i64 panels) {
    i64 panel = 0, outputs = layer->outputs;
    for (; panel + panels * PANEL <= outputs; panel += panels * PANEL) apply_tile(layer, in, out, panel, rows, panels);
    for (; panel < outputs; panel += PANEL) apply_tile(layer, in, out, panel, rows, 1);
}

/* Rows of `in` [batch][inputs] to rows of `out` [batch][outputs]. Six rows share a panel of weights; of those that are
 * left over, the fewer they are, the more panels are taken at once. */
static void apply_linear(const linear *layer, const real *in, i64 batch, real *out) {
    i64 inputs = layer->inputs, outputs = layer->outputs, tiled = batch / 6 * 6;
    for (i64 panel = 0; tiled && panel < outputs; panel += PANEL)
        for (i64 row = 0; row < tiled; row += 6)
            apply_tile(layer, in + row * inputs, out + row * outputs, panel, 6, 1);
    in += tiled * inputs, out += tiled * outputs;
    switch (batch - tiled) {
    case 5: apply_rows(layer, in, out, 5, 1); break;
    case 4: apply_rows(layer, in, out, 4, 1); break;
    case 3: apply_rows(layer, in, out, 3, 2); break;
    case 2: apply_rows(layer, in, out, 2, 3); break;
    case 1: apply_rows(layer, in, out, 1, 4); break;
    }
}

/* dx = W^T dy. d_out: [batch][outputs]; d_in: [batch][inputs, padded to panels]. */
static void linear_backward(const linear *layer, const real *d_out, i64 batch, real *d_in) {
    linear back = {.inputs = layer->outputs, .outputs = padded_to_panels(layer->inputs), .weights = layer->transposed};
    apply_linear(&back, d_out, batch, d_in);
}

/* Where the inputs of a layer, or the gradients of its outputs, lie: [steps][batch][its size], `stride` numbers from step
 * to step. */
typedef struct {
    i64 steps, batch, stride;
} sequence;

/* dW += sum dy x^T over some steps, for one panel of outputs and `count` inputs from k on. */
INLINE void weights_tile(const linear *layer, const sequence *over, const real *in, const real *d_out, i64 panel, i64 k,
                         const i64 count) {
    real *d_weights = layer->d_weights + panel * layer->inputs + k * PANEL;
    vec total[12];
#pragma clang loop unroll(full)
    for (i64 t = 0; t < 2 * count; t++) total[t] = load(d_weights + t * LANES);
    for (i64 step = 0; step < over->steps; step++) {
        const real *x = in + step * over->stride + k, *y = d_out + step * over->stride + panel;
        for (i64 row = 0; row < over->batch; row++, x += layer->inputs, y += layer->outputs) {
            vec low = load(y), high = load(y + LANES);
#pragma clang loop unroll(full)
            for (i64 c = 0; c < count; c++) {
                vec value = all(x[c]);
                total[2 * c] = fma_(value, low, total[2 * c]);
                total[2 * c + 1] = fma_(value, high, total[2 * c + 1]);
            }
        }
    }
#pragma clang loop unroll(full)
    for (i64 t = 0; t < 2 * count; t++) store(d_weights + t * LANES, total[t]);
}

/* Add to the gradients of weights and biases what the rows of some steps say, step after step, row after row. Only the
 * part `share` of `shares` of the panels is done. */
static void weights_backward(const linear *layer, sequence over, const real *in, const real *d_out, i64 share,
                             i64 shares) {
    i64 inputs = layer->inputs, panels = layer->outputs / PANEL, steps = over.steps;
    i64 first = panels * share / shares * PANEL, last = panels * (share + 1) / shares * PANEL;
    i64 block = over.batch < 64 ? 64 / over.batch : 1; /* rows enough to pay for loading a tile, few enough to stay near */
    for (i64 step = 0; step < steps; step += block) {
        over.steps = steps - step < block ? steps - step : block;
        const real *x = in + step * over.stride, *y = d_out + step * over.stride;
        for (i64 panel = first; panel < last; panel += PANEL) {
            i64 k = 0;
            for (; k + 6 <= inputs; k += 6) weights_tile(layer, &over, x, y, panel, k, 6);
            for (; k < inputs; k += 2) weights_tile(layer, &over, x, y, panel, k, 2);
        }
        for (i64 s = 0; s < over.steps; s++)
            for (i64 row = 0; row < over.batch; row++)
                for (i64 panel = first; panel < last; panel += LANES) {
                    vec d = load(y + s * over.stride + row * layer->outputs + panel);
                    store(layer->d_bias + panel, load(layer->d_bias + panel) + d);
                }
    }
}

#endif
