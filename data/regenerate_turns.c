// data/regenerate_turns.c - rounds of answers, threaded to conversations.
#include "data/regenerate_turns.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/hash.h"
#include "infer/base/log.h"
#include "infer/base/world.h"

// One branch of a conversation: several when the first prompt is answered more than once.
typedef struct {
    const Chain *chain;
    int32_t number; // of the first answer
    Sample *turn;   // answered so far
    int turns;
    bool ended;
} Thread;

typedef struct {
    Target *target;
    const RegenerateOptions *opt;
    const char *out;
    int32_t vocab;
    Thread *thread; // in the order of the conversations
    int64_t n, room;
    RegenerateCount *count;
} Rounds;

static void add_turn(Thread *t, Sample s) {
    t->turn = realloc(t->turn, (size_t)(t->turns + 1) * sizeof *t->turn);
    CHECK_MEMORY(t->turn);
    t->turn[t->turns++] = s;
}

static Thread *add_thread(Rounds *r, const Chain *c, int32_t number) {
    if (r->n == r->room) {
        r->room = 2 * r->room + 256;
        r->thread = realloc(r->thread, (size_t)r->room * sizeof *r->thread);
        CHECK_MEMORY(r->thread);
    }
    r->thread[r->n] = (Thread){.chain = c, .number = number};
    return &r->thread[r->n++];
}

// The file of a round: named after what its answers depend on, so that it serves no other settings.
static void round_path(const Rounds *r, int turn, char out[PATH_ROOM]) {
    const char *what = r->opt->identity;
    const int used = snprintf(out, PATH_ROOM, "%s.turn-%d-%016llx", r->out, turn,
                              (unsigned long long)xxh3_64(what, strlen(what)));
    CHECK(used > 0 && used < PATH_ROOM);
}

// Rounds, or the journal of single turns, that are not this run's: refused, or dropped when told.
static bool clear_others(const Rounds *r, bool in_rounds, Err *err) {
    char folder[PATH_ROOM], path[PATH_ROOM], own[PATH_ROOM];
    const char *base = path_base(r->out);
    const size_t stem = strlen(base);
    int n;
    round_path(r, 0, own);
    const char *mine = strrchr(own, '-');
    char **name = dir_list(path_folder(folder, r->out), &n, err);
    bool ok = name != NULL;
    for (int i = 0; i < n && ok; i++) {
        const char *rest = name[i] + stem;
        if (strncmp(name[i], base, stem) != 0) continue;
        const bool round = !strncmp(rest, ".turn-", 6), single = !strcmp(rest, ".journal");
        if (in_rounds ? !single && (!round || strstr(rest, mine)) : !round) continue;
        path_join(path, folder, name[i]);
        if (!r->opt->anew)
            ok = err_set(err, ERR_USAGE,
                         "%s: answers of other settings or prompts (--overwrite, or removing the "
                         "file, drops them)",
                         path);
        else if (unlink(path) != 0)
            ok = err_errno(err, "cannot remove %s", path);
    }
    if (name) dir_list_free(name, n);
    return ok;
}

// Answers of one round, made or found; in the order of the prompts.
static bool answer_round(Rounds *r, int turn, const Sample *prompt, int64_t n, Sample **answer,
                         int64_t *answers, Err *err) {
    char path[PATH_ROOM], identity[4096];
    RegenerateCount count = {0};
    RegenerateOptions opt = *r->opt;
    round_path(r, turn, path);
    if (turn > 0) {
        snprintf(identity, sizeof identity, "%s, turn %d", r->opt->identity, turn);
        opt.identity = identity;
        opt.samples = 1;
        opt.generate.sampler.seed += (uint64_t)turn * 0x9e3779b97f4a7c15u;
    }
    bool made = file_exists(path); // as rank 0 sees it
    if (!world_share(&made, sizeof made, err)) return false;
    if (!made && !regenerate(r->target, prompt, n, &opt, path, &count, err)) return false;
    r->count->resumed += count.resumed;
    r->count->seconds += count.seconds;
    r->count->made += count.made;
    acceptance_merge(&r->count->drafts, &count.drafts);
    return world_agree(samples_load(path, r->vocab, answer, answers, err), err);
}

static bool answers_to(const Sample *prompt, const Sample *a) {
    const int64_t given = prompt->prompt;
    return !strcmp(prompt->id, a->id) && a->prompt == given && a->n > given &&
           !memcmp(prompt->ids, a->ids, (size_t)given * sizeof *a->ids);
}

static bool unexpected(const Rounds *r, const Sample *a, Err *err) {
    char path[PATH_ROOM];
    round_path(r, 0, path);
    return err_set(err, ERR_INPUT, "%s: an answer to %s that was not asked for", path, a->id);
}

// The first turns: answers, given ones among them, become threads.
static bool first_round(Rounds *r, const Chain *chain, int64_t n, Err *err) {
    Sample *prompt = malloc((size_t)(n + 1) * sizeof *prompt), *answer = NULL;
    int64_t answers = 0, at = 0;
    CHECK_MEMORY(prompt);
    for (int64_t i = 0; i < n; i++) prompt[i] = chain[i].sample; // borrowed
    bool ok = answer_round(r, 0, prompt, n, &answer, &answers, err);
    for (int64_t i = 0; i < n && ok; i++) {
        const bool given = prompt[i].prompt < prompt[i].n;
        const int64_t wanted = given ? 1 : r->opt->samples;
        int64_t got = 0;
        for (; got < wanted && at < answers && answers_to(&prompt[i], &answer[at]); got++, at++) {
            regenerate_account(r->count, &answer[at]);
            add_turn(add_thread(r, &chain[i], answer[at].sample), answer[at]);
            answer[at] = (Sample){0}; // the thread's
        }
        r->count->given += given;
        r->count->empty += wanted - got;
    }
    if (ok && at < answers) ok = unexpected(r, &answer[at], err);
    samples_free(answer, answers);
    free(prompt);
    return ok;
}

// The open prompts of a turn: thread[asked[i]] goes on with prompt[i].
static int64_t next_prompts(Rounds *r, int turn, Sample *prompt, int64_t *asked) {
    int64_t n = 0;
    for (int64_t i = 0; i < r->n; i++) {
        Thread *t = &r->thread[i];
        if (t->ended || t->chain->follows < turn) continue;
        Sample *p = &prompt[n];
        t->ended =
            !chain_next(p, &t->chain->follow[turn - 1], &t->turn[turn - 1], r->opt->tokenizer);
        if (t->ended) continue;
        if (t->number > 0) // branches draw apart: randomness goes by the name
            snprintf(p->id, sizeof p->id, "%.100s~%d", t->turn[0].id, (int)t->number);
        p->sample = 0;
        asked[n++] = i;
    }
    return n;
}

static bool next_round(Rounds *r, int turn, int64_t *open, Err *err) {
    Sample *prompt = malloc((size_t)(r->n + 1) * sizeof *prompt), *answer = NULL;
    int64_t *asked = malloc((size_t)(r->n + 1) * sizeof *asked), answers = 0, at = 0;
    CHECK_MEMORY(prompt && asked ? prompt : NULL);
    const int64_t n = *open = next_prompts(r, turn, prompt, asked);
    bool ok = n == 0 || answer_round(r, turn, prompt, n, &answer, &answers, err);
    for (int64_t i = 0; i < n && ok; i++) {
        Thread *t = &r->thread[asked[i]];
        t->ended = at == answers || !answers_to(&prompt[i], &answer[at]);
        r->count->empty += t->ended;
        if (t->ended) continue;
        strcpy(answer[at].id, t->turn[0].id);
        answer[at].sample = t->number;
        regenerate_account(r->count, &answer[at]);
        add_turn(t, answer[at]);
        answer[at++] = (Sample){0};
    }
    if (ok && at < answers) ok = unexpected(r, &answer[at], err);
    for (int64_t i = 0; i < n; i++) sample_free(&prompt[i]);
    samples_free(answer, answers);
    free(asked);
    free(prompt);
    return ok;
}

static bool write_threads(Rounds *r, bool join, Err *err) {
    OutFile f;
    if (!out_open(&f, r->out, err)) return false;
    for (int64_t i = 0; i < r->n; i++) {
        Thread *t = &r->thread[i];
        for (int k = 0; k < t->turns; k++) {
            Sample *s = &t->turn[k];
            while (join && k + 1 < t->turns && sample_extend(s, &t->turn[k + 1])) k++;
            sample_write(&f, s);
        }
    }
    return out_commit(&f, err);
}

static void remove_rounds(const Rounds *r, int rounds) {
    char path[PATH_ROOM];
    for (int turn = 0; turn < rounds; turn++) {
        round_path(r, turn, path);
        unlink(path);
    }
}

static bool one_turn_each(Target *t, const Chain *chain, int64_t n, const RegenerateOptions *opt,
                          const char *out, RegenerateCount *count, Err *err) {
    Sample *prompt = malloc((size_t)(n + 1) * sizeof *prompt);
    CHECK_MEMORY(prompt);
    for (int64_t i = 0; i < n; i++) prompt[i] = chain[i].sample; // borrowed
    const bool ok = regenerate(t, prompt, n, opt, out, count, err);
    free(prompt);
    return ok;
}

bool regenerate_turns(Target *t, const Chain *chain, int64_t n, const RegenerateOptions *opt,
                      bool join, const char *out, RegenerateCount *count, Err *err) {
    int64_t most = 0, open = 1;
    for (int64_t i = 0; i < n; i++)
        if (chain[i].follows > most) most = chain[i].follows;
    *count = (RegenerateCount){.prompts = n};
    Rounds r = {.target = t,
                .opt = opt,
                .out = out,
                .vocab = (int32_t)target_config(t)->text.vocab,
                .count = count};
    const bool first = world_rank() == 0;
    if (!world_agree(!first || clear_others(&r, most > 0, err), err)) return false;
    if (most == 0) return one_turn_each(t, chain, n, opt, out, count, err);
    bool ok = first_round(&r, chain, n, err);
    int turn = 1;
    for (; turn <= most && ok && open > 0; turn++) ok = next_round(&r, turn, &open, err);
    ok = ok && world_agree(!first || write_threads(&r, join, err), err);
    if (ok && first) remove_rounds(&r, turn);
    for (int64_t i = 0; i < r.n; i++) {
        for (int k = 0; k < r.thread[i].turns; k++) sample_free(&r.thread[i].turn[k]);
        free(r.thread[i].turn);
    }
    free(r.thread);
    return ok;
}
