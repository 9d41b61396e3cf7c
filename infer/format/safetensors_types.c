// infer/format/safetensors_types.c - dtype table in the reference writer's order, names, sizes.
#include "infer/format/safetensors_types.h"

#include <string.h>

#include "infer/base/checked.h"

static const struct {
    const char *name;
    int bits;
} DTYPES[] = {
    {"U64", 64},    {"I64", 64},        {"F64", 64},        {"C64", 64},    {"F32", 32},
    {"U32", 32},    {"I32", 32},        {"BF16", 16},       {"F16", 16},    {"U16", 16},
    {"I16", 16},    {"F8_E5M2FNUZ", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E8M0", 8}, {"F8_E4M3", 8},
    {"F8_E5M2", 8}, {"I8", 8},          {"U8", 8},          {"F6_E3M2", 6}, {"F6_E2M3", 6},
    {"F4", 4},      {"BOOL", 8},
};

int st_dtype_rank(const char *dtype) {
    for (size_t i = 0; i < sizeof DTYPES / sizeof *DTYPES; i++)
        if (strcmp(DTYPES[i].name, dtype) == 0) return (int)i;
    return -1;
}

const char *st_name_problem(const char *name, size_t length) {
    if (length == 0) return "is empty";
    if (length > ST_NAME_MAX) return "is longer than 256 bytes";
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f) return "holds a control character";
    return NULL;
}

bool st_size(StTensor *t, Err *err) {
    const int rank = st_dtype_rank(t->dtype);
    if (rank < 0) return err_set(err, ERR_INPUT, "tensor %s: unknown dtype %s", t->name, t->dtype);
    int64_t count = 1, bits = 0;
    for (int i = 0; i < t->rank; i++)
        if (!mul_fits(count, t->dim[i], &count))
            return err_set(err, ERR_INPUT, "tensor %s: the product of its shape overflows",
                           t->name);
    if (!mul_fits(count, DTYPES[rank].bits, &bits))
        return err_set(err, ERR_INPUT, "tensor %s: the product of its shape overflows", t->name);
    if (bits % 8 != 0)
        return err_set(err, ERR_INPUT, "tensor %s: %lld bits are no whole number of bytes", t->name,
                       (long long)bits);
    t->count = count;
    t->bytes = bits / 8;
    return true;
}
