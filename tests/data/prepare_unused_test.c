// tests/data/prepare_unused_test.c - what the data hold and no model will see is counted.
#include "tests/data/prepare_helper.h"

static int64_t count_of(const Prepared *p, const char *what) {
    return json_integer_value(json_object_get(p->unused[INPUT_TRAIN].kinds, what));
}

static void what_no_model_will_see_is_counted(void **state) {
    (void)state;
    const char *text =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"One\",\"weight\":2},{\"role\":\"user\","
        "\"content\":\"b\",\"weight\":1},{\"role\":\"assistant\",\"content\":\"c\","
        "\"function_call\":{\"a\":1}}]}\n"
        "{\"conversations\":[{\"from\":\"human\",\"value\":\"Two\",\"weight\":2}]}\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Three\"}]}\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Four\"},{\"role\":\"assistant\","
        "\"content\":\"d\",\"reasoning\":\"e\"},{\"role\":\"user\",\"content\":\"f\"},"
        "{\"role\":\"assistant\",\"content\":\"g\"}]}\n";
    for (int i = 0; i < 4; i++) {
        const bool reference = i & 1, every = i & 2;
        Settings s = settings(save("u.jsonl", text), NULL,
                              (const char *[]){reference ? "regenerate.answers=reference"
                                                         : "regenerate.answers=target",
                                               every ? "data.turns=every" : "data.turns=last",
                                               "data.dev_fraction=0", NULL});
        Prepared p = prepared(&s);
        assert_int_equal(count_of(&p, "the message key \"weight\""), 2); // items
        assert_int_equal(count_of(&p, "the message key \"function_call\""), reference);
        // with every turn's answer it is learned from where it was written
        assert_int_equal(count_of(&p, "the reasoning of earlier turns"), !every);
        assert_int_equal(p.unused[INPUT_TRAIN].answers, reference ? 0 : every ? 3 : 2);
        json_t *o = prepared_json(&p), *train = json_object_get(o, "train");
        assert_int_equal(json_integer_value(json_object_get(train, "answers_not_used")),
                         p.unused[INPUT_TRAIN].answers);
        assert_true(json_equal(json_object_get(train, "left_out_by_template"),
                               p.unused[INPUT_TRAIN].kinds));
        json_decref(o);
        prepared_free(&p);
        settings_free(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_no_model_will_see_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
