// infer/format/safetensors_writer.c - the bytes of the reference writer: dtype rank then name,
// compact JSON padded to 8 bytes, data without holes; atomic.
#include <stdlib.h>
#include <string.h>

#include "infer/base/checked.h"
#include "infer/format/safetensors_types.h"

typedef struct {
    char *text;
    size_t used, room;
    bool failed; // memory ran out
} Text;

struct StWriter {
    OutFile out;
    StTensor *tensor; // names owned
    int n, room;
    Text metadata; // the inside of {"key":"value",...}
    bool begun;
    int at;          // tensor being written
    int64_t at_byte; // written of it
};

static void text_add(Text *t, const char *s, size_t n) {
    if (t->failed) return;
    if (t->used + n + 1 > t->room) {
        const size_t room = 2 * (t->used + n + 1);
        char *grown = realloc(t->text, room);
        if (grown == NULL) {
            t->failed = true;
            return;
        }
        t->text = grown;
        t->room = room;
    }
    memcpy(t->text + t->used, s, n);
    t->used += n;
    t->text[t->used] = '\0';
}

static void text_puts(Text *t, const char *s) {
    text_add(t, s, strlen(s));
}

// The escapes serde_json writes; other characters stay UTF-8.
static void text_string(Text *t, const char *s) {
    static const char SHORT[] = "\"\\\b\f\n\r\t", LETTER[] = "\"\\bfnrt";
    text_puts(t, "\"");
    for (; *s != '\0'; s++) {
        const char *known = strchr(SHORT, *s);
        char escape[8] = {'\\', 0};
        if (known != NULL) {
            escape[1] = LETTER[known - SHORT];
            text_add(t, escape, 2);
        } else if ((unsigned char)*s < 0x20) {
            snprintf(escape, sizeof escape, "\\u%04x", *s);
            text_add(t, escape, 6);
        } else {
            text_add(t, s, 1);
        }
    }
    text_puts(t, "\"");
}

static void text_number(Text *t, int64_t v) {
    char digits[24];
    snprintf(digits, sizeof digits, "%lld", (long long)v);
    text_puts(t, digits);
}

StWriter *st_writer_open(const char *path, Err *err) {
    StWriter *w = calloc(1, sizeof *w);
    if (w == NULL) {
        err_set(err, ERR_FAILED, "out of memory");
        return NULL;
    }
    w->out.fd = -1;
    if (path == NULL || out_open(&w->out, path, err)) return w;
    st_writer_drop(w);
    return NULL;
}

bool st_writer_declare(StWriter *w, const char *name, const char *dtype, int rank,
                       const int64_t *dim, Err *err) {
    CHECK(!w->begun && rank >= 0 && rank <= ST_RANK_MAX);
    const char *problem = st_name_problem(name, strlen(name));
    if (problem != NULL || strcmp(name, "__metadata__") == 0)
        return err_set(err, ERR_INPUT, "tensor name \"%.64s\" %s", name,
                       problem != NULL ? problem : "is reserved");
    if (w->n == w->room) {
        const int room = w->room == 0 ? 64 : 2 * w->room;
        StTensor *grown = realloc(w->tensor, (size_t)room * sizeof *grown);
        if (grown == NULL) return err_set(err, ERR_FAILED, "out of memory");
        w->tensor = grown;
        w->room = room;
    }
    StTensor t = {.name = name, .rank = rank};
    if (st_dtype_rank(dtype) < 0)
        return err_set(err, ERR_INPUT, "tensor %s: unknown dtype %.32s", name, dtype);
    strcpy(t.dtype, dtype);
    for (int i = 0; i < rank; i++) {
        CHECK(dim[i] >= 0);
        t.dim[i] = dim[i];
    }
    if (!st_size(&t, err)) return false;
    if ((t.name = strdup(name)) == NULL) return err_set(err, ERR_FAILED, "out of memory");
    w->tensor[w->n++] = t;
    return true;
}

void st_writer_metadata(StWriter *w, const char *key, const char *value) {
    CHECK(!w->begun);
    if (w->metadata.used > 0) text_puts(&w->metadata, ",");
    text_string(&w->metadata, key);
    text_puts(&w->metadata, ":");
    text_string(&w->metadata, value);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const StTensor *)a)->name, ((const StTensor *)b)->name);
}

static int compare_order(const void *a, const void *b) {
    const StTensor *x = a, *y = b;
    const int rx = st_dtype_rank(x->dtype), ry = st_dtype_rank(y->dtype);
    return rx != ry ? rx - ry : strcmp(x->name, y->name);
}

// Offsets are relative to the data until the header's length is known.
static bool fix_order(StWriter *w, Err *err) {
    if (w->n == 0) return true;
    qsort(w->tensor, (size_t)w->n, sizeof *w->tensor, compare_names);
    for (int i = 1; i < w->n; i++)
        if (compare_names(&w->tensor[i - 1], &w->tensor[i]) == 0)
            return err_set(err, ERR_INPUT, "tensor %s is declared twice", w->tensor[i].name);
    qsort(w->tensor, (size_t)w->n, sizeof *w->tensor, compare_order);
    int64_t at = 0;
    for (int i = 0; i < w->n; i++) {
        w->tensor[i].offset = at;
        if (!add_fits(at, w->tensor[i].bytes, &at))
            return err_set(err, ERR_INPUT, "tensor %s: offset overflows", w->tensor[i].name);
    }
    return true;
}

static void header_text(const StWriter *w, Text *t) {
    text_puts(t, "{");
    if (w->metadata.used > 0) {
        text_puts(t, "\"__metadata__\":{");
        text_add(t, w->metadata.text, w->metadata.used);
        text_puts(t, w->n > 0 ? "}," : "}");
    }
    for (int i = 0; i < w->n; i++) {
        const StTensor *x = &w->tensor[i];
        if (i > 0) text_puts(t, ",");
        text_string(t, x->name);
        text_puts(t, ":{\"dtype\":\"");
        text_puts(t, x->dtype);
        text_puts(t, "\",\"shape\":[");
        for (int d = 0; d < x->rank; d++) {
            if (d > 0) text_puts(t, ",");
            text_number(t, x->dim[d]);
        }
        text_puts(t, "],\"data_offsets\":[");
        text_number(t, x->offset);
        text_puts(t, ",");
        text_number(t, x->offset + x->bytes);
        text_puts(t, "]}");
    }
    text_puts(t, "}");
    while (!t->failed && t->used % 8 != 0) text_puts(t, " ");
}

bool st_writer_file_bytes(StWriter *w, int64_t *bytes, Err *err) {
    CHECK(!w->begun);
    if (!fix_order(w, err)) return false;
    Text header = {0};
    header_text(w, &header);
    const StTensor *last = w->n > 0 ? &w->tensor[w->n - 1] : NULL;
    const bool ok = !header.failed || err_set(err, ERR_FAILED, "out of memory");
    *bytes = 8 + (int64_t)header.used + (last != NULL ? last->offset + last->bytes : 0);
    free(header.text);
    return ok;
}

bool st_writer_begin(StWriter *w, Err *err) {
    CHECK(!w->begun && w->out.fd >= 0);
    if (!fix_order(w, err)) return err_wrap(err, "%s", w->out.path);
    Text header = {0};
    header_text(w, &header);
    bool ok = !header.failed && !w->metadata.failed;
    if (!ok) err_set(err, ERR_FAILED, "%s: out of memory", w->out.path);
    if (ok && header.used > ST_HEADER_MAX)
        ok = err_set(err, ERR_INPUT, "%s: header of %zu bytes, at most %d are allowed", w->out.path,
                     header.used, ST_HEADER_MAX);
    if (ok) {
        unsigned char prefix[8];
        for (int i = 0; i < 8; i++) prefix[i] = (unsigned char)(header.used >> 8 * i);
        out_write(&w->out, prefix, sizeof prefix);
        out_write(&w->out, header.text, header.used);
        for (int i = 0; i < w->n; i++) w->tensor[i].offset += 8 + (int64_t)header.used;
        w->begun = true;
    }
    free(header.text);
    return ok;
}

int st_writer_count(const StWriter *w) {
    return w->n;
}

const StTensor *st_writer_order(const StWriter *w, int i) {
    CHECK(w->begun && i >= 0 && i < w->n);
    return &w->tensor[i];
}

// Empty tensors take no data: step over them.
static void skip_finished(StWriter *w) {
    while (w->at < w->n && w->at_byte == w->tensor[w->at].bytes) {
        w->at++;
        w->at_byte = 0;
    }
}

bool st_writer_data(StWriter *w, const void *data, int64_t bytes, Err *err) {
    CHECK(w->begun && bytes >= 0);
    skip_finished(w);
    if (bytes == 0) return true;
    CHECK(w->at < w->n, "more data than was declared");
    StTensor *t = &w->tensor[w->at];
    CHECK(bytes <= t->bytes - w->at_byte, "tensor %s: more data than its shape", t->name);
    out_write(&w->out, data, (size_t)bytes);
    w->at_byte += bytes;
    if (w->out.error == 0) return true;
    return err_set(err, ERR_FAILED, "%s: %s", w->out.path, strerror(w->out.error));
}

bool st_writer_commit(StWriter *w, Err *err) {
    CHECK(w->begun);
    skip_finished(w);
    CHECK(w->at == w->n, "data of tensor %s are missing", w->tensor[w->at].name);
    const bool ok = out_commit(&w->out, err);
    st_writer_drop(w);
    return ok;
}

void st_writer_drop(StWriter *w) {
    if (w == NULL) return;
    out_drop(&w->out);
    for (int i = 0; i < w->n; i++) free((char *)w->tensor[i].name);
    free(w->tensor);
    free(w->metadata.text);
    free(w);
}
