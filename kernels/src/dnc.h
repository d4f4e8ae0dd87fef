/* The memory's part of a DNC's step, models/dnc.py, for one row; and its gradients. */

#ifndef ENGRAM_DNC_H
#define ENGRAM_DNC_H

#include "model.h"

/* The activations of a step that its gradients need. */
typedef struct {
    real *retention;                          /* [width] */
    real *used;                               /* [write heads][width]: usage as each write head finds it */
    real *allocation;                         /* [write heads][width] */
    int32_t *order;                           /* [write heads][width]: the locations, the most free first */
    real *write_norms, *read_norms;           /* norms of words: [width], or with masks [heads][width] */
    real *write_similarities, *write_content; /* [write heads][width] */
    real *read_similarities, *read_content;   /* [read heads][width] */
    real *forward, *backward;                 /* [write heads][read heads][width] */
    real *sharp_forward, *sharp_backward;     /* the same, with link_sharpening */
    real *write_masked, *read_masked;         /* [heads][2][size], with masks */
} dnc_workspace;

static dnc_workspace allocate_dnc_workspace(const model *m, allocator *from) {
    memory_shape shape = shape_of(m);
    i64 reads = m->read_heads * shape.width, writes = m->write_heads * shape.width;
    i64 directions = m->linked ? m->write_heads * reads : 0, masks = m->masking ? 2 * shape.size : 0;
    dnc_workspace w;
    w.retention = allocate(from, shape.width);
    w.used = allocate(from, writes);
    w.allocation = allocate(from, writes);
    w.order = allocate_integers(from, writes);
    w.write_norms = allocate(from, m->masking ? writes : shape.width);
    w.read_norms = allocate(from, m->masking ? reads : shape.width);
    w.write_similarities = allocate(from, writes), w.write_content = allocate(from, writes);
    w.read_similarities = allocate(from, reads), w.read_content = allocate(from, reads);
    w.forward = allocate(from, directions), w.backward = allocate(from, directions);
    w.sharp_forward = m->link_sharpening ? allocate(from, directions) : w.forward;
    w.sharp_backward = m->link_sharpening ? allocate(from, directions) : w.backward;
    w.write_masked = allocate(from, m->write_heads * masks);
    w.read_masked = allocate(from, m->read_heads * masks);
    return w;
}

#define BYTES 256

/* Scratch of a step: free: [width]; sorted: [width]; counts: [256]. */
typedef struct {
    real *free;
    int32_t *sorted, *counts;
} dnc_scratch;

static dnc_scratch allocate_dnc_scratch(const model *m, allocator *from) {
    memory_shape shape = shape_of(m);
    dnc_scratch scratch;
    scratch.free = allocate(from, shape.width);
    scratch.sorted = allocate_integers(from, shape.width);
    scratch.counts = allocate_integers(from, BYTES);
    return scratch;
}

/* Scratch of a step's gradients: the gradients of ... */
typedef struct {
    real *previous;                 /* the read weights before, [read heads][width] */
    real *read_content;             /* [read heads][width] */
    real *forward, *backward;       /* [write heads][read heads][width] */
    real *write_content;            /* [write heads][width] */
    real *allocation;               /* [write heads][width] */
    real *used, *retention;         /* [width] */
    real *word_scale;               /* [width], as in content_weights_backward */
    real *mask_sums, *mask_squares; /* [size], as in masked_gradients */
    real *along;                    /* [1 + 4][width], as in link_gradients */
    real *free, *before;            /* [width], as in allocation_weights_backward */
} dnc_gradients;

static dnc_gradients allocate_dnc_gradients(const model *m, allocator *from) {
    memory_shape shape = shape_of(m);
    i64 width = shape.width, reads = m->read_heads * width, writes = m->write_heads * width;
    dnc_gradients d;
    d.previous = allocate(from, reads), d.read_content = allocate(from, reads);
    d.forward = allocate(from, m->write_heads * reads), d.backward = allocate(from, m->write_heads * reads);
    d.write_content = allocate(from, writes), d.allocation = allocate(from, writes);
    d.used = allocate(from, width), d.retention = allocate(from, width), d.word_scale = allocate(from, width);
    d.mask_sums = allocate(from, shape.size), d.mask_squares = allocate(from, shape.size);
    d.along = allocate(from, (1 + 4) * width);
    d.free = allocate(from, width), d.before = allocate(from, width);
    return d;
}

/* ---- The interface ---- */

/* The gates in an interface, or their gradients: [read heads], and [write heads] each. */
typedef struct {
    real *free, *allocation, *write;
} dnc_gates;

INLINE dnc_gates gates_in(const model *m, real *controls) {
    real *gates = controls + m->gates;
    return (dnc_gates){gates, gates + m->read_heads, gates + m->read_heads + m->write_heads};
}

/* The read modes of head r in an interface, or their gradients: backward and forward [write heads] each, then content.
 */
INLINE real *modes_in(const model *m, real *controls, i64 r) {
    return controls + m->modes + r * padded(2 * m->write_heads + 1);
}

INLINE real dnc_strength(const model *m, real x) { return scalar(softplus_, x) + (m->strength == ONEPLUS ? 1 : 0); }

INLINE void sigmoid_part(real *values, i64 count) {
    for (i64 k = 0; k < count; k += LANES) store(values + k, sigmoid_(load(values + k)));
}

INLINE void sigmoid_part_backward(const real *y, real *d, i64 count) {
    for (i64 k = 0; k < count; k += LANES) {
        vec s = load(y + k);
        store(d + k, load(d + k) * s * (all(1) - s));
    }
}

/* Activate the interface, in place. Strengths and sharpness are activated where they are used. */
static void dnc_controls(const model *m, real *z) {
    i64 size = padded(m->word_size), reads = m->read_heads, writes = m->write_heads, modes = 2 * writes + 1;
    sigmoid_part(z + m->erase, writes * size);
    sigmoid_part(z + m->gates, padded(reads + 2 * writes));
    for (i64 r = 0; m->linked && r < reads; r++) softmax_(modes_in(m, z, r), modes, padded(modes));
    force_gates(m, z);
    if (!m->masking) return;
    sigmoid_part(z + m->read_masks, reads * size);
    sigmoid_part(z + m->write_masks, writes * size);
}

/* From the gradient of the activated interface z to that of the raw one, in place of d. Those of the strengths' and the
 * sharpness's activations are in it where z is used; here, that of the strengths' softplus. */
static void dnc_controls_backward(const model *m, real *z, const real *raw, real *d) {
    i64 size = padded(m->word_size), reads = m->read_heads, writes = m->write_heads;
    sigmoid_part_backward(z + m->erase, d + m->erase, writes * size);
    sigmoid_part_backward(z + m->gates, d + m->gates, padded(reads + 2 * writes));
    for (i64 k = m->strengths; k < m->strengths + padded(reads + writes); k += LANES)
        store(d + k, load(d + k) * sigmoid_(load(raw + k)));
    for (i64 r = 0; m->linked && r < reads; r++)
        softmax_backward_(modes_in(m, z, r), modes_in(m, d, r), padded(2 * writes + 1));
    if (!m->masking) return;
    sigmoid_part_backward(z + m->read_masks, d + m->read_masks, reads * size);
    sigmoid_part_backward(z + m->write_masks, d + m->write_masks, writes * size);
}

/* ---- Usage ---- */

/* 1 - prod_v (1 - w_v) is written; return the product, for sixteen locations from n on. */
INLINE wide_vec unwritten(const memory_step *s, i64 n) {
    wide_vec product = all_wide(1);
    for (i64 v = 0; v < s->m->write_heads; v++)
        product *= all_wide(1) - load_wide(s->before.write_weights + v * s->shape.width + n);
    return product;
}

/* prod_r (1 - f_r w_r) of all read heads but `head`, for sixteen locations from n on. */
INLINE wide_vec retained_by_others(const memory_step *s, const real *free_gates, i64 head, i64 n) {
    wide_vec product = all_wide(1);
    for (i64 r = 0; r < s->m->read_heads; r++)
        if (r != head)
            product *=
                all_wide(1) - all_wide(free_gates[r]) * load_wide(s->before.read_weights + r * s->shape.width + n);
    return product;
}

/* u = (u + (1 - u) (1 - prod_v (1 - w_v))) psi, psi = prod_r (1 - f_r w_r), both weightings of the step before. */
static void update_usage(const memory_step *s, real *retention) {
    const real *free_gates = gates_in(s->m, s->controls).free, *before = s->before.usage;
    real *usage = s->after.usage;
    for (i64 n = 0; n < s->shape.width; n += WIDE) {
        wide_vec u = load_wide(before + n), psi = retained_by_others(s, free_gates, -1, n);
        store_wide(usage + n, (u + (all_wide(1) - u) * (all_wide(1) - unwritten(s, n))) * psi);
        store_wide(retention + n, psi);
    }
}

/* d->state.usage: of the usage after, replaced by that of the usage before. d_retention: of psi as the memory used it.
 * To d_previous, of the read weights before, and to the free gates is added. No gradient flows through the write
 * weights. */
static void update_usage_backward(const memory_step *s, const memory_gradients *d, const real *retention,
                                  const real *d_retention, real *d_previous) {
    i64 width = s->shape.width;
    const real *free_gates = gates_in(s->m, s->controls).free, *before = s->before.usage;
    real *d_free_gates = gates_in(s->m, d->controls).free, *d_usage = d->state.usage;
    for (i64 r = 0; r < s->m->read_heads; r++) {
        const real *read_weights = s->before.read_weights + r * width;
        wide_vec gate = all_wide(free_gates[r]), total = all_wide(0);
        for (i64 n = 0; n < width; n += WIDE) {
            wide_vec u = load_wide(before + n), used = u + (all_wide(1) - u) * (all_wide(1) - unwritten(s, n));
            wide_vec d_psi = fma_(load_wide(d_usage + n), used, load_wide(d_retention + n)) *
                             retained_by_others(s, free_gates, r, n);
            real *d_weights = d_previous + r * width + n;
            total -= d_psi * load_wide(read_weights + n);
            store_wide(d_weights, load_wide(d_weights) - d_psi * gate);
        }
        d_free_gates[r] += sum_wide(total);
    }
    for (i64 n = 0; n < width; n += WIDE)
        store_wide(d_usage + n, load_wide(d_usage + n) * load_wide(retention + n) * unwritten(s, n));
}

/* ---- Allocation ---- */

/* Order the locations, the most free first, equals by their numbers: the place of each is the number of those before
 * it. free_: [width], not negative, so that its bits compare as it does; -1 beyond the locations. */
static void rank_by_free(const real *free_, memory_shape shape, int32_t *order) {
    for (i64 n = 0; n < shape.locations; n++) {
        whole own;
        memcpy(&own, free_ + n, sizeof own);
        wide_ivec before = {0}, numbers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        i64 m = 0, here = n / WIDE * WIDE;
        for (; m < here; m += WIDE) before -= (wide_ivec)load_wide(free_ + m) > own - 1;
        before -= (wide_ivec)load_wide(free_ + m) > own + (numbers < (whole)(n - here));
        for (m += WIDE; m < shape.width; m += WIDE) before -= (wide_ivec)load_wide(free_ + m) > own;
        order[__builtin_reduce_add(before)] = (int32_t)n;
    }
}

/* The same order for many locations: a stable sort by the bits, which are not negative, from the lowest byte to the
 * highest. */
static void sort_by_free(dnc_scratch scratch, i64 locations, int32_t *order) {
    const real *free_ = scratch.free;
    int32_t *counts = scratch.counts;
    for (i64 n = 0; n < locations; n++) order[n] = (int32_t)n;
    for (int shift = 0; shift < (int)(8 * sizeof(real)); shift += 8) {
        memset(counts, 0, BYTES * sizeof(int32_t));
        for (i64 n = 0; n < locations; n++) {
            whole bits;
            memcpy(&bits, free_ + n, sizeof bits);
            counts[(~bits >> shift) & (BYTES - 1)]++;
        }
        for (int32_t total = 0, byte = 0; byte < BYTES; byte++) {
            int32_t here = counts[byte];
            counts[byte] = total, total += here;
        }
        for (i64 n = 0; n < locations; n++) {
            whole bits;
            memcpy(&bits, free_ + order[n], sizeof bits);
            scratch.sorted[counts[(~bits >> shift) & (BYTES - 1)]++] = order[n];
        }
        memcpy(order, scratch.sorted, locations * sizeof(int32_t));
    }
}

/* 1 - u, u = eps + (1 - eps) usage, rounded as torch does. */
INLINE wide_vec free_of(wide_vec usage) {
    return max_(all_wide(1) - (all_wide(EPSILON) + all_wide(1 - EPSILON) * usage), all_wide(0));
}

/* Locations up to which ranking each is faster than sorting. */
#define MOST_RANKED 128

/* a[phi_j] = (1 - u[phi_j]) prod_{i<j} u[phi_i], the most free first. usage, out: [width]; order: phi, [width]. */
static void allocation_weights(const real *usage, memory_shape shape, real *out, int32_t *order, dnc_scratch scratch) {
    real *free_ = scratch.free;
    for (i64 n = 0; n < shape.width; n += WIDE)
        store_wide(free_ + n, free_of(load_wide(usage + n))), store_wide(out + n, all_wide(0));
    for (i64 n = shape.locations; n < shape.width; n++) free_[n] = -1;
    if (shape.locations <= MOST_RANKED) rank_by_free(free_, shape, order);
    else sort_by_free(scratch, shape.locations, order);
    real all_before_used = 1;
    for (i64 j = 0; j < shape.locations; j++) {
        real own = free_[order[j]];
        out[order[j]] = own * all_before_used;
        all_before_used *= 1 - own;
    }
}

/* Add to d_usage [width] the gradient from d_allocation [width]. scratch: free and before. */
static void allocation_weights_backward(const real *usage, const real *allocation, const int32_t *order,
                                        memory_shape shape, const real *d_allocation, real *d_usage,
                                        dnc_gradients scratch) {
    real *free_ = scratch.free, *before = scratch.before, product = 1, rest = 0;
    for (i64 n = 0; n < shape.width; n += WIDE) store_wide(free_ + n, free_of(load_wide(usage + n)));
    for (i64 j = 0; j < shape.locations; j++) before[j] = product, product *= 1 - free_[order[j]];
    for (i64 j = shape.locations - 1; j >= 0; j--) {
        i64 n = order[j];
        d_usage[n] -= (1 - EPSILON) * (d_allocation[n] * before[j] - rest / (1 - free_[n]));
        rest += d_allocation[n] * allocation[n];
    }
}

/* Find each write head's allocation. A head finds used what the heads before it will write by allocation:
 * u_v+1 = u_v + (1 - u_v) g_a g_w a_v. */
static void allocate_locations(const memory_step *s, const dnc_workspace *w, dnc_scratch scratch) {
    i64 width = s->shape.width, writes = s->m->write_heads;
    dnc_gates gates = gates_in(s->m, s->controls);
    copy(w->used, s->after.usage, width);
    for (i64 v = 0; v < writes; v++) {
        real *used = w->used + v * width, *a = w->allocation + v * width;
        allocation_weights(used, s->shape, a, w->order + v * width, scratch);
        wide_vec gate = all_wide(gates.allocation[v] * gates.write[v]);
        for (i64 n = 0; v + 1 < writes && n < width; n += WIDE) {
            wide_vec u = load_wide(used + n);
            store_wide(used + width + n, u + (all_wide(1) - u) * gate * load_wide(a + n));
        }
    }
}

/* g->allocation: of the allocations as the write weights used them. To the gates and the usage is added. */
static void allocate_locations_backward(const memory_step *s, const dnc_workspace *w, const memory_gradients *d,
                                        const dnc_gradients *g) {
    i64 width = s->shape.width;
    dnc_gates gates = gates_in(s->m, s->controls), d_gates = gates_in(s->m, d->controls);
    real *d_used = g->used;
    clear(d_used, width);
    for (i64 v = s->m->write_heads - 1; v >= 0; v--) {
        const real *used = w->used + v * width, *a = w->allocation + v * width;
        real both = gates.allocation[v] * gates.write[v], *d_a = g->allocation + v * width;
        wide_vec d_both = all_wide(0);
        for (i64 n = 0; n < width; n += WIDE) {
            wide_vec du = load_wide(d_used + n), left = all_wide(1) - load_wide(used + n);
            d_both = fma_(du * left, load_wide(a + n), d_both);
            store_wide(d_a + n, fma_(du * left, all_wide(both), load_wide(d_a + n)));
            store_wide(d_used + n, du * (all_wide(1) - all_wide(both) * load_wide(a + n)));
        }
        d_gates.allocation[v] += sum_wide(d_both) * gates.write[v];
        d_gates.write[v] += sum_wide(d_both) * gates.allocation[v];
        allocation_weights_backward(used, a, w->order + v * width, s->shape, d_a, d_used, *g);
    }
    add_to(d->state.usage, d_used, width);
}

/* ---- Links ---- */

/* Lines of the link matrix that are computed at once: as many as there are registers for. */
#ifdef __AVX512F__
#define LINES 4
#else
#define LINES 1
#endif

/* Read heads whose weightings are passed through the link matrix at once. */
#define MOST_READS 4

/* The links of one write head. link, after: L before and after the update, [locations][width]; w: its write weights;
 * precedence: before the step, [width]; read_weights: before the step; forward, backward: [read heads][width]. */
typedef struct {
    i64 locations, width;
    const real *link, *w, *precedence, *read_weights;
    real *after, *forward, *backward;
} link_update;

/* Sixteen entries of lines i, i + 1, ... from j on. total: sums along the lines, [4][LINES]. update: whether the links
 * are updated in this pass. diagonal: whether entries of the diagonal are among these. */
INLINE void link_entries(link_update u, wide_vec *total, i64 i, i64 j, const i64 lines, const i64 reads,
                         const i64 update, const i64 diagonal) {
    wide_vec entry[LINES];
    i64 width = u.width;
#pragma clang loop unroll(full)
    for (i64 l = 0; l < lines; l++) {
        entry[l] = load_wide((update ? u.link : u.after) + (i + l) * width + j);
        if (!update) continue;
        __builtin_prefetch(u.link + (i + l + 2 * LINES) * width + j);
        wide_vec kept = all_wide(1 - u.w[i + l]) - load_wide(u.w + j);
        entry[l] = fma_(kept, entry[l], all_wide(u.w[i + l]) * load_wide(u.precedence + j));
        if (diagonal) entry[l][i + l - j] = 0;
        store_wide(u.after + (i + l) * width + j, entry[l]);
    }
#pragma clang loop unroll(full)
    for (i64 r = 0; r < reads; r++) {
        wide_vec weights = load_wide(u.read_weights + r * width + j), back = load_wide(u.backward + r * width + j);
#pragma clang loop unroll(full)
        for (i64 l = 0; l < lines; l++) {
            total[r * LINES + l] = fma_(entry[l], weights, total[r * LINES + l]);
            back = fma_(entry[l], all_wide(u.read_weights[r * width + i + l]), back);
        }
        store_wide(u.backward + r * width + j, back);
    }
}

INLINE void link_lines(link_update u, i64 i, const i64 lines, const i64 reads, const i64 update) {
    wide_vec total[MOST_READS * LINES];
    i64 diagonal = i / WIDE * WIDE, j = 0;
#pragma clang loop unroll(full)
    for (i64 t = 0; t < MOST_READS * LINES; t++) total[t] = all_wide(0);
    for (; j < diagonal; j += WIDE) link_entries(u, total, i, j, lines, reads, update, 0);
    link_entries(u, total, i, j, lines, reads, update, 1);
    for (j += WIDE; j < u.width; j += WIDE) link_entries(u, total, i, j, lines, reads, update, 0);
#pragma clang loop unroll(full)
    for (i64 r = 0; r < reads; r++)
#pragma clang loop unroll(full)
        for (i64 l = 0; l < lines; l++) u.forward[r * u.width + i + l] = sum_wide(total[r * LINES + l]);
}

INLINE void link_pass(link_update u, const i64 reads, const i64 update) {
    i64 i = 0;
    for (; i + LINES <= u.locations; i += LINES) link_lines(u, i, LINES, reads, update);
    for (; i < u.locations; i++) link_lines(u, i, 1, reads, update);
}

/* L = (1 - w_i - w_j) L + w_i p_j, L_ii = 0; forward f_r[i] = sum_j L_ij w_r[j], backward b_r[j] = sum_i L_ij w_r[i]:
 * one pass for four read heads; more need passes of their own. */
static void update_link(link_update u, i64 reads) {
    clear(u.forward, reads * u.width), clear(u.backward, reads * u.width);
    for (i64 first = 0; first < reads; first += MOST_READS) {
        i64 heads = reads - first;
#define PASS(count)                                                                                                    \
    if (first) link_pass(u, count, 0);                                                                                 \
    else link_pass(u, count, 1)
        if (heads >= 4) {
            PASS(4);
        } else if (heads == 3) {
            PASS(3);
        } else if (heads == 2) {
            PASS(2);
        } else {
            PASS(1);
        }
#undef PASS
        i64 passed = MOST_READS * u.width;
        u.read_weights += passed, u.forward += passed, u.backward += passed;
    }
}

/* The gradients of the links of one write head, whose fields are named as those of link_update. To all but d_link is
 * added; d_link: of L after, replaced by that of L before. along: [1 + 4][width], sums along the lines, of w and of the
 * read weights, added when all lines are done. */
typedef struct {
    i64 locations, width;
    const real *link, *after, *w, *precedence, *read_weights, *d_forward, *d_backward;
    real *d_link, *d_w, *d_precedence, *d_read_weights;
    real *along;
} link_gradients;

/* Sixteen entries of lines i, i + 1, ... from j on. total: sums along the lines, of the read weights [4][LINES] and
 * then of w [LINES]. last: whether this is the last pass, with the gradients of the update. diagonal: as in
 * link_entries. */
INLINE void link_entries_backward(link_gradients g, wide_vec *total, i64 i, i64 j, const i64 lines, const i64 reads,
                                  const i64 last, const i64 diagonal) {
    wide_vec d[LINES], entry[LINES], *d_written = total + MOST_READS * LINES;
    i64 width = g.width;
#pragma clang loop unroll(full)
    for (i64 l = 0; l < lines; l++)
        d[l] = load_wide(g.d_link + (i + l) * width + j), entry[l] = load_wide(g.after + (i + l) * width + j);
#pragma clang loop unroll(full)
    for (i64 r = 0; r < reads; r++) {
        real *d_read = g.d_read_weights + r * width + j;
        wide_vec weights = load_wide(g.read_weights + r * width + j), back = load_wide(g.d_backward + r * width + j);
        wide_vec of_read = load_wide(d_read);
#pragma clang loop unroll(full)
        for (i64 l = 0; l < lines; l++) {
            wide_vec forward = all_wide(g.d_forward[r * width + i + l]);
            d[l] = fma_(forward, weights, fma_(all_wide(g.read_weights[r * width + i + l]), back, d[l]));
            total[r * LINES + l] = fma_(entry[l], back, total[r * LINES + l]);
            of_read = fma_(entry[l], forward, of_read);
        }
        store_wide(d_read, of_read);
    }
    wide_vec of_w = load_wide(g.d_w + j), of_p = load_wide(g.d_precedence + j);
#pragma clang loop unroll(full)
    for (i64 l = 0; l < lines; l++) {
        if (last) {
            if (diagonal) d[l][i + l - j] = 0;
            wide_vec lost = d[l] * load_wide(g.link + (i + l) * width + j);
            d_written[l] = fma_(d[l], load_wide(g.precedence + j), d_written[l]) - lost;
            of_w -= lost, of_p = fma_(d[l], all_wide(g.w[i + l]), of_p);
            d[l] *= all_wide(1 - g.w[i + l]) - load_wide(g.w + j);
        }
        store_wide(g.d_link + (i + l) * width + j, d[l]);
    }
    if (last) store_wide(g.d_w + j, of_w), store_wide(g.d_precedence + j, of_p);
}

INLINE void link_lines_backward(link_gradients g, i64 i, const i64 lines, const i64 reads, const i64 last) {
    wide_vec total[(MOST_READS + 1) * LINES];
    i64 diagonal = i / WIDE * WIDE, j = 0;
#pragma clang loop unroll(full)
    for (i64 t = 0; t < (MOST_READS + 1) * LINES; t++) total[t] = all_wide(0);
    for (; j < diagonal; j += WIDE) link_entries_backward(g, total, i, j, lines, reads, last, 0);
    link_entries_backward(g, total, i, j, lines, reads, last, 1);
    for (j += WIDE; j < g.width; j += WIDE) link_entries_backward(g, total, i, j, lines, reads, last, 0);
#pragma clang loop unroll(full)
    for (i64 l = 0; l < lines; l++) {
#pragma clang loop unroll(full)
        for (i64 r = 0; r < reads; r++) g.along[(1 + r) * g.width + i + l] = sum_wide(total[r * LINES + l]);
        g.along[i + l] = sum_wide(total[MOST_READS * LINES + l]);
    }
}

INLINE void link_pass_backward(link_gradients g, const i64 reads, const i64 last) {
    i64 i = 0;
    for (; i + LINES <= g.locations; i += LINES) link_lines_backward(g, i, LINES, reads, last);
    for (; i < g.locations; i++) link_lines_backward(g, i, 1, reads, last);
    for (i64 n = 0; n < g.locations; n++) {
        if (last) g.d_w[n] += g.along[n];
        for (i64 r = 0; r < reads; r++) g.d_read_weights[r * g.width + n] += g.along[(1 + r) * g.width + n];
    }
}

/* dL += df_r w_r^T + w_r db_r^T, and dw_r from f = L w_r and b = L^T w_r: one pass for four read heads. The last pass
 * also goes through the update: dw, dp and the gradient of L before. */
static void update_link_backward(link_gradients g, i64 reads) {
    i64 passed = MOST_READS * g.width;
    for (; reads > MOST_READS; reads -= MOST_READS) {
        link_pass_backward(g, 4, 0);
        g.read_weights += passed, g.d_forward += passed, g.d_backward += passed, g.d_read_weights += passed;
    }
    if (reads == 4) link_pass_backward(g, 4, 1);
    else if (reads == 3) link_pass_backward(g, 3, 1);
    else if (reads == 2) link_pass_backward(g, 2, 1);
    else link_pass_backward(g, 1, 1);
}

/* p = (1 - sum_n w[n]) p + w. */
static void update_precedence(const real *before, const real *w, i64 width, real *out) {
    wide_vec part = all_wide(0);
    for (i64 n = 0; n < width; n += WIDE) part += load_wide(w + n);
    wide_vec kept = all_wide(1 - sum_wide(part));
    for (i64 n = 0; n < width; n += WIDE) store_wide(out + n, fma_(kept, load_wide(before + n), load_wide(w + n)));
}

/* d: of the precedence after, replaced by that of the precedence before. To d_w is added. */
static void update_precedence_backward(const real *before, const real *w, i64 width, real *d, real *d_w) {
    wide_vec part = all_wide(0);
    for (i64 n = 0; n < width; n += WIDE) part += load_wide(w + n);
    wide_vec kept = all_wide(1 - sum_wide(part)), lost = all_wide(dot_wide(d, before, width));
    for (i64 n = 0; n < width; n += WIDE) {
        store_wide(d_w + n, load_wide(d_w + n) + load_wide(d + n) - lost);
        store_wide(d + n, kept * load_wide(d + n));
    }
}

/* Update the links and the precedence of every write head, and follow the links from the read weights before. */
static void update_links(const memory_step *s, const dnc_workspace *w) {
    i64 width = s->shape.width, locations = s->shape.locations, reads = s->m->read_heads;
    for (i64 v = 0; v < s->m->write_heads; v++) {
        i64 at = v * width, directions = v * reads * width;
        link_update u = {
            .locations = locations,
            .width = width,
            .link = s->before.link + at * locations,
            .w = s->after.write_weights + at,
            .precedence = s->before.precedence + at,
            .read_weights = s->before.read_weights,
            .after = s->after.link + at * locations,
            .forward = w->forward + directions,
            .backward = w->backward + directions,
        };
        update_link(u, reads);
        update_precedence(u.precedence, u.w, width, s->after.precedence + at);
    }
}

/* g->forward, g->backward: of the directions. To the write weights and to g->previous is added. */
static void update_links_backward(const memory_step *s, const memory_gradients *d, const dnc_gradients *g) {
    i64 width = s->shape.width, locations = s->shape.locations, reads = s->m->read_heads;
    for (i64 v = 0; v < s->m->write_heads; v++) {
        i64 at = v * width, directions = v * reads * width;
        link_gradients of = {
            .locations = locations,
            .width = width,
            .link = s->before.link + at * locations,
            .after = s->after.link + at * locations,
            .w = s->after.write_weights + at,
            .precedence = s->before.precedence + at,
            .read_weights = s->before.read_weights,
            .d_forward = g->forward + directions,
            .d_backward = g->backward + directions,
            .d_link = d->state.link + at * locations,
            .d_w = d->state.write_weights + at,
            .d_precedence = d->state.precedence + at,
            .d_read_weights = g->previous,
            .along = g->along,
        };
        update_precedence_backward(of.precedence, of.w, width, of.d_precedence, of.d_w);
        update_link_backward(of, reads);
    }
}

/* (d + eps)^s / sum (d + eps)^s, s = 1 + softplus(sharpness). direction, out: [width]. */
static void sharpen_direction(const real *direction, real sharpness, memory_shape shape, real *out) {
    wide_vec s = all_wide(1 + scalar(softplus_, sharpness));
    for (i64 n = 0; n < shape.width; n += WIDE)
        store_wide(out + n, s * log_wide(load_wide(direction + n) + all_wide(EPSILON)));
    softmax_wide(out, shape.locations, shape.width);
}

/* d: of the sharpened direction, replaced by that of the direction. Returns the gradient of the sharpness. */
static real sharpen_direction_backward(const real *direction, const real *out, real sharpness, i64 width, real *d) {
    wide_vec s = all_wide(1 + scalar(softplus_, sharpness)), d_s = all_wide(0);
    softmax_backward_wide(out, d, width);
    for (i64 n = 0; n < width; n += WIDE) {
        wide_vec x = load_wide(direction + n) + all_wide(EPSILON);
        d_s = fma_(load_wide(d + n), log_wide(x), d_s);
        store_wide(d + n, load_wide(d + n) * s / x);
    }
    return sum_wide(d_s) * scalar(sigmoid_, sharpness);
}

/* ---- Content ---- */

/* The look-ups by content of all read heads, or of all write heads. memory: the one that they look into; keys, masks:
 * where these begin in the interface; strengths: where theirs do; the others are arrays of the workspace. */
typedef struct {
    i64 heads, keys, masks, strengths;
    const real *memory;
    real *norms, *similarities, *weights, *masked;
} look_ups;

INLINE look_ups read_look_ups(const memory_step *s, const dnc_workspace *w) {
    const model *m = s->m;
    return (look_ups){
        m->read_heads, m->read_keys,         m->read_masks,   m->strengths,   s->after.memory,
        w->read_norms, w->read_similarities, w->read_content, w->read_masked,
    };
}

INLINE look_ups write_look_ups(const memory_step *s, const dnc_workspace *w) {
    const model *m = s->m;
    return (look_ups){
        m->write_heads,   m->write_keys,  m->write_masks,        m->strengths + m->read_heads,
        s->before.memory, w->write_norms, w->write_similarities, w->write_content,
        w->write_masked,
    };
}

/* The weighting of one head. strength: of the raw interface. Without masks, all heads share the norms of the words. */
INLINE content_weighting weighting_in(const memory_step *s, const look_ups *of, i64 head, real strength) {
    i64 at = head * s->shape.width;
    return (content_weighting){
        .similarity = COSINE,
        .strength = dnc_strength(s->m, strength) * (real)s->m->look_up_scale,
        .key_norm = s->m->masking ? 0 : norm(COSINE, s->controls + of->keys + head * s->shape.size, s->shape.size),
        .norms = of->norms + (s->m->masking ? at : 0),
        .similarities = of->similarities + at,
        .weights = of->weights + at,
    };
}

INLINE masked_key masked_key_in(const memory_step *s, const look_ups *of, i64 head) {
    i64 at = head * s->shape.size;
    return (masked_key){s->controls + of->keys + at, s->controls + of->masks + at, of->masked + 2 * at};
}

/* Look up one head's key. Without a mask, the products and the norms of the words are there already. */
INLINE void look_up(const memory_step *s, const look_ups *of, i64 head) {
    content_weighting c = weighting_in(s, of, head, s->controls[of->strengths + head]);
    if (s->m->masking) masked_look_up(of->memory, s->shape, masked_key_in(s, of, head), c);
    else content_weights(c, s->shape);
}

/* d_weights: of the weightings, [heads][width], which is changed. Sets the gradients of keys, strengths and masks.
 * Those of the memory are added to d->state.memory; terms: of it, not yet added; added when this returns. */
static void look_ups_backward(const memory_step *s, const look_ups *of, const memory_gradients *d,
                              const dnc_gradients *g, real *d_weights, outer_products *terms) {
    i64 width = s->shape.width, size = s->shape.size;
    real *d_memory = d->state.memory;
    clear(g->word_scale, width);
    for (i64 head = 0; head < of->heads; head++) {
        const real *key = s->controls + of->keys + head * size;
        real *d_content = d_weights + head * width, *d_key = d->controls + of->keys + head * size;
        real *d_strength = d->controls + of->strengths + head;
        content_weighting c = weighting_in(s, of, head, d->raw[of->strengths + head]);
        if (s->m->masking) {
            real *d_mask = d->controls + of->masks + head * size;
            masked_gradients to = {d_content, d_memory, d_key, d_mask, g->word_scale, g->mask_sums, g->mask_squares};
            real by = masked_look_up_backward(of->memory, s->shape, masked_key_in(s, of, head), c, to);
            *d_strength = by * (real)s->m->look_up_scale;
            continue;
        }
        content_gradient by = content_weights_backward(c, s->shape, d_content, g->word_scale);
        *d_strength = by.strength * (real)s->m->look_up_scale;
        key_backward(of->memory, d_content, s->shape, key, by.key_scale, d_key);
        add_outer_product(d_memory, s->shape, terms, d_content, key);
    }
    add_outer_products(d_memory, s->shape, terms, s->m->masking ? 0 : g->word_scale, of->memory);
}

/* ---- Writing ---- */

/* w = g_w (g_a a + (1 - g_a) c) for each write head: free locations, mixed with those of similar content. */
static void find_write_weights(const memory_step *s, const dnc_workspace *w) {
    memory_shape shape = s->shape;
    dnc_gates gates = gates_in(s->m, s->controls);
    look_ups of = write_look_ups(s, w);
    if (!s->m->masking) norms(of.memory, shape, COSINE, of.norms);
    for (i64 v = 0; v < of.heads; v++) {
        i64 at = v * shape.width;
        if (!s->m->masking) products(of.memory, shape, s->controls + of.keys + v * shape.size, of.similarities + at);
        look_up(s, &of, v);
        const real *content = of.weights + at, *allocation = w->allocation + at;
        real *out = s->after.write_weights + at;
        wide_vec mixed = all_wide(gates.allocation[v]), gate = all_wide(gates.write[v]);
        for (i64 n = 0; n < shape.width; n += WIDE) {
            wide_vec c = load_wide(content + n);
            store_wide(out + n, gate * fma_(mixed, load_wide(allocation + n) - c, c));
        }
    }
}

/* From d->state.write_weights, which is set to 0 as the usage passes no gradient to them, to g->allocation,
 * g->write_content and the gates. */
static void find_write_weights_backward(const memory_step *s, const dnc_workspace *w, const memory_gradients *d,
                                        const dnc_gradients *g) {
    i64 width = s->shape.width;
    dnc_gates gates = gates_in(s->m, s->controls), d_gates = gates_in(s->m, d->controls);
    for (i64 v = 0; v < s->m->write_heads; v++) {
        const real *a = w->allocation + v * width, *c = w->write_content + v * width;
        real *d_w = d->state.write_weights + v * width;
        real *d_a = g->allocation + v * width, *d_c = g->write_content + v * width;
        wide_vec to_free = all_wide(gates.allocation[v]), gate = all_wide(gates.write[v]);
        wide_vec d_gate = all_wide(0), d_free = all_wide(0);
        for (i64 n = 0; n < width; n += WIDE) {
            wide_vec dw = load_wide(d_w + n), difference = load_wide(a + n) - load_wide(c + n);
            d_gate = fma_(dw, fma_(to_free, difference, load_wide(c + n)), d_gate);
            d_free = fma_(dw * gate, difference, d_free);
            store_wide(d_a + n, dw * gate * to_free);
            store_wide(d_c + n, dw * gate * (all_wide(1) - to_free));
            store_wide(d_w + n, all_wide(0));
        }
        d_gates.allocation[v] = sum_wide(d_free), d_gates.write[v] = sum_wide(d_gate);
    }
}

INLINE write_heads write_heads_in(const memory_step *s, const dnc_workspace *w) {
    return (write_heads){
        .count = s->m->write_heads,
        .weights = s->after.write_weights,
        .erase = s->controls + s->m->erase,
        .add = s->controls + s->m->add,
        .retention = s->m->deallocation ? w->retention : 0,
    };
}

/* Erase and add. Without masks, also the products of the read keys with the words as they are then, and their norms:
 * eight words at a time, while they are in the cache. */
static void write_memory(const memory_step *s, const dnc_workspace *w) {
    memory_shape shape = s->shape;
    i64 size = shape.size;
    const real *memory = s->before.memory;
    real *after = s->after.memory;
    write_heads by = write_heads_in(s, w);
    look_ups of = read_look_ups(s, w);
    for (i64 n = 0; n < shape.width; n += LANES) {
        write_eight(memory, after, n, shape, by);
        if (s->m->masking) continue;
        store(of.norms + n, norms_of_eight(after + n * size, size, COSINE));
        for (i64 r = 0; r < of.heads; r++) {
            const real *key = s->controls + of.keys + r * size;
            store(of.similarities + r * shape.width + n, products_of_eight(after + n * size, size, key, 0));
        }
    }
}

static void write_memory_backward(const memory_step *s, const dnc_workspace *w, const memory_gradients *d,
                                  const dnc_gradients *g) {
    write_gradients to = {
        .weights = d->state.write_weights,
        .erase = d->controls + s->m->erase,
        .add = d->controls + s->m->add,
        .retention = g->retention,
    };
    write_backward(s->before.memory, s->shape, write_heads_in(s, w), d->state.memory, to);
}

/* ---- Reading ---- */

INLINE i64 sharpness_of(const model *m, i64 r, i64 v) { return m->sharpness + r * m->write_heads + v; }

/* Sharpen the directions of read head r. */
static void sharpen_directions(const memory_step *s, const dnc_workspace *w, i64 r) {
    const model *m = s->m;
    i64 reads = m->read_heads, writes = m->write_heads;
    for (i64 v = 0; v < writes; v++) {
        const real *sharpness = s->controls + sharpness_of(m, r, v);
        i64 at = (v * reads + r) * s->shape.width;
        sharpen_direction(w->forward + at, sharpness[0], s->shape, w->sharp_forward + at);
        sharpen_direction(w->backward + at, sharpness[reads * writes], s->shape, w->sharp_backward + at);
    }
}

/* g->forward, g->backward: of the sharpened directions of read head r, replaced by those of the directions. */
static void sharpen_directions_backward(const memory_step *s, const dnc_workspace *w, const memory_gradients *d,
                                        const dnc_gradients *g, i64 r) {
    const model *m = s->m;
    i64 width = s->shape.width, reads = m->read_heads, writes = m->write_heads;
    for (i64 v = 0; v < writes; v++) {
        const real *sharpness = s->controls + sharpness_of(m, r, v);
        real *d_sharpness = d->controls + sharpness_of(m, r, v);
        i64 at = (v * reads + r) * width;
        d_sharpness[0] =
            sharpen_direction_backward(w->forward + at, w->sharp_forward + at, sharpness[0], width, g->forward + at);
        d_sharpness[reads * writes] = sharpen_direction_backward(w->backward + at, w->sharp_backward + at,
                                                                 sharpness[reads * writes], width, g->backward + at);
    }
}

/* w_r = pi_c c_r + sum_v (pi_b,v b_v,r + pi_f,v f_v,r): by content, or backward or forward in the order of writing. */
static void find_read_weights(const memory_step *s, const dnc_workspace *w) {
    const model *m = s->m;
    i64 width = s->shape.width, reads = m->read_heads, writes = m->write_heads;
    look_ups of = read_look_ups(s, w);
    for (i64 r = 0; r < reads; r++) {
        const real *modes = modes_in(m, s->controls, r), *content = of.weights + r * width;
        const real *backward = w->sharp_backward, *forward = w->sharp_forward;
        real *out = s->after.read_weights + r * width;
        i64 linked = m->linked;
        look_up(s, &of, r);
        if (m->link_sharpening) sharpen_directions(s, w, r);
        for (i64 n = 0; n < width; n += WIDE) {
            wide_vec mixed = load_wide(content + n);
            if (linked) mixed *= all_wide(modes[2 * writes]);
            for (i64 v = 0; linked && v < writes; v++) {
                i64 at = (v * reads + r) * width + n;
                mixed = fma_(all_wide(modes[v]), load_wide(backward + at), mixed);
                mixed = fma_(all_wide(modes[writes + v]), load_wide(forward + at), mixed);
            }
            store_wide(out + n, mixed);
        }
    }
}

/* From d->state.read_weights to g->read_content, g->forward, g->backward, the modes and the sharpness of head r. */
static void find_read_weights_backward(const memory_step *s, const dnc_workspace *w, const memory_gradients *d,
                                       const dnc_gradients *g, i64 r) {
    const model *m = s->m;
    i64 width = s->shape.width, reads = m->read_heads, writes = m->write_heads;
    const real *modes = modes_in(m, s->controls, r), *d_w = d->state.read_weights + r * width;
    real *d_modes = modes_in(m, d->controls, r), *d_content = g->read_content + r * width;
    wide_vec by_content = all_wide(m->linked ? modes[2 * writes] : 1);
    for (i64 n = 0; n < width; n += WIDE) store_wide(d_content + n, by_content * load_wide(d_w + n));
    if (!m->linked) return;
    d_modes[2 * writes] = dot_wide(d_w, w->read_content + r * width, width);
    for (i64 v = 0; v < writes; v++) {
        i64 at = (v * reads + r) * width;
        real *d_backward = g->backward + at, *d_forward = g->forward + at;
        wide_vec by_backward = all_wide(modes[v]), by_forward = all_wide(modes[writes + v]);
        d_modes[v] = dot_wide(d_w, w->sharp_backward + at, width);
        d_modes[writes + v] = dot_wide(d_w, w->sharp_forward + at, width);
        for (i64 n = 0; n < width; n += WIDE) {
            store_wide(d_backward + n, by_backward * load_wide(d_w + n));
            store_wide(d_forward + n, by_forward * load_wide(d_w + n));
        }
    }
    if (m->link_sharpening) sharpen_directions_backward(s, w, d, g, r);
}

/* From the gradients of the vectors read to those of the read weights and, as terms, of the memory. */
static void read_memory_backward(const memory_step *s, const memory_gradients *d, i64 r, outer_products *terms) {
    i64 at = r * s->shape.width;
    const real *d_vector = d->state.read_vectors + r * s->shape.size;
    read_weights_backward(s->after.memory, s->shape, d_vector, d->state.read_weights + at);
    add_outer_product(d->state.memory, s->shape, terms, s->after.read_weights + at, d_vector);
}

/* ---- A step ---- */

/* Copy the weightings that were asked for out of the workspace. */
static void leave_weightings(const memory_step *s, const dnc_workspace *w) {
    const traces *to = s->traced;
    i64 width = s->shape.width, reads = s->m->read_heads * width, writes = s->m->write_heads * width;
    leave(to->retention, s->row, w->retention, width);
    leave(to->allocation_weights, s->row, w->allocation, writes);
    leave(to->write_content_weights, s->row, w->write_content, writes);
    leave(to->read_content_weights, s->row, w->read_content, reads);
    leave(to->forward_weights, s->row, w->sharp_forward, s->m->write_heads * reads);
    leave(to->backward_weights, s->row, w->sharp_backward, s->m->write_heads * reads);
}

static void dnc_step(const memory_step *s, const dnc_workspace *w, dnc_scratch scratch) {
    /* Write: find free locations, mix them with those of similar content, erase and add */
    update_usage(s, w->retention);
    allocate_locations(s, w, scratch);
    find_write_weights(s, w);
    write_memory(s, w);

    /* Read: by content, or forward or backward along the order of writing */
    if (s->m->linked) update_links(s, w);
    find_read_weights(s, w);
    read_vectors(s->after.memory, s->after.read_weights, s->m->read_heads, s->shape, s->after.read_vectors);
    if (s->traced) leave_weightings(s, w);
}

static void dnc_step_backward(const memory_step *s, const dnc_workspace *w, const memory_gradients *d,
                              const dnc_gradients *g) {
    i64 width = s->shape.width, reads = s->m->read_heads;
    look_ups reading = read_look_ups(s, w), writing = write_look_ups(s, w);
    outer_products terms = {0};
    clear(g->previous, reads * width), clear(g->retention, width);

    /* Read: the vectors, then the ways to find the locations to read */
    for (i64 r = 0; r < reads; r++) {
        read_memory_backward(s, d, r, &terms);
        find_read_weights_backward(s, w, d, g, r);
    }
    look_ups_backward(s, &reading, d, g, g->read_content, &terms);
    if (s->m->linked) update_links_backward(s, d, g);

    /* Write: the words, then the mixture of free locations and similar ones */
    write_memory_backward(s, w, d, g);
    find_write_weights_backward(s, w, d, g);
    look_ups_backward(s, &writing, d, g, g->write_content, &terms);
    allocate_locations_backward(s, w, d, g);
    update_usage_backward(s, d, w->retention, g->retention, g->previous);

    copy(d->state.read_weights, g->previous, reads * width);
    clear(d->state.read_vectors, reads * s->shape.size);
    dnc_controls_backward(s->m, s->controls, d->raw, d->controls);
}

#endif
