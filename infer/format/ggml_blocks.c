// infer/format/ggml_blocks.c - the table of types; rows are checked, then handed out to all cores.
#include "infer/format/ggml_blocks.h"

#include <stddef.h>
#include <string.h>

#include "infer/base/checked.h"
#include "infer/base/cores.h"
#include "infer/format/ggml_parts.h"

enum { CHUNK = 1 << 16 }; // elements a core takes at a time, or one row where it is longer

typedef struct {
    GgmlTypeInfo info;
    BlockEncoder *encode;
    BlockDecoder *decode;
    float most;  // no larger weight can be told apart from infinity, or squared and summed
    int half[2]; // offsets of the block's scales in half precision, -1 = none
} Codec;

#define F16_MOST 65519.996f        // the next float rounds to infinity
#define BF16_MOST 0x1.fefffep+127f // so does this one's next
#define F32_MOST 0x1.fffffep+127f
#define BLOCK_MOST 1e9f // 65504 * 127 * 32 is the most that any block type holds

static const Codec CODEC[] = {
    {{GGML_F32, "F32", 1, 4, false}, encode_f32, decode_f32, F32_MOST, {-1, -1}},
    {{GGML_F16, "F16", 1, 2, false}, encode_f16, decode_f16, F16_MOST, {-1, -1}},
    {{GGML_BF16, "BF16", 1, 2, false}, encode_bf16, decode_bf16, BF16_MOST, {-1, -1}},
    {{GGML_I32, "I32", 1, 4, false}, NULL, NULL, 0.0f, {-1, -1}},
    {{GGML_Q8_0, "Q8_0", 32, 34, false}, encode_q8_0, decode_q8_0, BLOCK_MOST, {0, -1}},
    {{GGML_Q6_K, "Q6_K", 256, 210, true}, encode_q6_k, decode_q6_k, BLOCK_MOST, {208, -1}},
    {{GGML_Q5_K, "Q5_K", 256, 176, true}, encode_q5_k, decode_q5_k, BLOCK_MOST, {0, 2}},
    {{GGML_Q4_K, "Q4_K", 256, 144, true}, encode_q4_k, decode_q4_k, BLOCK_MOST, {0, 2}},
    {{GGML_Q3_K, "Q3_K", 256, 110, true}, encode_q3_k, decode_q3_k, BLOCK_MOST, {108, -1}},
    {{GGML_IQ4_NL, "IQ4_NL", 32, 18, true}, encode_iq4_nl, decode_iq4_nl, BLOCK_MOST, {0, -1}},
    {{GGML_IQ4_XS, "IQ4_XS", 256, 136, true}, encode_iq4_xs, decode_iq4_xs, BLOCK_MOST, {0, -1}},
    {{GGML_MXFP4, "MXFP4", 32, 17, false}, encode_mxfp4, decode_mxfp4, F32_MOST, {-1, -1}},
    {{GGML_Q4_0, "Q4_0", 32, 18, true}, encode_q4_0, decode_q4_0, BLOCK_MOST, {0, -1}},
    {{GGML_Q4_1, "Q4_1", 32, 20, true}, encode_q4_1, decode_q4_1, BLOCK_MOST, {0, 2}},
    {{GGML_Q5_0, "Q5_0", 32, 22, true}, encode_q5_0, decode_q5_0, BLOCK_MOST, {0, -1}},
    {{GGML_Q5_1, "Q5_1", 32, 24, true}, encode_q5_1, decode_q5_1, BLOCK_MOST, {0, 2}},
};
enum { CODECS = sizeof CODEC / sizeof *CODEC };

static const Codec *codec(int id) {
    for (int i = 0; i < CODECS; i++)
        if ((int)CODEC[i].info.type == id) return &CODEC[i];
    return NULL;
}

const GgmlTypeInfo *ggml_type(int id) {
    const Codec *c = codec(id);
    return c == NULL ? NULL : &c->info;
}

const GgmlTypeInfo *ggml_type_named(const char *name) {
    for (int i = 0; i < CODECS; i++)
        if (strcmp(CODEC[i].info.name, name) == 0) return &CODEC[i].info;
    return NULL;
}

int64_t ggml_row_bytes(GgmlType t, int64_t n) {
    const Codec *c = codec((int)t);
    int64_t bytes;
    if (c == NULL || n < 0 || n % c->info.block != 0) return -1;
    return mul_fits(n / c->info.block, c->info.bytes, &bytes) ? bytes : -1;
}

// What both directions begin with. *bytes: of a row.
static bool check_call(const Codec *c, int64_t rows, int64_t n, int64_t *bytes, Err *err) {
    CHECK(c != NULL && rows >= 0 && n >= 0);
    if (c->encode == NULL) return err_set(err, ERR_INPUT, "%s holds no weights", c->info.name);
    *bytes = ggml_row_bytes(c->info.type, n);
    if (*bytes < 0)
        return err_set(err, ERR_INPUT, "rows of %lld weights are no blocks of %d (%s)",
                       (long long)n, c->info.block, c->info.name);
    return true;
}

static int64_t rows_at_a_time(int64_t n) {
    return n >= CHUNK || n == 0 ? 1 : CHUNK / n;
}

// The first of n numbers that is NaN or of larger magnitude than `most`, n = none.
KERNEL static int64_t first_beyond(const float *x, int64_t n, float most) {
    int32_t limit;
    memcpy(&limit, &most, sizeof limit);
    for (int64_t i = 0; i < n; i += 4096) {
        const int64_t end = i + 4096 < n ? i + 4096 : n;
        int32_t bad = 0;
        for (int64_t k = i; k < end; k++) {
            int32_t bits;
            memcpy(&bits, x + k, sizeof bits);
            bad |= (bits & 0x7fffffff) > limit; // floats of one sign are ordered as their bits
        }
        for (int64_t k = i; bad && k < end; k++)
            if (!(fabsf(x[k]) <= most)) return k;
    }
    return n;
}

// The first block with a scale that half precision cannot hold, `blocks` = none.
static int64_t first_bad_block(const Codec *c, const uint8_t *q, int64_t blocks) {
    if (c->half[0] < 0) return blocks;
    for (int64_t b = 0; b < blocks; b++, q += c->info.bytes)
        for (int k = 0; k < 2 && c->half[k] >= 0; k++)
            if ((q[c->half[k] + 1] & 0x7c) == 0x7c) return b;
    return blocks;
}

// Where a chunk failed first; every chunk is looked at, so that the same row is named on any number
// of cores.
typedef struct {
    int64_t at; // element of the tensor, INT64_MAX = nowhere
    bool scale; // a scale overflowed, else the element itself is refused
} Trouble;

static Trouble encode_chunk(const Codec *c, const BlockRun *run, int64_t first) {
    const int64_t count = run->blocks * c->info.block, bad = first_beyond(run->x, count, c->most);
    if (bad < count) return (Trouble){first + bad, false};
    c->encode(run);
    const int64_t block = first_bad_block(c, run->out, run->blocks);
    if (block < run->blocks) return (Trouble){first + block * c->info.block, true};
    return (Trouble){INT64_MAX, false};
}

static bool check_importance(const float *importance, int64_t n, Err *err) {
    for (int64_t i = 0; importance != NULL && i < n; i++)
        if (!(importance[i] >= 0.0f && isfinite(importance[i])))
            return err_set(err, ERR_INPUT, "importance of column %lld is %g", (long long)i,
                           (double)importance[i]);
    return true;
}

bool ggml_encode(GgmlType t, void *out, const float *x, int64_t rows, int64_t n,
                 const float *importance, Err *err) {
    const Codec *c = codec((int)t);
    int64_t bytes;
    if (!check_call(c, rows, n, &bytes, err)) return false;
    if (!c->info.importance) importance = NULL;
    if (!check_importance(importance, n, err)) return false;
    const int64_t step = rows_at_a_time(n);
    Trouble worst = {INT64_MAX, false};
#pragma omp parallel for num_threads(cores_used()) schedule(dynamic)
    for (int64_t row = 0; row < rows; row += step) {
        const int64_t count = rows - row < step ? rows - row : step;
        const BlockRun run = {x + row * n, importance, n, count * n / c->info.block,
                              (uint8_t *)out + row * bytes};
        const Trouble found = encode_chunk(c, &run, row * n);
        if (found.at == INT64_MAX) continue;
#pragma omp critical(ggml_encode_trouble)
        if (found.at < worst.at) worst = found;
    }
    if (worst.at == INT64_MAX) return true;
    const long long row = worst.at / n, column = worst.at % n;
    if (!worst.scale)
        return err_set(err, ERR_INPUT, "row %lld, column %lld is %g%s%s", row, column,
                       (double)x[worst.at], isfinite(x[worst.at]) ? ", beyond " : "",
                       isfinite(x[worst.at]) ? c->info.name : "");
    return err_set(err, ERR_INPUT, "row %lld, columns %lld-%lld: the scale is beyond what %s holds",
                   row, column, column + c->info.block - 1, c->info.name);
}

bool ggml_decode(GgmlType t, float *out, const void *q, int64_t rows, int64_t n, Err *err) {
    const Codec *c = codec((int)t);
    int64_t bytes;
    if (!check_call(c, rows, n, &bytes, err)) return false;
    const int64_t step = rows_at_a_time(n);
#pragma omp parallel for num_threads(cores_used()) schedule(static)
    for (int64_t row = 0; row < rows; row += step) {
        const int64_t count = rows - row < step ? rows - row : step;
        c->decode(out + row * n, (const uint8_t *)q + row * bytes, count * n / c->info.block);
    }
    return true;
}
