// infer/base/world_parts.h - what carries the collectives of a world; nobody else includes it.
#ifndef BASE_WORLD_PARTS_H
#define BASE_WORLD_PARTS_H

#include "infer/base/world.h"

typedef struct {
    bool (*gather)(const void *mine, size_t bytes, void *all, Err *err);
    bool (*add)(float *x, int64_t n, Err *err);
    void (*pulse)(void); // tells the others that this rank goes on
    // Whether `rank` (-1: anyone) has told so since the last call.
    bool (*heard)(int rank);
    // together: every rank leaves now. Else the others are to end with `code`.
    void (*leave)(int code, bool together);
} WorldLink;

// Both join the ranks of `place`; NULL: err says why.
const WorldLink *world_mpi_open(const WorldPlace *place, Err *err);
const WorldLink *world_socket_open(const WorldPlace *place, Err *err);

// world_wait without its naps: for a caller that slept in poll().
MUST_CHECK bool world_wait_awake(WorldWait *w, int missing, Err *err);

#endif
