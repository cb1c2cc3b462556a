#ifndef VESTAL_HELPER_THREADS_H
#define VESTAL_HELPER_THREADS_H

/* Compute part `number` of `work`. Parts may be computed in any order and at the same time. */
typedef void compute_part(const void *work, int number);

/* Compute the parts 0 to `parts` - 1 of `work` with this thread and up to `helpers` others. Return when all are
   done. If the helpers are busy for another thread, this thread computes all parts. */
void compute_with_helpers(int helpers, compute_part *compute, const void *work, int parts);

#endif
