// main.c - the table of verbs, and `run`, which is the stages one after the other.
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "data/capture_cmd.h"
#include "data/prepare_cmd.h"
#include "data/regenerate_cmd.h"
#include "eval/audit_cmd.h"
#include "eval/bench_cmd.h"
#include "eval/doctor_cmd.h"
#include "eval/eval_cmd.h"
#include "eval/generate_cmd.h"
#include "eval/report_cmd.h"
#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/base/nearest.h"
#include "infer/base/utf8.h"
#include "infer/base/version.h"
#include "infer/base/watchdog.h"
#include "infer/base/world.h"
#include "infer/export/export_cmd.h"
#include "infer/export/inspect_cmd.h"
#include "infer/tensor/device.h"
#include "train/train_bench.h"
#include "train/train_cmd.h"

// In pipeline order. Each skips itself when its output is there; each may be run alone. `needs`:
// what an earlier stage leaves in output_dir, without which a dry run has nothing to plan from.
static const struct {
    const Verb *verb;
    const char *needs;
} stages[] = {
    {&prepare_verb, NULL},
    {&regenerate_verb, "data/train.jsonl"},
    {&capture_verb, "regen/train.jsonl"},
    {&train_verb, "shards/dev/manifest.json"},
    {&eval_verb, "shards/eval/manifest.json"},
    {&export_verb, "ckpt"},
};
enum { STAGES = sizeof stages / sizeof stages[0] };

static bool can_plan(const Cli *cli, const char *needs) {
    char path[PATH_ROOM];
    if (needs == NULL) return true;
    path_join(path, cli->s.output_dir, needs);
    return file_exists(path) || dir_exists(path);
}

typedef struct {
    const Verb *verb;
    const Cli *cli;
} Call;

static bool call(void *ctx, Err *err) {
    const Call *c = ctx;
    return c->verb->run(c->cli, err);
}

static bool run_stage(const Verb *verb, const Cli *cli, Err *err) {
    Call c = {verb, cli};
    watchdog_at(verb->name, "", 0);
    if (verb->ranks) return verb->run(cli, err);
    if (world_size() > 1) log_info("%s: rank 0 works, the others wait", verb->name);
    return world_alone(call, &c, err);
}

static bool run_all(const Cli *cli, Err *err) {
    for (int i = 0; i < STAGES; i++) {
        const Verb *verb = stages[i].verb;
        if (cli->dry_run && !can_plan(cli, stages[i].needs)) {
            printf("%-12s planned once %s is there\n", verb->name, stages[i].needs);
            continue;
        }
        log_info("-- %s", verb->name);
        if (!run_stage(verb, cli, err)) return err_wrap(err, "%s", verb->name);
    }
    return true;
}

static const Verb run_verb = {
    .name = "run",
    .summary = "the whole pipeline from one configuration; finished stages are skipped",
    .usage = "  draftsmith run -c configs/demo.json\n"
             "  draftsmith run -c configs/demo.json model.adapter_path=A data.train=T data.eval=E "
             "output_dir=O",
    .run = run_all,
    .stops = true,
    .ranks = true,
};

static const Verb *const others[] = {&generate_verb, &report_verb, &audit_verb,
                                     &inspect_verb,  &bench_verb,  &doctor_verb};
enum { OTHERS = sizeof others / sizeof others[0] };

static const Verb *verb_at(int i) { // run, stages, others; NULL behind the last
    if (i == 0) return &run_verb;
    if (i <= STAGES) return stages[i - 1].verb;
    return i - 1 - STAGES < OTHERS ? others[i - 1 - STAGES] : NULL;
}

static bool take_folder(const char *lock, const Cli *cli, bool *held, Err *err) {
    char config[PATH_ROOM];
    if (!dir_make(cli->s.output_dir, err) || !(*held = lock_take(lock, err))) return false;
    json_t *resolved = settings_json(&cli->s);
    const bool ok =
        json_write_file(path_join(config, cli->s.output_dir, "config.json"), resolved, err);
    json_decref(resolved);
    return ok;
}

// What writes into output_dir holds its lock and leaves the resolved configuration there.
static bool run_locked(const Verb *verb, const Cli *cli, Err *err) {
    char lock[PATH_ROOM];
    bool held = false;
    path_join(lock, cli->s.output_dir, "run.lock");
    bool ok = world_agree(world_rank() > 0 || take_folder(lock, cli, &held, err), err);
    ok = ok && run_stage(verb, cli, err);
    if (held) lock_release(lock);
    return ok;
}

static bool is_stage(const Verb *verb) {
    for (int i = 0; i < STAGES; i++)
        if (stages[i].verb == verb) return true;
    return verb == &run_verb;
}

// Ranks of one machine share its cores, unless the launcher gave each its own.
static void share_cores(Settings *s, const WorldPlace *place) {
    cpu_set_t set;
    const int all = (int)sysconf(_SC_NPROCESSORS_ONLN), ranks = place->locals;
    if (s->runtime.threads > 0 || ranks < 2) return;
    const int own = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : all;
    if (own == all) s->runtime.threads = all > ranks ? all / ranks : 1;
}

// Results and progress are those of rank 0; the others only warn, and say who they are.
static bool join_ranks(Cli *cli, const Verb *verb, const WorldPlace *place, Err *err) {
    if (place->rank > 0) {
        cli->quiet = true;
        log_set_quiet(true);
        log_set_rank(place->rank);
        if (freopen("/dev/null", "w", stdout) == NULL) return err_errno(err, "/dev/null");
    }
    if (place->size > 1 && !strncmp(cli->s.runtime.device, "cuda:", 5))
        return err_set(err, ERR_USAGE,
                       "runtime.device is %s: %d ranks on one GPU; with cuda every rank takes its "
                       "own",
                       cli->s.runtime.device, place->size);
    share_cores(&cli->s, place);
    if (verb->stops &&
        !watchdog_start(verb->name, cli->s.runtime.watchdog, place->rank, place->size, err))
        return false;
    return world_open(place, cli->s.runtime.watchdog, err);
}

static bool run_one(const Verb *verb, const Cli *cli, Err *err) {
    if (verb == &bench_verb && world_size() > 1 && !cli->dry_run)
        return ranks_bench_verb.run(cli, err);
    if (verb == &bench_verb) // eval and train may not see each other
        return bench_verb.run(cli, err) && (cli->dry_run || train_bench_verb.run(cli, err));
    if (is_stage(verb) && !cli->dry_run) return run_locked(verb, cli, err);
    return is_stage(verb) ? run_stage(verb, cli, err) : verb->run(cli, err);
}

static bool run_verb_line(const Verb *verb, int argc, char **argv, const WorldPlace *place,
                          Err *err) {
    Cli cli;
    if (!cli_parse(&cli, verb, argc, argv, err)) return false;
    bool ok = true;
    if (cli.help)
        cli_help(stdout, verb);
    else
        ok = join_ranks(&cli, verb, place, err) && run_one(verb, &cli, err);
    cli_free(&cli);
    if (ok && fflush(stdout) != 0) return err_errno(err, "standard output");
    return ok;
}

static void print_verbs(FILE *out) {
    fprintf(out,
            "draftsmith %s: retrains the drafter of a fine-tuned Gemma 4 target\n\n"
            "  draftsmith VERB [-c config.json] [section.field=value ...]\n\n",
            PROGRAM_VERSION);
    for (int i = 0; verb_at(i) != NULL; i++)
        fprintf(out, "  %-11s %s\n", verb_at(i)->name, verb_at(i)->summary);
    fprintf(out,
            "\n`draftsmith VERB --help` tells more. Results go to stdout, progress to stderr.\n"
            "Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 bad input, 4 a gate "
            "failed,\n75 stopped with a checkpoint, 76 stuck.\n");
}

static const Verb *find_verb(const char *name, Err *err) {
    const char *best = NULL;
    for (int i = 0; verb_at(i) != NULL; i++) {
        if (!strcmp(verb_at(i)->name, name)) return verb_at(i);
        nearest_offer(name, verb_at(i)->name, &best);
    }
    if (best)
        err_set(err, ERR_USAGE, "unknown verb \"%s\", did you mean \"%s\"?", name, best);
    else
        err_set(err, ERR_USAGE, "unknown verb \"%s\" (draftsmith --help lists them)", name);
    return NULL;
}

// One line, whatever a file put into it. Without a text another rank has said it.
static int report(const char *verb, Err *err) {
    char line[sizeof err->text];
    if (err->text[0] != '\0')
        fprintf(stderr, "draftsmith%s%s: %s\n", *verb ? " " : "", verb,
                utf8_fit(line, sizeof line, err->text));
    return err->code != ERR_NONE ? (int)err->code : ERR_FAILED;
}

// Verbs that are no matter of ranks are rank 0's, and so is what is wrong before ranks are joined.
static int run_ranks(const Verb *verb, int argc, char **argv) {
    Err err = {0};
    WorldPlace place;
    if (!world_place(&place, &err)) return report(verb->name, &err);
    const bool joins = verb->ranks || is_stage(verb);
    if (!joins && place.rank > 0) return 0;
    if (!joins) place = (WorldPlace){.size = 1};
    if (verb->stops) signals_install();
    const bool ok = run_verb_line(verb, argc, argv, &place, &err);
    if (!ok && place.rank > 0 && world_size() == 1) err.text[0] = '\0'; // rank 0 says the same
    if (!ok && place.rank > 0 && err.code != ERR_STUCK && err.text[0] != '\0')
        err_wrap(&err, "rank %d of %d", place.rank, place.size);
    const int code = ok ? 0 : report(verb->name, &err);
    world_leave(code);
    watchdog_stop();
    return code;
}

int main(int argc, char **argv) {
    start_guard(argv);
    signals_ignore_write();
    Err err = {0};
    if (argc < 2) {
        print_verbs(stderr);
        return ERR_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        print_verbs(stdout);
        return 0;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("draftsmith %s (%s)\n", PROGRAM_VERSION, VERSION);
        return 0;
    }
    const Verb *verb = find_verb(argv[1], &err);
    return verb == NULL ? report("", &err) : run_ranks(verb, argc - 2, argv + 2);
}
