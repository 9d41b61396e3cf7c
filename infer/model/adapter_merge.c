// infer/model/adapter_merge.c - W + scale * B A, for a module and for one expert of a mixture.
//
// PEFT keeps the pairs of all E experts of a parameter in one: A (r E, in) has the r rows of expert
// e at e r, B (out, r E) has its columns at e, E + e, ... A module holds at most two of them, each
// wrapped around the one before: experts (the last) and experts.base_layer.
#include <stdlib.h>
#include <string.h>

#include "infer/base/cores.h"
#include "infer/model/adapter_parts.h"

enum { SPAN = 512 };

static bool ends_with(const char *s, const char *tail) {
    const size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

bool adapter_is_experts(const char *module) {
    return ends_with(module, ".experts") || ends_with(module, ".experts.base_layer");
}

// The pair of a parameter of the experts: the one whose widths fit; where both do, gate_up_proj is
// the inner one, since PEFT wraps parameters in the order of their definition.
static AdapterModule *find_expert(const Adapter *a, const char *parameter, int64_t out,
                                  int64_t in) {
    char name[256];
    const char *dot = strrchr(parameter, '.');
    if (dot == NULL || a->n == 0) return NULL;
    snprintf(name, sizeof name, "%.*s", (int)(dot - parameter), parameter);
    if (!adapter_is_experts(name)) return NULL;
    AdapterModule *outer = adapter_find(a, name), *inner;
    strncat(name, ".base_layer", sizeof name - strlen(name) - 1);
    inner = adapter_find(a, name);
    const bool outer_fits = outer && outer->a->dim[1] == in && outer->b->dim[0] == out,
               inner_fits = inner && inner->a->dim[1] == in && inner->b->dim[0] == out;
    if (outer_fits && inner_fits) return strcmp(dot, ".gate_up_proj") == 0 ? inner : outer;
    return outer_fits ? outer : inner_fits ? inner : NULL;
}

bool adapter_has(const Adapter *a, const char *module) {
    AdapterModule *m = adapter_find(a, module);
    if (m != NULL) m->used = true;
    return m != NULL;
}

bool adapter_has_expert(const Adapter *a, const char *parameter, int64_t out, int64_t in) {
    AdapterModule *m = find_expert(a, parameter, out, in);
    if (m != NULL) m->used = true;
    return m != NULL;
}

// Columns first .. first+n-1 of a row: the delta is summed over r in order, then scaled and added.
static void add_span(float *w, const float *b, const float *a, float scale, int64_t in, int64_t r,
                     int64_t first, int64_t n) {
    float delta[SPAN] = {0};
    for (int64_t k = 0; k < r; k++) {
        const float bk = b[k], *row = a + k * in + first;
        for (int64_t j = 0; j < n; j++) delta[j] += bk * row[j];
    }
    for (int64_t j = 0; j < n; j++) w[first + j] += scale * delta[j];
}

// w (out, in) += scale * b (out, r) a (r, in)
static void add_product(float *w, const float *b, const float *a, double scale, int64_t out,
                        int64_t in, int64_t r) {
#pragma omp parallel for num_threads(cores_used())
    for (int64_t i = 0; i < out; i++)
        for (int64_t first = 0; first < in; first += SPAN)
            add_span(w + i * in, b + i * r, a, (float)scale, in, r, first,
                     in - first < SPAN ? in - first : SPAN);
}

static bool load_pair(const Adapter *a, const AdapterModule *m, Err *err) {
    AdapterPair *p = a->pair;
    if (p->of == m) return true;
    free(p->a);
    free(p->b);
    *p = (AdapterPair){.a = malloc((size_t)m->a->count * sizeof *p->a),
                       .b = malloc((size_t)m->b->count * sizeof *p->b)};
    if (p->a == NULL || p->b == NULL)
        return err_set(err, ERR_FAILED, "out of memory for module %s", m->name);
    if (!st_read_f32(a->file, m->a, p->a, err) || !st_read_f32(a->file, m->b, p->b, err))
        return false;
    p->of = m;
    return true;
}

bool adapter_merge(const Adapter *a, const char *module, float *w, int64_t out, int64_t in,
                   bool *merged, Err *err) {
    *merged = false;
    const AdapterModule *m = adapter_find(a, module);
    if (m == NULL) return true;
    if (m->a->dim[1] != in || m->b->dim[0] != out)
        return err_set(
            err, ERR_INPUT,
            "adapter %s: module %s maps %lld to %lld values, its weight maps %lld to %lld", a->dir,
            module, (long long)m->a->dim[1], (long long)m->b->dim[0], (long long)in,
            (long long)out);
    if (!load_pair(a, m, err)) return false;
    add_product(w, a->pair->b, a->pair->a, m->scale, out, in, m->a->dim[0]);
    *merged = adapter_has(a, module);
    return true;
}

// The rank is lora_A's rows shared out among the experts, and has to be the configured one.
static bool expert_scale(const Adapter *a, const AdapterModule *m, const char *parameter,
                         int64_t experts, double *scale, Err *err) {
    char key[257], name[320];
    double rank = 0;
    adapter_split_key(m->a->name, key);
    const char *spelled = strncmp(key, "base_model.model.", 17) == 0 ? key + 17 : key;
    const size_t inner = strlen(".base_layer");
    const int n = (int)(strlen(spelled) - (ends_with(spelled, ".base_layer") ? inner : 0));
    snprintf(name, sizeof name, "%.*s%s", n, spelled, strrchr(parameter, '.'));
    if (!adapter_scale(a->config, name, scale, &rank, err)) return false;
    if (m->a->dim[0] == (int64_t)rank * experts && m->b->dim[1] == m->a->dim[0]) return true;
    return err_set(
        err, ERR_INPUT,
        "adapter %s: %s: lora_A is [%lld, %lld], lora_B [%lld, %lld], the configured rank "
        "is %g for each of %lld experts",
        a->dir, parameter, (long long)m->a->dim[0], (long long)m->a->dim[1],
        (long long)m->b->dim[0], (long long)m->b->dim[1], rank, (long long)experts);
}

bool adapter_merge_expert(const Adapter *a, const char *parameter, int64_t expert, int64_t experts,
                          float *w, int64_t out, int64_t in, bool *merged, Err *err) {
    *merged = false;
    AdapterModule *m = find_expert(a, parameter, out, in);
    double scale;
    if (m == NULL) return true;
    if (!expert_scale(a, m, parameter, experts, &scale, err)) return false;
    const int64_t all = m->a->dim[0], r = all / experts;
    float *b = malloc((size_t)(out * r) * sizeof *b);
    if (b == NULL) return err_set(err, ERR_FAILED, "out of memory for %s", parameter);
    const bool ok = load_pair(a, m, err);
    if (ok) {
        for (int64_t i = 0; i < out; i++)
            for (int64_t k = 0; k < r; k++)
                b[i * r + k] = a->pair->b[i * all + k * experts + expert];
        add_product(w, b, a->pair->a + expert * r * in, scale, out, in, r);
        *merged = m->used = true;
    }
    free(b);
    return ok;
}
