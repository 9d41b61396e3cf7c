// eval/count/acceptance_read.h - reading an acceptance.json object for its tables. Private to
// acceptance*.c and quantmatrix.c.
#ifndef EVAL_ACCEPTANCE_READ_H
#define EVAL_ACCEPTANCE_READ_H

#include <jansson.h>

enum { DRAFTERS_MAX = 64 };

typedef struct {
    int n; // the first is the one that the others are compared with
    const char *name[DRAFTERS_MAX];
    char shown[DRAFTERS_MAX][64]; // in a table's cell
} DrafterNames;
void drafter_names(DrafterNames *names, const json_t *report); // borrows from the report

const char *report_rule(const json_t *report, size_t i); // NULL behind the last
const json_t *report_head(const json_t *report, const char *drafter, const char *key,
                          const char *what);
double real_at(const json_t *array, size_t i);
// What people call their files and categories must not break a table.
const char *table_cell(char out[64], const char *name);

#endif
