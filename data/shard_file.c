// data/shard_file.c - the schema of a shard: fields, HDF5 types, chunking, attributes.
#include "data/shard_file.h"

#include <stdarg.h>
#include <string.h>

enum { CHUNK_BYTES = 1 << 20 };

typedef enum { ELT_BF16, ELT_I32, ELT_I64, ELT_U8, ELT_F64, ELT_TEXT } Element;
typedef enum { AXIS_TOKENS, AXIS_STATES, AXIS_SEQUENCES, AXIS_OFFSETS } Axis;
typedef enum { WIDTH_ONE, WIDTH_HIDDEN, WIDTH_SLIDING, WIDTH_FULL } Width;

#define ROOM(member) sizeof(((Sample *)0)->member)
static const struct {
    const char *name;
    Element element;
    Axis axis;
    Width width;
    size_t text; // bytes of ELT_TEXT
} fields[FIELD_COUNT] = {
    [FIELD_IDS] = {"ids", ELT_I32, AXIS_TOKENS, WIDTH_ONE, 0},
    [FIELD_KIND] = {"kind", ELT_U8, AXIS_TOKENS, WIDTH_ONE, 0},
    [FIELD_MASK] = {"mask", ELT_U8, AXIS_TOKENS, WIDTH_ONE, 0},
    [FIELD_HIDDEN] = {"hidden", ELT_BF16, AXIS_STATES, WIDTH_HIDDEN, 0},
    [FIELD_K_SLIDING] = {"k_sliding", ELT_BF16, AXIS_TOKENS, WIDTH_SLIDING, 0},
    [FIELD_V_SLIDING] = {"v_sliding", ELT_BF16, AXIS_TOKENS, WIDTH_SLIDING, 0},
    [FIELD_K_FULL] = {"k_full", ELT_BF16, AXIS_TOKENS, WIDTH_FULL, 0},
    [FIELD_V_FULL] = {"v_full", ELT_BF16, AXIS_TOKENS, WIDTH_FULL, 0},
    [FIELD_OFFSETS] = {"offsets", ELT_I64, AXIS_OFFSETS, WIDTH_ONE, 0},
    [FIELD_PROMPT_ID] = {"prompt_id", ELT_TEXT, AXIS_SEQUENCES, WIDTH_ONE, ROOM(id)},
    [FIELD_CATEGORY] = {"category", ELT_TEXT, AXIS_SEQUENCES, WIDTH_ONE, ROOM(category)},
    [FIELD_SOURCE] = {"source", ELT_TEXT, AXIS_SEQUENCES, WIDTH_ONE, ROOM(source)},
    [FIELD_SAMPLER] = {"sampler", ELT_TEXT, AXIS_SEQUENCES, WIDTH_ONE, ROOM(sampler)},
    [FIELD_SAMPLE] = {"sample", ELT_I32, AXIS_SEQUENCES, WIDTH_ONE, 0},
    [FIELD_PROMPT] = {"prompt_tokens", ELT_I64, AXIS_SEQUENCES, WIDTH_ONE, 0},
    [FIELD_STOPPED] = {"stopped", ELT_U8, AXIS_SEQUENCES, WIDTH_ONE, 0},
    [FIELD_MARGIN] = {"margin", ELT_F64, AXIS_SEQUENCES, WIDTH_ONE, 0},
    [FIELD_BARE] = {"bare", ELT_I64, AXIS_SEQUENCES, WIDTH_ONE, 0},
};

// What the library said first since h5_quiet: later calls, closing among them, clear its own stack.
static _Thread_local char reason[300];

// The innermost entry of the stack says what the system said ("No space left on device").
static herr_t innermost(unsigned n, const H5E_error2_t *e, void *unused) {
    (void)unused;
    if (n == 0 && e->desc) snprintf(reason, sizeof reason, "%s", e->desc);
    return 0;
}

static herr_t note_failure(hid_t stack, void *unused) {
    (void)unused;
    if (reason[0] == 0) H5Ewalk2(stack, H5E_WALK_UPWARD, innermost, NULL);
    return 0;
}

void h5_quiet(void) {
    // A file whose last write failed cannot be closed, and the library's own exit handler then
    // reads freed memory. Whatever can be closed is closed by us.
    H5dont_atexit();
    H5open();
    H5Eset_auto2(H5E_DEFAULT, note_failure, NULL);
    H5PLset_loading_state(0); // a filter id in a file must never load a library
    reason[0] = 0;
}

const char *field_name(FieldId f) {
    return fields[f].name;
}

static size_t element_bytes(FieldId f) {
    switch (fields[f].element) {
    case ELT_BF16:
        return 2;
    case ELT_I32:
        return 4;
    case ELT_I64:
    case ELT_F64:
        return 8;
    case ELT_U8:
        return 1;
    case ELT_TEXT:
        break;
    }
    return fields[f].text;
}

hid_t field_type(FieldId f) {
    hid_t t = -1;
    switch (fields[f].element) {
    case ELT_BF16: // a float type of its own, so that any HDF5 tool prints the right numbers
        t = H5Tcopy(H5T_IEEE_F32LE);
        H5Tset_fields(t, 15, 7, 8, 0, 7);
        H5Tset_size(t, 2);
        H5Tset_ebias(t, 127);
        return t;
    case ELT_I32:
        return H5Tcopy(H5T_STD_I32LE);
    case ELT_I64:
        return H5Tcopy(H5T_STD_I64LE);
    case ELT_U8:
        return H5Tcopy(H5T_STD_U8LE);
    case ELT_F64:
        return H5Tcopy(H5T_IEEE_F64LE);
    case ELT_TEXT:
        break;
    }
    t = H5Tcopy(H5T_C_S1);
    H5Tset_size(t, fields[f].text);
    H5Tset_strpad(t, H5T_STR_NULLTERM);
    H5Tset_cset(t, H5T_CSET_UTF8);
    return t;
}

int64_t field_width(FieldId f, const ShardMeta *m) {
    switch (fields[f].width) {
    case WIDTH_ONE:
        break;
    case WIDTH_HIDDEN:
        return m->hidden;
    case WIDTH_SLIDING:
        return m->kv_width[LAYER_SLIDING];
    case WIDTH_FULL:
        return m->kv_width[LAYER_FULL];
    }
    return 0;
}

int64_t field_row_bytes(FieldId f, const ShardMeta *m) {
    const int64_t width = field_width(f, m);
    return (int64_t)element_bytes(f) * (width ? width : 1);
}

int64_t field_rows(FieldId f, const ShardEntry *e) {
    switch (fields[f].axis) {
    case AXIS_TOKENS:
        return e->tokens;
    case AXIS_STATES:
        return e->states;
    case AXIS_OFFSETS:
        return e->sequences + 1;
    case AXIS_SEQUENCES:
        break;
    }
    return e->sequences;
}

int64_t field_chunk_rows(FieldId f, const ShardMeta *m, int64_t rows) {
    const int64_t fit = CHUNK_BYTES / field_row_bytes(f, m);
    return fit < 1 ? 1 : fit < rows ? fit : rows;
}

int64_t shard_bytes(const ShardMeta *m, int64_t tokens, int64_t states) {
    int64_t bytes = 0;
    for (int f = 0; f < FIELD_COUNT; f++)
        if (fields[f].axis == AXIS_TOKENS || fields[f].axis == AXIS_STATES)
            bytes +=
                field_row_bytes((FieldId)f, m) * (fields[f].axis == AXIS_TOKENS ? tokens : states);
    return bytes;
}

int64_t shard_bytes_per_token(const ShardMeta *m) {
    return shard_bytes(m, 1, 1);
}

int64_t shard_bytes_per_state(const ShardMeta *m) {
    return shard_bytes(m, 0, 1);
}

bool h5_failed(Err *err, ErrCode code, const char *fmt, ...) {
    char text[700];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const char *quoted = strstr(reason, "error message = '"); // the system's part of a long line
    const char *why = quoted ? quoted + 17 : reason;
    const int n = (int)strcspn(why, quoted ? "'" : "");
    if (quoted && code == ERR_INPUT) code = ERR_FAILED; // the disk, not what is on it
    err_set(err, code, "%s%s%.*s", text, n ? ": " : "", n, why);
    reason[0] = 0;
    return false;
}

static hid_t attribute_type(const MetaField *f) {
    if (!f->room) return H5Tcopy(H5T_STD_I64LE);
    const hid_t t = H5Tcopy(H5T_C_S1);
    H5Tset_size(t, f->room);
    H5Tset_strpad(t, H5T_STR_NULLTERM);
    return t;
}

static bool put_attribute(hid_t file, const char *name, hid_t type, const void *value) {
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t a = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    const bool ok = a >= 0 && H5Awrite(a, type, value) >= 0;
    if (a >= 0) H5Aclose(a);
    H5Sclose(space);
    return ok;
}

bool shard_write_attributes(hid_t file, const ShardMeta *m, Err *err) {
    const int64_t version = SHARD_VERSION;
    bool ok = put_attribute(file, "version", H5T_STD_I64LE, &version);
    for (int i = 0; i < META_FIELDS && ok; i++) {
        const hid_t t = attribute_type(&meta_fields[i]);
        ok = put_attribute(file, meta_fields[i].name, t, (const char *)m + meta_fields[i].offset);
        H5Tclose(t);
    }
    return ok || h5_failed(err, ERR_FAILED, "attributes");
}

static bool get_attribute(hid_t file, const char *name, hid_t type, void *value) {
    const hid_t a = H5Aopen(file, name, H5P_DEFAULT);
    if (a < 0) return false;
    const hid_t stored = H5Aget_type(a), space = H5Aget_space(a);
    const bool ok = H5Tequal(stored, type) > 0 && H5Sget_simple_extent_type(space) == H5S_SCALAR &&
                    H5Aread(a, type, value) >= 0;
    H5Tclose(stored);
    H5Sclose(space);
    H5Aclose(a);
    return ok;
}

bool shard_read_attributes(hid_t file, ShardMeta *m, int64_t *version, Err *err) {
    *m = (ShardMeta){0};
    if (!get_attribute(file, "version", H5T_STD_I64LE, version))
        return h5_failed(err, ERR_INPUT, "attribute version is missing or of another type");
    if (*version < 1 || *version > SHARD_VERSION)
        return err_set(err, ERR_INPUT, "version %lld, this program reads 1 to %d",
                       (long long)*version, (int)SHARD_VERSION);
    for (int i = 0; i < META_FIELDS; i++) {
        const MetaField *f = &meta_fields[i];
        const hid_t t = attribute_type(f);
        const bool ok = get_attribute(file, f->name, t, (char *)m + f->offset);
        H5Tclose(t);
        if (!ok)
            return h5_failed(err, ERR_INPUT, "attribute %s is missing or of another type", f->name);
        if (f->room) ((char *)m + f->offset)[f->room - 1] = 0;
    }
    return true;
}
