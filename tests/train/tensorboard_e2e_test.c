// tests/train/tensorboard_e2e_test.c - the event files of a small run, read by TensorBoard's own
// reader (skipped where Python has none): the same scalars as metrics.jsonl, none missing.
#include <stdlib.h>
#include <sys/wait.h>

#include "infer/base/file.h"
#include "infer/base/log.h"
#include "tests/train/tiny_run.h"

static const char reader[] =
    "import json, math, struct, sys\n"
    "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
    "run = sys.argv[1]\n"
    "a = EventAccumulator(run + '/tb', size_guidance={'scalars': 0})\n"
    "a.Reload()\n"
    "read = {(t, e.step): e.value for t in a.Tags()['scalars'] for e in a.Scalars(t)}\n"
    "f32 = lambda x: struct.unpack('f', struct.pack('f', x))[0]\n"
    "told = {}\n"
    "for line in open(run + '/metrics.jsonl'):\n"
    "    o = json.loads(line)\n"
    "    told.update({(k, o['step']): v for k, v in o.items() if k not in ('time', 'step')})\n"
    "bad = [k for k in told.keys() | read.keys()\n"
    "       if k not in told or k not in read or f32(told[k]) != read[k]]\n"
    "want = {'train/loss', 'train/lr', 'train/anchors_per_s', 'train/tokens', 'dev/tau'}\n"
    "want |= {'%s_%d' % (n, i) for n in ('train/loss', 'train/match', 'dev/tau') for i in (1, 2, "
    "3)}\n"
    "missing = want - {k for k, _ in read}\n"
    "tau = [[told['dev/tau_%d' % k, s] for k in (1, 2, 3)] for s in (0, 30, 60)]\n"
    "assert min(map(min, tau)) > 0 and len({x for t in tau for x in t}) > 3, tau\n"
    "assert all(told['dev/tau', s] == told['dev/tau_3', s] for s in (0, 30, 60))\n"
    "assert not bad and not missing, (bad[:5], missing)\n"
    "print(len(read), 'scalars')\n";

static void tensorboard_reads_what_metrics_tell(void **state) {
    (void)state;
    const char *python = getenv("PYTHON") ? getenv("PYTHON") : "python3", *const more[] = {
                                                                              "train.steps=60",
                                                                              "train.dev_every=30",
                                                                              "train.lr=0.01",
                                                                              "train.route=1",
                                                                              NULL};
    char path[PATH_ROOM], *command;
    Err err = {0};
    TrainResult r;
    assert_true(asprintf(&command, "%s -c 'import tensorboard' >/dev/null 2>&1", python) > 0);
    const int absent = system(command);
    free(command);
    if (absent) {
        print_message("skipped: %s has no tensorboard\n", python);
        skip();
    }
    const char *dir = tiny_dir("events");
    assert_ok(tiny_run(dir, more, NO_FAULT, &r, &err), err);
    assert_ok(file_write(path_join(path, dir, "reader.py"), reader, sizeof reader - 1, &err), err);
    assert_true(asprintf(&command, "%s %s/reader.py %s 2>&1", python, dir, dir) > 0);
    FILE *p = popen(command, "r");
    free(command);
    assert_non_null(p);
    char said[4096];
    const size_t n = fread(said, 1, sizeof said - 1, p);
    said[n] = '\0';
    if (pclose(p) != 0) fail_msg("%s", said);
    print_message("compared %s", said);
    assert_true(atoi(said) > 60 * 10);
}

int main(int argc, char **argv) {
    (void)argc;
    tiny_passive(argv);
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {cmocka_unit_test(tensorboard_reads_what_metrics_tell)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
