/* A team of threads that share the calls of a pass. A pass may take a tenth of a millisecond only, and the next one
 * follows soon: so who waits, for a call or for the end of the others, looks again and again for a while before it
 * sleeps. To wake a thread would take longer than many passes. */

#ifndef ENGRAM_TEAM_H
#define ENGRAM_TEAM_H

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "allocator.h"

#define SPIN_NANOSECONDS 1000000

/* A number that one thread waits for to become zero. sleeping: whether that thread does not look any more. */
typedef struct {
    _Atomic i64 number, sleeping;
    pthread_mutex_t lock;
    pthread_cond_t zero;
} countdown;

typedef struct kernel_call kernel_call;

/* One thread of a team. idle: 1, or 0 as soon as there is a call for it, or none: then the thread ends. */
typedef struct {
    struct team *of;
    pthread_t thread;
    countdown idle;
    const kernel_call *call;
} member;

/* left: members that have not yet made the call that they were given. */
typedef struct team {
    void (*make)(const kernel_call *call);
    countdown left;
    i64 count;
    member members[];
} team;

static void open_countdown(countdown *c, i64 number) {
    atomic_init(&c->number, number), atomic_init(&c->sleeping, 0);
    pthread_mutex_init(&c->lock, 0), pthread_cond_init(&c->zero, 0);
}

static void close_countdown(countdown *c) { pthread_mutex_destroy(&c->lock), pthread_cond_destroy(&c->zero); }

static i64 nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (i64)now.tv_sec * 1000000000 + now.tv_nsec;
}

INLINE void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void wait_for_zero(countdown *c) {
    i64 end = nanoseconds() + SPIN_NANOSECONDS;
    for (; nanoseconds() < end; sched_yield())
        for (i64 k = 0; k < 32; k++, relax())
            if (atomic_load(&c->number) == 0) return;
    pthread_mutex_lock(&c->lock);
    atomic_store(&c->sleeping, 1);
    while (atomic_load(&c->number) != 0) pthread_cond_wait(&c->zero, &c->lock);
    atomic_store(&c->sleeping, 0);
    pthread_mutex_unlock(&c->lock);
}

/* Count one down; wake who waits for zero, if it sleeps: it looked at the number after it had said so. */
static void count_down(countdown *c) {
    if (atomic_fetch_sub(&c->number, 1) != 1 || !atomic_load(&c->sleeping)) return;
    pthread_mutex_lock(&c->lock);
    pthread_cond_signal(&c->zero);
    pthread_mutex_unlock(&c->lock);
}

static void *work(void *of) {
    member *self = of;
    for (;;) {
        wait_for_zero(&self->idle);
        if (!self->call) return 0;
        self->of->make(self->call);
        atomic_store(&self->idle.number, 1);
        count_down(&self->of->left);
    }
}

/* Give a member its call, or none. */
static void give(member *to, const kernel_call *call) {
    to->call = call;
    count_down(&to->idle);
}

static void close_team(team *t) {
    for (i64 k = 0; k < t->count; k++) {
        give(t->members + k, 0);
        pthread_join(t->members[k].thread, 0);
        close_countdown(&t->members[k].idle);
    }
    close_countdown(&t->left);
    free(t);
}

/* Start one more thread, which leaves all signals to the others. Return whether the system has one. */
static int open_member(team *t) {
    member *next = t->members + t->count;
    sigset_t every, before;
    next->of = t, next->call = 0;
    open_countdown(&next->idle, 1);
    sigfillset(&every);
    pthread_sigmask(SIG_BLOCK, &every, &before);
    int failed = pthread_create(&next->thread, 0, work, next);
    pthread_sigmask(SIG_SETMASK, &before, 0);
    if (failed) close_countdown(&next->idle);
    else t->count++;
    return !failed;
}

/* Return a team of the caller's thread and at most `more` others, as many as the system has, each of which makes calls
 * by `make`; none, if there is no memory. */
static team *open_team(i64 more, void (*make)(const kernel_call *call)) {
    team *t = malloc(sizeof(team) + more * sizeof(member));
    if (!t) return 0;
    t->make = make, t->count = 0;
    open_countdown(&t->left, 0);
    while (t->count < more && open_member(t)) continue;
    return t;
}

#endif
