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
    /* The same of the step before, where heads act by it before the controller runs. */
    real *hidden_before, *raw_before, *controls_before;
    real *group;  /* one group of classes, of one row */
    real *memory; /* what the memory's part finds on its way: of each row where it is kept, or of one for all */
    real *spare;  /* for one row at a time */
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
    i64 hidden = m->hidden.size, interface = m->interface.outputs, before = acts_before(m);
    /* Arrays of both steps are adjacent: the gradients of the interface's weights take them for rows of one batch. */
    w.hidden = take_rows(from, of, hidden), w.hidden_before = take_rows(from, of, before * hidden);
    w.raw = take_rows(from, of, interface), w.raw_before = take_rows(from, of, before * interface);
    w.controls = take_rows(from, of, interface), w.controls_before = take_rows(from, of, before * interface);
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

/* Copy the inputs and the vectors read into the rows of `to`: those read at the step before or, where heads act before
 * the controller, in this one. */
static void put_inputs(const model *m, const states *s, const rows *who, const real *inputs, real *to, i64 width) {
    i64 x_size = padded(m->input_size), read = read_size(m);
    const i64 *slots = acts_before(m) ? who->to : who->from;
    for (i64 b = 0; b < who->batch; b++, to += width) {
        memset(to + x_size - LANES, 0, LANES * sizeof(real));
        memcpy(to, inputs + who->row[b] * m->input_size, m->input_size * sizeof(real));
        if (read) memcpy(to + x_size, s->read_vectors + slots[b] * read, read * sizeof(real));
    }
}

/* Copy the parts that a product sees into the rows of `to`, `width` numbers apart. */
static void put_side_by_side(const model *m, const states *s, const rows *who, const sources *from, const real *inputs,
                             share of, real *work, real *to, i64 width) {
    for (i64 k = 0; k < from->count; k++) {
        i64 part = from->parts[k];
        if (part == INPUTS) {
            put_inputs(m, s, who, inputs, to, width);
            to += padded(m->input_size) + read_size(m);
            continue;
        }
        const layer *cell = m->controller + part;
        layer_work below = work_of_layer(m, part, of, work);
        for (i64 b = 0; b < who->batch; b++)
            memcpy(to + b * width, layer_output(cell, s->cells + part, below, b, who->to[b]),
                   cell->size * sizeof(real));
        to += cell->size;
    }
}

static void clip_states(const model *m, const states *s, const rows *who) {
    for (i64 k = 0; m->clip > 0 && k < m->layers; k++) {
        const layer *cell = m->controller + k;
        const cell_states *leaves = s->cells + k;
        for (i64 b = 0; b < who->batch; b++) {
            if (leaves->h) clip_row(leaves->h + who->to[b] * cell->size, cell->size, m->clip);
            if (leaves->c) clip_row(leaves->c + who->to[b] * cell->cells, cell->cells, m->clip);
        }
    }
}

/* The controller, layer by layer. inputs: [rows][input_size]. */
static void run_controller(const model *m, const states *s, const rows *who, const real *inputs, step_work w, share of,
                           real *work) {
    for (i64 k = 0; k < m->layers; k++) {
        const layer *cell = m->controller + k;
        layer_work here = work_of_layer(m, k, of, work);
        put_side_by_side(m, s, who, &cell->below, inputs, of, work, here.seen, cell->gates.inputs);
        step_layer(cell, s->cells + k, who, here);
    }
    put_side_by_side(m, s, who, &m->hidden, inputs, of, work, w.hidden, m->hidden.size);
    clip_row(w.hidden, who->batch * m->hidden.size, m->clip);
    clip_states(m, s, who);
}

/* Write and read before the controller runs, by its output at the step before. */
static void run_heads_before(const model *m, const states *s, const rows *who, step_work w) {
    i64 size = m->interface.outputs, hidden = m->hidden.size;
    for (i64 b = 0; b < who->batch; b++)
        memcpy(w.hidden_before + b * hidden, s->hidden + who->from[b] * hidden, hidden * sizeof(real));
    apply_linear(&m->interface, w.hidden_before, who->batch, w.raw_before);
    memcpy(w.controls_before, w.raw_before, who->batch * size * sizeof(real));
    for (i64 b = 0; b < who->batch; b++) {
        ntm_controls(m, w.controls_before + b * size);
        ntm_act(m, s, who->from[b], who->to[b], w.controls_before + b * size);
    }
}

/* Run the heads by the output of the controller. allocation: [batch][writes][row], or none. */
static void run_heads(const model *m, const states *s, const rows *who, step_work w, share of, real *allocation) {
    i64 size = m->interface.outputs, own = of.keep ? memory_work(m) : 0, allocated = m->writes * row_of(m->slots);
    apply_linear(&m->interface, w.hidden, who->batch, w.raw);
    memcpy(w.controls, w.raw, who->batch * size * sizeof(real));
    for (i64 b = 0; b < who->batch; b++) {
        real *z = w.controls + b * size;
        room found = {w.memory + b * own, 0}, spare = {w.spare, 0};
        if (m->kind == DNC) {
            dnc_work kept = lay_dnc(m, &found);
            dnc_controls(m, z);
            dnc_row(m, s, who->from[b], who->to[b], z, kept, w.spare);
            if (allocation) memcpy(allocation + b * allocated, kept.allocation, allocated * sizeof(real));
            continue;
        }
        ntm_controls(m, z);
        if (acts_before(m)) ntm_aim(m, s, who->from[b], who->to[b], z, lay_ntm(m, &found), spare);
        else ntm_row(m, s, who->from[b], who->to[b], z, lay_ntm(m, &found), spare);
    }
}

/* Compute the outputs, from those of the controller and from the vectors read. */
static void put_out(const model *m, const states *s, const rows *who, step_work w) {
    i64 hidden = m->hidden.size, read = read_size_of_outputs(m);
    for (i64 b = 0; b < who->batch; b++) {
        real *to = w.joined + b * m->output.inputs;
        memcpy(to, w.hidden + b * hidden, hidden * sizeof(real));
        if (read) memcpy(to + hidden, s->read_vectors + who->to[b] * read, read * sizeof(real));
    }
    apply_linear(&m->output, w.joined, who->batch, w.outputs);
    clip_row(w.outputs, who->batch * m->output.outputs, m->clip);
}

/* Give rows of a DNC whose usage or precedence has overflowed outputs that are no numbers: the outputs may be finite
 * all the same, and the next steps would be of no use. */
static void fail_overflowed(const model *m, const states *s, const rows *who, step_work w) {
    i64 row = row_of(m->slots), after = m->linked ? m->writes * row : 0;
    for (i64 b = 0; b < who->batch; b++) {
        const real *usage = s->usage + who->to[b] * row;
        vec all_of_them = all(0);
        for (i64 n = 0; n < row; n += LANES) all_of_them += load(usage + n);
        for (i64 n = 0; n < after; n += LANES) all_of_them += load(s->precedence + who->to[b] * after + n);
        real total = sum(all_of_them);
        w.outputs[b * m->output.outputs] += total - total; /* 0, or no number */
    }
}

/* Step rows. allocation: [batch][writes][row], or none. */
static step_work step(const model *m, const states *s, const rows *who, const real *inputs, share of, real *work,
                      real *allocation) {
    i64 hidden = m->hidden.size;
    room put = {work, 0};
    step_work w = lay_step(m, of, &put);
    if (acts_before(m)) run_heads_before(m, s, who, w);
    run_controller(m, s, who, inputs, w, of, work);
    if (m->kind != RNN) run_heads(m, s, who, w, of, allocation);
    put_out(m, s, who, w);
    if (m->kind == DNC) fail_overflowed(m, s, who, w);
    for (i64 b = 0; acts_before(m) && b < who->batch; b++)
        memcpy(s->hidden + who->to[b] * hidden, w.hidden + b * hidden, hidden * sizeof(real));
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
    carry_leaf(s->hidden, from, to, m->hidden.size);
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

/* The gradients in a step of some rows. seen: of the inputs of a product, `widest` numbers a row; hidden: of the
 * controller's output; outs: of the outputs of its layers, one layer behind the other, [batch][size] each; controls: of
 * the interface of one row; spare: as much as `seen`; row: the scratch of dnc_row_backward and its like. */
typedef struct {
    real *seen, *hidden, *outs, *controls, *spare, *row;
} gradients;

/* Numbers in the outputs of all layers before `end`, of one row. */
static i64 outs_before(const model *m, i64 end) {
    i64 total = 0;
    for (i64 k = 0; k < end; k++) total += m->controller[k].size;
    return total;
}

static gradients lay_gradients(const model *m, i64 batch, room *from) {
    gradients d;
    d.seen = take(from, batch * widest(m)), d.hidden = take(from, batch * m->hidden.size);
    d.outs = take(from, batch * outs_before(m, m->layers)), d.controls = take(from, m->interface.outputs);
    d.spare = take(from, batch * widest(m));
    d.row = take(from, m->kind == DNC ? dnc_row_spare(m) : m->kind == NTM ? ntm_row_spare(m) : 0);
    return d;
}

/* The numbers that engram_backward needs for so many rows. */
i64 engram_backward_scratch(const model *m, i64 batch) {
    room counted = {0};
    lay_gradients(m, batch, &counted);
    return counted.taken;
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

static void put_inputs_backward(const model *m, const states *g, const rows *who, const real *d, i64 width,
                                real *d_inputs) {
    i64 x_size = padded(m->input_size), read = read_size(m);
    for (i64 b = 0; b < who->batch; b++, d += width) {
        real *d_x = d_inputs + who->row[b] * m->input_size;
        for (i64 k = 0; d_inputs && k < m->input_size; k++) d_x[k] += d[k];
        if (read) add_to(g->read_vectors + who->row[b] * read, d + x_size, read);
    }
}

/* Add the gradients of parts side by side, the rows of d, to those of the layers and inputs that they came from. */
static void put_side_by_side_backward(const model *m, const states *g, const rows *who, const sources *from,
                                      const real *d, i64 width, real *d_outs, real *d_inputs) {
    for (i64 k = 0; k < from->count; k++) {
        i64 part = from->parts[k];
        if (part == INPUTS) {
            put_inputs_backward(m, g, who, d, width, d_inputs);
            d += padded(m->input_size) + read_size(m);
            continue;
        }
        i64 size = m->controller[part].size;
        real *d_out = d_outs + who->batch * outs_before(m, part);
        for (i64 b = 0; b < who->batch; b++) add_to(d_out + b * size, d + b * width, size);
        d += size;
    }
}

static void put_out_backward(const model *m, const states *g, const rows *who, const real *d_outputs, step_work w,
                             gradients d) {
    i64 width = m->output.outputs, seen = padded_to_panels(m->output.inputs);
    i64 hidden = m->hidden.size, read = read_size_of_outputs(m);
    for (i64 b = 0; b < who->batch; b++) {
        real *y = w.outputs + b * width;
        memset(d.spare, 0, width * sizeof(real));
        memcpy(d.spare, d_outputs + who->row[b] * m->output_size, m->output_size * sizeof(real));
        for (i64 k = 0; k < width; k += LANES) store(y + k, clipped_backward(load(y + k), load(d.spare + k), m->clip));
    }
    linear_backward(&m->output, w.outputs, who->batch, d.seen);
    for (i64 b = 0; b < who->batch; b++) {
        memcpy(d.hidden + b * hidden, d.seen + b * seen, hidden * sizeof(real));
        if (read) add_to(g->read_vectors + who->row[b] * read, d.seen + b * seen + hidden, read);
    }
}

static void run_heads_backward(const model *m, const states *s, const states *g, const rows *who, step_work w,
                               gradients d) {
    i64 size = m->interface.outputs, own = memory_work(m), hidden = m->hidden.size, seen = padded_to_panels(hidden);
    for (i64 b = 0; b < who->batch; b++) {
        i64 from = who->from[b], to = who->to[b], row = who->row[b];
        real *raw = w.raw + b * size, *z = w.controls + b * size;
        room found = {w.memory + b * own, 0};
        if (b + 1 < who->batch) fetch_row(m, s, who->from[b + 1], w.memory + (b + 1) * own, own);
        memset(d.controls, 0, size * sizeof(real));
        if (m->kind == DNC) dnc_row_backward(m, s, g, from, to, row, z, raw, lay_dnc(m, &found), d.controls, d.row);
        else if (acts_before(m))
            ntm_aim_backward(m, s, g, from, to, row, z, raw, lay_ntm(m, &found), d.controls, d.row);
        else ntm_row_backward(m, s, g, from, to, row, z, raw, lay_ntm(m, &found), d.controls, d.row);
        memcpy(raw, d.controls, size * sizeof(real));
    }
    linear_backward(&m->interface, w.raw, who->batch, d.seen);
    for (i64 b = 0; b < who->batch; b++) add_to(d.hidden + b * hidden, d.seen + b * seen, hidden);
}

static void run_controller_backward(const model *m, const states *s, const states *g, const rows *who, share of,
                                    real *work, step_work w, gradients d, real *d_inputs) {
    i64 batch = who->batch, hidden = m->hidden.size;
    for (i64 k = 0; k < batch * hidden; k += LANES)
        store(d.hidden + k, clipped_backward(load(w.hidden + k), load(d.hidden + k), m->clip));
    memset(d.outs, 0, batch * outs_before(m, m->layers) * sizeof(real));
    put_side_by_side_backward(m, g, who, &m->hidden, d.hidden, hidden, d.outs, d_inputs);
    for (i64 k = m->layers - 1; k >= 0; k--) {
        const layer *cell = m->controller + k;
        layer_backward(cell, s->cells + k, g->cells + k, m->clip, who, work_of_layer(m, k, of, work),
                       d.outs + batch * outs_before(m, k), d.seen, d.spare);
        put_side_by_side_backward(m, g, who, &cell->below, d.seen, padded_to_panels(cell->gates.inputs), d.outs,
                                  d_inputs);
    }
}

static void run_heads_before_backward(const model *m, const states *s, const states *g, const rows *who, step_work w,
                                      gradients d) {
    i64 size = m->interface.outputs, hidden = m->hidden.size, seen = padded_to_panels(hidden);
    for (i64 b = 0; b < who->batch; b++) {
        real *raw = w.raw_before + b * size;
        memset(d.controls, 0, size * sizeof(real));
        ntm_act_backward(m, s, g, who->from[b], who->to[b], who->row[b], w.controls_before + b * size, raw, d.controls);
        memcpy(raw, d.controls, size * sizeof(real));
    }
    linear_backward(&m->interface, w.raw_before, who->batch, d.seen);
    for (i64 b = 0; b < who->batch; b++)
        memcpy(g->hidden + who->row[b] * hidden, d.seen + b * seen, hidden * sizeof(real));
}

/* The gradients of one step. g: those of the states after, [total] slots; then of those before. d_inputs:
 * [total][input_size], to which is added, or none. */
static void step_backward(const model *m, const states *s, const states *g, const rows *who, const real *d_outputs,
                          share of, real *work, real *d_inputs, real *scratch) {
    i64 hidden = m->hidden.size;
    room put = {work, 0}, left = {scratch, 0};
    step_work w = lay_step(m, of, &put);
    gradients d = lay_gradients(m, who->batch, &left);
    put_out_backward(m, g, who, d_outputs, w, d);
    for (i64 b = 0; acts_before(m) && b < who->batch; b++)
        add_to(d.hidden + b * hidden, g->hidden + who->row[b] * hidden, hidden);
    if (m->kind != RNN) run_heads_backward(m, s, g, who, w, d);
    run_controller_backward(m, s, g, who, of, work, w, d, d_inputs);
    if (acts_before(m)) run_heads_before_backward(m, s, g, who, w, d);
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
    CLEAR(w.hidden, m->hidden.size), CLEAR(w.raw, m->interface.outputs);
    if (acts_before(m)) CLEAR(w.hidden_before, m->hidden.size), CLEAR(w.raw_before, m->interface.outputs);
    CLEAR(w.joined, m->output.inputs), CLEAR(w.outputs, m->output.outputs);
#undef CLEAR
}

/* The gradients of a walk that was kept, from its last step to its first. d_outputs: [steps][total][output_size];
 * d_inputs: [steps][total][input_size], zeros when they come, or none; g: [total] slots of gradients, of the states
 * after the walk when it begins, of those before it when it ends. In the work of each step the products are replaced by
 * their gradients: what engram_weights needs. Rows that took no step leave zeros there. */
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
    sequence told = {over->steps, (1 + acts_before(m)) * over->total, over->work_stride};
    if (m->kind != RNN) weights_backward(&m->interface, told, w.hidden, w.raw, part, parts);
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

/* declared.h is written by build.py from layout.py: SOURCES, the hash of what the library is compiled from; FACTS,
 * the names of the structures, fields and numbers that Python has too; KINDS, a name for each type of structure; and
 * Python's declarations of the functions above, which the compiler compares with their definitions. */
#include "declared.h"

/* A name of C in words. place: the offset of a field, in bytes, or the value of a number. */
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
