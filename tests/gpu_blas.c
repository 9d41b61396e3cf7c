// tests/gpu_blas.c - the three functions of OpenBLAS that the program calls, for GPU boxes that
// have none: correct, in one order, and fast enough for the CPU side of comparisons.
#include <cblas.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

char *openblas_get_corename(void);

char *openblas_get_corename(void) {
    static char name[] = "stand-in of the GPU tests";
    return name;
}

void openblas_set_num_threads(int n) {
    (void)n;
}

enum { COLUMNS = 128 }; // of op(B) that are unpacked at a time

// Row-major only, alpha 1: what gemm.c asks for.
void cblas_sgemm(const enum CBLAS_ORDER order, const enum CBLAS_TRANSPOSE ta,
                 const enum CBLAS_TRANSPOSE tb, const blasint m, const blasint n, const blasint k,
                 const float alpha, const float *a, const blasint lda, const float *b,
                 const blasint ldb, const float beta, float *c, const blasint ldc) {
    if (order != CblasRowMajor || alpha != 1.0f) abort();
    float *panel = calloc((size_t)(k > 0 ? k : 1) * COLUMNS, sizeof *panel);
    if (panel == NULL) abort();
    for (blasint j0 = 0; j0 < n; j0 += COLUMNS) {
        const blasint w = n - j0 < COLUMNS ? n - j0 : COLUMNS;
        for (blasint i = 0; i < k; i++)
            for (blasint j = 0; j < w; j++)
                panel[(size_t)i * COLUMNS + j] =
                    tb == CblasTrans ? b[(size_t)(j0 + j) * ldb + i] : b[(size_t)i * ldb + j0 + j];
        for (blasint r = 0; r < m; r++) {
            float sum[COLUMNS] = {0}, *to = c + (size_t)r * ldc + j0;
            for (blasint i = 0; i < k; i++) {
                const float x = ta == CblasTrans ? a[(size_t)i * lda + r] : a[(size_t)r * lda + i];
                for (blasint j = 0; j < COLUMNS; j++) sum[j] += x * panel[(size_t)i * COLUMNS + j];
            }
            for (blasint j = 0; j < w; j++) to[j] = sum[j] + (beta != 0.0f ? beta * to[j] : 0.0f);
        }
    }
    free(panel);
}
