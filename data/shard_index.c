// data/shard_index.c - opens one shard by exact names, refuses what the writer never makes, and
// reads its rows by chunk address.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/shard_file.h"
#include "infer/base/checked.h"

void shard_file_free(ShardFile *s) {
    free(s->offsets);
    free(s->state_at);
    for (int f = 0; f < FIELD_COUNT; f++) {
        free(s->field[f].address);
        free(s->field[f].sum);
    }
    *s = (ShardFile){0};
}

static bool is_hard_link(hid_t at, const char *name) {
    H5L_info_t info;
    return H5Lget_info(at, name, &info, H5P_DEFAULT) >= 0 && info.type == H5L_TYPE_HARD;
}

static bool extent_is(hid_t d, int rank, const hsize_t want[2]) {
    const hid_t space = H5Dget_space(d);
    hsize_t dims[2] = {0, 0};
    const bool ok = H5Sget_simple_extent_ndims(space) == rank &&
                    H5Sget_simple_extent_dims(space, dims, NULL) == rank && dims[0] == want[0] &&
                    (rank == 1 || dims[1] == want[1]);
    H5Sclose(space);
    return ok;
}

static bool type_is(hid_t d, hid_t want) {
    const hid_t type = H5Dget_type(d);
    const bool ok = type >= 0 && H5Tequal(type, want) > 0;
    if (type >= 0) H5Tclose(type);
    return ok;
}

// The layout class, no filters, no external files; for chunks their shape.
static bool layout_is(hid_t d, H5D_layout_t want, int rank, const hsize_t chunk[2]) {
    const hid_t dcpl = H5Dget_create_plist(d);
    hsize_t dims[2] = {0, 0};
    bool ok = dcpl >= 0 && H5Pget_layout(dcpl) == want && H5Pget_nfilters(dcpl) == 0 &&
              H5Pget_external_count(dcpl) == 0;
    if (ok && want == H5D_CHUNKED)
        ok = H5Pget_chunk(dcpl, 2, dims) == rank && dims[0] == chunk[0] &&
             (rank == 1 || dims[1] == chunk[1]);
    if (dcpl >= 0) H5Pclose(dcpl);
    return ok;
}

static bool read_sums(ShardFile *s, hid_t group, FieldId f) {
    const char *name = field_name(f);
    const hsize_t dims[2] = {(hsize_t)s->field[f].chunks, 0};
    if (!is_hard_link(group, name)) return false;
    const hid_t d = H5Dopen2(group, name, H5P_DEFAULT);
    if (d < 0) return false;
    const bool ok =
        extent_is(d, 1, dims) && type_is(d, H5T_STD_U64LE) &&
        layout_is(d, H5D_CONTIGUOUS, 1, NULL) &&
        H5Dread(d, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, s->field[f].sum) >= 0;
    H5Dclose(d);
    return ok;
}

static bool read_addresses(ShardFile *s, hid_t d, FieldId f) {
    const int64_t size = s->field[f].chunk_rows * s->field[f].row_bytes;
    for (int64_t c = 0; c < s->field[f].chunks; c++) {
        const hsize_t at[2] = {(hsize_t)(c * s->field[f].chunk_rows), 0};
        unsigned filters = 0;
        haddr_t address = HADDR_UNDEF;
        hsize_t stored = 0;
        if (H5Dget_chunk_info_by_coord(d, at, &filters, &address, &stored) < 0 || filters ||
            address == HADDR_UNDEF || stored != (hsize_t)size || (int64_t)address > s->bytes - size)
            return false;
        s->field[f].address[c] = address;
    }
    return true;
}

static bool load_field(ShardFile *s, hid_t file, hid_t sums, FieldId f, const ShardMeta *meta,
                       const ShardEntry *entry, Err *err) {
    const char *name = field_name(f);
    const int64_t rows = field_rows(f, entry), width = field_width(f, meta);
    const int64_t step = field_chunk_rows(f, meta, rows), chunks = (rows + step - 1) / step;
    s->field[f].rows = rows;
    s->field[f].row_bytes = field_row_bytes(f, meta);
    s->field[f].chunk_rows = step;
    s->field[f].chunks = chunks;
    s->field[f].address = calloc((size_t)chunks, sizeof(uint64_t));
    s->field[f].sum = calloc((size_t)chunks, sizeof(uint64_t));
    if (!s->field[f].address || !s->field[f].sum)
        return err_set(err, ERR_FAILED, "%s: out of memory", s->path);
    const int rank = width ? 2 : 1;
    const hsize_t dims[2] = {(hsize_t)rows, (hsize_t)width},
                  chunk[2] = {(hsize_t)step, (hsize_t)width};
    if (!is_hard_link(file, name))
        return h5_failed(err, ERR_INPUT, "%s: no dataset %s", s->path, name);
    const hid_t d = H5Dopen2(file, name, H5P_DEFAULT), type = field_type(f);
    bool ok = d >= 0 && extent_is(d, rank, dims) && type_is(d, type) &&
              layout_is(d, H5D_CHUNKED, rank, chunk) && read_addresses(s, d, f);
    if (d >= 0) H5Dclose(d);
    H5Tclose(type);
    if (!ok)
        return h5_failed(err, ERR_INPUT,
                         "%s: dataset %s is damaged or not as this program writes it", s->path,
                         name);
    return read_sums(s, sums, f) ||
           h5_failed(err, ERR_INPUT, "%s: checksums of dataset %s are damaged", s->path, name);
}

// All of a field that has a value for each sequence.
static bool load_numbers(ShardFile *s, FieldId f, int64_t *out, Err *err) {
    ChunkCache cache = {0};
    const int fd = shard_file_fd(s, err);
    const bool ok = fd >= 0 && shard_file_rows(s, fd, &cache, f, 0, s->field[f].rows, out, err);
    if (fd >= 0) close(fd);
    chunk_cache_free(&cache);
    return ok;
}

static bool load_offsets(ShardFile *s, Err *err) {
    s->offsets = malloc((size_t)(s->sequences + 1) * sizeof *s->offsets);
    if (!s->offsets) return err_set(err, ERR_FAILED, "%s: out of memory", s->path);
    if (!load_numbers(s, FIELD_OFFSETS, s->offsets, err)) return false;
    bool ok = true;
    for (int64_t i = 0; i < s->sequences; i++) ok = ok && s->offsets[i] < s->offsets[i + 1];
    if (!ok || s->offsets[0] != 0 || s->offsets[s->sequences] != s->tokens)
        return err_set(err, ERR_INPUT, "%s: dataset offsets does not run from 0 to %lld", s->path,
                       (long long)s->tokens);
    return true;
}

// Where the hidden states of each sequence begin: every one has some.
static bool load_states(ShardFile *s, Err *err) {
    int64_t *at = s->state_at = calloc((size_t)s->sequences + 1, sizeof *at);
    if (!at) return err_set(err, ERR_FAILED, "%s: out of memory", s->path);
    if (s->version > 1 && !load_numbers(s, FIELD_BARE, at + 1, err)) return false;
    for (int64_t i = 0; i < s->sequences; i++) {
        const int64_t n = s->offsets[i + 1] - s->offsets[i];
        if (at[i + 1] < 0 || at[i + 1] >= n)
            return err_set(err, ERR_INPUT, "%s: sequence %lld: %lld of %lld rows without a state",
                           s->path, (long long)i, (long long)at[i + 1], (long long)n);
        at[i + 1] = at[i] + n - at[i + 1];
    }
    return at[s->sequences] == s->states ||
           err_set(err, ERR_INPUT, "%s: %lld hidden states, the manifest says %lld", s->path,
                   (long long)at[s->sequences], (long long)s->states);
}

static bool load_open_file(ShardFile *s, hid_t file, const ShardMeta *meta, const ShardEntry *entry,
                           Err *err) {
    ShardMeta mine;
    Err why = {0};
    if (!shard_read_attributes(file, &mine, &s->version, &why))
        return err_set(err, why.code, "%s: %s", s->path, why.text);
    if (!shard_meta_match(&mine, meta, s->path, err)) return false;
    const hid_t sums = is_hard_link(file, "xxh3") ? H5Gopen2(file, "xxh3", H5P_DEFAULT) : -1;
    if (sums < 0) return h5_failed(err, ERR_INPUT, "%s: no group xxh3", s->path);
    bool ok = true;
    for (int f = 0; f < FIELD_COUNT && ok; f++)
        if (f != FIELD_BARE || s->version > 1)
            ok = load_field(s, file, sums, (FieldId)f, meta, entry, err);
    H5Gclose(sums);
    return ok;
}

bool shard_file_load(ShardFile *s, const char *path, const ShardMeta *meta, const ShardEntry *entry,
                     Err *err) {
    *s = (ShardFile){.bytes = entry->bytes,
                     .sequences = entry->sequences,
                     .tokens = entry->tokens,
                     .states = entry->states};
    path_join(s->path, "", path);
    int64_t size = 0, floor = 0;
    if (!file_size(path, &size, err)) goto fail;
    if (size != entry->bytes) {
        err_set(err, ERR_INPUT, "%s: %lld bytes, the manifest says %lld", path, (long long)size,
                (long long)entry->bytes);
        goto fail;
    }
    if (!mul_fits(s->tokens, shard_bytes_per_token(meta), &floor) ||
        shard_bytes(meta, s->tokens, s->states) > size || s->sequences > s->tokens) {
        err_set(err, ERR_INPUT, "%s: %lld bytes cannot hold %lld tokens", path, (long long)size,
                (long long)s->tokens);
        goto fail;
    }
    h5_quiet();
    const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0) {
        h5_failed(err, ERR_INPUT, "%s: damaged or not an HDF5 file", path);
        goto fail;
    }
    const bool ok = load_open_file(s, file, meta, entry, err);
    H5Fclose(file);
    if (ok && load_offsets(s, err) && load_states(s, err)) return true;
fail:
    shard_file_free(s);
    return false;
}

int shard_file_fd(const ShardFile *s, Err *err) {
    struct stat st;
    const int fd = open(s->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        err_errno(err, "%s", s->path);
        return -1;
    }
    if (fstat(fd, &st) == 0 && st.st_size == s->bytes) return fd;
    close(fd);
    err_set(err, ERR_INPUT, "%s: the file changed its size while in use", s->path);
    return -1;
}

void chunk_cache_free(ChunkCache *c) {
    for (int f = 0; f < FIELD_COUNT; f++) free(c->data[f]);
    *c = (ChunkCache){0};
}

static bool read_chunk(const ShardFile *s, int fd, ChunkCache *cache, FieldId f, int64_t c,
                       Err *err) {
    const size_t size = (size_t)(s->field[f].chunk_rows * s->field[f].row_bytes);
    if (cache->of[f] == s && cache->chunk[f] == c) return true;
    cache->of[f] = NULL;
    if (cache->room[f] < size) {
        void *more = realloc(cache->data[f], size);
        if (!more) return err_set(err, ERR_FAILED, "%s: out of memory", s->path);
        cache->data[f] = more;
        cache->room[f] = size;
    }
    for (size_t done = 0; done < size;) {
        const ssize_t n = pread(fd, (char *)cache->data[f] + done, size - done,
                                (off_t)(s->field[f].address[c] + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_errno(err, "%s", s->path);
        if (n == 0)
            return err_set(err, ERR_INPUT, "%s: ends inside dataset %s", s->path, field_name(f));
        done += (size_t)n;
    }
    if (xxh3_64(cache->data[f], size) != s->field[f].sum[c])
        return err_set(err, ERR_INPUT,
                       "%s: dataset %s: chunk %lld of %lld is damaged (its XXH3 differs)", s->path,
                       field_name(f), (long long)c, (long long)s->field[f].chunks);
    cache->of[f] = s;
    cache->chunk[f] = c;
    return true;
}

bool shard_file_rows(const ShardFile *s, int fd, ChunkCache *cache, FieldId f, int64_t first,
                     int64_t n, void *out, Err *err) {
    const int64_t step = s->field[f].chunk_rows, bytes = s->field[f].row_bytes;
    CHECK(first >= 0 && n >= 0 && first + n <= s->field[f].rows);
    for (int64_t done = 0; done < n;) {
        const int64_t c = (first + done) / step, from = (first + done) % step;
        const int64_t count = step - from < n - done ? step - from : n - done;
        if (!read_chunk(s, fd, cache, f, c, err)) return false;
        memcpy((char *)out + done * bytes, (const char *)cache->data[f] + from * bytes,
               (size_t)(count * bytes));
        done += count;
    }
    return true;
}

bool shard_file_verify(const ShardFile *s, Err *err) {
    ChunkCache cache = {0};
    const int fd = shard_file_fd(s, err);
    bool ok = fd >= 0;
    for (int f = 0; f < FIELD_COUNT && ok; f++)
        for (int64_t c = 0; c < s->field[f].chunks && ok; c++)
            ok = read_chunk(s, fd, &cache, (FieldId)f, c, err);
    if (fd >= 0) close(fd);
    chunk_cache_free(&cache);
    return ok;
}
