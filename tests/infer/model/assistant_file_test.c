// tests/infer/model/assistant_file_test.c - what assistant_open refuses, and how it says so.
#include "tests/infer/model/golden_pair.h"

// A change of one tensor on the way from the golden assistant to a copy.
typedef struct {
    const char *name;
    const char *as; // written under this name; NULL: left out
    bool again;     // and under its own name too
    int64_t rows;   // 0: unchanged
    void (*edit)(void *data, int64_t bytes);
} Change;

static void write_tensors(StWriter *w, const StFile *from, const Change *c) {
    Err err = {0};
    for (int i = 0; i < st_count(from); i++) {
        const StTensor *t = st_at(from, i);
        int64_t dim[ST_RANK_MAX];
        memcpy(dim, t->dim, sizeof dim);
        const bool hit = strcmp(t->name, c->name) == 0;
        if (hit && c->rows) dim[0] = c->rows;
        if (!hit || c->again)
            assert_ok(st_writer_declare(w, t->name, t->dtype, t->rank, dim, &err), err);
        if (hit && c->as) assert_ok(st_writer_declare(w, c->as, t->dtype, t->rank, dim, &err), err);
    }
    assert_ok(st_writer_begin(w, &err), err);
    for (int i = 0; i < st_writer_count(w); i++) {
        const StTensor *t = st_writer_order(w, i);
        const bool changed = c->as && strcmp(t->name, c->as) == 0;
        const StTensor *source = st_find(from, changed ? c->name : t->name);
        char *data = malloc((size_t)source->bytes);
        assert_ok(st_read(from, source, data, &err), err);
        if (changed && c->edit) c->edit(data, source->bytes);
        assert_ok(st_writer_data(w, data, t->bytes, &err), err);
        free(data);
    }
    assert_ok(st_writer_commit(w, &err), err);
}

static const char *changed_copy(const Change *c) {
    static char dir[PATH_ROOM];
    char path[PATH_ROOM], from_path[PATH_ROOM];
    Err err = {0};
    snprintf(dir, sizeof dir, "%.200s/assistant", test_dir());
    assert_ok(dir_make(dir, &err), err);
    assert_ok(file_copy(pair_path("e2b", "assistant/config.json"),
                        path_join(path, dir, "config.json"), &err),
              err);
    StFile *from =
        st_open(path_join(from_path, pair_path("e2b", "assistant"), "model.safetensors"), &err);
    if (from == NULL) fail_msg("%s", err.text);
    StWriter *w = st_writer_open(path_join(path, dir, "model.safetensors"), &err);
    if (w == NULL) fail_msg("%s", err.text);
    write_tensors(w, from, c);
    st_close(from);
    return dir;
}

static void expect(const Change *c, const char *message) {
    Env *env = test_env();
    Err err = {0};
    const AssistantOptions o = {.dir = changed_copy(c),
                                .dtype = DT_F32,
                                .target_table = test_zeros(DT_F32, 256, 48),
                                .target_scale = 1};
    Assistant *a = assistant_open(env->dev, &o, &err);
    if (message == NULL) {
        if (a == NULL) fail_msg("%s", err.text);
        assistant_close(a);
        return;
    }
    assert_null(a);
    assert_int_equal(err.code, ERR_INPUT);
    if (strstr(err.text, message) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.text, message);
}

static void twice_the_first(void *data, int64_t bytes) {
    memcpy((char *)data + bytes - 8, data, 8);
}
static void beyond(void *data, int64_t bytes) {
    ((int64_t *)data)[bytes / 8 - 1] = 256;
}
static void negative(void *data, int64_t bytes) {
    ((int64_t *)data)[bytes / 8 - 1] = -1;
}
static void flip_last(void *data, int64_t bytes) {
    ((char *)data)[bytes - 1] ^= 1;
}

#define ORDERING "masked_embedding.token_ordering"
#define TABLE "model.embed_tokens.weight"

static void faithful_copies_open(void **state) {
    (void)state;
    expect(&(Change){.name = "nothing"}, NULL);
    expect(&(Change){.name = TABLE, .as = "lm_head.weight", .again = true}, NULL);
}

static void missing_and_misshapen_tensors_are_named(void **state) {
    (void)state;
    expect(&(Change){.name = "model.layers.2.mlp.up_proj.weight"},
           "no tensor model.layers.2.mlp.up_proj.weight");
    expect(&(Change){.name = "model.layers.1.layer_scalar"},
           "no tensor model.layers.1.layer_scalar");
    expect(&(Change){.name = ORDERING}, "no tensor " ORDERING);
    expect(&(Change){.name = "post_projection.weight", .as = "post_projection.weight", .rows = 47},
           "post_projection.weight has shape [47, 28], the configuration says [48, 28]");
    expect(&(Change){.name = ORDERING, .as = ORDERING, .rows = 255},
           "has 255 values, the vocabulary has 256");
}

static void orderings_that_are_no_permutation_are_refused(void **state) {
    (void)state;
    expect(&(Change){.name = ORDERING, .as = ORDERING, .edit = twice_the_first},
           "stands in two slots");
    expect(&(Change){.name = ORDERING, .as = ORDERING, .edit = beyond}, "slot 255 holds token 256");
    expect(&(Change){.name = ORDERING, .as = ORDERING, .edit = negative},
           "slot 255 holds token -1");
}

static void another_head_is_refused(void **state) {
    (void)state;
    expect(&(Change){.name = TABLE, .as = "lm_head.weight", .again = true, .edit = flip_last},
           "lm_head.weight differs");
}

static void a_target_of_another_width_is_refused(void **state) {
    (void)state;
    Err err = {0};
    const AssistantOptions o = {.dir = pair_path("e2b", "assistant"),
                                .dtype = DT_F32,
                                .target_table = test_zeros(DT_F32, 256, 40),
                                .target_scale = 1};
    assert_null(assistant_open(test_env()->dev, &o, &err));
    assert_non_null(strstr(err.text, "256 x 40, the assistant expects 256 x 48"));
}

static void bf16_weights_are_those_of_the_file(void **state) {
    (void)state;
    Err err = {0};
    const Tensor table = test_zeros(DT_F32, 256, 48);
    AssistantOptions o = {
        .dir = pair_path("e2b", "assistant"), .dtype = DT_BF16, .target_table = table};
    Assistant *b = assistant_open(test_env()->dev, &o, &err);
    o.dtype = DT_F32;
    Assistant *f = assistant_open(test_env()->dev, &o, &err);
    if (b == NULL || f == NULL) fail_msg("%s", err.text);
    AssistantParam p[ASSISTANT_PARAMS_MAX], q[ASSISTANT_PARAMS_MAX];
    const int n = assistant_params(&b->cfg, &b->w, p);
    assistant_params(&f->cfg, &f->w, q);
    for (int i = 0; i < n; i++) assert_close(p[i].name, *p[i].tensor, *q[i].tensor, 0, 0);
    for (int64_t v = 0; v < 256; v++) // the inverse of the ordering
        assert_int_equal(((int32_t *)f->cluster_of.data)[((int32_t *)f->ordering.data)[v]],
                         v / f->ordering.cols);
    assistant_close(b);
    assistant_close(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faithful_copies_open),
        cmocka_unit_test(missing_and_misshapen_tensors_are_named),
        cmocka_unit_test(orderings_that_are_no_permutation_are_refused),
        cmocka_unit_test(another_head_is_refused),
        cmocka_unit_test(a_target_of_another_width_is_refused),
        cmocka_unit_test(bf16_weights_are_those_of_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
