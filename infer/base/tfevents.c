// infer/base/tfevents.c - Event protobufs: wall_time 1, step 2, file_version 3, summary 5 { value 1
// { tag 1, simple_value 2 } }, each in a record with masked CRC32C.
#include "infer/base/tfevents.h"

#include <stdlib.h>
#include <string.h>

enum {
    WIRE_VARINT = 0,
    WIRE_64 = 1,
    WIRE_BYTES = 2,
    WIRE_32 = 5,
    RECORD_HEAD = 12,
    RECORD_TAIL = 4
};

uint32_t crc32c(const void *data, size_t size) { // bit by bit: records are a few hundred bytes
    const uint8_t *p = data;
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1u)));
    }
    return ~crc;
}

uint32_t crc32c_masked(uint32_t crc) {
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

static uint8_t *put_little(uint8_t *p, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) *p++ = (uint8_t)(v >> (8 * i));
    return p;
}

static uint8_t *put_varint(uint8_t *p, uint64_t v) {
    for (; v >= 0x80; v >>= 7) *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}

static size_t varint_size(uint64_t v) {
    size_t n = 1;
    for (; v >= 0x80; v >>= 7) n++;
    return n;
}

static uint8_t *put_key(uint8_t *p, int field, int wire) {
    return put_varint(p, (uint64_t)(field << 3 | wire));
}

static uint8_t *put_time(uint8_t *p, double wall_time) {
    uint64_t bits;
    memcpy(&bits, &wall_time, sizeof bits);
    return put_little(put_key(p, 1, WIRE_64), bits, 8);
}

static uint8_t *put_bytes(uint8_t *p, int field, const char *text) {
    const size_t n = strlen(text);
    p = put_varint(put_key(p, field, WIRE_BYTES), n);
    memcpy(p, text, n);
    return p + n;
}

// `event` starts RECORD_HEAD bytes into `record`; fills head and tail around it.
static size_t frame(uint8_t *record, size_t event) {
    put_little(record, event, 8);
    put_little(record + 8, crc32c_masked(crc32c(record, 8)), 4);
    uint8_t *body = record + RECORD_HEAD;
    put_little(body + event, crc32c_masked(crc32c(body, event)), 4);
    return RECORD_HEAD + event + RECORD_TAIL;
}

uint8_t *tfevents_header(double wall_time, size_t *size) {
    uint8_t *record = malloc(64), *p = record ? record + RECORD_HEAD : NULL;
    if (record == NULL) return NULL;
    p = put_bytes(put_time(p, wall_time), 3, "brain.Event:2");
    *size = frame(record, (size_t)(p - record) - RECORD_HEAD);
    return record;
}

static size_t value_size(const char *tag) {
    const size_t n = strlen(tag);
    return 1 + varint_size(n) + n + 1 + 4;
}

uint8_t *tfevents_scalars(double wall_time, int64_t step, const char *const *names,
                          const double *values, int n, size_t *size) {
    size_t summary = 0;
    for (int i = 0; i < n; i++)
        summary += 1 + varint_size(value_size(names[i])) + value_size(names[i]);
    uint8_t *record = malloc(RECORD_HEAD + 9 + 11 + 11 + summary + RECORD_TAIL);
    if (record == NULL) return NULL;
    uint8_t *p = put_time(record + RECORD_HEAD, wall_time);
    p = put_varint(put_key(p, 2, WIRE_VARINT), (uint64_t)step);
    p = put_varint(put_key(p, 5, WIRE_BYTES), summary);
    for (int i = 0; i < n; i++) {
        const float f = (float)values[i];
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        p = put_varint(put_key(p, 1, WIRE_BYTES), value_size(names[i]));
        p = put_little(put_key(put_bytes(p, 1, names[i]), 2, WIRE_32), bits, 4);
    }
    *size = frame(record, (size_t)(p - record) - RECORD_HEAD);
    return record;
}
