// infer/tensor/nccl.c - the few functions of NCCL and of the CUDA driver that sums over ranks take.
#include "infer/tensor/nccl.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/base/world.h"

// Both interfaces as far as they are used here: handles are opaque, results are 0 when all is well.
typedef struct {
    char bytes[128];
} NcclId;
enum { NCCL_FLOAT32 = 7, NCCL_SUM = 0 };
enum { STREAM_NON_BLOCKING = 1, EVENT_NO_TIMING = 2, CUDA_NOT_READY = 600 };

struct Nccl {
    Device *dev;
    void *library, *driver; // of dlopen
    void *comm, *stream, *event;
    bool joined; // every rank is there
    bool busy;   // something was added, and no wait has seen its end
    struct {
        int (*get_id)(NcclId *id);
        int (*init_rank)(void **comm, int ranks, NcclId id, int rank);
        int (*all_reduce)(const void *from, void *to, size_t count, int type, int op, void *comm,
                          void *stream);
        int (*async_error)(void *comm, int *result);
        int (*abort)(void *comm);
        int (*destroy)(void *comm);
        int (*version)(int *version);
        const char *(*text)(int result);
        int (*stream_create)(void **stream, unsigned flags);
        int (*stream_destroy)(void *stream);
        int (*event_create)(void **event, unsigned flags);
        int (*event_destroy)(void *event);
        int (*event_record)(void *event, void *stream);
        int (*event_query)(void *event);
    } f;
};

static bool find(void *library, const char *name, void *function) {
    void *at = library ? dlsym(library, name) : NULL;
    memcpy(function, &at, sizeof at);
    return at != NULL;
}

// NODELETE: they have threads and exit handlers of their own, which must not lose their code.
static bool load(Nccl *n) {
    n->library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    n->driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    return find(n->library, "ncclGetUniqueId", &n->f.get_id) &&
           find(n->library, "ncclCommInitRank", &n->f.init_rank) &&
           find(n->library, "ncclAllReduce", &n->f.all_reduce) &&
           find(n->library, "ncclCommGetAsyncError", &n->f.async_error) &&
           find(n->library, "ncclCommAbort", &n->f.abort) &&
           find(n->library, "ncclCommDestroy", &n->f.destroy) &&
           find(n->library, "ncclGetVersion", &n->f.version) &&
           find(n->library, "ncclGetErrorString", &n->f.text) &&
           find(n->driver, "cuStreamCreate", &n->f.stream_create) &&
           find(n->driver, "cuStreamDestroy_v2", &n->f.stream_destroy) &&
           find(n->driver, "cuEventCreate", &n->f.event_create) &&
           find(n->driver, "cuEventDestroy_v2", &n->f.event_destroy) &&
           find(n->driver, "cuEventRecord", &n->f.event_record) &&
           find(n->driver, "cuEventQuery", &n->f.event_query);
}

static bool done(const Nccl *n, int result, const char *what, Err *err) {
    return result == 0 || err_set(err, ERR_FAILED, "NCCL: %s: %s", what, n->f.text(result));
}

static bool driver_done(int result, const char *what, Err *err) {
    return result == 0 || err_set(err, ERR_FAILED, "CUDA: %s: error %d", what, result);
}

// The id comes from rank 0. Rings add in an order that only the number of ranks and the machine
// decide, so that a run repeats bit for bit; whoever sets NCCL_ALGO knows better.
static bool join(Nccl *n, Err *err) {
    NcclId id = {{0}};
    int version = 0;
    setenv("NCCL_ALGO", "Ring", 0);
    bool ok = world_rank() > 0 || done(n, n->f.get_id(&id), "unique id", err);
    if (!world_agree(ok, err) || !world_share(&id, sizeof id, err)) return false;
    ok = done(n, n->f.init_rank(&n->comm, world_size(), id, world_rank()), "joining", err) &&
         driver_done(n->f.stream_create(&n->stream, STREAM_NON_BLOCKING), "stream", err) &&
         driver_done(n->f.event_create(&n->event, EVENT_NO_TIMING), "event", err);
    if (!world_agree(ok, err)) return false;
    n->joined = true;
    n->f.version(&version);
    log_info("NCCL %d: %d ranks", version, world_size());
    return true;
}

bool nccl_open(Nccl **out, Device *dev, Err *err) {
    Nccl *n = calloc(1, sizeof *n);
    CHECK_MEMORY(n);
    n->dev = dev;
    double have = load(n);
    *out = NULL;
    if (world_sum(true, &have, 1, err) && (int)have == world_size() && join(n, err)) {
        *out = n;
        return true;
    }
    nccl_close(n);
    return err == NULL || err->code == ERR_NONE;
}

void nccl_close(Nccl *n) {
    if (n == NULL) return;
    // One that waits for a rank that is gone, or has failed, would never be destroyed; nor would
    // memory be freed while its kernel runs.
    const bool well = n->joined && !n->busy && !world_broken();
    if (n->comm != NULL) (void)(well ? n->f.destroy(n->comm) : n->f.abort(n->comm));
    if (n->event != NULL) n->f.event_destroy(n->event);
    if (n->stream != NULL) n->f.stream_destroy(n->stream);
    if (n->library != NULL) dlclose(n->library);
    if (n->driver != NULL) dlclose(n->driver);
    free(n);
}

bool nccl_add(Nccl *n, void *x, int64_t count, Err *err) {
    // Waits for what makes x; what is queued from here on runs beside the sum.
    if (!dev_sync(n->dev, err)) return false;
    n->busy = true;
    return done(n, n->f.all_reduce(x, x, (size_t)count, NCCL_FLOAT32, NCCL_SUM, n->comm, n->stream),
                "all-reduce", err);
}

static bool wait_for_sums(Nccl *n, Err *err) {
    WorldWait w = {0};
    int state;
    if (!driver_done(n->f.event_record(n->event, n->stream), "event", err)) return false;
    while ((state = n->f.event_query(n->event)) == CUDA_NOT_READY) {
        int failed = 0;
        if (!done(n, n->f.async_error(n->comm, &failed), "state", err) ||
            !done(n, failed, "all-reduce", err) || !world_wait(&w, -1, err))
            return false;
    }
    return driver_done(state, "all-reduce", err);
}

bool nccl_wait(Nccl *n, Err *err) {
    if (!n->busy) return true;
    n->busy = !wait_for_sums(n, err);
    return !n->busy;
}
