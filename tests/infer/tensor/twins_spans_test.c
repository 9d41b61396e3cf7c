// tests/infer/tensor/twins_spans_test.c - operators inside of spans give what they give outside,
// whatever changes from one span to the next and whatever comes between them.
#include "tests/infer/tensor/twins.h"

enum { W = 40, TURNS = 9 };

// What a span is made of: a product, kernels whose places, scalars and sizes go by `i`, and both
// kinds reading what the other wrote.
typedef struct {
    Twin x, w, y, log; // (4, W) (W, W) (4, W) (64, W)
} Work;

static Work work_of(DType t) {
    return (Work){twin_random(DT_F32, 4, W, TWIN_PLAIN), twin_random(t, W, W, TWIN_PLAIN),
                  twin_zeros(DT_F32, 4, W, TWIN_PLAIN), twin_zeros(DT_F32, 64, W, TWIN_PLAIN)};
}

static void work(Device *dev, bool gpu, const Work *w, int i) {
    const Tensor x = gpu ? w->x.gpu : w->x.cpu, m = gpu ? w->w.gpu : w->w.cpu,
                 y = gpu ? w->y.gpu : w->y.cpu, log = gpu ? w->log.gpu : w->log.cpu;
    op_matmul_nt(dev, y, x, m, 0.0f);
    op_softcap(dev, y, 2.0f);
    op_axpby(dev, x, y, 0.125f, 0.5f);
    op_copy(dev, tensor_rows(log, 4 * i, 1 + i % 4), tensor_rows(y, 0, 1 + i % 4));
    op_axpby(dev, y, y, 1.0f / (float)(1 + i), 0.0f);
}

static void compare(const Work *w) {
    twin_close("x", w->x, 1e-5, 1e-5);
    twin_close("y", w->y, 1e-5, 1e-5);
    twin_close("log", w->log, 1e-5, 1e-5);
}

static DeviceGraphs since(DeviceGraphs before) {
    const DeviceGraphs n = dev_graphs(twin_gpu());
    return (DeviceGraphs){n.made - before.made, n.launched - before.launched,
                          n.by_hand - before.by_hand, n.exchanged - before.exchanged};
}

static void a_span_that_changes_becomes_one_graph(void **state) {
    (void)state;
    twins_begin();
    const Work w = work_of(DT_F32);
    const DeviceGraphs before = dev_graphs(twin_gpu());
    for (int i = 0; i < TURNS; i++) {
        dev_span_begin(twin_gpu());
        work(twin_gpu(), true, &w, i);
        dev_span_end(twin_gpu());
        work(twin_cpu(), false, &w, i);
    }
    compare(&w);
    const DeviceGraphs n = since(before);
    assert_int_equal(n.made, 1);
    assert_int_equal(n.by_hand + n.launched, TURNS);
    assert_true(n.by_hand == 2 && n.launched == TURNS - 2);
    assert_int_equal(n.exchanged, 2 * (TURNS - 3)); // the copy, and the scale
    dev_set_graphs(twin_gpu(), false);
    dev_span_begin(twin_gpu());
    work(twin_gpu(), true, &w, 0);
    dev_span_end(twin_gpu());
    dev_set_graphs(twin_gpu(), true);
    work(twin_cpu(), false, &w, 0);
    compare(&w);
    assert_int_equal(since(before).launched, n.launched);
}

// The same bytes of arguments every time, gaps of C's structs included: nothing is exchanged.
static void a_span_that_repeats_exchanges_nothing(void **state) {
    (void)state;
    twins_begin();
    const Twin q = twin_random(DT_F32, 3, 4 * 16, TWIN_PLAIN),
               k = twin_random(DT_F32, 70, 2 * 16, TWIN_PLAIN),
               v = twin_random(DT_F32, 70, 2 * 16, TWIN_PLAIN),
               o = twin_zeros(DT_F32, 3, 4 * 16, TWIN_PLAIN),
               best = twin_zeros(DT_F32, 3, 2, TWIN_PLAIN),
               id = twin_zeros(DT_I32, 3, 2, TWIN_PLAIN),
               w = twin_random(DT_F32, 1, 4 * 16, TWIN_PLAIN);
    const int32_t end_host[] = {68, 69, 70};
    const Twin end = twin_ids(end_host, 1, 3);
    const DeviceGraphs before = dev_graphs(twin_gpu());
    for (int i = 0; i < 7; i++)
        for (int gpu = 0; gpu < 2; gpu++) {
            Device *dev = gpu ? twin_gpu() : twin_cpu();
            char litter[512];
            memset(litter, 17 * i, sizeof litter); // gaps get what the stack held
            __asm__ volatile("" ::"r"(litter) : "memory");
            const AttnSeg seg = {gpu ? k.gpu : k.cpu, gpu ? v.gpu : v.cpu, 0, 0, 3};
            const AttnArgs args = {&seg, 1, gpu ? end.gpu : end.cpu, end_host, ATTN_ALL, 4, 2, 16};
            const Tensor to = gpu ? o.gpu : o.cpu;
            dev_span_begin(dev);
            op_attention(dev, to, NO_TENSOR, gpu ? q.gpu : q.cpu, &args);
            op_norm(dev, to, NO_TENSOR, NO_TENSOR, to, gpu ? w.gpu : w.cpu, 1e-6f, 1.0f);
            op_top2(dev, gpu ? best.gpu : best.cpu, gpu ? id.gpu : id.cpu, to, NO_TENSOR, 0);
            dev_span_end(dev);
        }
    twin_close("o", o, 1e-5, 1e-5);
    twin_close("best", best, 1e-5, 1e-5);
    twin_equal("id", id);
    const DeviceGraphs n = since(before);
    assert_true(n.made == 1 && n.launched == 5);
    assert_int_equal(n.exchanged, 0);
}

// More launches than a graph takes; the same kernels on other operands are other graphs.
static void long_spans_go_in_parts(void **state) {
    (void)state;
    twins_begin();
    const Work a = work_of(DT_F32), b = work_of(DT_F32);
    const DeviceGraphs before = dev_graphs(twin_gpu());
    for (int i = 0; i < 5; i++)
        for (int gpu = 0; gpu < 2; gpu++) {
            Device *dev = gpu ? twin_gpu() : twin_cpu();
            dev_span_begin(dev);
            for (int j = 0; j < 50; j++) work(dev, gpu, j % 2 ? &a : &b, j % TURNS);
            dev_span_end(dev);
        }
    compare(&a);
    compare(&b);
    const DeviceGraphs n = since(before);
    assert_int_equal(n.made, 3); // 250 launches by 96
    assert_true(n.launched == 9 && n.by_hand == 6);
}

// Like layers, whose kernels are alike: nothing goes from the graph of one to that of another.
static void parts_that_are_alike_have_their_graphs(void **state) {
    (void)state;
    twins_begin();
    const Twin x = twin_random(DT_F32, 3, W, TWIN_PLAIN), y = twin_random(DT_F32, 3, W, TWIN_PLAIN);
    const DeviceGraphs before = dev_graphs(twin_gpu());
    for (int i = 0; i < 5; i++) {
        dev_span_begin(twin_gpu());
        for (int j = 0; j < 192; j++) op_softcap(twin_gpu(), j < 96 ? x.gpu : y.gpu, 3.0f);
        dev_span_end(twin_gpu());
        for (int j = 0; j < 192; j++) op_softcap(twin_cpu(), j < 96 ? x.cpu : y.cpu, 3.0f);
    }
    twin_close("x", x, 1e-5, 1e-4);
    twin_close("y", y, 1e-5, 1e-4);
    const DeviceGraphs n = since(before);
    assert_true(n.made == 2 && n.launched == 6 && n.exchanged == 0);
}

// The same kernels on other operands: a product's cannot be exchanged, so each has its graph.
static void other_operands_are_other_graphs(void **state) {
    (void)state;
    twins_begin();
    const Work a = work_of(DT_F32), b = work_of(DT_F32);
    const DeviceGraphs before = dev_graphs(twin_gpu());
    for (int i = 0; i < 12; i++)
        for (int gpu = 0; gpu < 2; gpu++) {
            Device *dev = gpu ? twin_gpu() : twin_cpu();
            dev_span_begin(dev);
            work(dev, gpu, i % 3 ? &a : &b, i);
            dev_span_end(dev);
        }
    compare(&a);
    compare(&b);
    const DeviceGraphs n = since(before);
    assert_true(n.made == 2 && n.launched == 8);
}

typedef enum { UPLOAD_FIRST, UPLOAD, DOWNLOAD, SYNC, FREE, DISTURBANCES } Disturbance;

// Something that is no launch, in the middle of a span.
static void disturb(Device *dev, bool gpu, Disturbance d, const Work *w, int i) {
    Err err = {0};
    float row[W];
    for (int c = 0; c < W; c++) row[c] = (float)(c - i) / 16.0f;
    const Tensor to = tensor_rows(gpu ? w->x.gpu : w->x.cpu, 1, 1);
    if (d == UPLOAD || d == UPLOAD_FIRST) dev_upload(dev, to, row);
    if (d == DOWNLOAD) {
        dev_download(dev, row, to);
        for (int c = 0; c < W; c++) row[c] *= 0.75f;
        dev_upload(dev, to, row);
    }
    if (d == SYNC) assert_ok(dev_sync(dev, &err), err);
    if (d == FREE) {
        void *p = dev_alloc(dev, 64, &err);
        assert_ok(p != NULL, err);
        const Tensor t = tensor_of(p, DT_F32, 1, 16);
        op_copy(dev, t, tensor_cols(to, 0, 16));
        op_softcap(dev, t, 1.0f);
        op_copy(dev, tensor_cols(to, 16, 16), t);
        dev_free(dev, p);
    }
}

static void what_is_no_launch_is_right_in_a_span(void **state) {
    (void)state;
    for (int d = 0; d < DISTURBANCES; d++) {
        twins_begin();
        const Work w = work_of(DT_F32);
        const DeviceGraphs before = dev_graphs(twin_gpu());
        for (int i = 0; i < 6; i++)
            for (int gpu = 0; gpu < 2; gpu++) {
                Device *dev = gpu ? twin_gpu() : twin_cpu();
                dev_span_begin(dev);
                if (d == UPLOAD_FIRST) disturb(dev, gpu, UPLOAD_FIRST, &w, i);
                work(dev, gpu, &w, i);
                if (d != UPLOAD_FIRST) disturb(dev, gpu, (Disturbance)d, &w, i);
                work(dev, gpu, &w, i + 1);
                dev_span_end(dev);
            }
        compare(&w);
        const DeviceGraphs n = since(before);
        if (d == UPLOAD_FIRST)
            assert_true(n.made == 1 && n.launched == 4);
        else
            assert_true(n.made == 0 && n.launched == 0);
    }
}

// A product of bf16 and f32 is converted in scratch, which grows with its size.
static void scratch_that_grows_inside_of_a_span(void **state) {
    (void)state;
    twins_begin();
    const Work w = work_of(DT_BF16);
    for (int i = 0; i < 10; i++) {
        const int64_t n = 300 + 150 * i; // beyond what there is in some turns
        const Twin big = twin_random(DT_BF16, n, W + 200, TWIN_PLAIN),
                   row = twin_random(DT_F32, 1, W + 200, TWIN_PLAIN),
                   y = twin_zeros(DT_F32, 1, n, TWIN_PLAIN);
        for (int gpu = 0; gpu < 2; gpu++) {
            Device *dev = gpu ? twin_gpu() : twin_cpu();
            for (int j = 0; j < 3; j++) { // a graph before it grows, and with the old block behind
                dev_span_begin(dev);
                work(dev, gpu, &w, j);
                dev_span_end(dev);
            }
            dev_span_begin(dev);
            work(dev, gpu, &w, i % TURNS);
            op_matmul_nt(dev, gpu ? y.gpu : y.cpu, gpu ? row.gpu : row.cpu, gpu ? big.gpu : big.cpu,
                         0.0f);
            work(dev, gpu, &w, (i + 1) % TURNS);
            dev_span_end(dev);
        }
        twin_close("product", y, 1e-3, 1e-4);
        compare(&w);
    }
}

static void an_alarm_in_a_graph_is_said(void **state) {
    (void)state;
    twins_begin();
    Err err = {0};
    Device *dev = dev_open("cuda", 1, &err);
    assert_ok(dev != NULL, err);
    const int32_t good[] = {0, 4}, bad[] = {0, 5};
    const Twin ids = twin_ids(good, 1, 2), table = twin_random(DT_F32, 5, 8, TWIN_PLAIN),
               y = twin_zeros(DT_F32, 2, 8, TWIN_PLAIN);
    assert_true(dev_sync(twin_gpu(), &err)); // their streams differ
    for (int i = 0; i < 6; i++) {
        if (i == 5) dev_upload(dev, ids.gpu, bad);
        dev_span_begin(dev);
        op_gather(dev, y.gpu, table.gpu, ids.gpu, 1.0f);
        dev_span_end(dev);
        if (i < 5) assert_ok(dev_sync(dev, &err), err);
    }
    assert_int_equal(dev_graphs(dev).launched, 4);
    assert_false(dev_sync(dev, &err));
    assert_non_null(strstr(err.text, "gather"));
    dev_span_begin(dev); // a device that failed takes no more work
    op_gather(dev, y.gpu, table.gpu, ids.gpu, 1.0f);
    dev_span_end(dev);
    assert_false(dev_sync(dev, &(Err){0}));
    dev_close(dev);
}

// On the emulated device every step of a graph's life can be made to fail: the work is done.
static void a_graph_that_fails_loses_no_work(void **state) {
    (void)state;
    static const char *const step[] = {"capture", "instantiate", "exchange", "launch"};
    twins_begin();
    if (!twin_is_emulated()) {
        print_message("skipped: only the emulated device fails when it is told to\n");
        skip();
    }
    for (int s = 0; s < 4; s++) {
        twins_begin();
        Err err = {0};
        Device *dev = dev_open("cuda", 1, &err);
        assert_ok(dev != NULL, err);
        const Work w = work_of(DT_F32);
        assert_true(dev_sync(twin_gpu(), &err));
        for (int i = 0; i < TURNS; i++) {
            if (i == (s < 2 ? 0 : 4)) setenv("CUDA_HOST_NO_GRAPHS", step[s], 1);
            if (i == 7) unsetenv("CUDA_HOST_NO_GRAPHS");
            dev_span_begin(dev);
            work(dev, true, &w, i);
            dev_span_end(dev);
            work(twin_cpu(), false, &w, i);
        }
        assert_ok(dev_sync(dev, &err), err);
        compare(&w);
        const DeviceGraphs n = dev_graphs(dev);
        print_message("%s: %d graphs, %d launched, %d by hand\n", step[s], (int)n.made,
                      (int)n.launched, (int)n.by_hand);
        if (s < 2)
            assert_true(n.made == 0 && n.launched == 0); // off for good
        else
            assert_true(n.launched > 2 && n.by_hand > 2); // and back again
        dev_close(dev);
    }
}

static void spans_mean_nothing_to_the_cpu(void **state) {
    (void)state;
    Device *dev = device_with(1);
    dev_set_graphs(dev, true);
    dev_span_begin(dev);
    dev_span_end(dev);
    const DeviceGraphs n = dev_graphs(dev);
    assert_true(n.made == 0 && n.launched == 0 && n.by_hand == 0 && n.exchanged == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_span_that_changes_becomes_one_graph),
        cmocka_unit_test(a_span_that_repeats_exchanges_nothing),
        cmocka_unit_test(long_spans_go_in_parts),
        cmocka_unit_test(parts_that_are_alike_have_their_graphs),
        cmocka_unit_test(other_operands_are_other_graphs),
        cmocka_unit_test(what_is_no_launch_is_right_in_a_span),
        cmocka_unit_test(scratch_that_grows_inside_of_a_span),
        cmocka_unit_test(an_alarm_in_a_graph_is_said),
        cmocka_unit_test(a_graph_that_fails_loses_no_work),
        cmocka_unit_test(spans_mean_nothing_to_the_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
