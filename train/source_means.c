// train/source_means.c - few names, looked up one by one.
#include "train/source_means.h"

#include <stdio.h>
#include <string.h>

void source_means_add(SourceMeans *m, const char *source, double sum, double weight) {
    int i = 0;
    while (i < m->n && strcmp(m->name[i], source) != 0) i++;
    if (i == SOURCE_MEANS || source[0] == '\0') return;
    if (i == m->n) snprintf(m->name[m->n++], sizeof m->name[0], "%s", source);
    m->sum[i] += sum;
    m->weight[i] += weight;
}

int source_means_list(const SourceMeans *m, const char *prefix, char room[SOURCE_MEANS][160],
                      const char **names, double *values) {
    int n = 0;
    for (int i = 0; i < m->n; i++) {
        if (m->weight[i] <= 0) continue;
        snprintf(room[n], sizeof room[n], "%s/%s", prefix, m->name[i]);
        names[n] = room[n];
        values[n++] = m->sum[i] / m->weight[i];
    }
    return n;
}
