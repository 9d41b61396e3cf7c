// tests/eval/audit/audit_frozen_test.c - a drafter beside the stock one: what may differ, and what
// is named.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/audit/frozen.h"
#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/format/safetensors.h"
#include "tests/testing.h"

#define STOCK "configs/demo/stock-assistant"
static const StrList nothing = {0};
static char dir[PATH_ROOM];

// How the copy differs from the stock drafter.
typedef struct {
    const char *flip; // a bit of this tensor's first byte
    const char *drop, *rename, *reshape;
} Change;

static void copy_drafter(const Change *how) {
    static int number;
    char from[PATH_ROOM], to[PATH_ROOM], name[32];
    Err err = {0};
    snprintf(name, sizeof name, "d%d", number++);
    path_join(dir, test_dir(), name);
    assert_ok(dir_make(dir, &err), err);
    path_join(from, STOCK, "config.json");
    assert_ok(file_copy(from, path_join(to, dir, "config.json"), &err), err);
    StFile *f = st_open(STOCK, &err);
    assert_ok(f != NULL, err);
    StWriter *w = st_writer_open(path_join(to, dir, "model.safetensors"), &err);
    assert_ok(w != NULL, err);
    for (int i = 0; i < st_count(f); i++) {
        const StTensor *t = st_at(f, i);
        const bool flat = how->reshape && strcmp(t->name, how->reshape) == 0;
        const bool other = how->rename && strcmp(t->name, how->rename) == 0;
        if (how->drop && strcmp(t->name, how->drop) == 0) continue;
        assert_ok(st_writer_declare(w, other ? "model.other.weight" : t->name, t->dtype,
                                    flat ? 1 : t->rank, flat ? &t->count : t->dim, &err),
                  err);
    }
    assert_ok(st_writer_begin(w, &err), err);
    for (int i = 0; i < st_writer_count(w); i++) {
        const StTensor *t = st_find(f, st_writer_order(w, i)->name);
        if (t == NULL) t = st_find(f, how->rename);
        char *data = malloc((size_t)t->bytes);
        assert_ok(st_read(f, t, data, &err), err);
        if (how->flip && strcmp(t->name, how->flip) == 0) data[0] ^= 4;
        assert_ok(st_writer_data(w, data, t->bytes, &err), err);
        free(data);
    }
    assert_ok(st_writer_commit(w, &err), err);
    st_close(f);
}

// The first failure must hold `says`; "" means there is none.
static json_t *checked(const StrList *freeze, const char *says) {
    Err err = {0}, gate = {0};
    json_t *o = frozen_check(dir, STOCK, freeze, &err);
    assert_ok(o != NULL, err);
    assert_int_equal(frozen_gate(o, &gate), says[0] == '\0');
    assert_int_equal(json_is_true(json_object_get(o, "passed")), says[0] == '\0');
    if (says[0] != '\0' && (gate.code != ERR_GATE || strstr(gate.text, says) == NULL))
        fail_msg("%s, expected %s", gate.text, says);
    return o;
}

static size_t changed(const json_t *o) {
    return json_array_size(json_object_get(o, "changed"));
}

static void a_trained_tensor_may_change_and_is_listed(void **state) {
    (void)state;
    const Change how = {.flip = "model.layers.1.self_attn.q_proj.weight"};
    copy_drafter(&how);
    json_t *o = checked(&nothing, "");
    const json_t *one = json_array_get(json_object_get(o, "changed"), 0);
    const double relative = json_real_value(json_object_get(one, "relative"));
    assert_int_equal(changed(o), 1);
    assert_string_equal(json_string_value(json_object_get(one, "name")), how.flip);
    assert_true(relative > 0 && relative < 1e-2);
    assert_int_equal(json_integer_value(json_object_get(o, "frozen")), 5); // ordering, 4 scalars
    json_decref(o);
}

static void a_frozen_tensor_that_changed_is_named(void **state) {
    (void)state;
    static const char *const names[] = {"masked_embedding.token_ordering",
                                        "model.layers.2.layer_scalar"};
    for (int i = 0; i < 2; i++) {
        const Change how = {.flip = names[i]};
        copy_drafter(&how);
        json_decref(checked(&nothing, names[i]));
    }
    char *pattern[] = {(char *)"model.layers.1.*"}; // what this run was told not to train
    const StrList freeze = {pattern, 1};
    const Change how = {.flip = "model.layers.1.self_attn.q_proj.weight"};
    copy_drafter(&how);
    json_decref(checked(&freeze, how.flip));
}

static void names_and_shapes_are_those_of_the_stock(void **state) {
    (void)state;
    const Change how[] = {{.drop = "model.norm.weight"},
                          {.rename = "model.norm.weight"},
                          {.reshape = "pre_projection.weight"}};
    const char *const says[] = {"tensor model.norm.weight is missing",
                                "tensor model.norm.weight is missing",
                                "pre_projection.weight is BF16 [131072], the stock one BF16 "
                                "[256,512]"};
    for (int i = 0; i < 3; i++) {
        copy_drafter(&how[i]);
        json_t *o = checked(&nothing, says[i]);
        assert_int_equal(json_array_size(json_object_get(o, "failures")), i == 1 ? 2 : 1);
        json_decref(o);
    }
}

static void set_config(const char *section, const char *key, json_t *value) {
    char path[PATH_ROOM];
    Err err = {0};
    json_t *o = json_read_file(path_join(path, dir, "config.json"), 1 << 20, &err);
    assert_ok(o != NULL, err);
    json_t *in = section ? json_object_get(o, section) : o;
    assert_int_equal(value ? json_object_set_new(in, key, value) : json_object_del(in, key), 0);
    assert_ok(json_write_file(path, o, &err), err);
    json_decref(o);
}

static void load_bearing_fields_of_the_config_are_compared(void **state) {
    (void)state;
    const Change none = {0};
    copy_drafter(&none);
    set_config(NULL, "transformers_version", json_string("9.9")); // says nothing
    set_config("text_config", "num_experts", NULL);               // null before: the same
    set_config("text_config", "rms_norm_eps", json_real(1e-06));
    json_decref(checked(&nothing, ""));
    set_config("text_config", "sliding_window", json_integer(63));
    json_decref(checked(&nothing, "text_config.sliding_window is 63, the stock one has 64"));
    copy_drafter(&none);
    set_config(NULL, "centroid_intermediate_top_k", json_integer(8));
    json_decref(checked(&nothing, "centroid_intermediate_top_k is 8, the stock one has 16"));
}

static void the_stock_drafter_is_skipped_aloud(void **state) {
    (void)state;
    Err err = {0};
    char *text = NULL;
    size_t size;
    json_t *o = frozen_check(STOCK "/", STOCK, &nothing, &err);
    assert_ok(o != NULL && frozen_gate(o, &err), err);
    FILE *f = open_memstream(&text, &size);
    frozen_markdown(f, o);
    fclose(f);
    assert_non_null(strstr(text, "skipped, the drafter is the stock one"));
    free(text);
    json_decref(o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_trained_tensor_may_change_and_is_listed),
        cmocka_unit_test(a_frozen_tensor_that_changed_is_named),
        cmocka_unit_test(names_and_shapes_are_those_of_the_stock),
        cmocka_unit_test(load_bearing_fields_of_the_config_are_compared),
        cmocka_unit_test(the_stock_drafter_is_skipped_aloud),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
