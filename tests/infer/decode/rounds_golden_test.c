// tests/infer/decode/rounds_golden_test.c - every recorded round of the official loop, and the
// simulated first rejections and walks, in f32.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "infer/base/file.h"
#include "infer/decode/simulate.h"
#include "infer/decode/speculate.h"
#include "tests/infer/decode/plain_walk.h"
#include "tests/testing.h"

enum { ROWS = 160, NAMES = 2 };
static const char *const names[NAMES] = {"assistant", "assistant-fitted"};

typedef struct {
    const char *family;
    json_t *rounds;
    Target *target;
    Assistant *assistant[NAMES];
    int32_t *greedy; // prompt and continuation
    int64_t n, prompt;
} Case;

static int compared, skipped;

static const char *path_of(const char *family, const char *file) {
    char sub[256];
    snprintf(sub, sizeof sub, "%s/%s", family, file);
    return test_golden(sub);
}

static int32_t *ids_of(const json_t *array, int64_t *n) {
    *n = (int64_t)json_array_size(array);
    int32_t *ids = malloc((size_t)*n * sizeof *ids);
    for (int64_t i = 0; i < *n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(array, (size_t)i));
    return ids;
}

static bool case_open(Case *c, const char *family) {
    Err err = {0};
    int64_t n;
    *c = (Case){.family = family};
    if ((c->rounds = json_load_file(path_of(family, "rounds.json"), 0, NULL)) == NULL) return false;
    c->greedy = ids_of(json_object_get(c->rounds, "greedy"), &c->n);
    free(ids_of(json_object_get(c->rounds, "prompt"), &n));
    c->prompt = n;
    const TargetOptions to = {.dir = path_of(family, "target"),
                              .dtype = DT_F32,
                              .scale = EMBED_SCALE_F32,
                              .max_rows = ROWS};
    assert_ok(c->target = target_open(test_env()->dev, &to, &err), err);
    for (int i = 0; i < NAMES; i++) {
        const char *dir = path_of(family, names[i]);
        if (!dir_exists(dir)) continue;
        const AssistantOptions ao = {.dir = dir,
                                     .dtype = DT_F32,
                                     .target_table = target_embedding(c->target),
                                     .target_scale = target_embed_scale(c->target)};
        assert_ok(c->assistant[i] = assistant_open(test_env()->dev, &ao, &err), err);
    }
    return true;
}

static void case_close(Case *c) {
    for (int i = 0; i < NAMES; i++) assistant_close(c->assistant[i]);
    target_close(c->target);
    free(c->greedy);
    json_decref(c->rounds);
}

static const Assistant *assistant_of(const Case *c, const json_t *o) {
    for (int i = 0; i < NAMES; i++)
        if (strcmp(json_string_value(json_object_get(o, "assistant")), names[i]) == 0)
            return c->assistant[i];
    return NULL;
}

static Head head_of(const json_t *o) {
    return strcmp(json_string_value(json_object_get(o, "head")), "dense") == 0 ? HEAD_DENSE
                                                                               : HEAD_CENTROID;
}

static int64_t integer(const json_t *o, const char *key) {
    return json_integer_value(json_object_get(o, key));
}

static SpeculateResult decode(const Case *c, const Assistant *a, Head head, int k, int64_t total) {
    Err err = {0};
    SpeculateResult r;
    const SpeculatorOptions so = {.k_max = k,
                                  .capacity = ROWS + 16,
                                  .chunk = 16,
                                  .feature_dtype = DT_F32,
                                  .kv_dtype = DT_F32};
    const SpeculateOptions opt = {.k = k,
                                  .head = head,
                                  .max_new_tokens = total - c->prompt,
                                  .near_tie = 1e-4,
                                  .ignore_stop = true};
    Speculator *s = speculator_open(c->target, a, &so, &err);
    assert_ok(s, err);
    assert_ok(speculate(s, &opt, c->greedy, c->prompt, &r, &err), err);
    speculator_close(s);
    assert_int_equal(r.n, total);
    return r;
}

static void check_plain(const Case *c) {
    SpeculateResult r = decode(c, NULL, HEAD_DENSE, 0, c->n);
    for (int64_t i = 0; i < c->n; i++)
        if (r.ids[i] != c->greedy[i])
            fail_msg("%s: greedy token %lld is %d, expected %d", c->family, (long long)i, r.ids[i],
                     c->greedy[i]);
    assert_int_equal(r.rounds, c->n - c->prompt - 1);
    speculate_result_free(&r);
}

static void check_round(const char *what, const DraftRound *r, const int32_t *ids,
                        const json_t *want, int k) {
    const json_t *drafts = json_object_get(want, "drafts"),
                 *emitted = json_object_get(want, "emitted");
    if (r->T != integer(want, "T") || ids[r->T] != integer(want, "bonus") ||
        r->accepted != integer(want, "accepted"))
        fail_msg("%s: round T %lld bonus %d accepted %d, expected %lld %lld %lld", what,
                 (long long)r->T, ids[r->T], r->accepted, (long long)integer(want, "T"),
                 (long long)integer(want, "bonus"), (long long)integer(want, "accepted"));
    for (int j = 0; j < k; j++)
        if (r->draft[j] != json_integer_value(json_array_get(drafts, (size_t)j)))
            fail_msg("%s: T %lld draft %d is %d, expected %lld", what, (long long)r->T, j,
                     r->draft[j], (long long)json_integer_value(json_array_get(drafts, (size_t)j)));
    assert_int_equal(json_array_size(emitted), r->accepted + 1);
    for (int j = 0; j <= r->accepted; j++)
        assert_int_equal(ids[r->T + 1 + j], json_integer_value(json_array_get(emitted, (size_t)j)));
}

static void check_run(const Case *c, const json_t *run) {
    const Assistant *a = assistant_of(c, run);
    if (a == NULL) {
        skipped++;
        return;
    }
    const int k = (int)integer(run, "k");
    const json_t *rounds = json_object_get(run, "rounds");
    char what[128];
    snprintf(what, sizeof what, "%s %s %s k=%d", c->family,
             json_string_value(json_object_get(run, "assistant")),
             json_string_value(json_object_get(run, "head")), k);
    SpeculateResult r =
        decode(c, a, head_of(run), k, (int64_t)json_array_size(json_object_get(run, "sequence")));
    if (r.rounds != (int64_t)json_array_size(rounds))
        fail_msg("%s: %lld rounds, expected %zu", what, (long long)r.rounds,
                 json_array_size(rounds));
    for (int64_t i = 0; i < r.rounds; i++)
        check_round(what, &r.round[i], r.ids, json_array_get(rounds, (size_t)i), k);
    Acceptance sum = {0};
    speculate_count(&sum, &r);
    assert_true(fabs(acceptance_tau(&sum) -
                     json_number_value(json_object_get(run, "tokens_per_target_step"))) < 1e-12);
    speculate_result_free(&r);
    compared++;
}

// Features of the whole greedy text from one target call.
static void pack_text(const Case *c, FeaturePack *pack, Arena *arena) {
    Err err = {0};
    const TargetConfig *tc = target_config(c->target);
    KvCache *kv = kv_open(test_env()->dev, &tc->text, 1, ROWS, ROWS, true, DT_F32, &err);
    assert_ok(kv, err);
    const Tensor hidden = tensor_take(arena, DT_F32, c->n, tc->text.hidden);
    const TargetPiece piece = {.slot = 0, .count = c->n};
    target_forward(c->target, kv, &piece, 1, c->greedy, hidden, NULL);
    features_take(pack, tc, ROWS, DT_F32, arena);
    features_begin(pack);
    features_append(pack, test_env()->dev, c->target, kv, 0, 0, c->n, hidden);
    kv_close(kv);
}

// The recorded walk goes on until its anchors end and is not cut there; ours ends with the text.
static void check_walk(const char *what, const int32_t *L, int64_t all, int64_t anchors,
                       const json_t *want) {
    const int k = (int)integer(want, "k");
    const json_t *visited = json_object_get(want, "visited_t"),
                 *accepted = json_object_get(want, "accepted");
    uint8_t *visit = malloc((size_t)all);
    Acceptance whole = {0};
    acceptance_walk(&whole, L, all, k, visit);
    assert_int_equal(whole.tokens, all);
    size_t rounds = 0;
    int64_t tokens = 0;
    const int64_t first = json_integer_value(json_array_get(visited, 0));
    for (int64_t a = 0; a < anchors; a++) {
        if (!visit[a]) continue;
        const int got = L[a] < k ? L[a] : k;
        if (json_integer_value(json_array_get(visited, rounds)) != first + a ||
            json_integer_value(json_array_get(accepted, rounds)) != got)
            fail_msg("%s k=%d: round %zu differs", what, k, rounds);
        rounds++;
        tokens += got + 1;
    }
    assert_int_equal(rounds, json_array_size(visited));
    assert_int_equal(tokens, integer(want, "tokens"));
    assert_true(fabs((double)tokens / (double)rounds -
                     json_number_value(json_object_get(want, "tokens_per_target_step"))) < 1e-12);
    free(visit);
}

static void check_acceptance(const Case *c, const FeaturePack *pack, const json_t *want) {
    const Assistant *a = assistant_of(c, want);
    if (a == NULL) {
        skipped++;
        return;
    }
    Err err = {0};
    char what[128];
    snprintf(what, sizeof what, "%s %s %s", c->family,
             json_string_value(json_object_get(want, "assistant")),
             json_string_value(json_object_get(want, "head")));
    const int K = (int)integer(want, "K");
    const int64_t all = c->n - c->prompt - 1;
    const json_t *lengths = json_object_get(want, "L"),
                 *u_all = json_object_get(want, "u_all_anchors");
    const int64_t anchors = (int64_t)json_array_size(lengths);
    int32_t *L = malloc((size_t)all * sizeof *L),
            *drafts = malloc((size_t)(all * K) * sizeof *drafts);
    Simulator *s = simulator_open(a, 37, K, &err); // 37: several calls, the last one short
    assert_ok(s, err);
    assert_ok(simulator_drafts(s, a, pack, 0, c->greedy, c->n, c->prompt, head_of(want), drafts,
                               NULL, &err),
              err);
    simulator_close(s);
    acceptance_lengths(L, drafts, all, K, c->greedy, c->n, c->prompt);
    for (int64_t i = 0; i < anchors; i++)
        if (L[i] != json_integer_value(json_array_get(lengths, (size_t)i)))
            fail_msg("%s: L of anchor %lld is %d, expected %lld", what, (long long)i, L[i],
                     (long long)json_integer_value(json_array_get(lengths, (size_t)i)));
    for (int i = 1; i <= K; i++) { // over the anchors with all K labels
        int64_t reached = 0;
        for (int64_t t = 0; t < anchors; t++) reached += L[t] >= i;
        assert_true(fabs((double)reached / (double)anchors -
                         json_number_value(json_array_get(u_all, (size_t)i - 1))) < 1e-12);
    }
    size_t i;
    json_t *walk;
    json_array_foreach(json_object_get(want, "walk"), i, walk)
        check_walk(what, L, all, anchors, walk);
    free(L);
    free(drafts);
    compared++;
}

static void check_family(const char *family) {
    Case c;
    if (!case_open(&c, family)) {
        print_message("[ SKIPPED ] %s: no rounds.json\n", family);
        skipped++;
        return;
    }
    Arena *arena = &test_env()->arena;
    const size_t mark = arena_mark(arena);
    FeaturePack pack;
    size_t i;
    json_t *o;
    check_plain(&c);
    json_array_foreach(json_object_get(c.rounds, "runs"), i, o) check_run(&c, o);
    pack_text(&c, &pack, arena);
    json_array_foreach(json_object_get(c.rounds, "acceptance"), i, o)
        check_acceptance(&c, &pack, o);
    arena_reset(arena, mark);
    case_close(&c);
}

static void rounds_and_first_rejections_equal_the_official_ones(void **state) {
    (void)state;
    const char *env = getenv("FAMILIES");
    char list[256];
    snprintf(list, sizeof list, "%s", env && *env ? env : "e2b e4b 12b 26b 31b");
    for (char *save = NULL, *f = strtok_r(list, " ", &save); f != NULL;
         f = strtok_r(NULL, " ", &save))
        check_family(f);
    print_message("%d runs and simulations compared, %d skipped\n", compared, skipped);
    assert_true(compared > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounds_and_first_rejections_equal_the_official_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
