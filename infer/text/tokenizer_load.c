// infer/text/tokenizer_load.c - reads tokenizer.json: members, vocabulary, merges.
#include <jansson.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "infer/text/tokenizer_build.h"
#include "infer/text/tokenizer_file.h"
#include "infer/text/tokenizer_scan.h"
#include "infer/text/tokenizer_scheme.h"

static bool read_vocab(Tokenizer *t, Scan *s, Err *err) {
    bool first = true, more;
    if (!scan_expect(s, '{', err)) return false;
    for (;;) {
        if (!scan_step(s, '}', &first, &more, err)) return false;
        if (!more) return true;
        int32_t id;
        if (!scan_key(s, err) || !scan_index(s, TOKENIZER_ID_LIMIT, &id, err)) return false;
        if (!build_piece(t, id, s->string, s->size, err)) return false;
    }
}

// One merge: ["a","b"], or "a b" in older files (no piece holds U+0020).
static bool read_merge(Tokenizer *t, Scan *s, uint32_t rank, Err *err) {
    if (scan_peek(s) == '"') {
        if (!scan_string(s, err)) return false;
        char *blank = s->size > 1 ? memchr(s->string + 1, ' ', s->size - 1) : NULL;
        if (blank == NULL)
            return err_set(err, ERR_INPUT, "merge %u: no blank between two pieces", rank);
        const size_t left = (size_t)(blank - s->string), right = s->size - left - 1;
        memmove(blank, blank + 1, right);
        return build_merge(t, s->string, left, right, rank, err);
    }
    if (!scan_expect(s, '[', err) || !scan_string(s, err)) return false;
    const size_t left = s->size;
    char *kept = memory_for(NULL, left + 1, 1);
    memcpy(kept, s->string, left);
    bool ok = scan_expect(s, ',', err) && scan_string(s, err);
    const size_t right = s->size;
    if (ok) {
        kept = memory_for(kept, left + right + 1, 1);
        memcpy(kept + left, s->string, right);
        ok = scan_expect(s, ']', err) && build_merge(t, kept, left, right, rank, err);
    }
    free(kept);
    return ok;
}

static bool read_merges(Tokenizer *t, Scan *s, Err *err) {
    bool first = true, more;
    if (!scan_expect(s, '[', err)) return false;
    for (uint32_t rank = 0;; rank++) {
        if (!scan_step(s, ']', &first, &more, err)) return false;
        if (!more) return true;
        if (!read_merge(t, s, rank, err)) return false;
    }
}

// Members of tokenizer.json met on the way; small ones as values, merges as their place in the
// text.
typedef struct {
    json_t *top, *model; // small members
    Scan merges;         // at the opening bracket, when merges came before the added tokens
    bool vocab, has_merges;
} Parts;

static bool keep_small(json_t *into, Scan *s, Err *err) {
    if (json_object_getn(into, s->string, s->size) != NULL)
        return err_set(err, ERR_INPUT, "member \"%.*s\" occurs twice", (int)s->size, s->string);
    char *key = strndup(s->string, s->size);
    const char *from, *to;
    bool ok = scan_skip(s, &from, &to, err);
    if (ok) {
        json_error_t why;
        json_t *value =
            json_loadb(from, (size_t)(to - from), JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why);
        ok = value != NULL && json_object_set_new(into, key, value) == 0;
        if (!ok) err_set(err, ERR_INPUT, "member \"%s\": %s", key, why.text);
    }
    free(key);
    return ok;
}

static bool key_is(const Scan *s, const char *name) {
    return s->size == strlen(name) && memcmp(s->string, name, s->size) == 0;
}

static bool read_model(Tokenizer *t, Scan *s, Parts *parts, Err *err) {
    bool first = true, more;
    if (!scan_expect(s, '{', err)) return false;
    for (;;) {
        if (!scan_step(s, '}', &first, &more, err)) return false;
        if (!more) return true;
        if (!scan_key(s, err)) return false;
        if (key_is(s, "vocab")) {
            if (parts->vocab) return err_set(err, ERR_INPUT, "model.vocab occurs twice");
            parts->vocab = true;
            if (!read_vocab(t, s, err)) return false;
        } else if (key_is(s, "merges")) {
            if (parts->has_merges) return err_set(err, ERR_INPUT, "model.merges occurs twice");
            parts->has_merges = true;
            const char *from, *to;
            if (!scan_skip(s, &from, &to, err)) return false;
            scan_open(&parts->merges, from, (size_t)(to - from));
        } else if (!keep_small(parts->model, s, err)) {
            return false;
        }
    }
}

static bool read_members(Tokenizer *t, Scan *s, Parts *parts, Err *err) {
    bool first = true, more, model = false;
    if (!scan_expect(s, '{', err)) return false;
    for (;;) {
        if (!scan_step(s, '}', &first, &more, err)) return false;
        if (!more) break;
        if (!scan_key(s, err)) return false;
        if (!key_is(s, "model")) {
            if (!keep_small(parts->top, s, err)) return false;
        } else {
            if (model) return err_set(err, ERR_INPUT, "model occurs twice");
            model = true;
            if (!read_model(t, s, parts, err)) return err_wrap(err, "model");
        }
    }
    if (scan_peek(s) != '\0' || s->at != s->end)
        return err_set(err, ERR_INPUT, "text behind the end at byte %zu",
                       (size_t)(s->at - s->begin));
    if (!parts->vocab || !parts->has_merges)
        return err_set(err, ERR_INPUT, "model.%s is missing", parts->vocab ? "merges" : "vocab");
    return true;
}

static bool read_all(Tokenizer *t, Scan *s, Parts *parts, Err *err) {
    if (!read_members(t, s, parts, err) || !scheme_check(parts->top, parts->model, err))
        return false;
    if (!build_added(t, json_object_get(parts->top, "added_tokens"), err) || !build_vocab(t, err) ||
        !build_added_index(t, err) || !read_merges(t, &parts->merges, err))
        return false;
    build_finish(t);
    return true;
}

Tokenizer *tokenizer_parse(const char *text, size_t size, Err *err) {
    static _Atomic uint64_t serial = 1;
    Tokenizer *t = calloc(1, sizeof *t);
    CHECK_MEMORY(t);
    t->serial = atomic_fetch_add(&serial, 1);
    Parts parts = {.top = json_object(), .model = json_object()};
    Scan s;
    scan_open(&s, text, size);
    const bool ok = read_all(t, &s, &parts, err) && sha256_bytes(&t->hash, text, size, err);
    scan_close(&s);
    scan_close(&parts.merges);
    json_decref(parts.top);
    json_decref(parts.model);
    if (ok) return t;
    tokenizer_free(t);
    return NULL;
}

Tokenizer *tokenizer_load(const char *path, Err *err) {
    size_t size;
    char *text = unpacked_read(path, TOKENIZER_FILE_LIMIT, &size, err);
    if (text == NULL) return NULL;
    Tokenizer *t = tokenizer_parse(text, size, err);
    free(text);
    if (t == NULL) err_wrap(err, "%s", path);
    return t;
}

bool tokenizer_file_hash(Sha256 *out, const char *path, Err *err) {
    size_t size;
    char *text = unpacked_read(path, TOKENIZER_FILE_LIMIT, &size, err);
    const bool ok = text != NULL && sha256_bytes(out, text, size, err);
    free(text);
    return ok;
}

void tokenizer_free(Tokenizer *t) {
    if (t == NULL) return;
    for (size_t i = 0; i < sizeof t->page / sizeof t->page[0]; i++) free(t->page[i]);
    free(t->piece);
    free(t->flag);
    free(t->bytes);
    free(t->slot);
    free(t->merge);
    free(t->added);
    free(t);
}
