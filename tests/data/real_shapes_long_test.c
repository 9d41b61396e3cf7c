// tests/data/real_shapes_long_test.c - pairs of real widths (few layers, random weights) through
// the whole program: what breaks at 262,144 tokens, 128 experts or 21,504 columns breaks here.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "data/synthetic.h"
#include "infer/base/file.h"
#include "infer/base/json.h"
#include "tests/testing.h"

#define TOKENIZER "tests/golden/tokenizer/gemma4-tokenizer.json.zst"
enum { LAYERS = 2, PROMPTS = 10 };

static void write_prompts(const char *path, const char *word) {
    char text[4096] = "";
    Err err = {0};
    for (int i = 0; i < PROMPTS; i++)
        snprintf(
            text + strlen(text), sizeof text - strlen(text),
            "{\"id\":\"%s-%d\",\"messages\":[{\"role\":\"user\",\"content\":\"%s number %d?\"}]}\n",
            word, i, word, i);
    assert_ok(file_write(path, text, strlen(text), &err), err);
}

static void write_pair(const char *dir, const PairShape *shape) {
    char path[PATH_ROOM];
    Err err = {0};
    assert_ok(synthetic_target(path_join(path, dir, "target"), shape, 1, &err), err);
    assert_ok(synthetic_assistant(path_join(path, dir, "assistant"), shape, 2, &err), err);
    assert_ok(file_copy(TOKENIZER, path_join(path, dir, "target/tokenizer.json"), &err), err);
    write_prompts(path_join(path, dir, "train.jsonl"), "Train");
    write_prompts(path_join(path, dir, "eval.jsonl"), "Held-out");
}

static int run_program(const char *dir) {
    char command[8 * PATH_ROOM];
    snprintf(
        command, sizeof command,
        "./draftsmith run -q -c tests/smoke.json output_dir=%s/run model.target_path=%s/target "
        "model.assistant_path=%s/assistant model.adapter_path= data.train=%s/train.jsonl "
        "data.eval=%s/eval.jsonl data.template=large-2026-07-09 data.dev_fraction=0.3 "
        "regenerate.max_new_tokens=12 runtime.dtype=bf16 train.dtype=bf16 train.steps=5 "
        "train.batch_sequences=2 export.to=hf,mlx",
        dir, dir, dir, dir, dir);
    const int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void assert_report(const char *dir) {
    char path[PATH_ROOM];
    Err err = {0};
    json_t *report =
        json_read_file(path_join(path, dir, "run/eval/acceptance.json"), 1 << 24, &err);
    assert_ok(report != NULL, err);
    assert_int_equal(json_integer_value(json_object_get(report, "prompts")), 6);
    const json_t *drafters = json_object_get(report, "drafters");
    assert_non_null(json_object_get(drafters, "stock"));
    assert_non_null(json_object_get(drafters, "trained"));
    json_decref(report);
    assert_true(file_exists(path_join(path, dir, "run/export/hf/model.safetensors")));
    assert_true(file_exists(path_join(path, dir, "run/export/mlx/model.safetensors")));
}

static void whole_program(const char *name) {
    char dir[PATH_ROOM];
    Err err = {0};
    PairShape shape = *pair_shape(name);
    shape.layers = LAYERS;
    path_join(dir, test_dir(), name);
    assert_ok(dir_make(dir, &err), err);
    write_pair(dir, &shape);
    assert_int_equal(run_program(dir), 0);
    assert_report(dir);
    struct rusage use;
    getrusage(RUSAGE_CHILDREN, &use);
    print_message("compared: %s, %d layers: at most %.1f GiB resident\n", name, LAYERS,
                  (double)use.ru_maxrss / 1048576.0);
    assert_ok(dir_remove(dir, &err), err);
}

static void a_mixture_of_128_experts(void **state) {
    (void)state;
    whole_program("26b");
}
static void the_widest_dense_model(void **state) {
    (void)state;
    whole_program("31b");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_mixture_of_128_experts),
                                       cmocka_unit_test(the_widest_dense_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
