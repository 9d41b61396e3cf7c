// infer/base/cores.c - asked once, as early as can be.
#include "infer/base/cores.h"

#include <omp.h>
#include <stdio.h>

static int used;

int cores_all(void) {
    static int allowed; // products set OpenMP's own value later
    if (allowed == 0) allowed = omp_get_max_threads();
    int n = omp_get_num_procs() < allowed ? omp_get_num_procs() : allowed;
    long quota = 0, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (f == NULL) return n;
    if (fscanf(f, "%ld %ld", &quota, &period) == 2 && quota > 0 && period > 0) {
        const long whole = quota / period > 0 ? quota / period : 1;
        if (whole < n) n = (int)whole;
    }
    fclose(f);
    return n;
}

int cores_used(void) {
    if (used == 0) used = cores_all();
    return used;
}

void cores_use(int n) {
    used = n;
}
