/* Products of a few rows by a large matrix, y = alpha x W^T + beta y or alpha x W + beta y, that read the matrix
   once, where it is.

   OpenBLAS copies ("packs") W before it multiplies it, which takes three times as long as the product if x has
   one row, as in each step of an answer: W^T has the weights of a layer or the keys of a context, W its values.
   MLX calls `cblas_sgemm`. This library defines it too, and is loaded before OpenBLAS, so it is called first;
   products of another kind are passed on. */

#include <stddef.h>

#include "helper_threads.h"

enum { ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 };

typedef void sgemm(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float *a,
                   int lda, const float *b, int ldb, float beta, float *c, int ldc);

static sgemm *pass_on;             /* OpenBLAS's own function */
static int (*count_threads)(void); /* how many threads OpenBLAS uses now; our products use as many */

void vestal_pass_on_to(sgemm *function, int (*threads)(void)) {
    pass_on = function;
    count_threads = threads;
}

/* Up to MOST_ROWS rows of x, this is faster than OpenBLAS, whose kernels for AVX-512 do more at a time than these
   loops. Below LEAST_WIDTH there is little to save. */
#if defined(__AVX512F__)
enum { MOST_ROWS = 20 };
#else
enum { MOST_ROWS = 32 };
#endif
enum { LEAST_WIDTH = 32 };
int vestal_most_rows(void) { return MOST_ROWS; }

/* With W as it is, up to MOST_ROWS_UNTRANSPOSED, if W is no wider than the values of a head are. */
enum { MOST_ROWS_UNTRANSPOSED = 3, MOST_OUTPUTS = 256, NUMBERS_PER_PASS = 4096 };

/* A product, or the part of one that has some of its outputs. Rows of x, W and y begin `ldx`, `ldw` and `ldy`
   numbers after each other. */
typedef struct {
    ptrdiff_t rows, outputs, width;
    float alpha;
    const float *x;
    ptrdiff_t ldx;
    const float *w;
    ptrdiff_t ldw;
    float beta;
    float *y;
    ptrdiff_t ldy;
} product;

enum { LANES = 8 };
enum { LINE = 16 }; /* the numbers in a line of the processor's cache */
typedef float vector __attribute__((vector_size(4 * LANES)));
typedef float in_memory __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline float sum(vector v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

/* Return the numbers at `address`, in a register: otherwise GCC would read them again for each use. */
static inline vector load(const float *address) {
    vector loaded = *(const in_memory *)address;
#if defined(__x86_64__)
    __asm__("" : "+x"(loaded));
#endif
    return loaded;
}

/* Fetch the line of memory at `address` into the processor's cache. `__builtin_prefetch` would make GCC keep the
   sums of a loop in memory, which takes three times as long. */
static inline void fetch(const float *address) {
#if defined(__x86_64__)
    __asm__ volatile("prefetcht0 %0" : : "m"(*address));
#elif defined(__aarch64__)
    __asm__ volatile("prfm pldl1keep, %0" : : "Q"(*address));
#endif
}

/* How many numbers of W are fetched before they are needed. With half or twice as many, products are as fast; with
   only the next rows of W, keys and values of 64 numbers each took 1.5 times as long. */
enum { FETCHED_AHEAD = 1700 };

/* W^T, COLUMNS of whose columns are multiplied by up to MOST_ROWS_PER_PASS rows of x at a time: their sums, and
   what is added to them next, have room in the registers of a processor. These loops are written with macros,
   because GCC keeps arrays of vectors in memory. */
enum { COLUMNS = 3, MOST_ROWS_PER_PASS = 3 };

/* Add to `total` the product of two rows from place `k` on, and put it into place `n` of row `r` of y. */
static inline void put(const product *p, ptrdiff_t r, ptrdiff_t n, ptrdiff_t k, float total) {
    const float *x = p->x + r * p->ldx, *w = p->w + n * p->ldw;
    for (; k < p->width; k++) total += x[k] * w[k];
    float *y = p->y + r * p->ldy + n;
    *y = p->alpha * total + (p->beta == 0 ? 0 : p->beta * *y);
}

#define FOR_1(DO) DO(0)
#define FOR_2(DO) DO(0) DO(1)
#define FOR_3(DO) DO(0) DO(1) DO(2)
#define SUMS(r) vector sum_##r##_0 = {0}, sum_##r##_1 = {0}, sum_##r##_2 = {0};
#define ADD(r)                                 \
    {                                          \
        const vector x = load(of_x + r * ldx + k); \
        sum_##r##_0 += x * w_0;                \
        sum_##r##_1 += x * w_1;                \
        sum_##r##_2 += x * w_2;                \
    }
#define ADD_NEXT(ROWS)                                                                                         \
    {                                                                                                         \
        const vector w_0 = load(of_w_0 + k), w_1 = load(of_w_1 + k), w_2 = load(of_w_2 + k);                  \
        FOR_##ROWS(ADD) k += LANES;                                                                            \
    }
#define PUT(r)                              \
    put(p, from_r + r, n, k, sum(sum_##r##_0)); \
    put(p, from_r + r, n + 1, k, sum(sum_##r##_1)); \
    put(p, from_r + r, n + 2, k, sum(sum_##r##_2));

/* Compute the outputs from `n` up to but not including `end`, for ROWS rows of x from `from_r` on. Fetch what is
   `ahead` numbers further. */
#define FOR_ROWS(ROWS)                                                                                          \
    static void outputs_of_##ROWS(const product *p, ptrdiff_t from_r, ptrdiff_t n, ptrdiff_t end,               \
                                  ptrdiff_t ahead) {                                                            \
        const ptrdiff_t width = p->width, ldx = p->ldx, ldw = p->ldw;                                           \
        const float *of_x = p->x + from_r * ldx;                                                                \
        for (; n + COLUMNS <= end; n += COLUMNS) {                                                              \
            const float *of_w_0 = p->w + n * ldw, *of_w_1 = of_w_0 + ldw, *of_w_2 = of_w_1 + ldw;               \
            FOR_##ROWS(SUMS) ptrdiff_t k = 0;                                                                   \
            while (k + 2 * LANES <= width) {                                                                    \
                fetch(of_w_0 + ahead + k);                                                                      \
                fetch(of_w_1 + ahead + k);                                                                      \
                fetch(of_w_2 + ahead + k);                                                                      \
                ADD_NEXT(ROWS) ADD_NEXT(ROWS)                                                                   \
            }                                                                                                   \
            FOR_##ROWS(PUT)                                                                                     \
        }                                                                                                       \
        for (; n < end; n++)                                                                                    \
            for (int r = 0; r < ROWS; r++) put(p, from_r + r, n, 0, 0);                                         \
    }
FOR_ROWS(1) FOR_ROWS(2) FOR_ROWS(3)

static void multiply(const product *p) {
    /* The further rows of x find this part of W in the processor's cache. */
    ptrdiff_t pass = p->rows > MOST_ROWS_PER_PASS ? COLUMNS : p->outputs;
    ptrdiff_t ahead = (FETCHED_AHEAD / (COLUMNS * p->ldw) + 1) * COLUMNS * p->ldw;
    for (ptrdiff_t n = 0; n < p->outputs; n += pass) {
        ptrdiff_t end = n + pass < p->outputs ? n + pass : p->outputs;
        for (ptrdiff_t r = 0; r < p->rows; r += MOST_ROWS_PER_PASS) switch (p->rows - r) {
                case 1: outputs_of_1(p, r, n, end, ahead); break;
                case 2: outputs_of_2(p, r, n, end, ahead); break;
                default: outputs_of_3(p, r, n, end, ahead);
            }
    }
}

/* Compute a product of at least LEAST_SHARED multiplications with all threads, PART_NUMBERS of W at a time. */
enum { LEAST_SHARED = 1 << 16, PART_NUMBERS = 1 << 15 };

typedef struct {
    product whole;
    ptrdiff_t part_outputs;
} shared_product;

static void multiply_part(const void *work, int number) {
    const shared_product *shared = work;
    product part = shared->whole;
    ptrdiff_t n = number * shared->part_outputs;
    if (part.outputs - n < shared->part_outputs)
        part.outputs -= n;
    else
        part.outputs = shared->part_outputs;
    part.w += n * part.ldw;
    part.y += n;
    multiply(&part);
}

static void multiply_with_helpers(const product *p, int helpers) {
    if (helpers < 1 || p->rows * p->outputs * p->width < LEAST_SHARED) {
        multiply(p);
        return;
    }
    ptrdiff_t outputs = (PART_NUMBERS / p->width / COLUMNS + 1) * COLUMNS;
    shared_product shared = {*p, outputs};
    compute_with_helpers(helpers, multiply_part, &shared, (int)((p->outputs + outputs - 1) / outputs));
}

/* The same for y = alpha x W + beta y, VECTORS times LANES outputs at a time: the rows of W are added up, each
   times a number of x. */
static inline __attribute__((always_inline)) ptrdiff_t tiles_untransposed(
    const int ROWS, const int VECTORS, ptrdiff_t n, ptrdiff_t outputs, ptrdiff_t width, float alpha, const float *x,
    ptrdiff_t ldx, const float *w, ptrdiff_t ldw, float beta, float *y, ptrdiff_t ldy) {
    const ptrdiff_t ahead = (FETCHED_AHEAD / ldw + 1) * ldw;
    for (; n + VECTORS * LANES <= outputs; n += VECTORS * LANES) {
        vector sums[ROWS][VECTORS];
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < VECTORS; v++) sums[r][v] = (vector){0};
        const float *from = w + n;
        for (ptrdiff_t k = 0; k < width; k++, from += ldw) {
            if (n == 0) /* the first outputs' tile fetches these rows for the others, too */
                for (ptrdiff_t line = 0; line < outputs; line += LINE) fetch(from + ahead + line);
            for (int r = 0; r < ROWS; r++)
                for (int v = 0; v < VECTORS; v++) sums[r][v] += x[r * ldx + k] * *(const in_memory *)(from + v * LANES);
        }
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < VECTORS; v++) {
                in_memory *to = (in_memory *)(y + r * ldy + n + v * LANES);
                *to = beta == 0 ? alpha * sums[r][v] : alpha * sums[r][v] + beta * *to;
            }
    }
    return n;
}

#define FOR_ROWS_UNTRANSPOSED(ROWS, VECTORS)                                                                     \
    static void rows_untransposed_##ROWS(ptrdiff_t outputs, ptrdiff_t width, float alpha, const float *x,        \
                                         ptrdiff_t ldx, const float *w, ptrdiff_t ldw, float beta, float *y,     \
                                         ptrdiff_t ldy) {                                                        \
        ptrdiff_t n = tiles_untransposed(ROWS, VECTORS, 0, outputs, width, alpha, x, ldx, w, ldw, beta, y, ldy); \
        n = tiles_untransposed(ROWS, 1, n, outputs, width, alpha, x, ldx, w, ldw, beta, y, ldy);                 \
        for (; n < outputs; n++)                                                                                 \
            for (int r = 0; r < ROWS; r++) {                                                                     \
                float product = 0;                                                                               \
                for (ptrdiff_t k = 0; k < width; k++) product += x[r * ldx + k] * w[k * ldw + n];                \
                float *to = y + r * ldy + n;                                                                     \
                *to = alpha * product + (beta == 0 ? 0 : beta * *to);                                            \
            }                                                                                                    \
    }
FOR_ROWS_UNTRANSPOSED(1, 8)
FOR_ROWS_UNTRANSPOSED(2, 4)
FOR_ROWS_UNTRANSPOSED(3, 4)

static void multiply_untransposed(ptrdiff_t rows, ptrdiff_t outputs, ptrdiff_t width, float alpha, const float *x,
                                  ptrdiff_t ldx, const float *w, ptrdiff_t ldw, float beta, float *y, ptrdiff_t ldy) {
    /* The further outputs find these rows of W in the processor's first cache. */
    ptrdiff_t pass = NUMBERS_PER_PASS / outputs;
    for (ptrdiff_t k = 0; k < width; k += pass) {
        ptrdiff_t count = width - k < pass ? width - k : pass;
        const float *of = x + k, *from = w + k * ldw;
        float of_y = k == 0 ? beta : 1;
        switch (rows) {
            case 1: rows_untransposed_1(outputs, count, alpha, of, ldx, from, ldw, of_y, y, ldy); break;
            case 2: rows_untransposed_2(outputs, count, alpha, of, ldx, from, ldw, of_y, y, ldy); break;
            default: rows_untransposed_3(outputs, count, alpha, of, ldx, from, ldw, of_y, y, ldy);
        }
    }
}

void cblas_sgemm(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float *a,
                 int lda, const float *b, int ldb, float beta, float *c, int ldc) {
    int may_be_narrow = m > 0 && order == ROW_MAJOR && transpose_a == AS_IT_IS && n >= LEAST_WIDTH && k >= LEAST_WIDTH;
    product p = {m, n, k, alpha, a, lda, b, ldb, beta, c, ldc};
    if (may_be_narrow && transpose_b == TRANSPOSED && m <= MOST_ROWS)
        multiply_with_helpers(&p, count_threads() - 1);
    else if (may_be_narrow && transpose_b == AS_IT_IS && m <= MOST_ROWS_UNTRANSPOSED && n <= MOST_OUTPUTS)
        multiply_untransposed(m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    else
        pass_on(order, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
