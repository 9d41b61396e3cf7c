// infer/model/assistant_parts.h - views that the assistant's forward and backward share.
#ifndef MODEL_ASSISTANT_PARTS_H
#define MODEL_ASSISTANT_PARTS_H

#include "infer/model/assistant.h"

// (2 inter, H): gate and up are neighbours in the flat buffer, so one product serves both.
static inline Tensor gate_and_up(const AssistantLayer *l) {
    CHECK((char *)l->gate.data + tensor_bytes(l->gate) == (char *)l->up.data);
    return tensor_of(l->gate.data, l->gate.dtype, 2 * l->gate.rows, l->gate.cols);
}

// (rows, 2 inter) from its left half.
static inline Tensor both_halves(Tensor left) {
    CHECK(left.ld == 2 * left.cols);
    return tensor_of(left.data, left.dtype, left.rows, left.ld);
}

#endif
