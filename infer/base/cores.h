// infer/base/cores.h - how many threads a loop is spread over. OpenMP's own number does not tell:
// matrix products set it to 1 on their way.
#ifndef BASE_CORES_H
#define BASE_CORES_H

// Processors this process may use: those it may run on, cut to OMP_NUM_THREADS and to a container's
// quota. More threads than that would wait for each other in turns of the scheduler.
int cores_all(void);
// What loops without a device take (num_threads(cores_used())): cores_all() until it is set, which
// opening a device does.
int cores_used(void);
void cores_use(int n); // n >= 1

#endif
