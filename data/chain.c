// data/chain.c - conversations that go on: JSON, and the next prompt out of the last answer.
#include "data/chain.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/json.h"
#include "infer/text/chat.h"

void chain_free(Chain *c) {
    for (int64_t i = 0; i < c->follows; i++) free(c->follow[i].ids);
    free(c->follow);
    sample_free(&c->sample);
    *c = (Chain){0};
}

void chains_free(Chain *c, int64_t n) {
    for (int64_t i = 0; i < n; i++) chain_free(&c[i]);
    free(c);
}

json_t *chain_json(const Chain *c) {
    json_t *o = sample_json(&c->sample), *list = o && c->follows > 0 ? json_array() : NULL;
    for (int64_t i = 0; list && i < c->follows; i++) {
        const Follow *f = &c->follow[i];
        json_t *ids = json_array();
        for (int64_t k = 0; k < f->n; k++) json_array_append_new(ids, json_integer(f->ids[k]));
        json_array_append_new(list, json_pack("{s:I, s:b, s:o}", "drop", (json_int_t)f->drop,
                                              "answer", (int)f->answer, "ids", ids));
    }
    if (list) json_object_set_new(o, "follow", list);
    return o;
}

static bool read_follow(Follow *f, const json_t *o, int64_t prompt, int32_t vocab, Err *err) {
    const json_t *ids = json_object_get(o, "ids");
    f->n = (int64_t)json_array_size(ids);
    if (!json_get_i64(o, "drop", &f->drop, err) || !json_get_bool(o, "answer", &f->answer, err))
        return false;
    // what is dropped is a channel that the prompt opened: never more than the first prompt has
    if (f->n < 1 || f->drop < -1 || f->drop >= prompt || (f->answer && f->drop < 0))
        return err_set(err, ERR_INPUT, "drop %lld, %lld ids behind a prompt of %lld",
                       (long long)f->drop, (long long)f->n, (long long)prompt);
    if (!(f->ids = malloc((size_t)f->n * sizeof *f->ids)))
        return err_set(err, ERR_FAILED, "out of memory");
    for (int64_t i = 0; i < f->n; i++) {
        const json_t *v = json_array_get(ids, (size_t)i);
        const json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id >= vocab)
            return err_set(err, ERR_INPUT, "ids[%lld] is %lld, the vocabulary has %d", (long long)i,
                           (long long)id, (int)vocab);
        f->ids[i] = (int32_t)id;
    }
    return true;
}

bool chain_read(Chain *c, const json_t *line, int32_t vocab, const char *where, Err *err) {
    const json_t *list = json_object_get(line, "follow");
    const size_t n = json_array_size(list);
    *c = (Chain){0};
    if (!sample_read(&c->sample, line, vocab, where, err)) return false;
    if (n == 0) return true;
    bool ok = (c->follow = calloc(n, sizeof *c->follow)) != NULL;
    if (!ok) err_set(err, ERR_FAILED, "out of memory");
    if (ok && c->sample.prompt != c->sample.n)
        ok = err_set(err, ERR_INPUT, "answered, and more to ask");
    for (size_t i = 0; i < n && ok; i++) {
        c->follows = (int64_t)i + 1;
        ok = read_follow(&c->follow[i], json_array_get(list, i), c->sample.n, vocab, err);
    }
    if (ok) return true;
    chain_free(c);
    return err_wrap(err, "%s: \"follow\"", where);
}

bool chains_load(const char *path, int32_t vocab, Chain **out, int64_t *n, Err *err) {
    int64_t room = 0;
    CorpusLine line;
    CorpusStep step;
    *out = NULL;
    *n = 0;
    Corpus *c = corpus_open(path, err);
    if (!c) return false;
    while ((step = corpus_next(c, &line, err)) == CORPUS_LINE) {
        if (*n == room) {
            room = room ? 2 * room : 256;
            Chain *more = realloc(*out, (size_t)room * sizeof **out);
            if (!more) {
                err_set(err, ERR_FAILED, "%s: out of memory", path);
                goto fail;
            }
            *out = more;
        }
        if (!chain_read(&(*out)[*n], line.value, vocab, line.where, err)) goto fail;
        ++*n;
    }
    if (step != CORPUS_END) goto fail;
    corpus_close(c);
    return true;
fail:
    corpus_close(c);
    chains_free(*out, *n);
    *out = NULL;
    *n = 0;
    return false;
}

// What a server would show of the answer in the next turn's history.
static void add_visible(Ids *ids, const Sample *s, const Tokenizer *tok) {
    size_t size, kept;
    char *text =
        tokenizer_decode(tok, s->ids + s->prompt, (size_t)(s->n - s->prompt - 1), false, &size);
    char *seen = chat_visible(text, size, &kept);
    tokenizer_encode(tok, seen, kept, false, ids);
    free(seen);
    free(text);
}

static bool can_go_on(const Follow *f, const Sample *s) {
    if (f->drop > s->prompt) return false;
    if (!f->answer) return true;
    if (!s->stopped || s->n == s->prompt || s->ids[s->n - 1] != f->ids[0]) return false;
    for (int64_t i = s->prompt; i < s->n; i++)
        if (s->kind[i] == TOKEN_CALL) return false; // it waits for a response that nobody has
    return true;
}

bool chain_next(Sample *next, const Follow *f, const Sample *answered, const Tokenizer *tok) {
    Ids ids = {0};
    *next = (Sample){0};
    if (!can_go_on(f, answered)) return false;
    for (int64_t i = 0; f->drop >= 0 && i < answered->prompt - f->drop; i++)
        ids_push(&ids, answered->ids[i]);
    if (f->answer) add_visible(&ids, answered, tok);
    for (int64_t i = 0; i < f->n; i++) ids_push(&ids, f->ids[i]);
    *next = *answered;
    next->ids = ids.id;
    next->n = next->prompt = (int64_t)ids.n;
    next->kind = calloc(ids.n, 1);
    CHECK_MEMORY(next->kind);
    next->stopped = false;
    next->min_margin = -1;
    next->sampler[0] = '\0';
    return true;
}

bool sample_extend(Sample *s, const Sample *more) {
    if (more->prompt < s->n || memcmp(more->ids, s->ids, (size_t)s->n * sizeof *s->ids) != 0)
        return false;
    int32_t *ids = realloc(s->ids, (size_t)more->n * sizeof *ids);
    if (ids) s->ids = ids;
    uint8_t *kind = realloc(s->kind, (size_t)more->n);
    if (kind) s->kind = kind;
    CHECK_MEMORY(ids && kind ? ids : NULL);
    memcpy(s->ids + s->n, more->ids + s->n, (size_t)(more->n - s->n) * sizeof *ids);
    memcpy(s->kind + s->n, more->kind + s->n, (size_t)(more->n - s->n));
    if (more->min_margin < s->min_margin || s->min_margin < 0) s->min_margin = more->min_margin;
    s->n = more->n;
    s->prompt = more->prompt;
    s->stopped = more->stopped;
    return true;
}
