// data/prepare_show.c - samples as people read them: text in spans of one kind, what is learned
// from marked.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/prepare.h"
#include "infer/base/json.h"

typedef struct {
    const Tokenizer *tok;
    int64_t left;
} Show;

static void print_ids(const Tokenizer *t, const int32_t *ids, int64_t n) {
    size_t size;
    char *text = tokenizer_decode(t, ids, (size_t)n, false, &size);
    CHECK_MEMORY(text);
    fwrite(text, 1, size, stdout);
    if (size == 0 || text[size - 1] != '\n') putchar('\n');
    free(text);
}

// Spans of one kind each: learned from is everything but context.
static void print_spans(const Tokenizer *t, const Sample *s) {
    for (int64_t from = 0, i = 1; i <= s->n; i++) {
        if (i < s->n && s->kind[i] == s->kind[from]) continue;
        const bool learned = s->kind[from] >= TOKEN_MODEL;
        printf("%s %s, %lld tokens\n", learned ? "+++" : "---",
               token_kind_name((TokenKind)s->kind[from]), (long long)(i - from));
        print_ids(t, s->ids + from, i - from);
        from = i;
    }
}

static void print_chain(const Tokenizer *t, const Chain *c) {
    static const char open[] = "??? the target's answer";
    const Sample *s = &c->sample;
    int64_t supervised = 0;
    for (int64_t i = 0; i < s->n; i++) supervised += s->kind[i] >= TOKEN_MODEL;
    printf("=== %s  category %s  source %s  %lld tokens, %lld supervised\n", s->id,
           s->category[0] ? s->category : "-", s->source, (long long)s->n, (long long)supervised);
    print_spans(t, s);
    if (s->prompt < s->n) return;
    puts(open);
    for (int64_t i = 0; i < c->follows; i++) {
        const Follow *f = &c->follow[i];
        printf("--- then %s, %lld tokens\n",
               f->answer     ? "behind what it wrote"
               : f->drop < 0 ? "anew"
                             : "behind the recorded calls",
               (long long)f->n);
        print_ids(t, f->ids, f->n);
        puts(open);
    }
}

static bool show_line(void *ctx, const char *line, size_t size, Err *err) {
    Show *s = ctx;
    Chain c;
    if (s->left == 0) return true;
    json_t *o = json_read_text(line, size, err);
    const bool ok = o && chain_read(&c, o, tokenizer_vocab(s->tok), "sample", err);
    json_decref(o);
    if (!ok) return false;
    print_chain(s->tok, &c);
    chain_free(&c);
    s->left--;
    return true;
}

bool prepared_show(Prepared *p, const Tokenizer *tok, int64_t n, Err *err) {
    Show s = {.tok = tok, .left = n};
    for (int split = 0; split < SPLIT_COUNT && s.left > 0; split++)
        if (!prepared_lines(p, (Split)split, show_line, &s, err)) return false;
    return true;
}
