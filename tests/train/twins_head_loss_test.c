// tests/train/twins_head_loss_test.c - the loss of student rows with and without room for their
// logits: CPU against CUDA, which forms them again for every part of the vocabulary.
#include "tests/infer/tensor/twins.h"
#include "train/loss.h"

enum { V = 3000, H = 32, B = 40, TOKENS = 12, STEPS = 3, ITEMS = 29 };

typedef struct {
    Twin table, target, hidden, y, dy, dtable;
    LossOptions opt;
    DType dtype;
} Case;

static Case new_case(LossKind kind, DType t, float temperature, size_t head_bytes) {
    Case c = {.table = twin_random(t, V, H, TWIN_PLAIN),
              .target = twin_random(t, V, B, TWIN_PLAIN),
              .hidden = twin_random(t, TOKENS, B, TWIN_PLAIN),
              .y = twin_random(t, STEPS * TOKENS, H, TWIN_PLAIN),
              .dy = twin_random(DT_F32, STEPS * TOKENS, H, TWIN_PLAIN),
              .dtable = twin_random(DT_F32, V, H, TWIN_PLAIN),
              .dtype = t};
    op_axpby(twin_cpu(), c.table.cpu, c.table.cpu, 0.3f, 0.0f);
    op_axpby(twin_cpu(), c.target.cpu, c.target.cpu, 0.3f, 0.0f);
    dev_upload(twin_gpu(), c.table.gpu, c.table.cpu.data);
    dev_upload(twin_gpu(), c.target.gpu, c.target.cpu.data);
    c.opt = (LossOptions){.kind = kind,
                          .mix = 0.7f,
                          .temperature = temperature,
                          .softcap = 3.0f,
                          .max_items = ITEMS,
                          .max_teachers = TOKENS,
                          .per_teacher = STEPS,
                          .head_bytes = head_bytes};
    return c;
}

// Every third pair of token and step is left out.
static void list_items(LossItem *item) {
    int n = 0;
    for (int i = 0; i < STEPS * TOKENS && n < ITEMS; i++)
        if (i % 5 != 2)
            item[n++] = (LossItem){.y = i,
                                   .teacher = i * 7 % TOKENS,
                                   .label = i * 997 % V,
                                   .weight = 0.01f * (float)(i + 1)};
    assert_int_equal(n, ITEMS);
}

static void run(const Case *c, bool gpu, LossItem *item, bool grad) {
#define SIDE(x) (gpu ? c->x.gpu : c->x.cpu)
    Err err = {0};
    Device *dev = gpu ? twin_gpu() : twin_cpu();
    Assistant a = {.dev = dev, .dtype = c->dtype, .target_table = SIDE(target)};
    a.cfg.text.vocab = V, a.cfg.text.hidden = H, a.cfg.backbone = B;
    a.w.table = SIDE(table);
    TargetConfig tc = {.text = {.hidden = B}, .suppress = {.n = 1, .id = {1500}}};
    const FeaturePack pack = {.dtype = c->dtype, .rows = TOKENS, .hidden = SIDE(hidden)};
    AssistantWeights g = {.table = SIDE(dtable)};
    HeadLoss *l = head_loss_open(&a, &tc, &c->opt, &err);
    assert_ok(l != NULL, err);
    const size_t bytes = head_loss_bytes(&a, &tc, &c->opt);
    void *block = dev_alloc(dev, bytes, &err);
    assert_ok(block != NULL, err);
    Arena arena;
    arena_open(&arena, block, bytes);
    list_items(item);
    head_loss_run(l, &a, &pack, item, ITEMS, SIDE(y), SIDE(dy), grad ? &g : NULL, &arena);
    assert_ok(dev_sync(dev, &err), err);
    head_loss_close(l);
    dev_free(dev, block);
#undef SIDE
}

static void expect_items(const LossItem *got, const LossItem *want) {
    for (int i = 0; i < ITEMS; i++) {
        assert_int_equal(got[i].y, want[i].y);
        assert_int_equal(got[i].best, want[i].best);
        const float a[] = {got[i].loss, got[i].fkl, got[i].tv},
                    b[] = {want[i].loss, want[i].fkl, want[i].tv};
        for (int k = 0; k < 3; k++)
            if (!(fabsf(a[k] - b[k]) <= 2e-5f * (1.0f + fabsf(b[k]))))
                fail_msg("item %d, value %d: %.9g, expected %.9g", i, k, (double)a[k],
                         (double)b[k]);
    }
}

// 256 KiB: the teacher's whole vocabulary and a third of the student's; 24 KiB: neither; 2 GiB:
// all.
static void every_plan_gives_the_same_loss(void **state) {
    (void)state;
    const LossKind kind[] = {LOSS_FKL, LOSS_HYBRID, LOSS_CE_ARGMAX, LOSS_CE_LABEL, LOSS_TV};
    const size_t budget[] = {256 << 10, 24 << 10, 0};
    for (int i = 0; i < 8; i++) {
        twins_begin();
        const DType t = i == 3 || i == 6 ? DT_F32 : DT_BF16;
        Case c = new_case(kind[i % 5], t, i & 1 ? 0.8f : 1.0f, budget[i < 5 ? 0 : i < 7 ? 1 : 2]);
        LossItem cpu[ITEMS], gpu[ITEMS];
        run(&c, false, cpu, true), run(&c, true, gpu, true);
        expect_items(gpu, cpu);
        twin_close("dy", c.dy, 2e-4, t == DT_BF16 ? 1e-2 : 1e-4);
        twin_close("dtable", c.dtable, 2e-4, t == DT_BF16 ? 1e-2 : 1e-4);
        run(&c, true, gpu, false);
        expect_items(gpu, cpu);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_plan_gives_the_same_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
