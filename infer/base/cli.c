// infer/base/cli.c - the command line of every verb.
#include "infer/base/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/base/nearest.h"
#include "infer/base/settings_table.h"

typedef struct {
    Cli *cli;
    int argc, at; // at: the argument being read
    char **argv;
    char **overrides; // "section.field=value", owned
    int n;
} Parse;

static const char *const options[] = {"--config",    "--dry-run", "--json", "--quiet",
                                      "--overwrite", "--show",    "--help"};
enum { OPTIONS = sizeof options / sizeof options[0] };

static bool add_override(Parse *p, const char *name, size_t size, const char *value, Err *err) {
    if (asprintf(&p->overrides[p->n], "%.*s=%s", (int)size, name, value) < 0)
        return err_errno(err, "command line");
    p->n++;
    return true;
}

// "a.b=value", but not "dir/a=b": what stands before '=' must look like a name.
static const char *override_value(const char *arg) {
    const size_t n =
        strspn(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");
    return n > 0 && arg[n] == '=' ? arg + n + 1 : NULL;
}

static bool unknown_option(const char *arg, size_t size, Err *err) {
    char given[128];
    const char *best = NULL;
    snprintf(given, sizeof given, "%.*s", (int)size, arg);
    for (int i = 0; i < OPTIONS; i++) nearest_offer(given, options[i], &best);
    Err field = {0};
    char full[96];
    if (best == NULL && !settings_find(given + 2, full, &field))
        return err_set(err, ERR_USAGE, "option %s: %s", given, field.text);
    return err_set(err, ERR_USAGE, "unknown option \"%s\", did you mean \"%s\"?", given, best);
}

// The value of an option: behind '=', else the next argument.
static const char *value_of(Parse *p, const char *eq, const char *name, Err *err) {
    if (eq != NULL) return eq + 1;
    if (p->at + 1 < p->argc) return p->argv[++p->at];
    err_set(err, ERR_USAGE, "option %s needs a value", name);
    return NULL;
}

static bool is_bool_field(const char *full) {
    for (int i = 0; i < settings_field_count; i++)
        if (!strcmp(settings_fields[i].name, full)) return settings_fields[i].type == FIELD_BOOL;
    return false;
}

static bool setting_option(Parse *p, const char *arg, const char *eq, Err *err) {
    char name[96], full[96];
    const size_t size = eq ? (size_t)(eq - arg) : strlen(arg);
    if (size >= sizeof name) return unknown_option(arg, size, err);
    snprintf(name, sizeof name, "%.*s", (int)size, arg);
    Err why = {0};
    if (!settings_find(name + 2, full, &why)) {
        if (strstr(why.text, "ambiguous"))
            return err_set(err, ERR_USAGE, "option %s: %s", name, why.text);
        return unknown_option(name, size, err);
    }
    if (eq == NULL && is_bool_field(full)) { // a switch: --stream, or --stream false
        const char *next = p->at + 1 < p->argc ? p->argv[p->at + 1] : "";
        const bool given = !strcmp(next, "true") || !strcmp(next, "false");
        if (given) p->at++;
        return add_override(p, full, strlen(full), given ? next : "true", err);
    }
    const char *value = value_of(p, eq, name, err);
    return value != NULL && add_override(p, full, strlen(full), value, err);
}

static bool show_option(Parse *p, const char *text, Err *err) {
    char *end;
    errno = 0;
    p->cli->show = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || p->cli->show < 0)
        return err_set(err, ERR_USAGE, "--show is \"%s\", expected a count", text);
    return true;
}

static bool option(Parse *p, const char *arg, Err *err) {
    Cli *c = p->cli;
    const char *eq = strchr(arg, '=');
    const struct {
        const char *name;
        bool *flag;
    } flags[] = {{"--dry-run", &c->dry_run},
                 {"--json", &c->json},
                 {"--quiet", &c->quiet},
                 {"-q", &c->quiet},
                 {"--overwrite", &c->overwrite},
                 {"--help", &c->help},
                 {"-h", &c->help}};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        const size_t n = strlen(flags[i].name);
        if (!strcmp(arg, flags[i].name)) return *flags[i].flag = true;
        if (!strncmp(arg, flags[i].name, n) && arg[n] == '=')
            return err_set(err, ERR_USAGE, "option %s takes no value, got \"%s\"", flags[i].name,
                           arg + n + 1);
    }
    if (!strcmp(arg, "-c") || !strcmp(arg, "--config") || !strncmp(arg, "--config=", 9))
        return (c->config_path = value_of(p, eq, "--config", err)) != NULL;
    if (!strcmp(arg, "--show") || !strncmp(arg, "--show=", 7)) {
        const char *value = value_of(p, eq, "--show", err);
        return value != NULL && show_option(p, value, err);
    }
    if (strncmp(arg, "--", 2) != 0) return err_set(err, ERR_USAGE, "unknown option \"%s\"", arg);
    return setting_option(p, arg, eq, err);
}

static bool argument(Parse *p, const Verb *verb, char *arg, Err *err) {
    Cli *c = p->cli;
    if (c->nargs == verb->max_args && verb->max_args == 0)
        return err_set(err, ERR_USAGE,
                       "%s takes no arguments, got \"%s\" (settings are name=value)", verb->name,
                       arg);
    if (c->nargs == verb->max_args)
        return err_set(err, ERR_USAGE, "%s takes at most %d argument%s, \"%s\" is one more",
                       verb->name, verb->max_args, verb->max_args == 1 ? "" : "s", arg);
    c->args[c->nargs++] = arg;
    return true;
}

static bool read_all(Parse *p, const Verb *verb, Err *err) {
    bool only_arguments = false;
    for (p->at = 0; p->at < p->argc; p->at++) {
        char *arg = p->argv[p->at];
        const char *value = override_value(arg);
        if (only_arguments || !strcmp(arg, "-") || arg[0] == '\0') {
            if (!argument(p, verb, arg, err)) return false;
        } else if (!strcmp(arg, "--")) {
            only_arguments = true;
        } else if (arg[0] == '-') {
            if (!option(p, arg, err)) return false;
        } else if (value != NULL) {
            if (!add_override(p, arg, (size_t)(value - 1 - arg), value, err)) return false;
        } else if (!argument(p, verb, arg, err)) {
            return false;
        }
    }
    return true;
}

// argv begins behind the verb.
bool cli_parse(Cli *cli, const Verb *verb, int argc, char **argv, Err *err) {
    *cli = (Cli){.verb = verb->name};
    Parse p = {.cli = cli, .argc = argc, .argv = argv};
    p.overrides = calloc((size_t)argc + 1, sizeof *p.overrides);
    cli->args = calloc((size_t)argc + 1, sizeof *cli->args);
    bool ok = p.overrides && cli->args ? read_all(&p, verb, err) : err_errno(err, "command line");
    if (ok && !cli->help) ok = settings_load(&cli->s, cli->config_path, p.overrides, p.n, err);
    for (int i = 0; i < p.n; i++) free(p.overrides[i]);
    free(p.overrides);
    log_set_quiet(cli->quiet);
    if (!ok) cli_free(cli);
    return ok;
}

void cli_free(Cli *cli) {
    settings_free(&cli->s);
    free(cli->args);
    cli->args = NULL;
    cli->nargs = 0;
}

void cli_help(FILE *out, const Verb *verb) {
    fprintf(out,
            "draftsmith %s - %s\n\n%s\n\n"
            "Options\n"
            "  -c, --config FILE          configuration (default: the built-in demo)\n"
            "  section.field=value        any setting below; --field value where only one has the "
            "name\n"
            "  --dry-run                  check inputs and print the plan, do nothing\n"
            "  --json                     results as JSON\n"
            "  -q, --quiet                no progress\n"
            "  --overwrite                redo what is already there\n"
            "  --show N                   prepare: print the first N items\n"
            "  -h, --help                 this text\n\n"
            "Settings\n",
            verb->name, verb->summary, verb->usage);
    settings_help(out, NULL);
}
