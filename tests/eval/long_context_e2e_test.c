// tests/eval/long_context_e2e_test.c - 4,096 tokens in chunks and at once; announced memory is
// kept; sequences beyond the target's positions are refused.
#include "tests/eval/long_context.h"

enum { TOKENS = 4096 };

static void a_text_in_chunks_is_the_text_at_once(void **state) {
    (void)state;
    char *chunks = long_dir("chunks", TOKENS), *whole = long_dir("whole", TOKENS);
    long_stage(chunks, "capture", "capture.chunk=192");
    long_stage(whole, "capture", "capture.chunk=4096");
    assert_same_capture(chunks, whole);
    long_stage(chunks, "eval", "capture.chunk=192");
    assert_status(run("eval -q " LONG_PAIR "output_dir=%s", whole), 0);
    json_t *a = read_json(chunks, "eval/acceptance.json"),
           *b = read_json(whole, "eval/acceptance.json");
    assert_true(number(a, "tokens") == TOKENS - 16 - 1);
    assert_true(json_equal(at(a, "drafters.stock.greedy"), at(b, "drafters.stock.greedy")));
    json_decref(a);
    json_decref(b);
}

static void training_draws_anchors_within_what_it_announced(void **state) {
    (void)state;
    char *dir = long_dir("train", TOKENS);
    assert_status(run("capture -q " LONG_PAIR "output_dir=%s", dir), 0);
    long_stage(dir, "train",
               "train.k=3 train.steps=2 train.batch_sequences=1 train.anchors=256 "
               "train.anchor_choice=visit train.step_weights=visit train.tile=100");
}

static void sequences_beyond_the_positions_are_refused(void **state) {
    (void)state;
    char *dir = long_dir("beyond", TOKENS);
    Said said = run("capture -q " LONG_PAIR "output_dir=%s model.max_positions=4000", dir);
    assert_int_equal(said.status, ERR_INPUT);
    assert_non_null(strstr(said.err, "sequence long-train has 4096 tokens, the target takes 4000 "
                                     "(max_position_embeddings; model.max_positions"));
    assert_ptr_equal(strchr(said.err, '\n'), said.err + strlen(said.err) - 1);
    said = run("prepare -q " LONG_PAIR "output_dir=%s data.max_length=9000", dir);
    assert_int_equal(said.status, ERR_USAGE);
    assert_non_null(strstr(said.err, "data.max_length is 9000, the target takes 8192"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_in_chunks_is_the_text_at_once),
        cmocka_unit_test(training_draws_anchors_within_what_it_announced),
        cmocka_unit_test(sequences_beyond_the_positions_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
