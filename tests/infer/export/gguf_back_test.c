// tests/infer/export/gguf_back_test.c - imatrix and mixtures in GGUF files, and the files read
// back: by inspect, and as the drafters they are.
#include "infer/base/json.h"
#include "infer/export/describe.h"
#include "infer/export/gguf_importance.h"
#include "infer/export/gguf_mixed.h"
#include "infer/model/features.h"
#include "infer/model/weight_source.h"
#include "tests/infer/export/gguf_made.h"

static void an_imatrix_changes_bytes_and_is_recorded(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM], name[256];
    GgufMix m;
    const AssistantConfig c = made_config(SMALL_VOCAB);
    double mean[1024];
    ImatrixEntry entry[2];
    GgufImatrix im;
    for (int i = 0; i < 1024; i++) mean[i] = 0.01 + i % 7;
    memset(entry, 0, sizeof entry);
    assert_ok(imatrix_set(&entry[0], "blk.0.attn_q.weight", mean, 256, 64, &err), err);
    assert_ok(imatrix_set(&entry[1], "mtp_pre_proj.weight", mean, 1024, 64, &err), err);
    Imatrix file = {.dataset = "train", .chunks = 3, .chunk_size = 512, .n = 2, .entry = entry};
    imatrix_sort(&file);
    const char *dir = fresh_dir();
    path_join(path, dir, "imatrix.dat");
    assert_ok(imatrix_write_dat(path, &file, &err), err);
    assert_ok(gguf_imatrix_open(&im, path, GGUF_UNIVERSAL, &c, &err), err);
    assert_ok(gguf_mix_named(&m, "Q4_K_S", &err), err);
    void *data[2][3];
    static const char *const TENSORS[] = {"blk.0.attn_q.weight", "nextn.pre_projection.weight",
                                          "blk.0.ffn_up.weight"};
    for (int with = 0; with < 2; with++) {
        Made made = {0};
        GgufJob job = made_job(&c, &made, GGUF_UNIVERSAL);
        job.importance = with ? &im.importance : NULL;
        assert_ok(gguf_export(&job, &m, 1, dir, &err), err);
        GgufFile *f = open_in(dir, gguf_file_name(name, "made/one", m.name));
        assert_string_equal(value_text(f, "quantize.imatrix.file"),
                            with ? "text imatrix.dat" : "absent");
        assert_string_equal(value_text(f, "quantize.imatrix.entries_count"),
                            with ? "u32 2" : "absent");
        for (int i = 0; i < 3; i++) {
            const GgufTensor *t = gguf_find(f, TENSORS[i]);
            data[with][i] = malloc((size_t)t->bytes);
            assert_ok(gguf_read(f, t, data[with][i], &err), err);
        }
        gguf_close(f);
    }
    const size_t bytes[] = {256 * 144, 256 * 4 * 144, 512 * 144};
    assert_int_not_equal(memcmp(data[0][0], data[1][0], bytes[0]), 0);
    assert_int_not_equal(memcmp(data[0][1], data[1][1], bytes[1]), 0); // under its other name
    assert_int_equal(memcmp(data[0][2], data[1][2], bytes[2]), 0);     // has no entry
    for (int i = 0; i < 6; i++) free(data[i / 3][i % 3]);
    gguf_imatrix_close(&im);
    // columns of another drafter
    AssistantConfig wide = c;
    wide.text.hidden = 512;
    assert_false(gguf_imatrix_open(&im, path, GGUF_UNIVERSAL, &wide, &err));
    assert_non_null(
        strstr(err.text, "blk.0.attn_q.weight has 256 columns, the drafter's tensor 512"));
    gguf_imatrix_close(&im);
    for (int i = 0; i < 2; i++) free(entry[i].iw);
}

static void a_mixture_gives_every_module_its_type(void **state) {
    (void)state;
    Err err = {0};
    const AssistantConfig c = made_config(SMALL_VOCAB);
    MixModule module[] = {{"model.embed_tokens", mix_gguf(GGML_Q5_K), 0, 0},
                          {"model.layers.1.mlp.up_proj", mix_gguf(GGML_Q5_K), 0, 0},
                          {"post_projection", mix_gguf(GGML_BF16), 0, 0}};
    Mix file = {.format = MIX_GGUF, .n = 3, .module = module};
    GgufPin pin[3];
    GgufMix m;
    GgufEntry e[GGUF_ENTRIES_MAX];
    assert_ok(gguf_mix_of(&m, pin, &file, &c, &err), err);
    assert_true(m.own && m.file_type == 17);
    const int n = gguf_assistant_tensors(GGUF_IK, &c, e);
    for (int i = 0; i < n; i++) {
        const GgmlType want = e[i].role == GGUF_VECTOR                         ? GGML_F32
                              : strcmp(e[i].name, "token_embd.weight") == 0    ? GGML_Q5_K
                              : strcmp(e[i].name, "blk.1.ffn_up.weight") == 0  ? GGML_Q5_K
                              : strcmp(e[i].name, "mtp_post_proj.weight") == 0 ? GGML_BF16
                                                                               : GGML_Q8_0;
        assert_int_equal(gguf_mix_type(&m, &e[i], 4), want);
    }
    strcpy(module[1].module, "model.layers.7.mlp.up_proj");
    assert_false(gguf_mix_of(&m, pin, &file, &c, &err));
    assert_non_null(strstr(err.text, "module model.layers.7.mlp.up_proj is no matrix"));
}

static void inspect_tells_a_files_mix_keys_and_tensors(void **state) {
    (void)state;
    Err err = {0};
    Made made = {0};
    char path[PATH_ROOM];
    GgufMix m;
    const AssistantConfig c = made_config(SMALL_VOCAB);
    const GgufJob job = made_job(&c, &made, GGUF_UNIVERSAL);
    const char *dir = fresh_dir();
    assert_ok(gguf_mix_named(&m, "MXFP4", &err), err);
    assert_ok(gguf_export(&job, &m, 1, dir, &err), err);
    json_t *o = describe(path_join(path, dir, "mtp-made-one-MXFP4.gguf"), &err);
    if (o == NULL) fail_msg("%s", err.text);
    const json_t *keys = json_object_get(o, "keys");
    assert_string_equal(json_string_value(json_object_get(o, "kind")), "gguf");
    assert_string_equal(json_string_value(json_object_get(o, "mix")), "MXFP4");
    assert_int_equal(json_integer_value(json_object_get(o, "vocab")), SMALL_VOCAB);
    assert_int_equal(json_integer_value(json_object_get(o, "tensor_count")), 49);
    assert_int_equal(json_integer_value(json_object_get(keys, "general.file_type")), 38);
    assert_int_equal(json_integer_value(
                         json_object_get(json_object_get(keys, "tokenizer.ggml.tokens"), "count")),
                     SMALL_VOCAB);
    json_decref(o);
    o = describe(dir, &err);
    if (o == NULL) fail_msg("%s", err.text);
    assert_int_equal(json_array_size(json_object_get(o, "files")), 1);
    json_decref(o);
    assert_ok(file_write(path_join(path, dir, "broken.gguf"), "GGUF\3\0\0\0", 8, &err), err);
    assert_null(describe(dir, &err));
    assert_non_null(strstr(err.text, "broken.gguf: the number of tensors needs 8 bytes"));
}

// Two draft steps of a drafter over the same made features: y and the last feature.
static void draft(const char *artifact, const TargetConfig *tc, Tensor table, FeaturePack *pack,
                  Tensor *y, Tensor *f) {
    Env *env = test_env();
    Err err = {0};
    AttnSeg seg[2][PACK_SEQS_MAX];
    AnchorSet set;
    AnchorPlan plan;
    StepActs acts;
    const int32_t T[] = {3, 9, 20}, seq_of[] = {0, 0, 0}, token[] = {5, 900, 8000};
    const AssistantOptions o = {.dir = artifact,
                                .dtype = DT_F32,
                                .target_table = table,
                                .target_scale = (float)tc->embed_scale_f32};
    Assistant *a = assistant_open(env->dev, &o, &err);
    if (a == NULL) fail_msg("%s", err.text);
    const Tensor f0 = test_zeros(DT_F32, 3, 256);
    features_anchors(pack, env->dev, a, T, seq_of, 3, &set, seg[0], seg[1],
                     test_zeros(DT_I32, 1, 3), f0);
    anchor_plan(a, &set, &plan, &env->arena);
    assistant_acts_take(a, &acts, 3, false, &env->arena);
    for (int j = 0; j < 2; j++)
        assistant_step(a, &plan, test_ids(token, 3), j ? acts.f : f0, &acts, true);
    *y = test_zeros(DT_F32, 3, acts.y.cols);
    *f = test_zeros(DT_F32, 3, 256);
    memcpy(y->data, acts.y.data, tensor_bytes(acts.y));
    memcpy(f->data, acts.f.data, tensor_bytes(acts.f));
    assistant_close(a);
}

// The demo assistant is as wide as its target: the file for llama.cpp is widened, the other not.
static void a_file_read_back_drafts_as_the_folder_it_was_made_from(void **state) {
    (void)state;
    Err err = {0};
    Env *env = test_env();
    char path[PATH_ROOM];
    static TargetConfig tc;
    GgufMix m;
    const char *dir = fresh_dir(), *ik = fresh_dir();
    StFile *weights = st_open(STOCK, &err);
    const GgufRepoInputs in = {.stock_dir = STOCK,
                               .target_dir = TARGET,
                               .name = "demo",
                               .base_model = "",
                               .weights = hf_source_file(weights)};
    assert_ok(gguf_mix_named(&m, "BF16", &err), err);
    assert_ok(gguf_repo_files(&in, GGUF_UNIVERSAL, &m, 1, dir, &err), err);
    assert_ok(gguf_repo_files(&in, GGUF_IK, &m, 1, ik, &err), err);
    st_close(weights);
    assert_ok(target_config_load(&tc, TARGET, &err), err);
    FeaturePack pack;
    const int64_t rows = 24;
    features_take(&pack, &tc, rows, DT_F32, &env->arena);
    const Tensor table = test_random(DT_F32, 8192, 256), h = test_random(DT_F32, rows, 256);
    Tensor kv[4];
    for (int i = 0; i < 4; i++) kv[i] = test_random(DT_F32, rows, pack.kv_width[i % 2]);
    features_begin(&pack);
    features_load(&pack, env->dev, h.data, 0, (const void *[]){kv[0].data, kv[1].data},
                  (const void *[]){kv[2].data, kv[3].data}, rows);
    Tensor y[3], f[3];
    draft(STOCK, &tc, table, &pack, &y[0], &f[0]);
    draft(path_join(path, ik, "mtp-demo-BF16.gguf"), &tc, table, &pack, &y[1], &f[1]);
    draft(path_join(path, dir, "mtp-demo-BF16.gguf"), &tc, table, &pack, &y[2], &f[2]);
    assert_int_equal(memcmp(y[0].data, y[1].data, tensor_bytes(y[0])), 0); // every bit
    assert_int_equal(memcmp(f[0].data, f[1].data, tensor_bytes(f[0])), 0);
    assert_int_equal(y[2].cols, 1024);
    for (int r = 0; r < 3; r++)
        for (int i = 256; i < 1024; i++) assert_true(test_get(y[2], r, i) == 0.0f);
    // eps stands under heads' norms too, where nothing was widened: 1e-6 of a mean square
    assert_close("the feature of a widened drafter", f[2], f[0], 1e-4, 1e-4);
}

static void artifacts_of_another_sort_are_refused(void **state) {
    (void)state;
    Err err = {0};
    Made made = {0};
    GgufMix m;
    char path[PATH_ROOM];
    SourceTensor t;
    ArtifactInfo info;
    AssistantConfig c = made_config(SMALL_VOCAB), back;
    const GgufJob job = made_job(&c, &made, GGUF_UNIVERSAL);
    const char *dir = fresh_dir();
    assert_ok(gguf_mix_named(&m, "Q4_K_M-head4", &err), err);
    assert_ok(gguf_export(&job, &m, 1, dir, &err), err);
    path_join(path, dir, "mtp-made-one-Q4_K_M-head4.gguf");
    assert_true(weight_source_is(path) && weight_source_whole(path));
    assert_ok(weight_source_config(&back, path, &err), err);
    WeightSource *s = weight_source_open(path, &err);
    assert_non_null(s);
    weight_source_info(s, &back, &info);
    assert_string_equal(info.format, "GGUF");
    assert_string_equal(info.label, "Q4_K_M-head4, gemma4-assistant");
    assert_true(info.bits_per_weight > 4.4 && info.bits_per_weight < 5.5);
    assert_false(weight_source_find(s, "masked_embedding.token_ordering", &t));
    assert_true(weight_source_find(s, "model.layers.2.layer_scalar", &t));
    assert_int_equal(t.count, 1);
    assert_true(weight_source_find(s, "pre_projection.weight", &t));
    assert_true(t.rank == 2 && t.dim[0] == 256 && t.dim[1] == 1024);
    weight_source_close(s);
    // the architecture's name is the first value: another one
    size_t size;
    char *bytes = file_read(path, 1 << 30, &size, &err);
    char *at = memmem(bytes, 200, "gemma4-assistant", 16);
    at[6] = '+';
    assert_ok(file_write(path, bytes, size, &err), err);
    free(bytes);
    assert_null(weight_source_open(path, &err));
    assert_non_null(strstr(err.text, "architecture gemma4+assistant, supported: gemma4-assistant"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_imatrix_changes_bytes_and_is_recorded),
        cmocka_unit_test(a_mixture_gives_every_module_its_type),
        cmocka_unit_test(inspect_tells_a_files_mix_keys_and_tensors),
        cmocka_unit_test(a_file_read_back_drafts_as_the_folder_it_was_made_from),
        cmocka_unit_test(artifacts_of_another_sort_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
