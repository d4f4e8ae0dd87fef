/* The steps of a DNC, an NTM or a recurrent cell for a list of sessions, in place in their slots of an arena; and whole
 * sequences with their gradients, for training.
 *
 * Names and equations are those of models/addressing.py, models/cells.py, models/dnc.py and models/ntm.py, which say
 * what is computed; these files say how to do it fast. A session's numbers are the same, bit for bit, whoever is
 * stepped with it: products accumulate over the inputs one by one, and everything else is done row by row. The
 * gradients of a mechanism stand below it, under its name and `_backward`; d_x is the gradient of x.
 *
 * Sizes in the code are rounded up to a multiple of eight, and rows of slots (`row`) to one of sixteen; what lies
 * beyond the size is zero and stays so; where the activation of a cell makes another number of 0, weights there are 0.
 */

#include <stddef.h>
#include <stdio.h>

#include "dnc.h"
#include "ntm.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* ---- What a step needs to put down ---- */

/* The arrays of one step, [total][width] each, seen from the first of the rows that are computed together. */
typedef struct {
    real *hidden;   /* what the controller put out, within the clip: the interface is taken of it */
    real *raw;      /* the interface vector as it comes; then its gradient */
    real *controls; /* the interface as the heads use it */
    real *joined;   /* what the outputs are taken of */
    real *outputs;  /* before their activation; then their gradient */
    real *group;    /* one group of classes, of one row */
    real *memory;   /* what the memory's part finds on its way: of each row where it is kept, or of one for all */
    real *spare;    /* for one row at a time */
} step_work;

/* Which of the rows: `first` to `first + batch` of `total`; whether each keeps what its memory's part finds. */
typedef struct {
    i64 total, first, keep;
} share;

INLINE real *take_rows(room *from, share of, i64 width) { return take_at(from, of.total * width, of.first * width); }

static i64 memory_work(const model *m) {
    room counted = {0};
    if (m->kind == DNC) lay_dnc(m, &counted);
    if (m->kind == NTM) lay_ntm(m, &counted);
    return counted.taken;
}

static layer_work lay_layer(const layer *cell, share of, room *from) {
    layer_work w;
    w.seen = take_rows(from, of, cell->gates.inputs), w.products = take_rows(from, of, cell->gates.outputs);
    w.again = take_rows(from, of, cell->second.inputs), w.candidates = take_rows(from, of, cell->second.outputs);
    w.cell = take_rows(from, of, cell->kind == LSTM ? cell->cells : 0);
    w.before = take_rows(from, of, cell->peepholes ? cell->cells : 0);
    return w;
}

/* Numbers of one row in the work of all layers before `end`. */
static i64 layers_work(const model *m, i64 end) {
    i64 total = 0;
    for (i64 k = 0; k < end; k++) {
        const layer *cell = m->controller + k;
        total += cell->gates.inputs + cell->gates.outputs + cell->second.inputs + cell->second.outputs;
        total += (cell->kind == LSTM ? cell->cells : 0) + (cell->peepholes ? cell->cells : 0);
    }
    return total;
}

static layer_work work_of_layer(const model *m, i64 k, share of, real *work) {
    room from = {work, of.total * layers_work(m, k)};
    return lay_layer(m->controller + k, of, &from);
}

static step_work lay_step(const model *m, share of, room *from) {
    step_work w;
    take(from, of.total * layers_work(m, m->layers));
    w.hidden = take_rows(from, of, m->controller[m->layers - 1].size);
    w.raw = take_rows(from, of, m->interface.outputs), w.controls = take_rows(from, of, m->interface.outputs);
    w.joined = take_rows(from, of, m->output.inputs), w.outputs = take_rows(from, of, m->output.outputs);
    w.group = take_at(from, m->output_activation == SOFTMAX ? padded(classes_of(m)) : 0, 0);
    i64 own = memory_work(m);
    w.memory = take_at(from, own * (of.keep ? of.total : 1), of.keep ? of.first * own : 0);
    i64 spare = m->kind == DNC ? 2 * row_of(m->slots) + 256 : m->kind == NTM ? ntm_wide(m) + row_of(m->slots) : 0;
    w.spare = take_at(from, spare * (of.keep ? of.total : 1), of.keep ? of.first * spare : 0);
    return w;
}

/* The numbers that a step of so many rows puts down; keep: for the gradients. */
i64 engram_work(const model *m, i64 total, i64 keep) {
    room counted = {0};
    lay_step(m, (share){total, 0, keep}, &counted);
    return counted.taken;
}

/* ---- The mode of the processor ---- */

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

/* ---- A step ---- */

static void clip_row(real *values, i64 size, double bound) {
    for (i64 k = 0; bound > 0 && k < size; k += LANES) store(values + k, clipped(load(values + k), bound));
}

/* The controller, from the inputs and from what was read at the step before. inputs: [rows][input_size]. */
static void run_controller(const model *m, const states *s, const rows *who, const real *inputs, real *hidden, share of,
                           real *work) {
    i64 x_size = padded(m->input_size), read_size = m->reads * padded(m->word);
    layer_work below = {0}, here = work_of_layer(m, 0, of, work);
    for (i64 b = 0; b < who->batch; b++) {
        real *to = here.seen + b * m->controller[0].gates.inputs;
        memset(to + x_size - LANES, 0, LANES * sizeof(real));
        memcpy(to, inputs + who->row[b] * m->input_size, m->input_size * sizeof(real));
        if (read_size) memcpy(to + x_size, s->read_vectors + who->from[b] * read_size, read_size * sizeof(real));
    }
    for (i64 k = 0; k < m->layers; k++) {
        const layer *cell = m->controller + k;
        here = work_of_layer(m, k, of, work);
        for (i64 b = 0; k && b < who->batch; b++)
            memcpy(here.seen + b * cell->gates.inputs, layer_output(cell - 1, s->cells + k - 1, below, b, who->to[b]),
                   cell[-1].size * sizeof(real));
        step_layer(cell, s->cells + k, who, here);
        below = here;
    }
    const layer *last = m->controller + m->layers - 1;
    for (i64 b = 0; b < who->batch; b++) {
        memcpy(hidden + b * last->size, layer_output(last, s->cells + m->layers - 1, below, b, who->to[b]),
               last->size * sizeof(real));
        clip_row(hidden + b * last->size, last->size, m->clip);
        for (i64 k = 0; m->clip > 0 && k < m->layers; k++) {
            const layer *cell = m->controller + k;
            const cell_states *leaves = s->cells + k;
            if (leaves->h) clip_row(leaves->h + who->to[b] * cell->size, cell->size, m->clip);
            if (leaves->c) clip_row(leaves->c + who->to[b] * cell->cells, cell->cells, m->clip);
        }
    }
}

/* Step rows. allocation: [batch][writes][row], or none. */
static step_work step(const model *m, const states *s, const rows *who, const real *inputs, share of, real *work,
                      real *allocation) {
    i64 read_size = m->reads * padded(m->word), row = row_of(m->slots), own = of.keep ? memory_work(m) : 0;
    const layer *last = m->controller + m->layers - 1;
    room put = {work, 0};
    step_work w = lay_step(m, of, &put);
    run_controller(m, s, who, inputs, w.hidden, of, work);

    /* Memory */
    if (m->kind != RNN) {
        i64 size = m->interface.outputs;
        apply_linear(&m->interface, w.hidden, who->batch, w.raw);
        memcpy(w.controls, w.raw, who->batch * size * sizeof(real));
        for (i64 b = 0; b < who->batch; b++) {
            real *z = w.controls + b * size;
            room found = {w.memory + b * own, 0};
            if (m->kind == DNC) {
                dnc_work kept = lay_dnc(m, &found);
                dnc_controls(m, z);
                dnc_row(m, s, who->from[b], who->to[b], z, kept, w.spare);
                if (allocation)
                    memcpy(allocation + b * m->writes * row, kept.allocation, m->writes * row * sizeof(real));
            } else {
                ntm_controls(m, z);
                ntm_row(m, s, who->from[b], who->to[b], z, lay_ntm(m, &found), (room){w.spare, 0});
            }
        }
    }

    /* Outputs: from the controller and from what was read */
    for (i64 b = 0; b < who->batch; b++) {
        real *to = w.joined + b * m->output.inputs;
        memcpy(to, w.hidden + b * last->size, last->size * sizeof(real));
        if (read_size) memcpy(to + last->size, s->read_vectors + who->to[b] * read_size, read_size * sizeof(real));
    }
    apply_linear(&m->output, w.joined, who->batch, w.outputs);
    for (i64 b = 0; b < who->batch; b++) clip_row(w.outputs + b * m->output.outputs, m->output.outputs, m->clip);
    return w;
}

/* Activate what a step put out for one row. outputs: [output_size]. */
static void activate_outputs(const model *m, step_work w, i64 b, real *outputs) {
    i64 width = m->output.outputs, classes = classes_of(m);
    real *y = w.outputs + b * width;
    for (i64 k = 0; k < width; k += LANES) store(y + k, activate(m->output_activation, load(y + k)));
    memcpy(outputs, y, m->output_size * sizeof(real));
    for (i64 g = 0; m->output_activation == SOFTMAX && g < m->output_groups; g++) {
        memcpy(w.group, y + g * classes, classes * sizeof(real));
        softmax_(w.group, classes, padded(classes));
        memcpy(outputs + g * classes, w.group, classes * sizeof(real));
    }
}

/* Step sessions once or several times, each in its slot of the arena, none named twice.
 * inputs: [steps][batch][input_size]; outputs: [steps][batch][output_size], activated. Of the last step, where they are
 * asked for: controls [batch][interface.outputs], the interface as the heads used it, and allocation
 * [batch][writes][row]. scratch: engram_work(m, batch, 0) numbers. numbers: those of the rows, 0, 1, ... */
void engram_step(const model *m, const states *s, const i64 *slots, const i64 *numbers, i64 batch, i64 steps,
                 const real *inputs, real *outputs, real *controls, real *allocation, real *scratch) {
    uint64_t mode = flush_denormals();
    rows who = {batch, numbers, slots, slots};
    for (i64 t = 0; t < steps; t++, inputs += batch * m->input_size, outputs += batch * m->output_size) {
        step_work w = step(m, s, &who, inputs, (share){batch, 0, 0}, scratch, allocation);
        for (i64 b = 0; b < batch; b++) activate_outputs(m, w, b, outputs + b * m->output_size);
        if (controls) memcpy(controls, w.controls, batch * m->interface.outputs * sizeof(real));
    }
    restore_mode(mode);
}

/* ---- Sequences ---- */

/* Some steps of a batch. At step t, row b goes from slot base + t stride + b of the arena to the slot `stride` after
 * it; a stride of 0 is a walk in place. Rows first to first + batch of total are computed; those whose length is
 * reached are carried on as they are. What step t puts down begins at work + t work_stride. */
typedef struct {
    i64 total, first, batch, steps, base, stride, work_stride;
    const i64 *lengths; /* [total]: steps, of these, that a row takes */
    i64 *lists;         /* [3][total]: room for the lists of who is stepped */
    real *work;
} walk;

/* Who takes step t. */
static rows walkers(const walk *over, i64 t) {
    i64 *row = over->lists + over->first, *from = row + over->total, *to = from + over->total, batch = 0;
    for (i64 b = over->first; b < over->first + over->batch; b++)
        if (t < over->lengths[b]) {
            i64 slot = over->base + t * over->stride + b;
            row[batch] = b, from[batch] = slot, to[batch] = slot + over->stride;
            batch++;
        }
    return (rows){batch, row, from, to};
}

INLINE void carry_leaf(real *leaf, i64 from, i64 to, i64 size) {
    if (leaf) memcpy(leaf + to * size, leaf + from * size, size * sizeof(real));
}

static void carry_on(const model *m, const states *s, i64 from, i64 to) {
    i64 row = row_of(m->slots), size = padded(m->word);
    carry_leaf(s->memory, from, to, row * size);
    carry_leaf(s->read_weights, from, to, m->reads * row);
    carry_leaf(s->write_weights, from, to, m->writes * row);
    carry_leaf(s->read_vectors, from, to, m->reads * size);
    carry_leaf(s->usage, from, to, row);
    carry_leaf(s->link, from, to, m->writes * m->slots * row);
    carry_leaf(s->precedence, from, to, m->writes * row);
    for (i64 k = 0; k < m->layers; k++) {
        carry_leaf(s->cells[k].h, from, to, m->controller[k].size);
        carry_leaf(s->cells[k].c, from, to, m->controller[k].cells);
    }
}

/* inputs: [steps][total][input_size]; outputs: [steps][total][output_size], before their activation, zero for rows that
 * take no step. keep: for the gradients. */
void engram_walk(const model *m, const states *s, const walk *over, i64 keep, const real *inputs, real *outputs) {
    uint64_t mode = flush_denormals();
    share of = {over->total, over->first, keep};
    for (i64 t = 0; t < over->steps; t++) {
        const real *x = inputs + t * over->total * m->input_size;
        real *y = outputs + t * over->total * m->output_size;
        rows who = walkers(over, t);
        step_work w = step(m, s, &who, x, of, over->work + t * over->work_stride, 0);
        memset(y + over->first * m->output_size, 0, over->batch * m->output_size * sizeof(real));
        for (i64 b = 0; b < who.batch; b++)
            memcpy(y + who.row[b] * m->output_size, w.outputs + b * m->output.outputs, m->output_size * sizeof(real));
        for (i64 b = over->first; over->stride && b < over->first + over->batch; b++)
            if (t >= over->lengths[b]) {
                i64 slot = over->base + t * over->stride + b;
                carry_on(m, s, slot, slot + over->stride);
            }
    }
    restore_mode(mode);
}

/* ---- The gradients of a sequence ---- */

static i64 widest(const model *m) {
    i64 size = at_least(padded_to_panels(m->output.inputs), m->output.outputs);
    for (i64 k = 0; k < m->layers; k++) {
        const layer *cell = m->controller + k;
        size = at_least(size, padded_to_panels(at_least(cell->gates.inputs, at_least(cell->size, cell->cells))));
    }
    return size;
}

/* The numbers that engram_backward needs for so many rows. */
i64 engram_backward_scratch(const model *m, i64 batch) {
    i64 spare = m->kind == DNC ? dnc_row_spare(m) : m->kind == NTM ? ntm_row_spare(m) : 0;
    return 3 * batch * widest(m) + m->interface.outputs + spare;
}

INLINE void fetch(const real *from, i64 count) {
    for (i64 k = 0; from && k < count; k += 64 / (i64)sizeof(real)) __builtin_prefetch(from + k);
}

/* Fetch ahead what the gradients of a row will be found from. */
static void fetch_row(const model *m, const states *s, i64 slot, const real *found, i64 count) {
    i64 row = row_of(m->slots);
    fetch(memory_of(m, s, slot), row * padded(m->word));
    fetch(found, count);
}

/* The gradients of one step. g: those of the states after, [total] slots; then of those before. d_inputs:
 * [total][input_size], or none. */
static void step_backward(const model *m, const states *s, const states *g, const rows *who, const real *d_outputs,
                          share of, real *work, real *d_inputs, real *scratch) {
    i64 batch = who->batch, width = widest(m), read_size = m->reads * padded(m->word), top = m->layers - 1;
    i64 hidden = m->controller[top].size, joined = padded_to_panels(m->output.inputs), x_size = padded(m->input_size);
    room left = {scratch, 0}, put = {work, 0};
    real *d_seen = take(&left, batch * width), *d_out = take(&left, batch * width);
    real *spare = take(&left, batch * width), *d_controls = take(&left, m->interface.outputs);
    step_work w = lay_step(m, of, &put);
    scratch = take(&left, 0);

    /* Outputs */
    for (i64 b = 0; b < batch; b++) {
        real *y = w.outputs + b * m->output.outputs, *d = spare;
        memset(d, 0, m->output.outputs * sizeof(real));
        memcpy(d, d_outputs + who->row[b] * m->output_size, m->output_size * sizeof(real));
        for (i64 k = 0; k < m->output.outputs; k += LANES)
            store(y + k, clipped_backward(load(y + k), load(d + k), m->clip));
    }
    linear_backward(&m->output, w.outputs, batch, d_seen);
    for (i64 b = 0; b < batch; b++) {
        memcpy(d_out + b * hidden, d_seen + b * joined, hidden * sizeof(real));
        if (read_size) add_to(g->read_vectors + who->row[b] * read_size, d_seen + b * joined + hidden, read_size);
    }

    /* Memory */
    if (m->kind != RNN) {
        i64 size = m->interface.outputs, own = memory_work(m), wide = padded_to_panels(hidden);
        for (i64 b = 0; b < batch; b++) {
            real *raw = w.raw + b * size, *z = w.controls + b * size;
            room found = {w.memory + b * own, 0};
            if (b + 1 < batch) fetch_row(m, s, who->from[b + 1], w.memory + (b + 1) * own, own);
            memset(d_controls, 0, size * sizeof(real));
            if (m->kind == DNC)
                dnc_row_backward(m, s, g, who->from[b], who->to[b], who->row[b], z, raw, lay_dnc(m, &found), d_controls,
                                 scratch);
            else
                ntm_row_backward(m, s, g, who->from[b], who->to[b], who->row[b], z, raw, lay_ntm(m, &found), d_controls,
                                 scratch);
            memcpy(raw, d_controls, size * sizeof(real));
        }
        linear_backward(&m->interface, w.raw, batch, d_seen);
        for (i64 b = 0; b < batch; b++) add_to(d_out + b * hidden, d_seen + b * wide, hidden);
    }

    /* Controller, from the top */
    for (i64 b = 0; b < batch; b++)
        for (i64 k = 0; k < hidden; k += LANES) {
            real *d = d_out + b * hidden + k;
            store(d, clipped_backward(load(w.hidden + b * hidden + k), load(d), m->clip));
        }
    for (i64 k = top; k >= 0; k--) {
        const layer *cell = m->controller + k;
        i64 seen = padded_to_panels(cell->gates.inputs), below = k ? cell[-1].size : 0;
        layer_backward(cell, s->cells + k, g->cells + k, m->clip, who, work_of_layer(m, k, of, work), d_out, d_seen,
                       spare);
        for (i64 b = 0; b < batch; b++) memcpy(d_out + b * below, d_seen + b * seen, below * sizeof(real));
        for (i64 b = 0; k == 0 && b < batch; b++) {
            const real *d = d_seen + b * seen;
            if (d_inputs) memcpy(d_inputs + who->row[b] * m->input_size, d, m->input_size * sizeof(real));
            if (read_size) memcpy(g->read_vectors + who->row[b] * read_size, d + x_size, read_size * sizeof(real));
        }
    }
}

/* Leave nothing for the gradients of the weights in some rows of a step. */
static void clear_rows(const model *m, share of, i64 count, real *work) {
    room put = {work, 0};
    step_work w = lay_step(m, of, &put);
#define CLEAR(array, width) memset(array, 0, count *(width) * sizeof(real))
    for (i64 k = 0; k < m->layers; k++) {
        const layer *cell = m->controller + k;
        layer_work here = work_of_layer(m, k, of, work);
        CLEAR(here.seen, cell->gates.inputs), CLEAR(here.products, cell->gates.outputs);
        CLEAR(here.again, cell->second.inputs), CLEAR(here.candidates, cell->second.outputs);
        if (cell->peepholes) CLEAR(here.cell, cell->cells), CLEAR(here.before, cell->cells);
    }
    CLEAR(w.hidden, m->controller[m->layers - 1].size), CLEAR(w.raw, m->interface.outputs);
    CLEAR(w.joined, m->output.inputs), CLEAR(w.outputs, m->output.outputs);
#undef CLEAR
}

/* The gradients of a walk that was kept, from its last step to its first. d_outputs: [steps][total][output_size];
 * d_inputs: [steps][total][input_size], or none; g: [total] slots of gradients, of the states after the walk when it
 * begins, of those before it when it ends. In the work of each step the products are replaced by their gradients: what
 * engram_weights needs. Rows that took no step leave zeros there. */
void engram_backward(const model *m, const states *s, const states *g, const walk *over, const real *d_outputs,
                     real *d_inputs, real *scratch) {
    uint64_t mode = flush_denormals();
    share of = {over->total, over->first, 1};
    for (i64 t = over->steps - 1; t >= 0; t--) {
        rows who = walkers(over, t);
        real *work = over->work + t * over->work_stride;
        i64 in = t * over->total * m->input_size, out = t * over->total * m->output_size,
            left = over->batch - who.batch;
        step_backward(m, s, g, &who, d_outputs + out, of, work, d_inputs ? d_inputs + in : 0, scratch);
        if (left) clear_rows(m, (share){over->total, over->first + who.batch, 1}, left, work);
    }
    restore_mode(mode);
}

/* Add to the gradients of the weights what a walk that went backwards left in its work: part `part` of `parts` of each
 * matrix, all rows. */
void engram_weights(const model *m, const walk *over, i64 part, i64 parts) {
    uint64_t mode = flush_denormals();
    sequence rows_ = {over->steps, over->total, over->work_stride};
    share of = {over->total, 0, 1};
    room put = {over->work, 0};
    step_work w = lay_step(m, of, &put);
    for (i64 k = 0; k < m->layers; k++) {
        const layer *cell = m->controller + k;
        layer_work here = work_of_layer(m, k, of, over->work);
        weights_backward(&cell->gates, rows_, here.seen, here.products, part, parts);
        if (cell->second.weights) weights_backward(&cell->second, rows_, here.again, here.candidates, part, parts);
        for (i64 t = over->steps - 1; cell->peepholes && part == 0 && t >= 0; t--)
            for (i64 b = 0; b < over->total; b++) {
                real *d = here.products + t * over->work_stride + b * cell->gates.outputs;
                i64 at = t * over->work_stride + b * cell->cells;
                peepholes_backward(cell, d, here.before + at, here.cell + at);
            }
    }
    if (m->kind != RNN) weights_backward(&m->interface, rows_, w.hidden, w.raw, part, parts);
    weights_backward(&m->output, rows_, w.joined, w.outputs, part, parts);
    restore_mode(mode);
}

/* ---- Packing ---- */

/* to[k] = from[places[k]]: weights as the kernels read them from weights side by side, or gradients the other way. */
void engram_take(const int32_t *places, const real *from, real *to, i64 count) {
    for (i64 k = 0; k < count; k++) to[k] = from[places[k]];
}

/* ---- What the library says of itself ---- */

/* The functions that engram_function computes. */
enum function {
    FUNCTION_EXP,
    FUNCTION_TANH,
    FUNCTION_SIGMOID,
    FUNCTION_SOFTPLUS,
    FUNCTION_LOG,
    FUNCTION_ELU,
    FUNCTION_SOFTSIGN
};

/* Return whether this processor has the instructions that the rest of the library was compiled for. */
int engram_runs_here(void) {
#if defined(__x86_64__)
    unsigned int a, b, c, d, state, high;
    const unsigned int fma = 1u << 12, xsave = 1u << 27;
#ifdef __AVX512F__
    const unsigned int wide = 0xd0030020, registers = 0xe6; /* AVX2, AVX-512 F, DQ, CD, BW, VL */
#else
    const unsigned int wide = 0x20, registers = 6; /* AVX2 */
#endif
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (fma | xsave)) != (fma | xsave)) return 0;
    __asm__ volatile("xgetbv" : "=a"(state), "=d"(high) : "c"(0)); /* does the system keep the wide registers? */
    return (state & registers) == registers && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & wide) == wide;
#else
    return 1;
#endif
}

/* The bytes of a number: four, or eight where it was compiled for float64. */
int engram_number(void) { return sizeof(real); }

/* Fill `out` with one of the functions of `in`, for the test of their errors. */
void engram_function(i64 which, const real *in, real *out, i64 count) {
    for (i64 k = 0; k < count; k += LANES) {
        vec x = load(in + k);
        vec values[] = {
            [FUNCTION_EXP] = exp_(x),           [FUNCTION_TANH] = tanh_(x), [FUNCTION_SIGMOID] = sigmoid_(x),
            [FUNCTION_SOFTPLUS] = softplus_(x), [FUNCTION_LOG] = log_(x),   [FUNCTION_ELU] = elu_(x),
            [FUNCTION_SOFTSIGN] = softsign_(x),
        };
        store(out + k, values[which]);
    }
}

/* declared.h is written by build.py from structures.py: SOURCES, the hash of what the library is compiled from; FACTS,
 * the names of the structures, fields and numbers that Python has too; KINDS, a name for each type of structure; and
 * Python's declarations of the functions above, which the compiler compares with their definitions. */
#include "declared.h"

/* What a name is in C, in words. place: the offset of a field, in bytes, or the value of a number. */
typedef struct {
    const char *words, *kind;
    i64 place, size;
} fact;

#define KIND(value) _Generic(value, i64: "integer", double: "double", KINDS, default: "pointer")
#define OF(type, field) (((type *)0)->field)
#define FUNCTION(declaration) {declaration "\n", "", 0, 0},
#define NUMBER(name) {#name ": %s %lld\n", "number", name, 0},
#define STRUCTURE(type) {#type ": %s of %lld bytes\n", "structure", sizeof(type), 0},
#define FIELD(type, field)                                                                                             \
    {#type "." #field ": %s at %lld, of %lld bytes\n", KIND(OF(type, field)), offsetof(type, field),                   \
     sizeof(OF(type, field))},

static const fact facts[] = {FACTS};

/* Write all facts to `text`, of `room` characters, a line each. Returns how many characters they are. Python calls this
 * function and the next before it knows whether the library fits: their types never change. */
i64 engram_facts(char *text, i64 room) {
    i64 taken = 0;
    for (const fact *f = facts; f < facts + sizeof(facts) / sizeof(fact); f++) {
        i64 left = taken < room ? room - taken : 0;
        taken += snprintf(left ? text + taken : 0, left, f->words, f->kind, (long long)f->place, (long long)f->size);
    }
    return taken;
}

/* Return the hash of what the library was compiled from. */
const char *engram_sources(void) { return SOURCES; }
