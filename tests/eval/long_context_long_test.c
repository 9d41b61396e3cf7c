// tests/eval/long_context_long_test.c - 32,768 tokens on the demo pair, whose config says 8,192:
// capture, training and eval within the memory that their dry runs announced.
#include "tests/eval/long_context.h"

enum { TOKENS = 32768 };

static void thirty_thousand_tokens_fit_the_announced_memory(void **state) {
    (void)state;
    char *dir = long_dir("long", TOKENS);
    const Said said = run("capture -q " LONG_PAIR "output_dir=%s", dir);
    assert_int_equal(said.status, ERR_INPUT);
    assert_non_null(strstr(said.err, "has 32768 tokens, the target takes 8192"));
    long_stage(dir, "capture", "model.max_positions=32768");
    long_stage(dir, "train",
               "model.max_positions=32768 train.k=3 train.steps=2 train.batch_sequences=1 "
               "train.anchors=512 train.anchor_choice=visit");
    long_stage(dir, "eval", "model.max_positions=32768");
    json_t *report = read_json(dir, "eval/acceptance.json");
    assert_true(number(report, "tokens") == TOKENS - 16 - 1);
    json_decref(report);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thirty_thousand_tokens_fit_the_announced_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
