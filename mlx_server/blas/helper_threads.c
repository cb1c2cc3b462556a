/* Threads that help another thread to compute a work whose parts are independent.

   Each thread takes the next part when it has finished one. So a helper whose core is busy with another process
   delays a work by one part at most, and a work of which no helper takes a part is computed all the same. */

#include "helper_threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

/* For how long a helper looks for the next work before it sleeps. With 1 to 300 us, steps of answers were equally
   fast; a helper that looks takes a core from others. */
static const int64_t LOOKS_FOR_NS = 50 * 1000;
enum { LOOKS_PER_CLOCK = 64, LOOKS_BEFORE_YIELD = 4096 };

/* The low half is how many parts nobody has taken yet. The high half is the work's number, so that a helper that
   has read this before a work ended cannot take a part of the next one. */
static _Atomic uint64_t parts_left __attribute__((aligned(128)));
static atomic_int parts_done __attribute__((aligned(128)));
static compute_part *compute_now; /* these two are written only while no part is left or unfinished */
static const void *work_now;

static atomic_flag in_use = ATOMIC_FLAG_INIT; /* by the thread whose work is computed */
static int started;                           /* helpers; changed only by that thread */
static atomic_int asleep;                     /* helpers */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work_arrived = PTHREAD_COND_INITIALIZER;

static inline void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int any_left(void) { return (uint32_t)atomic_load(&parts_left) != 0; }

/* Return the number of a part that nobody else computes; -1 if none is left. */
static int take_part(void) {
    uint64_t left = atomic_load(&parts_left);
    while ((uint32_t)left != 0)
        if (atomic_compare_exchange_weak(&parts_left, &left, left - 1)) return (int)(uint32_t)left - 1;
    return -1;
}

static void compute_parts(void) {
    for (int number; (number = take_part()) >= 0;) {
        compute_now(work_now, number);
        atomic_fetch_add(&parts_done, 1);
    }
}

static void sleep_until_work_arrives(void) {
    pthread_mutex_lock(&lock);
    atomic_fetch_add(&asleep, 1); /* before the last look: who brings work looks here after he has brought it */
    while (!any_left()) pthread_cond_wait(&work_arrived, &lock);
    atomic_fetch_sub(&asleep, 1);
    pthread_mutex_unlock(&lock);
}

static void *help(void *unused) {
    for (;;) {
        compute_parts();
        int64_t until = now_ns() + LOOKS_FOR_NS;
        for (int looks = 1; !any_left(); looks++) {
            pause_briefly();
            if (looks % LOOKS_PER_CLOCK == 0 && now_ns() > until) sleep_until_work_arrives();
        }
    }
    return unused;
}

/* Start helpers until there are as many, or no more can be started. */
static void start(int helpers) {
    for (pthread_t thread; started < helpers; started++) {
        if (pthread_create(&thread, NULL, help, NULL) != 0) return;
        pthread_detach(thread);
    }
}

void compute_with_helpers(int helpers, compute_part *compute, const void *work, int parts) {
    if (helpers < 1 || parts < 2 || atomic_flag_test_and_set(&in_use)) {
        for (int number = 0; number < parts; number++) compute(work, number);
        return;
    }
    start(helpers);
    compute_now = compute;
    work_now = work;
    atomic_store(&parts_done, 0);
    atomic_store(&parts_left, ((atomic_load(&parts_left) >> 32) + 1) << 32 | (uint32_t)parts);
    if (atomic_load(&asleep) > 0) {
        pthread_mutex_lock(&lock);
        pthread_cond_broadcast(&work_arrived);
        pthread_mutex_unlock(&lock);
    }
    compute_parts();
    for (int looks = 1; atomic_load(&parts_done) < parts; looks++) {
        pause_briefly();
        if (looks % LOOKS_BEFORE_YIELD == 0) sched_yield(); /* a helper may have no core but this */
    }
    atomic_flag_clear(&in_use);
}
