// infer/tensor/cuda/staging.cu - bytes between host and device, through pinned memory.
//
// Two halves take turns: while the device copies one, the host fills (or empties) the other. A half
// is filled by many small uploads before it is handed over, so that an upload of a few bytes waits
// for nothing. Downloads that are begun and ended go past it, on the second stream.
#include <stdlib.h>
#include <string.h>

#include "infer/tensor/cuda/cuda_parts.cuh"

enum : size_t { HALF_BYTES = 8u << 20, STAGE_ALIGN = 64 };

struct Staging {
    char *host;          // two halves
    cudaEvent_t done[2]; // behind the last copy of each
    bool open[2], busy[2];
    int turn;
    size_t used; // of the half at hand
};

Staging *staging_open(Cuda *cu) {
    Staging *s = (Staging *)calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    bool ok = cuda_ok(cu, cudaHostAlloc((void **)&s->host, 2 * HALF_BYTES, cudaHostAllocDefault));
    for (int i = 0; i < 2; i++)
        ok = ok && (s->open[i] =
                        cuda_ok(cu, cudaEventCreateWithFlags(&s->done[i], cudaEventDisableTiming)));
    if (ok) return s;
    staging_close(s);
    return NULL;
}

void staging_close(Staging *s) {
    if (s == NULL) return;
    for (int i = 0; i < 2; i++)
        if (s->open[i]) cudaEventDestroy(s->done[i]);
    if (s->host != NULL) cudaFreeHost(s->host);
    free(s);
}

// The other half, once the device is done with it.
static bool turn_over(Cuda *cu, Staging *s) {
    if (!cuda_ok(cu, cudaEventRecord(s->done[s->turn], cu->stream))) return false;
    s->busy[s->turn] = true;
    s->turn ^= 1;
    s->used = 0;
    const bool wait = s->busy[s->turn];
    s->busy[s->turn] = false;
    return !wait || cuda_ok(cu, cudaEventSynchronize(s->done[s->turn]));
}

// Room that the host may write to now; the caller enqueues its copy before it asks again.
static char *stage(Cuda *cu, size_t bytes) {
    Staging *s = cu->up;
    if (s->used + bytes > HALF_BYTES && !turn_over(cu, s)) return NULL;
    char *p = s->host + (size_t)s->turn * HALF_BYTES + s->used;
    s->used += (bytes + STAGE_ALIGN - 1) / STAGE_ALIGN * STAGE_ALIGN;
    return p;
}

// A view whose rows all lie behind each other is one row.
static Tensor flat(Tensor t) {
    return tensor_is_contiguous(t)
               ? tensor_view(t, t.rows > 0 ? 1 : 0, t.rows > 0 ? tensor_count(t) : t.cols)
               : t;
}

static bool copy_rows(Cuda *cu, Tensor t, char *packed, cudaMemcpyKind kind, cudaStream_t stream) {
    const size_t row = (size_t)t.cols * dtype_size(t.dtype),
                 pitch = t.rows > 1 ? (size_t)t.ld * dtype_size(t.dtype) : row;
    const bool up = kind == cudaMemcpyHostToDevice;
    void *to = up ? t.data : packed;
    const void *from = up ? packed : t.data;
    if (t.rows == 1) return cuda_ok(cu, cudaMemcpyAsync(to, from, row, kind, stream));
    return cuda_ok(cu, cudaMemcpy2DAsync(to, up ? pitch : row, from, up ? row : pitch, row,
                                         (size_t)t.rows, kind, stream));
}

// A view is moved in pieces that fit a half: rows together, or columns of a long row.
typedef struct {
    Tensor rest; // rows that are left; cut from the front
    int64_t col; // of its first row
} Pieces;

static bool next_piece(Pieces *p, Tensor *piece) {
    const int64_t most = (int64_t)(HALF_BYTES / dtype_size(p->rest.dtype));
    if (p->rest.rows == 0 || p->rest.cols == 0) return false;
    if (p->rest.cols <= most) {
        const int64_t n = least64(most / p->rest.cols, p->rest.rows);
        *piece = tensor_rows(p->rest, 0, n);
        p->rest = tensor_rows(p->rest, n, p->rest.rows - n);
        return true;
    }
    *piece = tensor_cols(tensor_rows(p->rest, 0, 1), p->col, least64(most, p->rest.cols - p->col));
    p->col += piece->cols;
    if (p->col == p->rest.cols) {
        p->col = 0;
        p->rest = tensor_rows(p->rest, 1, p->rest.rows - 1);
    }
    return true;
}

void cuda_upload(Device *dev, Tensor dst, const void *src) {
    Cuda *cu = cuda_begin(dev, "upload");
    span_let_go(cu);
    const char *from = (const char *)src;
    Pieces p = {flat(dst), 0};
    for (Tensor piece; cu->failure[0] == '\0' && next_piece(&p, &piece);) {
        const size_t bytes = tensor_bytes(piece);
        char *room = stage(cu, bytes);
        if (room == NULL) return;
        memcpy(room, from, bytes);
        if (!copy_rows(cu, piece, room, cudaMemcpyHostToDevice, cu->stream)) return;
        from += bytes;
    }
    if (cu->blocking) cuda_ok(cu, cudaStreamSynchronize(cu->stream));
}

// The device copies a piece while the host empties the one before.
void cuda_download(Device *dev, void *dst, Tensor src) {
    Cuda *cu = cuda_begin(dev, "download");
    span_let_go(cu);
    Staging *s = cu->down;
    char *to = (char *)dst;
    Pieces p = {flat(src), 0};
    Tensor piece;
    size_t waiting = 0; // bytes of the copy under way, in the half that is not at hand
    for (bool more = true; more || waiting > 0;) {
        const size_t before = waiting;
        if (cu->failure[0] != '\0') return;
        more = more && next_piece(&p, &piece);
        waiting = 0;
        if (more) {
            char *half = s->host + (size_t)s->turn * HALF_BYTES;
            if (!copy_rows(cu, piece, half, cudaMemcpyDeviceToHost, cu->stream) ||
                !cuda_ok(cu, cudaEventRecord(s->done[s->turn], cu->stream)))
                return;
            waiting = tensor_bytes(piece);
        }
        s->turn ^= 1;
        if (before == 0) continue;
        if (!cuda_ok(cu, cudaEventSynchronize(s->done[s->turn]))) return;
        memcpy(to, s->host + (size_t)s->turn * HALF_BYTES, before);
        to += before;
    }
}

// Straight to where the caller reads it. What the event stood for before does not matter to the
// waits that were asked for then.
void cuda_download_begin(Device *dev, void *dst, Tensor src) {
    Cuda *cu = cuda_begin(dev, "download_begin");
    span_let_go(cu);
    if (cu->failure[0] != '\0' || tensor_count(src) == 0) return;
    if (!cuda_ok(cu, cudaEventRecord(cu->asked, cu->stream)) ||
        !cuda_ok(cu, cudaStreamWaitEvent(cu->copies, cu->asked, 0)) ||
        !copy_rows(cu, flat(src), (char *)dst, cudaMemcpyDeviceToHost, cu->copies))
        return;
    if (cu->blocking) cuda_ok(cu, cudaStreamSynchronize(cu->copies));
}

const void *cuda_send(Cuda *cu, const void *host, size_t bytes) {
    span_let_go(cu);
    void *to = cuda_scratch(cu, SCRATCH_SENT, bytes);
    char *room = to && bytes <= HALF_BYTES ? stage(cu, bytes) : NULL;
    if (to != NULL && bytes > HALF_BYTES) cuda_failed(cu, "too much host memory for one launch");
    if (room == NULL) return NULL;
    memcpy(room, host, bytes);
    const bool ok =
        cuda_ok(cu, cudaMemcpyAsync(to, room, bytes, cudaMemcpyHostToDevice, cu->stream));
    return ok ? to : NULL;
}
