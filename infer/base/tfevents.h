// infer/base/tfevents.h - TensorBoard's record and Event encodings, as far as scalars need them.
#ifndef BASE_TFEVENTS_H
#define BASE_TFEVENTS_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(const void *data, size_t size); // Castagnoli
uint32_t crc32c_masked(uint32_t crc);           // as records store it

// Both return a whole record (length, CRC, Event, CRC), its size in *size; malloc'd, NULL = no
// memory.
uint8_t *tfevents_header(double wall_time, size_t *size);
uint8_t *tfevents_scalars(double wall_time, int64_t step, const char *const *names,
                          const double *values, int n, size_t *size);

#endif
