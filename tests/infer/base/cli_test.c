// tests/infer/base/cli_test.c
#include "infer/base/cli.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/testing.h"

static const Verb toy = {.name = "toy",
                         .summary = "plays",
                         .usage = "draftsmith toy x\ndraftsmith toy y",
                         .max_args = 1};

static bool parse(Cli *cli, const char *line,
                  Err *err) { // words split at blanks; kept for the test
    static char words[1024], *argv[32];
    int argc = 0;
    *err = (Err){0};
    snprintf(words, sizeof words, "%s", line);
    for (char *w = strtok(words, " "); w != NULL; w = strtok(NULL, " ")) argv[argc++] = w;
    return cli_parse(cli, &toy, argc, argv, err);
}

static void settings_flags_and_arguments_mix(void **state) {
    (void)state;
    Err err;
    Cli c;
    assert_ok(parse(&c,
                    "train.lr=0.25 --json folder --train.k=3 --train.steps 7 -c configs/demo.json "
                    "--show 5 --stream --dry-run",
                    &err),
              err);
    assert_true(c.json && c.dry_run && !c.quiet && !c.overwrite && !c.help);
    assert_int_equal(c.show, 5);
    assert_string_equal(c.config_path, "configs/demo.json");
    assert_int_equal(c.nargs, 1);
    assert_string_equal(c.args[0], "folder");
    assert_true(c.s.train.lr == 0.25 && c.s.train.stream && c.s.train.k == 3);
    assert_int_equal(c.s.train.steps, 7);
    cli_free(&c);
}

static void a_switch_takes_a_value_only_when_it_is_one(void **state) {
    (void)state;
    Err err;
    Cli c;
    assert_ok(parse(&c, "--stream false --force x", &err), err);
    assert_false(c.s.train.stream);
    assert_true(c.s.export_.force);
    assert_string_equal(c.args[0], "x");
    cli_free(&c);
}

static void paths_with_an_equals_sign_stay_arguments(void **state) {
    (void)state;
    Err err;
    Cli c;
    assert_ok(parse(&c, "runs/a=b", &err), err);
    assert_string_equal(c.args[0], "runs/a=b");
    cli_free(&c);
    assert_ok(parse(&c, "-- --json", &err), err);
    assert_string_equal(c.args[0], "--json");
    assert_false(c.json);
    cli_free(&c);
}

static void what_is_wrong_is_named(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"--dry-rum", "unknown option \"--dry-rum\", did you mean \"--dry-run\"?"},
        {"--wramup 3", "option --wramup: unknown key \"wramup\", did you mean \"train.warmup\"?"},
        {"--seed 3", "option --seed: \"seed\" is ambiguous: \"data.seed\" or \"train.seed\"?"},
        {"--lr", "option --lr needs a value"},
        {"--config", "option --config needs a value"},
        {"-x", "unknown option \"-x\""},
        {"--show many", "--show is \"many\", expected a count"},
        {"--show=-1", "--show is \"-1\", expected a count"},
        {"one two", "toy takes at most 1 argument, \"two\" is one more"},
        {"train.lrr=1", "unknown key \"train.lrr\", did you mean \"train.lr\"?"},
        {"--train.k 77", "train.k is 77, allowed 1 to 16"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Err err;
        Cli c;
        if (parse(&c, cases[i][0], &err)) fail_msg("accepted: %s", cases[i][0]);
        assert_int_equal(err.code, ERR_USAGE);
        assert_string_equal(err.text, cases[i][1]);
    }
}

static void help_needs_no_configuration(void **state) {
    (void)state;
    Err err;
    Cli c;
    assert_ok(parse(&c, "-c /nonexistent --help", &err), err);
    assert_true(c.help);
    cli_free(&c);
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    cli_help(f, &toy);
    fclose(f);
    assert_non_null(strstr(text, "draftsmith toy - plays"));
    assert_non_null(strstr(text, "draftsmith toy y"));
    assert_non_null(strstr(text, "train.lr"));
    free(text);
}

static void signals_ask_once_and_end_twice(void **state) {
    (void)state;
    int report[2];
    assert_int_equal(pipe(report), 0);
    const pid_t child = fork();
    if (child == 0) {
        signals_install();
        signals_ignore_write();
        char seen[3] = {stop_requested() ? 'y' : 'n'};
        raise(SIGPIPE); // ignored
        raise(SIGINT);
        seen[1] = stop_requested() ? 'y' : 'n';
        if (write(report[1], seen, 2) != 2) _exit(1);
        raise(SIGINT);
        _exit(0);
    }
    char seen[3] = {0};
    int status = 0;
    close(report[1]); // a child that dies early must not leave us waiting
    assert_int_equal(read(report[0], seen, 2), 2);
    waitpid(child, &status, 0);
    assert_string_equal(seen, "ny");
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGINT);
    close(report[0]);
}

static void terminate_and_usr1_ask_to_stop(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const pid_t child = fork();
        if (child == 0) {
            signals_install();
            raise(i ? SIGTERM : SIGUSR1);
            raise(i ? SIGTERM : SIGUSR1); // again: still only a request
            _exit(stop_requested() ? 75 : 1);
        }
        int status = 0;
        waitpid(child, &status, 0);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 75);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_flags_and_arguments_mix),
        cmocka_unit_test(a_switch_takes_a_value_only_when_it_is_one),
        cmocka_unit_test(paths_with_an_equals_sign_stay_arguments),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(help_needs_no_configuration),
        cmocka_unit_test(signals_ask_once_and_end_twice),
        cmocka_unit_test(terminate_and_usr1_ask_to_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
