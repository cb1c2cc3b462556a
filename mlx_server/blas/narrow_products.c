/* Products of a few rows by a large matrix, y = alpha x W^T + beta y or alpha x W + beta y, that read the matrix
   once, where it is.

   OpenBLAS copies ("packs") W before it multiplies it, which takes three times as long as the product if x has
   one row, as in each step of an answer: W^T has the weights of a layer or the keys of a context, W its values.
   MLX calls `cblas_sgemm`. This library defines it too, and is loaded
   before OpenBLAS, so it is called first; products of another kind are passed on. */

#include <stddef.h>

enum { ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 };

typedef void sgemm(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float *a,
                   int lda, const float *b, int ldb, float beta, float *c, int ldc);

static sgemm *pass_on;             /* OpenBLAS's own function */
static int (*count_threads)(void); /* how many threads OpenBLAS uses now */

void vestal_pass_on_to(sgemm *function, int (*threads)(void)) {
    pass_on = function;
    count_threads = threads;
}

/* Up to MOST_ROWS rows of x, this is faster than OpenBLAS with all its threads; up to MOST_ROWS_BESIDE_ONE_THREAD,
   it is faster only while OpenBLAS has one thread. Below LEAST_WIDTH there is little to save. There are no threads
   here: two groups of threads that wait for work take each other's cores. */
enum { MOST_ROWS = 4, MOST_ROWS_BESIDE_ONE_THREAD = 8, LEAST_WIDTH = 32 };
/* With W as it is, up to MOST_ROWS_UNTRANSPOSED, if W is no wider than the values of a head are. */
enum { MOST_ROWS_UNTRANSPOSED = 3, MOST_OUTPUTS = 256 };
enum { LANES = 8, OUTPUTS_PER_PASS = 12, NUMBERS_PER_PASS = 4096 };

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline __attribute__((always_inline)) float sum(lanes v) {
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

/* Compute the outputs from `n` on, ROWS by COLUMNS at a time, and return the first that is left. */
static inline __attribute__((always_inline)) ptrdiff_t tiles(
    const int ROWS, const int COLUMNS, ptrdiff_t n, ptrdiff_t outputs, ptrdiff_t width, float alpha, const float *x,
    ptrdiff_t ldx, const float *w, ptrdiff_t ldw, float beta, float *y, ptrdiff_t ldy) {
    for (; n + COLUMNS <= outputs; n += COLUMNS) {
        const float *from = w + n * ldw;
        lanes sums[ROWS][COLUMNS];
        for (int r = 0; r < ROWS; r++)
            for (int c = 0; c < COLUMNS; c++) sums[r][c] = (lanes){0};
        ptrdiff_t k = 0;
        for (; k + LANES <= width; k += LANES)
            for (int c = 0; c < COLUMNS; c++) {
                const lanes weights = *(const lanes *)(from + c * ldw + k);
                __builtin_prefetch(from + (c + COLUMNS) * ldw + k);
                for (int r = 0; r < ROWS; r++) sums[r][c] += *(const lanes *)(x + r * ldx + k) * weights;
            }
        for (int r = 0; r < ROWS; r++)
            for (int c = 0; c < COLUMNS; c++) {
                float product = sum(sums[r][c]);
                for (ptrdiff_t j = k; j < width; j++) product += x[r * ldx + j] * from[c * ldw + j];
                float *to = y + r * ldy + n + c;
                *to = alpha * product + (beta == 0 ? 0 : beta * *to);
            }
    }
    return n;
}

#define FOR_ROWS(ROWS, COLUMNS)                                                                                  \
    static void rows_##ROWS(ptrdiff_t outputs, ptrdiff_t width, float alpha, const float *x, ptrdiff_t ldx,      \
                            const float *w, ptrdiff_t ldw, float beta, float *y, ptrdiff_t ldy) {                \
        ptrdiff_t n = tiles(ROWS, COLUMNS, 0, outputs, width, alpha, x, ldx, w, ldw, beta, y, ldy);              \
        tiles(ROWS, 1, n, outputs, width, alpha, x, ldx, w, ldw, beta, y, ldy);                                  \
    }
FOR_ROWS(1, 2)
FOR_ROWS(2, 2)
FOR_ROWS(3, 2)
FOR_ROWS(4, 3)

static void multiply(ptrdiff_t rows, ptrdiff_t outputs, ptrdiff_t width, float alpha, const float *x, ptrdiff_t ldx,
                     const float *w, ptrdiff_t ldw, float beta, float *y, ptrdiff_t ldy) {
    /* The further rows of x find this part of W in the processor's cache. */
    ptrdiff_t pass = rows > 4 ? OUTPUTS_PER_PASS : outputs;
    for (ptrdiff_t n = 0; n < outputs; n += pass) {
        ptrdiff_t count = outputs - n < pass ? outputs - n : pass;
        const float *from = w + n * ldw;
        for (ptrdiff_t r = 0; r < rows; r += 4) {
            const float *of = x + r * ldx;
            float *to = y + r * ldy + n;
            switch (rows - r) {
                case 1: rows_1(count, width, alpha, of, ldx, from, ldw, beta, to, ldy); break;
                case 2: rows_2(count, width, alpha, of, ldx, from, ldw, beta, to, ldy); break;
                case 3: rows_3(count, width, alpha, of, ldx, from, ldw, beta, to, ldy); break;
                default: rows_4(count, width, alpha, of, ldx, from, ldw, beta, to, ldy);
            }
        }
    }
}

/* The same for y = alpha x W + beta y, VECTORS times LANES outputs at a time: the rows of W are added up, each
   times a number of x. */
static inline __attribute__((always_inline)) ptrdiff_t tiles_untransposed(
    const int ROWS, const int VECTORS, ptrdiff_t n, ptrdiff_t outputs, ptrdiff_t width, float alpha, const float *x,
    ptrdiff_t ldx, const float *w, ptrdiff_t ldw, float beta, float *y, ptrdiff_t ldy) {
    for (; n + VECTORS * LANES <= outputs; n += VECTORS * LANES) {
        lanes sums[ROWS][VECTORS];
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < VECTORS; v++) sums[r][v] = (lanes){0};
        const float *from = w + n;
        for (ptrdiff_t k = 0; k < width; k++, from += ldw)
            for (int r = 0; r < ROWS; r++)
                for (int v = 0; v < VECTORS; v++) sums[r][v] += x[r * ldx + k] * *(const lanes *)(from + v * LANES);
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < VECTORS; v++) {
                lanes *to = (lanes *)(y + r * ldy + n + v * LANES);
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
    int most_rows = count_threads() == 1 ? MOST_ROWS_BESIDE_ONE_THREAD : MOST_ROWS;
    if (may_be_narrow && transpose_b == TRANSPOSED && m <= most_rows)
        multiply(m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    else if (may_be_narrow && transpose_b == AS_IT_IS && m <= MOST_ROWS_UNTRANSPOSED && n <= MOST_OUTPUTS)
        multiply_untransposed(m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    else
        pass_on(order, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
