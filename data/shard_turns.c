// data/shard_turns.c - a folder of shards grows by turns of all ranks: each makes a shard, rank 0
// names them in the manifest. A kill at any moment leaves the shards named before it; a file that
// the manifest does not name does not exist.
#include <stdlib.h>
#include <string.h>

#include "data/shard_file.h"
#include "infer/base/worker.h"
#include "infer/base/world.h"

// This rank's part of a turn.
typedef struct {
    const CapturedSeq *const *seq; // borrowed
    int n;                         // 0: it has none
    ShardEntry made;
    bool begun, ok;
    Err err;
} Turn;

struct ShardWriter {
    char dir[PATH_ROOM], lock[PATH_ROOM];
    bool locked;
    Manifest m;
    // From begin to end the worker reads the manifest and is the one thread inside of HDF5, which
    // is not thread safe: its caller opens no shards meanwhile.
    Worker worker;
    Turn turn;
};

// Zeroes behind the strings, since whole members are stored and equal input must give equal bytes.
static ShardMeta tidy(const ShardMeta *meta) {
    ShardMeta out = {.hidden = meta->hidden, .window = meta->window, .vocab = meta->vocab};
    memcpy(out.kv_width, meta->kv_width, sizeof out.kv_width);
    for (int i = 0; i < META_FIELDS; i++)
        if (meta_fields[i].room)
            snprintf((char *)&out + meta_fields[i].offset, meta_fields[i].room, "%s",
                     (const char *)meta + meta_fields[i].offset);
    return out;
}

// Counts a named shard only while its file is there in its size; work goes on at the first that is
// not.
static void drop_missing(ShardWriter *w) {
    for (int i = 0; i < w->m.n; i++) {
        char path[PATH_ROOM];
        int64_t size = -1;
        Err err = {0};
        if (file_size(path_join(path, w->dir, w->m.shard[i].file), &size, &err) &&
            size == w->m.shard[i].bytes)
            continue;
        w->m.n = i;
        w->m.complete = false;
    }
}

static bool read_named(ShardWriter *w, Err *err) {
    char path[PATH_ROOM];
    if (!file_exists(manifest_path(path, w->dir))) return true;
    const ShardMeta mine = w->m.meta;
    if (!manifest_read(&w->m, w->dir, err) || !shard_meta_match(&w->m.meta, &mine, w->dir, err))
        return false;
    if (w->m.version != MANIFEST_VERSION)
        return err_set(err, ERR_INPUT, "%s: version %lld, this program writes %d", w->dir,
                       (long long)w->m.version, (int)MANIFEST_VERSION);
    w->m.meta = mine;
    drop_missing(w);
    return true;
}

// Rank 0 holds the lock for all, and its count of what is there is everyone's.
static bool open_together(ShardWriter *w, Err *err) {
    const bool first = world_rank() == 0;
    bool ok = !first || (dir_make(w->dir, err) && (w->locked = lock_take(w->lock, err)));
    if (!world_agree(ok, err) || !world_agree(read_named(w, err), err)) return false;
    const int mine = w->m.n;
    if (!world_share(&w->m.n, sizeof w->m.n, err)) return false;
    ok = mine >= w->m.n ||
         err_set(err, ERR_FAILED, "%s: %d shards are seen, rank 0 sees %d", w->dir, mine, w->m.n);
    if (!ok) w->m.n = mine;
    return world_agree(ok, err);
}

ShardWriter *shard_writer_open(const char *dir, const ShardMeta *meta, Err *err) {
    ShardWriter *w = calloc(1, sizeof *w);
    CHECK_MEMORY(w);
    path_join(w->dir, "", dir);
    path_join(w->lock, dir, "lock");
    w->m.meta = tidy(meta);
    if (open_together(w, err)) return w;
    shard_writer_close(w);
    return NULL;
}

void shard_writer_close(ShardWriter *w) {
    if (!w) return;
    worker_wait(&w->worker);
    if (w->locked) lock_release(w->lock);
    manifest_free(&w->m);
    free(w);
}

int shard_writer_next(const ShardWriter *w) {
    return w->m.n;
}

// Those of this turn, in the order of the ranks; a rank without one has no sequences.
static bool name_in_manifest(ShardWriter *w, const ShardEntry *e, int n, Err *err) {
    const int before = w->m.n;
    ShardEntry *more = realloc(w->m.shard, (size_t)(w->m.n + n) * sizeof *more);
    if (!more) return err_set(err, ERR_FAILED, "out of memory");
    w->m.shard = more;
    for (int i = 0; i < n; i++)
        if (e[i].sequences > 0) w->m.shard[w->m.n++] = e[i];
    w->m.complete = false;
    if (world_rank() > 0 || manifest_write(&w->m, w->dir, err)) return true;
    w->m.n = before;
    return false;
}

static void make_shard(void *writer) {
    ShardWriter *w = writer;
    Turn *t = &w->turn;
    const int number = w->m.n + world_rank();
    char path[PATH_ROOM];
    if (number >= SHARDS_MAX) {
        t->ok = err_set(&t->err, ERR_FAILED, "%s: more than %d shards", w->dir, (int)SHARDS_MAX);
        return;
    }
    path_join(path, w->dir, shard_name(t->made.file, number));
    t->ok = shard_file_make(path, &w->m.meta, t->seq, t->n, &t->made, &t->err);
}

void shard_write_begin(ShardWriter *w, const CapturedSeq *const *seq, int n) {
    CHECK(!w->turn.begun && (n > 0 || world_size() > 1));
    w->turn = (Turn){.seq = seq, .n = n, .begun = true, .ok = true};
    if (n > 0) worker_start(&w->worker, make_shard, w);
}

bool shard_write_failing(ShardWriter *w) {
    return !worker_busy(&w->worker) && w->turn.begun && !w->turn.ok;
}

bool shard_write_end(ShardWriter *w, Err *err) {
    Turn *t = &w->turn;
    if (!t->begun) return true;
    const int N = world_size();
    ShardEntry *all = calloc((size_t)N, sizeof *all);
    CHECK_MEMORY(all);
    worker_wait(&w->worker);
    t->begun = false;
    if (!t->ok) err_set(err, t->err.code, "%s", t->err.text);
    const bool ok = world_agree(t->ok, err) && world_gather(&t->made, sizeof t->made, all, err) &&
                    world_agree(name_in_manifest(w, all, N, err), err);
    free(all);
    return ok;
}

bool shard_write(ShardWriter *w, const CapturedSeq *const *seq, int n, Err *err) {
    shard_write_begin(w, seq, n);
    return shard_write_end(w, err);
}

bool shard_writer_finish(ShardWriter *w, int shards, Err *err) {
    CHECK(w->m.n == shards, "(%d shards of %d)", w->m.n, shards);
    w->m.complete = true;
    return world_agree(world_rank() > 0 || manifest_write(&w->m, w->dir, err), err);
}
