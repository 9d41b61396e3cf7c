// data/prepare.c - reads every input, keeps train, dev and eval apart by the hash of the prompt,
// and accounts for every item.
#include "data/prepare.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/base/rng.h"
#include "infer/base/utf8.h"
#include "infer/text/chat_unused.h"

enum {
    ANSWER_ROOM = 2,   // tokens that a prompt must leave: an answer of one token teaches nothing
    UNUSED_KINDS = 32, // told apart
};

// Prompt hashes seen, open addressing; 0 stands for an empty place.
typedef struct {
    uint64_t *at;
    size_t used, room; // room: a power of two
} HashSet;

// false: it was there.
static bool set_add(HashSet *h, uint64_t key) {
    key += key == 0;
    if (2 * (h->used + 1) > h->room) {
        HashSet more = {.room = h->room ? 2 * h->room : 1024};
        more.at = calloc(more.room, sizeof *more.at);
        CHECK_MEMORY(more.at);
        for (size_t i = 0; i < h->room; i++)
            if (h->at[i]) set_add(&more, h->at[i]);
        free(h->at);
        *h = more;
    }
    size_t i = key & (h->room - 1);
    for (; h->at[i]; i = (i + 1) & (h->room - 1))
        if (h->at[i] == key) return false;
    h->at[i] = key;
    h->used++;
    return true;
}

static bool set_has(const HashSet *h, uint64_t key) {
    key += key == 0;
    for (size_t i = key & (h->room - 1); h->room && h->at[i]; i = (i + 1) & (h->room - 1))
        if (h->at[i] == key) return true;
    return false;
}

typedef struct {
    Prepared *p;
    const Settings *s;
    const PrepareTools *tools;
    HashSet eval, train;
} Job;

static void reject(Job *j, const char *where, const char *id, const char *why) {
    char said[512]; // a message may have been cut within a character
    json_t *o = json_pack("{s:s, s:s, s:s}", "where", where, "id", id, "why",
                          utf8_fit(said, sizeof said, why));
    CHECK(o != NULL, "(rejected %s: %s)", where, said);
    json_array_append_new(j->p->rejected, o);
}

static bool keep(Job *j, Split split, const Sample *s, Err *err) {
    if (j->p->split[split].n == j->p->split[split].room) {
        const int64_t room = j->p->split[split].room ? 2 * j->p->split[split].room : 256;
        Sample *more = realloc(j->p->split[split].sample, (size_t)room * sizeof *more);
        if (!more) return err_set(err, ERR_FAILED, "out of memory");
        j->p->split[split].sample = more;
        j->p->split[split].room = room;
    }
    j->p->split[split].sample[j->p->split[split].n++] = *s;
    return true;
}

static Split split_of(const Settings *s, uint64_t hash) {
    const double u = (double)(hash >> 11) / 9007199254740992.0;
    return u < s->data.dev_fraction ? SPLIT_DEV : SPLIT_TRAIN;
}

// Places one item, or says why it is left out; takes the sample over.
static bool place(Job *j, bool held_out, Sample *s, uint64_t hash, const char *where, Err *err) {
    PrepareCount *count = held_out ? &j->p->eval : &j->p->train;
    const int64_t least = s->prompt == s->n ? s->n + ANSWER_ROOM : s->n,
                  most = j->s->data.max_length;
    char why[128] = "";
    if (least > most) {
        count->too_long++;
        snprintf(why, sizeof why, "%lld tokens, data.max_length is %lld", (long long)least,
                 (long long)most);
    } else if (!held_out && set_has(&j->eval, hash)) {
        count->in_eval++;
        snprintf(why, sizeof why, "the prompt is in data.eval");
    } else if (!set_add(held_out ? &j->eval : &j->train, hash)) {
        count->duplicate++;
        snprintf(why, sizeof why, "the prompt came before");
    }
    if (why[0]) {
        reject(j, where, s->id, why);
        sample_free(s);
        return true;
    }
    return keep(j, held_out ? SPLIT_EVAL : split_of(j->s, hash), s, err);
}

// Dev is measured by the simulator, which is exact on the target's own text only.
static void drop_answer(Sample *s) {
    memset(s->kind, TOKEN_CONTEXT, (size_t)s->n);
    s->n = s->prompt;
    s->stopped = false;
    s->sampler[0] = 0;
}

typedef struct {
    json_t *seen;  // of one conversation
    json_t *count; // over all
} Unused;

static void note_unused(void *ctx, const char *what) {
    const Unused *u = ctx;
    if (json_object_get(u->seen, what) != NULL || json_object_size(u->count) >= UNUSED_KINDS)
        return;
    json_object_set_new(u->seen, what, json_true());
    const json_int_t n = json_integer_value(json_object_get(u->count, what));
    json_object_set_new(u->count, what, json_integer(n + 1));
}

// What of a taken conversation will not be seen by any model.
static void look_for_unused(const Job *j, PrepareCount *count, const json_t *messages,
                            bool answer_used) {
    const bool drop = ends_with_answer(messages) && !answer_used;
    json_t *used = json_copy((json_t *)messages);
    Unused u = {json_object(), count->unused};
    if (drop) json_array_remove(used, json_array_size(used) - 1);
    count->answers += drop;
    chat_unused(used, j->tools->chat_template, note_unused, &u);
    json_decref(u.seen);
    json_decref(used);
}

static void tell_unused(const PrepareCount *count, const char *what) {
    const char *key;
    json_t *n;
    json_object_foreach(count->unused, key, n)
        log_warn("%s: the template leaves out of %lld conversations: %s", what,
                 (long long)json_integer_value(n), key);
    if (count->answers > 0)
        log_info("%s: %lld given answers are not used, the target answers itself", what,
                 (long long)count->answers);
}

static bool read_input(Job *j, const char *path, bool held_out, Err *err) {
    PrepareCount *count = held_out ? &j->p->eval : &j->p->train;
    const bool reference = !held_out && !strcmp(j->s->regenerate.answers, "reference");
    Corpus *c = corpus_open(path, err);
    CorpusLine line;
    int64_t n = 0;
    int rc = c ? 0 : -1;
    while (c && (rc = corpus_next(c, &line, err)) > 0) {
        Sample s;
        uint64_t hash;
        Err why = {0};
        n++;
        count->in++;
        if (prepare_item(&s, &hash, &line, path_base(path), j->tools, reference, &why)) {
            const bool dev = split_of(j->s, hash) == SPLIT_DEV;
            look_for_unused(j, count, json_object_get(line.value, "messages"), reference && !dev);
            if (dev) drop_answer(&s);
            if (!place(j, held_out, &s, hash, line.where, err)) rc = -1;
        } else if (why.code == ERR_INPUT) {
            if (count->failed++ == 0) log_warn("%s: %s", line.where, why.text);
            reject(j, line.where, s.id, why.text);
        } else {
            *err = why;
            rc = -1;
        }
        if (rc < 0) break;
    }
    if (c && corpus_skipped(c) > 0)
        log_warn("%s: %lld members that are links or devices are not read", path,
                 (long long)corpus_skipped(c));
    corpus_close(c);
    if (rc < 0) return false;
    return n > 0 || err_set(err, ERR_INPUT, "%s: no prompts in it", path);
}

// A seeded order, so that later stages read sequentially; prompts beyond the limit go.
static bool shuffle(Job *j, Split split, int64_t limit, Err *err) {
    const int64_t n = j->p->split[split].n, kept = limit > 0 && limit < n ? limit : n;
    Sample *from = j->p->split[split].sample, *to = malloc((size_t)(n + 1) * sizeof *to);
    int64_t *perm = malloc((size_t)(n + 1) * sizeof *perm);
    PrepareCount *count = split == SPLIT_EVAL ? &j->p->eval : &j->p->train;
    if (!to || !perm) {
        free(to);
        free(perm);
        return err_set(err, ERR_FAILED, "out of memory");
    }
    rng_permutation((uint64_t)j->s->data.seed, RNG_SHUFFLE, (uint64_t)split, perm, n);
    j->p->split[split].tokens = 0;
    for (int64_t i = 0; i < n; i++) {
        Sample *s = &from[perm[i]];
        if (i < kept) {
            to[i] = *s;
            j->p->split[split].tokens += s->n;
            continue;
        }
        reject(j, s->source, s->id, "beyond the number of prompts wanted");
        sample_free(s);
    }
    count->over_limit += n - kept;
    count->out += kept;
    free(from);
    free(perm);
    j->p->split[split].sample = to;
    j->p->split[split].n = kept;
    j->p->split[split].room = n + 1;
    return true;
}

static bool nothing_left(const Prepared *p, const PrepareCount *c, const char *what, Err *err) {
    const json_t *why = json_array_get(p->rejected, 0);
    return err_set(err, ERR_INPUT, "none of the %lld prompts of %s can be used: %.200s: %.300s",
                   (long long)c->in, what, json_string_value(json_object_get(why, "where")),
                   json_string_value(json_object_get(why, "why")));
}

bool prepare_all(Prepared *p, const Settings *s, const PrepareTools *tools, Err *err) {
    Job j = {.p = p, .s = s, .tools = tools};
    *p = (Prepared){
        .rejected = json_array(), .train.unused = json_object(), .eval.unused = json_object()};
    bool ok = s->data.train.n > 0 || s->data.eval.n > 0 ||
              err_set(err, ERR_USAGE, "data.train and data.eval name no files");
    for (int i = 0; i < s->data.eval.n && ok; i++)
        ok = read_input(&j, s->data.eval.item[i], true, err);
    if (ok && s->data.eval.n > 0 && p->split[SPLIT_EVAL].n == 0)
        ok = nothing_left(p, &p->eval, "data.eval", err);
    for (int i = 0; i < s->data.train.n && ok; i++)
        ok = read_input(&j, s->data.train.item[i], false, err);
    if (ok && s->data.train.n > 0 && p->split[SPLIT_TRAIN].n == 0)
        ok = nothing_left(p, &p->train, "data.train", err);
    ok = ok && shuffle(&j, SPLIT_TRAIN, s->data.max_samples, err) &&
         shuffle(&j, SPLIT_DEV, s->data.dev_samples, err) &&
         shuffle(&j, SPLIT_EVAL, s->data.eval_samples, err);
    free(j.eval.at);
    free(j.train.at);
    if (ok) tell_unused(&p->train, "data.train");
    if (ok) tell_unused(&p->eval, "data.eval");
    if (!ok) prepared_free(p);
    return ok;
}

void prepared_free(Prepared *p) {
    for (int i = 0; i < SPLIT_COUNT; i++) samples_free(p->split[i].sample, p->split[i].n);
    json_decref(p->rejected);
    json_decref(p->train.unused);
    json_decref(p->eval.unused);
    *p = (Prepared){0};
}

static json_t *count_json(const PrepareCount *c) {
    const int64_t skipped = c->too_long + c->in_eval + c->duplicate + c->over_limit;
    CHECK(c->in == c->out + skipped + c->failed, "(%lld items in)", (long long)c->in);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:O}", "in", (json_int_t)c->in,
                     "out", (json_int_t)c->out, "skipped", (json_int_t)skipped, "failed",
                     (json_int_t)c->failed, "too_long", (json_int_t)c->too_long, "in_eval",
                     (json_int_t)c->in_eval, "duplicate", (json_int_t)c->duplicate, "over_limit",
                     (json_int_t)c->over_limit, "answers_not_used", (json_int_t)c->answers,
                     "left_out_by_template", c->unused);
}

json_t *prepared_json(const Prepared *p) {
    json_t *splits = json_object();
    for (int i = 0; i < SPLIT_COUNT; i++)
        json_object_set_new(splits, split_name((Split)i),
                            json_pack("{s:I, s:I}", "prompts", (json_int_t)p->split[i].n, "tokens",
                                      (json_int_t)p->split[i].tokens));
    return json_pack("{s:o, s:o, s:o}", "splits", splits, "train", count_json(&p->train), "eval",
                     count_json(&p->eval));
}
