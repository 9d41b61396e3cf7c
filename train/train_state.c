// train/train_state.c - writes and reads the files of one checkpoint folder.
#include "train/train_state.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/export/hf.h"
#include "infer/format/safetensors.h"

enum { STATE_LIMIT = 1 << 20, PART_COUNT = 4 };
static const char *const PART[PART_COUNT] = {"master", "m", "v", "ema"};

static Tensor part_of(const Optimizer *o, int part) {
    const Tensor all[PART_COUNT] = {o->master, o->m, o->v, o->ema};
    return all[part];
}

static const OptParam *param_named(const Optimizer *o, const char *name) {
    for (int i = 0; i < o->n; i++)
        if (strcmp(o->param[i].name, name) == 0) return &o->param[i];
    return NULL;
}

typedef struct {
    const Optimizer *o;
    Device *dev;
    float *host; // room for the largest parameter
} FetchCtx;

static float *host_room(const Optimizer *o, Err *err) {
    int64_t most = 1;
    for (int i = 0; i < o->n; i++)
        if (o->param[i].count > most) most = o->param[i].count;
    float *host = malloc((size_t)most * sizeof *host);
    if (host == NULL) err_set(err, ERR_FAILED, "out of memory");
    return host;
}

static bool fetch_trained(void *ctx, const StTensor *t, void *out, bool *have, Err *err) {
    FetchCtx *f = ctx;
    const OptParam *p = param_named(f->o, t->name);
    *have = p != NULL && !p->frozen;
    if (!*have) return true;
    if (p->count != t->count)
        return err_set(err, ERR_INPUT, "%s: %lld elements in the stock file, %lld trained", t->name,
                       (long long)t->count, (long long)p->count);
    const Tensor from = f->o->ema.data != NULL ? f->o->ema : f->o->master;
    dev_download(f->dev, f->host, tensor_cols(from, p->offset, p->count));
    return hf_store_f32(t, f->host, out, err);
}

static bool copy_config(const char *dir, const char *stock_dir, Err *err) {
    char from[PATH_ROOM], to[PATH_ROOM];
    static const char *const names[] = {"config.json", "generation_config.json"};
    for (int i = 0; i < 2; i++) {
        path_join(from, stock_dir, names[i]);
        if (i > 0 && !file_exists(from)) continue;
        if (!file_copy(from, path_join(to, dir, names[i]), err)) return false;
    }
    return true;
}

static bool declare(StWriter *w, const Optimizer *o, Err *err) {
    char name[160];
    for (int part = 0; part < PART_COUNT; part++)
        for (int i = 0; part_of(o, part).data != NULL && i < o->n; i++) {
            const OptParam *p = &o->param[i];
            const int64_t dim[2] = {p->rows, p->cols};
            snprintf(name, sizeof name, "%s/%s", PART[part], p->name);
            if (!p->frozen && !st_writer_declare(w, name, "F32", 2, dim, err)) return false;
        }
    return st_writer_begin(w, err);
}

// "m/KEY" -> the slice of the flat buffer it names.
static Tensor slice_named(const Optimizer *o, const char *name) {
    for (int part = 0; part < PART_COUNT; part++) {
        const size_t n = strlen(PART[part]);
        if (strncmp(name, PART[part], n) != 0 || name[n] != '/') continue;
        const OptParam *p = param_named(o, name + n + 1);
        if (p != NULL) return tensor_cols(part_of(o, part), p->offset, p->count);
    }
    return NO_TENSOR;
}

static bool save_tensors(const char *dir, const Optimizer *o, FetchCtx *f, Err *err) {
    char path[PATH_ROOM];
    StWriter *w = st_writer_open(path_join(path, dir, "state.safetensors"), err);
    if (w == NULL) return false;
    bool ok = declare(w, o, err);
    for (int i = 0; ok && i < st_writer_count(w); i++) {
        const StTensor *t = st_writer_order(w, i);
        dev_download(f->dev, f->host, slice_named(o, t->name));
        ok = st_writer_data(w, f->host, t->bytes, err);
    }
    if (ok)
        ok = st_writer_commit(w, err);
    else
        st_writer_drop(w);
    return ok;
}

static json_t *state_json(const TrainState *s, const json_t *identity, const json_t *machine) {
    json_t *match = json_array();
    for (int j = 0; j < DRAFT_MAX; j++) json_array_append_new(match, json_real(s->match[j]));
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:I, s:o, s:O, s:O}", "step",
                     (json_int_t)s->step, "steps", (json_int_t)s->steps, "anchors",
                     (json_int_t)s->anchors, "tokens", (json_int_t)s->tokens, "best_step",
                     (json_int_t)s->best_step, "best_tau", s->best_tau, "stock_tau", s->stock_tau,
                     "dev_tau", s->dev_tau, "match_seen", (json_int_t)s->match_seen, "match", match,
                     "identity", identity, "machine", machine);
}

// With 17 digits, so that every double comes back as the one it was: a resume is exact.
static bool write_exact(const char *path, const json_t *json, Err *err) {
    char *text = json ? json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
    if (text == NULL) return err_set(err, ERR_FAILED, "%s: out of memory", path);
    const bool ok = file_write(path, text, strlen(text), err);
    free(text);
    return ok;
}

bool state_save(const char *dir, const char *stock_dir, const TrainState *s, const Optimizer *o,
                Device *dev, const json_t *identity, const json_t *machine, Err *err) {
    char path[PATH_ROOM];
    FetchCtx f = {o, dev, host_room(o, err)};
    if (f.host == NULL) return false;
    json_t *json = state_json(s, identity, machine);
    const HfSource source = {&f, fetch_trained};
    const bool ok = hf_mirror(stock_dir, dir, &source, err) && copy_config(dir, stock_dir, err) &&
                    save_tensors(dir, o, &f, err) && dev_sync(dev, err) &&
                    write_exact(path_join(path, dir, "state.json"), json, err);
    json_decref(json);
    free(f.host);
    return ok;
}

static bool read_state(const json_t *json, TrainState *s, const char *path, Err *err) {
    const json_t *match = json_object_get(json, "match");
    bool ok = json_get_i64(json, "step", &s->step, err) &&
              json_get_i64(json, "steps", &s->steps, err) &&
              json_get_i64(json, "anchors", &s->anchors, err) &&
              json_get_i64(json, "tokens", &s->tokens, err) &&
              json_get_i64(json, "best_step", &s->best_step, err) &&
              json_get_f64(json, "best_tau", &s->best_tau, err) &&
              json_get_f64(json, "stock_tau", &s->stock_tau, err) &&
              json_get_f64(json, "dev_tau", &s->dev_tau, err) &&
              json_get_i64(json, "match_seen", &s->match_seen, err);
    if (ok && (s->step < 0 || json_array_size(match) != DRAFT_MAX))
        ok = err_set(err, ERR_INPUT, "step %lld with %zu match rates", (long long)s->step,
                     json_array_size(match));
    for (int j = 0; ok && j < DRAFT_MAX; j++)
        s->match[j] = json_number_value(json_array_get(match, (size_t)j));
    return ok || err_wrap(err, "%s", path);
}

bool state_peek(const char *dir, TrainState *s, Err *err) {
    char path[PATH_ROOM];
    *s = (TrainState){.best_step = -1, .dev_tau = -1.0};
    json_t *json = json_read_file(path_join(path, dir, "state.json"), STATE_LIMIT, err);
    if (json == NULL) return false;
    const bool ok = read_state(json, s, path, err);
    json_decref(json);
    return ok;
}

// The first field of `now` that `saved` has otherwise; NULL = all alike. Texts are the caller's to
// free.
static const char *first_difference(const json_t *saved, const json_t *now, char **was, char **is) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)now, key, value) {
        json_t *old = json_object_get(saved, key);
        if (old != NULL && json_equal(old, value)) continue;
        *was = old ? json_dumps(old, JSON_ENCODE_ANY | JSON_COMPACT) : strdup("absent");
        *is = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        return key;
    }
    return NULL;
}

static bool check_identity(const char *dir, const json_t *saved, const json_t *identity,
                           const json_t *machine, Err *err) {
    char *was = NULL, *is = NULL;
    bool ok = true;
    const char *key = first_difference(json_object_get(saved, "identity"), identity, &was, &is);
    if (key != NULL) {
        ok = err_set(err, ERR_USAGE,
                     "%s cannot be continued: %s was %s, now it is %s (--overwrite starts anew)",
                     dir, key, was, is);
    } else if ((key = first_difference(json_object_get(saved, "machine"), machine, &was, &is))) {
        log_warn("%s was written with %s %s, here it is %s: the run goes on, but not bit for bit",
                 dir, key, was, is);
    }
    free(was);
    free(is);
    return ok;
}

static bool load_tensors(const char *dir, Optimizer *o, Device *dev, Err *err) {
    char path[PATH_ROOM], name[160];
    StFile *f = st_open(path_join(path, dir, "state.safetensors"), err);
    float *host = f != NULL ? host_room(o, err) : NULL;
    bool ok = host != NULL;
    for (int part = 0; part < PART_COUNT; part++)
        for (int i = 0; ok && part_of(o, part).data != NULL && i < o->n; i++) {
            const OptParam *p = &o->param[i];
            if (p->frozen) continue;
            snprintf(name, sizeof name, "%s/%s", PART[part], p->name);
            const StTensor *t = st_find(f, name);
            if (t == NULL || strcmp(t->dtype, "F32") != 0 || t->count != p->count) {
                ok = err_set(err, ERR_INPUT, "%s: %s is missing or not %lld F32", path, name,
                             (long long)p->count);
                break;
            }
            ok = st_read(f, t, host, err);
            if (ok) dev_upload(dev, tensor_cols(part_of(o, part), p->offset, p->count), host);
            ok = ok && dev_sync(dev, err); // host is reused
        }
    free(host);
    st_close(f);
    return ok;
}

bool state_load(const char *dir, TrainState *s, Optimizer *o, Device *dev, const json_t *identity,
                const json_t *machine, Err *err) {
    char path[PATH_ROOM];
    json_t *json = json_read_file(path_join(path, dir, "state.json"), STATE_LIMIT, err);
    if (json == NULL) return false;
    *s = (TrainState){.best_step = -1, .dev_tau = -1.0};
    const bool ok = read_state(json, s, path, err) &&
                    check_identity(dir, json, identity, machine, err) &&
                    load_tensors(dir, o, dev, err);
    json_decref(json);
    if (ok) optimizer_publish(o, dev, false);
    return ok && dev_sync(dev, err);
}
