// data/shard_write.c - one whole shard onto the disk: written aside, verified, synced, published. A
// kill at any moment leaves at most one nameless temporary.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/shard_file.h"
#include "infer/base/watchdog.h"
#include "infer/text/chat.h"

typedef struct {
    const CapturedSeq *const *seq;
    int n;
    int64_t *offsets, *state_at; // (n + 1), of tokens and of hidden states
    const ShardEntry *entry;
    const ShardMeta *meta;
    hid_t file, sums;
} Job;

static const void *token_rows(const CapturedSeq *c, FieldId f) {
    switch (f) {
    case FIELD_IDS:
        return c->sample.ids;
    case FIELD_KIND:
        return c->sample.kind;
    case FIELD_HIDDEN:
        return c->hidden;
    case FIELD_K_SLIDING:
        return c->k[LAYER_SLIDING];
    case FIELD_V_SLIDING:
        return c->v[LAYER_SLIDING];
    case FIELD_K_FULL:
        return c->k[LAYER_FULL];
    case FIELD_V_FULL:
        return c->v[LAYER_FULL];
    default:
        return NULL;
    }
}

// Rows [first, first + n) of the shard, gathered over the sequences they fall into.
static void gather_tokens(const Job *j, FieldId f, int64_t first, int64_t n, char *out) {
    const int64_t bytes = field_row_bytes(f, j->meta);
    const int64_t *at = f == FIELD_HIDDEN ? j->state_at : j->offsets;
    int s = 0;
    while (at[s + 1] <= first) s++;
    for (int64_t done = 0; done < n; s++) {
        const int64_t from = first + done - at[s];
        const int64_t there = at[s + 1] - first - done;
        const int64_t count = there < n - done ? there : n - done;
        const CapturedSeq *c = j->seq[s];
        if (f == FIELD_MASK)
            for (int64_t i = 0; i < count; i++)
                out[done + i] = c->sample.kind[from + i] >= TOKEN_MODEL;
        else
            memcpy(out + done * bytes, (const char *)token_rows(c, f) + from * bytes,
                   (size_t)(count * bytes));
        done += count;
    }
}

static void gather_sequence(const Job *j, FieldId f, int64_t i, char *out) {
    const Sample *s = &j->seq[i]->sample;
    const uint8_t stopped = s->stopped;
    switch (f) {
    case FIELD_PROMPT_ID:
        memcpy(out, s->id, strlen(s->id));
        break;
    case FIELD_CATEGORY:
        memcpy(out, s->category, strlen(s->category));
        break;
    case FIELD_SOURCE:
        memcpy(out, s->source, strlen(s->source));
        break;
    case FIELD_SAMPLER:
        memcpy(out, s->sampler, strlen(s->sampler));
        break;
    case FIELD_SAMPLE:
        memcpy(out, &s->sample, sizeof s->sample);
        break;
    case FIELD_PROMPT:
        memcpy(out, &s->prompt, sizeof s->prompt);
        break;
    case FIELD_STOPPED:
        memcpy(out, &stopped, 1);
        break;
    case FIELD_MARGIN:
        memcpy(out, &s->min_margin, sizeof s->min_margin);
        break;
    case FIELD_BARE:
        memcpy(out, &j->seq[i]->bare, sizeof j->seq[i]->bare);
        break;
    default:
        CHECK(false, "(field %d)", (int)f);
    }
}

static void gather(const Job *j, FieldId f, int64_t first, int64_t n, char *out) {
    if (f < FIELD_OFFSETS) {
        gather_tokens(j, f, first, n, out);
        return;
    }
    const int64_t bytes = field_row_bytes(f, j->meta);
    for (int64_t i = 0; i < n; i++) {
        if (f == FIELD_OFFSETS)
            memcpy(out + i * bytes, &j->offsets[first + i], sizeof(int64_t));
        else
            gather_sequence(j, f, first + i, out + i * bytes);
    }
}

static hid_t create_dataset(const Job *j, FieldId f, int64_t rows, int64_t chunk_rows) {
    const int64_t width = field_width(f, j->meta);
    const hsize_t dims[2] = {(hsize_t)rows, (hsize_t)width},
                  chunk[2] = {(hsize_t)chunk_rows, (hsize_t)width};
    const int rank = width ? 2 : 1;
    const hid_t type = field_type(f), space = H5Screate_simple(rank, dims, NULL);
    const hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(dcpl, rank, chunk);
    H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(dcpl, H5D_FILL_TIME_NEVER);
    H5Pset_obj_track_times(dcpl, false);
    const hid_t d = H5Dcreate2(j->file, field_name(f), type, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    H5Pclose(dcpl);
    H5Sclose(space);
    H5Tclose(type);
    return d;
}

static bool write_sums(const Job *j, FieldId f, const uint64_t *sum, int64_t chunks) {
    const hsize_t dims[1] = {(hsize_t)chunks};
    const hid_t space = H5Screate_simple(1, dims, NULL), dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_layout(dcpl, H5D_CONTIGUOUS);
    H5Pset_obj_track_times(dcpl, false);
    const hid_t d =
        H5Dcreate2(j->sums, field_name(f), H5T_STD_U64LE, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    bool ok = d >= 0 && H5Dwrite(d, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, sum) >= 0;
    if (d >= 0) ok = H5Dclose(d) >= 0 && ok;
    H5Pclose(dcpl);
    H5Sclose(space);
    return ok;
}

static bool write_field(const Job *j, FieldId f) {
    const int64_t rows = field_rows(f, j->entry), bytes = field_row_bytes(f, j->meta);
    const int64_t step = field_chunk_rows(f, j->meta, rows), chunks = (rows + step - 1) / step;
    const hid_t d = create_dataset(j, f, rows, step);
    uint64_t *sum = calloc((size_t)chunks, sizeof *sum);
    char *chunk = malloc((size_t)(step * bytes));
    bool ok = d >= 0 && sum && chunk;
    for (int64_t c = 0; c < chunks && ok; c++) {
        const int64_t n = rows - c * step < step ? rows - c * step : step;
        memset(chunk, 0, (size_t)(step * bytes));
        watchdog_beat();
        gather(j, f, c * step, n, chunk);
        sum[c] = xxh3_64(chunk, (size_t)(step * bytes));
        const hsize_t at[2] = {(hsize_t)(c * step), 0};
        ok = H5Dwrite_chunk(d, H5P_DEFAULT, 0, at, (size_t)(step * bytes), chunk) >= 0;
    }
    ok = ok && write_sums(j, f, sum, chunks);
    if (d >= 0) ok = H5Dclose(d) >= 0 && ok;
    free(chunk);
    free(sum);
    return ok;
}

// Everything small stays in object headers, which format 1.10 checksums: no dense storage.
static hid_t create_file(const char *path) {
    const hid_t fapl = H5Pcreate(H5P_FILE_ACCESS), fcpl = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_libver_bounds(fapl, H5F_LIBVER_V110, H5F_LIBVER_V110);
    H5Pset_alignment(fapl, 64 << 10, 4096);
    H5Pset_link_phase_change(fcpl, 2 * FIELD_COUNT, 0);
    H5Pset_attr_phase_change(fcpl, 2 * META_FIELDS, 0);
    H5Pset_obj_track_times(fcpl, false);
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, fcpl, fapl);
    H5Pclose(fapl);
    H5Pclose(fcpl);
    return file;
}

static hid_t create_sums_group(hid_t file) {
    const hid_t gcpl = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_link_phase_change(gcpl, 2 * FIELD_COUNT, 0);
    H5Pset_obj_track_times(gcpl, false);
    const hid_t group = H5Gcreate2(file, "xxh3", H5P_DEFAULT, gcpl, H5P_DEFAULT);
    H5Pclose(gcpl);
    return group;
}

static bool write_file(Job *j, const char *path, Err *err) {
    h5_quiet();
    j->file = create_file(path);
    if (j->file < 0) return h5_failed(err, ERR_FAILED, "cannot create %s", path);
    j->sums = create_sums_group(j->file);
    bool ok = j->sums >= 0 || h5_failed(err, ERR_FAILED, "cannot write %s", path);
    ok = ok && shard_write_attributes(j->file, j->meta, err);
    for (int f = 0; f < FIELD_COUNT && ok; f++)
        ok = write_field(j, (FieldId)f) || h5_failed(err, ERR_FAILED, "cannot write %s: dataset %s",
                                                     path, field_name((FieldId)f));
    if (j->sums >= 0) H5Gclose(j->sums);
    if (H5Fclose(j->file) < 0 && ok) ok = h5_failed(err, ERR_FAILED, "cannot close %s", path);
    return ok;
}

// fsync by name: the file was closed by the library.
static bool sync_file(const char *path, Err *err) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_errno(err, "cannot open %s", path);
    const bool ok = fsync(fd) == 0 || err_errno(err, "cannot write %s", path);
    close(fd);
    return ok;
}

static bool verify(const char *path, const ShardMeta *meta, ShardEntry *e, Err *err) {
    ShardFile s;
    Sha256 sha;
    if (!file_size(path, &e->bytes, err) || !sha256_file(&sha, path, err)) return false;
    strcpy(e->sha256, sha.hex);
    if (!shard_file_load(&s, path, meta, e, err)) return false;
    const bool ok = shard_file_verify(&s, err);
    shard_file_free(&s);
    return ok && sync_file(path, err);
}

bool shard_file_make(const char *path, const ShardMeta *meta, const CapturedSeq *const *seq, int n,
                     ShardEntry *e, Err *err) {
    int64_t *at = calloc(2 * ((size_t)n + 1), sizeof *at);
    if (!at) return err_set(err, ERR_FAILED, "out of memory");
    Job j = {.seq = seq, .n = n, .offsets = at, .state_at = at + n + 1, .entry = e, .meta = meta};
    e->sequences = n;
    e->tokens = e->states = 0;
    for (int i = 0; i < n; i++) {
        const int64_t tokens = seq[i]->sample.n, bare = seq[i]->bare;
        CHECK(bare >= 0 && bare < tokens);
        e->tokens = j.offsets[i + 1] = e->tokens + tokens;
        e->states = j.state_at[i + 1] = e->states + tokens - bare;
    }
    char tmp[PATH_ROOM + 8];
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    const bool ok =
        write_file(&j, tmp, err) && verify(tmp, meta, e, err) && path_publish(tmp, path, err);
    if (!ok) unlink(tmp);
    free(at);
    return ok;
}
