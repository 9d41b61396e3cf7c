// infer/decode/generate.c - slots of the cache are sequences: jobs come in, steps are laid out,
// answers grow and leave.
#include "infer/decode/generate.h"

#include <math.h>
#include <stdlib.h>

#include "infer/base/log.h"
#include "infer/decode/generate_parts.h"

enum { LOGIT_BYTES = 64 << 20 }; // of the (rows, V) tile that sampling needs

static int drafts_of(const GenerateOptions *opt) {
    return opt->draft.assistant != NULL ? opt->draft.k : 0;
}

static bool is_sampled(const GenerateOptions *opt) {
    return opt->sampler.temperature > 0.0;
}

static int64_t capacity_of(const GenerateOptions *opt) { // drafts go beyond the text
    return opt->max_length + drafts_of(opt);
}

static void lay_out(Generator *g, const TextConfig *c, const GenerateOptions *opt, Arena *arena) {
    g->rows = opt->slots * (drafts_of(opt) + 1);
    g->hidden = tensor_take(arena, DT_F32, g->rows, c->hidden);
    g->best = tensor_take(arena, DT_F32, g->rows, 2);
    g->id = tensor_take(arena, DT_I32, g->rows, 2);
    const int64_t fit = LOGIT_BYTES / (4 * c->vocab);
    g->logit_rows = !is_sampled(opt) ? 0 : fit < 1 ? 1 : fit > g->rows ? g->rows : fit;
    g->logits = tensor_take(arena, DT_F32, g->logit_rows, c->vocab);
}

size_t generate_bytes(const TargetConfig *c, const GenerateOptions *opt) {
    Arena plan;
    Generator g;
    arena_open(&plan, NULL, 0);
    lay_out(&g, &c->text, opt, &plan);
    return plan.peak +
           (size_t)kv_bytes(&c->text, (int)opt->slots, capacity_of(opt), opt->prefill_rows, false,
                            opt->kv_dtype) +
           drafts_bytes(c, &opt->draft, is_sampled(opt), (int)opt->slots, capacity_of(opt),
                        opt->kv_dtype);
}

static bool take_host(Generator *g, const GenerateOptions *opt, int64_t vocab) {
    const size_t slots = (size_t)opt->slots, rows = (size_t)g->rows;
    g->slot = calloc(slots, sizeof *g->slot);
    g->piece = calloc(slots, sizeof *g->piece);
    g->tokens = calloc((size_t)opt->prefill_rows, sizeof *g->tokens);
    g->lane = calloc(slots, sizeof *g->lane);
    g->chooser = calloc(slots, sizeof *g->chooser);
    g->id_host = calloc(2 * rows, sizeof *g->id_host);
    g->best_host = calloc(2 * rows, sizeof *g->best_host);
    g->logits_host = calloc((size_t)(g->logit_rows * vocab) + 1, sizeof *g->logits_host);
    bool ok = g->slot && g->piece && g->tokens && g->lane && g->chooser && g->id_host &&
              g->best_host && g->logits_host;
    for (size_t i = 0; ok && i < slots; i++)
        ok = (g->slot[i].ids = malloc((size_t)opt->max_new_tokens * sizeof(int32_t))) != NULL;
    return ok;
}

Generator *generator_open(Target *t, const GenerateOptions *opt, Err *err) {
    const TextConfig *c = &target_config(t)->text;
    Arena arena;
    CHECK(opt->slots >= 1 && opt->max_new_tokens >= 1 && drafts_of(opt) <= DRAFT_MAX);
    CHECK(opt->prefill_rows >= opt->slots * (drafts_of(opt) + 1));
    Generator *g = calloc(1, sizeof *g);
    CHECK_MEMORY(g);
    *g = (Generator){.target = t, .dev = target_device(t), .opened = *opt};
    arena_open(&arena, NULL, 0);
    lay_out(g, c, opt, &arena);
    if ((g->block = dev_alloc(g->dev, arena.peak, err)) == NULL) goto fail;
    arena_open(&arena, g->block, arena.peak);
    lay_out(g, c, opt, &arena);
    g->kv = kv_open(g->dev, c, (int)opt->slots, capacity_of(opt), opt->prefill_rows, false,
                    opt->kv_dtype, err);
    if (g->kv == NULL) goto fail;
    if (drafts_of(opt) > 0 &&
        (g->drafts = drafts_open(t, g->kv, &opt->draft, is_sampled(opt), (int)opt->slots,
                                 capacity_of(opt), err)) == NULL)
        goto fail;
    if (take_host(g, opt, c->vocab)) return g;
    err_set(err, ERR_FAILED, "no memory for %lld answers", (long long)opt->slots);
fail:
    generator_close(g);
    return NULL;
}

void generator_close(Generator *g) {
    if (g == NULL) return;
    for (int64_t i = 0; g->slot != NULL && i < g->opened.slots; i++) {
        free(g->slot[i].ids);
        free(g->slot[i].round);
    }
    free(g->slot);
    free(g->piece);
    free(g->tokens);
    free(g->lane);
    free(g->chooser);
    free(g->id_host);
    free(g->best_host);
    free(g->logits_host);
    dist_free(&g->dist);
    dist_free(&g->residual);
    drafts_close(g->drafts);
    kv_close(g->kv);
    if (g->block != NULL) dev_free(g->dev, g->block);
    free(g);
}

typedef struct {
    GenerateNext *next;
    GenerateEnded *ended;
    void *ctx;
} Callbacks;

static bool finish(Slot *s, const Callbacks *cb, bool stopped, Err *err) {
    const GenerateDone d = {.user = s->job.user,
                            .ids = s->ids,
                            .n = s->n,
                            .stopped = stopped,
                            .min_margin = s->min_margin,
                            .first_margin = s->first_margin,
                            .round = s->round,
                            .rounds = s->rounds};
    s->busy = false;
    return cb->ended(cb->ctx, &d, err);
}

static void begin(Generator *g, int slot, const GenerateJob *job) {
    Slot *s = &g->slot[slot];
    const int64_t left = g->opt.max_length - job->n;
    CHECK(job->n >= 1);
    s->busy = true;
    s->job = *job;
    s->room = left < g->opt.max_new_tokens ? left : g->opt.max_new_tokens;
    s->fed = s->n = s->rounds = 0;
    s->min_margin = INFINITY;
    s->first_margin = 0;
    kv_clear(g->kv, slot);
    if (g->drafts != NULL) drafts_clear(g->drafts, slot);
}

// Fills idle slots with jobs; a prompt that leaves no room for an answer is done at once.
static bool refill(Generator *g, const Callbacks *cb, Err *err) {
    for (int i = 0; i < g->opt.slots; i++) {
        Slot *s = &g->slot[i];
        while (!s->busy && !g->exhausted) {
            GenerateJob job = {0};
            if (!cb->next(cb->ctx, &job)) {
                g->exhausted = true;
                break;
            }
            begin(g, i, &job);
            if (s->room <= 0 && !finish(s, cb, false, err)) return false;
        }
    }
    return true;
}

// Drafts of all answers under way.
static bool make_drafts(Generator *g, Err *err) {
    const double start = now_s();
    g->lanes = 0;
    for (int i = 0; i < g->opt.slots; i++) {
        Slot *s = &g->slot[i];
        if (!s->busy || s->n == 0) continue;
        s->now = (DraftRound){.T = s->job.n + s->n - 1};
        g->lane[g->lanes++] = (DraftLane){.slot = i,
                                          .bonus = s->ids[s->n - 1],
                                          .hidden_row = s->hidden_row,
                                          .stream = s->job.stream,
                                          .at = s->n,
                                          .round = &s->now};
    }
    const bool ok =
        g->lanes == 0 || drafts_of(&g->opt) == 0 ||
        drafts_make(g->drafts, &g->opt.draft, &g->opt.sampler, g->lane, g->lanes, g->hidden, err);
    g->times.drafter_s += now_s() - start;
    return ok;
}

static int64_t lay_answer(Generator *g, int lane, int32_t *to) {
    const Slot *s = &g->slot[g->lane[lane].slot];
    *to++ = s->ids[s->n - 1];
    for (int j = 0; j < s->now.drafted; j++) *to++ = s->now.draft[j];
    return s->now.drafted + 1;
}

static int64_t lay_prompt(Slot *s, int64_t spare, int32_t *to) {
    const int64_t left = s->job.n - s->fed, count = left < spare ? left : spare;
    for (int64_t j = 0; j < count; j++) to[j] = s->job.prompt[s->fed + j];
    s->fed += count;
    return count;
}

// Lays out one step, in slot order: answers a row and their drafts; prompts share what is left. Of
// a prompt only the state of its last row is wanted.
static int plan_step(Generator *g) {
    int pieces = 0, lane = 0;
    int64_t rows = 0, spare = g->opt.prefill_rows;
    int32_t wanted = 0;
    g->choosers = 0;
    for (int i = 0; i < g->lanes; i++) spare -= 1 + g->lane[i].round->drafted;
    for (int i = 0; i < g->opt.slots; i++) {
        Slot *s = &g->slot[i];
        if (!s->busy) continue;
        const bool answers = s->n > 0;
        const int64_t count = answers ? lay_answer(g, lane, g->tokens + rows)
                                      : lay_prompt(s, spare, g->tokens + rows);
        if (count == 0) continue;
        if (!answers) spare -= count;
        const int64_t shown = answers ? count : s->fed == s->job.n ? 1 : 0;
        g->piece[pieces++] = (TargetPiece){.slot = i, .count = count, .skip = count - shown};
        rows += count;
        if (shown > 0)
            g->chooser[g->choosers++] = (Chooser){
                .slot = i, .lane = answers ? lane++ : -1, .row = wanted, .count = (int32_t)shown};
        wanted += (int32_t)shown;
    }
    return pieces;
}

static void keep_round(Generator *g, Slot *s) {
    if (!g->opt.keep_rounds) return;
    if (s->rounds == s->round_room) {
        s->round_room = 2 * s->round_room + 16;
        s->round = realloc(s->round, (size_t)s->round_room * sizeof *s->round);
        CHECK_MEMORY(s->round);
    }
    s->round[s->rounds++] = s->now;
}

static bool is_stop(const Generator *g, int32_t id) {
    const TargetConfig *c = target_config(g->target);
    for (int i = 0; i < c->nstop && !g->opt.ignore_stop; i++)
        if (c->stop[i] == id) return true;
    return false;
}

// The answer grows by what was chosen, up to its end.
static bool grow(Generator *g, const Chooser *c, const Choice *got, const Callbacks *cb, Err *err) {
    Slot *s = &g->slot[c->slot];
    if (s->n == 0) s->first_margin = got->margin[0];
    if (c->lane >= 0) {
        s->now.accepted = got->accepted;
        for (int j = 0; j < c->count; j++) s->now.verify_margin[j] = got->margin[j];
        keep_round(g, s);
    }
    for (int j = 0; j <= got->accepted; j++) {
        s->ids[s->n++] = got->id[j];
        if (!is_sampled(&g->opt) && got->margin[j] < s->min_margin) s->min_margin = got->margin[j];
        const bool stop = is_stop(g, got->id[j]);
        if (stop || s->n == s->room) return finish(s, cb, stop, err);
    }
    s->hidden_row = c->row + got->accepted;
    kv_rewind(g->kv, c->slot, s->job.n + s->n - 1); // rows of drafts that fell
    return true;
}

static bool choose_all(Generator *g, const Callbacks *cb, Err *err) {
    const Chooser *last = &g->chooser[g->choosers - 1];
    if (!choose_begin(g, last->row + last->count, err)) return false;
    for (int i = 0; i < g->choosers; i++) {
        Choice got;
        if (!choose(g, &g->chooser[i], &got, err) || !grow(g, &g->chooser[i], &got, cb, err))
            return false;
    }
    return true;
}

// One target call and what follows from it.
static bool step(Generator *g, int pieces, const Callbacks *cb, Err *err) {
    const double start = now_s();
    int64_t wanted = 0;
    for (int i = 0; i < g->choosers; i++) wanted += g->chooser[i].count;
    const Tensor best = is_sampled(&g->opt) ? NO_TENSOR : tensor_rows(g->best, 0, wanted);
    target_step(g->target, g->kv, g->piece, pieces, g->tokens, tensor_rows(g->hidden, 0, wanted),
                best, tensor_rows(g->id, 0, wanted));
    if (g->choosers > 0 && !choose_all(g, cb, err)) return false;
    for (int i = 0; g->drafts != NULL && i < pieces; i++)
        if (g->slot[g->piece[i].slot].busy) drafts_keep(g->drafts, g->piece[i].slot);
    *(g->lanes > 0 ? &g->times.target_s : &g->times.prefill_s) += now_s() - start;
    return true;
}

static void check_fits(const Generator *g, const GenerateOptions *opt) {
    const GenerateOptions *o = &g->opened;
    CHECK(opt->slots == o->slots && opt->max_length == o->max_length &&
          opt->prefill_rows == o->prefill_rows && opt->max_new_tokens <= o->max_new_tokens);
    CHECK(drafts_of(opt) <= drafts_of(o) && (is_sampled(o) || !is_sampled(opt)));
}

bool generator_run(Generator *g, const GenerateOptions *opt, GenerateNext *next,
                   GenerateEnded *ended, void *ctx, Err *err) {
    const Callbacks cb = {.next = next, .ended = ended, .ctx = ctx};
    check_fits(g, opt);
    g->opt = *opt;
    g->exhausted = false;
    g->times = (GenerateTimes){0};
    for (int64_t i = 0; i < opt->slots; i++) g->slot[i].busy = false;
    for (;;) {
        if (!refill(g, &cb, err) || !make_drafts(g, err)) return false;
        const int pieces = plan_step(g);
        if (pieces == 0) return true;
        if (!step(g, pieces, &cb, err)) return false;
    }
}

GenerateTimes generator_times(const Generator *g) {
    return g->times;
}

bool generate_run(Target *t, const GenerateOptions *opt, GenerateNext *next, GenerateEnded *ended,
                  void *ctx, Err *err) {
    Generator *g = generator_open(t, opt, err);
    const bool ok = g != NULL && generator_run(g, opt, next, ended, ctx, err);
    generator_close(g);
    return ok;
}

void rounds_count(Acceptance *sum, const DraftRound *round, int64_t rounds, int64_t n) {
    for (int64_t i = 0; i < rounds; i++)
        acceptance_round(sum, round[i].accepted, round[i].drafted, round[i].wanted,
                         n - 1 - round[i].T);
}
