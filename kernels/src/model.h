/* A model, the states of its sessions, and one row of a step of its memory. */

#ifndef ENGRAM_MODEL_H
#define ENGRAM_MODEL_H

#include "cells.h"
#include "memory.h"

enum model_kind { RNN, DNC, NTM };
enum strength { ONEPLUS, SOFTPLUS };
enum style { PAPER, PYTORCH_NTM, NTM_LASAGNE };
enum order { TOGETHER, IN_TURN, BEFORE_CONTROLLER };

typedef struct {
    i64 kind, layers, input_size, output_size, output_activation, output_groups;
    i64 memory_size, word_size, read_heads, write_heads;
    i64 strength, linked, masking, deallocation, link_sharpening; /* of a DNC */
    i64 style, order, signed_heads, shift_width;                  /* of an NTM */
    double clip;
    double look_up_scale; /* the factor of key strengths: models/addressing.py, scaled_strengths; or 1 */
    const layer *controller;
    sources hidden; /* the outputs of the controller */
    linear interface, output, query;
    /* Where the parts of the interface begin in its vector, padded word by word and head by head. */
    i64 read_keys, write_keys, erase, add, strengths, gates, modes, shifts, read_masks, write_masks, sharpness;
    i64 key_signs, add_signs;
    /* Stored programs. The outputs of `interface` are as many vectors of `interface_size` numbers, a multiple of
     * sixteen; of several, `query` gives the query, padded, and its strength, and the keys are [programs, padded
     * wide][key size, padded]. */
    i64 programs, program_key_size, interface_size;
    const real *program_keys;
    real *d_program_keys;
    const real *forced; /* for each number of the activated interface the value of a forced gate, or one below 0 */
} model;

/* The leaves of the states in an arena, or their gradients: [slots of the arena][...], the last axis padded, and the
 * locations of the memory too. */
typedef struct {
    real *memory, *read_weights, *write_weights, *read_vectors, *usage, *link, *precedence, *hidden;
    const cell_states *cells;
} states;

/* The number of classes in each group of the outputs, where they are classes. */
INLINE i64 classes_of(const model *m) { return m->output_size / m->output_groups; }

/* Hold the forced gates of an activated interface, if there are any, at their values. */
INLINE void force_gates(const model *m, real *controls) {
    for (i64 k = 0; m->forced && k < m->interface_size; k += LANES) {
        vec forced = load(m->forced + k);
        store(controls + k, choose(forced >= all(0), forced, load(controls + k)));
    }
}

/* Whether heads write and read before the controller runs, by its output at the step before. */
INLINE i64 acts_before(const model *m) { return m->kind == NTM && m->order == BEFORE_CONTROLLER; }

INLINE i64 has_programs(const model *m) { return m->programs > 1; }

/* Numbers in the vectors read, and in those of them that the outputs depend on. */
INLINE i64 read_size(const model *m) { return m->read_heads * padded(m->word_size); }
INLINE i64 read_size_of_outputs(const model *m) { return acts_before(m) ? 0 : read_size(m); }

INLINE memory_shape shape_of(const model *m) {
    return (memory_shape){m->memory_size, padded_wide(m->memory_size), padded(m->word_size)};
}

/* The leaves of one state, without the controller's. memory: [width][size]; read_weights, write_weights:
 * [heads][width]; read_vectors: [heads][size]; usage: [width]; link: [write heads][locations][width]; precedence:
 * [write heads][width]. Leaves that a model does not have are none. */
typedef struct {
    real *memory, *read_weights, *write_weights, *read_vectors, *usage, *link, *precedence;
} leaves;

INLINE real *leaf_in(real *leaf, i64 slot, i64 size) { return leaf ? leaf + slot * size : 0; }

/* Return the leaves of the state in a slot of an arena. */
INLINE leaves leaves_in(const model *m, const states *s, i64 slot) {
    memory_shape shape = shape_of(m);
    i64 writes = m->write_heads * shape.width;
    return (leaves){
        .memory = leaf_in(s->memory, slot, shape.width * shape.size),
        .read_weights = leaf_in(s->read_weights, slot, m->read_heads * shape.width),
        .write_weights = leaf_in(s->write_weights, slot, writes),
        .read_vectors = leaf_in(s->read_vectors, slot, read_size(m)),
        .usage = leaf_in(s->usage, slot, shape.width),
        .link = leaf_in(s->link, slot, writes * shape.locations),
        .precedence = leaf_in(s->precedence, slot, writes),
    };
}

/* What a step leaves besides outputs and states, of each row; none of what was not asked for. controls: the interface,
 * activated, but for strengths and sharpness of a DNC; controls_before: where heads act before the controller, the one
 * by which they acted. retention: [width]; forward_weights, backward_weights: [write heads][read heads][width]; the
 * others: [heads][width], of the read heads, of the write heads or, in an NTM, of both; program_weights: of the keys,
 * [width]. */
typedef struct {
    real *controls, *controls_before;
    real *retention, *allocation_weights, *write_content_weights, *read_content_weights;
    real *forward_weights, *backward_weights;
    real *content_weights, *gated_weights, *shifted_weights;
    real *program_weights;
} traces;

/* The memory's part of a step, for one row. before, after: its states, which may be the same. controls: the interface
 * as the heads use it, activated. traced, row: what to leave, or none, and where. */
typedef struct {
    const model *m;
    memory_shape shape;
    leaves before, after;
    real *controls;
    const traces *traced;
    i64 row;
} memory_step;

/* Its gradients. state: of the state after the step, replaced by that of the state before. raw: the interface before
 * its activation. controls: of the interface, zeros at the beginning; at first of the activated one, at last of `raw`.
 */
typedef struct {
    leaves state;
    const real *raw;
    real *controls;
} memory_gradients;

INLINE void clear(real *values, i64 count) { memset(values, 0, count * sizeof(real)); }
INLINE void copy(real *to, const real *from, i64 count) { memcpy(to, from, count * sizeof(real)); }

/* Copy a row of a trace, [rows][count], if it was asked for. */
INLINE void leave(real *trace, i64 row, const real *from, i64 count) {
    if (trace) copy(trace + row * count, from, count);
}

#endif
