// infer/base/world.h - the ranks of this program: one process each, started together by mpirun,
// srun or torchrun.
//
// A plain start is a world of one: nothing is initialised, and everything below returns at once.
// Collectives are called by every rank in the same order. Sums go in the order of the ranks,
// whatever carries them, so that a run repeats bit for bit, and every rank gets the same bits.
//
// A collective that fails has the error set and leaves the world broken: no other can be called,
// and world_leave takes the remaining ranks down. Waiting ends by a peer that is gone; when the
// missing rank has given no sign of life for the limit of world_open (ERR_STUCK, naming it), where
// every beat of the watchdog is such a sign: however long a rank works, it is waited for; and
// within moments of a SIGTERM (ERR_STOPPED): whoever sent it has ended other ranks, and rank 0 has
// a state to save.
#ifndef BASE_WORLD_H
#define BASE_WORLD_H

#include <stddef.h>
#include <stdint.h>

#include "infer/base/err.h"

// What the launcher says through the environment. Looked for in this order: Open MPI's variables
// (mpirun), torchrun's, PMI's, Slurm's (of a step: srun; a batch script alone is a plain start).
typedef struct {
    const char *launcher; // "mpirun", "torchrun", "srun"; NULL: a plain start
    int rank, size;
    int local, locals; // among the ranks of this machine; locals 0: not said
    // torchrun: where rank 0 listens, and what tells this job from others
    char address[256], job[128];
    int port;
} WorldPlace;
// Variables that contradict each other are ERR_USAGE, naming one and its value.
MUST_CHECK bool world_place(WorldPlace *out, Err *err);

// Joins the other ranks. limit_s: how long a silent rank is waited for, 0 = for ever.
MUST_CHECK bool world_open(const WorldPlace *place, int64_t limit_s, Err *err);
// Last act of a rank. code 0, or one that every rank knows of: waits for all. Else the other ranks
// are ended, too. May not return.
void world_leave(int code);

// "Open MPI v4.1.4", or that there is none.
void world_mpi_name(char out[128]);

int world_rank(void);
int world_size(void);
int world_local(void); // rank among those of this machine: picks its GPU
bool world_broken(void);

// all (world_size() blobs of `bytes`) by rank.
MUST_CHECK bool world_gather(const void *mine, size_t bytes, void *all, Err *err);
// The same for texts of any length; all[r] is the caller's to free, none on an error.
MUST_CHECK bool world_texts(const char *mine, char **all, Err *err);
// What rank 0 has becomes everybody's.
MUST_CHECK bool world_share(void *data, size_t bytes, Err *err);
// x[0..n) become sums over ranks. ok false on any rank: false on all, with the code of the first
// such rank; its own error stays there, on the others the text is empty (it has been said).
MUST_CHECK bool world_sum(bool ok, double *x, int n, Err *err);
static inline bool world_agree(bool ok, Err *err) {
    return world_sum(ok, NULL, 0, err);
}
// *any: whether one rank says so.
MUST_CHECK bool world_any(bool mine, bool *any, Err *err);
// x (n) becomes the sum over ranks: added in double, rounded once.
MUST_CHECK bool world_add(float *x, int64_t n, Err *err);
// Rank 0 works by itself, as a world of one, while the others wait.
MUST_CHECK bool world_alone(bool (*work)(void *ctx, Err *err), void *ctx, Err *err);

// Waiting for another rank, turn by turn: naps that get longer, a sign of life for the watchdog,
// and an end (see above). Zero-initialise; begin anew whenever something has arrived. missing -1:
// it is not known who.
typedef struct {
    double waited, before, stopping;
    int turns;
} WorldWait;
MUST_CHECK bool world_wait(WorldWait *w, int missing, Err *err);

// out (n) = the sum of part[0..parts) in that order; out may be one of them.
void sum_in_order(float *out, const float *const *part, int parts, int64_t n);

#endif
