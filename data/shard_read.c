// data/shard_read.c - captured sequences out of a folder of shards.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/shard_file.h"
#include "infer/text/chat.h"

struct ShardSet {
    Manifest m;
    ShardFile *file;  // (m.n)
    int64_t *first;   // (m.n + 1) number of the first sequence of each shard
    int64_t *anchors; // (sequences) plus 1, once they were asked for; else 0
    ChunkCache cache;
};

void captured_drop_rows(CapturedSeq *c) {
    free(c->hidden);
    c->hidden = NULL;
    for (int i = 0; i < 2; i++) {
        free(c->k[i]);
        free(c->v[i]);
        c->k[i] = c->v[i] = NULL;
    }
}

void captured_free(CapturedSeq *c) {
    captured_drop_rows(c);
    sample_free(&c->sample);
}

ShardSet *shards_open(const char *dir, const ShardMeta *want, Err *err) {
    ShardSet *s = calloc(1, sizeof *s);
    if (!s) {
        err_set(err, ERR_FAILED, "%s: out of memory", dir);
        return NULL;
    }
    if (!manifest_read(&s->m, dir, err) || !shard_meta_match(&s->m.meta, want, dir, err)) goto fail;
    if (strcmp(s->m.meta.dtype, "BF16") != 0) {
        err_set(err, ERR_INPUT, "%s: dtype %s, this program reads BF16", dir, s->m.meta.dtype);
        goto fail;
    }
    if (!s->m.complete) {
        err_set(err, ERR_INPUT, "%s: the capture is not finished (%d shards so far)", dir, s->m.n);
        goto fail;
    }
    s->file = calloc((size_t)s->m.n + 1, sizeof *s->file);
    s->first = calloc((size_t)s->m.n + 1, sizeof *s->first);
    if (!s->file || !s->first) {
        err_set(err, ERR_FAILED, "%s: out of memory", dir);
        goto fail;
    }
    for (int i = 0; i < s->m.n; i++) {
        char path[PATH_ROOM];
        if (!shard_file_load(&s->file[i], path_join(path, dir, s->m.shard[i].file), &s->m.meta,
                             &s->m.shard[i], err))
            goto fail;
        s->first[i + 1] = s->first[i] + s->file[i].sequences;
    }
    s->anchors = calloc((size_t)s->first[s->m.n] + 1, sizeof *s->anchors);
    if (s->anchors) return s;
    err_set(err, ERR_FAILED, "%s: out of memory", dir);
fail:
    shards_close(s);
    return NULL;
}

void shards_close(ShardSet *s) {
    if (!s) return;
    for (int i = 0; i < s->m.n && s->file; i++) shard_file_free(&s->file[i]);
    free(s->file);
    free(s->first);
    free(s->anchors);
    chunk_cache_free(&s->cache);
    manifest_free(&s->m);
    free(s);
}

const ShardMeta *shards_meta(const ShardSet *s) {
    return &s->m.meta;
}
int64_t shards_count(const ShardSet *s) {
    return s->first[s->m.n];
}

// The shard that holds sequence i; *local is its number in there.
static const ShardFile *shard_of(const ShardSet *s, int64_t i, int64_t *local) {
    CHECK(i >= 0 && i < shards_count(s));
    int low = 0, high = s->m.n; // first[low] <= i < first[high]
    while (high - low > 1) {
        const int mid = (low + high) / 2;
        if (s->first[mid] <= i)
            low = mid;
        else
            high = mid;
    }
    *local = i - s->first[low];
    return &s->file[low];
}

int64_t shards_length(const ShardSet *s, int64_t i) {
    int64_t local;
    const ShardFile *f = shard_of(s, i, &local);
    return f->offsets[local + 1] - f->offsets[local];
}

typedef struct {
    ShardSet *set;
    const ShardFile *file;
    int fd;
    int64_t first, n; // token rows
    Err *err;
} Reader;

static bool some_rows(Reader *r, FieldId f, int64_t first, int64_t n, void **out) {
    *out = malloc((size_t)(n * r->file->field[f].row_bytes));
    if (!*out) return err_set(r->err, ERR_FAILED, "%s: out of memory", r->file->path);
    return shard_file_rows(r->file, r->fd, &r->set->cache, f, first, n, *out, r->err);
}

static bool token_rows(Reader *r, FieldId f, void **out) {
    return some_rows(r, f, r->first, r->n, out);
}

// The hidden states of sequence `row`; those that its anchors and teachers need are among them.
static bool states(Reader *r, int64_t row, CapturedSeq *out) {
    const int64_t *at = r->file->state_at + row, n = at[1] - at[0];
    out->bare = r->n - n;
    if (out->bare > sample_bare(&out->sample))
        return err_set(r->err, ERR_INPUT,
                       "%s: sequence %lld: hidden states begin at row %lld, the first anchor needs "
                       "row %lld",
                       r->file->path, (long long)row, (long long)out->bare,
                       (long long)sample_bare(&out->sample));
    return some_rows(r, FIELD_HIDDEN, at[0], n, &out->hidden);
}

static bool one_row(Reader *r, FieldId f, int64_t row, void *out, size_t size) {
    CHECK((size_t)r->file->field[f].row_bytes == size);
    return shard_file_rows(r->file, r->fd, &r->set->cache, f, row, 1, out, r->err);
}

static bool read_sample(Reader *r, int64_t row, Sample *s) {
    uint8_t stopped = 0;
    void *ids = NULL, *kind = NULL;
    bool ok = token_rows(r, FIELD_IDS, &ids) && token_rows(r, FIELD_KIND, &kind);
    s->ids = ids;
    s->kind = kind;
    ok = ok && one_row(r, FIELD_PROMPT_ID, row, s->id, sizeof s->id) &&
         one_row(r, FIELD_CATEGORY, row, s->category, sizeof s->category) &&
         one_row(r, FIELD_SOURCE, row, s->source, sizeof s->source) &&
         one_row(r, FIELD_SAMPLER, row, s->sampler, sizeof s->sampler) &&
         one_row(r, FIELD_SAMPLE, row, &s->sample, sizeof s->sample) &&
         one_row(r, FIELD_PROMPT, row, &s->prompt, sizeof s->prompt) &&
         one_row(r, FIELD_STOPPED, row, &stopped, 1) &&
         one_row(r, FIELD_MARGIN, row, &s->min_margin, sizeof s->min_margin);
    if (!ok) return false;
    s->n = r->n;
    s->stopped = stopped;
    ok = memchr(s->id, 0, sizeof s->id) && memchr(s->category, 0, sizeof s->category) &&
         memchr(s->source, 0, sizeof s->source) && memchr(s->sampler, 0, sizeof s->sampler) &&
         s->sample >= 0 && s->prompt >= 0 && s->prompt <= s->n;
    const int64_t vocab = r->set->m.meta.vocab ? r->set->m.meta.vocab : INT32_MAX;
    for (int64_t i = 0; i < s->n; i++)
        ok = ok && s->ids[i] >= 0 && s->ids[i] < vocab && s->kind[i] < TOKEN_KINDS;
    return ok || err_set(r->err, ERR_INPUT, "%s: sequence %lld holds values out of range",
                         r->file->path, (long long)row);
}

bool shards_read(ShardSet *s, int64_t i, CapturedSeq *out, Err *err) {
    int64_t row;
    Reader r = {.set = s, .file = shard_of(s, i, &row), .err = err};
    *out = (CapturedSeq){0};
    r.first = r.file->offsets[row];
    r.n = r.file->offsets[row + 1] - r.first;
    r.fd = shard_file_fd(r.file, err);
    if (r.fd < 0) return false;
    const bool ok = read_sample(&r, row, &out->sample) && states(&r, row, out) &&
                    token_rows(&r, FIELD_K_SLIDING, &out->k[LAYER_SLIDING]) &&
                    token_rows(&r, FIELD_V_SLIDING, &out->v[LAYER_SLIDING]) &&
                    token_rows(&r, FIELD_K_FULL, &out->k[LAYER_FULL]) &&
                    token_rows(&r, FIELD_V_FULL, &out->v[LAYER_FULL]);
    close(r.fd);
    if (!ok) captured_free(out);
    return ok;
}

int64_t shards_anchors(ShardSet *s, int64_t i, Err *err) {
    int64_t row;
    Reader r = {.set = s, .file = shard_of(s, i, &row), .err = err};
    void *kind = NULL;
    if (s->anchors[i] > 0) return s->anchors[i] - 1;
    r.first = r.file->offsets[row];
    r.n = r.file->offsets[row + 1] - r.first;
    r.fd = shard_file_fd(r.file, err);
    if (r.fd < 0) return -1;
    const bool ok = token_rows(&r, FIELD_KIND, &kind);
    const int64_t n = ok ? sample_anchors(&(Sample){.n = r.n, .kind = kind}) : -1;
    s->anchors[i] = n + 1;
    close(r.fd);
    free(kind);
    return n;
}

bool shards_category(ShardSet *s, int64_t i, char out[64], Err *err) {
    int64_t row;
    Reader r = {.set = s, .file = shard_of(s, i, &row), .err = err};
    r.fd = shard_file_fd(r.file, err);
    if (r.fd < 0) return false;
    const bool ok = one_row(&r, FIELD_CATEGORY, row, out, 64);
    close(r.fd);
    return ok && (memchr(out, 0, 64) != NULL ||
                  err_set(err, ERR_INPUT, "%s: sequence %lld holds values out of range",
                          r.file->path, (long long)row));
}
