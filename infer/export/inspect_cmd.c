// infer/export/inspect_cmd.c - prints a description as JSON, or as lines and tables for people.
#include "infer/export/inspect_cmd.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/json.h"
#include "infer/export/card.h"
#include "infer/export/describe.h"

enum { LINE_CHARS = 160 };

// Scalars as they are; arrays of numbers in one line; objects that do not fit into one by their
// members; what is larger still only by its size.
static void print_value(const char *key, const json_t *value, int depth) {
    char *text = json_text(value, JSON_COMPACT), inner[256];
    const char *name;
    json_t *member;
    if (json_is_string(value))
        printf("%-22s %s\n", key, json_string_value(value));
    else if (text != NULL &&
             (strlen(text) <= LINE_CHARS || !(json_is_array(value) || json_is_object(value))))
        printf("%-22s %s\n", key, text);
    else if (json_is_object(value) && depth == 0)
        json_object_foreach((json_t *)value, name, member) {
            snprintf(inner, sizeof inner, "%.100s.%.100s", key, name);
            print_value(inner, member, depth + 1);
        }
    else
        printf("%-22s %zu entries (--json shows them)\n", key,
               json_is_array(value) ? json_array_size(value) : json_object_size(value));
    free(text);
}

static void print_tensors(const json_t *list) {
    size_t i;
    json_t *t;
    json_array_foreach((json_t *)list, i, t) {
        char *shape = json_dumps(json_object_get(t, "shape"), JSON_COMPACT);
        printf("  %-60s %-5s %-16s %lld\n", json_string_value(json_object_get(t, "name")),
               json_string_value(json_object_get(t, "dtype")), shape ? shape : "",
               (long long)json_integer_value(json_object_get(t, "bytes")));
        free(shape);
    }
}

// Lists of objects (shards, checkpoints): one line each.
static void print_rows(const char *key, const json_t *list) {
    size_t i;
    json_t *row, *value;
    const char *name;
    printf("%s\n", key);
    json_array_foreach((json_t *)list, i, row) {
        printf(" ");
        json_object_foreach(row, name, value) {
            char *text = json_dumps(value, JSON_ENCODE_ANY);
            printf(" %s %s", name, text ? text : "");
            free(text);
        }
        printf("\n");
    }
}

static bool print_acceptance(const json_t *o, Err *err) {
    const json_t *list = json_object_get(o, "draft_tokens");
    printf("%4s %10s %10s %8s   %s\n", "k", "stock", "trained", "gain", "interval");
    for (size_t i = 0; i < json_array_size(list); i++) {
        Measurement m;
        const int64_t k = json_integer_value(json_array_get(list, i));
        if (!measurement_at(&m, o, k, err)) return false;
        if (m.known)
            printf("%4lld %10.3f %10.3f %+7.1f%%   %+.1f .. %+.1f %%\n", (long long)k, m.stock,
                   m.trained, 100 * m.gain, 100 * m.lo, 100 * m.hi);
    }
    return true;
}

static bool print_people(const json_t *o, Err *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)o, key, value) {
        if (strcmp(key, "tensors") == 0)
            print_tensors(value);
        else if (json_is_array(value) && json_is_object(json_array_get(value, 0)))
            print_rows(key, value);
        else
            print_value(key, value, 0);
    }
    const char *kind = json_string_value(json_object_get(o, "kind"));
    return kind == NULL || strcmp(kind, "acceptance") != 0 || print_acceptance(o, err);
}

static bool inspect_run(const Cli *cli, Err *err) {
    if (cli->nargs != 1)
        return err_set(err, ERR_USAGE, "inspect takes one path, got %d", cli->nargs);
    json_t *o = describe(cli->args[0], err);
    if (o == NULL) return false;
    bool ok = true;
    if (cli->json)
        ok = json_print(o, err);
    else
        ok = print_people(o, err);
    json_decref(o);
    return ok;
}

const Verb inspect_verb = {
    .name = "inspect",
    .summary = "what a file or folder is: weights, model, checkpoint, shards, results, tokenizer",
    .usage = "  draftsmith inspect runs/demo/ckpt/best\n"
             "  draftsmith inspect --json runs/demo/eval/acceptance.json",
    .max_args = 1,
    .run = inspect_run,
};
