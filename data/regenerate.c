// data/regenerate.c - answers by the target itself, resumable, in the order of the prompts.
#include "data/regenerate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/journal.h"
#include "infer/base/cli.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/base/world.h"
#include "infer/text/chat.h"

typedef struct {
    const Sample *prompt;
    int32_t number;
    Sample answer; // n 0: not there yet
} Job;

typedef struct {
    const RegenerateOptions *opt;
    GenerateOptions generate; // opt's, in no more room than these prompts need
    const Tokenizer *tokenizer;
    char sampler[64];
    int32_t vocab;
    Job *job;
    int64_t jobs, next, group_end; // of the group that this rank makes
    int64_t finished;              // of all ranks at the end of a turn, of this one within it
    RegenerateCount *count;
    Progress progress;
    double started;
    int64_t made; // tokens since started
} Run;

void sampler_name(char out[64], const Sampler *s) {
    if (s->temperature == 0)
        strcpy(out, "greedy");
    else
        snprintf(out, 64, "T=%g,top_k=%lld,top_p=%g", s->temperature, (long long)s->top_k,
                 s->top_p);
}

static bool compose(Run *r, Job *j, const GenerateDone *d, Err *err) {
    const Sample *p = j->prompt;
    Sample *s = &j->answer;
    *s = *p;
    s->n = p->n + d->n;
    s->ids = malloc((size_t)s->n * sizeof *s->ids);
    s->kind = malloc((size_t)s->n);
    if (!s->ids || !s->kind) {
        sample_free(s);
        return err_set(err, ERR_FAILED, "out of memory");
    }
    memcpy(s->ids, p->ids, (size_t)p->n * sizeof *s->ids);
    memcpy(s->kind, p->kind, (size_t)p->n);
    memcpy(s->ids + p->n, d->ids, (size_t)d->n * sizeof *s->ids);
    chat_answer_kinds(r->tokenizer, s->ids, (size_t)p->n, (size_t)s->n, s->kind);
    strcpy(s->sampler, r->sampler);
    s->sample = j->number;
    s->stopped = d->stopped;
    s->min_margin =
        r->opt->generate.sampler.temperature == 0 && isfinite(d->min_margin) ? d->min_margin : -1;
    return true;
}

static bool next_job(void *ctx, GenerateJob *out) {
    Run *r = ctx;
    if (r->next == r->group_end || stop_requested()) return false;
    Job *j = &r->job[r->next++];
    // Randomness by prompt and number alone: an answer does not depend on what else is asked.
    const uint64_t stream =
        xxh3_64(j->prompt->id, strlen(j->prompt->id)) + (uint64_t)j->number * 0x9e3779b97f4a7c15u;
    *out = (GenerateJob){.user = j, .prompt = j->prompt->ids, .n = j->prompt->n, .stream = stream};
    return true;
}

// Tokens of finished answers by the second, since this process began.
static const char *rate(const Run *r, char note[64]) {
    snprintf(note, 64, "%.0f tokens/s", (double)r->made / (now_s() - r->started + 1e-9));
    return note;
}

static bool job_done(void *ctx, const GenerateDone *d, Err *err) {
    Run *r = ctx;
    char note[64];
    if (stop_requested())
        return err_set(err, ERR_STOPPED, "stopped; the next run goes on with the group under way");
    if (!compose(r, d->user, d, err)) return false;
    r->finished++;
    r->made += d->n;
    rounds_count(&r->count->drafts, d->round, d->rounds, ((const Job *)d->user)->prompt->n + d->n);
    progress_at(&r->progress, r->finished, rate(r, note));
    return true;
}

// Lines of the journal that are this run's answers, in order; their number.
static int64_t take_lines(Run *r, const Journal *j, Err *err) {
    int64_t n = 0;
    for (; n < j->n && n < r->jobs; n++) {
        size_t size;
        const char *text = journal_line(j, n, &size);
        Job *job = &r->job[n];
        json_t *line = json_read_text(text, size, err);
        const bool ok = line && sample_read(&job->answer, line, r->vocab, j->path, err);
        json_decref(line);
        if (!ok) return -1;
        const Sample *a = &job->answer, *p = job->prompt;
        if (strcmp(a->id, p->id) != 0 || a->sample != job->number || a->prompt != p->n ||
            a->n < p->n || memcmp(a->ids, p->ids, (size_t)p->n * sizeof *p->ids) != 0) {
            err_set(err, ERR_INPUT, "%s: line %lld answers %s, expected %s", j->path,
                    (long long)n + 2, a->id, p->id);
            return -1;
        }
    }
    const int64_t whole = n == r->jobs ? n : n - n % r->opt->group;
    for (int64_t i = whole; i < n; i++) sample_free(&r->job[i].answer);
    return whole;
}

// Answers first .. end-1, a line each; caller frees.
static char *lines_of(const Run *r, int64_t first, int64_t end) {
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    CHECK_MEMORY(f);
    for (int64_t i = first; i < end; i++) {
        json_t *o = sample_json(&r->job[i].answer);
        char *line = o ? json_dumps(o, JSON_COMPACT) : NULL;
        json_decref(o);
        CHECK(line != NULL, "(sample %s)", r->job[i].answer.id);
        fprintf(f, "%s\n", line);
        free(line);
    }
    CHECK(fclose(f) == 0);
    return text;
}

// A group that another rank has made.
static bool take_group(Run *r, int64_t first, int64_t end, char *text, Err *err) {
    for (int64_t i = first; i < end; i++) {
        char *line = strsep(&text, "\n");
        json_t *o = line ? json_read_text(line, strlen(line), err) : NULL;
        const bool ok = o && sample_read(&r->job[i].answer, o, r->vocab, "another rank", err);
        json_decref(o);
        if (!ok) return false;
        r->made += r->job[i].answer.n - r->job[i].answer.prompt;
    }
    return true;
}

static bool add_group(Journal *j, const char *text, Err *err) {
    char *all = strdup(text), *rest = all;
    CHECK_MEMORY(all);
    bool ok = true;
    for (char *line; ok && (line = strsep(&rest, "\n")) != NULL && *line;)
        ok = journal_add(j, line, err);
    free(all);
    return ok;
}

static int64_t within(const Run *r, int64_t i) {
    return i < r->jobs ? i : r->jobs;
}

// Groups from `base` on, one of each rank: every rank gets the answers of all, rank 0 notes them.
static bool share_groups(Run *r, Journal *j, int64_t base, Err *err) {
    const int N = world_size();
    const int64_t each = r->opt->group;
    char **all = calloc((size_t)N, sizeof *all),
         *mine = lines_of(r, within(r, base + world_rank() * each), r->group_end);
    CHECK_MEMORY(all);
    bool ok = world_texts(mine, all, err), whole = ok;
    for (int g = 0; g < N && whole; g++) {
        const int64_t first = within(r, base + g * each), end = within(r, first + each);
        if (world_rank() == 0) whole = add_group(j, all[g], err);
        if (g != world_rank()) whole = whole && take_group(r, first, end, all[g], err);
    }
    if (whole && world_rank() == 0) whole = journal_sync(j, err);
    for (int g = 0; g < N; g++) free(all[g]);
    free(all);
    free(mine);
    return ok && world_agree(whole, err);
}

// A group of this rank beside those of the others.
static bool answer_turn(Run *r, Target *t, Journal *j, Err *err) {
    const int64_t base = r->next, each = r->opt->group;
    r->next = within(r, base + world_rank() * each);
    r->group_end = within(r, r->next + each);
    const int64_t open = r->group_end - r->next, had = r->finished;
    bool ok = open == 0 || generate_run(t, &r->generate, next_job, job_done, r, err);
    if (ok && r->finished - had < open)
        ok = err_set(err, ERR_STOPPED, "stopped; the next run goes on with the group under way");
    if (!world_agree(ok, err) || !share_groups(r, j, base, err)) return false;
    r->next = r->finished = within(r, base + world_size() * each);
    return true;
}

static bool merge_drafts(Run *r, Err *err) {
    const int N = world_size();
    Acceptance *all = malloc((size_t)N * sizeof *all);
    CHECK_MEMORY(all);
    const bool ok = N == 1 || world_gather(&r->count->drafts, sizeof *all, all, err);
    for (int i = 0; i < N && ok && N > 1; i++)
        if (i != world_rank()) acceptance_merge(&r->count->drafts, &all[i]);
    free(all);
    return ok;
}

static bool answer_all(Run *r, Target *t, Journal *j, int64_t had, Err *err) {
    char note[64];
    r->count->resumed = r->finished = r->next = had;
    r->started = now_s();
    progress_start(&r->progress, r->opt->what, "answers", r->jobs);
    while (r->next < r->jobs)
        if (!answer_turn(r, t, j, err)) return false;
    r->count->seconds = now_s() - r->started;
    r->count->made = r->made;
    progress_end(&r->progress, r->finished, rate(r, note));
    return merge_drafts(r, err);
}

void regenerate_account(RegenerateCount *c, const Sample *s) {
    c->answers++;
    c->tokens += s->n - s->prompt;
    if (s->stopped)
        c->stopped++;
    else
        c->cut++;
}

// Given and made answers in the order of the prompts: counted, and written by rank 0.
static bool write_out(Run *r, const Sample *prompt, int64_t n, const char *out, Err *err) {
    OutFile f;
    int64_t at = 0;
    const bool first = world_rank() == 0;
    if (!world_agree(!first || out_open(&f, out, err), err)) return false;
    for (int64_t i = 0; i < n; i++) {
        if (prompt[i].prompt < prompt[i].n) {
            if (first) sample_write(&f, &prompt[i]);
            regenerate_account(r->count, &prompt[i]);
            r->count->given++;
            continue;
        }
        for (int64_t k = 0; k < r->opt->samples; k++, at++) {
            const Sample *a = &r->job[at].answer;
            if (a->n == a->prompt) {
                r->count->empty++;
                continue;
            }
            if (first) sample_write(&f, a);
            regenerate_account(r->count, a);
        }
    }
    r->count->prompts = n;
    return world_agree(!first || out_commit(&f, err), err);
}

int64_t regenerate_capacity(const GenerateOptions *opt, int64_t longest_prompt) {
    const int64_t most = longest_prompt + opt->max_new_tokens;
    return most < opt->max_length ? most : opt->max_length;
}

static bool lay_out_jobs(Run *r, const Sample *prompt, int64_t n, Err *err) {
    int64_t open = 0;
    int64_t longest = 1;
    for (int64_t i = 0; i < n; i++) {
        open += prompt[i].prompt == prompt[i].n;
        if (prompt[i].n > longest) longest = prompt[i].n;
    }
    r->generate = r->opt->generate;
    r->generate.max_length = regenerate_capacity(&r->generate, longest);
    r->job = calloc((size_t)(open * r->opt->samples + 1), sizeof *r->job);
    if (!r->job)
        return err_set(err, ERR_FAILED, "out of memory for %lld answers",
                       (long long)(open * r->opt->samples));
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < r->opt->samples && prompt[i].prompt == prompt[i].n; k++)
            r->job[r->jobs++] = (Job){.prompt = &prompt[i], .number = (int32_t)k};
    return true;
}

// What is there already: rank 0 cuts the journal behind whole groups, the others read what is left.
static bool open_journal(Run *r, Journal *j, const char *path, int64_t *had, Err *err) {
    const RegenerateOptions *opt = r->opt;
    for (int turn = 0; turn < 2; turn++) {
        bool ok = true;
        if ((world_rank() == 0) == (turn == 0))
            ok = journal_open(j, path, opt->identity, opt->anew && turn == 0, err) &&
                 (*had = take_lines(r, j, err)) >= 0 && journal_keep(j, *had, err);
        if (!world_agree(ok, err)) return false;
    }
    const int64_t mine = *had;
    if (!world_share(had, sizeof *had, err)) return false;
    return world_agree(mine == *had ||
                           err_set(err, ERR_FAILED, "%s: %lld answers are seen, rank 0 sees %lld",
                                   path, (long long)mine, (long long)*had),
                       err);
}

bool regenerate(Target *t, const Sample *prompt, int64_t n, const RegenerateOptions *opt,
                const char *out, RegenerateCount *count, Err *err) {
    char path[PATH_ROOM + 16];
    CHECK(opt->group > 0 && opt->samples > 0);
    *count = (RegenerateCount){0};
    Run r = {.opt = opt,
             .tokenizer = opt->tokenizer,
             .count = count,
             .vocab = (int32_t)target_config(t)->text.vocab};
    Journal j = {.fd = -1};
    int64_t had = 0;
    sampler_name(r.sampler, &opt->generate.sampler);
    snprintf(path, sizeof path, "%s.journal", out);
    const bool ok = world_agree(lay_out_jobs(&r, prompt, n, err), err) &&
                    open_journal(&r, &j, path, &had, err) && answer_all(&r, t, &j, had, err) &&
                    write_out(&r, prompt, n, out, err);
    journal_close(&j);
    if (ok && world_rank() == 0) unlink(path);
    for (int64_t i = 0; i < r.jobs; i++) sample_free(&r.job[i].answer);
    free(r.job);
    return ok;
}
