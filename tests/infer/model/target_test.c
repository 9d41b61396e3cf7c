// tests/infer/model/target_test.c - files of other tools give the same model, files that do not fit
// are refused by name, and what is exported is what was run.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/model/target.h"
#include "infer/model/weights.h"
#include "tests/testing.h"

enum { TOKENS = 12 };
#define SOURCE "tests/golden/e2b/target"
#define PREFIX "model.language_model."

static const char *fresh_dir(void) {
    static char dir[16][PATH_ROOM];
    static int turn;
    char name[32];
    Err err = {0};
    snprintf(name, sizeof name, "target-%d", turn);
    assert_ok(dir_make(path_join(dir[turn % 16], test_dir(), name), &err), err);
    return dir[turn++ % 16];
}

// How a copy of the source differs from it.
typedef struct {
    const char *prefix; // in place of model.language_model.
    const char *drop;   // a canonical name left out
    const char *add;    // a tensor more, a copy of the source's tensor add_from
    const char *add_from;
    bool spoil_added;   // one bit of it changes
    const char *shard;  // tensors whose name holds this go to a second shard
    const char *config; // JSON merged into text_config
} Change;

static void put_tensor(StWriter *w, const StFile *f, const char *from, bool spoil) {
    Err err = {0};
    const StTensor *t = st_find(f, from);
    char *data = malloc((size_t)t->bytes);
    assert_ok(st_read(f, t, data, &err), err);
    if (spoil) data[t->bytes - 1] ^= 1;
    assert_ok(st_writer_data(w, data, t->bytes, &err), err);
    free(data);
}

static void new_name(const Change *c, const char *key, char out[256]) {
    snprintf(out, 256, "%s%s", c->prefix != NULL ? c->prefix : PREFIX, key + strlen(PREFIX));
}

// part 0 or 1 of a split file; -1: everything
static void write_part(const Change *c, const StFile *f, const char *path, int part) {
    Err err = {0};
    char name[256], canonical[256];
    StWriter *w = st_writer_open(path, &err);
    assert_ok(w != NULL, err);
    st_writer_metadata(w, "format", "pt");
    for (int i = 0; i < st_count(f); i++) {
        const StTensor *t = st_at(f, i);
        assert_true(weight_canonical(t->name, canonical));
        if (c->drop != NULL && strcmp(canonical, c->drop) == 0) continue;
        if (part >= 0 && (strstr(t->name, c->shard) != NULL) != (part == 1)) continue;
        new_name(c, t->name, name);
        assert_ok(st_writer_declare(w, name, t->dtype, t->rank, t->dim, &err), err);
    }
    if (c->add != NULL) {
        const StTensor *t = st_find(f, c->add_from);
        assert_ok(st_writer_declare(w, c->add, t->dtype, t->rank, t->dim, &err), err);
    }
    assert_ok(st_writer_begin(w, &err), err);
    for (int i = 0; i < st_writer_count(w); i++) {
        const char *key = st_writer_order(w, i)->name;
        if (c->add != NULL && strcmp(key, c->add) == 0) {
            put_tensor(w, f, c->add_from, c->spoil_added);
            continue;
        }
        snprintf(name, sizeof name, PREFIX "%s",
                 key + strlen(c->prefix != NULL ? c->prefix : PREFIX));
        put_tensor(w, f, name, false);
    }
    assert_ok(st_writer_commit(w, &err), err);
}

static void write_index(const Change *c, const StFile *f, const char *dir) {
    static const char *const FILES[] = {"model-00001-of-00002.safetensors",
                                        "model-00002-of-00002.safetensors"};
    char path[PATH_ROOM];
    Err err = {0};
    json_t *map = json_object();
    for (int i = 0; i < st_count(f); i++) {
        const char *name = st_at(f, i)->name;
        json_object_set_new(map, name, json_string(FILES[strstr(name, c->shard) != NULL]));
    }
    json_t *root = json_pack("{s:{s:i}, s:o}", "metadata", "total_size", 0, "weight_map", map);
    assert_ok(json_write_file(path_join(path, dir, "model.safetensors.index.json"), root, &err),
              err);
    json_decref(root);
    for (int i = 0; i < 2; i++) write_part(c, f, path_join(path, dir, FILES[i]), i);
}

static const char *variant(Change c) {
    const char *dir = fresh_dir();
    char path[PATH_ROOM];
    Err err = {0};
    json_t *config = json_read_file(SOURCE "/config.json", 1 << 20, &err);
    assert_ok(config != NULL, err);
    if (c.config != NULL) {
        json_t *more = json_loads(c.config, 0, NULL);
        json_object_update(json_object_get(config, "text_config"), more);
        json_decref(more);
    }
    assert_ok(json_write_file(path_join(path, dir, "config.json"), config, &err), err);
    json_decref(config);
    StFile *f = st_open(SOURCE, &err);
    assert_ok(f != NULL, err);
    if (c.shard != NULL)
        write_index(&c, f, dir);
    else
        write_part(&c, f, path_join(path, dir, "model.safetensors"), -1);
    st_close(f);
    return dir;
}

// A LoRA of rank 2 over the given modules of layer widths out, in.
typedef struct {
    const char *module;
    int64_t out, in;
} Lora;

static const char *adapter(const Lora *lora, int n) {
    const char *dir = fresh_dir(), *config = "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4}";
    char path[PATH_ROOM], name[256];
    Err err = {0};
    assert_ok(file_write(path_join(path, dir, "adapter_config.json"), config, strlen(config), &err),
              err);
    StWriter *w = st_writer_open(path_join(path, dir, "adapter_model.safetensors"), &err);
    assert_ok(w != NULL, err);
    for (int i = 0; i < 2 * n; i++) {
        const Lora *l = &lora[i / 2];
        snprintf(name, sizeof name, "base_model.model." PREFIX "%s.lora_%c.weight", l->module,
                 "AB"[i % 2]);
        const int64_t a[2] = {2, l->in}, b[2] = {l->out, 2};
        assert_ok(st_writer_declare(w, name, "F32", 2, i % 2 ? b : a, &err), err);
    }
    assert_ok(st_writer_begin(w, &err), err);
    for (int i = 0; i < st_writer_count(w); i++)
        for (int64_t k = 0; k < st_writer_order(w, i)->count; k++) {
            const float x = (float)((k * 37 + i * 11) % 41 - 20) / 60.0f;
            assert_ok(st_writer_data(w, &x, 4, &err), err);
        }
    assert_ok(st_writer_commit(w, &err), err);
    return dir;
}

static Target *try_open(const char *dir, const char *lora, Err *err) {
    const TargetOptions opt = {.dir = dir, .adapter = lora, .dtype = DT_F32, .max_rows = TOKENS};
    return target_open(test_env()->dev, &opt, err);
}

static Tensor run(const char *dir, const char *lora, Sha256 *fingerprint) {
    Err err = {0};
    Target *t = try_open(dir, lora, &err);
    assert_ok(t != NULL, err);
    const TextConfig *c = &target_config(t)->text;
    const Tensor hidden = test_zeros(DT_F32, TOKENS, c->hidden);
    KvCache *kv = kv_open(test_env()->dev, c, 1, TOKENS, TOKENS, false, DT_F32, &err);
    assert_ok(kv != NULL, err);
    const int32_t ids[TOKENS] = {2, 7, 9, 200, 13, 3, 77, 78, 79, 5, 5, 100};
    target_forward(t, kv, &(TargetPiece){.count = TOKENS}, 1, ids, hidden, NULL);
    if (fingerprint != NULL) assert_ok(target_fingerprint(fingerprint, dir, lora, NULL, &err), err);
    kv_close(kv);
    target_close(t);
    return hidden;
}

static void the_table_alone_is_the_one_of_the_whole(void **state) {
    (void)state;
    Err err = {0};
    const char *bare = variant((Change){.drop = "layers.2.mlp.up_proj.weight"});
    for (int d = 0; d < 2; d++) {
        TargetOptions opt = {.dir = SOURCE, .dtype = d ? DT_F32 : DT_BF16, .max_rows = 1};
        Target *whole = target_open(test_env()->dev, &opt, &err);
        opt.max_rows = 0;
        opt.dir = bare; // nothing else is looked for
        Target *table = target_open(test_env()->dev, &opt, &err);
        assert_ok(whole != NULL && table != NULL, err);
        const Tensor a = test_host(target_embedding(whole)), b = test_host(target_embedding(table));
        assert_true(a.dtype == b.dtype && a.rows == b.rows && a.cols == b.cols);
        assert_memory_equal(a.data, b.data, tensor_bytes(a));
        assert_true(target_embed_scale(whole) == target_embed_scale(table));
        target_close(whole);
        target_close(table);
    }
}

static void assert_same(Tensor a, Tensor b, bool same) {
    assert_int_equal(memcmp(a.data, b.data, tensor_bytes(a)) == 0, same);
}

static void assert_refused(const char *dir, const char *lora, const char *message) {
    Err err = {0};
    if (try_open(dir, lora, &err) != NULL) fail_msg("accepted, expected: %s", message);
    if (strstr(err.text, message) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.text, message);
    assert_int_equal(err.code, ERR_INPUT);
}

static void files_of_every_tool_give_the_same_model(void **state) {
    (void)state;
    const Tensor want = run(SOURCE, NULL, NULL);
    assert_same(run(variant((Change){.prefix = "language_model.model."}), NULL, NULL), want, true);
    assert_same(run(variant((Change){.prefix = "model."}), NULL, NULL), want, true);
    assert_same(
        run(variant((Change){.prefix = "base_model.model.model.language_model."}), NULL, NULL),
        want, true);
    assert_same(run(variant((Change){.prefix = ""}), "", NULL), want, true);
    assert_same(run(variant((Change){.shard = "mlp"}), NULL, NULL), want, true);
    assert_same(run(variant((Change){.drop = "layers.9.self_attn.k_proj.weight"}), NULL, NULL),
                want, true);
    assert_same(
        run(variant((Change){.add = "lm_head.weight", .add_from = PREFIX "embed_tokens.weight"}),
            NULL, NULL),
        want, true);
    assert_same(
        run(variant((Change){.add = "model.vision_tower.x", .add_from = PREFIX "norm.weight"}),
            NULL, NULL),
        want, true);
}

static void files_that_do_not_fit_are_refused_by_name(void **state) {
    (void)state;
    const char *moe = "{\"enable_moe_block\":true,\"num_experts\":8,\"top_k_experts\":2,"
                      "\"moe_intermediate_size\":4}";
    assert_refused(variant((Change){.config = moe}), NULL, "no tensor layers.0.router.proj.weight");
    assert_refused(variant((Change){.drop = "layers.2.mlp.up_proj.weight"}), NULL,
                   "no tensor layers.2.mlp.up_proj.weight");
    assert_refused(variant((Change){.drop = "layers.2.layer_scalar"}), NULL,
                   "no tensor layers.2.layer_scalar");
    assert_refused(variant((Change){.drop = "embed_tokens_per_layer.weight"}), NULL,
                   "no tensor embed_tokens_per_layer.weight");
    assert_refused(variant((Change){.config = "{\"intermediate_size\":89}"}), NULL,
                   "mlp.gate_proj.weight is [88, 48], config.json makes it [89, 48]");
    assert_refused(variant((Change){.config = "{\"use_double_wide_mlp\":false}"}), NULL,
                   "layers.6.mlp.gate_proj.weight is [176, 48]");
    assert_refused(variant((Change){.config = "{\"hidden_size_per_layer_input\":0}"}), NULL,
                   "is no part of the model config.json describes");
    assert_refused(variant((Change){.add = PREFIX "layers.0.self_attn.q_proj.bias",
                                    .add_from = PREFIX "norm.weight"}),
                   NULL, "layers.0.self_attn.q_proj.bias is no part");
    assert_refused(variant((Change){.add = "lm_head.weight",
                                    .add_from = PREFIX "embed_tokens.weight",
                                    .spoil_added = true}),
                   NULL, "lm_head.weight differs from embed_tokens.weight");
    assert_refused(variant((Change){.config = "{\"tie_word_embeddings\":false}"}), NULL,
                   "tie_word_embeddings is false");
    const Lora nowhere[] = {{"layers.10.mlp.up_proj", 88, 48}},
               wrong[] = {{"layers.0.mlp.up_proj", 87, 48}};
    assert_refused(SOURCE, adapter(nowhere, 1),
                   "module layers.10.mlp.up_proj has no weight in the model");
    assert_refused(SOURCE, adapter(wrong, 1), "maps 48 to 87 values, its weight maps 48 to 88");
}

static void a_truncated_model_is_refused(void **state) {
    (void)state;
    Err err = {0};
    size_t size = 0;
    char path[PATH_ROOM];
    const char *dir = variant((Change){0});
    char *data = file_read(path_join(path, dir, "model.safetensors"), 1 << 26, &size, &err);
    assert_ok(data != NULL, err);
    const size_t cuts[] = {0, 7, 8, 5000, size / 2, size - 1};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        assert_ok(file_write(path, data, cuts[i], &err), err);
        assert_refused(dir, NULL, "model.safetensors");
    }
    free(data);
}

static const Lora LORA[] = {{"layers.0.mlp.up_proj", 88, 48},
                            {"layers.4.self_attn.o_proj", 48, 192},
                            {"layers.8.self_attn.q_proj", 96, 48},
                            {"layers.3.per_layer_projection", 48, 16}};

static void assert_same_file(const char *dir_a, const char *dir_b, const char *name) {
    char a[PATH_ROOM], b[PATH_ROOM];
    size_t n[2];
    Err err = {0};
    char *x = file_read(path_join(a, dir_a, name), 1 << 26, &n[0], &err);
    char *y = file_read(path_join(b, dir_b, name), 1 << 26, &n[1], &err);
    assert_ok(x != NULL && y != NULL, err);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(x, y, n[0]);
    free(x);
    free(y);
}

static void an_exported_target_is_the_one_that_ran(void **state) {
    (void)state;
    Err err = {0};
    Sha256 plain_id, merged_id;
    char out[PATH_ROOM];
    const char *lora = adapter(LORA, 4);
    const Tensor plain = run(SOURCE, NULL, &plain_id), merged = run(SOURCE, lora, &merged_id);
    assert_same(plain, merged, false);
    assert_string_not_equal(plain_id.hex, merged_id.hex);
    path_join(out, fresh_dir(), "merged");
    assert_ok(target_export(SOURCE, lora, out, &err), err);
    assert_same(run(out, NULL, NULL), merged, true);
    assert_same_file(SOURCE, out, "config.json");
    assert_same_file(SOURCE, out, "generation_config.json");
    path_join(out, fresh_dir(), "plain");
    assert_ok(target_export(SOURCE, "", out, &err), err);
    assert_same_file(SOURCE, out, "model.safetensors");
    const char *sharded = variant((Change){.shard = "mlp"});
    path_join(out, fresh_dir(), "sharded");
    assert_ok(target_export(sharded, lora, out, &err), err);
    assert_same(run(out, NULL, NULL), merged, true);
    assert_same_file(sharded, out, "model.safetensors.index.json");
}

static void an_export_that_cannot_be_whole_writes_nothing(void **state) {
    (void)state;
    const Lora nowhere[] = {{"layers.0.mlp.up_proj", 88, 48}, {"layers.77.mlp.up_proj", 88, 48}};
    Err err = {0};
    char out[PATH_ROOM];
    path_join(out, fresh_dir(), "out");
    assert_false(target_export(SOURCE, adapter(nowhere, 2), out, &err));
    assert_non_null(strstr(err.text, "module layers.77.mlp.up_proj has no weight"));
    assert_false(dir_exists(out));
}

// Only what is merged changes, and it changes to the rounded sum.
static void a_merged_weight_is_rounded_once(void **state) {
    (void)state;
    Err err = {0};
    char out[PATH_ROOM];
    const char *lora = adapter(LORA, 4);
    path_join(out, fresh_dir(), "merged");
    assert_ok(target_export(SOURCE, lora, out, &err), err);
    StFile *a = st_open(SOURCE, &err), *b = st_open(out, &err);
    Adapter *ad = adapter_open(lora, &err);
    assert_ok(a != NULL && b != NULL && ad != NULL, err);
    int changed = 0;
    for (int i = 0; i < st_count(a); i++) {
        const StTensor *t = st_at(a, i), *u = st_at(b, i);
        assert_string_equal(t->name, u->name);
        assert_string_equal(t->dtype, u->dtype);
        float *x = malloc((size_t)t->count * sizeof *x), *y = malloc((size_t)t->count * sizeof *y);
        assert_ok(st_read_f32(a, t, x, &err) && st_read_f32(b, u, y, &err), err);
        char module[256];
        bool merged = false;
        assert_true(weight_canonical(t->name, module));
        char *dot = strstr(module, ".weight");
        if (dot != NULL) *dot = '\0';
        if (t->rank == 2)
            assert_ok(adapter_merge(ad, module, x, t->dim[0], t->dim[1], &merged, &err), err);
        for (int64_t k = 0; k < t->count; k++)
            assert_true(y[k] == (merged ? round_bf16(x[k]) : x[k]));
        changed += merged;
        free(x);
        free(y);
    }
    assert_int_equal(changed, 4);
    adapter_close(ad);
    st_close(a);
    st_close(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_alone_is_the_one_of_the_whole),
        cmocka_unit_test(files_of_every_tool_give_the_same_model),
        cmocka_unit_test(files_that_do_not_fit_are_refused_by_name),
        cmocka_unit_test(a_truncated_model_is_refused),
        cmocka_unit_test(an_exported_target_is_the_one_that_ran),
        cmocka_unit_test(an_export_that_cannot_be_whole_writes_nothing),
        cmocka_unit_test(a_merged_weight_is_rounded_once),
    };
    log_set_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
