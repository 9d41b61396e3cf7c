// infer/export/describe_mlx.c - schemes counted, bundles checked.
#include "infer/export/describe_mlx.h"

#include <string.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/export/mlx_recipe.h"
#include "infer/export/mtplx_check.h"
#include "infer/format/mlx_model.h"

enum { MARKER_LIMIT = 16 << 20 };

static void put_int(json_t *o, const char *key, int64_t x) {
    json_object_set_new(o, key, json_integer((json_int_t)x));
}

// Modules by scheme ("Q4 g64": 22), and what all weights of matrices take on the average.
static void put_modules(json_t *o, const MlxModel *m) {
    json_t *count = json_object();
    int64_t kept = 0, weights = 0, bytes = 0;
    for (int i = 0; i < mlx_model_count(m); i++) {
        const MlxTensor *t = mlx_model_at(m, i);
        char scheme[16], key[32];
        if (t->rank < 2) continue; // norms
        weights += t->count;
        bytes += t->stored->bytes + (t->scales ? t->scales->bytes : 0) +
                 (t->biases ? t->biases->bytes : 0);
        kept += !t->quantised;
        if (!t->quantised) continue;
        snprintf(key, sizeof key, "%s g%d", mlx_scheme_name(&t->scheme, scheme), t->scheme.group);
        put_int(count, key, json_integer_value(json_object_get(count, key)) + 1);
    }
    json_object_set_new(o, "quantised_modules", count);
    put_int(o, "kept_modules", kept);
    if (weights > 0)
        json_object_set_new(o, "bits_per_weight", json_real(8.0 * (double)bytes / (double)weights));
}

bool describe_mlx(json_t *o, const char *dir, Err *err) {
    char text[256];
    MlxRules rules = {0};
    if (!mlx_rules_load(&rules, dir, err)) return false;
    const bool packed = rules.present;
    mlx_rules_text(&rules, text);
    mlx_rules_free(&rules);
    if (!packed) return true;
    MlxModel *m = mlx_model_open(dir, err);
    if (m == NULL) return false;
    json_object_set_new(o, "quantization", json_string(text));
    put_modules(o, m);
    mlx_model_close(m);
    return true;
}

static bool put_half(json_t *o, const char *dir, const char *half, Err *err) {
    char path[PATH_ROOM];
    json_t *h = json_object();
    const bool ok = describe_mlx(h, path_join(path, dir, half), err);
    if (json_object_size(h) == 0) json_object_set_new(h, "quantization", json_string("bf16"));
    json_object_set_new(o, half, h);
    return ok;
}

bool describe_bundle(json_t *o, const char *dir, Err *err) {
    char path[PATH_ROOM], why[256];
    json_t *marker = json_read_file(path_join(path, dir, "mtplx_pair.json"), MARKER_LIMIT, err);
    if (marker == NULL) return false;
    json_object_set_new(o, "marker", marker);
    if (!mtplx_check_bundle(dir, err) || !mtplx_runnable(dir, why, sizeof why, err)) return false;
    json_object_set_new(o, "complete", json_true());
    json_object_set_new(o, "mtplx_runnable", json_boolean(why[0] == '\0'));
    if (why[0] != '\0') json_object_set_new(o, "mtplx_reason", json_string(why));
    return put_half(o, dir, "target", err) && put_half(o, dir, "assistant", err);
}
