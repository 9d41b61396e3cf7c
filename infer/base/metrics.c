// infer/base/metrics.c - metrics.jsonl and its TensorBoard twin.
#include "infer/base/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/base/tfevents.h"

enum { METRICS_BYTES = 1 << 30, SCALARS_MAX = 256 };

struct Metrics {
    int lines, events; // file descriptors, -1: not open
    char lines_path[PATH_ROOM], events_path[PATH_ROOM];
};

static double unix_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// One write() a line: a reader beside us, or a kill, never sees half of one (except when the disk
// fills).
static bool put(int fd, const char *path, const void *data, size_t size, Err *err) {
    if (data == NULL) return err_set(err, ERR_FAILED, "%s: out of memory", path);
    for (const char *at = data; size > 0;) {
        const ssize_t n = write(fd, at, size);
        if (n < 0 && errno != EINTR) return err_errno(err, "cannot write %s", path);
        if (n > 0) at += n, size -= (size_t)n;
    }
    return true;
}

// The same line as an event; lines without numbers make none.
static bool replay(Metrics *m, const json_t *line, Err *err) {
    const char *names[SCALARS_MAX], *key;
    double values[SCALARS_MAX];
    int n = 0;
    json_t *v;
    json_object_foreach((json_t *)line, key, v) {
        if (!strcmp(key, "time") || !strcmp(key, "step") || n == SCALARS_MAX) continue;
        if (!json_is_number(v) && !json_is_null(v)) continue;
        names[n] = key;
        values[n++] = json_is_null(v) ? (double)NAN : json_number_value(v);
    }
    if (n == 0) return true;
    size_t size = 0;
    uint8_t *record = tfevents_scalars(json_number_value(json_object_get(line, "time")),
                                       json_integer_value(json_object_get(line, "step")), names,
                                       values, n, &size);
    const bool ok = put(m->events, m->events_path, record, size, err);
    free(record);
    return ok;
}

// Rewrites the file without what lies beyond resume_step and replays the rest into the event file.
static bool cut_and_replay(Metrics *m, int64_t resume_step, Err *err) {
    if (!file_exists(m->lines_path)) return true;
    OutFile out;
    size_t size;
    bool ok = true;
    char *text = file_read(m->lines_path, METRICS_BYTES, &size, err);
    if (text == NULL) return false;
    if (!out_open(&out, m->lines_path, err)) {
        free(text);
        return false;
    }
    for (char *p = text, *end; ok && (end = memchr(p, '\n', size - (size_t)(p - text))) != NULL;
         p = end + 1) {
        json_t *line = json_read_text(p, (size_t)(end - p), NULL);
        const json_t *step = json_object_get(line, "step");
        const bool beyond = resume_step >= 0 && json_integer_value(step) > resume_step;
        if (json_is_object(line) && !beyond) {
            out_write(&out, p, (size_t)(end - p) + 1);
            ok = replay(m, line, err);
        }
        json_decref(line);
    }
    free(text);
    if (ok) return out_commit(&out, err);
    out_drop(&out);
    return false;
}

static bool open_events(Metrics *m, const char *dir, Err *err) {
    char folder[PATH_ROOM], name[256], host[128] = "host";
    path_join(folder, dir, "tb");
    if (!dir_remove(folder, err) || !dir_make(folder, err)) return false;
    if (gethostname(host, sizeof host - 1) != 0) strcpy(host, "host");
    snprintf(name, sizeof name, "events.out.tfevents.%lld.%s", (long long)time(NULL), host);
    path_join(m->events_path, folder, name);
    m->events = open(m->events_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (m->events < 0) return err_errno(err, "cannot write %s", m->events_path);
    size_t size = 0;
    uint8_t *record = tfevents_header(unix_time(), &size);
    const bool ok = put(m->events, m->events_path, record, size, err);
    free(record);
    return ok;
}

Metrics *metrics_open(const char *dir, int64_t resume_step, Err *err) {
    Metrics *m = calloc(1, sizeof *m);
    if (m == NULL) {
        err_errno(err, "%s", dir);
        return NULL;
    }
    m->lines = m->events = -1;
    path_join(m->lines_path, dir, "metrics.jsonl");
    if (!dir_make(dir, err) || !open_events(m, dir, err)) goto fail;
    if (!cut_and_replay(m, resume_step, err)) goto fail;
    m->lines = open(m->lines_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (m->lines >= 0) return m;
    err_errno(err, "cannot write %s", m->lines_path);
fail:
    metrics_close(m);
    return NULL;
}

bool metrics_scalars(Metrics *m, int64_t step, const char *const *names, const double *values,
                     int n, Err *err) {
    CHECK(n >= 0 && n <= SCALARS_MAX);
    const double now = unix_time();
    json_t *line = json_object();
    json_object_set_new(line, "time", json_real(round(now * 1e3) / 1e3));
    json_object_set_new(line, "step", json_integer(step));
    for (int i = 0; i < n; i++)
        json_object_set_new(line, names[i],
                            isfinite(values[i]) ? json_real(values[i]) : json_null());
    char *text = json_text(line, JSON_COMPACT);
    json_decref(line);
    const size_t size = text ? strlen(text) : 0;
    if (text != NULL) text[size] = '\n'; // over the 0: the size is known
    size_t event_size = 0;
    uint8_t *event = tfevents_scalars(now, step, names, values, n, &event_size);
    const bool ok = put(m->lines, m->lines_path, text, size + 1, err) &&
                    put(m->events, m->events_path, event, event_size, err);
    free(event);
    free(text);
    return ok;
}

void metrics_close(Metrics *m) {
    if (m == NULL) return;
    if (m->lines >= 0) close(m->lines);
    if (m->events >= 0) close(m->events);
    free(m);
}
