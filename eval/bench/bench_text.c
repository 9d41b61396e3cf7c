// eval/bench/bench_text.c - one text, both tokenizers, the same run.
#include "eval/bench/bench_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/corpus.h"
#include "data/peer.h"
#include "infer/base/file.h"
#include "infer/base/log.h"
#include "infer/text/tokenizer.h"

enum { TEXT_BYTES = 10000000 };

typedef struct {
    char *data;
    size_t n;
} Text;

static void add(Text *t, const char *s, size_t n) {
    if (n > TEXT_BYTES - t->n) n = TEXT_BYTES - t->n;
    memcpy(t->data + t->n, s, n);
    t->n += n;
    if (t->n < TEXT_BYTES) t->data[t->n++] = '\n';
}

static void add_strings(Text *t, const json_t *v) {
    size_t i;
    const char *key;
    json_t *item;
    if (json_is_string(v) && json_string_length(v) > 24) // short ones are names and roles
        add(t, json_string_value(v), json_string_length(v));
    json_array_foreach(v, i, item) add_strings(t, item);
    json_object_foreach((json_t *)v, key, item) add_strings(t, item);
}

static bool gather(Text *t, const StrList *files, Err *err) {
    for (int i = 0; i < files->n; i++) {
        Corpus *c = corpus_open(files->item[i], err);
        if (c == NULL) return false;
        CorpusLine line;
        int got = 1;
        while (t->n < TEXT_BYTES && (got = corpus_next(c, &line, err)) == 1)
            add_strings(t, line.value);
        corpus_close(c);
        if (got < 0) return false;
    }
    if (t->n == 0) return err_set(err, ERR_INPUT, "bench.text: %d files without text", files->n);
    const size_t once = t->n;
    while (t->n < TEXT_BYTES) add(t, t->data, once);
    while (t->n > 0 && ((unsigned char)t->data[t->n - 1] & 0x80)) t->n--; // no scalar cut in half
    return true;
}

static double encode(const Tokenizer *tok, const Text *t, size_t *ids) {
    Ids out = {0};
    const double begin = now_s();
    tokenizer_encode(tok, t->data, t->n, true, &out);
    const double s = now_s() - begin;
    *ids = out.n;
    ids_free(&out);
    return s;
}

static bool peer(const Settings *s, const char *path, const Text *t, double *seconds, Err *err) {
    char text[] = "/tmp/draftsmith-bench-XXXXXX", args[2 * PATH_ROOM];
    const char *const field = "seconds";
    const int fd = mkstemp(text);
    if (fd < 0) return err_errno(err, "temporary file %s", text);
    close(fd);
    snprintf(args, sizeof args, "'%s' '%s' '%s'", s->bench.peer_tokenizer, path, text);
    const bool ok =
        file_write(text, t->data, t->n, err) && peer_call(s, args, &field, 1, seconds, err);
    unlink(text);
    return ok;
}

bool bench_text(const Settings *s, Err *err) {
    char path[PATH_ROOM];
    Text t = {.data = malloc(TEXT_BYTES)};
    if (t.data == NULL)
        return err_set(err, ERR_FAILED, "out of memory for %d bytes of text", TEXT_BYTES);
    if (*s->bench.tokenizer)
        snprintf(path, sizeof path, "%s", s->bench.tokenizer);
    else
        path_join(path, s->model.target_path, "tokenizer.json");
    Tokenizer *tok = NULL;
    bool ok = gather(&t, &s->bench.text, err) && (tok = tokenizer_load(path, err)) != NULL;
    if (ok) {
        size_t ids = 0;
        double best = INFINITY;
        for (int i = 0; i < 3; i++) best = fmin(best, encode(tok, &t, &ids));
        printf("encode   %zu bytes, %zu tokens, one thread   %9.1f ms   %8.1f MB/s", t.n, ids,
               1e3 * best, (double)t.n / best / 1e6);
        double other = 0.0;
        if (s->bench.peers && (ok = peer(s, path, &t, &other, err)))
            printf("   peer %.1f ms: %.2fx", 1e3 * other, other / best);
        printf("\n");
        fflush(stdout);
    }
    tokenizer_free(tok);
    free(t.data);
    return ok;
}
