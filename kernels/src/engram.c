/* The steps of a DNC, an NTM or a recurrent cell for a list of sessions, in place in their slots of an arena; and whole
 * sequences with their gradients, for training.
 *
 * Names and equations are those of models/addressing.py, models/cells.py, models/dnc.py and models/ntm.py, which define
 * the results; these files compute them fast. A session's numbers are the same, bit for bit, whatever rows are stepped
 * with it: products accumulate over the inputs one by one, and everything else is done row by row. The gradients of a
 * mechanism stand below it, under its name and `_backward`; d_x is the gradient of x.
 *
 * Sizes in the code are rounded up to a multiple of eight, and the `width` of a weighting to one of sixteen; numbers
 * beyond the size are zero and stay so; where the activation of a cell makes another number of 0, weights there are 0.
 */

#include <stddef.h>
#include <stdio.h>

#include "dnc.h"
#include "ntm.h"
#include "programs.h"
#include "team.h"
#include "update.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* ---- The workspace of a step ---- */

/* The activations of one step, [total][width] each, from the first row of a range on. Where heads act before the
 * controller, the arrays named `_before` are those of the step before. */
typedef struct {
    row_range of;
    allocator layers; /* where the workspaces of the layers begin */
    real *hidden;     /* the output of the controller, clipped: input of the interface */
    real *raw;        /* the interface; later its gradient */
    real *controls;   /* the interface, activated */
    real *joined;     /* the inputs of the outputs */
    real *outputs;    /* before their activation; later their gradient */
    real *hidden_before, *raw_before, *controls_before;
    program_workspace programs, programs_before;
    real *group;                   /* one group of classes, of one row */
    real *memory, *scratch;        /* of the memory's part: of every row where it is kept, or of one for all */
    i64 memory_size, scratch_size; /* numbers of one row in them */
} step_workspace;

/* Allocate the workspaces of the first `count` layers; return the last. */
static layer_workspace allocate_layers(const model *m, row_range of, i64 count, allocator *from) {
    layer_workspace w = {0};
    for (i64 k = 0; k < count; k++) w = allocate_layer_workspace(m->controller + k, of, from);
    return w;
}

/* Return the workspace of layer k. */
static layer_workspace layer_of(const model *m, i64 k, const step_workspace *w) {
    allocator from = w->layers;
    return allocate_layers(m, w->of, k + 1, &from);
}

/* Numbers that the memory's part of one row's step keeps, and those it uses as scratch. */
static i64 memory_workspace_size(const model *m) {
    allocator counted = {0};
    if (m->kind == DNC) allocate_dnc_workspace(m, &counted);
    if (m->kind == NTM) allocate_ntm_workspace(m, &counted);
    return counted.used;
}
static i64 memory_scratch_size(const model *m) {
    allocator counted = {0};
    if (m->kind == DNC) allocate_dnc_scratch(m, &counted);
    if (m->kind == NTM) allocate_ntm_scratch(m, &counted);
    return counted.used;
}

static step_workspace allocate_step_workspace(const model *m, row_range of, allocator *from) {
    i64 hidden = m->hidden.size, interface = m->interface_size, before = acts_before(m);
    i64 rows = of.keep ? of.total : 1, first = of.keep ? of.first : 0;
    step_workspace w = {.of = of, .layers = *from};
    allocate_layers(m, of, m->layers, from);
    w.hidden = allocate_both(from, of, hidden, before, &w.hidden_before);
    w.raw = allocate_both(from, of, interface, before, &w.raw_before);
    w.controls = allocate_both(from, of, interface, before, &w.controls_before);
    w.programs = allocate_programs(m, of, from, w.raw, before, w.raw_before, &w.programs_before);
    w.joined = allocate_rows(from, of, m->output.inputs), w.outputs = allocate_rows(from, of, m->output.outputs);
    w.group = allocate(from, m->output_activation == SOFTMAX ? padded(classes_of(m)) : 0);
    w.memory_size = memory_workspace_size(m), w.scratch_size = memory_scratch_size(m);
    w.memory = allocate_at(from, rows * w.memory_size, first * w.memory_size);
    w.scratch = allocate_at(from, rows * w.scratch_size, first * w.scratch_size);
    return w;
}

/* Return the numbers in the workspace of a step of `total` rows. keep: for the gradients. */
i64 engram_workspace_size(const model *m, i64 total, i64 keep) {
    allocator counted = {0};
    allocate_step_workspace(m, (row_range){total, 0, keep}, &counted);
    return counted.used;
}

/* The workspace of the memory's part of row b. */
INLINE allocator memory_of_row(const step_workspace *w, i64 b) {
    return (allocator){w->memory + (w->of.keep ? b * w->memory_size : 0), 0};
}

/* ---- The controller ---- */

static void clip_row(real *values, i64 size, double bound) {
    for (i64 k = 0; bound > 0 && k < size; k += LANES) store(values + k, clipped(load(values + k), bound));
}

/* Copy the inputs and the vectors read into the rows of `to`, `width` numbers apart: those read at the step before or,
 * where heads act before the controller, in this one. inputs: [rows][input_size]. */
static void copy_inputs(const model *m, const states *s, const stepped_rows *rows, const real *inputs, real *to,
                        i64 width) {
    i64 x_size = padded(m->input_size), read = read_size(m);
    const i64 *slots = acts_before(m) ? rows->to : rows->from;
    for (i64 b = 0; b < rows->count; b++, to += width) {
        clear(to + x_size - LANES, LANES);
        copy(to, inputs + rows->row[b] * m->input_size, m->input_size);
        if (read) copy(to + x_size, s->read_vectors + slots[b] * read, read);
    }
}

static void copy_inputs_backward(const model *m, const states *g, const stepped_rows *rows, const real *d, i64 width,
                                 real *d_inputs) {
    i64 x_size = padded(m->input_size), read = read_size(m);
    for (i64 b = 0; b < rows->count; b++, d += width) {
        i64 start = rows->row[b] * m->input_size;
        for (i64 k = 0; d_inputs && k < m->input_size; k++) d_inputs[start + k] += d[k];
        if (read) add_to(g->read_vectors + rows->row[b] * read, d + x_size, read);
    }
}

/* Copy the sources of a product side by side into the rows of `to`, `width` numbers apart. */
static void gather_sources(const model *m, const states *s, const stepped_rows *rows, const sources *from,
                           const real *inputs, const step_workspace *w, real *to, i64 width) {
    for (i64 k = 0; k < from->count; k++) {
        i64 part = from->parts[k];
        if (part == INPUTS) {
            copy_inputs(m, s, rows, inputs, to, width);
            to += padded(m->input_size) + read_size(m);
            continue;
        }
        const layer *cell = m->controller + part;
        layer_workspace below = layer_of(m, part, w);
        for (i64 b = 0; b < rows->count; b++)
            copy(to + b * width, layer_output(cell, s->cells + part, below, b, rows->to[b]), cell->size);
        to += cell->size;
    }
}

static void clip_states(const model *m, const states *s, const stepped_rows *rows) {
    for (i64 k = 0; m->clip > 0 && k < m->layers; k++) {
        const layer *cell = m->controller + k;
        const cell_states *leaves = s->cells + k;
        for (i64 b = 0; b < rows->count; b++) {
            if (leaves->h) clip_row(leaves->h + rows->to[b] * cell->size, cell->size, m->clip);
            if (leaves->c) clip_row(leaves->c + rows->to[b] * cell->cells, cell->cells, m->clip);
        }
    }
}

/* Step the controller, layer by layer. inputs: [rows][input_size]. */
static void run_controller(const model *m, const states *s, const stepped_rows *rows, const real *inputs,
                           const step_workspace *w) {
    for (i64 k = 0; k < m->layers; k++) {
        const layer *cell = m->controller + k;
        layer_workspace here = layer_of(m, k, w);
        gather_sources(m, s, rows, &cell->below, inputs, w, here.inputs, cell->gates.inputs);
        step_layer(cell, s->cells + k, rows, here);
    }
    gather_sources(m, s, rows, &m->hidden, inputs, w, w->hidden, m->hidden.size);
    clip_row(w->hidden, rows->count * m->hidden.size, m->clip);
    clip_states(m, s, rows);
}

/* The gradients in a step of at most `batch` rows. states: of the states after the step, [total] slots, replaced by
 * those of the states before. outputs: [total][output_size]; inputs: [total][input_size], to which is added, or none.
 * The others are scratch. */
typedef struct {
    i64 batch;
    const states *states;
    const real *outputs;
    real *inputs;
    real *output;            /* of one row's outputs, padded: [output.outputs] */
    real *joined;            /* [batch][output.inputs, padded to panels] */
    real *hidden;            /* [batch][hidden.size] */
    real *interface;         /* by the interface: [batch][hidden.size, padded to panels] */
    real *query;             /* by the query of several programs: as `interface` */
    real *controls;          /* of the interface of one row: [interface size] */
    allocator layer_outputs; /* where those of the outputs of the layers begin, [batch][size] each */
    allocator memory;        /* where the scratch of one row's memory part begins */
    allocator layers;        /* where the gradients of the layers begin */
} step_gradients;

/* Allocate the gradients of the outputs of the first `count` layers; return the last. */
static real *allocate_layer_outputs(const model *m, i64 batch, i64 count, allocator *from) {
    real *outputs = 0;
    for (i64 k = 0; k < count; k++) outputs = allocate(from, batch * m->controller[k].size);
    return outputs;
}

/* Allocate the gradients of the first `count` layers; return those of the last. */
static layer_gradients allocate_layers_gradients(const model *m, i64 batch, i64 count, allocator *from) {
    layer_gradients d = {0};
    for (i64 k = 0; k < count; k++) d = allocate_layer_gradients(m->controller + k, batch, from);
    return d;
}

static step_gradients allocate_step_gradients(const model *m, i64 batch, allocator *from) {
    step_gradients d = {.batch = batch};
    d.output = allocate(from, m->output.outputs);
    d.joined = allocate(from, batch * padded_to_panels(m->output.inputs));
    d.hidden = allocate(from, batch * m->hidden.size);
    d.interface = allocate(from, m->kind == RNN ? 0 : batch * padded_to_panels(m->hidden.size));
    d.query = allocate(from, has_programs(m) ? batch * padded_to_panels(m->hidden.size) : 0);
    d.controls = allocate(from, m->interface_size);
    d.layer_outputs = *from;
    allocate_layer_outputs(m, batch, m->layers, from);
    d.memory = *from;
    if (m->kind == DNC) allocate_dnc_gradients(m, from);
    if (m->kind == NTM) allocate_ntm_gradients(m, from);
    d.layers = *from;
    allocate_layers_gradients(m, batch, m->layers, from);
    return d;
}

/* Return the gradient of the output of layer k: [batch][size]. */
static real *layer_output_gradient(const model *m, i64 k, const step_gradients *d) {
    allocator from = d->layer_outputs;
    return allocate_layer_outputs(m, d->batch, k + 1, &from);
}

/* Return the numbers of scratch that unroll_backward needs for `batch` rows. */
i64 engram_scratch_size(const model *m, i64 batch) {
    allocator counted = {0};
    allocate_step_gradients(m, batch, &counted);
    return counted.used;
}

/* Add the rows of d_product, the gradient of a product's inputs, to those of the sources that they came from. */
static void gather_sources_backward(const model *m, const stepped_rows *rows, const sources *from,
                                    const real *d_product, i64 width, const step_gradients *d) {
    for (i64 k = 0; k < from->count; k++) {
        i64 part = from->parts[k];
        if (part == INPUTS) {
            copy_inputs_backward(m, d->states, rows, d_product, width, d->inputs);
            d_product += padded(m->input_size) + read_size(m);
            continue;
        }
        i64 size = m->controller[part].size;
        real *d_out = layer_output_gradient(m, part, d);
        for (i64 b = 0; b < rows->count; b++) add_to(d_out + b * size, d_product + b * width, size);
        d_product += size;
    }
}

/* From d->hidden to the gradients of the controller's inputs and states. */
static void run_controller_backward(const model *m, const states *s, const stepped_rows *rows, const step_workspace *w,
                                    const step_gradients *d) {
    i64 batch = rows->count, hidden = m->hidden.size;
    for (i64 k = 0; k < batch * hidden; k += LANES)
        store(d->hidden + k, clipped_backward(load(w->hidden + k), load(d->hidden + k), m->clip));
    for (i64 k = 0; k < m->layers; k++) clear(layer_output_gradient(m, k, d), batch * m->controller[k].size);
    gather_sources_backward(m, rows, &m->hidden, d->hidden, hidden, d);
    for (i64 k = m->layers - 1; k >= 0; k--) {
        const layer *cell = m->controller + k;
        allocator from = d->layers;
        layer_gradients own = allocate_layers_gradients(m, d->batch, k + 1, &from);
        layer_backward(cell, s->cells + k, d->states->cells + k, m->clip, rows, layer_of(m, k, w),
                       layer_output_gradient(m, k, d), own);
        gather_sources_backward(m, rows, &cell->below, own.inputs, padded_to_panels(cell->gates.inputs), d);
    }
}

/* ---- The heads ---- */

/* The memory's part of row b of a step. controls: the activated interface of the rows. */
INLINE memory_step memory_step_of(const model *m, const states *s, const stepped_rows *rows, i64 b, real *controls) {
    return (memory_step){
        .m = m,
        .shape = shape_of(m),
        .before = leaves_in(m, s, rows->from[b]),
        .after = leaves_in(m, s, rows->to[b]),
        .controls = controls + b * m->interface_size,
    };
}

/* Its gradients. raw: the interface of the rows. */
INLINE memory_gradients memory_gradients_of(const model *m, const step_gradients *d, const stepped_rows *rows, i64 b,
                                            const real *raw) {
    return (memory_gradients){
        .state = leaves_in(m, d->states, rows->row[b]),
        .raw = raw + b * m->interface_size,
        .controls = d->controls,
    };
}

/* Write and read before the controller runs, by its output at the step before. */
static void run_heads_before(const model *m, const states *s, const stepped_rows *rows, const step_workspace *w) {
    i64 size = m->interface_size, hidden = m->hidden.size;
    for (i64 b = 0; b < rows->count; b++)
        copy(w->hidden_before + b * hidden, s->hidden + rows->from[b] * hidden, hidden);
    apply_interface(m, w->hidden_before, rows->count, w->programs_before, w->raw_before);
    copy(w->controls_before, w->raw_before, rows->count * size);
    for (i64 b = 0; b < rows->count; b++) {
        memory_step of = memory_step_of(m, s, rows, b, w->controls_before);
        ntm_controls(m, of.controls);
        ntm_act(&of);
    }
}

static void run_heads_before_backward(const model *m, const states *s, const stepped_rows *rows,
                                      const step_workspace *w, const step_gradients *d) {
    i64 size = m->interface_size, hidden = m->hidden.size, width = padded_to_panels(hidden);
    for (i64 b = 0; b < rows->count; b++) {
        memory_step of = memory_step_of(m, s, rows, b, w->controls_before);
        memory_gradients to = memory_gradients_of(m, d, rows, b, w->raw_before);
        clear(d->controls, size);
        ntm_act_backward(&of, &to);
        copy(w->raw_before + b * size, d->controls, size);
    }
    interface_backward(m, w->raw_before, rows->count, w->programs_before, d->interface, d->query);
    for (i64 b = 0; b < rows->count; b++)
        copy(d->states->hidden + rows->row[b] * hidden, d->interface + b * width, hidden);
}

/* Run the heads by the output of the controller. traced: what to leave, or none. */
static void run_heads(const model *m, const states *s, const stepped_rows *rows, const step_workspace *w,
                      const traces *traced) {
    i64 size = m->interface_size, shares = keys_shape(m).width;
    apply_interface(m, w->hidden, rows->count, w->programs, w->raw);
    copy(w->controls, w->raw, rows->count * size);
    for (i64 b = 0; b < rows->count; b++) {
        allocator kept = memory_of_row(w, b), scratch = {w->scratch, 0};
        memory_step of = memory_step_of(m, s, rows, b, w->controls);
        of.traced = traced, of.row = b;
        if (traced && has_programs(m)) leave(traced->program_weights, b, w->programs.shares + b * shares, shares);
        if (m->kind == DNC) {
            dnc_workspace own = allocate_dnc_workspace(m, &kept);
            dnc_controls(m, of.controls);
            dnc_step(&of, &own, allocate_dnc_scratch(m, &scratch));
            continue;
        }
        ntm_workspace own = allocate_ntm_workspace(m, &kept);
        ntm_controls(m, of.controls);
        if (acts_before(m)) ntm_aim(&of, &own, allocate_ntm_scratch(m, &scratch));
        else ntm_step(&of, &own, allocate_ntm_scratch(m, &scratch));
    }
}

INLINE void prefetch(const real *from, i64 count) {
    for (i64 k = 0; from && k < count; k += 64 / (i64)sizeof(real)) __builtin_prefetch(from + k);
}

static void run_heads_backward(const model *m, const states *s, const stepped_rows *rows, const step_workspace *w,
                               const step_gradients *d) {
    i64 size = m->interface_size, hidden = m->hidden.size, width = padded_to_panels(hidden);
    for (i64 b = 0; b < rows->count; b++) {
        memory_step of = memory_step_of(m, s, rows, b, w->controls);
        memory_gradients to = memory_gradients_of(m, d, rows, b, w->raw);
        allocator kept = memory_of_row(w, b), scratch = d->memory;
        if (b + 1 < rows->count) {
            prefetch(leaves_in(m, s, rows->from[b + 1]).memory, of.shape.width * of.shape.size);
            prefetch(memory_of_row(w, b + 1).base, w->memory_size);
        }
        clear(d->controls, size);
        if (m->kind == DNC) {
            dnc_workspace own = allocate_dnc_workspace(m, &kept);
            dnc_gradients g = allocate_dnc_gradients(m, &scratch);
            dnc_step_backward(&of, &own, &to, &g);
        } else {
            ntm_workspace own = allocate_ntm_workspace(m, &kept);
            ntm_gradients g = allocate_ntm_gradients(m, &scratch);
            if (acts_before(m)) ntm_aim_backward(&of, &own, &to, &g);
            else ntm_step_backward(&of, &own, &to, &g);
        }
        copy(w->raw + b * size, d->controls, size);
    }
    interface_backward(m, w->raw, rows->count, w->programs, d->interface, d->query);
    for (i64 b = 0; b < rows->count; b++) add_to(d->hidden + b * hidden, d->interface + b * width, hidden);
}

/* ---- The outputs ---- */

/* Compute the outputs, from those of the controller and from the vectors read. */
static void run_outputs(const model *m, const states *s, const stepped_rows *rows, const step_workspace *w) {
    i64 hidden = m->hidden.size, read = read_size_of_outputs(m);
    for (i64 b = 0; b < rows->count; b++) {
        real *to = w->joined + b * m->output.inputs;
        copy(to, w->hidden + b * hidden, hidden);
        if (read) copy(to + hidden, s->read_vectors + rows->to[b] * read, read);
    }
    apply_linear(&m->output, w->joined, rows->count, w->outputs);
    clip_row(w->outputs, rows->count * m->output.outputs, m->clip);
}

/* From d->outputs to d->hidden and the gradients of the vectors read. */
static void run_outputs_backward(const model *m, const stepped_rows *rows, const step_workspace *w,
                                 const step_gradients *d) {
    i64 size = m->output.outputs, width = padded_to_panels(m->output.inputs);
    i64 hidden = m->hidden.size, read = read_size_of_outputs(m);
    for (i64 b = 0; b < rows->count; b++) {
        real *y = w->outputs + b * size;
        clear(d->output, size);
        copy(d->output, d->outputs + rows->row[b] * m->output_size, m->output_size);
        for (i64 k = 0; k < size; k += LANES) store(y + k, clipped_backward(load(y + k), load(d->output + k), m->clip));
    }
    linear_backward(&m->output, w->outputs, rows->count, d->joined);
    for (i64 b = 0; b < rows->count; b++) {
        copy(d->hidden + b * hidden, d->joined + b * width, hidden);
        if (read) add_to(d->states->read_vectors + rows->row[b] * read, d->joined + b * width + hidden, read);
    }
}

/* Set outputs of a DNC to NaN in rows whose usage or precedence has overflowed: they may be finite all the same, and
 * the next steps would be of no use. */
static void fail_overflowed(const model *m, const states *s, const stepped_rows *rows, const step_workspace *w) {
    i64 width = padded_wide(m->memory_size), after = m->linked ? m->write_heads * width : 0;
    for (i64 b = 0; b < rows->count; b++) {
        const real *usage = s->usage + rows->to[b] * width;
        vec values = all(0);
        for (i64 n = 0; n < width; n += LANES) values += load(usage + n);
        for (i64 n = 0; n < after; n += LANES) values += load(s->precedence + rows->to[b] * after + n);
        real total = sum(values);
        w->outputs[b * m->output.outputs] += total - total; /* 0, or NaN */
    }
}

/* Activate the outputs of one row. outputs: [output_size]. */
static void activate_outputs(const model *m, const step_workspace *w, i64 b, real *outputs) {
    i64 size = m->output.outputs, classes = classes_of(m);
    real *y = w->outputs + b * size;
    for (i64 k = 0; k < size; k += LANES) store(y + k, activate(m->output_activation, load(y + k)));
    copy(outputs, y, m->output_size);
    for (i64 g = 0; m->output_activation == SOFTMAX && g < m->output_groups; g++) {
        copy(w->group, y + g * classes, classes);
        softmax_(w->group, classes, padded(classes));
        copy(outputs + g * classes, w->group, classes);
    }
}

/* ---- A step ---- */

/* Step rows. inputs: [rows][input_size]; workspace: of the step, for `of.total` rows; traced: what to leave, or none.
 */
static step_workspace step(const model *m, const states *s, const stepped_rows *rows, const real *inputs, row_range of,
                           real *workspace, const traces *traced) {
    i64 hidden = m->hidden.size;
    allocator from = {workspace, 0};
    step_workspace w = allocate_step_workspace(m, of, &from);
    if (acts_before(m)) run_heads_before(m, s, rows, &w);
    run_controller(m, s, rows, inputs, &w);
    if (m->kind != RNN) run_heads(m, s, rows, &w, traced);
    run_outputs(m, s, rows, &w);
    if (m->kind == DNC) fail_overflowed(m, s, rows, &w);
    for (i64 b = 0; acts_before(m) && b < rows->count; b++)
        copy(s->hidden + rows->to[b] * hidden, w.hidden + b * hidden, hidden);
    return w;
}

/* The gradients of one step, whose workspace is w. */
static void step_backward(const model *m, const states *s, const stepped_rows *rows, const step_workspace *w,
                          const step_gradients *d) {
    i64 hidden = m->hidden.size;
    run_outputs_backward(m, rows, w, d);
    for (i64 b = 0; acts_before(m) && b < rows->count; b++)
        add_to(d->hidden + b * hidden, d->states->hidden + rows->row[b] * hidden, hidden);
    if (m->kind != RNN) run_heads_backward(m, s, rows, w, d);
    run_controller_backward(m, s, rows, w, d);
    if (acts_before(m)) run_heads_before_backward(m, s, rows, w, d);
}

/* Steps of sessions, each in its slot of an arena, none named twice. slots: [batch]; numbers: those of the rows, 0, 1,
 * ...; inputs: [steps][batch][input_size]; outputs: [steps][batch][output_size], activated; traced: what the last step
 * leaves, or none; workspace: engram_workspace_size(m, batch, 0) numbers. */
typedef struct {
    i64 batch, steps;
    const i64 *slots, *numbers;
    const real *inputs;
    real *outputs;
    const traces *traced;
    real *workspace;
} step_call;

/* Copy the interfaces that were asked for. */
static void leave_controls(const model *m, const step_workspace *w, i64 batch, const traces *traced) {
    leave(traced->controls, 0, w->controls, batch * m->interface_size);
    leave(traced->controls_before, 0, w->controls_before, batch * m->interface_size);
}

/* Step sessions once or several times, in place. */
void engram_step(const model *m, const states *s, const step_call *call) {
    uint64_t mode = flush_denormals();
    i64 batch = call->batch;
    stepped_rows rows = {batch, call->numbers, call->slots, call->slots};
    const real *inputs = call->inputs;
    real *outputs = call->outputs;
    for (i64 t = 0; t < call->steps; t++, inputs += batch * m->input_size, outputs += batch * m->output_size) {
        step_workspace w = step(m, s, &rows, inputs, (row_range){batch, 0, 0}, call->workspace, call->traced);
        for (i64 b = 0; b < batch; b++) activate_outputs(m, &w, b, outputs + b * m->output_size);
        if (call->traced) leave_controls(m, &w, batch, call->traced);
    }
    restore_mode(mode);
}

/* ---- Sequences ---- */

/* A segment of a sequence: some steps of a batch, of which one thread computes `batch` rows from `first` on. At step t,
 * row b goes from slot base + t stride + b of the arena to the slot `stride` after it; with a stride of 0, in place.
 * The last state of a row that takes fewer steps is copied to the slot after all of them. The workspace of step t
 * begins at workspace + t workspace_stride; its first rows are those of the rows that take the step.
 */
typedef struct {
    i64 total, first, batch, steps, base, stride, workspace_stride;
    const i64 *lengths; /* [total]: steps, of these, that a row takes */
    const i64 *taken; /* [total]: steps that a row of the workspaces is of: the lengths of each thread, longest first */
    i64 *lists;       /* [3][total]: for the lists of the rows that are stepped */
    real *workspace;
} segment;

/* The rows that take step t. */
static stepped_rows rows_at(const segment *over, i64 t) {
    i64 *row = over->lists + over->first, *from = row + over->total, *to = from + over->total, count = 0;
    for (i64 b = over->first; b < over->first + over->batch; b++)
        if (t < over->lengths[b]) {
            i64 slot = over->base + t * over->stride + b;
            row[count] = b, from[count] = slot, to[count] = slot + over->stride;
            count++;
        }
    return (stepped_rows){count, row, from, to};
}

INLINE void carry_leaf(real *leaf, i64 from, i64 to, i64 size) {
    if (leaf) copy(leaf + to * size, leaf + from * size, size);
}

/* Copy a state from a slot to another. */
static void carry_on(const model *m, const states *s, i64 from, i64 to) {
    memory_shape shape = shape_of(m);
    i64 writes = m->write_heads * shape.width;
    carry_leaf(s->memory, from, to, shape.width * shape.size);
    carry_leaf(s->read_weights, from, to, m->read_heads * shape.width);
    carry_leaf(s->write_weights, from, to, writes);
    carry_leaf(s->read_vectors, from, to, read_size(m));
    carry_leaf(s->usage, from, to, shape.width);
    carry_leaf(s->link, from, to, writes * shape.locations);
    carry_leaf(s->precedence, from, to, writes);
    carry_leaf(s->hidden, from, to, m->hidden.size);
    for (i64 k = 0; k < m->layers; k++) {
        carry_leaf(s->cells[k].h, from, to, m->controller[k].size);
        carry_leaf(s->cells[k].c, from, to, m->controller[k].cells);
    }
}

/* Step a segment. inputs: [steps][total][input_size]; outputs: [steps][total][output_size], before their activation,
 * zero for rows that take no step. keep: for the gradients. */
static void unroll(const model *m, const states *s, const segment *over, i64 keep, const real *inputs, real *outputs) {
    uint64_t mode = flush_denormals();
    row_range of = {over->total, over->first, keep};
    for (i64 t = 0; t < over->steps; t++) {
        const real *x = inputs + t * over->total * m->input_size;
        real *y = outputs + t * over->total * m->output_size;
        stepped_rows rows = rows_at(over, t);
        step_workspace w = step(m, s, &rows, x, of, over->workspace + t * over->workspace_stride, 0);
        clear(y + over->first * m->output_size, over->batch * m->output_size);
        for (i64 b = 0; b < rows.count; b++)
            copy(y + rows.row[b] * m->output_size, w.outputs + b * m->output.outputs, m->output_size);
    }
    for (i64 b = over->first; over->stride && b < over->first + over->batch; b++)
        if (over->lengths[b] < over->steps) {
            i64 slot = over->base + b;
            carry_on(m, s, slot + over->lengths[b] * over->stride, slot + over->steps * over->stride);
        }
    restore_mode(mode);
}

/* The gradients of a segment that was kept, from its last step to its first. d_outputs: [steps][total][output_size];
 * d_inputs: [steps][total][input_size], zeros at the beginning, or none; g: gradients of the states after the segment,
 * [total] slots, replaced by those of the states before it; scratch: engram_scratch_size(m, over->batch) numbers. In
 * the workspace of each step the products are replaced by their gradients, which weight_gradients needs. */
static void unroll_backward(const model *m, const states *s, const states *g, const segment *over,
                            const real *d_outputs, real *d_inputs, real *scratch) {
    uint64_t mode = flush_denormals();
    row_range of = {over->total, over->first, 1};
    for (i64 t = over->steps - 1; t >= 0; t--) {
        stepped_rows rows = rows_at(over, t);
        i64 in = t * over->total * m->input_size, out = t * over->total * m->output_size;
        allocator from = {over->workspace + t * over->workspace_stride, 0}, free = {scratch, 0};
        step_workspace w = allocate_step_workspace(m, of, &from);
        step_gradients d = allocate_step_gradients(m, over->batch, &free);
        d.states = g, d.outputs = d_outputs + out, d.inputs = d_inputs ? d_inputs + in : 0;
        step_backward(m, s, &rows, &w, &d);
    }
    restore_mode(mode);
}

/* Add the gradients of the peepholes, from the last step of a segment to the first. here: of its first step. */
static void segment_peepholes_backward(const layer *cell, const segment *over, layer_workspace here) {
    for (i64 t = over->steps - 1; cell->peepholes && t >= 0; t--)
        for (i64 b = 0; b < over->total; b++) {
            if (t >= over->taken[b]) continue;
            const real *d = here.products + t * over->workspace_stride + b * cell->gates.outputs;
            i64 at = t * over->workspace_stride + b * cell->cells;
            peepholes_backward(cell, d, here.before + at, here.cell + at);
        }
}

/* Add to the gradients of the weights those of a segment that unroll_backward has passed: part `part` of `parts` of
 * each matrix, all rows. */
static void weight_gradients(const model *m, const segment *over, i64 part, i64 parts) {
    uint64_t mode = flush_denormals();
    sequence rows = {over->steps, 1, over->total, over->workspace_stride, over->taken};
    allocator from = {over->workspace, 0};
    step_workspace w = allocate_step_workspace(m, (row_range){over->total, 0, 1}, &from);
    for (i64 k = 0; k < m->layers; k++) {
        const layer *cell = m->controller + k;
        layer_workspace here = layer_of(m, k, &w);
        weights_backward(&cell->gates, rows, here.inputs, here.products, part, parts);
        if (cell->second.weights)
            weights_backward(&cell->second, rows, here.second_inputs, here.second_products, part, parts);
        if (part == 0) segment_peepholes_backward(cell, over, here);
    }
    /* Where heads act before the controller, the rows of the step before lie behind those of the step. */
    sequence interface_rows = rows;
    interface_rows.parts += acts_before(m);
    if (m->kind != RNN) interface_weights_backward(m, interface_rows, w.hidden, w.programs, part, parts);
    weights_backward(&m->output, rows, w.joined, w.outputs, part, parts);
    restore_mode(mode);
}

/* ---- Calls of a team ---- */

enum kernel { STEP, UNROLL, BACKWARD, WEIGHT_GRADIENTS };

/* A call of one of the functions above, by the names of their arguments; step: of engram_step. */
struct kernel_call {
    i64 kernel;
    const model *m;
    const states *s, *g;
    const segment *over;
    const step_call *step;
    i64 keep, part, parts;
    const real *inputs, *d_outputs;
    real *outputs, *d_inputs, *scratch;
};

static void make_call(const kernel_call *c) {
    switch (c->kernel) {
    case STEP: engram_step(c->m, c->s, c->step); break;
    case UNROLL: unroll(c->m, c->s, c->over, c->keep, c->inputs, c->outputs); break;
    case BACKWARD: unroll_backward(c->m, c->s, c->g, c->over, c->d_outputs, c->d_inputs, c->scratch); break;
    case WEIGHT_GRADIENTS: weight_gradients(c->m, c->over, c->part, c->parts); break;
    }
}

/* Return a team of `threads` threads with the caller's, or of as many as the system has; none, if it has no memory. */
team *engram_open_team(i64 threads) { return open_team(threads - 1, make_call); }

void engram_close_team(team *t) { close_team(t); }

/* Make all calls, and return when all are made: the first ones by the other threads of a team, if there is one, and the
 * rest by the caller's. */
void engram_make_calls(team *t, const kernel_call *calls, i64 count) {
    i64 given = t ? t->count : 0;
    if (given > count - 1) given = count - 1;
    if (t) atomic_store(&t->left.number, given);
    for (i64 k = 0; k < given; k++) give(t->members + k, calls + k);
    for (i64 k = given; k < count; k++) make_call(calls + k);
    if (given > 0) wait_for_zero(&t->left);
}

/* ---- Packing ---- */

/* to[k] = from[places[k]]: pack weights that lie side by side as the kernels read them, or unpack their gradients. */
void engram_gather(const int32_t *places, const real *from, real *to, i64 count) {
    for (i64 k = 0; k < count; k++) to[k] = from[places[k]];
}

/* ---- Facts about the library ---- */

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
    __asm__ volatile("xgetbv" : "=a"(state), "=d"(high) : "c"(0)); /* the registers that the system saves */
    return (state & registers) == registers && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & wide) == wide;
#else
    return 1;
#endif
}

/* Return the bytes of a number: four, or eight where the library was compiled for float64. */
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

/* declared.h is written by build.py from layout.py: SOURCES, the hash of the sources; FACTS, the names of the
 * structures, fields and numbers that Python has too; KINDS, a name for each type of structure; and Python's
 * declarations of the functions above, which the compiler compares with their definitions. */
#include "declared.h"

/* A name of C as a line of text. place: the offset of a field, in bytes, or the value of a number. */
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

/* Write all facts to `text`, of `capacity` characters, a line each. Returns the number of their characters. Python
 * calls this function and the next before it knows whether the library fits: their types never change. */
i64 engram_facts(char *text, i64 capacity) {
    i64 written = 0;
    for (const fact *f = facts; f < facts + sizeof(facts) / sizeof(fact); f++) {
        i64 left = written < capacity ? capacity - written : 0;
        written +=
            snprintf(left ? text + written : 0, left, f->words, f->kind, (long long)f->place, (long long)f->size);
    }
    return written;
}

/* Return the hash of the sources that the library was compiled from. */
const char *engram_sources(void) { return SOURCES; }
