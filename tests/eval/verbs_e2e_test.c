// tests/eval/verbs_e2e_test.c - audit, generate, inspect, export as people run them; every verb's
// --json parses, and no verb writes anything in a dry run.
#include <fcntl.h>
#include <math.h>
#include <unistd.h>

#include "infer/format/safetensors.h"
#include "tests/eval/verb_run.h"

#define STOCK "configs/demo/stock-assistant"
static char work[64];

static int make_workspace(void **state) {
    (void)state;
    snprintf(work, sizeof work, "%s/run", test_dir());
    const Said s = run("run " SMALL "output_dir=%s", work);
    return s.status != 0 && fprintf(stderr, "run: %s\n", s.err);
}

static bool one_line(const char *text) {
    return *text != '\0' && strchr(text, '\n') == text + strlen(text) - 1;
}

// The stock assistant with one weight that is no number.
static char *broken_drafter(void) {
    static char dir[96];
    char line[256], path[PATH_ROOM];
    Err err = {0};
    snprintf(dir, sizeof dir, "%s/broken", test_dir());
    snprintf(line, sizeof line, "rm -rf %s && cp -r " STOCK " %s", dir, dir);
    assert_int_equal(system(line), 0);
    StFile *f = st_open(path_join(path, dir, "model.safetensors"), &err);
    assert_ok(f != NULL, err);
    const StTensor *t = st_find(f, "model.layers.1.self_attn.q_proj.weight");
    assert_true(t != NULL && strcmp(t->dtype, "BF16") == 0);
    const int64_t offset = t->offset + t->bytes / 2;
    st_close(f);
    const int fd = open(path, O_WRONLY);
    assert_true(fd >= 0 && pwrite(fd, "\xc0\x7f", 2, offset) == 2 && close(fd) == 0);
    return dir;
}

static void audit_holds_on_the_pair_and_counts_what_it_compared(void **state) {
    (void)state;
    const Said s = run("audit --json " SMALL "output_dir=%s", work);
    assert_status(s, 0);
    json_t *all = documents(s.out), *o = at(all, "0");
    assert_non_null(strstr(json_string_value(at(o, "drafter")), "ckpt/best"));
    assert_true(json_is_true(at(o, "training_forward.passed")));
    assert_true(number(o, "training_forward.values") > 1000);
    assert_true(number(o, "training_forward.worst") <= number(o, "training_forward.tolerance"));
    assert_true(number(o, "training_forward.choices") > 0);
    assert_true(number(o, "training_forward.choices_differ") == 0);
    assert_int_equal(json_array_size(at(o, "live.by_k")), 4); // k = 0..3
    assert_true(number(o, "live.by_k.0.texts") == 2 && number(o, "live.by_k.3.rounds") > 0);
    json_decref(all);
}

// It stops at the first sign: no figure is printed that came out of it.
static void a_drafter_with_a_weight_that_is_no_number_is_named(void **state) {
    (void)state;
    const char *dir = broken_drafter();
    static const char *const verbs[] = {"audit", "eval", "generate Hallo"};
    for (int i = 0; i < 3; i++) {
        const Said s = run("%s " SMALL "output_dir=%s eval.drafter=%s generate.drafter=%s",
                           verbs[i], work, dir, dir);
        assert_status(s, 1);
        assert_true(one_line(s.err) && s.out[0] == '\0');
        assert_non_null(strstr(s.err, "not finite"));
    }
    json_t *o = read_json(work, "eval/acceptance.json"); // as it was
    assert_non_null(strstr(json_string_value(at(o, "drafters.trained.path")), "ckpt/best"));
    json_decref(o);
}

// f32: the text may differ only where two logits are as good as equal, and here none is.
static void a_drafter_changes_the_speed_and_not_the_text(void **state) {
    (void)state;
    static const char *const prompts[] = {"Gib als JSON aus: paket.", "Hallo",
                                          "Was ist der Zweck von bash?"};
    char drafter[3][PATH_ROOM] = {STOCK, "", ""};
    path_join(drafter[1], work, "ckpt/best");
    path_join(drafter[2], work, "export/hf");
    for (int p = 0; p < 3; p++) {
        const char *const given = "generate --json -q runtime.dtype=f32 generate.max_new_tokens=48";
        json_t *plain = documents(run("%s generate.draft_tokens=0 '%s'", given, prompts[p]).out);
        const char *text = json_string_value(at(plain, "0.text"));
        assert_true(text[0] != '\0' && number(plain, "0.rounds") == number(plain, "0.tokens") - 1);
        for (int d = 0; d < 3; d++) {
            const Said s = run("%s generate.draft_tokens=5 generate.drafter=%s '%s'", given,
                               drafter[d], prompts[p]);
            assert_status(s, 0);
            json_t *fast = documents(s.out);
            const double rounds = number(fast, "0.rounds"), tokens = number(fast, "0.tokens"),
                         accepted = number(fast, "0.accepted"), drafted = number(fast, "0.drafted");
            assert_string_equal(json_string_value(at(fast, "0.text")), text);
            assert_true(tokens == number(plain, "0.tokens") && drafted == 5 * rounds);
            assert_true(fabs(number(fast, "0.tokens_per_target_step") - (tokens - 1) / rounds) <
                        1e-9);
            assert_true(rounds < tokens - 1 && accepted > 0); // it was used
            assert_true(accepted + rounds >= tokens - 1 && accepted + rounds <= tokens + 4);
            json_decref(fast);
        }
        json_decref(plain);
    }
}

static void generate_prints_the_text_and_nothing_else_on_stdout(void **state) {
    (void)state;
    char text[4096];
    snprintf(text, sizeof text, "%s", run("generate -q generate.draft_tokens=0 Hallo").out);
    const Said s = run("generate generate.draft_tokens=0 generate.prompt=Hallo");
    assert_status(s, 0);
    assert_string_equal(s.out, text);
    assert_non_null(strstr(s.err, "tok/s"));
    assert_status(run("generate"), 2);
    assert_status(run("generate -q 'a\xff'"), 3);
}

static void inspect_names_shapes_and_fingerprints(void **state) {
    (void)state;
    Said s = run("inspect " STOCK);
    assert_status(s, 0);
    assert_non_null(strstr(s.out, "masked_embedding.centroids.weight"));
    assert_non_null(strstr(s.out, "BF16  [256,256]        131072\n"));
    s = run("inspect %s/shards/eval", work);
    json_t *m = read_json(work, "shards/eval/manifest.json");
    static const char *const prints[] = {"target", "tokenizer", "chat_template", "config"};
    for (int i = 0; i < 4; i++) {
        const char *hex = json_string_value(at(at(m, "meta"), prints[i]));
        assert_int_equal(strlen(hex), 64);
        assert_non_null(strstr(s.out, hex));
    }
    assert_non_null(strstr(s.out, json_string_value(at(m, "shards.0.sha256"))));
    json_decref(m);
    s = run("inspect --json %s/ckpt/best", work);
    json_t *c = documents(s.out);
    assert_string_equal(json_string_value(at(c, "0.kind")), "checkpoint");
    assert_true(json_is_true(at(c, "0.verified")) && number(c, "0.steps") == 3);
    assert_int_equal(strlen(json_string_value(at(c, "0.identity.target"))), 64);
    json_decref(c);
    s = run("inspect configs/demo/adapter-german-facts");
    assert_status(s, 0);
    assert_non_null(strstr(s.out, "kind                   adapter"));
    assert_non_null(strstr(s.out, "lora_A.weight F32   [16,256]"));
    assert_status(run("inspect %s/shards/eval/shard-00000.h5", work), 3);
    s = run("inspect README.md");
    assert_status(s, 3);
    assert_non_null(strstr(s.err, "README.md: neither safetensors nor JSON"));
}

// The stock's 6 drafts were not measured: only by force. Said again when nothing is to be done.
static void export_asks_the_gate_and_prints_hashes(void **state) {
    (void)state;
    Said s = run("export " SMALL "output_dir=%s export.force=false export.to=hf", work);
    assert_status(s, 4);
    assert_true(one_line(s.err));
    assert_non_null(strstr(s.err, "eval did not measure the trained drafter at 6 draft tokens"));
    s = run("export " SMALL "output_dir=%s", work); // done before
    assert_status(s, 0);
    assert_non_null(strstr(s.out, "/export/mlx/model.safetensors.index.json\n"));
    s = run("export --json " SMALL "output_dir=%s", work);
    json_t *all = documents(s.out);
    assert_int_equal(json_object_size(at(all, "0")), 3);
    json_decref(all);
}

static const char *const stages[] = {"prepare", "regenerate", "capture", "train", "eval", "export"};

static void json_of_every_verb_parses(void **state) {
    (void)state;
    for (int i = 0; i < 6; i++) {
        const Said s = run("%s --json " SMALL "output_dir=%s", stages[i], work);
        assert_status(s, 0);
        json_t *all = documents(s.out);
        assert_int_equal(json_array_size(all), 1);
        assert_true(json_object_size(at(all, "0")) > 0);
        json_decref(all);
    }
    const Said s = run("run --json " SMALL "output_dir=%s", work);
    assert_status(s, 0);
    json_t *all = documents(s.out);
    assert_int_equal(json_array_size(all), 6); // one document a stage
    json_decref(all);
    all = documents(run("doctor --json").out);
    assert_true(json_is_string(at(all, "0.OpenBLAS core")));
    json_decref(all);
}

static void dry_run(const char *verb, const char *dir) {
    const Said s = run("%s --dry-run " SMALL "output_dir=%s", verb, dir);
    assert_status(s, 0);
    if (s.out[0] == '\0') fail_msg("%s --dry-run prints no plan", verb);
}

static void a_dry_run_writes_nothing(void **state) {
    (void)state;
    static const char *const others[] = {
        "run",   "audit",  "generate Hallo",          "inspect " STOCK,
        "bench", "doctor", "eval eval.drafter=" STOCK};
    char before[80], here[80], nowhere[96];
    snprintf(before, sizeof before, "%s", tree_sum(work));
    snprintf(here, sizeof here, "%s", tree_sum("configs tests/eval")); // inputs are not touched
    for (int i = 0; i < 6; i++) dry_run(stages[i], work);
    for (int i = 0; i < 7; i++) dry_run(others[i], work);
    assert_string_equal(tree_sum(work), before);
    assert_string_equal(tree_sum("configs tests/eval"), here);
    snprintf(nowhere, sizeof nowhere, "%s/nowhere", test_dir()); // before anything was made
    dry_run("prepare", nowhere);
    dry_run("run", nowhere);
    dry_run("eval", nowhere);
    dry_run("doctor", nowhere);
    assert_status(run("regenerate --dry-run " SMALL "output_dir=%s", nowhere), 3);
    assert_int_equal(access(nowhere, F_OK), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(audit_holds_on_the_pair_and_counts_what_it_compared),
        cmocka_unit_test(a_drafter_with_a_weight_that_is_no_number_is_named),
        cmocka_unit_test(a_drafter_changes_the_speed_and_not_the_text),
        cmocka_unit_test(generate_prints_the_text_and_nothing_else_on_stdout),
        cmocka_unit_test(inspect_names_shapes_and_fingerprints),
        cmocka_unit_test(export_asks_the_gate_and_prints_hashes),
        cmocka_unit_test(json_of_every_verb_parses),
        cmocka_unit_test(a_dry_run_writes_nothing),
    };
    return cmocka_run_group_tests(tests, make_workspace, NULL);
}
