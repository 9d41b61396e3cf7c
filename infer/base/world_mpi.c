// infer/base/world_mpi.c - collectives by messages between pairs of ranks, so that it is known
// whose is missing; the only file that knows MPI.
#include "infer/base/world_parts.h"

#ifndef WITH_MPI

#include <string.h>

void world_mpi_name(char out[128]) {
    strcpy(out, "not built in: CPU ranks by torchrun's variables alone");
}

const WorldLink *world_mpi_open(const WorldPlace *place, Err *err) {
    err_set(err, ERR_USAGE,
            "started by %s, but this program was built without MPI (libopenmpi-dev, then make)",
            place->launcher);
    return NULL;
}

#else

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mpi.h>

// Floats of one turn of adding: bounds what is held beside the sum.
#define TURN ((int64_t)4 << 20)
enum { TAGS = 16384, PULSE = TAGS };

static struct {
    int rank, size, tag;
    MPI_Request *request; // (2 * size): what is received, then what is sent; by rank
    float *room;          // pieces of other ranks
    const float **part;   // (size) where the piece of each lies
    bool *alive;          // (size) has said so
} mpi;

static bool done(int status, Err *err) {
    if (status == MPI_SUCCESS) return true;
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    MPI_Error_string(status, text, &n);
    return err_set(err, ERR_FAILED, "MPI: %.900s", text);
}

// One message of `bytes` to and from every other rank, named by what follows.
static void begin(void) {
    for (int i = 0; i < 2 * mpi.size; i++) mpi.request[i] = MPI_REQUEST_NULL;
    mpi.tag = (mpi.tag + 1) % TAGS;
}

static bool receive(void *to, size_t bytes, int from, Err *err) {
    return done(
        MPI_Irecv(to, (int)bytes, MPI_BYTE, from, mpi.tag, MPI_COMM_WORLD, &mpi.request[from]),
        err);
}

static bool send(const void *data, size_t bytes, int to, Err *err) {
    return done(MPI_Isend(data, (int)bytes, MPI_BYTE, to, mpi.tag, MPI_COMM_WORLD,
                          &mpi.request[mpi.size + to]),
                err);
}

static bool wait_for_all(Err *err) {
    WorldWait w = {0};
    for (int i = 0; i < 2 * mpi.size;) {
        int arrived = 0;
        if (mpi.request[i] == MPI_REQUEST_NULL) {
            i++;
            continue;
        }
        if (!done(MPI_Test(&mpi.request[i], &arrived, MPI_STATUS_IGNORE), err)) return false;
        if (arrived)
            w = (WorldWait){0};
        else if (!world_wait(&w, i % mpi.size, err))
            return false;
    }
    return true;
}

static bool gather(const void *mine, size_t bytes, void *all, Err *err) {
    begin();
    for (int r = 0; r < mpi.size; r++) {
        char *slot = (char *)all + bytes * (size_t)r;
        if (r == mpi.rank) {
            memcpy(slot, mine, bytes);
            continue;
        }
        if (!receive(slot, bytes, r, err)) return false;
    }
    for (int r = 0; r < mpi.size; r++)
        if (r != mpi.rank && !send(mine, bytes, r, err)) return false;
    return wait_for_all(err);
}

static int64_t piece_at(int64_t n, int r) {
    return n * r / mpi.size;
}

// Every rank adds up one piece, which it receives from the others, and hands the sum out.
static bool add_turn(float *x, int64_t n, Err *err) {
    const int64_t first = piece_at(n, mpi.rank), own = piece_at(n, mpi.rank + 1) - first;
    float *room = mpi.room;
    begin();
    for (int r = 0; r < mpi.size; r++) {
        mpi.part[r] = r == mpi.rank ? x + first : room;
        if (r == mpi.rank) continue;
        if (!receive(room, (size_t)own * sizeof *x, r, err)) return false;
        room += own;
    }
    for (int r = 0; r < mpi.size; r++) {
        const int64_t at = piece_at(n, r), count = piece_at(n, r + 1) - at;
        if (r != mpi.rank && !send(x + at, (size_t)count * sizeof *x, r, err)) return false;
    }
    if (!wait_for_all(err)) return false;
    sum_in_order(x + first, mpi.part, mpi.size, own);
    begin();
    for (int r = 0; r < mpi.size; r++) {
        const int64_t at = piece_at(n, r), count = piece_at(n, r + 1) - at;
        if (r == mpi.rank) continue;
        if (!receive(x + at, (size_t)count * sizeof *x, r, err) ||
            !send(x + first, (size_t)own * sizeof *x, r, err))
            return false;
    }
    return wait_for_all(err);
}

static bool add(float *x, int64_t n, Err *err) {
    for (int64_t at = 0; at < n; at += TURN)
        if (!add_turn(x + at, n - at < TURN ? n - at : TURN, err)) return false;
    return true;
}

// Without contents: kept aside by the library until the other rank waits for something.
static void pulse(void) {
    for (int r = 0; r < mpi.size; r++) {
        MPI_Request sent;
        if (r == mpi.rank) continue;
        if (MPI_Isend(NULL, 0, MPI_BYTE, r, PULSE, MPI_COMM_WORLD, &sent) == MPI_SUCCESS)
            MPI_Request_free(&sent);
    }
}

static bool heard(int rank) {
    int there = 0;
    MPI_Status from;
    while (MPI_Iprobe(MPI_ANY_SOURCE, PULSE, MPI_COMM_WORLD, &there, &from) == MPI_SUCCESS &&
           there) {
        MPI_Recv(NULL, 0, MPI_BYTE, from.MPI_SOURCE, PULSE, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        mpi.alive[from.MPI_SOURCE] = true;
    }
    bool any = false;
    for (int r = 0; r < mpi.size; r++) {
        if (rank >= 0 && r != rank) continue;
        any |= mpi.alive[r];
        mpi.alive[r] = false;
    }
    return any;
}

static void leave(int code, bool together) {
    if (together) heard(-1);
    free(mpi.alive);
    free(mpi.request);
    free(mpi.part);
    free(mpi.room);
    if (together)
        MPI_Finalize();
    else
        MPI_Abort(MPI_COMM_WORLD, code);
}

static bool take_memory(Err *err) {
    const size_t N = (size_t)mpi.size;
    mpi.request = calloc(2 * N, sizeof *mpi.request);
    mpi.part = calloc(N, sizeof *mpi.part);
    mpi.alive = calloc(N, sizeof *mpi.alive);
    mpi.room = malloc(((size_t)TURN + N * N) * sizeof *mpi.room);
    return (mpi.request && mpi.part && mpi.room && mpi.alive) ||
           err_set(err, ERR_FAILED, "out of memory");
}

void world_mpi_name(char out[128]) {
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int n = 0;
    MPI_Get_library_version(text, &n);
    text[strcspn(text, ",\n")] = '\0';
    snprintf(out, 128, "%.127s", text);
}

const WorldLink *world_mpi_open(const WorldPlace *place, Err *err) {
    static const WorldLink link = {gather, add, pulse, heard, leave};
    int level;
    if (!done(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level), err)) return NULL;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &mpi.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &mpi.size);
    if (mpi.rank != place->rank || mpi.size != place->size) {
        err_set(err, ERR_USAGE,
                "%s says rank %d of %d, MPI says %d of %d: start it with the mpirun of the MPI "
                "that it is built with",
                place->launcher, place->rank, place->size, mpi.rank, mpi.size);
        return NULL;
    }
    return take_memory(err) ? &link : NULL;
}

#endif
