// data/prepare_item.c - turns joined into samples, or chained into prompts that wait for answers.
#include "data/prepare_item.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/hash.h"
#include "infer/base/utf8.h"

PrepareTools prepare_tools(const Settings *s, const Tokenizer *tokenizer, ChatTemplate chat) {
    const Thinking thinking = !strcmp(s->data.thinking, "on")    ? THINKING_ON
                              : !strcmp(s->data.thinking, "off") ? THINKING_OFF
                                                                 : THINKING_AUTO;
    return (PrepareTools){.tokenizer = tokenizer,
                          .chat_template = chat,
                          .every_turn = !strcmp(s->data.turns, "every"),
                          .thinking = thinking,
                          .row = {.prompt_key = s->data.prompt_key,
                                  .completion_key = s->data.completion_key,
                                  .drop_reasoning = thinking == THINKING_OFF},
                          .max_length = s->data.max_length,
                          .max_bytes = (size_t)s->data.max_length * tokenizer_longest(tokenizer)};
}

void item_free(Item *i) {
    chains_free(i->chain, i->n);
    *i = (Item){0};
}

bool item_hashes(Hashes *h, Dialogue *d, Err *err) {
    Turn t = {0};
    int rc;
    while ((rc = dialogue_next(d, &t, false, err)) > 0) {
        if (h->n == h->room) {
            h->room = 2 * h->room + 8;
            h->at = realloc(h->at, (size_t)h->room * sizeof *h->at);
            CHECK_MEMORY(h->at);
        }
        h->at[h->n++] = xxh3_64(t.prompt.id, t.prompt.n * sizeof(int32_t));
    }
    turn_free(&t);
    return rc == 0;
}

// Prompt and answer of a turn as a sample; the prompt is context whatever stands in it.
static Sample sample_of(const Turn *t, const Tokenizer *tok, const Sample *like) {
    const size_t n = t->prompt.n + t->answer.n;
    Sample s = *like;
    s.ids = malloc(n * sizeof *s.ids);
    s.kind = calloc(n, 1);
    CHECK_MEMORY(s.ids && s.kind ? s.ids : NULL);
    memcpy(s.ids, t->prompt.id, t->prompt.n * sizeof *s.ids);
    s.n = (int64_t)n;
    s.prompt = (int64_t)t->prompt.n;
    s.min_margin = -1;
    if (t->answer.n == 0) return s;
    memcpy(s.ids + s.prompt, t->answer.id, t->answer.n * sizeof *s.ids);
    memcpy(s.kind + s.prompt, t->kind, t->answer.n);
    const int32_t last = s.ids[s.n - 1];
    s.stopped =
        last == tokenizer_id(tok, "<turn|>") || last == tokenizer_id(tok, "<|tool_response>");
    strcpy(s.sampler, "reference");
    return s;
}

static Chain *add(Item *out, Sample s) {
    if (out->n == out->room) {
        out->room = 2 * out->room + 2;
        out->chain = realloc(out->chain, (size_t)out->room * sizeof *out->chain);
        CHECK_MEMORY(out->chain);
    }
    out->chain[out->n] = (Chain){.sample = s};
    return &out->chain[out->n++];
}

bool item_given(Item *out, Dialogue *d, const Sample *like, Err *err) {
    Turn t = {0};
    int rc;
    *out = (Item){0};
    while ((rc = dialogue_next(d, &t, true, err)) > 0) {
        Sample s = sample_of(&t, d->with->tokenizer, like), *last;
        last = out->n > 0 ? &out->chain[out->n - 1].sample : NULL;
        if (last && s.prompt < s.n && sample_extend(last, &s))
            sample_free(&s);
        else
            add(out, s);
    }
    turn_free(&t);
    out->left_out = d->left_out;
    if (rc < 0) item_free(out);
    return rc == 0;
}

static size_t turn_end(const Ids *ids, size_t from, int32_t stop) {
    while (from < ids->n && ids->id[from] != stop) from++;
    return from;
}

// What is asked at t when the turn before it has been answered.
static Follow follow_of(const Turn *before, const Turn *t, const Tokenizer *tok) {
    const size_t keep = before->keep;
    const bool extends =
        t->prompt.n > keep && !memcmp(t->prompt.id, before->prompt.id, keep * sizeof(int32_t));
    size_t from = 0;
    Follow f = {.drop = -1};
    if (extends) {
        const size_t end = turn_end(&t->prompt, keep, tokenizer_id(tok, "<turn|>"));
        f.answer = !before->called && end < t->prompt.n;
        from = f.answer ? end : before->called ? keep : 0;
        if (f.answer || before->called) f.drop = (int64_t)(before->prompt.n - keep);
    }
    f.n = (int64_t)(t->prompt.n - from);
    f.ids = malloc((size_t)f.n * sizeof *f.ids);
    CHECK_MEMORY(f.ids);
    memcpy(f.ids, t->prompt.id + from, (size_t)f.n * sizeof *f.ids);
    return f;
}

bool item_open(Item *out, Dialogue *d, const Sample *like, Err *err) {
    Turn t = {0}, before = {0};
    Chain *c = NULL;
    int rc;
    *out = (Item){0};
    while ((rc = dialogue_next(d, &t, false, err)) > 0) {
        if (!c) {
            c = add(out, sample_of(&t, d->with->tokenizer, like));
        } else {
            c->follow = realloc(c->follow, (size_t)(c->follows + 1) * sizeof *c->follow);
            CHECK_MEMORY(c->follow);
            c->follow[c->follows++] = follow_of(&before, &t, d->with->tokenizer);
        }
        turn_free(&before);
        before = t;
        t = (Turn){0};
    }
    turn_free(&t);
    turn_free(&before);
    out->left_out = d->left_out;
    if (rc < 0) item_free(out);
    return rc == 0;
}

static bool last_turn(Sample *out, uint64_t *hash, const Row *row, const PrepareTools *with,
                      bool keep_answer, Err *err) {
    Dialogue d;
    Hashes h = {0};
    Item item = {0};
    const Sample like = *out;
    if (dialogue_open(&d, row, with, err) != ROW_READ) return false;
    bool ok = item_hashes(&h, &d, err);
    if (ok && h.n == 0)
        ok = err_set(err, ERR_INPUT, "longer than %lld tokens", (long long)with->max_length);
    if (ok) {
        *hash = h.at[row->unanswered ? 0 : h.n - 1];
        dialogue_rewind(&d);
        ok = keep_answer && !row->unanswered ? item_given(&item, &d, &like, err)
                                             : item_open(&item, &d, &like, err);
        if (ok && item.n == 0)
            ok = err_set(err, ERR_INPUT, "longer than %lld tokens", (long long)with->max_length);
    }
    if (ok) {
        *out = item.chain[0].sample;
        item.chain[0].sample = (Sample){0};
    }
    item_free(&item);
    free(h.at);
    dialogue_close(&d);
    return ok;
}

bool prepare_item(Sample *out, uint64_t *hash, const CorpusLine *line, const char *source,
                  const PrepareTools *tools, bool keep_answer, Err *err) {
    Row row;
    PrepareTools with = *tools;
    with.every_turn = false;
    *out = (Sample){.min_margin = -1};
    bool ok = row_read(&row, line, &with.row, err) == ROW_READ;
    utf8_fit(out->source, sizeof out->source, source);
    strcpy(out->id, row.id);
    strcpy(out->category, row.category);
    ok = ok && last_turn(out, hash, &row, &with, keep_answer, err);
    row_free(&row);
    return ok;
}
