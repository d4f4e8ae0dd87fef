/* The interface of the heads, models/interface.py: a linear layer, or of several stored programs the mixture that a
 * look-up among their keys finds; and its gradients. */

#ifndef ENGRAM_PROGRAMS_H
#define ENGRAM_PROGRAMS_H

#include "model.h"

/* The activations of the interface that its gradients need, row by row; with one program, of vectors only. vectors: the
 * interface by each program, [programs][interface size], later its gradient; with one program it is the raw interface
 * itself. query: q and its strength; shares: a, [width]; norms, similarities: of the look-up, [width]. Of the backward
 * pass, d_query, and d_products and key_scale, as d_weights and word_scale in content_weights_backward. */
typedef struct {
    real *vectors, *query, *norms, *similarities, *shares;
    real *d_query, *d_products, *key_scale;
} program_workspace;

/* The keys as a memory of a word for each program. */
INLINE memory_shape keys_shape(const model *m) {
    return (memory_shape){m->programs, padded_wide(m->programs), padded(m->program_key_size)};
}

/* Allocate the activations of a step and, where there is a step before, those of that step. raw, raw_before: the
 * interface. */
static program_workspace allocate_programs(const model *m, row_range of, allocator *from, real *raw, i64 before,
                                           real *raw_before, program_workspace *workspace_before) {
    program_workspace w = {.vectors = raw}, b = {.vectors = raw_before};
    i64 query = m->query.outputs, width = keys_shape(m).width;
    if (has_programs(m)) {
        w.vectors = allocate_both(from, of, m->interface.outputs, before, &b.vectors);
        w.query = allocate_both(from, of, query, before, &b.query);
        w.norms = allocate_both(from, of, width, before, &b.norms);
        w.similarities = allocate_both(from, of, width, before, &b.similarities);
        w.shares = allocate_both(from, of, width, before, &b.shares);
        w.d_query = allocate_both(from, of, query, before, &b.d_query);
        w.d_products = allocate_both(from, of, width, before, &b.d_products);
        w.key_scale = allocate_both(from, of, width, before, &b.key_scale);
    }
    *workspace_before = b;
    return w;
}

/* Return the activations of one row. at: numbers from this step's workspace to that of the row's step. */
INLINE program_workspace programs_of_row(const model *m, program_workspace w, i64 row, i64 at) {
    i64 query = at + row * m->query.outputs, width = at + row * keys_shape(m).width;
    return (program_workspace){
        .vectors = w.vectors + at + row * m->interface.outputs,
        .query = w.query + query,
        .norms = w.norms + width,
        .similarities = w.similarities + width,
        .shares = w.shares + width,
        .d_query = w.d_query + query,
        .d_products = w.d_products + width,
        .key_scale = w.key_scale + width,
    };
}

/* The look-up of one row. */
INLINE content_weighting look_up_of(const model *m, program_workspace w) {
    i64 size = keys_shape(m).size;
    return (content_weighting){
        .similarity = COSINE,
        .strength = scalar(softplus_, w.query[size]),
        .key_norm = norm(COSINE, w.query, size),
        .norms = w.norms,
        .similarities = w.similarities,
        .weights = w.shares,
    };
}

/* a = softmax_p(beta D(q, k_p)), then xi = sum_p a_p xi_p, for one row. raw: xi, [interface size]. */
static void mix_programs(const model *m, program_workspace w, real *raw) {
    memory_shape shape = keys_shape(m);
    norms(m->program_keys, shape, COSINE, w.norms);
    products(m->program_keys, shape, w.query, w.similarities);
    content_weights(look_up_of(m, w), shape);
    for (i64 k = 0; k < m->interface_size; k += WIDE) {
        wide_vec total = all_wide(0);
        for (i64 p = 0; p < m->programs; p++)
            total = fma_(all_wide(w.shares[p]), load_wide(w.vectors + p * m->interface_size + k), total);
        store_wide(raw + k, total);
    }
}

/* From d, the gradient of the mixed interface, to those of the interface by each program, in place of w.vectors, and of
 * the query. */
static void mix_programs_backward(const model *m, program_workspace w, const real *d) {
    memory_shape shape = keys_shape(m);
    clear(w.d_products, shape.width), clear(w.key_scale, shape.width), clear(w.d_query, m->query.outputs);
    for (i64 p = 0; p < m->programs; p++) {
        real *vector = w.vectors + p * m->interface_size;
        w.d_products[p] = dot_wide(d, vector, m->interface_size);
        for (i64 k = 0; k < m->interface_size; k += WIDE)
            store_wide(vector + k, all_wide(w.shares[p]) * load_wide(d + k));
    }
    content_gradient by = content_weights_backward(look_up_of(m, w), shape, w.d_products, w.key_scale);
    key_backward(m->program_keys, w.d_products, shape, w.query, by.key_scale, w.d_query);
    w.d_query[shape.size] = by.strength * scalar(sigmoid_, w.query[shape.size]);
}

/* Compute the interface of rows. hidden: [rows][hidden size]; raw: [rows][interface size]. */
static void apply_interface(const model *m, const real *hidden, i64 rows, program_workspace w, real *raw) {
    apply_linear(&m->interface, hidden, rows, w.vectors);
    if (!has_programs(m)) return;
    apply_linear(&m->query, hidden, rows, w.query);
    for (i64 b = 0; b < rows; b++) mix_programs(m, programs_of_row(m, w, b, 0), raw + b * m->interface_size);
}

/* From d, the gradient of the interface, to that of its inputs, d_hidden: [rows][hidden size, padded to panels], which
 * is set. scratch: as d_hidden, with several programs. */
static void interface_backward(const model *m, const real *d, i64 rows, program_workspace w, real *d_hidden,
                               real *scratch) {
    for (i64 b = 0; has_programs(m) && b < rows; b++)
        mix_programs_backward(m, programs_of_row(m, w, b, 0), d + b * m->interface_size);
    linear_backward(&m->interface, w.vectors, rows, d_hidden);
    if (!has_programs(m)) return;
    linear_backward(&m->query, w.d_query, rows, scratch);
    add_to(d_hidden, scratch, rows * padded_to_panels(m->hidden.size));
}

/* Add one row's gradients of the keys: dk_p += dP_p q + c_p k_p. */
static void program_keys_backward(const model *m, program_workspace w) {
    outer_products term = {0};
    add_outer_product(m->d_program_keys, keys_shape(m), &term, w.d_products, w.query);
    add_outer_products(m->d_program_keys, keys_shape(m), &term, w.key_scale, m->program_keys);
}

/* Add to the gradients of the weights of the interface over a sequence: part `part` of `parts` of each matrix. hidden,
 * w: of the first step. */
static void interface_weights_backward(const model *m, sequence over, const real *hidden, program_workspace w, i64 part,
                                       i64 parts) {
    weights_backward(&m->interface, over, hidden, w.vectors, part, parts);
    if (!has_programs(m)) return;
    weights_backward(&m->query, over, hidden, w.d_query, part, parts);
    for (i64 step = over.steps - 1; part == 0 && step >= 0; step--)
        for (i64 row = 0; row < over.parts * over.batch; row++)
            if (step < over.taken[row % over.batch])
                program_keys_backward(m, programs_of_row(m, w, row, step * over.stride));
}

#endif
