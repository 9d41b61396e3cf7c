// train/optimizer.h - AdamW over flat f32 buffers: masters, both moments, gradients, weight
// average.
//
// All buffers hold the assistant's parameters in the order of assistant_params(). A frozen
// parameter gets no update: neither its master nor what the forward pass reads ever changes.
#ifndef TRAIN_OPTIMIZER_H
#define TRAIN_OPTIMIZER_H

#include "infer/model/assistant.h"

typedef struct {
    float beta1, beta2, eps, decay;
    double clip; // global norm; 0 = off
    double ema;  // 0 = no average; else its decay, warmed up as min(ema, (1 + t) / (10 + t))
} OptimizerOptions;

typedef struct {
    char name[96];
    int64_t offset, count; // elements of the flat buffers
    int64_t rows, cols;
    bool decay, frozen;
    Tensor *use; // what the forward pass reads (Assistant.w)
} OptParam;

typedef struct {
    OptimizerOptions opt;
    int n;
    OptParam param[ASSISTANT_PARAMS_MAX];
    int64_t count, trainable;       // elements
    Tensor master, m, v, grad, ema; // F32 (1, count); ema.data NULL without
    AssistantWeights grads;         // views into grad
    Tensor sum;                     // F64 (1, 1)
} Optimizer;

// Bytes the optimiser takes from the model arena.
size_t optimizer_bytes(const AssistantConfig *c, const OptimizerOptions *opt);
// Takes the buffers and fills the masters from a's weights. freeze: HF keys or fnmatch patterns;
// one that matches no tensor is ERR_USAGE. With f32 weights, a->w is pointed at the masters.
MUST_CHECK bool optimizer_open(Optimizer *o, Assistant *a, const OptimizerOptions *opt,
                               char *const *freeze, int nfreeze, Arena *arena, Err *err);
// Zeroes what frozen parameters received, so that the flat buffer is what is summed and clipped.
void optimizer_mask(Optimizer *o, Device *dev);
// Euclidean norm of the (masked) gradient.
MUST_CHECK bool optimizer_norm(Optimizer *o, Device *dev, double *norm, Err *err);
// One step from o->grad, clipped by `norm`; step counts from 1.
void optimizer_step(Optimizer *o, Device *dev, double norm, double lr, int64_t step);
// Writes the masters (average false) or the weight average into what the forward pass reads.
void optimizer_publish(Optimizer *o, Device *dev, bool average);

#endif
