// eval/quant/variant.h - an assistant that differs from another in one matrix.
#ifndef EVAL_VARIANT_H
#define EVAL_VARIANT_H

#include "eval/quant/roundtrip.h"
#include "infer/model/assistant.h"

// Shares everything else with the assistant it was made from, which must outlive it.
typedef struct {
    Assistant a;
    void *block; // of the matrix; gate and up lie in one block
} Variant;

// param: number of the matrix among assistant_params(). importance: of its columns, or NULL.
MUST_CHECK bool variant_open(Variant *v, const Assistant *from, int param, const MixType *t,
                             const float *importance, Err *err);
void variant_close(Variant *v);
size_t variant_bytes(const Assistant *a); // of the largest one

#endif
