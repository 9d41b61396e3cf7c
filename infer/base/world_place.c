// infer/base/world_place.c - the variables of launchers.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/world.h"

// Names of one launcher; NULL: it does not say. Its size is what tells that it is there.
typedef struct {
    const char *launcher, *size, *rank, *local, *locals;
} Names;

static const Names MPIRUN = {"mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK",
                             "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"};
static const Names TORCHRUN = {"torchrun", "WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
static const Names PMI = {"mpirun", "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"};
static const Names SRUN = {"srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", NULL};

static const char *value_of(const char *name) {
    const char *v = name ? getenv(name) : NULL;
    return v != NULL && *v != '\0' ? v : NULL;
}

static bool number(const char *name, int low, int high, int *out, Err *err) {
    const char *v = value_of(name);
    if (v == NULL) return err_set(err, ERR_USAGE, "%s is not set, which its launcher sets", name);
    char *end;
    errno = 0;
    const long x = strtol(v, &end, 10);
    if (errno != 0 || end == v || *end != '\0' || x < low || x > high)
        return err_set(err, ERR_USAGE, "%s is \"%s\", expected %d to %d", name, v, low, high);
    *out = (int)x;
    return true;
}

static bool read_names(const Names *n, WorldPlace *out, Err *err) {
    out->launcher = n->launcher;
    if (!number(n->size, 1, 1 << 20, &out->size, err)) return false;
    if (!number(n->rank, 0, out->size - 1, &out->rank, err)) return false;
    if (value_of(n->locals) && !number(n->locals, 1, out->size, &out->locals, err)) return false;
    out->local = 0;
    if (!value_of(n->local)) return true;
    return number(n->local, 0, (out->locals ? out->locals : out->size) - 1, &out->local, err);
}

// The agent of torchrun listens at MASTER_PORT itself, and says so: rank 0 takes the one above.
static bool read_torchrun(WorldPlace *out, Err *err) {
    const char *agent = value_of("TORCHELASTIC_USE_AGENT_STORE"),
               *job = value_of("TORCHELASTIC_RUN_ID"), *address = value_of("MASTER_ADDR");
    if (!read_names(&TORCHRUN, out, err) || !number("MASTER_PORT", 1, 65534, &out->port, err))
        return false;
    if (strlen(address) >= sizeof out->address)
        return err_set(err, ERR_USAGE, "MASTER_ADDR is %zu characters long", strlen(address));
    strcpy(out->address, address);
    snprintf(out->job, sizeof out->job, "%s", job ? job : "");
    out->port += agent != NULL && strcmp(agent, "True") == 0;
    return true;
}

bool world_place(WorldPlace *out, Err *err) {
    *out = (WorldPlace){.size = 1};
    bool ok = true;
    if (value_of(MPIRUN.size))
        ok = read_names(&MPIRUN, out, err);
    else if (value_of("RANK") && value_of("WORLD_SIZE") && value_of("MASTER_ADDR"))
        ok = read_torchrun(out, err);
    else if (value_of(PMI.size))
        ok = read_names(&PMI, out, err);
    else if (value_of(SRUN.size))
        ok = read_names(&SRUN, out, err);
    if (ok && out->size == 1) *out = (WorldPlace){.size = 1};
    return ok;
}
