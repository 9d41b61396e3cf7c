// tests/infer/base/world_test.c - what launchers say, the order of sums, and worlds that lose a
// rank.
#include "infer/base/world.h"

#include <math.h>
#include <signal.h>

#include "infer/base/hash.h"
#include "infer/base/log.h"
#include "infer/base/rng.h"
#include "infer/base/watchdog.h"
#include "tests/infer/base/world_ranks.h"

static const char *const VARIABLES[] = {"OMPI_COMM_WORLD_SIZE",
                                        "OMPI_COMM_WORLD_RANK",
                                        "OMPI_COMM_WORLD_LOCAL_RANK",
                                        "OMPI_COMM_WORLD_LOCAL_SIZE",
                                        "WORLD_SIZE",
                                        "RANK",
                                        "LOCAL_RANK",
                                        "LOCAL_WORLD_SIZE",
                                        "MASTER_ADDR",
                                        "MASTER_PORT",
                                        "TORCHELASTIC_USE_AGENT_STORE",
                                        "TORCHELASTIC_RUN_ID",
                                        "PMI_SIZE",
                                        "PMI_RANK",
                                        "SLURM_NTASKS",
                                        "SLURM_STEP_NUM_TASKS",
                                        "SLURM_PROCID",
                                        "SLURM_LOCALID"};

// set: "NAME=value", separated by blanks
static bool place_of(const char *set, WorldPlace *p, Err *err) {
    char text[512];
    for (size_t i = 0; i < sizeof VARIABLES / sizeof *VARIABLES; i++) unsetenv(VARIABLES[i]);
    snprintf(text, sizeof text, "%s", set);
    for (char *one = strtok(text, " "); one; one = strtok(NULL, " ")) {
        char *eq = strchr(one, '=');
        *eq = '\0';
        setenv(one, eq + 1, 1);
    }
    *err = (Err){0};
    return world_place(p, err);
}

#define OMPI "OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=3 "
#define TORCH                                                                                      \
    "WORLD_SIZE=8 RANK=5 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4 MASTER_ADDR=node-0 MASTER_PORT=29500 "

static void launchers_are_understood(void **state) {
    (void)state;
    static const struct {
        const char *set, *launcher;
        int rank, size, local, locals, port;
    } cases[] = {
        {"", NULL, 0, 1, 0, 0, 0},
        {OMPI "OMPI_COMM_WORLD_LOCAL_RANK=1 OMPI_COMM_WORLD_LOCAL_SIZE=2", "mpirun", 3, 4, 1, 2, 0},
        {OMPI TORCH, "mpirun", 3, 4, 0, 0, 0}, // scripts set both: MPI is there
        {TORCH, "torchrun", 5, 8, 1, 4, 29500},
        {TORCH "TORCHELASTIC_USE_AGENT_STORE=True", "torchrun", 5, 8, 1, 4, 29501},
        {TORCH "SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1", "torchrun", 5, 8, 1, 4, 29500},
        {"WORLD_SIZE=8 RANK=5", NULL, 0, 1, 0, 0, 0}, // somebody's own variables
        {"PMI_SIZE=2 PMI_RANK=1", "mpirun", 1, 2, 0, 0, 0},
        {"SLURM_STEP_NUM_TASKS=6 SLURM_PROCID=4 SLURM_LOCALID=2", "srun", 4, 6, 2, 0, 0},
        {"SLURM_NTASKS=6 SLURM_PROCID=0 SLURM_LOCALID=0", NULL, 0, 1, 0, 0, 0}, // a batch script
        {"OMPI_COMM_WORLD_SIZE=1 OMPI_COMM_WORLD_RANK=0", NULL, 0, 1, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        WorldPlace p;
        Err err;
        if (!place_of(cases[i].set, &p, &err)) fail_msg("%s: %s", cases[i].set, err.text);
        const bool same = p.launcher == NULL || cases[i].launcher == NULL
                              ? p.launcher == cases[i].launcher
                              : strcmp(p.launcher, cases[i].launcher) == 0;
        if (!same || p.rank != cases[i].rank || p.size != cases[i].size ||
            p.local != cases[i].local || p.locals != cases[i].locals || p.port != cases[i].port)
            fail_msg("\"%s\": %s, rank %d of %d, %d of %d here, port %d", cases[i].set,
                     p.launcher ? p.launcher : "none", p.rank, p.size, p.local, p.locals, p.port);
    }
}

static void variables_that_contradict_are_named(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=2", "OMPI_COMM_WORLD_RANK is \"2\""},
        {"OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=-1", "OMPI_COMM_WORLD_RANK is \"-1\""},
        {"OMPI_COMM_WORLD_SIZE=two OMPI_COMM_WORLD_RANK=0", "OMPI_COMM_WORLD_SIZE is \"two\""},
        {"OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_RANK is not set"},
        {"OMPI_COMM_WORLD_SIZE=99999999999999999999", "OMPI_COMM_WORLD_SIZE is \"99999"},
        {OMPI "OMPI_COMM_WORLD_LOCAL_RANK=4", "OMPI_COMM_WORLD_LOCAL_RANK is \"4\""},
        {"WORLD_SIZE=2 RANK=0 MASTER_ADDR=a", "MASTER_PORT is not set"},
        {"WORLD_SIZE=2 RANK=0 MASTER_ADDR=a MASTER_PORT=70000", "MASTER_PORT is \"70000\""},
        {"SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=0x1", "SLURM_PROCID is \"0x1\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        WorldPlace p;
        Err err;
        assert_false(place_of(cases[i][0], &p, &err));
        assert_int_equal(err.code, ERR_USAGE);
        if (!strstr(err.text, cases[i][1])) fail_msg("\"%s\": %s", cases[i][0], err.text);
    }
}

static void sums_go_in_order(void **state) {
    (void)state;
    enum { N = 3000 };
    static float a[N], b[N], c[N], out[N];
    for (int i = 0; i < N; i++) {
        a[i] = i % 2 ? 1e30f : 0.1f * (float)i;
        b[i] = 1.0f;
        c[i] = i % 2 ? -1e30f : 3e-9f;
    }
    const float *const abc[3] = {a, b, c}, *const acb[3] = {a, c, b};
    sum_in_order(out, abc, 3, N);
    for (int i = 0; i < N; i++)
        assert_true(out[i] == (i % 2 ? 0.0f : (float)((double)a[i] + 1.0 + (double)c[i])));
    sum_in_order(out, acb, 3, N);
    assert_true(out[1] == 1.0f); // and another order is another sum
    sum_in_order(b, abc, 3, N);  // in place
    assert_true(b[1] == 0.0f && b[2] == (float)((double)a[2] + 1.0 + (double)c[2]));
}

static float term(int rank, int64_t i) {
    const uint64_t u = rng_u64(3, RNG_TEST, (uint64_t)rank, (uint64_t)i);
    return ldexpf((float)(int32_t)u, (int)(u >> 32) % 40 - 20);
}

static int collectives(void *ctx) {
    (void)ctx;
    enum { N = (2 << 20) + 12345 }; // more than a turn of every carrier
    const int rank = world_rank(), size = world_size();
    Err err = {0};
    int all[RANKS_MAX], shared = rank + 70;
    if (!world_gather(&rank, sizeof rank, all, &err)) return 1;
    for (int r = 0; r < size; r++)
        if (all[r] != r) return 2;
    if (!world_share(&shared, sizeof shared, &err) || shared != 70) return 3;
    double x[2] = {1e30 * (rank == 1 ? 1 : rank == 2 ? -1 : 0), rank};
    const double want = size > 2 ? 0 : 1e30, ranks = size * (size - 1) / 2;
    if (!world_sum(true, x, 2, &err) || x[0] != want || x[1] != ranks) return 4;
    bool any = true;
    if (!world_any(false, &any, &err) || any) return 5;
    if (!world_any(rank == size - 1, &any, &err) || !any) return 6;
    float *sum = malloc(N * sizeof *sum);
    for (int64_t i = 0; i < N; i++) sum[i] = term(rank, i);
    if (!world_add(sum, N, &err)) return 7;
    for (int64_t i = 0; i < N; i++) {
        double in_order = 0;
        for (int r = 0; r < size; r++) in_order += term(r, i);
        if (sum[i] != (float)in_order) return 8;
    }
    free(sum);
    // one rank fails: all do, and it alone has something to say
    if (rank == 1) err_set(&err, ERR_INPUT, "bad line");
    if (world_agree(rank != 1, &err) || err.code != ERR_INPUT) return 9;
    if (strcmp(err.text, rank == 1 ? "bad line" : "") != 0) return 10;
    if (err_wrap(&err, "stage") || (rank != 1 && err.text[0] != '\0')) return 11;
    world_leave(err.code);
    return 0;
}

static void collectives_give_every_rank_the_same(void **state) {
    (void)state;
    for (int size = 2; size <= 3; size++) {
        int status[RANKS_MAX];
        run_ranks(size, 20, collectives, NULL, status);
        for (int r = 0; r < size; r++) assert_int_equal(status[r], 0);
    }
}

static bool count_alone(void *ctx, Err *err) {
    *(int *)ctx = world_size();
    return world_agree(true, err); // of one
}

static int alone(void *ctx) {
    (void)ctx;
    int size = 0;
    Err err = {0};
    if (!world_alone(count_alone, &size, &err)) return 1;
    return size != (world_rank() == 0 ? 1 : 0) || world_size() != 3;
}

static void rank_0_works_alone(void **state) {
    (void)state;
    int status[RANKS_MAX];
    run_ranks(3, 20, alone, NULL, status);
    for (int r = 0; r < 3; r++) assert_int_equal(status[r], 0);
}

static int lose_rank_1(void *ctx) {
    (void)ctx;
    Err err = {0};
    if (world_rank() == 1) raise(SIGKILL);
    if (world_agree(true, &err) || !world_broken() || err.code != ERR_FAILED) return 1;
    const char *who = world_rank() == 0 ? "rank 1 is gone" : "rank 0 is gone";
    world_leave(err.code);
    return strstr(err.text, who) ? 0 : 2;
}

static void a_rank_that_is_gone_is_named(void **state) {
    (void)state;
    int status[RANKS_MAX];
    run_ranks(3, 20, lose_rank_1, NULL, status);
    assert_int_equal(status[0], 0);
    assert_int_equal(status[1], -SIGKILL);
    assert_int_equal(status[2], 0);
}

// Rank 1 works for 3 s under a limit of 1 s, then it falls silent.
static int slow_then_silent(void *ctx) {
    (void)ctx;
    Err err = {0};
    const double begun = now_s();
    watchdog_at("train", "step", 7);
    while (world_rank() == 1 && now_s() - begun < 3) {
        watchdog_beat();
        usleep(20000);
    }
    if (!world_agree(true, &err) || now_s() - begun < 2.9) return 1;
    if (world_rank() == 1) {
        usleep(2500000);
        return 0;
    }
    if (world_agree(true, &err) || err.code != ERR_STUCK || now_s() - begun > 5.4) return 2;
    return strstr(err.text, "rank 0 of 2: stuck at step 7 of train: rank 1 has not answered") ? 0
                                                                                              : 3;
}

static void a_slow_rank_is_waited_for_and_a_silent_one_is_not(void **state) {
    (void)state;
    int status[RANKS_MAX];
    run_ranks(2, 1, slow_then_silent, NULL, status);
    assert_int_equal(status[0], 0);
    assert_int_equal(status[1], 0);
}

static int agree_once(void *ctx) {
    (void)ctx;
    Err err = {0};
    const bool ok = world_agree(true, &err);
    world_leave(ok ? 0 : 1);
    return !ok;
}

static void strangers_are_turned_away(void **state) {
    (void)state;
    const int port = free_port();
    const pid_t first = start_rank(0, 2, port, 20, agree_once, NULL);
    const pid_t stranger = fork();
    if (stranger == 0) { // another job's rank 1: it would wait for its own rank 0
        Err err = {0};
        WorldPlace place;
        rank_variables(1, 2, port);
        setenv("TORCHELASTIC_RUN_ID", "another", 1);
        alarm(20);
        _exit(world_place(&place, &err) && world_open(&place, 20, &err) ? 1 : 0);
    }
    usleep(300000);
    const pid_t second = start_rank(1, 2, port, 20, agree_once, NULL);
    assert_int_equal(end_of(first), 0);
    assert_int_equal(end_of(second), 0);
    kill(stranger, SIGKILL);
    assert_int_equal(end_of(stranger), -SIGKILL); // never let in
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(launchers_are_understood),
        cmocka_unit_test(variables_that_contradict_are_named),
        cmocka_unit_test(sums_go_in_order),
        cmocka_unit_test(collectives_give_every_rank_the_same),
        cmocka_unit_test(rank_0_works_alone),
        cmocka_unit_test(a_rank_that_is_gone_is_named),
        cmocka_unit_test(a_slow_rank_is_waited_for_and_a_silent_one_is_not),
        cmocka_unit_test(strangers_are_turned_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
