// train/train_cmd.c - plans, prints the plan, trains, and publishes the stage.
#include "train/train_cmd.h"

#include <stdio.h>

#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/base/stage.h"
#include "infer/base/world.h"
#include "train/train_setup.h"

static json_t *result_json(const TrainResult *r, const Settings *s) {
    return json_pack("{s:I, s:I, s:I, s:f, s:f, s:I, s:I}", "steps", (json_int_t)r->steps,
                     "best_step", (json_int_t)r->best_step, "select_k",
                     (json_int_t)s->eval.select_k, "stock_tau", r->stock_tau, "best_tau",
                     r->best_tau, "anchors", (json_int_t)r->anchors, "tokens",
                     (json_int_t)r->tokens);
}

static bool print_result(const json_t *o, const Cli *cli, Err *err) {
    if (cli->json) return json_print(o, err);
    const long long k = (long long)json_integer_value(json_object_get(o, "select_k"));
    const long long best = (long long)json_integer_value(json_object_get(o, "best_step"));
    printf("train  %lld steps, %lld anchors; dev split: tau(%lld) %.3f stock, %.3f best (step "
           "%lld%s)\n",
           (long long)json_integer_value(json_object_get(o, "steps")),
           (long long)json_integer_value(json_object_get(o, "anchors")), k,
           json_number_value(json_object_get(o, "stock_tau")),
           json_number_value(json_object_get(o, "best_tau")), best,
           best == 0 ? ": the stock drafter, never beaten" : "");
    return true;
}

// What is known before the first step; the time from taking some, which nobody keeps.
static bool dry_run(TrainSetup *t, Err *err) {
    TrainPlan plan;
    double seconds;
    const TrainerOptions opt = train_setup_options(t);
    if (!trainer_plan(&opt, &plan, err)) return false;
    trainer_plan_print(stdout, &plan, &opt);
    fflush(stdout);
    Trainer *trainer = trainer_open(&opt, err);
    const bool ok = trainer != NULL && trainer_trial(trainer, &seconds, err);
    trainer_close(trainer);
    if (ok) printf("time            about %.0f s\n", seconds);
    return ok;
}

static bool make_root(const Cli *cli, Err *err) {
    char root[PATH_ROOM];
    path_join(root, cli->s.output_dir, "ckpt");
    return (!cli->overwrite || dir_remove(root, err)) && dir_make(root, err);
}

static bool train(TrainSetup *t, const Cli *cli, json_t **result, Err *err) {
    TrainPlan plan = {0};
    TrainResult r;
    const bool first = world_rank() == 0;
    const TrainerOptions opt = train_setup_options(t);
    if (!world_agree(!first || make_root(cli, err), err)) return false;
    bool ok = trainer_plan(&opt, &plan, err);
    if (ok && !cli->quiet) trainer_plan_print(stderr, &plan, &opt);
    MemoryPlan memory = t->memory;
    trainer_plan_memory(&plan, &memory);
    ok = ok && memory_fits(&memory, err);
    Trainer *trainer = ok ? trainer_open(&opt, err) : NULL;
    ok = world_agree(trainer != NULL, err) && trainer_run(trainer, &r, err);
    trainer_close(trainer);
    if (ok) *result = result_json(&r, &cli->s);
    return ok &&
           (!first || memory_record(cli->s.output_dir, "train", memory_announced(&memory), err));
}

static bool is_done(const char *stage, const TrainSetup *t, const Cli *cli, bool *done, Err *err) {
    char best[PATH_ROOM];
    const StageState state = stage_state(stage, t->identity, cli->overwrite, err);
    *done = state == STAGE_DONE && dir_exists(path_join(best, cli->s.output_dir, "ckpt/best"));
    return state != STAGE_ERROR;
}

// Rank 0 looks, and every rank goes by what it has found.
static bool look(const char *stage, const TrainSetup *t, const Cli *cli, bool *done, Err *err) {
    *done = false;
    if (cli->dry_run) return true;
    return world_agree(world_rank() > 0 || is_done(stage, t, cli, done, err), err) &&
           world_share(done, sizeof *done, err);
}

static bool train_and_publish(TrainSetup *t, const Cli *cli, const char *stage, json_t **result,
                              Err *err) {
    const bool first = world_rank() == 0;
    return world_agree(!first || stage_clear(stage, err), err) && train(t, cli, result, err) &&
           (!first || stage_publish(stage, t->identity, *result, err));
}

static bool train_run(const Cli *cli, Err *err) {
    TrainSetup t;
    char stage[PATH_ROOM];
    json_t *result = NULL;
    bool done = false;
    path_join(stage, cli->s.output_dir, "ckpt/train.json");
    memory_begin();
    bool ok = world_agree(train_setup_identify(&t, &cli->s, err), err) &&
              look(stage, &t, cli, &done, err);
    if (ok && done) {
        log_info("train: done before (%s)", stage);
        ok = (result = stage_result(stage, err)) != NULL;
    } else if (ok && (ok = world_agree(train_setup_open(&t, err), err))) {
        ok = cli->dry_run ? dry_run(&t, err) : train_and_publish(&t, cli, stage, &result, err);
    }
    if (ok && result != NULL) ok = print_result(result, cli, err);
    json_decref(result);
    train_setup_close(&t);
    return ok;
}

const Verb train_verb = {
    .name = "train",
    .summary = "retrain the stock assistant on captured text; best checkpoint by simulated tau",
    .usage =
        "  draftsmith train -c configs/demo.json\n"
        "  draftsmith train --dry-run train.k=9 train.loss=hybrid      memory, steps, time\n\n"
        "Reads OUTPUT_DIR/shards/{train,dev}, writes OUTPUT_DIR/ckpt/step-N, latest, best and\n"
        "metrics.jsonl. Continues from the newest whole checkpoint; SIGTERM saves and exits with "
        "75;\n"
        "--overwrite starts anew.",
    .run = train_run,
    .stops = true,
    .ranks = true,
};
