/* Linear layers: y = W x + b for the rows of a batch, and the gradients of x, W and b. */

#ifndef ENGRAM_LINEAR_H
#define ENGRAM_LINEAR_H

#include "allocator.h"

#define PANEL 16

/* Weights lie in panels of 16 outputs, [outputs / 16][inputs][16]; inputs are padded to a multiple of eight, outputs to
 * one of sixteen. Training also needs the transpose, in panels of 16 inputs, and the gradients, which lie as the
 * weights do. */
typedef struct {
    i64 inputs, outputs;
    const real *weights, *bias, *transposed;
    real *d_weights, *d_bias;
} linear;

INLINE i64 padded(i64 size) { return (size + LANES - 1) / LANES * LANES; }
INLINE i64 padded_wide(i64 size) { return (size + WIDE - 1) / WIDE * WIDE; }
INLINE i64 padded_to_panels(i64 size) { return (size + PANEL - 1) / PANEL * PANEL; }

/* Rows and panels of a tile, whose sums are kept in registers: as many as the processor has. */
#ifdef __AVX512F__
#define TILE_ROWS 8
#define TILE_PANELS 2
#else
#define TILE_ROWS 6
#define TILE_PANELS 1
#endif
#define TILE (TILE_ROWS * TILE_PANELS)

/* A tile of `rows` rows and `panels` panels of outputs, kept in registers: each output accumulates over the inputs in
 * their order, whatever the tile. */
INLINE void apply_tile(const linear *layer, const real *in, real *out, i64 panel, const i64 rows, const i64 panels) {
    i64 inputs = layer->inputs, outputs = layer->outputs;
    const real *weights = layer->weights + panel * inputs;
    wide_vec total[TILE];
#pragma clang loop unroll(full)
    for (i64 t = 0; t < rows * panels; t++)
        total[t] = layer->bias ? load_wide(layer->bias + panel + t % panels * PANEL) : all_wide(0);
    for (i64 k = 0; k < inputs; k++)
#pragma clang loop unroll(full)
        for (i64 r = 0; r < rows; r++)
#pragma clang loop unroll(full)
            for (i64 p = 0; p < panels; p++) {
                wide_vec *t = total + r * panels + p;
                *t = fma_(all_wide(in[r * inputs + k]), load_wide(weights + (p * inputs + k) * PANEL), *t);
            }
#pragma clang loop unroll(full)
    for (i64 r = 0; r < rows; r++)
#pragma clang loop unroll(full)
        for (i64 p = 0; p < panels; p++) store_wide(out + r * outputs + panel + p * PANEL, total[r * panels + p]);
}

/* Apply all panels to `rows` rows, as many panels at once as fit the registers. */
INLINE void apply_rows(const linear *layer, const real *in, real *out, const i64 rows) {
    i64 panel = 0, outputs = layer->outputs;
    const i64 panels = TILE / rows < 4 ? TILE / rows : 4;
    for (; panel + panels * PANEL <= outputs; panel += panels * PANEL) apply_tile(layer, in, out, panel, rows, panels);
    for (; panel < outputs; panel += PANEL) apply_tile(layer, in, out, panel, rows, 1);
}

/* out = W in + b. in: [batch][inputs]; out: [batch][outputs]. The rows of a tile share its panels of weights. The rows
 * left over are computed together; the fewer they are, the more panels at once. */
static void apply_linear(const linear *layer, const real *in, i64 batch, real *out) {
    i64 inputs = layer->inputs, outputs = layer->outputs, tiled = batch / TILE_ROWS * TILE_ROWS, panel = 0;
    for (; tiled && panel + TILE_PANELS * PANEL <= outputs; panel += TILE_PANELS * PANEL)
        for (i64 row = 0; row < tiled; row += TILE_ROWS)
            apply_tile(layer, in + row * inputs, out + row * outputs, panel, TILE_ROWS, TILE_PANELS);
    for (; tiled && panel < outputs; panel += PANEL)
        for (i64 row = 0; row < tiled; row += TILE_ROWS)
            apply_tile(layer, in + row * inputs, out + row * outputs, panel, TILE_ROWS, 1);
    in += tiled * inputs, out += tiled * outputs;
    switch (batch - tiled) {
#define LEFT(rows)                                                                                                     \
    case rows: apply_rows(layer, in, out, rows); break
        LEFT(1);
        LEFT(2);
        LEFT(3);
        LEFT(4);
        LEFT(5);
#if TILE_ROWS > 6
        LEFT(6);
        LEFT(7);
#endif
#undef LEFT
    }
}

/* dx = W^T dy. d_out: [batch][outputs]; d_in: [batch][inputs, padded to panels]. */
static void linear_backward(const linear *layer, const real *d_out, i64 batch, real *d_in) {
    linear back = {.inputs = layer->outputs, .outputs = padded_to_panels(layer->inputs), .weights = layer->transposed};
    apply_linear(&back, d_out, batch, d_in);
}

/* The inputs of a layer over a sequence, or the gradients of its outputs: [steps][parts][batch][size], the steps
 * `stride` numbers apart. taken: [batch], the steps that a row has, from the first on; the others are of no account. */
typedef struct {
    i64 steps, parts, batch, stride;
    const i64 *taken;
} sequence;

/* Rows at once: enough to pay for loading a tile, few enough to stay in the cache. */
#define BLOCK_ROWS 64

/* Some rows of a sequence in the order in which they are added, in runs that lie side by side. rows: of each run; x, y:
 * the inputs and the gradients of the outputs in its first row. */
typedef struct {
    i64 runs, count, rows[BLOCK_ROWS];
    const real *x[BLOCK_ROWS], *y[BLOCK_ROWS];
} row_block;

/* Add a row to a block: to its last run, if the row lies behind it. */
INLINE void add_row(const linear *layer, row_block *rows, const real *x, const real *y) {
    i64 run = rows->runs - 1, at = run < 0 ? 0 : rows->rows[run];
    if (run < 0 || x != rows->x[run] + at * layer->inputs || y != rows->y[run] + at * layer->outputs) {
        run = rows->runs++;
        rows->rows[run] = 0, rows->x[run] = x, rows->y[run] = y;
    }
    rows->rows[run]++, rows->count++;
}

/* dW += sum dy x^T over the rows of a block, for `panels` panels of outputs and `count` inputs from k on. */
INLINE void weights_tile(const linear *layer, const row_block *rows, i64 panel, i64 k, const i64 count,
                         const i64 panels) {
    i64 inputs = layer->inputs;
    real *d_weights = layer->d_weights + panel * inputs + k * PANEL;
    wide_vec total[TILE];
#pragma clang loop unroll(full)
    for (i64 t = 0; t < count * panels; t++) total[t] = load_wide(d_weights + (t / count * inputs + t % count) * PANEL);
    for (i64 run = 0; run < rows->runs; run++) {
        const real *x = rows->x[run] + k, *y = rows->y[run] + panel;
        for (i64 row = 0; row < rows->rows[run]; row++, x += inputs, y += layer->outputs)
#pragma clang loop unroll(full)
            for (i64 c = 0; c < count; c++)
#pragma clang loop unroll(full)
                for (i64 p = 0; p < panels; p++) {
                    wide_vec *t = total + p * count + c;
                    *t = fma_(all_wide(x[c]), load_wide(y + p * PANEL), *t);
                }
    }
#pragma clang loop unroll(full)
    for (i64 t = 0; t < count * panels; t++) store_wide(d_weights + (t / count * inputs + t % count) * PANEL, total[t]);
}

/* dW += sum dy x^T for `panels` panels of outputs and all inputs. */
INLINE void weights_panels(const linear *layer, const row_block *rows, i64 panel, const i64 panels) {
    i64 k = 0;
    for (; k + TILE_ROWS <= layer->inputs; k += TILE_ROWS) weights_tile(layer, rows, panel, k, TILE_ROWS, panels);
    for (; k < layer->inputs; k += 2) weights_tile(layer, rows, panel, k, 2, panels);
}

/* dW += sum dy x^T, db += sum dy over the rows of a block, for the outputs from `first` to `last`. */
static void weights_block(const linear *layer, const row_block *rows, i64 first, i64 last) {
    i64 panel = first;
    for (; panel + TILE_PANELS * PANEL <= last; panel += TILE_PANELS * PANEL)
        weights_panels(layer, rows, panel, TILE_PANELS);
    for (; panel < last; panel += PANEL) weights_panels(layer, rows, panel, 1);
    for (i64 run = 0; run < rows->runs; run++)
        for (i64 row = 0; row < rows->rows[run]; row++)
            for (i64 k = first; k < last; k += LANES) {
                vec d = load(rows->y[run] + row * layer->outputs + k);
                store(layer->d_bias + k, load(layer->d_bias + k) + d);
            }
}

/* dW += sum dy x^T, db += sum dy over the steps, from the last to the first, row by row: the order of the backward
 * pass, so that a sequence may be added segment by segment. Part `part` of `parts` of the panels is computed. */
static void weights_backward(const linear *layer, sequence over, const real *in, const real *d_out, i64 part,
                             i64 parts) {
    i64 panels = layer->outputs / PANEL;
    i64 first = panels * part / parts * PANEL, last = panels * (part + 1) / parts * PANEL;
    row_block rows = {0};
    for (i64 step = over.steps - 1; step >= 0; step--)
        for (i64 row = 0; row < over.parts * over.batch; row++) {
            if (step >= over.taken[row % over.batch]) continue;
            add_row(layer, &rows, in + step * over.stride + row * layer->inputs,
                    d_out + step * over.stride + row * layer->outputs);
            if (rows.count < BLOCK_ROWS) continue;
            weights_block(layer, &rows, first, last);
            rows.runs = rows.count = 0;
        }
    weights_block(layer, &rows, first, last);
}

#endif
