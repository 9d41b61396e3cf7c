// infer/tensor/cpu/dnnl_gemm.c - products by oneDNN 2.x: f32 on AVX-512, bf16 on AVX512-BF16 and
// AMX.
//
// Making a primitive costs 40 to 300 us, running a small one 5: they are kept, per thread, by
// shape. oneDNN would keep another 1024 of them, 90 to 230 KB each, for shapes that seldom return
// (row counts of batches): its own cache is switched off.
#include "infer/tensor/cpu/gemm.h"

#ifdef WITH_DNNL
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dnnl.h>
#include <omp.h>

#include "infer/tensor/cpu/cpu.h"

enum { TABLE = 64, PROBES = 8 };

// Everything a primitive depends on. Padding would break memcmp: all members are 64 bits wide.
typedef struct {
    int64_t m, n, k, lda, ldb, ldc, flags, threads;
} Key;

typedef struct {
    Key key;
    uint64_t used;              // 0: empty slot
    dnnl_primitive_t primitive; // NULL: no kernel worth using for this key
    dnnl_memory_t a, b, c;
} Entry;

typedef struct {
    dnnl_stream_t stream;
    uint64_t clock;
    Entry entry[TABLE];
} Cache;

struct Dnnl {
    dnnl_engine_t engine;
    bool bf16;
    char name[64];
    Cache *cache[CPU_THREADS_MAX];
};

static bool has(dnnl_cpu_isa_t isa, dnnl_cpu_isa_t wanted) {
    return (isa & wanted) == wanted;
}

struct Dnnl *dnnl_gemm_open(void) {
    const dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    if (!has(isa, dnnl_cpu_isa_avx512_core)) return NULL; // without AVX-512 OpenBLAS is as good
    struct Dnnl *d = calloc(1, sizeof *d);
    if (d == NULL) return NULL;
    dnnl_set_primitive_cache_capacity(0);
    if (dnnl_engine_create(&d->engine, dnnl_cpu, 0) != dnnl_success) {
        free(d);
        return NULL;
    }
    const bool amx = has(isa, dnnl_cpu_isa_avx512_core_amx);
    const bool pairs = has(isa, dnnl_cpu_isa_avx512_core_bf16);
    d->bf16 = amx || (pairs && cpu_fast_pairs());
    const dnnl_version_t *v = dnnl_version();
    snprintf(d->name, sizeof d->name, "%d.%d.%d, %s", v->major, v->minor, v->patch,
             amx       ? "AMX-BF16"
             : d->bf16 ? "AVX512-BF16"
             : pairs   ? "AVX-512 (its bf16 is slower than f32)"
                       : "AVX-512 without bf16");
    return d;
}

static void entry_clear(Entry *e) {
    dnnl_primitive_destroy(e->primitive);
    dnnl_memory_destroy(e->a);
    dnnl_memory_destroy(e->b);
    dnnl_memory_destroy(e->c);
    *e = (Entry){0};
}

void dnnl_gemm_close(struct Dnnl *d) {
    if (d == NULL) return;
    for (int t = 0; t < CPU_THREADS_MAX; t++) {
        if (d->cache[t] == NULL) continue;
        for (int i = 0; i < TABLE; i++) entry_clear(&d->cache[t]->entry[i]);
        dnnl_stream_destroy(d->cache[t]->stream);
        free(d->cache[t]);
    }
    dnnl_engine_destroy(d->engine);
    free(d);
}

bool dnnl_gemm_bf16(const struct Dnnl *d) {
    return d->bf16;
}
const char *dnnl_gemm_name(const struct Dnnl *d) {
    return d->name;
}

static Cache *thread_cache(struct Dnnl *d) {
    const int t = omp_get_thread_num();
    if (t >= CPU_THREADS_MAX) return NULL;
    if (d->cache[t]) return d->cache[t];
    Cache *c = calloc(1, sizeof *c);
    if (c && dnnl_stream_create(&c->stream, d->engine, dnnl_stream_default_flags) != dnnl_success) {
        free(c);
        c = NULL;
    }
    return d->cache[t] = c;
}

static Key key_of(const Gemm *g) {
    const int64_t flags = g->ta | g->tb << 1 | (g->a.dtype == DT_BF16) << 2 |
                          (g->b.dtype == DT_BF16) << 3 | (g->c.dtype == DT_BF16) << 4 |
                          (g->beta != 0.0f) << 5;
    return (Key){g->c.rows, g->c.cols, gemm_k(g), g->a.ld, g->b.ld, g->c.ld, flags, g->threads};
}

static Entry *find(Cache *c, const Key *key) {
    uint64_t h = 0;
    const int64_t *word = (const int64_t *)key;
    for (size_t i = 0; i < sizeof *key / sizeof *word; i++)
        h = (h ^ (uint64_t)word[i]) * 0x9e3779b97f4a7c15u, h ^= h >> 29;
    Entry *oldest = NULL;
    for (unsigned i = 0; i < PROBES; i++) {
        Entry *e = &c->entry[(h + i) % TABLE];
        if (e->used && memcmp(&e->key, key, sizeof *key) == 0) {
            e->used = ++c->clock;
            return e;
        }
        if (oldest == NULL || e->used < oldest->used) oldest = e;
    }
    entry_clear(oldest);
    oldest->key = *key;
    oldest->used = ++c->clock;
    return oldest;
}

static bool describe(dnnl_memory_desc_t *md, Tensor t, bool transposed) {
    const dnnl_dims_t dims = {transposed ? t.cols : t.rows, transposed ? t.rows : t.cols};
    const dnnl_dims_t strides = {transposed ? 1 : t.ld, transposed ? t.ld : 1};
    return dnnl_memory_desc_init_by_strides(md, 2, dims, t.dtype == DT_BF16 ? dnnl_bf16 : dnnl_f32,
                                            strides) == dnnl_success;
}

// Leaves the entry without a primitive when oneDNN has nothing better than its portable code.
static void entry_build(struct Dnnl *d, Entry *e, const Gemm *g) {
    dnnl_memory_desc_t a, b, c;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    dnnl_primitive_desc_t pd = NULL;
    const char *name = "";
    bool ok = describe(&a, g->a, g->ta) && describe(&b, g->b, g->tb) && describe(&c, g->c, false) &&
              dnnl_matmul_desc_init(&desc, &a, &b, NULL, &c) == dnnl_success &&
              dnnl_primitive_attr_create(&attr) == dnnl_success;
    if (ok && g->beta != 0.0f)
        ok = dnnl_post_ops_create(&ops) == dnnl_success &&
             dnnl_post_ops_append_sum(ops, 1.0f) == dnnl_success &&
             dnnl_primitive_attr_set_post_ops(attr, ops) == dnnl_success;
    ok = ok && dnnl_primitive_desc_create(&pd, &desc, attr, d->engine, NULL) == dnnl_success &&
         dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) == dnnl_success &&
         strncmp(name, "brg", 3) == 0 && dnnl_primitive_create(&e->primitive, pd) == dnnl_success;
    ok = ok && dnnl_memory_create(&e->a, &a, d->engine, DNNL_MEMORY_NONE) == dnnl_success &&
         dnnl_memory_create(&e->b, &b, d->engine, DNNL_MEMORY_NONE) == dnnl_success &&
         dnnl_memory_create(&e->c, &c, d->engine, DNNL_MEMORY_NONE) == dnnl_success;
    dnnl_primitive_desc_destroy(pd);
    dnnl_post_ops_destroy(ops);
    dnnl_primitive_attr_destroy(attr);
    if (!ok && e->primitive) {
        dnnl_primitive_destroy(e->primitive);
        e->primitive = NULL;
    }
}

bool dnnl_gemm_run(struct Dnnl *d, const Gemm *g) {
    Cache *cache = thread_cache(d);
    if (cache == NULL) return false;
    const Key key = key_of(g);
    // A primitive is made for, and must run with, this many threads.
    if (omp_get_max_threads() != g->threads) omp_set_num_threads(g->threads);
    Entry *e = find(cache, &key);
    if (e->primitive == NULL && e->c == NULL) entry_build(d, e, g);
    if (e->primitive == NULL) return false;
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, e->a}, {DNNL_ARG_WEIGHTS, e->b}, {DNNL_ARG_DST, e->c}};
    return dnnl_memory_set_data_handle(e->a, g->a.data) == dnnl_success &&
           dnnl_memory_set_data_handle(e->b, g->b.data) == dnnl_success &&
           dnnl_memory_set_data_handle(e->c, g->c.data) == dnnl_success &&
           dnnl_primitive_execute(e->primitive, cache->stream, 3, args) == dnnl_success &&
           dnnl_stream_wait(cache->stream) == dnnl_success;
}

#else

struct Dnnl *dnnl_gemm_open(void) {
    return NULL;
}
void dnnl_gemm_close(struct Dnnl *d) {
    (void)d;
}
bool dnnl_gemm_run(struct Dnnl *d, const Gemm *g) {
    (void)d;
    (void)g;
    return false;
}
bool dnnl_gemm_bf16(const struct Dnnl *d) {
    (void)d;
    return false;
}
const char *dnnl_gemm_name(const struct Dnnl *d) {
    (void)d;
    return "not built in";
}

#endif
