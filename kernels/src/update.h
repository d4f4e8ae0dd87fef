/* The end of an update: the loss of a sequence with its gradient, the norm of the gradients, and the step of the
 * weights by an optimiser. */

#ifndef ENGRAM_UPDATE_H
#define ENGRAM_UPDATE_H

#include "model.h"

/* ---- The loss ---- */

enum answer { BITS, CLASSES };

/* Answers of a batch and what they should be. outputs: logits, targets, d_outputs: [steps][batch][size], of classes
 * [groups][size / groups]; mask: [steps][batch], 1 where an answer is due, else 0. Results: loss, the mean
 * cross-entropy in nats of a bit or of a group; d_outputs, its gradient; errors: wrong bits, or wrong answers, in the
 * batch, where steps due one behind the other are one answer. */
typedef struct {
    i64 answer, steps, batch, size, groups;
    const real *outputs, *targets, *mask;
    real *d_outputs;
    double loss, errors;
} loss_call;

/* Load the first `count` numbers, at most eight, followed by zeros; store them. */
INLINE vec load_some(const real *from, i64 count) {
    if (count >= LANES) return load(from);
    vec values = all(0);
    memcpy(&values, from, count * sizeof(real));
    return values;
}
INLINE void store_some(real *to, vec values, i64 count) {
    if (count >= LANES) store(to, values);
    else memcpy(to, &values, count * sizeof(real));
}

/* Return the cross-entropy of `size` bits: max(x, 0) - x t + ln(1 + e^-|x|). d: sigmoid(x) - t, by `scale`. */
static double bits_loss(const real *x, const real *t, real *d, i64 size, real scale) {
    double loss = 0;
    for (i64 k = 0; k < size; k += LANES) {
        vec logit = load_some(x + k, size - k), target = load_some(t + k, size - k);
        vec nats = max_(logit, all(0)) - logit * target + log1p_(exp_(-abs_(logit)));
        for (i64 lane = 0; lane < LANES && lane < size - k; lane++) loss += nats[lane];
        store_some(d + k, (sigmoid_(logit) - target) * all(scale), size - k);
    }
    return loss;
}

static double wrong_bits(const real *x, const real *t, i64 size) {
    i64 wrong = 0;
    for (i64 k = 0; k < size; k++) wrong += (x[k] > 0) != (t[k] > (real)0.5);
    return wrong;
}

/* Return the cross-entropy of one group of classes: sum t (ln sum e^x - x). d: sum t softmax(x) - t, by `scale`. */
static double classes_loss(const real *x, const real *t, real *d, i64 classes, real scale) {
    real top = x[0];
    for (i64 k = 1; k < classes; k++) top = x[k] > top || x[k] != x[k] ? x[k] : top;
    double total = 0, targets = 0, chosen = 0;
    for (i64 k = 0; k < classes; k += LANES) {
        vec e = exp_(load_some(x + k, classes - k) - all(top));
        store_some(d + k, e, classes - k);
        for (i64 lane = 0; lane < LANES && lane < classes - k; lane++) total += e[lane];
    }
    for (i64 k = 0; k < classes; k++) targets += t[k], chosen += (double)t[k] * (x[k] - top);
    for (i64 k = 0; k < classes; k++) d[k] = (d[k] * (real)(targets / total) - t[k]) * scale;
    return targets * log(total) - chosen;
}

/* Return the number of the largest, the first of several. */
static i64 largest_of(const real *values, i64 count) {
    i64 found = 0;
    for (i64 k = 1; k < count; k++) found = values[k] > values[found] ? k : found;
    return found;
}

static i64 is_wrong(const loss_call *call, i64 at) {
    i64 classes = call->size / call->groups;
    for (i64 g = 0; g < call->groups; g++) {
        i64 k = at * call->size + g * classes;
        if (largest_of(call->outputs + k, classes) != largest_of(call->targets + k, classes)) return 1;
    }
    return 0;
}

/* Return the wrong answers of a row. */
static double wrong_answers(const loss_call *call, i64 row) {
    i64 wrong = 0, counted = 0; /* counted: whether this answer is among the wrong ones */
    for (i64 t = 0; t < call->steps; t++) {
        i64 at = t * call->batch + row;
        if (!(call->mask[at] > 0)) counted = 0;
        else if (!counted && is_wrong(call, at)) counted = 1, wrong++;
    }
    return wrong;
}

/* The mean over no answer is 0. */
void engram_loss(loss_call *call) {
    uint64_t mode = flush_denormals();
    i64 rows = call->steps * call->batch, size = call->size, groups = call->answer == BITS ? 1 : call->groups;
    double due = 0;
    for (i64 at = 0; at < rows; at++) due += call->mask[at];
    double scale = 1 / ((due > 1 ? due : 1) * (call->answer == BITS ? size : groups));
    call->loss = call->errors = 0;
    clear(call->d_outputs, rows * size);
    for (i64 at = 0; at < rows; at++) {
        real due_here = call->mask[at];
        if (due_here == 0) continue;
        const real *x = call->outputs + at * size, *t = call->targets + at * size;
        real *d = call->d_outputs + at * size, share = due_here * (real)scale;
        if (call->answer == BITS) {
            call->loss += due_here * bits_loss(x, t, d, size, share);
            call->errors += due_here * wrong_bits(x, t, size);
            continue;
        }
        for (i64 g = 0, k = 0; g < groups; g++, k += size / groups)
            call->loss += due_here * classes_loss(x + k, t + k, d + k, size / groups, share);
    }
    call->loss *= scale;
    for (i64 row = 0; call->answer == CLASSES && row < call->batch; row++) call->errors += wrong_answers(call, row);
    restore_mode(mode);
}

/* ---- The step of the weights ---- */

enum optimizer_kind { ADAM, RMSPROP };

/* The rule of training/optimizers.py by which weights change. step: the number of steps made. decay: of the mean
 * gradient; square_decay: of its square, both the same in RMSProp. */
typedef struct {
    i64 kind, step;
    double rate, decay, square_decay, momentum, epsilon, l1, l2, clip_value, clip_norm;
} optimizer;

/* Weights in one array of `count` numbers, a multiple of sixteen. trained: 1 for a weight, 0 for a number that stays as
 * it is. mean, square, change: what the optimiser keeps. */
typedef struct {
    i64 count;
    real *values, *gradients;
    const real *trained;
    real *mean, *square, *change;
} weights;

/* Numbers whose squares are summed in float32 before they are added in float64. */
#define SUMMED (64 * WIDE)

INLINE wide_vec sign_wide(wide_vec x) {
    wide_vec one = all_wide(1), zero = all_wide(0);
    return choose(x > zero, one, zero) - choose(x < zero, one, zero);
}

/* Add l1 sign(w) + l2 w to the gradients, clip them to `bound`, if it is not 0, and clear those of numbers that are not
 * trained. Returns the sum of their squares. */
static double finish_gradients(const weights *w, real l1, real l2, real bound) {
    double total = 0;
    for (i64 start = 0; start < w->count; start += SUMMED) {
        wide_vec squares = all_wide(0);
        for (i64 k = start; k < start + SUMMED && k < w->count; k += WIDE) {
            wide_vec g = load_wide(w->gradients + k);
            if (l1 > 0) g = fma_(all_wide(l1), sign_wide(load_wide(w->values + k)), g);
            if (l2 > 0) g = fma_(all_wide(l2), load_wide(w->values + k), g);
            if (bound > 0) g = min_(max_(g, all_wide(-bound)), all_wide(bound));
            g = choose(load_wide(w->trained + k) > all_wide(0), g, all_wide(0));
            store_wide(w->gradients + k, g);
            squares = fma_(g, g, squares);
        }
        total += sum_wide(squares);
    }
    return total;
}

/* Add the regularisers to the gradients of `parts` arrays of weights; return the norm of all. */
double engram_gradient_norm(const optimizer *o, const weights *w, i64 parts) {
    uint64_t mode = flush_denormals();
    double squares = 0;
    for (i64 part = 0; part < parts; part++) squares += finish_gradients(w + part, o->l1, o->l2, 0);
    restore_mode(mode);
    return sqrt(squares);
}

/* Add to the weights from k on. Where nothing is trained, the change may be 0 / 0. */
INLINE void change_weights(const weights *w, i64 k, wide_vec change) {
    change = choose(load_wide(w->trained + k) > all_wide(0), change, all_wide(0));
    store_wide(w->values + k, load_wide(w->values + k) + change);
}

/* Kingma & Ba, arXiv 1412.6980. scale: of the gradients. */
static void adam(const optimizer *o, const weights *w, real scale) {
    wide_vec new = all_wide(1 - o->decay), old_square = all_wide(o->square_decay);
    wide_vec new_square = all_wide(1 - o->square_decay), epsilon = all_wide(o->epsilon);
    wide_vec rate = all_wide(o->rate / (1 - pow(o->decay, o->step)));
    wide_vec root = all_wide(1 / sqrt(1 - pow(o->square_decay, o->step)));
    for (i64 k = 0; k < w->count; k += WIDE) {
        wide_vec g = load_wide(w->gradients + k) * all_wide(scale);
        wide_vec mean = load_wide(w->mean + k), square = load_wide(w->square + k);
        mean = fma_(g - mean, new, mean);
        square = fma_(new_square * g, g, old_square * square);
        store_wide(w->mean + k, mean), store_wide(w->square + k, square);
        change_weights(w, k, -rate * mean / fma_(sqrt_(square), root, epsilon));
    }
}

/* Graves, arXiv 1308.0850, equations 38-41: centred, and epsilon inside the root. */
static void rmsprop(const optimizer *o, const weights *w, real scale) {
    wide_vec new = all_wide(1 - o->decay), new_square = all_wide(1 - o->square_decay), epsilon = all_wide(o->epsilon);
    wide_vec momentum = all_wide(o->momentum), rate = all_wide(o->rate);
    for (i64 k = 0; k < w->count; k += WIDE) {
        wide_vec g = load_wide(w->gradients + k) * all_wide(scale);
        wide_vec mean = load_wide(w->mean + k), square = load_wide(w->square + k);
        square = fma_(g * g - square, new_square, square);
        mean = fma_(g - mean, new, mean);
        store_wide(w->mean + k, mean), store_wide(w->square + k, square);
        wide_vec spread = max_(square - mean * mean, all_wide(0)) + epsilon;
        wide_vec change = fma_(-rate, g / sqrt_(spread), momentum * load_wide(w->change + k));
        store_wide(w->change + k, change);
        change_weights(w, k, change);
    }
}

/* ---- The transposed matrices ---- */

static void transpose(const linear *layer) {
    real *to = (real *)layer->transposed;
    for (i64 panel = 0; panel < layer->outputs; panel += PANEL)
        for (i64 k = 0; k < layer->inputs; k++) {
            const real *from = layer->weights + panel * layer->inputs + k * PANEL;
            real *column = to + k / PANEL * PANEL * layer->outputs + panel * PANEL + k % PANEL;
            for (i64 lane = 0; lane < PANEL; lane++) column[lane * PANEL] = from[lane];
        }
}

/* Make the transposed matrices again, from weights that have changed. */
static void transpose_all(const model *m) {
    for (i64 k = 0; k < m->layers; k++) {
        transpose(&m->controller[k].gates);
        if (m->controller[k].second.weights) transpose(&m->controller[k].second);
    }
    if (m->kind != RNN) transpose(&m->interface);
    if (has_programs(m)) transpose(&m->query);
    transpose(&m->output);
}

/* ---- The whole step ---- */

/* Clip the gradients of `parts` arrays of weights, of this norm, change the weights by them, and count the step. m: the
 * model of the weights. One call, so that an interrupt in Python comes before all of it or after. */
void engram_step_weights(optimizer *o, const model *m, const weights *w, i64 parts, double norm) {
    uint64_t mode = flush_denormals();
    o->step++;
    if (o->clip_value > 0) {
        double squares = 0;
        for (i64 part = 0; part < parts; part++) squares += finish_gradients(w + part, 0, 0, o->clip_value);
        norm = sqrt(squares);
    }
    double scale = o->clip_norm > 0 ? o->clip_norm / (norm + 1e-6) : 1; /* torch's own factor */
    for (i64 part = 0; part < parts; part++) (o->kind == ADAM ? adam : rmsprop)(o, w + part, scale < 1 ? scale : 1);
    transpose_all(m);
    restore_mode(mode);
}

#endif
