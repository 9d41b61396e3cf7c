// tests/eval/live_pair.h - the demo pair: tokens a round, decoded live and simulated on text that
// the target sampled alone. Bodies are here for a short and a long test.
#ifndef TESTS_LIVE_CHECK_H
#define TESTS_LIVE_CHECK_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/capture.h"
#include "data/corpus.h"
#include "data/drafter.h"
#include "data/live_check.h"
#include "data/regenerate.h"
#include "infer/base/cli.h"
#include "infer/base/log.h"
#include "tests/testing.h"

enum {
    LIVE_K = 9,
    LIVE_ROWS = 1024,
    LIVE_SLOTS = 64,
    LIVE_NEW = 12,
    LIVE_LONGEST = 80,
    LIVE_PROMPTS = 60
};

typedef struct {
    Settings s;
    OpenTarget m;
    Assistant *a;
    Tokenizer *t;
    Sample prompt[LIVE_PROMPTS];
    int prompts;
    Generator *g;
} LivePair;

// The user's turn of a conversation, in the shape of the template; false: too long.
static bool live_prompt(LivePair *p, const json_t *line, Sample *out) {
    char text[1024];
    Ids ids = {0};
    const json_t *messages = json_object_get(line, "messages");
    const json_t *user = json_array_get(messages, json_array_size(messages) - 1);
    const char *said = json_string_value(json_object_get(user, "content"));
    if (said == NULL || strlen(said) > 200) return false;
    snprintf(text, sizeof text, "<bos><|turn>user\n%s<turn|>\n<|turn>model\n", said);
    tokenizer_encode(p->t, text, strlen(text), true, &ids);
    if ((int64_t)ids.n > LIVE_LONGEST) {
        ids_free(&ids);
        return false;
    }
    *out = (Sample){.ids = ids.id,
                    .n = (int64_t)ids.n,
                    .prompt = (int64_t)ids.n,
                    .kind = calloc(ids.n, 1),
                    .min_margin = -1};
    snprintf(out->id, sizeof out->id, "%s", json_string_value(json_object_get(line, "id")));
    return true;
}

static GenerateOptions live_options(const LivePair *p, const Sampler *s) {
    return (GenerateOptions){.slots = LIVE_SLOTS,
                             .max_new_tokens = LIVE_NEW,
                             .max_length = LIVE_LONGEST + LIVE_NEW,
                             .prefill_rows = LIVE_ROWS,
                             .sampler = *s,
                             .kv_dtype = DT_F32,
                             .keep_rounds = true,
                             .draft = {.assistant = p->a,
                                       .k = LIVE_K,
                                       .head = HEAD_CENTROID,
                                       .rule = DRAFT_REJECTION,
                                       .feature_dtype = DT_BF16}}; // as captured
}

static void live_open(LivePair *p) {
    Err err = {0};
    char dtype[] = "runtime.dtype=f32", *list[] = {dtype};
    CorpusLine line;
    log_set_quiet(true);
    *p = (LivePair){0};
    assert_ok(settings_load(&p->s, "configs/demo.json", list, 1, &err), err);
    assert_ok(open_target(&p->m, &p->s, LIVE_ROWS, &err), err);
    assert_ok(p->a = drafter_open(&p->m, &p->s, p->s.model.assistant_path, &err), err);
    assert_ok(p->t = open_tokenizer(p->s.model.target_path, p->m.config.text.vocab, &err), err);
    Corpus *c = corpus_open("configs/demo/prompts/general.eval.jsonl", &err);
    assert_ok(c, err);
    while (p->prompts < LIVE_PROMPTS && corpus_next(c, &line, &err) > 0)
        p->prompts += live_prompt(p, line.value, &p->prompt[p->prompts]);
    corpus_close(c);
    assert_int_equal(p->prompts, LIVE_PROMPTS);
    const Sampler any = {.temperature = 1, .top_p = 1};
    const GenerateOptions opt = live_options(p, &any);
    assert_ok(p->g = generator_open(p->m.target, &opt, &err), err);
}

static void live_close(LivePair *p) {
    generator_close(p->g);
    for (int i = 0; i < p->prompts; i++) sample_free(&p->prompt[i]);
    tokenizer_free(p->t);
    assistant_close(p->a);
    close_target(&p->m);
    settings_free(&p->s);
}

// Text by the target alone, as regenerate writes it.
static char *live_text(LivePair *p, const Sampler *s, int64_t samples) {
    static char path[PATH_ROOM];
    Err err = {0};
    RegenerateCount count;
    RegenerateOptions opt = {.generate = live_options(p, s),
                             .samples = samples,
                             .group = 16 * LIVE_SLOTS,
                             .tokenizer = p->t,
                             .identity = "live check",
                             .anew = true,
                             .what = "text"};
    opt.generate.draft = (DraftOptions){0};
    opt.generate.keep_rounds = false;
    path_join(path, test_dir(), "text.jsonl");
    assert_ok(regenerate(p->m.target, p->prompt, p->prompts, &opt, path, &count, &err), err);
    return path;
}

typedef struct {
    Head head;
    StepCount by[RULE_COUNT][LIVE_K + 1][LIVE_PROMPTS];
    MeasuredPool pool;
} LiveSimulated;

// The simulator on that text, by prompt; one head.
static void live_simulate(LivePair *p, const Sampler *s, Head head, int64_t samples,
                          LiveSimulated *out) {
    Err err = {0};
    Stream *stream = stream_open(p->m.target, live_text(p, s, samples), LIVE_ROWS, DT_F32, &err);
    assert_ok(stream, err);
    const SeqSource source = stream_source(stream);
    const MeasureOptions opt = {.K = LIVE_K,
                                .head = {head == HEAD_DENSE, head == HEAD_CENTROID},
                                .max_anchors = 2048,
                                .pack_tokens = 16384,
                                .sampler = *s,
                                .target = p->m.target};
    Measurer *m = measurer_open(p->a, &p->m.config, &source, &opt, &err);
    assert_ok(m, err);
    Measured *seq = calloc((size_t)source.count, sizeof *seq);
    assert_ok(measurer_run(m, p->a, seq, &out->pool, &err), err);
    memset(out->by, 0, sizeof out->by);
    out->head = head;
    for (int64_t i = 0; i < source.count; i++) {
        int at = 0;
        while (strcmp(seq[i].id, p->prompt[at].id) != 0) at++;
        for (int r = RULE_REJECTION; r < RULE_COUNT; r++)
            for (int k = 0; k <= LIVE_K; k++) {
                out->by[r][k][at].rounds += seq[i].k[r][head][k].rounds;
                out->by[r][k][at].tokens += seq[i].k[r][head][k].tokens;
            }
    }
    free(seq);
    measurer_close(m);
    stream_close(stream);
}

static TauGap live_gap(LivePair *p, const Sampler *s, AcceptRule rule, int k, int64_t samples,
                       const LiveSimulated *sim) {
    static const DraftRule of[RULE_COUNT] = {
        [RULE_REJECTION] = DRAFT_REJECTION, [RULE_BEST] = DRAFT_BEST, [RULE_STRICT] = DRAFT_STRICT};
    Err err = {0};
    StepCount live[LIVE_PROMPTS] = {0};
    GenerateOptions opt = live_options(p, s);
    opt.draft.k = k;
    opt.draft.head = sim->head;
    opt.draft.rule = of[rule];
    opt.sampler.seed = s->seed + 1000u * (unsigned)rule + (unsigned)k;
    assert_ok(live_counts(p->g, &opt, p->prompt, p->prompts, samples, live, &err), err);
    const TauGap gap = tau_gap(live, sim->by[rule][k], p->prompts);
    char name[64];
    sampler_name(name, s);
    print_message("%-28s %-9s %-8s k = %d: live %.4f, simulated %.4f, z %+.2f\n", name,
                  rule_name(rule), sim->head == HEAD_DENSE ? "dense" : "centroid", k, gap.live,
                  gap.simulated, gap.z);
    return gap;
}

#endif
