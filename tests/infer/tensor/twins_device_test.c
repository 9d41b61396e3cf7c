// tests/infer/tensor/twins_device_test.c - the CUDA device itself: memory, transfers of every shape
// through its two halves of pinned memory, what is said of failures.
#include <sys/wait.h>
#include <unistd.h>

#include "tests/infer/tensor/twins.h"

enum { HALF_BYTES = 8 << 20 }; // of staging.cu

static void fail_on_command(void) {
    Err err = {0};
    setenv("CUDA_HOST_FAIL", "3", 1);
    Device *dev = dev_open("cuda", 1, &err);
    if (dev == NULL) _exit(2);
    void *p = dev_alloc(dev, 4096, &err);
    if (p == NULL) _exit(3);
    const Tensor x = tensor_of(p, DT_F32, 4, 256);
    op_zero(dev, x);
    op_softcap(dev, x, 2.0f);
    op_axpby(dev, x, x, 2.0f, 0.0f); // the third launch
    op_copy(dev, tensor_rows(x, 0, 1), tensor_rows(x, 1, 1));
    if (dev_sync(dev, &err)) _exit(4);
    if (strstr(err.text, "axpby") == NULL || strstr(err.text, "unspecified launch failure") == NULL)
        _exit(5);
    float back[4 * 256]; // nothing waits for ever, nothing overwrites the first failure
    dev_download(dev, back, x);
    dev_upload(dev, x, back);
    op_gather(dev, x, x, tensor_of(p, DT_I32, 1, 4), 1.0f);
    Err again = {0};
    if (dev_sync(dev, &again) || strcmp(again.text, err.text) != 0) _exit(6);
    again = (Err){0};
    dev_download_begin(dev, back, x);
    if (dev_download_end(dev, &again) || strcmp(again.text, err.text) != 0) _exit(7);
    dev_free(dev, p);
    dev_close(dev);
    _exit(0);
}

// The third span is a graph, and its second kernel fails.
static void fail_in_a_graph(void) {
    Err err = {0};
    setenv("CUDA_HOST_FAIL", "8", 1);
    Device *dev = dev_open("cuda", 1, &err);
    void *p = dev ? dev_alloc(dev, 4096, &err) : NULL;
    if (p == NULL) _exit(2);
    const Tensor x = tensor_of(p, DT_F32, 4, 256);
    for (int i = 0; i < 5; i++) {
        dev_span_begin(dev);
        op_softcap(dev, x, 2.0f);
        op_axpby(dev, x, x, 2.0f, 0.0f);
        op_softcap(dev, x, 3.0f);
        dev_span_end(dev);
        if (i < 2 && !dev_sync(dev, &err)) _exit(3);
    }
    if (dev_graphs(dev).made != 1 || dev_graphs(dev).launched != 0) _exit(4);
    if (dev_sync(dev, &err)) _exit(5);
    if (strstr(err.text, "unspecified launch failure") == NULL) _exit(6);
    dev_close(dev);
    _exit(0);
}

// A launch fails while rows of an earlier one come down.
static void fail_beside_a_download(void) {
    Err err = {0};
    setenv("CUDA_HOST_FAIL", "2", 1);
    Device *dev = dev_open("cuda", 1, &err);
    void *p = dev ? dev_alloc(dev, 4096, &err) : NULL;
    float *back = dev ? dev_alloc_host(dev, 4096, &err) : NULL;
    if (p == NULL || back == NULL) _exit(2);
    const Tensor x = tensor_of(p, DT_F32, 4, 128), y = tensor_of((char *)p + 2048, DT_F32, 4, 128);
    op_softcap(dev, x, 2.0f);
    dev_download_begin(dev, back, x);
    op_softcap(dev, y, 2.0f);
    if (dev_download_end(dev, &err) || strstr(err.text, "softcap") == NULL) _exit(3);
    dev_free_host(dev, back);
    dev_free(dev, p);
    dev_close(dev);
    _exit(0);
}

// In processes of their own, before this one has a device: a context that failed is lost.
static void a_failed_launch_is_named_and_stays(void **state) {
    (void)state;
    int status[3];
    void (*const fail[])(void) = {fail_on_command, fail_in_a_graph, fail_beside_a_download};
    for (int i = 0; i < 3; i++) {
        fflush(NULL);
        const pid_t child = fork();
        if (child == 0) fail[i]();
        assert_true(child > 0 && waitpid(child, &status[i], 0) == child && WIFEXITED(status[i]));
    }
    twins_begin();
    if (!twin_is_emulated()) {
        print_message("skipped: only the emulated device fails when it is told to\n");
        skip();
    }
    for (int i = 0; i < 3; i++) assert_int_equal(WEXITSTATUS(status[i]), 0);
}

static void memory_is_zero_whatever_was_there(void **state) {
    (void)state;
    twins_begin();
    const size_t size[] = {0, 1, 100, 4096, 3 << 20};
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 5; i++) {
            Err err = {0};
            unsigned char *p = dev_alloc(twin_gpu(), size[i], &err);
            assert_ok(p != NULL, err);
            assert_int_equal((uintptr_t)p % ARENA_ALIGN, 0);
            const Tensor t = tensor_of(p, DT_U8, 1, (int64_t)size[i]), seen = twin_fetched(t);
            for (size_t k = 0; k < size[i]; k++)
                if (((unsigned char *)seen.data)[k] != 0) fail_msg("byte %zu of %zu", k, size[i]);
            memset(seen.data, 0xff, size[i]);
            dev_upload(twin_gpu(), t, seen.data);
            dev_free(twin_gpu(), p);
        }
    dev_free(twin_gpu(), NULL);
}

static void beyond_memory_says_both_sizes(void **state) {
    (void)state;
    twins_begin();
    Err err = {0};
    size_t left = 0, total = 0;
    char wanted[64];
    dev_memory(twin_gpu(), &left, &total);
    assert_true(left > 0 && left <= total && dev_own_memory(twin_gpu()) == total);
    assert_null(dev_alloc(twin_gpu(), total + 1, &err));
    assert_int_equal(err.code, ERR_FAILED);
    snprintf(wanted, sizeof wanted, "out of memory: %zu bytes wanted, ", total + 1);
    assert_non_null(strstr(err.text, wanted));
    snprintf(wanted, sizeof wanted, " of %zu free", total);
    assert_non_null(strstr(err.text, wanted));
    const Twin x = twin_random(DT_F32, 3, 8, TWIN_PLAIN); // and nothing else has happened
    twin_equal("x", x);
}

static void transfers_keep_to_the_view(void **state) {
    (void)state;
    twins_begin();
    const struct {
        DType t;
        int64_t rows, cols, gap;
    } shape[] = {
        {DT_BF16, 3, 17, 5},
        {DT_U8, 100, 1, 63},
        {DT_I64, 1, 9, 3},
        {DT_F32, 700, 4001, 7},                // 11 MB: rows by halves
        {DT_F32, 1, 5000000, 0},               // a plain row of more than two halves
        {DT_F32, 3, HALF_BYTES / 4 + 1001, 5}, // rows longer than a half
        {DT_F32, 2, HALF_BYTES / 4, 1},        // as long as one
        {DT_F32, 0, 7, 0},
    };
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        twins_begin();
        Err err = {0};
        const int64_t rows = shape[i].rows, cols = shape[i].cols, ld = cols + shape[i].gap;
        const size_t size = dtype_size(shape[i].t), bytes = (size_t)(rows * ld) * size;
        unsigned char *host = malloc(bytes + 1), *back = malloc(bytes + 1);
        assert_true(host && back);
        for (size_t k = 0; k < bytes; k++) host[k] = (unsigned char)(k * 2654435761u >> 13);
        char *block = dev_alloc(twin_gpu(), bytes + 1, &err);
        assert_ok(block != NULL, err);
        Tensor view = tensor_cols(tensor_of(block, shape[i].t, rows, ld), shape[i].gap / 2, cols);
        dev_upload(twin_gpu(), view, host); // packed: the first rows * cols
        memset(back, 0xee, bytes);
        dev_download(twin_gpu(), back, view);
        assert_memory_equal(back, host, (size_t)(rows * cols) * size);
        assert_true(rows == 0 || shape[i].gap == 0 || back[(size_t)(rows * cols) * size] == 0xee);
        dev_download(twin_gpu(), back, tensor_of(block, shape[i].t, rows, ld));
        for (int64_t r = 0; r < rows; r++) // gaps have stayed zero
            for (size_t k = 0; k < (size_t)ld * size; k++) {
                const int64_t c = (int64_t)(k / size) - shape[i].gap / 2;
                if ((c < 0 || c >= cols) && back[(size_t)(r * ld) * size + k] != 0)
                    fail_msg("shape %zu: row %lld, byte %zu of a gap", i, (long long)r, k);
            }
        assert_ok(dev_sync(twin_gpu(), &err), err);
        dev_free(twin_gpu(), block);
        free(host);
        free(back);
    }
}

// Several times both halves, with kernels in between that read what has just been sent; the source
// is used again at once.
static void many_small_uploads_turn_over(void **state) {
    (void)state;
    twins_begin();
    enum { ROWS = 3000, COLS = 2500 }; // 30 MB by rows of 10 KB
    Err err = {0};
    float *row = malloc(COLS * sizeof *row);
    const Twin one = twin_zeros(DT_F32, 1, COLS, TWIN_PLAIN),
               sum = twin_zeros(DT_F32, ROWS, 4, TWIN_PLAIN);
    assert_non_null(row);
    for (int r = 0; r < ROWS; r++) {
        for (int c = 0; c < COLS; c++) row[c] = (float)(r * 7 + c % 11);
        dev_upload(twin_gpu(), one.gpu, row);
        op_copy(twin_gpu(), tensor_rows(sum.gpu, r, 1), tensor_cols(one.gpu, r % (COLS - 4), 4));
        for (int c = 0; c < 4; c++) set_float(sum.cpu, r, c, row[r % (COLS - 4) + c]);
    }
    free(row);
    twin_equal("rows that were there for a moment", sum);
    enum { WORDS = 200000 }; // 64 bytes of a half each: one and a half halves
    const Twin words = twin_zeros(DT_I32, 1, WORDS, TWIN_PLAIN);
    for (int32_t i = 0; i < WORDS; i++) {
        const int32_t v = i * 3 - 1;
        dev_upload(twin_gpu(), tensor_cols(words.gpu, i, 1), &v);
        ((int32_t *)words.cpu.data)[i] = v;
    }
    assert_ok(dev_sync(twin_gpu(), &err), err);
    twin_equal("words", words);
}

enum { BESIDE = 4, BESIDE_COLS = 75 };

// Four downloads of one moment, views with gaps among them, and behind them what changes no source.
static void begin_four(const Twin *x, Twin other, float *to[BESIDE]) {
    for (int i = 0; i < BESIDE; i++) dev_download_begin(twin_gpu(), to[i], x[i].gpu);
    for (int i = 0; i < BESIDE; i++) op_axpby(twin_gpu(), other.gpu, x[i].gpu, 2.0f, 1.0f);
}

static void rows_come_down_beside_what_follows(void **state) {
    (void)state;
    twins_begin();
    enum { ROWS = 9, COUNT = ROWS * BESIDE_COLS };
    Err err = {0};
    const Twin other = twin_zeros(DT_F32, ROWS, BESIDE_COLS, TWIN_PLAIN);
    float *to[BESIDE], *block = dev_alloc_host(twin_gpu(), BESIDE * COUNT * sizeof *block, &err);
    assert_ok(block != NULL, err);
    for (int turn = 0; turn < 3; turn++) { // the memory of both sides is used again
        Twin x[BESIDE];
        for (int i = 0; i < BESIDE; i++) {
            const TwinLayout layout = (TwinLayout)(i % TWIN_LAYOUTS);
            x[i] = twin_random(DT_F32, ROWS, BESIDE_COLS, layout);
            to[i] = block + i * COUNT;
            memset(to[i], 0xee, COUNT * sizeof **to);
            op_axpby(twin_gpu(), x[i].gpu, x[i].gpu, 3.0f, 0.0f); // asked for, not there yet
            op_axpby(twin_cpu(), x[i].cpu, x[i].cpu, 3.0f, 0.0f);
        }
        begin_four(x, other, to);
        for (size_t k = 0; twin_is_emulated() && k < BESIDE * COUNT * sizeof *block; k++)
            assert_int_equal(((unsigned char *)block)[k], 0xee); // nobody has waited
        assert_ok(dev_download_end(twin_gpu(), &err), err);
        for (int i = 0; i < BESIDE; i++) op_zero(twin_gpu(), x[i].gpu);
        assert_ok(dev_sync(twin_gpu(), &err), err);
        for (int i = 0; i < BESIDE; i++)
            assert_same_bits("rows", tensor_of(to[i], DT_F32, ROWS, BESIDE_COLS),
                             same_copy(x[i].cpu));
    }
    assert_ok(dev_download_end(twin_gpu(), &err), err); // nothing is under way
    dev_download_begin(twin_gpu(), block, tensor_rows(other.gpu, 0, 0));
    assert_ok(dev_download_end(twin_gpu(), &err), err);
    dev_free_host(twin_gpu(), block);
}

// What the tests of callers rely on: on the emulated device a download that has begun reads as late
// as it may, so a source that is written before its end is seen to be.
static void a_source_written_too_soon_is_seen(void **state) {
    (void)state;
    twins_begin();
    if (!twin_is_emulated()) {
        print_message("skipped: only the emulated device keeps a copy waiting\n");
        skip();
    }
    Err err = {0};
    const Twin x = twin_random(DT_F32, 1, BESIDE_COLS, TWIN_PLAIN);
    float *to = dev_alloc_host(twin_gpu(), BESIDE_COLS * sizeof *to, &err);
    assert_ok(to != NULL, err);
    dev_download_begin(twin_gpu(), to, x.gpu);
    op_zero(twin_gpu(), x.gpu);
    assert_ok(dev_download_end(twin_gpu(), &err), err);
    for (int i = 0; i < BESIDE_COLS; i++) assert_true(to[i] == 0.0f);
    dev_free_host(twin_gpu(), to);
}

static void pinned_memory_is_everybodys(void **state) {
    (void)state;
    twins_begin();
    Err err = {0};
    float *p = dev_alloc_host(twin_gpu(), 2 * 300 * sizeof *p, &err);
    assert_ok(p != NULL, err);
    const Tensor from = tensor_of(p, DT_F32, 1, 300), to = tensor_of(p + 300, DT_F32, 1, 300);
    const Twin x = twin_zeros(DT_F32, 1, 300, TWIN_PLAIN);
    for (int i = 0; i < 300; i++) p[i] = (float)i, p[300 + i] = -1.0f;
    op_axpby(twin_gpu(), x.gpu, from, 2.0f, 0.0f);
    op_copy(twin_gpu(), to, x.gpu);
    assert_ok(dev_sync(twin_gpu(), &err), err);
    for (int i = 0; i < 300; i++) assert_true(p[300 + i] == 2.0f * (float)i);
    dev_upload(twin_gpu(), x.gpu, p); // and a source like any other
    memset(p, 0, 300 * sizeof *p);
    dev_download(twin_gpu(), p + 300, x.gpu);
    for (int i = 0; i < 300; i++) assert_true(p[300 + i] == (float)i);
    dev_free_host(twin_gpu(), p);
    dev_free_host(twin_gpu(), NULL);
}

static void devices_are_told_apart(void **state) {
    (void)state;
    twins_begin();
    const struct {
        const char *spec, *says;
    } bad[] = {{"cuda:x", "cuda:N"}, {"cuda:-1", "cuda:N"}, {"cuda:99", "the first is cuda:0"}};
    for (int i = 0; i < 3; i++) {
        Err err = {0};
        assert_null(dev_open(bad[i].spec, 1, &err));
        assert_int_equal(err.code, ERR_USAGE);
        assert_non_null(strstr(err.text, bad[i].says));
    }
    assert_string_equal(twin_gpu()->kind, "cuda");
    assert_true(dev_prefers_bf16(twin_gpu()) && dev_scratch_bytes(twin_gpu()) > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_launch_is_named_and_stays), // first: see there
        cmocka_unit_test(memory_is_zero_whatever_was_there),
        cmocka_unit_test(beyond_memory_says_both_sizes),
        cmocka_unit_test(transfers_keep_to_the_view),
        cmocka_unit_test(many_small_uploads_turn_over),
        cmocka_unit_test(rows_come_down_beside_what_follows),
        cmocka_unit_test(a_source_written_too_soon_is_seen),
        cmocka_unit_test(pinned_memory_is_everybodys),
        cmocka_unit_test(devices_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
