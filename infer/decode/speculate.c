// infer/decode/speculate.c - a generator of one slot; its rounds are kept.
#include "infer/decode/speculate.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

struct Speculator {
    SpeculatorOptions opt;
    GenerateOptions generate; // of the opening
    Generator *generator;
};

static GenerateOptions options_of(const Assistant *a, const SpeculatorOptions *opt) {
    CHECK(opt->k_max >= 0 && opt->k_max <= DRAFT_MAX && opt->chunk > opt->k_max);
    CHECK(opt->k_max == 0 || a != NULL);
    GenerateOptions g = {.slots = 1,
                         .max_new_tokens = opt->capacity,
                         .max_length = opt->capacity,
                         .prefill_rows = opt->chunk,
                         .sampler = {.temperature = opt->sampled, .top_p = 1},
                         .kv_dtype = opt->kv_dtype,
                         .keep_rounds = true};
    if (opt->k_max > 0)
        g.draft =
            (DraftOptions){.assistant = a, .k = opt->k_max, .feature_dtype = opt->feature_dtype};
    return g;
}

size_t speculator_bytes(Target *t, const Assistant *a, const SpeculatorOptions *opt) {
    const GenerateOptions g = options_of(a, opt);
    return generate_bytes(target_config(t), &g);
}

Speculator *speculator_open(Target *t, const Assistant *a, const SpeculatorOptions *opt, Err *err) {
    Speculator *s = calloc(1, sizeof *s);
    CHECK_MEMORY(s);
    s->opt = *opt;
    s->generate = options_of(a, opt);
    s->generator = generator_open(t, &s->generate, err);
    if (s->generator != NULL) return s;
    err_wrap(err, "speculator for %lld positions", (long long)opt->capacity);
    speculator_close(s);
    return NULL;
}

void speculator_close(Speculator *s) {
    if (s == NULL) return;
    generator_close(s->generator);
    free(s);
}

void speculate_result_free(SpeculateResult *r) {
    free(r->ids);
    free(r->round);
    *r = (SpeculateResult){0};
}

typedef struct {
    const int32_t *prompt;
    int64_t n;
    uint64_t stream;
    bool given;
    SpeculateResult *out;
} Text;

static bool give(void *ctx, GenerateJob *job) {
    Text *t = ctx;
    if (t->given) return false;
    *job = (GenerateJob){.user = t, .prompt = t->prompt, .n = t->n, .stream = t->stream};
    return t->given = true;
}

static bool take(void *ctx, const GenerateDone *d, Err *err) {
    const Text *t = ctx;
    SpeculateResult *out = t->out;
    out->n = t->n + d->n;
    out->stopped = d->stopped;
    out->first_margin = d->first_margin;
    out->rounds = d->rounds;
    out->ids = malloc((size_t)out->n * sizeof *out->ids);
    out->round = malloc((size_t)(d->rounds + 1) * sizeof *out->round);
    if (out->ids == NULL || out->round == NULL)
        return err_set(err, ERR_FAILED, "no memory for %lld tokens", (long long)out->n);
    memcpy(out->ids, t->prompt, (size_t)t->n * sizeof *out->ids);
    memcpy(out->ids + t->n, d->ids, (size_t)d->n * sizeof *out->ids);
    if (d->rounds > 0) memcpy(out->round, d->round, (size_t)d->rounds * sizeof *out->round);
    return true;
}

bool speculate(Speculator *s, const SpeculateOptions *opt, const int32_t *prompt, int64_t n,
               SpeculateResult *out, Err *err) {
    *out = (SpeculateResult){.first = n};
    CHECK(opt->k >= 0 && opt->k <= s->opt.k_max);
    CHECK(n >= 1 && opt->max_new_tokens >= 1);
    if (n + opt->max_new_tokens + opt->k > s->opt.capacity)
        return err_set(
            err, ERR_USAGE, "%lld prompt tokens, %lld new ones and %d drafts, capacity %lld",
            (long long)n, (long long)opt->max_new_tokens, opt->k, (long long)s->opt.capacity);
    Text text = {.prompt = prompt, .n = n, .stream = opt->stream, .out = out};
    GenerateOptions g = s->generate;
    g.max_new_tokens = opt->max_new_tokens;
    g.sampler = opt->sampler;
    g.ignore_stop = opt->ignore_stop;
    g.draft.k = opt->k;
    g.draft.head = opt->head;
    g.draft.rule = opt->rule;
    g.draft.p_min = opt->p_min;
    if (!generator_run(s->generator, &g, give, take, &text, err)) {
        speculate_result_free(out);
        return false;
    }
    const GenerateTimes spent = generator_times(s->generator);
    out->prefill_s = spent.prefill_s;
    out->target_s = spent.target_s;
    out->drafter_s = spent.drafter_s;
    for (int64_t i = 0; i < out->rounds; i++)
        out->near_ties += speculate_gap(&out->round[i]) < opt->near_tie;
    return true;
}

void speculate_count(Acceptance *sum, const SpeculateResult *r) {
    rounds_count(sum, r->round, r->rounds, r->n);
}

double speculate_gap(const DraftRound *r) {
    double gap = DBL_MAX;
    for (int j = 0; j <= r->accepted; j++) {
        if (j < r->drafted && r->margin[j] < gap) gap = r->margin[j];
        if (r->verify_margin[j] < gap) gap = r->verify_margin[j];
    }
    return gap;
}
