// eval/quant/sensitivity_json.c - modules to JSON, and JSON to a mixture.
#include "eval/quant/sensitivity_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/quant/allocate.h"
#include "infer/base/json.h"

enum { OTHERS_MAX = 4 }; // modules that are named without having been measured

// {TYPE: value} of every width of a module.
static json_t *by_type(const ModuleSensitivity *m, const double *value) {
    json_t *o = json_object();
    for (int i = 0; i < m->widths; i++) {
        char name[32];
        mix_type_name(name, &m->type[i]);
        json_object_set_new(o, name, json_real(value[i]));
    }
    return o;
}

static json_t *bytes_by_type(const ModuleSensitivity *m) {
    json_t *o = json_object();
    for (int i = 0; i < m->widths; i++) {
        char name[32];
        mix_type_name(name, &m->type[i]);
        json_object_set_new(o, name, json_integer(mix_type_bytes(&m->type[i], m->rows, m->cols)));
    }
    return o;
}

static json_t *module_json(const ModuleSensitivity *m) {
    return json_pack("{ss so sI s{s[II] so so so}}", "layer_name", m->module, "sensitivities",
                     by_type(m, m->kl), "param_count", (json_int_t)(m->rows * m->cols), "metadata",
                     "shape", (json_int_t)m->rows, (json_int_t)m->cols, "lost_tokens",
                     by_type(m, m->lost), "lost_tokens_se", by_type(m, m->se), "bytes",
                     bytes_by_type(m));
}

json_t *sensitivity_json(const Sensitivity *s) {
    json_t *reach = json_array(), *layers = json_array();
    for (int j = 0; j < s->k; j++) json_array_append_new(reach, json_real(s->reach[j]));
    for (int i = 0; i < s->n; i++) json_array_append_new(layers, module_json(&s->module[i]));
    json_t *o = json_pack("{ss ss ss si ss sf so so}", "kind", "sensitivity", "model", "assistant",
                          "format", mix_format_name(s->format), "k", s->k, "head",
                          s->head == HEAD_CENTROID ? "centroid" : "dense", "tau", s->tau, "reach",
                          reach, "layers", layers);
    CHECK_MEMORY(o);
    return o;
}

// A module as it stands in the report, with the types that its widths are.
typedef struct {
    Component c;
    MixType type[ALLOCATE_WIDTHS];
} Row;

static bool type_named(MixType *t, MixFormat format, const char *name) {
    if (format == MIX_GGUF) {
        const GgmlTypeInfo *info = ggml_type_named(name);
        if (info != NULL) *t = mix_gguf(info->type);
        return info != NULL;
    }
    char *end;
    const long bits = strtol(name, &end, 10);
    *t = mix_mlx((int)bits, 64);
    return *end == '\0' && bits >= 2 && bits <= 16;
}

static double value_of(const json_t *o, const char *name) {
    const json_t *x = json_object_get(o, name);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

static int by_bytes(const void *pa, const void *pb) {
    const Row *a = pa, *b = pb; // of one width each
    return a->c.bytes[0] < b->c.bytes[0] ? -1 : a->c.bytes[0] > b->c.bytes[0];
}

// One width of a row, from the names of the types in `kl`.
static bool read_width(Row *one, const json_t *layer, const char *name, MixFormat format,
                       int64_t params, Err *err) {
    const json_t *meta = json_object_get(layer, "metadata");
    const json_t *bytes = json_object_get(json_object_get(meta, "bytes"), name);
    if (!type_named(&one->type[0], format, name))
        return err_set(err, ERR_INPUT, "no type \"%s\"", name);
    if (!json_is_integer(bytes) || json_integer_value(bytes) < 1)
        return err_set(err, ERR_INPUT, "type %s: bytes are missing", name);
    one->c.bytes[0] = json_integer_value(bytes);
    one->c.bits[0] =
        format == MIX_MLX ? one->type[0].mlx.bits : 8.0 * (double)one->c.bytes[0] / (double)params;
    one->c.kl[0] = value_of(json_object_get(layer, "sensitivities"), name);
    one->c.lost[0] = value_of(json_object_get(meta, "lost_tokens"), name);
    one->c.se[0] = value_of(json_object_get(meta, "lost_tokens_se"), name);
    return true;
}

static bool read_row(Row *row, const json_t *layer, MixFormat format, Err *err) {
    json_t *kl = json_object_get(layer, "sensitivities"), *value;
    const char *name;
    Row one[ALLOCATE_WIDTHS];
    int64_t params = 0;
    int n = 0;
    *row = (Row){.c = {.name = json_string_value(json_object_get(layer, "layer_name"))}};
    if (row->c.name == NULL || strlen(row->c.name) >= sizeof(MixModule){0}.module ||
        !json_is_object(kl) || json_object_size(kl) == 0 || json_object_size(kl) > ALLOCATE_WIDTHS)
        return err_set(err, ERR_INPUT, "a layer without layer_name or sensitivities");
    if (!json_get_i64(layer, "param_count", &params, err)) return false;
    if (params < 1) return err_set(err, ERR_INPUT, "%s: param_count is missing", row->c.name);
    json_object_foreach(kl, name, value) {
        one[n] = (Row){0};
        if (!read_width(&one[n++], layer, name, format, params, err))
            return err_wrap(err, "%s", row->c.name);
    }
    qsort(one, (size_t)n, sizeof *one, by_bytes);
    row->c.params = params;
    row->c.widths = n;
    for (int i = 0; i < n; i++) {
        row->type[i] = one[i].type[0];
        row->c.bits[i] = one[i].c.bits[0];
        row->c.bytes[i] = one[i].c.bytes[0];
        row->c.kl[i] = one[i].c.kl[0];
        row->c.lost[i] = one[i].c.lost[0];
        row->c.se[i] = one[i].c.se[0];
        if (i > 0 &&
            (row->c.bytes[i] == row->c.bytes[i - 1] || row->c.bits[i] <= row->c.bits[i - 1]))
            return err_set(err, ERR_INPUT, "%s: two types of one size", row->c.name);
    }
    return true;
}

static bool grant(const Component *c, int n, bool target, const MixWish *wish, int *width,
                  Err *err) {
    int64_t params = 0, least = 0;
    for (int i = 0; i < n; i++) {
        params += c[i].params;
        least += c[i].bytes[0];
    }
    if (strcmp(wish->method, "optiq") == 0) {
        OptiqRules rules = OPTIQ_RULES;
        rules.target_bpw = wish->bpw;
        allocate_optiq(c, n, &rules, width);
        return true;
    }
    if (target)
        return err_set(err, ERR_USAGE,
                       "a target has no lost tokens: eval.mix_method=optiq mixes it by KL");
    const double bytes = wish->bpw * (double)params / 8.0;
    if ((double)least > bytes)
        return err_set(err, ERR_USAGE,
                       "eval.mix_bpw is %g, the smallest types already have %.3f bits per weight",
                       wish->bpw, 8.0 * (double)least / (double)params);
    allocate_tokens(c, n, (int64_t)bytes, width);
    return true;
}

static void name_more(Mix *m, const char *module, MixType type) {
    MixModule *to = &m->module[m->n++];
    *to = (MixModule){.type = type, .kl = NAN, .lost = NAN};
    snprintf(to->module, sizeof to->module, "%s", module);
}

// Modules that are not measured. A drafter with centroids keeps its table and them in bf16 (MLX);
// the embeddings of a target get the largest width (mlx-optiq).
static void name_others(Mix *m, bool keep_head, const json_t *embeddings, const MixType *widest) {
    size_t i;
    json_t *name;
    if (keep_head) {
        name_more(m, "masked_embedding.centroids", mix_mlx(16, 64));
        name_more(m, "model.embed_tokens", mix_mlx(16, 64));
    }
    json_array_foreach(embeddings, i, name) {
        if (i < OTHERS_MAX && json_is_string(name)) name_more(m, json_string_value(name), *widest);
    }
}

// What is chosen of every row.
static Mix *mix_of(const Row *row, const Component *c, const int *width, int n, MixFormat format) {
    Mix *m = calloc(1, sizeof *m);
    CHECK_MEMORY(m);
    m->format = format;
    m->module = calloc((size_t)n + OTHERS_MAX, sizeof *m->module);
    CHECK_MEMORY(m->module);
    for (int i = 0; i < n; i++) {
        MixModule *to = &m->module[m->n++];
        const int w = width[i];
        *to = (MixModule){.type = row[i].type[w], .kl = c[i].kl[w], .lost = c[i].lost[w]};
        strncpy(to->module, c[i].name, sizeof to->module - 1);
        m->high += w == c[i].widths - 1;
        m->low += w == 0;
    }
    m->bytes = allocation_bytes(c, n, width);
    m->achieved_bpw = allocation_bpw(c, n, width);
    return m;
}

static Mix *make(const json_t *report, MixFormat format, const MixWish *wish, Err *err) {
    const json_t *layers = json_object_get(report, "layers");
    const int n = (int)json_array_size(layers);
    const char *model = json_string_value(json_object_get(report, "model")),
               *head = json_string_value(json_object_get(report, "head"));
    const bool target = model != NULL && strcmp(model, "target") == 0,
               centroid = head != NULL && strcmp(head, "centroid") == 0;
    Row *row = calloc((size_t)n + 1, sizeof *row);
    Component *c = calloc((size_t)n + 1, sizeof *c);
    int *width = calloc((size_t)n + 1, sizeof *width);
    CHECK_MEMORY(row);
    CHECK_MEMORY(c);
    CHECK_MEMORY(width);
    Mix *m = NULL;
    double params = 0.0;
    bool ok = n > 0 || err_set(err, ERR_INPUT, "no layers");
    for (int i = 0; ok && i < n; i++) {
        ok = read_row(&row[i], json_array_get(layers, (size_t)i), format, err);
        c[i] = row[i].c;
        params += (double)c[i].params;
    }
    if (ok && grant(c, n, target, wish, width, err)) {
        m = mix_of(row, c, width, n, format);
        m->target = target;
        name_others(m, centroid && format == MIX_MLX && !target,
                    target ? json_object_get(report, "embeddings") : NULL,
                    &row[0].type[row[0].c.widths - 1]);
        m->target_bpw = wish->bpw;
        m->bits_per_weight = 8.0 * (double)m->bytes / params;
        if (strcmp(wish->method, "tokens") == 0) m->achieved_bpw = m->bits_per_weight;
        snprintf(m->method, sizeof m->method, "%s", wish->method);
        strcpy(m->reference, "bf16");
    }
    free(row);
    free(c);
    free(width);
    return m;
}

Mix *mix_of_sensitivity(const json_t *report, const MixWish *wish, Err *err) {
    const char *kind = json_string_value(json_object_get(report, "kind")),
               *format = json_string_value(json_object_get(report, "format"));
    CHECK(strcmp(wish->method, "optiq") == 0 || strcmp(wish->method, "tokens") == 0);
    if (kind == NULL || format == NULL || strcmp(kind, "sensitivity") != 0 ||
        (strcmp(format, "mlx") != 0 && strcmp(format, "gguf") != 0)) {
        err_set(err, ERR_INPUT, "not a report of sensitivities");
        return NULL;
    }
    Mix *m = make(report, strcmp(format, "mlx") == 0 ? MIX_MLX : MIX_GGUF, wish, err);
    if (m == NULL) err_wrap(err, "mixture");
    return m;
}
