// eval/report/report_metrics.c - metrics.jsonl read once for its last step, once for the means.
#include "eval/report/report_metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/json.h"

enum { METRICS_BYTES = 1 << 30, LINES = 2 + DRAFT_MAX };

typedef struct {
    double step[METRIC_POINTS], value[METRIC_POINTS];
    int64_t n[METRIC_POINTS];
} Sums;

static void name_of(char out[32], int line) {
    if (line < 2)
        snprintf(out, 32, line == 0 ? "train/loss" : "dev/tau");
    else
        snprintf(out, 32, "train/match_%d", line - 1);
}

// Calls with every line that is an object with a step.
static void each(const char *text, size_t size, void (*visit)(void *, const json_t *, int64_t),
                 void *ctx) {
    const char *end = text + size;
    for (const char *p = text; p < end;) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        if (stop == NULL) stop = end;
        json_t *line = json_read_text(p, (size_t)(stop - p), NULL);
        const json_t *step = json_object_get(line, "step");
        if (json_is_integer(step) && json_integer_value(step) >= 0)
            visit(ctx, line, json_integer_value(step));
        json_decref(line);
        p = stop + 1;
    }
}

static void find_last(void *ctx, const json_t *line, int64_t step) {
    RunMetrics *m = ctx;
    (void)line;
    if (step > m->steps) m->steps = step;
}

typedef struct {
    const RunMetrics *m;
    Sums *sums; // (LINES)
} Averaging;

static void add(void *ctx, const json_t *line, int64_t step) {
    const Averaging *a = ctx;
    char name[32];
    for (int i = 0; i < LINES; i++) {
        name_of(name, i);
        const json_t *x = json_object_get(line, name);
        if (!json_is_number(x)) continue;
        const int64_t at = step / (a->m->averaged * (i >= 2 ? METRIC_COARSE : 1));
        a->sums[i].step[at] += (double)step;
        a->sums[i].value[at] += json_number_value(x);
        a->sums[i].n[at]++;
    }
}

static void means(MetricLine *out, const Sums *s) {
    for (int i = 0; i < METRIC_POINTS; i++) {
        if (s->n[i] == 0) continue;
        out->step[out->n] = s->step[i] / (double)s->n[i];
        out->value[out->n++] = s->value[i] / (double)s->n[i];
    }
}

bool run_metrics_read(RunMetrics *m, const char *path, Err *err) {
    *m = (RunMetrics){.averaged = 1};
    if (path == NULL || !file_exists(path)) return true;
    size_t size;
    char *text = file_read(path, METRICS_BYTES, &size, err);
    if (text == NULL) return false;
    Sums *sums = calloc(LINES, sizeof *sums);
    CHECK_MEMORY(sums);
    each(text, size, find_last, m);
    m->averaged = m->steps / METRIC_POINTS + 1;
    each(text, size, add, &(Averaging){m, sums});
    means(&m->loss, &sums[0]);
    means(&m->dev, &sums[1]);
    for (int j = 0; j < DRAFT_MAX; j++) means(&m->match[j], &sums[2 + j]);
    free(sums);
    free(text);
    return true;
}
