// infer/tensor/cuda/gemm.cu - products by cuBLASLt, the algorithm chosen once per shape.
//
// The library is opened when a GPU is, so the program starts without it. It thinks in columns: our
// row-major C = op(A) op(B) is its C^T = op(B)^T op(A)^T, with the operands changing places and
// nothing else. Products that differ in shape, strides, types or alignment have an entry each; the
// heuristic's first choice is kept, never timed, so that the same run gives the same bits.
#include "infer/tensor/cuda/cuda_parts.cuh"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum : size_t { WORKSPACE = 32u << 20 };
enum { BUCKETS = 1024 };

#define LT_FUNCTIONS(f)                                                                            \
    f(Create) f(Destroy) f(GetVersion) f(GetStatusString) f(Matmul) f(MatmulAlgoGetHeuristic)      \
        f(MatmulDescCreate) f(MatmulDescDestroy) f(MatmulDescSetAttribute) f(MatrixLayoutCreate)   \
            f(MatrixLayoutDestroy) f(MatmulPreferenceCreate) f(MatmulPreferenceDestroy)            \
                f(MatmulPreferenceSetAttribute)
#define DECLARE(name) decltype(&cublasLt##name) name;

// What an algorithm was chosen for.
typedef struct {
    int64_t m, n, k, lda, ldb, ldc;
    int32_t type_in, type_out, ta, tb, beta;
    uint32_t align; // log2 of the pointers' alignment, 4 bits each
} Shape;

typedef struct Choice {
    Shape shape;
    bool usable; // false: there is no algorithm
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c; // the library's A and B: our B and A
    cublasLtMatmulAlgo_t algo;
    struct Choice *next;
} Choice;

struct Gemms {
    void *library;
    cublasLtHandle_t handle;
    LT_FUNCTIONS(DECLARE)
    Choice *bucket[BUCKETS];
    int choices;
};

static bool lt_ok(Cuda *cu, const Gemms *g, cublasStatus_t s) {
    if (s == CUBLAS_STATUS_SUCCESS) return true;
    char text[200];
    snprintf(text, sizeof text, "cuBLASLt: %s", g->GetStatusString(s));
    cuda_failed(cu, text);
    return false;
}

static bool load_library(Cuda *cu, Gemms *g) {
    char name[64];
    snprintf(name, sizeof name, "libcublasLt.so.%d", CUBLAS_VER_MAJOR);
    // NODELETE: its kernels are registered with the driver, which outlives a device
    g->library = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (g->library == NULL) {
        const char *why = dlerror();
        cuda_failed(cu, why != NULL ? why : name);
        return false;
    }
#define FIND(name)                                                                                 \
    if ((g->name = (decltype(g->name))dlsym(g->library, "cublasLt" #name)) == NULL) {              \
        cuda_failed(cu, "no cublasLt" #name " in the library");                                    \
        return false;                                                                              \
    }
    LT_FUNCTIONS(FIND)
    return true;
}

Gemms *gemms_open(Cuda *cu) {
    Gemms *g = (Gemms *)calloc(1, sizeof *g);
    if (g == NULL) return NULL;
    if (load_library(cu, g) && lt_ok(cu, g, g->Create(&g->handle)) &&
        cuda_scratch(cu, SCRATCH_WORKSPACE, WORKSPACE) != NULL)
        return g;
    gemms_close(g);
    return NULL;
}

static void free_choice(const Gemms *g, Choice *c) {
    if (c->product) g->MatmulDescDestroy(c->product);
    const cublasLtMatrixLayout_t layout[] = {c->a, c->b, c->c};
    for (int i = 0; i < 3; i++)
        if (layout[i]) g->MatrixLayoutDestroy(layout[i]);
    free(c);
}

void gemms_close(Gemms *g) {
    if (g == NULL) return;
    for (int i = 0; i < BUCKETS; i++)
        while (g->bucket[i] != NULL) {
            Choice *c = g->bucket[i];
            g->bucket[i] = c->next;
            free_choice(g, c);
        }
    if (g->handle) g->Destroy(g->handle);
    if (g->library) dlclose(g->library);
    free(g);
}

void gemms_describe(const Gemms *g, char *text, size_t size) {
    const size_t v = g->GetVersion();
    snprintf(text, size, "cuBLASLt %zu.%zu.%zu, f32 without TF32, bf16 with sums in f32", v / 10000,
             v / 100 % 100, v % 100);
}

static uint32_t alignment(const void *p) { // log2, at most 8
    const int zeros = __builtin_ctzll((unsigned long long)(uintptr_t)p | 256);
    return (uint32_t)zeros;
}

static int64_t row_stride(Tensor t) { // of one row any stride is right; keep the tidy one
    return t.rows > 1 ? t.ld : t.cols;
}

static Shape shape_of(const CudaGemm *g) {
    Shape s;
    memset(&s, 0, sizeof s); // it is compared as bytes
    s.m = g->c.rows, s.n = g->c.cols, s.k = g->ta ? g->a.rows : g->a.cols;
    s.lda = row_stride(g->a), s.ldb = row_stride(g->b), s.ldc = row_stride(g->c);
    s.type_in = g->a.dtype, s.type_out = g->c.dtype;
    s.ta = g->ta, s.tb = g->tb, s.beta = g->beta != 0.0f;
    s.align = alignment(g->a.data) | alignment(g->b.data) << 4 | alignment(g->c.data) << 8;
    return s;
}

static Choice **find(Gemms *g, const Shape *s) {
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < sizeof *s; i++) h = (h ^ ((const unsigned char *)s)[i]) * 1099511628211u;
    Choice **at = &g->bucket[(h ^ h >> 32) % BUCKETS];
    while (*at != NULL && memcmp(&(*at)->shape, s, sizeof *s) != 0) at = &(*at)->next;
    return at;
}

static cudaDataType_t lt_type(DType t) {
    return t == DT_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static bool describe_product(Cuda *cu, const Gemms *g, const CudaGemm *x, Choice *c) {
    const Shape *s = &c->shape;
    const cublasOperation_t opa = x->tb ? CUBLAS_OP_T : CUBLAS_OP_N,
                            opb = x->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cudaDataType_t in = lt_type(x->a.dtype), out = lt_type(x->c.dtype);
    return lt_ok(cu, g, g->MatmulDescCreate(&c->product, CUBLAS_COMPUTE_32F, CUDA_R_32F)) &&
           lt_ok(cu, g,
                 g->MatmulDescSetAttribute(c->product, CUBLASLT_MATMUL_DESC_TRANSA, &opa,
                                           sizeof opa)) &&
           lt_ok(cu, g,
                 g->MatmulDescSetAttribute(c->product, CUBLASLT_MATMUL_DESC_TRANSB, &opb,
                                           sizeof opb)) &&
           lt_ok(cu, g,
                 g->MatrixLayoutCreate(&c->a, in, (uint64_t)x->b.cols, (uint64_t)x->b.rows,
                                       s->ldb)) &&
           lt_ok(cu, g,
                 g->MatrixLayoutCreate(&c->b, in, (uint64_t)x->a.cols, (uint64_t)x->a.rows,
                                       s->lda)) &&
           lt_ok(cu, g, g->MatrixLayoutCreate(&c->c, out, (uint64_t)s->n, (uint64_t)s->m, s->ldc));
}

// Sums that are split are added up in f32 and in order.
static bool choose(Cuda *cu, const Gemms *g, Choice *c) {
    const size_t room = WORKSPACE;
    const uint32_t schemes =
        CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint32_t align[] = {1u << (c->shape.align >> 4 & 15), 1u << (c->shape.align & 15),
                              1u << (c->shape.align >> 8 & 15)};
    cublasLtMatmulPreference_t p;
    cublasLtMatmulHeuristicResult_t best;
    int found = 0;
    if (!lt_ok(cu, g, g->MatmulPreferenceCreate(&p))) return false;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t size;
    } wish[] = {{CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room},
                {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align[0], sizeof align[0]},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align[1], sizeof align[1]},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align[2], sizeof align[2]},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align[2], sizeof align[2]}};
    bool ok = true;
    for (size_t i = 0; i < sizeof wish / sizeof wish[0]; i++)
        ok = ok &&
             lt_ok(cu, g,
                   g->MatmulPreferenceSetAttribute(p, wish[i].name, wish[i].value, wish[i].size));
    if (ok) {
        const cublasStatus_t s = g->MatmulAlgoGetHeuristic(g->handle, c->product, c->a, c->b, c->c,
                                                           c->c, p, 1, &best, &found);
        ok = s == CUBLAS_STATUS_NOT_SUPPORTED || lt_ok(cu, g, s);
        c->usable = s == CUBLAS_STATUS_SUCCESS && found > 0 && best.state == CUBLAS_STATUS_SUCCESS;
        if (c->usable) c->algo = best.algo;
    }
    g->MatmulPreferenceDestroy(p);
    return ok;
}

static const Choice *choice_for(Cuda *cu, const CudaGemm *x) {
    Gemms *g = cu->gemms;
    const Shape s = shape_of(x);
    Choice **at = find(g, &s);
    if (*at != NULL) return *at;
    Choice *c = (Choice *)calloc(1, sizeof *c);
    CHECK_MEMORY(c);
    c->shape = s;
    if (!describe_product(cu, g, x, c) || !choose(cu, g, c)) {
        free_choice(g, c);
        return NULL;
    }
    g->choices++;
    return *at = c;
}

void gemms_start(Cuda *cu, const CudaGemm *x) {
    const Gemms *g = cu->gemms;
    const Choice *c = cu->failure[0] == '\0' ? choice_for(cu, x) : NULL;
    void *room = c != NULL ? cuda_scratch(cu, SCRATCH_WORKSPACE, WORKSPACE) : NULL;
    if (room == NULL) return; // a failure, and it is kept
    const float one = 1.0f;
    lt_ok(cu, g,
          g->Matmul(g->handle, c->product, &one, x->b.data, c->a, x->a.data, c->b, &x->beta,
                    x->c.data, c->c, x->c.data, c->c, &c->algo, room, WORKSPACE, cu->stream));
}

bool gemms_run(Cuda *cu, const CudaGemm *x) {
    const Choice *c = cu->failure[0] == '\0' ? choice_for(cu, x) : NULL;
    if (c == NULL) return true; // a failure, and it is kept
    if (!c->usable) return false;
    if (!span_hold_product(cu, x)) gemms_start(cu, x);
    return true;
}
