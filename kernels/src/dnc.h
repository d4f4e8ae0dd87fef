/* The memory's part of a DNC's step, models/dnc.py, for one session; and its gradients. */

#ifndef ENGRAM_DNC_H
#define ENGRAM_DNC_H

#include "model.h"

/* What a step finds on its way and its gradients need again. */
typedef struct {
    real *retention;                          /* [row] */
    real *used;                               /* [writes][row]: usage as each write head sees it */
    real *allocation;                         /* [writes][row] */
    int32_t *order;                           /* [writes][row]: the slots, the most free first */
    real *write_words, *read_words;           /* measures of words: [row], or with masks [heads][row] */
    real *write_similarities, *write_content; /* [writes][row] */
    real *read_similarities, *read_content;   /* [reads][row] */
    real *forward, *backward;                 /* [writes][reads][row] */
    real *sharp_forward, *sharp_backward;     /* the same, with link_sharpening */
    real *write_masked, *read_masked;         /* [heads][2][size], with masks */
} dnc_work;

static dnc_work lay_dnc(const model *m, room *from) {
    i64 row = row_of(m->slots), size = padded(m->word), reads = m->reads, writes = m->writes;
    i64 directions = m->linked ? reads * writes * row : 0, sharp = m->link_sharpening ? directions : 0;
    dnc_work w;
    w.retention = take(from, row);
    w.used = take(from, writes * row);
    w.allocation = take(from, writes * row);
    w.order = (int32_t *)take(from, writes * row);
    w.write_words = take(from, m->masking ? writes * row : row);
    w.read_words = take(from, m->masking ? reads * row : row);
    w.write_similarities = take(from, writes * row), w.write_content = take(from, writes * row);
    w.read_similarities = take(from, reads * row), w.read_content = take(from, reads * row);
    w.forward = take(from, directions), w.backward = take(from, directions);
    w.sharp_forward = m->link_sharpening ? take(from, sharp) : w.forward;
    w.sharp_backward = m->link_sharpening ? take(from, sharp) : w.backward;
    w.write_masked = take(from, m->masking ? 2 * writes * size : 0);
    w.read_masked = take(from, m->masking ? 2 * reads * size : 0);
    return w;
}

INLINE real dnc_strength(const model *m, real x) { return scalar(softplus_, x) + (m->strength == ONEPLUS ? 1 : 0); }

/* ---- Allocation ---- */

/* The numbers of the slots, the most free first, equals in the order of their numbers: each goes to the place that is
 * the number of those before it. free_, [row], is not negative, so that its bits compare as it does; -1 beyond the
 * slots. */
static void rank_by_free(const real *free_, i64 slots, int32_t *order) {
    i64 row = row_of(slots);
    for (i64 n = 0; n < slots; n++) {
        whole own;
        memcpy(&own, free_ + n, sizeof own);
        wide_ivec before = {0}, numbers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        i64 m = 0, here = n / WIDE * WIDE;
        for (; m < here; m += WIDE) before -= (wide_ivec)load_wide(free_ + m) > own - 1;
        before -= (wide_ivec)load_wide(free_ + m) > own + (numbers < (whole)(n - here));
        for (m += WIDE; m < row; m += WIDE) before -= (wide_ivec)load_wide(free_ + m) > own;
        order[__builtin_reduce_add(before)] = (int32_t)n;
    }
}

/* The same for many slots: a stable sort of what is not negative, by the bits, from the lowest byte to the highest.
 * spare: [slots]; counts: [256]. */
static void sort_by_free(const real *free_, i64 slots, int32_t *order, int32_t *spare, int32_t *counts) {
    for (i64 n = 0; n < slots; n++) order[n] = (int32_t)n;
    for (int shift = 0; shift < (int)(8 * sizeof(real)); shift += 8) {
        memset(counts, 0, 256 * sizeof(int32_t));
        for (i64 n = 0; n < slots; n++) {
            whole bits;
            memcpy(&bits, free_ + n, sizeof bits);
            counts[(~bits >> shift) & 255]++;
        }
        for (int32_t total = 0, byte = 0; byte < 256; byte++) {
            int32_t here = counts[byte];
            counts[byte] = total, total += here;
        }
        for (i64 n = 0; n < slots; n++) {
            whole bits;
            memcpy(&bits, free_ + order[n], sizeof bits);
            spare[counts[(~bits >> shift) & 255]++] = order[n];
        }
        memcpy(order, spare, slots * sizeof(int32_t));
    }
}

/* 1 - u, u = eps + (1 - eps) usage, rounded as torch does. */
INLINE wide_vec free_of(wide_vec usage) {
    return max_(all_wide(1) - (all_wide(EPSILON) + all_wide(1 - EPSILON) * usage), all_wide(0));
}

/* a[phi_j] = (1 - u[phi_j]) prod_{i<j} u[phi_i], the most free first. spare: [2 row + 256]. */
static void allocation_weights(const real *usage, i64 slots, real *out, int32_t *order, real *spare) {
    i64 row = row_of(slots);
    int32_t *integers = (int32_t *)(spare + row);
    for (i64 n = 0; n < row; n += WIDE)
        store_wide(spare + n, free_of(load_wide(usage + n))), store_wide(out + n, all_wide(0));
    for (i64 n = slots; n < row; n++) spare[n] = -1;
    if (slots <= 128) rank_by_free(spare, slots, order);
    else sort_by_free(spare, slots, order, integers, integers + row);
    real all_before_used = 1;
    for (i64 j = 0; j < slots; j++) {
        real free_ = spare[order[j]];
        out[order[j]] = free_ * all_before_used;
        all_before_used *= 1 - free_;
    }
}

/* Add to the gradient of the usage what that of the allocation says. spare: [2 row]. */
static void allocation_weights_backward(const real *usage, const real *allocation, const int32_t *order, i64 slots,
                                        const real *d_allocation, real *d_usage, real *spare) {
    i64 row = row_of(slots);
    real *free_ = spare, *before = spare + row, product = 1, rest = 0;
    for (i64 n = 0; n < row; n += WIDE) store_wide(free_ + n, free_of(load_wide(usage + n)));
    for (i64 j = 0; j < slots; j++) before[j] = product, product *= 1 - free_[order[j]];
    for (i64 j = slots - 1; j >= 0; j--) {
        i64 n = order[j];
        d_usage[n] -= (1 - EPSILON) * (d_allocation[n] * before[j] - rest / (1 - free_[n]));
        rest += d_allocation[n] * allocation[n];
    }
}

/* ---- Links ---- */

/* So many lines of the link matrix are passed at once: as many as there are registers for. */
#ifdef __AVX512F__
#define LINES 4
#else
#define LINES 1
#endif

/* Sixteen entries of lines i, i + 1, ... from j on. diagonal: whether they are among them. */
INLINE void link_entries(const real *link, real *to, const real *w, const real *precedence, const real *read_weights,
                         real *backward, wide_vec *total, i64 i, i64 j, i64 row, const i64 lines, const i64 reads,
                         const i64 update, const i64 diagonal) {
    wide_vec entry[LINES];
#pragma clang loop unroll(full)
    for (i64 l = 0; l < lines; l++) {
        entry[l] = load_wide((update ? link : to) + (i + l) * row + j);
        if (!update) continue;
        __builtin_prefetch(link + (i + l + 2 * LINES) * row + j);
        wide_vec kept = all_wide(1 - w[i + l]) - load_wide(w + j);
        entry[l] = fma_(kept, entry[l], all_wide(w[i + l]) * load_wide(precedence + j));
        if (diagonal) entry[l][i + l - j] = 0;
        store_wide(to + (i + l) * row + j, entry[l]);
    }
#pragma clang loop unroll(full)
    for (i64 r = 0; r < reads; r++) {
        wide_vec weights = load_wide(read_weights + r * row + j), back = load_wide(backward + r * row + j);
#pragma clang loop unroll(full)
        for (i64 l = 0; l < lines; l++) {
            total[r * LINES + l] = fma_(entry[l], weights, total[r * LINES + l]);
            back = fma_(entry[l], all_wide(read_weights[r * row + i + l]), back);
        }
        store_wide(backward + r * row + j, back);
    }
}

INLINE void link_lines(const real *link, real *to, const real *w, const real *precedence, const real *read_weights,
                       real *forward, real *backward, i64 i, i64 row, const i64 lines, const i64 reads,
                       const i64 update) {
    wide_vec total[4 * LINES];
    i64 diagonal = i / WIDE * WIDE, j = 0;
#pragma clang loop unroll(full)
    for (i64 t = 0; t < 4 * LINES; t++) total[t] = all_wide(0);
#define ENTRIES(diagonal)                                                                                              \
    link_entries(link, to, w, precedence, read_weights, backward, total, i, j, row, lines, reads, update, diagonal)
    for (; j < diagonal; j += WIDE) ENTRIES(0);
    ENTRIES(1);
    for (j += WIDE; j < row; j += WIDE) ENTRIES(0);
#undef ENTRIES
#pragma clang loop unroll(full)
    for (i64 r = 0; r < reads; r++)
#pragma clang loop unroll(full)
        for (i64 l = 0; l < lines; l++) forward[r * row + i + l] = sum_wide(total[r * LINES + l]);
}

/* L = (1 - w_i - w_j) L + w_i p_j, L_ii = 0; forward f_r[i] = sum_j L_ij w_r[j], backward b_r[j] = sum_i L_ij w_r[i]:
 * one pass, for `reads` heads of at most four at once. */
INLINE void link_pass(const real *link, real *to, const real *w, const real *precedence, const real *read_weights,
                      real *forward, real *backward, i64 slots, const i64 reads, const i64 update) {
    i64 row = row_of(slots), i = 0;
    for (; i + LINES <= slots; i += LINES)
        link_lines(link, to, w, precedence, read_weights, forward, backward, i, row, LINES, reads, update);
    for (; i < slots; i++)
        link_lines(link, to, w, precedence, read_weights, forward, backward, i, row, 1, reads, update);
}

static void update_link(const real *link, real *to, const real *w, const real *precedence, const real *read_weights,
                        real *forward, real *backward, i64 slots, i64 reads) {
    i64 row = row_of(slots);
    memset(forward, 0, reads * row * sizeof(real));
    memset(backward, 0, reads * row * sizeof(real));
    for (i64 first = 0; first < reads; first += 4) {
        const real *weights = read_weights + first * row;
        real *f = forward + first * row, *b = backward + first * row;
        i64 heads = reads - first;
#define PASS(count)                                                                                                    \
    if (first) link_pass(link, to, w, precedence, weights, f, b, slots, count, 0);                                     \
    else link_pass(link, to, w, precedence, weights, f, b, slots, count, 1)
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
    }
}

/* What the gradients of the links of one write head are taken of, and added to. */
typedef struct {
    const real *link, *after, *w, *precedence, *read_weights, *d_forward, *d_backward;
    real *d_link, *d_w, *d_precedence, *d_read_weights;
    real *along; /* [1 + 4][row]: sums along the lines, of w and of the read weights, to be added when all are done */
} link_gradients;

/* Sixteen entries of lines i, i + 1, ... from j on. diagonal: whether they are among them. */
INLINE void link_entries_backward(const link_gradients *g, wide_vec *total, wide_vec *d_written, i64 i, i64 j, i64 row,
                                  const i64 lines, const i64 reads, const i64 last, const i64 diagonal) {
    wide_vec d[LINES], entry[LINES];
#pragma clang loop unroll(full)
    for (i64 l = 0; l < lines; l++)
        d[l] = load_wide(g->d_link + (i + l) * row + j), entry[l] = load_wide(g->after + (i + l) * row + j);
#pragma clang loop unroll(full)
    for (i64 r = 0; r < reads; r++) {
        real *d_read = g->d_read_weights + r * row + j;
        wide_vec weights = load_wide(g->read_weights + r * row + j), back = load_wide(g->d_backward + r * row + j);
        wide_vec of_read = load_wide(d_read);
#pragma clang loop unroll(full)
        for (i64 l = 0; l < lines; l++) {
            wide_vec forward = all_wide(g->d_forward[r * row + i + l]);
            d[l] = fma_(forward, weights, fma_(all_wide(g->read_weights[r * row + i + l]), back, d[l]));
            total[r * LINES + l] = fma_(entry[l], back, total[r * LINES + l]);
            of_read = fma_(entry[l], forward, of_read);
        }
        store_wide(d_read, of_read);
    }
    wide_vec of_w = load_wide(g->d_w + j), of_p = load_wide(g->d_precedence + j);
#pragma clang loop unroll(full)
    for (i64 l = 0; l < lines; l++) {
        if (last) {
            if (diagonal) d[l][i + l - j] = 0;
            wide_vec lost = d[l] * load_wide(g->link + (i + l) * row + j);
            d_written[l] = fma_(d[l], load_wide(g->precedence + j), d_written[l]) - lost;
            of_w -= lost, of_p = fma_(d[l], all_wide(g->w[i + l]), of_p);
            d[l] *= all_wide(1 - g->w[i + l]) - load_wide(g->w + j);
        }
        store_wide(g->d_link + (i + l) * row + j, d[l]);
    }
    if (last) store_wide(g->d_w + j, of_w), store_wide(g->d_precedence + j, of_p);
}

INLINE void link_lines_backward(const link_gradients *g, i64 i, i64 row, const i64 lines, const i64 reads,
                                const i64 last) {
    wide_vec total[4 * LINES], d_written[LINES];
    i64 diagonal = i / WIDE * WIDE, j = 0;
#pragma clang loop unroll(full)
    for (i64 t = 0; t < 4 * LINES; t++) total[t] = all_wide(0);
#pragma clang loop unroll(full)
    for (i64 l = 0; l < LINES; l++) d_written[l] = all_wide(0);
#define ENTRIES(diagonal) link_entries_backward(g, total, d_written, i, j, row, lines, reads, last, diagonal)
    for (; j < diagonal; j += WIDE) ENTRIES(0);
    ENTRIES(1);
    for (j += WIDE; j < row; j += WIDE) ENTRIES(0);
#undef ENTRIES
#pragma clang loop unroll(full)
    for (i64 l = 0; l < lines; l++) {
#pragma clang loop unroll(full)
        for (i64 r = 0; r < reads; r++) g->along[(1 + r) * row + i + l] = sum_wide(total[r * LINES + l]);
        g->along[i + l] = sum_wide(d_written[l]);
    }
}

/* dL += df_r w_r^T + w_r db_r^T for heads of at most four at once, and what f = L w_r and b = L^T w_r say of w_r; with
 * the last heads also what the update says of w, p and the L before. */
INLINE void link_pass_backward(const link_gradients *g, i64 slots, const i64 reads, const i64 last) {
    i64 row = row_of(slots), i = 0;
    for (; i + LINES <= slots; i += LINES) link_lines_backward(g, i, row, LINES, reads, last);
    for (; i < slots; i++) link_lines_backward(g, i, row, 1, reads, last);
    for (i64 n = 0; n < slots; n++) {
        if (last) g->d_w[n] += g->along[n];
        for (i64 r = 0; r < reads; r++) g->d_read_weights[r * row + n] += g->along[(1 + r) * row + n];
    }
}

static void update_link_backward(link_gradients g, i64 slots, i64 reads) {
    i64 row = row_of(slots);
    for (; reads > 4; reads -= 4) {
        link_pass_backward(&g, slots, 4, 0);
        g.read_weights += 4 * row, g.d_forward += 4 * row, g.d_backward += 4 * row, g.d_read_weights += 4 * row;
    }
    if (reads == 4) link_pass_backward(&g, slots, 4, 1);
    else if (reads == 3) link_pass_backward(&g, slots, 3, 1);
    else if (reads == 2) link_pass_backward(&g, slots, 2, 1);
    else link_pass_backward(&g, slots, 1, 1);
}

/* (d + eps)^s / sum (d + eps)^s, s = 1 + softplus(sharpness). */
static void sharpen_direction(const real *weights, real sharpness, i64 slots, real *out) {
    wide_vec s = all_wide(1 + scalar(softplus_, sharpness));
    for (i64 n = 0; n < row_of(slots); n += WIDE)
        store_wide(out + n, s * log_wide(load_wide(weights + n) + all_wide(EPSILON)));
    softmax_wide(out, slots, row_of(slots));
}

/* Returns the gradient of the sharpness; d: of the sharpened weights, and then of the weights. */
static real sharpen_direction_backward(const real *weights, const real *out, real sharpness, i64 slots, real *d) {
    wide_vec s = all_wide(1 + scalar(softplus_, sharpness)), d_s = all_wide(0);
    softmax_backward_wide(out, d, row_of(slots));
    for (i64 n = 0; n < row_of(slots); n += WIDE) {
        wide_vec x = load_wide(weights + n) + all_wide(EPSILON);
        d_s = fma_(load_wide(d + n), log_wide(x), d_s);
        store_wide(d + n, load_wide(d + n) * s / x);
    }
    return sum_wide(d_s) * scalar(sigmoid_, sharpness);
}

/* p = (1 - sum_n w[n]) p + w. */
static void update_precedence(const real *before, const real *w, i64 row, real *out) {
    wide_vec part = all_wide(0);
    for (i64 n = 0; n < row; n += WIDE) part += load_wide(w + n);
    wide_vec kept = all_wide(1 - sum_wide(part));
    for (i64 n = 0; n < row; n += WIDE) store_wide(out + n, fma_(kept, load_wide(before + n), load_wide(w + n)));
}

/* d: of the precedence after, and then before; to d_w is added. */
static void update_precedence_backward(const real *before, const real *w, i64 row, real *d, real *d_w) {
    wide_vec part = all_wide(0);
    for (i64 n = 0; n < row; n += WIDE) part += load_wide(w + n);
    wide_vec kept = all_wide(1 - sum_wide(part)), lost = all_wide(dot_wide(d, before, row));
    for (i64 n = 0; n < row; n += WIDE) {
        store_wide(d_w + n, load_wide(d_w + n) + load_wide(d + n) - lost);
        store_wide(d + n, kept * load_wide(d + n));
    }
}

/* ---- A step ---- */

/* From the interface vector to what the heads use. Strengths and sharpness are activated where they are used. */
static void dnc_controls(const model *m, real *z) {
    i64 size = padded(m->word), reads = m->reads, writes = m->writes, modes = padded(2 * writes + 1);
    for (i64 k = 0; k < writes * size; k += LANES) store(z + m->erase + k, sigmoid_(load(z + m->erase + k)));
    for (i64 k = 0; k < padded(reads + 2 * writes); k += LANES)
        store(z + m->gates + k, sigmoid_(load(z + m->gates + k)));
    for (i64 r = 0; m->linked && r < reads; r++) softmax_(z + m->modes + r * modes, 2 * writes + 1, modes);
    if (!m->masking) return;
    for (i64 k = 0; k < reads * size; k += LANES) store(z + m->read_masks + k, sigmoid_(load(z + m->read_masks + k)));
    for (i64 k = 0; k < writes * size; k += LANES)
        store(z + m->write_masks + k, sigmoid_(load(z + m->write_masks + k)));
}

/* The same backwards. z: as the heads used it; raw: as it was; d: the gradient of the one, and then of the other. */
static void dnc_controls_backward(const model *m, const real *z, const real *raw, real *d) {
    i64 size = padded(m->word), reads = m->reads, writes = m->writes, modes = padded(2 * writes + 1);
#define BACK(part, size_, expression)                                                                                  \
    for (i64 k = m->part; k < m->part + (size_); k += LANES) {                                                         \
        vec y = load(z + k), x = load(raw + k), dy = load(d + k);                                                      \
        (void)x, (void)y, store(d + k, expression);                                                                    \
    }
    BACK(erase, writes * size, dy * y * (all(1) - y))
    BACK(gates, padded(reads + 2 * writes), dy * y * (all(1) - y))
    BACK(strengths, padded(reads + writes), dy * sigmoid_(x))
    for (i64 r = 0; m->linked && r < reads; r++)
        softmax_backward_(z + m->modes + r * modes, d + m->modes + r * modes, modes);
    if (!m->masking) return;
    BACK(read_masks, reads * size, dy * y * (all(1) - y))
    BACK(write_masks, writes * size, dy * y * (all(1) - y))
#undef BACK
}

/* u = (u + (1 - u) (1 - prod_v (1 - w_v))) psi, psi = prod_r (1 - f_r w_r), both weightings of the step before. */
static void update_usage(const model *m, const real *before, const real *read_weights, const real *write_weights,
                         const real *free_gates, real *retention, real *usage) {
    i64 row = row_of(m->slots);
    for (i64 n = 0; n < row; n += WIDE) {
        wide_vec unwritten = all_wide(1), psi = all_wide(1), u = load_wide(before + n);
        for (i64 v = 0; v < m->writes; v++) unwritten *= all_wide(1) - load_wide(write_weights + v * row + n);
        for (i64 r = 0; r < m->reads; r++)
            psi *= all_wide(1) - all_wide(free_gates[r]) * load_wide(read_weights + r * row + n);
        store_wide(usage + n, (u + (all_wide(1) - u) * (all_wide(1) - unwritten)) * psi);
        store_wide(retention + n, psi);
    }
}

/* d_usage: of the usage after, and then before. d_retention: of psi as the memory used it. To d_read_weights and
 * d_free_gates is added. No gradient flows through the write weights. */
static void update_usage_backward(const model *m, const real *before, const real *read_weights,
                                  const real *write_weights, const real *free_gates, const real *retention,
                                  const real *d_retention, real *d_usage, real *d_read_weights, real *d_free_gates) {
    i64 row = row_of(m->slots);
    for (i64 r = 0; r < m->reads; r++) {
        wide_vec gate = all_wide(free_gates[r]), total = all_wide(0);
        for (i64 n = 0; n < row; n += WIDE) {
            wide_vec unwritten = all_wide(1), others = all_wide(1), u = load_wide(before + n);
            for (i64 v = 0; v < m->writes; v++) unwritten *= all_wide(1) - load_wide(write_weights + v * row + n);
            for (i64 o = 0; o < m->reads; o++)
                if (o != r) others *= all_wide(1) - all_wide(free_gates[o]) * load_wide(read_weights + o * row + n);
            wide_vec d_psi = fma_(load_wide(d_usage + n), u + (all_wide(1) - u) * (all_wide(1) - unwritten),
                                  load_wide(d_retention + n)) *
                             others;
            real *d = d_read_weights + r * row + n;
            total -= d_psi * load_wide(read_weights + r * row + n);
            store_wide(d, load_wide(d) - d_psi * gate);
        }
        d_free_gates[r] += sum_wide(total);
    }
    for (i64 n = 0; n < row; n += WIDE) {
        wide_vec unwritten = all_wide(1);
        for (i64 v = 0; v < m->writes; v++) unwritten *= all_wide(1) - load_wide(write_weights + v * row + n);
        store_wide(d_usage + n, load_wide(d_usage + n) * load_wide(retention + n) * unwritten);
    }
}

/* z: the interface as the heads use it. from, to: slots of the states before and after, which may be the same. spare:
 * [2 row + 256]. */
static void dnc_row(const model *m, const states *s, i64 from, i64 to, real *z, dnc_work w, real *spare) {
    i64 slots = m->slots, row = row_of(slots), size = padded(m->word), reads = m->reads, writes = m->writes;
    const real *memory = memory_of(m, s, from), *erase = z + m->erase, *add = z + m->add;
    real *next = memory_of(m, s, to), *write_weights = write_weights_of(m, s, to);
    real *previous = read_weights_of(m, s, from), *read_weights = read_weights_of(m, s, to);
    real *usage = s->usage + to * row;
    const real *read_keys = z + m->read_keys, *write_keys = z + m->write_keys;
    const real *free_gates = z + m->gates, *allocation_gate = free_gates + reads,
               *write_gate = allocation_gate + writes;

    /* Write: find free slots, mix them with those of similar content, erase and add */
    update_usage(m, s->usage + from * row, previous, write_weights_of(m, s, from), free_gates, w.retention, usage);
    memcpy(w.used, usage, row * sizeof(real));
    for (i64 v = 0; v < writes; v++) {
        real *used = w.used + v * row, *a = w.allocation + v * row;
        allocation_weights(used, slots, a, w.order + v * row, spare);
        wide_vec gate = all_wide(allocation_gate[v] * write_gate[v]);
        for (i64 n = 0; v + 1 < writes && n < row; n += WIDE) {
            wide_vec u = load_wide(used + n);
            store_wide(used + row + n, u + (all_wide(1) - u) * gate * load_wide(a + n));
        }
    }
    if (!m->masking) measures(memory, row, size, COSINE, w.write_words);
    for (i64 v = 0; v < writes; v++) {
        const real *key = write_keys + v * size;
        real strength = dnc_strength(m, z[m->strengths + reads + v]);
        real *similarities = w.write_similarities + v * row, *content = w.write_content + v * row;
        if (m->masking) {
            masked_look_up(memory, slots, size, key, z + m->write_masks + v * size, strength,
                           w.write_masked + 2 * v * size, w.write_words + v * row, similarities, content);
        } else {
            products(memory, row, size, key, similarities);
            content_weights(COSINE, similarities, w.write_words, measure_of(COSINE, key, size), strength, slots,
                            content);
        }
        wide_vec mixed = all_wide(allocation_gate[v]), gate = all_wide(write_gate[v]);
        for (i64 n = 0; n < row; n += WIDE) {
            wide_vec by_content = load_wide(content + n);
            wide_vec both = fma_(mixed, load_wide(w.allocation + v * row + n) - by_content, by_content);
            store_wide(write_weights + v * row + n, gate * both);
        }
    }

    /* Read: by content, or forward or backward along the order of writing */
    for (i64 n = 0; n < row; n += LANES) {
        write_eight(memory, next, n, write_weights, erase, add, writes, row, size, m->deallocation ? w.retention : 0);
        if (m->masking) continue;
        store(w.read_words + n, measure(COSINE, products_of_eight(next + n * size, size, 0, 0)));
        for (i64 r = 0; r < reads; r++)
            store(w.read_similarities + r * row + n, products_of_eight(next + n * size, size, read_keys + r * size, 0));
    }
    for (i64 v = 0; m->linked && v < writes; v++) {
        i64 before = (from * writes + v) * row, after = (to * writes + v) * row, heads = v * reads * row;
        update_link(s->link + before * slots, s->link + after * slots, write_weights + v * row, s->precedence + before,
                    previous, w.forward + heads, w.backward + heads, slots, reads);
        update_precedence(s->precedence + before, write_weights + v * row, row, s->precedence + after);
    }
    for (i64 r = 0; r < reads; r++) {
        real *similarities = w.read_similarities + r * row, *content = w.read_content + r * row;
        const real *modes = z + m->modes + r * padded(2 * writes + 1), *key = read_keys + r * size;
        real strength = dnc_strength(m, z[m->strengths + r]);
        if (m->masking)
            masked_look_up(next, slots, size, key, z + m->read_masks + r * size, strength, w.read_masked + 2 * r * size,
                           w.read_words + r * row, similarities, content);
        else
            content_weights(COSINE, similarities, w.read_words, measure_of(COSINE, key, size), strength, slots,
                            content);
        for (i64 v = 0; m->link_sharpening && v < writes; v++) {
            const real *sharpness = z + m->sharpness + r * writes + v;
            i64 at = (v * reads + r) * row;
            sharpen_direction(w.forward + at, sharpness[0], slots, w.sharp_forward + at);
            sharpen_direction(w.backward + at, sharpness[reads * writes], slots, w.sharp_backward + at);
        }
        for (i64 n = 0; n < row; n += WIDE) {
            wide_vec mixed = load_wide(content + n);
            if (m->linked) mixed *= all_wide(modes[2 * writes]);
            for (i64 v = 0; m->linked && v < writes; v++) {
                i64 at = (v * reads + r) * row + n;
                mixed = fma_(all_wide(modes[v]), load_wide(w.sharp_backward + at), mixed);
                mixed = fma_(all_wide(modes[writes + v]), load_wide(w.sharp_forward + at), mixed);
            }
            store_wide(read_weights + r * row + n, mixed);
        }
    }
    read_vectors(next, read_weights, reads, row, size, read_vectors_of(m, s, to));
}

/* Numbers that the gradients of a row need while they are found. */
static i64 dnc_row_spare(const model *m) {
    i64 row = row_of(m->slots), size = padded(m->word), reads = m->reads, writes = m->writes;
    return (2 * reads * writes + 2 * reads + 3 * writes + 9) * row + 2 * size;
}

/* The gradients of a step. g: those of the state, for the slot `own` of their arena, from after the step to before it.
 * z, raw: the interface as the heads used it, and as it was; d: its gradient, zeros when it comes. */
static void dnc_row_backward(const model *m, const states *s, const states *g, i64 from, i64 to, i64 own, const real *z,
                             const real *raw, dnc_work w, real *d, real *spare) {
    i64 slots = m->slots, row = row_of(slots), size = padded(m->word), reads = m->reads, writes = m->writes;
    const real *memory = memory_of(m, s, from), *next = memory_of(m, s, to);
    const real *previous = read_weights_of(m, s, from), *read_weights = read_weights_of(m, s, to);
    const real *write_weights = write_weights_of(m, s, to), *read_keys = z + m->read_keys;
    const real *write_keys = z + m->write_keys, *free_gates = z + m->gates, *allocation_gate = free_gates + reads;
    const real *write_gate = allocation_gate + writes;
    real *d_memory = memory_of(m, g, own), *d_read_weights = read_weights_of(m, g, own);
    real *d_write_weights = write_weights_of(m, g, own), *d_vectors = read_vectors_of(m, g, own);
    real *d_usage = g->usage + own * row;
    room left = {spare, 0};
    real *d_previous = take(&left, reads * row), *d_content = take(&left, reads * row);
    real *d_forward = take(&left, reads * writes * row), *d_backward = take(&left, reads * writes * row);
    real *d_words = take(&left, row), *d_allocation = take(&left, writes * row), *d_found = take(&left, writes * row);
    real *d_used = take(&left, row), *d_retention = take(&left, row);
    spare = take(&left, 0);
    memset(d_previous, 0, reads * row * sizeof(real));
    memset(d_retention, 0, row * sizeof(real));
    outers terms = {0};

    /* Read: the vectors, then the ways to find what to read */
    for (i64 r = 0; r < reads; r++) {
        const real *modes = z + m->modes + r * padded(2 * writes + 1);
        real *d_modes = d + m->modes + r * padded(2 * writes + 1), *d_w = d_read_weights + r * row;
        const real *d_vector = d_vectors + r * size;
        for (i64 n = 0; n < row; n += LANES)
            store(d_w + n, load(d_w + n) + products_of_eight(next + n * size, size, d_vector, 0));
        real share = m->linked ? modes[2 * writes] : 1;
        for (i64 n = 0; n < row; n += WIDE) store_wide(d_content + r * row + n, all_wide(share) * load_wide(d_w + n));
        if (m->linked) d_modes[2 * writes] = dot_wide(d_w, w.read_content + r * row, row);
        for (i64 v = 0; m->linked && v < writes; v++) {
            i64 at = (v * reads + r) * row;
            d_modes[v] = dot_wide(d_w, w.sharp_backward + at, row);
            d_modes[writes + v] = dot_wide(d_w, w.sharp_forward + at, row);
            for (i64 n = 0; n < row; n += WIDE) {
                store_wide(d_backward + at + n, all_wide(modes[v]) * load_wide(d_w + n));
                store_wide(d_forward + at + n, all_wide(modes[writes + v]) * load_wide(d_w + n));
            }
            if (!m->link_sharpening) continue;
            const real *sharpness = z + m->sharpness + r * writes + v;
            real *d_sharpness = d + m->sharpness + r * writes + v;
            d_sharpness[0] =
                sharpen_direction_backward(w.forward + at, w.sharp_forward + at, sharpness[0], slots, d_forward + at);
            d_sharpness[reads * writes] = sharpen_direction_backward(w.backward + at, w.sharp_backward + at,
                                                                     sharpness[reads * writes], slots, d_backward + at);
        }
        add_outer(d_memory, row, size, &terms, read_weights + r * row, d_vector);
    }
    memset(d_words, 0, row * sizeof(real));
    for (i64 r = 0; r < reads; r++) {
        real strength = dnc_strength(m, raw[m->strengths + r]), *d_key = d + m->read_keys + r * size;
        const real *key = read_keys + r * size;
        real *by_content = d_content + r * row;
        const real *content = w.read_content + r * row, *similarities = w.read_similarities + r * row;
        if (m->masking) {
            d[m->strengths + r] =
                masked_look_up_backward(next, slots, size, key, z + m->read_masks + r * size, strength,
                                        w.read_masked + 2 * r * size, w.read_words + r * row, similarities, content,
                                        by_content, d_memory, d_key, d + m->read_masks + r * size, spare);
            continue;
        }
        content_gradient of =
            content_weights_backward(COSINE, content, similarities, w.read_words, measure_of(COSINE, key, size),
                                     strength, slots, by_content, d_words);
        d[m->strengths + r] = of.strength;
        key_backward(next, by_content, row, size, key, of.key, d_key);
        add_outer(d_memory, row, size, &terms, by_content, key);
    }
    add_outers(d_memory, row, size, &terms, m->masking ? 0 : d_words, next);
    for (i64 v = 0; m->linked && v < writes; v++) {
        i64 before = (from * writes + v) * row, after = (to * writes + v) * row, heads = v * reads * row;
        i64 at = (own * writes + v) * row;
        real *d_w = d_write_weights + v * row;
        update_precedence_backward(s->precedence + before, write_weights + v * row, row, g->precedence + at, d_w);
        link_gradients of = {
            .link = s->link + before * slots,
            .after = s->link + after * slots,
            .w = write_weights + v * row,
            .precedence = s->precedence + before,
            .read_weights = previous,
            .d_forward = d_forward + heads,
            .d_backward = d_backward + heads,
            .d_link = g->link + at * slots,
            .d_w = d_w,
            .d_precedence = g->precedence + at,
            .d_read_weights = d_previous,
            .along = spare,
        };
        update_link_backward(of, slots, reads);
    }

    /* Write: the words, then the mixture of free slots and similar ones */
    write_backward(memory, write_weights, z + m->erase, z + m->add, writes, row, size,
                   m->deallocation ? w.retention : 0, d_memory, d_write_weights, d + m->erase, d + m->add,
                   m->deallocation ? d_retention : 0);
    memset(d_words, 0, row * sizeof(real));
    for (i64 v = 0; v < writes; v++) {
        const real *a = w.allocation + v * row, *c = w.write_content + v * row, *key = write_keys + v * size;
        const real *similarities = w.write_similarities + v * row;
        real strength = dnc_strength(m, raw[m->strengths + reads + v]), *d_w = d_write_weights + v * row;
        real *d_key = d + m->write_keys + v * size, *found = d_found + v * row;
        wide_vec to_free = all_wide(allocation_gate[v]), gate = all_wide(write_gate[v]);
        wide_vec d_gate = all_wide(0), d_free = all_wide(0);
        for (i64 n = 0; n < row; n += WIDE) {
            wide_vec dw = load_wide(d_w + n), difference = load_wide(a + n) - load_wide(c + n);
            d_gate = fma_(dw, fma_(to_free, difference, load_wide(c + n)), d_gate);
            d_free = fma_(dw * gate, difference, d_free);
            store_wide(d_allocation + v * row + n, dw * gate * to_free);
            store_wide(found + n, dw * gate * (all_wide(1) - to_free));
            store_wide(d_w + n, all_wide(0)); /* the usage takes the write weights as they are */
        }
        d[m->gates + reads + v] = sum_wide(d_free), d[m->gates + reads + writes + v] = sum_wide(d_gate);
        if (m->masking) {
            d[m->strengths + reads + v] = masked_look_up_backward(
                memory, slots, size, key, z + m->write_masks + v * size, strength, w.write_masked + 2 * v * size,
                w.write_words + v * row, similarities, c, found, d_memory, d_key, d + m->write_masks + v * size, spare);
            continue;
        }
        content_gradient of = content_weights_backward(COSINE, c, similarities, w.write_words,
                                                       measure_of(COSINE, key, size), strength, slots, found, d_words);
        d[m->strengths + reads + v] = of.strength;
        key_backward(memory, found, row, size, key, of.key, d_key);
        add_outer(d_memory, row, size, &terms, found, key);
    }
    add_outers(d_memory, row, size, &terms, m->masking ? 0 : d_words, memory);
    memset(d_used, 0, row * sizeof(real));
    for (i64 v = writes - 1; v >= 0; v--) {
        const real *used = w.used + v * row, *a = w.allocation + v * row;
        real both = allocation_gate[v] * write_gate[v], *d_a = d_allocation + v * row;
        wide_vec d_both = all_wide(0);
        for (i64 n = 0; n < row; n += WIDE) {
            wide_vec du = load_wide(d_used + n), left = all_wide(1) - load_wide(used + n);
            d_both = fma_(du * left, load_wide(a + n), d_both);
            store_wide(d_a + n, fma_(du * left, all_wide(both), load_wide(d_a + n)));
            store_wide(d_used + n, du * (all_wide(1) - all_wide(both) * load_wide(a + n)));
        }
        d[m->gates + reads + v] += sum_wide(d_both) * write_gate[v];
        d[m->gates + reads + writes + v] += sum_wide(d_both) * allocation_gate[v];
        allocation_weights_backward(used, a, w.order + v * row, slots, d_a, d_used, spare);
    }
    add_to(d_usage, d_used, row);
    update_usage_backward(m, s->usage + from * row, previous, write_weights_of(m, s, from), free_gates, w.retention,
                          d_retention, d_usage, d_previous, d + m->gates);
    memcpy(d_read_weights, d_previous, reads * row * sizeof(real));
    memset(d_vectors, 0, reads * size * sizeof(real));
    dnc_controls_backward(m, z, raw, d);
}

#endif
