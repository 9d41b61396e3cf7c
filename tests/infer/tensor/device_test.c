// tests/infer/tensor/device_test.c - opening by name, memory, transfers, self-description; tensor
// views.
#include <stdlib.h>

#include "infer/tensor/ceiling.h"
#include "tests/infer/tensor/op_testing.h"

static void devices_open_by_name(void **state) {
    (void)state;
    const char *good[] = {"auto", "cpu"}, *bad[] = {"", "gpu", "cpu:1", "cudax"};
    for (int i = 0; i < 2; i++) {
        Err err = {0};
        Device *dev = dev_open(good[i], 1, &err);
        assert_ok(dev != NULL, err);
        assert_int_equal(dev->threads, 1);
        dev_close(dev);
    }
    for (int i = 0; i < 4; i++) {
        Err err = {0};
        assert_null(dev_open(bad[i], 1, &err));
        assert_int_equal(err.code, ERR_USAGE);
    }
    Err err = {0};
    assert_null(dev_open("cpu", -1, &err));
    assert_int_equal(err.code, ERR_USAGE);
    dev_close(NULL);
}

static void cuda_without_cuda_says_how_to_build_it(void **state) {
    (void)state;
    Err err = {0};
    Device *dev = dev_open("cuda:1", 0, &err);
    if (dev != NULL || strstr(err.text, "without CUDA") == NULL) { // a CUDA build has its own tests
        dev_close(dev);
        skip();
    }
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "cuda:1"));
    assert_non_null(strstr(err.text, "CUDA=1"));
}

static void memory_is_aligned_and_zero(void **state) {
    (void)state;
    Device *dev = test_env()->dev;
    const size_t size[] = {0, 1, 100, 1 << 20};
    for (int i = 0; i < 4; i++) {
        Err err = {0};
        unsigned char *p = dev_alloc(dev, size[i], &err);
        assert_ok(p != NULL, err);
        assert_int_equal((uintptr_t)p % ARENA_ALIGN, 0);
        for (size_t k = 0; k < size[i]; k++) assert_int_equal(p[k], 0);
        memset(p, 0xff, size[i]);
        dev_free(dev, p);
    }
    Err err = {0};
    assert_null(dev_alloc(dev, SIZE_MAX, &err));
    assert_int_equal(err.code, ERR_FAILED);
    assert_ok(dev_sync(dev, &(Err){0}), err);
    dev_free(dev, NULL);
}

static void transfers_pack_rows(void **state) {
    (void)state;
    Device *dev = test_env()->dev;
    Tensor x = strided(DT_BF16, 3, 17);
    bf16 packed[3 * 17], back[3 * 17];
    for (int i = 0; i < 3 * 17; i++) packed[i] = bf16_from_f32((float)i);
    dev_upload(dev, x, packed);
    for (int i = 0; i < 3 * 17; i++) assert_true(test_get(x, i / 17, i % 17) == (float)i);
    dev_download(dev, back, x);
    assert_memory_equal(packed, back, sizeof back);
    Err err = {0};
    memset(back, 0, sizeof back);
    dev_download_begin(dev, back, x); // by the host: over when it returns
    assert_memory_equal(packed, back, sizeof back);
    assert_ok(dev_download_end(dev, &err), err);
}

static int lines;
static void count_line(void *ctx, const char *name, const char *value) {
    assert_ptr_equal(ctx, &lines);
    assert_true(name[0] != '\0' && value[0] != '\0');
    lines++;
}

static void a_device_describes_itself(void **state) {
    (void)state;
    dev_describe(test_env()->dev, count_line, &lines);
    assert_true(lines >= 4);
}

static void views_keep_their_place(void **state) {
    (void)state;
    float v[4 * 10];
    for (int i = 0; i < 40; i++) v[i] = (float)i;
    const Tensor t = tensor_of(v, DT_F32, 4, 10), rows = tensor_rows(t, 1, 2),
                 cols = tensor_cols(rows, 3, 5);
    assert_true(test_get(rows, 1, 9) == 29.0f && test_get(cols, 1, 4) == 27.0f);
    assert_int_equal(cols.ld, 10);
    assert_false(tensor_is_contiguous(cols));
    assert_int_equal(tensor_count(cols), 10);
    assert_int_equal(tensor_bytes(t), 160);
    const Tensor flat = tensor_view(t, 1, 40);
    assert_true(test_get(flat, 0, 39) == 39.0f);
    assert_null(tensor_rows(tensor_of(NULL, DT_F32, 4, 10), 2, 2).data);
    assert_string_equal(dtype_name(DT_BF16), "BF16");
    assert_int_equal(dtype_size(DT_I64), 8);
}

static void an_arena_prices_tensors(void **state) {
    (void)state;
    Arena plan;
    arena_open(&plan, NULL, 0);
    assert_null(tensor_take(&plan, DT_F32, 3, 17).data);
    assert_null(tensor_take(&plan, DT_BF16, 1, 1).data);
    assert_int_equal(plan.peak, 256 + 64);
}

static void the_gemm_ceiling_is_plausible(void **state) {
    (void)state;
    const double f32 = device_gemm_ceiling(test_env()->dev, DT_F32, 256, 256, 256);
    const double narrow = device_gemm_ceiling(test_env()->dev, DT_BF16, 256, 256, 256);
    assert_true(f32 > 0.1 && f32 < 1e6);
    assert_true(narrow > 0.1 && narrow < 1e6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices_open_by_name),
        cmocka_unit_test(cuda_without_cuda_says_how_to_build_it),
        cmocka_unit_test(memory_is_aligned_and_zero),
        cmocka_unit_test(transfers_pack_rows),
        cmocka_unit_test(a_device_describes_itself),
        cmocka_unit_test(views_keep_their_place),
        cmocka_unit_test(an_arena_prices_tensors),
        cmocka_unit_test(the_gemm_ceiling_is_plausible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
