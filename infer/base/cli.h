// infer/base/cli.h - `draftsmith VERB [-c config.json] [section.field=value ...] [--field value]
// [args]`.
#ifndef BASE_CLI_H
#define BASE_CLI_H

#include "infer/base/settings.h"

typedef struct {
    const char *verb;
    Settings s;
    const char *config_path; // NULL: embedded default
    bool dry_run, json, quiet, overwrite, help;
    int64_t show; // prepare --show N
    char **args;  // positional arguments that are not overrides (borrowed from argv)
    int nargs;
} Cli;

// One verb: its name, one line for the list, usage text with two worked examples, and its function,
// which returns false with err set. Results go to stdout.
typedef struct {
    const char *name, *summary, *usage;
    int max_args; // positional arguments accepted
    bool (*run)(const Cli *cli, Err *err);
    bool stops; // looks at stop_requested; other verbs end where the signal finds them
    bool ranks; // every rank takes part; else rank 0 works and the others wait, or end
} Verb;

MUST_CHECK bool cli_parse(Cli *cli, const Verb *verb, int argc, char **argv, Err *err);
void cli_free(Cli *cli);
void cli_help(FILE *out, const Verb *verb); // usage, the common flags, every setting

// SIGTERM, SIGINT, SIGUSR1 set a flag that long loops look at between steps; a second SIGINT ends
// the process at once.
void signals_install(void);
// SIGPIPE and SIGXFSZ are ignored from here on: writes return their error.
void signals_ignore_write(void);
bool stop_requested(void);
bool stop_at_once(void); // it was SIGTERM: a launcher that ends ranks may kill soon

#endif
