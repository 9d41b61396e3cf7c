// data/shard_manifest.c - manifest.json of a folder of shards, checked when read.
#include "data/shard_manifest.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/json.h"

enum { MANIFEST_BYTES = 64 << 20 };

#define TEXT(member, what)                                                                         \
    { #member, what, offsetof(ShardMeta, member), sizeof(((ShardMeta *)0)->member) }
const MetaField meta_fields[META_FIELDS] = {
    TEXT(target, "target"),
    TEXT(tokenizer, "tokenizer"),
    TEXT(chat_template, "chat template"),
    TEXT(config, "configuration"),
    TEXT(dtype, "dtype"),
    TEXT(sampler, "sampler"),
    {"hidden", "hidden width", offsetof(ShardMeta, hidden), 0},
    {"kv_width_sliding", "sliding K/V width", offsetof(ShardMeta, kv_width[LAYER_SLIDING]), 0},
    {"kv_width_full", "full K/V width", offsetof(ShardMeta, kv_width[LAYER_FULL]), 0},
    {"window", "sliding window", offsetof(ShardMeta, window), 0},
    {"vocab", "vocabulary", offsetof(ShardMeta, vocab), 0},
};

static const char *text_of(const ShardMeta *m, const MetaField *f) {
    return (const char *)m + f->offset;
}
static int64_t number_of(const ShardMeta *m, const MetaField *f) {
    int64_t v;
    memcpy(&v, (const char *)m + f->offset, sizeof v);
    return v;
}

bool shard_meta_match(const ShardMeta *have, const ShardMeta *want, const char *name, Err *err) {
    for (int i = 0; i < META_FIELDS; i++) {
        const MetaField *f = &meta_fields[i];
        if (f->room) {
            const char *h = text_of(have, f), *w = text_of(want, f);
            if (w[0] && strcmp(h, w) != 0)
                return err_set(err, ERR_INPUT, "%s: %s %s, expected %s", name, f->what,
                               h[0] ? h : "(none)", w);
        } else {
            const int64_t h = number_of(have, f), w = number_of(want, f);
            if (w && h != w)
                return err_set(err, ERR_INPUT, "%s: %s %lld, expected %lld", name, f->what,
                               (long long)h, (long long)w);
        }
    }
    return true;
}

char *shard_name(char out[32], int number) {
    snprintf(out, 32, "shard-%05d.h5", number);
    return out;
}

char *manifest_path(char out[PATH_ROOM], const char *dir) {
    return path_join(out, dir, "manifest.json");
}

void manifest_free(Manifest *m) {
    free(m->shard);
    *m = (Manifest){0};
}

static bool read_meta(ShardMeta *m, const json_t *o, Err *err) {
    for (int i = 0; i < META_FIELDS; i++) {
        const MetaField *f = &meta_fields[i];
        if (f->room) {
            const char *text = NULL;
            if (!json_get_str(o, f->name, &text, err)) return false;
            if (!text || strlen(text) >= f->room)
                return err_set(err, ERR_INPUT, "\"%s\" is missing or too long", f->name);
            strcpy((char *)m + f->offset, text);
        } else {
            int64_t v = -1;
            if (!json_get_i64(o, f->name, &v, err)) return false;
            if (v < (f->offset != offsetof(ShardMeta, vocab)) || v > INT32_MAX)
                return err_set(err, ERR_INPUT, "\"%s\" is %lld", f->name, (long long)v);
            memcpy((char *)m + f->offset, &v, sizeof v);
        }
    }
    return true;
}

static bool read_entry(ShardEntry *e, int number, int64_t version, const json_t *o, Err *err) {
    const char *file = NULL, *sha = NULL;
    if (!json_get_str(o, "file", &file, err) || !json_get_str(o, "sha256", &sha, err) ||
        !json_get_i64(o, "bytes", &e->bytes, err) || !json_get_i64(o, "tokens", &e->tokens, err) ||
        !json_get_i64(o, "sequences", &e->sequences, err))
        return false;
    if (!file || strcmp(file, shard_name(e->file, number)) != 0)
        return err_set(err, ERR_INPUT, "shards[%d] is %.60s, expected %s", number,
                       file ? file : "nameless", e->file);
    if (!sha || strlen(sha) != 64 || e->bytes < 1 || e->sequences < 1 || e->tokens < e->sequences)
        return err_set(err, ERR_INPUT, "%s: a size or the SHA-256 is out of range", e->file);
    e->states = version == 1 ? e->tokens : 0;
    if (version > 1 && !json_get_i64(o, "states", &e->states, err)) return false;
    if (e->states < e->sequences || e->states > e->tokens)
        return err_set(err, ERR_INPUT, "%s: %lld hidden states of %lld tokens", e->file,
                       (long long)e->states, (long long)e->tokens);
    strcpy(e->sha256, sha);
    return true;
}

static bool read_manifest(Manifest *m, const json_t *o, Err *err) {
    if (!json_is_object(o)) return err_set(err, ERR_INPUT, "not an object");
    if (!json_get_i64(o, "version", &m->version, err)) return false;
    if (m->version < 1 || m->version > MANIFEST_VERSION)
        return err_set(err, ERR_INPUT, "version %lld, this program reads 1 to %d",
                       (long long)m->version, (int)MANIFEST_VERSION);
    const json_t *list = json_object_get(o, "shards");
    const size_t n = json_array_size(list);
    if (!json_is_array(list) || n > SHARDS_MAX)
        return err_set(err, ERR_INPUT, "\"shards\" is not a list of shards");
    if (!json_get_bool(o, "complete", &m->complete, err) ||
        !read_meta(&m->meta, json_object_get(o, "meta"), err))
        return false;
    m->shard = calloc(n + 1, sizeof *m->shard);
    if (!m->shard) return err_set(err, ERR_FAILED, "out of memory");
    for (m->n = 0; m->n < (int)n; m->n++)
        if (!read_entry(&m->shard[m->n], m->n, m->version, json_array_get(list, (size_t)m->n), err))
            return false;
    return true;
}

bool manifest_read(Manifest *m, const char *dir, Err *err) {
    char path[PATH_ROOM];
    *m = (Manifest){0};
    manifest_path(path, dir);
    if (!file_exists(path))
        return err_set(err, ERR_INPUT, "%s: no manifest.json: no capture was made here", dir);
    json_t *o = json_read_file(path, MANIFEST_BYTES, err);
    if (!o) return false;
    Err why = {0};
    const bool ok = read_manifest(m, o, &why);
    json_decref(o);
    if (ok) return true;
    manifest_free(m);
    return err_set(err, why.code, "%.900s: %s", path, why.text);
}

static json_t *meta_json(const ShardMeta *m) {
    json_t *o = json_object();
    for (int i = 0; i < META_FIELDS; i++) {
        const MetaField *f = &meta_fields[i];
        json_object_set_new(o, f->name,
                            f->room ? json_string(text_of(m, f)) : json_integer(number_of(m, f)));
    }
    return o;
}

bool manifest_write(const Manifest *m, const char *dir, Err *err) {
    char path[PATH_ROOM];
    json_t *list = json_array();
    for (int i = 0; i < m->n; i++) {
        const ShardEntry *e = &m->shard[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:I, s:I, s:I, s:I, s:s}", "file", e->file,
                                        "sequences", (json_int_t)e->sequences, "tokens",
                                        (json_int_t)e->tokens, "states", (json_int_t)e->states,
                                        "bytes", (json_int_t)e->bytes, "sha256", e->sha256));
    }
    json_t *o = json_pack("{s:i, s:b, s:o, s:o}", "version", (int)MANIFEST_VERSION, "complete",
                          (int)m->complete, "meta", meta_json(&m->meta), "shards", list);
    CHECK_MEMORY(o);
    const bool ok = json_write_file(manifest_path(path, dir), o, err);
    json_decref(o);
    return ok;
}

bool shards_complete(const char *dir) {
    Manifest m;
    Err err = {0};
    if (!manifest_read(&m, dir, &err)) return false;
    bool complete = m.complete;
    for (int i = 0; i < m.n && complete; i++) {
        char path[PATH_ROOM];
        int64_t size = -1;
        complete = file_size(path_join(path, dir, m.shard[i].file), &size, &err) &&
                   size == m.shard[i].bytes;
    }
    manifest_free(&m);
    return complete;
}
