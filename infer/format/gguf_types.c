// infer/format/gguf_types.c - kinds of values, names, sizes.
#include "infer/format/gguf_types.h"

#include "infer/base/checked.h"

static const struct {
    const char *name;
    int bytes;
} KINDS[] = {{"u8", 1},   {"i8", 1},   {"u16", 2},   {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
             {"bool", 1}, {"text", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8}};
enum { KIND_COUNT = sizeof KINDS / sizeof *KINDS };

const char *gguf_kind_name(GgufKind kind) {
    CHECK((unsigned)kind < KIND_COUNT);
    return KINDS[kind].name;
}

int gguf_kind_bytes(int64_t kind) {
    return kind >= 0 && kind < KIND_COUNT ? KINDS[kind].bytes : -1;
}

const char *gguf_name_problem(const char *name, size_t size, size_t most) {
    if (size == 0) return "is empty";
    if (size > most) return "is too long";
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)name[i] <= 0x20 || (unsigned char)name[i] >= 0x7f)
            return "holds a character that is no visible ASCII";
    return NULL;
}

int64_t gguf_padded(int64_t bytes, int64_t align) {
    int64_t up;
    if (bytes < 0 || !add_fits(bytes, align - 1, &up)) return -1;
    return up / align * align;
}

bool gguf_size(GgufTensor *t, Err *err) {
    t->rows = 1;
    for (int i = 1; i < t->rank; i++)
        if (!mul_fits(t->rows, t->dim[i], &t->rows))
            return err_set(err, ERR_INPUT, "tensor %s: its shape overflows", t->name);
    const int64_t row = ggml_row_bytes(t->type->type, t->dim[0]);
    if (t->dim[0] % t->type->block != 0)
        return err_set(err, ERR_INPUT, "tensor %s: rows of %lld values, %s has blocks of %d",
                       t->name, (long long)t->dim[0], t->type->name, t->type->block);
    if (row < 0 || !mul_fits(t->rows, row, &t->bytes) || !mul_fits(t->rows, t->dim[0], &t->count) ||
        gguf_padded(t->bytes, GGUF_ALIGN_MAX) < 0)
        return err_set(err, ERR_INPUT, "tensor %s: its shape overflows", t->name);
    return true;
}

int64_t gguf_tensor_bytes(GgmlType type, int rank, const int64_t *dim) {
    GgufTensor t = {.name = "", .type = ggml_type(type), .rank = rank};
    CHECK(t.type != NULL && rank >= 1 && rank <= GGUF_RANK_MAX);
    for (int i = 0; i < rank; i++) t.dim[i] = dim[i];
    return gguf_size(&t, NULL) ? t.bytes : -1;
}
