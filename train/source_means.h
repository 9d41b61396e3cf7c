// train/source_means.h - weighted means by the source that samples came from: the loss of a step,
// tau on the dev split.
#ifndef TRAIN_SOURCE_MEANS_H
#define TRAIN_SOURCE_MEANS_H

enum { SOURCE_MEANS = 64 }; // sources told apart; those beyond are left out

// Zero-initialise.
typedef struct {
    int n;
    char name[SOURCE_MEANS][128]; // Sample.source
    double sum[SOURCE_MEANS], weight[SOURCE_MEANS];
} SourceMeans;

void source_means_add(SourceMeans *m, const char *source, double sum, double weight);
// "PREFIX/SOURCE" and sum / weight of those with any weight; returns how many. names point into
// room.
int source_means_list(const SourceMeans *m, const char *prefix, char room[SOURCE_MEANS][160],
                      const char **names, double *values);

#endif
