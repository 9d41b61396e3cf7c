// data/token_sample.c - tokenised items as JSON lines, checked when read.
#include "data/token_sample.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/json.h"
#include "infer/text/chat.h"

bool sample_supervised(const Sample *s, int64_t t) {
    return t < s->n && s->kind[t] >= TOKEN_MODEL;
}

int64_t sample_anchors(const Sample *s) {
    int64_t n = 0;
    for (int64_t t = 1; t + 1 < s->n; t++)
        n += sample_supervised(s, t) && sample_supervised(s, t + 1);
    return n;
}

int64_t sample_bare(const Sample *s) {
    int64_t first = 1;
    while (first < s->prompt && first < s->n &&
           !(sample_supervised(s, first) && sample_supervised(s, first + 1)))
        first++;
    return first - 1;
}

void sample_free(Sample *s) {
    free(s->ids);
    free(s->kind);
    *s = (Sample){0};
}

void samples_free(Sample *s, int64_t n) {
    for (int64_t i = 0; i < n; i++) sample_free(&s[i]);
    free(s);
}

static json_t *kind_runs(const Sample *s) {
    json_t *runs = json_array();
    for (int64_t i = 0, from = 0; i <= s->n; i++) {
        if (i < s->n && s->kind[i] == s->kind[from]) continue;
        if (i > from)
            json_array_append_new(runs,
                                  json_pack("[i,I]", (int)s->kind[from], (json_int_t)(i - from)));
        from = i;
    }
    return runs;
}

json_t *sample_json(const Sample *s) {
    json_t *ids = json_array();
    for (int64_t i = 0; i < s->n; i++) json_array_append_new(ids, json_integer(s->ids[i]));
    return json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:b, s:f, s:o, s:o}", "id", s->id, "category",
                     s->category, "source", s->source, "sampler", s->sampler, "sample",
                     (int)s->sample, "prompt", (json_int_t)s->prompt, "stopped", (int)s->stopped,
                     "margin", s->min_margin, "ids", ids, "kinds", kind_runs(s));
}

void sample_write(OutFile *f, const Sample *s) {
    json_t *o = sample_json(s);
    CHECK(o != NULL, "(sample %s: text is not UTF-8)", s->id);
    char *text = json_dumps(o, JSON_COMPACT);
    CHECK_MEMORY(text);
    out_write(f, text, strlen(text));
    out_write(f, "\n", 1);
    free(text);
    json_decref(o);
}

static bool text_field(const json_t *o, const char *key, char *out, size_t room, Err *err) {
    const char *text = NULL;
    if (!json_get_str(o, key, &text, err)) return false;
    if (!text) return err_set(err, ERR_INPUT, "\"%s\" is missing", key);
    if (strlen(text) >= room)
        return err_set(err, ERR_INPUT, "\"%s\" has %zu bytes, the limit is %zu", key, strlen(text),
                       room - 1);
    strcpy(out, text);
    return true;
}

static bool read_ids(Sample *s, const json_t *ids, int32_t vocab, Err *err) {
    s->n = (int64_t)json_array_size(ids);
    if (!json_is_array(ids) || s->n < 1)
        return err_set(err, ERR_INPUT, "\"ids\" is not a list of tokens");
    s->ids = malloc((size_t)s->n * sizeof *s->ids);
    s->kind = malloc((size_t)s->n);
    if (!s->ids || !s->kind) return err_set(err, ERR_FAILED, "out of memory");
    for (int64_t i = 0; i < s->n; i++) {
        const json_t *v = json_array_get(ids, (size_t)i);
        const json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id >= vocab)
            return err_set(err, ERR_INPUT, "ids[%lld] is %lld, the vocabulary has %d", (long long)i,
                           (long long)id, (int)vocab);
        s->ids[i] = (int32_t)id;
    }
    return true;
}

static bool read_kinds(Sample *s, const json_t *runs, Err *err) {
    int64_t at = 0;
    for (size_t i = 0; i < json_array_size(runs); i++) {
        const json_t *run = json_array_get(runs, i);
        const json_t *kind = json_array_get(run, 0), *count = json_array_get(run, 1);
        const json_int_t k = json_integer_value(kind), n = json_integer_value(count);
        if (!json_is_integer(kind) || !json_is_integer(count) || k < TOKEN_CONTEXT ||
            k >= TOKEN_KINDS || n < 1 || n > s->n - at)
            return err_set(err, ERR_INPUT, "kinds[%zu] is not [kind, count] within %lld ids", i,
                           (long long)s->n);
        memset(s->kind + at, (int)k, (size_t)n);
        at += n;
    }
    if (at != s->n)
        return err_set(err, ERR_INPUT, "\"kinds\" cover %lld of %lld ids", (long long)at,
                       (long long)s->n);
    return true;
}

static bool read_fields(Sample *s, const json_t *o, int32_t vocab, Err *err) {
    int64_t number = 0, prompt = -1;
    if (!text_field(o, "id", s->id, sizeof s->id, err) ||
        !text_field(o, "category", s->category, sizeof s->category, err) ||
        !text_field(o, "source", s->source, sizeof s->source, err) ||
        !text_field(o, "sampler", s->sampler, sizeof s->sampler, err) ||
        !json_get_i64(o, "sample", &number, err) || !json_get_i64(o, "prompt", &prompt, err) ||
        !json_get_bool(o, "stopped", &s->stopped, err) ||
        !json_get_f64(o, "margin", &s->min_margin, err) ||
        !read_ids(s, json_object_get(o, "ids"), vocab, err) ||
        !read_kinds(s, json_object_get(o, "kinds"), err))
        return false;
    if (number < 0 || number > INT32_MAX)
        return err_set(err, ERR_INPUT, "\"sample\" is %lld", (long long)number);
    if (prompt < 0 || prompt > s->n)
        return err_set(err, ERR_INPUT, "\"prompt\" is %lld of %lld ids", (long long)prompt,
                       (long long)s->n);
    s->sample = (int32_t)number;
    s->prompt = prompt;
    return true;
}

bool sample_read(Sample *s, const json_t *line, int32_t vocab, const char *where, Err *err) {
    *s = (Sample){.min_margin = -1};
    if (read_fields(s, line, vocab, err)) return true;
    sample_free(s);
    return err_wrap(err, "%s", where);
}

bool samples_load(const char *path, int32_t vocab, Sample **out, int64_t *n, Err *err) {
    *out = NULL;
    *n = 0;
    int64_t room = 0;
    Corpus *c = corpus_open(path, err);
    if (!c) return false;
    CorpusLine line;
    int rc;
    while ((rc = corpus_next(c, &line, err)) > 0) {
        if (*n == room) {
            room = room ? 2 * room : 256;
            Sample *more = realloc(*out, (size_t)room * sizeof **out);
            if (!more) {
                err_set(err, ERR_FAILED, "%s: out of memory", path);
                goto fail;
            }
            *out = more;
        }
        if (!sample_read(&(*out)[*n], line.value, vocab, line.where, err)) goto fail;
        ++*n;
    }
    if (rc < 0) goto fail;
    corpus_close(c);
    return true;
fail:
    corpus_close(c);
    samples_free(*out, *n);
    *out = NULL;
    *n = 0;
    return false;
}

bool samples_save(const char *path, const Sample *s, int64_t n, Err *err) {
    OutFile f;
    if (!out_open(&f, path, err)) return false;
    for (int64_t i = 0; i < n; i++) sample_write(&f, &s[i]);
    return out_commit(&f, err);
}
