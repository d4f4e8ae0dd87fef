/* What a model is, and where the states of its sessions lie. */

#ifndef ENGRAM_MODEL_H
#define ENGRAM_MODEL_H

#include "cells.h"
#include "memory.h"

enum model_kind { RNN, DNC, NTM };
enum strength { ONEPLUS, SOFTPLUS };
enum style { PAPER, PYTORCH_NTM, NTM_LASAGNE };
enum order { TOGETHER, IN_TURN, BEFORE_CONTROLLER };

typedef struct {
    i64 kind, layers, input_size, output_size, output_activation, output_groups, slots, word, reads, writes;
    i64 strength, linked, masking, deallocation, link_sharpening; /* of a DNC */
    i64 style, order, signed_heads, shift_width;                  /* of an NTM */
    double clip;
    const layer *controller;
    sources hidden; /* the outputs of the controller */
    linear interface, output;
    /* Where the parts of the interface begin in its output, padded word by word and head by head. */
    i64 read_keys, write_keys, erase, add, strengths, gates, modes, shifts, read_masks, write_masks, sharpness;
    i64 key_signs, add_signs;
} model;

/* The leaves of the states in an arena, or their gradients: [slots of the arena][...], rows padded, and words of the
 * memory too. */
typedef struct {
    real *memory, *read_weights, *write_weights, *read_vectors, *usage, *link, *precedence, *hidden;
    const cell_states *cells;
} states;

/* How many classes are in each group of the outputs, where they are classes. */
INLINE i64 classes_of(const model *m) { return m->output_size / m->output_groups; }

/* Whether heads write and read before the controller runs, by what it put out at the step before. */
INLINE i64 acts_before(const model *m) { return m->kind == NTM && m->order == BEFORE_CONTROLLER; }

/* Numbers in what was read, and in the part of it that the outputs see. */
INLINE i64 read_size(const model *m) { return m->reads * padded(m->word); }
INLINE i64 read_size_of_outputs(const model *m) { return acts_before(m) ? 0 : read_size(m); }

INLINE i64 at_least(i64 a, i64 b) { return a > b ? a : b; }

/* Room for numbers, of which so many are taken. Without a base it only counts. */
typedef struct {
    real *base;
    i64 taken;
} room;

/* Take `size` numbers and return where they lie, or rather where number `at` of them does. */
INLINE real *take_at(room *from, i64 size, i64 at) {
    real *taken = from->base ? from->base + from->taken + at : 0;
    from->taken += size;
    return taken;
}

INLINE real *take(room *from, i64 size) { return take_at(from, size, 0); }

INLINE real *memory_of(const model *m, const states *s, i64 slot) {
    return s->memory + slot * row_of(m->slots) * padded(m->word);
}
INLINE real *read_weights_of(const model *m, const states *s, i64 slot) {
    return s->read_weights + slot * m->reads * row_of(m->slots);
}
INLINE real *write_weights_of(const model *m, const states *s, i64 slot) {
    return s->write_weights + slot * m->writes * row_of(m->slots);
}
INLINE real *read_vectors_of(const model *m, const states *s, i64 slot) {
    return s->read_vectors + slot * read_size(m);
}

#endif
