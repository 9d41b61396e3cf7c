// eval/count/acceptance_read.c - what the tables take out of an acceptance.json object.
#include "eval/count/acceptance_read.h"

#include <string.h>

#include "infer/base/utf8.h"

const char *report_rule(const json_t *report, size_t i) {
    const json_t *rules = json_object_get(report, "rules");
    if (rules == NULL) return i == 0 ? "greedy" : NULL; // of an older file
    return json_string_value(json_array_get(rules, i));
}

double real_at(const json_t *array, size_t i) {
    return json_number_value(json_array_get(array, i));
}

const json_t *report_head(const json_t *report, const char *drafter, const char *key,
                          const char *what) {
    const json_t *d = json_object_get(json_object_get(report, "drafters"), drafter);
    return json_object_get(json_object_get(d, key), what);
}

const char *table_cell(char out[64], const char *name) {
    utf8_fit(out, 64, name[0] ? name : "(none)");
    for (char *p = out; (p = strpbrk(p, "|<>`")) != NULL;) *p = '/'; // no markup from data
    return out;
}

void drafter_names(DrafterNames *names, const json_t *report) {
    const char *name;
    json_t *drafter, *all = json_object_get(report, "drafters");
    names->n = 0;
    json_object_foreach(all, name, drafter) {
        if (names->n == DRAFTERS_MAX) break;
        names->name[names->n] = name;
        table_cell(names->shown[names->n++], name);
    }
}
